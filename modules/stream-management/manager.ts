/**
 * All sessions of a host that have stream management (XEP-0198): ids, requests for acknowledgement, sessions without a stream and how
 * long they stay. One sweep looks after the time of all of them.
 */
import { randomBytes } from 'node:crypto'
import type { Bound, Ctx, Session } from '../../server/module.ts'
import { type Element, el } from '../../server/xmpp/element.ts'
import type { JID } from '../../server/xmpp/jid.ts'
import { Ended } from './ended.ts'
import { Managed, type ManagedOwner } from './managed.ts'
import type { Place, Queue } from './queue.ts'
import { delayed, goesOn, keyOf, type Others } from './rest.ts'

/** Namespace of the elements (§12.1). */
export const NS_SM = 'urn:xmpp:sm:3'
/** Ways to lose a stream that leave a session to come back to (§7); after others it is over. */
const RESUMABLE: ReadonlySet<string> = new Set(['lost', 'connection-timeout', 'resource-constraint'])
/** Ends after which the client has nothing to come back for: by itself, or because there is no account any more. */
const FORGOTTEN: ReadonlySet<string> = new Set(['closed', 'not-authorized'])
const REQUEST = el('r', NS_SM)

interface Priority {
  readonly value: number | undefined
  /** The moment from which on it has it. */
  readonly since: number
}

/** What the administrator decides. Times in milliseconds. */
export interface Limits {
  readonly hibernation: number
  readonly maxStanzas: number
  readonly maxBytes: number
  readonly maxHibernating: number
  readonly askEvery: number
  readonly askAfter: number
  readonly ackTimeout: number
}

/** The sessions of one host. */
export class Manager implements ManagedOwner {
  readonly #ctx: Ctx
  readonly ended: Ended
  #limits: Limits
  #sweeper: Disposable
  readonly #managed: { get(s: Session): Managed | undefined; set(s: Session, v: Managed | undefined): void }
  /**
   * Counts the changes of who gets messages. The clock would not do: it may be set back, and much happens in a millisecond.
   */
  #moment = 0
  /** Since which moment sessions get copies (XEP-0280). */
  readonly #copies: { get(s: Session): number; set(s: Session, v: number): void }
  /** Priority of sessions, and since when: that of the present one or, never available, of binding. */
  readonly #priority: { get(s: Session): Priority; set(s: Session, v: Priority): void }
  readonly #byId = new Map<string, Managed>()
  /** Connected, with something not confirmed. */
  readonly #waiting = new Set<Managed>()
  /** Asked for at the end of this turn. */
  readonly #due = new Set<Managed>()
  /** Without a stream, and until when; those that fell asleep first come first. */
  readonly #asleep = new Map<Managed, number>()

  constructor(ctx: Ctx, limits: Limits) {
    this.#ctx = ctx
    this.#limits = limits
    this.ended = new Ended(ctx)
    this.#managed = ctx.perSession<Managed | undefined>(() => undefined)
    this.#priority = ctx.perSession((): Priority => ({ value: undefined, since: ++this.#moment }))
    this.#copies = ctx.perSession(() => 0)
    ctx.hook('carbons:enabled', { phase: 'observe' }, ({ session }) =>
      this.#copies.set(session, ++this.#moment),
    )
    ctx.hook('session:bound', { phase: 'observe' }, ({ session }) => void this.#priority.get(session))
    ctx.hook('client:in', { phase: 'observe', kinds: ['presence'] }, ({ session }) => {
      if (session === undefined || this.#priority.get(session).value === session.priority) return
      this.#priority.set(session, { value: session.priority, since: ++this.#moment })
    })
    ctx.hook('session:closed', { phase: 'store' }, ({ session, reason }) => this.#remember(session, reason))
    this.#sweeper = ctx.timers.every(limits.askAfter, () => this.#sweep())
    ctx.metrics.gauge('hibernating', 'Sessions without a stream now', () => this.#asleep.size)
  }

  get limits(): Limits {
    return this.#limits
  }
  /** Sessions that exist follow, except for what they were told. */
  setLimits(limits: Limits): void {
    this.#limits = limits
    this.#sweeper[Symbol.dispose]()
    this.#sweeper = this.#ctx.timers.every(limits.askAfter, () => this.#sweep())
  }
  get askEvery(): number {
    return this.#limits.askEvery
  }
  now(): number {
    return this.#ctx.now()
  }
  get moment(): number {
    return this.#moment
  }

  // ---- sessions ----

  of(s: Session): Managed | undefined {
    return this.#managed.get(s)
  }

  /** The session to be resumed, when it is one of this account. */
  find(id: string, local: string): Managed | undefined {
    const managed = this.#byId.get(id)
    return managed?.session.jid.local === local ? managed : undefined
  }

  /** Turns it on; `maxMs` undefined: not to be resumed. */
  enable(session: Bound, maxMs: number | undefined): Managed {
    // §5: never reused; nobody may guess it
    const id = maxMs === undefined ? undefined : randomBytes(18).toString('base64url')
    const managed = new Managed(this, session, id, maxMs ?? 0)
    this.#managed.set(session, managed)
    if (id !== undefined) this.#byId.set(id, managed)
    session.setKeeper(managed)
    return managed
  }

  /** The module goes: nobody keeps what is sent from now on. */
  stop(): void {
    for (const managed of Array.from(this.#asleep.keys())) managed.session.end('lost')
    for (const session of Array.from(this.#ctx.sessions.all()))
      if (this.#managed.get(session) !== undefined) session.close('reset')
  }

  // ---- acknowledgement ----

  /** The client has confirmed up to `h`. */
  confirm(managed: Managed, h: number): void {
    managed.queue.confirm(h)
    managed.askedAt = 0
    if (!this.#crowded(managed.queue)) this.#roomy(managed)
    if (managed.queue.length > 0) return
    this.#waiting.delete(managed)
    this.#settled(managed)
  }

  settle(managed: Managed): Promise<void> | undefined {
    if (managed.queue.length === 0) return undefined
    this.#ask(managed)
    return (managed.settled ??= Promise.withResolvers<void>()).promise
  }

  #settled(managed: Managed): void {
    managed.settled?.resolve()
    managed.settled = undefined
    this.#roomy(managed)
  }

  room(managed: Managed): Promise<void> | undefined {
    if (!managed.session.connected || !this.#crowded(managed.queue)) return undefined
    this.#ask(managed)
    return (managed.roomy ??= Promise.withResolvers<void>()).promise
  }

  #roomy(managed: Managed): void {
    managed.roomy?.resolve()
    managed.roomy = undefined
  }

  wants(managed: Managed, many: boolean): void {
    if (!managed.session.connected) return managed.queue.flatten()
    this.#waiting.add(managed)
    if (!many) return
    // behind the stanza, which is not written yet
    if (this.#due.size === 0) queueMicrotask(() => this.#askDue())
    this.#due.add(managed)
  }

  #askDue(): void {
    for (const managed of this.#due) this.#ask(managed)
    this.#due.clear()
  }

  #ask(managed: Managed): void {
    if (!managed.session.connected) return
    managed.asked()
    managed.session.write(REQUEST)
  }

  fits(queue: Queue): boolean {
    return queue.length <= this.#limits.maxStanzas && queue.bytes <= this.#limits.maxBytes
  }

  /** Half of what fits is used. */
  #crowded(queue: Queue): boolean {
    return queue.length * 2 >= this.#limits.maxStanzas || queue.bytes * 2 >= this.#limits.maxBytes
  }

  full(managed: Managed): void {
    managed.session.close('resource-constraint', 'too much is not acknowledged')
  }

  #sweep(): void {
    const now = this.#ctx.now()
    for (const managed of Array.from(this.#waiting)) {
      if (managed.askedAt === 0) this.#ask(managed)
      // a client that does not answer is not there
      else if (now - managed.askedAt >= this.#limits.ackTimeout) managed.session.close('connection-timeout')
      managed.queue.flatten()
    }
    for (const [managed, until] of Array.from(this.#asleep)) if (now >= until) managed.session.end('lost')
  }

  // ---- sessions without a stream ----

  keep(managed: Managed, reason: string): boolean {
    this.#waiting.delete(managed)
    this.#settled(managed) // not any more
    managed.askedAt = 0
    if (managed.id === undefined || !RESUMABLE.has(reason) || !this.fits(managed.queue)) return false
    managed.queue.flatten()
    this.#asleep.delete(managed)
    this.#asleep.set(managed, this.#ctx.now() + managed.maxMs)
    this.#makeRoom(managed)
    return true
  }

  /** A client that always comes back anew leaves only so many behind: not more with the one that falls asleep now. */
  #makeRoom(last: Managed): void {
    const mine: Managed[] = []
    for (const session of this.#ctx.sessions.of(last.session.jid.local)) {
      const managed = this.#managed.get(session)
      if (managed !== undefined && managed !== last && this.#asleep.has(managed)) mine.push(managed)
    }
    const surplus = mine.length + 1 - this.#limits.maxHibernating
    if (surplus <= 0) return
    mine.sort((a, b) => (this.#asleep.get(a) ?? 0) - a.maxMs - ((this.#asleep.get(b) ?? 0) - b.maxMs))
    for (const managed of mine.slice(0, surplus)) managed.session.end('lost')
  }

  /** §5: the session has a stream again, and its client knows: what was not confirmed is sent again, in order. */
  awake(managed: Managed): void {
    this.#asleep.delete(managed)
    managed.queue.written()
    for (const entry of managed.queue.all()) managed.session.write(delayed(entry, this.#ctx.host))
    if (managed.queue.length === 0) return
    this.#waiting.add(managed)
    this.#ask(managed)
  }

  rest(managed: Managed, reason: string): Iterable<Element> {
    this.#forget(managed)
    // not-authorized: there is no account any more
    return reason === 'not-authorized' ? [] : this.#goingOn(managed, managed.session.priority)
  }

  *#goingOn({ queue, session }: Managed, priority: number | undefined): Iterable<Element> {
    const { jid } = session
    const since = this.#priority.get(session).since
    const copies = new Map<Session, Map<string, Place>>()
    for (const { at, moment, stanza, entry } of queue.all()) {
      const copied = entry.sole === true ? this.#received(stanza, jid) : undefined
      const one = copied === undefined ? { at, moment, stanza } : { at, moment, stanza: copied, sole: true }
      const others: Others = {
        priority,
        since,
        sessions: this.#ctx.sessions.of(jid.local),
        prioritySince: (other) => this.#priority.get(other).since,
        copiesSince: (other) => this.#copies.get(other),
        carbons: this.#ctx.find('carbons'),
        leave: (other, message) => this.#leave(other, message, copies),
      }
      if (goesOn(one, session, others)) yield delayed(one, this.#ctx.host)
    }
  }

  /** When the other session has not confirmed its copy and ends too, the copy stands for the message. */
  #leave(other: Bound, message: Element, copies: Map<Session, Map<string, Place>>): void {
    let known = copies.get(other)
    if (known === undefined) {
      copies.set(other, (known = new Map()))
      for (const { stanza, entry } of this.#managed.get(other)?.queue.all() ?? []) {
        const copied = this.#received(stanza, other.jid)
        if (copied !== undefined) known.set(keyOf(copied), entry)
      }
    }
    const place = known.get(keyOf(message))
    if (place !== undefined) place.sole = true
  }

  /** The message that a copy is of, when the account has received it. */
  #received(stanza: Element, account: JID): Element | undefined {
    const copy = this.#ctx.find('carbons')?.copyIn(stanza, account)
    return copy?.direction === 'received' ? copy.message : undefined
  }

  #forget(managed: Managed): void {
    this.#settled(managed) // not any more
    this.#asleep.delete(managed)
    this.#waiting.delete(managed)
    if (managed.id !== undefined) this.#byId.delete(managed.id)
  }

  /** §5: how much was handled, for a client that comes too late. A request that is still being answered will be. */
  #remember(session: Bound, reason: string): void | Promise<void> {
    const managed = this.#managed.get(session)
    const id = managed?.id
    if (managed === undefined || id === undefined || FORGOTTEN.has(reason)) return undefined
    const store = (): Promise<void> | undefined => {
      const { settledCount } = managed
      return settledCount === undefined ? undefined : this.ended.add(session.jid.local, id, settledCount)
    }
    const waiting = session.input.settled
    return waiting === undefined ? store() : waiting.then(store)
  }
}
