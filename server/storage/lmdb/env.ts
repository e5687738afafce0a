/**
 * The LMDB environment of a store: its tables, reads of the latest state, and writes in groups. All writes
 * wait in one queue; a transaction takes everything that is there when it begins, so the busier the store,
 * the larger the groups. LMDB commits and flushes on threads of its own (`overlappingSync`): a group is
 * acknowledged when it is committed, that is safe against a crash of the process; with `durable` when it is
 * flushed, safe against loss of power. Without `durable` loss of power undoes the last transactions, it does
 * not harm the others.
 */
import { open } from 'lmdb'
import type { Database, RangeOptions, RootDatabase } from 'lmdb'
import { StoreUnavailable } from '../contract.ts'

/** Settings of {@link Env}. */
export interface EnvOptions {
  /** Folder of the data; made when it is missing. */
  readonly path: string
  /** Acknowledge writes when they are on the disk, not when they are committed. */
  readonly durable: boolean
  /** First size of the memory map, bytes; it grows by itself. */
  readonly mapSize: number | undefined
  /** How long a transaction may take before writes are refused until it is through, milliseconds. */
  readonly patienceMs: number
}

/** One table; what `get` and `range` give of values is valid only until the next call of any table. */
export interface Table {
  get(key: Buffer): Buffer | undefined
  has(key: Buffer): boolean
  /**
   * Rows with `start <= key < end`, at most `limit`, in order of the keys or backwards. `visit` returns false
   * to stop.
   */
  range(q: Range, visit: (key: Buffer, value: Buffer) => boolean | void): void
  /** Keys alone, faster. */
  keys(q: Range): Buffer[]
  /** Writing is for functions given to {@link Env.write}. */
  put(key: Buffer, value: Buffer): void
  remove(key: Buffer): boolean
}

/** What rows to read. */
export interface Range {
  readonly start: Buffer
  readonly end: Buffer
  readonly limit: number
  readonly reverse?: boolean
  /** Rows to pass over first. */
  readonly offset?: number
}

/** Who keeps something from one transaction to the next, or through one. */
export interface GroupWatcher {
  /** At the start of a transaction; may read and write. */
  begin(): void
  /** After the last write of it; may read and write. */
  end(): void
  /** It could not be committed: nothing of it is there. */
  failed(): void
}

interface Waiting {
  run(): unknown
  resolve(value: unknown): void
  reject(error: unknown): void
  readonly bytes: number
}

const tables = ['meta', 'docs', 'index', 'heads', 'log', 'aux', 'numbers'] as const
/** Names of the tables. */
export type TableName = (typeof tables)[number]

const maxGroup = 1000
// A group blocks the event loop while it is built.
const maxGroupMs = 10
const maxGroupBytes = 16 * 1024 * 1024
const maxWaiting = 100_000
const maxWaitingBytes = 256 * 1024 * 1024
// Each transaction that is being flushed holds a thread of the pool that DNS, files and password hashes need
// too.
const maxUnflushed = 2
const hangs = 'the store does not answer: is the disk full, or is it failing?'
// As bytes, and without a copy: an encoding of 'binary' would copy what is read.
const binary = {
  keyEncoding: 'binary',
  encoder: { encode: (bytes: Buffer) => bytes, decode: (bytes: Buffer) => bytes },
} as const

/** An open environment. */
export class Env {
  readonly #tables: Record<TableName, Table>
  readonly #root: RootDatabase<Buffer, Buffer>
  readonly #durable: boolean
  readonly #patienceMs: number
  readonly #queue: Waiting[] = []
  #queuedBytes = 0
  #busy = false
  #unflushed = 0
  #state: 'open' | 'closing' | 'closed' = 'open'
  #stalled = false
  #failed = false
  readonly #inFlight = new Set<readonly Waiting[]>()
  #writing = false
  readonly #watchers: GroupWatcher[] = []
  #drained: () => void = () => undefined
  #since = 0
  readonly #watch: NodeJS.Timeout
  #closed: Promise<void> | undefined

  constructor(opts: EnvOptions) {
    this.#durable = opts.durable
    this.#root = open<Buffer, Buffer>({
      path: opts.path,
      noSubdir: false,
      maxDbs: tables.length + 1,
      maxReaders: 256,
      // The queue below makes the groups; that of lmdb-js leaves a rejection unhandled when a commit fails.
      eventTurnBatching: false,
      separateFlushed: true,
      ...(opts.mapSize === undefined ? {} : { mapSize: opts.mapSize }),
    })
    const meta = this.#table('meta')
    // Until openTables: a store of a later version must not get tables of this one.
    this.#tables = { meta, docs: meta, index: meta, heads: meta, log: meta, aux: meta, numbers: meta }
    this.#patienceMs = opts.patienceMs
    this.#watch = setInterval(() => this.#look(), Math.min(opts.patienceMs / 4, 5000))
    this.#watch.unref()
  }

  /** All tables; only `meta` is what it says before {@link openTables}. */
  get tables(): Readonly<Record<TableName, Table>> {
    return this.#tables
  }

  /** Opens, or makes, all tables. */
  openTables(): void {
    for (const name of tables) if (name !== 'meta') this.#tables[name] = this.#table(name)
  }

  /** Whether the store takes calls. */
  get usable(): boolean {
    return this.#state === 'open' && !this.#stalled
  }

  /** Calls `watcher` with each transaction. */
  onGroup(watcher: GroupWatcher): void {
    this.#watchers.push(watcher)
  }

  /**
   * What `fn` reads, from the latest committed state; `fn` must not wait. Throws StoreUnavailable when
   * closed.
   */
  read<T>(fn: () => T): T {
    this.#check()
    // Not the snapshot of earlier in this turn of the event loop: another process may have written, and told
    // us so.
    if (!this.#writing) this.#root.resetReadTxn()
    return fn()
  }

  /**
   * Runs `fn` in the next transaction, after all that were given before; resolves to its result when that is
   * safe. `fn` may run later, must not wait, and does all that can fail before its first put or remove.
   * `bytes`: about how much it writes. Rejects with what `fn` throws, or StoreUnavailable.
   */
  write<T>(fn: () => T, bytes: number): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#check()
      if (this.#queue.length >= maxWaiting || this.#queuedBytes + bytes > maxWaitingBytes) {
        throw new StoreUnavailable('the store is overloaded: too many writes are waiting')
      }
      this.#queue.push({ run: fn, resolve: (value) => resolve(value as T), reject, bytes }) // what fn returned
      this.#queuedBytes += bytes
      this.#begin()
    })
  }

  /** Waits for what was given to {@link write}, flushes and closes. */
  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    if (this.#state === 'open') this.#state = 'closing'
    if (this.#busy || this.#queue.length > 0) {
      await new Promise<void>((resolve) => {
        this.#drained = resolve
      })
    }
    clearInterval(this.#watch)
    this.#state = 'closed'
    // What hangs in LMDB would hang the close as well.
    if (this.#stalled) return
    // lmdb-js waits for the last flush, which does not come after a commit that failed; an empty commit
    // brings one.
    if (this.#failed) await this.#root.transaction(() => undefined)
    await this.#root.close()
  }

  #check(): void {
    if (this.#state !== 'open') throw new StoreUnavailable('the store is closed')
    if (this.#stalled) throw new StoreUnavailable(hangs)
  }

  #begin(): void {
    if (this.#busy || this.#unflushed >= maxUnflushed || this.#queue.length === 0) return
    this.#busy = true
    this.#unflushed += 1
    this.#since = Date.now()
    const group: Waiting[] = []
    let results: readonly (() => void)[] = []
    const committed = this.#root.transaction(() => {
      this.#inFlight.add(group)
      results = this.#run(group)
    })
    let pending = true
    const flushed = () => {
      if (!pending) return
      pending = false
      this.#unflushed -= 1
      if (this.#durable) for (const settle of results) settle()
      if (this.#durable) this.#inFlight.delete(group)
      this.#progress()
    }
    // Where LMDB does not flush on its own, this is the commit, whose failure is handled below.
    void this.#root.flushed.then(flushed, () => undefined)
    committed.then(
      () => {
        this.#busy = false
        this.#failed = false
        if (!this.#durable) for (const settle of results) settle()
        if (!this.#durable) this.#inFlight.delete(group)
        this.#progress()
      },
      (error: unknown) => {
        this.#failed = true
        for (const { failed } of this.#watchers) failed()
        const failure = unwritten(error)
        for (const { reject } of group) reject(failure)
        this.#inFlight.delete(group)
        results = []
        this.#busy = false
        // A flush that will not come.
        flushed()
      },
    )
  }

  #progress(): void {
    this.#stalled = false
    this.#begin()
    const idle = !this.#busy && this.#queue.length === 0
    if (idle && (!this.#durable || this.#unflushed === 0)) this.#drained()
  }

  /**
   * Runs what waits, as far as a group goes, and moves it into `group`; the results are for when it is safe.
   */
  #run(group: Waiting[]): readonly (() => void)[] {
    const results: (() => void)[] = []
    const until = performance.now() + maxGroupMs
    let bytes = 0
    this.#writing = true
    try {
      for (const { begin } of this.#watchers) begin()
      for (const waiting of this.#queue) {
        group.push(waiting)
        results.push(outcome(waiting))
        bytes += waiting.bytes
        if (group.length === maxGroup || bytes >= maxGroupBytes || performance.now() > until) break
      }
      for (const { end } of this.#watchers) end()
      return results
    } finally {
      this.#writing = false
      this.#queuedBytes -= bytes
      this.#queue.splice(0, group.length)
    }
  }

  // Where LMDB cannot even begin a transaction, lmdb-js settles nothing; a disk may also stall for long.
  #look(): void {
    if (this.#stalled || this.#unflushed === 0 || Date.now() - this.#since < this.#patienceMs) return
    this.#stalled = true
    const failure = new StoreUnavailable(hangs)
    for (const group of this.#inFlight) for (const { reject } of group) reject(failure)
    for (const { reject } of this.#queue.splice(0)) reject(failure)
    this.#queuedBytes = 0
    this.#drained()
  }

  #table(name: TableName): Table {
    const db: Database<Buffer, Buffer> = this.#root.openDB<Buffer, Buffer>(name, binary)
    const checkWriting = () => {
      if (!this.#writing) throw new Error('a write outside of a transaction')
    }
    return {
      get: (key) => view(db.get(key)),
      has: (key) => db.get(key) !== undefined,
      range(q, visit) {
        for (const { key, value } of db.getRange(options(q))) if (visit(key, view(value)) === false) break
      },
      keys: (q) => [...db.getKeys(options(q))],
      put(key, value) {
        checkWriting()
        db.putSync(key, value)
      },
      remove(key) {
        checkWriting()
        return db.removeSync(key)
      },
    }
  }
}

/** The same rows both ways: from `start` on, before `end`. */
function options({ start, end, limit, reverse = false, offset = 0 }: Range): RangeOptions {
  if (!reverse) return { start, end, limit, offset }
  return { start: end, end: start, limit, offset, reverse, exclusiveStart: true, inclusiveEnd: true }
}

// Values come in a buffer that is larger than it says and used again, large ones as a view of the map.
function view(bytes: Buffer): Buffer
function view(bytes: Buffer | undefined): Buffer | undefined
function view(bytes: Buffer | undefined): Buffer | undefined {
  if (bytes === undefined) return undefined
  return bytes instanceof Buffer ? bytes.subarray(0, bytes.length) : asBuffer(bytes)
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** Runs one of a group; what is to be called when it is safe. */
function outcome({ run, resolve, reject }: Waiting): () => void {
  try {
    const value = run()
    return () => resolve(value)
  } catch (error) {
    return () => reject(error)
  }
}

function unwritten(error: unknown): Error {
  const cause: unknown = error instanceof Error && 'commitError' in error ? error.commitError : undefined
  const failure = new StoreUnavailable('the store could not write: is the disk full, or is it failing?', {
    cause: error,
  })
  // lmdb-js gives the reason as a promise that rejects later, with nobody to handle it.
  if (cause instanceof Promise) {
    cause.catch((reason: unknown) => {
      failure.cause = reason
    })
  }
  return failure
}
