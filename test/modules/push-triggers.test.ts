/** XEP-0357: when a device is told, and when it is not. What is told, and to whom: push. */
import { expect } from 'chai'
import push from '../../modules/push/index.ts'
import { defineModule, type Session } from '../../server/module.ts'
import type { TestClient } from '../helpers/host.ts'
import { Fresh, resume } from '../helpers/managed.ts'
import { enable, JULIET, managed, pushStage, ROMEO, SM_ENABLE } from '../helpers/push.ts'

const CSI_INACTIVE = "<inactive xmlns='urn:xmpp:csi:0'/>"
const ACK = (h: number): string => `<a xmlns='urn:xmpp:sm:3' h='${h}'/>`
const proposal = (id: string): string =>
  `<propose xmlns='urn:xmpp:jingle-message:0' id='${id}'><description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/></propose><store xmlns='urn:xmpp:hints'/>`

describe('push: triggers (XEP-0357)', () => {
  describe('a device that is not there', () => {
    it('is told of a message that is kept for it, with the archive and the offline store', async () => {
      await using stage = await pushStage()
      await stage.away('phone')
      await stage.say('one')
      expect(await stage.app.counts()).to.deep.equal(['phone 1'])
    })
    for (const without of [['mam'], ['offline']] as const)
      it(`without the module ${without[0]}`, async () => {
        await using stage = await pushStage({}, {}, without)
        await stage.away('phone')
        await stage.say('one')
        expect(await stage.app.counts()).to.deep.equal(['phone 1'])
      })

    it('is not told of what nobody keeps: the sender is told that it failed', async () => {
      await using stage = await pushStage({}, {}, ['mam', 'offline'])
      await stage.away('phone')
      stage.juliet.take()
      await stage.say('one')
      expect(stage.juliet.take().map((e) => e.attr('type'))).to.deep.equal([])
      expect(await stage.app.counts()).to.deep.equal([])
    })

    it('is told of what another device takes, when it will find it in the archive', async () => {
      await using stage = await pushStage()
      await stage.away('phone')
      const desk = await stage.device('desk')
      await stage.say('one')
      expect(desk.take().map((e) => e.getChildText('body'))).to.deep.equal(['one'])
      expect(await stage.app.counts()).to.deep.equal(['phone 1'])
    })

    it('is not told of what another device takes when there is no archive', async () => {
      await using stage = await pushStage({}, {}, ['mam'])
      await stage.away('phone')
      await stage.device('desk')
      await stage.say('one')
      expect(await stage.app.counts()).to.deep.equal([])
    })

    it('both of two devices are told, each by its own registration', async () => {
      await using stage = await pushStage()
      await stage.away('phone')
      await stage.away('tablet')
      await stage.say('one')
      const counts = await stage.app.counts()
      expect(counts).to.have.members(['phone 1', 'tablet 1'])
    })

    it('is told although it is not the first message since the start of the server', async () => {
      await using stage = await pushStage()
      await stage.away('phone')
      await stage.send("<composing xmlns='http://jabber.org/protocol/chatstates'/>")
      await stage.say('one')
      expect(await stage.app.counts()).to.deep.equal(['phone 1'])
    })
  })

  describe('a device that is there', () => {
    it('is not told of what it gets', async () => {
      await using stage = await pushStage()
      const phone = await stage.device('phone')
      await enable(phone, 'phone')
      await stage.say('one')
      await stage.host.clock.advance(120_000)
      expect(await stage.app.counts()).to.deep.equal([])
    })

    it('is not told, but another that is away is', async () => {
      await using stage = await pushStage()
      await stage.away('tablet')
      const phone = await stage.device('phone')
      await enable(phone, 'phone')
      await stage.say('one')
      expect(await stage.app.during(stage.host, 120_000)).to.deep.equal(['tablet 1'])
    })

    it('is known by its resource when it comes back and does not enable again', async () => {
      await using stage = await pushStage()
      await stage.away('phone')
      await stage.device('phone')
      await stage.say('one')
      await stage.host.clock.advance(120_000)
      expect(await stage.app.counts()).to.deep.equal([])
    })

    it('is known by what it says of itself (XEP-0388 §2.3), whatever its resource is; another one is not it', async () => {
      await using stage = await pushStage()
      // resources of the form AGENT-NUMBER
      const agents = defineModule({
        name: 'agents',
        summary: 'tells devices apart',
        specs: [],
        setup(ctx) {
          const userAgent = (s: Session) => ({
            id: s.jid?.resource.split('-')[0],
            software: undefined,
            device: undefined,
          })
          ctx.provide('sasl2', { userAgent, addTask: () => ({ [Symbol.dispose]: () => undefined }) })
        },
      })
      await stage.host.load(agents)
      const phone = await stage.device('a-1')
      await enable(phone, 'phone')
      await phone.close()
      await stage.say('one')
      expect(await stage.app.counts()).to.deep.equal(['phone 1'])
      const again = await stage.device('a-2')
      await stage.say('two')
      expect(await stage.app.during(stage.host, 120_000)).to.deep.equal([])
      await again.close()
      await stage.device('b-1')
      await stage.say('three')
      expect(await stage.app.during(stage.host, 60_000)).to.deep.equal(['phone 1'])
    })

    it('that confirms what it gets is not told', async () => {
      await using stage = await pushStage()
      const { client } = await managed(stage, 'phone')
      await stage.say('one')
      const confirmed = client.take().filter((e) => e.name === 'message').length
      await client.send(ACK(confirmed + 1)) // and the answer to <enable/>
      await stage.host.clock.advance(50_000)
      expect(await stage.app.counts()).to.deep.equal([])
    })
  })

  describe('a device that is bound and not available yet, of a message that is kept meanwhile', () => {
    for (const others of [[], ['desk']])
      for (const [how, end] of [
        ['is silent', () => Promise.resolve()],
        ['loses its stream', (client: TestClient) => client.drop()],
        ['closes its stream', (client: TestClient) => client.close()],
      ] as const)
        it(`${how}${others.length > 0 ? ', another device is there' : ''}: told, once`, async () => {
          await using stage = await pushStage()
          await stage.away('phone')
          for (const other of others) await stage.device(other)
          const phone = await stage.host.client(`${ROMEO}/phone`)
          await phone.send(SM_ENABLE)
          await stage.say('one')
          expect(await stage.app.counts()).to.deep.equal([])
          await end(phone)
          expect(await stage.app.during(stage.host, 1_000_000)).to.deep.equal(['phone 1'])
        })

    it('becomes available, gets and confirms it: not told', async () => {
      await using stage = await pushStage()
      await stage.away('phone')
      const phone = await stage.host.client(`${ROMEO}/phone`)
      await phone.send(SM_ENABLE)
      await stage.say('one')
      await stage.host.clock.advance(1000)
      const got = await phone.send('<presence/>')
      expect(got.map((e) => e.getChildText('body'))).to.include('one')
      await phone.send(ACK(got.filter(({ name }) => ['message', 'presence', 'iq'].includes(name)).length))
      expect(await stage.app.during(stage.host, 1_000_000)).to.deep.equal([])
    })
  })

  describe('a session without stream (XEP-0198)', () => {
    it('what comes for it is told', async () => {
      await using stage = await pushStage()
      const { client } = await managed(stage, 'phone')
      await client.drop()
      await stage.say('one')
      expect(await stage.app.counts()).to.deep.equal(['phone 1'])
      await stage.say('two')
      await stage.say('three')
      await stage.host.clock.advance(10_000)
      expect(await stage.app.counts()).to.deep.equal(['phone 3'])
    })

    it('what it had not confirmed when the stream was lost is told', async () => {
      await using stage = await pushStage()
      const { client } = await managed(stage, 'phone')
      await stage.say('one')
      await client.drop()
      await stage.host.clock.advance(1000)
      expect(await stage.app.counts()).to.deep.equal(['phone 1'])
    })

    it('copies of what other devices take are told (XEP-0280), copies of what they send are not', async () => {
      await using stage = await pushStage({}, {}, ['mam'])
      const { client } = await managed(stage, 'phone')
      await client.send(
        "<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq><presence><priority>0</priority></presence>",
      )
      await client.drop()
      const desk = await stage.device('desk', '<presence><priority>5</priority></presence>')
      await desk.send(`<message to='${JULIET}' type='chat' id='out'><body>mine</body></message>`)
      await stage.host.clock.advance(20_000)
      expect(await stage.app.counts()).to.deep.equal([])
      await stage.say('one', `${ROMEO}/desk`)
      expect(await stage.app.counts()).to.deep.equal(['phone 1'])
    })

    it('a message counts once, whatever way it takes, also when the session ends', async () => {
      await using stage = await pushStage()
      const { client } = await managed(stage, 'phone')
      await stage.say('one')
      await client.drop()
      await stage.say('two')
      expect((await stage.app.during(stage.host, 15_000)).at(-1)).to.equal('phone 2')
      await stage.host.clock.advance(700_000) // the session is over: both go into the offline store
      expect(await stage.app.counts()).to.deep.equal([])
      await stage.say('three')
      expect(await stage.app.counts()).to.deep.equal(['phone 3'])
    })

    it('when it goes on, what is left of the queue is not told any more, and the number begins anew', async () => {
      await using stage = await pushStage()
      const { client, id } = await managed(stage, 'phone')
      await client.drop()
      await stage.say('one')
      expect(await stage.app.counts()).to.deep.equal(['phone 1'])
      await stage.say('two') // due in ten seconds
      const fresh = await Fresh.open(stage.host)
      const output = await fresh.send(resume(id, 0))
      const sent = output.elements.filter((e) => ['message', 'iq', 'presence'].includes(e.getName())).length
      await fresh.send(ACK(sent))
      await stage.host.clock.advance(120_000)
      expect(await stage.app.counts()).to.deep.equal([])
      await fresh.stream.drop()
      await stage.say('three')
      expect(await stage.app.counts()).to.deep.equal(['phone 1'])
    })

    it('when it goes on twice in a moment, a call in between is still told in its time', async () => {
      await using stage = await pushStage()
      const { client, id } = await managed(stage, 'phone')
      await client.drop()
      await stage.say('one')
      expect(await stage.app.counts()).to.deep.equal(['phone 1'])
      await (await Fresh.open(stage.host)).send(resume(id, 0))
      await stage.send(proposal('c'))
      await (await Fresh.open(stage.host)).send(resume(id, 0)) // the other stream is half open
      await stage.host.clock.advance(7000)
      expect((await stage.app.told()).map(({ priority }) => priority)).to.include('high')
    })

    it('when it goes on and is silent again, it is told again, with the same number', async () => {
      await using stage = await pushStage()
      const { client, id } = await managed(stage, 'phone')
      await client.drop()
      await stage.say('one')
      await stage.say('two')
      expect(await stage.app.during(stage.host, 15_000)).to.deep.equal(['phone 1', 'phone 2'])
      const fresh = await Fresh.open(stage.host)
      await fresh.send(resume(id, 0))
      await stage.host.clock.advance(29_000)
      expect(await stage.app.counts()).to.deep.equal([])
      await stage.host.clock.advance(3000)
      expect(await stage.app.counts()).to.deep.equal(['phone 2'])
    })
  })

  describe('a session that is silent', () => {
    it('has not confirmed a message for half a minute: told', async () => {
      await using stage = await pushStage()
      await managed(stage, 'phone')
      await stage.say('one')
      await stage.host.clock.advance(29_000)
      expect(await stage.app.counts()).to.deep.equal([])
      await stage.host.clock.advance(2000)
      expect(await stage.app.counts()).to.deep.equal(['phone 1'])
      await stage.say('two')
      await stage.host.clock.advance(10_000)
      expect(await stage.app.counts()).to.deep.equal(['phone 2'])
    })

    it('also when the clock goes back meanwhile', async () => {
      await using stage = await pushStage()
      await managed(stage, 'phone')
      await stage.say('one')
      stage.host.clock.putBack(3_600_000)
      expect(await stage.app.during(stage.host, 35_000)).to.deep.equal(['phone 1'])
    })

    it('and confirms it later: not told any more, and the number begins anew', async () => {
      await using stage = await pushStage()
      const { client } = await managed(stage, 'phone')
      await stage.say('one')
      await stage.host.clock.advance(31_000)
      expect(await stage.app.counts()).to.deep.equal(['phone 1'])
      const got = client
        .take()
        .filter((e) => e.name === 'message' || e.name === 'iq' || e.name === 'presence')
      await client.send(ACK(got.length + 1))
      await stage.host.clock.advance(5000)
      await stage.say('two')
      await stage.host.clock.advance(29_000)
      expect(await stage.app.counts()).to.deep.equal([])
      await stage.host.clock.advance(2000)
      expect(await stage.app.counts()).to.deep.equal(['phone 1'])
    })

    it('without confirmations: only when nobody looks at it (XEP-0352) and nothing at all comes from it', async () => {
      await using stage = await pushStage()
      const phone = await stage.device('phone')
      await enable(phone, 'phone')
      await phone.send(CSI_INACTIVE)
      await stage.host.clock.advance(60_000)
      await stage.say('one')
      await stage.host.clock.advance(10_000)
      await phone.send(' ')
      await stage.host.clock.advance(60_000)
      expect(await stage.app.counts()).to.deep.equal([])
      await stage.say('two')
      await stage.host.clock.advance(31_000)
      expect(await stage.app.counts()).to.deep.equal(['phone 1'])
    })

    it('without confirmations, and the clock goes back: told when nothing has come from it, else not', async () => {
      await using stage = await pushStage()
      const phone = await stage.device('phone')
      await enable(phone, 'phone')
      await phone.send(CSI_INACTIVE)
      await stage.say('one')
      stage.host.clock.putBack(3_600_000)
      await phone.send(' ')
      expect(await stage.app.during(stage.host, 60_000)).to.deep.equal([])
      await stage.say('two')
      stage.host.clock.putBack(3_600_000)
      expect(await stage.app.during(stage.host, 35_000)).to.deep.equal(['phone 1'])
    })

    it('without confirmations, of more messages than are watched, after it was heard: told', async () => {
      await using stage = await pushStage({}, {}, ['mam'])
      const phone = await stage.device('phone')
      await enable(phone, 'phone')
      await phone.send(CSI_INACTIVE)
      for (let i = 0; i < 100; i++) await stage.say(String(i))
      await stage.host.clock.advance(10)
      await phone.send(' ')
      await stage.say('more')
      expect(await stage.app.during(stage.host, 35_000)).to.deep.equal(['phone 1'])
    })

    it('without confirmations and not inactive: taken at its word', async () => {
      await using stage = await pushStage()
      const phone = await stage.device('phone')
      await enable(phone, 'phone')
      await stage.say('one')
      await stage.host.clock.advance(200_000)
      expect(await stage.app.counts()).to.deep.equal([])
    })

    it('a call: after five seconds', async () => {
      await using stage = await pushStage()
      await managed(stage, 'phone')
      await stage.send(proposal('c1'))
      await stage.host.clock.advance(4000)
      expect(await stage.app.counts()).to.deep.equal([])
      await stage.host.clock.advance(2000)
      const told = await stage.app.told()
      expect(told.map(({ priority }) => priority)).to.deep.equal(['high'])
    })
  })

  it('accounts without registrations: nothing is read on the way of a message', async () => {
    await using stage = await pushStage()
    const desk = await stage.device('desk')
    const opened = stage.host.store.open('example.org', 'push').docs('registrations')
    let reads = 0
    const list = opened.list.bind(opened)
    opened.list = (...args) => {
      reads++
      return list(...args)
    }
    for (let i = 0; i < 5; i++) await stage.say('hello')
    await desk.close()
    for (let i = 0; i < 5; i++) await stage.say('hello')
    expect(reads).to.equal(0)
    await stage.say('hello', 'nobody@example.org')
    await stage.say('hello', 'app@example.org')
    await stage.send('<body>x</body>', "to='juliet@example.org/none' type='chat'")
    expect(reads).to.equal(0)
    await stage.host.unload('push')
    await stage.host.load(push)
    await stage.say('hello')
    expect(reads).to.equal(1) // nothing in memory: once
  })
})
