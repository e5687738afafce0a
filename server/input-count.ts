/** Counts what a client has sent: how much has begun, and how much of that is done without a gap (XEP-0198 §4, "handled"). */

/** One count for each session. */
export class InputCount {
  /** Stanzas that have begun to be processed. */
  received = 0
  /** Numbers of those that are not done yet, in order. */
  #open: Set<number> | undefined
  /** Who waits for a number to be handled, lowest first. */
  #waiting: { readonly number: number; readonly done: PromiseWithResolvers<void> }[] | undefined

  /** Stanzas that are done, counted from the first without a gap. */
  get handled(): number {
    if (this.#open !== undefined) for (const first of this.#open) return first - 1
    return this.received
  }

  /** Counts one; `done` settles when it is delivered, stored or answered. */
  count(done: void | Promise<void>): void | Promise<void> {
    const number = ++this.received
    if (done === undefined) return undefined
    const open = (this.#open ??= new Set())
    open.add(number)
    const over = (): void => {
      open.delete(number)
      if (open.size === 0 && this.#open === open) this.#open = undefined
      this.#tell()
    }
    // Not finally(), which makes four promises.
    return done.then(over, (error: unknown) => {
      over()
      throw error
    })
  }

  /** Resolves when everything that has begun by now is handled, whatever begins later; undefined: it is. */
  get settled(): Promise<void> | undefined {
    if (this.#open === undefined) return undefined
    const waiting = (this.#waiting ??= [])
    const last = waiting.at(-1)
    if (last?.number === this.received) return last.done.promise
    const done = Promise.withResolvers<void>()
    waiting.push({ number: this.received, done })
    return done.promise
  }

  #tell(): void {
    const waiting = this.#waiting
    if (waiting === undefined) return
    const { handled } = this
    for (let first = waiting[0]; first !== undefined && first.number <= handled; first = waiting[0]) {
      waiting.shift()
      first.done.resolve()
    }
    if (waiting.length === 0) this.#waiting = undefined
  }
}
