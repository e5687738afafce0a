/**
 * Which processes before this one were killed. Of messages that those have archived nobody knows what else became of them; the others were
 * delivered, kept or sent back.
 */
import type { Ctx, Docs } from '../../server/module.ts'

/** Time from the first message of a process to the start of the next, milliseconds since 1970. */
type Cut = { readonly from: number; readonly until: number }
/** In the store; `running`: since when the process archives messages that has not ended in order. */
type Past = { readonly cuts: readonly Cut[]; readonly running?: number }

const KEY = 'past'
/** Processes that are remembered, the newest. */
const MAX_CUTS = 32

/** What is known of the ends of earlier processes. */
export class Ends {
  readonly #docs: Docs<Past>
  readonly #ctx: Ctx
  readonly #cuts: readonly Cut[]
  #marked = false

  private constructor(ctx: Ctx, docs: Docs<Past>, cuts: readonly Cut[]) {
    this.#ctx = ctx
    this.#docs = docs
    this.#cuts = cuts
  }

  /** Reads what the last process has left. `windowMs`: for how long messages may be sent again, milliseconds. */
  static async read(ctx: Ctx, windowMs: number): Promise<Ends> {
    const docs = ctx.storage.docs<Past>('processes')
    const { cuts = [], running } = (await docs.get('', KEY)) ?? {}
    const now = ctx.now()
    const all = running === undefined ? cuts : [...cuts, { from: running, until: now }]
    return new Ends(ctx, docs, all.filter(({ until }) => now - until <= windowMs).slice(-MAX_CUTS))
  }

  /** This process is about to archive a message. */
  archiving(): void {
    if (this.#marked) return
    this.#marked = true
    this.#docs.put('', KEY, { cuts: this.#cuts, running: this.#ctx.now() }).catch((error: unknown) => {
      this.#marked = false // with the next message
      this.#ctx.log.warn('no mark of this process', { err: error })
    })
  }

  /** Whether a message that was archived at that time may have been cut short. */
  cut(at: Date): boolean {
    const time = at.getTime()
    return this.#cuts.some(({ from, until }) => time >= from && time < until)
  }

  /** This process ends in order; `lost`: nobody knows of what it has archived from the one time until the other. */
  async over(lost?: Cut): Promise<void> {
    if (!this.#marked) return
    const cuts = lost === undefined ? this.#cuts : [...this.#cuts, { ...lost, until: lost.until + 1 }]
    if (cuts.length === 0) await this.#docs.delete('', KEY)
    else await this.#docs.put('', KEY, { cuts })
  }
}
