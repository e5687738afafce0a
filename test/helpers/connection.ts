/**
 * One XMPP connection for tests over TCP, direct TLS or WebSocket (RFC 6120, RFC 7395): sends whatever text it is told to, reads with
 * sax and ltx (never with the server's own parser) and keeps what came in an inbox. What a client does with it is in client.ts.
 */
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect as connectTcp, type Socket } from 'node:net'
import { StringDecoder } from 'node:string_decoder'
import { connect as connectTls, type ConnectionOptions, TLSSocket } from 'node:tls'
import { WebSocket } from 'ws'
import { type Element, NS_FRAMING, parseDocument, StreamReader } from './xml.ts'

/** Where a server listens on 127.0.0.1, and what a client needs to trust it. */
export interface Address {
  readonly domain: string
  readonly ports: {
    readonly c2s: number
    readonly c2sTls?: number
    readonly http?: number
    readonly https?: number
    readonly component?: number
  }
  readonly ca?: string // PEM file of the certificate to trust; absent: the certificate is not checked
  readonly webSocketPath?: string // '/xmpp-websocket' unless given
}

/** What came in, in order. */
export type Incoming =
  | { readonly kind: 'header' | 'element'; readonly el: Element }
  | { readonly kind: 'end' } // the closing tag of the stream
  | { readonly kind: 'closed' } // the connection is gone
  | { readonly kind: 'broken'; readonly error: Error } // what came was no XMPP

/** How to reach the server. */
export type Via = 'tcp' | 'tls' | 'websocket'

/** A connection and its inbox. Every wait has a limit, after which the error shows the last lines of the dialogue. */
export class Connection {
  readonly name: string
  readonly via: Via
  readonly address: Address
  timeoutMs = 15_000
  /** What came so far and was not taken yet. */
  readonly inbox: Incoming[] = []
  readonly #log: string[] = []
  readonly #wakers = new Set<() => void>()
  #socket: Socket | undefined
  #webSocket: WebSocket | undefined
  #reader: StreamReader | undefined

  constructor(address: Address, via: Via, name: string) {
    this.address = address
    this.via = via
    this.name = name
  }

  async open(): Promise<void> {
    if (this.via === 'websocket') await this.#connectWebSocket()
    else await this.#connectSocket(this.via)
  }

  /** The dialogue's last lines, ours with `>` and the server's with `<`. */
  get log(): string {
    return this.#log.slice(-40).join('\n')
  }

  fail(reason: string): never {
    throw new Error(`${this.name}: ${reason}\n--- dialogue of ${this.name} ---\n${this.log}`)
  }

  /** Sends text (or bytes) as it is. */
  send(data: string | Uint8Array): void {
    this.note('>', typeof data === 'string' ? data : `bytes ${Buffer.from(data).toString('hex')}`)
    if (this.#webSocket !== undefined) this.#webSocket.send(data)
    else this.#socket?.write(data)
  }

  /** Says that nothing more will be sent, without a closing tag. */
  endOutput(): void {
    this.note('>', '[ends its side of the connection]')
    this.#socket?.end()
  }

  /** Cuts the connection without a word. */
  drop(): void {
    this.note('>', '[drops the connection]')
    this.#webSocket?.terminate()
    this.#socket?.destroy()
  }

  /** Resolves once `test` holds; it is asked again whenever something came in. */
  async until(test: () => boolean, waitingFor: string, signal?: AbortSignal): Promise<void> {
    if (test()) return
    await new Promise<void>((resolve, reject) => {
      const done = (then: () => void) => {
        clearTimeout(timer)
        this.#wakers.delete(wake)
        signal?.removeEventListener('abort', stop)
        then()
      }
      const stop = () => done(resolve)
      const wake = () => {
        if (test()) done(resolve)
        else if (this.inbox.some((item) => item.kind === 'closed' || item.kind === 'broken'))
          late('before the end')
      }
      const late = (when: string) => {
        const seen = this.inbox.map(describe).join('\n')
        const text = `${waitingFor} did not come ${when}; waiting in the inbox: ${seen || 'nothing'}`
        done(() => reject(this.error(text)))
      }
      const timer = setTimeout(late, this.timeoutMs, `within ${this.timeoutMs} ms`)
      this.#wakers.add(wake)
      signal?.addEventListener('abort', stop)
    })
  }

  error(reason: string): Error {
    return new Error(`${this.name}: ${reason}\n--- dialogue of ${this.name} ---\n${this.log}`)
  }

  /** After this the server's next bytes are a new document (RFC 6120 §4.3.3). */
  resetReader(): void {
    this.#reader = new StreamReader({
      open: (el) => {
        this.note('<', el.toString().replace(/\/>$/, '>'))
        this.#push({ kind: 'header', el })
      },
      element: (el) => {
        this.note('<', el.toString())
        this.#push({ kind: 'element', el })
      },
      close: () => {
        this.note('<', '</stream:stream>')
        this.#push({ kind: 'end' })
      },
    })
  }

  async #connectSocket(via: 'tcp' | 'tls'): Promise<void> {
    const { ports } = this.address
    if (via === 'tls') {
      this.#attach(await this.#handshake({ host: '127.0.0.1', port: ports.c2sTls }))
      return
    }
    const socket = connectTcp({ host: '127.0.0.1', port: ports.c2s, noDelay: true, allowHalfOpen: true })
    await once(socket, 'connect')
    this.#attach(socket)
  }

  /** The TLS handshake on the existing connection. */
  async secure(options: ConnectionOptions = {}): Promise<void> {
    const socket = this.#socket ?? this.fail('no socket')
    socket.removeAllListeners()
    this.#attach(await this.#handshake({ socket, ...options }))
  }

  /** The TLS socket, when the connection is encrypted. */
  get tls(): TLSSocket | undefined {
    return this.#socket instanceof TLSSocket ? this.#socket : undefined
  }

  async #handshake(options: ConnectionOptions): Promise<TLSSocket> {
    const { ca, domain } = this.address
    const trust = ca === undefined ? { rejectUnauthorized: false } : { ca: readFileSync(ca) }
    // RFC 7590 §3.4: the domain is sent as server name; XEP-0368 §3: ALPN
    const socket = connectTls({ servername: domain, ALPNProtocols: ['xmpp-client'], ...trust, ...options })
    await once(socket, 'secureConnect')
    this.note('>', `[${socket.getProtocol()} ${socket.getCipher().name}]`)
    return socket
  }

  #attach(socket: Socket): void {
    this.#socket = socket
    const decoder = new StringDecoder('utf8')
    socket.on('data', (data) => this.#feed(decoder.write(data)))
    socket.on('error', (error) => this.note('<', `[${error.message}]`))
    // Half-open connections are allowed so that a test can end only its own side.
    socket.on('end', () => socket.end())
    socket.on('close', () => this.#closed())
  }

  /** Over TLS where the server has a port for it. */
  async #connectWebSocket(): Promise<void> {
    const { ports, domain, ca, webSocketPath = '/xmpp-websocket' } = this.address
    const [scheme, port] = ports.https === undefined ? ['ws', ports.http] : ['wss', ports.https]
    const trust = ca === undefined ? { rejectUnauthorized: false } : { ca: readFileSync(ca) }
    const options = { headers: { host: `${domain}:${port}` }, servername: domain, ...trust }
    const socket = new WebSocket(`${scheme}://127.0.0.1:${port}${webSocketPath}`, 'xmpp', options)
    socket.on('error', (error) => this.note('<', `[${error.message}]`))
    socket.on('close', () => this.#closed())
    socket.on('message', (data) => this.#frame(Buffer.isBuffer(data) ? data.toString() : ''))
    await once(socket, 'open')
    this.#webSocket = socket
  }

  #frame(text: string): void {
    this.note('<', text)
    try {
      const el = parseDocument(text)
      if (el.is('close', NS_FRAMING)) this.#push({ kind: 'end' })
      else this.#push({ kind: 'element', el })
    } catch (error) {
      this.#push({ kind: 'broken', error: error as Error })
    }
  }

  #feed(text: string): void {
    try {
      if (this.#reader === undefined) this.resetReader()
      this.#reader?.write(text)
    } catch (error) {
      this.note('<', `[not XMPP: ${text}]`)
      this.#push({ kind: 'broken', error: error as Error })
    }
  }

  #closed(): void {
    this.note('<', '[closes the connection]')
    this.#push({ kind: 'closed' })
  }

  /** Whether what came is for the inbox. */
  takes(_item: Incoming): boolean {
    return true
  }

  #push(item: Incoming): void {
    if (this.takes(item)) this.inbox.push(item)
    for (const wake of this.#wakers) wake()
  }

  note(side: '<' | '>', text: string): void {
    this.#log.push(`${side} ${text.length > 600 ? `${text.slice(0, 600)}… (${text.length})` : text}`)
  }
}

/** An incoming thing for an error message. */
export function describe(item: Incoming): string {
  switch (item.kind) {
    case 'header':
    case 'element':
      return item.el.toString()
    case 'end':
      return 'the closing tag'
    case 'closed':
      return 'the end of the connection'
    case 'broken':
      return item.error.message
  }
}
