/**
 * XML for tests, from parts the server does not use: sax (strict, with namespaces) builds ltx elements. A pattern is XML too and
 * is compared by namespace and local name; marks for captures, wildcards and optional parts are listed at `matchElement`.
 */
import { Element } from 'ltx'
import sax from 'sax'

export { Element } from 'ltx'

// sax refuses attribute values beyond 64 KiB by default; tests of size limits send and receive more.
Object.assign(sax, { MAX_BUFFER_LENGTH: Number.POSITIVE_INFINITY })

/** Namespaces of the wire, written again on this side: a second opinion. */
/** Stanzas of clients, RFC 6120 §4.8.2. */
export const NS_CLIENT = 'jabber:client'
/** Namespace of stream elements. */
/** Stream elements, RFC 6120 §4.8.1. */
export const NS_STREAM = 'http://etherx.jabber.org/streams'
/** Namespace of framing elements. */
/** Opening and closing over WebSocket, RFC 7395 §3.3. */
export const NS_FRAMING = 'urn:ietf:params:xml:ns:xmpp-framing'
/** Namespace of tls elements. */
/** STARTTLS, RFC 6120 §5. */
export const NS_TLS = 'urn:ietf:params:xml:ns:xmpp-tls'
/** Namespace of sasl elements. */
/** SASL, RFC 6120 §6. */
export const NS_SASL = 'urn:ietf:params:xml:ns:xmpp-sasl'
/** Namespace of bind elements. */
/** Resource binding, RFC 6120 §7. */
export const NS_BIND = 'urn:ietf:params:xml:ns:xmpp-bind'
/** Namespace of stream errors elements. */
/** Conditions of stream errors, RFC 6120 §4.9.3. */
export const NS_STREAM_ERRORS = 'urn:ietf:params:xml:ns:xmpp-streams'
/** Namespace of stanza errors elements. */
/** Conditions of stanza errors, RFC 6120 §8.3.3. */
export const NS_STANZA_ERRORS = 'urn:ietf:params:xml:ns:xmpp-stanzas'

/** What a reader reports: the root's start tag (without children), each complete child of the root, the root's end tag. */
export interface ReaderEvents {
  open(root: Element): void
  element(el: Element): void
  close(): void
}

/** Reads one XML stream. `write` throws on anything a server must never send (RFC 6120 §11.1: comments, PIs, DTDs, unknown entities). */
export class StreamReader {
  readonly #parser: sax.SAXParser
  #root: Element | undefined
  #current: Element | undefined
  #failure: Error | undefined

  constructor(events: ReaderEvents) {
    const parser = sax.parser(true, Object.assign({ xmlns: true, position: false }, { strictEntities: true }))
    const refuse = (what: string) => () => {
      this.#failure ??= new Error(`the other side sent ${what} (RFC 6120 §11.1)`)
    }
    parser.onerror = (error) => {
      this.#failure ??= error
    }
    parser.oncomment = refuse('a comment')
    parser.ondoctype = refuse('a document type declaration')
    parser.onprocessinginstruction = (pi) => {
      if (pi.name !== 'xml') refuse('a processing instruction')()
    }
    parser.onopentag = (tag) => {
      const attrs: Record<string, string> = {}
      for (const [name, value] of Object.entries(tag.attributes)) {
        attrs[name] = typeof value === 'string' ? value : value.value
      }
      const el = new Element(tag.name, attrs)
      if (this.#root === undefined) {
        this.#root = el
        events.open(el)
        return
      }
      el.parent = this.#current ?? this.#root // namespaces declared further out stay visible
      this.#current?.children.push(el)
      this.#current = el
    }
    parser.onclosetag = () => {
      const el = this.#current
      if (el === undefined) {
        events.close()
        return
      }
      if (el.parent === this.#root) {
        this.#current = undefined
        events.element(el)
      } else {
        this.#current = el.parent ?? undefined
      }
    }
    const text = (value: string) => {
      const el = this.#current
      if (el === undefined) return
      const last = el.children.at(-1)
      if (typeof last === 'string') el.children[el.children.length - 1] = last + value
      else el.children.push(value)
    }
    parser.ontext = text
    parser.oncdata = text
    this.#parser = parser
  }

  write(text: string): void {
    this.#parser.write(text)
    if (this.#failure !== undefined) throw this.#failure
  }
}

/** Elements of an XML fragment; `prefixes` are declarations in scope, written as attributes. */
export function parseFragment(text: string, prefixes = ''): Element[] {
  const found: Element[] = []
  const reader = new StreamReader({ open: () => {}, element: (el) => found.push(el), close: () => {} })
  reader.write(`<fragment ${prefixes}>${text}</fragment>`)
  return found
}

/** One document (a WebSocket frame, an HTTP body). */
export function parseDocument(text: string): Element {
  let root: Element | undefined
  const children: Element[] = []
  const reader = new StreamReader({
    open: (el) => {
      root = el
    },
    element: (el) => children.push(el),
    close: () => {},
  })
  // The declaration of an HTTP body would stand inside the wrapper otherwise.
  reader.write(`<document>${text.replace(/^\s*<\?xml[^>]*\?>/, '')}</document>`)
  const [only] = children
  if (root === undefined || only === undefined || children.length !== 1)
    throw new Error(`not one document: ${text}`)
  only.parent = null
  return only
}

/** Elements of a pattern: `jabber:client` is the default namespace and `stream:` is declared. */
export function parsePattern(text: string): Element[] {
  return parseFragment(text, `xmlns='${NS_CLIENT}' xmlns:stream='${NS_STREAM}'`)
}

/** Values captured so far, by name. */
export type Captures = Map<string, string>

/** Children that a server may add to a stanza on its own; ignored where the pattern does not mention their namespace. */
const ADDED_BY_SERVERS = new Map<string, readonly string[]>([
  ['message', ['urn:xmpp:sid:0', 'urn:xmpp:mam:tmp']], // XEP-0359 §3; ejabberd's older form of it
  ['presence', ['vcard-temp:x:update', 'urn:xmpp:delay']], // XEP-0398 §3; XEP-0203 in answers to probes (RFC 6121 §4.3.2)
])

/**
 * Compares; returns the first difference as text, or undefined. Marks in attribute values and text:
 * `*` anything, `$name` captures (or equals what was captured), `?` may be absent, `?value` absent or equal, `!` absent,
 * `(a|b)` one of, `/regex/`. The text `...` in an element allows more children, the attribute `etc` more attributes. The element
 * `<_/>` is any element. `xml:lang` may be added to stanzas (RFC 6120 §8.1.5). Children compare in any order. Inside `<error/>`
 * and `<stream:error/>` names without xmlns are conditions of RFC 6120 §8.3.3 and §4.9.3; text, application conditions and
 * a copy of the original payload may always be added.
 */
export function matchElement(pattern: Element, actual: Element, captures: Captures): string | undefined {
  const trial = new Map(captures)
  const difference = compare(pattern, actual, trial, pattern.getName())
  if (difference === undefined) for (const [name, value] of trial) captures.set(name, value)
  return difference
}

function compare(pattern: Element, actual: Element, captures: Captures, path: string): string | undefined {
  if (pattern.getName() === '_') return undefined
  const ns = patternNs(pattern)
  if (pattern.getName() !== actual.getName() || ns !== (actual.getNS() ?? '')) {
    return `${path}: <${actual.getName()} xmlns='${actual.getNS()}'> instead of <${pattern.getName()} xmlns='${ns}'>`
  }
  return compareAttributes(pattern, actual, captures, path) ?? compareContent(pattern, actual, captures, path)
}

function patternNs(pattern: Element): string {
  const ns = pattern.getNS() ?? ''
  const parent = pattern.parent
  if (parent === null || pattern.attrs['xmlns'] !== undefined || ns !== NS_CLIENT) return ns
  if (parent.is('error', NS_STREAM)) return NS_STREAM_ERRORS
  return parent.is('error', NS_CLIENT) ? NS_STANZA_ERRORS : ns
}

/** Attributes without declarations; those with a prefix as `{namespace}name`. */
function attributes(el: Element): Map<string, string> {
  const found = new Map<string, string>()
  for (const [name, value] of Object.entries(el.attrs)) {
    if (name === 'xmlns' || name.startsWith('xmlns:')) continue
    const [prefix, local] = name.split(':', 2)
    const prefixed = local !== undefined && prefix !== 'xml'
    found.set(prefixed ? `{${el.findNS(prefix)}}${local}` : name, value)
  }
  return found
}

function compareAttributes(pattern: Element, actual: Element, captures: Captures, path: string) {
  const wanted = attributes(pattern)
  const more = wanted.delete('etc')
  const present = attributes(actual)
  for (const [name, value] of wanted) {
    const difference = compareValue(value, present.get(name), captures)
    if (difference !== undefined) return `${path}/@${name}: ${difference}`
    present.delete(name)
  }
  if (isStanza(actual)) present.delete('xml:lang')
  if (actual.is('error', NS_CLIENT)) for (const name of ['by', 'code']) present.delete(name) // RFC 6120 §8.3.2; XEP-0086
  const [extra] = present
  return extra === undefined || more ? undefined : `${path}/@${extra[0]}: not expected, is '${extra[1]}'`
}

function compareValue(wanted: string, actual: string | undefined, captures: Captures): string | undefined {
  if (wanted === '!') return actual === undefined ? undefined : `'${actual}' instead of nothing`
  if (wanted.startsWith('?')) {
    return actual === undefined || wanted === '?'
      ? undefined
      : compareValue(wanted.slice(1), actual, captures)
  }
  if (actual === undefined) return `absent instead of '${wanted}'`
  if (wanted === '*') return actual === '' ? 'empty' : undefined
  if (/^\$[\w-]+$/.test(wanted)) {
    const name = wanted.slice(1)
    const known = captures.get(name)
    captures.set(name, known ?? actual)
    return known === undefined || known === actual
      ? undefined
      : `'${actual}' instead of '${known}' (${wanted})`
  }
  const same =
    wanted.length > 2 && wanted.startsWith('/') && wanted.endsWith('/')
      ? new RegExp(wanted.slice(1, -1), 'u').test(actual)
      : wanted.startsWith('(') && wanted.endsWith(')') && wanted.includes('|')
        ? wanted.slice(1, -1).split('|').includes(actual)
        : wanted === actual
  return same ? undefined : `'${actual}' instead of '${wanted}'`
}

function compareContent(
  pattern: Element,
  actual: Element,
  captures: Captures,
  path: string,
): string | undefined {
  const wantedText = pattern.getText().trim()
  const wanted = pattern.getChildElements()
  const open = wantedText === '...' || isError(pattern)
  const used = new Set<Element>()
  for (const child of wanted) {
    let difference = `${path}/${child.getName()}: missing`
    const found = actual.getChildElements().find((candidate) => {
      if (used.has(candidate)) return false
      const trial = new Map(captures)
      const reason = compare(child, candidate, trial, `${path}/${child.getName()}`)
      if (reason === undefined) for (const [name, value] of trial) captures.set(name, value)
      else if (candidate.getName() === child.getName()) difference = reason
      return reason === undefined
    })
    if (found === undefined) return difference
    used.add(found)
  }
  if (open) return undefined
  const extra = actual
    .getChildElements()
    .find((child) => !used.has(child) && !addedByServer(pattern, actual, child))
  if (extra !== undefined) return `${path}: not expected: ${extra.toString()}`
  const text = wanted.length === 0 ? actual.getText() : actual.getText().trim()
  if (wantedText === '') return text.trim() === '' ? undefined : `${path}: not expected: text '${text}'`
  const difference = compareValue(wantedText, text, captures)
  return difference === undefined ? undefined : `${path}: text ${difference}`
}

function isError(el: Element): boolean {
  return el.is('error') || (isStanza(el) && el.attrs['type'] === 'error')
}

function isStanza(el: Element): boolean {
  return el.getNS() === NS_CLIENT && ['message', 'presence', 'iq'].includes(el.getName())
}

function addedByServer(pattern: Element, parent: Element, child: Element): boolean {
  const ns = child.getNS() ?? ''
  const known = isStanza(parent) && (ADDED_BY_SERVERS.get(parent.getName())?.includes(ns) ?? false)
  return known && !pattern.getChildElements().some((wanted) => wanted.getNS() === ns)
}
