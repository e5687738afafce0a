/** Lets other work pass between many short jobs that never wait by themselves, such as writes to a store in memory. */
import { setImmediate as nextTurn } from 'node:timers/promises'

/** Work in one turn of the event loop, in milliseconds, before others get theirs. */
const SLICE_MS = 4

/** Counts the time of jobs that do not leave the event loop in between. */
export class Turns {
  #since: number | undefined
  #next: Promise<void> | undefined

  /** Asked at the start of a job: a promise to wait for when there was enough work in this turn. */
  take(): Promise<void> | undefined {
    if (this.#next !== undefined && this.#since !== undefined && performance.now() - this.#since >= SLICE_MS)
      return this.#next
    if (this.#since === undefined) {
      this.#since = performance.now()
      this.#next = nextTurn().then(() => {
        this.#since = undefined
        this.#next = undefined
      })
    }
    return undefined
  }
}
