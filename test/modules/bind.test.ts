/** Resource binding, RFC 6120 §7. */
import { expect } from 'chai'
import type { Element as LtxElement } from 'ltx'
import accounts from '../../modules/accounts/index.ts'
import bind from '../../modules/bind.ts'
import sasl from '../../modules/sasl/index.ts'
import { type TestHost, testHost } from '../helpers/host.ts'
import { bindingTls, LoginStream, outcome } from '../helpers/login.ts'
import { NS_BIND, NS_STANZA_ERRORS } from '../helpers/xml.ts'

const tls = bindingTls()

async function start(config: object = {}): Promise<TestHost> {
  const options = { accounts: { iterations: 4096 }, bind: config }
  const host = await testHost({ modules: [accounts, sasl, bind], config: options })
  await host.service('auth').create('juliet', 'r0m30myr0m30')
  return host
}
/** A stream that is logged in and has its new header. */
async function loggedIn(host: TestHost): Promise<LoginStream> {
  const login = await LoginStream.open(host, { tls })
  expect(await login.auth('PLAIN', '\0juliet\0r0m30myr0m30')).to.equal('success')
  await login.header()
  return login
}
const request = (inner = '', attrs = `type='set' id='b1'`): string =>
  `<iq ${attrs}><bind xmlns='${NS_BIND}'>${inner}</bind></iq>`
const resource = (name: string): string => `<resource>${name}</resource>`
const jidOf = (iq: LtxElement | undefined): string => iq?.getChild('bind', NS_BIND)?.getChildText('jid') ?? ''
/** `type:condition` of the error of a stanza. */
function errorOf(iq: LtxElement | undefined): string {
  const error = iq?.getChild('error')
  const condition = error?.getChildElements().find((child) => child.getNS() === NS_STANZA_ERRORS)
  return `${error?.attrs['type']}:${condition?.getName()}`
}

describe('bind: RFC 6120 §7', () => {
  it('§7.4: offered after login, not before', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    expect(login.offers).to.not.include('bind')
    await login.auth('PLAIN', '\0juliet\0r0m30myr0m30')
    await login.header()
    expect(login.offers).to.deep.equal(['bind'])
  })

  it('§7.6.1: a resource made here, random, with the id of the request', async () => {
    await using host = await start()
    const seen = new Set<string>()
    for (let i = 0; i < 3; i++) {
      const login = await loggedIn(host)
      const iq = await login.ask(request())
      expect(iq.attrs['type']).to.equal('result')
      expect(iq.attrs['id']).to.equal('b1')
      expect(jidOf(iq)).to.match(/^juliet@example\.org\/[\w-]{16}$/)
      expect(login.stream.session.jid?.toString()).to.equal(jidOf(iq))
      seen.add(jidOf(iq))
    }
    expect(seen.size).to.equal(3)
    expect(host.host.of('juliet')).to.have.length(3)
  })

  it('§7.7.1: the resource proposed by the client, to the server or the account', async () => {
    await using host = await start()
    for (const to of ['', `to='example.org'`, `to='juliet@example.org'`]) {
      const login = await loggedIn(host)
      const iq = await login.ask(request(resource('balcony &amp; more'), `type='set' id='b1' ${to}`))
      expect(jidOf(iq)).to.equal('juliet@example.org/balcony & more')
      await login.stream.drop()
    }
  })

  it('§7.7.2.1: an empty resource is replaced, an impossible one refused', async () => {
    await using host = await start()
    const login = await loggedIn(host)
    expect(errorOf(await login.ask(request(resource('a\u200bb'))))).to.equal('modify:bad-request')
    expect(errorOf(await login.ask(request(resource('x'.repeat(1024)))))).to.equal('modify:bad-request')
    expect(jidOf(await login.ask(request(resource(''))))).to.match(/\/[\w-]{16}$/)
  })

  it('§8.2.3: malformed requests', async () => {
    await using host = await start()
    for (const xml of [
      request('', `type='get' id='b1'`),
      request('', `type='set'`),
      request('<nonsense/>'),
      request(resource('a') + resource('b')),
      request('<resource><x/></resource>'),
      `<iq type='set' id='b1'><bind xmlns='${NS_BIND}'/><x xmlns='urn:x'/></iq>`,
      `<iq type='set' id='b1'><other xmlns='${NS_BIND}'/></iq>`,
    ]) {
      const login = await loggedIn(host)
      expect(errorOf(await login.ask(xml)), xml).to.equal('modify:bad-request')
      expect(jidOf(await login.ask(request())), xml).to.not.equal('')
    }
  })

  it('§7.1: nobody else can be addressed before binding', async () => {
    await using host = await start()
    for (const to of ['romeo@example.org', 'example.com', 'juliet@example.org/balcony']) {
      const login = await loggedIn(host)
      const xml = request('', `type='set' id='b1' to='${to}'`)
      expect(outcome(await login.send(xml)), to).to.equal('error:not-authorized')
    }
  })

  it('§7.7.2.2 (3): the older session of the same resource is closed with conflict', async () => {
    await using host = await start()
    const old = await loggedIn(host)
    await old.ask(request(resource('balcony')))
    const young = await loggedIn(host)
    expect(jidOf(await young.ask(request(resource('balcony'))))).to.equal('juliet@example.org/balcony')
    expect(outcome(await old.send(''))).to.equal('error:conflict')
    expect(old.stream.closed).to.equal(true)
    expect(host.host.of('juliet')).to.deep.equal([young.stream.session])
  })

  it('§7.7.2.2 (2): or the newer one is refused', async () => {
    await using host = await start({ conflict: 'refuse' })
    const old = await loggedIn(host)
    await old.ask(request(resource('balcony')))
    const young = await loggedIn(host)
    expect(errorOf(await young.ask(request(resource('balcony'))))).to.equal('modify:conflict')
    expect(jidOf(await young.ask(request(resource('orchard'))))).to.equal('juliet@example.org/orchard')
    expect(old.stream.closed).to.equal(false)
  })

  it('§7.7.2.2 (1): or gets another name', async () => {
    await using host = await start({ conflict: 'rename' })
    const old = await loggedIn(host)
    await old.ask(request(resource('balcony')))
    const young = await loggedIn(host)
    expect(jidOf(await young.ask(request(resource('balcony'))))).to.match(
      /^juliet@example\.org\/balcony [\w-]{16}$/,
    )
    expect(old.stream.closed).to.equal(false)
  })

  it('§7.6.2.1: as many resources as allowed; replacing one is always possible', async () => {
    await using host = await start({ maxResources: 2 })
    const first = await loggedIn(host)
    await first.ask(request(resource('one')))
    await (await loggedIn(host)).ask(request(resource('two')))
    const third = await loggedIn(host)
    expect(errorOf(await third.ask(request(resource('three'))))).to.equal('wait:resource-constraint')
    expect(errorOf(await third.ask(request()))).to.equal('wait:resource-constraint')
    expect(jidOf(await third.ask(request(resource('one'))))).to.equal('juliet@example.org/one')
    expect(first.stream.closed).to.equal(true)
  })

  it('§7.7.3: after five retries policy-violation', async () => {
    await using host = await start()
    const login = await loggedIn(host)
    for (let i = 0; i < 5; i++)
      expect(errorOf(await login.ask(request('<x/>')))).to.equal('modify:bad-request')
    const [iq, error] = await login.send(request('<x/>'))
    expect(errorOf(iq)).to.equal('modify:bad-request')
    expect(outcome(error === undefined ? [] : [error])).to.equal('error:policy-violation')
  })

  it('a stream binds once', async () => {
    await using host = await start()
    const login = await loggedIn(host)
    await login.ask(request(resource('balcony')))
    const again = await login.ask(request(resource('orchard')))
    expect(again.attrs['type']).to.equal('error')
    expect(login.stream.session.jid?.resource).to.equal('balcony')
  })

  it('after unload not offered', async () => {
    await using host = await start()
    await host.unload('bind')
    expect((await loggedIn(host)).offers).to.deep.equal([])
  })
})
