/** Stanzas (RFC 6120 §8): kinds, replies, error replies, languages, ids. Who may send what to whom is decided elsewhere. */
import { Element, el, type Node } from './element.ts'
import { STANZA_CONDITIONS, StanzaError, type ErrorType, type StanzaCondition } from './errors.ts'
import type { JID } from './jid.ts'
import { NS } from './ns.ts'

/** The three kinds of stanzas (RFC 6120 §8). */
export type StanzaKind = 'message' | 'presence' | 'iq'

/** Kind of a first-level element, undefined when it is no stanza: another name, or no content namespace (RFC 6120 §4.8.3). */
export function kind(el: Element): StanzaKind | undefined {
  if (el.ns !== NS.CLIENT && el.ns !== NS.SERVER && el.ns !== NS.COMPONENT) return undefined
  const name = el.name
  return name === 'message' || name === 'presence' || name === 'iq' ? name : undefined
}

/** Whether the stanza must never be answered: RFC 6120 §8.3.1 rule 8 (errors), §8.2.3 rule 5 (iq results). */
export function isErrorOrResult(stanza: Element): boolean {
  const type = stanza.attr('type')
  return type === 'error' || (type === 'result' && stanza.name === 'iq')
}

/** The result of an iq (RFC 6120 §8.2.3): addresses swapped, id kept, at most one payload. */
export function reply(iq: Element, payload?: Element): Element {
  return el(
    iq.name,
    iq.ns,
    { type: 'result', id: iq.attr('id'), to: iq.attr('from'), from: iq.attr('to') },
    payload,
  )
}

/** RFC 6120 §8.3.1 rule 6: the original is a courtesy, so only this many characters of it go back. */
const MAX_ECHO_CHARS = 1024

/**
 * The error for a stanza (RFC 6120 §8.3.1): same kind, addresses swapped, id kept, original content when it is small.
 * Undefined for stanzas that must not be answered with an error.
 */
export function errorReply(stanza: Element, error: StanzaError): Element | undefined {
  if (isErrorOrResult(stanza)) return undefined
  // Rule 3: "or be empty if the generated stanza did not include an 'id' attribute"; an iq error must have one.
  const id = stanza.attr('id') ?? (stanza.name === 'iq' ? '' : undefined)
  const attrs = {
    type: 'error',
    id,
    to: stanza.attr('from'),
    from: stanza.attr('to'),
    'xml:lang': lang(stanza),
  }
  return el(stanza.name, stanza.ns, attrs, ...(error.echo ? echo(stanza) : []), error.toElement(stanza.ns))
}

function echo(stanza: Element): readonly Node[] {
  // Rule 7: an <error/> child where none may be is not repeated either.
  const content = stanza.without((child) => child.is('error', stanza.ns))
  return content.toString(stanza.ns).length > MAX_ECHO_CHARS ? [] : content.children
}

/** The error a received stanza of type "error" carries (RFC 6120 §8.3.2); unknown conditions count as undefined-condition. */
export function stanzaErrorOf(stanza: Element): StanzaError {
  const error = stanza.getChild('error')
  const children = error?.elements ?? []
  const condition = children.find((child) => child.ns === NS.STANZAS && child.name !== 'text')
  const app = children.find((child) => child.ns !== NS.STANZAS)
  const type = error?.attr('type')
  const text = error?.getChildText('text', NS.STANZAS)
  const by = error?.attr('by')
  const uri = condition?.text().trim()
  return new StanzaError(
    condition !== undefined && isCondition(condition.name) ? condition.name : 'undefined-condition',
    {
      ...(text !== undefined && { text }),
      ...(type !== undefined && isErrorType(type) && { type }),
      ...(app !== undefined && { app }),
      ...(by !== undefined && { by }),
      ...(uri !== undefined && uri !== '' && { uri }),
    },
  )
}

function isCondition(name: string): name is StanzaCondition {
  return Object.hasOwn(STANZA_CONDITIONS, name)
}

function isErrorType(type: string): type is ErrorType {
  return type === 'auth' || type === 'cancel' || type === 'continue' || type === 'modify' || type === 'wait'
}

/** Language of an element's own text, as far as it says so itself (RFC 6120 §8.1.5). */
export function lang(element: Element): string | undefined {
  return element.attr('xml:lang')
}

/** RFC 6120 §4.7.4, §8.1.5: the stanza with the language of its stream, unless it names one itself. */
export function withLang(stanza: Element, streamLang: string | undefined): Element {
  if (streamLang === undefined || lang(stanza) !== undefined) return stanza
  return stanza.withAttrs({ 'xml:lang': streamLang })
}

/** The id that `by` has given a message (XEP-0359 0.7.0 §3); undefined: none. Forged ones must have been taken out before. */
export function stanzaIdBy(message: Element, by: JID): string | undefined {
  const address = by.toString()
  return message
    .getChildren('stanza-id', NS.SID)
    .find((id) => id.attr('by') === address)
    ?.attr('id')
}
