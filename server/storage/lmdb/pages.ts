/**
 * Pages of an archive. The cost of a page does not grow with the archive: entries are read from where the
 * page starts; by a correspondent from the rows that are sorted by it; between two times from where the
 * growing times say, plus the strays (entries.ts). Only a search of text, and a filter that little passes,
 * read on and on; they do so in steps between which others have their turn, and hold no snapshot of the store
 * meanwhile.
 */
import { setImmediate as turn } from 'node:timers/promises'
import { UnknownEntry } from '../contract.ts'
import type { Doc, Entry, Page, Query } from '../contract.ts'
import { matcher } from '../words.ts'
import { docOf, highOf, idOf, numberIn, parseLine } from './entries.ts'
import type { Head, Line } from './entries.ts'
import type { Env } from './env.ts'
import { lateKey, logKey, next, numberOf, withKey } from './keys.ts'

// Rows of one step: under a millisecond or two.
const step = 500
// Bytes of one step: entries may be large.
const stepBytes = 256 * 1024
// For `effort`, so many bytes that are looked at, or found, count as an entry: the page that is made is in memory.
const lookedBytes = 16 * 1024
const foundBytes = 256
// With more strays than this in a span of time, entries are read in order and looked at one by one.
const maxStrays = 20_000
const firstTime = -62_167_219_200_000
const lastTime = 253_402_300_799_999

/** Numbers of entries to look at: all from `lo` to `hi`, or of one correspondent, or a list in order. */
type Segment =
  | { readonly kind: 'log' | 'with'; readonly lo: number; readonly hi: number }
  | { readonly kind: 'list'; readonly numbers: readonly number[] }

/** Takes the bytes of an entry; false when no more is wanted. */
type Visit = (n: number, bytes: Buffer) => boolean

/** Reads a page; `head` is undefined for an archive without entries. */
export async function readPage<T extends Doc>(
  env: Env,
  head: Head | undefined,
  q: Query,
  text: (doc: T) => string | undefined,
): Promise<Page<T>> {
  const [after, before] = env.read(() => [q.after, q.before].map((id) => position(env, head, id)))
  if (head === undefined) return { entries: [], complete: true, ...(q.count === true ? { count: 0 } : {}) }
  const reader = new Reader(env, head, q, text)
  const found: Entry<T>[] = []
  const reverse = q.from === 'last'
  const [lo, hi] = [(after ?? 0) + 1, (before ?? head.last + 1) - 1]
  const reached = await reader.walk(lo, hi, reverse, q.limit + 1, q.effort, (n, line, doc) => {
    found.push({ id: idOf(n), at: new Date(line.at), with: line.with, doc: doc() })
    return found.length <= q.limit
  })
  const isFull = found.length > q.limit
  if (isFull) found.pop()
  if (reverse) found.reverse()
  return {
    entries: found,
    complete: !isFull && reached === undefined,
    ...(q.count === true ? { count: await reader.count() } : {}),
    ...(reached === undefined ? {} : { reached: idOf(reached) }),
  }
}

function position(env: Env, head: Head | undefined, id: string | undefined): number | undefined {
  if (id === undefined) return undefined
  const n = numberIn(id)
  // XEP-0059 §2: an item that is not there is an error, not an empty page.
  if (n === 0 || head === undefined || !env.tables.log.has(logKey(head.archive, n)))
    throw new UnknownEntry(`no entry ${id}`)
  return n
}

class Reader<T extends Doc> {
  readonly #env: Env
  readonly #head: Head
  readonly #q: Query
  readonly #text: (doc: T) => string | undefined
  readonly #hasText: ((text: string) => boolean) | undefined
  readonly #start: number
  readonly #end: number
  readonly #timed: boolean
  #segments: readonly Segment[] | undefined

  constructor(env: Env, head: Head, q: Query, text: (doc: T) => string | undefined) {
    this.#env = env
    this.#head = head
    this.#q = q
    this.#text = text
    this.#hasText = q.text === undefined ? undefined : matcher(q.text)
    this.#timed = q.start !== undefined || q.end !== undefined
    this.#start = Math.max(q.start?.getTime() ?? firstTime, firstTime)
    this.#end = Math.min(q.end?.getTime() ?? lastTime, lastTime)
  }

  /**
   * Visits entries that match, from number `lo` to `hi` or backwards; about `wanted` will do. After looking at
   * `effort` of them it ends, and resolves to the number of the last one if there are more.
   */
  async walk(
    lo: number,
    hi: number,
    reverse: boolean,
    wanted: number,
    effort: number | undefined,
    visit: (n: number, line: Line, doc: () => T) => boolean,
  ): Promise<number | undefined> {
    let left = effort ?? Number.POSITIVE_INFINITY
    let at = 0
    let reached: number | undefined
    const pick: Visit = (n, bytes) => {
      if (left <= 0) {
        reached = at
        return false
      }
      left -= Math.max(1, Math.ceil(bytes.length / lookedBytes))
      at = n
      const line = parseLine(bytes)
      if (this.#timed && (line.at < this.#start || line.at > this.#end)) return true
      if (this.#q.with !== undefined && line.with !== this.#q.with) return true
      const doc = this.#hasText === undefined ? undefined : docOf<T>(bytes, line)
      if (doc !== undefined && this.#hasText?.(this.#text(doc) ?? '') === false) return true
      left -= Math.floor(bytes.length / foundBytes)
      return visit(n, line, () => doc ?? docOf<T>(bytes, line))
    }
    const segments = this.#plan().map((segment) => clip(segment, lo, hi))
    // Where nearly all that is read will match, no more than that is read.
    const rows = this.#hasText === undefined ? Math.min(wanted, step) : step
    for (const segment of reverse ? segments.toReversed() : segments) {
      if (!(await this.#visit(segment, reverse, rows, pick))) break
    }
    return reached
  }

  /** How many entries match, wherever the page is. */
  async count(): Promise<number> {
    const { ids, text, with: peer } = this.#q
    const { count, last, strays } = this.#head
    if (ids === undefined && text === undefined && (!this.#timed || strays === 0)) {
      if (!this.#timed && peer === undefined) return count
      const [segment] = this.#plan()
      if (segment === undefined || segment.kind === 'list') return 0
      const first = this.#env.read(() => this.#first())
      // Without holes, numbers tell how many there are.
      if (segment.kind === 'log' && first !== undefined && last - first + 1 === count) {
        return Math.max(0, Math.min(segment.hi, last) - Math.max(segment.lo, first) + 1)
      }
      return await this.#countKeys(segment.kind, segment.lo, segment.hi)
    }
    let matching = 0
    await this.walk(1, last, false, step, undefined, () => {
      matching += 1
      return true
    })
    return matching
  }

  async #countKeys(kind: 'log' | 'with', lo: number, hi: number): Promise<number> {
    let total = 0
    for (let from = lo; from <= hi; ) {
      const keys = this.#env.read(() => this.#keys(kind, from, hi, false, step * 4))
      total += keys.length
      const last = keys.at(-1)
      if (last === undefined || keys.length < step * 4) return total
      from = numberOf(last) + 1
      await turn()
    }
    return total
  }

  async #visit(segment: Segment, reverse: boolean, rows: number, pick: Visit): Promise<boolean> {
    if (segment.kind === 'list') {
      const numbers = reverse ? segment.numbers.toReversed() : segment.numbers
      for (let i = 0; i < numbers.length; ) {
        if (i > 0) await turn()
        const { wants, looked } = this.#env.read(() => this.#pickEach(numbers.slice(i, i + step), pick))
        if (!wants) return false
        i += looked
      }
      return true
    }
    let { lo, hi } = segment
    for (let size = rows; lo <= hi; size = step) {
      const { wants, last } = this.#env.read(() => this.#read(segment.kind, lo, hi, reverse, size, pick))
      if (!wants) return false
      if (last === undefined) return true
      if (reverse) hi = last - 1
      else lo = last + 1
      if (lo <= hi) await turn()
    }
    return true
  }

  /** One step; `last` is the number it came to, undefined when there are no more. */
  #read(kind: 'log' | 'with', lo: number, hi: number, reverse: boolean, size: number, pick: Visit) {
    if (kind === 'with') {
      const numbers = this.#keys(kind, lo, hi, reverse, size).map((key) => numberOf(key))
      const { wants, looked } = this.#pickEach(numbers, pick)
      const isEnd = numbers.length < size && looked === numbers.length
      return { wants, last: isEnd ? undefined : numbers[looked - 1] }
    }
    let wants = true
    let seen = 0
    let left = stepBytes
    let last: number | undefined
    const { archive } = this.#head
    const range = { start: logKey(archive, lo), end: logKey(archive, hi + 1), limit: size, reverse }
    this.#env.tables.log.range(range, (key, bytes) => {
      seen += 1
      left -= bytes.length
      last = numberOf(key)
      wants = pick(last, bytes)
      return wants && left > 0
    })
    return { wants, last: seen < size && left > 0 ? undefined : last }
  }

  /** `looked`: at so many of them, which is less than all when those are large. */
  #pickEach(numbers: readonly number[], pick: Visit): { readonly wants: boolean; readonly looked: number } {
    let left = stepBytes
    let looked = 0
    for (const n of numbers) {
      const bytes = this.#env.tables.log.get(logKey(this.#head.archive, n))
      looked += 1
      if (bytes === undefined) continue
      left -= bytes.length
      if (!pick(n, bytes)) return { wants: false, looked }
      if (left <= 0) break
    }
    return { wants: true, looked }
  }

  #keys(kind: 'log' | 'with', lo: number, hi: number, reverse: boolean, limit: number): Buffer[] {
    const { archive } = this.#head
    const peer = this.#q.with ?? ''
    const key = (n: number) => (kind === 'log' ? logKey(archive, n) : withKey(archive, peer, n))
    return this.#env.tables[kind === 'log' ? 'log' : 'aux'].keys({
      start: key(lo),
      end: key(hi + 1),
      limit,
      reverse,
    })
  }

  #plan(): readonly Segment[] {
    this.#segments ??= this.#env.read(() => this.#makePlan())
    return this.#segments
  }

  #makePlan(): readonly Segment[] {
    const { last, strays } = this.#head
    if (this.#q.ids !== undefined) {
      const numbers = [...new Set(this.#q.ids.map(numberIn))].filter((n) => n > 0)
      return [{ kind: 'list', numbers: numbers.sort((a, b) => a - b) }]
    }
    const kind = this.#q.with === undefined ? 'log' : 'with'
    const all: Segment = { kind, lo: 1, hi: last }
    if (!this.#timed) return [all]
    if (this.#start > this.#end) return []
    const lo = this.#q.start === undefined ? 1 : this.#firstHigh((high) => high >= this.#start)
    const hi = this.#q.end === undefined ? last : this.#firstHigh((high) => high > this.#end) - 1
    const between: Segment = { kind, lo, hi }
    if (strays === 0) return [between]
    const late = this.#strays()
    if (late.length > maxStrays) return [all]
    const older: Segment = { kind: 'list', numbers: late.filter((n) => n < lo && n <= hi) }
    const newer: Segment = { kind: 'list', numbers: late.filter((n) => n > hi) }
    return [older, between, newer]
  }

  /** Numbers of the strays between the two times, in order. */
  #strays(): readonly number[] {
    const { archive } = this.#head
    const range = {
      start: lateKey(archive, this.#start, 0),
      end: lateKey(archive, this.#end, 2 ** 48 - 1),
      limit: maxStrays + 1,
    }
    const keys = this.#env.tables.aux.keys(range)
    return keys.map((key) => numberOf(key)).sort((a, b) => a - b)
  }

  /**
   * The number from which on `high` of all entries passes `test`, which it does not before: a search by
   * halves.
   */
  #firstHigh(test: (high: number) => boolean): number {
    const { last, high } = this.#head
    const first = this.#first()
    if (first === undefined || !test(high)) return last + 1
    let [no, yes] = [first - 1, last + 1]
    while (yes - no > 1) {
      const middle = Math.floor((no + yes) / 2)
      const found = this.#at(middle, yes)
      if (found === undefined || test(found.high)) yes = middle
      else no = found.n
    }
    return yes
  }

  #first(): number | undefined {
    const [key] = this.#keys('log', 0, this.#head.last, false, 1)
    return key === undefined ? undefined : numberOf(key)
  }

  /** The first entry from number `n` on that is before `end`. */
  #at(n: number, end: number): { readonly n: number; readonly high: number } | undefined {
    const { archive } = this.#head
    const exact = this.#env.tables.log.get(logKey(archive, n))
    if (exact !== undefined) return { n, high: highOf(exact) }
    let found: { readonly n: number; readonly high: number } | undefined
    const range = { start: next(logKey(archive, n)), end: logKey(archive, end), limit: 1 }
    this.#env.tables.log.range(range, (key, bytes) => {
      found = { n: numberOf(key), high: highOf(bytes) }
    })
    return found
  }
}

function clip(segment: Segment, lo: number, hi: number): Segment {
  if (segment.kind === 'list')
    return { kind: 'list', numbers: segment.numbers.filter((n) => n >= lo && n <= hi) }
  return { kind: segment.kind, lo: Math.max(segment.lo, lo), hi: Math.min(segment.hi, hi) }
}
