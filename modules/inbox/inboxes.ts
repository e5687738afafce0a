/**
 * The inboxes of a host: those used lately are in memory. One run at a time for each account follows its archive; who asks meanwhile shares the
 * next one, which begins after the question and so has all that was archived before. What was found is written some time later: until then it can
 * be found again.
 */
import type { Ctx, Docs } from '../../server/module.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { AccountInbox, type InboxRules } from './account-inbox.ts'
import { Conversation, type ConversationDoc } from './conversation.ts'
import { type Mark, Marks } from './marks.ts'

/** How far the archive of an account was followed. `removed`: entries were removed that may still be counted. */
type StateDoc = { readonly upto: string; readonly rules: string; readonly removed: boolean }

const STATE = 'state'
/** Of what is stored; counts up when the rules change. */
const VERSION = '1'
/** What an account costs besides its conversations, in conversations. */
const ACCOUNT_WEIGHT = 20
const WRITE_AFTER_MS = 10_000
/** How long a removed account is remembered, for what is still under way. */
const GONE_MS = 60_000
/** A long archive is not read again from its beginning after a crash. */
const ENTRIES_PER_WRITE = 20_000
/** How long a request waits; less than clients do. */
const PATIENCE_MS = 5000
/** Documents written at once. */
const AT_ONCE = 200

/** Bounds and rules of a host. */
export interface HostRules extends InboxRules {
  /** Conversations in memory, of all accounts together. */
  readonly maxCached: number
}

/** An account in memory. */
interface Cached {
  readonly inbox: AccountInbox
  weight: number
  /** The account was removed: nothing of it may come back. */
  gone: boolean
  /** How far it is stored. */
  written: Pick<StateDoc, 'upto' | 'removed'>
}

/** The inboxes of a host. */
export class Inboxes {
  readonly #marks: Marks
  readonly #ctx: Ctx
  readonly #rules: HostRules
  /** Of the rules by which conversations are made; what was stored by others is made anew. */
  readonly #version: string
  readonly #states: Docs<StateDoc>
  readonly #docs: Docs<ConversationDoc>
  readonly #followed: { add(n?: number): void }
  /** Least recently used first. */
  readonly #cache = new Map<string, Cached>()
  #weight = 0
  readonly #running = new Map<string, Promise<AccountInbox>>()
  readonly #waiting = new Map<string, Promise<AccountInbox>>()
  readonly #writing = new Set<string>()
  /** By account, the last of the writes under way; never rejects. */
  readonly #writes = new Map<string, Promise<void>>()
  readonly #gone = new Set<string>()

  constructor(ctx: Ctx, rules: HostRules) {
    this.#ctx = ctx
    this.#rules = rules
    this.#version = `${VERSION} ${rules.readBySending}`
    this.#states = ctx.storage.docs<StateDoc>('accounts')
    this.#docs = ctx.storage.docs<ConversationDoc>('conversations')
    this.#marks = new Marks(ctx)
    this.#followed = ctx.metrics.counter('followed', 'Messages of archives that were taken into inboxes')
    ctx.metrics.gauge('cached', 'Conversations in memory', () => this.#weight)
  }

  /** The inbox as the archive is now, or later. */
  current(local: string): Promise<AccountInbox> {
    const waiting = this.#waiting.get(local)
    if (waiting !== undefined) return waiting
    const running = this.#running.get(local)
    if (running === undefined) return this.#start(local)
    const next = running
      .catch(() => undefined)
      .then(() => {
        this.#waiting.delete(local)
        return this.#start(local)
      })
    this.#waiting.set(local, next)
    return next
  }

  /** The same for somebody who does not wait for ever. Throws StanzaError('resource-constraint') when it takes long; it goes on nevertheless. */
  async soon(local: string): Promise<AccountInbox> {
    const current = this.current(local)
    const late = Promise.withResolvers<never>()
    const timer = this.#ctx.timers.after(PATIENCE_MS, () => {
      current.catch((error: unknown) => this.#failed('an archive could not be followed', error))
      late.reject(
        new StanzaError('resource-constraint', { type: 'wait', text: 'the archive is read, ask again' }),
      )
    })
    try {
      return await Promise.race([current, late.promise])
    } finally {
      timer[Symbol.dispose]()
    }
  }

  /** The account has displayed a conversation, which the archive does not know. */
  async mark(local: string, mark: Mark): Promise<void> {
    if (!(await this.#marks.add(local, mark)) || this.#running.has(local)) return
    this.current(local).catch((error: unknown) => this.#failed('an archive could not be followed', error))
  }

  /** The same by the id for clients in its archive; false when that conversation has no such message. */
  async displayed(local: string, jid: string, id: string): Promise<boolean> {
    const { archive, ids } = this.#ctx.use('archive').source(local)
    const entry = ids.decode(local, id)
    if (entry === undefined) return false
    const [found] = (await archive.page(local, { ids: [entry], from: 'first', limit: 1 })).entries
    if (found?.with !== jid) return false
    await this.mark(local, { jid, id: entry, by: 'entry' })
    return true
  }

  /** Entries of an archive were removed. */
  async removed(local: string): Promise<void> {
    this.#cache.get(local)?.inbox.removed()
    // For one that is not in memory, or will not be when it is asked for.
    await this.#states.update(local, STATE, (old) => old && { ...old, removed: true })
  }

  /** The account is gone. */
  deleted(local: string): void {
    const cached = this.#cache.get(local)
    if (cached !== undefined) cached.gone = true
    this.#drop(local)
    this.#gone.add(local)
    this.#ctx.timers.after(GONE_MS, () => void this.#gone.delete(local))
  }

  /** Follows the archives of all accounts that have an inbox, so that no question finds much to do. */
  async followAll(): Promise<void> {
    await this.#ctx.inSlices(this.#states.owners(), async (local) => {
      const used = this.#cache.has(local)
      try {
        await this.current(local)
      } catch (error) {
        this.#failed('an archive could not be followed', error)
      }
      const cached = this.#cache.get(local)
      if (used || cached === undefined || this.#running.has(local)) return
      await this.#write(local, cached)
      this.#drop(local)
    })
  }

  /** Writes what is not written yet. */
  async stop(): Promise<void> {
    await Promise.all([...this.#cache].map(([local, cached]) => this.#write(local, cached)))
    await Promise.all(this.#writes.values()) // those that have left the memory
  }

  // ---- runs ----

  #start(local: string): Promise<AccountInbox> {
    const run: Promise<AccountInbox> = this.#follow(local).finally(() => {
      if (this.#running.get(local) === run) this.#running.delete(local)
    })
    this.#running.set(local, run)
    return run
  }

  async #follow(local: string): Promise<AccountInbox> {
    // What failed, although the store has it, is taken out of the archive, and gets another id when it comes again.
    await this.#ctx.use('archive').settled(local)
    // Somebody may have that name again.
    if (this.#cache.get(local)?.gone === true) this.#drop(local)
    const cached = this.#cache.get(local) ?? (await this.#load(local))
    this.#cache.delete(local)
    this.#cache.set(local, cached)
    const { inbox } = cached
    let entries = 0
    await inbox.follow(() => {
      entries++
      this.#followed.add()
      if (entries % ENTRIES_PER_WRITE !== 0) return undefined
      return this.#write(local, cached, true).then(() => undefined)
    })
    const marks = await this.#marks.of(local)
    for (const { jid, id, by } of marks)
      await (by === 'entry' ? inbox.displayedEntry(jid, id) : inbox.displayed(jid, id))
    this.#weigh(local, cached)
    if (marks.length > 0) {
      // What the archive does not know must be written before it is forgotten.
      if (await this.#write(local, cached, true)) await this.#marks.done(local, marks)
    } else if (this.#isChanged(cached)) this.#writeLater(local)
    return inbox
  }

  async #load(local: string): Promise<Cached> {
    await this.#writes.get(local) // it may have left the memory just now
    const source = this.#ctx.use('archive').source(local)
    const rules = this.#version
    const state = await this.#states.get(local, STATE)
    const conversations: Conversation[] = []
    const others: string[] = []
    await this.#ctx.inSlices(this.#docs.list(local), ([jid, doc]) => {
      if (doc.rules === rules) conversations.push(new Conversation(jid, doc))
      else {
        others.push(jid)
        // the archive does not tell that again
        if (doc.marked !== undefined && doc.marked !== '')
          conversations.push(Conversation.marked(jid, doc.marked))
      }
    })
    if (this.#ctx.signal.aborted) throw new StanzaError('service-unavailable')
    const upto = state?.rules === rules ? state.upto : ''
    const inbox = new AccountInbox(this.#ctx, source, this.#rules, { upto, conversations })
    for (const jid of others) inbox.changed.add(jid)
    const removed = state?.removed === true
    if (removed) inbox.removed()
    return { inbox, weight: 0, gone: await this.#isGone(local), written: { upto, removed } }
  }

  async #isGone(local: string): Promise<boolean> {
    if (!this.#gone.has(local)) return false
    const exists = (await this.#ctx.find('auth')?.exists(local)) === true
    if (exists) this.#gone.delete(local)
    return !exists
  }

  #weigh(local: string, cached: Cached): void {
    if (this.#cache.get(local) !== cached) return
    const weight = cached.inbox.conversations.size + ACCOUNT_WEIGHT
    this.#weight += weight - cached.weight
    cached.weight = weight
    for (const [other, candidate] of this.#cache) {
      if (this.#weight <= this.#rules.maxCached) return
      if (other === local || this.#running.has(other)) continue
      this.#write(other, candidate).catch((error: unknown) => this.#failed('an inbox was not written', error))
      this.#drop(other)
    }
  }

  #drop(local: string): void {
    this.#weight -= this.#cache.get(local)?.weight ?? 0
    this.#cache.delete(local)
  }

  // ---- writing ----

  #isChanged({ inbox, written }: Cached): boolean {
    return inbox.changed.size > 0 || inbox.upto !== written.upto || inbox.isDoubtful !== written.removed
  }

  #writeLater(local: string): void {
    if (this.#writing.has(local)) return
    this.#writing.add(local)
    this.#ctx.timers.after(WRITE_AFTER_MS, async () => {
      this.#writing.delete(local)
      const cached = this.#cache.get(local)
      if (cached !== undefined) await this.#write(local, cached)
    })
  }

  /**
   * `within`: called by the run of this account, between two entries. True: all that there is was stored. One at a time: the later one knows
   * more, and what the archive does not tell again must not be turned back by an earlier one.
   */
  #write(local: string, cached: Cached, within = false): Promise<boolean> {
    const write = (this.#writes.get(local) ?? Promise.resolve()).then(() =>
      this.#writeNow(local, cached, within),
    )
    const settled = (): void => {
      if (this.#writes.get(local) === over) this.#writes.delete(local)
    }
    const over: Promise<void> = write.then(settled, settled)
    this.#writes.set(local, over)
    return write
  }

  async #writeNow(local: string, cached: Cached, within: boolean): Promise<boolean> {
    // In the middle of an entry nothing is right; the run writes, or asks for it, in its end.
    if (!within && this.#running.has(local)) return false
    // What has left the memory was not told that the account is gone.
    const isGone = (): boolean => cached.gone || this.#gone.has(local)
    if (this.#ctx.signal.aborted || isGone()) return false
    if (!this.#isChanged(cached)) return true
    const { inbox } = cached
    const { upto, isDoubtful: removed } = inbox
    const rules = this.#version
    const changes = [...inbox.changed].map(
      (jid) => [jid, inbox.conversations.get(jid)?.toDoc(upto, rules)] as const,
    )
    inbox.changed.clear()
    try {
      for (let i = 0; i < changes.length; i += AT_ONCE) {
        if (isGone()) return false
        await Promise.all(
          changes
            .slice(i, i + AT_ONCE)
            .map(([jid, doc]) => this.#docs.update(local, jid, (old) => further(old, upto, rules) ?? doc)),
        )
      }
      if (isGone()) return false
      const state = { upto, removed, rules }
      await this.#states.update(local, STATE, (old) => further(old, upto, rules) ?? state)
      cached.written = { upto, removed }
      return true
    } catch (error) {
      for (const [jid] of changes) inbox.changed.add(jid)
      throw error
    }
  }

  #failed(message: string, error: unknown): void {
    if (!this.#ctx.signal.aborted) this.#ctx.log.error(message, { err: error })
  }
}

/** What is stored when it goes further than that, by the same rules: by another process. */
function further<T extends { readonly upto: string; readonly rules: string }>(
  old: T | undefined,
  upto: string,
  rules: string,
): T | undefined {
  return old !== undefined && old.rules === rules && old.upto > upto ? old : undefined
}
