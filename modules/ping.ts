/** XEP-0199 XMPP Ping 2.0.1: answers pings, closes idle clients that do not answer ours. */
import { c, defineModule } from '../server/module.ts'
import { el } from '../server/xmpp/element.ts'
import { RequestTimeout } from '../server/xmpp/errors.ts'

const NS = 'urn:xmpp:ping'

const config = c.object({
  timeout: c.duration('30s', { min: '1s' }).describe('How long an idle client may take to answer.'),
})

export default defineModule({
  name: 'ping',
  summary: 'Answers pings and drops dead clients',
  specs: [{ xep: 199, version: '2.0.1', status: 'complete' }],
  config,
  setup(ctx, { timeout }) {
    ctx.iq('host', 'get', NS, 'ping', () => undefined) // §4.2: an empty result
    ctx.iq('account', 'get', NS, 'ping', () => undefined)
    // §4.1: an error reply is a sign of life too; only silence closes the stream.
    ctx.hook('session:idle', { phase: 'observe' }, async ({ session }) => {
      try {
        await ctx.request(session.jid, el('ping', NS), { type: 'get', timeoutMs: timeout })
      } catch (error) {
        if (error instanceof RequestTimeout) session.close('connection-timeout')
      }
    })
  },
})
