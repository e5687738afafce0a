/**
 * The inbox of one account (XEP-0430 §2.2, §4) as it follows from the account's archive: whatever is here can be made again from there, so that nothing
 * needs to be written when a message comes, and no crash makes a wrong number. `follow` takes in what the archive has got since; the conversations of
 * which something was taken back or removed are counted anew.
 */
import type { Ctx } from '../../server/module.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { Conversation, MAX_UNREAD } from './conversation.ts'
import { type Kind, kindOf, Targets } from './kinds.ts'
import { backwards, existing, following } from './reading.ts'
import { Recent } from './recent.ts'
import type { Message, Source } from './service.ts'

/** Entries of a conversation that are looked at, from the newest on, when something of it must be found. */
const MAX_SEARCHED = 10_000
/** What a search costs besides, in entries. */
const SEARCH_COST = 20
/** Looking at more than this is much work; the other side, who may ask for it by taking messages back, gets it done once in a while. */
const MANY_SEARCHED = 1000
const REST_MS = 60_000

/** Bounds and rules. */
export interface InboxRules {
  /** Who writes in a conversation has read it. */
  readonly readBySending: boolean
  /** Conversations of one account; the oldest are forgotten. */
  readonly maxConversations: number
}

/** What is known before the archive is followed further. */
export interface Known {
  readonly upto: string
  readonly conversations: Iterable<Conversation>
}

/** The conversations of one account. `follow` must not run twice at the same time. */
export class AccountInbox {
  readonly conversations = new Map<string, Conversation>()
  readonly source: Source
  /** Addresses of conversations that differ from what is stored. */
  readonly changed = new Set<string>()
  readonly #ctx: Ctx
  readonly #rules: InboxRules
  #upto: string
  /** The first entry of the archive when it was looked at last; '' for none. */
  #first: string | undefined
  /** To be compared with the archive: what was stored, or all. */
  #check: 'nothing' | 'ends' | 'all' = 'ends'
  readonly #stale = new Set<Conversation>()
  /** Something of these was taken back. */
  readonly #retracted = new Set<Conversation>()
  /** Entries that may still be looked at for markers whose messages are not at hand: no more than are followed, so that ids of nowhere cost little. */
  #budget = 0

  constructor(ctx: Ctx, source: Source, rules: InboxRules, known: Known) {
    this.#ctx = ctx
    this.source = source
    this.#rules = rules
    this.#upto = known.upto
    for (const one of known.conversations) this.conversations.set(one.jid, one)
  }

  /** The archive was followed up to this entry. */
  get upto(): string {
    return this.#upto
  }

  /** Entries were removed from the archive. */
  removed(): void {
    this.#check = 'all'
  }

  /** Entries were removed since it was compared with the archive, or taken back since they were counted. */
  get isDoubtful(): boolean {
    return this.#check === 'all' || this.#retracted.size > 0
  }

  /** Something of the conversation is not as it is in the archive. */
  doubt(jid: string): void {
    const conversation = this.conversations.get(jid)
    if (conversation !== undefined) this.#stale.add(conversation)
  }

  /** Takes in what the archive has got since. `progress` is told of each entry. Throws StanzaError when the module is unloaded meanwhile. */
  async follow(progress: () => void | Promise<void>): Promise<void> {
    const [first] = (await this.source.archive.page(this.source.owner, { from: 'first', limit: 1 })).entries
    if (this.#first !== undefined && this.#first !== first?.id && this.#first !== '') this.#check = 'all'
    this.#first = first?.id ?? ''
    const recent = new Recent()
    this.#budget = MAX_SEARCHED
    await this.#ctx.inSlices(following(this.source, this.#upto), async (entry) => {
      const waits = this.#take(entry, recent)
      if (waits instanceof Promise) await waits
      this.#upto = entry.id
      // However many there are in the archive.
      if (this.conversations.size >= this.#rules.maxConversations * 2) this.#forget()
      this.#budget++
      const told = progress()
      if (told instanceof Promise) await told
    })
    this.#goOn()
    await this.#verify()
    for (const conversation of this.#stale) await this.#recount(conversation)
    for (const conversation of this.#retracted)
      if (conversation.restUntil <= this.#ctx.now()) await this.#recount(conversation)
    this.#goOn()
    this.#forget()
    this.#budget = MAX_SEARCHED
  }

  /** What was begun after the module was unloaded has not looked at all it should. */
  #goOn(): void {
    if (this.#ctx.signal.aborted) throw new StanzaError('service-unavailable')
  }

  /** The account has displayed that conversation up to the message with the id that its sender gave it (XEP-0333). */
  async displayed(jid: string, id: string): Promise<void> {
    const conversation = this.conversations.get(jid)
    if (conversation === undefined || conversation.unread === 0) return
    const entry = await this.#find(conversation, id, undefined)
    if (entry !== undefined) await this.displayedEntry(jid, entry)
  }

  /** The same by the store's id of the entry. */
  async displayedEntry(jid: string, entry: string): Promise<void> {
    const conversation = this.conversations.get(jid)
    if (conversation === undefined || entry <= conversation.read) return
    conversation.read = entry
    conversation.marked = entry
    await this.#recount(conversation)
  }

  // ---- following ----

  #take(entry: Message, recent: Recent): void | Promise<void> {
    const conversation = this.#of(entry.with)
    // A process that wrote its conversations ended before it wrote how far it was.
    if (entry.id <= conversation.upto) return undefined
    const kind = kindOf(parseXml(entry.doc.xml), this.source.jid)
    recent.begin(entry.with, conversation.last)
    conversation.last = entry.id
    this.changed.add(entry.with)
    // XEP-0424 §5. Its message may be a tombstone by now, or not yet: whether it was counted is not known.
    if (kind.retracts !== undefined) this.#retracted.add(conversation)
    if (kind.message) conversation.add(entry.id, kind)
    else if (kind.corrects !== undefined) this.#correct(conversation, entry.id, kind, kind.corrects)
    if (!kind.own) recent.add(entry.with, { entry: entry.id, ids: kind.ids, message: kind.message })
    else if (kind.wrote && this.#rules.readBySending) conversation.readAll(entry.id)
    else if (kind.displayed !== undefined && conversation.unread > 0)
      return this.#mark(conversation, kind.displayed, entry.id, recent)
    return undefined
  }

  /** XEP-0308 §3: the newest correction is what the message says. */
  #correct(conversation: Conversation, entry: string, by: Kind, corrects: string): void {
    const targets = new Targets<string>()
    targets.add(by, corrects, entry)
    if (conversation.message !== '' && targets.of(conversation.author) !== undefined)
      conversation.shown = entry
  }

  /** XEP-0430 §4, XEP-0333 §5: all up to that message is read; what is older than what was read, or unknown, changes nothing. */
  #mark(conversation: Conversation, id: string, marker: string, recent: Recent): void | Promise<void> {
    const { jid, read } = conversation
    const found = recent.find(jid, id)
    if (found !== undefined) {
      if (found.entry <= read) return undefined
      conversation.readAll(found.entry)
      for (const later of found.unread) conversation.count(later)
      return undefined
    }
    if (recent.hasAllAfter(jid, read) || this.#budget <= 0) return undefined
    return this.#find(conversation, id, marker).then((entry) => {
      if (entry === undefined) return
      conversation.read = entry
      this.#stale.add(conversation)
    })
  }

  /** The newest message from the other side with that id which is not read yet; `before`: an entry behind it. */
  async #find(
    conversation: Conversation,
    id: string,
    before: string | undefined,
  ): Promise<string | undefined> {
    const { jid, read } = conversation
    let found: string | undefined
    this.#budget -= SEARCH_COST
    const entries = backwards(this.source, jid, before ?? this.#upto, before)
    await this.#until(entries, (entry) => {
      if (entry.id <= read || --this.#budget < 0) return true
      const kind = kindOf(parseXml(entry.doc.xml), this.source.jid)
      if (!kind.own && kind.ids.includes(id)) found = entry.id
      return found !== undefined
    })
    return found
  }

  /** Looks at entries, letting others have their turn, until one is the last that matters. */
  async #until(entries: AsyncIterable<Message>, isLast: (entry: Message) => boolean): Promise<void> {
    let over = false
    async function* some(): AsyncIterable<Message> {
      for await (const entry of entries) {
        yield entry
        if (over) return
      }
    }
    await this.#ctx.inSlices(some(), (entry) => void (over = isLast(entry)))
  }

  // ---- what is not as it was ----

  /** Entries are removed by age and number, and messages become tombstones, without a word in the archive. */
  async #verify(): Promise<void> {
    const check = this.#check
    this.#check = 'nothing'
    if (check === 'nothing') return
    try {
      await this.#compare(check)
    } catch (error) {
      this.#check = 'all'
      throw error
    }
  }

  async #compare(check: 'ends' | 'all'): Promise<void> {
    const expected = new Map<string, Conversation>()
    for (const conversation of this.conversations.values()) {
      const { message, shown, oldest, unread } = conversation
      for (const entry of [message, shown, oldest]) if (entry !== '') expected.set(entry, conversation)
      if (check === 'all' && unread > 0) this.#stale.add(conversation)
    }
    await this.#ctx.inSlices(existing(this.source, [...expected.keys()]), (entry) => {
      const kind = kindOf(parseXml(entry.doc.xml), this.source.jid)
      if (kind.message || kind.corrects !== undefined) expected.delete(entry.id)
    })
    for (const conversation of expected.values()) this.#stale.add(conversation)
  }

  /** Finds the last message and counts what is unread, from the newest entry backwards. */
  async #recount(conversation: Conversation): Promise<void> {
    const { jid, read } = conversation
    const retracted = new Targets<true>()
    const corrections = new Targets<string>()
    const fresh = new Conversation(jid)
    fresh.read = read
    let searched = 0
    await this.#until(backwards(this.source, jid, this.#upto), (entry) => {
      if (++searched > MAX_SEARCHED) return true
      const kind = kindOf(parseXml(entry.doc.xml), this.source.jid)
      if (fresh.last === '') fresh.last = entry.id
      if (kind.retracts !== undefined) retracted.add(kind, kind.retracts, true)
      const stands = retracted.of(kind) === undefined
      if (stands && kind.corrects !== undefined) corrections.add(kind, kind.corrects, entry.id)
      if (stands && kind.message) {
        if (fresh.message === '') {
          fresh.message = entry.id
          fresh.shown = corrections.of(kind) ?? ''
          fresh.author = kind
        }
        if (!kind.own && entry.id > read && fresh.unread < MAX_UNREAD) {
          fresh.unread++
          fresh.oldest = entry.id
        }
      }
      return fresh.message !== '' && entry.id <= read
    })
    this.#stale.delete(conversation)
    this.#retracted.delete(conversation)
    if (searched > MANY_SEARCHED) conversation.restUntil = this.#ctx.now() + REST_MS
    this.changed.add(jid)
    if (fresh.last === '') this.conversations.delete(jid)
    else {
      const { last, message, shown, author, unread, oldest } = fresh
      const { own, from, id, occupant } = author
      Object.assign(conversation, {
        last,
        message,
        shown,
        author: { own, from, id, occupant },
        unread,
        oldest,
      })
    }
  }

  #of(jid: string): Conversation {
    let conversation = this.conversations.get(jid)
    if (conversation === undefined) this.conversations.set(jid, (conversation = new Conversation(jid)))
    return conversation
  }

  /** §3.1: the number of conversations may be limited. */
  #forget(): void {
    const { maxConversations } = this.#rules
    if (this.conversations.size <= maxConversations) return
    // Of some that are still to be followed only that is known up to which they were read.
    const newest = ({ last, read }: Conversation): string => (last > read ? last : read)
    const byAge = [...this.conversations.values()].toSorted((a, b) => (newest(a) < newest(b) ? -1 : 1))
    // Some more than must be, so that it is not done each time.
    for (const one of byAge.slice(0, byAge.length - Math.ceil(maxConversations * 0.9))) {
      this.conversations.delete(one.jid)
      this.changed.add(one.jid)
      this.#stale.delete(one)
      this.#retracted.delete(one)
    }
  }
}
