/**
 * What a client was sent and has not confirmed (XEP-0198 §4), oldest first, with counting modulo 2^32. What is confirmed soon is kept as
 * it is; the rest as bytes, because an element may hold on to the input that it came with.
 */
import { Element } from '../../server/xmpp/element.ts'
import { parseXml } from '../../server/xmpp/parser.ts'

/** Stanzas that are kept as elements before the oldest becomes bytes. */
const FRESH = 16
/** Confirmed entries at the head of the list before it is cut. */
const CUT_AT = 64
/** §4: 2^32-1 is followed by zero. */
const COUNTS = 2 ** 32

/** One stanza. */
export interface Unconfirmed {
  /** When it was sent, milliseconds since 1970. */
  readonly at: number
  /** See `Queue.push`. */
  readonly moment: number
  readonly stanza: Element
  /** Its place in the queue. */
  readonly entry: Place
}
/** What can be noted of a stanza in its queue. */
export interface Place {
  /** It is a copy, and no other device has the message any more. */
  sole?: boolean
}

interface Entry extends Place {
  readonly at: number
  readonly moment: number
  what: Element | Buffer
}

/** What an 'h' of the client says. stale: lower than an earlier one; beyond: more than was sent to it. */
export type Confirmed = 'ok' | 'stale' | 'beyond'

/** The queue of one session; almost nothing while it is empty. */
export class Queue {
  #entries: Entry[] | undefined
  #head = 0
  /** Entries from #head on that are bytes. */
  #flat = 0
  #bytes = 0
  /** Since the beginning; below 2^53 for any life of a server. */
  #total: number
  /** The newest so many have never been written to a stream. */
  #unsent = 0
  /** Of those: presence by its sender. */
  #presence: Map<string, Entry> | undefined

  /** Stanzas that are not confirmed. */
  get length(): number {
    return this.#entries === undefined ? 0 : this.#entries.length - this.#head
  }
  /** Bytes of those that are kept as bytes. */
  get bytes(): number {
    return this.#bytes
  }
  /** The newest 'h' of the client. */
  get confirmed(): number {
    return this.#total % COUNTS
  }
  /** Stanzas confirmed since the beginning. */
  get total(): number {
    return this.#total
  }
  /** What 'h' is when everything that was sent is confirmed. */
  get sent(): number {
    return (this.#total + this.length - this.#unsent) % COUNTS
  }

  /** `confirmed`: stanzas before the first of this queue. */
  constructor(confirmed = 0) {
    this.#total = confirmed
  }

  /** `moment`: what else was before it, in the count of its owner. */
  push(stanza: Element, at: number, moment = 0): void {
    ;(this.#entries ??= []).push({ at, moment, what: stanza })
    if (this.#unsent > 0) this.#unsent++ // behind what has still to be written
    if (this.length - this.#flat > FRESH) this.#flatten(this.#head + this.#flat)
  }

  /**
   * A stanza that cannot be written now. Presence takes the place of older presence of the same sender that waits too (XEP-0352 §3.2), at the
   * end, so that the order of what is left stays true; nobody has counted the older one.
   */
  wait(stanza: Element, at: number, moment = 0): void {
    this.push(stanza, at, moment)
    if (this.#unsent === 0) this.#unsent = 1
    const type = stanza.attr('type')
    if (stanza.name !== 'presence' || (type !== undefined && type !== 'unavailable')) return
    const entry = this.#entries?.at(-1)
    const from = stanza.attr('from') ?? ''
    const known = (this.#presence ??= new Map())
    const older = known.get(from)
    if (entry !== undefined) known.set(from, entry)
    if (older !== undefined) this.#drop(older)
  }

  #drop(entry: Entry): void {
    const entries = this.#entries
    const index = entries?.lastIndexOf(entry) ?? -1
    if (entries === undefined || index < this.#head) return
    if (entry.what instanceof Buffer) {
      this.#bytes -= entry.what.length
      this.#flat--
    }
    entries.splice(index, 1)
    this.#unsent--
  }

  /** All of it is written to a stream. */
  written(): void {
    this.#unsent = 0
    this.#presence = undefined
  }

  #flatten(index: number): void {
    const entry = this.#entries?.[index]
    if (entry === undefined || entry.what instanceof Buffer) return
    entry.what = Buffer.from(entry.what.toString())
    this.#bytes += entry.what.length
    this.#flat++
  }

  /** Everything as bytes. */
  flatten(): void {
    for (let i = this.#head + this.#flat, end = this.#head + this.length; i < end; i++) this.#flatten(i)
  }

  /** What `h` would mean. */
  check(h: number): Confirmed {
    if (distance(this.confirmed, h) <= this.length - this.#unsent) return 'ok'
    return distance(h, this.confirmed) <= Math.min(this.#total, 2 ** 31) ? 'stale' : 'beyond'
  }

  /** Forgets what is confirmed; `h` is 'ok'. */
  confirm(h: number): void {
    const entries = this.#entries
    const count = distance(this.confirmed, h)
    this.#total += count
    if (entries === undefined || count === 0) return
    for (let i = this.#head, end = this.#head + count; i < end; i++) {
      const what = entries[i]?.what
      if (what instanceof Buffer) this.#bytes -= what.length
    }
    this.#flat = Math.max(0, this.#flat - count)
    this.#head += count
    if (this.#head === entries.length) {
      this.#entries = undefined
      this.#head = 0
    } else if (this.#head >= CUT_AT) {
      entries.splice(0, this.#head)
      this.#head = 0
    } else entries.fill({ at: 0, moment: 0, what: EMPTY }, this.#head - count, this.#head)
  }

  /** All of it, oldest first. */
  *all(): Iterable<Unconfirmed> {
    for (const entry of this.#entries?.slice(this.#head) ?? []) {
      const { at, moment, what } = entry
      yield { at, moment, stanza: what instanceof Element ? what : parseXml(what), entry }
    }
  }
}

const EMPTY = Buffer.alloc(0)
/** How far `to` is ahead of `from`. */
const distance = (from: number, to: number): number => (to - from + COUNTS) % COUNTS
