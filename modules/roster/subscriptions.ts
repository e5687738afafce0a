/**
 * Subscription states and their events as pure functions: RFC 6121 Appendix A, with the pre-approvals of §3.4.
 *
 * The nine states of §A.1 are four facts: `to`, `from`, `pendingOut` and `pendingIn`. Storing, routing and delivering
 * are done by the caller.
 */

/** How things stand between an account and one contact, seen from the account (§A.1). */
export interface SubscriptionState {
  /** The account is subscribed to the contact's presence. */
  readonly to: boolean
  /** The contact is subscribed to the account's presence. */
  readonly from: boolean
  /** The account has asked and waits for an answer (`ask='subscribe'`). */
  readonly pendingOut: boolean
  /** The contact has asked and waits for an answer. */
  readonly pendingIn: boolean
  /** A request of the contact is to be granted when it comes (§3.4). */
  readonly approved: boolean
}

/** The types of presence that manage subscriptions. */
export type SubscriptionType = 'subscribe' | 'subscribed' | 'unsubscribe' | 'unsubscribed'

/** What an event leads to. */
export interface Outcome {
  /** The very state that was given when nothing changes. */
  readonly state: SubscriptionState
  /** Outbound: route the stanza to the contact. Inbound: deliver it to the account's resources. */
  readonly pass: boolean
  /** What the server answers on behalf of the account. */
  readonly reply?: 'subscribed' | 'unsubscribed'
}

/** Whether a presence type manages subscriptions. */
export function isSubscriptionType(type: string | undefined): type is SubscriptionType {
  return type === 'subscribe' || type === 'subscribed' || type === 'unsubscribe' || type === 'unsubscribed'
}

/** A stanza of the account itself (§A.2). */
export function outbound(type: SubscriptionType, s: SubscriptionState): Outcome {
  switch (type) {
    case 'subscribe': // table 2: always routed
      return { pass: true, state: s.to || s.pendingOut ? s : { ...s, pendingOut: true } }
    case 'unsubscribe': // table 3: always routed
      return { pass: true, state: s.to || s.pendingOut ? { ...s, to: false, pendingOut: false } : s }
    case 'subscribed': // table 4
      if (s.from) return { pass: false, state: s }
      if (s.pendingIn) return { pass: true, state: { ...s, from: true, pendingIn: false, approved: false } }
      // §3.4.2 rules 3 and 4: nobody asked yet, so it is an approval in advance
      return { pass: false, state: s.approved ? s : { ...s, approved: true } }
    case 'unsubscribed': // table 5
      if (s.from || s.pendingIn)
        return { pass: true, state: { ...s, from: false, pendingIn: false, approved: false } }
      // §3.2.2 rule 2: at most a pre-approval ends, of which the contact learns nothing
      return { pass: false, state: s.approved ? { ...s, approved: false } : s }
  }
}

/** A stanza of the contact (§A.3). */
export function inbound(type: SubscriptionType, s: SubscriptionState): Outcome {
  switch (type) {
    case 'subscribe': // table 6
      if (s.from) return { pass: false, state: s, reply: 'subscribed' }
      // §3.4.2: a pre-approval is used up by the request it was given for
      if (s.approved)
        return {
          pass: false,
          state: { ...s, from: true, pendingIn: false, approved: false },
          reply: 'subscribed',
        }
      if (s.pendingIn) return { pass: false, state: s }
      return { pass: true, state: { ...s, pendingIn: true } }
    case 'unsubscribe': // table 7
      if (!s.from && !s.pendingIn) return { pass: false, state: s }
      return { pass: true, state: { ...s, from: false, pendingIn: false }, reply: 'unsubscribed' }
    case 'subscribed': // table 8
      if (!s.pendingOut) return { pass: false, state: s }
      return { pass: true, state: { ...s, to: true, pendingOut: false } }
    case 'unsubscribed': // table 9
      if (!s.to && !s.pendingOut) return { pass: false, state: s }
      return { pass: true, state: { ...s, to: false, pendingOut: false } }
  }
}
