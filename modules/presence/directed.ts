/** To whom a session has sent directed presence (RFC 6121 §4.6.1), found by full address and by account. */
import type { JID } from '../../server/xmpp/jid.ts'

/** Characters of an address, on average, that the bound allows for. */
const CHARS_EACH = 64

/** The list of one session. */
export class Directed {
  /** Bare JID to the one address of it, or to all. */
  readonly #byBare = new Map<string, string | Set<string>>()
  readonly #max: number
  #chars = 0
  size = 0

  /** `full` when there are `max` addresses, or as many characters as such a number of usual ones has. */
  constructor(max: number) {
    this.#max = max
  }

  /** Whether the next address should be refused; those on their way are still taken. */
  get full(): boolean {
    return this.size >= this.#max || this.#chars >= this.#max * CHARS_EACH
  }

  add(jid: JID): void {
    if (this.has(jid)) return
    const text = jid.toString()
    const bare = jid.bare.toString()
    const there = this.#byBare.get(bare)
    if (there === undefined) this.#byBare.set(bare, text)
    else if (typeof there === 'string') this.#byBare.set(bare, new Set([there, text]))
    else there.add(text)
    this.size++
    this.#chars += text.length
  }

  /** Whether exactly this address is in the list. */
  has(jid: JID): boolean {
    const there = this.#byBare.get(jid.bare.toString())
    const text = jid.toString()
    return there instanceof Set ? there.has(text) : there === text
  }

  /** Whether an address of this account (or room) is in the list. */
  hasAny(bare: JID): boolean {
    return this.#byBare.has(bare.toString())
  }

  delete(jid: JID): boolean {
    const bare = jid.bare.toString()
    const text = jid.toString()
    const there = this.#byBare.get(bare)
    if (there instanceof Set) {
      if (!there.delete(text)) return false
      if (there.size === 0) this.#byBare.delete(bare)
    } else if (there !== text) return false
    else this.#byBare.delete(bare)
    this.size--
    this.#chars -= text.length
    return true
  }

  /** The addresses of this account (or room). */
  of(bare: JID): readonly string[] {
    const there = this.#byBare.get(bare.toString())
    if (there === undefined) return []
    return typeof there === 'string' ? [there] : [...there]
  }

  *[Symbol.iterator](): Iterator<string> {
    for (const there of this.#byBare.values()) {
      if (typeof there === 'string') yield there
      else yield* there
    }
  }
}
