/** The rooms (XEP-0045) that the sessions of accounts have joined, as far as their presence says. */
import type { Bound, Ctx } from '../../server/module.ts'
import type { JID } from '../../server/xmpp/jid.ts'
import { NS_MUC } from './ns.ts'

/** Rooms of a session that are known; of more the oldest are forgotten. */
const MAX_ROOMS = 500

/** Tells occupants of rooms from other addresses. */
export interface Rooms {
  /** Whether a session of the account is in the room that `peer` has the address of, as an occupant. */
  isOccupant(local: string, peer: JID): boolean
}

/** Follows the presence of all sessions of a host. */
export function followRooms(ctx: Ctx): Rooms {
  const rooms = ctx.perSession((): Set<string> | undefined => undefined)
  let some = false

  ctx.hook('client:in', { phase: 'observe', kinds: ['presence'] }, ({ session, stanza, to }) => {
    if (session === undefined || to.resource === '') return
    const room = to.bare.toString()
    const type = stanza.attr('type')
    // XEP-0045 §7.2, §7.14; without the mark it may be for some contact's device
    if (type === 'unavailable') rooms.get(session)?.delete(room)
    else if (type === undefined && stanza.getChild('x', NS_MUC) !== undefined) {
      const joined = rooms.get(session) ?? new Set<string>()
      const [oldest] = joined
      if (oldest !== undefined && joined.size >= MAX_ROOMS) joined.delete(oldest)
      rooms.set(session, joined.add(room))
      some = true
    }
  })

  const isIn = (session: Bound, room: string): boolean => rooms.get(session)?.has(room) === true
  return {
    isOccupant(local, peer) {
      if (!some || peer.resource === '') return false
      const room = peer.bare.toString()
      return ctx.sessions.of(local).some((session) => isIn(session, room))
    },
  }
}
