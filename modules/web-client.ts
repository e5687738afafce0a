/**
 * The browser client at `/`: Converse.js from npm with the page and settings of clients/web, one for each host. Everything comes from this
 * server, and the Content-Security-Policy of the page allows nothing else.
 */
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { c, defineModule } from '../server/module.ts'

const PAGE = join(import.meta.dirname, '../clients/web')
const WEBSOCKET = 'urn:xmpp:alt-connections:websocket'

export default defineModule({
  name: 'web-client',
  summary: 'Serves a chat client for browsers',
  specs: [
    { rfc: 8246, sections: '2' },
    { rfc: 9111, sections: '5.2.2.4' },
  ],
  config: c.object({
    path: c
      .string()
      .regex(/^\/(?:[\w.~-]+\/)*$/, { error: 'must begin and end with a slash' })
      .default('/')
      .describe('Where the page is'),
    title: c.string().default('Chat').describe('Title of the page'),
    lockDomain: c.boolean().default(true).describe('Users of this host only; they need not type the domain'),
    registration: c
      .boolean()
      .default(false)
      .describe('Show the form for new accounts; needs module register with its option enabled'),
    settings: c
      .record(c.string(), c.unknown())
      .default({})
      .describe('Further settings of Converse.js, which take precedence'),
  }),
  async setup(ctx, config) {
    const { path } = config
    const dist = dirname(createRequire(import.meta.url).resolve('converse.js/dist/converse.min.js'))
    const version = await versionOf(dist)
    const template = await readFile(join(PAGE, 'index.html'), 'utf8')
    const page = template
      .replace('{{title}}', escapeHtml(config.title))
      .replaceAll('{{converse}}', `converse/${encodeURIComponent(version)}`)

    // RFC 9111 §5.2.2.4: kept, but asked for each time, so that a new version is seen at once
    const fresh = { 'cache-control': 'no-cache' }
    const policy = (req: FastifyRequest) => contentPolicy(req.host, ctx.http.urls(ctx.host))
    const sendPage = (req: FastifyRequest, reply: FastifyReply) =>
      reply
        .type('text/html; charset=utf-8')
        .headers({ ...fresh, 'content-security-policy': policy(req) })
        .send(page)
    const sendSettings = (_: FastifyRequest, reply: FastifyReply) => {
      const link = ctx.http.links(ctx.host).find(({ rel }) => rel === WEBSOCKET)
      const websocketPath = link === undefined ? undefined : new URL(link.href).pathname
      const body = { websocketPath, settings: { ...converseSettings(ctx.host, config), ...config.settings } }
      return reply.headers(fresh).send(body)
    }
    for (const method of ['GET', 'HEAD'] as const) {
      ctx.http.route({ method, path, handle: sendPage })
      ctx.http.route({ method, path: `${path}client.json`, handle: sendSettings })
      if (path !== '/')
        ctx.http.route({ method, path: path.slice(0, -1), handle: (_, reply) => reply.redirect(path, 301) })
    }
    ctx.http.files(`${path}client/`, PAGE, { headers: fresh })
    // RFC 8246 §2: the version is in the path, so these files never change
    ctx.http.files(`${path}converse/${version}/`, dist, {
      headers: { 'cache-control': 'public, max-age=31536000, immutable' },
      compress: true,
    })
  },
})

/** Defaults that fit a server of one's own; names are those of Converse.js. */
function converseSettings(
  host: string,
  config: { readonly lockDomain: boolean; readonly registration: boolean },
): Readonly<Record<string, unknown>> {
  return {
    authentication: 'login',
    view_mode: 'fullscreen',
    ...(config.lockDomain ? { locked_domain: host } : { default_domain: host }),
    discover_connection_methods: false, // websocket_url is set by the page
    allow_registration: config.registration,
    registration_domain: host,
    auto_reconnect: true,
    show_background: true,
    loglevel: 'warn',
    // Nothing from elsewhere.
    providers_link: '',
    xmpp_providers_url: '',
    autocomplete_providers_url: '',
    muc_search_service: '',
    embed_3rd_party_media_players: false,
  }
}

/** What the page may do: everything from its own origin and the host's other URLs here (uploads), nothing from elsewhere. */
function contentPolicy(requested: string, urls: readonly string[]): string {
  const own = urls.map((url) => new URL(url).origin)
  // For browsers in which 'self' does not cover WebSockets. The name comes from the client, so only if it is one.
  const sockets = /^[\w.:[\]-]+$/.test(requested) ? [`wss://${requested}`, `ws://${requested}`] : []
  const directives: Readonly<Record<string, readonly string[]>> = {
    'default-src': ["'none'"],
    'script-src': ["'self'", "'wasm-unsafe-eval'"], // the cryptography of OMEMO is WebAssembly
    'style-src': ["'self'", "'unsafe-inline'"],
    'img-src': ["'self'", 'data:', 'blob:', ...own],
    'media-src': ["'self'", 'data:', 'blob:', ...own],
    'font-src': ["'self'", 'data:'],
    'connect-src': ["'self'", ...sockets, ...own],
    'worker-src': ["'self'", 'blob:'],
    'manifest-src': ["'self'"],
    'form-action': ["'self'"],
    'base-uri': ["'none'"],
    'frame-ancestors': ["'none'"],
  }
  return Object.entries(directives)
    .map(([name, sources]) => `${name} ${sources.join(' ')}`)
    .join('; ')
}

async function versionOf(dist: string): Promise<string> {
  const manifest: unknown = JSON.parse(await readFile(join(dist, '../package.json'), 'utf8'))
  const version =
    typeof manifest === 'object' && manifest !== null && 'version' in manifest ? manifest.version : undefined
  if (typeof version !== 'string') throw new Error('converse.js has no version')
  return version
}

const escapeHtml = (text: string): string => text.replace(/[&<>"']/g, (char) => `&#${char.codePointAt(0)};`)
