/**
 * XMPP over WebSocket (RFC 7395, on RFC 6455): accepts connections at HTTP paths and hands them to the core as transports.
 * No compression, which would leak lengths of secrets. Stream rules of RFC 7395 §3.3 to §3.7 are the core's.
 */
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { WebSocketServer } from 'ws'
import { c, defineModule, type HttpPeer, type TlsInfo } from '../../server/module.ts'
import { WebSocketTransport } from './transport.ts'

const CLOSE_TIMEOUT_MS = 10_000

/** A page of this very machine: nothing crosses a network, so secrets may be sent, but there is nothing to bind to. */
const localTls: TlsInfo = {
  protocol: 'local',
  cipher: '',
  channelBinding: () => undefined,
  clientCertificate: () => undefined,
}

export default defineModule({
  name: 'websocket',
  summary: 'Clients in browsers connect by WebSocket',
  specs: [
    { rfc: 7395, sections: '3.1-3.2, 3.6, 3.8-3.9' },
    { rfc: 6455, sections: '4.2, 4.4, 5, 7, 10.2' },
    { xep: 156, version: '1.4.0', status: 'partial', note: 'announces its endpoint; documents: host-meta' },
  ],
  scope: 'server',
  config: c.object({
    paths: c
      .array(c.string().startsWith('/'))
      .min(1)
      .default(['/xmpp-websocket', '/ws'])
      .describe('HTTP paths of the endpoint; the first one is announced'),
    origins: c
      .array(c.string())
      .default(['*'])
      .describe(
        'Web sites whose pages may connect, such as https://example.org; `*` for all. Our own pages always may',
      ),
    plaintext: c
      .enum(['never', 'local', 'always'])
      .default('local')
      .describe('Connections without TLS; local: from this machine, where its own pages count as encrypted'),
    ping: c
      .duration('25s', { min: '1s' })
      .describe(
        'Silence after which the client is asked for a sign of life; keeps proxies from closing the connection',
      ),
    timeout: c.duration('2min', { min: '2s' }).describe('Silence after which the connection counts as lost'),
    maxMessage: c
      .bytes('512 KiB', { min: '16 KiB', max: '64 MiB' })
      .describe('Largest message, until the limits of the stream are known'),
  }),
  setup(ctx, config) {
    const open = new Map<WebSocketTransport, { heardAt: number }>()
    const options = {
      noServer: true,
      clientTracking: false,
      perMessageDeflate: false,
      maxPayload: config.maxMessage,
      // Each fragment and each piece costs more memory than its bytes.
      maxFragments: 1024,
      maxBufferedChunks: Math.max(1024, Math.ceil(config.maxMessage / 256)),
      closeTimeout: CLOSE_TIMEOUT_MS,
      handleProtocols: () => 'xmpp' as const, // offered by the client: checked below
    }
    const server = new WebSocketServer(options)
    const refused = ctx.metrics.counter('refused', 'WebSocket handshakes that were refused')
    ctx.metrics.gauge('connections', 'Open WebSocket connections', () => open.size)

    const accept = (req: IncomingMessage, socket: Duplex, head: Buffer, peer: HttpPeer): void => {
      const local = isLocal(req, peer)
      const refusal =
        badHandshake(req) ??
        (mayConnect(req, config.origins)
          ? undefined
          : refuse('403 Forbidden', 'This web site may not connect')) ??
        (peer.tls !== undefined || config.plaintext === 'always' || (local && config.plaintext === 'local')
          ? undefined
          : refuse('403 Forbidden', 'Only over TLS'))
      if (refusal !== undefined) {
        refused.add()
        ctx.log.debug('WebSocket refused', { address: peer.remoteAddress, status: refusal.slice(9, 12) })
        socket.end(refusal, () => socket.destroy())
        return
      }
      const tls =
        peer.tls ?? (local && config.plaintext === 'local' && isLocalPage(req) ? localTls : undefined)
      server.handleUpgrade(req, socket, head, (ws) => {
        const transport = new WebSocketTransport(ws, socket, { ...peer, tls }, (gone) => open.delete(gone))
        open.set(transport, { heardAt: ctx.now() })
        ctx.accept(transport)
      })
    }
    for (const path of config.paths) {
      ctx.http.upgrade(path, accept)
      ctx.http.route({
        method: 'GET',
        path,
        handle: (_, reply) =>
          reply
            .code(426)
            .header('upgrade', 'websocket')
            .header('connection', 'upgrade')
            .send('For WebSocket clients\n'),
      })
    }
    // XEP-0156 §2.1
    ctx.http.link({ rel: 'urn:xmpp:alt-connections:websocket', path: config.paths[0] ?? '/', scheme: 'ws' })

    // RFC 7395 §3.8: control frames instead of whitespace. One timer for all connections.
    ctx.timers.every(config.ping, () => {
      const now = ctx.now()
      for (const [transport, state] of open) {
        if (transport.heard) state.heardAt = now
        else if (now - state.heardAt >= config.timeout) {
          transport.destroy()
          continue
        } else transport.ping()
        transport.heard = false
      }
    })
    return {
      stop() {
        for (const transport of open.keys()) transport.goAway()
      },
    }
  },
})

/** A whole refusal. */
function refuse(status: string, text: string, headers = ''): string {
  const length = Buffer.byteLength(text) + 1
  return `HTTP/1.1 ${status}\r\nContent-Type: text/plain\r\nContent-Length: ${length}\r\n${headers}Connection: close\r\n\r\n${text}\n`
}

/** What ws does not check, or not strictly. */
function badHandshake(req: IncomingMessage): string | undefined {
  // RFC 6455 §4.4
  if (req.headers['sec-websocket-version'] !== '13')
    return refuse('426 Upgrade Required', 'WebSocket version 13 only', 'Sec-WebSocket-Version: 13\r\n')
  // RFC 7395 §3.1: the client must offer `xmpp`
  const offered = req.headers['sec-websocket-protocol']?.split(',').map((name) => name.trim()) ?? []
  return offered.includes('xmpp') ? undefined : refuse('400 Bad Request', 'WebSocket subprotocol xmpp only')
}

/** RFC 6455 §10.2. Clients that are no browsers send no Origin. */
function mayConnect(req: IncomingMessage, origins: readonly string[]): boolean {
  const { origin } = req.headers
  if (origin === undefined || origins.includes('*') || origins.includes(origin)) return true
  return URL.canParse(origin) && new URL(origin).host === req.headers.host?.toLowerCase()
}

const LOOPBACK = /^(?:127\.\d{1,3}\.\d{1,3}\.\d{1,3}|::1)$/

/** From this machine, and not by way of a proxy on it. */
function isLocal(req: IncomingMessage, peer: HttpPeer): boolean {
  const proxied = ['x-forwarded-for', 'x-forwarded-proto', 'x-real-ip', 'forwarded', 'via'].some(
    (h) => h in req.headers,
  )
  return LOOPBACK.test(peer.remoteAddress) && !proxied
}

/** A page that a browser got from this machine. Behind a proxy that hides itself, pages have another name. */
function isLocalPage(req: IncomingMessage): boolean {
  const { origin } = req.headers
  if (origin === undefined || !URL.canParse(origin)) return false
  const name = new URL(origin).hostname.replace(/^\[|\]$/g, '')
  return name === 'localhost' || name.endsWith('.localhost') || LOOPBACK.test(name)
}
