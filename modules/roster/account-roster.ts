/** The roster of one account in memory: its contacts, their number and size, its versions (RFC 6121 §2.6), its lane of changes. */
import { StanzaError } from '../../server/xmpp/errors.ts'
import type { JID } from '../../server/xmpp/jid.ts'
import { type Contact, type RosterView, sizeOf, unknownContact } from './contact.ts'

/** Limits on one roster. */
export interface RosterLimits {
  /** Items that clients see. */
  readonly maxContacts: number
  /** Subscription requests that wait for an answer. */
  readonly maxRequests: number
  /** All names, groups, addresses and requests together, in characters. */
  readonly maxSize: number
}

/** What tells the versions of this roster from those of another one that had the same account name. */
export interface VersionBase {
  readonly epoch: string
  /** Removals up to this version are forgotten, so changes since an older one are not known. */
  readonly floor: number
}

/** A roster and what its owner is waiting for. Written by `Rosters` only. */
export class AccountRoster implements RosterView {
  readonly local: string
  /** The account. */
  readonly bare: JID
  /** The newest version. */
  version = 0
  /** Read from the store when first needed. */
  base: VersionBase | undefined
  /** Items that clients see. */
  listed = 0
  /** The account is being deleted: nothing is stored any more. */
  gone = false
  /** What it counted for in the cache of accounts that are not online. */
  weight = 0
  #requests = 0
  #size = 0
  readonly #contacts = new Map<string, Contact>()
  /** Bare JIDs of removed contacts, oldest removal first. */
  readonly #removed = new Set<string>()
  readonly #limits: RosterLimits
  #tail: Promise<unknown> = Promise.resolve()
  #waiting = 0

  constructor(bare: JID, limits: RosterLimits) {
    this.local = bare.local
    this.bare = bare
    this.#limits = limits
  }

  get(contact: JID): Contact | undefined {
    return this.#contacts.get(contact.bare.toString())
  }

  contacts(): IterableIterator<Contact> {
    return this.#contacts.values()
  }

  get size(): number {
    return this.#contacts.size
  }

  /** Removals that are remembered. */
  get removed(): number {
    return this.#removed.size
  }

  /** The oldest removal that is remembered. */
  get oldestRemoved(): Contact | undefined {
    for (const key of this.#removed) return this.#contacts.get(key)
    return undefined
  }

  /** Puts a contact in place of what was there, as the store has it. */
  put(now: Contact): void {
    const key = now.jid.toString()
    const old = this.#contacts.get(key)
    this.#count(old, -1)
    this.#count(now, 1)
    if (now.version > this.version) this.version = now.version
    this.#removed.delete(key)
    if (!now.listed && now.version > 0) this.#removed.add(key)
    if (now.listed || now.version > 0 || now.request !== undefined) this.#contacts.set(key, now)
    else this.#contacts.delete(key)
  }

  /** Puts what was read from the store, in no order of time. */
  fill(contacts: readonly Contact[]): void {
    for (const contact of contacts.toSorted((a, b) => a.version - b.version)) this.put(contact)
  }

  #count(contact: Contact | undefined, sign: 1 | -1): void {
    if (contact === undefined) return
    if (contact.listed) this.listed += sign
    if (contact.request !== undefined) this.#requests += sign
    this.#size += sign * sizeOf(contact)
  }

  /** Forgets everything (the account is gone). */
  clear(): void {
    for (const contact of this.#contacts.values()) this.put(unknownContact(contact.jid))
  }

  /** Throws StanzaError('resource-constraint') when the account itself wants more than the limits allow. */
  checkRoom(old: Contact, now: Contact): void {
    if (now.listed && !old.listed && this.listed >= this.#limits.maxContacts)
      throw new StanzaError('resource-constraint', { text: 'the roster is full' })
    const growth = sizeOf(now) - sizeOf(old)
    if (growth > 0 && this.#size + growth > this.#limits.maxSize)
      throw new StanzaError('resource-constraint', { text: 'the roster is too large' })
  }

  /** Whether one more subscription request may be kept (RFC 6121 §3.1.3, security warning). */
  hasRoomForRequest(size: number): boolean {
    return this.#requests < this.#limits.maxRequests && this.#size + size <= this.#limits.maxSize
  }

  /** The version as clients see it (§2.1.1). */
  ver(version = this.version): string {
    return `${this.base?.epoch ?? ''}.${version}`
  }

  /** The version a client names, when all changes since then are known. */
  known(ver: string): number | undefined {
    const { base } = this
    if (base === undefined || !ver.startsWith(`${base.epoch}.`)) return undefined
    const digits = ver.slice(base.epoch.length + 1)
    const version = /^\d{1,15}$/.test(digits) ? Number(digits) : Number.NaN
    return version >= base.floor && version <= this.version ? version : undefined
  }

  /** What changed after a version, in the order of the changes (§2.6.3). */
  changesSince(version: number): readonly Contact[] {
    if (version >= this.version) return []
    return [...this.#contacts.values()]
      .filter((contact) => contact.version > version)
      .sort((a, b) => a.version - b.version)
  }

  /** Whether changes are under way. */
  get busy(): boolean {
    return this.#waiting > 0
  }

  /** Runs jobs one after another, whether or not the one before failed. */
  run<T>(job: () => Promise<T>): Promise<T> {
    this.#waiting++
    const result = this.#tail.then(job).finally(() => {
      this.#waiting--
    })
    this.#tail = result.catch(() => undefined)
    return result
  }
}
