/** Archives: appending, replacing, removing. Pages are in pages.ts. */
import type { Archive, Doc, Page, Query, Removal } from '../contract.ts'
import { checkKey, checkOwner, checkQuery, checkRemoval, checkTime } from '../limits.ts'
import { place } from './catalogue.ts'
import type { Catalogue } from './catalogue.ts'
import { encodeDoc } from './codec.ts'
import {
  encodeEntry,
  idOf,
  isStray,
  numberIn,
  parseHead,
  parseLine,
  placeEntry,
  putEntry,
  removeEntry,
  withDoc,
} from './entries.ts'
import type { Head, Heads, Line } from './entries.ts'
import type { Env } from './env.ts'
import { after, auxPrefix, collectionPrefix, dedupeKey, lateKey, logKey, next, numberOf } from './keys.ts'
import { floor, raiseFloor } from './numbers.ts'
import { readPage } from './pages.ts'

// Rows of one step, before others have their turn.
const batch = 250
const firstTime = -62_167_219_200_000

/** One collection of archives. */
export class LmdbArchive<T extends Doc> implements Archive<T> {
  readonly #env: Env
  readonly #catalogue: Catalogue
  readonly #heads: Heads
  readonly #place: string
  readonly #now: () => number
  readonly #text: (doc: T) => string | undefined

  constructor(
    env: Env,
    catalogue: Catalogue,
    heads: Heads,
    opts: { readonly now: () => number; readonly text: (doc: T) => string | undefined },
    host: string,
    module: string,
    name: string,
  ) {
    this.#env = env
    this.#catalogue = catalogue
    this.#heads = heads
    this.#now = opts.now
    this.#text = opts.text
    this.#place = place(host, module, 'archive', name)
  }

  async append(
    owner: string,
    entry: { readonly at: Date; readonly with: string; readonly doc: T; readonly dedupe?: string },
  ): Promise<{ readonly id: string; readonly duplicate: boolean }> {
    checkOwner(owner)
    checkTime(entry.at)
    checkKey(entry.with, 'with')
    const { with: peer, dedupe } = entry
    if (dedupe !== undefined) checkKey(dedupe, 'dedupe key')
    const at = entry.at.getTime()
    const bytes = encodeEntry(at, peer, dedupe, entry.doc)
    return await this.#env.write(() => {
      const collection = this.#catalogue.make(this.#place, []).number
      const head = this.#heads.get(collection, owner) ?? this.#newHead(collection)
      if (dedupe !== undefined) {
        const first = this.#env.tables.aux.get(dedupeKey(head.archive, dedupe))
        if (first !== undefined) return { id: idOf(numberOf(first)), duplicate: true }
      }
      const stray = isStray(head, at, this.#now())
      if (!stray) head.high = at
      head.last += 1
      head.count += 1
      if (stray) head.strays += 1
      placeEntry(bytes, head.high, stray)
      const line: Line = { at, high: head.high, stray, with: peer, dedupe, docAt: 0 }
      putEntry(this.#env, head.archive, head.last, bytes, line)
      this.#heads.set(collection, owner, head)
      return { id: idOf(head.last), duplicate: false }
    }, bytes.length + 200)
  }

  async page(owner: string, q: Query): Promise<Page<T>> {
    checkOwner(owner)
    checkQuery(q)
    const head = this.#env.read(() => this.#head(owner)?.head)
    return await readPage(this.#env, head, q, this.#text)
  }

  async replace(owner: string, id: string, doc: T): Promise<boolean> {
    checkOwner(owner)
    const bytes = encodeDoc(doc, 0)
    return await this.#env.write(() => {
      const head = this.#head(owner)?.head
      if (head === undefined) return false
      const key = logKey(head.archive, numberIn(id))
      const stored = this.#env.tables.log.get(key)
      if (stored === undefined) return false
      this.#env.tables.log.put(key, withDoc(stored, bytes))
      return true
    }, bytes.length)
  }

  async remove(owner: string, q: Removal): Promise<number> {
    checkOwner(owner)
    checkRemoval(q)
    const { ids, until: at, before, keepLast } = q
    if ([ids, at, before, keepLast].every((one) => one === undefined)) return 0
    // What is appended meanwhile stays.
    const last = this.#env.read(() => {
      const head = this.#head(owner)?.head
      return head === undefined ? 0 : lastToGo(this.#env, head, keepLast ?? 0, before)
    })
    const until = at?.getTime() ?? Number.POSITIVE_INFINITY
    if (ids !== undefined) return await this.#removeIds(owner, ids, until, last)
    const inOrder = await this.#removeOldest(owner, until, last)
    return inOrder + (at === undefined ? 0 : await this.#removeStrays(owner, until, last))
  }

  async *owners(): AsyncIterable<string> {
    let start: Buffer | undefined
    for (;;) {
      const owners: string[] = []
      const more = this.#env.read(() => {
        const collection = this.#catalogue.find(this.#place)
        if (collection === undefined) return false
        const all = collectionPrefix(collection.number)
        let rows = 0
        this.#env.tables.heads.range({ start: start ?? all, end: after(all), limit: batch }, (key, value) => {
          rows += 1
          start = next(key)
          if (parseHead(value).count > 0) owners.push(key.toString('utf8', 4))
        })
        return rows === batch
      })
      yield* owners
      if (!more) return
    }
  }

  #newHead(collection: number): Head {
    // Not from 0 when an owner was dropped: it may be the same one, whose clients remember ids.
    const last = floor(this.#env, collection)
    const archive = this.#catalogue.nextNumber()
    return { archive, last, count: 0, strays: 0, high: Number.NEGATIVE_INFINITY }
  }

  #head(owner: string): { readonly collection: number; readonly head: Head } | undefined {
    const collection = this.#catalogue.find(this.#place)?.number
    const head = collection === undefined ? undefined : this.#heads.get(collection, owner)
    return collection === undefined || head === undefined ? undefined : { collection, head }
  }

  /** One step of a removal: `pick` says which of the lines it sees go. */
  async #step(
    owner: string,
    pick: (head: Head) => readonly (readonly [n: number, line: Line])[],
  ): Promise<number> {
    return await this.#env.write(() => {
      const found = this.#head(owner)
      if (found === undefined) return 0
      const lines = pick(found.head)
      for (const [n, line] of lines) removeEntry(this.#env, found.head, n, line)
      if (lines.length > 0) this.#heads.set(found.collection, owner, found.head)
      return lines.length
    }, batch * 300)
  }

  async #removeIds(owner: string, ids: readonly string[], until: number, last: number): Promise<number> {
    const numbers = [...new Set(ids.map(numberIn))].filter((n) => n > 0 && n <= last)
    let count = 0
    for (let i = 0; i < numbers.length; i += batch) {
      count += await this.#step(owner, (head) =>
        numbers.slice(i, i + batch).flatMap((n) => {
          const stored = this.#env.tables.log.get(logKey(head.archive, n))
          const line = stored === undefined ? undefined : parseLine(stored)
          return line !== undefined && line.at <= until ? [[n, line] as const] : []
        }),
      )
    }
    return count
  }

  // From the first entry on, as long as the times that only grow are not over `until`.
  async #removeOldest(owner: string, until: number, last: number): Promise<number> {
    let count = 0
    let from = 0
    for (let more = true; more; ) {
      more = false
      count += await this.#step(owner, (head) => {
        const lines: (readonly [number, Line])[] = []
        let seen = 0
        const range = { start: logKey(head.archive, from), end: logKey(head.archive, last + 1), limit: batch }
        this.#env.tables.log.range(range, (key, value) => {
          const line = parseLine(value)
          if (!line.stray && line.at > until) {
            more = false
            return false
          }
          seen += 1
          more = seen === batch
          from = numberOf(key) + 1
          if (line.at <= until) lines.push([numberOf(key), line])
          return true
        })
        return lines
      })
    }
    return count
  }

  async #removeStrays(owner: string, until: number, last: number): Promise<number> {
    let count = 0
    let start: Buffer | undefined
    for (let more = until >= firstTime; more; ) {
      more = false
      count += await this.#step(owner, (head) => {
        const from = start ?? lateKey(head.archive, firstTime, 0)
        const end = lateKey(head.archive, Math.min(until, 8.64e15), 2 ** 48 - 1)
        const keys = this.#env.tables.aux.keys({ start: from, end, limit: batch })
        more = keys.length === batch
        start = keys.at(-1) === undefined ? from : next(keys.at(-1) ?? from)
        return keys.flatMap((key) => {
          const n = numberOf(key)
          const stored = n <= last ? this.#env.tables.log.get(logKey(head.archive, n)) : undefined
          return stored === undefined ? [] : [[n, parseLine(stored)] as const]
        })
      })
    }
    return count
  }
}

/** Number of the newest entry that may go when the newest `keep`, and all from `before` on, stay; 0: none. */
function lastToGo(env: Env, head: Head, keep: number, before: string | undefined): number {
  const last = before === undefined ? head.last : Math.max(0, Math.min(head.last, numberIn(before) - 1))
  if (keep === 0) return last
  if (keep >= head.count) return 0
  const start = logKey(head.archive, 0)
  const end = logKey(head.archive, head.last + 1)
  const [key] = env.tables.log.keys({ start, end, limit: 1, reverse: true, offset: keep })
  return key === undefined ? 0 : Math.min(last, numberOf(key))
}

/** Deletes the archive of an owner, some entries at a time; their number. */
export async function dropArchive(
  env: Env,
  catalogue: Catalogue,
  heads: Heads,
  at: string,
  owner: string,
): Promise<number> {
  let count = 0
  for (;;) {
    const removed = await env.write(() => {
      const collection = catalogue.find(at)?.number
      const head = collection === undefined ? undefined : heads.get(collection, owner)
      if (collection === undefined || head === undefined) return 0
      const lines: (readonly [number, Line])[] = []
      const range = { start: logKey(head.archive, 0), end: after(auxPrefix(head.archive)), limit: batch }
      env.tables.log.range(range, (key, value) => {
        lines.push([numberOf(key), parseLine(value)])
      })
      for (const [n, line] of lines) removeEntry(env, head, n, line)
      if (lines.length === batch) heads.set(collection, owner, head)
      else {
        raiseFloor(env, collection, head.last)
        heads.remove(collection, owner)
      }
      return lines.length
    }, batch * 300)
    count += removed
    if (removed < batch) return count
  }
}
