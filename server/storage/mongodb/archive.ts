/** An archive in the database: pages, replacement, owners; how it lies there is told in archive-rows.ts. */
import type { Document, Filter } from 'mongodb'
import { randomBytes } from 'node:crypto'
import { UnknownEntry } from '../contract.ts'
import type { Archive, Doc, Entry, Page, Query, Removal } from '../contract.ts'
import { checkKey, checkOwner, checkQuery, checkRemoval, checkTime, copyDoc } from '../limits.ts'
import { wordsOf } from '../words.ts'
import type { Lanes } from './append.ts'
import { entryKey, floorOf, numberOf, ownerKeys, readFloor } from './archive-rows.ts'
import type { ArchiveRows, OwnerKeys } from './archive-rows.ts'
import type { Row } from './connection.ts'
import { below, entryId, entryNumber, hostPrefix, isCut, ownerOf, part } from './keys.ts'
import { removeEntries } from './removal.ts'
import { fromStored, toStored } from './values.ts'

const ownersPage = 100

/** The archives of one host in one collection. */
export class MongoArchive<T extends Doc> implements Archive<T> {
  readonly #shared: ArchiveRows
  readonly #lanes: Lanes
  readonly #host: string
  readonly #text: (doc: T) => string | undefined

  constructor(shared: ArchiveRows, lanes: Lanes, host: string, text: (doc: T) => string | undefined) {
    this.#shared = shared
    this.#lanes = lanes
    this.#host = host
    this.#text = text
  }

  async append(
    owner: string,
    entry: { readonly at: Date; readonly with: string; readonly doc: T; readonly dedupe?: string },
  ): Promise<{ readonly id: string; readonly duplicate: boolean }> {
    const keys = this.#keys(owner)
    checkTime(entry.at)
    checkKey(entry.with, 'with')
    const { dedupe } = entry
    if (dedupe !== undefined) checkKey(dedupe, 'dedupe key')
    const { fields, bytes } = this.#stored(copyDoc(entry.doc))
    const r = randomBytes(12).toString('base64url')
    const peer = part(entry.with)
    const row = {
      // Owners have no slash in them, so these cannot be taken for each other, nor for the `k` of heads and tombstones.
      k: dedupe === undefined ? `r/${r}` : `d/${keys.owner}/${part(dedupe)}`,
      r,
      o: keys.owner,
      w: peer,
      t: new Date(entry.at),
      c: Date.now(),
      ...fields,
      ...(isCut(owner) ? { O: owner } : {}),
      ...(peer === entry.with ? {} : { W: entry.with }),
    }
    return this.#lanes.append(keys, row, bytes)
  }

  /** `effort` bounds nothing: the words of entries, and all else that a query asks for, are in indexes. */
  async page(owner: string, q: Query): Promise<Page<T>> {
    const keys = this.#keys(owner)
    checkQuery(q)
    const { connection, rows } = this.#shared
    await this.#shared.ready()
    const after = boundOf(q.after)
    const before = boundOf(q.before)
    const filter = filterOf(keys, q)
    const upward = q.from === 'first'
    // An entry at or below the floor is not there: read again without it.
    for (let floor = 0; ; ) {
      const range = idsOf(keys, q.ids, Math.max(floor, after ?? 0), before)
      const found = await connection.find(
        rows,
        { ...filter, _id: range },
        { limit: q.limit + 1, sort: { _id: upward ? 1 : -1 }, projection: { k: 0, r: 0, s: 0, o: 0, c: 0 } },
      )
      const { known, floor: now } = await this.#known(keys, [after, before])
      for (const [id, n] of [
        [q.after, after],
        [q.before, before],
      ] as const) {
        // XEP-0059 §2: an item that is not there is an error, not an empty page.
        if (n !== undefined && (n <= now || !known.has(n))) throw new UnknownEntry(`no entry ${String(id)}`)
      }
      if (found.some((row) => numberOf(row) <= now)) {
        floor = now
        continue
      }
      const page = found.slice(0, q.limit)
      if (!upward) page.reverse()
      const all = { ...filter, _id: idsOf(keys, q.ids, now, undefined) }
      return {
        entries: page.map((row) => entryOf<T>(row)),
        complete: found.length <= q.limit,
        ...(q.count === true ? { count: await this.#count(all) } : {}),
      }
    }
  }

  async replace(owner: string, id: string, doc: T): Promise<boolean> {
    const keys = this.#keys(owner)
    const { fields } = this.#stored(copyDoc(doc))
    const n = entryNumber(id)
    if (n === undefined) return false
    const { s, ...rest } = fields
    const change = s === undefined ? { $set: rest, $unset: { s: '' as const } } : { $set: fields }
    const filter = { _id: entryKey(keys, n), g: { $exists: false } }
    const { connection, rows } = this.#shared
    const { matchedCount } = await connection.track(
      connection.run((opts) => rows.updateOne(filter, change, opts)),
    )
    return matchedCount > 0
  }

  async remove(owner: string, q: Removal): Promise<number> {
    const keys = this.#keys(owner)
    checkRemoval(q)
    if ([q.ids, q.until, q.before, q.keepLast].every((one) => one === undefined)) return 0
    await this.#shared.ready()
    return this.#shared.connection.track(removeEntries(this.#shared, keys, q))
  }

  async *owners(): AsyncIterable<string> {
    const { connection, rows } = this.#shared
    connection.check()
    await this.#shared.ready()
    const all = below(hostPrefix(this.#host))
    let range: Document = all
    for (;;) {
      connection.check()
      const filter = { o: range }
      const page = await connection.find(rows, filter, {
        limit: ownersPage,
        sort: { o: 1 },
        projection: { _id: 0, o: 1, O: 1 },
      })
      let last: unknown
      for (const row of page) {
        const key: unknown = row['o']
        if (typeof key !== 'string' || key === last) continue
        last = key
        const full: unknown = row['O']
        yield typeof full === 'string' ? full : ownerOf(key)
      }
      if (page.length < ownersPage) return
      // Of an owner with many entries at most one page is read.
      range = { $gt: last, $lt: all.$lt }
    }
  }

  #keys(owner: string): OwnerKeys {
    this.#shared.connection.check()
    checkOwner(owner)
    return ownerKeys(this.#host, owner)
  }

  #stored(doc: T): {
    readonly fields: { readonly d: Document; readonly s?: string[] }
    readonly bytes: number
  } {
    const { stored, bytes } = toStored(doc)
    const words = [...wordsOf(this.#text(doc) ?? '')]
    return {
      fields: { d: stored, ...(words.length === 0 ? {} : { s: words }) },
      bytes: bytes + words.length * 16,
    }
  }

  /** The floor, and which of these numbers are entries. */
  async #known(
    keys: OwnerKeys,
    numbers: readonly (number | undefined)[],
  ): Promise<{ readonly known: ReadonlySet<number>; readonly floor: number }> {
    const ids = numbers.filter((n) => n !== undefined && n > 0).map((n) => entryKey(keys, n ?? 0))
    if (ids.length === 0) return { known: new Set(), floor: await readFloor(this.#shared, keys) }
    const { connection, rows } = this.#shared
    const filter = { _id: { $in: [keys.head, ...ids] } }
    const found = await connection.find(rows, filter, { limit: 3, projection: { f: 1, g: 1 } })
    const entries = found.filter((row) => row._id !== keys.head && row['g'] !== true)
    return {
      known: new Set(entries.map(numberOf)),
      floor: floorOf(found.find(({ _id }) => _id === keys.head)),
    }
  }

  async #count(filter: Filter<Row>): Promise<number> {
    const { connection, rows } = this.#shared
    return connection.run((opts) => rows.countDocuments(filter, opts))
  }
}

/** The number of an id that a page starts from; -1 when it is none of ours, which is never stored. */
function boundOf(id: string | undefined): number | undefined {
  return id === undefined ? undefined : (entryNumber(id) ?? -1)
}

/** The conditions of a query, without those on ids. */
function filterOf(keys: OwnerKeys, q: Query): Filter<Row> {
  const words = q.text === undefined ? [] : [...wordsOf(q.text)]
  const time = {
    ...(q.start === undefined ? {} : { $gte: q.start }),
    ...(q.end === undefined ? {} : { $lte: q.end }),
  }
  const conditions = {
    ...(q.with === undefined ? {} : { w: part(q.with) }),
    ...(q.start === undefined && q.end === undefined ? {} : { t: time }),
    ...(words.length === 0 ? {} : { s: { $all: words } }),
  }
  // Tombstones have no owner, so only a query of nothing but ids must pass over them.
  return Object.keys(conditions).length === 0 ? { g: { $exists: false } } : { o: keys.owner, ...conditions }
}

/** The condition on `_id`: above `low`, below `before`, one of `ids`. */
function idsOf(
  keys: OwnerKeys,
  ids: readonly string[] | undefined,
  low: number,
  before: number | undefined,
): Document {
  if (ids === undefined) {
    const high = before === undefined ? below(keys.prefix).$lt : entryKey(keys, Math.max(before, 0))
    return { $gt: entryKey(keys, Math.max(low, 0)), $lt: high }
  }
  const wanted = ids
    .map(entryNumber)
    .filter((n) => n !== undefined && n > low && (before === undefined || n < before))
  return { $in: wanted.map((n) => entryKey(keys, n ?? 0)) }
}

function entryOf<T extends Doc>(row: Row): Entry<T> {
  const at: unknown = row['t']
  const peer: unknown = row['W'] ?? row['w']
  if (!(at instanceof Date) || typeof peer !== 'string')
    throw new Error('an entry in the database is damaged')
  return {
    id: entryId(numberOf(row)),
    at,
    with: peer,
    doc: fromStored<T>(row['d'] as Document), // nothing else writes to these collections
  }
}
