/**
 * The connection of the mongodb driver: opening with one clear sentence when that fails, a time limit on each command, the
 * clock of leases, indexes. It uses the portable part of the protocol only: no transactions, change streams, TTL or text
 * indexes, collations or pipeline updates.
 */
import { setTimeout as delay } from 'node:timers/promises'
import {
  MongoBulkWriteError,
  MongoClient,
  MongoError,
  MongoInvalidArgumentError,
  MongoParseError,
  MongoServerError,
  ReadConcern,
} from 'mongodb'
import type {
  Collection,
  Db,
  Document,
  Filter,
  IndexSpecification,
  MongoClientOptions,
  WriteError,
} from 'mongodb'
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

/** Version of what this driver writes; a database with a newer one is refused. */
export const schemaVersion = 1

const defaultTimeoutMs = 5000
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

  /** Counts a write as pending until it is settled, for {@link close}. */
  track<R>(write: Promise<R>): Promise<R> {
    const tracked: Promise<unknown> = write.then(
      () => this.#pending.delete(tracked),
      () => this.#pending.delete(tracked),
    )
    this.#pending.add(tracked)
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

/** Connects, checks the schema version, reads the clock. Throws {@link StoreUnavailable} with one sentence. */
export async function connect(config: MongoConfig): Promise<Connection> {
  const timeoutMs = config.timeoutMs ?? defaultTimeoutMs
  let client: MongoClient | undefined
  try {
    client = new MongoClient(config.url, clientOptions(config, timeoutMs))
    if (config.onCommand !== undefined) {
      const { onCommand } = config
      client.on('commandStarted', ({ commandName, command }) => onCommand(commandName, command))
    }
    const name = databaseName(config)
    let db = client.db(name, { readPreference: 'primary' })
    // The library knows better what is wrong, so it may speak first.
    const hello = await bounded(timeoutMs * 1.5, client, () => db.command({ hello: 1 }))
    const majority = (client.options.writeConcern?.w ?? 'majority') === 'majority'
    const clustered = typeof hello['setName'] === 'string' || hello['msg'] === 'isdbgrid'
    // What a reader has seen must not be rolled back by the next primary: a lower id could appear then.
    if (clustered && majority && client.options.readConcern === undefined) {
      db = client.db(name, { readPreference: 'primary', readConcern: new ReadConcern('majority') })
    }
    const connection = new Connection(client, db, config)
    await checkSchema(connection, name)
    if (config.now === undefined) await connection.readClock()
    return connection
  } catch (error) {
    await client?.close()
    const reason = (error instanceof Error ? error.message : 'unknown error')
      .replace(/\s+/g, ' ')
      .slice(0, 300)
    if (error instanceof StoreUnavailable) throw error
    const hosts = client?.options.hosts.join(', ') ?? ''
    const what =
      error instanceof MongoParseError || client === undefined
        ? 'the address of the mongodb store is wrong'
        : `cannot use the mongodb store${hosts === '' ? '' : ` at ${hosts}`}`
    // Not as `cause`: what the library says may quote the address, and causes end up in logs.
    throw new StoreUnavailable(`${what}: ${redact(reason, config.url)}`)
  }
}

function clientOptions(config: MongoConfig, timeoutMs: number): MongoClientOptions {
  const says = (option: string): boolean => new RegExp(`[?&]${option}=`, 'i').test(config.url)
  return {
    appName: 'hermod',
    ...(says('maxPoolSize') ? {} : { maxPoolSize: config.maxPoolSize ?? 20 }),
    ...(says('w') || says('journal') ? {} : { writeConcern: { w: 'majority', ...config.writeConcern } }),
    connectTimeoutMS: timeoutMs,
    serverSelectionTimeoutMS: timeoutMs,
    waitQueueTimeoutMS: timeoutMs,
    ignoreUndefined: true,
    monitorCommands: config.onCommand !== undefined,
  }
}

function databaseName(config: MongoConfig): string {
  if (config.database !== undefined) return config.database
  const path = /^mongodb(?:\+srv)?:\/\/[^/]+\/([^?]+)/.exec(config.url)?.[1]
  return path === undefined ? 'hermod' : decodeURIComponent(path)
}

// Authentication has no limit of its own in the library.
async function bounded<R>(timeoutMs: number, client: MongoClient, run: () => Promise<R>): Promise<R> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new Error(`no answer within ${timeoutMs} ms`))
      void client.close()
    }, timeoutMs)
  })
  try {
    return await Promise.race([run(), late])
  } finally {
    clearTimeout(timer)
  }
}

async function checkSchema(connection: Connection, database: string): Promise<void> {
  const rows = connection.rows('meta')
  let found: Row | null
  try {
    // A write also when there is nothing to write: a server that does not take any is found out now.
    found = await connection.run((opts) =>
      rows.findOneAndUpdate(
        { _id: 'schema' },
        { $setOnInsert: { version: schemaVersion } },
        { upsert: true, returnDocument: 'after', ...opts },
      ),
    )
  } catch (error) {
    if (!isDuplicate(error)) throw error
    // Another process made it at the same time.
    found = await connection.run((opts) => rows.findOne({ _id: 'schema' }, opts))
  }
  const version: unknown = found?.['version']
  if (typeof version !== 'number')
    throw new StoreUnavailable(`database ${database} is not one of this server`)
  if (version > schemaVersion) {
    throw new StoreUnavailable(
      `database ${database} was written by a newer version of this server (schema ${version}, this one knows ${schemaVersion})`,
    )
  }
}

/** The text without the credentials of the address. */
export function redact(text: string, url: string): string {
  const secrets: string[] = []
  const user = /^[a-z+]+:\/\/([^/?#]*)@/i.exec(url)?.[1]
  if (user !== undefined) secrets.push(user, ...user.split(':'))
  for (const [, value] of url.matchAll(/[?&][^=&]*(?:password|token|credential)[^=&]*=([^&]*)/gi)) {
    if (value !== undefined) secrets.push(value)
  }
  let safe = url === '' ? text : text.replaceAll(url, '***')
  for (const secret of secrets.flatMap((one) => [one, decoded(one)]).sort((a, b) => b.length - a.length)) {
    if (secret === '') continue
    // Very short ones are part of every other word; there they give nothing away.
    if (secret.length > 3) safe = safe.replaceAll(secret, '***')
    else safe = safe.replace(/[\p{L}\p{N}%]+/gu, (word) => (word === secret ? '***' : word))
  }
  return safe
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    // Not percent-encoded: there is no other spelling to hide.
    return text
  }
}
