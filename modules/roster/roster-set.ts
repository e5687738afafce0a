/** What a client asks for with a roster set, checked: RFC 6121 §2.1.5, §2.3.3. Whether the item exists is not its matter. */
import type { Element } from '../../server/xmpp/element.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { type JID, tryJid } from '../../server/xmpp/jid.ts'
import { NS } from '../../server/xmpp/ns.ts'

/** Limits on one item, in characters. */
export interface ItemLimits {
  readonly maxName: number
  readonly maxGroup: number
  /** Groups of one item. */
  readonly maxGroups: number
}

/** A roster set; `remove` deletes the item and has neither name nor groups. */
export interface RosterSet {
  readonly jid: JID
  readonly remove: boolean
  readonly name: string
  readonly groups: readonly string[]
}

/** Reads the <query/> of a roster set of account `own`. Throws StanzaError as §2.3.3 says. */
export function readRosterSet(query: Element, own: JID, limits: ItemLimits): RosterSet {
  const items = query.getChildren('item', NS.ROSTER)
  const item = items[0]
  // §2.1.5 rule 1, §2.3.3: one and only one item
  if (item === undefined || items.length > 1)
    throw new StanzaError('bad-request', { text: 'a roster set has exactly one item' })
  const jid = readJid(item, own)
  // §2.1.5 rule 2: every other value of subscription is ignored, and so are ask and approved (§2.1.2.1, §2.1.2.2)
  if (item.attr('subscription') === 'remove') return { jid, remove: true, name: '', groups: [] }
  const name = item.attr('name') ?? ''
  if (name.length > limits.maxName) throw new StanzaError('not-acceptable', { text: 'the name is too long' })
  return { jid, remove: false, name, groups: readGroups(item, limits) }
}

function readJid(item: Element, own: JID): JID {
  const text = item.attr('jid')
  // §2.1.2.3: required
  if (text === undefined) throw new StanzaError('bad-request', { text: 'an item needs a jid' })
  const jid = tryJid(text)
  if (jid === undefined) throw new StanzaError('jid-malformed', { text: `not an address: ${text}` })
  // Subscriptions are between bare JIDs (§3.1.1), and a roster item stands for one.
  if (jid.isFull) throw new StanzaError('bad-request', { text: 'a roster item has a bare JID' })
  // §2.3.3, interoperability note
  if (jid.equals(own))
    throw new StanzaError('not-allowed', { text: 'one cannot be in the roster of oneself' })
  return jid
}

function readGroups(item: Element, limits: ItemLimits): readonly string[] {
  const groups = item.getChildren('group', NS.ROSTER).map((group) => group.text())
  if (groups.length > limits.maxGroups) throw new StanzaError('not-acceptable', { text: 'too many groups' })
  for (const group of groups) {
    // §2.3.3, not-acceptable rules 2 and 3
    if (group === '') throw new StanzaError('not-acceptable', { text: 'a group has no name' })
    if (group.length > limits.maxGroup)
      throw new StanzaError('not-acceptable', { text: 'the name of a group is too long' })
  }
  // §2.3.3, bad-request rule 2; compared as resourceparts are (OpaqueString: NFC)
  if (new Set(groups.map((group) => group.normalize('NFC'))).size < groups.length)
    throw new StanzaError('bad-request', { text: 'a group is given twice' })
  return groups
}
