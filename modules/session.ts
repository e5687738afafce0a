/**
 * The session establishment of RFC 3921 §3, which RFC 6121 dropped: old clients still ask for it after binding, and it does nothing.
 * Announced as optional, so that others save the round trip.
 */
import { defineModule } from '../server/module.ts'
import { el } from '../server/xmpp/element.ts'
import { NS } from '../server/xmpp/ns.ts'

export default defineModule({
  name: 'session',
  summary: 'Lets old clients establish a session, which has no effect',
  specs: [
    { rfc: 3921, sections: '3' },
    { rfc: 6121, sections: '1.4' },
  ],
  setup(ctx) {
    ctx.streamFeature({
      ns: NS.SESSION,
      streams: ['c2s'],
      needs: ['authenticated'],
      forbids: ['bound'],
      advertise: () => el('session', NS.SESSION, {}, el('optional', NS.SESSION)),
      // RFC 3921 §3: only after binding
      handle: () => ({ close: { condition: 'not-authorized', text: 'bind a resource first' } }),
    })
    // RFC 3921 §3: addressed to the server, or to nobody
    ctx.iq('host', 'set', NS.SESSION, 'session', () => undefined, { advertise: false })
    ctx.iq('self', 'set', NS.SESSION, 'session', () => undefined, { advertise: false })
  },
})
