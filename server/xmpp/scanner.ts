/**
 * Reads tags and text from bytes and hands them to a `Tree` (XML 1.0 fifth edition §2-4, with the restrictions of RFC 6120 §11.1).
 *
 * A method that reads a token returns the offset behind it, or INCOMPLETE when the input ends before the token does; nothing has
 * changed then, and the caller tries again with more input.
 */
import { isUtf8 } from 'node:buffer'
import * as chars from './chars.ts'
import { notWellFormed, policyViolation, StreamError } from './errors.ts'
import { type Name, nameAt, namespaceAt, recentName } from './name-cache.ts'
import type { ParserLimits } from './parser.ts'
import { Tree } from './tree.ts'
import { incompleteTail, validPrefix } from './utf8.ts'

const { BYTE, CLASS, skipName, skipPlain, skipWhite, TEXT, VALUE } = chars

/** The token does not end in this input. */
export const INCOMPLETE = -1

/** Text this long is taken even though its end is not in sight, so that what waits for more input stays small. */
export const TEXT_PIECE = 1024

/** Most bytes that a string of an element keeps alive besides its own. */
const WINDOW = 4096

const NO_BYTES = Buffer.alloc(0)
const NO_LIMITS: ParserLimits = { maxBytes: 0, maxDepth: 0, maxAttrs: 0, maxName: 0 }
const CDATA = Buffer.from('<![CDATA[')

/** Reads one first-level element after another; between two writes a parser keeps it only while an element is incomplete. */
export class Scanner {
  readonly tree = new Tree()
  limits: ParserLimits = NO_LIMITS
  /** Offset in the input that the first-level element must not go beyond. */
  stop = 0
  /** Whether the input goes on inside a CDATA section. */
  inCdata = false

  #data: Buffer = NO_BYTES
  /**
   * A part of the input with one character per byte: right for ASCII, and offsets are those of the bytes plus a constant. The strings
   * of elements are slices of it and keep it alive, so it is short.
   */
  #window = ''
  #windowStart = 0
  #windowEnd = 0
  /** Up to where the input is known to be valid UTF-8; -1 when nobody has looked. */
  #validTo = -1
  /** The attributes of the first-level element as they came, when they can be written so. */
  #head: string | undefined = undefined
  /** Offset of the first byte of content of the first-level element, -1 when that was in an earlier input. */
  #innerStart = -1
  /** Whether there are characters beyond ASCII in that content. */
  #innerHigh = false
  // The attributes of the start tag at hand.
  #count = 0
  /** A namespace declaration is among them. */
  #declares = false
  /** They can be written as they came. */
  #verbatim = true
  readonly #names: Name[] = []
  readonly #values: string[] = []

  /** Takes the next input; `ascii`: the same as text, when the caller has it and it is ASCII. */
  feed(data: Buffer, ascii = ''): void {
    this.#data = data
    this.#window = ascii
    this.#windowStart = 0
    this.#windowEnd = ascii.length
    this.#validTo = -1
    this.#innerStart = -1
  }

  /** Forgets the input and what is open. */
  clear(): void {
    this.feed(NO_BYTES)
    this.#head = undefined
    this.inCdata = false
    this.tree.clear()
  }

  /** Reads on inside the first-level element, to its end or as far as tokens are complete; returns the offset reached. */
  content(start: number, end: number): number {
    const data = this.#data
    const tree = this.tree
    let at = start
    while (at < end) {
      let next = INCOMPLETE
      if (this.inCdata) next = this.#cdataText(at, end)
      else if (data[at] !== BYTE.LT) next = this.#characters(at, end)
      else if (at + 1 < end) {
        const byte = data[at + 1]
        if (byte === BYTE.SLASH) next = this.#endTag(at, end)
        else if (byte === BYTE.BANG) next = this.#cdataStart(at, end)
        else if (byte === BYTE.QUESTION) throw new StreamError('restricted-xml', 'processing instruction')
        else next = this.startTag(at, end)
      }
      if (next === INCOMPLETE) break
      at = next
      if (at > this.stop) throw policyViolation('element too big')
      if (tree.depth === 0) break
    }
    return at
  }

  /** Reads a start tag or an empty-element tag, after which the element is closed already. */
  startTag(start: number, end: number): number {
    const data = this.#data
    const name = this.#name(start + 1, end)
    if (name === undefined) return INCOMPLETE
    const nameEnd = start + 1 + name.bytes.length
    if (this.tree.depth === 0 && this.#windowEnd - start < WINDOW / 4) this.#look(start)
    this.#count = 0
    this.#declares = false
    this.#verbatim = true
    let at = nameEnd
    for (;;) {
      const byte = data[at]
      if (byte === BYTE.GT || byte === BYTE.SLASH) break
      const next = skipWhite(data, at, end)
      if (next === end) return INCOMPLETE
      if (data[next] === BYTE.GT || data[next] === BYTE.SLASH) {
        at = next
        break
      }
      if (next === at) throw notWellFormed('no white space before an attribute')
      at = this.#attribute(next, end)
      if (at === INCOMPLETE) return INCOMPLETE
    }
    const headEnd = at
    const empty = data[at] === BYTE.SLASH
    if (empty) {
      if (++at === end) return INCOMPLETE
      if (data[at] !== BYTE.GT) throw notWellFormed('"/" inside a tag')
    }
    at++
    const tree = this.tree
    if (tree.depth === 0) {
      this.#head = this.#verbatim ? this.#ascii(nameEnd, headEnd) : undefined
      this.#innerStart = at
      this.#innerHigh = false
    } else if (tree.depth >= this.limits.maxDepth) {
      throw policyViolation(`nested deeper than ${this.limits.maxDepth}`)
    }
    tree.open(name, this.#names, this.#values, this.#count, this.#declares, empty)
    return at
  }

  /** Reads an attribute; returns the offset behind it, where there is at least one byte more. */
  #attribute(start: number, end: number): number {
    const data = this.#data
    const name = this.#name(start, end)
    if (name === undefined) return INCOMPLETE
    const nameEnd = start + name.bytes.length
    const valueStart = this.#valueStart(nameEnd, end)
    if (valueStart === INCOMPLETE) return INCOMPLETE
    const quote = data[valueStart - 1]
    let valueEnd = skipPlain(VALUE, data, valueStart, end)
    let worst: number = CLASS.PLAIN
    while (valueEnd < end && data[valueEnd] !== quote) {
      const found = VALUE[data[valueEnd] ?? 0] ?? 0
      if (found === CLASS.BAD) throw notWellFormed('"<" or a control character in an attribute value')
      if (found !== CLASS.END && found > worst) worst = found
      valueEnd = skipPlain(VALUE, data, valueEnd + 1, end)
    }
    if (valueEnd + 1 >= end) return INCOMPLETE

    const count = this.#count
    if (count === this.limits.maxAttrs) throw policyViolation(`more than ${count} attributes`)
    const { declares } = name
    if (declares) this.#declares = true
    if (worst !== CLASS.PLAIN || name.role !== 'plain') this.#verbatim = false
    this.#names[count] = name
    if (worst !== CLASS.PLAIN) this.#values[count] = chars.decodeValue(this.#decode(valueStart, valueEnd))
    else if (declares) this.#values[count] = namespaceAt(data, valueStart, valueEnd)
    else this.#values[count] = this.#ascii(valueStart, valueEnd)
    this.#count = count + 1
    return valueEnd + 1
  }

  /** From behind the name of an attribute to the first byte of its value. */
  #valueStart(nameEnd: number, end: number): number {
    const data = this.#data
    let at = nameEnd
    if (data[at] !== BYTE.EQ) {
      at = skipWhite(data, at, end)
      if (at === end) return INCOMPLETE
      if (data[at] !== BYTE.EQ) throw notWellFormed('attribute without a value')
    }
    at = skipWhite(data, at + 1, end)
    if (at === end) return INCOMPLETE
    if (data[at] !== BYTE.APOS && data[at] !== BYTE.QUOTE)
      throw notWellFormed('attribute value without quotes')
    return at + 1
  }

  #endTag(start: number, end: number): number {
    const data = this.#data
    const tree = this.tree
    const bytes = tree.name.bytes
    const length = bytes.length
    let at = start + 2
    for (let i = 0; i < length; i++, at++) {
      if (at === end) return INCOMPLETE
      if (data[at] !== bytes[i]) throw notWellFormed('end tag of an element that is not open')
    }
    if (at < end && data[at] !== BYTE.GT) at = skipWhite(data, at, end)
    if (at === end) return INCOMPLETE
    if (data[at] !== BYTE.GT) throw notWellFormed('end tag of an element that is not open')
    if (tree.depth > 1) tree.close(undefined, undefined)
    else tree.close(this.#head, tree.movable ? this.#inner(start) : undefined)
    return at + 1
  }

  /** The content of the first-level element as it came, when all of it is in this input. */
  #inner(end: number): string | undefined {
    const start = this.#innerStart
    if (start < 0 || start === end) return undefined
    return this.#innerHigh ? this.#data.toString('utf8', start, end) : this.#ascii(start, end)
  }

  #characters(start: number, end: number): number {
    const data = this.#data
    let worst = 0
    let at = skipPlain(TEXT, data, start, end)
    while (at < end && data[at] !== BYTE.LT) {
      const found = TEXT[data[at] ?? 0] ?? 0
      if (found === CLASS.BAD) throw notWellFormed('control character')
      if (found > worst) worst = found
      at = skipPlain(TEXT, data, at + 1, end)
    }
    if (at === end) {
      if (end - start < TEXT_PIECE) return INCOMPLETE
      at = this.#cut(start, end)
    }
    if (worst === CLASS.PLAIN) this.tree.text(this.#ascii(start, at))
    else {
      const raw = this.#decode(start, at)
      this.tree.text(worst === CLASS.HIGH ? raw : chars.decodeText(raw))
    }
    return at
  }

  #cdataStart(start: number, end: number): number {
    for (let i = 0; i < CDATA.length; i++) {
      if (start + i === end) return INCOMPLETE
      // RFC 6120 §11.1: comments and document types are restricted XML; CDATA sections are not.
      if (this.#data[start + i] !== CDATA[i])
        throw new StreamError('restricted-xml', 'comment or declaration')
    }
    this.inCdata = true
    this.tree.movable = false // relayed as the text it stands for: less for others to get wrong
    return start + CDATA.length
  }

  #cdataText(start: number, end: number): number {
    const data = this.#data
    let close = data.indexOf(']]>', start, 'latin1')
    if (close < 0) {
      if (end - start < TEXT_PIECE) return INCOMPLETE
      close = this.#cut(start, end)
    } else this.inCdata = false
    for (let at = start; at < close; at++) {
      const byte = data[at] ?? 0
      if (byte !== BYTE.LT && TEXT[byte] === CLASS.BAD) throw notWellFormed('control character')
    }
    this.tree.text(chars.normaliseLineEnds(this.#decode(start, close)))
    return this.inCdata ? close : close + 3
  }

  /** Where text that goes on can be cut: not inside a character, a line end, "]]>" or a reference. */
  #cut(start: number, end: number): number {
    const data = this.#data
    let cut = end - incompleteTail(data, end)
    if (data[cut - 1] === BYTE.CLOSE) cut--
    if (data[cut - 1] === BYTE.CLOSE) cut--
    if (data[cut - 1] === BYTE.CR) cut--
    if (this.inCdata) return cut
    const reference = data.lastIndexOf(BYTE.AMP, end - 1)
    if (reference < start || data.indexOf(BYTE.SEMICOLON, reference) >= 0) return cut
    if (end - reference >= chars.MAX_REFERENCE) {
      throw chars.longReference(data.toString('latin1', reference, reference + chars.MAX_REFERENCE))
    }
    return Math.min(cut, reference)
  }

  /** The text between two offsets, which is ASCII. */
  #ascii(start: number, end: number): string {
    if (start < this.#windowStart || end - start > WINDOW) return this.#data.toString('latin1', start, end)
    if (end > this.#windowEnd) this.#look(start)
    return this.#window.slice(start - this.#windowStart, end - this.#windowStart)
  }

  /** Moves the window to `start`, unless it reaches the end of the input already. */
  #look(start: number): void {
    if (this.#windowEnd === this.#data.length) return
    this.#windowStart = start
    this.#windowEnd = Math.min(start + WINDOW, this.#data.length)
    this.#window = this.#data.toString('latin1', start, this.#windowEnd)
  }

  /** The name that begins at `start`; undefined when it may go on after `end`. */
  #name(start: number, end: number): Name | undefined {
    const data = this.#data
    let name = recentName(data, start, end)
    if (name === undefined) {
      const nameEnd = skipName(data, start, end)
      if (nameEnd === start) throw notWellFormed('a name is missing')
      if (nameEnd - start > this.limits.maxName) throw longName(this.limits.maxName)
      if (nameEnd === end) return undefined
      name = nameAt(data, start, nameEnd)
    } else if (name.bytes.length > this.limits.maxName) throw longName(this.limits.maxName)
    if (name.high) this.#innerHigh = true
    return name
  }

  /** Bytes that may be other than ASCII as text. */
  #decode(start: number, end: number): string {
    const data = this.#data
    if (this.#validTo < 0) {
      const whole = data.length - incompleteTail(data, data.length)
      this.#validTo = isUtf8(data.subarray(0, whole)) ? whole : validPrefix(data, whole)
    }
    // RFC 6120 §4.9.3.22: "violating the rules of the UTF-8 encoding".
    if (end > this.#validTo) throw new StreamError('unsupported-encoding', 'invalid UTF-8')
    this.#innerHigh = true
    return chars.checkCharacters(data.toString('utf8', start, end))
  }
}

function longName(max: number): StreamError {
  return policyViolation(`name longer than ${max} bytes`)
}
