/**
 * What happens when a subscription stanza leaves or reaches an account (RFC 6121 §3), and when a contact is removed (§2.5)
 * or the account goes away.
 *
 * The change is stored first; then the stanza is passed on, resources are told, and presence follows. A crash between the two
 * accounts of one event heals: an unanswered request is sent again and a stale subscription is refused at the next login
 * (§3.1.2, §4.3.2 rule 1).
 */
import { randomUUID } from 'node:crypto'
import type { Bound, Ctx, StanzaEvent, Verdict } from '../../server/module.ts'
import { type Element, el } from '../../server/xmpp/element.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import type { JID } from '../../server/xmpp/jid.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { type Contact, toItem, unlisted } from './contact.ts'
import type { AccountRoster } from './account-roster.ts'
import type { Rosters } from './rosters.ts'
import { type SubscriptionType, inbound, outbound } from './subscriptions.ts'

/** Ctx.flag of sessions that have asked for the roster (§2.2). */
export const INTERESTED = 'interested'

/** Events of subscriptions. */
export class SubscriptionFlow {
  readonly #ctx: Ctx
  readonly #rosters: Rosters
  /** Characters of a subscription request that is kept whole. */
  readonly #maxRequest: number

  constructor(ctx: Ctx, rosters: Rosters, maxRequest: number) {
    this.#ctx = ctx
    this.#rosters = rosters
    this.#maxRequest = maxRequest
  }

  /** A subscription stanza of a client of ours (§A.2). */
  async leaving(e: StanzaEvent, type: SubscriptionType): Promise<Verdict> {
    if (e.stanza.attr('to') === undefined)
      throw new StanzaError('bad-request', { text: 'whose presence is meant?' })
    const own = e.from.bare
    const contact = e.to.bare // §3.1.2 rule 1: a resource is ignored
    if (contact.equals(own)) {
      // §4.2.2: everybody is subscribed to himself
      if (type === 'subscribe') throw new StanzaError('not-allowed', { text: 'this is your own account' })
      return { stop: 'subscription to oneself' }
    }
    // §3: from the bare JID, whatever resource has sent it
    const stanza = e.stanza.withAttrs({ from: own.toString(), to: contact.toString() })
    await this.#rosters.change({
      local: own.local,
      contact,
      always: type === 'unsubscribed', // §3.2.2 rule 3
      decide(old, roster) {
        const { state } = outbound(type, old)
        if (state === old) return old
        const listed = old.listed || state.pendingOut || state.from || state.approved
        const now = { ...old, ...state, listed, request: state.pendingIn ? old.request : undefined }
        roster.checkRoom(old, now)
        return now
      },
      effect: (old, now, roster) => this.#left(type, stanza, old, now, roster),
    })
    return { stop: 'subscription handled' }
  }

  #left(type: SubscriptionType, stanza: Element, old: Contact, now: Contact, roster: AccountRoster): void {
    const { local } = roster
    // §3.2.2: unavailable goes out while the contact is still subscribed
    if (old.from && !now.from) this.#ctx.find('presence')?.hide(local, now.jid)
    if (outbound(type, old).pass) this.#post(stanza)
    this.pushChange(roster, old, now)
    // §3.1.5: the subscriber gets what there is now
    if (now.from && !old.from) this.#ctx.find('presence')?.show(local, now.jid)
  }

  /** A subscription stanza for an account of ours (§A.3). */
  async arriving(e: StanzaEvent, type: SubscriptionType): Promise<Verdict> {
    // §8.5.3.2.2: only a request may name a resource that is not there
    if (e.to.isFull && type !== 'subscribe' && this.#ctx.sessions.get(e.to) === undefined)
      return { stop: 'subscription stanza to a resource that is not there' }
    const own = e.to.bare // §3.1.3: as if directed to the bare JID
    const contact = e.from.bare
    if (contact.equals(own)) return { stop: 'subscription to oneself' }
    const stanza = e.stanza.withAttrs({ from: contact.toString(), to: own.toString() })
    let refused = false
    await this.#rosters.change({
      local: own.local,
      contact,
      decide: (old, roster) => {
        const { state } = inbound(type, old)
        if (state === old) return old
        const request = state.pendingIn ? (old.request ?? this.#keep(stanza)) : undefined
        refused =
          request !== undefined && old.request === undefined && !roster.hasRoomForRequest(request.length)
        return refused ? old : { ...old, ...state, request }
      },
      effect: (old, now, roster) => {
        if (!refused) this.#arrived(type, stanza, old, now, roster)
      },
    })
    if (refused)
      this.#ctx.log.info('subscription request refused: too many are waiting', { account: own.local })
    return { stop: refused ? 'too many subscription requests' : 'subscription handled' }
  }

  #arrived(type: SubscriptionType, stanza: Element, old: Contact, now: Contact, roster: AccountRoster): void {
    const { local } = roster
    const { pass, reply } = inbound(type, old)
    if (pass) {
      // §3.1.3 rule 3: requests to available resources; §3.1.6, §3.2.3, §3.3.3: the others to interested ones, before the push
      const wanted = (session: Bound): boolean =>
        type === 'subscribe' ? session.presence !== undefined : session.flag(INTERESTED) === true
      for (const session of this.#ctx.sessions.of(local))
        if (wanted(session)) this.#ctx.deliver(session, stanza)
    }
    if (reply === 'subscribed') this.#answer(roster, stanza, reply)
    this.pushChange(roster, old, now)
    if (reply === 'subscribed') this.#ctx.find('presence')?.show(local, now.jid) // §3.1.5
    if (old.from && !now.from) this.#ctx.find('presence')?.hide(local, now.jid) // §3.3.3 rule 3
    if (reply === 'unsubscribed') this.#answer(roster, stanza, reply) // table 7, note 1
  }

  /** §3.1.3 rule 2: an answer on behalf of the account. */
  #answer(roster: AccountRoster, asked: Element, type: 'subscribed' | 'unsubscribed'): void {
    const attrs = { from: roster.bare.toString(), to: asked.attr('from'), id: asked.attr('id'), type }
    this.#post(el('presence', NS.CLIENT, attrs))
  }

  /** §3.1.3 rule 4: the complete stanza, within bounds (security warning there). */
  #keep(stanza: Element): string {
    const text = stanza.toString()
    return text.length <= this.#maxRequest ? text : stanza.withChildren([]).toString()
  }

  /** Takes a contact out of the roster (§2.5). Rejects with item-not-found when it is not in there. */
  async remove(own: JID, contact: JID): Promise<void> {
    await this.#rosters.change({
      local: own.local,
      contact,
      decide(old) {
        if (!old.listed) throw new StanzaError('item-not-found', { text: 'not in the roster' }) // §2.5.3
        return unlisted(old)
      },
      effect: (old, now, roster) => {
        if (old.listed) this.#part(roster, old)
        this.pushChange(roster, old, now)
      },
    })
  }

  /** Ends what there is between the account and a contact (§2.5.2). `deny`: its unanswered request too. */
  #part(roster: AccountRoster, contact: Contact, deny = false): void {
    const blocked = this.#ctx.find('blocking')?.blocks(roster.local, contact.jid) ?? false
    // nothing is sent to a blocked JID, not even this
    if (blocked === true) return
    if (blocked === false) return this.#sayGoodbye(roster, contact, deny)
    blocked
      .then((yes) => (yes ? undefined : this.#sayGoodbye(roster, contact, deny)))
      .catch((error: unknown) => {
        this.#ctx.log.error('subscriptions not ended', { account: roster.local, err: error })
      })
  }

  #sayGoodbye(roster: AccountRoster, contact: Contact, deny: boolean): void {
    const attrs = { from: roster.bare.toString(), to: contact.jid.toString() }
    if (contact.from) this.#ctx.find('presence')?.hide(roster.local, contact.jid) // §3.2.2
    if (contact.to || contact.pendingOut)
      this.#post(el('presence', NS.CLIENT, { ...attrs, id: randomUUID(), type: 'unsubscribe' }))
    if (contact.from || (deny && contact.pendingIn))
      this.#post(el('presence', NS.CLIENT, { ...attrs, id: randomUUID(), type: 'unsubscribed' }))
  }

  /** The account is being deleted: its contacts learn that all is over, as if it had removed each of them. */
  async deleted(account: JID): Promise<void> {
    await this.#rosters.close(account.local, (roster) =>
      this.#ctx.inSlices([...roster.contacts()], (contact) => this.#part(roster, contact, true)),
    )
  }

  /** Sends a roster push to all interested resources when clients see the change (§2.1.6, §2.2). */
  pushChange(roster: AccountRoster, old: Contact, now: Contact): void {
    if (now.version === old.version) return
    for (const session of this.#ctx.sessions.of(roster.local)) {
      if (session.flag(INTERESTED) === true) this.push(roster, session, now)
    }
  }

  /** Sends one roster push (§2.1.6). */
  push(roster: AccountRoster, session: Bound, contact: Contact): void {
    // §2.6.3: with the version that this change has made
    const query = el('query', NS.ROSTER, { ver: roster.ver(contact.version) }, toItem(contact))
    const attrs = { type: 'set', id: randomUUID(), to: session.jid.toString() }
    this.#ctx.deliver(session, el('iq', NS.CLIENT, attrs, query))
  }

  #post(stanza: Element): void {
    // Not waited for: the addressee may be waiting for us.
    this.#ctx.send(stanza).catch((error: unknown) => {
      this.#ctx.log.error('subscription stanza not sent', { to: stanza.attr('to'), err: error })
    })
  }
}
