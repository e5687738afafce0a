/** What an account's last resource said when it became unavailable, for probes of accounts that are offline (RFC 6121 §4.3.2 rule 3). */
import type { Ctx, Doc, Docs } from '../../server/module.ts'
import { type Element, el } from '../../server/xmpp/element.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import type { LastPresence } from './service.ts'

interface LastDoc extends Doc {
  readonly at: number
  readonly xml: string
}

const KEY = 'unavailable'
/** A longer stanza is kept without its content. */
const MAX_CHARS = 4096
/** How long a deleted account is remembered, while its sessions end. */
const GONE_MS = 60_000

/** The last unavailable presence of each account. */
export class LastPresences {
  readonly #ctx: Ctx
  readonly #docs: Docs<LastDoc>
  readonly #gone = new Set<string>()

  constructor(ctx: Ctx) {
    this.#ctx = ctx
    this.#docs = ctx.storage.docs<LastDoc>('last')
  }

  async keep(local: string, stanza: Element): Promise<void> {
    if (this.#gone.has(local)) return
    const bare = stanza.withAttrs({ from: undefined, to: undefined, id: undefined })
    const xml = bare.toString()
    const short = xml.length <= MAX_CHARS ? xml : bare.withChildren([]).toString()
    await this.#docs.put(local, KEY, { at: this.#ctx.now(), xml: short })
  }

  /** With the time it was said (XEP-0203), without addresses. */
  async stanza(local: string): Promise<Element | undefined> {
    const doc = await this.#docs.get(local, KEY)
    if (doc === undefined) return undefined
    const delay = el('delay', NS.DELAY, { from: this.#ctx.host, stamp: new Date(doc.at).toISOString() })
    return parseXml(doc.xml)
      .without((child) => child.is('delay', NS.DELAY))
      .append(delay)
  }

  async get(local: string): Promise<LastPresence | undefined> {
    const doc = await this.#docs.get(local, KEY)
    return doc === undefined ? undefined : { at: doc.at, status: parseXml(doc.xml).getChildText('status') }
  }

  /** The account is being deleted: nothing of it is stored any more, though its sessions are still to end. */
  deleted(local: string): void {
    this.#gone.add(local)
    this.#ctx.timers.after(GONE_MS, () => void this.#gone.delete(local))
  }

  /** The account has a session, so it exists (again). */
  sessionBound(local: string): void {
    if (this.#gone.size > 0) this.#gone.delete(local)
  }
}
