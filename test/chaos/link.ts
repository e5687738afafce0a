/**
 * A socket of a device: reads stanzas with sax and ltx, and can be ended in the ways that connections end in life: cut, cut within a
 * stanza, or left standing without reading.
 */
import { connect as connectTcp, type Socket } from 'node:net'
import { StringDecoder } from 'node:string_decoder'
import { connect as connectTls } from 'node:tls'
import { type Element, NS_STREAM, StreamReader } from '../helpers/xml.ts'

/** Where the server is now. */
export interface Ports {
  readonly c2s: number
  readonly c2sTls: number
}

/** Longest wait for an answer of the server during login; a store that hangs is waited for. */
const PATIENCE_MS = 20_000

/** One connection. Elements go to `onElement` unless a step of the login waits for them. */
export class Link {
  readonly #socket: Socket
  readonly #decoder = new StringDecoder('utf8')
  readonly #domain: string
  readonly #trace: (line: string) => void
  #reader: StreamReader
  #waiting: PromiseWithResolvers<Element> | undefined
  #early: Element[] = []
  #over = false
  #loggedIn = false
  onElement: (element: Element) => void = () => undefined
  /** Once, when the connection is gone, whoever ended it. */
  onEnd: () => void = () => undefined
  /** When the socket is closed. */
  onClosed: () => void = () => undefined

  /** `trace` is told of everything that is sent and received. */
  constructor(ports: Ports, domain: string, tls: boolean, trace: (line: string) => void) {
    this.#domain = domain
    this.#trace = trace
    const host = '127.0.0.1'
    this.#socket = tls
      ? connectTls({
          host,
          port: ports.c2sTls,
          servername: domain,
          rejectUnauthorized: false,
          ALPNProtocols: ['xmpp-client'],
        })
      : connectTcp({ host, port: ports.c2s, noDelay: true })
    this.#reader = this.#newReader()
    this.#socket.on('data', (data) => {
      if (this.#over) return
      const text = this.#decoder.write(data)
      this.#trace(`< ${text}`)
      this.#reader.write(text)
    })
    this.#socket.on('error', () => undefined) // 'close' follows
    this.#socket.on('close', () => {
      this.#end()
      this.onClosed()
    })
  }

  get over(): boolean {
    return this.#over
  }

  /** The header; resolves with the features. */
  async header(): Promise<Element> {
    this.#reader = this.#newReader()
    this.write(
      `<?xml version='1.0'?><stream:stream to='${this.#domain}' version='1.0' xmlns='jabber:client' xmlns:stream='${NS_STREAM}'>`,
    )
    return this.next()
  }

  /** The next element while logging in. Rejects when the connection ends before. */
  async next(): Promise<Element> {
    const early = this.#early.shift()
    if (early !== undefined) return early
    if (this.#over) throw new Error('the connection is gone')
    const waiting = (this.#waiting = Promise.withResolvers<Element>())
    const timer = setTimeout(() => waiting.reject(new Error('the server does not answer')), PATIENCE_MS)
    try {
      return await waiting.promise
    } finally {
      clearTimeout(timer)
      this.#waiting = undefined
    }
  }

  async ask(text: string): Promise<Element> {
    this.write(text)
    return this.next()
  }

  /** The login is over: what comes goes to `onElement`, what came already first. */
  ready(): void {
    this.#loggedIn = true
    for (const element of this.#early.splice(0)) this.onElement(element)
  }

  write(text: string): void {
    if (this.#over) return
    this.#trace(`> ${text}`)
    this.#socket.write(text)
  }

  /** Closes the stream in good order. */
  close(): void {
    this.write('</stream:stream>')
    this.#socket.end()
    this.#socket.resume()
  }

  /** The connection breaks, after the beginning of something when `torn` is given. */
  cut(torn = ''): void {
    if (torn === '') {
      this.#socket.destroy()
      this.#end()
      return
    }
    this.#socket.write(torn, () => this.#socket.destroy())
    this.#end()
  }

  /** Stands open without being read, for the time given: the other side does not see that nobody is there. */
  freeze(ms: number): void {
    this.#socket.pause()
    this.#end()
    setTimeout(() => this.#socket.destroy(), ms).unref()
  }

  #end(): void {
    if (this.#over) return
    this.#over = true
    this.#waiting?.reject(new Error('the connection is gone'))
    this.onEnd()
  }

  #newReader(): StreamReader {
    return new StreamReader({
      open: () => undefined,
      element: (element) => {
        if (this.#over) return
        if (this.#waiting !== undefined) {
          this.#waiting.resolve(element)
          this.#waiting = undefined
        } else if (this.#loggedIn) this.onElement(element)
        else this.#early.push(element)
      },
      close: () => this.#socket.end(),
    })
  }
}
