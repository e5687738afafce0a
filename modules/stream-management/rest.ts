/**
 * What becomes of stanzas that a client has not confirmed when its session is over (XEP-0198 §4): which of them go on their way. A message
 * that another device of the account has got already does not come a second time.
 */
import type { Bound } from '../../server/module.ts'
import { type Element, el } from '../../server/xmpp/element.ts'
import { type JID, tryJid } from '../../server/xmpp/jid.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { formatDateTime } from '../../server/xmpp/xml-time.ts'
import type { Unconfirmed } from './queue.ts'

const CARBONS = 'urn:xmpp:carbons:2'
const HINTS = 'urn:xmpp:hints'
const MUC_USER = 'http://jabber.org/protocol/muc#user'
/** Namespaces of payloads that are copied without a body (XEP-0280 §6.1): receipts, chat states, markers, invitations. */
const PAYLOADS: ReadonlySet<string> = new Set([
  'urn:xmpp:receipts',
  'http://jabber.org/protocol/chatstates',
  'urn:xmpp:chat-markers:0',
  'jabber:x:conference',
])

/** XEP-0203: the stanza with the time it was sent first; messages and presence that say no time themselves. */
export function delayed({ stanza, at }: Unconfirmed, host: string): Element {
  if (stanza.name === 'iq' || stanza.getChild('delay', NS.DELAY) !== undefined) return stanza
  return stanza.append(el('delay', NS.DELAY, { from: host, stamp: formatDateTime(at) }))
}

/** Who else the account has now. */
export interface Others {
  /** Priority of the session that is over; undefined: not available. */
  readonly priority: number | undefined
  /** Sessions of the account, without that one. */
  readonly sessions: readonly Bound[]
  /** When a session was bound, milliseconds since 1970. */
  boundAt(session: Bound): number
}

/** Whether it goes on its way: to other resources, to the offline store, or as an error to its sender. */
export function goesOn({ stanza, at }: Unconfirmed, account: JID, others: Others): boolean {
  if (stanza.name !== 'message') return stanza.name === 'iq'
  if (isCopy(stanza, account)) return false // of a message that has its own way
  const type = stanza.attr('type') ?? 'normal'
  if (type === 'error' || type === 'headline' || type === 'groupchat') return true
  const toAll = tryJid(stanza.attr('to') ?? '')?.isBare === true
  const copied = isCopied(stanza, type)
  const archived = stanza
    .getChildren('stanza-id', NS.SID)
    .some((id) => tryJid(id.attr('by') ?? '')?.equals(account) === true)
  return !others.sessions.some((other) => {
    if (archived && other.flag('mam') === true) return true // it reads the archive
    if (others.boundAt(other) > at) return false
    if (copied && other.flag('carbons') === true) return true
    // a message to the account went to all of the highest priority
    return toAll && others.priority !== undefined && other.priority === others.priority
  })
}

/** A carbon, made here for this one session. */
function isCopy(message: Element, account: JID): boolean {
  if (tryJid(message.attr('from') ?? '')?.equals(account) !== true) return false
  return message.elements.some(
    (child) => child.ns === CARBONS && (child.name === 'sent' || child.name === 'received'),
  )
}

/** Whether devices that asked for carbons have got one (XEP-0280 §6.1). */
function isCopied(message: Element, type: string): boolean {
  if (message.getChild('private', CARBONS) !== undefined || message.getChild('no-copy', HINTS) !== undefined)
    return false
  const room = message.getChild('x', MUC_USER)
  const invitation = room?.getChild('invite') !== undefined || room?.getChild('decline') !== undefined
  // a private message of an occupant: each device that has joined got its own from the room
  if (room !== undefined && !invitation && tryJid(message.attr('from') ?? '')?.isFull === true) return false
  if (type === 'chat' || invitation || message.getChild('body') !== undefined) return true
  return message.elements.some((child) => PAYLOADS.has(child.ns))
}
