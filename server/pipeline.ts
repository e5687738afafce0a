/** Stanzas of one stream that wait for the store: the next ones begin meanwhile, up to a bound. */

/** What is under way. */
export class Pipeline {
  readonly #most: number
  readonly #fail: (error: unknown) => void
  #pending = 0
  #idle: PromiseWithResolvers<void> | undefined

  /** `most`: how many may be under way while others begin. `fail` is told when one of them rejects. */
  constructor(most: number, fail: (error: unknown) => void) {
    this.#most = most
    this.#fail = fail
  }

  /** Resolves when nothing is under way; undefined: nothing is. */
  get idle(): Promise<void> | undefined {
    return this.#idle?.promise
  }

  /** Counts one; a promise where the next has to wait for it. */
  add(done: Promise<void>): Promise<void> | undefined {
    this.#pending++
    this.#idle ??= Promise.withResolvers<void>()
    const over = (): void => {
      if (--this.#pending > 0) return
      this.#idle?.resolve()
      this.#idle = undefined
    }
    const settled = done.then(over, (error: unknown) => {
      this.#fail(error)
      over()
    })
    return this.#pending >= this.#most ? settled : undefined
  }
}
