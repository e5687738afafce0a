/**
 * XML streams that a module runs itself, with a content namespace of its own and without features (RFC 6120 §4; XEP-0114 1.6): header,
 * limits, input in order and within bounds, a bounded output queue whose rest is handed back. Who is at the other end is the module's matter.
 */
import { randomBytes } from 'node:crypto'
import type { Clock } from './clock.ts'
import { ConnectionLimits } from './connection-limits.ts'
import { elementsOf, Held } from './held.ts'
import { Inbox, type InboxOwner } from './inbox.ts'
import type {
  Log,
  PeerLimits,
  PeerStream,
  PeerStreamRules,
  PeerStreams,
  TlsInfo,
  Transport,
} from './module.ts'
import { Pipeline } from './pipeline.ts'
import { type HeaderAttrs, type StreamOwner, XmlStream } from './stream.ts'
import type { RateLimit } from './token-bucket.ts'
import { later } from './turns.ts'
import type { Element } from './xmpp/element.ts'
import { type StreamCondition, StreamError } from './xmpp/errors.ts'
import { NS } from './xmpp/ns.ts'
import type { ParserLimits } from './xmpp/parser.ts'
import { kind, withLang } from './xmpp/stanza.ts'

/** Stanzas of one stream that may wait for the store at the same time. */
const PIPELINE = 256
/** How long the peer may take to answer our closing tag. */
const CLOSE_TIMEOUT_MS = 5_000
/** How often it is looked whether what was written has left, where it did not at once. */
const LOOK_MS = 1_000

/** What streams of a module need from the server. */
export interface PeerEnv {
  readonly clock: Clock
  readonly log: Log
}

/** The streams of one module. */
export class ModuleStreams implements PeerStreams, AsyncDisposable {
  readonly env: PeerEnv
  readonly rules: PeerStreamRules
  limits: PeerLimits
  readonly #connections: ConnectionLimits
  readonly #open = new Set<Peer>()
  #stopped = false

  constructor(rules: PeerStreamRules, env: PeerEnv) {
    this.rules = rules
    this.env = env
    this.limits = rules.limits
    this.#connections = new ConnectionLimits(rules.limits)
  }

  get size(): number {
    return this.#open.size
  }

  setLimits(limits: PeerLimits): void {
    this.limits = limits
    this.#connections.setLimits(limits)
  }

  accept(transport: Transport): PeerStream {
    const peer = new Peer(this, transport)
    this.#open.add(peer)
    const allowed = this.#connections.opened(transport.remoteAddress, this.env.clock.now())
    if (this.#stopped) peer.close('system-shutdown')
    // RFC 6120 §4.9.3.14, §13.12
    else if (!allowed) peer.close('policy-violation', 'too many connections from this address')
    return peer
  }

  /** From a stream that is over. */
  gone(peer: Peer): void {
    if (this.#open.delete(peer)) this.#connections.closed(peer.remoteAddress)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async close(): Promise<void> {
    this.#stopped = true
    await Promise.all(Array.from(this.#open, (peer) => peer.stop()))
  }
}

/** Limits for the parser. */
const parserLimits = (limits: PeerLimits, maxBytes: number): ParserLimits => ({
  maxBytes,
  maxDepth: limits.maxDepth,
  maxAttrs: 64,
  maxName: 1024,
})

const rateOf = ({ bytesPerSecond, burstBytes }: PeerLimits): RateLimit | undefined =>
  bytesPerSecond === 0 ? undefined : { bytesPerSecond, burstBytes }

/** One stream. */
class Peer implements PeerStream, StreamOwner, InboxOwner {
  readonly id = randomBytes(15).toString('base64url') // RFC 6120 §4.7.3
  readonly stream: XmlStream
  /** From `establish` on; the name is that of the inbox. */
  bound = false
  readonly congested = false // a peer may have to write before it can read
  readonly #all: ModuleStreams
  readonly #inbox = new Inbox(this)
  #deadline: Disposable | undefined
  #lang = ''
  readonly #pipeline = new Pipeline(PIPELINE, (error) => this.stream.fail(error))
  #held: Held | undefined
  /** Written, and not known to have left this machine: elements, and blocks of the queue as text; each with the count of characters up to its end. */
  #leaving: { readonly what: Element | string; readonly end: number }[] = []
  #written = 0
  #look: Disposable | undefined

  constructor(all: ModuleStreams, transport: Transport) {
    this.#all = all
    const { env, rules, limits } = all
    const before = parserLimits(limits, limits.maxBytesBefore)
    const streamEnv = { ...env, closeTimeoutMs: CLOSE_TIMEOUT_MS }
    this.stream = new XmlStream(transport, rules.contentNs, this, before, streamEnv)
    this.stream.setLimits(before, rateOf(limits))
    this.#deadline = env.clock.after(limits.handshakeTimeoutMs, () =>
      this.close('connection-timeout', 'no handshake in time'),
    )
  }

  get remoteAddress(): string {
    return this.stream.transport.remoteAddress
  }
  get tls(): TlsInfo | undefined {
    return this.stream.transport.tls
  }
  get peerContentNs(): string {
    return this.stream.peerContentNs
  }
  get open(): boolean {
    return this.stream.open
  }
  get lastReceivedAt(): number {
    return this.stream.lastReceivedAt
  }

  // ---- input ----

  header(root: Element): void {
    const { rules } = this.#all
    if (!root.is('stream', NS.STREAM))
      throw new StreamError(root.ns === NS.STREAM ? 'bad-format' : 'invalid-namespace') // §4.9.3.1, §4.9.3.10
    if (this.peerContentNs !== rules.contentNs) throw new StreamError('invalid-namespace')
    const lang = root.attr('xml:lang') ?? ''
    if (lang !== '' && (lang.length > 64 || !/^[A-Za-z0-9-]+$/.test(lang)))
      throw new StreamError('invalid-xml', 'xml:lang')
    this.#lang = lang
    rules.header(this, root)
  }

  element(element: Element): void {
    this.#inbox.add(element)
  }

  /** From the inbox. */
  take(element: Element): void | Promise<void> {
    const done = this.#all.rules.element(this, this.#asClient(element))
    return done === undefined || !this.bound ? done : this.#pipeline.add(done)
  }

  /** RFC 6120 §4.8.3: stanzas change their namespace where they change streams. */
  #asClient(element: Element): Element {
    if (kind(element) === undefined) return element
    const { contentNs } = this.#all.rules
    // COMPAT(components for Prosody, which lets them send jabber:client)
    if (element.ns !== contentNs && element.ns !== NS.CLIENT) throw new StreamError('invalid-namespace')
    const stanza = element.withNs(NS.CLIENT)
    return this.#lang === '' ? stanza : withLang(stanza, this.#lang) // §8.1.5
  }

  inputEnded(done: () => void): void {
    this.#inbox.ended(done)
  }

  secured(): void {
    throw new Error('TLS is not started on these streams')
  }

  establish(): void {
    const { limits } = this.#all
    this.#deadline?.[Symbol.dispose]()
    this.#deadline = undefined
    this.bound = true
    this.stream.setLimits(parserLimits(limits, limits.maxBytes), rateOf(limits))
  }

  // ---- output ----

  sendHeader(attrs: { readonly from?: string; readonly to?: string }): void {
    this.stream.sendHeader({ ...attrs, id: this.id })
  }
  errorHeader(): HeaderAttrs {
    return { from: this.#all.rules.name, id: this.id }
  }

  send(element: Element): boolean {
    const { stream } = this
    if (!stream.open) return false
    if (this.#held === undefined && !stream.blocked) {
      // What a stanza of jabber:client inherits it inherits from the stream, so that its text is the same in any content namespace.
      const context = element.ns === NS.CLIENT ? NS.CLIENT : stream.contentNs
      this.#write(element, element.toString(context, false))
      return true
    }
    this.#held ??= new Held(false)
    this.#held.push(element)
    if (this.#held.bytes > this.#all.limits.maxQueueBytes)
      this.close('resource-constraint', 'too much is waiting to be read') // RFC 6120 §4.9.3.17
    return true
  }

  #write(what: Element | string, text: string): void {
    this.#written += text.length
    this.#leaving.push({ what, end: this.#written })
    this.stream.sendText(text)
  }

  /** What was gathered is written. */
  flushed(): void {
    if (this.#leaving.length === 0) return
    const { buffered } = this.stream.transport
    // Bytes are at least as many as characters, so that nothing is forgotten too early.
    const left = buffered === 0 ? -1 : this.#leaving.findIndex(({ end }) => end > this.#written - buffered)
    this.#leaving = left < 0 ? [] : this.#leaving.slice(left)
    if (left >= 0) this.#look ??= this.#all.env.clock.after(LOOK_MS, this.#lookAgain)
  }

  readonly #lookAgain = (): void => {
    this.#look = undefined
    this.flushed()
  }

  drained(): void {
    this.flushed()
    if (this.#held === undefined || this.stream.blocked) return
    const block = this.#held.shift() ?? []
    for (const text of block) this.#write(text, text)
    this.stream.flush()
    if (this.#held.bytes === 0) this.#held = undefined
    else if (!this.stream.blocked) later(() => this.drained())
  }

  // ---- the end ----

  close(condition?: StreamCondition, text?: string): void {
    this.stream.close(condition === undefined ? undefined : new StreamError(condition, text))
  }

  /** Ends when what it has sent is handled. */
  async stop(): Promise<void> {
    this.stream.pause()
    await this.#pipeline.idle
    this.close('system-shutdown')
  }

  closed(reason: string): void {
    this.#inbox.clear()
    this.#deadline?.[Symbol.dispose]()
    this.#look?.[Symbol.dispose]()
    this.#all.gone(this)
    // Where the peer is gone or does not read, what was written is not going to arrive.
    const dead = reason === 'lost' || reason === 'connection-timeout' || this.stream.blocked
    const leaving = dead ? this.#leaving.map(({ what }) => what) : []
    const held = this.#held
    this.#leaving = []
    this.#held = undefined
    this.#all.rules.closed(this, reason, unsent(leaving, held))
  }
}

/** All stanzas, read as they are asked for. */
function* unsent(leaving: readonly (Element | string)[], held: Held | undefined): Iterable<Element> {
  for (const item of leaving) yield* typeof item === 'string' ? elementsOf(item) : [item].filter(kind)
  if (held === undefined) return
  for (const element of held.elements()) if (kind(element) !== undefined) yield element
}
