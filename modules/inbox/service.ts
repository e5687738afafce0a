/** What the module inbox (XEP-0430) offers to others. */
import type { Entry, Services } from '../../server/module.ts'
import type { JID } from '../../server/xmpp/jid.ts'

/** The archive of an account as module mam shows it. */
export type Source = ReturnType<Services['archive']['source']>
/** A message in an archive, as it is stored. */
export type Message = Entry<{ readonly xml: string }>

/** What is unread. */
export interface Unread {
  /** Conversations with unread messages. */
  readonly conversations: number
  /** Unread messages of all of them. */
  readonly messages: number
}

/** Conversations of the accounts of this host. */
export interface InboxService {
  /** What the account has not read now. Throws StanzaError('resource-constraint') while a long archive is read for the first time. */
  unread(local: string): Promise<Unread>
  /**
   * The account has displayed its conversation with `peer` up to the message with that id (for clients) of its archive, as another protocol says
   * (XEP-0490). False when there is no such message there.
   */
  displayed(local: string, peer: JID, id: string): Promise<boolean>
}

declare module '../../server/module.ts' {
  interface Services {
    inbox: InboxService
  }
}
