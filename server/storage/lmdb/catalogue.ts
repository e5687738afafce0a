/**
 * What collections a store has: each has a number, under which all its rows are, and, for documents, the list
 * of fields that are in the index. A host has its modules times their collections, so they share the few
 * tables instead of having one each: LMDB wants the number of tables in advance and goes through all of them
 * at the start of each transaction.
 */
import { StoreUnavailable } from '../contract.ts'
import { decodeDoc, encodeDoc } from './codec.ts'
import type { Env } from './env.ts'
import { after } from './keys.ts'

/** Version of the layout of the store. A store that has a later one is not opened. */
export const schema = 1

const kinds = ['docs', 'archive', 'counter', 'lease'] as const
/** Kinds of collections. */
export type Kind = (typeof kinds)[number]

/** One collection as the store has it. */
export interface Collection {
  readonly number: number
  /**
   * Fields in the index, by their number there. `ready`: documents from before the field was declared are in
   * it.
   */
  readonly fields: readonly { readonly name: string; readonly ready: boolean }[]
}

const schemaKey = Buffer.from('schema')
const lastKey = Buffer.from('last')
const changesKey = Buffer.from('changes')

/** The collections of an environment. */
export class Catalogue {
  readonly #env: Env
  readonly #known = new Map<string, Collection>()
  #changes = 0

  constructor(env: Env) {
    this.#env = env
    env.onGroup({
      begin: () => this.#refresh(),
      end: () => undefined,
      // What was made in a transaction that is undone must be made again.
      failed: () => this.#known.clear(),
    })
  }

  /**
   * Checks the version of the layout. Throws StoreUnavailable when a later version of the server wrote it.
   */
  checkSchema(path: string): void {
    const stored = this.#env.read(() => number(this.#env.tables.meta.get(schemaKey)))
    if (stored > schema) {
      throw new StoreUnavailable(
        `the store in ${path} was written by a later version of this server (layout ${stored}, this version knows ${schema}): start that version, or use another folder`,
      )
    }
  }

  /** Stores the version of the layout, in a store that has none. */
  async storeSchema(): Promise<void> {
    const { meta } = this.#env.tables
    await this.#env.write(() => {
      if (number(meta.get(schemaKey)) !== schema) meta.put(schemaKey, bytesOf(schema))
    }, 100)
  }

  /**
   * A collection, or undefined while nothing was ever written to it; within a read or a write. Its number
   * never changes; within a read, fields that another process declared may be missing.
   */
  find(place: string): Collection | undefined {
    const known = this.#known.get(place)
    if (known !== undefined) return known
    const stored = this.#env.tables.meta.get(placeKey(place))
    if (stored === undefined) return undefined
    const found = decodeDoc<Stored>(stored, 0)
    this.#known.set(place, found)
    return found
  }

  /** A collection that has these fields, made when it is not there; within a write. */
  make(place: string, fields: readonly string[]): Collection {
    const found = this.find(place)
    const missing = fields.filter((name) => found?.fields.every((field) => field.name !== name) ?? true)
    if (found !== undefined && missing.length === 0) return found
    const made: Collection = {
      number: found?.number ?? this.nextNumber(),
      // A new collection has no documents from before.
      fields: [...(found?.fields ?? []), ...missing.map((name) => ({ name, ready: found === undefined }))],
    }
    this.#store(place, made)
    return made
  }

  /** Notes that all documents are in the index of these fields; within a write. */
  setReady(place: string, names: readonly string[]): void {
    const found = this.find(place)
    if (found === undefined) return
    const fields = found.fields.map((field) =>
      names.includes(field.name) ? { ...field, ready: true } : field,
    )
    this.#store(place, { ...found, fields })
  }

  /** A number that nothing of this store has had; within a write. */
  nextNumber(): number {
    const { meta } = this.#env.tables
    const next = number(meta.get(lastKey)) + 1
    meta.put(lastKey, bytesOf(next))
    return next
  }

  /** All collections of a host; within a read. */
  ofHost(host: string): readonly { readonly kind: Kind; readonly place: string; readonly number: number }[] {
    const start = placeKey(`${host}\0`)
    const found: { readonly kind: Kind; readonly place: string; readonly number: number }[] = []
    this.#env.tables.meta.range(
      { start, end: after(start), limit: Number.MAX_SAFE_INTEGER },
      (key, value) => {
        const place = key.toString('utf8', 1)
        // The kind is the third of the four names, see place().
        const kind = place.split('\0')[2] as Kind
        found.push({ kind, place, number: decodeDoc<Stored>(value, 0).number })
      },
    )
    return found
  }

  // At the start of a transaction: another process may have made collections or declared fields.
  #refresh(): void {
    const changes = number(this.#env.tables.meta.get(changesKey))
    if (changes === this.#changes) return
    this.#changes = changes
    this.#known.clear()
  }

  #store(place: string, collection: Collection): void {
    const { meta } = this.#env.tables
    this.#changes += 1
    meta.put(placeKey(place), encodeDoc({ number: collection.number, fields: collection.fields }, 0))
    meta.put(changesKey, bytesOf(this.#changes))
    this.#known.set(place, collection)
  }
}

type Stored = { readonly number: number; readonly fields: Collection['fields'] }

/** Name of a collection in the catalogue; no part has a NUL. */
export function place(host: string, module: string, kind: Kind, name: string): string {
  return [host, module, kind, name].join('\0')
}

function placeKey(text: string): Buffer {
  return Buffer.from(`c${text}`)
}

/** A whole number as the value of a row. */
export function bytesOf(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(8)
  bytes.writeDoubleBE(value)
  return bytes
}

/** The number in the value of a row, 0 when there is none. */
export function number(bytes: Buffer | undefined): number {
  return bytes?.readDoubleBE(0) ?? 0
}
