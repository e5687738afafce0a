/** One session with stream management (XEP-0198): its counts and its queue. Small, because each session has one; time is its owner's. */
import type { Bound, Keeper } from '../../server/module.ts'
import type { Element } from '../../server/xmpp/element.ts'
import { Queue } from './queue.ts'

/** What all of them share. */
export interface ManagedOwner {
  now(): number
  /** Grows with each change of who gets messages. */
  readonly moment: number
  /** There is something to ask for: `many`: now, else when some time has passed. */
  wants(managed: Managed, many: boolean): void
  /** Too much is not confirmed. */
  full(managed: Managed): void
  /** The stream is gone; whether the session stays. */
  keep(managed: Managed, reason: string): boolean
  settle(managed: Managed): Promise<void> | undefined
  rest(managed: Managed, reason: string): Iterable<Element>
  /** Stanzas after which the client is asked. */
  readonly askEvery: number
  fits(queue: Queue): boolean
  room(managed: Managed): Promise<void> | undefined
}

/** The keeper of a session. */
export class Managed implements Keeper {
  readonly session: Bound
  /** SM-ID, undefined when it is not to be resumed. */
  readonly id: string | undefined
  /** How long it may be without a stream. */
  readonly maxMs: number
  readonly queue = new Queue()
  readonly #owner: ManagedOwner
  /** What the client had sent before it enabled stream management. */
  readonly #base: number
  #unasked = 0
  /** When the client was asked and has not answered since; 0: not. */
  askedAt = 0
  /** A message of the client came back when there was nobody to tell. */
  refused = false
  /** Somebody waits until everything is confirmed. */
  settled: PromiseWithResolvers<void> | undefined
  /** Somebody waits until there is room for more. */
  roomy: PromiseWithResolvers<void> | undefined

  constructor(owner: ManagedOwner, session: Bound, id: string | undefined, maxMs: number) {
    this.#owner = owner
    this.session = session
    this.id = id
    this.maxMs = maxMs
    this.#base = session.input.received
  }

  /** §4: what we have handled since it was enabled, modulo 2^32. */
  get handled(): number {
    return Math.max(0, this.session.input.handled - this.#base) % 2 ** 32
  }

  /**
   * The same for a client that does not get this session back. Undefined: it may be that a message came back, and the client does not know; it
   * shall send all again rather than none.
   */
  get settledCount(): number | undefined {
    if (this.refused) return undefined
    for (const { stanza } of this.queue.all()) if (stanza.attr('type') === 'error') return undefined
    return this.handled
  }

  get sentCount(): number {
    return this.queue.total + this.queue.length
  }
  get confirmedCount(): number {
    return this.queue.total
  }

  sent(stanza: Element): void {
    const { moment } = this.#owner
    if (this.session.connected) this.queue.push(stanza, this.#owner.now(), moment)
    else this.queue.wait(stanza, this.#owner.now(), moment)
    if (!this.#owner.fits(this.queue)) return this.#owner.full(this)
    this.#owner.wants(this, ++this.#unasked === this.#owner.askEvery)
  }

  /** The client is asked now. */
  asked(): void {
    this.#unasked = 0
    if (this.askedAt === 0) this.askedAt = this.#owner.now()
  }

  settle(): Promise<void> | undefined {
    return this.#owner.settle(this)
  }
  room(): Promise<void> | undefined {
    return this.#owner.room(this)
  }
  keep(reason: string): boolean {
    return this.#owner.keep(this, reason)
  }
  rest(reason: string): Iterable<Element> {
    return this.#owner.rest(this, reason)
  }
  missed(stanza: Element): void {
    if (stanza.name === 'message' && stanza.attr('type') === 'error') this.refused = true
  }
}
