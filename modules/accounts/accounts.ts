/** The accounts of one host: the service `auth` over documents of the store. */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import type {
  AuthService,
  Ctx,
  Docs,
  Generations,
  KeyUpgrade,
  ScramHash,
  ScramKeys,
  ScramStore,
} from '../../server/module.ts'
import { SaslError, StanzaError } from '../../server/xmpp/errors.ts'
import { type JID, JidError, makeJid } from '../../server/xmpp/jid.ts'
import { opaqueString, PrecisError } from '../../server/xmpp/precis.ts'
import { AccountDocs } from './account-docs.ts'
import {
  type AccountDoc,
  Busy,
  fieldsOf,
  generationOf,
  HASHES,
  type HashInfo,
  hashesIn,
  infoOf,
  KeyMaker,
  keysFrom,
  keysOf,
  SALT_BYTES,
  SHA_256,
  sameKeys,
} from './keys.ts'
import { type HostDoc, indexed, Profiles } from './profiles.ts'

declare module '../../server/module.ts' {
  interface Hooks {
    /**
     * The password of an account was changed, and what was given under the old one is void (Generations); it can be removed now. A failure
     * is logged and undoes nothing.
     */
    'account:password': { readonly account: JID }
  }
}

/** Longest password, in UTF-16 units. */
const MAX_PASSWORD = 1024

type FormerDoc = { readonly at: number }
/** Bytes of a generation. */
const GENERATION_BYTES = 12
/** Keys of the host's own documents: an account of nobody, and one that is never stored. */
const NOBODY = 'nobody'
const NOTHING = 'nothing'
/** Iteration counts and lengths of salts that keys from elsewhere may have. */
const MIN_ITERATIONS = 4096 // RFC 7677 §4
const MAX_ITERATIONS = 10_000_000
const MAX_SALT_BYTES = 1024
/** How often it is looked whether another process has added accounts with keys of other hashes. */
const POLL_MS = 60_000

/** How keys of new passwords are made. */
export interface KeyOptions {
  readonly iterations: number
  readonly hashes: readonly ScramHash[]
}

/** Implements `auth`. Call `open` first. */
export class Accounts implements AuthService, ScramStore {
  readonly #ctx: Ctx
  readonly #iterations: number
  /** Of new passwords, in the order of HASHES. */
  readonly #wanted: readonly HashInfo[]
  readonly #profiles: Profiles
  readonly #docs: AccountDocs
  readonly #blanks: Docs<AccountDoc>
  /** Names whose last owner was removed: something of his may be left (a crash, a store that failed, a late write). */
  readonly #former: Docs<FormerDoc>
  readonly #settling = new Map<string, Promise<void>>() // by name, the removal of that which is under way
  readonly #maker = new KeyMaker()

  constructor(ctx: Ctx, options: KeyOptions) {
    this.#ctx = ctx
    this.#iterations = options.iterations
    this.#wanted = HASHES.filter(({ hash }) => options.hashes.includes(hash))
    const docs = ctx.storage.docs<AccountDoc>('accounts', { index: ['hashes', 'profile'] })
    this.#docs = new AccountDocs(docs, () => ctx.now())
    const own = new Map(this.#wanted.map(({ hash }) => [hash, options.iterations]))
    this.#profiles = new Profiles(docs, ctx.storage.docs<HostDoc>('host'), own)
    this.#blanks = ctx.storage.docs<AccountDoc>('blanks')
    this.#former = ctx.storage.docs<FormerDoc>('former')
  }

  /** Reads what this host has kept for decoys, or makes it. */
  async open(): Promise<void> {
    await this.#profiles.open()
    let nobody: AccountDoc = { created: 0, changed: 0 }
    for (const info of HASHES) nobody = { ...nobody, ...fieldsOf(this.decoyKeys(NOBODY, info.hash), info) }
    await this.#blanks.put('', NOBODY, nobody)
    this.#ctx.timers.every(POLL_MS, () => this.#profiles.poll())
  }

  get scramHashes(): readonly ScramHash[] {
    return this.#profiles.common
  }
  get scramStore(): ScramStore {
    return this
  }

  exists(local: string): boolean | Promise<boolean> {
    return this.#docs.exists(local)
  }

  readonly generations: Generations = {
    of: (local) => this.#docs.generation(local),
    read: (local) => this.#docs.readGeneration(local),
    verify: (local, password) => this.#verify(local, password),
    scramKeys: async (local, hash) => {
      const doc = await this.#credentials(local)
      const keys = doc && keysOf(doc, infoOf(hash))
      return doc && keys && { ...keys, generation: generationOf(doc) }
    },
  }

  async scramKeys(local: string, hash: ScramHash): Promise<ScramKeys | undefined> {
    const doc = await this.#credentials(local)
    return doc === undefined ? undefined : keysOf(doc, infoOf(hash))
  }

  /** One read that finds a document and one that does not, whether the account exists or not: a login takes the same time. */
  async #credentials(local: string): Promise<AccountDoc | undefined> {
    const doc = await this.#docs.get(local)
    await this.#blanks.get('', doc === undefined ? NOBODY : NOTHING)
    return doc
  }

  decoyKeys(local: string, hash: ScramHash): ScramKeys {
    const { bytes } = infoOf(hash)
    const mac = (purpose: string): Buffer =>
      createHmac('sha512', this.#profiles.secret).update(`${purpose}\0${local}\0${hash}`).digest()
    return {
      salt: mac('salt').subarray(0, SALT_BYTES),
      iterations: this.#profiles.decoy(local).get(hash) ?? this.#iterations,
      storedKey: mac('stored').subarray(0, bytes),
      serverKey: mac('server').subarray(0, bytes),
    }
  }

  async verify(local: string, password: string): Promise<boolean> {
    return (await this.#verify(local, password)) !== undefined
  }

  /** The generation of the account whose password that is. */
  async #verify(local: string, password: string): Promise<string | undefined> {
    const name = tryPrepare(() => this.#name(local))
    const prepared = tryPrepare(() => preparePassword(password))
    // RFC 4616 §2: "if preparation fails [...] verification SHALL fail"; no account has such a name or password
    if (name === undefined || prepared === undefined) return undefined
    const decoy = this.#profiles.decoy(name) // always drawn, so that its time tells nothing
    const doc = await this.#credentials(name)
    const hashes = doc === undefined ? [...decoy.keys()] : hashesIn(doc)
    const info = hashes.includes(SHA_256.hash) ? SHA_256 : infoOf(hashes.at(-1) ?? SHA_256.hash)
    const made = this.decoyKeys(name, info.hash)
    const known = doc === undefined ? undefined : keysOf(doc, info)
    const { salt, iterations, storedKey } = known ?? made
    try {
      const tried = await this.#maker.keys(info, prepared, salt, iterations)
      if (!timingSafeEqual(tried.storedKey, storedKey) || doc === undefined || known === undefined)
        return undefined
    } catch (error) {
      if (error instanceof Busy) throw new SaslError('temporary-auth-failure', error.message)
      throw error
    }
    await this.#complete(name, doc, prepared)
    return generationOf(doc) // that of the keys it was compared with, whatever has become of them
  }

  async create(local: string, secret: string | ReadonlyMap<ScramHash, ScramKeys>): Promise<void> {
    const name = this.#name(local)
    if ((await this.#docs.get(name)) !== undefined) throw new StanzaError('conflict')
    const fresh = typeof secret === 'string' ? await this.#account(secret) : this.#imported(secret)
    await this.#settleFormer(name)
    const stored = await this.#profiles.writing(fresh, () => this.#docs.update(name, (old) => old ?? fresh))
    // somebody else may have been quicker while the keys were derived
    if (stored === undefined || generationOf(fresh) !== generationOf(stored))
      throw new StanzaError('conflict')
  }

  /** Nothing of the last owner of a name may come to the next one. Once for all who want it now: a second removal would hit who has it then. */
  #settleFormer(name: string): Promise<void> {
    const settling =
      this.#settling.get(name) ?? this.#removeFormer(name).finally(() => this.#settling.delete(name))
    this.#settling.set(name, settling)
    return settling
  }

  async #removeFormer(name: string): Promise<void> {
    if ((await this.#former.get('', name)) === undefined) return
    await this.#ctx.deleteAccount(name)
    await this.#former.delete('', name)
  }

  async setPassword(local: string, password: string): Promise<void> {
    const name = this.#name(local)
    const asked = await this.#docs.get(name)
    const fresh = await this.#account(password)
    let before: AccountDoc | undefined
    await this.#docs.update(name, (old) => {
      // deriving keys takes time: the name may be somebody else's now
      before = asked === undefined || old?.['created'] !== asked['created'] ? undefined : old
      return before === undefined ? old : { ...fresh, created: before['created'] ?? 0 }
    })
    if (before === undefined) throw new StanzaError('item-not-found')
    this.#left(before)
    const verdict = await this.#ctx.run('account:password', { account: makeJid(name, this.#ctx.host) })
    if (verdict !== undefined)
      this.#ctx.log.warn('void things of the old password could not be removed', { account: name })
  }

  async remove(local: string): Promise<boolean> {
    const name = tryPrepare(() => this.#name(local))
    // nobody, such as an anonymous user, or removed before
    if (name === undefined || (await this.#docs.get(name)) === undefined) return false
    await this.#former.put('', name, { at: this.#ctx.now() })
    let before: AccountDoc | undefined
    await this.#docs.update(name, (old) => {
      before = old
      return undefined
    })
    this.#left(before)
    return before !== undefined
  }

  #left(before: AccountDoc | undefined): void {
    if (before === undefined) return
    this.#profiles.left(before)?.catch((error: unknown) => {
      if (!this.#ctx.signal.aborted) this.#ctx.log.error('accounts cannot be looked at', { err: error })
    })
  }

  // ---- keys made elsewhere ----

  get hashes(): readonly ScramHash[] {
    return this.#wanted.map(({ hash }) => hash)
  }

  hashesOf(local: string): readonly ScramHash[] | Promise<readonly ScramHash[]> {
    if (this.#profiles.uniform) return this.scramHashes
    const decoy = this.#profiles.decoy(local)
    return this.#credentials(local).then((doc) => (doc === undefined ? [...decoy.keys()] : hashesIn(doc)))
  }

  async upgrade(local: string, hash: ScramHash, generation?: string): Promise<KeyUpgrade | undefined> {
    const info = this.#wanted.find((one) => one.hash === hash)
    const doc = await this.#docs.get(local)
    if (info === undefined || doc === undefined || keysOf(doc, info) !== undefined) return undefined
    // made from another password they would let in who has that one
    if (generation !== undefined && generation !== generationOf(doc)) return undefined
    const salt = randomBytes(SALT_BYTES)
    const iterations = this.#iterations
    return {
      salt,
      iterations,
      bytes: info.bytes,
      finish: async (salted) => {
        if (salted.length !== info.bytes) throw new RangeError('wrong length of a salted password')
        return await this.#addKeys(local, doc, fieldsOf(keysFrom(info, salted, salt, iterations), info), info)
      },
    }
  }

  /** Adds the fields to the account, if it is still the one that `doc` was read of and has no keys of that hash. */
  async #addKeys(
    local: string,
    doc: AccountDoc,
    fields: AccountDoc,
    info: HashInfo,
  ): Promise<'stored' | 'present' | 'changed'> {
    let outcome: 'stored' | 'present' | 'changed' = 'changed'
    await this.#profiles.writing({ ...doc, ...fields }, () =>
      this.#docs.update(local, (old) => {
        outcome = 'changed'
        if (old === undefined || generationOf(doc) !== generationOf(old) || !sameKeys(doc, old)) return old
        outcome = keysOf(old, info) === undefined ? 'stored' : 'present'
        return outcome === 'stored' ? indexed({ ...old, ...fields }) : old
      }),
    )
    this.#left(doc)
    return outcome
  }

  /** The password is known, for once: whatever hash the account lacks it can have now. */
  async #complete(local: string, doc: AccountDoc, password: string): Promise<void> {
    try {
      let now = doc
      for (const info of this.#wanted) {
        if (keysOf(doc, info) !== undefined) continue
        const keys = await this.#maker.keys(info, password, randomBytes(SALT_BYTES), this.#iterations)
        const fields = fieldsOf(keys, info)
        if ((await this.#addKeys(local, now, fields, info)) === 'changed') return
        now = { ...now, ...fields }
      }
    } catch (error) {
      // the login does not depend on it, and there will be another one
      if (!(error instanceof Busy)) this.#ctx.log.error('keys cannot be added', { err: error })
    }
  }

  /** The document of an account with keys from elsewhere; throws StanzaError. */
  #imported(keys: ReadonlyMap<ScramHash, ScramKeys>): AccountDoc {
    const now = this.#ctx.now()
    let doc = newDoc(now)
    for (const info of HASHES) {
      const given = keys.get(info.hash)
      if (given === undefined) continue
      const { salt, iterations, storedKey, serverKey } = given
      if (
        salt.length < 1 ||
        salt.length > MAX_SALT_BYTES ||
        !(Number.isInteger(iterations) && iterations >= MIN_ITERATIONS && iterations <= MAX_ITERATIONS) ||
        storedKey.length !== info.bytes ||
        serverKey.length !== info.bytes
      )
        throw new StanzaError('not-acceptable', { text: `not keys of SCRAM-${info.hash}` })
      doc = { ...doc, ...fieldsOf(given, info) }
    }
    if (hashesIn(doc).length === 0) throw new StanzaError('not-acceptable', { text: 'no keys' })
    return indexed(doc)
  }

  list(): AsyncIterable<string> {
    return this.#docs.owners()
  }

  async info(local: string): Promise<Readonly<Record<string, string | number>> | undefined> {
    const name = tryPrepare(() => this.#name(local))
    const doc = name === undefined ? undefined : await this.#docs.get(name)
    if (doc === undefined) return undefined
    return {
      created: new Date(Number(doc['created'])).toISOString(),
      changed: new Date(Number(doc['changed'])).toISOString(),
      iterations: Math.min(...HASHES.map((info) => keysOf(doc, info)?.iterations ?? Infinity)),
      hashes: hashesIn(doc).join(', '),
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
    let doc = newDoc(now)
    try {
      for (const info of this.#wanted) {
        const keys = await this.#maker.keys(info, prepared, randomBytes(SALT_BYTES), this.#iterations)
        doc = { ...doc, ...fieldsOf(keys, info) }
      }
    } catch (error) {
      if (error instanceof Busy) throw new StanzaError('resource-constraint', { text: error.message })
      throw error
    }
    return indexed(doc)
  }
}

/** Without keys yet. */
function newDoc(now: number): AccountDoc {
  return { created: now, changed: now, generation: randomBytes(GENERATION_BYTES).toString('base64url') }
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
