/**
 * The connection of the mongodb driver: a time limit on each command, what errors mean, the clock of leases, indexes, how
 * much may wait. It uses the portable part of the protocol only: no transactions, change streams, TTL or text
 * indexes, collations or pipeline updates.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { MongoBulkWriteError, MongoError, MongoInvalidArgumentError, MongoServerError } from 'mongodb'
import type { Collection, Db, Document, Filter, IndexSpecification, MongoClient, WriteError } from 'mongodb'
import { StoreUnavailable } from '../contract.ts'

/** How to reach the database. */
export interface MongoConfig {
  /** `mongodb://` or `mongodb+srv://` address; its options win over the defaults here. Never logged. */
  readonly url: string
  /** Name of the database; default: the one in the address, else `hermod`. */
  readonly database?: string
  /** A command that has no answer after this time rejects; milliseconds, default 5000. */
  readonly timeoutMs?: number
  /** When a write counts as done; default `{ w: 'majority' }`: it survives the loss of a minority of a replica set. */
  readonly writeConcern?: { readonly w?: number | 'majority'; readonly journal?: boolean }
  /** Connections per server of the database, default 20. */
  readonly maxPoolSize?: number
  /** Clock of leases, milliseconds since the epoch; default: the database's, which all nodes share. */
  readonly now?: () => number
  /**
   * Archive entries younger than this are removed in two steps, since whoever wrote them may not have finished; no clock
   * may be wrong by more. Milliseconds, default 10 minutes; less is for tests.
   */
  readonly settleMs?: number
  /** Sees each command before it is sent, for tests. */
  readonly onCommand?: (name: string, command: Document) => void
}

/** A stored row: its key, and whatever the kind of collection keeps. */
export interface Row extends Document {
  readonly _id: string
}

/**
 * What goes with each command: aborted when its time is over, which also closes the connection it waits on. The library
 * passes `signal` on with every command, though its types name it for reads only; `comment` is in all of them.
 */
export interface CommandOptions {
  readonly signal: AbortSignal
  readonly comment?: string
}

/** Which of the rows that match, and what of them. */
export interface Find {
  readonly limit: number
  readonly sort?: Readonly<Record<string, 1 | -1>>
  readonly skip?: number
  readonly projection?: Readonly<Record<string, 0 | 1>>
}

// What comes faster than the database takes it, or while it is away, must not fill the memory.
const maxPending = 100_000
const maxPendingBytes = 256 * 1024 * 1024
/** Time limit of a command, milliseconds. */
export const defaultTimeoutMs = 5000
const clockPeriodMs = 600_000
// Building an index on what earlier versions stored can take long; nobody waits for it but who needs it.
const indexTimeoutMs = 600_000

/** An open connection. */
export class Connection {
  readonly db: Db
  readonly timeoutMs: number
  readonly settleMs: number
  readonly #client: MongoClient
  readonly #now: (() => number) | undefined
  readonly #pending = new Set<Promise<unknown>>()
  #pendingBytes = 0
  readonly #indexes = new Map<string, Promise<void>>()
  #closing: Promise<void> | undefined
  #clock: { readonly offsetMs: number; readonly readAt: number } | undefined

  constructor(client: MongoClient, db: Db, config: MongoConfig) {
    this.#client = client
    this.db = db
    this.timeoutMs = config.timeoutMs ?? defaultTimeoutMs
    this.settleMs = config.settleMs ?? 600_000
    this.#now = config.now
  }

  /** A collection; made by the database on the first write to it. */
  rows(name: string): Collection<Row> {
    return this.db.collection<Row>(name)
  }

  /** Throws {@link StoreUnavailable} once the store is closed. */
  check(): void {
    if (this.#closing !== undefined) throw new StoreUnavailable('the store is closed')
  }

  /** Runs one command with the time limit; failures of the connection become {@link StoreUnavailable}. */
  async run<R>(command: (opts: CommandOptions) => Promise<R>, timeoutMs = this.timeoutMs): Promise<R> {
    const signal = AbortSignal.timeout(timeoutMs)
    try {
      return await command({ signal })
    } catch (error) {
      // Also when an answer came in the last moment: some errors of the library hide what was under them.
      if (signal.aborted) {
        throw new StoreUnavailable(`the database gave no answer within ${timeoutMs} ms`)
      }
      if (isAnswer(error) || !(error instanceof MongoError || isSocketError(error))) throw error
      throw new StoreUnavailable(`the database cannot be reached: ${error.message}`, { cause: error })
    }
  }

  /** The rows that match, at most `limit`, by default in order of `_id`. */
  async find(rows: Collection<Row>, filter: Filter<Row>, how: Find, timeoutMs?: number): Promise<Row[]> {
    const { limit, sort = { _id: 1 }, skip = 0, projection } = how
    // In one answer as far as it fits: a cursor dies with its connection.
    const rest = {
      limit,
      batchSize: limit,
      sort,
      ...(skip === 0 ? {} : { skip }),
      ...(projection && { projection }),
    }
    return this.run((opts) => rows.find(filter, { ...opts, ...rest }).toArray(), timeoutMs)
  }

  /** Throws when so much waits to be written already that this must not be added; bytes. */
  admit(bytes: number): void {
    if (this.#pending.size >= maxPending || this.#pendingBytes + bytes > maxPendingBytes) {
      throw new StoreUnavailable('too many writes wait for the database')
    }
  }

  /** Counts a write of so many bytes as pending until it is settled, for {@link admit} and {@link close}. */
  track<R>(write: Promise<R>, bytes = 0): Promise<R> {
    const settled = (): void => {
      this.#pending.delete(tracked)
      this.#pendingBytes -= bytes
    }
    const tracked: Promise<unknown> = write.then(settled, settled)
    this.#pending.add(tracked)
    this.#pendingBytes += bytes
    return write
  }

  /**
   * Makes an index unless it is there; the first caller does it, a failure is tried again by the next. Rejects with
   * {@link StoreUnavailable} when it is not there within the time limit; it is made all the same.
   */
  async index(
    collection: string,
    spec: IndexSpecification,
    opts: { readonly unique?: true } = {},
  ): Promise<void> {
    const id = `${collection} ${JSON.stringify(spec)}`
    let made = this.#indexes.get(id)
    if (made === undefined) {
      made = this.run(async (limit) => {
        await this.rows(collection).createIndex(spec, { ...opts, ...limit })
      }, indexTimeoutMs)
      this.#indexes.set(id, made)
      made.catch(() => this.#indexes.delete(id))
    }
    const cancel = new AbortController()
    try {
      await Promise.race([made, this.#late(collection, cancel.signal)])
    } finally {
      cancel.abort()
    }
  }

  async #late(collection: string, signal: AbortSignal): Promise<void> {
    try {
      await delay(this.timeoutMs, undefined, { signal })
    } catch {
      // Cancelled: the index is there, and nobody looks at this any more.
      return
    }
    throw new StoreUnavailable(
      `the database has not made an index of ${collection} within ${this.timeoutMs} ms`,
    )
  }

  /** Milliseconds since the epoch by the clock that all nodes share. */
  async now(): Promise<number> {
    if (this.#now !== undefined) return this.#now()
    // performance.now() does not jump when somebody sets this machine's clock.
    const here = performance.now()
    if (this.#clock === undefined || here - this.#clock.readAt > clockPeriodMs) await this.readClock()
    return performance.now() + (this.#clock?.offsetMs ?? performance.timeOrigin)
  }

  /** Compares the clock of the database with ours; servers that do not tell theirs leave us with ours. */
  async readClock(): Promise<void> {
    const sentAt = performance.now()
    const hello = await this.run((opts) => this.db.command({ hello: 1 }, opts))
    const readAt = performance.now()
    const there: unknown = hello['localTime']
    const time = there instanceof Date ? there.getTime() : Date.now()
    this.#clock = { offsetMs: time - (sentAt + readAt) / 2, readAt }
  }

  /** Whether the database answers. */
  async ping(): Promise<boolean> {
    if (this.#closing !== undefined) return false
    try {
      await this.run((opts) => this.db.command({ ping: 1 }, opts))
      return true
    } catch {
      // The reason is in the rejections of the operations; here only yes or no was asked.
      return false
    }
  }

  /** Waits for pending writes, then closes. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    while (this.#pending.size > 0) await Promise.all(this.#pending)
    await Promise.allSettled(this.#indexes.values())
    // Tells the database goodbye; one that does not listen is not waited for.
    await Promise.race([this.#client.close(), delay(this.timeoutMs, undefined, { ref: false })])
  }
}

/**
 * Whether the database itself gave this answer and stands by it: what it says was not done was not done, the rest is safe.
 * False: nobody knows whether the command was carried out.
 */
export function isAnswer(error: unknown): boolean {
  if (error instanceof MongoInvalidArgumentError) return true
  if (!(error instanceof MongoServerError)) return false
  if (error instanceof MongoBulkWriteError) {
    if (error.result.getWriteConcernError() !== undefined) return false
    if (writeErrors(error).length > 0) return true
  }
  // The library wraps failures of the connection as well; those have no code.
  if (typeof error.code !== 'number' || unsureCodes.has(error.code)) return false
  return !error.hasErrorLabel('RetryableWriteError')
}

// The library lets some through as they are, such as EPIPE of a connection that the other side has just ended.
function isSocketError(error: unknown): error is Error {
  return (
    error instanceof Error &&
    'code' in error &&
    typeof error.code === 'string' &&
    /^(E[A-Z]+|ERR_(SOCKET|STREAM|SSL|TLS)_.*)$/.test(error.code)
  )
}

/** What a bulk write could not do, by index; empty when it failed as a whole. */
export function writeErrors(error: MongoBulkWriteError): readonly WriteError[] {
  return [error.writeErrors].flat()
}

// https://github.com/mongodb/specifications: codes of "not primary" and "node is recovering", WriteConcernFailed,
// MaxTimeMSExpired.
const unsureCodes: ReadonlySet<number> = new Set([
  6, 7, 50, 64, 89, 91, 189, 262, 9001, 10_107, 11_600, 11_602, 13_435, 13_436,
])

/** Whether the error says that a unique key is taken. */
export function isDuplicate(error: unknown): boolean {
  return error instanceof MongoServerError && error.code === 11_000
}
