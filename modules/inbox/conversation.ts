/** One conversation of an account, in memory and as it is stored. Ids are those of the store, which sort in the order of the archive. */
import type { Author, Kind } from './kinds.ts'

/** Counted unread messages of one conversation end here. */
export const MAX_UNREAD = 10_000

/** A conversation as stored. */
export type ConversationDoc = {
  /** The entries of the archive up to this one are in it, */
  readonly upto: string
  /** by these rules. */
  readonly rules: string
  /** The last entry, of whatever kind. */
  readonly last: string
  /** The last instant message, '' for none. */
  readonly message: string
  /** The newest correction of that, '' for none. */
  readonly shown: string
  /** Who wrote it, and its id, so that a correction of it is known. */
  readonly own: boolean
  readonly from: string
  readonly id: string
  /** It was from or to an occupant of a room (XEP-0045); documents of earlier versions do not say. */
  readonly occupant?: boolean
  /** All up to there was read, '' for nothing. */
  readonly read: string
  /** That which was read by markers which are not in the archive, under any rules; documents of earlier versions do not say. */
  readonly marked?: string
  readonly unread: number
  /** The first unread message, '' for none. */
  readonly oldest: string
}

/** A conversation. */
export class Conversation {
  readonly jid: string
  upto = ''
  last = ''
  message = ''
  shown = ''
  author: Author = { own: false, from: '', id: undefined, occupant: false }
  read = ''
  marked = ''
  unread = 0
  oldest = ''
  /** Counting it anew was much work; milliseconds since 1970. */
  restUntil = 0

  constructor(jid: string, doc?: ConversationDoc) {
    this.jid = jid
    if (doc === undefined) return
    this.upto = doc.upto
    this.last = doc.last
    this.message = doc.message
    this.shown = doc.shown
    const { own, from, id, occupant = false } = doc
    this.author = { own, from, id: id === '' ? undefined : id, occupant }
    this.read = doc.read
    this.marked = doc.marked ?? ''
    this.unread = doc.unread
    this.oldest = doc.oldest
  }

  /** One of which nothing is known but how far it was read. */
  static marked(jid: string, read: string): Conversation {
    const conversation = new Conversation(jid)
    conversation.read = read
    conversation.marked = read
    return conversation
  }

  /** As it is stored when the archive was followed up to there, by those rules. */
  toDoc(upto: string, rules: string): ConversationDoc {
    const { last, message, shown, author, read, marked, unread, oldest } = this
    const { own, from, id = '', occupant } = author
    return { upto, rules, last, message, shown, own, from, id, occupant, read, marked, unread, oldest }
  }

  /** An instant message comes last. */
  add(entry: string, { own, from, id, occupant }: Kind): void {
    this.message = entry
    this.shown = ''
    this.author = { own, from, id, occupant }
    if (!own && entry > this.read) this.count(entry)
  }

  /** One unread message more. */
  count(entry: string): void {
    if (this.unread === 0) this.oldest = entry
    if (this.unread < MAX_UNREAD) this.unread++
  }

  /** All up to that entry, and with it all there is, was read. */
  readAll(entry: string): void {
    if (entry <= this.read) return
    this.read = entry
    this.unread = 0
    this.oldest = ''
  }
}
