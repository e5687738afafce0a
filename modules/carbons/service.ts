/** What other modules may ask of copies. */
import type { Bound, Session } from '../../server/module.ts'
import type { Element } from '../../server/xmpp/element.ts'
import type { JID } from '../../server/xmpp/jid.ts'

/** What stands in a copy (XEP-0280 §7, §8): a message that the account has sent, or received. */
export interface Copy {
  readonly direction: 'sent' | 'received'
  readonly message: Element
}

/** `ctx.use('carbons')`. */
export interface CarbonsService {
  /** Whether a session gets copies. */
  copies(session: Bound): boolean
  /** What stands in a copy for a session of `account`; undefined: the stanza is none. */
  copyIn(stanza: Element, account: JID): Copy | undefined
  /**
   * Whether a message that came to `session`, which may be over, was one to copy to the other devices (XEP-0280 §6.1). Not for errors, which
   * count by what they answer.
   */
  isCopied(message: Element, session: Bound): boolean
}

declare module '../../server/module.ts' {
  interface StanzaEvent {
    /** account:in, from the copy phase on: sessions that have a copy of a message that no session takes, and that will be kept. */
    copied?: readonly Bound[]
    /** Of carbons alone: copies that are not needed when the message is kept. */
    spare?: readonly (Copy & { readonly session: Bound })[]
  }
  interface Hooks {
    /** The session gets copies from now on. */
    'carbons:enabled': { readonly session: Session }
  }
  interface Services {
    carbons: CarbonsService
  }
}
