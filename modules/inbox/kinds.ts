/**
 * What an archived message means for the inbox (XEP-0430 0.2.0 §4): whether it is an instant message, and whether it says how far a conversation was
 * read. The archive keeps much that is about messages without being one (module mam, rules.ts); that neither counts nor is shown.
 */
import type { Element } from '../../server/xmpp/element.ts'
import { type JID, tryJid } from '../../server/xmpp/jid.ts'
import { NS } from '../../server/xmpp/ns.ts'

const MARKERS = 'urn:xmpp:chat-markers:0'
const RETRACT = 'urn:xmpp:message-retract:1'
const CORRECT = 'urn:xmpp:message-correct:0'
const MUC_USER = 'http://jabber.org/protocol/muc#user'
/** Longer ids are not remembered, UTF-16 units. */
const MAX_ID = 512

/** What is said of another message, whatever body it has for clients that do not understand. */
const ABOUT_OTHERS: ReadonlyMap<string, ReadonlySet<string>> = new Map([
  [RETRACT, new Set(['retract', 'retracted'])], // XEP-0424: taking back, and what is left of what was taken back
  ['urn:xmpp:reactions:0', new Set(['reactions'])], // XEP-0444
  ['urn:xmpp:fasten:0', new Set(['apply-to'])],
])
/** What makes a message without a body one: namespace to names, undefined for any. */
const CONTENT: ReadonlyMap<string, ReadonlySet<string> | undefined> = new Map([
  ['urn:xmpp:sfs:0', new Set(['file-sharing'])], // a file; its <sources/> may come later and are no message
  ['urn:xmpp:openpgp:0', new Set(['openpgp'])],
  ['jabber:x:encrypted', undefined],
  ['jabber:x:conference', undefined], // an invitation
])
/** Encryption whose messages without <payload/> only manage keys (XEP-0384: "empty" messages). */
const WITH_PAYLOAD: ReadonlySet<string> = new Set([
  'eu.siacs.conversations.axolotl',
  'urn:xmpp:omemo:1',
  'urn:xmpp:omemo:2',
])

/** What a message means. */
export interface Kind {
  /** Sent by the account itself. */
  readonly own: boolean
  /** An instant message. */
  readonly message: boolean
  /** Its sender wrote in the conversation: an instant message, a correction of one, or one that is taken back since. */
  readonly wrote: boolean
  /** The sender's address. */
  readonly from: string
  /** The id of the stanza, undefined when it has none that is worth knowing. */
  readonly id: string | undefined
  /** All that it may be called: the id of the stanza, of its sender (XEP-0359), of the room. */
  readonly ids: readonly string[]
  /** The id up to which the sender has displayed the conversation (XEP-0333 §4.2). */
  readonly displayed: string | undefined
  /** The id of the message that it takes back (XEP-0424). */
  readonly retracts: string | undefined
  /** The id of the message that it corrects (XEP-0308). */
  readonly corrects: string | undefined
  /** To or from an occupant of a room (XEP-0045): full addresses tell who is who. */
  readonly occupant: boolean
}

/** Reads a message of the archive of `account`. */
export function kindOf(stanza: Element, account: JID): Kind {
  const from = tryJid(stanza.attr('from') ?? '')
  const own = from === undefined || from.bare.equals(account)
  const ids = idsOf(stanza.attr('id'))
  const [id] = ids
  let [content, about, tombstone, occupant] = [false, false, false, false]
  let retracts: string | undefined
  let corrects: string | undefined
  for (const child of stanza.children) {
    if (typeof child === 'string') continue
    const { ns, name } = child
    // RFC 6121 §5.2.4: a subject alone is a message too
    if (ns === stanza.ns) content ||= name === 'body' || name === 'subject'
    else if (ns === NS.SID) ids.push(...idsOf(assigned(child, from)))
    else if (ABOUT_OTHERS.get(ns)?.has(name) === true) {
      about = true
      if (name === 'retract') retracts ??= child.attr('id')
      tombstone ||= name === 'retracted'
    } else if (ns === CORRECT && name === 'replace') corrects ??= child.attr('id')
    else if (ns === MUC_USER) {
      occupant = true
      content ||= child.getChild('invite') !== undefined || child.getChild('decline') !== undefined
    } else if (WITH_PAYLOAD.has(ns)) content ||= child.getChild('payload') !== undefined
    else if (CONTENT.has(ns)) content ||= CONTENT.get(ns)?.has(name) ?? true
  }
  const type = stanza.attr('type')
  // RFC 6121 §5.2.2: nobody answers a headline, and an error is no message; rooms keep what is said in them
  const conversation = type !== 'headline' && type !== 'error' && type !== 'groupchat'
  const said = conversation && content && !about
  return {
    own,
    // XEP-0308: what is corrected has been counted already
    message: said && corrects === undefined,
    wrote: said || tombstone,
    from: from?.toString() ?? '',
    id,
    ids,
    displayed: conversation ? displayedId(stanza) : undefined,
    retracts,
    corrects,
    occupant,
  }
}

/** The id in a marker: all up to there was displayed (XEP-0333 §4.2; <acknowledged/>: XEP-0430 §4). Undefined without a marker. */
export function displayedId(stanza: Element): string | undefined {
  for (const child of stanza.children) {
    if (typeof child === 'string' || child.ns !== MARKERS) continue
    const { name } = child
    const id = name === 'displayed' || name === 'acknowledged' ? child.attr('id') : undefined
    if (id !== undefined && id.length > 0 && id.length <= MAX_ID) return id
  }
  return undefined
}

/** XEP-0333 §4.3: in rooms the id that the room gave; only that of the room can be trusted (XEP-0359 §3). */
function assigned(child: Element, from: JID | undefined): string | undefined {
  if (child.name === 'origin-id') return child.attr('id')
  if (child.name !== 'stanza-id' || from === undefined) return undefined
  return tryJid(child.attr('by') ?? '')?.equals(from.bare) === true ? child.attr('id') : undefined
}

/** A copy: what is a part of a message keeps all of it in memory. */
const idsOf = (id: string | undefined): string[] =>
  id === undefined || id === '' || id.length > MAX_ID ? [] : [Buffer.from(id).toString()]

/** Messages that are taken back or corrected, found by who says so and the id that is named. */
export class Targets<T> {
  readonly #said = new Map<string, { readonly place: number; readonly what: T }>()

  /** Notes what `by` says of the message `id`; of several words the first stands. */
  add(by: Author, id: string, what: T): void {
    const said = { place: this.#said.size, what }
    for (const key of keysOf(by, id)) if (!this.#said.has(key)) this.#said.set(key, said)
  }

  /** What its author said of that message. */
  of(message: Author): T | undefined {
    const { id } = message
    if (this.#said.size === 0 || id === undefined) return undefined
    const said = keysOf(message, id).flatMap((key) => this.#said.get(key) ?? [])
    return (said.length > 1 ? said.toSorted((a, b) => a.place - b.place) : said)[0]?.what
  }
}

/** A message and who wrote it. */
export type Author = Pick<Kind, 'own' | 'from' | 'id' | 'occupant'>

/**
 * XEP-0424 §5, XEP-0308 §4: nobody but the author is heard, so a word and its message have one of these in common. Of occupants of a room the full address
 * tells, also when only one of the two says that it is from one: nobody may rely on that (XEP-0045 §7.5).
 */
const keysOf = ({ own, from, occupant }: Author, id: string): readonly string[] => {
  if (own) return [`own\0${id}`]
  return occupant ? [`${from}\0${id}`] : [`${from}\0${id}`, `other\0${id}`]
}
