/** Counts what a client has sent: how much has begun, and how much of that is done without a gap (XEP-0198 §4, "handled"). */

/** One count for each session. */
export class InputCount {
  /** Stanzas that have begun to be processed. */
  received = 0
  /** Numbers of those that are not done yet, in order. */
  #open: Set<number> | undefined

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
    return done.finally(() => {
      open.delete(number)
      if (open.size === 0 && this.#open === open) this.#open = undefined
    })
  }
}
