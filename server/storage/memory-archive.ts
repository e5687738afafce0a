/**
 * The archive of the reference driver: one array per owner, every question answered by looking at all of it.
 */
import { UnknownEntry } from './contract.ts'
import type { Archive, Doc, Entry, Page, Query, Removal } from './contract.ts'
import { checkKey, checkOwner, checkQuery, checkRemoval, checkTime, copyDoc } from './limits.ts'
import { matcher } from './words.ts'

/** What `purgeOwner` needs of a collection. */
export interface Collection {
  /** Deletes what an owner has; the number of documents or entries. */
  drop(owner: string): number
}

interface Kept<T> extends Entry<T> {
  readonly dedupe: string | undefined
}

/** One archive collection. */
export class MemoryArchive<T extends Doc> implements Archive<T>, Collection {
  readonly #check: () => void
  readonly #text: (doc: T) => string | undefined
  readonly #owners = new Map<string, { entries: Kept<T>[]; readonly dedupe: Map<string, string> }>()
  // One number for all owners: it outlives them, so an id never comes back.
  #last = 0

  constructor(check: () => void, text: (doc: T) => string | undefined) {
    this.#check = check
    this.#text = text
  }

  async append(
    owner: string,
    entry: { readonly at: Date; readonly with: string; readonly doc: T; readonly dedupe?: string },
  ): Promise<{ readonly id: string; readonly duplicate: boolean }> {
    this.#enter(owner)
    checkTime(entry.at)
    checkKey(entry.with, 'with')
    const { dedupe } = entry
    if (dedupe !== undefined) checkKey(dedupe, 'dedupe key')
    const doc = copyDoc(entry.doc)
    let log = this.#owners.get(owner)
    if (log === undefined) this.#owners.set(owner, (log = { entries: [], dedupe: new Map<string, string>() }))
    const first = dedupe === undefined ? undefined : log.dedupe.get(dedupe)
    if (first !== undefined) return { id: first, duplicate: true }
    this.#last += 1
    const id = this.#last.toString(36).padStart(11, '0')
    log.entries.push({ id, at: new Date(entry.at), with: entry.with, doc, dedupe })
    if (dedupe !== undefined) log.dedupe.set(dedupe, id)
    return { id, duplicate: false }
  }

  async page(owner: string, q: Query): Promise<Page<T>> {
    this.#enter(owner)
    checkQuery(q)
    const entries = this.#owners.get(owner)?.entries ?? []
    for (const id of [q.after, q.before]) {
      // XEP-0059 §2: an item that is not there is an error, not an empty page.
      if (id !== undefined && !entries.some((entry) => entry.id === id))
        throw new UnknownEntry(`no entry ${id}`)
    }
    const ids = q.ids === undefined ? undefined : new Set(q.ids)
    const hasText = q.text === undefined ? undefined : matcher(q.text)
    const matches = ({ id, at, with: peer, doc }: Kept<T>): boolean =>
      (ids === undefined || ids.has(id)) &&
      (q.with === undefined || q.with === peer) &&
      (q.start === undefined || at >= q.start) &&
      (q.end === undefined || at <= q.end) &&
      (hasText === undefined || hasText(this.#text(doc) ?? ''))
    const between = entries.filter(
      ({ id }) => (q.after === undefined || id > q.after) && (q.before === undefined || id < q.before),
    )
    const effort = q.effort ?? between.length
    const looked =
      q.from === 'first' ? between.slice(0, effort) : between.slice(Math.max(0, between.length - effort))
    const inside = looked.filter(matches)
    const page = q.from === 'first' ? inside.slice(0, q.limit) : inside.slice(-q.limit)
    const isFull = page.length < inside.length
    const reached =
      isFull || looked.length === between.length ? undefined : looked.at(q.from === 'first' ? -1 : 0)
    return {
      entries: page.map(({ id, at, with: peer, doc }) => ({
        id,
        at: new Date(at),
        with: peer,
        doc: copyDoc(doc),
      })),
      complete: !isFull && reached === undefined,
      ...(q.count === true ? { count: entries.filter(matches).length } : {}),
      ...(reached === undefined ? {} : { reached: reached.id }),
    }
  }

  async replace(owner: string, id: string, doc: T): Promise<boolean> {
    this.#enter(owner)
    const copy = copyDoc(doc)
    const entries = this.#owners.get(owner)?.entries ?? []
    const at = entries.findIndex((entry) => entry.id === id)
    const old = entries[at]
    if (old === undefined) return false
    entries[at] = { ...old, doc: copy }
    return true
  }

  async remove(owner: string, q: Removal): Promise<number> {
    this.#enter(owner)
    checkRemoval(q)
    const { ids, until, before, keepLast } = q
    const log = this.#owners.get(owner)
    if (log === undefined || [ids, until, before, keepLast].every((one) => one === undefined)) return 0
    const wanted = ids === undefined ? undefined : new Set(ids)
    const count = log.entries.length
    log.entries = log.entries.filter((entry, place) => {
      const goes =
        (wanted === undefined || wanted.has(entry.id)) &&
        (until === undefined || entry.at <= until) &&
        (before === undefined || entry.id < before) &&
        (keepLast === undefined || place < count - keepLast)
      if (goes && entry.dedupe !== undefined) log.dedupe.delete(entry.dedupe)
      return !goes
    })
    const left = log.entries.length
    if (left === 0) this.#owners.delete(owner)
    return count - left
  }

  async *owners(): AsyncIterable<string> {
    this.#check()
    for (const owner of Array.from(this.#owners.keys())) if (this.#owners.has(owner)) yield owner
  }

  drop(owner: string): number {
    const count = this.#owners.get(owner)?.entries.length ?? 0
    this.#owners.delete(owner)
    return count
  }

  #enter(owner: string): void {
    this.#check()
    checkOwner(owner)
  }
}
