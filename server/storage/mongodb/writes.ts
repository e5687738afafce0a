/**
 * Writes to documents: those of one key happen one after the other in the order of the calls, puts of different keys go
 * out together as one unordered bulk write, updates that wait for the same key are done in one round trip.
 */
import type { AnyBulkWriteOperation, Collection, Document } from 'mongodb'
import { MongoBulkWriteError } from 'mongodb'
import { randomBytes } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import type { Connection, Row } from './connection.ts'
import { isAnswer, isDuplicate, writeErrors } from './connection.ts'

/** A document as it is stored: what is written beside `_id` and the version. */
export interface Stored {
  readonly fields: Document
  readonly bytes: number
}

/** One step of an update: what to store instead of what is there, undefined for nothing; may throw. */
export type Step = (old: Document | undefined) => Stored | undefined

type Operation =
  | { readonly kind: 'put'; stored: Stored; readonly done: PromiseWithResolvers<void> }
  | { readonly kind: 'delete'; readonly done: PromiseWithResolvers<boolean> }
  | { readonly kind: 'update'; readonly steps: PendingStep[] }
interface PendingStep {
  readonly step: Step
  readonly done: PromiseWithResolvers<void>
}
interface Put {
  readonly id: string
  readonly stored: Stored
  readonly done: PromiseWithResolvers<void>
}

// COMPAT(FerretDB 1): an update command with a hundred changes of documents that exist never ends.
const maxBatch = 50
const maxBatchBytes = 8 * 1024 * 1024
const maxBatches = 4
const maxTries = 100

/** A version no other write has: a document that was deleted and made again is not taken for the old one. */
function newVersion(): string {
  return randomBytes(9).toString('base64url')
}

/** The writes of one collection. */
export class Writes {
  readonly #connection: Connection
  readonly #rows: Collection<Row>
  /** Operations of a key that is being written; the first one runs. */
  readonly #keys = new Map<string, Operation[]>()
  #batch: Put[] = []
  #running = 0
  #scheduled = false

  constructor(connection: Connection, rows: Collection<Row>) {
    this.#connection = connection
    this.#rows = rows
  }

  /** Stores, replacing what was there. */
  put(id: string, stored: Stored): Promise<void> {
    this.#connection.admit(stored.bytes)
    const last = this.#keys.get(id)
    const waiting = last === undefined || last.length < 2 ? undefined : last.at(-1)
    if (waiting?.kind === 'put') {
      // Nobody can have seen the one before: it has not been sent.
      waiting.stored = stored
      return waiting.done.promise
    }
    const done = Promise.withResolvers<void>()
    this.#add(id, { kind: 'put', stored, done })
    return this.#connection.track(done.promise, stored.bytes)
  }

  /** Whether there was something to delete. */
  delete(id: string): Promise<boolean> {
    this.#connection.admit(0)
    const done = Promise.withResolvers<boolean>()
    this.#add(id, { kind: 'delete', done })
    return this.#connection.track(done.promise)
  }

  /** Reads, changes and writes back in one step; rejects with what `step` throws. */
  update(id: string, step: Step): Promise<void> {
    this.#connection.admit(0)
    const done = Promise.withResolvers<void>()
    const queue = this.#keys.get(id)
    const waiting = queue === undefined || queue.length < 2 ? undefined : queue.at(-1)
    if (waiting?.kind === 'update') waiting.steps.push({ step, done })
    else this.#add(id, { kind: 'update', steps: [{ step, done }] })
    return this.#connection.track(done.promise)
  }

  #add(id: string, operation: Operation): void {
    const queue = this.#keys.get(id)
    if (queue !== undefined) {
      queue.push(operation)
      return
    }
    this.#keys.set(id, [operation])
    this.#start(id, operation)
  }

  #start(id: string, operation: Operation): void {
    switch (operation.kind) {
      case 'put':
        this.#batch.push({ id, stored: operation.stored, done: operation.done })
        this.#schedule()
        return
      case 'delete':
        this.#finish(id, this.#delete(id, operation.done))
        return
      case 'update':
        this.#finish(id, this.#update(id, operation.steps))
    }
  }

  #finish(id: string, work: Promise<void>): void {
    void work.then(() => this.#next(id))
  }

  #next(id: string): void {
    const queue = this.#keys.get(id)
    queue?.shift()
    const operation = queue?.[0]
    if (operation === undefined) this.#keys.delete(id)
    else this.#start(id, operation)
  }

  async #delete(id: string, done: PromiseWithResolvers<boolean>): Promise<void> {
    try {
      const { deletedCount } = await this.#connection.run((opts) => this.#rows.deleteOne({ _id: id }, opts))
      done.resolve(deletedCount > 0)
    } catch (error) {
      done.reject(error)
    }
  }

  #schedule(): void {
    if (this.#scheduled || this.#running >= maxBatches || this.#batch.length === 0) return
    this.#scheduled = true
    // After this turn of the event loop: what it still puts goes along.
    setImmediate(() => {
      this.#scheduled = false
      this.#flush()
    })
  }

  #flush(): void {
    while (this.#batch.length > 0 && this.#running < maxBatches) {
      let bytes = 0
      let count = 0
      for (const { stored } of this.#batch) {
        bytes += stored.bytes
        if (count > 0 && (bytes > maxBatchBytes || count >= maxBatch)) break
        count += 1
      }
      const batch = this.#batch.splice(0, count)
      this.#running += 1
      void this.#write(batch).then(() => {
        this.#running -= 1
        for (const { id } of batch) this.#next(id)
        this.#schedule()
      })
    }
  }

  async #write(batch: readonly Put[], tries = 1): Promise<void> {
    const operations = batch.map(
      ({ id, stored }): AnyBulkWriteOperation<Row> => ({
        replaceOne: { filter: { _id: id }, replacement: { v: newVersion(), ...stored.fields }, upsert: true },
      }),
    )
    try {
      await this.#connection.run((opts) => this.#rows.bulkWrite(operations, { ordered: false, ...opts }))
      for (const { done } of batch) done.resolve()
    } catch (error) {
      const failed = new Map<number, Error>()
      const again: Put[] = []
      const answers = error instanceof MongoBulkWriteError && isAnswer(error) ? writeErrors(error) : []
      if (answers.length > 0) {
        for (const one of answers) {
          // Two upserts of one new key: the second finds it there when it tries again.
          const put = batch[one.index]
          if (put !== undefined && one.code === 11_000 && tries < maxTries) again.push(put)
          else
            failed.set(
              one.index,
              new Error(`a write was refused: ${one.errmsg ?? one.code}`, { cause: error }),
            )
        }
      } else
        for (const i of batch.keys()) failed.set(i, error instanceof Error ? error : new Error(String(error)))
      for (const [i, put] of batch.entries()) {
        const reason = failed.get(i)
        if (reason !== undefined) put.done.reject(reason)
        else if (!again.includes(put)) put.done.resolve()
      }
      if (again.length > 0) await this.#write(again, tries + 1)
    }
  }

  async #update(id: string, steps: readonly PendingStep[]): Promise<void> {
    try {
      for (let tries = 1; ; tries += 1) {
        const settle = await this.#tryUpdate(id, steps)
        if (settle !== undefined) {
          settle()
          return
        }
        if (tries === maxTries) throw new Error(`a document changed ${maxTries} times while it was updated`)
        // Others won the race; apart from each other the next time.
        await delay(Math.random() * Math.min(10 * tries, 200))
      }
    } catch (error) {
      for (const { done } of steps) done.reject(error)
    }
  }

  /** One attempt; undefined when the document changed in the meantime, else what tells the callers. */
  async #tryUpdate(id: string, steps: readonly PendingStep[]): Promise<(() => void) | undefined> {
    const found = await this.#connection.run((opts) => this.#rows.findOne({ _id: id }, opts))
    const settle: (() => void)[] = []
    let last: Stored | undefined
    let changed = false
    let fields: Document | undefined = found ?? undefined
    for (const { step, done } of steps) {
      try {
        last = step(fields)
        fields = last?.fields
        changed = true
        settle.push(() => done.resolve())
      } catch (error) {
        settle.push(() => done.reject(error))
      }
    }
    const stored = !changed || (await this.#swap(id, found, last))
    return stored
      ? () => {
          for (const one of settle) one()
        }
      : undefined
  }

  /** Writes if the document is still what was found. */
  async #swap(id: string, found: Row | null, next: Stored | undefined): Promise<boolean> {
    const same = { _id: id, v: found?.['v'] as unknown }
    if (next === undefined) {
      if (found === null) return true
      const { deletedCount } = await this.#connection.run((opts) => this.#rows.deleteOne(same, opts))
      return deletedCount > 0
    }
    const fields = { v: newVersion(), ...next.fields }
    if (found !== null) {
      const { matchedCount } = await this.#connection.run((opts) => this.#rows.replaceOne(same, fields, opts))
      return matchedCount > 0
    }
    try {
      await this.#connection.run((opts) => this.#rows.insertOne({ _id: id, ...fields }, opts))
      return true
    } catch (error) {
      if (isDuplicate(error)) return false
      throw error
    }
  }
}
