/**
 * Documents in the database: `{ _id: 'host/owner/key', v: version, d: the document }`, `o` and `k` with the full owner and
 * key where `_id` has a hash of their tail. Declared fields have an index `{ d.FIELD, _id }` of all hosts.
 */
import type { Collection, Document, Filter } from 'mongodb'
import type { Doc, Docs } from '../contract.ts'
import { checkKey, checkName, checkOwner, copyDoc } from '../limits.ts'
import type { Connection, Row } from './connection.ts'
import { below, docKey, hostPrefix, isCut, ownerKey, ownerOf, part } from './keys.ts'
import { fieldName, fromStored, toStored } from './values.ts'
import type { Stored, Writes } from './writes.ts'

const pageSize = 100
const deleteSize = 500

/** What all hosts share of one collection. */
export interface DocsRows {
  readonly connection: Connection
  readonly name: string
  readonly rows: Collection<Row>
  readonly writes: Writes
}

/** The documents of one host. */
export class MongoDocs<T extends Doc> implements Docs<T> {
  readonly #shared: DocsRows
  readonly #host: string
  readonly #fields = new Set<string>()

  constructor(shared: DocsRows, host: string) {
    this.#shared = shared
    this.#host = host
  }

  /** Makes the index of a field; `find` waits for it. */
  declare(field: string): void {
    checkName('index field', field)
    if (this.#fields.has(field)) return
    this.#fields.add(field)
    // A failure comes up again in `find`, which tries once more.
    this.#index(field).catch(() => undefined)
  }

  async get(owner: string, key: string): Promise<T | undefined> {
    const id = this.#id(owner, key)
    const { connection, rows } = this.#shared
    const row = await connection.run((opts) => rows.findOne({ _id: id }, opts))
    return row === null ? undefined : docOf<T>(row)
  }

  async put(owner: string, key: string, doc: T): Promise<void> {
    const id = this.#id(owner, key)
    await this.#shared.writes.put(id, this.#stored(owner, key, copyDoc(doc)))
  }

  async update(
    owner: string,
    key: string,
    fn: (old: T | undefined) => T | undefined,
  ): Promise<T | undefined> {
    const id = this.#id(owner, key)
    let result: T | undefined
    await this.#shared.writes.update(id, (old) => {
      const next = fn(old === undefined ? undefined : docOf<T>(old))
      result = next === undefined ? undefined : copyDoc(next)
      return result === undefined ? undefined : this.#stored(owner, key, result)
    })
    return result
  }

  async delete(owner: string, key: string): Promise<boolean> {
    return this.#shared.writes.delete(this.#id(owner, key))
  }

  async *list(owner: string, afterKey?: string): AsyncIterable<readonly [key: string, doc: T]> {
    const prefix = docKey(this.#owner(owner), '')
    let range: Filter<Row> = { _id: below(prefix) }
    if (afterKey !== undefined) {
      range = { _id: { $gt: this.#id(owner, afterKey), $lt: below(prefix).$lt } }
    }
    for await (const row of this.#pages(range, below(prefix).$lt)) yield [keyOf(row, prefix), docOf<T>(row)]
  }

  async *find(field: keyof T & string, value: string): AsyncIterable<readonly [string, string, T]> {
    this.#shared.connection.check()
    if (!this.#fields.has(field)) throw new RangeError(`no index on ${field} is declared`)
    await this.#index(field)
    const all = below(hostPrefix(this.#host))
    for await (const row of this.#pages({ [`d.${fieldName(field)}`]: value, _id: all }, all.$lt)) {
      const doc = docOf<T>(row)
      // The database also finds the value inside of a list.
      if (doc[field] === value) yield [...placeOf(row), doc]
    }
  }

  async *owners(): AsyncIterable<string> {
    const { connection, rows } = this.#shared
    const all = below(hostPrefix(this.#host))
    let from: string = all.$gte
    let given: string | undefined
    for (;;) {
      connection.check()
      const range = { _id: { $gte: from, $lt: all.$lt } }
      const page = await connection.find(rows, range, { limit: pageSize, projection: { _id: 1, o: 1 } })
      for (const row of page) {
        // Of an owner with many documents only the first is read, and at most one page of the others.
        if (given !== undefined && row._id.startsWith(given)) continue
        given = row._id.slice(0, row._id.indexOf('/', all.$gte.length) + 1)
        from = below(given).$lt
        yield placeOf(row)[0]
      }
      if (page.length < pageSize) return
    }
  }

  async purge(owner: string): Promise<number> {
    const key = this.#owner(owner)
    return this.#shared.connection.track(purgeDocs(this.#shared.connection, this.#shared.rows, key))
  }

  async *#pages(first: Filter<Row>, end: string): AsyncIterable<Row> {
    const { connection, rows } = this.#shared
    let range = first
    for (;;) {
      connection.check()
      // Pages rather than one long cursor: a cursor dies with its connection, and a slow reader keeps it open.
      const page = await connection.find(rows, range, { limit: pageSize })
      yield* page
      const last = page.at(-1)
      if (last === undefined || page.length < pageSize) return
      range = { ...first, _id: { $gt: last._id, $lt: end } }
    }
  }

  #index(field: string): Promise<void> {
    return this.#shared.connection.index(this.#shared.name, { [`d.${fieldName(field)}`]: 1, _id: 1 })
  }

  #owner(owner: string): string {
    this.#shared.connection.check()
    checkOwner(owner)
    return ownerKey(this.#host, owner)
  }

  #id(owner: string, key: string): string {
    const prefix = this.#owner(owner)
    checkKey(key)
    return docKey(prefix, key)
  }

  #stored(owner: string, key: string, doc: Doc): Stored {
    const { stored, bytes } = toStored(doc)
    const full = { ...(isCut(owner) ? { o: owner } : {}), ...(part(key) === key ? {} : { k: key }) }
    return { fields: { d: stored, ...full }, bytes }
  }
}

/** Deletes the documents of an owner (an `ownerKey`); resolves to their number. */
export async function purgeDocs(
  connection: Connection,
  rows: Collection<Row>,
  owner: string,
): Promise<number> {
  const all = below(docKey(owner, ''))
  let from: string = all.$gte
  let count = 0
  for (;;) {
    const range = { _id: { $gte: from, $lt: all.$lt } }
    const page = await connection.find(rows, range, { limit: deleteSize, projection: { _id: 1 } })
    const last = page.at(-1)
    if (last === undefined) return count
    // In pieces: each ends within the time limit, however much there is.
    const ids = page.map(({ _id }) => _id)
    const { deletedCount } = await connection.run((opts) => rows.deleteMany({ _id: { $in: ids } }, opts))
    count += deletedCount
    if (page.length < deleteSize) return count
    from = last._id
  }
}

function docOf<T extends Doc>(row: Document): T {
  return fromStored<T>(row['d'] as Document) // nothing else writes to these collections
}

function keyOf(row: Row, prefix: string): string {
  const full: unknown = row['k']
  return typeof full === 'string' ? full : row._id.slice(prefix.length)
}

function placeOf(row: Row): readonly [owner: string, key: string] {
  const start = row._id.indexOf('/') + 1
  const end = row._id.indexOf('/', start)
  const full: unknown = row['o']
  const owner = typeof full === 'string' ? full : ownerOf(row._id.slice(0, end))
  return [owner, keyOf(row, row._id.slice(0, end + 1))]
}
