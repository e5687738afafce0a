/** A limit on bytes per second, averaged, with bursts. */

/** What a stream may send. */
export interface RateLimit {
  readonly bytesPerSecond: number
  readonly burstBytes: number
}

/** What is left of an allowance that fills up with time. */
export class TokenBucket {
  readonly #rate: RateLimit
  #left: number
  #at: number

  /** Full at `now`, in milliseconds. */
  constructor(rate: RateLimit, now: number) {
    this.#rate = rate
    this.#left = rate.burstBytes
    this.#at = now
  }

  /** Takes bytes out; how many milliseconds to wait before the next ones, 0: none. */
  spend(bytes: number, now: number): number {
    const { bytesPerSecond, burstBytes } = this.#rate
    const refilled = this.#left + ((now - this.#at) / 1000) * bytesPerSecond
    this.#left = Math.min(burstBytes, refilled) - bytes
    this.#at = now
    return this.#left >= 0 ? 0 : (-this.#left / bytesPerSecond) * 1000
  }
}
