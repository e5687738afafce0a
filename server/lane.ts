/**
 * A lane keeps the order of stanzas while their handlers wait for the store.
 *
 * Each stanza goes through three stages: begin (guard and rewrite hooks), store, and its turn (copy and observe hooks,
 * then delivery). Begin stages run one after another; stores are started in that order and overlap, so that many
 * messages share one commit; turns come one after another in the order of begin. Where nothing waits, everything
 * happens in the same call and no promise is made; where something waits, one promise for each stanza.
 *
 * Who has waited for those ahead longer than a handler may take is refused: many that time out one after another do not make a queue of minutes.
 */
import { type Chain, type Compiled, HANDLER_TIMEOUT_MS } from './hooks.ts'
import type { Verdict } from './module.ts'
import { StanzaError } from './xmpp/errors.ts'

/** What to do with the stanza when its turn has come. What it returns is waited for by the sender, not by the lane. */
export type Turn<E> = (e: E, verdict: Verdict) => void | Promise<void>

const nothing = (): void => undefined

/** A stanza in a lane. */
class Place<E> {
  readonly chain: Chain<E>
  readonly part: Compiled<E>
  readonly e: E
  readonly turn: Turn<E>
  /** Settles when its turn is over, and what that returned. */
  readonly promise: Promise<void>
  settle: () => void = nothing
  fail: (error: unknown) => void = nothing
  /** Begin and store are over; the verdict counts. */
  ready = false
  /** The copy and observe hooks are over too. */
  copied = false
  verdict: Verdict

  constructor(chain: Chain<E>, part: Compiled<E>, e: E, turn: Turn<E>) {
    this.chain = chain
    this.part = part
    this.e = e
    this.turn = turn
    this.promise = new Promise<void>((resolve, reject) => {
      this.settle = resolve
      this.fail = reject
    })
  }

  /** Copy and observe hooks, unless the stanza was stopped; a promise where they wait. */
  copy(): void | Promise<void> {
    return this.verdict === undefined ? this.chain.runAfter(this.part, this.e) : undefined
  }

  /** Its turn. */
  take(): void {
    try {
      const done = this.turn(this.e, this.verdict)
      if (done === undefined) this.settle()
      else done.then(this.settle, this.fail)
    } catch (error) {
      this.fail(error)
    }
  }
}

/** What a lane needs to know of a place, whatever its event is. */
type AnyPlace = Pick<Place<unknown>, 'ready' | 'copied' | 'verdict' | 'copy' | 'take'>

/** One queue of stanzas whose order matters: a session's input, or what arrives for an account. */
export class Lane {
  #queue: AnyPlace[] = []
  /** Places before this one are done. */
  #head = 0
  /** Settles when the begin stage of the last stanza is over; undefined: it is. Never rejects. */
  #begun: Promise<void> | undefined
  #advancing = false
  /** See hold. */
  #holds = 0

  /** Whether stanzas are in the lane that have not had their turn. */
  get busy(): boolean {
    return this.#head < this.#queue.length
  }

  /** Sends a stanza through the chain; the result settles when what `turn` returned has settled. */
  pass<E>(chain: Chain<E>, part: Compiled<E>, e: E, turn: Turn<E>): void | Promise<void> {
    if (this.busy) {
      const place = this.#enter(chain, part, e, turn)
      this.#beginBehind(place)
      return place.promise
    }
    const verdict = chain.runBefore(part, e)
    if (verdict instanceof Promise) {
      const place = this.#enter(chain, part, e, turn)
      this.#begins(verdict, place)
      return place.promise
    }
    const outcome = verdict ?? chain.runStore(part, e)
    if (outcome instanceof Promise) {
      const place = this.#enter(chain, part, e, turn)
      this.#wait(place, outcome)
      return place.promise
    }
    if (outcome === undefined) {
      const copied = chain.runAfter(part, e)
      if (copied !== undefined) {
        const place = this.#enter(chain, part, e, turn)
        this.#copyOver(place, copied)
        return place.promise
      }
    }
    if (this.#holds === 0) return turn(e, outcome)
    // its own hooks have ended a session, whose stanzas come first
    const place = this.#enter(chain, part, e, turn)
    place.copied = true
    this.#ready(place, outcome)
    return place.promise
  }

  /** No turn of anybody comes before this is disposed, also of who is in the lane already. */
  hold(): Disposable {
    const place: AnyPlace = { ready: false, copied: true, verdict: undefined, copy: nothing, take: nothing }
    this.#queue.splice(this.#head, 0, place)
    this.#holds++
    return {
      [Symbol.dispose]: () => {
        if (!place.ready) this.#holds--
        place.ready = true
        this.#advance()
      },
    }
  }

  #enter<E>(chain: Chain<E>, part: Compiled<E>, e: E, turn: Turn<E>): Place<E> {
    const place = new Place(chain, part, e, turn)
    this.#queue.push(place)
    return place
  }

  /** The begin stage, when those of all stanzas ahead are over. */
  #beginBehind<E>(place: Place<E>): void {
    const ahead = this.#begun
    if (ahead === undefined) {
      this.#begin(place, place.chain.runBefore(place.part, place.e))
      return
    }
    const since = place.chain.now()
    this.#begins(
      ahead.then(() => {
        if (place.chain.now() - since <= HANDLER_TIMEOUT_MS) return place.chain.runBefore(place.part, place.e)
        return { bounce: new StanzaError('internal-server-error', { type: 'wait' }) }
      }),
      place,
    )
  }

  #begin<E>(place: Place<E>, verdict: Verdict | Promise<Verdict>): void {
    if (verdict instanceof Promise) this.#begins(verdict, place)
    else this.#store(place, verdict)
  }

  #begins<E>(verdict: Promise<Verdict>, place: Place<E>): void {
    const over = verdict
      .then(
        (v) => this.#store(place, v),
        (error: unknown) => this.#broken(place, error),
      )
      .finally(() => {
        if (this.#begun === over) this.#begun = undefined
      })
    this.#begun = over
  }

  #store<E>(place: Place<E>, verdict: Verdict): void {
    this.#wait(place, verdict ?? place.chain.runStore(place.part, place.e))
  }

  #wait(place: AnyPlace & Pick<Place<unknown>, 'fail'>, outcome: Verdict | Promise<Verdict>): void {
    if (outcome instanceof Promise)
      outcome.then(
        (verdict) => this.#ready(place, verdict),
        (error: unknown) => this.#broken(place, error),
      )
    else this.#ready(place, outcome)
  }

  /** A chain turns what its handlers throw into verdicts, so this is a mistake of ours; those behind go on. */
  #broken(place: AnyPlace & Pick<Place<unknown>, 'fail'>, error: unknown): void {
    place.fail(error)
    this.#ready(place, { stop: 'failed' })
  }

  #ready(place: AnyPlace, verdict: Verdict): void {
    place.verdict = verdict
    place.ready = true
    this.#advance()
  }

  /** Turns of all that are ready, up to the first that is not. */
  #advance(): void {
    if (this.#advancing) return
    this.#advancing = true
    for (let place = this.#queue[this.#head]; place?.ready === true; place = this.#queue[this.#head]) {
      if (!place.copied) {
        const copied = place.copy()
        if (copied !== undefined) {
          // Until then it is not ready for its turn.
          place.ready = false
          this.#copyOver(place, copied)
          break
        }
        place.copied = true
        if (this.#queue[this.#head] !== place) continue // they have ended a session, see hold
      }
      this.#leave()
      place.take()
    }
    this.#advancing = false
  }

  #copyOver(place: AnyPlace, copied: Promise<void>): void {
    place.copied = true
    place.ready = false
    const over = (): void => {
      place.ready = true
      this.#advance()
    }
    copied.then(over, over)
  }

  #leave(): void {
    this.#head++
    if (this.#head === this.#queue.length) {
      this.#queue = []
      this.#head = 0
    } else if (this.#head >= 256) {
      this.#queue.splice(0, this.#head)
      this.#head = 0
    }
  }
}
