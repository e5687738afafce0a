/** Requests for the inbox (XEP-0430 §3.1): what is asked for, and which conversations are the page (XEP-0059 1.0). */
import type { Element } from '../../server/xmpp/element.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { type PageRequest, parsePageRequest } from '../../server/xmpp/rsm.ts'
import type { Conversation } from './conversation.ts'

/** Inbox entries, XEP-0430. */
export const NS_INBOX = 'urn:xmpp:inbox:1'

/** A request. */
export interface InboxQuery {
  readonly unreadOnly: boolean
  /** With the last message of each conversation. */
  readonly messages: boolean
  readonly page: PageRequest | undefined
}

/** A conversation as it is told, apart from what may change meanwhile. */
export interface Row {
  readonly jid: string
  readonly unread: number
  /** Ids of the store: of the last entry, of the last message, and of what is shown as that. */
  readonly last: string
  readonly message: string
  readonly shown: string
}

/** The whole inbox at one moment. */
export interface View {
  /** Those asked for, the newest first (§2.2). */
  readonly rows: readonly Row[]
  /** Numbers of all conversations, of those with unread messages, of unread messages (§3.1). */
  readonly total: number
  readonly unread: number
  readonly allUnread: number
}

/** Some of the rows. */
export interface RowPage {
  readonly rows: readonly Row[]
  /** Position of the first. */
  readonly index: number
  /** The page is wanted backwards: when it has to end early, the last rows stay. */
  readonly backwards: boolean
}

/** Reads <inbox/>. Throws StanzaError. */
export function parseInboxQuery(inbox: Element): InboxQuery {
  return {
    unreadOnly: flag(inbox, 'unread-only', false),
    messages: flag(inbox, 'messages', true),
    page: parsePageRequest(inbox.getChild('set', NS.RSM)),
  }
}

function flag(inbox: Element, name: string, fallback: boolean): boolean {
  switch (inbox.attr(name)) {
    case undefined:
      return fallback
    case 'true':
    case '1':
      return true
    case 'false':
    case '0':
      return false
    default:
      throw new StanzaError('bad-request', { text: `'${name}' is true or false` })
  }
}

/** The inbox as it is now. What has no message is no conversation yet: a call, or what was taken back. */
export function viewOf(conversations: Iterable<Conversation>, unreadOnly: boolean): View {
  const rows: Row[] = []
  let [total, withUnread, allUnread] = [0, 0, 0]
  for (const { jid, unread, last, message, shown } of conversations) {
    if (message === '') continue
    total++
    if (unread > 0) withUnread++
    allUnread += unread
    if (unread > 0 || !unreadOnly)
      rows.push({ jid, unread, last, message, shown: shown === '' ? message : shown })
  }
  // No two have the same message.
  rows.sort((a, b) => (a.message < b.message ? 1 : -1))
  return { rows, total, unread: withUnread, allUnread }
}

/**
 * The rows that are asked for, `max` at most. A row is named by its last message, whose place stays when the conversation has moved on (XEP-0059 §2.2);
 * `entryOf` tells the store's id of a name. Throws StanzaError('item-not-found') for what is no name.
 */
export function pageOfRows(
  rows: readonly Row[],
  page: PageRequest | undefined,
  max: number,
  entryOf: (name: string) => string | undefined,
): RowPage {
  const size = Math.min(page?.max ?? max, max)
  const known = (name: string): string => {
    const entry = entryOf(name)
    if (entry === undefined) throw new StanzaError('item-not-found', { text: 'no such conversation' })
    return entry
  }
  /** How many rows are newer than that entry, or it. */
  const until = (entry: string, itself: boolean): number => {
    const at = rows.findIndex(({ message }) => (itself ? message < entry : message <= entry))
    return at < 0 ? rows.length : at
  }
  if (page?.before !== undefined) {
    const end = page.before === '' ? rows.length : until(known(page.before), false)
    const index = Math.max(0, end - size)
    return { rows: rows.slice(index, end), index, backwards: true }
  }
  const index = page?.after === undefined ? (page?.index ?? 0) : until(known(page.after), true)
  return { rows: rows.slice(index, index + size), index, backwards: false }
}
