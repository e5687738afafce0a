/** What was for sessions that are over goes on its way: to other sessions of the account, the offline store, or back to its sender. */
import type { Host } from './host.ts'
import type { Router } from './router.ts'
import type { BoundClient } from './session.ts'
import { free, nextSlice } from './turns.ts'
import type { JID } from './xmpp/jid.ts'

/** Hands on for all sessions. */
export class HandingOn {
  readonly #router: Router
  /** Full addresses of sessions whose stanzas take several turns of the event loop: one at a time, see `of`. */
  readonly #underWay = new Map<string, Promise<void>>()

  constructor(router: Router) {
    this.#router = router
  }

  /**
   * Settles when all that a session of that full address has left is on its way, undefined: it is. Never rejects. The next session of that
   * address waits for it: what is left may be for it, and then would come in front of what was handed on before.
   */
  of(jid: JID): Promise<void> | undefined {
    return this.#underWay.size === 0 ? undefined : this.#underWay.get(jid.toString())
  }

  /**
   * Takes what the session holds, in order and before what is newer. Settles when it is delivered, stored or answered; never rejects. `removed`: there
   * is no such account any more; all is answered, the next one of that name must not get it.
   */
  async begin(host: Host, session: BoundClient, removed: boolean): Promise<void> {
    const waiting: Promise<void>[] = []
    const failed = (error: unknown): void => host.log.error('redelivery failed', { err: error })
    const account = host.hold(session.jid.local)
    using undo = new DisposableStack()
    undo.defer(() => host.release(account))
    const address = session.jid.toString()
    const { removals } = account
    let held = false
    for (const stanza of session.takeHeld()) {
      try {
        const gone = removed || account.removals !== removals
        const done = this.#router.undelivered(host, stanza, session.jid, gone)
        if (done !== undefined) waiting.push(done.catch(failed))
      } catch (error) {
        failed(error) // the others go on
      }
      if (free()) continue
      if (!held) {
        held = true
        undo.use(account.lane.hold())
        const { promise, resolve } = Promise.withResolvers<void>()
        this.#underWay.set(address, promise)
        undo.defer(() => {
          this.#underWay.delete(address)
          resolve()
        })
      }
      await nextSlice()
    }
    undo.dispose()
    await Promise.all(waiting)
  }
}
