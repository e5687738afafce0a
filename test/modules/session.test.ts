/** The session of RFC 3921 §3, which succeeds and does nothing. */
import { expect } from 'chai'
import accounts from '../../modules/accounts/index.ts'
import bind from '../../modules/bind.ts'
import sasl from '../../modules/sasl/index.ts'
import session from '../../modules/session.ts'
import { type TestHost, testHost } from '../helpers/host.ts'
import { bindingTls, LoginStream, outcome } from '../helpers/login.ts'
import { NS_BIND, NS_STANZA_ERRORS } from '../helpers/xml.ts'

async function start(): Promise<TestHost> {
  const options = { accounts: { iterations: 4096 } }
  const host = await testHost({ modules: [accounts, sasl, bind, session], config: options })
  await host.service('auth').create('juliet', 'r0m30myr0m30')
  return host
}
async function loggedIn(host: TestHost): Promise<LoginStream> {
  const login = await LoginStream.open(host, { tls: bindingTls() })
  expect(await login.auth('PLAIN', '\0juliet\0r0m30myr0m30')).to.equal('success')
  await login.header()
  return login
}
const request = (): string => `<iq type='set' id='b1'><bind xmlns='${NS_BIND}'/></iq>`

describe('session: RFC 3921 §3', () => {
  const establish = (to = ''): string =>
    `<iq type='set' id='s1' ${to}><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq>`

  it('announced as optional; succeeds after binding, to the server or to nobody', async () => {
    await using host = await start()
    const login = await loggedIn(host)
    const offer = login.features?.getChild('session', 'urn:ietf:params:xml:ns:xmpp-session')
    expect(offer?.getChild('optional')).to.not.equal(undefined)
    await login.ask(request())
    for (const to of ['', `to='example.org'`]) {
      const iq = await login.ask(establish(to))
      expect(iq.attrs['type']).to.equal('result')
    }
  })

  it('not before binding; not in disco; gone after unload', async () => {
    await using host = await start()
    const early = await loggedIn(host)
    expect(outcome(await early.send(establish()))).to.equal('error:not-authorized')
    expect(host.host.disco.view(() => undefined).info('host').features).to.not.include(
      'urn:ietf:params:xml:ns:xmpp-session',
    )
    await host.unload('session')
    const login = await loggedIn(host)
    await login.ask(request())
    const error = (await login.ask(establish())).getChild('error')
    expect(error?.getChild('service-unavailable', NS_STANZA_ERRORS)).to.not.equal(undefined)
  })
})
