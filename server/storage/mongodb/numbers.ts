/**
 * Counters and leases. A counter is `{ _id: host and a hash of the owner, n, gone }`: it stays when its owner is purged, for
 * numbers must not repeat, but does not say whose it was. A lease is `{ _id: 'host/key', h: holder, t: token, e: end }`; it
 * stays when it is over, for tokens must grow.
 */
import type { Collection } from 'mongodb'
import type { Counter, Lease } from '../contract.ts'
import { checkKey, checkOwner, checkTtl } from '../limits.ts'
import type { Connection, Row } from './connection.ts'
import { isDuplicate } from './connection.ts'
import { hiddenKey, hostPrefix, part } from './keys.ts'

const maxTries = 5

/** The counters of one collection and host. */
export class MongoCounter implements Counter {
  readonly #connection: Connection
  readonly #rows: Collection<Row>
  readonly #host: string
  /** Calls that wait for the one under way, by counter. */
  readonly #waiting = new Map<string, PromiseWithResolvers<number>[]>()

  constructor(connection: Connection, rows: Collection<Row>, host: string) {
    this.#connection = connection
    this.#rows = rows
    this.#host = host
  }

  async next(owner: string): Promise<number> {
    const id = this.#id(owner)
    this.#connection.admit(0)
    const done = Promise.withResolvers<number>()
    const waiting = this.#waiting.get(id)
    if (waiting !== undefined) waiting.push(done)
    else {
      this.#waiting.set(id, [done])
      void this.#connection.track(this.#run(id))
    }
    return this.#connection.track(done.promise)
  }

  /** Gives numbers in the order of the calls, those that wait in one step; never rejects. */
  async #run(id: string): Promise<void> {
    for (;;) {
      const waiting = this.#waiting.get(id) ?? []
      if (waiting.length === 0) {
        this.#waiting.delete(id)
        return
      }
      this.#waiting.set(id, [])
      try {
        const last = await this.#add(id, waiting.length)
        for (const [i, done] of waiting.entries()) done.resolve(last - waiting.length + 1 + i)
      } catch (error) {
        for (const done of waiting) done.reject(error)
      }
    }
  }

  async #add(id: string, count: number): Promise<number> {
    for (let tries = 1; ; tries += 1) {
      try {
        const row = await this.#connection.run((opts) =>
          this.#rows.findOneAndUpdate(
            { _id: id },
            { $inc: { n: count }, $unset: { gone: '' } },
            { upsert: true, returnDocument: 'after', ...opts },
          ),
        )
        return numberOf(row)
      } catch (error) {
        // Two made the counter at the same time: the second finds it when it tries again.
        if (!isDuplicate(error) || tries === maxTries) throw error
      }
    }
  }

  async get(owner: string): Promise<number> {
    const id = this.#id(owner)
    const row = await this.#connection.run((opts) => this.#rows.findOne({ _id: id }, opts))
    return row === null || row['gone'] === true ? 0 : numberOf(row)
  }

  #id(owner: string): string {
    this.#connection.check()
    checkOwner(owner)
    return hiddenKey(this.#host, owner)
  }
}

function numberOf(row: Row | null): number {
  const n: unknown = row?.['n']
  if (typeof n !== 'number' || !Number.isSafeInteger(n))
    throw new Error('a counter in the database is not a number')
  return n
}

/** Forgets the counter of an owner, except for where it was; `id` is a `hiddenKey`. */
export async function purgeCounter(connection: Connection, rows: Collection<Row>, id: string): Promise<void> {
  await connection.run((opts) => rows.updateOne({ _id: id }, { $set: { gone: true } }, opts))
}

/** The leases of one collection and host. */
export class MongoLease implements Lease {
  readonly #connection: Connection
  readonly #rows: Collection<Row>
  readonly #host: string

  constructor(connection: Connection, rows: Collection<Row>, host: string) {
    this.#connection = connection
    this.#rows = rows
    this.#host = host
  }

  async acquire(key: string, holder: string, ttlMs: number): Promise<{ readonly token: number } | undefined> {
    const id = this.#id(key)
    checkKey(holder, 'holder')
    checkTtl(ttlMs)
    const now = await this.#connection.now()
    const free = { _id: id, $or: [{ e: { $lte: now } }, { h: holder }] }
    const grant = { $set: { h: holder, e: now + ttlMs }, $inc: { t: 1 } }
    try {
      return tokenOf(await this.#grant(free, grant, true))
    } catch (error) {
      // Somebody else holds it, so that the database tried to make a second one; or made it in this moment.
      if (!isDuplicate(error)) throw error
      return tokenOf(await this.#grant(free, grant, false))
    }
  }

  #grant(
    free: { _id: string; $or: ({ e: { $lte: number } } | { h: string })[] },
    grant: { $set: { h: string; e: number }; $inc: { t: number } },
    upsert: boolean,
  ): Promise<Row | null> {
    return this.#connection.track(
      this.#connection.run((opts) =>
        this.#rows.findOneAndUpdate(free, grant, { upsert, returnDocument: 'after', ...opts }),
      ),
    )
  }

  async renew(key: string, token: number, ttlMs: number): Promise<boolean> {
    const id = this.#id(key)
    checkTtl(ttlMs)
    const now = await this.#connection.now()
    const { matchedCount } = await this.#connection.track(
      this.#connection.run((opts) =>
        this.#rows.updateOne({ _id: id, t: token, e: { $gt: now } }, { $set: { e: now + ttlMs } }, opts),
      ),
    )
    return matchedCount > 0
  }

  async release(key: string, token: number): Promise<void> {
    const id = this.#id(key)
    await this.#connection.track(
      this.#connection.run((opts) =>
        this.#rows.updateOne({ _id: id, t: token }, { $set: { e: 0, h: '' } }, opts),
      ),
    )
  }

  async get(key: string): Promise<{ readonly holder: string; readonly token: number } | undefined> {
    const id = this.#id(key)
    const now = await this.#connection.now()
    const row = await this.#connection.run((opts) => this.#rows.findOne({ _id: id }, opts))
    const end: unknown = row?.['e']
    const holder: unknown = row?.['h']
    const granted = tokenOf(row)
    if (granted === undefined || typeof end !== 'number' || typeof holder !== 'string' || end <= now) {
      return undefined
    }
    return { holder, token: granted.token }
  }

  #id(key: string): string {
    this.#connection.check()
    checkKey(key)
    return `${hostPrefix(this.#host)}${part(key)}`
  }
}

function tokenOf(row: Row | null): { readonly token: number } | undefined {
  const token: unknown = row?.['t']
  return typeof token === 'number' ? { token } : undefined
}
