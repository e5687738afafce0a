/** Shows or hides an account's presence when a subscription (RFC 6121 §3) or a block changes. */
import { randomUUID } from 'node:crypto'
import type { Bound, Ctx } from '../../server/module.ts'
import { el } from '../../server/xmpp/element.ts'
import { type JID, makeJid, parseJid } from '../../server/xmpp/jid.ts'
import { NS } from '../../server/xmpp/ns.ts'
import type { Directed } from './directed.ts'
import type { Reach } from './reach.ts'
import type { PresenceService } from './service.ts'

/** That part of the service. */
export type Visibility = Pick<PresenceService, 'show' | 'hide' | 'showMatching' | 'hideMatching'>

/** The functions of one host. */
export function makeVisibility(
  ctx: Ctx,
  reach: Reach,
  directed: (session: Bound) => Directed | undefined,
): Visibility {
  function show(local: string, to: JID): void {
    for (const session of ctx.sessions.of(local)) {
      if (session.presence !== undefined) reach.tell(session.presence, to)
    }
  }

  function unavailable(session: Bound, to: JID): void {
    reach.tell(el('presence', NS.CLIENT, { from: session.jid.toString(), type: 'unavailable' }), to)
  }

  /** Ends directed presence to `to`, or to all addresses of it when it is bare; tells those that are not told already. */
  function forget(session: Bound, to: JID, told: boolean): void {
    const list = directed(session)
    if (list === undefined) return
    for (const text of to.isBare ? list.of(to) : [to.toString()]) {
      const jid = parseJid(text)
      if (list.delete(jid) && !told) unavailable(session, jid)
    }
  }

  function hide(local: string, to: JID): void {
    for (const session of ctx.sessions.of(local)) {
      const known = session.presence !== undefined
      if (known) unavailable(session, to)
      forget(session, to, known)
    }
  }

  return {
    show,
    hide,
    async showMatching(local, matches) {
      if (ctx.sessions.of(local).length === 0) return
      const own = makeJid(local, ctx.host)
      const roster = await ctx.use('roster').of(local)
      await ctx.inSlices(roster.contacts(), (contact) => {
        if (!matches(contact.jid)) return
        if (contact.from) show(local, contact.jid)
        // What the contact has said meanwhile was not delivered.
        if (contact.to && ctx.sessions.of(local).some((session) => session.presence !== undefined)) {
          const attrs = { type: 'probe', id: randomUUID(), from: own.toString(), to: contact.jid.toString() }
          reach.post(el('presence', NS.CLIENT, attrs))
        }
      })
    },
    async hideMatching(local, matches) {
      if (ctx.sessions.of(local).length === 0) return
      const roster = await ctx.use('roster').of(local)
      await ctx.inSlices(roster.contacts(), (contact) => {
        if (contact.from && matches(contact.jid)) hide(local, contact.jid)
      })
      for (const session of ctx.sessions.of(local).slice()) {
        await ctx.inSlices([...(directed(session) ?? [])], (text) => {
          const jid = parseJid(text)
          if (matches(jid)) forget(session, jid, false)
        })
      }
    },
  }
}
