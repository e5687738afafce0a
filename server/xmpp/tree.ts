/**
 * Open elements of the XML parser: nesting, namespaces (Namespaces in XML 1.0), attributes, and the `Element`s that come of them.
 * Knows names and values, not bytes.
 */
import { Element, type Node } from './element.ts'
import { notWellFormed, policyViolation } from './errors.ts'
import { Name } from './name-cache.ts'
import { NS } from './ns.ts'

/** A prefix declared by an element that is still open. */
interface Binding {
  readonly prefix: string
  readonly ns: string
  /** Number of elements around the declaring one: 0 for the stream header and for first-level elements. */
  readonly depth: number
  /** Number of declarations in force, this one included. */
  readonly count: number
  readonly outer: Binding | undefined
}

/** What first-level elements inherit from the stream header. */
export interface Context {
  readonly defaultNs: string
  readonly bindings: Binding | undefined
}

/** The context of a document of its own. */
export const NO_CONTEXT: Context = { defaultNs: '', bindings: undefined }

/** Namespaces in XML 1.0 §3: bound without declaration. Its depth says that it is at hand everywhere. */
const XML_BINDING: Binding = {
  prefix: 'xml',
  ns: NS.XML,
  depth: Number.POSITIVE_INFINITY,
  count: 0,
  outer: undefined,
}

const NONE: readonly never[] = []
const NO_NAME = new Name('none', new Uint8Array())
/** Elements with more attributes than that look for duplicates with a set. */
const FEW = 16
/** Prefixes declared around any place. Each use looks through them, so their number is a matter of policy. */
const MAX_PREFIXES = 100
/** Nodes kept in the scratch array between elements; beyond that it is given back. */
const SPARE_NODES = 1000

/** An open element. Frames are used again and again: each depth has one. */
class Frame {
  readonly parent: Frame | undefined
  inner: Frame | undefined = undefined
  name: Name = NO_NAME
  ns = ''
  /** Default namespace of the children. */
  defaultNs = ''
  flat: readonly string[] = NONE
  /** Where its children start among the nodes. */
  firstNode = 0
  /** Prefixes known outside. */
  outer: Binding | undefined = undefined

  constructor(parent: Frame | undefined) {
    this.parent = parent
  }
}

/** The open elements of one first-level element. */
export class Tree {
  /** Number of open elements. */
  depth = 0
  /** The first-level element, once `depth` is back at 0. */
  finished: Element | undefined = undefined
  /**
   * Whether the inner text of the first-level element means the same in another place and namespace: it uses no prefix from outside,
   * and what it inherits it inherits from the first-level element along elements of the same namespace.
   */
  movable = false

  readonly #base = new Frame(undefined)
  #top: Frame = this.#base
  #bindings: Binding | undefined = undefined
  /** Finished children of open elements, those of the outermost first. */
  #nodes: Node[] = []
  #count = 0
  readonly #flat: string[] = []

  /** Name of the innermost open element. */
  get name(): Name {
    return this.#top.name
  }

  /** Sets what the next first-level element inherits. */
  enter(context: Context): void {
    this.#base.defaultNs = context.defaultNs
    this.#bindings = context.bindings
  }

  /** Forgets all that is open. */
  clear(): void {
    this.depth = 0
    this.finished = undefined
    this.#top = this.#base
    this.#count = 0
    if (this.#nodes.length > SPARE_NODES) this.#nodes = []
  }

  /** The innermost open element, without children. */
  get header(): Element {
    const { name, ns, flat } = this.#top
    return new Element(name.local, ns, flat, NONE)
  }

  /** What children of the innermost open element inherit. */
  get context(): Context {
    return { defaultNs: this.#top.defaultNs, bindings: this.#bindings }
  }

  /** Takes a start tag with the first `count` of these attributes. `declares`: a namespace declaration is among them. */
  open(
    name: Name,
    names: readonly Name[],
    values: readonly string[],
    count: number,
    declares: boolean,
    empty: boolean,
  ): void {
    const parent = this.#top
    const outer = this.#bindings
    if (count > 1) checkUnique(names, count)
    const defaultNs = declares ? this.#declare(names, values, count, parent.defaultNs) : parent.defaultNs
    let ns = defaultNs
    if (this.depth === 0) this.movable = name.prefix === ''
    if (name.prefix !== '') {
      const binding = this.#resolve(name.prefix)
      ns = binding.ns
      // RFC 6120 §4.8.5: no prefixes for the content namespace; relaying has to correct that.
      if (binding.depth === 0 || isContent(ns) || ns === this.#base.inner?.ns) this.movable = false
    } else if (this.depth > 0 && ns === parent.defaultNs) {
      // Inherited: from an element of the same namespace, and not by saying again what the first-level element said.
      if (ns !== parent.ns || (declares && ns === this.#base.inner?.ns)) this.movable = false
    }
    const flat = count === 0 ? NONE : this.#attributes(names, values, count)
    if (empty) {
      this.#bindings = outer
      this.#add(new Element(name.local, ns, flat, NONE))
      return
    }
    const frame = (parent.inner ??= new Frame(parent))
    frame.name = name
    frame.ns = ns
    frame.defaultNs = defaultNs
    frame.flat = flat
    frame.firstNode = this.#count
    frame.outer = outer
    this.#top = frame
    this.depth++
  }

  /** Takes an end tag. `head` and `inner`: text of the attributes and of the content, when it can be used elsewhere. */
  close(head: string | undefined, inner: string | undefined): void {
    const frame = this.#top
    const first = frame.firstNode
    const length = this.#count - first
    const only = this.#nodes[first]
    const children =
      length === 0 || only === undefined
        ? NONE
        : length === 1
          ? [only]
          : this.#nodes.slice(first, this.#count)
    const element = new Element(frame.name.local, frame.ns, frame.flat, children, head, inner)
    this.#count = first
    this.#bindings = frame.outer
    this.#top = frame.parent ?? this.#base
    this.depth--
    this.#add(element)
  }

  #add(element: Element): void {
    if (this.depth === 0) this.finished = element
    else this.#nodes[this.#count++] = element
  }

  /** Takes character data, whole or the next piece. */
  text(text: string): void {
    if (text === '') return
    const last = this.#count - 1
    const before = last >= this.#top.firstNode ? this.#nodes[last] : undefined
    if (typeof before === 'string') this.#nodes[last] = before + text
    else this.#nodes[this.#count++] = text
  }

  #declare(names: readonly Name[], values: readonly string[], count: number, inherited: string): string {
    let defaultNs = inherited
    for (let i = 0; i < count; i++) {
      const name = names[i] ?? NO_NAME
      const ns = values[i] ?? ''
      if (name.role !== 'default' && name.role !== 'declaration') continue
      // Namespaces in XML 1.0 §3: these two names belong to the prefixes xml and xmlns and are nobody else's.
      if (ns === NS.XMLNS) throw notWellFormed('reserved namespace declared')
      if (name.role === 'default') {
        if (ns === NS.XML) throw notWellFormed('reserved namespace declared')
        defaultNs = ns
      } else {
        const prefix = name.local
        if (prefix === 'xmlns' || (prefix === 'xml') !== (ns === NS.XML))
          throw notWellFormed('reserved prefix declared')
        if (ns === '') throw notWellFormed('prefix declared without a namespace') // §2.2, no prefix undeclaring in 1.0
        const outer = this.#bindings
        const declared = (outer?.count ?? 0) + 1
        if (declared > MAX_PREFIXES) throw policyViolation(`more than ${MAX_PREFIXES} prefixes`)
        this.#bindings = { prefix, ns, depth: this.depth, count: declared, outer }
      }
    }
    return defaultNs
  }

  #resolve(prefix: string): Binding {
    for (let binding = this.#bindings; binding !== undefined; binding = binding.outer) {
      if (binding.prefix === prefix) return binding
    }
    if (prefix === 'xml') return XML_BINDING
    throw notWellFormed('undeclared prefix')
  }

  #attributes(names: readonly Name[], values: readonly string[], count: number): readonly string[] {
    const flat = this.#flat
    let length = 0
    for (let i = 0; i < count; i++) {
      const name = names[i] ?? NO_NAME
      if (name.role === 'plain') flat[length] = name.qname
      else if (name.role === 'prefixed') flat[length] = this.#qualified(name, length)
      else continue
      flat[length + 1] = values[i] ?? ''
      length += 2
    }
    return length === 0 ? NONE : flat.slice(0, length)
  }

  #qualified(name: Name, length: number): string {
    const binding = this.#resolve(name.prefix)
    if (binding.depth === 0 && this.depth > 0) this.movable = false
    const qualified = `{${binding.ns}}${name.local}`
    // Namespaces in XML 1.0 §6.3: no two attributes with the same expanded name.
    for (let i = 0; i < length; i += 2)
      if (this.#flat[i] === qualified) throw notWellFormed('attribute twice')
    return qualified
  }
}

function isContent(ns: string): boolean {
  return ns === NS.CLIENT || ns === NS.SERVER || ns === NS.COMPONENT
}

/** XML 1.0 §3.1: no attribute twice. */
function checkUnique(names: readonly Name[], count: number): void {
  if (count > FEW) {
    const seen = new Set<string | undefined>()
    for (let i = 0; i < count; i++) seen.add(names[i]?.qname)
    if (seen.size < count) throw notWellFormed('attribute twice')
    return
  }
  for (let i = 1; i < count; i++) {
    const qname = names[i]?.qname
    for (let j = 0; j < i; j++) if (names[j]?.qname === qname) throw notWellFormed('attribute twice')
  }
}
