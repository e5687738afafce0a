/** XEP-0352: clients that nobody looks at. */
import { expect } from 'chai'
import accounts from '../../modules/accounts/index.ts'
import bind from '../../modules/bind.ts'
import bind2 from '../../modules/bind2.ts'
import blocking from '../../modules/blocking/index.ts'
import carbons from '../../modules/carbons/index.ts'
import csi from '../../modules/csi.ts'
import ping from '../../modules/ping.ts'
import presences from '../../modules/presence/index.ts'
import roster from '../../modules/roster/index.ts'
import sasl from '../../modules/sasl/index.ts'
import sasl2 from '../../modules/sasl2.ts'
import streamManagement from '../../modules/stream-management/index.ts'
import type { Element } from '../../server/xmpp/element.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { type TestClient, type TestHost, testHost } from '../helpers/host.ts'
import { befriend, fromRemote, online } from '../helpers/im.ts'
import { bindingTls, LoginStream } from '../helpers/login.ts'
import { Fresh, resume } from '../helpers/managed.ts'

const NS = 'urn:xmpp:csi:0'
const INACTIVE = `<inactive xmlns='${NS}'/>`
const ACTIVE = `<active xmlns='${NS}'/>`
const TYPING = "<composing xmlns='http://jabber.org/protocol/chatstates'/>"
const JULIET = 'juliet@example.org/phone'

const start = (config: object = {}): Promise<TestHost> =>
  testHost({ modules: [csi, carbons, ping], accounts: ['juliet', 'romeo'], config: { csi: config } })
async function inactive(h: TestHost, jid = JULIET): Promise<TestClient> {
  const client = await h.client(jid)
  client.session.setPresence(parseXml("<presence xmlns='jabber:client'/>"))
  expect(await client.send(INACTIVE)).to.eql([]) // §4.2: there is no reply
  return client
}
/** From somebody elsewhere to Juliet's phone. */
const presence = (h: TestHost, from: string, status: string, type = ''): Promise<void> =>
  fromRemote(
    h,
    `<presence from='${from}@elsewhere.example/x' to='${JULIET}'${type === '' ? '' : ` type='${type}'`}><status>${status}</status></presence>`,
  )
const message = (h: TestHost, inner: string, attrs = "type='chat'"): Promise<void> =>
  fromRemote(h, `<message from='romeo@elsewhere.example/x' to='${JULIET}' ${attrs}>${inner}</message>`)
const event = (text: string): string =>
  `<event xmlns='http://jabber.org/protocol/pubsub#event'><items node='n'><item id='${text}'/></items></event>`
/** The texts of what was received. */
const texts = (received: readonly Element[]): string[] =>
  received.map(
    (e) =>
      e.getChildText('status') ??
      e.getChildText('body') ??
      e
        .getChild('event', 'http://jabber.org/protocol/pubsub#event')
        ?.firstElement()
        ?.firstElement()
        ?.attr('id') ??
      e.attr('type') ??
      e.name,
  )

describe('csi: XEP-0352', () => {
  it('§4.1: announced after authentication, not before', async () => {
    await using h = await testHost({
      modules: [accounts, sasl, bind, csi],
      config: { accounts: { iterations: 4096 } },
    })
    await h.service('auth').create('juliet', 'secret')
    const login = await LoginStream.open(h, { tls: bindingTls() })
    expect(login.offers).to.include('mechanisms').and.not.include('csi')
    const initial = Buffer.from('\0juliet\0secret').toString('base64')
    await login.send(`<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>${initial}</auth>`)
    await login.header()
    expect(login.offers).to.include.members(['bind', 'csi'])
  })

  it('§5: a client is active until it says otherwise', async () => {
    await using h = await start()
    const client = await h.client(JULIET)
    await presence(h, 'romeo', 'here')
    await message(h, TYPING)
    expect(texts(client.take())).to.eql(['here', 'chat'])
  })

  it('§3.2: presence waits, the last of each sender, and is there when the client is active', async () => {
    await using h = await start()
    const client = await inactive(h)
    await presence(h, 'romeo', 'one')
    await presence(h, 'nurse', 'nurse')
    await presence(h, 'romeo', 'two')
    await presence(h, 'mercutio', 'in')
    await presence(h, 'mercutio', 'out', 'unavailable')
    expect(client.take()).to.eql([])
    const received = await client.send(ACTIVE)
    expect(texts(received)).to.eql(['nurse', 'two', 'out'])
    expect(received.map((e) => e.attr('type'))).to.eql([undefined, undefined, 'unavailable'])
    await presence(h, 'romeo', 'three')
    expect(texts(client.take())).to.eql(['three'])
  })

  it('§3.2: chat states alone are dropped, also within copies; anything with content is not', async () => {
    await using h = await start()
    const client = await inactive(h)
    await message(h, `${TYPING}<thread>t</thread><no-store xmlns='urn:xmpp:hints'/>`)
    expect(await client.send(ACTIVE)).to.eql([])
    await client.send(`<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>${INACTIVE}`)
    const other = await h.client('juliet@example.org/laptop')
    await other.send(`<message to='juliet@example.org/laptop' type='chat'>${TYPING}</message>`)
    expect(client.take()).to.eql([])
    await other.send(`<message to='juliet@example.org/laptop' type='chat'><body>Hi</body>${TYPING}</message>`)
    expect(client.take()).to.have.length(1)
    await message(h, `<body>Hi</body>${TYPING}`)
    await message(h, TYPING, "type='error'")
    expect(texts(client.take())).to.eql(['Hi', 'error'])
  })

  it('§3.2: beside the mark of a room a chat state is alone, beside an invitation it is not', async () => {
    await using h = await start()
    const client = await inactive(h)
    const room = (inner: string) => `${TYPING}<x xmlns='http://jabber.org/protocol/muc#user'>${inner}</x>`
    await message(h, room(''))
    await message(h, room("<item affiliation='none' role='participant'/>"))
    expect(client.take()).to.eql([])
    for (const inner of ["<invite from='romeo@example.org'/>", '<decline/>', "<status code='104'/>"]) {
      await message(h, room(inner))
      expect(client.take()).to.have.length(1)
    }
  })

  it('§3.2: notifications wait, all of them', async () => {
    await using h = await start()
    const client = await inactive(h)
    await message(h, event('1'), "type='headline'")
    await message(h, event('2'), "type='headline'")
    expect(client.take()).to.eql([])
    await message(h, '<body>News</body>', "type='headline'")
    expect(texts(client.take())).to.eql(['1', '2', 'News'])
  })

  for (const [what, stanza] of [
    [
      'a message',
      `<message from='r@elsewhere.example/x' to='${JULIET}' type='chat'><body>now</body></message>`,
    ],
    [
      'a request',
      `<iq type='get' id='q' from='r@elsewhere.example/x' to='${JULIET}'><q xmlns='urn:q'/></iq>`,
    ],
    [
      'a presence error',
      `<presence type='error' from='r@elsewhere.example/x' to='${JULIET}'><status>now</status></presence>`,
    ],
  ] as const)
    it(`RFC 6120 §10.1: ${what} does not wait, and what has waited goes before it`, async () => {
      await using h = await start()
      const client = await inactive(h)
      await presence(h, 'romeo', 'one')
      await message(h, event('two'), "type='headline'")
      await fromRemote(h, stanza)
      const received = texts(client.take())
      expect(received.slice(0, 2)).to.eql(['one', 'two'])
      expect(received).to.have.length(3)
      await presence(h, 'romeo', 'later') // it is inactive still
      expect(client.take()).to.eql([])
    })

  it('§5.1: active, then a ping: what waited comes before the answer', async () => {
    await using h = await start()
    const client = await inactive(h)
    await presence(h, 'romeo', 'one')
    const received = await client.send(
      `${ACTIVE}<iq type='get' id='p' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>`,
    )
    expect(texts(received)).to.eql(['one', 'result'])
  })

  it('memory is bounded: more than that and all of it is sent, in order', async () => {
    await using h = await start({ memory: '1 KiB' })
    const client = await inactive(h)
    await presence(h, 'romeo', 'x'.repeat(400))
    await presence(h, 'romeo', 'y'.repeat(400))
    expect(client.take()).to.eql([]) // only the last one counts
    await presence(h, 'nurse', 'z'.repeat(600))
    expect(texts(client.take()).map((text) => text[0])).to.eql(['y', 'z'])
    await presence(h, 'romeo', 'x'.repeat(400))
    expect(client.take()).to.eql([])
  })

  it('RFC 6121 §4.5.2: what waits of contacts is forgotten when the client goes unavailable, and does not stay for true', async () => {
    await using h = await testHost({ modules: [roster, presences, csi], accounts: ['juliet', 'romeo'] })
    const juliet = await online(h, JULIET)
    const romeo = await online(h, 'romeo@example.org/orchard')
    await befriend(juliet, romeo)
    await juliet.send(INACTIVE)
    await romeo.send('<presence><status>here</status></presence>')
    await juliet.send("<presence type='unavailable'/>")
    await romeo.close()
    await juliet.send('<presence/>')
    const received = await juliet.send(ACTIVE)
    expect(received.map((e) => e.attr('from')))
      .to.include(JULIET)
      .and.not.include(romeo.jid.toString())
  })

  it('XEP-0191 §3.3: what waits of an address that is blocked meanwhile is not sent', async () => {
    await using h = await testHost({ modules: [csi, blocking], accounts: ['juliet'] })
    const client = await inactive(h)
    for (const who of ['romeo', 'nurse']) await presence(h, who, who)
    const other = await h.client('juliet@example.org/laptop')
    await other.send(
      "<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='romeo@elsewhere.example'/></block></iq>",
    )
    expect(texts(await client.send(ACTIVE))).to.eql(['nurse'])
  })

  it('XEP-0191 §3.3: what waits is sent while the store does not say who is blocked', async () => {
    await using h = await testHost({ modules: [csi], accounts: ['juliet'], onLog: () => undefined })
    const client = await inactive(h)
    await presence(h, 'romeo', 'romeo')
    h.store.open('example.org', 'blocking').docs('blocked').get = () => Promise.reject(new Error('disk full'))
    await h.load(blocking)
    const unhandled: unknown[] = []
    const note = (error: unknown): void => void unhandled.push(error) // it would end the server
    process.on('unhandledRejection', note)
    expect(texts(await client.send(ACTIVE))).to.eql(['romeo'])
    process.off('unhandledRejection', note)
    expect(unhandled).to.eql([])
  })

  it('§3.2: each of them can be switched off', async () => {
    await using h = await start({ presence: false, chatStates: false, notifications: false })
    const client = await inactive(h)
    await presence(h, 'romeo', 'one')
    await message(h, TYPING)
    await message(h, event('two'), "type='headline'")
    expect(texts(client.take())).to.eql(['one', 'chat', 'two'])
  })

  it('§5.2: a resumed stream is active, and nothing that waited is lost', async () => {
    await using h = await testHost({ modules: [csi, streamManagement], accounts: ['juliet'] })
    const client = await inactive(h)
    const [enabled] = await client.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
    await presence(h, 'romeo', 'one')
    await client.drop()
    await presence(h, 'nurse', 'two')
    const fresh = await Fresh.open(h, {}, 'juliet@example.org')
    const { elements } = await fresh.send(resume(enabled?.attr('id') ?? '', 0))
    expect(elements.map((e) => e.getChildText('status') ?? e.getName())).to.eql(['resumed', 'one', 'two'])
    await presence(h, 'mercutio', 'three')
    expect(fresh.take().elements.map((e) => e.getChildText('status'))).to.include('three')
  })

  for (const [how, end] of [
    ['is lost', (client: TestClient) => client.drop()],
    ['closes its stream', (client: TestClient) => client.close()],
  ] as const)
    it(`a notification that waits for a client that ${how} goes on its way, presence does not`, async () => {
      await using h = await start()
      const romeo = await h.client('romeo@example.org/orchard')
      const client = await inactive(h)
      await presence(h, 'nurse', 'one')
      await romeo.send(`<message to='${JULIET}' type='headline' id='n1'>${event('two')}</message>`)
      expect(romeo.take()).to.eql([])
      await end(client)
      await h.settle()
      // RFC 6121 §8.5.3.2.1: nobody else takes it, so its sender is told
      expect(romeo.take().map((e) => `${e.attr('type')} ${e.attr('id')}`)).to.eql(['error n1'])
    })

  it('XEP-0198 §4: so does one for a client that never comes back to its session', async () => {
    const modules = [csi, streamManagement]
    await using h = await testHost({ modules, accounts: ['juliet', 'romeo'] })
    const romeo = await h.client('romeo@example.org/orchard')
    const client = await inactive(h)
    await client.send("<enable xmlns='urn:xmpp:sm:3' resume='true' max='60'/>")
    await client.drop()
    await romeo.send(`<message to='${JULIET}' type='headline' id='n1'>${event('two')}</message>`)
    await h.clock.advance(50_000)
    expect(romeo.take()).to.eql([])
    await h.clock.advance(20_000)
    expect(romeo.take().map((e) => `${e.attr('type')} ${e.attr('id')}`)).to.eql(['error n1'])
  })

  it('XEP-0386 §3.2: inactive from the beginning, said while binding', async () => {
    const modules = [accounts, sasl, bind, sasl2, bind2, csi]
    await using h = await testHost({ modules, config: { accounts: { iterations: 4096 } } })
    await h.service('auth').create('juliet', 'secret')
    const login = await LoginStream.open(h, { tls: bindingTls() })
    const initial = Buffer.from('\0juliet\0secret').toString('base64')
    await login.send(
      `<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>${initial}</initial-response>` +
        `<bind xmlns='urn:xmpp:bind:0'>${INACTIVE}</bind></authenticate>`,
    )
    expect(h.host.of('juliet')[0]!.flag('csi')).to.equal('inactive')
  })

  it('an element that the specification does not know ends the stream', async () => {
    await using h = await start()
    const client = await h.client(JULIET)
    await client.send(`<asleep xmlns='${NS}'/>`)
    expect(client.error?.firstElement()?.name).to.equal('unsupported-stanza-type')
  })

  it('what waits is sent when the module is unloaded', async () => {
    await using h = await start()
    const client = await inactive(h)
    await presence(h, 'romeo', 'one')
    await h.unload('csi')
    await presence(h, 'romeo', 'two')
    expect(texts(client.take())).to.eql(['one', 'two'])
  })
})
