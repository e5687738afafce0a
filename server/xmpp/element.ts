/**
 * Immutable XML elements with namespaces (XML 1.0, Namespaces in XML 1.0), read as ltx users expect, and their serialiser.
 * An element that came from the wire in one piece keeps its inner text, so that relaying rebuilds the start tag only.
 * Its strings are slices that keep alive what they are cut from: 4 kB of input, or the whole element when it is larger. So whoever
 * stores an element for long stores `toString()`, and parses that when it is needed.
 * Comments, processing instructions and prefixes are not part of the model.
 */
import { escapeAttr, escapeText } from './escape.ts'
import { isNcName } from './names.ts'
import { NS } from './ns.ts'

export { escapeAttr, escapeText }

/** A child: an element, or character data. */
export type Node = Element | string

/** Attributes to read: a null-prototype object from name to value. */
export type Attrs = Readonly<Record<string, string>>

/** Attributes to set: an undefined value leaves the attribute out. */
export type AttrChanges = Readonly<Record<string, string | undefined>>

const NONE: readonly never[] = []
const XML_NAME = `{${NS.XML}}`

/** What few elements have: text to write again, and what is worked out later. */
class Notes {
  /** XML of the attributes, each with a space before it. */
  head: string | undefined
  /** XML of the children, for a place where the default namespace is that of the element. */
  inner: string | undefined
  /** Children of this namespace inherited it and follow the element into its new one when somebody asks for them. */
  inherited: string | undefined
  attrs: Attrs | undefined = undefined

  constructor(head: string | undefined, inner: string | undefined, inherited?: string) {
    this.head = head
    this.inner = inner
    this.inherited = inherited
  }
}

const NOTHING: Readonly<Notes> = new Notes(undefined, undefined)

/** An XML element. Never changes; the `with…` methods make new elements that share what did not change. */
export class Element {
  /** Local name. */
  readonly name: string
  /** Namespace name, '' when none. */
  readonly ns: string
  /** Attributes as name, value, name, value, …; named as in `attr()`. No namespace declarations. */
  readonly flat: readonly string[]
  #children: readonly Node[]
  #notes: Notes | undefined

  /** For the parser; others use `el()`. `head` and `inner`: text to write for the attributes, and for the children. */
  constructor(
    name: string,
    ns: string,
    flat: readonly string[],
    children: readonly Node[],
    head?: string,
    inner?: string,
  ) {
    this.name = name
    this.ns = ns
    this.flat = flat
    this.#children = children
    this.#notes = head === undefined && inner === undefined ? undefined : new Notes(head, inner)
  }

  /** Child elements and character data in document order. */
  get children(): readonly Node[] {
    const notes = this.#notes
    if (notes?.inherited !== undefined) {
      const from = notes.inherited
      this.#children = this.#children.map((child) =>
        typeof child !== 'string' && child.ns === from ? child.withNs(this.ns) : child,
      )
      notes.inherited = undefined
    }
    return this.#children
  }

  /** An attribute: 'id', 'xml:lang', or '{ns}local' when qualified by another namespace. */
  attr(name: string): string | undefined {
    const flat = this.flat
    for (let i = 0; i < flat.length; i += 2) if (flat[i] === name) return flat[i + 1]
    return undefined
  }

  /** All attributes; built at first use. */
  get attrs(): Attrs {
    const notes = (this.#notes ??= new Notes(undefined, undefined))
    if (notes.attrs !== undefined) return notes.attrs
    const attrs: Record<string, string> = Object.create(null)
    const flat = this.flat
    for (let i = 0; i + 1 < flat.length; i += 2) attrs[flat[i] ?? ''] = flat[i + 1] ?? ''
    notes.attrs = attrs
    return attrs
  }

  /** Whether this element has the name, and the namespace when one is given. */
  is(name: string, ns?: string): boolean {
    return this.name === name && (ns === undefined || this.ns === ns)
  }

  /** First child of that name; `ns` defaults to the namespace of this element. */
  getChild(name: string, ns: string = this.ns): Element | undefined {
    for (const child of this.children) {
      if (typeof child !== 'string' && child.name === name && child.ns === ns) return child
    }
    return undefined
  }

  /** All children of that name; `ns` defaults to the namespace of this element. */
  getChildren(name: string, ns: string = this.ns): Element[] {
    const found: Element[] = []
    for (const child of this.children) {
      if (typeof child !== 'string' && child.name === name && child.ns === ns) found.push(child)
    }
    return found
  }

  /** Text of the first child of that name, undefined when there is no such child. */
  getChildText(name: string, ns: string = this.ns): string | undefined {
    return this.getChild(name, ns)?.text()
  }

  /** Child elements, without the text between them. */
  get elements(): readonly Element[] {
    const children = this.children
    if (children.length === 0 || (children.length === 1 && typeof children[0] === 'string')) return NONE
    return children.filter((child) => typeof child !== 'string')
  }

  /** The first child element. */
  firstElement(): Element | undefined {
    for (const child of this.children) if (typeof child !== 'string') return child
    return undefined
  }

  /** Character data directly in this element, concatenated. */
  text(): string {
    const children = this.#children
    const only = children[0]
    if (children.length === 1 && typeof only === 'string') return only
    let text = ''
    for (const child of children) if (typeof child === 'string') text += child
    return text
  }

  /** Same name, namespace, attributes in any order, and content; adjacent texts count as one. */
  equals(other: Element): boolean {
    if (this === other) return true
    if (this.name !== other.name || this.ns !== other.ns || this.flat.length !== other.flat.length)
      return false
    for (let i = 0; i < this.flat.length; i += 2) {
      if (other.attr(this.flat[i] ?? '') !== this.flat[i + 1]) return false
    }
    const mine = merged(this.children)
    const theirs = merged(other.children)
    return mine.length === theirs.length && mine.every((node, i) => sameNode(node, theirs[i]))
  }

  /** With other attributes: an undefined value deletes. Children, and their text from the wire, stay. */
  withAttrs(changes: AttrChanges): Element {
    const flat = this.flat.slice()
    let head = this.#notes?.head
    for (const name of Object.keys(changes)) {
      const value = changes[name]
      const at = indexOf(flat, name)
      if (at >= 0) {
        head = undefined
        if (value === undefined) flat.splice(at, 2)
        else flat[at + 1] = value
      } else if (value !== undefined) {
        const known = attributeName(name)
        flat.push(known, value)
        if (head !== undefined) head = known.startsWith('{') ? undefined : head + attributeXml(known, value)
      }
    }
    const changed = new Element(this.name, this.ns, flat, this.#children)
    if (this.#notes !== undefined) changed.#notes = new Notes(head, this.#notes.inner, this.#notes.inherited)
    return changed
  }

  /** With other content. */
  withChildren(children: readonly Node[]): Element {
    return new Element(this.name, this.ns, this.flat, children, this.#notes?.head)
  }

  /** With nodes added at the end. */
  append(...nodes: Node[]): Element {
    const { head, inner } = this.#notes ?? NOTHING
    const added = inner === undefined ? undefined : inner + innerXml(nodes, this.ns, false)
    return new Element(this.name, this.ns, this.flat, [...this.children, ...nodes], head, added)
  }

  /** Without the child elements that match; this very element when none does. */
  without(test: (child: Element) => boolean): Element {
    const children = this.children
    const kept = children.filter((child) => typeof child === 'string' || !test(child))
    return kept.length === children.length ? this : this.withChildren(kept)
  }

  /**
   * In another namespace, together with the children, and theirs, that inherited the old one: RFC 6120 §4.8.3, jabber:client to
   * jabber:server and back. Elements below an extension element stay what they are.
   */
  withNs(ns: string): Element {
    if (ns === this.ns) return this
    // A child that already is in the new namespace names it in the inner text; a later change back could not tell it apart.
    const children = this.children
    const { head, inner } = this.#notes ?? NOTHING
    const kept = inner !== undefined && holds(children, this.ns, ns) ? undefined : inner
    const moved = new Element(this.name, ns, this.flat, children)
    moved.#notes = new Notes(head, kept, children.length > 0 ? this.ns : undefined)
    return moved
  }

  /**
   * XML text. `contextNs` is the default namespace where it will stand; the element's own declaration is left out when equal.
   * Without `contextNs` the text is a document of its own.
   *
   * An element of the stream namespace is written with the prefix `stream`, which the stream header declares (RFC 6120 §4.8.5).
   * `declareStream` adds the declaration, as WebSocket frames need it (RFC 7395 §3.3.3); it defaults to true without `contextNs`.
   */
  toString(contextNs?: string, declareStream: boolean = contextNs === undefined): string {
    if (this.ns === NS.STREAM) {
      const declaration = declareStream ? ` xmlns:stream='${NS.STREAM}'` : ''
      return this.#prefixed(contextNs ?? '', declaration)
    }
    // What has to be put together is kept: a copy with another address uses it again.
    const notes = (this.#notes ??= new Notes(undefined, undefined))
    notes.head ??= attributesXml(this.flat)
    notes.inner ??= innerXml(this.children, this.ns, false)
    return this.#unprefixed(contextNs ?? '', notes.head, notes.inner)
  }

  /** @internal For the serialiser: `streamPrefix` tells that an ancestor was written with the prefix `stream`. */
  xml(contextNs: string, streamPrefix: boolean): string {
    if (streamPrefix && this.ns === NS.STREAM) return this.#prefixed(contextNs, '')
    const { head, inner } = this.#notes ?? NOTHING
    return this.#unprefixed(
      contextNs,
      head ?? attributesXml(this.flat),
      inner ?? innerXml(this.children, this.ns, false),
    )
  }

  #prefixed(contextNs: string, declaration: string): string {
    const name = `stream:${this.name}`
    return tag(name, declaration + attributesXml(this.flat), innerXml(this.children, contextNs, true))
  }

  #unprefixed(contextNs: string, head: string, inner: string): string {
    return tag(this.name, this.ns === contextNs ? head : ` xmlns='${escapeAttr(this.ns)}'${head}`, inner)
  }

  /** Shown by `console.log` and by assertion messages. */
  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.toString()
  }
}

/** el('query', NS, { node: 'x' }, child, 'text'); undefined attributes and children are skipped. Throws on names XML forbids. */
export function el(
  name: string,
  ns: string,
  attrs?: AttrChanges,
  ...children: (Node | undefined)[]
): Element {
  if (!isName(name)) throw new TypeError(`not an element name: ${name}`)
  return new Element(name, ns, attrs === undefined ? NONE : flatten(attrs), present(children))
}

/**
 * The builder of @xmpp/xml: xml('message', { to, xmlns }, ...children). Children without xmlns inherit the namespace of their
 * parent; a top element without xmlns has none and takes that of the place where it is written. Name prefix: `stream:` only.
 */
export function xml(name: string, attrs?: AttrChanges | null, ...children: (Node | undefined)[]): Element {
  const { xmlns, ...rest } = attrs ?? {}
  const stream = name.startsWith('stream:')
  const local = stream ? name.slice('stream:'.length) : name
  if (!isName(local)) throw new TypeError(`not an element name: ${name}`)
  const ns = stream ? NS.STREAM : (xmlns ?? '')
  const nodes = present(children).map((child) =>
    typeof child !== 'string' && child.ns === '' ? child.withNs(stream ? (xmlns ?? '') : ns) : child,
  )
  return new Element(local, ns, flatten(rest), nodes)
}

function present(children: readonly (Node | undefined)[]): readonly Node[] {
  return children.length === 0 ? NONE : children.filter((child) => child !== undefined)
}

function flatten(attrs: AttrChanges): readonly string[] {
  const flat: string[] = []
  for (const name of Object.keys(attrs)) {
    const value = attrs[name]
    if (value !== undefined) flat.push(attributeName(name), value)
  }
  return flat
}

/** The name when it can be written; a namespace declaration cannot, `ns` says it all. */
function attributeName(name: string): string {
  if (KNOWN_NAMES.has(name) && name !== 'xmlns') return name
  if (name.startsWith(XML_NAME)) return attributeName(`xml:${name.slice(XML_NAME.length)}`)
  const end = name.startsWith('{') ? name.lastIndexOf('}') : -1
  const local = end > 1 ? name.slice(end + 1) : name.startsWith('xml:') ? name.slice(4) : name
  if (!isName(local) || name === 'xmlns') throw new TypeError(`not an attribute name: ${name}`)
  return name
}

/** Names that passed, so that the same few hundred names of the protocols are looked at once. */
const KNOWN_NAMES = new Set<string>()
const MAX_KNOWN_NAMES = 2000

function isName(name: string): boolean {
  if (KNOWN_NAMES.has(name)) return true
  if (!isNcName(name)) return false
  if (KNOWN_NAMES.size < MAX_KNOWN_NAMES && name.length < 64) KNOWN_NAMES.add(name)
  return true
}

function indexOf(flat: readonly string[], name: string): number {
  for (let i = 0; i < flat.length; i += 2) if (flat[i] === name) return i
  return -1
}

function tag(name: string, attributes: string, inner: string): string {
  return inner === '' ? `<${name}${attributes}/>` : `<${name}${attributes}>${inner}</${name}>`
}

function attributesXml(flat: readonly string[]): string {
  let text = ''
  for (let i = 0; i + 1 < flat.length; i += 2) {
    const name = flat[i] ?? ''
    const value = flat[i + 1] ?? ''
    if (name.charCodeAt(0) !== BRACE) text += attributeXml(name, value)
    else {
      const end = name.lastIndexOf('}')
      const prefix = `n${i / 2}`
      text +=
        attributeXml(`xmlns:${prefix}`, name.slice(1, end)) +
        attributeXml(`${prefix}:${name.slice(end + 1)}`, value)
    }
  }
  return text
}

const BRACE = '{'.charCodeAt(0)

function attributeXml(name: string, value: string): string {
  return ` ${name}='${escapeAttr(value)}'`
}

function innerXml(children: readonly Node[], contextNs: string, streamPrefix: boolean): string {
  let text = ''
  for (const child of children) {
    text += typeof child === 'string' ? escapeText(child) : child.xml(contextNs, streamPrefix)
  }
  return text
}

/** Whether an element of namespace `wanted` hangs on a chain of elements of namespace `from`. */
function holds(children: readonly Node[], from: string, wanted: string): boolean {
  return children.some(
    (child) =>
      typeof child !== 'string' &&
      (child.ns === wanted || (child.ns === from && holds(child.children, from, wanted))),
  )
}

function merged(children: readonly Node[]): Node[] {
  const nodes: Node[] = []
  for (const child of children) {
    const last = nodes.at(-1)
    if (typeof child === 'string' && typeof last === 'string') nodes[nodes.length - 1] = last + child
    else if (child !== '') nodes.push(child)
  }
  return nodes
}

function sameNode(a: Node, b: Node | undefined): boolean {
  return typeof a === 'string' || typeof b === 'string' || b === undefined ? a === b : a.equals(b)
}
