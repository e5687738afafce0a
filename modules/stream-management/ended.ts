/**
 * Remembers, for a while and beyond a restart, how much of the client's stanzas sessions that are over have handled (XEP-0198 §5:
 * <failed h=''/>), so that a client that comes too late sends again only what was not handled.
 */
import type { Ctx, Docs } from '../../server/module.ts'

/** Of each account, the newest. */
const PER_ACCOUNT = 8
const KEEP_MS = 7 * 24 * 60 * 60_000
/** Longest id looked up; ours are shorter. */
const MAX_ID = 100

type EndedDoc = { readonly h: number; readonly at: number }

/** The ids and counts of one host. */
export class Ended {
  readonly #ctx: Ctx
  readonly #docs: Docs<EndedDoc>

  constructor(ctx: Ctx) {
    this.#ctx = ctx
    this.#docs = ctx.storage.docs<EndedDoc>('ended')
    ctx.timers.daily('ended', () => this.#clean())
  }

  /** A session of this account is over. */
  async add(local: string, id: string, h: number): Promise<void> {
    await this.#docs.put(local, id, { h, at: this.#ctx.now() })
    const all: [id: string, at: number][] = []
    for await (const [key, { at }] of this.#docs.list(local)) all.push([key, at])
    const old = all.toSorted((a, b) => b[1] - a[1]).slice(PER_ACCOUNT)
    for (const [key] of old) await this.#docs.delete(local, key)
  }

  /** What was handled, undefined when unknown. */
  async handled(local: string, id: string): Promise<number | undefined> {
    if (id === '' || id.length > MAX_ID) return undefined
    return (await this.#docs.get(local, id))?.h
  }

  async #clean(): Promise<void> {
    const until = this.#ctx.now() - KEEP_MS
    for await (const local of this.#docs.owners()) {
      for await (const [key, { at }] of this.#docs.list(local))
        if (at <= until) await this.#docs.delete(local, key)
    }
  }
}
