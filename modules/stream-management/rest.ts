/**
 * What becomes of stanzas that a client has not confirmed when its session is over (XEP-0198 §4): which of them go on their way. A message
 * that another device of the account has got already does not come a second time.
 */
import type { Bound } from '../../server/module.ts'
import { type Element, el } from '../../server/xmpp/element.ts'
import { type JID, tryJid } from '../../server/xmpp/jid.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { formatDateTime } from '../../server/xmpp/xml-time.ts'

const CARBONS = 'urn:xmpp:carbons:2'
const HINTS = 'urn:xmpp:hints'
const FORWARD = 'urn:xmpp:forward:0'
const MUC_USER = 'http://jabber.org/protocol/muc#user'
/** Namespaces of payloads that are copied without a body (XEP-0280 §6.1): receipts, chat states, markers, invitations. */
const PAYLOADS: ReadonlySet<string> = new Set([
  'urn:xmpp:receipts',
  'http://jabber.org/protocol/chatstates',
  'urn:xmpp:chat-markers:0',
  'jabber:x:conference',
])

/** XEP-0203: the stanza with the time it was sent first; messages and presence that say no time themselves. */
export function delayed({ stanza, at }: Sent, host: string): Element {
  if (stanza.name === 'iq' || stanza.getChild('delay', NS.DELAY) !== undefined) return stanza
  return stanza.append(el('delay', NS.DELAY, { from: host, stamp: formatDateTime(at) }))
}

/** A stanza and when it was sent, milliseconds since 1970. */
export interface Sent {
  readonly at: number
  readonly stanza: Element
  /** It was in a copy, and whom it was sent to did not get it. */
  readonly sole?: boolean
}

/** Who else the account has now. Times in milliseconds since 1970. */
export interface Others {
  /** Priority of the session that is over, undefined: not available; and since when it was that. */
  readonly priority: number | undefined
  readonly since: number
  /** Sessions of the account, without that one. */
  readonly sessions: readonly Bound[]
  /** Since when a session has its priority. */
  prioritySince(session: Bound): number
  /** Since when it gets copies. */
  copiesSince(session: Bound): number
  /** It has a copy, or it waits for it: what becomes of the message is the matter of that session from now on. */
  leave(session: Bound, message: Element): void
}

/** Whether what was for `jid` goes on its way: to other resources, to the offline store, or as an error to its sender. */
export function goesOn({ stanza, at, sole }: Sent, jid: JID, others: Others): boolean {
  const account = jid.bare
  if (stanza.name !== 'message') return stanza.name === 'iq'
  if (copyIn(stanza, account) !== undefined) return false // of a message that has its own way
  const type = stanza.attr('type') ?? 'normal'
  if (type === 'error' || type === 'headline' || type === 'groupchat') return true
  // not for this session alone: to the account, or to a resource that was not there (RFC 6121 §8.5.3.2.1)
  const toAll = sole !== true && tryJid(stanza.attr('to') ?? '')?.equals(jid) !== true
  const copied = isCopied(stanza, type)
  const archived = stanza
    .getChildren('stanza-id', NS.SID)
    .some((id) => tryJid(id.attr('by') ?? '')?.equals(account) === true)
  const { priority, since, sessions } = others
  return !sessions.some((other) => {
    if (archived && other.flag('mam') === true) return true // it reads the archive
    // it went to all of the highest priority
    if (toAll && priority !== undefined && other.priority === priority)
      if (Math.max(since, others.prioritySince(other)) <= at) return true
    if (!copied || other.flag('carbons') !== true || others.copiesSince(other) > at) return false
    others.leave(other, stanza)
    return true
  })
}

/** The carbon in a message that was made here for this one session. */
function copyIn(message: Element, account: JID): Element | undefined {
  if (tryJid(message.attr('from') ?? '')?.equals(account) !== true) return undefined
  return message.elements.find(
    (child) => child.ns === CARBONS && (child.name === 'sent' || child.name === 'received'),
  )
}

/** The message that a copy is of, when the account has received it. */
export function received(message: Element, account: JID): Element | undefined {
  const copy = copyIn(message, account)
  if (copy?.name !== 'received') return undefined
  return copy.getChild('forwarded', FORWARD)?.getChild('message', NS.CLIENT)
}

/** What a message and a copy of it have in common. */
export const keyOf = (message: Element): string =>
  JSON.stringify([
    message.attr('from'),
    message.attr('id'),
    message.getChildText('body'),
    message.getChildren('stanza-id', NS.SID).map((id) => id.attr('id')),
  ])

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
