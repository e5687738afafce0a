/**
 * What becomes of stanzas that a client has not confirmed when its session is over (XEP-0198 §4): which of them go on their way. A message
 * that another device of the account has got already does not come a second time.
 */
import type { Bound, Services } from '../../server/module.ts'
import { type Element, el } from '../../server/xmpp/element.ts'
import { tryJid } from '../../server/xmpp/jid.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { stanzaIdBy } from '../../server/xmpp/stanza.ts'
import { formatDateTime } from '../../server/xmpp/xml-time.ts'

/** XEP-0203: the stanza with the time it was sent first; messages and presence that say no time themselves. */
export function delayed({ stanza, at }: Pick<Sent, 'stanza' | 'at'>, host: string): Element {
  if (stanza.name === 'iq' || stanza.getChild('delay', NS.DELAY) !== undefined) return stanza
  return stanza.append(el('delay', NS.DELAY, { from: host, stamp: formatDateTime(at) }))
}

/** A stanza and when it was sent, milliseconds since 1970. */
export interface Sent {
  readonly at: number
  /** The moment after which it was sent. */
  readonly moment: number
  readonly stanza: Element
  /** It was in a copy, and whom it was sent to did not get it. */
  readonly sole?: boolean
}

/** Who else the account has now. */
export interface Others {
  /** Priority of the session that is over, undefined: not available; and since which moment it was that. */
  readonly priority: number | undefined
  readonly since: number
  /** Sessions of the account, without that one. */
  readonly sessions: readonly Bound[]
  /** Since which moment a session has its priority, or gets copies if it does. */
  prioritySince(session: Bound): number
  copiesSince(session: Bound): number
  /** The copies that other devices have (XEP-0280), when there is somebody who makes them. */
  readonly carbons: Services['carbons'] | undefined
  /** It has a copy, or it waits for it: what becomes of the message is the matter of that session from now on. */
  leave(session: Bound, message: Element): void
}

/** Whether what was for `session` goes on its way: to other resources, to the offline store, or as an error to its sender. */
export function goesOn({ stanza, moment, sole }: Sent, session: Bound, others: Others): boolean {
  const { jid } = session
  const { carbons, priority, since, sessions } = others
  if (stanza.name !== 'message') return stanza.name === 'iq'
  const type = stanza.attr('type') ?? 'normal'
  if (type === 'error' || type === 'headline' || type === 'groupchat') return true
  // not for this session alone: to the account, or to a resource that was not there (RFC 6121 §8.5.3.2.1)
  const toAll = sole !== true && tryJid(stanza.attr('to') ?? '')?.equals(jid) !== true
  // XEP-0203: what this server kept, or had sent on its way before, went to this one without new copies
  const late = stanza.getChildren('delay', NS.DELAY).some((delay) => delay.attr('from') === jid.domain)
  const copied = !late && carbons?.isCopied(stanza, session) === true
  const archived = stanzaIdBy(stanza, jid.bare) !== undefined
  return !sessions.some((other) => {
    // it reads the archive; one that is not available yet may have asked before, and is given what is kept when it is
    if (archived && other.flag('mam') === true && other.priority !== undefined) return true
    // it went to all of the highest priority
    if (toAll && priority !== undefined && other.priority === priority)
      if (Math.max(since, others.prioritySince(other)) <= moment) return true
    if (!copied || carbons?.copies(other) !== true || others.copiesSince(other) > moment) return false
    others.leave(other, stanza)
    return true
  })
}

/** What a message and a copy of it have in common. */
export const keyOf = (message: Element): string =>
  JSON.stringify([
    message.attr('from'),
    message.attr('id'),
    message.getChildText('body'),
    message.getChildren('stanza-id', NS.SID).map((id) => id.attr('id')),
  ])
