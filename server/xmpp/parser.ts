/**
 * Incremental parser of XML streams: RFC 6120 §4 (streams), §11 (XML usage), XML 1.0 fifth edition, Namespaces in XML 1.0.
 *
 * - Malformed XML is `not-well-formed`; comments, processing instructions, document types and entities other than the predefined
 *   five are `restricted-xml` (§11.1); other encodings and broken UTF-8 are `unsupported-encoding` (§11.6); going beyond the limits
 *   is `policy-violation`; text between first-level elements other than white space is `bad-format`.
 * - The work is linear in the bytes, however they are cut. What is kept is bounded by `maxBytes`; between elements it is nothing.
 * - A U+FEFF at the start is a character like any other (§11.6), thus text where no text may be.
 * - Elements of the content namespace that carry a prefix are accepted and lose it (§4.8.5: "correcting the error").
 *
 * It does not validate, and does not judge names and namespaces of the header or of first-level elements: the stream does.
 */
import { BYTE, isWhite, skipName, skipWhite } from './chars.ts'
import type { Element } from './element.ts'
import { notWellFormed, policyViolation, StreamError } from './errors.ts'
import { INCOMPLETE, Scanner } from './scanner.ts'
import { Tail } from './tail.ts'
import { type Context, NO_CONTEXT, type Tree } from './tree.ts'

/** Bounds on what a peer may send; going beyond is a policy violation. */
export interface ParserLimits {
  /** Bytes of one first-level element, or of the stream header. White space between elements is free. */
  readonly maxBytes: number
  /** Levels of nesting: 1 allows first-level elements without child elements. */
  readonly maxDepth: number
  /** Attributes of one element, namespace declarations included. */
  readonly maxAttrs: number
  /** Length of a name with its prefix, in bytes. */
  readonly maxName: number
}

/** Where a parser delivers. An exception thrown here comes out of `write` and ends the parser. */
export interface ParserHandler {
  /** The stream header, without children. */
  open(root: Element): void
  /** A complete first-level child. */
  element(el: Element): void
  /** The end tag of the stream. */
  close(): void
}

/**
 * start: nothing has come, an XML declaration may. restart: the same, after white space that belonged to the stream before.
 * prolog: before the stream header. stream: after it. closed: the end tag has come. stopped: by an error or on request.
 */
type State = 'start' | 'restart' | 'prolog' | 'stream' | 'closed' | 'stopped'

const NO_INPUT = Buffer.alloc(0)

/** Shows, with a byte of white space more, that it is not some other processing instruction. */
const DECLARATION = '<?xml '
const DECLARATION_START = /^<\?xml[ \t\r\n]/
/**
 * XML 1.0 §2.8, productions 23 to 32 and §4.3.3, production 81. Any 1.x counts as 1.0 (§2.8). RFC 6120 §11.5 has no use for
 * `standalone` and lets us ignore it. Groups: the encoding.
 */
const DECLARATION_PARTS =
  /^<\?xml[ \t\r\n]+version[ \t\r\n]*=[ \t\r\n]*(?:'1\.[0-9]+'|"1\.[0-9]+")(?:[ \t\r\n]+encoding[ \t\r\n]*=[ \t\r\n]*(?:'([A-Za-z][A-Za-z0-9._-]*)'|"([A-Za-z][A-Za-z0-9._-]*)"))?(?:[ \t\r\n]+standalone[ \t\r\n]*=[ \t\r\n]*(?:'(?:yes|no)'|"(?:yes|no)"))?[ \t\r\n]*\?>$/

/** Scanners are big and busy only inside `write`: the one not in use waits here for the next parser. */
let spare: Scanner | undefined

/** Splits a stream into its first-level elements. Throws `StreamError` and is unusable then, until `reset()`. */
export class Parser {
  limits: ParserLimits
  readonly #handler: ParserHandler
  /** In a document the root itself is what is delivered. */
  readonly #document: boolean
  #state: State = 'start'
  #context: Context = NO_CONTEXT
  #rootName = ''
  /** Kept between writes while an element is incomplete. */
  #scanner: Scanner | undefined = undefined
  /** Bytes of the incomplete element that have been read. */
  #used = 0
  #tail: Tail | undefined = undefined
  /** The rest of the input at hand is not to be read. */
  #discarding = false
  #writing = false

  /** `mode` "document": one document, whose root is delivered by `element()`. */
  constructor(handler: ParserHandler, limits: ParserLimits, mode: 'stream' | 'document' = 'stream') {
    this.#handler = handler
    this.limits = limits
    this.#document = mode === 'document'
  }

  /** Default namespace declared by the stream header, '' when none: the content namespace (RFC 6120 §4.8.2). */
  get contentNs(): string {
    return this.#context.defaultNs
  }

  /** Takes the next bytes. They are not needed afterwards: the caller may use the buffer again. */
  write(chunk: Uint8Array): void {
    if (this.#state === 'stopped' || chunk.length === 0) return
    if (this.#writing) throw new Error('write() inside a callback of the same parser')
    this.#writing = true
    this.#discarding = false
    try {
      const data = this.#tail === undefined ? toBuffer(chunk) : this.#complete(this.#tail, chunk)
      if (data !== undefined) this.#read(data)
    } catch (error) {
      this.stop()
      throw error
    } finally {
      this.#writing = false
    }
  }

  /**
   * Stream restart (RFC 6120 §4.3.3): what comes next is a new stream. Called inside a callback it concerns what follows in the same
   * input too, unless `stop()` was called before.
   */
  reset(): void {
    this.#forget()
    this.#state = 'restart'
  }

  /**
   * Discards what has not been delivered, also inside a callback; no callback follows. After `reset()` the parser can be used for
   * the next input: `stop()` and `reset()` together are what STARTTLS needs, where nothing sent in clear after <starttls/> may count
   * (RFC 6120 §5.4.3.3).
   */
  stop(): void {
    this.#forget()
    this.#discarding = true
    this.#state = 'stopped'
  }

  /** The peer sends no more. Throws `not-well-formed` when something is incomplete; a stream without its end tag is no error here. */
  end(): void {
    if (this.#state === 'stopped') return
    const incomplete = this.#tail !== undefined || this.#scanner !== undefined
    if (incomplete || (this.#document && this.#state !== 'closed')) {
      this.stop()
      throw notWellFormed('unexpected end')
    }
  }

  /** Reads a document, see `parseXml`. */
  static document(text: string | Uint8Array, limits: ParserLimits): Element {
    if (text.length > limits.maxBytes) throw policyViolation('document too big')
    const root = new Root()
    const parser = new Parser(root, limits, 'document')
    if (typeof text !== 'string') parser.#read(toBuffer(text))
    else {
      const data = Buffer.from(text)
      const isAscii = data.length === text.length
      if (!isAscii && !text.isWellFormed()) throw notWellFormed('lone surrogate')
      parser.#read(data, isAscii ? text : undefined)
    }
    parser.end()
    if (root.found === undefined) throw notWellFormed('no element')
    return root.found
  }

  #forget(): void {
    this.#context = NO_CONTEXT
    this.#rootName = ''
    this.#scanner = undefined
    this.#used = 0
    this.#tail = undefined
  }

  #complete(tail: Tail, chunk: Uint8Array): Buffer | undefined {
    const { maxBytes, maxName } = this.limits
    const data = tail.take(chunk, maxBytes - this.#used, maxName)
    if (data !== undefined) this.#tail = undefined
    return data
  }

  #read(data: Buffer, ascii?: string): void {
    let scanner = this.#scanner
    if (scanner === undefined) {
      scanner = spare ?? new Scanner()
      spare = undefined
    }
    scanner.feed(data, ascii)
    const at = this.#tokens(scanner, data)
    if (at < data.length && !this.#discarding) this.#keep(scanner, data.subarray(at))
    if (scanner.tree.depth > 0 && !this.#discarding) {
      scanner.feed(NO_INPUT)
      this.#scanner = scanner
    } else {
      scanner.clear()
      this.#scanner = undefined
      spare = scanner
    }
  }

  /** Keeps the beginning of a token. */
  #keep(scanner: Scanner, rest: Buffer): void {
    const { maxBytes, maxName } = this.limits
    if (this.#used + rest.length > maxBytes) throw policyViolation('element too big')
    const kind = scanner.inCdata ? 'cdata' : rest[0] === BYTE.LT ? 'tag' : 'text'
    this.#tail = new Tail(kind, rest, maxName)
  }

  /** Reads token after token; returns the offset of the first incomplete one. */
  #tokens(scanner: Scanner, data: Buffer): number {
    const end = data.length
    let at = 0
    if (scanner.tree.depth > 0) {
      scanner.stop = this.limits.maxBytes - this.#used
      at = this.#content(scanner, 0, 0, end)
      if (scanner.tree.depth > 0 || this.#discarding) return at
    }
    while (at < end) {
      const byte = data[at] ?? 0
      if (isWhite(byte)) {
        at++
        if (this.#state === 'start') this.#state = 'prolog'
        continue
      }
      if (byte !== BYTE.LT) throw this.#stray(byte)
      if (at + 1 === end) return at
      const start = at
      at = this.#markup(scanner, data, start, end)
      if (at === INCOMPLETE) return start
      if (scanner.tree.depth > 0 || this.#discarding) return at
    }
    return at
  }

  /** Reads what begins with "<" outside of first-level elements; a first-level element as far as it goes. */
  #markup(scanner: Scanner, data: Buffer, start: number, end: number): number {
    const byte = data[start + 1]
    if (byte === BYTE.QUESTION) return this.#declaration(data, start, end)
    if (byte === BYTE.BANG) return this.#forbidden(data, start, end)
    if (byte === BYTE.SLASH) return this.#endOfStream(data, start, end)
    if (byte === 0) throw this.#stray(0)
    if (this.#state === 'closed') throw notWellFormed('element after the end')
    scanner.limits = this.limits
    scanner.stop = start + this.limits.maxBytes
    scanner.tree.enter(this.#context)
    const at = scanner.startTag(start, end)
    if (at === INCOMPLETE) return at
    if (at > scanner.stop) throw policyViolation('element too big')
    if (this.#state !== 'stream' && !this.#document) {
      this.#header(scanner.tree)
      return at
    }
    return this.#content(scanner, start, at, end)
  }

  /** Reads on in a first-level element that began at `start` or before this input, and delivers it when it is complete. */
  #content(scanner: Scanner, start: number, from: number, end: number): number {
    const tree = scanner.tree
    const at = tree.depth > 0 ? scanner.content(from, end) : from
    if (tree.depth > 0) {
      this.#used += at - start
      return at
    }
    this.#used = 0
    const element = tree.finished
    tree.finished = undefined
    if (this.#document) this.#state = 'closed'
    if (element !== undefined) this.#handler.element(element)
    return at
  }

  #header(tree: Tree): void {
    const empty = tree.finished
    const root = empty ?? tree.header
    this.#context = tree.context
    this.#rootName = tree.name.qname
    tree.clear()
    this.#state = 'stream'
    this.#handler.open(root)
    if (empty === undefined || this.#discarding || this.#state !== 'stream') return
    this.#state = 'closed'
    this.#handler.close()
  }

  /** Reads an XML declaration, which only the very start can have. */
  #declaration(data: Buffer, start: number, end: number): number {
    const begin = data.toString('latin1', start, start + DECLARATION.length)
    if (end - start < DECLARATION.length && DECLARATION.startsWith(begin)) return INCOMPLETE
    if (!DECLARATION_START.test(begin)) throw new StreamError('restricted-xml', 'processing instruction')
    if (this.#state !== 'start' && this.#state !== 'restart')
      throw notWellFormed('XML declaration not at the start')
    const close = data.indexOf(BYTE.GT, start) + 1
    if (close === 0) return INCOMPLETE
    if (close - start > this.limits.maxBytes) throw policyViolation('XML declaration too big')
    const parts = DECLARATION_PARTS.exec(data.toString('latin1', start, close))
    if (parts === null) throw notWellFormed('XML declaration')
    const encoding = parts[1] ?? parts[2] ?? 'UTF-8'
    if (encoding.toUpperCase() !== 'UTF-8')
      throw new StreamError('unsupported-encoding', `encoding ${encoding}`)
    this.#state = 'prolog'
    return close
  }

  /** Finds the error for "<!" outside of first-level elements. */
  #forbidden(data: Buffer, start: number, end: number): number {
    if (start + 2 === end) return INCOMPLETE
    if (data[start + 2] === BYTE.OPEN) throw this.#stray(BYTE.OPEN)
    throw new StreamError('restricted-xml', 'comment or document type')
  }

  /** The error for a byte of text where only white space may be. */
  #stray(byte: number): StreamError {
    // RFC 6120 §11.6, XML 1.0 appendix F: UTF-16, UTF-32, with and without byte order mark; and what no UTF-8 begins with.
    const noUtf8 = byte >= 0x80 && (byte < 0xc2 || byte > 0xf4)
    if (noUtf8 || (byte === 0 && this.#state === 'start'))
      return new StreamError('unsupported-encoding', 'not UTF-8')
    if (this.#state !== 'stream' || byte < BYTE.SPACE)
      return notWellFormed('text outside of the root element')
    // RFC 6120 §11.7 allows white space only; such text is well-formed XML "that cannot be processed" (§4.9.3.1).
    return new StreamError('bad-format', 'text between first-level elements')
  }

  #endOfStream(data: Buffer, start: number, end: number): number {
    if (this.#state !== 'stream') throw notOpen()
    const nameEnd = skipName(data, start + 2, end)
    const close = skipWhite(data, nameEnd, end)
    if (close - start >= this.limits.maxBytes) throw policyViolation('end tag too big')
    if (close === end && nameEnd - start - 2 <= Buffer.byteLength(this.#rootName)) return INCOMPLETE
    if (data[close] !== BYTE.GT || data.toString('utf8', start + 2, nameEnd) !== this.#rootName)
      throw notOpen()
    this.#state = 'closed'
    this.#handler.close()
    return close + 1
  }
}

function notOpen(): StreamError {
  return notWellFormed('end tag of an element that is not open')
}

function toBuffer(chunk: Uint8Array): Buffer {
  return Buffer.isBuffer(chunk) ? chunk : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)
}

/** For text that the server has written itself: what was accepted once must be readable, and escaping makes it longer than it came. */
export const UNLIMITED: ParserLimits = {
  maxBytes: Infinity,
  maxDepth: Infinity,
  maxAttrs: Infinity,
  maxName: Infinity,
}

/** Takes the root of a document. */
class Root implements ParserHandler {
  found: Element | undefined = undefined

  open(): void {}

  element(el: Element): void {
    this.found = el
  }

  close(): void {}
}

/**
 * One complete document: a WebSocket frame (RFC 7395 §3.3.3, which wants its first character to be "<"; here white space may come
 * before), a stored stanza, a test string. Text of strangers needs `limits`. Throws `StreamError` as `Parser` does.
 */
export function parseXml(text: string | Uint8Array, limits: ParserLimits = UNLIMITED): Element {
  return Parser.document(text, limits)
}
