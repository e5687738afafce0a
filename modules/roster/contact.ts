/**
 * One entry of a roster: in memory, in the store, on the wire (RFC 6121 §2.1.2). Also the service that other modules see.
 */
import type { Doc } from '../../server/module.ts'
import { type Element, el } from '../../server/xmpp/element.ts'
import type { JID } from '../../server/xmpp/jid.ts'
import { NS } from '../../server/xmpp/ns.ts'
import type { SubscriptionState } from './subscriptions.ts'

/** What an account has about one contact. Never changes; a new object takes its place. */
export interface Contact extends SubscriptionState {
  /** Bare. */
  readonly jid: JID
  /** '' when none. */
  readonly name: string
  readonly groups: readonly string[]
  /** Whether clients see it. A contact that only asked for a subscription is not in the roster (RFC 6121 §3.1.3). */
  readonly listed: boolean
  /** Version of the roster that brought the last change clients see; 0: never seen. Unlisted and above 0: was removed. */
  readonly version: number
  /** The subscription request that waits for an answer, as XML (RFC 6121 §3.1.3 rule 4). */
  readonly request: string | undefined
}

/** A contact in the store; what has its usual value is left out. */
export interface ContactDoc extends Doc {
  readonly v: number
  readonly name?: string
  readonly groups?: readonly string[]
  readonly to?: true
  readonly from?: true
  readonly ask?: true
  readonly approved?: true
  readonly listed?: true
  readonly request?: string
}

/** The roster of one account, as other modules read it. Always the present state: do not keep copies of contacts. */
export interface RosterView {
  /** The entry of a contact (by bare JID), listed or not. */
  get(contact: JID): Contact | undefined
  /** All entries, listed or not; those added during the iteration come too, those removed do not. */
  contacts(): IterableIterator<Contact>
  /** Entries, listed or not. */
  readonly size: number
}

/** Who is in whose roster, and who may see whose presence. */
export interface RosterService {
  /** The roster of an account; plainly when it is in memory, which it is while the account is online and has used it. */
  of(local: string): RosterView | Promise<RosterView>
}

declare module '../../server/module.ts' {
  interface Services {
    roster: RosterService
  }
}

const NO_GROUPS: readonly string[] = []

/** A contact that nothing is known of. */
export function unknownContact(jid: JID): Contact {
  return {
    jid,
    name: '',
    groups: NO_GROUPS,
    to: false,
    from: false,
    pendingOut: false,
    pendingIn: false,
    approved: false,
    listed: false,
    version: 0,
    request: undefined,
  }
}

/** What is left of a contact that was taken out of the roster. A request stays until it is answered (RFC 6121 §3.1.3). */
export function unlisted(contact: Contact): Contact {
  const { pendingIn, request } = contact
  return { ...unknownContact(contact.jid), pendingIn, request }
}

/** From the store. */
export function fromDoc(jid: JID, doc: ContactDoc): Contact {
  return {
    jid,
    name: doc.name ?? '',
    groups: doc.groups ?? NO_GROUPS,
    to: doc.to === true,
    from: doc.from === true,
    pendingOut: doc.ask === true,
    pendingIn: doc.request !== undefined,
    approved: doc.approved === true,
    listed: doc.listed === true,
    version: doc.v,
    request: doc.request,
  }
}

/** For the store; undefined when there is nothing to remember. */
export function toDoc(c: Contact): ContactDoc | undefined {
  if (!c.listed && c.version === 0 && c.request === undefined) return undefined
  return {
    v: c.version,
    ...(c.name !== '' && { name: c.name }),
    ...(c.groups.length > 0 && { groups: c.groups }),
    ...(c.to && { to: true }),
    ...(c.from && { from: true }),
    ...(c.pendingOut && { ask: true }),
    ...(c.approved && { approved: true }),
    ...(c.listed && { listed: true }),
    ...(c.request !== undefined && { request: c.request }),
  }
}

/** Characters a contact takes, for the limit on the size of a roster. */
export function sizeOf(c: Contact): number {
  let size = c.jid.toString().length + c.name.length + (c.request?.length ?? 0)
  for (const group of c.groups) size += group.length
  return size
}

/** Whether clients see a difference: a "roster modification" (RFC 6121 §2.6.3). */
export function differs(a: Contact, b: Contact): boolean {
  if (a === b) return false
  return (
    a.listed !== b.listed ||
    a.to !== b.to ||
    a.from !== b.from ||
    a.pendingOut !== b.pendingOut ||
    a.approved !== b.approved ||
    a.name !== b.name ||
    a.groups.length !== b.groups.length ||
    a.groups.some((group, i) => group !== b.groups[i])
  )
}

/** The item as clients get it (RFC 6121 §2.1.2); `remove` when it is not in the roster any more. */
export function toItem(c: Contact): Element {
  const jid = c.jid.toString()
  if (!c.listed) return el('item', NS.ROSTER, { jid, subscription: 'remove' })
  const attrs = {
    jid,
    name: c.name === '' ? undefined : c.name,
    subscription: c.to ? (c.from ? 'both' : 'to') : c.from ? 'from' : 'none',
    ask: c.pendingOut ? 'subscribe' : undefined, // §2.1.2.2
    approved: c.approved ? 'true' : undefined, // §2.1.2.1
  }
  return el('item', NS.ROSTER, attrs, ...c.groups.map((group) => el('group', NS.ROSTER, {}, group)))
}
