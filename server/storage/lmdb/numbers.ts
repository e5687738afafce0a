/** Counters and leases. */
import type { Counter, Lease } from '../contract.ts'
import { checkKey, checkOwner, checkTtl } from '../limits.ts'
import { bytesOf, number, place } from './catalogue.ts'
import type { Catalogue } from './catalogue.ts'
import { decodeDoc, encodeDoc } from './codec.ts'
import type { Env } from './env.ts'
import { numbersKey } from './keys.ts'

/** One collection of counters. */
export class LmdbCounter implements Counter {
  readonly #env: Env
  readonly #catalogue: Catalogue
  readonly #place: string

  constructor(env: Env, catalogue: Catalogue, host: string, module: string, name: string) {
    this.#env = env
    this.#catalogue = catalogue
    this.#place = place(host, module, 'counter', name)
  }

  async next(owner: string): Promise<number> {
    checkOwner(owner)
    return await this.#env.write(() => {
      const { numbers } = this.#env.tables
      const collection = this.#catalogue.make(this.#place, []).number
      const key = numbersKey('n', collection, owner)
      const stored = numbers.get(key)
      const value = number(stored ?? numbers.get(numbersKey('f', collection, ''))) + 1
      numbers.put(key, bytesOf(value))
      return value
    }, 100)
  }

  async get(owner: string): Promise<number> {
    checkOwner(owner)
    return this.#env.read(() => {
      const collection = this.#catalogue.find(this.#place)
      if (collection === undefined) return 0
      return number(this.#env.tables.numbers.get(numbersKey('n', collection.number, owner)))
    })
  }
}

/** Deletes the counter of an owner; what it counted is not counted again. */
export async function purgeCounter(env: Env, collection: number, owner: string): Promise<void> {
  await env.write(() => {
    const key = numbersKey('n', collection, owner)
    raiseFloor(env, collection, number(env.tables.numbers.get(key)))
    env.tables.numbers.remove(key)
  }, 100)
}

/** Makes new owners of a collection start above `value`; within a write. */
export function raiseFloor(env: Env, collection: number, value: number): void {
  const key = numbersKey('f', collection, '')
  if (number(env.tables.numbers.get(key)) < value) env.tables.numbers.put(key, bytesOf(value))
}

/** Where new owners of a collection start; within a read or a write. */
export function floor(env: Env, collection: number): number {
  return number(env.tables.numbers.get(numbersKey('f', collection, '')))
}

type Held = { readonly key: string; readonly holder: string; readonly token: number; readonly until: number }

/** One collection of leases. */
export class LmdbLease implements Lease {
  readonly #env: Env
  readonly #catalogue: Catalogue
  readonly #place: string
  readonly #now: () => number

  constructor(env: Env, catalogue: Catalogue, now: () => number, host: string, module: string, name: string) {
    this.#env = env
    this.#catalogue = catalogue
    this.#now = now
    this.#place = place(host, module, 'lease', name)
  }

  async acquire(key: string, holder: string, ttlMs: number): Promise<{ readonly token: number } | undefined> {
    checkKey(key)
    checkKey(holder, 'holder')
    checkTtl(ttlMs)
    return await this.#env.write(() => {
      const { numbers } = this.#env.tables
      const collection = this.#catalogue.make(this.#place, []).number
      const held = this.#live(collection, key)
      if (held !== undefined && held.holder !== holder) return undefined
      const last = numbersKey('t', collection, '')
      const token = number(numbers.get(last)) + 1
      numbers.put(last, bytesOf(token))
      this.#put(collection, { key, holder, token, until: this.#now() + ttlMs })
      return { token }
    }, 500)
  }

  async renew(key: string, token: number, ttlMs: number): Promise<boolean> {
    checkKey(key)
    checkTtl(ttlMs)
    return await this.#env.write(() => {
      const collection = this.#catalogue.find(this.#place)?.number
      const held = collection === undefined ? undefined : this.#live(collection, key)
      if (collection === undefined || held === undefined || held.token !== token) return false
      this.#put(collection, { ...held, until: this.#now() + ttlMs })
      return true
    }, 500)
  }

  async release(key: string, token: number): Promise<void> {
    checkKey(key)
    await this.#env.write(() => {
      const collection = this.#catalogue.find(this.#place)?.number
      if (collection === undefined) return
      const row = numbersKey('l', collection, key)
      const stored = this.#env.tables.numbers.get(row)
      if (stored !== undefined && decodeDoc<Held>(stored, 0).token === token)
        this.#env.tables.numbers.remove(row)
    }, 100)
  }

  async get(key: string): Promise<{ readonly holder: string; readonly token: number } | undefined> {
    checkKey(key)
    return this.#env.read(() => {
      const collection = this.#catalogue.find(this.#place)?.number
      const held = collection === undefined ? undefined : this.#live(collection, key)
      return held === undefined ? undefined : { holder: held.holder, token: held.token }
    })
  }

  #live(collection: number, key: string): Held | undefined {
    const stored = this.#env.tables.numbers.get(numbersKey('l', collection, key))
    if (stored === undefined) return undefined
    const held = decodeDoc<Held>(stored, 0)
    return this.#now() >= held.until ? undefined : held
  }

  #put(collection: number, held: Held): void {
    this.#env.tables.numbers.put(numbersKey('l', collection, held.key), encodeDoc(held, 0))
  }
}
