/**
 * A client session: what is negotiated, its inbox (one stanza at a time, in order) and its outbound queue.
 *
 * The session sits on a stream (stream.ts) and is driven by c2s.ts. A slow reader costs a bounded queue: what the
 * transport does not take is kept as bytes; beyond the bound the session ends and what was queued goes to the
 * account's other sessions, the offline store or back to its sender.
 */
import { both, Held } from './held.ts'
import type { Host } from './host.ts'
import { Inbox, type InboxOwner } from './inbox.ts'
import { InputCount } from './input-count.ts'
import { Lane } from './lane.ts'
import type {
  Bound,
  Keeper,
  OutputCount,
  Session,
  StanzaEvent,
  StreamState,
  TlsInfo,
  Transport,
  Verdict,
} from './module.ts'
import { Pipeline } from './pipeline.ts'
import type { Router } from './router.ts'
import { type HeaderAttrs, type StreamOwner, XmlStream } from './stream.ts'
import { later } from './turns.ts'
import { type Element } from './xmpp/element.ts'
import { type StreamCondition, StreamError } from './xmpp/errors.ts'
import type { JID } from './xmpp/jid.ts'
import { NS } from './xmpp/ns.ts'
import { kind } from './xmpp/stanza.ts'

/** Stanzas of one session that may wait for the store at the same time. */
const PIPELINE = 128

/** Bytes of output that wait to be read while input of the same client is still worked on. */
const CONGESTED = 64 * 1024

/** Stanzas that may wait for a session to learn its address; more end it. */
const MAX_CORKED = 10_000

/** What drives the session: negotiation, limits, the table of sessions (c2s.ts). */
export interface SessionDriver {
  readonly router: Router
  /** Bytes of output held for a client that does not read. */
  readonly maxQueueBytes: number
  limits(session: ClientSession): Session['limits']
  canStartTls(session: ClientSession): boolean
  header(session: ClientSession, root: Element): void | Promise<void>
  secured(session: ClientSession): void
  errorHeader(session: ClientSession): HeaderAttrs
  /** An element before binding, or one that is no stanza. A promise (of `header` too) holds the input. */
  negotiate(session: ClientSession, el: Element): void | Promise<void>
  closed(session: ClientSession, reason: string): void
  /** The stream is gone, the session stays. */
  detached(session: ClientSession): void
}

/** A session that has a full JID. */
export type BoundClient = ClientSession & Bound

/** One client's session, from its first byte on. */
export class ClientSession implements Session, StreamOwner, InboxOwner {
  readonly kind = 'c2s' as const
  id = ''
  host = ''
  lang = ''
  jid: JID | undefined
  claimed: JID | undefined
  /** While set, only elements of this namespace may come (StreamStep.exclusive). */
  exclusiveNs: string | undefined
  /** The virtual host, known from the first header on. */
  vhost: Host | undefined
  stream: XmlStream
  /** Keeps the order of what the client sends; that of the account once it is bound. */
  lane = new Lane()
  presence: Element | undefined
  priority: number | undefined
  /** Fields of modules; see Ctx.perSession. */
  readonly slots: unknown[] = []
  /** The stream must be authenticated and bound by then; milliseconds since 1970. */
  readonly deadlineAt: number
  /** When 'session:idle' was last told. */
  idleToldAt = 0
  authenticated = false
  /** True between binding and the end. */
  bound = false
  readonly #driver: SessionDriver
  #flags: Map<string, string | boolean> | undefined
  #pipeline: Pipeline | undefined
  readonly #inbox = new Inbox(this)
  #held: Held | undefined
  #corked: Element[] | undefined
  #outLane: Lane | undefined
  #keeper: Keeper | undefined
  #lastKeeper: Keeper | undefined // of a session that is over
  #rest: Iterable<Element> | undefined // what a keeper has left behind
  #removed = false // it is over, and so is the account
  #silent = false // another stream was taken over, and the client does not know yet
  /** Counts of what the client has sent since binding. */
  readonly input = new InputCount()

  constructor(driver: SessionDriver, open: (owner: StreamOwner) => XmlStream, deadlineAt: number) {
    this.#driver = driver
    this.deadlineAt = deadlineAt
    this.stream = open(this)
  }

  get remoteAddress(): string {
    return this.stream.transport.remoteAddress
  }
  get transport(): Transport['kind'] {
    return this.stream.transport.kind
  }
  get tls(): TlsInfo | undefined {
    return this.stream.transport.tls
  }
  get canStartTls(): boolean {
    return this.#driver.canStartTls(this)
  }
  get limits(): Session['limits'] {
    return this.#driver.limits(this)
  }
  is(state: StreamState): boolean {
    switch (state) {
      case 'secure':
        return this.stream.transport.tls !== undefined
      case 'authenticated':
        return this.authenticated
      case 'bound':
        return this.bound
    }
  }
  /** Narrows to a session with a full JID. */
  isBound(): this is BoundClient {
    return this.bound
  }
  setFlag(name: string, value: string | boolean | undefined): void {
    if (value === undefined) this.#flags?.delete(name)
    else (this.#flags ??= new Map()).set(name, value)
  }
  flag(name: string): string | boolean | undefined {
    return this.#flags?.get(name)
  }
  setPresence(presence: Element | undefined): void {
    this.presence = presence
    // RFC 6121 §4.7.2.3: zero when not given; the presence module has refused what is no number
    this.priority = presence === undefined ? undefined : Number(presence.getChildText('priority') ?? '0')
  }

  // ---- input ----

  header(root: Element): void {
    const ready = this.#driver.header(this, root)
    if (ready !== undefined) this.#inbox.hold(ready)
  }
  secured(): void {
    this.#driver.secured(this)
  }
  errorHeader(): HeaderAttrs {
    return this.#driver.errorHeader(this)
  }
  /** One first-level element. */
  element(element: Element): void {
    this.#inbox.add(element)
  }
  /** RFC 6120 §4.4: what the client sent before it closed its stream still counts. */
  inputEnded(done: () => void): void {
    this.#inbox.ended(done)
  }
  /** Forgets what was received and not yet looked at (STARTTLS, the end of the stream). */
  clearInbox(): void {
    this.#inbox.clear()
  }
  /** From the inbox. */
  take(element: Element): void | Promise<void> {
    return this.#isStanza(element) ? this.#stanza(element) : this.#driver.negotiate(this, element)
  }
  #isStanza(element: Element): boolean {
    return this.bound && element.ns === NS.CLIENT && kind(element) !== undefined
  }

  /** A stanza of the bound session. The promise, if any, holds the input; the stanza itself may take longer. */
  #stanza(stanza: Element): void | Promise<void> {
    const host = this.vhost
    if (host === undefined || !this.isBound()) return undefined
    // RFC 6120 §10.1: what the server itself processes sees everything sent before it, and is done before what follows.
    const barrier = stanza.name === 'iq'
    const pending = barrier ? this.pending : undefined
    if (pending !== undefined) return this.#afterPending(stanza, pending)
    const done = this.input.count(this.#driver.router.fromClient(this, host, stanza))
    if (done === undefined) return undefined
    if (barrier) return done
    this.#pipeline ??= new Pipeline(PIPELINE, (error) => this.stream.fail(error))
    return this.#pipeline.add(done)
  }

  async #afterPending(stanza: Element, pending: Promise<void>): Promise<void> {
    await pending
    await this.#stanza(stanza)
  }

  /** Resolves when everything the client has sent is delivered, stored or answered; undefined: it is. */
  get pending(): Promise<void> | undefined {
    return this.#pipeline?.idle
  }

  // ---- output ----

  /** A stanza for this client: through `client:out`, then into its queue. */
  deliver(host: Host, e: StanzaEvent): void | Promise<void> {
    const chain = host.chains.clientOut
    const part = chain[e.stanza.name as 'message' | 'presence' | 'iq']
    const idle = part.before.length === 0 && part.store.length === 0 && part.after.length === 0
    if (idle && this.#outLane?.busy !== true) {
      this.#accept(host, e.stanza)
      return undefined
    }
    if (!this.isBound()) return undefined
    const event: StanzaEvent = { stanza: e.stanza, from: e.from, to: e.to, session: this }
    this.#outLane ??= new Lane()
    return this.#outLane.pass(chain, part, event, (out, verdict) => this.#afterOut(host, out, verdict))
  }

  #afterOut(host: Host, e: StanzaEvent, verdict: Verdict): void | Promise<void> {
    if (verdict === undefined) this.#accept(host, e.stanza)
    else if ('bounce' in verdict)
      return this.#driver.router.bounce({ ...e, session: undefined }, verdict.bounce)
    return undefined
  }

  #accept(host: Host, stanza: Element): void {
    if (this.stream.open || this.#keeper !== undefined) this.send(stanza)
    else this.#return(host, stanza)
  }

  /** The session has ended since somebody chose it: the stanza goes on its way again. */
  #return(host: Host, stanza: Element): void {
    this.#lastKeeper?.missed(stanza)
    if (this.jid === undefined) return
    const done = this.#driver.router.undelivered(host, stanza, this.jid, this.#removed)
    if (done !== undefined)
      done.catch((error: unknown) => host.log.error('redelivery failed', { err: error }))
  }

  /** From binding until the client has been told its address: nothing may reach it before that (RFC 6120 §7, XEP-0386 §3.2). */
  cork(): void {
    this.#corked ??= []
  }
  /** The client knows its address: what came meanwhile follows. */
  uncork(): void {
    if (!this.stream.open) return // it never will: see takeHeld
    const waiting = this.#corked
    this.#corked = undefined
    for (const element of waiting ?? []) this.answer(element)
  }

  setKeeper(keeper: Keeper | undefined): void {
    this.#keeper = keeper
    this.#held?.mark() // the keeper does not know what came before it
    if (keeper === undefined) return
    for (const element of this.#corked ?? []) if (kind(element) !== undefined) keeper.sent(element)
  }
  get output(): OutputCount | undefined {
    return this.#keeper
  }
  get heardAt(): number {
    return this.stream.lastReceivedAt
  }
  get connected(): boolean {
    return this.stream.open
  }
  /** Resolves when the client has confirmed what it was sent; undefined: it has, or does not do that. */
  confirmed(): Promise<void> | undefined {
    return this.connected ? this.#keeper?.settle() : undefined
  }

  send(element: Element): boolean {
    if (this.#keeper !== undefined && kind(element) !== undefined) this.#keeper.sent(element)
    return this.write(element)
  }

  write(element: Element): boolean {
    const stream = this.stream
    if (!stream.open || this.#silent) return false
    if (this.#corked !== undefined) {
      if (this.#corked.push(element) >= MAX_CORKED) this.close('resource-constraint')
      return false
    }
    return this.answer(element)
  }

  /** An answer of negotiation: behind what the client has still to read, but not behind what waits for this answer. */
  answer(element: Element): boolean {
    const stream = this.stream
    if (!stream.open) return false
    if (this.#held === undefined && !stream.blocked) return stream.send(element)
    // The client does not read: keep bytes, not elements, whose text may be part of a larger input.
    this.#held ??= new Held(stream.transport.framing === 'frames')
    this.#held.push(element)
    if (this.#held.bytes > this.#driver.maxQueueBytes) {
      // RFC 6120 §4.9.3.17
      this.close('resource-constraint', 'too much is waiting to be read')
    }
    return false
  }

  /** The client does not read: what it sends would only make it worse. */
  get congested(): boolean {
    return this.#held !== undefined && this.#held.bytes > CONGESTED
  }

  /** The transport takes data again: a block of what was held, and the next one in another turn. */
  drained(): void {
    if (this.#held === undefined || this.stream.blocked) return
    for (const text of this.#held.shift() ?? []) this.stream.sendText(text)
    this.stream.flush()
    if (this.#held.bytes === 0) this.#held = undefined
    else if (!this.stream.blocked) later(() => this.drained())
    if (!this.congested) later(() => this.#inbox.wake())
  }

  /** Stanzas that were accepted for this client and never given to the transport; empties the queue. */
  *takeHeld(): Iterable<Element> {
    const held = this.#held
    const corked = this.#corked
    const rest = this.#rest
    this.forgetHeld()
    this.#rest = undefined
    yield* rest ?? []
    if (held !== undefined) yield* held.elements()
    yield* corked ?? []
  }
  forgetHeld(): void {
    this.#held = undefined
    this.#corked = undefined
  }

  close(condition: StreamCondition, text?: string): void {
    if (this.bound && !this.connected) this.end(condition)
    else this.stream.close(new StreamError(condition, text))
  }

  closed(reason: string): void {
    this.clearInbox()
    const early = this.#keeper === undefined ? [] : (this.#held?.marked() ?? [])
    // The answer that made the client know of its keeper is behind what came before, or was not sent: it cannot come back to what it does not know.
    const unknown = early.length > 0 || this.#corked !== undefined
    if (this.bound && !unknown && this.#keeper?.keep(reason) === true) {
      this.forgetHeld() // the keeper has it
      this.#driver.detached(this)
    } else this.#over(reason, early)
  }

  /** `early`: what the client was to read before it had a keeper. */
  #over(reason: string, early: readonly Element[] = []): void {
    const keeper = this.#keeper
    this.#keeper = undefined // what is sent from now on goes on its way at once
    this.#removed = reason === 'not-authorized'
    this.#lastKeeper = keeper
    if (keeper !== undefined) {
      this.forgetHeld() // the keeper has it
      this.#rest = both(early, keeper.rest(reason))
    }
    this.#driver.closed(this, reason)
  }
  end(reason: string): void {
    if (this.bound && !this.connected) this.#over(reason)
  }

  /** XEP-0198 §5: looks at nothing more of its stream. Resolves when what was begun is handled; undefined: it is. */
  leave(): Promise<void> | undefined {
    this.#inbox.leave()
    this.forgetHeld()
    this.stream.detach(new StreamError('conflict'))
    return this.#inbox.working ?? this.pending
  }
  /** Takes the stream of a fresh session; nothing is written or worked on until `goOn`. */
  takeStream(fresh: ClientSession): void {
    this.stream = fresh.stream
    this.stream.handTo(this)
    this.lang = fresh.lang
    this.#silent = true
    this.#inbox.takeFrom(fresh.#inbox)
  }
  /** The stream it was to go on with is gone before that: kept, or over. */
  lost(): void {
    if (this.#keeper?.keep('lost') !== true) this.end('lost')
  }

  /** The client has been told: `replay` sends what it has missed, then what has arrived meanwhile is worked on. */
  goOn(replay: () => void): void {
    this.#silent = false
    replay()
    this.#inbox.next()
  }
}
