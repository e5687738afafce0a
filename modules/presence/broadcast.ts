/**
 * Tells contacts of a session's presence (RFC 6121 §4.2.2, §4.4.2, §4.5.2) and the session of theirs (§4.3.1).
 *
 * One lane for each full JID: a broadcast that is cut into slices is finished before the next one of the same JID begins, so that
 * nobody ends up with an older presence. Broadcasts that wait are merged: only the newest presence goes out, and at most one
 * unavailable before it.
 */
import { randomUUID } from 'node:crypto'
import type { Bound, Ctx, Services } from '../../server/module.ts'
import { type Element, el } from '../../server/xmpp/element.ts'
import { type JID, parseJid } from '../../server/xmpp/jid.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import type { Directed } from './directed.ts'
import type { Reach } from './reach.ts'

type Done = void | Promise<void>
type RosterView = Awaited<ReturnType<Services['roster']['of']>>
type Contact = NonNullable<ReturnType<RosterView['get']>>

/** One presence to be told. */
export type Job = Available | Unavailable
interface Available {
  readonly kind: 'available'
  readonly session: Bound
  readonly stanza: Element
  /** The start of a presence session (§4.2): contacts' presence and waiting requests are fetched too. */
  readonly initial: boolean
}
interface Unavailable {
  readonly kind: 'unavailable'
  readonly session: Bound
  readonly stanza: Element
  /** Whether contacts had been told of the session. */
  readonly toContacts: boolean
  /** Addressees of directed presence. */
  readonly directed: readonly string[]
}

/** Rosters up to this length are gone through in one go. */
const SHORT = 100

/** Adds a job to those that wait. */
export function enqueue(waiting: Job[], job: Job): void {
  let next = job
  let last = waiting.at(-1)
  // An available presence that nobody has seen yet is superseded by whatever follows.
  if (last?.kind === 'available') {
    waiting.pop()
    if (next.kind === 'available') next = { ...next, initial: next.initial || last.initial }
    else next = { ...next, toContacts: true }
    last = waiting.at(-1)
  }
  if (last?.kind === 'unavailable' && next.kind === 'unavailable') {
    waiting.pop()
    const toContacts = next.toContacts || last.toContacts
    next = { ...next, toContacts, directed: [...last.directed, ...next.directed] }
  }
  waiting.push(next)
}

/** The broadcasts of one host. */
export class Broadcasts {
  readonly #ctx: Ctx
  readonly #reach: Reach
  readonly #lanes = new Map<string, { readonly waiting: Job[]; done: Promise<void> | undefined }>()
  readonly #directed: (session: Bound) => Directed | undefined
  readonly #ended: (session: Bound, stanza: Element) => Done

  /** `ended` is called when an unavailable presence has been told. */
  constructor(
    ctx: Ctx,
    reach: Reach,
    directed: (session: Bound) => Directed | undefined,
    ended: (session: Bound, stanza: Element) => Done,
  ) {
    this.#ctx = ctx
    this.#reach = reach
    this.#directed = directed
    this.#ended = ended
  }

  /** Whether everything has been told. */
  get idle(): boolean {
    return this.#lanes.size === 0
  }

  /** Begins to tell a presence, or queues it behind those of the same JID that are being told. */
  push(job: Job): void {
    const key = job.session.jid.toString()
    const busy = this.#lanes.get(key)
    if (busy !== undefined) {
      enqueue(busy.waiting, job)
      return
    }
    const lane = { waiting: [] as Job[], done: undefined as Promise<void> | undefined }
    this.#lanes.set(key, lane)
    const first = this.#begin(job)
    if (first === undefined && lane.waiting.length === 0) this.#lanes.delete(key)
    else lane.done = this.#drain(key, lane.waiting, first)
  }

  /** Resolves when everything of this JID has been told; undefined: now. Never rejects. */
  told(jid: JID): Promise<void> | undefined {
    return this.#lanes.get(jid.toString())?.done
  }

  async #drain(key: string, waiting: Job[], first: Done): Promise<void> {
    await first
    for (let job = waiting.shift(); job !== undefined; job = waiting.shift()) await this.#begin(job)
    this.#lanes.delete(key)
  }

  /** Neither throws nor rejects: what fails is logged, and the lane goes on. */
  #begin(job: Job): Done {
    const failed = (error: unknown): void => {
      this.#ctx.log.error('presence not told to all', { jid: job.session.jid.toString(), err: error })
    }
    try {
      const done = job.kind === 'available' ? this.#available(job) : this.#unavailable(job)
      return done?.catch(failed)
    } catch (error) {
      return failed(error)
    }
  }

  // ---- available ----

  #available(job: Available): Done {
    const roster = this.#ctx.use('roster').of(job.session.jid.local)
    return roster instanceof Promise
      ? roster.then((loaded) => this.#toRoster(job, loaded))
      : this.#toRoster(job, roster)
  }

  #toRoster(job: Available, roster: RosterView): Done {
    const { local } = job.session.jid
    const alone = !this.#ctx.sessions
      .of(local)
      .some((other) => other !== job.session && other.presence !== undefined)
    return this.#each(roster.contacts(), roster.size, (contact) =>
      this.#reach.unlessBlocked(local, contact.jid, () => this.#toContact(job, contact, alone)),
    )
  }

  #toContact(job: Available, contact: Contact, alone: boolean): Done {
    const { session } = job
    if (contact.from) this.#reach.tell(job.stanza, contact.jid)
    if (!job.initial) return undefined
    // §3.1.3 rule 4: as often as it takes
    if (contact.request !== undefined) this.#ctx.deliver(session, parseXml(contact.request))
    const own = session.jid.bare
    if (contact.pendingOut && alone) {
      // §3.1.2, last paragraph: the request, or the answer, may have got lost
      const attrs = { type: 'subscribe', id: randomUUID(), from: own.toString(), to: contact.jid.toString() }
      this.#reach.post(el('presence', NS.CLIENT, attrs))
    }
    return contact.to ? this.#probe(session, contact.jid) : undefined
  }

  /** §4.3.1: what is the contact's presence? */
  #probe(session: Bound, contact: JID): Done {
    const own = session.jid.bare
    if (!this.#reach.isLocal(contact)) {
      const attrs = { type: 'probe', id: randomUUID(), from: own.toString(), to: contact.toString() }
      this.#reach.post(el('presence', NS.CLIENT, attrs))
      return undefined
    }
    // §4.3.1, last paragraph: no probe to an account of this server; and nothing to be learnt of one that is not there
    if (!this.#reach.isThere(contact)) return undefined
    return this.#reach.unlessBlocked(contact.local, own, () => {
      const theirs = this.#ctx.use('roster').of(contact.local)
      return theirs instanceof Promise
        ? theirs.then((loaded) => this.#fromLocal(session, contact, loaded))
        : this.#fromLocal(session, contact, theirs)
    })
  }

  #fromLocal(session: Bound, contact: JID, theirs: RosterView): void {
    const own = session.jid.bare
    const entry = theirs.get(own)
    if (entry?.from === true) {
      const to = session.jid.toString()
      for (const other of this.#ctx.sessions.of(contact.local)) {
        if (other.presence !== undefined) this.#ctx.deliver(session, other.presence.withAttrs({ to }))
      }
    } else if (entry?.pendingIn !== true) {
      // §4.3.2 rule 1: ends a subscription of which the contact knows nothing
      const attrs = { type: 'unsubscribed', from: contact.toString(), to: own.toString() }
      this.#reach.post(el('presence', NS.CLIENT, attrs))
    }
  }

  // ---- unavailable ----

  async #unavailable(job: Unavailable): Promise<void> {
    const { session, stanza } = job
    const { local } = session.jid
    const successor = this.#ctx.sessions.get(session.jid)
    // A newer session has the same full JID: what it said is what counts.
    const heir = successor === session ? undefined : successor
    let roster: RosterView | undefined
    if (job.toContacts && heir?.presence === undefined) {
      roster = await this.#ctx.use('roster').of(local)
      // in slices in any case: many sessions may be lost at once
      await this.#ctx.inSlices(roster.contacts(), (contact) =>
        contact.from
          ? this.#reach.unlessBlocked(local, contact.jid, () => this.#reach.tell(stanza, contact.jid))
          : undefined,
      )
    }
    // §4.6.3 rules 2 and 3
    await this.#ctx.inSlices(job.directed, (text) => {
      const to = parseJid(text)
      if (roster?.get(to)?.from === true) return undefined // has been told as a contact
      if (job.toContacts && to.bare.equals(session.jid.bare)) return undefined // and so have the own resources
      if (heir !== undefined && this.#directed(heir)?.has(to) === true) return undefined
      return this.#reach.unlessBlocked(local, to, () => this.#reach.tell(stanza, to))
    })
    await this.#ended(session, stanza)
  }

  /** Short lists at once, long ones in slices. */
  #each<T>(items: Iterable<T>, count: number, visit: (item: T) => Done): Done {
    if (count > SHORT) return this.#ctx.inSlices(items, visit)
    let waiting: Promise<void>[] | undefined
    for (const item of items) {
      const done = visit(item)
      if (done !== undefined) (waiting ??= []).push(done)
    }
    return waiting === undefined ? undefined : Promise.all(waiting).then(() => undefined)
  }
}
