/** Which of the messages that wait a session has as copies (XEP-0280). */
import type { Bound } from '../../server/module.ts'

/** Copies of one session that are known; of more the oldest are forgotten, and their messages come twice. */
const MAX_COPIES = 1000

/** Those of one session. */
export class Copies {
  /** Ids of entries with how much had been sent to the session by then, where that is counted; undefined: it is not. */
  readonly #sent = new Map<string, number | undefined>()

  /** The session was sent a copy of an entry. */
  add(id: string, { connected, output }: Bound): void {
    const [oldest] = this.#sent.keys()
    if (oldest !== undefined && this.#sent.size >= MAX_COPIES) this.#sent.delete(oldest)
    // what waits for a stream has no number that stays
    this.#sent.set(id, output === undefined || connected ? output?.sentCount : Infinity)
  }

  /**
   * Whether it has one. Where the client confirms what it gets (XEP-0198), only when it has: a copy that is lost does not come back. `safe`: it
   * would find the message elsewhere.
   */
  has(id: string, { output }: Bound, safe: boolean): boolean {
    if (!this.#sent.has(id)) return false
    if (safe || output === undefined || output.sentCount === output.confirmedCount) return true
    return (this.#sent.get(id) ?? 0) <= output.confirmedCount
  }
}
