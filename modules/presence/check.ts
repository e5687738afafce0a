/** What a presence stanza of a client must look like: RFC 6121 §4.7. */
import type { Element } from '../../server/xmpp/element.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { NS } from '../../server/xmpp/ns.ts'

const TYPES: ReadonlySet<string | undefined> = new Set([
  undefined,
  'error',
  'probe',
  'subscribe',
  'subscribed',
  'unavailable',
  'unsubscribe',
  'unsubscribed',
])
const SHOWS: ReadonlySet<string> = new Set(['away', 'chat', 'dnd', 'xa'])

/** The stanza as it may go on; the very same when nothing had to be left out. Throws StanzaError('bad-request'). */
export function checkedPresence(stanza: Element): Element {
  const type = stanza.attr('type')
  // §4.7.1: a type that is not defined
  if (!TYPES.has(type)) throw new StanzaError('bad-request', { text: 'unknown type of presence' })
  if (stanza.children.length === 0) return stanza
  // §4.5.1: these say nothing about somebody who is not there
  if (type === 'unavailable')
    return stanza.without((e) => e.ns === NS.CLIENT && (e.name === 'show' || e.name === 'priority'))
  return type === undefined ? checkedShow(checkPriority(stanza)) : stanza
}

/** §4.7.2.3: at most one, an integer from -128 to 127. */
function checkPriority(stanza: Element): Element {
  const found = stanza.getChildren('priority')
  if (found.length > 1) throw new StanzaError('bad-request', { text: 'more than one priority' })
  const text = found[0]?.text().trim() ?? '0'
  const priority = /^[+-]?\d{1,4}$/.test(text) ? Number(text) : Number.NaN
  if (!(priority >= -128 && priority <= 127))
    throw new StanzaError('bad-request', { text: 'the priority is not an integer from -128 to 127' })
  return stanza
}

/** §4.7.2.1: at most one, of four values. An empty one, which some clients send for "online", is left out. */
function checkedShow(stanza: Element): Element {
  const found = stanza.getChildren('show')
  const show = found[0]
  if (show === undefined) return stanza
  if (found.length > 1) throw new StanzaError('bad-request', { text: 'more than one show' })
  const text = show.text().trim()
  if (text === '') return stanza.without((e) => e === show)
  if (!SHOWS.has(text)) throw new StanzaError('bad-request', { text: 'unknown value of show' })
  return stanza
}
