/** XEP-0484: what ends tokens besides their use: a new password, another owner, age; also where they could not be removed. */
import { expect } from 'chai'
import accounts from '../../modules/accounts/index.ts'
import bind from '../../modules/bind.ts'
import fast from '../../modules/fast.ts'
import sasl from '../../modules/sasl/index.ts'
import sasl2 from '../../modules/sasl2.ts'
import { defineModule } from '../../server/module.ts'
import type { Doc, Store } from '../../server/storage/contract.ts'
import { openMemory } from '../../server/storage/memory.ts'
import { accountsStub } from '../helpers/accounts.ts'
import {
  AGENT,
  agentOf,
  byPassword,
  byToken,
  obtain,
  OTHER,
  outcome,
  PASSWORD,
  requestToken,
  start,
  tls,
} from '../helpers/fast.ts'
import { type TestHost, testHost } from '../helpers/host.ts'
import { LoginStream } from '../helpers/login.ts'
import { NS_BIND } from '../helpers/xml.ts'
import { openFaulty } from '../robustness/faulty-store.ts'

const EXPR = 'HT-SHA-256-EXPR'
const EXPIRED = 'credentials-expired'
const tokensIn = (store: Store) => store.open('example.org', 'fast').docs('tokens')

async function owners(host: TestHost): Promise<string[]> {
  const found: string[] = []
  for await (const owner of tokensIn(host.store).owners()) found.push(owner)
  return found
}

describe('fast: a new password (XEP-0484 §4.2)', () => {
  it('ends all tokens also when they cannot be removed, and those given from then on are good', async () => {
    const store = await openFaulty()
    const lines: string[] = []
    await using host = await testHost({
      modules: [accounts, sasl, bind, sasl2, fast],
      config: { accounts: { iterations: 4096 } },
      store,
      onLog: (level, message) => void lines.push(`${level} ${message}`),
    })
    await host.service('auth').create('juliet', PASSWORD)
    const tokens = [await obtain(host), await obtain(host, EXPR, OTHER)]
    Object.assign(store, { fault: 'reject', only: /^fast\.purge$/ })
    await host.service('auth').setPassword('juliet', 'another one')
    store.fault = 'none'
    expect(lines[0]).to.equal('error hook account:password of module fast failed')
    expect((await byToken(host, tokens[0] ?? '')).failure).to.equal(EXPIRED)
    expect((await byToken(host, tokens[1] ?? '', { agent: OTHER })).failure).to.equal(EXPIRED)
    const { token } = await byPassword(host, requestToken(EXPR), AGENT, 'another one')
    expect((await byToken(host, token ?? '')).failure).to.equal('')
    expect((await byToken(host, tokens[0] ?? '')).failure).to.equal('not-authorized')
  })

  it('ends them when this module is not there to hear of it, as after a crash between both', async () => {
    await using host = await start()
    const token = await obtain(host)
    await host.unload('fast')
    await host.service('auth').setPassword('juliet', 'another one')
    await host.load(fast)
    expect((await byToken(host, token)).failure).to.equal(EXPIRED)
  })

  it('ends them at once when another process has set it', async () => {
    const store = await openMemory()
    await using host = await start({}, store)
    await using other = await testHost({
      modules: [accounts],
      config: { accounts: { iterations: 4096 } },
      store,
    })
    const token = await obtain(host)
    expect((await byToken(host, token)).failure).to.equal('') // and the account is remembered
    await other.service('auth').setPassword('juliet', 'another one')
    expect((await byToken(host, token)).failure).to.equal(EXPIRED)
  })

  it('while a login with a token is under way: refused, and no token that lasts', async () => {
    for (const [call, calls] of [
      ['get', 1], // before the token is known
      ['update', 1], // when it is marked as used
    ] as const) {
      const store = await openFaulty()
      await using host = await start({}, store)
      const token = await obtain(host)
      const gate = Promise.withResolvers<void>()
      Object.assign(store, { only: new RegExp(`^fast\\.${call}$`), met: 0 })
      store.fault = { until: gate.promise, done: true }
      const login = byToken(host, token, { inner: requestToken(EXPR) })
      while (store.met < calls) await host.settle()
      store.fault = 'none'
      await host.service('auth').setPassword('juliet', 'another one')
      gate.resolve()
      const { failure, token: next } = await login
      expect([failure, next], call).to.deep.equal([EXPIRED, undefined])
    }
  })

  for (const event of ['a new password', 'another owner'])
    it(`§3.3: ${event} while a token is given: it is void, and nothing can be bound`, async () => {
      const store = await openFaulty()
      await using host = await start({}, store)
      const auth = host.service('auth')
      const gate = Promise.withResolvers<void>()
      Object.assign(store, { fault: { until: gate.promise, done: false }, only: /^fast\.update$/, met: 0 })
      const login = byPassword(host, requestToken(EXPR))
      while (store.met === 0) await host.settle()
      store.fault = 'none'
      if (event === 'a new password') await auth.setPassword('juliet', 'another one')
      else {
        await host.host.deleteAccount('juliet')
        await auth.create('juliet', 'another one')
      }
      gate.resolve()
      const { token, login: stream } = await login
      expect(token).to.match(/^[\w-]{43}$/)
      expect((await byToken(host, token ?? '')).failure).to.equal(EXPIRED)
      const answer = await stream.send(`<iq type='set' id='b'><bind xmlns='${NS_BIND}'/></iq>`)
      expect(answer.join()).to.contain('not-authorized')
    })

  it('keys that are added are none: tokens stay', async () => {
    const store = await openMemory()
    const modules = [accounts, sasl, sasl2, fast]
    let token: string
    {
      const config = { accounts: { iterations: 4096, hashes: ['SHA-256'] } }
      await using host = await testHost({ modules, config, store })
      await host.service('auth').create('juliet', PASSWORD)
      token = await obtain(host)
    }
    await using host = await testHost({ modules, config: { accounts: { iterations: 4096 } }, store })
    expect((await byPassword(host, '')).failure).to.equal('')
    expect((await host.service('auth').info('juliet'))?.['hashes']).to.equal('SHA-1, SHA-256, SHA-512')
    expect((await byToken(host, token)).failure).to.equal('')
  })
})

describe('fast: what was stored before accounts had generations', () => {
  /** Takes the field out of all that is stored for juliet. */
  async function age(store: Store): Promise<void> {
    const users = store.open('example.org', 'accounts').docs('accounts')
    const { generation, ...account } = (await users.get('juliet', 'account')) ?? {}
    expect(generation).to.not.equal(undefined)
    await users.put('juliet', 'account', account)
    const tokens = tokensIn(store)
    for await (const [agent, doc] of tokens.list('juliet')) {
      const old: Doc = JSON.parse(
        JSON.stringify(doc, (key, value) => (key === 'generation' ? undefined : value)),
      )
      expect(JSON.stringify(old)).to.not.contain('generation')
      await tokens.put('juliet', agent, old)
    }
  }

  it('tokens go on, are replaced, and end with the password', async () => {
    const store = await openMemory()
    let token: string
    {
      await using host = await start({}, store)
      token = await obtain(host)
    }
    await age(store)
    await using host = await start({ rotateAfter: '10min' }, store)
    expect((await byToken(host, token)).failure).to.equal('')
    await host.clock.advance(600_000)
    const { token: next } = await byToken(host, token)
    expect((await byToken(host, next ?? '')).failure).to.equal('')
    await host.unload('fast')
    await host.service('auth').setPassword('juliet', 'another one')
    await host.load(fast)
    expect((await byToken(host, next ?? '')).failure).to.equal(EXPIRED)
  })

  it('accounts of a directory, which has no generations: tokens are good as long as the account is there', async () => {
    const directory = accountsStub(['juliet'], PASSWORD)
    await using host = await testHost({ modules: [directory, sasl, bind, sasl2, fast] })
    const token = await obtain(host)
    expect((await byToken(host, token)).failure).to.equal('')
    await host.service('auth').remove('juliet')
    expect((await byToken(host, token)).failure).to.equal('not-authorized')
  })
})

describe('fast: who gets tokens, and who loses them', () => {
  it('tokens of a removed account that cannot be removed keep nobody else from hearing of it', async () => {
    const store = await openFaulty()
    const told: string[] = []
    const other = defineModule({
      name: 'other',
      summary: 'has something to remove too',
      specs: [],
      setup: (ctx) =>
        ctx.hook(
          'account:deleted',
          { phase: 'observe' },
          ({ account }) => void told.push(account.toString()),
        ),
    })
    await using host = await testHost({
      modules: [accounts, sasl, bind, sasl2, fast, other],
      store,
      onLog: () => undefined,
    })
    store.only = /^fast\.purge$/
    store.fault = 'reject'
    await host.host.deleteAccount('juliet')
    expect([store.met, told]).to.deep.equal([1, ['juliet@example.org']])
  })

  it('XEP-0175: none for anonymous users, who have no account to come back to', async () => {
    await using host = await testHost({
      modules: [accounts, sasl, bind, sasl2, fast],
      config: { sasl: { anonymous: true } },
    })
    const login = await LoginStream.open(host, { tls })
    const { success, token } = outcome(
      login,
      await login.send(
        `<authenticate xmlns='urn:xmpp:sasl:2' mechanism='ANONYMOUS'><initial-response/>${agentOf(AGENT)}${requestToken(EXPR)}</authenticate>`,
      ),
    )
    expect(success).to.not.equal(undefined)
    expect(token).to.equal(undefined)
    await login.stream.drop()
    expect(await owners(host)).to.deep.equal([])
  })

  it('of too many installations that which was served longest ago, however long its token would have lived', async () => {
    const store = await openMemory()
    let old: string
    {
      await using host = await start({ lifetime: '30d', maxClients: 1 }, store)
      old = await obtain(host)
    }
    await using host = await start({ lifetime: '7d', maxClients: 1 }, store)
    await host.clock.advance(1000)
    const token = await obtain(host, EXPR, OTHER)
    expect((await byToken(host, token, { agent: OTHER })).failure).to.equal('')
    expect((await byToken(host, old)).failure).to.equal('not-authorized')
  })

  it('never the one that was just served: not at the same time as another, nor by a clock that went back', async () => {
    const store = await openMemory()
    {
      await using host = await start({ maxClients: 1 }, store)
      await host.clock.advance(60_000)
      await obtain(host)
    }
    await using host = await start({ maxClients: 1 }, store)
    const token = await obtain(host, EXPR, OTHER)
    expect((await byToken(host, token, { agent: OTHER })).failure).to.equal('')
    const agents = ['22222222-4d72-4749-b3d3-740edbf87770', '33333333-4d72-4749-b3d3-740edbf87770']
    const both = await Promise.all(agents.map((agent) => obtain(host, EXPR, agent)))
    for (const [i, agent] of agents.entries())
      expect((await byToken(host, both[i] ?? '', { agent })).failure).to.equal('')
  })

  it('none that gets a new token while it is looked for', async () => {
    const store = await openFaulty()
    await using host = await start({ maxClients: 1 }, store)
    await obtain(host)
    await host.clock.advance(1000)
    const gate = Promise.withResolvers<void>()
    // the second update is that which removes
    Object.assign(store, { only: /^fast\.update$/, every: 2, met: 1 })
    store.fault = { until: gate.promise, done: false }
    const other = obtain(host, EXPR, OTHER)
    while (store.met < 3) await host.settle()
    store.fault = 'none'
    await host.clock.advance(1000)
    const token = await obtain(host)
    gate.resolve()
    await other
    expect((await byToken(host, token)).failure).to.equal('')
  })
})
