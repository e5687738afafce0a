/** What is copied (XEP-0280 §6.1), and what a copy looks like (§7, §8). */
import { type Element, el } from '../../server/xmpp/element.ts'
import type { JID } from '../../server/xmpp/jid.ts'
import { NS } from '../../server/xmpp/ns.ts'
import type { Copy } from './service.ts'

/** Namespace of requests and copies. */
export const CARBONS = 'urn:xmpp:carbons:2'
const FORWARD = 'urn:xmpp:forward:0'
const HINTS = 'urn:xmpp:hints'
const MUC_USER = 'http://jabber.org/protocol/muc#user'
const INVITATION = 'jabber:x:conference'
/** §6.1: payloads of instant messaging that make a message without body eligible. */
const PAYLOADS: ReadonlySet<string> = new Set([
  'urn:xmpp:receipts',
  'http://jabber.org/protocol/chatstates',
  'urn:xmpp:chat-markers:0',
])

/** §6.1: all but what is said of errors and of private messages within rooms. */
export function isInstantMessage(stanza: Element): boolean {
  const type = stanza.attr('type')
  if (type === 'groupchat') return false
  let eligible = type === 'chat'
  let body = false
  for (const child of stanza.children) {
    if (typeof child === 'string') continue
    const { ns, name } = child
    if (ns === CARBONS && name === 'private') return false // §9
    if (ns === HINTS && name === 'no-copy') return false // XEP-0334 §4.3
    if (ns === stanza.ns && name === 'body') body = true
    else if (PAYLOADS.has(ns) || (ns === INVITATION && name === 'x') || isInvitation(child)) eligible = true
  }
  return eligible || (body && type !== 'headline') // RFC 6121 §5.2.2: what is unknown is "normal"
}

/** XEP-0045 7.8.2: an invitation by way of the room, or the answer to one. */
function isInvitation(child: Element): boolean {
  if (!child.is('x', MUC_USER)) return false
  return child.getChild('invite') !== undefined || child.getChild('decline') !== undefined
}

/** §6.1: a private message of an occupant of a room, which the room sends to each device that has joined. `joined`: this one has. */
export function isFromOccupant(message: Element, from: JID, to: JID, joined: boolean): boolean {
  if (from.resource === '' || to.resource === '') return false
  const marks = message.getChildren('x', MUC_USER)
  return (
    (joined || marks.length > 0) &&
    !marks.some(isInvitation) &&
    message.getChild('x', INVITATION) === undefined
  )
}

/** A copy for a session: from the account itself, to the full address. */
export function copyFor(to: JID, { direction, message }: Copy): Element {
  const addresses = { from: to.bare.toString(), to: to.toString(), type: message.attr('type') }
  const wrapped = el(direction, CARBONS, {}, el('forwarded', FORWARD, {}, message))
  return el('message', NS.CLIENT, addresses, wrapped)
}

/** What stands in a copy for a session of `account`; undefined: the stanza is none. */
export function copyIn(stanza: Element, account: JID): Copy | undefined {
  if (stanza.attr('from') !== account.bare.toString()) return undefined
  for (const child of stanza.elements) {
    const { name: direction, ns } = child
    if (ns !== CARBONS || (direction !== 'received' && direction !== 'sent')) continue
    const message = child.getChild('forwarded', FORWARD)?.getChild('message', NS.CLIENT)
    return message && { direction, message }
  }
  return undefined
}
