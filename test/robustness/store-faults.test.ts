/**
 * A store that rejects or hangs: what needs it is answered with internal-server-error within a bound, what does not goes on, and when the
 * store is back everything works again, in the same sessions.
 */
import { expect } from 'chai'
import { Client } from '../helpers/client.ts'
import type { Element } from '../helpers/xml.ts'
import { startServer, type TestServer } from '../helpers/server.ts'
import { withTimeLimit } from '../../server/store-limits.ts'
import type { Log } from '../../server/module.ts'
import { type Fault, type FaultyStore, openFaulty } from './faulty-store.ts'

/** The server's own limit is 8 s; here the same with less patience. */
const LIMIT_MS = 400

interface Stage extends AsyncDisposable {
  readonly store: FaultyStore
  readonly server: TestServer
  readonly log: string[]
  client(local: string, resource?: string): Promise<Client>
}

async function stage(...users: string[]): Promise<Stage> {
  await using undo = new AsyncDisposableStack()
  const store = await openFaulty()
  undo.defer(() => store.close())
  const lines: string[] = []
  const line = (level: string) => (message: string, fields?: object) => {
    const err = fields !== undefined && 'err' in fields ? fields.err : undefined
    lines.push(`${level} ${message} ${err instanceof Error ? err.stack : ''}`)
  }
  const log: Log = { debug: () => undefined, info: () => undefined, warn: line('warn'), error: line('error') }
  const server = await startServer({
    store: withTimeLimit(store, LIMIT_MS),
    log,
    modules: {
      starttls: { required: false },
      sasl: { requireTls: false, plainInClear: true },
      accounts: { iterations: 4096 },
    },
  })
  undo.use(server)
  for (const user of users) await server.addUser(user, 'secret')
  const kept = undo.move()
  return {
    store,
    server,
    log: lines,
    async client(local, resource = 'r') {
      const client = await Client.connect(server, 'tcp', local)
      client.timeoutMs = 15_000
      kept.defer(() => client.drop())
      await client.authenticate(local, 'secret', 'PLAIN')
      await client.bind(resource)
      return client
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}

/** Each request needs the store; `kind` of its answer when the store is there. */
const REQUESTS: readonly (readonly [name: string, xml: string])[] = [
  ['roster get', `<iq type='get'><query xmlns='jabber:iq:roster'/></iq>`],
  [
    'roster set',
    `<iq type='set'><query xmlns='jabber:iq:roster'><item jid='new@localhost' name='New'/></query></iq>`,
  ],
  ['block', `<iq type='set'><block xmlns='urn:xmpp:blocking'><item jid='foe@localhost'/></block></iq>`],
  ['block list', `<iq type='get'><blocklist xmlns='urn:xmpp:blocking'/></iq>`],
  [
    'private set',
    `<iq type='set'><query xmlns='jabber:iq:private'><x xmlns='urn:example'>1</x></query></iq>`,
  ],
  ['private get', `<iq type='get'><query xmlns='jabber:iq:private'><x xmlns='urn:example'/></query></iq>`],
  ['vcard set', `<iq type='set'><vCard xmlns='vcard-temp'><FN>Romeo</FN></vCard></iq>`],
  ['vcard get', `<iq type='get'><vCard xmlns='vcard-temp'/></iq>`],
  ['vcard of another', `<iq type='get' to='juliet@localhost'><vCard xmlns='vcard-temp'/></iq>`],
  ['last activity', `<iq type='get' to='juliet@localhost'><query xmlns='jabber:iq:last'/></iq>`],
  // not to be kept for later, so that there is an answer
  [
    'message to somebody away',
    `<message to='juliet@localhost' type='chat'><body>x</body><no-store xmlns='urn:xmpp:hints'/></message>`,
  ],
  [
    'iq to a resource of somebody away',
    `<iq type='get' to='juliet@localhost/x'><ping xmlns='urn:xmpp:ping'/></iq>`,
  ],
]

const isAnswer =
  (id: string) =>
  (item: Client['inbox'][number]): boolean =>
    item.kind === 'element' && item.el.attrs['id'] === id && !item.el.is('presence')

/** Sends all requests, each from a session of its own, and resolves to their answers. */
async function ask(clients: readonly Client[], round: string): Promise<readonly Element[]> {
  return await Promise.all(
    REQUESTS.map(async ([name, xml], i) => {
      const client = clients[i] as Client
      const id = `${round}${i}`
      client.sendStanza(xml.replace(/^<(\w+)/, `<$1 id='${id}'`))
      await client.until(() => client.inbox.some(isAnswer(id)), `the answer to ${name}`)
      const at = client.inbox.findIndex(isAnswer(id))
      const [item] = client.inbox.splice(at, 1)
      return item?.kind === 'element' ? item.el : client.fail('no answer')
    }),
  )
}

const condition = (el: Element): string =>
  el.attrs['type'] === 'error'
    ? (el.getChild('error')?.getChildElements()[0]?.getName() ?? '?')
    : String(el.attrs['type'] ?? 'none')

describe('a store that fails', function () {
  this.timeout(30_000)

  for (const fault of ['reject', 'hang'] as const)
    it(`${fault}s: requests that need it get internal-server-error, others are served, and afterwards all is well`, async () => {
      const locals = REQUESTS.map((_, i) => `user${i}`)
      await using s = await stage('juliet', ...locals)
      const clients = await Promise.all(locals.map((local) => s.client(local)))
      s.store.fault = fault
      const began = performance.now()
      const failed = await ask(clients, 'bad')
      const took = performance.now() - began
      failed.forEach((el, i) => {
        // an answer from memory is as good
        expect(condition(el), REQUESTS[i]?.[0]).to.be.oneOf([
          'internal-server-error',
          'result',
          'service-unavailable',
        ])
      })
      const refused = failed.filter((el) => condition(el) === 'internal-server-error')
      expect(refused.length, 'requests that needed the store').to.be.at.least(8)
      expect(s.store.met).to.be.at.least(8)
      expect(took).to.be.below(10_000)
      for (const client of clients) await client.ping()
      s.store.fault = 'none'
      const answers = await ask(clients, 'good')
      for (const [i, el] of answers.entries())
        expect(condition(el), REQUESTS[i]?.[0]).not.to.equal('internal-server-error')
    })

  for (const fault of ['reject', 'hang'] as const)
    it(`${fault}s while a client logs in: temporary-auth-failure, the next attempt succeeds on the same stream (RFC 6120 §6.5.11)`, async () => {
      await using s = await stage('romeo')
      const client = await Client.connect(s.server, 'tcp', 'romeo')
      client.timeoutMs = 15_000
      await client.openStream()
      s.store.fault = fault
      client.sendAuth('PLAIN', '\0romeo\0secret')
      await client.expect(
        `<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><temporary-auth-failure/>...</failure>`,
      )
      s.store.fault = 'none'
      await client.authenticate('romeo', 'secret', 'PLAIN')
      await client.bind('r')
      await client.ping()
      client.drop()
    })

  for (const fault of ['reject', 'hang'] as const)
    it(`${fault}s while a client binds and becomes available: the session works, presence is told when the store is back`, async () => {
      await using s = await stage('romeo', 'juliet')
      const romeo = await s.client('romeo')
      s.store.fault = fault
      romeo.sendStanza('<presence/>')
      await romeo.ping()
      s.store.fault = 'none'
      romeo.clear()
      await romeo.goOnline()
      const juliet = await s.client('juliet')
      juliet.sendStanza(`<presence to='${romeo.jid}'/>`)
      await romeo.eventually(`<presence from='${juliet.jid}' etc=''/>`)
    })

  it('hangs: many messages of one sender to one account that is away all come back within the bound, not one after another', async () => {
    await using s = await stage('romeo', 'juliet')
    const romeo = await s.client('romeo')
    s.store.fault = 'hang'
    const began = performance.now()
    const count = 300
    for (let i = 0; i < count; i++)
      romeo.sendStanza(`<message id='m${i}' to='juliet@localhost' type='chat'><body>x</body></message>`)
    const errors = (): number =>
      romeo.inbox.filter((item) => item.kind === 'element' && item.el.is('message')).length
    await romeo.until(() => errors() === count, 'all bounces')
    // at most PIPELINE of them wait at the same time
    expect(performance.now() - began).to.be.below(12_000)
    s.store.fault = 'none'
    romeo.clear()
    await romeo.ping()
  })

  it('a roster set is answered with a result only when it is stored, and only then pushed (RFC 6121 §2.3.2)', async () => {
    await using s = await stage('romeo')
    const romeo = await s.client('romeo')
    const other = await s.client('romeo', 'other')
    await romeo.roster()
    await other.roster()
    const set = (id: string, name: string): void =>
      romeo.sendStanza(
        `<iq type='set' id='${id}'><query xmlns='jabber:iq:roster'><item jid='${name}@localhost'/></query></iq>`,
      )
    for (const fault of ['reject', 'hang'] as const) {
      s.store.fault = fault
      s.store.only = /^roster\./
      set(fault, fault)
      await romeo.expect(
        `<iq id='${fault}' type='error' etc=''>...<error type='*' etc=''><internal-server-error/>...</error></iq>`,
      )
      s.store.fault = 'none'
      await other.ping()
      expect(other.inbox, 'no push').to.have.length(0)
    }
    set('good', 'good')
    await other.eventually(
      `<iq type='set' etc=''><query xmlns='jabber:iq:roster' etc=''><item jid='good@localhost' etc=''/></query></iq>`,
    )
    await romeo.eventually(`<iq id='good' type='result' etc=''/>`)
    const items = (await romeo.roster()).getChildren('item').map((item) => item.attrs['jid'])
    expect(items).to.include('good@localhost')
    expect(items).not.to.include('reject@localhost')
  })

  it('slow: what a session sends meanwhile keeps its order', async () => {
    await using s = await stage('romeo', 'juliet')
    const romeo = await s.client('romeo')
    const juliet = await s.client('juliet')
    await juliet.goOnline()
    const fault: Fault = { slowMs: 50 }
    s.store.fault = fault
    for (let i = 0; i < 20; i++) {
      romeo.sendStanza(`<message id='${i}' to='${juliet.jid}'/>`)
      if (i % 5 === 0)
        romeo.sendStanza(
          `<iq type='set' id='set${i}'><query xmlns='jabber:iq:roster'><item jid='a${i}@localhost'/></query></iq>`,
        )
    }
    for (let i = 0; i < 20; i++) await juliet.expect(`<message id='${i}' etc=''/>`)
  })

  it('fails in the middle of the removal of an account: what is left is not given to the next owner of the name', async () => {
    await using s = await stage('romeo')
    const romeo = await s.client('romeo')
    romeo.sendStanza(
      `<iq type='set' id='s'><query xmlns='jabber:iq:roster'><item jid='secret@localhost'/></query></iq>`,
    )
    await romeo.expect(`<iq id='s' type='result' etc=''/>`)
    const host = s.server.server.hosts.get('localhost')
    s.store.only = /purgeOwner/
    s.store.fault = 'reject'
    await host?.deleteAccount('romeo').then(
      () => expect.fail('the removal failed, but nobody was told'),
      () => undefined,
    )
    s.store.fault = 'none'
    await s.server.addUser('romeo', 'secret').catch(() => undefined)
    const heir = await s.client('romeo').catch(() => undefined)
    if (heir === undefined) return // the name stays taken until the rest is removed: as good
    expect((await heir.roster()).getChildren('item')).to.have.length(0)
  })
})
