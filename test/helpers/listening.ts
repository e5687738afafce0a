/** TCP listeners in tests: certificates, connections of clients, and the waiting for what happens. */
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type ConnectionOptions, connect as tlsConnect, type TLSSocket } from 'node:tls'
import type { Clock } from '../../server/clock.ts'
import { type Listener, type ListenerOptions, listenTcp } from '../../server/net.ts'
import { Tls } from '../../server/tls.ts'
import { Accepted, recordingLog } from './sink.ts'

/** Runs due timers by hand, at once. */
export class HandClock implements Clock {
  #now = 1_000_000
  readonly #timers = new Set<{ at: number; fn: () => void }>()
  now(): number {
    return this.#now
  }
  after(ms: number, fn: () => void): Disposable {
    const timer = { at: this.#now + ms, fn }
    this.#timers.add(timer)
    return { [Symbol.dispose]: () => void this.#timers.delete(timer) }
  }
  advance(ms: number): void {
    this.#now += ms
    for (const timer of [...this.#timers].filter((t) => t.at <= this.#now)) {
      this.#timers.delete(timer)
      timer.fn()
    }
  }
}

/** Sets up certificates for a.example and b.example before the tests of a group, and closes after each what it opened. */
export function listening() {
  let folder: string
  let tls: Tls
  const log = recordingLog()
  const open: (Listener | Socket)[] = []

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'hermod-net-'))
    tls = await Tls.load({ hosts: ['a.example', 'b.example'], folder, development: true, log })
  })
  after(() => rm(folder, { recursive: true }))
  afterEach(async () => {
    for (const item of open.splice(0)) {
      if ('close' in item) await item.close()
      else item.destroy()
    }
    log.lines.length = 0
  })

  /** A listener, what it accepts, and new connections to it. */
  async function start(opts: Partial<ListenerOptions> = {}) {
    const accepted = new Accepted()
    const address = opts.address ?? '127.0.0.1'
    const listener = await listenTcp(
      { address, port: 0, tls: 'starttls', ...opts },
      tls,
      accepted.accept,
      log,
    )
    open.push(listener)
    const dial = (): Socket => {
      const socket = connect({ port: listener.port, host: address, allowHalfOpen: true })
      socket.on('error', () => undefined)
      open.push(socket)
      return socket
    }
    return { accepted, listener, dial }
  }

  /** Resolves when the server has closed the connection. */
  async function gone(socket: Socket): Promise<void> {
    socket.on('end', () => socket.end())
    socket.resume()
    if (!socket.destroyed) await once(socket, 'close')
  }

  /** Resolves when the text has come. */
  async function received(socket: Socket, text: string): Promise<void> {
    let all = ''
    for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
      all += String(chunk)
      if (all.includes(text)) return
    }
    throw new Error(`ended after ${JSON.stringify(all)}`)
  }

  /** The client's side of TLS, when its handshake is through. */
  async function secure(socket: Socket, opts: ConnectionOptions = {}): Promise<TLSSocket> {
    const secured = tlsConnect({ socket, rejectUnauthorized: false, servername: 'a.example', ...opts })
    open.push(secured)
    await once(secured, 'secureConnect')
    return secured
  }

  return { start, gone, received, secure, log, open, tls: () => tls }
}
