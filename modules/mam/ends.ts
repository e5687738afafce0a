/**
 * Whether the processes before this one ended in order. Of messages that a killed one has archived nobody knows what else became of them; the
 * others were delivered, kept or sent back.
 */
import type { Ctx, Docs } from '../../server/module.ts'

/** In the store while a process archives messages; `from`: since when none has ended in order, milliseconds since 1970. */
type Mark = { readonly from: number }

const KEY = 'running'

/** What is known of the end of earlier processes. */
export class Ends {
  readonly #docs: Docs<Mark>
  readonly #ctx: Ctx
  readonly #startedAt: number
  readonly #from: number | undefined
  #marked = false

  private constructor(ctx: Ctx, docs: Docs<Mark>, from: number | undefined) {
    this.#ctx = ctx
    this.#docs = docs
    this.#startedAt = ctx.now()
    this.#from = from
  }

  /** Reads what the last process has left. */
  static async read(ctx: Ctx): Promise<Ends> {
    const docs = ctx.storage.docs<Mark>('processes')
    return new Ends(ctx, docs, (await docs.get('', KEY))?.from)
  }

  /** This process is about to archive a message. */
  archiving(): void {
    if (this.#marked) return
    this.#marked = true
    // An old mark stays: what was cut short then may still be sent again.
    this.#docs.put('', KEY, { from: this.#from ?? this.#startedAt }).catch((error: unknown) => {
      this.#marked = false // with the next message
      this.#ctx.log.warn('no mark of this process', { err: error })
    })
  }

  /** Whether a message that was archived at that time may have been cut short. */
  cut(at: Date): boolean {
    return this.#from !== undefined && at.getTime() >= this.#from && at.getTime() < this.#startedAt
  }

  /** This process ends in order. */
  async over(): Promise<void> {
    if (this.#marked) await this.#docs.delete('', KEY)
  }
}
