/**
 * Discovery of connection methods over HTTP (XEP-0156 1.4.0, RFC 6415): /.well-known/host-meta as XRD, host-meta.json as JRD,
 * with the links that other modules announce. No other link relations.
 */
import type { FastifyReply, FastifyRequest } from 'fastify'
import { c, defineModule } from '../server/module.ts'
import { el } from '../server/xmpp/element.ts'

const XRD = 'http://docs.oasis-open.org/ns/xri/xrd-1.0'
const PATH = '/.well-known/host-meta'

export default defineModule({
  name: 'host-meta',
  summary: 'Tells browsers where the WebSocket endpoint is',
  specs: [
    { xep: 156, version: '1.4.0', status: 'complete' },
    { rfc: 6415, sections: '3, appendix A' },
  ],
  config: c.object({
    plaintext: c
      .boolean()
      .default(false)
      .describe('Also tell endpoints without TLS, which the standard forbids; for closed networks'),
    maxAge: c.duration('10min').describe('How long clients may keep the answer'),
  }),
  setup(ctx, config) {
    const links = () =>
      ctx.http
        .links(ctx.host)
        // §2.2 rule 1, §4: URLs with TLS only
        .filter(({ href }) => config.plaintext || /^(?:wss|https):/.test(href))
    const answer = (format: 'xrd' | 'jrd' | 'negotiated') => (req: FastifyRequest, reply: FastifyReply) => {
      // §3: web clients from everywhere may read it, and nothing else here
      reply.header('access-control-allow-origin', '*')
      reply.header('cache-control', `public, max-age=${Math.floor(config.maxAge / 1000)}`)
      if (format === 'negotiated') reply.header('vary', 'accept')
      // RFC 6415 §3: XRD unless something else is asked for
      return format === 'jrd' || (format === 'negotiated' && prefersJson(req.headers.accept))
        ? reply.type('application/json').send(`${JSON.stringify({ links: links() })}\n`)
        : reply.type('application/xrd+xml').send(xrd(links()))
    }
    for (const method of ['GET', 'HEAD'] as const) {
      ctx.http.route({ method, path: PATH, handle: answer('negotiated') })
      // §2.2 rule 2
      ctx.http.route({ method, path: `${PATH}.json`, handle: answer('jrd') })
    }
  },
})

function xrd(links: readonly { readonly rel: string; readonly href: string }[]): string {
  const document = el('XRD', XRD, {}, ...links.map(({ rel, href }) => el('Link', XRD, { rel, href })))
  return `<?xml version='1.0' encoding='utf-8'?>\n${document.toString()}\n`
}

/** Whether JSON is accepted and XRD is not: RFC 6415 appendix A lets clients ask so. */
function prefersJson(accept: string | undefined): boolean {
  const types = (accept ?? '').split(',').map((entry) => entry.split(';', 1)[0]?.trim().toLowerCase())
  return (
    types.includes('application/json') && !types.includes('application/xrd+xml') && !types.includes('*/*')
  )
}
