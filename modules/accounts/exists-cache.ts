/** Remembers for a while who has an account, and its generation, so that routing a stanza need not ask the store, nor a login twice. */

/** How long an answer is trusted: another process may add (soon after a "no") or remove accounts. */
const YES_MS = 10_000
const NO_MS = 2_000
const MAX_CACHED = 20_000

/** Answers by localpart. A flood of unknown names cannot push known ones out. */
export class ExistsCache {
  readonly #yes = new Map<string, { readonly until: number; readonly generation: string }>()
  readonly #no = new Map<string, number>()
  readonly #now: () => number

  /** `now`: milliseconds. */
  constructor(now: () => number) {
    this.#now = now
  }

  /** Answers remembered. */
  get size(): number {
    return this.#yes.size + this.#no.size
  }

  /** undefined: not known (any more). */
  get(local: string): boolean | undefined {
    const now = this.#now()
    if ((this.#yes.get(local)?.until ?? 0) > now) return true
    return (this.#no.get(local) ?? 0) > now ? false : undefined
  }

  /** Of an account that `get` knows. */
  generation(local: string): string | undefined {
    return this.#yes.get(local)?.generation
  }

  set(local: string, exists: boolean, generation = ''): void {
    this.forget(local)
    if (exists) this.#yes.set(local, { until: this.#now() + YES_MS, generation })
    else this.#no.set(local, this.#now() + NO_MS)
    const answers = exists ? this.#yes : this.#no
    if (answers.size > MAX_CACHED) {
      const [oldest] = answers.keys()
      if (oldest !== undefined) answers.delete(oldest)
    }
  }

  forget(local: string): void {
    this.#yes.delete(local)
    this.#no.delete(local)
  }
}
