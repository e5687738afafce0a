/**
 * TCP: listeners (RFC 6120 §3), STARTTLS in place (§5.4.3), direct TLS (XEP-0368 1.1.0), the PROXY protocol, and the `tcp`
 * transport that a stream stands on. Knows nothing of XML; does not dial out.
 */
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { AddressSet, isLoopback, plainAddress } from './addresses.ts'
import { type Clock, systemClock } from './clock.ts'
import type { Doors } from './connection-limits.ts'
import { Deadlines } from './deadlines.ts'
import type { Log, TlsInfo, Transport, TransportSink } from './module.ts'
import { readProxyHeader } from './proxy-protocol.ts'
import type { Tls, TlsPurpose } from './tls.ts'
import { TlsConnection } from './tls-socket.ts'

/** How to listen. */
export interface ListenerOptions {
  /** IPv4 or IPv6 address; `::` takes IPv4 too unless `ipv6Only`. */
  readonly address: string
  /** 0 takes a free one. */
  readonly port: number
  /** none: `startTls` closes the connection. */
  readonly tls: 'starttls' | 'direct' | 'none'
  /** What direct TLS is for; default: clients. */
  readonly purpose?: TlsPurpose
  readonly ipv6Only?: boolean
  /** Each connection must begin with a PROXY header. */
  readonly proxyProtocol?: boolean
  /** Addresses and networks that may send PROXY headers; default: this machine. */
  readonly proxyFrom?: readonly string[]
  /** Connections that the kernel keeps until they are accepted; default 4096. */
  readonly backlog?: number
  /** Connections above this number are refused at once. */
  readonly maxConnections?: number
  /** For the PROXY header and for a TLS handshake, each; default 15 s. */
  readonly handshakeTimeoutMs?: number
  /** How long `end()` waits for the peer before the connection is destroyed; default 10 s. */
  readonly closeTimeoutMs?: number
  /** Limits on direct TLS connections until they are handed out. */
  readonly doors?: Doors
  /** For tests. */
  readonly clock?: Clock
}

/** A listener that accepts connections. */
export interface Listener {
  readonly port: number
  /** Stops accepting; accepted connections stay, those still in a handshake are destroyed. */
  close(): Promise<void>
}

const transportOf: unique symbol = Symbol('transport')
declare module 'node:net' {
  interface Socket {
    [transportOf]?: TcpTransport
  }
}

/** What all connections of a listener share. */
interface Shared {
  readonly tls: Tls | undefined
  readonly purpose: TlsPurpose
  readonly log: Log
  readonly accept: (transport: Transport) => void
  readonly handshakes: Deadlines<TcpTransport>
  readonly closings: Deadlines<TcpTransport>
  readonly doors: Doors | undefined
}

/** preparing: direct TLS, not accepted yet. */
type State = 'open' | 'preparing' | 'securing' | 'closing' | 'closed'

class TcpTransport implements Transport {
  readonly remoteAddress: string
  readonly #shared: Shared
  #socket: Socket | TLSSocket
  #sink: TransportSink | undefined
  #tls: TlsConnection | undefined
  #error: Error | undefined
  #state: State = 'open'

  constructor(socket: Socket, remoteAddress: string, shared: Shared) {
    this.#socket = socket
    this.remoteAddress = remoteAddress
    this.#shared = shared
    this.#adopt(socket)
  }

  get kind(): 'tcp' {
    return 'tcp'
  }

  get framing(): 'stream' {
    return 'stream'
  }

  get tls(): TlsInfo | undefined {
    return this.#state === 'securing' ? undefined : this.#tls
  }

  get buffered(): number {
    return this.#socket.writableLength
  }

  start(sink: TransportSink): void {
    this.#sink = sink
    // The sink is never called from within a call of ours, so a connection that is gone already says so later.
    if (this.#state === 'closed') queueMicrotask(() => sink.closed(this.#error))
    else if (this.#socket.readableEnded) queueMicrotask(() => this.handleEnd())
    else this.#socket.on('data', onData)
  }

  write(text: string): boolean {
    if (this.#state !== 'open') return false
    return this.#socket.write(text)
  }

  pause(): void {
    this.#socket.pause()
  }

  resume(): void {
    if (this.#state === 'open') this.#socket.resume()
  }

  startTls(host: string): void {
    if (this.#state !== 'open' || this.#tls !== undefined || this.#socket.destroyed) return
    this.#secure('securing', host)
  }

  /** As `startTls`, before the connection is handed out. */
  prepareTls(): void {
    this.#secure('preparing', undefined)
  }

  end(): void {
    if (this.#state === 'closing' || this.#state === 'closed') return
    if (this.#state !== 'open') {
      this.destroy()
      return
    }
    this.#state = 'closing'
    this.#shared.closings.add(this)
    this.#socket.end()
    // Closing with unread input would make the kernel send a reset, and the peer lose our last words.
    this.#socket.resume()
  }

  destroy(): void {
    this.#socket.destroy()
  }
  /** A time limit was reached, or there is no way on. */
  expire(what: string): void {
    this.#socket.destroy(new Error(what))
  }

  #adopt(socket: Socket): void {
    socket[transportOf] = this
    socket.on('error', onError)
    socket.on('close', onClose)
    socket.on('drain', onDrain)
    socket.on('end', onEnd)
  }

  #secure(state: 'preparing' | 'securing', host: string | undefined): void {
    const { tls, handshakes, purpose } = this.#shared
    if (tls === undefined) return this.expire('there is no TLS at this listener')
    const raw = this.#socket
    delete raw[transportOf]
    raw.off('error', onError)
    raw.off('close', onClose)
    raw.off('drain', onDrain)
    raw.off('end', onEnd)
    raw.off('data', onData)
    // RFC 6120 §5.4.3.3 rule 2: what came in plain is not handed on. TLS takes it as part of the handshake, which fails.
    raw.pause()
    this.#tls = new TlsConnection(raw, tls, state === 'preparing' ? purpose : 'c2s', host)
    const { socket } = this.#tls
    this.#socket = socket
    this.#state = state
    this.#adopt(socket)
    socket.on('secure', onSecure)
    handshakes.add(this)
  }

  handleSecure(socket: TLSSocket): void {
    socket.off('secure', onSecure)
    this.#shared.handshakes.delete(this)
    const direct = this.#state === 'preparing'
    if (direct) this.#shared.doors?.leave(this.remoteAddress)
    if (!direct && this.#state !== 'securing') return
    this.#state = 'open'
    this.#tls?.established()
    if (direct) this.#shared.accept(this)
    else {
      socket.on('data', onData)
      this.#sink?.secured()
    }
  }

  handleData(chunk: Uint8Array): void {
    if (this.#state === 'open') this.#sink?.data(chunk)
  }

  handleDrain(): void {
    if (this.#state === 'open') this.#sink?.drain()
  }

  handleEnd(): void {
    if (this.#state === 'open') this.#sink?.ended()
    else if (this.#state !== 'closing') this.destroy() // no handshake comes to an end without the peer
  }

  handleError(error: Error): void {
    this.#error ??= error
    const handshake = this.#state === 'preparing' || this.#state === 'securing'
    const what = handshake ? 'TLS handshake failed' : 'connection failed'
    const { message } = error
    const code = 'code' in error ? error.code : undefined
    this.#shared.log.debug(what, { address: this.remoteAddress, code: code ?? message })
  }

  handleClose(): void {
    if (this.#state === 'closed') return
    if (this.#state === 'preparing') this.#shared.doors?.leave(this.remoteAddress)
    this.#state = 'closed'
    this.#shared.handshakes.delete(this)
    this.#shared.closings.delete(this)
    this.#sink?.closed(this.#error)
  }
}

// One function for all sockets instead of closures for each.
function onData(this: Socket, chunk: Buffer): void {
  this[transportOf]?.handleData(chunk)
}
function onDrain(this: Socket): void {
  this[transportOf]?.handleDrain()
}
function onEnd(this: Socket): void {
  this[transportOf]?.handleEnd()
}
function onError(this: Socket, error: Error): void {
  this[transportOf]?.handleError(error)
}
function onClose(this: Socket): void {
  this[transportOf]?.handleClose()
}
function onSecure(this: TLSSocket): void {
  this[transportOf]?.handleSecure(this)
}

/**
 * Listens for client connections and hands each one out when it may carry a stream: after its PROXY header and, with direct
 * TLS, after the handshake. Throws an Error with one clear sentence when it cannot listen.
 */
export async function listenTcp(
  opts: ListenerOptions,
  tls: Tls,
  accept: (transport: Transport) => void,
  log: Log,
): Promise<Listener> {
  const clock = opts.clock ?? systemClock
  const handshakeMs = opts.handshakeTimeoutMs ?? 15_000
  const tooSlow = 'the TLS handshake took too long'
  const shared: Shared = {
    tls: opts.tls === 'none' ? undefined : tls,
    purpose: opts.purpose ?? 'c2s-direct',
    log,
    accept,
    handshakes: new Deadlines((transport) => transport.expire(tooSlow), handshakeMs, clock),
    closings: new Deadlines((transport) => transport.destroy(), opts.closeTimeoutMs ?? 10_000, clock),
    doors: opts.doors,
  }
  const prepare = (socket: Socket, remoteAddress: string): void => {
    if (opts.tls !== 'direct') accept(new TcpTransport(socket, remoteAddress, shared))
    else if (opts.doors?.enter(remoteAddress) === false) refuse(socket)
    else new TcpTransport(socket, remoteAddress, shared).prepareTls()
  }
  const gate = opts.proxyProtocol === true ? proxyGate(opts, log) : undefined
  const server = createServer({
    allowHalfOpen: true,
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: 300_000,
  })
  server.on('connection', (socket) => {
    // The peer can be gone already; then there is no address either.
    if (gate === undefined) prepare(socket, plainAddress(socket.remoteAddress))
    else gate.pass(socket, (address) => prepare(socket, address))
  })
  const port = await listen(server, opts, log)
  return {
    port,
    close() {
      // Not awaited: 'close' comes when the last connection has ended, but the port is free at once.
      server.close()
      gate?.close()
      shared.handshakes.expireAll()
      return Promise.resolve()
    },
  }
}

/** Lets connections pass that begin with a PROXY header and come from a proxy. */
export interface ProxyGate {
  /** Calls `done` with the client's address, or destroys the socket. */
  pass(socket: Socket, done: (address: string) => void): void
  close(): void
}

/** A gate with a time limit for the header. */
export function proxyGate(
  opts: Pick<ListenerOptions, 'proxyFrom' | 'handshakeTimeoutMs' | 'clock'>,
  log: Log,
): ProxyGate {
  const trusted = opts.proxyFrom === undefined ? undefined : new AddressSet(opts.proxyFrom)
  const waiting = new Deadlines<Socket>(
    (socket) => socket.destroy(),
    opts.handshakeTimeoutMs ?? 15_000,
    opts.clock ?? systemClock,
  )
  return {
    pass(socket, done) {
      const proxy = plainAddress(socket.remoteAddress)
      if (!(trusted?.has(proxy) ?? isLoopback(proxy))) {
        log.warn('connection refused: not from a proxy that is allowed to send PROXY headers', {
          address: proxy,
        })
        refuse(socket)
        return
      }
      waiting.add(socket)
      readProxyHeader(socket, (result) => {
        waiting.delete(socket)
        if (result instanceof Error)
          log.debug('connection refused', { address: proxy, reason: result.message })
        else done(result.source?.address ?? proxy)
      })
    },
    close: () => waiting.expireAll(),
  }
}

/** Closes a connection that nobody else has seen. */
export function refuse(socket: Socket): void {
  socket.on('error', ignore)
  socket.destroy()
}

function ignore(): void {
  // A socket that is being destroyed may fail; nobody waits for it.
}

/** Listens; resolves to the port. Throws an Error with one clear sentence. Later errors of the server are logged. */
export async function listen(
  server: Server,
  opts: Pick<ListenerOptions, 'address' | 'port' | 'ipv6Only' | 'backlog' | 'maxConnections'>,
  log: Log,
): Promise<number> {
  const where = opts.address.includes(':') ? `[${opts.address}]:${opts.port}` : `${opts.address}:${opts.port}`
  if (opts.maxConnections !== undefined) server.maxConnections = opts.maxConnections
  let reported = Number.NEGATIVE_INFINITY
  server.on('drop', () => {
    if (performance.now() - reported < 60_000) return // a flood of connections is not to become a flood in the log
    reported = performance.now()
    log.warn('connections are refused: too many are open', { listener: where })
  })
  await new Promise<void>((resolve, reject) => {
    const failed = (error: Error): void =>
      reject(new Error(whyNot(error, where, opts.port), { cause: error }))
    server.once('error', failed)
    const { address: host, port, ipv6Only = false, backlog = 4096 } = opts
    server.listen({ host, port, ipv6Only, backlog }, () => {
      server.off('error', failed)
      server.on('error', (error) => log.error('listener failed', { listener: where, error: error.message }))
      resolve()
    })
  })
  return portOf(server)
}

function portOf(server: Server): number {
  const address: AddressInfo | string | null = server.address()
  return typeof address === 'object' && address !== null ? address.port : 0
}

function whyNot(error: Error, where: string, port: number): string {
  const code = 'code' in error ? error.code : undefined
  switch (code) {
    case 'EADDRINUSE':
      return `cannot listen on ${where}: another program uses this port`
    case 'EACCES':
      return `cannot listen on ${where}: no permission${port < 1024 ? ' for ports below 1024' : ''}`
    case 'EADDRNOTAVAIL':
      return `cannot listen on ${where}: this machine does not have that address`
    default:
      return `cannot listen on ${where}: ${error.message}`
  }
}
