/** XEP-0199 XMPP Ping 2.0.1: answers pings, closes idle clients that do not answer ours. */
import { type Bound, c, defineModule } from '../server/module.ts'
import { el } from '../server/xmpp/element.ts'
import { RequestTimeout, StanzaError } from '../server/xmpp/errors.ts'

const NS = 'urn:xmpp:ping'

const config = c.object({
  timeout: c.duration('30s', { min: '1s' }).describe('How long an idle client may take to answer.'),
})

export default defineModule({
  name: 'ping',
  summary: 'Answers pings and drops dead clients',
  specs: [
    { xep: 199, version: '2.0.1', status: 'complete' },
    { rfc: 6120, sections: '4.6.2' },
    { rfc: 6121, sections: '8.5.1' },
  ],
  config,
  setup(ctx, { timeout }) {
    ctx.iq('host', 'get', NS, 'ping', () => undefined) // §4.2: an empty result
    ctx.iq('account', 'get', NS, 'ping', (iq) => {
      // §4.2: an account answers its own clients; to others the same as an account that does not exist (RFC 6121 §8.5.1)
      if (!iq.from.bare.equals(iq.to)) throw new StanzaError('service-unavailable')
    })
    // Not awaited: the client may take longer than a hook.
    ctx.hook('session:idle', { phase: 'observe' }, ({ session }) => void probe(session))

    /** §4.1: an error reply is a sign of life too; only silence closes the stream. */
    async function probe(session: Bound): Promise<void> {
      try {
        await ctx.request(session.jid, el('ping', NS), { type: 'get', timeoutMs: timeout })
      } catch (error) {
        if (error instanceof RequestTimeout)
          session.close('connection-timeout') // RFC 6120 §4.6.2
        else if (!(error instanceof StanzaError)) ctx.log.error('ping failed', { err: error })
      }
    }
  },
})
