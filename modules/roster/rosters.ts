/**
 * All rosters of a host: loading, keeping in memory, changing. One document for each contact, so a change is one write.
 *
 * Changes of one account are made one after another, and reach memory when they are stored. Each change that clients can see
 * takes the next number of the account's counter as the version of the item. A removed item stays as a mark with its version,
 * up to a bound, so that a client that was away learns of the removal (RFC 6121 §2.6.3).
 */
import { randomBytes } from 'node:crypto'
import type { Counter, Ctx, Doc, Docs, Session } from '../../server/module.ts'
import { type JID, makeJid, tryJid } from '../../server/xmpp/jid.ts'
import { AccountRoster, type RosterLimits } from './account-roster.ts'
import { Turns } from './turns.ts'
import {
  type Contact,
  type ContactDoc,
  type RosterService,
  differs,
  fromDoc,
  toDoc,
  unknownContact,
} from './contact.ts'

/** Removals that are remembered for each roster. */
export const MAX_REMOVED = 100
/** What is kept in memory of accounts that are not online: accounts, and contacts of all of them. */
const MAX_RECENT = 2000
const MAX_RECENT_CONTACTS = 50_000
/** How long a deleted account is remembered, for events that are still on their way. */
const GONE_MS = 60_000

interface BaseDoc extends Doc {
  readonly epoch: string
  readonly floor: number
}

/** A change of one contact. */
export interface Change {
  readonly local: string
  /** Bare JID of the contact. */
  readonly contact: JID
  /**
   * The contact as it is to be, or `old` itself when nothing changes; the version is set by the caller. Pure, may be called
   * more than once; throws StanzaError to refuse.
   */
  decide(old: Contact, roster: AccountRoster): Contact
  /** Called when the change is stored (or nothing was to be stored), before any other change of the account. */
  effect(old: Contact, now: Contact, roster: AccountRoster): void
  /** Also a change that clients do not see counts as one, when the item is in the roster (§2.4.2, §3.2.2). */
  readonly always?: boolean
}

/** The rosters of one host. */
export class Rosters implements RosterService {
  readonly #ctx: Ctx
  readonly #limits: RosterLimits
  readonly #contacts: Docs<ContactDoc>
  readonly #bases: Docs<BaseDoc>
  readonly #versions: Counter
  /** Accounts with sessions. */
  readonly #online = new Map<string, AccountRoster>()
  /** Others, least recently used first. */
  readonly #recent = new Map<string, AccountRoster>()
  #recentContacts = 0
  readonly #turns = new Turns()
  readonly #loading = new Map<string, Promise<AccountRoster>>()

  constructor(ctx: Ctx, limits: RosterLimits) {
    this.#ctx = ctx
    this.#limits = limits
    this.#contacts = ctx.storage.docs<ContactDoc>('contacts')
    this.#bases = ctx.storage.docs<BaseDoc>('versions')
    this.#versions = ctx.storage.counter('version')
    ctx.metrics.gauge('cached', 'Rosters in memory', () => this.#online.size + this.#recent.size)
  }

  of(local: string): AccountRoster | Promise<AccountRoster> {
    const online = this.#online.get(local)
    if (online !== undefined) return online
    const recent = this.#recent.get(local)
    if (recent === undefined) return this.#loading.get(local) ?? this.#load(local)
    this.#recent.delete(local)
    this.#recent.set(local, recent)
    return recent
  }

  /** The roster with what its versions are told from; for `ver()` and `known()`. */
  withVersions(local: string): AccountRoster | Promise<AccountRoster> {
    const roster = this.of(local)
    if (roster instanceof Promise) return roster.then((loaded) => this.#readBase(loaded))
    return roster.base === undefined ? this.#readBase(roster) : roster
  }

  async #readBase(roster: AccountRoster): Promise<AccountRoster> {
    if (roster.base !== undefined || roster.gone) return roster
    const fresh: BaseDoc = { epoch: randomBytes(6).toString('base64url'), floor: 0 }
    roster.base = (await this.#bases.update(roster.local, 'base', (old) => old ?? fresh)) ?? fresh
    return roster
  }

  #load(local: string): Promise<AccountRoster> {
    const loading = this.#read(local).finally(() => this.#loading.delete(local))
    this.#loading.set(local, loading)
    return loading
  }

  async #read(local: string): Promise<AccountRoster> {
    const roster = new AccountRoster(makeJid(local, this.#ctx.host), this.#limits)
    const contacts: Contact[] = []
    await this.#ctx.inSlices(this.#contacts.list(local), ([key, doc]) => {
      const jid = tryJid(key)
      if (jid === undefined) this.#ctx.log.warn('roster has an item that is no address', { account: local })
      else contacts.push(fromDoc(jid, doc))
    })
    // inSlices stops early then
    if (this.#ctx.signal.aborted) throw new Error('the roster module is unloaded')
    roster.fill(contacts)
    if (this.#ctx.sessions.of(local).length > 0) this.#online.set(local, roster)
    else this.#addRecent(roster)
    return roster
  }

  #addRecent(roster: AccountRoster): void {
    roster.weight = roster.size
    this.#recentContacts += roster.weight
    this.#recent.set(roster.local, roster)
    for (const [local, oldest] of this.#recent) {
      if (this.#recent.size <= MAX_RECENT && this.#recentContacts <= MAX_RECENT_CONTACTS) return
      // What is being changed must not be read again before the change is stored.
      if (oldest !== roster && !oldest.busy) this.#dropRecent(local)
    }
  }

  #dropRecent(local: string): AccountRoster | undefined {
    const roster = this.#recent.get(local)
    if (roster === undefined) return undefined
    this.#recent.delete(local)
    this.#recentContacts -= roster.weight
    return roster
  }

  /** The account has a session: its roster stays in memory. */
  sessionBound(local: string): void {
    const roster = this.#dropRecent(local) ?? this.#online.get(local)
    if (roster === undefined) return
    if (roster.gone) this.#online.delete(local)
    else this.#online.set(local, roster)
  }

  /** A session is over; without another one the roster may leave memory. */
  sessionClosed(session: Session, local: string): void {
    if (this.#ctx.sessions.of(local).some((other) => other !== session)) return
    const roster = this.#online.get(local)
    if (roster === undefined) return
    this.#online.delete(local)
    this.#addRecent(roster)
  }

  /** Makes a change. Rejects with what `decide` throws, or with the error of the store; nothing has changed then. */
  async change(change: Change): Promise<void> {
    const roster = await this.of(change.local)
    await roster.run(async () => {
      await this.#turns.take()
      if (roster.gone) return
      const { old, now } = await this.#apply(roster, change)
      roster.put(now)
      change.effect(old, now, roster)
      if (roster.removed > MAX_REMOVED) this.#forgetOldest(roster)
    })
  }

  async #apply(
    roster: AccountRoster,
    change: Change,
  ): Promise<{ readonly old: Contact; readonly now: Contact }> {
    const { local, contact } = change
    const cached = roster.get(contact) ?? unknownContact(contact)
    const planned = change.decide(cached, roster)
    if (planned === cached) return { old: cached, now: cached }
    await this.#readBase(roster)
    let version = visible(change, cached, planned) ? await this.#versions.next(local) : undefined
    for (;;) {
      let old = cached
      let again = false
      const doc = await this.#contacts.update(local, contact.toString(), (stored) => {
        old = stored === undefined ? unknownContact(contact) : fromDoc(contact, stored)
        const now = change.decide(old, roster)
        const seen = visible(change, old, now)
        again = seen && version === undefined
        if (now === old || again) return stored
        return toDoc({ ...now, version: seen ? (version ?? old.version) : old.version })
      })
      if (!again) return { old, now: doc === undefined ? unknownContact(contact) : fromDoc(contact, doc) }
      version = await this.#versions.next(local) // another process has changed this contact meanwhile
    }
  }

  /** Lets go of the oldest mark of a removal. Clients with an older version get the whole roster from now on. */
  #forgetOldest(roster: AccountRoster): void {
    const forget = async (): Promise<void> => {
      const oldest = roster.oldestRemoved
      const { base } = roster
      if (roster.gone || oldest === undefined || base === undefined) return
      const floor = oldest.version
      // First the limit, then the mark: a crash in between costs nothing but a whole roster for old clients.
      await this.#bases.put(roster.local, 'base', { epoch: base.epoch, floor })
      roster.base = { ...base, floor }
      const forgotten = { ...oldest, version: 0 }
      await this.#contacts.update(roster.local, oldest.jid.toString(), () => toDoc(forgotten))
      roster.put(forgotten)
    }
    roster.run(forget).catch((error: unknown) => {
      this.#ctx.log.warn('removed contact not forgotten', { account: roster.local, err: error })
    })
  }

  /** The account is being deleted: `farewell` runs behind all changes under way, then nothing is stored any more. */
  async close(local: string, farewell: (roster: AccountRoster) => Promise<void>): Promise<void> {
    const roster = await this.of(local)
    await roster.run(async () => {
      roster.gone = true
      await farewell(roster)
      roster.clear()
    })
    this.#ctx.timers.after(GONE_MS, () => {
      if (this.#recent.get(local) === roster) this.#dropRecent(local)
      if (this.#online.get(local) === roster) this.#online.delete(local)
    })
  }
}

function visible(change: Change, old: Contact, now: Contact): boolean {
  if (old === now) return false
  return change.always === true ? old.listed || now.listed : differs(old, now)
}
