/**
 * How long messages stay (XEP-0313 §3.2): for some days, and the newest so many of each account. Only the oldest are removed. The work is done once
 * a day for each host, and for an account that has received many messages meanwhile right away.
 */
import type { Archive, Ctx } from '../../server/module.ts'
import type { Stored } from './service.ts'

const DAY_MS = 86_400_000
/** Accounts whose messages are counted between two removals. */
const MAX_COUNTED = 10_000

/** What to keep; 0: no limit. */
export interface Limits {
  readonly days: number
  /** Messages of one account. */
  readonly messages: number
}

/** Removes what is over the limits. */
export class Retention {
  readonly #ctx: Ctx
  readonly #archive: Archive<Stored>
  readonly #limits: Limits
  readonly #accounts: ReadonlyMap<string, Limits>
  /** Messages since the last removal, of accounts with a limit on their number. */
  readonly #added = new Map<string, number>()
  readonly #trimming = new Set<string>()

  /** `accounts`: limits of single accounts, by localpart, in place of `limits`. */
  constructor(ctx: Ctx, archive: Archive<Stored>, limits: Limits, accounts: ReadonlyMap<string, Limits>) {
    this.#ctx = ctx
    this.#archive = archive
    this.#limits = limits
    this.#accounts = accounts
    if ([limits, ...accounts.values()].some(({ days, messages }) => days > 0 || messages > 0))
      ctx.timers.daily('retention', () => this.run())
  }

  /** One message more. */
  added(local: string): void {
    const { messages } = this.#of(local)
    if (messages === 0) return
    const count = (this.#added.get(local) ?? 0) + 1
    if (count < Math.max(100, messages / 10)) {
      if (count === 1 && this.#added.size >= MAX_COUNTED) this.#added.clear()
      this.#added.set(local, count)
      return
    }
    this.#added.delete(local)
    if (this.#trimming.has(local)) return
    this.#trimming.add(local)
    this.trim(local)
      .catch((error: unknown) => this.#ctx.log.error('old messages were not removed', { err: error }))
      .finally(() => this.#trimming.delete(local))
  }

  /** Brings all accounts to their limits. */
  async run(): Promise<void> {
    let removed = 0
    let failed = 0
    let reason: unknown
    // What one archive fails for is no reason to keep all the others as they are.
    await this.#ctx.inSlices(this.#archive.owners(), async (local) => {
      try {
        removed += await this.trim(local)
      } catch (error) {
        failed++
        reason ??= error
      }
    })
    if (failed > 0 && !this.#ctx.signal.aborted)
      this.#ctx.log.error('old messages of some accounts were not removed', { accounts: failed, err: reason })
    if (removed > 0) this.#ctx.log.info('old messages removed', { removed })
  }

  /** Brings one account to its limits; how many messages went. */
  async trim(local: string): Promise<number> {
    const { days, messages } = this.#of(local)
    let removed = 0
    if (days > 0) removed += await this.#removeOlder(local, this.#ctx.now() - days * DAY_MS)
    if (messages > 0) removed += await this.#archive.remove(local, { keepLast: messages })
    if (removed > 0) await this.#ctx.run('archive:removed', { local })
    return removed
  }

  /** Removes what is not younger than that time, as far as nothing younger is in front of it: §3.2 allows no gaps. */
  async #removeOlder(local: string, until: number): Promise<number> {
    // A time that is still to come was written by a wrong clock, and tells no age unless it was only set back.
    const [younger] = (
      await this.#archive.page(local, {
        start: new Date(until + 1),
        end: new Date(this.#ctx.now() + DAY_MS),
        from: 'first',
        limit: 1,
      })
    ).entries
    if (younger !== undefined) return await this.#archive.remove(local, { before: younger.id })
    return await this.#archive.remove(local, { until: new Date(until) })
  }

  #of(local: string): Limits {
    return this.#accounts.get(local) ?? this.#limits
  }
}
