/** XEP-0077: accounts before login, passwords and removal after it. */
import { expect } from 'chai'
import type { Element as LtxElement } from 'ltx'
import { defineModule } from '../../server/module.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { openMemory } from '../../server/storage/memory.ts'
import accounts from '../../modules/accounts/index.ts'
import authLimits from '../../modules/auth-limits.ts'
import bind from '../../modules/bind.ts'
import register from '../../modules/register/index.ts'
import sasl from '../../modules/sasl/index.ts'
import { type TestHost, type TestHostOptions, testHost } from '../helpers/host.ts'
import { bindingTls, LoginStream, outcome } from '../helpers/login.ts'
import { NS_BIND, NS_STANZA_ERRORS } from '../helpers/xml.ts'

const NS = 'jabber:iq:register'
const tls = bindingTls()
const modules = [accounts, authLimits, sasl, bind, register] as const

async function start(
  config: object = { enabled: true },
  more: Partial<TestHostOptions> = {},
): Promise<TestHost> {
  const options = { accounts: { iterations: 4096 }, register: config }
  const host = await testHost({ modules, config: options, ...more })
  if (!(await host.service('auth').exists('juliet')))
    await host.service('auth').create('juliet', 'r0m30myr0m30')
  return host
}
const query = (inner: string, type = 'set', more = ''): string =>
  `<iq type='${type}' id='r1'${more}><query xmlns='${NS}'>${inner}</query></iq>`
const fields = (username: string, password: string): string =>
  `<username>${username}</username><password>${password}</password>`
const form = (values: Record<string, string>, type = 'submit'): string =>
  `<x xmlns='jabber:x:data' type='${type}'>${Object.entries(values)
    .map(([name, value]) => `<field var='${name}'><value>${value}</value></field>`)
    .join('')}</x>`
/** `result`, or `type:condition`. */
function answer(iq: LtxElement): string {
  if (iq.attrs['type'] === 'result') return 'result'
  const error = iq.getChild('error')
  const condition = error?.getChildElements().find((child) => child.getNS() === NS_STANZA_ERRORS)
  return `${error?.attrs['type']}:${condition?.getName()}`
}
/** A stream logged in with a password and bound. */
async function member(host: TestHost, secure = true, user = 'juliet'): Promise<LoginStream> {
  const login = await LoginStream.open(host, { tls })
  expect(await login.auth('PLAIN', `\0${user}\0r0m30myr0m30`)).to.equal('success')
  await login.header()
  await login.ask(`<iq type='set' id='b1'><bind xmlns='${NS_BIND}'/></iq>`)
  if (!secure) login.stream.transport.tls = undefined // as a stream whose encryption the server does not know of
  return login
}

describe('register: new accounts (§3.1)', () => {
  it('§8: announced before login, on encrypted streams, when it is on', async () => {
    await using on = await start()
    const offered = async (host: TestHost, secure: boolean) =>
      (await LoginStream.open(host, secure ? { tls } : {})).features?.getChild(
        'register',
        'http://jabber.org/features/iq-register',
      ) !== undefined
    expect([await offered(on, true), await offered(on, false)]).to.deep.equal([true, false])
    await using clear = await start({ enabled: true, requireTls: false })
    expect(await offered(clear, false)).to.equal(true)
    await using off = await start({})
    expect(await offered(off, true)).to.equal(false)
    const login = await member(on)
    expect(login.offers).to.not.include('register')
  })

  it('off by default: service-unavailable, for questions and for accounts', async () => {
    await using host = await start({})
    const login = await LoginStream.open(host, { tls })
    expect(answer(await login.ask(query('', 'get')))).to.equal('cancel:service-unavailable')
    expect(answer(await login.ask(query(fields('romeo', 'jul1et is the sun'))))).to.equal(
      'cancel:service-unavailable',
    )
    expect(await host.service('auth').exists('romeo')).to.equal(false)
  })

  it('§3.1, §4: get shows the old fields and a form', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    const iq = await login.ask(query('', 'get', ` to='example.org'`))
    expect([iq.attrs['type'], iq.attrs['id'], iq.attrs['from']]).to.deep.equal([
      'result',
      'r1',
      'example.org',
    ])
    const shown = iq.getChild('query', NS)
    expect(shown?.getChildElements().map((child) => child.getName())).to.deep.equal([
      'instructions',
      'username',
      'password',
      'x',
    ])
    const vars = shown
      ?.getChild('x', 'jabber:x:data')
      ?.getChildren('field')
      .map((field) => field.attrs['var'])
    expect(vars).to.deep.equal(['FORM_TYPE', 'username', 'password'])
  })

  it('registers by the old fields, and the account can log in on the same stream', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    expect(answer(await login.ask(query(fields('Romeo', 'jul1et is the sun'))))).to.equal('result')
    expect(await login.scram('SCRAM-SHA-256', 'romeo', 'jul1et is the sun')).to.equal('success')
  })

  it('§4 rule 5: registers by the form, which goes before the old fields', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    const submitted = form({ FORM_TYPE: NS, username: 'romeo', password: 'jul1et is the sun' })
    expect(answer(await login.ask(query(fields('mercutio', 'a plague on both') + submitted)))).to.equal(
      'result',
    )
    expect(await host.service('auth').verify('romeo', 'jul1et is the sun')).to.equal(true)
    expect(await host.service('auth').exists('mercutio')).to.equal(false)
  })

  const refusals: readonly (readonly [string, string, string])[] = [
    ['a name in use', fields('juliet', 'jul1et is the sun'), 'cancel:conflict'],
    ['the same name written otherwise', fields('JULIET', 'jul1et is the sun'), 'cancel:conflict'],
    ['no password', '<username>romeo</username>', 'modify:not-acceptable'],
    ['an empty password', fields('romeo', ''), 'modify:not-acceptable'],
    ['no name', '<password>jul1et is the sun</password>', 'modify:not-acceptable'],
    ['a form with nothing in it', form({ FORM_TYPE: NS }), 'modify:not-acceptable'],
    [
      'another form',
      form({ FORM_TYPE: 'urn:x', username: 'romeo', password: 'jul1et is the sun' }),
      'modify:bad-request',
    ],
    ['two forms', form({}) + form({}), 'modify:bad-request'],
    ['two names', `${fields('romeo', 'jul1et is the sun')}<username>paris</username>`, 'modify:bad-request'],
    ['what is no name', fields('romeo@example.org', 'jul1et is the sun'), 'modify:not-acceptable'],
    ['a reserved name', fields('admin', 'jul1et is the sun'), 'modify:not-acceptable'],
    ['a short password (XEP-0438 §8)', fields('romeo', '1234567'), 'modify:not-acceptable'],
    ['nothing', '', 'modify:not-acceptable'],
    ['removal of nobody (§3.2)', '<remove/>', 'modify:unexpected-request'],
  ]
  for (const [what, inner, condition] of refusals) {
    it(`refuses ${what}, without sending back what may be a password`, async () => {
      await using host = await start()
      const login = await LoginStream.open(host, { tls })
      const iq = await login.ask(query(inner))
      expect(answer(iq)).to.equal(condition)
      expect(iq.getChildElements().map((child) => child.getName())).to.deep.equal(['error'])
      expect(await host.service('auth').exists('romeo')).to.equal(false)
    })
  }

  it('RFC 6120 §8.2.3, §7.1: malformed requests, and requests to others', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    const inner = `<query xmlns='${NS}'/>`
    expect(answer(await login.ask(`<iq type='get'>${inner}</iq>`))).to.equal('modify:bad-request')
    expect(answer(await login.ask(`<iq type='get' id='r1'>${inner}<x xmlns='urn:x'/></iq>`))).to.equal(
      'modify:bad-request',
    )
    expect(answer(await login.ask(`<iq type='get' id='r1'><other xmlns='${NS}'/></iq>`))).to.equal(
      'modify:bad-request',
    )
    expect(outcome(await login.send(query('', 'get', ` to='example.com'`)))).to.equal('error:not-authorized')
  })

  it('§3.3, §11: not on streams without encryption', async () => {
    await using host = await start()
    const login = await LoginStream.open(host)
    expect(answer(await login.ask(query(fields('romeo', 'jul1et is the sun'))))).to.equal(
      'modify:not-authorized',
    )
    expect(await host.service('auth').exists('romeo')).to.equal(false)
  })

  it('§3.1.1: one account a stream', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    await login.ask(query(fields('romeo', 'jul1et is the sun')))
    expect(answer(await login.ask(query(fields('paris', 'jul1et is the sun'))))).to.equal(
      'modify:not-acceptable',
    )
  })

  it('§3.1.1: as many attempts from one address as allowed, taken names included', async () => {
    await using host = await start({ enabled: true, perAddress: 2, window: '1h' })
    const attempt = async (name: string, remoteAddress = '192.0.2.1') => {
      const login = await LoginStream.open(host, { tls, remoteAddress })
      return answer(await login.ask(query(fields(name, 'jul1et is the sun'))))
    }
    expect(await attempt('juliet')).to.equal('cancel:conflict')
    expect(await attempt('romeo')).to.equal('result')
    expect(await attempt('paris')).to.equal('modify:not-acceptable')
    expect(await attempt('paris', '192.0.2.2')).to.equal('result')
    await host.clock.advance(3_600_000)
    expect(await attempt('tybalt')).to.equal('result')
  })

  it('§5: where registration is off, people can be sent elsewhere', async () => {
    await using host = await start({ redirect: 'https://example.org/join' })
    const login = await LoginStream.open(host, { tls })
    expect(login.offers).to.include('register')
    const shown = (await login.ask(query('', 'get'))).getChild('query', NS)
    expect(shown?.getChildElements().map((child) => child.getName())).to.deep.equal(['instructions', 'x'])
    expect(shown?.getChild('x', 'jabber:x:oob')?.getChildText('url')).to.equal('https://example.org/join')
    expect(answer(await login.ask(query(fields('romeo', 'jul1et is the sun'))))).to.equal(
      'cancel:service-unavailable',
    )
  })

  it('other modules may permit one account, refuse one, and learn of one', async () => {
    const told: string[] = []
    const listener = defineModule({
      name: 'listener',
      summary: 'test',
      specs: [],
      setup(ctx) {
        ctx.hook('account:register', { phase: 'guard' }, ({ account }) =>
          account.local === 'tybalt' ? { bounce: new StanzaError('forbidden') } : undefined,
        )
        ctx.hook(
          'account:registered',
          { phase: 'observe' },
          ({ account }) => void told.push(account.toString()),
        )
      },
    })
    await using host = await start({}, { modules: [...modules, listener] })
    const login = await LoginStream.open(host, { tls })
    host.service('register').permit(login.stream.session, 'romeo')
    expect((await login.ask(query('', 'get'))).attrs['type']).to.equal('result')
    expect(answer(await login.ask(query(fields('paris', 'jul1et is the sun'))))).to.equal(
      'modify:not-acceptable',
    )
    expect(answer(await login.ask(query(fields('romeo', 'jul1et is the sun'))))).to.equal('result')
    const refused = await LoginStream.open(host, { tls })
    host.service('register').permit(refused.stream.session)
    expect(answer(await refused.ask(query(fields('tybalt', 'jul1et is the sun'))))).to.equal('auth:forbidden')
    expect(told).to.deep.equal(['romeo@example.org'])
  })
})

describe('register: password (§3.3)', () => {
  it('§10: in disco of the host', async () => {
    await using host = await start({})
    expect(host.host.disco.view(() => undefined).info('host').features).to.include(NS)
  })

  it('changes the own password, to the server or to nobody, by fields or form', async () => {
    await using host = await start({})
    const login = await member(host)
    const auth = host.service('auth')
    expect(
      answer(await login.ask(query(fields('juliet', 'second one'), 'set', ` to='example.org'`))),
    ).to.equal('result')
    expect(await auth.verify('juliet', 'second one')).to.equal(true)
    expect(answer(await login.ask(query(fields('Juliet', 'third one'))))).to.equal('result')
    expect(await auth.verify('juliet', 'third one')).to.equal(true)
    const submitted = form({ FORM_TYPE: `${NS}:changepassword`, username: 'juliet', password: 'fourth one' })
    expect(answer(await login.ask(query(submitted)))).to.equal('result')
    expect(await auth.verify('juliet', 'fourth one')).to.equal(true)
  })

  const refusals: readonly (readonly [string, string, string])[] = [
    ['an empty password', fields('juliet', ''), 'modify:bad-request'],
    ['no name', '<password>new password</password>', 'modify:bad-request'],
    ['another account', fields('romeo', 'new password'), 'cancel:not-allowed'],
    ['a short password', fields('juliet', '1234567'), 'modify:not-acceptable'],
    ['a password with control characters', fields('juliet', 'a&#x7f;bcdefgh'), 'modify:not-acceptable'],
  ]
  for (const [what, inner, condition] of refusals) {
    it(`refuses ${what}`, async () => {
      await using host = await start({})
      await host.service('auth').create('romeo', 'jul1et is the sun')
      const login = await member(host)
      expect(answer(await login.ask(query(inner)))).to.equal(condition)
      expect(await host.service('auth').verify('juliet', 'r0m30myr0m30')).to.equal(true)
      expect(await host.service('auth').verify('romeo', 'jul1et is the sun')).to.equal(true)
    })
  }

  it('"SHOULD NOT return the original XML": a refused password does not come back', async () => {
    await using host = await start({})
    const login = await member(host)
    const iq = await login.ask(query(fields('romeo', 'secret one')))
    expect(iq.toString()).to.not.include('secret one')
  })

  it('refuses streams that are not encrypted, unless that is allowed', async () => {
    await using host = await start({})
    expect(answer(await (await member(host, false)).ask(query(fields('juliet', 'new password'))))).to.equal(
      'modify:not-authorized',
    )
    await using lax = await start({ requireTls: false })
    expect(answer(await (await member(lax, false)).ask(query(fields('juliet', 'new password'))))).to.equal(
      'result',
    )
  })

  it('can be switched off', async () => {
    await using host = await start({ changePassword: false })
    const login = await member(host)
    expect(answer(await login.ask(query(fields('juliet', 'new password'))))).to.equal('cancel:not-allowed')
  })

  it('§3.1: get tells that one is registered', async () => {
    await using host = await start({})
    const login = await member(host)
    const shown = (await login.ask(query('', 'get'))).getChild('query', NS)
    expect(shown?.getChild('registered')).to.not.equal(undefined)
    expect(shown?.getChildText('username')).to.equal('juliet')
    expect(shown?.getChildText('password')).to.equal('')
  })

  it('strangers have no account here', async () => {
    await using host = await start({})
    const login = await member(host)
    const { session } = login.stream
    const iq = await login.ask(query('', 'get', ` to='romeo@example.org'`))
    expect(answer(iq)).to.equal('cancel:service-unavailable')
    session.setFlag('anonymous', true)
    expect(answer(await login.ask(query('<remove/>')))).to.equal('auth:registration-required')
    session.setFlag('anonymous', undefined)
  })

  it('after unload: service-unavailable', async () => {
    await using host = await start({})
    const login = await member(host)
    await host.unload('register')
    expect(answer(await login.ask(query('', 'get')))).to.equal('cancel:service-unavailable')
  })
})

describe('register: removal (§3.2)', () => {
  it('the result first, then all streams end and everything is gone', async () => {
    await using host = await start({})
    const [login, other] = [await member(host), await member(host)]
    const docs = host.store.open('example.org', 'test').docs<{ x: number }>('things')
    await docs.put('juliet', 'a', { x: 1 })
    const [result, ...rest] = await login.send(query('<remove/>'))
    expect(result === undefined ? 'nothing' : answer(result)).to.equal('result')
    await host.settle()
    expect(outcome([...rest, ...(await login.send(''))])).to.equal('error:not-authorized')
    expect(outcome(await other.send(''))).to.equal('error:not-authorized')
    expect([login.stream.closed, other.stream.closed]).to.deep.equal([true, true])
    expect(await host.service('auth').exists('juliet')).to.equal(false)
    expect(await docs.get('juliet', 'a')).to.equal(undefined)
    const again = await LoginStream.open(host, { tls })
    expect(await again.scram('SCRAM-SHA-1', 'juliet', 'r0m30myr0m30')).to.equal('failure:not-authorized')
  })

  it('remove stands alone: bad-request', async () => {
    await using host = await start({})
    const login = await member(host)
    expect(answer(await login.ask(query(`<remove/>${fields('juliet', 'x')}`)))).to.equal('modify:bad-request')
    expect(await host.service('auth').exists('juliet')).to.equal(true)
  })

  it('can be switched off', async () => {
    await using host = await start({ remove: false })
    const login = await member(host)
    expect(answer(await login.ask(query('<remove/>')))).to.equal('cancel:not-allowed')
  })

  it('a removal that a crash has interrupted is finished at the next start; until then the name is taken', async () => {
    const store = await openMemory()
    const leaving = store.open('example.org', 'register').docs<{ at: number }>('leaving')
    const docs = store.open('example.org', 'test').docs<{ x: number }>('things')
    await leaving.put('', 'romeo', { at: 1 })
    await docs.put('romeo', 'a', { x: 1 })
    await using host = await start({ enabled: true }, { store })
    expect(await docs.get('romeo', 'a')).to.equal(undefined)
    expect(await leaving.get('', 'romeo')).to.equal(undefined)
    await leaving.put('', 'paris', { at: 1 })
    const login = await LoginStream.open(host, { tls })
    expect(answer(await login.ask(query(fields('paris', 'jul1et is the sun'))))).to.equal('cancel:conflict')
  })

  it('an account that the operator made again in between is left alone', async () => {
    const store = await openMemory()
    const lines: string[] = []
    await store.open('example.org', 'register').docs<{ at: number }>('leaving').put('', 'romeo', { at: 1 })
    {
      await using first = await testHost({
        modules: [accounts],
        store,
        config: { accounts: { iterations: 4096 } },
      })
      await first.service('auth').create('romeo', 'jul1et is the sun')
    }
    const onLog = (level: string, message: string) => void lines.push(`${level} ${message}`)
    await using host = await start({}, { store, onLog })
    expect(await host.service('auth').verify('romeo', 'jul1et is the sun')).to.equal(true)
    await host.clock.advance(3 * 24 * 60 * 60_000)
    expect(lines.filter((line) => line.startsWith('warn account made again'))).to.have.length(1)
    expect(await host.service('auth').verify('romeo', 'jul1et is the sun')).to.equal(true)
  })
})
