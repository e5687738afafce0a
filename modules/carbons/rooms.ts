/** The rooms that a session has joined, as far as its presence says. */
import type { Element } from '../../server/xmpp/element.ts'
import type { JID } from '../../server/xmpp/jid.ts'

const MUC = 'http://jabber.org/protocol/muc'
/** Rooms of a session that are known; of more the oldest are forgotten. */
const MAX_ROOMS = 500

/** Bare addresses of rooms to the nick there. */
export type Rooms = Map<string, string>

/** XEP-0045 7.2 and 7.14: presence to an occupant's address joins the room, or leaves it. */
export function roomsAfter(before: Rooms | undefined, presence: Element, to: JID): Rooms | undefined {
  const room = to.bare.toString()
  const type = presence.attr('type')
  if (type === 'unavailable') before?.delete(room)
  if (type !== undefined) return before
  // without the mark it may be a new nick, or presence for some contact's device
  if (presence.getChild('x', MUC) === undefined && before?.has(room) !== true) return before
  const rooms = before ?? new Map<string, string>()
  rooms.delete(room)
  const [oldest] = rooms.keys()
  if (oldest !== undefined && rooms.size >= MAX_ROOMS) rooms.delete(oldest)
  return rooms.set(room, to.resource)
}
