/**
 * A client made for attacks: it writes and reads text as fast, as slowly or as wrongly as it is told, over TCP, direct TLS or WebSocket.
 * It looks for marks in what comes and does not parse it, so that thousands of them cost little. For dialogues: helpers/client.ts.
 */
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect as connectTcp, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { WebSocket } from 'ws'
import type { Place } from './orders.ts'

/** How to connect. */
export interface WireOptions {
  readonly via?: 'tcp' | 'tls' | 'websocket'
  /** Address to connect from, such as 127.0.0.7. */
  readonly from?: string
}

const WAIT_MS = 50_000
const KEEP_CHARS = 1_048_576

/** One connection. */
export class Wire {
  readonly place: Place
  readonly socket: Socket
  readonly #ws: WebSocket | undefined
  /** Bytes received. */
  received = 0
  closed = false
  /** Called with each piece of text that comes. */
  onText: ((text: string) => void) | undefined
  #text = ''
  #wake: (() => void) | undefined

  private constructor(place: Place, socket: Socket, ws: WebSocket | undefined) {
    this.place = place
    this.socket = socket
    this.#ws = ws
    socket.on('error', () => undefined) // 'close' follows
    socket.once('close', () => {
      this.closed = true
      this.#wake?.()
    })
    if (ws === undefined) socket.setEncoding('utf8').on('data', (text: string) => this.#take(text))
    else ws.on('message', (data) => this.#take(Buffer.isBuffer(data) ? data.toString() : ''))
  }

  static async open(place: Place, options: WireOptions = {}): Promise<Wire> {
    const { via = 'tcp', from } = options
    const local = from === undefined ? {} : { localAddress: from }
    const { ports, domain, ca } = place
    if (via === 'websocket') {
      const options = { servername: domain, ca: readFileSync(ca), ...local }
      const headers = { host: `${domain}:${ports.https}` }
      const ws = new WebSocket(`wss://127.0.0.1:${ports.https}/xmpp-websocket`, 'xmpp', {
        headers,
        ...options,
      })
      ws.on('error', () => undefined)
      const [response] = await Promise.all([once(ws, 'upgrade'), once(ws, 'open')])
      return new Wire(place, (response[0] as { socket: Socket }).socket, ws)
    }
    if (via === 'tls') {
      const options = { servername: domain, ca: readFileSync(ca), ALPNProtocols: ['xmpp-client'] }
      const socket = connectTls({ host: '127.0.0.1', port: ports.c2sTls, ...options, ...local })
      await once(socket, 'secureConnect')
      return new Wire(place, socket, undefined)
    }
    const socket = connectTcp({ host: '127.0.0.1', port: ports.c2s, noDelay: true, ...local })
    await once(socket, 'connect')
    return new Wire(place, socket, undefined)
  }

  #take(text: string): void {
    this.received += text.length
    if (this.onText !== undefined) this.onText(text)
    else {
      this.#text += text
      if (this.#text.length > KEEP_CHARS) this.#text = this.#text.slice(-KEEP_CHARS)
    }
    this.#wake?.()
  }

  /** Sends text as it is; one frame over WebSocket. False when it waits to be written. */
  send(text: string | Uint8Array): boolean {
    if (this.#ws === undefined) return this.socket.write(text)
    this.#ws.send(text)
    return this.socket.writableLength < 65_536
  }

  /** A stanza that says no namespace of its own. */
  sendStanza(text: string): boolean {
    return this.send(this.#ws === undefined ? text : text.replace(/^<(\w+)/, "<$1 xmlns='jabber:client'"))
  }

  /** Sends, and resolves when the kernel has taken everything. */
  async sendAll(text: string | Uint8Array): Promise<void> {
    if (this.#ws === undefined) await new Promise<void>((resolve) => this.socket.write(text, () => resolve()))
    else await new Promise<void>((resolve) => this.#ws?.send(text, () => resolve()))
  }

  /** Takes what came up to and including the first match; rejects when the connection ends before, or after 20 s. */
  async until(mark: string | RegExp, what = String(mark)): Promise<string> {
    const test =
      typeof mark === 'string' ? new RegExp(mark.replace(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`)) : mark
    let match: RegExpExecArray | null = null
    await this.when(
      () => {
        match = test.exec(this.#text)
        return match !== null || this.closed
      },
      () => `${what} did not come: ${this.#text.slice(-500)}`,
    )
    const found = match as RegExpExecArray | null
    if (found === null) throw new Error(`the connection ended before ${what}: ${this.#text.slice(-500)}`)
    const end = found.index + found[0].length
    const taken = this.#text.slice(0, end)
    this.#text = this.#text.slice(end)
    return taken
  }

  /** Resolves once `test` holds; it is asked whenever something came, or the end. */
  async when(test: () => boolean, what: () => string): Promise<void> {
    if (test()) return
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#wake = undefined
        reject(new Error(what()))
      }, WAIT_MS)
      this.#wake = () => {
        if (!test()) return
        clearTimeout(timer)
        this.#wake = undefined
        resolve()
      }
    })
  }

  /** What came and was not taken; forgets it. */
  take(): string {
    const text = this.#text
    this.#text = ''
    return text
  }

  /** Resolves when the connection is gone. */
  ended(): Promise<void> {
    return this.when(
      () => this.closed,
      () => 'the connection is still open',
    )
  }

  /** Stops reading: the kernel's buffers fill up, then the server's. */
  stopReading(): void {
    this.socket.pause()
  }
  startReading(): void {
    this.socket.resume()
  }

  get header(): string {
    const { domain } = this.place
    if (this.#ws !== undefined)
      return `<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='${domain}' version='1.0'/>`
    return (
      `<?xml version='1.0'?><stream:stream to='${domain}' version='1.0' ` +
      `xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>`
    )
  }

  async openStream(): Promise<void> {
    this.send(this.header)
    await this.until(/features>|<features[^>]*\/>/, 'the features')
  }

  /** SASL PLAIN; resolves to the name of the answer. */
  async plain(local: string, password: string): Promise<string> {
    const initial = Buffer.from(`\0${local}\0${password}`).toString('base64')
    this.send(`<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>${initial}</auth>`)
    const text = await this.until(/<(success|failure)\b[^>]*(?:\/>|>[^]*?<\/\1>)/, 'the outcome of the login')
    return text.includes('<success') ? 'success' : (/<failure[^>]*><([\w-]+)/.exec(text)?.[1] ?? 'failure')
  }

  /** From the header to a bound resource. */
  async login(local: string, password: string, resource: string): Promise<void> {
    await this.openStream()
    const outcome = await this.plain(local, password)
    if (outcome !== 'success') throw new Error(`login of ${local} failed: ${outcome}`)
    await this.openStream()
    await this.bind(resource)
  }

  async bind(resource: string): Promise<void> {
    this.sendStanza(
      `<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>${resource}</resource></bind></iq>`,
    )
    const answer = await this.until(/<iq[^>]*id=["']bind["'][^]*?<\/iq>/, 'the result of binding')
    if (!answer.includes('</jid>')) throw new Error(`not bound: ${answer}`)
  }

  /** A ping to the server and its answer: all we have sent before is worked on. */
  async ping(id = 'ping'): Promise<void> {
    this.sendStanza(`<iq type='get' id='${id}' to='${this.place.domain}'><ping xmlns='urn:xmpp:ping'/></iq>`)
    await this.until(new RegExp(`<iq[^>]*id=["']${id}["'][^>]*>`), `the answer to ping ${id}`)
  }

  drop(): void {
    if (this.#ws === undefined) this.socket.destroy()
    else this.#ws.terminate()
  }
}

/** A login by hand on a socket that reads in its own way; `text`: what it has read so far. */
export async function handshake(
  socket: Socket,
  domain: string,
  local: string,
  password: string,
  text: () => string,
): Promise<void> {
  const header =
    `<?xml version='1.0'?><stream:stream to='${domain}' version='1.0' ` +
    `xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>`
  const bind = `<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>r</resource></bind></iq>`
  const initial = Buffer.from(`\0${local}\0${password}`).toString('base64')
  const until = async (mark: string, times: number): Promise<void> => {
    while (text().split(mark).length <= times) await new Promise((resolve) => setImmediate(resolve))
  }
  socket.write(header)
  await until('</stream:features>', 1)
  socket.write(`<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>${initial}</auth>`)
  await until('<success', 1)
  socket.write(header)
  await until('</stream:features>', 2)
  socket.write(`${bind}<presence/>`)
  await until('</jid>', 1)
}
