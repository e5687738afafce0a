/** Time as the server sees it, so that tests can turn it by hand. */

/** A source of time and timers. */
export interface Clock {
  /** Milliseconds since 1970. */
  now(): number
  /** Calls `fn` once after `ms`; disposing cancels. Does not keep the process alive. */
  after(ms: number, fn: () => void): Disposable
}

/** The machine's clock. */
export const systemClock: Clock = {
  now: () => Date.now(),
  after(ms, fn) {
    const timer = setTimeout(fn, ms)
    timer.unref()
    return { [Symbol.dispose]: () => clearTimeout(timer) }
  },
}
