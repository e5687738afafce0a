/** Virtual time: timers run when a test says so, in order, and everything they start is done before time goes on. */
import type { Clock } from '../../server/clock.ts'
import { settle } from './settle.ts'

interface Timer {
  readonly at: number
  readonly fn: () => void
}

/** A clock that stands still until `advance`. Starts on 2026-01-01. */
export class VirtualClock implements Clock {
  #now = Date.UTC(2026, 0, 1)
  #behind = 0
  readonly #timers = new Set<Timer>()

  now(): number {
    return this.#now - this.#behind
  }

  /** The clock is put back; timers go on as those of the machine do. */
  putBack(ms: number): void {
    this.#behind += ms
  }

  after(ms: number, fn: () => void): Disposable {
    const timer = { at: this.#now + ms, fn }
    this.#timers.add(timer)
    return { [Symbol.dispose]: () => this.#timers.delete(timer) }
  }

  /** Lets `ms` milliseconds pass. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms
    await settle()
    for (;;) {
      const due = [...this.#timers].filter((t) => t.at <= end).toSorted((a, b) => a.at - b.at)[0]
      if (due === undefined) break
      this.#timers.delete(due)
      this.#now = Math.max(this.#now, due.at)
      due.fn()
      await settle()
    }
    this.#now = end
  }
}
