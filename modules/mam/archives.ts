/**
 * The archives of accounts (XEP-0313 §3): appending, once for each message however often it is sent (XEP-0359 §2.2), and reading for other
 * modules. Queries of clients are in query.ts and pages.ts.
 */
import { createHash } from 'node:crypto'
import type { Archive, Ctx, Entry } from '../../server/module.ts'
import type { Element } from '../../server/xmpp/element.ts'
import type { JID } from '../../server/xmpp/jid.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import type { IdCodec } from './ids.ts'
import { NS_RETRACT } from './ns.ts'
import type { Finding } from './rules.ts'
import { textOf } from './search.ts'
import type { ArchivedMessage, Stored } from './service.ts'

/** Longer keys are hashed; UTF-16 units, of which the store takes a thousand in any script. */
const MAX_KEY = 500
/** Entries of one step of a long reading. */
const STEP = 200
/** Keys of appends that failed; beyond that the oldest are forgotten. */
const MAX_DOUBTFUL = 10_000
/** How often what turns up late is taken out again. */
const MAX_LATE = 3

/** What became of a message. */
export interface Appended {
  /** The id for clients. */
  readonly id: string
  /** It was there already. */
  readonly duplicate: boolean
}

/** An entry that is there once however often it is appended. */
interface Keyed {
  readonly at: Date
  readonly with: string
  readonly doc: Stored
  readonly dedupe: string
}

const never = (): boolean => false

/** All archives of one host. */
export class Archives {
  readonly archive: Archive<Stored>
  readonly ids: IdCodec
  readonly #ctx: Ctx
  readonly #resendMs: number
  /** Appends that failed, as owner and key: the store may have them nevertheless. */
  readonly #doubtful = new Set<string>()

  /** `resendMs`: how long a message that is sent again counts as the same, milliseconds. */
  constructor(ctx: Ctx, ids: IdCodec, resendMs: number) {
    this.archive = ctx.storage.archive<Stored>('messages', { text: textOf })
    this.ids = ids
    this.#ctx = ctx
    this.#resendMs = resendMs
  }

  /**
   * Appends a message that goes `out` to or comes `in` from `peer`; `then` is told its id for clients, and whether it was there already. Appends of
   * one archive take effect in the order of the calls. `refused`: asked when it was there already, whether its sender was told that it failed.
   *
   * A message whose sender was told so has reached nobody. When it comes again it is put at the end of the archive, as every device will see it.
   */
  append<T>(
    local: string,
    way: 'in' | 'out',
    peer: JID,
    stanza: Element,
    finding: Finding,
    then: (id: string, duplicate: boolean) => T,
    refused: () => boolean = never,
  ): Promise<T> {
    const { originId, occupant } = finding
    const entry = {
      at: new Date(this.#ctx.now()),
      with: peer.bare.toString(),
      doc: { xml: stanza.toString() },
    }
    if (originId === undefined || originId === '')
      return this.archive.append(local, entry).then(({ id }) => then(this.ids.encode(local, id), false))
    // Rooms: all occupants have the bare address in common.
    const dedupe = keyOf(way, occupant ? peer.toString() : entry.with, originId)
    const keyed = { ...entry, dedupe }
    return this.#put(local, keyed, ({ id, duplicate }) => {
      if (!duplicate) {
        if (this.#doubtful.size > 0) this.#doubtful.delete(doubt(local, keyed))
        return then(this.ids.encode(local, id), false)
      }
      return this.#known(local, keyed, id, stanza, refused).then((known) => then(known.id, known.duplicate))
    })
  }

  #put<T>(local: string, entry: Keyed, then: (stored: Appended) => T | Promise<T>): Promise<T> {
    return this.archive.append(local, entry).then(then, (error: unknown) => {
      const [oldest] = this.#doubtful
      if (oldest !== undefined && this.#doubtful.size >= MAX_DOUBTFUL) this.#doubtful.delete(oldest)
      this.#doubtful.add(doubt(local, entry))
      throw error
    })
  }

  /**
   * An id of its sender came twice. Clients that count their messages anew after each start use the same ids for other messages, which must
   * not be lost: only what looks the same, and is not too old, is the same.
   */
  async #known(
    local: string,
    entry: Keyed,
    first: string,
    stanza: Element,
    refused: () => boolean,
  ): Promise<Appended> {
    let stored = { ...entry, id: first }
    if (!(await this.#isSame(local, first, entry.at, stanza))) {
      const dedupe = keyOf(entry.dedupe, createHash('sha256').update(looksOf(stanza)).digest('base64url'))
      const second = { ...entry, dedupe }
      const { id, duplicate } = await this.#put(local, second, (appended) => appended)
      if (!duplicate) return { id: this.ids.encode(local, id), duplicate: false }
      if (!(await this.#isSame(local, id, entry.at, stanza))) {
        const { at, with: peer, doc } = entry
        const third = await this.archive.append(local, { at, with: peer, doc })
        return { id: this.ids.encode(local, third.id), duplicate: false }
      }
      stored = { ...second, id }
    }
    const { id, ...again } = stored
    if (!this.#doubtful.has(doubt(local, again)) && !refused())
      return { id: this.ids.encode(local, id), duplicate: true }
    return await this.#anew(local, again, id)
  }

  /** Puts an entry that nobody has been shown to the end. */
  async #anew(local: string, entry: Keyed, first: string): Promise<Appended> {
    let stored: Appended = { id: first, duplicate: true }
    // The append that failed may take effect in between.
    for (let i = 0; stored.duplicate && i < MAX_LATE; i++) {
      if ((await this.archive.remove(local, { ids: [stored.id] })) > 0)
        await this.#ctx.run('archive:removed', { local })
      stored = await this.#put(local, entry, (appended) => appended)
    }
    this.#doubtful.delete(doubt(local, entry))
    return { id: this.ids.encode(local, stored.id), duplicate: stored.duplicate }
  }

  async #isSame(local: string, id: string, at: Date, stanza: Element): Promise<boolean> {
    const [entry] = (await this.archive.page(local, { ids: [id], from: 'first', limit: 1 })).entries
    // Removed meanwhile, by age or by the user: then it is old.
    if (entry === undefined || at.getTime() - entry.at.getTime() > this.#resendMs) return false
    const old = parseXml(entry.doc.xml)
    return old.getChild('retracted', NS_RETRACT) !== undefined || looksOf(old) === looksOf(stanza)
  }

  /** All messages of an account, oldest first; see ArchiveService. */
  async *messages(local: string, after?: string): AsyncIterable<ArchivedMessage> {
    let from = after === undefined ? undefined : this.ids.decode(local, after)
    if (after !== undefined && from === undefined) throw new StanzaError('item-not-found')
    for (;;) {
      const page = await this.archive.page(local, {
        from: 'first',
        limit: STEP,
        ...(from === undefined ? {} : { after: from }),
      })
      for (const entry of page.entries) yield this.#message(local, entry)
      from = page.entries.at(-1)?.id
      if (page.complete || from === undefined) return
    }
  }

  /** Messages with one bare address, newest first. */
  async *newest(local: string, peer: JID): AsyncIterable<ArchivedMessage> {
    let before: string | undefined
    for (;;) {
      const page = await this.archive.page(local, {
        with: peer.bare.toString(),
        from: 'last',
        limit: STEP,
        ...(before === undefined ? {} : { before }),
      })
      for (const entry of page.entries.toReversed()) yield this.#message(local, entry)
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

const doubt = (local: string, { dedupe }: Keyed): string => `${local} ${dedupe}`

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
