/** Mechanisms that other modules add to the service `sasl`, such as those of XEP-0484. */
import { expect } from 'chai'
import { defineModule, type Services } from '../../server/module.ts'
import accounts from '../../modules/accounts/index.ts'
import sasl from '../../modules/sasl/index.ts'
import sasl2 from '../../modules/sasl2.ts'
import { type TestHost, testHost } from '../helpers/host.ts'
import { bindingTls, LoginStream, outcome } from '../helpers/login.ts'

const tls = bindingTls()
const unb64 = (text: string | null | undefined): string => Buffer.from(text ?? '', 'base64').toString()
const authenticate = (mechanism: string, initial: string, inner: string): string =>
  `<authenticate xmlns='urn:xmpp:sasl:2' mechanism='${mechanism}'><initial-response>${Buffer.from(initial).toString('base64')}</initial-response>${inner}</authenticate>`

async function start(...more: Parameters<typeof testHost>[0]['modules']): Promise<TestHost> {
  return await testHost({
    modules: [accounts, sasl, sasl2, ...more],
    config: { accounts: { iterations: 4096 } },
  })
}

describe('sasl2: mechanisms of other modules', () => {
  type Mechanism = Parameters<Services['sasl']['register']>[0]
  /** As a token for quick login would be: announced elsewhere, for this protocol only, without tasks after it. */
  const token: Mechanism = {
    name: 'X-TOKEN',
    rank: 90,
    profiles: ['sasl2'],
    listed: false,
    needsTls: true,
    exempt: true,
    usable: (_, bindings) => bindings.includes('tls-exporter'),
    start: (attempt) => (message) => {
      const local = attempt.account(attempt.request.getChildText('user', 'urn:x:token') ?? '')
      if (Buffer.from(message).toString() !== 'right') throw attempt.wrong()
      return { local, data: Buffer.from('welcome') }
    },
  }
  const tokens = defineModule({
    name: 'tokens',
    summary: 'mechanism of the test',
    specs: [],
    requires: ['sasl', 'sasl2'],
    setup(ctx) {
      const mechanism = ctx.use('sasl').register(token)
      ctx.use('sasl2').addTask({ name: 'NEVER', wanted: () => true, start: () => ({ done: [] }) })
      return { stop: () => mechanism[Symbol.dispose]() }
    },
  })
  const user = `<user xmlns='urn:x:token'>Juliet</user>`

  it('log in, unlisted and without tasks; other protocols and connections do not have them', async () => {
    await using host = await start(tokens)
    const login = await LoginStream.open(host, { tls })
    expect(login.mechanisms('authentication')).to.not.include('X-TOKEN')
    expect(await login.auth('X-TOKEN', 'right')).to.equal('failure:invalid-mechanism')
    expect(outcome(await login.send(authenticate('X-TOKEN', 'wrong', user)))).to.equal(
      'failure:not-authorized',
    )
    const [success] = await login.send(authenticate('X-TOKEN', 'right', user))
    expect(unb64(success?.getChildText('additional-data'))).to.equal('welcome')
    expect(success?.getChildText('authorization-identifier')).to.equal('juliet@example.org')
    const unbound = await LoginStream.open(host, { tls: bindingTls({ channelBinding: () => undefined }) })
    expect(outcome(await unbound.send(authenticate('X-TOKEN', 'right', user)))).to.equal(
      'failure:invalid-mechanism',
    )
  })

  it('names are taken once, and free after disposal', async () => {
    await using host = await start()
    const sasl = host.service('sasl')
    const first = sasl.register(token)
    expect(() => sasl.register(token)).to.throw('exists')
    expect(() => sasl.register({ ...token, name: 'lower case' })).to.throw('not a mechanism name')
    first[Symbol.dispose]()
    sasl.register(token)[Symbol.dispose]()
  })
})
