/** What the presence module offers to others: a service and a chain. */
import type { Bound } from '../../server/module.ts'
import type { Element } from '../../server/xmpp/element.ts'
import type { JID } from '../../server/xmpp/jid.ts'

/** A session has become available, has changed its presence, or has become unavailable. */
export interface PresenceChange {
  readonly session: Bound
  /** As broadcast, without `to`; undefined: unavailable now. */
  readonly presence: Element | undefined
  /** What was before; undefined: was not available. */
  readonly previous: Element | undefined
}

/** When an account was last available. */
export interface LastPresence {
  /** Milliseconds since 1970. */
  readonly at: number
  /** What its last resource said when it went. */
  readonly status: string | undefined
}

/** Shows and hides the presence of accounts. */
export interface PresenceService {
  /** Sends `to` the presence of each available resource of the account. */
  show(local: string, to: JID): void
  /** Sends `to` unavailable presence from each resource that it may believe available, and forgets directed presence to it. */
  hide(local: string, to: JID): void
  /** As `show`, for each subscriber that matches, and asks matching contacts for theirs. */
  showMatching(local: string, matches: (jid: JID) => boolean): Promise<void>
  /** As `hide`, for each subscriber and each addressee of directed presence that matches. */
  hideMatching(local: string, matches: (jid: JID) => boolean): Promise<void>
  /** Whether the session has sent directed presence to an address of that account or room, and nothing has ended it. */
  directedTo(session: Bound, jid: JID): boolean
  /** Undefined when the account was never available, or is available now. */
  last(local: string): Promise<LastPresence | undefined>
}

declare module '../../server/module.ts' {
  interface Services {
    presence: PresenceService
  }
  interface Hooks {
    /** Run by the presence module when the session's presence is set, before contacts are told. */
    'presence:changed': PresenceChange
  }
}
