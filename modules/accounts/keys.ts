/**
 * SCRAM keys (RFC 5802 §3): deriving them from a password on the thread pool, a bounded number at a time, and keeping them in a document.
 */
import { createHmac, hash as digest, pbkdf2 } from 'node:crypto'
import { promisify } from 'node:util'
import type { ScramHash, ScramKeys } from '../../server/module.ts'

const derive = promisify(pbkdf2)

/** A hash: its name in SCRAM and in node:crypto, its length in bytes, and the suffix of its fields in a document. */
export interface HashInfo {
  readonly hash: ScramHash
  readonly node: string
  readonly bytes: number
  readonly suffix: string
}
/** The hash that passwords given in clear are checked with, where an account has it. */
export const SHA_256: HashInfo = { hash: 'SHA-256', node: 'sha256', bytes: 32, suffix: '256' }
/** All hashes that keys are made for. */
export const HASHES: readonly HashInfo[] = [
  { hash: 'SHA-1', node: 'sha1', bytes: 20, suffix: '1' },
  SHA_256,
  { hash: 'SHA-512', node: 'sha512', bytes: 64, suffix: '512' },
]
/** What is known of a hash. */
export const infoOf = (name: ScramHash): HashInfo => HASHES.find((info) => info.hash === name) ?? SHA_256
/** XEP-0438 §6.2. */
export const SALT_BYTES = 16

/**
 * Stored per account: created, changed (milliseconds since 1970), generation, per hash iterations, salt, stored and server key, and for
 * searching `hashes` and `profile` (see profiles.ts).
 */
export type AccountDoc = { readonly [field: string]: number | string | Uint8Array }

/** See Generations; '' of documents that have none. */
export function generationOf(doc: AccountDoc): string {
  const { generation } = doc
  return typeof generation === 'string' ? generation : ''
}

/** The keys of one hash, undefined when the account has none. */
export function keysOf(doc: AccountDoc, { suffix }: HashInfo): ScramKeys | undefined {
  const salt = doc[`salt${suffix}`]
  const storedKey = doc[`stored${suffix}`]
  const serverKey = doc[`server${suffix}`]
  const iterations = doc[`iterations${suffix}`]
  if (!(salt instanceof Uint8Array) || !(storedKey instanceof Uint8Array)) return undefined
  if (!(serverKey instanceof Uint8Array) || typeof iterations !== 'number') return undefined
  return { salt, iterations, storedKey, serverKey }
}

/** The fields of one hash. */
export function fieldsOf(keys: ScramKeys, { suffix }: HashInfo): AccountDoc {
  return {
    [`iterations${suffix}`]: keys.iterations,
    [`salt${suffix}`]: keys.salt,
    [`stored${suffix}`]: keys.storedKey,
    [`server${suffix}`]: keys.serverKey,
  }
}

/** The hashes that the account has keys of, in the order of HASHES. */
export const hashesIn = (doc: AccountDoc): readonly ScramHash[] =>
  HASHES.filter((info) => keysOf(doc, info) !== undefined).map(({ hash }) => hash)

/** Whether `doc` has all the keys of `earlier`: still the same account and password, if perhaps with more hashes. */
export function sameKeys(earlier: AccountDoc, doc: AccountDoc): boolean {
  return HASHES.every((info) => {
    const [one, two] = [keysOf(earlier, info), keysOf(doc, info)]
    if (one === undefined) return true
    return two !== undefined && same(one.salt, two.salt) && same(one.storedKey, two.storedKey)
  })
}
const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0

/** RFC 5802 §3: the keys from SaltedPassword. */
export function keysFrom(
  { node }: HashInfo,
  salted: Uint8Array,
  salt: Uint8Array,
  iterations: number,
): ScramKeys {
  const clientKey = createHmac(node, salted).update('Client Key').digest()
  const serverKey = createHmac(node, salted).update('Server Key').digest()
  return { salt, iterations, storedKey: digest(node, clientKey, 'buffer'), serverKey }
}

/** Derivations that run at the same time: half of the thread pool, so that others get on. */
const MAX_DERIVING = 2
/** Derivations that may wait. */
const MAX_WAITING = 256

/** There is more to derive than can wait. */
export class Busy extends Error {
  override readonly name = 'Busy'
}

/** Derives keys from passwords. */
export class KeyMaker {
  #free = MAX_DERIVING
  readonly #waiting: (() => void)[] = []

  /** RFC 5802 §3; the password is prepared. Throws Busy. */
  async keys(info: HashInfo, password: string, salt: Uint8Array, iterations: number): Promise<ScramKeys> {
    const salted = await this.#turn(() => derive(password, salt, iterations, info.bytes, info.node))
    return keysFrom(info, salted, salt, iterations)
  }

  async #turn<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--
    else {
      if (this.#waiting.length >= MAX_WAITING) throw new Busy('too many passwords at the same time')
      await new Promise<void>((resolve) => this.#waiting.push(resolve))
    }
    try {
      return await work()
    } finally {
      const next = this.#waiting.shift()
      if (next === undefined) this.#free++
      else next()
    }
  }
}
