/**
 * Which app servers answer. One that did not answer is left alone for a while, and then tried with one request, so that what others wait for is
 * not held up by it. Known by its address as it was registered: of several at one domain each may be dead by itself.
 */

/** After an app server gave no answer, messages are not sent to it for this time; milliseconds. */
const SILENT_MS = 30_000
/** App servers that something is known of; of more, what is known of the oldest is forgotten. */
const MAX_KNOWN = 10_000

/** unknown: it has not been asked yet. silent: it gave no answer a moment ago. doubtful: that was some time ago, and nobody has tried since. */
export type Standing = 'answers' | 'unknown' | 'silent' | 'doubtful'

interface Known {
  /** Milliseconds since 1970, 0: never. */
  readonly answeredAt: number
  /** When it was found not to answer; 0: it answers, as far as is known. */
  readonly silentAt: number
}

/** The app servers of one host. */
export class Reach {
  readonly #now: () => number
  readonly #known = new Map<string, Known>()

  constructor(now: () => number) {
    this.#now = now
  }

  standing(service: string): Standing {
    const known = this.#known.get(service)
    if (known === undefined) return 'unknown'
    if (known.silentAt === 0) return 'answers'
    const since = this.#now() - known.silentAt
    return since >= 0 && since < SILENT_MS ? 'silent' : 'doubtful' // the clock may have gone back
  }

  /** It has answered, whatever it said. */
  answered(service: string): void {
    this.#note(service, { answeredAt: this.#now(), silentAt: 0 })
  }

  /** A request of the time `sentAt` has no answer; it says nothing of the app server when that has answered another one since. */
  unanswered(service: string, sentAt: number): void {
    const answeredAt = this.#known.get(service)?.answeredAt ?? 0
    const now = this.#now()
    // an answer that is still to come was noted before the clock went back
    if (answeredAt <= sentAt || answeredAt > now) this.#note(service, { answeredAt, silentAt: now })
  }

  #note(service: string, known: Known): void {
    this.#known.delete(service)
    const [oldest] = this.#known.keys()
    if (oldest !== undefined && this.#known.size >= MAX_KNOWN) this.#known.delete(oldest)
    this.#known.set(service, known)
  }
}
