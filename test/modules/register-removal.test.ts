/** XEP-0077 §3.2: removal of an account while the store fails. */
import { expect } from 'chai'
import accounts from '../../modules/accounts/index.ts'
import authLimits from '../../modules/auth-limits.ts'
import bind from '../../modules/bind.ts'
import register from '../../modules/register/index.ts'
import sasl from '../../modules/sasl/index.ts'
import { testHost } from '../helpers/host.ts'
import { bindingTls, LoginStream, outcome } from '../helpers/login.ts'
import { NS_BIND } from '../helpers/xml.ts'
import { openFaulty } from '../robustness/faulty-store.ts'

const DAY = 24 * 60 * 60_000

describe('register: removal (§3.2) while the store fails', () => {
  it('after the result the streams end all the same, and what is left goes within a day', async () => {
    const store = await openFaulty()
    await using host = await testHost({
      modules: [accounts, authLimits, sasl, bind, register],
      store,
      config: { accounts: { iterations: 4096 } },
      onLog: () => undefined,
    })
    const auth = host.service('auth')
    await auth.create('juliet', 'r0m30myr0m30')
    const docs = host.store.open('example.org', 'test').docs<{ x: number }>('things')
    await docs.put('juliet', 'a', { x: 1 })
    const login = await LoginStream.open(host, { tls: bindingTls() })
    expect(await login.auth('PLAIN', '\0juliet\0r0m30myr0m30')).to.equal('success')
    await login.header()
    await login.ask(`<iq type='set' id='b1'><bind xmlns='${NS_BIND}'/></iq>`)
    const remove = auth.remove.bind(auth)
    auth.remove = async (local) => {
      const removed = await remove(local)
      store.fault = 'reject'
      return removed
    }
    const [result, ...rest] = await login.send(
      "<iq type='set' id='r1'><query xmlns='jabber:iq:register'><remove/></query></iq>",
    )
    expect(result?.attrs['type']).to.equal('result')
    await host.settle()
    expect(outcome([...rest, ...(await login.send(''))])).to.equal('error:not-authorized')
    expect(host.host.of('juliet')).to.have.length(0)
    auth.remove = remove
    store.fault = 'none'
    expect(await docs.get('juliet', 'a')).to.deep.equal({ x: 1 })
    await host.clock.advance(DAY)
    expect(await docs.get('juliet', 'a')).to.equal(undefined)
    const leaving = host.store.open('example.org', 'register').docs('leaving')
    expect(await leaving.get('', 'juliet')).to.equal(undefined)
  })
})
