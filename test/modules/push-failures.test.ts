/** XEP-0357 §7.1, §8: what becomes of registrations that app servers refuse, do not answer or take back; and after a restart. */
import { expect } from 'chai'
import push from '../../modules/push/index.ts'
import { openMemory } from '../../server/storage/memory.ts'
import { VirtualClock } from '../helpers/clock.ts'
import { APP, AppServer, enable, kept, type PushStage, pushStage, ROMEO, SECRET } from '../helpers/push.ts'

describe('push: failures (XEP-0357)', () => {
  describe('§7.1: errors', () => {
    for (const [type, condition] of [
      ['cancel', 'item-not-found'],
      ['cancel', 'gone'],
      ['auth', 'forbidden'],
      ['auth', 'not-authorized'],
      ['modify', 'bad-request'],
      ['cancel', 'not-allowed'],
      ['cancel', 'conflict'],
      ['cancel', 'feature-not-implemented'],
    ] as const)
      it(`${condition}: the registration is removed`, async () => {
        await using stage = await pushStage({}, { onLog: () => undefined })
        await stage.away('phone')
        stage.app.answer = { type, condition }
        await stage.say('one')
        expect(await stage.app.counts()).to.deep.equal(['phone 1'])
        stage.app.answer = 'result'
        await stage.host.clock.advance(3_600_000)
        await stage.say('two')
        await stage.host.clock.advance(3_600_000)
        expect(await stage.app.counts()).to.deep.equal([])
        expect(await kept(stage.host)).to.deep.equal([])
      })

    for (const [type, condition] of [
      ['wait', 'policy-violation'],
      ['wait', 'resource-constraint'],
      ['cancel', 'internal-server-error'],
      ['cancel', 'service-unavailable'],
      ['cancel', 'remote-server-not-found'],
      ['wait', 'remote-server-timeout'],
    ] as const)
      it(`${condition} (${type}): tried again until it is taken`, async () => {
        await using stage = await pushStage({}, { onLog: () => undefined })
        await stage.away('phone')
        stage.app.answer = { type, condition }
        await stage.say('one')
        expect(await stage.app.counts()).to.deep.equal(['phone 1'])
        await stage.host.clock.advance(5000)
        expect(await stage.app.counts()).to.deep.equal(['phone 1'])
        stage.app.answer = 'result'
        await stage.host.clock.advance(10_000)
        expect(await stage.app.counts()).to.deep.equal(['phone 1'])
        await stage.host.clock.advance(3_600_000)
        expect(await stage.app.counts()).to.deep.equal([])
      })

    it('no answer: tried again, and told once when the app server is back, with what came meanwhile', async () => {
      await using stage = await pushStage({}, { onLog: () => undefined })
      await stage.away('phone')
      stage.app.answer = 'nothing'
      await stage.say('one')
      expect(await stage.app.counts()).to.deep.equal(['phone 1'])
      await stage.host.clock.advance(600_000)
      await stage.say('two')
      await stage.host.clock.advance(600_000)
      const tries = (await stage.app.told()).length
      expect(tries).to.be.within(2, 10)
      stage.app.answer = 'result'
      expect(await stage.app.during(stage.host, 2_000_000)).to.deep.equal(['phone 2'])
    })

    it('no answer, and the clock goes back by hours: tried again as soon as otherwise', async () => {
      await using stage = await pushStage({}, { onLog: () => undefined })
      await stage.away('phone')
      stage.app.answer = 'nothing'
      await stage.say('one')
      expect(await stage.app.counts()).to.deep.equal(['phone 1'])
      await stage.host.clock.advance(31_000)
      stage.host.clock.putBack(7_200_000)
      stage.app.answer = 'result'
      expect(await stage.app.during(stage.host, 120_000)).to.deep.equal(['phone 1'])
    })

    it('an app server that is gone and comes back', async () => {
      await using stage = await pushStage({}, { onLog: () => undefined })
      await stage.away('phone')
      await stage.app.client.close()
      await stage.say('one')
      await stage.host.clock.advance(60_000)
      const back = new AppServer(await stage.host.client(APP))
      expect(await back.during(stage.host, 300_000)).to.deep.equal(['phone 1'])
    })

    it('out of reach for days: given up, so that nobody tries for ever', async () => {
      await using stage = await pushStage({ unreachable: '6h' }, { onLog: () => undefined })
      await stage.away('phone')
      stage.app.answer = { type: 'wait', condition: 'remote-server-timeout' }
      for (let hour = 0; hour < 5; hour++) {
        await stage.say('again')
        for (let i = 0; i < 30; i++) {
          await stage.host.clock.advance(120_000)
          await stage.app.told()
        }
      }
      expect(await kept(stage.host)).to.have.length(1)
      for (let hour = 0; hour < 2; hour++) {
        await stage.say('again')
        for (let i = 0; i < 30; i++) {
          await stage.host.clock.advance(120_000)
          await stage.app.told()
        }
      }
      expect(await kept(stage.host)).to.deep.equal([])
    }).timeout(20_000)

    it('enabled again while the app server refuses the old one: kept', async () => {
      await using stage = await pushStage({}, { onLog: () => undefined })
      await stage.away('phone')
      stage.app.answer = 'nothing'
      await stage.say('one')
      const [told] = await stage.app.told()
      await stage.host.clock.advance(1000)
      const phone = await stage.device('phone')
      await enable(phone, 'phone')
      await stage.app.client.send(
        `<iq type='error' to='example.org' id='${told?.iq.attr('id')}'><error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>`,
      )
      stage.app.answer = 'result'
      await phone.close()
      await stage.say('two')
      await stage.host.clock.advance(60_000)
      expect(await stage.app.counts()).to.deep.equal(['phone 1'])
    })
  })

  describe('while the app server takes its time', () => {
    /** Romeo's phone is away, one message is being published; answers it. */
    async function publishing(stage: PushStage): Promise<() => Promise<void>> {
      await stage.away('phone')
      stage.app.answer = 'nothing'
      await stage.say('one')
      const [told] = await stage.app.told()
      await stage.host.clock.advance(1000)
      return async () => {
        stage.app.answer = 'result'
        await stage.app.client.send(`<iq type='result' to='example.org' id='${told?.iq.attr('id')}'/>`)
      }
    }

    it('the device sees everything and misses as much again: told', async () => {
      await using stage = await pushStage()
      const answer = await publishing(stage)
      const phone = await stage.device('phone')
      await phone.close()
      await stage.say('two')
      await answer()
      expect(await stage.app.during(stage.host, 120_000)).to.deep.equal(['phone 1'])
    })

    it('the device sees everything and misses nothing: not told', async () => {
      await using stage = await pushStage()
      const answer = await publishing(stage)
      const phone = await stage.device('phone')
      await phone.close()
      await answer()
      expect(await stage.app.during(stage.host, 120_000)).to.deep.equal([])
    })

    it('more comes: told, once', async () => {
      await using stage = await pushStage()
      const answer = await publishing(stage)
      await stage.say('two')
      await stage.say('three')
      await answer()
      expect(await stage.app.during(stage.host, 120_000)).to.deep.equal(['phone 3'])
    })

    it('the device enables again and misses as much again: told', async () => {
      await using stage = await pushStage()
      const answer = await publishing(stage)
      const phone = await stage.device('phone')
      await enable(phone, 'phone')
      await phone.close()
      await stage.say('two')
      await answer()
      expect(await stage.app.during(stage.host, 120_000)).to.deep.equal(['phone 1'])
    })

    it('a job finds the device there, which goes before that is written, and misses something: told', async () => {
      await using stage = await pushStage({}, { onLog: () => undefined })
      await stage.away('phone')
      await stage.say('one')
      expect(await stage.app.counts()).to.deep.equal(['phone 1'])
      const docs = stage.host.store.open('example.org', 'push').docs('registrations')
      const update = docs.update.bind(docs)
      const gate = Promise.withResolvers<void>()
      let held = 0
      await stage.say('two') // due in ten seconds
      docs.update = () => Promise.reject(new Error('disk full'))
      const phone = await stage.device('phone') // that it has seen everything cannot be written
      await stage.host.clock.advance(9000)
      docs.update = async (...args) => {
        if (held++ === 0) await gate.promise
        return update(...args)
      }
      await stage.host.clock.advance(1000)
      expect(held).to.equal(2) // the job, and what could not be written
      await phone.close()
      await stage.say('three')
      gate.resolve()
      expect((await stage.app.during(stage.host, 120_000)).length).to.equal(1)
    })
  })

  it('registrations of an earlier version, without a generation, go on', async () => {
    await using stage = await pushStage()
    await stage.away('phone')
    const docs = stage.host.store.open('example.org', 'push').docs('registrations')
    const [key = ''] = await kept(stage.host)
    await docs.update('romeo', key, (old) => {
      const { generation: _, ...earlier } = old ?? {}
      return { ...earlier, due: '1', count: 4 }
    })
    await stage.host.unload('push')
    await stage.host.load(push)
    expect(await stage.app.during(stage.host, 60_000)).to.deep.equal(['phone 4'])
    await stage.say('five')
    expect(await stage.app.during(stage.host, 60_000)).to.deep.equal(['phone 5'])
  })

  describe('§8: the app server takes it back', () => {
    const affiliation = (what: string, jid = ROMEO, node = 'phone'): string =>
      `<message to='${ROMEO}'><pubsub xmlns='http://jabber.org/protocol/pubsub' node='${node}'><affiliation jid='${jid}' affiliation='${what}'/></pubsub></message>`

    for (const online of [true, false])
      it(`none: removed, ${online ? 'with' : 'without'} a session`, async () => {
        await using stage = await pushStage()
        await stage.away('phone')
        if (online) await stage.device('desk')
        await stage.app.client.send(affiliation('none'))
        await stage.say('one')
        expect(await stage.app.counts()).to.deep.equal([])
      })

    it('from somebody else, for somebody else, of another node, or publish-only: it stays', async () => {
      await using stage = await pushStage()
      await stage.away('phone')
      await stage.juliet.send(affiliation('none'))
      await stage.app.client.send(affiliation('none', 'juliet@example.org'))
      await stage.app.client.send(affiliation('none', ROMEO, 'other'))
      await stage.app.client.send(affiliation('publish-only'))
      await stage.say('one')
      expect(await stage.app.counts()).to.deep.equal(['phone 1'])
    })
  })

  describe('restart', () => {
    it('registrations, numbers and what is due outlive the process', async () => {
      const clock = new VirtualClock()
      await using store = await openMemory({ now: () => clock.now() }).then((opened) =>
        Object.assign(opened, { [Symbol.asyncDispose]: () => opened.close() }),
      )
      {
        await using stage = await pushStage({}, { store, onLog: () => undefined })
        const phone = await stage.device('phone')
        await enable(phone, 'phone', SECRET)
        await phone.close()
        await stage.say('one')
        expect(await stage.app.counts()).to.deep.equal(['phone 1'])
        await stage.say('two')
        await stage.say('three')
        expect(await stage.app.counts()).to.deep.equal([]) // within the interval
      }
      await using stage = await pushStage({}, { store })
      await stage.host.clock.advance(10_000)
      const told = await stage.app.told()
      expect(told.map(({ summary, options }) => [summary['message-count'], options['secret']])).to.deep.equal(
        [['3', 'eruio234vzxc2kla-91']],
      )
    })
  })

  describe('the store fails', () => {
    const docsOf = (stage: PushStage) => stage.host.store.open('example.org', 'push').docs('registrations')

    it('messages go their way, and the next one is told with both', async () => {
      await using stage = await pushStage({}, { onLog: () => undefined })
      await stage.away('phone')
      const docs = docsOf(stage)
      const update = docs.update.bind(docs)
      docs.update = () => Promise.reject(new Error('disk full'))
      stage.juliet.take()
      await stage.say('one')
      expect(stage.juliet.take()).to.deep.equal([])
      expect(await stage.app.counts()).to.deep.equal([])
      docs.update = update
      await stage.say('two')
      expect(await stage.app.counts()).to.deep.equal(['phone 2'])
    })

    it('for a while: the device is told when it works again, also when nothing else comes', async () => {
      await using stage = await pushStage({}, { onLog: () => undefined })
      await stage.away('phone')
      const docs = docsOf(stage)
      const update = docs.update.bind(docs)
      let tries = 0
      docs.update = () => {
        tries++
        return Promise.reject(new Error('disk full'))
      }
      await stage.say('one')
      await stage.say('two')
      await stage.host.clock.advance(30_000)
      expect(tries).to.be.within(3, 9)
      docs.update = update
      expect(await stage.app.during(stage.host, 60_000)).to.deep.equal(['phone 2'])
    })

    it('until the account is removed: the next one of its name is told nothing of it', async () => {
      await using stage = await pushStage({}, { onLog: () => undefined })
      await stage.away('phone')
      const docs = docsOf(stage)
      const update = docs.update.bind(docs)
      docs.update = () => Promise.reject(new Error('disk full'))
      await stage.say('one')
      await stage.host.host.deleteAccount('romeo')
      await stage.host.service('auth').create('romeo', 'another')
      await stage.away('phone')
      docs.update = update
      expect(await stage.app.during(stage.host, 60_000)).to.deep.equal([])
    })

    it('registrations that cannot be read are read with the next message', async () => {
      const lines: string[] = []
      await using stage = await pushStage({}, { onLog: (_, message) => void lines.push(message) })
      await stage.away('phone')
      await stage.host.unload('push')
      await stage.host.load(push)
      const docs = docsOf(stage)
      const list = docs.list.bind(docs)
      docs.list = () => {
        throw new Error('disk full')
      }
      await stage.say('one')
      expect(lines).to.include('registrations cannot be read')
      docs.list = list
      await stage.say('two')
      expect(await stage.app.counts()).to.deep.equal(['phone 1'])
    })

    it('enabling that cannot be stored is an error', async () => {
      await using stage = await pushStage({}, { onLog: () => undefined })
      const phone = await stage.device('phone')
      docsOf(stage).put = () => Promise.reject(new Error('disk full'))
      expect(await enable(phone, 'phone')).to.equal('cancel internal-server-error')
    })

    it('one that is being stored while its account is removed does not stay', async () => {
      await using stage = await pushStage()
      const phone = await stage.device('phone')
      const docs = docsOf(stage)
      const put = docs.put.bind(docs)
      const gate = Promise.withResolvers<void>()
      docs.put = async (...args) => {
        await gate.promise
        await put(...args)
      }
      await phone.send(
        `<iq type='set' id='e'><enable xmlns='urn:xmpp:push:0' jid='${APP}' node='phone'/></iq>`,
      )
      await stage.host.host.deleteAccount('romeo')
      gate.resolve()
      await stage.host.settle()
      expect(await kept(stage.host)).to.deep.equal([])
    })
  })

  it('is counted', async () => {
    await using stage = await pushStage({ interval: '1h' })
    await stage.away('phone')
    await stage.say('one')
    await stage.app.counts()
    const metrics = await stage.host.telemetry.registry.metrics()
    expect(metrics).to.contain('hermod_push_published{host="example.org"} 1')
    expect(metrics).to.contain('hermod_push_jobs_publish_done{host="example.org"} 1')
    expect(metrics).to.contain('hermod_push_missed{host="example.org"} 1')
  })
})
