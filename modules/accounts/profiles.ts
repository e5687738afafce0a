/**
 * What the accounts of a host have keys for: which hashes, with which iteration counts. What all have decides which mechanisms are
 * offered to everybody; what some have decides what is claimed of names without account, so that asking does not tell who exists
 * (RFC 5802 §9).
 */
import { createHmac, randomBytes } from 'node:crypto'
import type { Docs, ScramHash } from '../../server/module.ts'
import { type AccountDoc, HASHES, keysOf } from './keys.ts'

/** Iteration counts by hash: everything that an account shows of its keys. */
export type Profile = ReadonlyMap<ScramHash, number>

/** Stored once per host. `profiles`: those that accounts were given, newest first, such as `SHA-1:4096 SHA-256:10000`. */
export type HostDoc = { readonly decoy: Uint8Array; readonly profiles?: readonly string[] }
const DECOYS = 'decoys'
/** Profiles remembered. */
const MAX_PROFILES = 16

/** The profile of an account. */
export const profileOf = (doc: AccountDoc): Profile =>
  new Map(
    HASHES.flatMap((info) => {
      const keys = keysOf(doc, info)
      return keys === undefined ? [] : [[info.hash, keys.iterations] as const]
    }),
  )

/** The document with the fields an account is found by. */
export function indexed(doc: AccountDoc): AccountDoc {
  const profile = profileOf(doc)
  return { ...doc, hashes: [...profile.keys()].join(' '), profile: nameOf(profile) }
}

const nameOf = (profile: Profile): string =>
  Array.from(profile, ([hash, count]) => `${hash}:${count}`).join(' ')

function named(name: string): Profile {
  const counts = new Map(name.split(' ').map((part) => [part.split(':')[0], Number(part.split(':')[1])]))
  return new Map(HASHES.flatMap(({ hash }) => (counts.has(hash) ? [[hash, counts.get(hash) ?? 0]] : [])))
}

/** All sets of hashes that an account may have keys for. */
const SETS: readonly (readonly ScramHash[])[] = HASHES.reduce<readonly (readonly ScramHash[])[]>(
  (sets, { hash }) => [...sets, ...sets.map((set) => [...set, hash])],
  [[]],
).filter((set) => set.length > 0)

/** What is known at one time. */
interface Known {
  /** What names without account claim; the first is that of new passwords. */
  readonly claimed: ReadonlyMap<string, Profile>
  /** The hashes that all accounts have keys for. */
  readonly common: readonly ScramHash[]
  /** All accounts have keys for the same hashes. */
  readonly uniform: boolean
}

/** Knows the profiles of one host. Call `open` first. */
export class Profiles {
  readonly #accounts: Docs<AccountDoc>
  readonly #host: Docs<HostDoc>
  /** Of new passwords. */
  readonly #own: Profile
  readonly #ownName: string
  #secret: Uint8Array = new Uint8Array()
  #known: Known
  /** Given to accounts right now. */
  readonly #writing = new Set<Profile>()
  #looking: Promise<void> | undefined
  #again = false

  /** `accounts` is indexed by `hashes` and `profile`. */
  constructor(accounts: Docs<AccountDoc>, host: Docs<HostDoc>, own: Profile) {
    this.#accounts = accounts
    this.#host = host
    this.#own = own
    this.#ownName = nameOf(own)
    this.#known = {
      claimed: new Map([[this.#ownName, own]]),
      common: [...own.keys()],
      uniform: true,
    }
  }

  /** Reads what this host has kept, or makes it. */
  async open(): Promise<void> {
    this.#secret = (await this.#remember(this.#ownName)).decoy
    await this.refresh()
  }

  /** Made once per host; decoys are derived from it. */
  get secret(): Uint8Array {
    return this.#secret
  }
  get common(): readonly ScramHash[] {
    return this.#known.common
  }
  get uniform(): boolean {
    return this.#known.uniform
  }

  /** What a name without account claims, the same each time as long as some account has that. */
  decoy(local: string): Profile {
    const { claimed } = this.#known
    if (claimed.size === 1) return this.#own
    let chosen = this.#own
    let highest = ''
    // each profile is drawn for itself, so that one that is added or gone changes no other choice
    for (const [name, profile] of claimed) {
      const lot = createHmac('sha512', this.#secret).update(`profile\0${name}\0${local}`).digest('hex')
      if (lot > highest) [chosen, highest] = [profile, lot]
    }
    return chosen
  }

  /** Runs `write`, which gives an account these keys; from its beginning on they are reckoned with. */
  async writing<T>(doc: AccountDoc, write: () => Promise<T>): Promise<T> {
    const profile = profileOf(doc)
    const name = nameOf(profile)
    if (name === this.#ownName) return await write()
    if (!this.#known.claimed.has(name)) await this.#remember(name)
    this.#writing.add(profile)
    try {
      this.#known = withProfile(this.#known, profile)
      return await write()
    } finally {
      this.#writing.delete(profile)
      this.#again = this.#looking !== undefined // it may have looked before that was stored
    }
  }

  /** An account has other keys now, or none: it may have been the last of its kind. Undefined when that makes no difference. */
  left(doc: AccountDoc): Promise<void> | undefined {
    return nameOf(profileOf(doc)) === this.#ownName ? undefined : this.refresh()
  }

  /** Another process may have added accounts of another kind; to be called now and then. */
  async poll(): Promise<void> {
    const stored = (await this.#host.get('', DECOYS))?.profiles ?? []
    if (stored.length > 1) await this.refresh()
  }

  async #remember(name: string): Promise<HostDoc> {
    const fresh: HostDoc = { decoy: randomBytes(32), profiles: [name] }
    const doc = await this.#host.update('', DECOYS, (old) => {
      const others = (old?.profiles ?? []).filter((known) => known !== name)
      return { decoy: old?.decoy ?? fresh.decoy, profiles: [name, ...others].slice(0, MAX_PROFILES) }
    })
    return doc ?? fresh
  }

  /** Looks which profiles accounts have now. One at a time; asked meanwhile, once more. */
  refresh(): Promise<void> {
    this.#again = this.#looking !== undefined
    this.#looking ??= this.#look().finally(() => {
      this.#looking = undefined
    })
    return this.#looking
  }

  async #look(): Promise<void> {
    do {
      this.#again = false
      const own = [...this.#own.keys()]
      let known: Known = { claimed: new Map([[this.#ownName, this.#own]]), common: own, uniform: true }
      for (const name of (await this.#host.get('', DECOYS))?.profiles ?? [])
        if (name !== this.#ownName && (await this.#any('profile', name)))
          known = withProfile(known, named(name))
      // also those of profiles that are not remembered any more
      for (const set of SETS)
        if (set.join(' ') !== own.join(' ') && (await this.#any('hashes', set.join(' '))))
          known = withHashes(known, set, this.#own)
      for (const profile of this.#writing) known = withProfile(known, profile)
      this.#known = known
    } while (this.#again)
  }

  async #any(field: 'profile' | 'hashes', value: string): Promise<boolean> {
    for await (const found of this.#accounts.find(field, value)) return found.length > 0
    return false
  }
}

function withHashes(known: Known, hashes: readonly ScramHash[], own: Profile): Known {
  return {
    claimed: known.claimed,
    common: known.common.filter((hash) => hashes.includes(hash)),
    uniform: known.uniform && hashes.length === own.size && hashes.every((hash) => own.has(hash)),
  }
}

function withProfile(known: Known, profile: Profile): Known {
  const [own = profile] = known.claimed.values()
  const claimed = new Map(known.claimed).set(nameOf(profile), profile)
  return withHashes({ ...known, claimed }, [...profile.keys()], own)
}
