/**
 * Times of entries without a key, which are known by their time and text: equal ones of one archive, close together, are a millisecond apart. The
 * table has a fixed size and is looked at with each message, so it makes nothing new; of two that have one place it forgets the first.
 */

const SIZE = 1024
/** Characters of an owner and a name, from their ends, that choose the place. */
const LOOKED_AT = 4
/** What is so far ahead of the clock was there before the clock was set back; milliseconds. */
const SET_BACK_MS = 1000

/** The latest entries of all archives of a host. */
export class Moments {
  readonly #owners = Array.from({ length: SIZE }, () => '')
  readonly #names = Array.from({ length: SIZE }, () => '')
  readonly #times = new Float64Array(SIZE)

  /** The time of an entry that comes now; of those with the same name each has its own. All milliseconds since 1970. */
  of(local: string, name: string, now: number): number {
    const place = placeOf(local, name)
    const last = this.#times[place] ?? 0
    if (
      last >= now &&
      last <= now + SET_BACK_MS &&
      this.#names[place] === name &&
      this.#owners[place] === local
    )
      return (this.#times[place] = last + 1)
    this.#owners[place] = local
    this.#names[place] = name
    return (this.#times[place] = now)
  }
}

const placeOf = (local: string, name: string): number => tail(name, tail(local, name.length)) % SIZE

/** A number of the last characters of a text. */
function tail(text: string, start: number): number {
  let hash = start
  for (let i = Math.max(0, text.length - LOOKED_AT); i < text.length; i++)
    hash = (hash * 31 + text.charCodeAt(i)) % 65_521
  return hash
}
