/**
 * How an archive lies in the database, and why no id ever appears late or twice, without transactions:
 *
 * An entry is `{ _id: 'host/owner/NUMBER', k: unique, r, o: 'host/owner', w: with, t: time, s: words, d: document, c: when it
 * was made }`, with `O` and `W` for the full owner and correspondent where `o` and `w` have a hash of their tail. It takes
 * the number after the last one; `_id` is unique, so of two writers one must read again. Numbers are inserted in order, so
 * none is missing below one that can be seen. `k` is unique too: made of the dedupe key, else random; who does not know
 * whether an insert was carried out looks for its `k`, or inserts again and is refused. `r` says whose insert it was.
 *
 * A writer that was slow must not fill a number that was removed, so removal first leaves a tombstone `{ _id, k, g: true }`,
 * which keeps the number taken. When all up to some number are tombstones, it becomes the owner's floor, kept in the head
 * `{ _id: host and a hash of the owner, k, f: floor }`; only then tombstones below it are deleted. A number at or below the
 * floor does not count, wherever it comes from: readers read the head after the entries, writers after the insert, and a
 * writer that finds its own entry dead deletes it and takes a new number. Heads outlive their owners, under a hash.
 *
 * What is old and goes without holes needs no tombstones: the floor is raised first, then all below is deleted. Only entries
 * whose writer may still be at work must not go this way: it could not tell an entry that was dead from the start from one
 * that was removed.
 */
import type { Collection } from 'mongodb'
import type { Connection, Row } from './connection.ts'
import { below, entryId, entryNumber, hiddenKey, idOf, ownerKey } from './keys.ts'

/** What all hosts share of one archive collection. */
export interface ArchiveRows {
  readonly connection: Connection
  readonly rows: Collection<Row>
  /** Resolves when the indexes are there. */
  ready(): Promise<unknown>
}

/** Names of what one owner has. */
export interface OwnerKeys {
  /** `host/owner`. */
  readonly owner: string
  /** `host/owner/`, before a number. */
  readonly prefix: string
  /** `_id` of the head. */
  readonly head: string
}

/** The names of an owner. */
export function ownerKeys(host: string, owner: string): OwnerKeys {
  const key = ownerKey(host, owner)
  return { owner: key, prefix: `${key}/`, head: hiddenKey(host, owner) }
}

/** `_id` of the entry with this number. */
export function entryKey(keys: OwnerKeys, n: number): string {
  return `${keys.prefix}${entryId(n)}`
}

/** The number of a stored entry. */
export function numberOf(row: Row): number {
  const n = entryNumber(idOf(row._id))
  if (n === undefined) throw new Error('an entry in the database has no number')
  return n
}

/** The archive of a collection, with its indexes on the way. */
export function archiveRows(connection: Connection, name: string): ArchiveRows {
  const indexes = async (): Promise<void> => {
    await Promise.all([
      connection.index(name, { k: 1 }, { unique: true }),
      connection.index(name, { o: 1, w: 1, _id: 1 }),
      connection.index(name, { o: 1, t: 1, _id: 1 }),
      connection.index(name, { o: 1, s: 1, _id: 1 }),
    ])
  }
  let made: Promise<void> | undefined
  const rows = { connection, rows: connection.rows(name), ready: () => (made ??= attempt()) }
  const attempt = async (): Promise<void> => {
    try {
      await indexes()
    } catch (error) {
      made = undefined
      throw error
    }
  }
  return rows
}

/** The highest number of which nothing counts, up to and including it; 0 when nothing was ever removed. */
export async function readFloor(
  { connection, rows }: ArchiveRows,
  keys: OwnerKeys,
  timeoutMs?: number,
): Promise<number> {
  const head = await connection.run((opts) => rows.findOne({ _id: keys.head }, opts), timeoutMs)
  return floorOf(head ?? undefined)
}

/** The floor in a head. */
export function floorOf(head: Row | undefined): number {
  const floor: unknown = head?.['f']
  return typeof floor === 'number' ? floor : 0
}

/** The highest number that is taken, by an entry or a tombstone; 0 when there is none. */
export async function readHighest(
  { connection, rows }: ArchiveRows,
  keys: OwnerKeys,
  timeoutMs?: number,
): Promise<number> {
  const [last] = await connection.find(
    rows,
    { _id: below(keys.prefix) },
    { limit: 1, sort: { _id: -1 }, projection: { _id: 1 } },
    timeoutMs,
  )
  return last === undefined ? 0 : numberOf(last)
}
