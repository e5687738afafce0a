/** Limits on guessing: per account, per address, with time and memory. */
import { expect } from 'chai'
import accounts from '../../modules/accounts/index.ts'
import authLimits from '../../modules/auth-limits.ts'
import sasl from '../../modules/sasl/index.ts'
import { type TestHost, testHost } from '../helpers/host.ts'
import { bindingTls, LoginStream } from '../helpers/login.ts'

const RIGHT = 'r0m30myr0m30'
const WINDOW = { perAccount: 3, perAddress: 5, window: '60s' }

async function start(config: object = WINDOW): Promise<TestHost> {
  const options = { accounts: { iterations: 4096 }, 'auth-limits': config }
  const host = await testHost({ modules: [accounts, authLimits, sasl], config: options })
  await host.service('auth').create('juliet', RIGHT)
  await host.service('auth').create('romeo', RIGHT)
  return host
}
/** One attempt on a stream of its own. */
async function attempt(host: TestHost, user: string, password: string, address: string): Promise<string> {
  const login = await LoginStream.open(host, { tls: bindingTls(), remoteAddress: address })
  return await login.scram('SCRAM-SHA-256', user, password)
}
const WRONG = 'failure:not-authorized'
const REFUSED = 'failure:temporary-auth-failure error:policy-violation'

describe('auth-limits', () => {
  it('RFC 6120 §6.5.11: an account takes a number of wrong passwords within the window, from anywhere', async () => {
    await using host = await start()
    for (let i = 1; i <= 3; i++)
      expect(await attempt(host, 'juliet', 'wrong', `192.0.2.${i}`)).to.equal(WRONG)
    expect(await attempt(host, 'juliet', RIGHT, '192.0.2.9')).to.equal(REFUSED)
    expect(await attempt(host, 'JULIET', RIGHT, '192.0.2.9')).to.equal(REFUSED)
    expect(await attempt(host, 'romeo', RIGHT, '192.0.2.9')).to.equal('success')
  })

  it('names without an account are treated the same', async () => {
    await using host = await start()
    for (let i = 1; i <= 3; i++)
      expect(await attempt(host, 'nobody', 'wrong', `192.0.2.${i}`)).to.equal(WRONG)
    expect(await attempt(host, 'nobody', 'wrong', '192.0.2.9')).to.equal(REFUSED)
  })

  it('the window slides: each failure counts for its time', async () => {
    await using host = await start()
    for (let i = 1; i <= 3; i++) {
      await attempt(host, 'juliet', 'wrong', `192.0.2.${i}`)
      await host.clock.advance(20_000)
    }
    expect(await attempt(host, 'juliet', RIGHT, '192.0.2.9')).to.equal('success') // the first is 60 s old
    await attempt(host, 'juliet', 'wrong', '192.0.2.8')
    expect(await attempt(host, 'juliet', RIGHT, '192.0.2.7')).to.equal(REFUSED)
    await host.clock.advance(20_000)
    expect(await attempt(host, 'juliet', RIGHT, '192.0.2.7')).to.equal('success')
  })

  it('attempts that are refused do not prolong it', async () => {
    await using host = await start()
    for (let i = 1; i <= 3; i++) await attempt(host, 'juliet', 'wrong', `192.0.2.${i}`)
    for (let i = 0; i < 5; i++) {
      await host.clock.advance(11_000)
      expect(await attempt(host, 'juliet', 'wrong', '192.0.2.9')).to.equal(REFUSED)
    }
    await host.clock.advance(11_000)
    expect(await attempt(host, 'juliet', RIGHT, '192.0.2.9')).to.equal('success')
  })

  it('an address the account was used from is not locked out by strangers', async () => {
    await using host = await start()
    expect(await attempt(host, 'juliet', RIGHT, '198.51.100.1')).to.equal('success')
    for (let i = 1; i <= 3; i++) await attempt(host, 'juliet', 'wrong', `192.0.2.${i}`)
    expect(await attempt(host, 'juliet', RIGHT, '192.0.2.9')).to.equal(REFUSED)
    expect(await attempt(host, 'juliet', RIGHT, '198.51.100.1')).to.equal('success')
  })

  it('an address takes a number of wrong passwords for all accounts together', async () => {
    await using host = await start()
    for (let i = 1; i <= 5; i++) expect(await attempt(host, `user${i}`, 'wrong', '192.0.2.1')).to.equal(WRONG)
    expect(await attempt(host, 'juliet', RIGHT, '192.0.2.1')).to.equal(REFUSED)
    expect(await attempt(host, 'juliet', RIGHT, '192.0.2.2')).to.equal('success')
    await host.clock.advance(60_000)
    expect(await attempt(host, 'juliet', RIGHT, '192.0.2.1')).to.equal('success')
  })

  it('a known address has a limit too', async () => {
    await using host = await start()
    await attempt(host, 'juliet', RIGHT, '192.0.2.1')
    for (let i = 1; i <= 5; i++) expect(await attempt(host, 'juliet', 'wrong', '192.0.2.1')).to.equal(WRONG)
    expect(await attempt(host, 'juliet', RIGHT, '192.0.2.1')).to.equal(REFUSED)
  })

  it('IPv6 counts by /64, mapped IPv4 as IPv4', async () => {
    await using host = await start()
    const network = host.service('authLimits').network
    expect(network('2001:db8:1:2:3:4:5:6')).to.equal('2001:db8:1:2::/64')
    expect(network('2001:DB8:1:2::1%eth0')).to.equal('2001:db8:1:2::/64')
    expect(network('2001:0db8::1')).to.equal('2001:db8:0:0::/64')
    expect(network('::1')).to.equal('0:0:0:0::/64')
    expect(network('fe80::')).to.equal('fe80:0:0:0::/64')
    expect(network('::ffff:192.0.2.1')).to.equal('192.0.2.1')
    expect(network('192.0.2.1')).to.equal('192.0.2.1')
    for (let i = 1; i <= 5; i++) await attempt(host, `user${i}`, 'wrong', `2001:db8::${i}`)
    expect(await attempt(host, 'juliet', RIGHT, '2001:db8::ffff')).to.equal(REFUSED)
    expect(await attempt(host, 'juliet', RIGHT, '2001:db8:0:1::1')).to.equal('success')
  })

  it('a proxy can be exempt from the limit per address', async () => {
    await using host = await start({ ...WINDOW, exempt: ['192.0.2.1'] })
    for (let i = 1; i <= 6; i++) await attempt(host, `user${i}`, 'wrong', '192.0.2.1')
    expect(await attempt(host, 'juliet', RIGHT, '192.0.2.1')).to.equal('success')
  })

  it('what is no guess does not count: syntax, aborted, unknown mechanism, another identity', async () => {
    await using host = await start({ ...WINDOW, perAddress: 1, perAccount: 1 })
    const login = await LoginStream.open(host, { tls: bindingTls(), remoteAddress: '192.0.2.1' })
    await login.auth('PLAIN', 'nonsense')
    await login.auth('CRAM-MD5')
    await login.auth('PLAIN', `romeo@example.org\0juliet\0${RIGHT}`)
    await login.auth('SCRAM-SHA-1', 'y,,n=juliet,r=abc')
    expect(await login.auth('PLAIN', `\0juliet\0${RIGHT}`)).to.equal('success')
  })

  it('remembers a bounded number of keys, the newest', async () => {
    await using host = await start()
    const window = host.service('authLimits').window(1, 60_000)
    for (let i = 0; i < 20_010; i++) window.add(`key${i}`)
    expect(window.size).to.equal(20_000)
    expect([window.allows('key0'), window.allows('key20009')]).to.deep.equal([true, false])
    await host.clock.advance(60_000)
    window.add('later')
    expect(window.size).to.equal(1)
  })

  it('after unload nobody is limited', async () => {
    await using host = await start({ ...WINDOW, perAddress: 1 })
    await attempt(host, 'juliet', 'wrong', '192.0.2.1')
    expect(await attempt(host, 'juliet', RIGHT, '192.0.2.1')).to.equal(REFUSED)
    await host.unload('auth-limits')
    expect(await attempt(host, 'juliet', RIGHT, '192.0.2.1')).to.equal('success')
  })
})
