/** XEP-0478: the limits announced are those that hold. */
import { expect } from 'chai'
import accounts from '../../modules/accounts/index.ts'
import bind from '../../modules/bind.ts'
import sasl from '../../modules/sasl/index.ts'
import streamLimits from '../../modules/stream-limits.ts'
import { type TestHost, testHost, testLimits } from '../helpers/host.ts'
import { bindingTls, LoginStream, outcome } from '../helpers/login.ts'

const NS = 'urn:xmpp:stream-limits:0'

async function start(): Promise<TestHost> {
  const modules = [accounts, sasl, bind, streamLimits] as const
  const limits = { idleMs: 90_500, before: { ...testLimits.before, maxBytes: 20_000 } }
  const host = await testHost({ modules, limits, config: { accounts: { iterations: 4096 } } })
  await host.service('auth').create('juliet', 'r0m30myr0m30')
  return host
}
const announced = (login: LoginStream): (string | null | undefined)[] => {
  const limits = login.features?.getChild('limits', NS)
  return [limits?.getChildText('max-bytes'), limits?.getChildText('idle-seconds')]
}

describe('stream-limits: XEP-0478', () => {
  it('§3.1, §4: announces size and idle time, others after login than before', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls: bindingTls() })
    expect(announced(login)[0]).to.equal('20000')
    expect(await login.auth('PLAIN', '\0juliet\0r0m30myr0m30')).to.equal('success')
    await login.header()
    expect(announced(login)).to.deep.equal([String(testLimits.after.maxBytes), '90'])
  })

  it('§3.1: the size announced is the one that holds', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls: bindingTls() })
    const auth = (size: number): string => {
      const frame = `<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='NONE'></auth>`
      return frame.replace('></', `>${'A'.repeat(size - frame.length)}</`)
    }
    expect(outcome(await login.send(auth(20_000)))).to.equal('failure:invalid-mechanism')
    expect(outcome(await login.send(auth(20_001)))).to.equal('error:policy-violation')
  })

  it('is no command; gone after unload', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls: bindingTls() })
    expect(outcome(await login.send(`<limits xmlns='${NS}'/>`))).to.equal('error:unsupported-stanza-type')
    await host.unload('stream-limits')
    expect(announced(await LoginStream.open(host, { tls: bindingTls() }))).to.deep.equal([
      undefined,
      undefined,
    ])
  })
})
