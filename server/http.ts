/**
 * The HTTP and HTTPS server that modules share (fastify): routes by host, upgrades, static files, limits. HTTP/1.1 only.
 *
 * Request bodies, headers and times are bounded; requests for hosts that are not ours get 421 (RFC 9110 §15.5.20).
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import fastifyStatic from '@fastify/static'
import fastify, { type FastifyError, type FastifyReply, type FastifyRequest } from 'fastify'
import type { Doors } from './connection-limits.ts'
import { readBody } from './http-body.ts'
import { prepareConnections } from './http-connections.ts'
import { GzipCache } from './http-gzip.ts'
import { comparableHost, Peers } from './http-peer.ts'
import { type Match, METHODS, RouteTable } from './http-routes.ts'
import { baseUrls, hostNames, linksOf } from './http-urls.ts'
import type { Http, HttpBody, Log } from './module.ts'
import { listen } from './net.ts'
import type { Tls } from './tls.ts'

/** One address and port. */
export interface HttpListener {
  readonly address: string
  /** 0 takes a free one. */
  readonly port: number
  readonly tls: boolean
  readonly ipv6Only?: boolean
  /** Each connection must begin with a PROXY header; only proxies of `trustedProxies` (default: this machine) may send it. */
  readonly proxyProtocol?: boolean
  readonly maxConnections?: number
}

/** How the HTTP server is set up. */
export interface HttpSettings {
  readonly listeners: readonly HttpListener[]
  /** Virtual hosts; the first one also answers for addresses and `localhost`. */
  readonly hosts: readonly string[]
  /** Addresses and networks whose X-Forwarded-* headers are believed. */
  readonly trustedProxies?: readonly string[]
  /** Base URLs by host, when clients reach the server by others than those of the listeners. */
  readonly publicUrls?: Readonly<Record<string, readonly string[]>>
  /** Bytes of all headers of a request; default 16 KiB. */
  readonly maxHeaderBytes?: number
  /** For all headers of a request, and for a TLS handshake; default 15 s. */
  readonly headersTimeoutMs?: number
  /** For a whole request with its body; default 10 min. */
  readonly requestTimeoutMs?: number
  /** Until an idle connection is closed; default 60 s. */
  readonly keepAliveMs?: number
  /** How many connections an address may have. */
  readonly doors?: Doors
}

/** A server that answers requests. */
export interface HttpServer {
  /** In the order of the listeners. */
  readonly ports: readonly number[]
  /** HTTP as one module sees it; `dispose` removes all it has registered. `host` '' is for all hosts. */
  httpFor(module: string, host: string): { readonly http: Http; dispose(): void }
  /** Stops accepting, lets requests that are being answered come to their end (for two seconds), closes all connections. */
  close(): Promise<void>
}

const CLOSE_GRACE_MS = 2000
// Nothing that a browser could run, load or frame; a module that serves pages says what they may do.
const HEADERS = {
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
}

/** Starts all listeners. Throws an Error with one clear sentence when one cannot listen. */
export async function startHttp(settings: HttpSettings, tls: Tls, log: Log): Promise<HttpServer> {
  const peers = new Peers(settings.trustedProxies ?? [])
  const routes = new RouteTable(settings.hosts)
  const names = hostNames(settings.hosts, settings.publicUrls ?? {})
  const hostOf = (req: IncomingMessage): string | undefined => {
    const name = peers.hostName(req)
    return name === undefined ? settings.hosts[0] : names.get(comparableHost(name))
  }
  const answer = await makeApp(routes, hostOf, peers, log)
  const upgrade = makeUpgrade(routes, hostOf, peers)
  const open: OpenServer[] = []
  const close = async (): Promise<void> => {
    await Promise.all(open.map((one) => one.close()))
    await answer.close()
  }
  try {
    for (const listener of settings.listeners)
      open.push(await openServer(listener, settings, { tls, log, peers, answer: answer.routing, upgrade }))
  } catch (error) {
    await close()
    throw error
  }
  const ports = open.map((one) => one.port)
  const urls = (host: string) => baseUrls(host, settings.listeners, ports, settings.publicUrls ?? {})
  const gzip = new GzipCache()
  return {
    ports,
    close,
    httpFor(module, host) {
      const undo = new DisposableStack()
      return { http: httpOf(module, host, routes, undo, urls, gzip), dispose: () => undo.dispose() }
    },
  }
}

function httpOf(
  module: string,
  host: string,
  routes: RouteTable,
  undo: DisposableStack,
  urls: (host: string) => readonly string[],
  gzip: GzipCache,
): Http {
  const http: Http = {
    route({ method, path, maxBody = 0, body = 'buffer', handle }) {
      undo.use(routes.route(host, { module, method, path, maxBody, body, handle }))
    },
    upgrade: (path, handle) => void undo.use(routes.upgrade(host, path, module, handle)),
    files(prefix, folder, opts = {}) {
      const base = prefix.endsWith('/') ? prefix : `${prefix}/`
      const { index, headers = {}, compress = false } = opts
      // A module that says how long files may be cached knows better than the default (ask each time).
      const cacheControl = !Object.keys(headers).some((name) => name.toLowerCase() === 'cache-control')
      const send = (reply: FastifyReply, file: string): FastifyReply =>
        reply.headers(headers).sendFile(file, folder, { cacheControl, index: false, dotfiles: 'deny' })
      for (const method of ['GET', 'HEAD'] as const) {
        if (index !== undefined) http.route({ method, path: base, handle: (_, reply) => send(reply, index) })
        http.route({
          method,
          path: `${base}*`,
          async handle(req, reply) {
            const file = wildcard(req.params)
            reply.headers(headers)
            if (compress && (await gzip.send(req, reply, folder, file))) return reply
            return send(reply, file)
          },
        })
      }
    },
    urls,
    link: (link) => void undo.use(routes.link(host, link)),
    links: (of) => linksOf(routes.links(of), urls(of)),
  }
  return http
}

function wildcard(params: unknown): string {
  const rest = typeof params === 'object' && params !== null && '*' in params ? params['*'] : undefined
  return typeof rest === 'string' ? rest : ''
}

interface App {
  routing(req: IncomingMessage, res: ServerResponse): void
  close(): Promise<void>
}

/** The fastify instance: everything goes to the route that the table finds. */
async function makeApp(
  routes: RouteTable,
  hostOf: (req: IncomingMessage) => string | undefined,
  peers: Peers,
  log: Log,
): Promise<App> {
  const found = new WeakMap<FastifyRequest, Match>()
  const app = fastify({
    logger: false,
    exposeHeadRoutes: false,
    trustProxy: (address) => peers.isTrusted(address),
    frameworkErrors: (_error, _req, reply) => void text(reply, 400, 'Bad request'),
  })
  await app.register(fastifyStatic, { serve: false })
  app.setNotFoundHandler((_req, reply) => text(reply, 404, 'Not found'))
  app.setErrorHandler((error: FastifyError, req, reply) => {
    const status = error.statusCode ?? 500
    if (status < 500) return text(reply, status, error.message)
    const route = found.get(req)?.route
    const fields = { err: error, module: route?.module, method: req.method, route: route?.path }
    log.error('request failed', fields)
    return text(reply, status, 'Internal server error')
  })
  // Bodies are read below, when the route and its limit are known.
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', (_req, _payload, done) => done(null))
  app.route({
    method: [...METHODS],
    url: '*',
    onRequest(req, reply, next) {
      reply.headers(HEADERS)
      const host = hostOf(req.raw)
      if (host === undefined) return void text(reply, 421, 'This server does not answer for that name')
      const match = routes.find(host, req.method, req.raw.url ?? '/')
      if ('route' in match) {
        found.set(req, match)
        req.params = match.params
        next()
      } else if (match.allowed.length === 0) text(reply, 404, 'Not found')
      else text(reply.header('allow', match.allowed.join(', ')), 405, 'Method not allowed')
    },
    async handler(req, reply) {
      const route = found.get(req)?.route
      if (route === undefined) return text(reply, 404, 'Not found')
      req.body = await readBody(req.raw, reply, route)
      if (reply.sent) return reply
      const body: HttpBody = await route.handle(req, reply)
      // A handler that answers by `reply` itself returns it, or nothing.
      if (reply.sent || body === reply) return reply
      if (body === undefined && reply.statusCode === 200) reply.code(204)
      return reply.send(body)
    },
  })
  await app.ready()
  return { routing: (req, res) => app.routing(req, res), close: () => app.close() }
}

function text(reply: FastifyReply, status: number, message: string): FastifyReply {
  return reply.code(status).type('text/plain; charset=utf-8').send(`${message}\n`)
}

type Upgrade = (req: IncomingMessage, socket: Duplex, head: Buffer) => void

function makeUpgrade(
  routes: RouteTable,
  hostOf: (req: IncomingMessage) => string | undefined,
  peers: Peers,
): Upgrade {
  return (req, socket, head) => {
    socket.on('error', ignore) // until the handler has one
    const host = hostOf(req)
    if (host === undefined) return refuse(socket, '421 Misdirected Request')
    const handle = routes.findUpgrade(host, req.url ?? '')
    if (handle === undefined) return refuse(socket, '404 Not Found')
    handle(req, socket, head, peers.of(req))
  }
}

function ignore(): void {
  // A connection that fails is closed, and its 'close' says so to whoever has it.
}

function refuse(socket: Duplex, status: string): void {
  socket.end(`HTTP/1.1 ${status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`, () => socket.destroy())
}

interface OpenServer {
  readonly port: number
  close(): Promise<void>
}

interface Parts {
  readonly tls: Tls
  readonly log: Log
  readonly peers: Peers
  answer(req: IncomingMessage, res: ServerResponse): void
  readonly upgrade: Upgrade
}

async function openServer(listener: HttpListener, settings: HttpSettings, parts: Parts): Promise<OpenServer> {
  const headersTimeoutMs = settings.headersTimeoutMs ?? 15_000
  const server = createServer({
    maxHeaderSize: settings.maxHeaderBytes ?? 16_384,
    headersTimeout: headersTimeoutMs,
    requestTimeout: settings.requestTimeoutMs ?? 600_000,
    keepAliveTimeout: settings.keepAliveMs ?? 60_000,
    connectionsCheckingInterval: Math.min(5000, headersTimeoutMs),
    noDelay: true,
    // RFC 9110 §7.8: a server may ignore an upgrade; to others than WebSocket the request is answered as it is.
    shouldUpgradeCallback: (req) => req.headers.upgrade?.toLowerCase() === 'websocket',
  })
  let active = 0
  let idle = (): void => undefined
  server.on('request', (req, res) => {
    active++
    res.once('close', () => {
      if (--active === 0) idle()
    })
    parts.answer(req, res)
  })
  server.on('upgrade', parts.upgrade)
  const { tls, log, peers } = parts
  const { trustedProxies: proxies = [] } = settings
  const gates = prepareConnections(server, {
    tls: listener.tls ? tls : undefined,
    proxyProtocol: listener.proxyProtocol === true,
    ...(proxies.length === 0 ? {} : { proxyFrom: proxies }),
    handshakeTimeoutMs: headersTimeoutMs,
    peers,
    ...(settings.doors === undefined ? {} : { doors: settings.doors }),
    log,
  })
  const port = await listen(server, listener, log)
  return {
    port,
    async close() {
      server.close()
      gates.close()
      if (active > 0)
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, CLOSE_GRACE_MS)
          idle = () => {
            clearTimeout(timer)
            resolve()
          }
        })
      server.closeAllConnections()
    },
  }
}
