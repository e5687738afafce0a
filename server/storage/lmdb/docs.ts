/** Documents by (owner, key), with their index. */
import type { Doc, Docs } from '../contract.ts'
import { checkKey, checkName, checkOwner } from '../limits.ts'
import { place } from './catalogue.ts'
import type { Catalogue, Collection } from './catalogue.ts'
import { decodeDoc, encodeDoc } from './codec.ts'
import type { Env } from './env.ts'
import {
  after,
  collectionPrefix,
  docKey,
  indexPrefix,
  indexRow,
  isCut,
  keyOf,
  next,
  ownerOf,
  ownerPrefix,
  placeOf,
} from './keys.ts'

// How much is read, or changed in one transaction, before others have their turn.
const batch = 64
const batchBytes = 1024 * 1024
const removeBatch = 250

const nothing: { readonly [field: string]: unknown } = {}

/** One collection of documents. */
export class LmdbDocs<T extends Doc> implements Docs<T> {
  readonly #env: Env
  readonly #catalogue: Catalogue
  readonly #place: string
  readonly #fields: string[] = []
  #indexed: Promise<void> | undefined

  constructor(env: Env, catalogue: Catalogue, host: string, module: string, name: string) {
    this.#env = env
    this.#catalogue = catalogue
    this.#place = place(host, module, 'docs', name)
  }

  /**
   * Adds a field to the index; documents that are there already are added before the next `find` gives
   * anything.
   */
  declare(field: string): void {
    checkName('index field', field)
    if (this.#fields.includes(field)) return
    this.#fields.push(field)
    this.#indexed = undefined
  }

  async get(owner: string, key: string): Promise<T | undefined> {
    check(owner, key)
    return this.#env.read(() => {
      const collection = this.#catalogue.find(this.#place)
      if (collection === undefined) return undefined
      const stored = this.#env.tables.docs.get(docKey(collection.number, owner, key))
      return stored === undefined ? undefined : decode<T>(stored)
    })
  }

  async put(owner: string, key: string, doc: T): Promise<void> {
    check(owner, key)
    const row = docKey(0, owner, key)
    const value = encode(row, key, doc)
    await this.#env.write(() => {
      const collection = this.#make()
      row.writeUInt32BE(collection.number)
      this.#set(collection, row, value)
    }, value.length)
  }

  async update(
    owner: string,
    key: string,
    fn: (old: T | undefined) => T | undefined,
  ): Promise<T | undefined> {
    check(owner, key)
    return await this.#env.write(() => {
      const collection = this.#make()
      const row = docKey(collection.number, owner, key)
      const stored = this.#env.tables.docs.get(row)
      const doc = fn(stored === undefined ? undefined : decode<T>(stored))
      if (doc === undefined) {
        this.#remove(collection, row)
        return undefined
      }
      const value = encode(row, key, doc)
      this.#set(collection, row, value)
      return decode<T>(value)
    }, 1000)
  }

  async delete(owner: string, key: string): Promise<boolean> {
    check(owner, key)
    return await this.#env.write(() => {
      const collection = this.#catalogue.find(this.#place)
      return collection !== undefined && this.#remove(collection, docKey(collection.number, owner, key))
    }, 100)
  }

  async *list(owner: string, afterKey?: string): AsyncIterable<readonly [key: string, doc: T]> {
    check(owner, afterKey ?? '')
    let last: Buffer | undefined
    for (;;) {
      const rows: (readonly [string, T])[] = []
      const more = this.#env.read(() => {
        const collection = this.#catalogue.find(this.#place)
        if (collection === undefined) return false
        const all = ownerPrefix(collection.number, owner)
        if (last === undefined)
          last = afterKey === undefined ? undefined : docKey(collection.number, owner, afterKey)
        const start = last === undefined ? all : next(last)
        return this.#batch(
          start,
          after(all),
          (row, value) => rows.push([nameOf(row, value), decode<T>(value)]),
          (row) => {
            last = row
          },
        )
      })
      yield* rows
      if (!more) return
    }
  }

  async *find(field: keyof T & string, value: string): AsyncIterable<readonly [string, string, T]> {
    if (!this.#fields.includes(field)) throw new RangeError(`no index on ${field} is declared`)
    await this.#index()
    let last: Buffer | undefined
    for (;;) {
      const rows: (readonly [string, string, T])[] = []
      const more = this.#env.read(() => {
        const collection = this.#catalogue.find(this.#place)
        const at = collection?.fields.findIndex(({ name }) => name === field) ?? -1
        if (collection === undefined || at < 0) return false
        const prefix = indexPrefix(collection.number, at, value)
        const places: Buffer[] = []
        const range = { start: last === undefined ? prefix : next(last), end: after(prefix), limit: batch }
        this.#env.tables.index.range(range, (key, stored) => {
          last = key
          places.push(placeOf(prefix, key, stored))
        })
        for (const row of places) {
          const stored = this.#env.tables.docs.get(row)
          const doc = stored === undefined ? undefined : decode<T>(stored)
          if (stored !== undefined && doc !== undefined) rows.push([ownerOf(row), nameOf(row, stored), doc])
        }
        return places.length === batch
      })
      yield* rows
      if (!more) return
    }
  }

  async *owners(): AsyncIterable<string> {
    let start: Buffer | undefined
    for (;;) {
      const owners: string[] = []
      this.#env.read(() => {
        const collection = this.#catalogue.find(this.#place)
        if (collection === undefined) return
        const all = collectionPrefix(collection.number)
        start ??= all
        while (owners.length < batch) {
          const [row] = this.#env.tables.docs.keys({ start, end: after(all), limit: 1 })
          if (row === undefined) return
          owners.push(ownerOf(row))
          // Past all documents of that owner, however many they are.
          start = after(row.subarray(0, 6 + row.readUInt16BE(4)))
        }
      })
      yield* owners
      if (owners.length < batch) return
    }
  }

  async purge(owner: string): Promise<number> {
    checkOwner(owner)
    return await purgeDocs(this.#env, this.#catalogue, this.#place, owner)
  }

  #make(): Collection {
    return this.#catalogue.make(this.#place, this.#fields)
  }

  #set(collection: Collection, row: Buffer, value: Buffer): void {
    const { docs } = this.#env.tables
    if (collection.fields.length > 0) {
      const stored = docs.get(row)
      const old = stored === undefined ? nothing : decode<Doc>(stored)
      reindex(this.#env, collection, row, old, decode<Doc>(value))
    }
    docs.put(row, value)
  }

  #remove(collection: Collection, row: Buffer): boolean {
    return removeDoc(this.#env, collection, row)
  }

  /** Reads rows until there are enough; whether there are more. */
  #batch(
    start: Buffer,
    end: Buffer,
    take: (row: Buffer, value: Buffer) => void,
    passed: (row: Buffer) => void,
  ): boolean {
    let count = 0
    let bytes = 0
    this.#env.tables.docs.range({ start, end, limit: batch }, (row, value) => {
      count += 1
      bytes += value.length
      take(row, value)
      passed(row)
      return bytes < batchBytes
    })
    return count === batch || bytes >= batchBytes
  }

  #index(): Promise<void> {
    this.#indexed ??= this.#buildIndex().catch((error: unknown) => {
      this.#indexed = undefined
      throw error
    })
    return this.#indexed
  }

  // Documents from before a field was declared. Each step may be repeated: a crash in between, or another
  // process doing the same, does no harm.
  async #buildIndex(): Promise<void> {
    let last: Buffer | undefined
    const fields = [...this.#fields]
    for (let more = true; more; ) {
      more = await this.#env.write(() => {
        const collection = this.#catalogue.make(this.#place, fields)
        if (collection.fields.every(({ name, ready }) => ready || !fields.includes(name))) return false
        const all = collectionPrefix(collection.number)
        const rows: (readonly [Buffer, Doc])[] = []
        const left = this.#batch(
          last === undefined ? all : next(last),
          after(all),
          (row, value) => rows.push([row, decode<Doc>(value)]),
          (row) => {
            last = row
          },
        )
        for (const [row, doc] of rows) reindex(this.#env, collection, row, nothing, doc)
        if (!left) this.#catalogue.setReady(this.#place, fields)
        return left
      }, batch * 100)
    }
  }
}

/** Deletes all documents of an owner, some at a time; their number. */
export async function purgeDocs(env: Env, catalogue: Catalogue, at: string, owner: string): Promise<number> {
  let count = 0
  for (;;) {
    const removed = await env.write(() => {
      const collection = catalogue.find(at)
      if (collection === undefined) return 0
      const start = ownerPrefix(collection.number, owner)
      const rows = env.tables.docs.keys({ start, end: after(start), limit: removeBatch })
      for (const row of rows) removeDoc(env, collection, row)
      return rows.length
    }, removeBatch * 100)
    count += removed
    if (removed < removeBatch) return count
  }
}

function removeDoc(env: Env, collection: Collection, row: Buffer): boolean {
  const { docs } = env.tables
  if (collection.fields.length === 0) return docs.remove(row)
  const stored = docs.get(row)
  if (stored === undefined) return false
  reindex(env, collection, row, decode<Doc>(stored), nothing)
  return docs.remove(row)
}

/** Makes the index say what the new document says, not the old one. */
function reindex(
  env: Env,
  collection: Collection,
  row: Buffer,
  old: { readonly [field: string]: unknown },
  doc: { readonly [field: string]: unknown },
): void {
  const { index } = env.tables
  for (const [at, { name }] of collection.fields.entries()) {
    const before = Object.hasOwn(old, name) ? old[name] : undefined
    const now = Object.hasOwn(doc, name) ? doc[name] : undefined
    if (before === now && old !== nothing) continue
    if (typeof before === 'string') index.remove(indexRow(indexPrefix(collection.number, at, before), row)[0])
    if (typeof now === 'string') index.put(...indexRow(indexPrefix(collection.number, at, now), row))
  }
}

function check(owner: string, key: string): void {
  checkOwner(owner)
  checkKey(key)
}

// The value of a row is one byte for its form, then for a key that is cut its length and the whole of it,
// then the document.
const plain = 1
const named = 2

function encode(row: Buffer, key: string, doc: Doc): Buffer {
  const isLong = isCut(row)
  const keyBytes = isLong ? Buffer.byteLength(key) : 0
  const value = encodeDoc(doc, isLong ? 3 + keyBytes : 1)
  value[0] = isLong ? named : plain
  if (isLong) {
    value.writeUInt16BE(keyBytes, 1)
    value.write(key, 3)
  }
  return value
}

function decode<T extends Doc>(value: Buffer): T {
  return decodeDoc<T>(value, value[0] === named ? 3 + value.readUInt16BE(1) : 1)
}

function nameOf(row: Buffer, value: Buffer): string {
  return value[0] === named ? value.toString('utf8', 3, 3 + value.readUInt16BE(1)) : keyOf(row)
}
