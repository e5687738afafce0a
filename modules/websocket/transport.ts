/** A WebSocket as transport of a framed stream (RFC 7395 §3): one text message is one element. */
import type { Duplex } from 'node:stream'
import type { RawData, WebSocket } from 'ws'
import type { TlsInfo, Transport, TransportSink } from '../../server/module.ts'

/** Messages up to this many times the stream's limit reach the stream, which then says what is wrong with them. */
const TOLERANCE = 2

/** Output of one event-loop turn goes out at its end, in one write for each connection. */
const corked: WebSocketTransport[] = []

function flushAll(): void {
  for (const transport of corked) transport.flush()
  corked.length = 0
}

/** One connection. */
export class WebSocketTransport implements Transport {
  readonly remoteAddress: string
  readonly tls: TlsInfo | undefined
  readonly #ws: WebSocket
  readonly #socket: Duplex
  #sink: TransportSink | undefined
  #state: 'open' | 'closing' | 'closed' = 'open'
  #error: Error | undefined
  #corked = false
  #paused = false
  // What ws had decoded already when the transport was paused; at most what one read of the socket gave.
  #held: string[] = []
  /** Something was received, or a ping was answered, since this was last set to false. */
  heard = true

  /** `onClose` is called once, when the connection is gone. */
  constructor(
    ws: WebSocket,
    socket: Duplex,
    peer: { readonly remoteAddress: string; readonly tls: TlsInfo | undefined },
    onClose: (transport: WebSocketTransport) => void,
  ) {
    this.#ws = ws
    this.#socket = socket
    this.remoteAddress = peer.remoteAddress
    this.tls = peer.tls
    ws.on('message', (data, isBinary) => this.#message(data, isBinary))
    ws.on('pong', () => {
      this.heard = true
    })
    ws.on('error', (error) => {
      this.#error ??= error
    })
    ws.on('close', (code) => {
      this.#state = 'closed'
      onClose(this)
      // RFC 6455 §7.1.5: 1006 is no code that was sent, but says that none was
      if (code === 1006) this.#error ??= new Error('the connection was lost')
      this.#sink?.closed(this.#error)
    })
    socket.on('drain', () => {
      if (this.#state === 'open') this.#sink?.drain()
    })
  }

  get kind(): 'websocket' {
    return 'websocket'
  }

  get framing(): 'frames' {
    return 'frames'
  }

  get buffered(): number {
    return this.#ws.bufferedAmount
  }

  start(sink: TransportSink): void {
    this.#sink = sink
    if (this.#state === 'closed') queueMicrotask(() => sink.closed(this.#error))
  }

  write(text: string): boolean {
    if (this.#state !== 'open') return false
    if (!this.#corked) {
      this.#corked = true
      this.#socket.cork()
      if (corked.push(this) === 1) setImmediate(flushAll)
    }
    this.#ws.send(text)
    return !this.#socket.writableNeedDrain
  }

  /** Lets go what was written in this turn. */
  flush(): void {
    this.#corked = false
    this.#socket.uncork()
  }

  pause(): void {
    this.#paused = true
    this.#ws.pause()
  }

  resume(): void {
    if (!this.#paused) return
    this.#paused = false
    this.#ws.resume()
    if (this.#held.length > 0) queueMicrotask(() => this.#release())
  }

  setMaxFrame(bytes: number): void {
    // ws knows one limit for all connections; that of a connection is in its receiver.
    const receiver: unknown = Reflect.get(this.#ws, '_receiver')
    if (typeof receiver === 'object' && receiver !== null)
      Reflect.set(receiver, '_maxPayload', bytes * TOLERANCE)
  }

  startTls(): void {
    // RFC 7395 §3.9: there is no TLS inside; the core does not offer it here
  }

  /** RFC 7395 §3.6: the stream is closed, so the closing handshake of RFC 6455 §7.1.2 follows. ws limits its time. */
  end(): void {
    this.#close(1000)
  }

  /** Closes because this server goes away (RFC 6455 §7.4.1). */
  goAway(): void {
    this.#close(1001)
  }

  destroy(): void {
    this.#ws.terminate()
  }

  /** Sends a ping; the answer makes `heard` true. */
  ping(): void {
    if (this.#state === 'open') this.#ws.ping()
  }

  #close(code: number): void {
    if (this.#state !== 'open') return
    this.#state = 'closing'
    this.#held = []
    this.#ws.close(code)
    this.#ws.resume() // the peer's close frame comes behind what nobody reads any more
  }

  #message(data: RawData, isBinary: boolean): void {
    this.heard = true
    if (this.#state !== 'open') return
    if (isBinary || !(data instanceof Buffer)) {
      // RFC 7395 §3.2: text only. RFC 6455 §7.4.1
      this.#error ??= new Error('a binary message was received')
      this.#close(1003)
      return
    }
    const text = data.toString() // ws has checked that it is UTF-8
    if (this.#paused || this.#held.length > 0) this.#held.push(text)
    else this.#sink?.data(text)
  }

  #release(): void {
    const held = this.#held
    this.#held = []
    for (const text of held) {
      if (this.#paused) this.#held.push(text)
      else if (this.#state === 'open') this.#sink?.data(text)
    }
  }
}
