/**
 * The archives of accounts (XEP-0313 §3): appending, once for each message however often it is sent (XEP-0359 §2.2), and reading for other
 * modules. Queries of clients are in query.ts and pages.ts.
 */
import { createHash } from 'node:crypto'
import {
  type Archive,
  type Ctx,
  type Entry,
  type Page,
  StoreUnavailable,
  UnknownEntry,
} from '../../server/module.ts'
import type { Element } from '../../server/xmpp/element.ts'
import type { JID } from '../../server/xmpp/jid.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { Doubts, type NewEntry } from './doubts.ts'
import type { IdCodec } from './ids.ts'
import { NS_RETRACT } from './ns.ts'
import type { Finding } from './rules.ts'
import { Moments } from './moments.ts'
import { textOf } from './search.ts'
import { Unanswered } from './unanswered.ts'
import type { ArchivedMessage, Stored } from './service.ts'

/** Longer keys are hashed; UTF-16 units, of which the store takes a thousand in any script. */
const MAX_KEY = 500
/** Messages that are not to stay in memory, UTF-16 units. */
const LARGE = 4096
/** Entries of one step of a long reading. */
const STEP = 200

/** How long an append may take, milliseconds: less than a handler has, since what takes longer has failed for its sender. */
const APPEND_MS = 9_000
/** Messages with one id of their sender that are told apart by what they look like and when they came. */
const MAX_USES = 8

/** What became of a message. */
export interface Appended {
  /** The store's. */
  readonly id: string
  /** It was there already. */
  readonly duplicate: boolean
  /** Since when, if it was. */
  readonly since?: Date
}

/** An entry that is there once however often it is appended. */
type Keyed = NewEntry & { readonly dedupe: string }

/** An append that has begun. `hold`: when the next one of that archive may. */
interface Begun<T> {
  readonly done: Promise<T>
  readonly hold?: Promise<void>
}

/** All archives of one host. */
export class Archives {
  readonly archive: Archive<Stored>
  /** The same as readers are to see it. */
  readonly shown: Archive<Stored>
  readonly ids: IdCodec
  readonly #ctx: Ctx
  readonly #resendMs: number
  /** Appends that failed. */
  readonly doubts: Doubts
  readonly #unanswered = new Unanswered()
  /** Appends with a key that have no answer yet, by owner and key. */
  readonly #underWay = new Map<string, Promise<unknown>>()
  /** Owners of archives in which something is being put anew, and when the next append may begin; never rejects. */
  readonly #lines = new Map<string, Promise<void>>()
  readonly #moments = new Moments()

  /** `resendMs`: how long a message that is sent again counts as the same, milliseconds. `gone`: accounts that were just removed. */
  constructor(ctx: Ctx, ids: IdCodec, resendMs: number, gone: ReadonlySet<string>) {
    this.archive = ctx.storage.archive<Stored>('messages', { text: textOf })
    this.ids = ids
    this.#ctx = ctx
    this.#resendMs = resendMs
    const removed = (local: string): unknown => ctx.run('archive:removed', { local })
    this.doubts = new Doubts(this.archive, resendMs, gone, removed)
    this.shown = this.#unanswered.readers(this.archive, this.doubts)
  }

  /**
   * Appends a message that goes `out` to or comes `in` from `peer`; `then` is told its id for clients, and whether it was there already. Appends of
   * one archive take effect in the order of the calls.
   *
   * A message that has reached nobody, whose sender was told that it failed, is put at the end of the archive when it comes again, since that is how
   * every device will see it. What the store does too late is as good as failed; rejects then, or when the store fails.
   */
  append<T>(
    local: string,
    way: 'in' | 'out',
    peer: JID,
    stanza: Element,
    finding: Finding,
    then: (id: string, duplicate: boolean, since?: Date) => T | Promise<T>,
  ): Promise<T> {
    const dedupe = this.#dedupe(way, peer, finding)
    const now = this.#ctx.now()
    const by = now + APPEND_MS
    const line =
      (this.#lines.size === 0 ? undefined : this.#lines.get(local)) ?? this.#underWayOf(local, dedupe)
    if (line === undefined) {
      const { done, hold } = this.#begin(local, peer, stanza, dedupe, now, by, then)
      if (hold !== undefined) this.#stand(local, hold)
      return done
    }
    // In line behind all that came before, whether it waits or has begun.
    const begun = line
      .then(() => this.#underWayOf(local, dedupe))
      .then(() => {
        const later = this.#ctx.now()
        if (later >= by) throw tooLate()
        return this.#begin(local, peer, stanza, dedupe, later, by, then)
      })
    this.#stand(
      local,
      begun.then(
        ({ hold }) => hold,
        () => undefined,
      ),
    )
    return begun.then(({ done }) => done)
  }

  /** What all attempts to send a message have in common; undefined: nothing by which it could be known again. */
  #dedupe(way: 'in' | 'out', peer: JID, { originId, occupant }: Finding): string | undefined {
    if (originId === undefined || originId === '') return undefined
    // Rooms: all occupants have the bare address in common.
    return keyOf(way, (occupant ? peer : peer.bare).toString(), originId)
  }

  /** Settles when the attempt under way has its answer: until then nobody knows which of the two is the first. Never rejects. */
  #underWayOf(local: string, dedupe: string | undefined): Promise<void> | undefined {
    if (dedupe === undefined || this.#underWay.size === 0) return undefined
    const appending = this.#underWay.get(underWayKey(local, dedupe))
    return appending && settled(appending)
  }

  #stand(local: string, next: Promise<void>): void {
    this.#lines.set(local, next)
    void next.then(() => {
      if (this.#lines.get(local) === next) this.#lines.delete(local)
    })
  }

  #begin<T>(
    local: string,
    peer: JID,
    stanza: Element,
    dedupe: string | undefined,
    now: number,
    by: number,
    then: (id: string, duplicate: boolean, since?: Date) => T | Promise<T>,
  ): Begun<T> {
    const doc = { xml: stanza.toString() }
    const entry = { with: peer.bare.toString(), doc }
    if (dedupe === undefined) {
      // Equal messages have equal ids.
      const name = stanza.attr('id') ?? doc.xml
      // The name stays in memory, and with an id the message that it is a part of.
      const short = doc.xml.length < LARGE ? name : createHash('sha256').update(name).digest('base64url')
      const at = new Date(this.#moments.of(local, short, now))
      const single = { ...entry, at }
      return { done: this.#put(local, single, by, ({ id }) => then(this.ids.encode(local, id), false)) }
    }
    const keyed = { ...entry, at: new Date(now), dedupe }
    const done = this.#put(local, keyed, by, ({ id, duplicate }) => {
      if (!duplicate) {
        if (this.doubts.some) this.doubts.forget(local, keyed)
        return then(this.ids.encode(local, id), false)
      }
      return this.#known(local, keyed, id, stanza, by).then((known) =>
        then(this.ids.encode(local, known.id), known.duplicate, known.since),
      )
    })
    if (!this.doubts.concern(local, keyed)) return { done }
    // It may get its place only after some steps: what begins later must not get an earlier one.
    return { done, hold: settled(done) }
  }

  #put<T>(
    local: string,
    entry: NewEntry,
    by: number,
    then: (stored: Appended) => T | Promise<T>,
  ): Promise<T> {
    const attempt = this.#unanswered.begin(local, entry)
    const appending = this.archive.append(local, entry)
    const key = entry.dedupe === undefined ? undefined : underWayKey(local, entry.dedupe)
    if (key !== undefined) this.#underWay.set(key, appending)
    return appending.then(
      (stored) => {
        if (key !== undefined) this.#underWay.delete(key)
        if (!stored.duplicate && this.#ctx.now() >= by) {
          this.doubts.add(local, entry, false)
          this.#unanswered.end(attempt, false)
          throw tooLate()
        }
        this.#unanswered.end(attempt, true)
        return then(stored)
      },
      (error: unknown) => {
        if (key !== undefined) this.#underWay.delete(key)
        this.doubts.add(local, entry, error instanceof StoreUnavailable)
        this.#unanswered.end(attempt, false)
        throw error
      },
    )
  }

  /**
   * An id of its sender came twice. Clients that count their messages anew after each start use the same ids for other messages, which must
   * not be lost: only what looks the same, and is not too old, is the same. The id is the store's.
   */
  async #known(local: string, entry: Keyed, first: string, stanza: Element, by: number): Promise<Appended> {
    const looks = createHash('sha256').update(looksOf(stanza)).digest('base64url')
    for (let use = 0; use < MAX_USES; use++) {
      if (this.#ctx.now() >= by) throw tooLate()
      const parts = use === 0 ? [] : use === 1 ? [looks] : [looks, `${use}`]
      const keyed = { ...entry, dedupe: keyOf(entry.dedupe, ...parts) }
      const stored = await this.#shown(local, keyed, use === 0 ? first : undefined, by)
      if (!stored.duplicate) return stored
      const since = await this.#isSame(local, stored.id, entry.at, stanza)
      if (since === undefined) continue
      if (!this.doubts.isLost(local, since)) return { ...stored, since }
      await this.doubts.takeOut(local, stored.id)
      return await this.#put(local, keyed, by, (appended) => appended)
    }
    const { at, with: peer, doc } = entry
    return await this.#put(local, { at, with: peer, doc }, by, ({ id }) => ({ id, duplicate: false }))
  }

  /** Appends, unless an entry of that key has been shown; `first`: it is known that there is one. */
  async #shown(local: string, entry: Keyed, first: string | undefined, by: number): Promise<Appended> {
    const stored =
      first === undefined
        ? await this.#put(local, entry, by, (appended) => appended)
        : { id: first, duplicate: true }
    if (!stored.duplicate || !this.doubts.has(local, entry)) return stored
    await this.doubts.settle(local)
    if (this.#ctx.now() >= by) throw tooLate()
    return await this.#put(local, entry, by, (appended) => appended)
  }

  /** When that entry was made, if it is of the same message. */
  async #isSame(local: string, id: string, at: Date, stanza: Element): Promise<Date | undefined> {
    const [entry] = (await this.archive.page(local, { ids: [id], from: 'first', limit: 1 })).entries
    // Removed meanwhile, by age or by the user: then it is old.
    if (entry === undefined || at.getTime() - entry.at.getTime() > this.#resendMs) return undefined
    const old = parseXml(entry.doc.xml)
    const same = old.getChild('retracted', NS_RETRACT) !== undefined || looksOf(old) === looksOf(stanza)
    return same ? entry.at : undefined
  }

  /** All messages of an account, oldest first; see ArchiveService. */
  async *messages(local: string, after?: string): AsyncIterable<ArchivedMessage> {
    await this.doubts.settle(local)
    let from = after === undefined ? undefined : this.ids.decode(local, after)
    if (after !== undefined && from === undefined) throw new StanzaError('item-not-found')
    let seen = ''
    for (;;) {
      let page: Page<Stored>
      try {
        page = await this.shown.page(local, {
          from: 'first',
          limit: STEP,
          ...(from === undefined ? {} : { after: from }),
        })
      } catch (error) {
        if (!(error instanceof UnknownEntry) || from === undefined) throw error
        if (seen === '') throw new StanzaError('item-not-found')
        // Removed meanwhile, because of its age or number: what is left is looked at from the beginning.
        from = undefined
        continue
      }
      for (const entry of page.entries) {
        if (entry.id <= seen) continue
        seen = entry.id
        yield this.#message(local, entry)
      }
      from = page.entries.at(-1)?.id
      if (page.complete || from === undefined) return
    }
  }

  /** Messages with one bare address, newest first. */
  async *newest(local: string, peer: JID): AsyncIterable<ArchivedMessage> {
    let before: string | undefined
    let seen: string | undefined
    for (;;) {
      let page: Page<Stored>
      try {
        page = await this.shown.page(local, {
          with: peer.bare.toString(),
          from: 'last',
          limit: STEP,
          ...(before === undefined ? {} : { before }),
        })
      } catch (error) {
        if (!(error instanceof UnknownEntry) || before === undefined) throw error
        // Removed meanwhile, alone or with all that is older: what is left is looked at from the end.
        before = undefined
        continue
      }
      for (const entry of page.entries.toReversed()) {
        if (seen !== undefined && entry.id >= seen) continue
        seen = entry.id
        yield this.#message(local, entry)
      }
      before = page.entries[0]?.id
      if (page.complete || before === undefined) return
    }
  }

  /** Adds a message from elsewhere; see ArchiveService. */
  async add(
    local: string,
    m: { readonly at: Date; readonly peer: JID; readonly stanza: Element; readonly key?: string },
  ): Promise<string> {
    const entry = { at: m.at, with: m.peer.bare.toString(), doc: { xml: m.stanza.toString() } }
    const dedupe = m.key === undefined ? {} : { dedupe: keyOf('add', m.key) }
    const { id } = await this.archive.append(local, { ...entry, ...dedupe })
    return this.ids.encode(local, id)
  }

  /** Puts another stanza in the place of an entry. */
  async replace(local: string, id: string, stanza: Element): Promise<boolean> {
    const known = this.ids.decode(local, id)
    return known !== undefined && (await this.archive.replace(local, known, { xml: stanza.toString() }))
  }

  #message(local: string, entry: Entry<Stored>): ArchivedMessage {
    const { at, with: peer, doc } = entry
    return { id: this.ids.encode(local, entry.id), at, with: peer, stanza: parseXml(doc.xml) }
  }
}

const underWayKey = (local: string, dedupe: string): string => `${local} ${dedupe}`

const tooLate = (): Error => new Error('the archive took too long')

const nothing = (): void => undefined
/** When it is over, however it ends. */
const settled = (promise: Promise<unknown>): Promise<void> => promise.then(nothing, nothing)

function keyOf(...parts: readonly string[]): string {
  const key = parts.join(' ')
  return key.length <= MAX_KEY ? key : createHash('sha256').update(key).digest('base64url')
}

/**
 * What must be equal in two attempts to send one message: type, bodies, and which elements are there. Not what is in those: an encrypted
 * message is encrypted anew, and a late one is given a time.
 */
export function looksOf(message: Element): string {
  const parts = [message.attr('type') ?? 'normal']
  const names: string[] = []
  for (const child of message.elements) {
    if (child.ns === message.ns) {
      if (child.name === 'body' || child.name === 'subject') parts.push(`${child.name} ${child.text()}`)
    } else if (child.ns !== NS.DELAY && child.ns !== NS.SID) names.push(`${child.ns} ${child.name}`)
  }
  return JSON.stringify([...parts, ...names.sort()])
}
