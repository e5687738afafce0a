/** Times of entries without a key, which are known by their time and text: equal ones of one archive are at least a millisecond apart. */

/** Entries of one archive that are looked at. */
const MAX_DEPTH = 100
/** What is so far ahead of the clock was there before the clock was set back; milliseconds. */
const SET_BACK_MS = 1000

interface Moment {
  readonly name: string
  readonly at: number
  /** An earlier one, while it matters. */
  readonly before: Moment | undefined
  /** The latest time of it and those before. */
  readonly latest: number
  readonly depth: number
}

/** The latest entries of all archives of a host. */
export class Moments {
  readonly #last = new Map<string, Moment>()
  /** Time of the latest of all. */
  #newest = 0

  /** The time of an entry that comes now; of those with the same name each has its own. All milliseconds since 1970. */
  of(local: string, name: string, now: number): number {
    if (now > this.#newest || now < this.#newest - SET_BACK_MS) {
      this.#last.clear()
      this.#newest = now
    }
    const last = this.#last.get(local)
    let at = now
    for (let one = last; one !== undefined; one = one.before)
      if (one.name === name && one.at >= at) at = one.at + 1
    const before = last === undefined || last.latest < now || last.depth === MAX_DEPTH ? undefined : last
    const latest = before === undefined ? at : Math.max(at, before.latest)
    this.#last.set(local, { name, at, before, latest, depth: before === undefined ? 1 : before.depth + 1 })
    if (at > this.#newest) this.#newest = at
    return at
  }
}
