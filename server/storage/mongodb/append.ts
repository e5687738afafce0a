/**
 * Appending to an archive: one lane per owner, in which the appends that wait go out together as one ordered insert. Lanes
 * only save round trips; what is right with several processes is the work of the unique keys (see archive-rows.ts).
 */
import { MongoBulkWriteError } from 'mongodb'
import type { Document } from 'mongodb'
import { setTimeout as delay } from 'node:timers/promises'
import { StoreUnavailable } from '../contract.ts'
import { entryKey, numberOf, readFloor, readHighest } from './archive-rows.ts'
import type { ArchiveRows, OwnerKeys } from './archive-rows.ts'
import { isAnswer, writeErrors } from './connection.ts'
import { entryId } from './keys.ts'

/** What an append resolves to. */
export interface Appended {
  readonly id: string
  readonly duplicate: boolean
}

interface Pending {
  /** The entry without its number; `k` and `r` say which insert it is. */
  readonly fields: Document & { readonly k: string; readonly r: string }
  readonly bytes: number
  readonly done: PromiseWithResolvers<Appended>
  /** When it is given up unless the database answers; milliseconds of performance.now(). */
  deadline: number
  tries: number
}

const maxBatch = 200
const maxBatchBytes = 8 * 1024 * 1024
const maxTries = 500
const patience = 20
const maxRemembered = 10_000

/** The lanes of one collection. */
export class Lanes {
  readonly #archive: ArchiveRows
  readonly #lanes = new Map<string, Lane>()
  // The last number each owner had, as far as this process knows; the oldest is forgotten first.
  readonly #last = new Map<string, number>()

  constructor(archive: ArchiveRows) {
    this.#archive = archive
  }

  /** Appends an entry; rejects with {@link StoreUnavailable} when the database stays away: it may be stored or not then. */
  append(keys: OwnerKeys, fields: Pending['fields'], bytes: number): Promise<Appended> {
    const { connection } = this.#archive
    connection.admit(bytes)
    const running = this.#lanes.get(keys.owner)
    if (running !== undefined) return connection.track(running.append(fields, bytes), bytes)
    const lane = new Lane(this.#archive, keys, this.#last.get(keys.owner))
    this.#lanes.set(keys.owner, lane)
    const result = connection.track(lane.append(fields, bytes), bytes)
    void connection.track(lane.run(() => this.#idle(keys.owner, lane.last)))
    return result
  }

  #idle(owner: string, last: number | undefined): void {
    this.#lanes.delete(owner)
    this.#last.delete(owner)
    if (last !== undefined) this.#last.set(owner, last)
    const oldest = this.#last.keys().next()
    if (this.#last.size > maxRemembered && oldest.done !== true) this.#last.delete(oldest.value)
  }
}

class Lane {
  readonly #archive: ArchiveRows
  readonly #keys: OwnerKeys
  readonly #queue: Pending[] = []
  readonly #byKey = new Map<string, Pending>()
  #maxBatch = maxBatch
  /** Whether entries of the queue may be stored without our knowing it. */
  #unsure = false
  /** The last number taken, as far as known. It may be wrong: then the insert is refused or found dead. */
  last: number | undefined

  constructor(archive: ArchiveRows, keys: OwnerKeys, last: number | undefined) {
    this.#archive = archive
    this.#keys = keys
    this.last = last
  }

  append(fields: Pending['fields'], bytes: number): Promise<Appended> {
    const same = this.#byKey.get(fields.k)
    if (same !== undefined) return same.done.promise.then(({ id }) => ({ id, duplicate: true }))
    const deadline = performance.now() + this.#archive.connection.timeoutMs
    const pending: Pending = { fields, bytes, done: Promise.withResolvers(), deadline, tries: 0 }
    this.#queue.push(pending)
    this.#byKey.set(fields.k, pending)
    return pending.done.promise
  }

  /** Works until the queue is empty, then calls `idle` before anything else can be appended; never rejects. */
  async run(idle: () => void): Promise<void> {
    // What else is appended in this turn of the event loop goes along.
    await new Promise<void>((resolve) => {
      setImmediate(resolve)
    })
    for (let failures = 0; this.#queue.length > 0; ) {
      try {
        await this.#archive.ready()
        if (await this.#round()) failures = 0
        else {
          failures += 1
          // Another process was first; apart from it the next time.
          await delay(Math.random() * Math.min(5 * failures, 100))
        }
      } catch (error) {
        failures += 1
        this.#unsure = true
        this.#giveUp(error)
        if (this.#queue.length > 0) await delay(Math.random() * Math.min(50 * failures, 500))
      }
    }
    idle()
  }

  /** One insert with what belongs to it; false when another writer was in the way. */
  async #round(): Promise<boolean> {
    if (this.#unsure) await this.#find()
    const batch = this.#next()
    if (batch.length === 0) return true
    this.last ??= await this.#readLast()
    const first = this.last + 1
    const entries = batch.map((pending, i) => ({ _id: entryKey(this.#keys, first + i), ...pending.fields }))
    const { connection, rows } = this.#archive
    this.#unsure = true
    try {
      await connection.run((opts) => rows.insertMany(entries, { ordered: true, ...opts }), this.#limitMs())
    } catch (error) {
      if (!isAnswer(error)) throw error
      return this.#refused(batch, error)
    }
    this.#maxBatch = maxBatch
    this.last = first + batch.length - 1
    const floor = await readFloor(this.#archive, this.#keys, this.#limitMs())
    for (const [i, pending] of batch.entries()) {
      // The number was removed before this insert: the entry is dead, it takes another one. If it is not there any more,
      // it was alive and has been removed since.
      if (first + i <= floor && (await this.#bury(entryKey(this.#keys, first + i), pending)))
        this.last = undefined
      else this.#settle(pending, { id: entryId(first + i), duplicate: false })
    }
    this.#unsure = false
    return true
  }

  /** Deletes a dead entry; whether it was there. */
  async #bury(id: string, { fields }: Pending): Promise<boolean> {
    const { connection, rows } = this.#archive
    // Tombstones have another `k`.
    const { deletedCount } = await connection.run(
      (opts) => rows.deleteOne({ _id: id, k: fields.k }, opts),
      this.#limitMs(),
    )
    return deletedCount > 0
  }

  /** Time that the oldest entry has left, not less than a command needs. */
  #limitMs(): number {
    const deadline = this.#queue[0]?.deadline ?? 0
    return Math.max(100, Math.ceil(deadline - performance.now()))
  }

  /** Oldest first, as many as fit. */
  #next(): readonly Pending[] {
    let bytes = 0
    const batch: Pending[] = []
    for (const pending of this.#queue) {
      bytes += pending.bytes
      if (batch.length > 0 && (bytes > maxBatchBytes || batch.length >= this.#maxBatch)) break
      batch.push(pending)
    }
    return batch
  }

  /** The database answered that it did not insert all. */
  #refused(batch: readonly Pending[], error: unknown): boolean {
    const [first] = error instanceof MongoBulkWriteError ? writeErrors(error) : []
    if (first === undefined) {
      // Refused as a whole; which entry is to blame shows when they go one by one.
      const [pending] = batch
      if (batch.length === 1 && pending !== undefined) this.#fail(pending, error)
      this.#maxBatch = 1
      return false
    }
    this.#maxBatch = maxBatch
    this.last = undefined
    for (const pending of batch) {
      // It answers, so this is not a matter of time.
      pending.deadline = performance.now() + this.#archive.connection.timeoutMs
    }
    const culprit = batch[first.index]
    if (culprit === undefined) return false
    culprit.tries += 1
    if (first.code !== 11_000)
      this.#fail(culprit, new Error(`an entry was refused: ${first.errmsg ?? first.code}`))
    else if (culprit.tries >= maxTries)
      this.#fail(culprit, new Error('an archive had too many writers at once'))
    return false
  }

  /** Settles what is stored already, by us or as an earlier entry with the same dedupe key. */
  async #find(): Promise<void> {
    const { connection, rows } = this.#archive
    const batch = this.#next()
    const stored = await connection.find(
      rows,
      { k: { $in: batch.map(({ fields }) => fields.k) } },
      { limit: batch.length, sort: { k: 1 }, projection: { k: 1, r: 1 } },
      this.#limitMs(),
    )
    const floor = await readFloor(this.#archive, this.#keys, this.#limitMs())
    for (const row of stored) {
      const pending = this.#byKey.get(String(row['k']))
      if (pending === undefined) continue
      const n = numberOf(row)
      const ours = row['r'] === pending.fields.r
      if (n > floor) this.#settle(pending, { id: entryId(n), duplicate: !ours })
      // Dead from the start. Who inserted it is about to find out and to insert it again, unless its process has ended.
      else if (ours || pending.tries > patience) await this.#bury(row._id, pending)
    }
    this.last = undefined
    this.#unsure = false
  }

  async #readLast(): Promise<number> {
    const [highest, floor] = await Promise.all([
      readHighest(this.#archive, this.#keys, this.#limitMs()),
      readFloor(this.#archive, this.#keys, this.#limitMs()),
    ])
    return Math.max(highest, floor)
  }

  /** The database did not answer: rejects those that have waited long enough. */
  #giveUp(error: unknown): void {
    const now = performance.now()
    const late =
      error instanceof StoreUnavailable
        ? this.#queue.filter(({ deadline }) => deadline <= now)
        : [...this.#queue]
    for (const pending of late) this.#fail(pending, error)
  }

  #settle(pending: Pending, result: Appended): void {
    this.#remove(pending)
    pending.done.resolve(result)
  }

  #fail(pending: Pending, error: unknown): void {
    this.#remove(pending)
    pending.done.reject(error)
  }

  #remove(pending: Pending): void {
    const place = this.#queue.indexOf(pending)
    if (place >= 0) this.#queue.splice(place, 1)
    this.#byKey.delete(pending.fields.k)
  }
}
