/** STARTTLS (RFC 6120 §5): offers and starts encryption of a TCP connection. The handshake itself is the core's. */
import { c, defineModule, type Session, type StreamStep } from '../server/module.ts'
import { type Element, el } from '../server/xmpp/element.ts'
import { NS } from '../server/xmpp/ns.ts'

declare module '../server/module.ts' {
  interface Services {
    starttls: {
      /** Clients must encrypt before anything else (RFC 6120 §5.3.1). */
      readonly required: boolean
    }
  }
}

export default defineModule({
  name: 'starttls',
  summary: 'Encrypts connections that began without TLS',
  specs: [{ rfc: 6120, sections: '5' }],
  config: c.object({
    required: c.boolean().default(true).describe('Offer clients nothing else before they have encrypted'),
  }),
  setup(ctx, { required }) {
    ctx.provide('starttls', { required })
    ctx.streamFeature({
      ns: NS.TLS,
      streams: ['c2s', 's2s'],
      needs: [],
      forbids: [], // so that a command at the wrong time gets its own kind of answer
      advertise: (s) => (canStart(s) ? feature(required) : undefined),
      handle: (s, element) => start(canStart(s), element),
    })
  },
})

/** RFC 6120 §5.3.4: before authentication; §5.4.3.3 (5): never twice. */
function canStart(s: Session): boolean {
  return s.canStartTls && !s.is('authenticated')
}

/** §5.4.1. */
function feature(required: boolean): Element {
  return el('starttls', NS.TLS, {}, required ? el('required', NS.TLS) : undefined)
}

function start(allowed: boolean, element: Element): StreamStep {
  // §5.4.2.2: malformed command, or one that was not offered: failure, then the end of stream and connection
  if (!allowed || element.name !== 'starttls' || element.children.length > 0)
    return { reply: el('failure', NS.TLS), close: {} }
  // §5.4.2.3
  return { reply: el('proceed', NS.TLS), next: 'tls' }
}
