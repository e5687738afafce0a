/** XEP-0386 Bind 2, within SASL2. */
import { expect } from 'chai'
import type { Element as LtxElement } from 'ltx'
import { defineModule } from '../../server/module.ts'
import { el } from '../../server/xmpp/element.ts'
import accounts from '../../modules/accounts/index.ts'
import bind from '../../modules/bind.ts'
import bind2 from '../../modules/bind2.ts'
import sasl from '../../modules/sasl/index.ts'
import sasl2 from '../../modules/sasl2.ts'
import { type TestHost, testHost } from '../helpers/host.ts'
import { bindingTls, LoginStream, outcome } from '../helpers/login.ts'

const NS = 'urn:xmpp:bind:0'
const NS_CARBONS = 'urn:xmpp:carbons:2'
const AGENT = 'd4565fa7-4d72-4749-b3d3-740edbf87770'
const tls = bindingTls()

/** What carbons, stream management and the archive do: a feature of the session, one that answers, and facts for everybody. */
const features = defineModule({
  name: 'features',
  summary: 'inline features of the test',
  specs: [],
  setup(ctx) {
    const common = { streams: ['c2s'], needs: ['authenticated'], forbids: [], inline: 'bind2' } as const
    ctx.streamFeature({
      ...common,
      ns: NS_CARBONS,
      advertise: () => el('feature', NS, { var: NS_CARBONS }),
      handle: (s) => s.setFlag('carbons', true),
    })
    ctx.streamFeature({
      ...common,
      ns: 'urn:x:answers',
      advertise: () => el('feature', NS, { var: 'urn:x:answers' }),
      handle: (s) => ({
        reply: el('enabled', 'urn:x:answers', {}, s.jid?.resource === '' ? 'bare' : 'full'),
      }),
    })
    ctx.hook('bind2:bound', { phase: 'store' }, async ({ parts, jid }) => {
      await Promise.resolve()
      parts.push(el('metadata', 'urn:x:mam', { for: jid.toString() }))
    })
  },
})

async function start(
  config: Record<string, object> = {},
  more: readonly (typeof features)[] = [],
): Promise<TestHost> {
  const options = { accounts: { iterations: 4096 }, ...config }
  const modules = [accounts, sasl, bind, sasl2, bind2, ...more]
  const onLog = (_: string, message: string): void => void expect(message).to.match(/ failing /)
  const host = await testHost({ modules, config: options, ...(more.length === 0 ? {} : { onLog }) })
  await host.service('auth').create('juliet', 'r0m30myr0m30')
  await host.service('auth').create('romeo', 'r0m30myr0m30')
  return host
}
function authenticate(inner: string, user = 'juliet', password = 'r0m30myr0m30'): string {
  const initial = Buffer.from(`\0${user}\0${password}`).toString('base64')
  return `<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>${initial}</initial-response>${inner}</authenticate>`
}
const request = (inner = ''): string => `<bind xmlns='${NS}'>${inner}</bind>`
const tag = (text: string): string => `<tag>${text}</tag>`
const agent = (id = AGENT): string => `<user-agent id='${id}'/>`

interface Bound {
  readonly login: LoginStream
  readonly success: LtxElement | undefined
  readonly jid: string
  readonly bound: LtxElement | undefined
}
async function bound(host: TestHost, inner: string, user = 'juliet'): Promise<Bound> {
  const login = await LoginStream.open(host, { tls })
  const [success] = await login.send(authenticate(inner, user))
  const jid = success?.getChildText('authorization-identifier') ?? ''
  return { login, success, jid, bound: success?.getChild('bound', NS) }
}

describe('bind2: XEP-0386', () => {
  it('§3.1: announced within SASL2, with its own inline features', async () => {
    await using host = await start({}, [features])
    const login = await LoginStream.open(host, { tls })
    expect(login.offers).to.not.include('bind')
    const offer = login.features?.getChild('authentication')?.getChild('inline')?.getChild('bind', NS)
    const vars = offer
      ?.getChild('inline')
      ?.getChildren('feature')
      .map((child) => child.attrs['var'])
    expect(vars).to.deep.equal([NS_CARBONS, 'urn:x:answers'])
  })

  it('§3.2: binds, says the full JID, then features without bind', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    const [success, after] = await login.send(authenticate(request()))
    const jid = success?.getChildText('authorization-identifier') ?? ''
    expect(jid).to.match(/^juliet@example\.org\/[\w-]{16}$/)
    expect(success?.getChild('bound', NS)?.getChildElements()).to.deep.equal([])
    expect(after?.getName()).to.equal('features')
    expect(login.offers).to.deep.equal([])
    expect(host.host.of('juliet').map((session) => session.jid.toString())).to.deep.equal([jid])
  })

  it('§3.2: requested features are enabled, answers and metadata are in <bound/>', async () => {
    await using host = await start({}, [features])
    const inner = `<enable xmlns='${NS_CARBONS}'/><enable xmlns='urn:x:answers'/><enable xmlns='urn:x:unknown'/>`
    const done = await bound(host, request(inner))
    expect(done.login.stream.session.flag('carbons')).to.equal(true)
    expect(done.bound?.getChildElements().map((child) => child.getName())).to.deep.equal([
      'enabled',
      'metadata',
    ])
    expect(done.bound?.getChildText('enabled', 'urn:x:answers')).to.equal('full')
    expect(done.bound?.getChild('metadata', 'urn:x:mam')?.attrs['for']).to.equal(done.jid)
  })

  it('§3.2: nothing is bound when the login fails', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    expect(outcome(await login.send(authenticate(request(), 'juliet', 'wrong')))).to.equal(
      'failure:not-authorized',
    )
    expect(host.host.count).to.equal(0)
  })

  it('§3.2.1: the tag comes first, as it is', async () => {
    await using host = await start()
    expect((await bound(host, request(tag('AwesomeXMPP')))).jid).to.match(/\/AwesomeXMPP\/[\w-]{16}$/)
  })

  it('§3.2.1: a tag that is no resource, or too long, is left out', async () => {
    await using host = await start()
    for (const text of ['', 'a\u200bb', 'x'.repeat(129)])
      expect((await bound(host, request(tag(text)))).jid, text).to.match(/^juliet@example\.org\/[\w-]{16}$/)
  })

  it('§3.2.1: stable for account, user agent and tag, without telling the user agent', async () => {
    await using host = await start()
    const resource = async (inner: string, user = 'juliet') =>
      (await bound(host, inner, user)).jid.split('/').slice(1).join('/')
    const first = await resource(agent() + request(tag('A')))
    expect(await resource(agent() + request(tag('A')))).to.equal(first)
    expect(await resource(agent(AGENT.toUpperCase()) + request(tag('A')))).to.equal(first)
    expect(first).to.not.include(AGENT.slice(0, 8))
    const others = [
      await resource(agent('d4565fa7-4d72-4749-b3d3-740edbf87771') + request(tag('A'))),
      await resource(agent() + request(tag('A')), 'romeo'),
      await resource(request(tag('A'))),
      await resource(request(tag('A'))),
    ]
    expect(new Set([first, ...others]).size).to.equal(5)
    await using another = await start()
    expect((await bound(another, agent() + request(tag('A')))).jid).to.not.include(first)
  })

  it('stable resources can be switched off', async () => {
    await using host = await start({ bind2: { stable: false } })
    const one = await bound(host, agent() + request())
    const two = await bound(host, agent() + request())
    expect(one.jid).to.not.equal(two.jid)
  })

  it('§3.2: earlier sessions of the same client end, also under another tag; others stay', async () => {
    await using host = await start()
    const other = await bound(host, request(tag('A')))
    const old = await bound(host, agent() + request(tag('A')))
    const young = await bound(host, agent() + request(tag('B')))
    expect(outcome(await old.login.send(''))).to.equal('error:conflict')
    const jids = host.host.of('juliet').map((session) => session.jid.toString())
    expect(jids).to.have.members([other.jid, young.jid])
  })

  it('§3.2: earlier sessions of the same client end, also when a feature fails meanwhile', async () => {
    const failing = defineModule({
      name: 'failing',
      summary: 'an archive that cannot be read',
      specs: [],
      setup: (ctx) =>
        ctx.hook('bind2:bound', { phase: 'store' }, () => Promise.reject(new Error('as the test wants'))),
    })
    await using host = await start({}, [failing])
    await bound(host, agent() + request(tag('A')))
    const young = await bound(host, agent() + request(tag('B')))
    expect(host.host.of('juliet').map((session) => session.jid.toString())).to.deep.equal([young.jid])
  })

  for (const conflict of ['replace', 'refuse', 'rename'])
    it(`§3.2.1: a client that comes back does not stand in its own way (conflict: ${conflict})`, async () => {
      await using host = await start({ bind: { conflict } })
      const old = await bound(host, agent() + request(tag('A')))
      const young = await bound(host, agent() + request(tag('A')))
      expect([young.jid, old.login.stream.closed]).to.deep.equal([old.jid, true])
      expect(host.host.of('juliet')).to.have.length(1)
    })

  for (const [what, drop, tags] of [
    ['has come back meanwhile does not end its new session', true, ['A', 'A']],
    ['has come back meanwhile under another tag, neither', true, ['A', 'B']],
    ['logs in twice at once keeps the later session', false, ['A', 'B']],
  ] as const)
    it(`§3.2: a client that waits for the store and ${what}`, async () => {
      const gates: (() => void)[] = []
      const slow = defineModule({
        name: 'slow',
        summary: 'an archive that takes its time',
        specs: [],
        setup: (ctx) =>
          ctx.hook('bind2:bound', { phase: 'store' }, async () => {
            await new Promise<void>((resolve) => gates.push(resolve))
          }),
      })
      await using host = await start({}, [slow])
      const logins: LoginStream[] = []
      for (const [i, name] of tags.entries()) {
        const login = await LoginStream.open(host, { tls })
        logins.push(login)
        login.stream.transport.feed(authenticate(agent() + request(tag(name))))
        while (gates.length <= i) await host.settle()
        if (drop && i === 0) await login.stream.drop()
      }
      for (const open of gates) {
        open()
        await host.settle()
      }
      expect(outcome(await (logins[1] as LoginStream).send(' '))).to.match(/^success/)
      expect(host.host.of('juliet')).to.have.length(1)
      expect((logins[1] as LoginStream).stream.closed).to.equal(false)
    })

  it('§3.2: a request on a session that is bound already is ignored', async () => {
    await using host = await start()
    const done = await bound(host, request(tag('A')) + request(tag('B')))
    expect(done.jid).to.match(/\/A\//)
    expect(done.success?.getChildren('bound', NS)).to.have.length(1)
  })

  it('RFC 6120 §7.6.2.1: too many resources: logged in, told why, and not bound', async () => {
    await using host = await start({ bind: { maxResources: 1 } })
    await bound(host, request())
    const done = await bound(host, request())
    expect(done.jid).to.equal('juliet@example.org')
    const failed = done.success?.getChild('failed', NS)
    expect(failed?.getChildElements()[0]?.getName()).to.equal('resource-constraint')
    expect(done.login.offers).to.deep.equal(['bind'])
  })

  it('after unload SASL2 goes on without it', async () => {
    await using host = await start()
    await host.unload('bind2')
    const done = await bound(host, request())
    expect(done.jid).to.equal('juliet@example.org')
    expect(done.bound).to.equal(undefined)
  })
})
