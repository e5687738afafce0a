/** What was for sessions that are over goes on its way: to other sessions of the account, the offline store, or back to its sender. */
import type { Host } from './host.ts'
import type { Bound } from './module.ts'
import type { Router } from './router.ts'
import type { BoundClient } from './session.ts'
import { free, nextSlice } from './turns.ts'

/** Hands on for all sessions. */
export class HandingOn {
  readonly #router: Router
  /** Sessions whose stanzas take several turns of the event loop. */
  readonly #underWay = new WeakMap<Bound, Promise<void>>()

  constructor(router: Router) {
    this.#router = router
  }

  /** Settles when all of the session has gone on its way; undefined: it has. Never rejects. */
  of(session: Bound): Promise<void> | undefined {
    return this.#underWay.get(session)
  }

  /** Takes what the session holds, in order and before what is newer. Settles when it is delivered, stored or answered; never rejects. */
  async begin(host: Host, session: BoundClient): Promise<void> {
    const waiting: Promise<void>[] = []
    const failed = (error: unknown): void => host.log.error('redelivery failed', { err: error })
    const account = host.hold(session.jid.local)
    using undo = new DisposableStack()
    undo.defer(() => host.release(account))
    let held = false
    for (const stanza of session.takeHeld()) {
      try {
        const done = this.#router.undelivered(host, stanza, session.jid)
        if (done !== undefined) waiting.push(done.catch(failed))
      } catch (error) {
        failed(error) // the others go on
      }
      if (free()) continue
      if (!held) {
        held = true
        undo.use(account.lane.hold())
        const { promise, resolve } = Promise.withResolvers<void>()
        this.#underWay.set(session, promise)
        undo.defer(() => {
          this.#underWay.delete(session)
          resolve()
        })
      }
      await nextSlice()
    }
    undo.dispose()
    await Promise.all(waiting)
  }
}
