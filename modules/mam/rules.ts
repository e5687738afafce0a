/**
 * What belongs into an archive (XEP-0313 §6.1.1), whoever it is from: conversation, and what changes how a conversation is shown, but not
 * what is only true at the moment. Hints of the sender (XEP-0334 1.0.0) go first. What the owner of the archive wants is in prefs.ts.
 */
import type { Element } from '../../server/xmpp/element.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { NS_MUC_USER, NS_RETRACT } from './ns.ts'

const HINTS = 'urn:xmpp:hints'

/** Elements that make a message worth keeping when it has no body: namespace to names, undefined for any name. */
const CONTENT: ReadonlyMap<string, ReadonlySet<string> | undefined> = new Map([
  ['urn:xmpp:receipts', new Set(['received'])], // XEP-0184 1.4.0; a request alone says nothing
  ['urn:xmpp:chat-markers:0', new Set(['displayed', 'received', 'acknowledged'])], // XEP-0333 1.0.0
  ['urn:xmpp:jingle-message:0', undefined], // XEP-0353 0.8.0 §5: all of a call
  ['urn:xmpp:call-invites:0', undefined],
  [NS_RETRACT, new Set(['retract'])], // XEP-0424 §5: the archive must store it
  ['urn:xmpp:fasten:0', new Set(['apply-to'])], // how older clients retract
  ['urn:xmpp:reactions:0', new Set(['reactions'])],
  ['urn:xmpp:message-correct:0', new Set(['replace'])],
  ['urn:xmpp:sfs:0', new Set(['file-sharing', 'sources'])],
  // encrypted: what is inside cannot be seen from here
  ['eu.siacs.conversations.axolotl', new Set(['encrypted'])],
  ['urn:xmpp:omemo:1', new Set(['encrypted'])],
  ['urn:xmpp:omemo:2', new Set(['encrypted'])],
  ['urn:xmpp:openpgp:0', new Set(['openpgp'])],
  ['jabber:x:encrypted', undefined],
  ['urn:xmpp:eme:0', new Set(['encryption'])],
  // invitations to rooms
  ['jabber:x:conference', undefined],
])

/** What an archive has to know of a message. */
export interface Finding {
  /** It belongs there; if not, it must not come twice all the same. */
  readonly kept: boolean
  /** The id its sender gave it (XEP-0359 2.2), undefined when there is none. */
  readonly originId: string | undefined
  /** It takes back an earlier message (XEP-0424). */
  readonly retracts: boolean
  /** It comes from or goes to one occupant of a room, whose address is that of the room with a resource (XEP-0045). */
  readonly occupant: boolean
}

/** Whether a message belongs into archives: what there is to know of it; undefined: nothing, it does not. */
export function examine(message: Element): Finding | undefined {
  let originId: string | undefined
  let content = false
  let retracts = false
  let occupant = false
  let stored = false
  let refused = false
  for (const child of message.children) {
    if (typeof child === 'string') continue
    const { ns, name } = child
    if (ns === message.ns) {
      // §6.1.1: a body; a subject alone is a message too (RFC 6121 allows it)
      if (name === 'body' || name === 'subject') content = true
    } else if (ns === NS.SID) {
      if (name === 'origin-id') originId ??= child.attr('id')
    } else if (ns === HINTS) {
      // XEP-0334 §4.1, §4.2; they win over <store/>: who is cautious once is right
      if (name === 'no-store' || name === 'no-permanent-store') refused = true
      else if (name === 'store') stored = true // §4.4
    } else if (ns === NS_RETRACT && name === 'retract') {
      retracts = true
      content = true
    } else if (ns === NS_MUC_USER) {
      occupant = true
      // a mediated invitation
      content ||= child.getChild('invite') !== undefined || child.getChild('decline') !== undefined
    } else if (!content && CONTENT.has(ns)) content = CONTENT.get(ns)?.has(name) ?? true
  }
  if (!content && !stored) return undefined
  const type = message.attr('type')
  // Errors: XEP-0334 §4.4, §5: hints in them do not count. Groupchat: the archive of the room has it; every member would keep a copy of all that is
  // said. RFC 6121 §5.2.2: types that are unknown are "normal".
  if (type === 'error' || type === 'groupchat') return undefined
  const kept = !refused && (stored || type !== 'headline') // §6.1.1: headlines are not suggested
  if (!kept && (originId === undefined || originId === '')) return undefined
  return { kept, originId, retracts, occupant }
}
