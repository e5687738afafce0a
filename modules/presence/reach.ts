/** Sends presence on behalf of accounts: not to blocked addresses, not to local accounts where nobody would get it. */
import type { Ctx } from '../../server/module.ts'
import type { Element } from '../../server/xmpp/element.ts'
import type { JID } from '../../server/xmpp/jid.ts'

type Done = void | Promise<void>

/** Who can be told what. */
export class Reach {
  readonly #ctx: Ctx

  constructor(ctx: Ctx) {
    this.#ctx = ctx
  }

  /** An account of this very host. */
  isLocal(jid: JID): boolean {
    return jid.domain === this.#ctx.host && jid.local !== ''
  }

  /** Whether an account of this host has sessions. */
  isThere(jid: JID): boolean {
    return this.#ctx.sessions.of(jid.local).length > 0
  }

  /** Sends a copy of a presence to somebody. */
  tell(stanza: Element, to: JID): void {
    // RFC 6121 §8.5.2.2.2: ignored there anyway
    if (this.isLocal(to) && !this.isThere(to)) return
    this.post(stanza.withAttrs({ to: to.toString() }))
  }

  /** Routes a stanza; the order to each addressee is kept, so nobody waits. */
  post(stanza: Element): void {
    this.#ctx.send(stanza).catch((error: unknown) => {
      this.#ctx.log.warn('presence not sent', { to: stanza.attr('to'), err: error })
    })
  }

  /** An account has nothing to do with whom it blocks. */
  unlessBlocked(local: string, jid: JID, act: () => Done): Done {
    const blocked = this.#ctx.find('blocking')?.blocks(local, jid) ?? false
    if (blocked === false) return act()
    if (blocked === true) return undefined
    return blocked.then((yes) => (yes ? undefined : act()))
  }
}
