/** Removing archive entries so that their numbers stay taken: tombstones first, then the floor (see archive-rows.ts). */
import type { AnyBulkWriteOperation, Filter } from 'mongodb'
import type { Removal } from '../contract.ts'
import { entryKey, numberOf, readFloor, readHighest } from './archive-rows.ts'
import type { ArchiveRows, OwnerKeys } from './archive-rows.ts'
import type { Row } from './connection.ts'
import { isDuplicate } from './connection.ts'
import { below, entryNumber } from './keys.ts'

// In pieces: each ends within the time limit, however much there is.
const pieceSize = 500
// COMPAT(FerretDB 1): an update command with a hundred changes of documents that exist never ends.
const tombstones = 50
const maxTries = 5

/** Removes entries; resolves to their number. */
export async function removeEntries(archive: ArchiveRows, keys: OwnerKeys, q: Removal): Promise<number> {
  const { connection, rows } = archive
  let floor = await readFloor(archive, keys)
  const highest = await lastToGo(archive, keys, q)
  if (highest <= floor) return 0
  let count = 0
  if (q.ids === undefined) {
    const settled = await lastSettled(archive, keys, floor, highest, q.until)
    if (settled > floor) {
      await setFloor(archive, keys, settled)
      count += await sweep(archive, keys, settled)
      floor = settled
    }
  }
  const until: Filter<Row> = q.until === undefined ? {} : { o: keys.owner, t: { $lte: q.until } }
  for (const range of pieces(keys, floor, highest, q.ids)) {
    for (;;) {
      const found = await connection.find(
        rows,
        { ...until, ...range, g: { $exists: false } },
        { limit: tombstones, projection: { _id: 1 } },
      )
      if (found.length > 0) count += await bury(archive, found)
      if (found.length < tombstones) break
    }
  }
  await raiseFloor(archive, keys, floor)
  return count
}

/** Up to where everything goes, and was written long enough ago to go in one step. */
async function lastSettled(
  archive: ArchiveRows,
  keys: OwnerKeys,
  floor: number,
  highest: number,
  until: Date | undefined,
): Promise<number> {
  const first = async (condition: Filter<Row>, last: number): Promise<number> => {
    const [row] = await archive.connection.find(
      archive.rows,
      { _id: { $gt: entryKey(keys, floor), $lte: entryKey(keys, last) }, ...condition },
      { limit: 1, projection: { _id: 1 } },
    )
    return row === undefined ? last : numberOf(row) - 1
  }
  // Tombstones have neither time, so they are in nobody's way.
  const last = until === undefined ? highest : await first({ t: { $gt: until } }, highest)
  return last <= floor ? floor : first({ c: { $gt: Date.now() - archive.connection.settleMs } }, last)
}

/** The highest number that may go, given what must stay; 0: none. */
async function lastToGo(archive: ArchiveRows, keys: OwnerKeys, q: Removal): Promise<number> {
  const last = await lastBut(archive, keys, q.keepLast)
  return q.before === undefined ? last : Math.min(last, (entryNumber(q.before) ?? 0) - 1)
}

async function lastBut(archive: ArchiveRows, keys: OwnerKeys, keepLast: number | undefined): Promise<number> {
  // What is appended from now on stays.
  if (keepLast === undefined || keepLast === 0) return readHighest(archive, keys)
  const [row] = await archive.connection.find(
    archive.rows,
    { _id: below(keys.prefix), g: { $exists: false } },
    { limit: 1, sort: { _id: -1 }, skip: keepLast, projection: { _id: 1 } },
  )
  return row === undefined ? 0 : numberOf(row)
}

function pieces(
  keys: OwnerKeys,
  floor: number,
  highest: number,
  ids: readonly string[] | undefined,
): readonly Filter<Row>[] {
  if (ids === undefined) return [{ _id: { $gt: entryKey(keys, floor), $lte: entryKey(keys, highest) } }]
  const wanted = new Set<string>()
  for (const id of ids) {
    const n = entryNumber(id)
    if (n !== undefined && n > floor && n <= highest) wanted.add(entryKey(keys, n))
  }
  const all = [...wanted]
  const filters: Filter<Row>[] = []
  for (let i = 0; i < all.length; i += pieceSize) filters.push({ _id: { $in: all.slice(i, i + pieceSize) } })
  return filters
}

/** Makes tombstones of entries; resolves to the number of those that were none yet. */
async function bury({ connection, rows }: ArchiveRows, found: readonly Row[]): Promise<number> {
  const operations = found.map(
    ({ _id }): AnyBulkWriteOperation<Row> => ({
      updateOne: {
        filter: { _id },
        update: {
          // The dedupe key is free again; a tombstone changes no more, so that it is counted once.
          $set: { g: true, k: `g/${_id}` },
          $unset: { r: '', o: '', w: '', t: '', c: '', s: '', d: '', O: '', W: '' },
        },
      },
    }),
  )
  const { modifiedCount } = await connection.run((opts) =>
    rows.bulkWrite(operations, { ordered: false, ...opts }),
  )
  return modifiedCount
}

/** Moves the floor up to the oldest entry and deletes the tombstones below. */
async function raiseFloor(archive: ArchiveRows, keys: OwnerKeys, floor: number): Promise<void> {
  const { connection, rows } = archive
  // In this order: all up to `highest` are taken for ever, so none can come to life behind the oldest found.
  const highest = await readHighest(archive, keys)
  const [oldest] = await connection.find(
    rows,
    { _id: { $gt: entryKey(keys, floor), $lt: below(keys.prefix).$lt }, g: { $exists: false } },
    { limit: 1, projection: { _id: 1 } },
  )
  const next = oldest === undefined ? highest : Math.min(highest, numberOf(oldest) - 1)
  if (next <= floor) return
  await setFloor(archive, keys, next)
  await sweep(archive, keys, next)
}

/** Deletes what is at or below the floor; resolves to the number of entries among it. */
async function sweep({ connection, rows }: ArchiveRows, keys: OwnerKeys, floor: number): Promise<number> {
  let count = 0
  let from = keys.prefix
  for (;;) {
    const range = { _id: { $gt: from, $lte: entryKey(keys, floor) } }
    const page = await connection.find(rows, range, { limit: pieceSize, projection: { g: 1, c: 1 } })
    const settled = Date.now() - connection.settleMs
    // A dead entry belongs to a writer that is about to move it, unless that is long ago.
    const old = page.filter((row) => row['g'] !== true && Number(row['c']) <= settled).map(({ _id }) => _id)
    const dead = page.filter((row) => row['g'] === true).map(({ _id }) => _id)
    if (old.length > 0) {
      const filter = { _id: { $in: old }, g: { $exists: false } }
      count += (await connection.run((opts) => rows.deleteMany(filter, opts))).deletedCount
    }
    if (dead.length > 0) await connection.run((opts) => rows.deleteMany({ _id: { $in: dead } }, opts))
    const last = page.at(-1)
    if (last === undefined || page.length < pieceSize) return count
    from = last._id
  }
}

async function setFloor({ connection, rows }: ArchiveRows, keys: OwnerKeys, floor: number): Promise<void> {
  const change = { $max: { f: floor }, $setOnInsert: { k: `h/${keys.head}` } }
  for (let tries = 1; ; tries += 1) {
    try {
      await connection.run((opts) => rows.updateOne({ _id: keys.head }, change, { upsert: true, ...opts }))
      return
    } catch (error) {
      // Two made the head at the same time: the second finds it when it tries again.
      if (!isDuplicate(error) || tries === maxTries) throw error
    }
  }
}

/** Removes all of an owner; resolves to the number of entries. */
export async function purgeArchive(archive: ArchiveRows, keys: OwnerKeys): Promise<number> {
  const count = await removeEntries(archive, keys, { keepLast: 0 })
  const { connection, rows } = archive
  const floor = await readFloor(archive, keys)
  // What a process left that ended between insert and the look at the floor: nobody sees it, but it is the owner's.
  await connection.run((opts) =>
    rows.deleteMany({ _id: { $gte: keys.prefix, $lte: entryKey(keys, floor) } }, opts),
  )
  return count
}
