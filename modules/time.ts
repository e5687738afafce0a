/**
 * XEP-0202 Entity Time 2.0: the server's time, in the formats of XEP-0082 1.1.1. The offset is always zero: where the machine stands
 * is nobody's business (§6).
 */
import { defineModule } from '../server/module.ts'
import { el } from '../server/xmpp/element.ts'
import { formatDateTime } from '../server/xmpp/xml-time.ts'

const NS = 'urn:xmpp:time'

export default defineModule({
  name: 'time',
  summary: 'Tells the time of the server',
  specs: [
    { xep: 202, version: '2.0', status: 'complete' },
    { xep: 82, version: '1.1.1', status: 'complete' },
  ],
  setup(ctx) {
    ctx.iq('host', 'get', NS, 'time', () =>
      el('time', NS, {}, el('tzo', NS, {}, '+00:00'), el('utc', NS, {}, formatDateTime(ctx.now()))),
    )
  },
})
