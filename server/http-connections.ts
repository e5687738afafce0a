/** What comes before HTTP on a new connection: the PROXY header and TLS, with time limits. */
import type { Server } from 'node:http'
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { plainAddress } from './addresses.ts'
import type { Doors } from './connection-limits.ts'
import { Deadlines } from './deadlines.ts'
import type { Peers } from './http-peer.ts'
import type { Log } from './module.ts'
import { proxyGate, refuse } from './net.ts'
import type { Tls } from './tls.ts'
import { TlsConnection } from './tls-socket.ts'

/** How connections of one server begin. */
export interface Preparation {
  readonly tls: Tls | undefined
  readonly proxyProtocol: boolean
  /** Who may send PROXY headers; default: this machine. */
  readonly proxyFrom?: readonly string[]
  readonly handshakeTimeoutMs: number
  /** Gets to know the TLS of each connection. */
  readonly peers: Peers
  /** How many connections an address may have; proxies that are trusted may have any number. */
  readonly doors?: Doors
  readonly log: Log
}

/** Puts the preparation in front of what the server does with a new connection. `close` ends those under way. */
export function prepareConnections(server: Server, how: Preparation): { close(): void } {
  const { tls, log, peers, handshakeTimeoutMs } = how
  const serve = server.listeners('connection')
  server.removeAllListeners('connection')
  const start = (socket: Socket, proxied: string | undefined): void => {
    // What Node and fastify read as the address of the peer.
    if (proxied !== undefined) Object.defineProperty(socket, 'remoteAddress', { value: proxied })
    for (const fn of serve) Reflect.apply(fn, server, [socket])
  }
  const handshakes = new Deadlines<TLSSocket>((socket) => socket.destroy(), handshakeTimeoutMs)
  const secure = (raw: Socket, certificates: Tls, proxied: string | undefined): void => {
    const connection = new TlsConnection(raw, certificates, 'https')
    const { socket } = connection
    const address = proxied ?? raw.remoteAddress
    const failed = (error: Error): void =>
      log.debug('TLS handshake failed', { address, code: 'code' in error ? error.code : error.message })
    const ended = (): void => void socket.destroy() // half-closed: no handshake comes to an end without the peer
    handshakes.add(socket)
    socket.on('error', failed)
    socket.on('end', ended)
    socket.once('close', () => handshakes.delete(socket))
    socket.once('secure', () => {
      handshakes.delete(socket)
      connection.established()
      peers.setTls(socket, connection)
      start(socket, proxied)
      socket.off('error', failed)
      socket.off('end', ended)
    })
  }
  const next = (socket: Socket, proxied: string | undefined): void => {
    const address = plainAddress(proxied ?? socket.remoteAddress)
    const { doors } = how
    if (doors !== undefined && !peers.isTrusted(address)) {
      if (!doors.enter(address)) return refuse(socket)
      socket.once('close', () => doors.leave(address))
    }
    if (tls === undefined) start(socket, proxied)
    else secure(socket, tls, proxied)
  }
  const gate = how.proxyProtocol ? proxyGate(how, log) : undefined
  server.on('connection', (socket) => {
    if (gate === undefined) next(socket, undefined)
    else gate.pass(socket, (address) => next(socket, address))
  })
  return {
    close() {
      gate?.close()
      handshakes.expireAll()
    },
  }
}
