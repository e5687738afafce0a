/**
 * A lane keeps the order of stanzas while their handlers wait for the store.
 *
 * Each stanza goes through three stages: begin (guard and rewrite hooks), store, and its turn (copy and observe hooks,
 * then delivery). Begin stages run one after another; stores are started in that order and overlap, so that many
 * messages share one commit; turns come one after another in the order of begin. Where nothing waits, everything
 * happens in the same call and no promise is made.
 *
 * Who has waited for those ahead longer than a handler may take is refused: many that time out one after another do not make a queue of minutes.
 */
import { type Chain, type Compiled, HANDLER_TIMEOUT_MS } from './hooks.ts'
import type { Verdict } from './module.ts'
import { StanzaError } from './xmpp/errors.ts'

/** What to do with the stanza when its turn has come. What it returns is waited for by the sender, not by the lane. */
export type Turn<E> = (e: E, verdict: Verdict) => void | Promise<void>
/** A store that was started; boxed, because a promise of a promise would be waited for. */
interface Started {
  readonly outcome: Verdict | Promise<Verdict>
}

/** One queue of stanzas whose order matters: a session's input, or what arrives for an account. */
export class Lane {
  /** Resolves when the last stanza's store was started; never rejects. */
  #lastBegun: Promise<unknown> | undefined
  /** Resolves when the last stanza's turn is over; never rejects. */
  #lastTurn: Promise<unknown> | undefined

  /** Resolves when everything now in the lane has had its turn; undefined: the lane is empty. */
  get busy(): Promise<unknown> | undefined {
    return this.#lastTurn
  }

  /** Sends a stanza through the chain; the result settles when what `turn` returned has settled. */
  pass<E>(chain: Chain<E>, part: Compiled<E>, e: E, turn: Turn<E>): void | Promise<void> {
    if (this.#lastTurn !== undefined)
      return this.#enter(chain, part, e, turn, this.#beginAfter(this.#lastBegun, chain, part, e))
    const verdict = chain.runBefore(part, e)
    if (verdict instanceof Promise)
      return this.#enter(
        chain,
        part,
        e,
        turn,
        verdict.then((v) => ({ outcome: v ?? chain.runStore(part, e) })),
      )
    const outcome = verdict ?? chain.runStore(part, e)
    if (outcome instanceof Promise) return this.#enter(chain, part, e, turn, Promise.resolve({ outcome }))
    if (outcome === undefined) {
      const copied = chain.runAfter(part, e)
      if (copied !== undefined) return this.#enterCopied(e, turn, copied)
    }
    return turn(e, outcome)
  }

  async #beginAfter<E>(
    ahead: Promise<unknown> | undefined,
    chain: Chain<E>,
    part: Compiled<E>,
    e: E,
  ): Promise<Started> {
    const since = chain.now()
    await ahead
    if (chain.now() - since > HANDLER_TIMEOUT_MS)
      return { outcome: { bounce: new StanzaError('internal-server-error', { type: 'wait' }) } }
    const verdict = await chain.runBefore(part, e)
    return { outcome: verdict ?? chain.runStore(part, e) }
  }

  #enter<E>(
    chain: Chain<E>,
    part: Compiled<E>,
    e: E,
    turn: Turn<E>,
    started: Promise<Started>,
  ): Promise<void> {
    const ahead = this.#lastTurn
    this.#lastBegun = started.catch(() => undefined)
    const mine = (async () => {
      const outcome = await (await started).outcome
      await ahead
      if (outcome === undefined) await chain.runAfter(part, e)
      return { settled: turn(e, outcome) }
    })()
    return this.#leave(mine)
  }

  #enterCopied<E>(e: E, turn: Turn<E>, copied: Promise<void>): Promise<void> {
    return this.#leave(copied.then(() => ({ settled: turn(e, undefined) })))
  }

  async #leave(mine: Promise<{ readonly settled: void | Promise<void> }>): Promise<void> {
    const over = mine.catch(() => undefined)
    this.#lastTurn = over
    const { settled } = await mine.finally(() => {
      if (this.#lastTurn !== over) return
      this.#lastTurn = undefined
      this.#lastBegun = undefined
    })
    await settled
  }
}
