/** Handlers of modules that never answer: a bound on how long anybody waits, in virtual time. */
import { expect } from 'chai'
import { defineModule } from '../../server/module.ts'
import { testHost } from '../helpers/host.ts'

const never = (): Promise<undefined> => new Promise(() => undefined)
const hanging = defineModule({
  name: 'hanging',
  summary: 'never answers',
  specs: [],
  setup(ctx) {
    ctx.hook('account:in', { phase: 'guard', kinds: ['message'] }, never)
    ctx.iq('self', 'get', 'urn:example:hang', 'query', never)
    ctx.iq('self', 'get', 'urn:example:quick', 'query', () => undefined)
  },
})

const start = () => testHost({ modules: [hanging], accounts: ['romeo', 'juliet'], onLog: () => undefined })

describe('handlers that never answer', () => {
  it('of many messages to one account each comes back within twice the limit of a handler, though they wait for each other', async () => {
    await using host = await start()
    const romeo = await host.client('romeo@example.org/r')
    const sent = Array.from(
      { length: 50 },
      (_, i) => `<message id='m${i}' to='juliet@example.org'><body>x</body></message>`,
    )
    expect(await romeo.send(sent.join(''))).to.have.length(0)
    await host.clock.advance(9_000)
    expect(romeo.take()).to.have.length(0)
    await host.clock.advance(11_001)
    const bounces = romeo.take()
    expect(bounces.map((stanza) => stanza.attr('id'))).to.deep.equal(sent.map((_, i) => `m${i}`))
    for (const bounce of bounces)
      expect(
        bounce.getChild('error')?.getChild('internal-server-error', 'urn:ietf:params:xml:ns:xmpp-stanzas'),
      ).to.exist
  })

  it('an iq gets internal-server-error after the limit, and what was sent behind it is worked on', async () => {
    await using host = await start()
    const romeo = await host.client('romeo@example.org/r')
    const ask = (id: string, what: string): string =>
      `<iq type='get' id='${id}'><query xmlns='urn:example:${what}'/></iq>`
    expect(await romeo.send(ask('one', 'hang') + ask('two', 'quick'))).to.have.length(0)
    await host.clock.advance(10_001)
    const answers = romeo.take().map((stanza) => `${stanza.attr('id')} ${stanza.attr('type')}`)
    expect(answers).to.deep.equal(['one error', 'two result'])
  })
})
