/** XEP-0092 Software Version 1.1: the server's name and version. The operating system is told only when an option says so. */
import { type as osType, release } from 'node:os'
import { c, defineModule } from '../server/module.ts'
import { el } from '../server/xmpp/element.ts'

const NS = 'jabber:iq:version'

const config = c.object({
  os: c.boolean().default(false).describe('Also tell the operating system.'), // §5: must be possible to disable
})

export default defineModule({
  name: 'version',
  summary: 'Tells name and version of the server',
  specs: [{ xep: 92, version: '1.1', status: 'complete' }],
  config,
  setup(ctx, { os }) {
    ctx.iq('host', 'get', NS, 'query', () =>
      el(
        'query',
        NS,
        {},
        el('name', NS, {}, ctx.software.name), // §2: name and version are required
        el('version', NS, {}, ctx.software.version),
        os ? el('os', NS, {}, `${osType()} ${release()}`) : undefined,
      ),
    )
  },
})
