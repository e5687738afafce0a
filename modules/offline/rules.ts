/** Which messages are worth keeping for an account that is not there (XEP-0160 §3, XEP-0334 1.0.0, RFC 6121 §8.5). */
import { createHash } from 'node:crypto'
import type { Element } from '../../server/xmpp/element.ts'
import { type JID, tryJid } from '../../server/xmpp/jid.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { stanzaIdBy } from '../../server/xmpp/stanza.ts'

const HINTS = 'urn:xmpp:hints'
const RETRACT = 'urn:xmpp:message-retract:1'
const MUC_USER = 'http://jabber.org/protocol/muc#user'

/**
 * What says nothing by itself: namespace to names, undefined for any name. All that is not here is kept: of what nobody here knows,
 * only its receiver can say that it is worth nothing.
 */
const MINOR: ReadonlyMap<string, ReadonlySet<string> | undefined> = new Map([
  ['http://jabber.org/protocol/chatstates', undefined], // XEP-0160 §3, XEP-0085 §5.6
  [NS.CLIENT, new Set(['thread'])],
  [NS.SID, undefined],
  [NS.DELAY, undefined],
  [HINTS, undefined],
  ['urn:xmpp:receipts', new Set(['request'])],
  ['urn:xmpp:chat-markers:0', new Set(['markable'])],
  ['urn:xmpp:carbons:2', new Set(['private'])],
  ['http://jabber.org/protocol/nick', undefined],
  ['http://jabber.org/protocol/caps', undefined],
])

/** Whether a message that no session took is to be kept until one of `to` is there. */
export function isKept(message: Element, to: JID): boolean {
  switch (message.attr('type')) {
    case 'error':
    case 'groupchat':
    case 'headline':
      return false // XEP-0160 §3
    case 'chat':
      break
    default:
      // RFC 6121 §8.5.3.2.1: a resource that is not there was meant; this is ignored or answered with an error
      if (to.resource !== '') return false
  }
  let content = false
  for (const { ns, name } of message.elements) {
    if (ns === HINTS) {
      // XEP-0334 §4.2: not even for later delivery. <no-permanent-store/> (§4.1) is about archives: this is no permanent record.
      if (name === 'no-store') return false
      if (name === 'store') content = true // §4.4
    }
    content ||= MINOR.has(ns) ? MINOR.get(ns)?.has(name) === false : true
  }
  return content
}

/** Whether the archive of that account (XEP-0313) has the message: it gave it an id there (XEP-0359). */
export function isArchived(message: Element, account: JID): boolean {
  return stanzaIdBy(message, account.bare) !== undefined
}

/**
 * What a message has in common with itself when its client sends it again after a broken stream (XEP-0359 §2.2); undefined when it has no id
 * of its sender. Clients that use an id for several messages write different ones.
 */
export function dedupeKey(message: Element, from: JID): string | undefined {
  const id = message.getChild('origin-id', NS.SID)?.attr('id')
  if (id === undefined || id === '') return undefined
  const names = message.elements.filter(({ ns }) => ns !== NS.DELAY).map(({ ns, name }) => `${ns} ${name}`)
  const bodies = message.getChildren('body').map((body) => body.text())
  const parts = [from.bare.toString(), id, message.attr('type') ?? '', ...bodies, '', ...names.sort()]
  return createHash('sha256').update(JSON.stringify(parts)).digest('base64url')
}

/** XEP-0424 §5: those of the messages, oldest first, that their author has taken back since. The retractions themselves are not among them. */
export function retractedIn(messages: readonly Element[]): ReadonlySet<Element> {
  const taken = new Map<string, Author[]>()
  const retracted = new Set<Element>()
  for (const message of messages.toReversed()) {
    const target = message.getChild('retract', RETRACT)?.attr('id')
    const id = target ?? message.attr('id')
    if (id === undefined || (target === undefined && taken.size === 0)) continue
    const author = authorOf(message)
    const by = taken.get(id)
    if (target === undefined) {
      if (by?.some((other) => isSame(author, other)) === true) retracted.add(message)
    } else if (by === undefined) taken.set(id, [author])
    else by.push(author)
  }
  return retracted
}

/** Who wrote a message. */
interface Author {
  readonly jid: JID | undefined
  /** Surely an occupant of a room (XEP-0045 §7.5); without the mark it may be one all the same. */
  readonly occupant: boolean
}

function authorOf(message: Element): Author {
  const occupant = message.getChild('x', MUC_USER) !== undefined
  return { jid: tryJid(message.attr('from') ?? ''), occupant }
}

/** Among the occupants of a room the full address tells who the author is. */
function isSame(a: Author, b: Author): boolean {
  if (a.jid === undefined || b.jid === undefined) return false
  return a.occupant || b.occupant ? a.jid.equals(b.jid) : a.jid.bare.equals(b.jid.bare)
}
