/** Both archives and delivery: order, messages that are sent again, failures of the store, accounts that go (XEP-0313 §3, XEP-0359 §2). */
import { expect } from 'chai'
import { StoreUnavailable } from '../../server/storage/contract.ts'
import { openMemory } from '../../server/storage/memory.ts'
import { defineModule } from '../../server/module.ts'
import { NS } from '../../server/xmpp/ns.ts'
import {
  archived,
  archiveHost,
  chat,
  controlledStore,
  origin,
  query,
  queryXml,
  stanzaId,
} from '../helpers/archive.ts'
import type { TestClient, TestHost } from '../helpers/host.ts'
import { condition, fromRemote } from '../helpers/im.ts'

const LATE = `<delay xmlns='${NS.DELAY}' stamp='2020-01-01T00:00:00Z'/>`

/** Juliet and romeo, both online. */
async function pair(h: TestHost): Promise<{ juliet: TestClient; romeo: TestClient }> {
  const juliet = await h.client('juliet@example.org/balcony')
  const romeo = await h.client('romeo@example.org/orchard')
  for (const client of [juliet, romeo]) await client.send('<presence/>')
  juliet.take()
  romeo.take()
  return { juliet, romeo }
}

const bodies = (client: TestClient) => client.take().map((e) => e.getChildText('body'))

describe('module mam: order (XEP-0313 §3.1)', () => {
  it('what a device gets live is in the order of its ids, whoever sent and whatever took long', async () => {
    const { store, gates } = await controlledStore()
    await using h = await archiveHost({}, { store })
    const { juliet, romeo } = await pair(h)
    const nurse = await h.client('nurse@example.org/kitchen')
    const slow = Promise.withResolvers<void>()
    gates.set('juliet', slow.promise)
    juliet.transport.feed(chat('romeo@example.org', 'j1') + chat('romeo@example.org', 'j2'))
    await h.settle()
    await nurse.send(chat('romeo@example.org', 'n1'))
    gates.delete('juliet')
    slow.resolve()
    await h.settle()
    await nurse.send(chat('romeo@example.org', 'n2'))
    const live = romeo.take()
    const { results } = await query(romeo)
    expect(live.map((e) => e.getChildText('body'))).to.deep.equal(['n1', 'j1', 'j2', 'n2'])
    expect(results.map(({ body }) => body)).to.deep.equal(['n1', 'j1', 'j2', 'n2'])
    expect(live.map((e) => stanzaId(e, 'romeo@example.org'))).to.deep.equal(results.map(({ id }) => id))
  })

  it('preferences that have to be read first do not change the order', async () => {
    await using h = await archiveHost()
    const { juliet, romeo } = await pair(h)
    romeo.transport.feed(['1', '2', '3', '4', '5'].map((n) => chat('juliet@example.org', n)).join(''))
    await h.settle()
    expect(bodies(juliet)).to.deep.equal(['1', '2', '3', '4', '5'])
    expect(await archived(romeo)).to.deep.equal(['1', '2', '3', '4', '5'])
    expect(await archived(juliet)).to.deep.equal(['1', '2', '3', '4', '5'])
  })

  it('a message counts as handled (XEP-0198 §4) when both archives have it', async () => {
    const { store, gates } = await controlledStore()
    await using h = await archiveHost({}, { store })
    const { juliet, romeo } = await pair(h)
    const { handled } = juliet.session.input
    for (const owner of ['juliet', 'romeo']) {
      const gate = Promise.withResolvers<void>()
      gates.set(owner, gate.promise)
      await juliet.send(chat('romeo@example.org', owner))
      expect(juliet.session.input.handled - handled).to.equal(owner === 'juliet' ? 0 : 1)
      expect(bodies(romeo)).to.deep.equal([])
      gates.delete(owner)
      gate.resolve()
      await h.settle()
      expect(bodies(romeo)).to.deep.equal([owner])
    }
    expect(juliet.session.input.handled - handled).to.equal(2)
  })
})

describe('module mam: messages that are sent again (XEP-0359 §2.2)', () => {
  it('same origin-id to the same account: stored once, delivered once, no error', async () => {
    await using h = await archiveHost()
    const { juliet, romeo } = await pair(h)
    expect(await juliet.send(chat('romeo@example.org', 'one', origin('o1')))).to.deep.equal([])
    await juliet.drop()
    const again = await h.client('juliet@example.org/elsewhere')
    const { handled } = again.session.input
    // to another of his resources, and with the time when it was written
    expect(await again.send(chat('romeo@example.org/orchard', 'one', origin('o1') + LATE))).to.deep.equal([])
    expect(again.session.input.handled - handled).to.equal(1)
    expect(bodies(romeo)).to.deep.equal(['one'])
    expect(await archived(again)).to.deep.equal(['one'])
    expect(await archived(romeo)).to.deep.equal(['one'])
  })

  it('the same origin-id to another account is another message', async () => {
    await using h = await archiveHost()
    const { juliet, romeo } = await pair(h)
    const nurse = await h.client('nurse@example.org/kitchen')
    await nurse.send('<presence/>')
    nurse.take()
    await juliet.send(chat('romeo@example.org', 'one', origin('o1')))
    await juliet.send(chat('nurse@example.org', 'one', origin('o1')))
    expect(bodies(nurse)).to.deep.equal(['one'])
    await nurse.send(chat('romeo@example.org', 'one', origin('o1')))
    expect(bodies(romeo)).to.deep.equal(['one', 'one'])
    expect(await archived(juliet)).to.deep.equal(['one', 'one'])
  })

  it('killed between the two archives: the receiver gets it when it is sent again, the sender’s archive has it once', async () => {
    const { store, failing } = await controlledStore()
    await using h = await archiveHost({}, { store, onLog: () => undefined })
    const { juliet, romeo } = await pair(h)
    failing.add('romeo')
    await juliet.send(chat('romeo@example.org', 'one', origin('o1')))
    failing.delete('romeo')
    expect(bodies(romeo)).to.deep.equal([])
    await juliet.send(chat('romeo@example.org', 'one', origin('o1')))
    expect(bodies(romeo)).to.deep.equal(['one'])
    expect(await archived(juliet)).to.deep.equal(['one'])
    await juliet.send(chat('romeo@example.org', 'one', origin('o1')))
    expect(bodies(romeo)).to.deep.equal([])
  })

  it('after a restart it is known still', async () => {
    const store = await openMemory()
    {
      await using h = await archiveHost({}, { store })
      const { juliet } = await pair(h)
      await juliet.send(chat('romeo@example.org', 'one', origin('o1')))
    }
    await using h = await archiveHost({}, { store })
    const { juliet, romeo } = await pair(h)
    await juliet.send(chat('romeo@example.org', 'one', origin('o1')))
    expect(bodies(romeo)).to.deep.equal([])
    expect(await archived(romeo)).to.deep.equal(['one'])
  })

  it('an origin-id that is used for something else is no reason to lose a message', async () => {
    await using h = await archiveHost()
    const { juliet, romeo } = await pair(h)
    for (const body of ['one', 'two', 'one', 'two'])
      await juliet.send(chat('romeo@example.org', body, origin('1')))
    await juliet.send(chat('romeo@example.org', 'two', `${origin('1')}<x xmlns='urn:x'/>`))
    await juliet.send(chat('romeo@example.org', 'three', origin('')))
    await juliet.send(chat('romeo@example.org', 'three', origin('')))
    expect(bodies(romeo)).to.deep.equal(['one', 'two', 'two', 'three', 'three'])
    expect(await archived(juliet)).to.deep.equal(['one', 'two', 'two', 'three', 'three'])
  })

  it('an encrypted message that is encrypted anew is the same', async () => {
    await using h = await archiveHost()
    const { juliet, romeo } = await pair(h)
    const omemo = (payload: string) =>
      chat(
        'romeo@example.org',
        'OMEMO',
        `<encrypted xmlns='urn:xmpp:omemo:2'>${payload}</encrypted>${origin('o1')}`,
      )
    await juliet.send(omemo('AAAA'))
    await juliet.send(omemo('BBBB'))
    expect(romeo.take()).to.have.length(1)
    expect(await archived(romeo)).to.have.length(1)
  })

  it('only within the configured time', async () => {
    await using h = await archiveHost({ resendWindow: '1h' })
    const { juliet, romeo } = await pair(h)
    const send = () => juliet.send(chat('romeo@example.org', 'one', origin('o1')))
    await send()
    await h.clock.advance(3_600_000)
    await send()
    expect(bodies(romeo)).to.deep.equal(['one'])
    await h.clock.advance(1)
    await send()
    await send()
    expect(bodies(romeo)).to.deep.equal(['one'])
    await h.clock.advance(3_600_001)
    await send()
    expect(bodies(romeo)).to.deep.equal(['one'])
    expect(await archived(juliet)).to.have.length(3)
  })

  it('occupants of a room use their origin-ids independently', async () => {
    await using h = await archiveHost()
    const { juliet } = await pair(h)
    const x = "<x xmlns='http://jabber.org/protocol/muc#user'/>"
    for (const nick of ['romeo', 'nurse', 'romeo'])
      await fromRemote(
        h,
        `<message from='room@conference.example.net/${nick}' to='juliet@example.org/balcony' type='chat'><body>Hi</body>${x}${origin('1')}</message>`,
      )
    expect(juliet.take().map((e) => e.attr('from'))).to.deep.equal([
      'room@conference.example.net/romeo',
      'room@conference.example.net/nurse',
    ])
  })

  it('very long ids and addresses are told apart', async () => {
    await using h = await archiveHost()
    const { juliet, romeo } = await pair(h)
    const long = 'x'.repeat(5000)
    for (const id of [`${long}1`, `${long}2`, `${long}1`])
      await juliet.send(chat('romeo@example.org', 'one', origin(id)))
    expect(bodies(romeo)).to.deep.equal(['one', 'one'])
  })

  describe('to somebody without an archive here', () => {
    it('a service: it does not go there a second time', async () => {
      const taken: (string | undefined)[] = []
      const service = defineModule({
        name: 'service',
        summary: 'takes what is for the host itself',
        specs: [],
        setup: (ctx) => ctx.serve(({ stanza }) => void taken.push(stanza.getChildText('body'))),
      })
      await using h = await archiveHost()
      await h.load(service)
      const { juliet } = await pair(h)
      for (const body of ['one', 'two', 'one'])
        expect(await juliet.send(chat('example.org', body, origin(body)))).to.deep.equal([])
      expect(taken).to.deep.equal(['one', 'two'])
      await h.unload('service')
    })

    it('another server: what came back with an error may be tried again, and comes back again', async () => {
      await using h = await archiveHost()
      const { juliet } = await pair(h)
      for (let i = 0; i < 3; i++) {
        const [error] = await juliet.send(chat('romeo@example.net', 'one', origin('o1')))
        expect(condition(error)).to.equal('remote-server-not-found')
      }
      expect(await archived(juliet)).to.deep.equal(['one'])
    })

    it('an account that does not want it: not delivered a second time, but tried again after an error', async () => {
      await using h = await archiveHost()
      const { juliet, romeo } = await pair(h)
      await romeo.send("<iq type='set' id='p'><prefs xmlns='urn:xmpp:mam:2' default='never'/></iq>")
      await juliet.send(chat('romeo@example.org', 'one', origin('o1')))
      await juliet.send(chat('romeo@example.org', 'one', origin('o1')))
      expect(bodies(romeo)).to.deep.equal(['one'])
      await romeo.drop()
      const [error] = await juliet.send(chat('romeo@example.org', 'two', origin('o2')))
      expect(condition(error)).to.equal('service-unavailable')
      const back = await h.client('romeo@example.org/orchard')
      await back.send('<presence/>')
      back.take()
      await juliet.send(chat('romeo@example.org', 'two', origin('o2')))
      expect(bodies(back)).to.deep.equal(['two'])
      expect(await archived(back)).to.deep.equal([])
      expect(await archived(juliet)).to.deep.equal(['one', 'two'])
    })
  })
})

describe('module mam: when it cannot be stored', () => {
  for (const owner of ['juliet', 'romeo'])
    it(`${owner === 'juliet' ? 'sender' : 'receiver'}: the message bounces and is not delivered`, async () => {
      const { store, failing } = await controlledStore()
      await using h = await archiveHost({}, { store, onLog: () => undefined })
      const { juliet, romeo } = await pair(h)
      failing.add(owner)
      const [error] = await juliet.send(chat('romeo@example.org', 'one'))
      expect([error?.attr('type'), condition(error)]).to.deep.equal(['error', 'internal-server-error'])
      expect(bodies(romeo)).to.deep.equal([])
      failing.clear()
      expect(await juliet.send(chat('romeo@example.org', 'two'))).to.deep.equal([])
      expect(bodies(romeo)).to.deep.equal(['two'])
    })

  it('chat states do not need the store', async () => {
    const { store, failing } = await controlledStore()
    await using h = await archiveHost({}, { store })
    const { juliet, romeo } = await pair(h)
    failing.add('juliet').add('romeo')
    const active = "<active xmlns='http://jabber.org/protocol/chatstates'/>"
    expect(
      await juliet.send(`<message to='romeo@example.org' type='chat'>${active}</message>`),
    ).to.deep.equal([])
    expect(romeo.take()).to.have.length(1)
  })
})

describe('module mam: nobody is there', () => {
  it('an archived message to an account that is away is no error; one that is not archived is', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    expect(await juliet.send(chat('romeo@example.org', 'one'))).to.deep.equal([])
    expect(await juliet.send(chat('romeo@example.org/gone', 'two'))).to.deep.equal([])
    const [error] = await juliet.send(
      chat('romeo@example.org', 'three', "<no-store xmlns='urn:xmpp:hints'/>"),
    )
    expect(condition(error)).to.equal('service-unavailable')
    const romeo = await h.client('romeo@example.org/orchard')
    expect(await archived(romeo)).to.deep.equal(['one', 'two'])
  })

  it('results for a session that is gone go nowhere', async () => {
    const strays: string[] = []
    const offline = defineModule({
      name: 'offline',
      summary: 'sees what nobody takes',
      specs: [],
      setup: (ctx) =>
        ctx.hook('account:offline', { phase: 'store' }, ({ stanza }) => void strays.push(stanza.toString())),
    })
    await using h = await archiveHost()
    await h.load(offline)
    const { juliet } = await pair(h)
    await juliet.send(chat('romeo@example.org/orchard', 'one'))
    juliet.transport.blocked = true
    await juliet.send(
      "<iq type='get' id='p' to='example.org'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>",
    )
    await juliet.send(queryXml({}, 'q'))
    await juliet.drop()
    expect(strays).to.deep.equal([])
    await h.unload('offline')
  })
})

describe('module mam: results of a session that was replaced', () => {
  it('are not for the next session of the same resource', async () => {
    await using h = await archiveHost()
    const { juliet } = await pair(h)
    await juliet.send(chat('romeo@example.org/orchard', 'one'))
    juliet.transport.blocked = true
    await juliet.send(
      "<iq type='get' id='p' to='example.org'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>",
    )
    await juliet.send(queryXml({}, 'q'))
    const next = await h.client('juliet@example.org/balcony')
    await next.send('<presence/>')
    expect(juliet.closed).to.equal(true)
    expect(next.take().filter((e) => e.name === 'message')).to.deep.equal([])
  })
})

describe('module mam: accounts that are removed', () => {
  it('nothing stays, nothing is kept that still reaches it, and the next owner of the name starts anew', async () => {
    await using h = await archiveHost()
    const { juliet, romeo } = await pair(h)
    await juliet.send(chat('romeo@example.org', 'one'))
    await h.host.hooks.chain('account:deleted').run({ account: romeo.jid.bare })
    await h.host.service('auth')?.remove('romeo')
    await h.store.purgeOwner('example.org', 'romeo')
    await juliet.send(chat('romeo@example.org', 'two'))
    await romeo.send(chat('juliet@example.org', 'three'))
    expect(await h.store.purgeOwner('example.org', 'romeo')).to.equal(0)
    await romeo.drop()
    await h.host.service('auth')?.create('romeo', 'secret')
    const next = await h.client('romeo@example.org/new')
    await juliet.send(chat('romeo@example.org', 'four'))
    expect(await archived(next)).to.deep.equal(['four'])
  })

  it('what the store did not take for the former owner of a name is not put into the archive of the next one', async () => {
    for (const pending of [false, true]) {
      const { store, silent, stuck, gates } = await controlledStore()
      await using h = await archiveHost({}, { store, onLog: () => undefined })
      const { juliet } = await pair(h)
      const gate = Promise.withResolvers<void>()
      // Given up, or answered with an error only when the account is gone.
      if (pending)
        gates.set(
          'romeo',
          gate.promise.then(() => Promise.reject(new StoreUnavailable('no answer'))),
        )
      else silent.add('romeo')
      await juliet.send(chat('romeo@example.org', 'for the first one', origin('o1')))
      await h.host.deleteAccount('romeo')
      gate.resolve()
      await h.settle()
      for (const set of [silent, gates]) set.clear()
      await h.host.service('auth')?.create('romeo', 'secret')
      const next = await h.client('romeo@example.org/new')
      stuck.add('romeo')
      expect(await archived(next)).to.deep.equal([])
      expect(await h.store.purgeOwner('example.org', 'romeo')).to.equal(0)
    }
  })
})
