/** Random choices that a seed repeats. What follows from them also depends on time, which no seed repeats. */

const MODULUS = 2_147_483_647

/** The generator of Park and Miller: enough for a choice, of no use for anything secret. */
export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = (Math.abs(Math.trunc(seed)) % (MODULUS - 1)) + 1
  }

  /** From 0 to below `end`, whole numbers. */
  below(end: number): number {
    this.#state = (this.#state * 48_271) % MODULUS
    return Math.floor((this.#state / MODULUS) * end)
  }

  /** True once in `times` on average. */
  once(times: number): boolean {
    return this.below(times) === 0
  }

  pick<T>(items: readonly [T, ...T[]] | readonly T[]): T {
    const item = items[this.below(items.length)]
    if (item === undefined) throw new Error('nothing to pick from')
    return item
  }
}
