/** The accounts of one host: the service `auth` over documents of the store. */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import type { AuthService, Ctx, Docs, ScramHash, ScramKeys } from '../../server/module.ts'
import { SaslError, StanzaError } from '../../server/xmpp/errors.ts'
import { type JID, JidError, makeJid } from '../../server/xmpp/jid.ts'
import { opaqueString, PrecisError } from '../../server/xmpp/precis.ts'
import { ExistsCache } from './exists-cache.ts'
import {
  type AccountDoc,
  Busy,
  fieldsOf,
  HASHES,
  infoOf,
  KeyMaker,
  keysOf,
  SALT_BYTES,
  SHA_256,
} from './keys.ts'

declare module '../../server/module.ts' {
  interface Hooks {
    /** The password of an account was changed; what was derived from the old one must go. */
    'account:password': { readonly account: JID }
  }
}

/** Longest password, in UTF-16 units. */
const MAX_PASSWORD = 1024

/** Stored once per host. `counts`: the iteration counts that accounts were made with, newest first. */
type HostDoc = { readonly decoy: Uint8Array; readonly counts: readonly number[] }
const KEY = 'account'
type FormerDoc = { readonly at: number }
/** Keys of the host's own documents: what decoys are made of, an account of nobody, and one that is never stored. */
const DECOYS = 'decoys'
const NOBODY = 'nobody'
const NOTHING = 'nothing'
/** Iteration counts remembered. */
const MAX_COUNTS = 8

/** Implements `auth`. Call `open` first. */
export class Accounts implements AuthService {
  readonly scramHashes: readonly ScramHash[] = HASHES.map((info) => info.hash)
  readonly #ctx: Ctx
  readonly #iterations: number
  readonly #docs: Docs<AccountDoc>
  readonly #blanks: Docs<AccountDoc>
  /** Names whose last owner was removed: something of his may be left (a crash, a store that failed, a late write). */
  readonly #former: Docs<FormerDoc>
  readonly #cache: ExistsCache
  readonly #maker = new KeyMaker()
  #decoySecret: Uint8Array = new Uint8Array()
  /** Iteration counts that decoys claim: those that real accounts may have. */
  #counts: readonly number[] = []

  constructor(ctx: Ctx, iterations: number) {
    this.#ctx = ctx
    this.#iterations = iterations
    this.#docs = ctx.storage.docs<AccountDoc>('accounts')
    this.#blanks = ctx.storage.docs<AccountDoc>('blanks')
    this.#former = ctx.storage.docs<FormerDoc>('former')
    this.#cache = new ExistsCache(() => ctx.now())
  }

  /** Reads what this host has kept for decoys, or makes it. */
  async open(): Promise<void> {
    const secret = randomBytes(32)
    const count = this.#iterations
    const host = this.#ctx.storage.docs<HostDoc>('host')
    const doc = await host.update('', DECOYS, (old) => {
      const others = (old?.counts ?? []).filter((known) => known !== count)
      return { decoy: old?.decoy ?? secret, counts: [count, ...others].slice(0, MAX_COUNTS) }
    })
    this.#decoySecret = doc?.decoy ?? secret
    this.#counts = doc?.counts ?? [count]
    let nobody: AccountDoc = { created: 0, changed: 0 }
    for (const info of HASHES) nobody = { ...nobody, ...fieldsOf(this.decoyKeys(NOBODY, info.hash), info) }
    await this.#blanks.put('', NOBODY, nobody)
  }

  exists(local: string): boolean | Promise<boolean> {
    return this.#cache.get(local) ?? this.#read(local).then((doc) => doc !== undefined)
  }

  async #read(local: string): Promise<AccountDoc | undefined> {
    const doc = await this.#docs.get(local, KEY)
    this.#cache.set(local, doc !== undefined)
    return doc
  }

  async scramKeys(local: string, hash: ScramHash): Promise<ScramKeys | undefined> {
    const doc = await this.#read(local)
    // One read that finds a document and one that does not, whether the account exists or not: a login takes the same time.
    const other = await this.#blanks.get('', doc === undefined ? NOBODY : NOTHING)
    const keys = keysOf(doc ?? other ?? {}, infoOf(hash))
    return doc === undefined ? undefined : keys
  }

  decoyKeys(local: string, hash: ScramHash): ScramKeys {
    const { bytes } = infoOf(hash)
    const mac = (purpose: string): Buffer =>
      createHmac('sha512', this.#decoySecret).update(`${purpose}\0${local}`).digest()
    // one choice per name: an account has the same count for all hashes
    const choice = mac('count').readUInt32BE(0) % this.#counts.length
    return {
      salt: mac(`salt\0${hash}`).subarray(0, SALT_BYTES),
      iterations: this.#counts[choice] ?? this.#iterations,
      storedKey: mac(`stored\0${hash}`).subarray(0, bytes),
      serverKey: mac(`server\0${hash}`).subarray(0, bytes),
    }
  }

  async verify(local: string, password: string): Promise<boolean> {
    const name = tryPrepare(() => this.#name(local))
    const prepared = tryPrepare(() => preparePassword(password))
    // RFC 4616 §2: "if preparation fails [...] verification SHALL fail"; no account has such a name or password
    if (name === undefined || prepared === undefined) return false
    const decoy = this.decoyKeys(name, SHA_256.hash)
    const known = await this.scramKeys(name, SHA_256.hash)
    const { salt, iterations, storedKey } = known ?? decoy
    try {
      const tried = await this.#maker.keys(SHA_256, prepared, salt, iterations)
      return timingSafeEqual(tried.storedKey, storedKey) && known !== undefined
    } catch (error) {
      if (error instanceof Busy) throw new SaslError('temporary-auth-failure', error.message)
      throw error
    }
  }

  async create(local: string, password: string): Promise<void> {
    const name = this.#name(local)
    if ((await this.#read(name)) !== undefined) throw new StanzaError('conflict')
    const fresh = await this.#account(password)
    await this.#settleFormer(name)
    const stored = await this.#docs.update(name, KEY, (old) => old ?? fresh)
    this.#cache.set(name, true)
    // somebody else may have been quicker while the keys were derived
    if (stored === undefined || !sameSalt(stored, fresh)) throw new StanzaError('conflict')
  }

  /** Nothing of the last owner of a name may come to the next one. */
  async #settleFormer(name: string): Promise<void> {
    if ((await this.#former.get('', name)) === undefined) return
    await this.#ctx.deleteAccount(name)
    await this.#former.delete('', name)
  }

  async setPassword(local: string, password: string): Promise<void> {
    const name = this.#name(local)
    const fresh = await this.#account(password)
    const stored = await this.#docs.update(name, KEY, (old) =>
      old === undefined ? undefined : { ...fresh, created: old['created'] ?? 0 },
    )
    if (stored === undefined) throw new StanzaError('item-not-found')
    await this.#ctx.run('account:password', { account: makeJid(name, this.#ctx.host) })
  }

  async remove(local: string): Promise<boolean> {
    const name = tryPrepare(() => this.#name(local))
    if (name === undefined) return false
    await this.#former.put('', name, { at: this.#ctx.now() })
    const removed = await this.#docs.delete(name, KEY)
    this.#cache.set(name, false)
    return removed
  }

  list(): AsyncIterable<string> {
    return this.#docs.owners()
  }

  async info(local: string): Promise<Readonly<Record<string, string | number>> | undefined> {
    const name = tryPrepare(() => this.#name(local))
    const doc = name === undefined ? undefined : await this.#read(name)
    if (doc === undefined) return undefined
    return {
      created: new Date(Number(doc['created'])).toISOString(),
      changed: new Date(Number(doc['changed'])).toISOString(),
      iterations: keysOf(doc, SHA_256)?.iterations ?? 0,
    }
  }

  /** RFC 7622 §3.3, RFC 8265 §3.3; throws StanzaError. */
  #name(local: string): string {
    try {
      if (local === '') throw new JidError('empty')
      return makeJid(local, this.#ctx.host).local
    } catch (error) {
      if (error instanceof JidError)
        throw new StanzaError('not-acceptable', { text: `not a user name: ${error.message}` })
      throw error
    }
  }

  /** The document of an account with this password, created now. */
  async #account(password: string): Promise<AccountDoc> {
    const prepared = preparePassword(password)
    const now = this.#ctx.now()
    let doc: AccountDoc = { created: now, changed: now }
    try {
      for (const info of HASHES) {
        const keys = await this.#maker.keys(info, prepared, randomBytes(SALT_BYTES), this.#iterations)
        doc = { ...doc, ...fieldsOf(keys, info) }
      }
    } catch (error) {
      if (error instanceof Busy) throw new StanzaError('resource-constraint', { text: error.message })
      throw error
    }
    return doc
  }
}

function sameSalt(a: AccountDoc, b: AccountDoc): boolean {
  const [one, two] = [keysOf(a, SHA_256), keysOf(b, SHA_256)]
  return one !== undefined && two !== undefined && Buffer.compare(one.salt, two.salt) === 0
}

/** RFC 8265 §4.2; throws StanzaError. */
function preparePassword(password: string): string {
  if (password.length > MAX_PASSWORD) throw new StanzaError('not-acceptable', { text: 'password too long' })
  try {
    return opaqueString(password)
  } catch (error) {
    if (error instanceof PrecisError)
      throw new StanzaError('not-acceptable', { text: `not a password: ${error.message}` })
    throw error
  }
}

function tryPrepare(prepare: () => string): string | undefined {
  try {
    return prepare()
  } catch (error) {
    if (error instanceof StanzaError) return undefined
    throw error
  }
}
