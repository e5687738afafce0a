/** XEP-0478 Stream Limits Advertisement 0.2.0: announces what the core enforces. Announcing on bidi streams (§3.2) is for s2s-bidi. */
import { defineModule } from '../server/module.ts'
import { el } from '../server/xmpp/element.ts'

const NS_LIMITS = 'urn:xmpp:stream-limits:0'

export default defineModule({
  name: 'stream-limits',
  summary: 'Tells clients and servers how large stanzas may be',
  specs: [
    { rfc: 6120, sections: '5.3.1' },
    { xep: 478, version: '0.2.0', status: 'complete' },
  ],
  optional: ['starttls'],
  setup(ctx) {
    // RFC 6120 §5.3.1: where TLS is mandatory nothing else is offered before it
    const tlsFirst = ctx.find('starttls')?.required === true
    ctx.streamFeature({
      ns: NS_LIMITS,
      streams: ['c2s', 's2s'],
      needs: [],
      forbids: [],
      advertise(s) {
        if (tlsFirst && s.canStartTls) return undefined
        // §3.1: a limit that does not exist is left out; §4: they may differ after authentication
        const { maxBytes, idleMs } = s.limits
        const idle = idleMs === undefined ? undefined : Math.floor(idleMs / 1000)
        return el(
          'limits',
          NS_LIMITS,
          {},
          el('max-bytes', NS_LIMITS, {}, String(maxBytes)),
          idle === undefined ? undefined : el('idle-seconds', NS_LIMITS, {}, String(idle)),
        )
      },
      // An announcement, nothing to send.
      handle: () => ({ close: { condition: 'unsupported-stanza-type' } }),
    })
  },
})
