/** Time limits for many things of one kind (handshakes, closings) with one timer for all of them. */
import { type Clock, systemClock } from './clock.ts'

/** Calls `expire` for each item that was not deleted within `limitMs` after it was added. */
export class Deadlines<T> {
  readonly #limitMs: number
  readonly #expire: (item: T) => void
  readonly #clock: Clock
  // In the order of the deadlines, because all have the same limit.
  readonly #due = new Map<T, number>()
  #timer: Disposable | undefined
  #sweeping = false

  constructor(expire: (item: T) => void, limitMs: number, clock: Clock = systemClock) {
    this.#limitMs = limitMs
    this.#expire = expire
    this.#clock = clock
  }

  /** Items that wait for their deadline. */
  get size(): number {
    return this.#due.size
  }

  /** Starts (again) the time of this item. */
  add(item: T): void {
    this.#due.delete(item)
    this.#due.set(item, this.#clock.now() + this.#limitMs)
    if (this.#timer === undefined && !this.#sweeping) this.#wait(this.#limitMs)
  }

  /** The item made it in time. */
  delete(item: T): void {
    this.#due.delete(item)
  }

  /** Expires everything at once and stops the timer. */
  expireAll(): void {
    this.#timer?.[Symbol.dispose]()
    this.#timer = undefined
    const items = [...this.#due.keys()]
    this.#due.clear()
    for (const item of items) this.#expire(item)
  }

  #wait(ms: number): void {
    this.#timer = this.#clock.after(ms, () => this.#sweep())
  }

  #sweep(): void {
    this.#timer = undefined
    this.#sweeping = true // items that are added by `expire` are seen by the loop
    const now = this.#clock.now()
    try {
      for (const [item, due] of this.#due) {
        if (due > now) {
          this.#wait(due - now)
          break
        }
        this.#due.delete(item)
        this.#expire(item)
      }
    } finally {
      this.#sweeping = false
    }
  }
}
