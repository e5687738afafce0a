/**
 * Incremental parser of XML streams (RFC 6120 §4, §11; XML 1.0 fifth edition; Namespaces in XML 1.0).
 * Comments, processing instructions, DTDs and entities other than the predefined five are refused (§11.1).
 */
import { Element } from './element.ts'
import { StreamError } from './errors.ts'
import { isNcName } from './names.ts'
import { NS } from './ns.ts'

/** Bounds on what a peer may send; going beyond is a policy violation. */
export interface ParserLimits {
  /** Bytes of one first-level element, or of the stream header. */
  readonly maxBytes: number
  /** Nesting below the root. */
  readonly maxDepth: number
  /** Attributes of one element, namespace declarations included. */
  readonly maxAttrs: number
  /** Characters of one name, prefix included. */
  readonly maxName: number
}

/** Where a parser delivers. */
export interface ParserHandler {
  /** The stream header, without children. */
  open(root: Element): void
  /** A complete first-level child. */
  element(el: Element): void
  /** The end tag of the stream. */
  close(): void
}

interface Frame {
  readonly qname: string
  readonly name: string
  readonly ns: string
  readonly flat: readonly string[]
  readonly children: (Element | string)[]
  readonly scope: ReadonlyMap<string, string>
}

const ROOT_SCOPE: ReadonlyMap<string, string> = new Map([
  ['', ''],
  ['xml', NS.XML],
])

/** Splits one stream into its first-level elements. Throws `StreamError`; unusable afterwards. */
export class Parser {
  limits: ParserLimits
  readonly #handler: ParserHandler
  #decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
  #text = ''
  #stack: Frame[] = []
  #started = false
  #ended = false
  #stopped = false
  #size = 0

  constructor(handler: ParserHandler, limits: ParserLimits) {
    this.#handler = handler
    this.limits = limits
  }

  /** Takes the next bytes of the stream. */
  write(chunk: Uint8Array): void {
    if (this.#stopped) return
    try {
      this.#text += this.#decoder.decode(chunk, { stream: true })
    } catch {
      throw new StreamError('unsupported-encoding', 'invalid UTF-8')
    }
    this.#run()
  }

  /** Takes text instead of bytes. */
  writeText(text: string): void {
    this.#text += text
    this.#run()
  }

  /** Stream restart (RFC 6120 §4.3.3): the next bytes, also those that are already here, are a new stream. */
  reset(): void {
    this.#stack = []
    this.#started = false
    this.#ended = false
    this.#size = 0
  }

  /** Discards what has not been delivered; nothing happens any more. */
  stop(): void {
    this.#stopped = true
    this.#text = ''
  }

  /** The peer sends no more: throws when it stopped in the middle of something. */
  end(): void {
    if (this.#stopped) return
    if (this.#stack.length > 1 || this.#text.trim() !== '')
      throw new StreamError('not-well-formed', 'unexpected end')
  }

  #run(): void {
    while (!this.#stopped && this.#text !== '') {
      const before = this.#text.length
      if (!this.#token()) break
      if (this.#stack.length > 1) this.#size += before - this.#text.length
    }
    if (this.#size + this.#text.length > this.limits.maxBytes)
      throw new StreamError('policy-violation', 'too big')
  }

  #token(): boolean {
    const text = this.#text
    if (text[0] !== '<') return this.#characters()
    if (text.startsWith('<?')) {
      const end = text.indexOf('?>')
      if (text.length >= 6 && (this.#started || !/^<\?xml\s/.test(text)))
        throw new StreamError('restricted-xml')
      if (end < 0) return false
      this.#declaration(text.slice(0, end + 2))
      this.#text = text.slice(end + 2)
      return true
    }
    if (text.startsWith('<!')) {
      const start = '<![CDATA['
      if (!start.startsWith(text.slice(0, start.length)) || this.#stack.length < 2)
        throw new StreamError('restricted-xml')
      const end = text.indexOf(']]>')
      if (end < 0) return false
      this.#addText(text.slice(start.length, end).replace(/\r\n?/g, '\n'))
      this.#text = text.slice(end + 3)
      return true
    }
    const tag = /^<(?:[^<>'"]|'[^<']*'|"[^<"]*")*>/.exec(text)?.[0]
    if (tag === undefined) {
      if (/^<[^'"]*</.test(text)) throw new StreamError('not-well-formed')
      return false
    }
    this.#text = text.slice(tag.length)
    if (tag.startsWith('</')) this.#closeTag(tag)
    else this.#openTag(tag)
    return true
  }

  #declaration(text: string): void {
    const match =
      /^<\?xml\s+version\s*=\s*(?:'1\.\d+'|"1\.\d+")(?:\s+encoding\s*=\s*['"]([A-Za-z][\w.-]*)['"])?(?:\s+standalone\s*=\s*['"](?:yes|no)['"])?\s*\?>$/.exec(
        text,
      )
    if (match === null) throw new StreamError('not-well-formed', 'XML declaration')
    if (match[1] !== undefined && match[1].toLowerCase() !== 'utf-8')
      throw new StreamError('unsupported-encoding')
    this.#started = true
  }

  #characters(): boolean {
    const end = this.#text.indexOf('<')
    if (this.#stack.length < 2) {
      const text = end < 0 ? this.#text : this.#text.slice(0, end)
      if (/[^ \t\r\n]/.test(text))
        throw new StreamError(this.#stack.length === 1 ? 'bad-format' : 'not-well-formed')
      this.#text = end < 0 ? '' : this.#text.slice(end)
      return true
    }
    if (end < 0) return false
    const text = this.#text.slice(0, end)
    if (text.includes(']]>')) throw new StreamError('not-well-formed')
    this.#addText(decode(text.replace(/\r\n?/g, '\n')))
    this.#text = this.#text.slice(end)
    return true
  }

  #addText(text: string): void {
    checkCharacters(text)
    const children = this.#stack.at(-1)?.children
    if (children === undefined || text === '') return
    const last = children.at(-1)
    if (typeof last === 'string') children[children.length - 1] = last + text
    else children.push(text)
  }

  #openTag(tag: string): void {
    if (this.#ended) throw new StreamError('not-well-formed')
    this.#started = true
    const selfClosing = tag.endsWith('/>')
    const body = tag.slice(1, selfClosing ? -2 : -1)
    const qname = /^[^\s/=]+/.exec(body)?.[0] ?? ''
    const parent = this.#stack.at(-1)
    const scope = new Map(parent?.scope ?? ROOT_SCOPE)
    const pairs: [string, string][] = []
    let rest = body.slice(qname.length)
    while (!/^\s*$/.test(rest)) {
      const match = /^\s+([^\s=]+)\s*=\s*(?:'([^<']*)'|"([^<"]*)")/.exec(rest)
      if (match === null) throw new StreamError('not-well-formed', 'attribute')
      const value = decode((match[2] ?? match[3] ?? '').replace(/\r\n|[\r\n\t]/g, ' '))
      checkCharacters(value)
      pairs.push([match[1] ?? '', value])
      rest = rest.slice(match[0].length)
    }
    if (
      pairs.length > this.limits.maxAttrs ||
      this.#stack.length > this.limits.maxDepth ||
      qname.length > this.limits.maxName
    )
      throw new StreamError('policy-violation')
    const seen = new Set<string>()
    for (const [name, value] of pairs) {
      if (seen.has(name)) throw new StreamError('not-well-formed', 'attribute twice')
      seen.add(name)
      if (name === 'xmlns') {
        if (value === NS.XML || value === NS.XMLNS) throw new StreamError('not-well-formed')
        scope.set('', value)
      } else if (name.startsWith('xmlns:')) {
        const prefix = name.slice(6)
        const bad =
          value === '' ||
          prefix === 'xmlns' ||
          value === NS.XMLNS ||
          (prefix === 'xml') !== (value === NS.XML)
        if (bad || !isNcName(prefix)) throw new StreamError('not-well-formed')
        scope.set(prefix, value)
      }
    }
    const flat: string[] = []
    for (const [name, value] of pairs) {
      if (name === 'xmlns' || name.startsWith('xmlns:')) continue
      const [ns, local] = name.includes(':') ? resolve(name, scope) : ['', name]
      if (!isNcName(local)) throw new StreamError('not-well-formed', 'attribute name')
      const key = ns === '' ? local : ns === NS.XML ? `xml:${local}` : `{${ns}}${local}`
      for (let i = 0; i < flat.length; i += 2)
        if (flat[i] === key) throw new StreamError('not-well-formed', 'attribute twice')
      flat.push(key, value)
    }
    const [ns, name] = resolve(qname, scope)
    const frame: Frame = { qname, name, ns, flat, children: [], scope }
    this.#stack.push(frame)
    if (this.#stack.length === 1) this.#handler.open(new Element(name, ns, flat, []))
    if (selfClosing && !this.#stopped && this.#stack.length > 0) this.#pop()
  }

  #closeTag(tag: string): void {
    const top = this.#stack.at(-1)
    if (top === undefined || tag.slice(2, -1).trimEnd() !== top.qname)
      throw new StreamError('not-well-formed', 'end tag')
    this.#pop()
  }

  #pop(): void {
    const frame = this.#stack.pop()
    const parent = this.#stack.at(-1)
    if (frame === undefined) return
    if (parent === undefined) {
      this.#ended = true
      this.#handler.close()
      return
    }
    const element = new Element(frame.name, frame.ns, frame.flat, frame.children)
    if (this.#stack.length > 1) parent.children.push(element)
    else {
      this.#size = 0
      this.#handler.element(element)
    }
  }
}

function resolve(qname: string, scope: ReadonlyMap<string, string>): [ns: string, local: string] {
  const colon = qname.indexOf(':')
  const prefix = colon < 0 ? '' : qname.slice(0, colon)
  const local = qname.slice(colon + 1)
  const ns = scope.get(prefix)
  if (ns === undefined || !isNcName(local) || colon === 0)
    throw new StreamError('not-well-formed', 'name or prefix')
  return [ns, local]
}

function checkCharacters(text: string): void {
  if (/[\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]/.test(text))
    throw new StreamError('not-well-formed', 'forbidden character')
}

const ENTITIES = new Map([
  ['lt', '<'],
  ['gt', '>'],
  ['amp', '&'],
  ['quot', '"'],
  ['apos', "'"],
])

function decode(text: string): string {
  return text.replace(/&([^;&\s]*);?/g, (whole, name: string) => {
    const entity = ENTITIES.get(name)
    if (!whole.endsWith(';')) throw new StreamError('not-well-formed', 'ampersand')
    if (entity !== undefined) return entity
    const digits = /^#(?:x([0-9a-fA-F]+)|([0-9]+))$/.exec(name)
    if (digits === null)
      throw new StreamError(isNcName(name) ? 'restricted-xml' : 'not-well-formed', 'entity')
    const code =
      digits[1] !== undefined ? Number.parseInt(digits[1], 16) : Number.parseInt(digits[2] ?? '', 10)
    const legal =
      code === 9 ||
      code === 10 ||
      code === 13 ||
      (code >= 32 && code < 0xd800) ||
      (code > 0xdfff && code < 0xfffe) ||
      (code > 0xffff && code <= 0x10ffff)
    if (!legal) throw new StreamError('not-well-formed', 'character reference')
    return String.fromCodePoint(code)
  })
}

const DOCUMENT_LIMITS: ParserLimits = { maxBytes: 1_000_000, maxDepth: 200, maxAttrs: 200, maxName: 1000 }

/** One complete document: a WebSocket frame (RFC 7395 §3.3.3), a test string. */
export function parseXml(text: string, limits: ParserLimits = DOCUMENT_LIMITS): Element {
  const found: Element[] = []
  const parser = new Parser({ open() {}, element: (element) => found.push(element), close() {} }, limits)
  parser.writeText(`<document>${text}</document>`)
  parser.end()
  const root = found[0]
  if (root === undefined || found.length > 1) throw new StreamError('not-well-formed', 'not one document')
  return root
}
