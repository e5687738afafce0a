/** RFC 6120 §8, §10 and RFC 6121 §8.5: where stanzas go, row by row of table 1. */
import { expect } from 'chai'
import type { ModuleDef, StanzaEvent } from '../../server/module.ts'
import { el } from '../../server/xmpp/element.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { type TestClient, type TestHost, testHost } from '../helpers/host.ts'

/** A presence module of three lines: what matters to the router is the priority. */
const available: ModuleDef<never> = {
  name: 'available',
  summary: 'test',
  specs: [],
  setup: (ctx) =>
    ctx.hook('client:in', { phase: 'rewrite', kinds: ['presence'] }, (e) => {
      if (e.stanza.attr('to') !== undefined) return undefined
      e.session?.setPresence(e.stanza.attr('type') === 'unavailable' ? undefined : e.stanza)
      return { stop: 'set' }
    }),
}

type Outcome = 'delivered' | 'error' | 'silent'

/** Sends a message of that type; what became of it. */
async function send(
  h: TestHost,
  type: string,
  to: string,
  receivers: readonly TestClient[],
): Promise<{ outcome: Outcome; at: string[] }> {
  const romeo = await h.client('romeo@example.org/orchard')
  const answers = await romeo.send(`<message to='${to}' type='${type}' id='m'><body>hi</body></message>`)
  const at = receivers.filter((r) => r.take().some((e) => e.attr('id') === 'm')).map((r) => r.jid.resource)
  const error = answers.find((e) => e.attr('type') === 'error')
  if (error !== undefined) {
    expect(error.getChild('error')?.firstElement()?.name).to.equal('service-unavailable')
    expect(error.attr('from')).to.equal(to)
  }
  return { outcome: error !== undefined ? 'error' : at.length > 0 ? 'delivered' : 'silent', at }
}

async function setUp(...priorities: (number | undefined)[]): Promise<{ h: TestHost; clients: TestClient[] }> {
  const h = await testHost({ modules: [available], accounts: ['romeo', 'juliet'] })
  const clients: TestClient[] = []
  for (const [i, priority] of priorities.entries()) {
    const client = await h.client(`juliet@example.org/r${i}`)
    if (priority !== undefined) await client.send(`<presence><priority>${priority}</priority></presence>`)
    clients.push(client)
  }
  return { h, clients }
}

const BARE = 'juliet@example.org'
const MATCH = 'juliet@example.org/r0'
const NO_MATCH = 'juliet@example.org/gone'
const TYPES = ['normal', 'chat', 'groupchat', 'headline'] as const
/** One row of table 1: condition, address, then what happens for normal, chat, groupchat and headline. */
type Row = readonly [
  condition: string,
  priorities: readonly (number | undefined)[],
  to: string,
  outcomes: readonly string[],
]

const ROWS: readonly Row[] = [
  ['account does not exist', [], 'nobody@example.org', ['error', 'error', 'error', 'silent']],
  ['account does not exist', [], 'nobody@example.org/x', ['error', 'error', 'error', 'error']],
  ['no active resources', [], BARE, ['error', 'error', 'error', 'silent']],
  ['no active resources', [], NO_MATCH, ['error', 'error', 'error', 'error']],
  ['negative resources only', [-1, -5], BARE, ['error', 'error', 'error', 'silent']],
  ['negative resources only', [-1, -5], MATCH, ['r0', 'r0', 'r0', 'r0']],
  ['negative resources only', [-1, -5], NO_MATCH, ['error', 'error', 'error', 'error']],
  ['one non-negative resource', [0], BARE, ['r0', 'r0', 'error', 'r0']],
  ['one non-negative resource', [0], MATCH, ['r0', 'r0', 'r0', 'r0']],
  ['one non-negative resource', [0], NO_MATCH, ['error', 'r0', 'error', 'error']],
  ['several non-negative resources', [1, 5, 5, -1], BARE, ['r1 r2', 'r1 r2', 'error', 'r0 r1 r2']],
  ['several non-negative resources', [1, 5, 5, -1], MATCH, ['r0', 'r0', 'r0', 'r0']],
  ['several non-negative resources', [1, 5, 5, -1], NO_MATCH, ['error', 'r1 r2', 'error', 'error']],
  ['connected but not available', [undefined], BARE, ['error', 'error', 'error', 'silent']],
  ['connected but not available', [undefined], MATCH, ['r0', 'r0', 'r0', 'r0']],
]

describe('router: messages (RFC 6121 §8.5.4 table 1)', () => {
  for (const [condition, priorities, to, outcomes] of ROWS) {
    for (const [i, type] of TYPES.entries()) {
      it(`${condition}, ${type} to ${to}: ${outcomes[i]}`, async () => {
        const { h, clients } = await setUp(...priorities)
        await using _ = h
        const { outcome, at } = await send(h, type, to, clients)
        expect(outcome === 'delivered' ? at.join(' ') : outcome).to.equal(outcomes[i])
      })
    }
  }

  it('never answers a message of type error, and gives it to an exact resource only (§8.5.2.1.1, §8.5.3.2.1)', async () => {
    const { h, clients } = await setUp(5)
    await using _ = h
    expect((await send(h, 'error', BARE, clients)).outcome).to.equal('silent')
    expect((await send(h, 'error', NO_MATCH, clients)).outcome).to.equal('silent')
    expect((await send(h, 'error', 'nobody@example.org', clients)).outcome).to.equal('silent')
    expect((await send(h, 'error', MATCH, clients)).at).to.deep.equal(['r0'])
  })

  it('leaves the address as it was sent (§8.5.2.1.1)', async () => {
    const { h, clients } = await setUp(0)
    await using _ = h
    const romeo = await h.client('romeo@example.org/orchard')
    await romeo.send(`<message to='Juliet@EXAMPLE.org' type='chat' id='m'><body>hi</body></message>`)
    expect(clients[0]!.take().map((e) => e.attr('to'))).to.deep.equal(['Juliet@EXAMPLE.org'])
  })

  it('treats a message without an address as one to the own account (RFC 6120 §10.3.1)', async () => {
    const { h, clients } = await setUp(0)
    await using _ = h
    const got = await clients[0]!.send(`<message id='note'><body>note to self</body></message>`)
    expect(got.map((e) => e.attr('id'))).to.deep.equal(['note'])
  })
})

describe('router: addresses (RFC 6120 §8.1)', () => {
  it('overrides a from address that the client made up (§8.1.2.1)', async () => {
    const { h, clients } = await setUp(0)
    await using _ = h
    const romeo = await h.client('romeo@example.org/orchard')
    await romeo.send(`<message from='king@example.org' to='${BARE}' id='m'><body>hi</body></message>`)
    expect(clients[0]!.take()[0]!.attr('from')).to.equal('romeo@example.org/orchard')
  })

  it('adds the language of the stream where a stanza names none (§8.1.5)', async () => {
    const { h, clients } = await setUp(0)
    await using _ = h
    const romeo = await h.client('romeo@example.org/orchard')
    romeo.session.lang = 'it'
    await romeo.send(
      `<message to='${BARE}'><body>ciao</body></message><message to='${BARE}' xml:lang='de'><body>hallo</body></message>`,
    )
    expect(clients[0]!.take().map((e) => e.attr('xml:lang'))).to.deep.equal(['it', 'de'])
  })

  it('answers a malformed address with jid-malformed (§8.3.3.8)', async () => {
    const { h } = await setUp()
    await using _ = h
    const romeo = await h.client('romeo@example.org/orchard')
    const [answer] = await romeo.send(`<message to='@example.org' id='m'><body>hi</body></message>`)
    expect(answer!.getChild('error')!.firstElement()!.name).to.equal('jid-malformed')
    expect(answer!.attr('id')).to.equal('m')
  })

  it('answers for a domain it cannot reach with remote-server-not-found (§10.4.3)', async () => {
    const { h } = await setUp()
    await using _ = h
    const romeo = await h.client('romeo@example.org/orchard')
    const [answer] = await romeo.send(`<message to='a@elsewhere.example' id='m'><body>hi</body></message>`)
    expect(answer!.getChild('error')!.firstElement()!.name).to.equal('remote-server-not-found')
  })
})

const asked: ModuleDef<never> = {
  name: 'asked',
  summary: 'test',
  specs: [],
  setup(ctx) {
    ctx.iq('host', 'get', 'urn:test', 'query', (iq) => el('query', 'urn:test', { by: iq.from.toString() }))
    ctx.iq('self', 'get', 'urn:test', 'query', () => undefined)
    ctx.iq('account', 'set', 'urn:test', 'query', async () => {
      throw new StanzaError('not-allowed')
    })
    ctx.iq('host', 'set', 'urn:test', 'query', () => {
      throw new TypeError('a bug')
    })
  },
}

describe('router: iq (RFC 6120 §8.2.3, §10.3.3)', () => {
  const names = (
    e: { getChild(name: string): { firstElement(): { name: string } | undefined } | undefined } | undefined,
  ) => e?.getChild('error')?.firstElement()?.name

  async function ask(xml: string): Promise<string[]> {
    const logged: string[] = []
    await using h = await testHost({
      modules: [asked],
      accounts: ['romeo', 'juliet'],
      onLog: (_level, message) => logged.push(message),
    })
    const romeo = await h.client('romeo@example.org/orchard')
    const answers = await romeo.send(xml)
    return answers.map((a) => `${a.attr('type')} ${a.attr('id')} ${names(a) ?? ''}`.trim())
  }

  it('answers each request exactly once with what the handler returns', async () => {
    expect(await ask(`<iq type='get' id='1' to='example.org'><query xmlns='urn:test'/></iq>`)).to.deep.equal([
      'result 1',
    ])
    expect(await ask(`<iq type='get' id='1'><query xmlns='urn:test'/></iq>`)).to.deep.equal(['result 1'])
  })
  it('answers with the error a handler throws, and hides bugs', async () => {
    expect(
      await ask(`<iq type='set' id='1' to='juliet@example.org'><query xmlns='urn:test'/></iq>`),
    ).to.deep.equal(['error 1 not-allowed'])
    expect(await ask(`<iq type='set' id='1' to='example.org'><query xmlns='urn:test'/></iq>`)).to.deep.equal([
      'error 1 internal-server-error',
    ])
  })
  it('answers what nobody handles with service-unavailable', async () => {
    for (const to of [
      '',
      `to='example.org'`,
      `to='romeo@example.org'`,
      `to='juliet@example.org'`,
      `to='juliet@example.org/x'`,
      `to='nobody@example.org'`,
    ])
      expect(await ask(`<iq type='get' id='1' ${to}><query xmlns='urn:other'/></iq>`)).to.deep.equal([
        'error 1 service-unavailable',
      ])
  })
  it('closes what belongs to an account alone to others (RFC 6121 §2.3.3)', async () => {
    expect(
      await ask(`<iq type='get' id='1' to='juliet@example.org'><query xmlns='urn:test'/></iq>`),
    ).to.deep.equal(['error 1 forbidden'])
  })
  it('refuses requests that are not well formed with bad-request', async () => {
    expect(await ask(`<iq type='get' id='1'/>`)).to.deep.equal(['error 1 bad-request'])
    expect(await ask(`<iq type='get' id='1'><a xmlns='urn:a'/><b xmlns='urn:b'/></iq>`)).to.deep.equal([
      'error 1 bad-request',
    ])
    expect(await ask(`<iq type='push' id='1'><a xmlns='urn:a'/></iq>`)).to.deep.equal(['error 1 bad-request'])
    expect(await ask(`<iq type='get'><a xmlns='urn:a'/></iq>`)).to.have.length(1)
  })
  it('never answers a result or an error', async () => {
    expect(
      await ask(
        `<iq type='result' id='1' to='example.org'/><iq type='error' id='2'/><iq type='result' id='3' to='juliet@example.org/x'/>`,
      ),
    ).to.deep.equal([])
  })
})

describe('router: messages that go back to their senders', () => {
  const MESSAGE = (to: string, more = '') =>
    `<message to='${to}' type='chat' id='m'><body>hi</body>${more}</message>`

  /** Tells of what went back; refuses what is called so, gives the others an id. */
  const told: string[] = []
  const follows: ModuleDef<never> = {
    name: 'follows',
    summary: 'test',
    specs: [],
    setup(ctx) {
      const id = el('stanza-id', 'urn:xmpp:sid:0', { by: BARE, id: 'secret' })
      const refuse = (what: string) => (e: StanzaEvent) =>
        e.stanza.getChild(what) === undefined ? undefined : { bounce: new StanzaError('not-allowed') }
      ctx.hook('client:in', { phase: 'guard' }, refuse('early'))
      ctx.hook('account:in', { phase: 'guard' }, refuse('here'))
      ctx.hook('account:in', { phase: 'store' }, (e) => void (e.stanza = e.stanza.append(id)))
      ctx.hook('account:offline', { phase: 'store' }, refuse('late'))
      ctx.hook('message:bounced', { phase: 'observe' }, ({ to }) => void told.push(to.toString()))
    },
  }
  beforeEach(() => void told.splice(0))

  for (const [what, to, more, times] of [
    ['nobody takes it', BARE, '', 1],
    ['it cannot be kept', BARE, '<late/>', 1],
    ['its domain is out of reach', 'a@example.net', '', 1],
    ['the server itself has no use for it', 'example.org', '', 1],
    ['the sender’s side refuses it', BARE, '<early/>', 0],
    ['the receiver’s side refuses it', BARE, '<here/>', 0],
  ] as const)
    it(`modules are ${times === 0 ? 'not ' : ''}told: ${what}`, async () => {
      await using h = await testHost({ modules: [available, follows], accounts: ['romeo', 'juliet'] })
      const romeo = await h.client('romeo@example.org/orchard')
      const [error] = await romeo.send(MESSAGE(to, more))
      expect(error?.attr('type')).to.equal('error')
      expect(told).to.deep.equal(times === 0 ? [] : [to])
    })

  it('XEP-0313 §3.5: the error does not tell the id that the archive of the receiver has given it', async () => {
    await using h = await testHost({ modules: [available, follows], accounts: ['romeo', 'juliet'] })
    const romeo = await h.client('romeo@example.org/orchard')
    const [error] = await romeo.send(MESSAGE(BARE, "<stanza-id xmlns='urn:xmpp:sid:0' by='a@b' id='1'/>"))
    expect(error?.elements.map((e) => e.attr('id') ?? e.name)).to.deep.equal(['body', '1', 'error'])
  })
})

describe('router: order (RFC 6120 §10.1)', () => {
  it('keeps the order of a sender although some messages wait for the store, and finishes all before an iq', async () => {
    const gates: (() => void)[] = []
    const slow: ModuleDef<never> = {
      name: 'slow',
      summary: 'test',
      specs: [],
      setup(ctx) {
        ctx.hook('account:in', { phase: 'store', kinds: ['message'] }, (e) => {
          if (e.stanza.attr('id') === '2') return undefined
          return new Promise<void>((resolve) => void gates.push(resolve))
        })
        ctx.iq('self', 'get', 'urn:test', 'query', () => undefined)
      },
    }
    await using h = await testHost({ modules: [available, slow], accounts: ['romeo', 'juliet'] })
    const juliet = await h.client('juliet@example.org/a')
    await juliet.send('<presence/>')
    const romeo = await h.client('romeo@example.org/orchard')
    const message = (id: number): string => `<message to='${BARE}' id='${id}'><body>x</body></message>`
    const answers = await romeo.send(
      `${message(1)}${message(2)}${message(3)}<iq type='get' id='q'><query xmlns='urn:test'/></iq>`,
    )
    expect(answers).to.deep.equal([])
    expect(juliet.take()).to.deep.equal([])
    expect(gates).to.have.length(2)
    for (const open of gates.toReversed()) open()
    await h.settle()
    expect(juliet.take().map((e) => e.attr('id'))).to.deep.equal(['1', '2', '3'])
    expect(romeo.take().map((e) => e.attr('id'))).to.deep.equal(['q'])
  })

  it('makes the sender wait when too many of its messages wait', async () => {
    let waiting = 0
    const slow: ModuleDef<never> = {
      name: 'slow',
      summary: 'test',
      specs: [],
      setup: (ctx) =>
        ctx.hook('client:in', { phase: 'store' }, () => new Promise<void>(() => void waiting++)),
    }
    await using h = await testHost({ modules: [slow], accounts: ['romeo'], onLog: () => undefined })
    const romeo = await h.client('romeo@example.org/orchard')
    await romeo.send(`<message><body>x</body></message>`.repeat(500))
    expect(waiting).to.equal(128)
    expect(romeo.transport.paused).to.equal(true)
    await h.clock.advance(60_000) // the handlers time out; what waited behind them begins
    expect(waiting).to.equal(500)
  })
})

describe('router: an account whose messages are still being stored when it comes back', () => {
  it('has one list of sessions, so that its devices get what comes to it and see each other', async () => {
    const stored: (() => void)[] = []
    const slow: ModuleDef<never> = {
      name: 'slow',
      summary: 'test',
      specs: [],
      setup: (ctx) =>
        ctx.hook('account:offline', { phase: 'store' }, async () => {
          await new Promise<void>((resolve) => stored.push(resolve))
          return { stop: 'stored' }
        }),
    }
    await using h = await testHost({ modules: [available, slow], accounts: ['romeo', 'juliet'] })
    const romeo = await h.client('romeo@example.org/orchard')
    const message = `<message to='${BARE}' type='chat'><body>hi</body></message>`
    await romeo.send(message + message)
    expect(stored).to.have.length(2)
    stored[0]?.()
    await h.settle()
    const balcony = await h.client('juliet@example.org/balcony')
    await balcony.send('<presence/>')
    stored[1]?.()
    await h.settle()
    await romeo.send(message)
    expect(balcony.take().map((e) => e.name)).to.deep.equal(['message'])
    expect(stored).to.have.length(2)
  })
})
