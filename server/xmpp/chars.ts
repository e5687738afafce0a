/** Bytes of XML 1.0 (fifth edition) as the parser sees them: what each means in text, in attribute values and after names. */
import { notWellFormed, policyViolation, StreamError } from './errors.ts'
import { isNcName } from './names.ts'

/** Bytes with a meaning of their own in XML. */
export const BYTE = {
  TAB: 0x09,
  LF: 0x0a,
  CR: 0x0d,
  SPACE: 0x20,
  BANG: 0x21,
  QUOTE: 0x22,
  AMP: 0x26,
  APOS: 0x27,
  SLASH: 0x2f,
  COLON: 0x3a,
  SEMICOLON: 0x3b,
  LT: 0x3c,
  EQ: 0x3d,
  GT: 0x3e,
  QUESTION: 0x3f,
  OPEN: 0x5b,
  CLOSE: 0x5d,
} as const

/** What a byte means inside text or an attribute value; the greatest class met tells how the token must be decoded. */
export const CLASS = {
  /** Stands for itself. */
  PLAIN: 0,
  /** Part of a character beyond ASCII: the token has to be decoded as UTF-8. */
  HIGH: 1,
  /** Needs work: a reference, a line end, a bracket that might end in "]]>". */
  SPECIAL: 2,
  /** Where the token may end: "<" in text, a quote in a value. */
  END: 3,
  /** XML 1.0 §2.2: not a character, or not allowed there. */
  BAD: 4,
} as const

/** Classes of bytes in character data (XML 1.0 §2.4). */
export const TEXT = classes({ end: '<', special: '&]\r', bad: '' })
/** Classes of bytes in attribute values (XML 1.0 §3.1: no "<"; §3.3.3: white space is normalised). */
export const VALUE = classes({ end: '"\'', special: '&\t\n\r', bad: '<' })
const WHITE = marks(' \t\r\n')
/** 1 for bytes after which a name cannot go on; what stands before may still be no name. */
export const NAME_END = marks(' \t\r\n/>=<"\'&')

function classes(of: { readonly end: string; readonly special: string; readonly bad: string }): Uint8Array {
  const table = new Uint8Array(256).fill(CLASS.BAD, 0, 0x20).fill(CLASS.HIGH, 0x80)
  for (const byte of Buffer.from('\t\n')) table[byte] = CLASS.PLAIN
  for (const byte of Buffer.from(of.special)) table[byte] = CLASS.SPECIAL
  for (const byte of Buffer.from(of.end)) table[byte] = CLASS.END
  for (const byte of Buffer.from(of.bad)) table[byte] = CLASS.BAD
  return table
}

function marks(characters: string): Uint8Array {
  const table = new Uint8Array(256)
  for (const byte of Buffer.from(characters)) table[byte] = 1
  return table
}

// The loops that see every byte. Each is a function of its own with nothing else in it: that is what the compiler does best.

/** Offset of the first byte from `at` that is not plain by the table, or `end`. */
export function skipPlain(table: Uint8Array, data: Buffer, at: number, end: number): number {
  let i = at
  while (i < end && table[data[i] ?? 0] === 0) i++
  return i
}

/** Offset of the first byte from `at` that is no white space (XML 1.0 §2.3, production S), or `end`. */
export function skipWhite(data: Buffer, at: number, end: number): number {
  let i = at
  while (i < end && WHITE[data[i] ?? 0] === 1) i++
  return i
}

/** Whether the byte is white space. */
export function isWhite(byte: number): boolean {
  return WHITE[byte] === 1
}

/** Whether a name cannot go on with the byte. */
export function endsName(byte: number): boolean {
  return NAME_END[byte] === 1
}

/** Offset of the first byte from `at` that cannot be in a name, or `end`. */
export function skipName(data: Buffer, at: number, end: number): number {
  let i = at
  while (i < end && NAME_END[data[i] ?? 0] === 0) i++
  return i
}

const NON_CHARACTERS = /[\ufffe\uffff]/

/** XML 1.0 §2.2: the two code points that UTF-8 can carry and XML cannot, apart from controls. */
export function checkCharacters(text: string): string {
  if (NON_CHARACTERS.test(text)) throw notWellFormed('U+FFFE and U+FFFF are no characters')
  return text
}

/** XML 1.0 §4.6: the predefined entities, the only ones RFC 6120 §11.1 allows. */
const ENTITIES: ReadonlyMap<string, string> = new Map([
  ['amp', '&'],
  ['lt', '<'],
  ['gt', '>'],
  ['apos', "'"],
  ['quot', '"'],
])

/** Longest reference taken, "&" and ";" included. XML 1.0 sets no bound to leading zeros; a policy has to. */
export const MAX_REFERENCE = 32

/** Text between tags: references resolved, line ends normalised (XML 1.0 §2.11). Refuses "]]>" (§2.4). */
export function decodeText(raw: string): string {
  if (raw.includes(']]>')) throw notWellFormed('"]]>" in character data')
  return resolve(normaliseLineEnds(raw))
}

/** XML 1.0 §2.11: every line end is one line feed. */
export function normaliseLineEnds(raw: string): string {
  return raw.includes('\r') ? raw.replace(/\r\n?/g, '\n') : raw
}

/** An attribute value: line ends normalised, white space to spaces, references resolved (XML 1.0 §2.11, §3.3.3). */
export function decodeValue(raw: string): string {
  return resolve(raw.replace(/\r\n|[\r\n\t]/g, ' '))
}

function resolve(raw: string): string {
  let at = raw.indexOf('&')
  if (at < 0) return raw
  let text = ''
  let from = 0
  while (at >= 0) {
    const end = raw.indexOf(';', at)
    if ((end < 0 ? raw.length : end) - at >= MAX_REFERENCE) {
      throw longReference(raw.slice(at, at + MAX_REFERENCE))
    }
    if (end < 0) throw notWellFormed('bare "&"')
    const name = raw.slice(at + 1, end)
    text += raw.slice(from, at) + (ENTITIES.get(name) ?? character(name))
    from = end + 1
    at = raw.indexOf('&', from)
  }
  return text + raw.slice(from)
}

/** Which error a reference without an end in sight is: one that is too long, or something that cannot be one. */
export function longReference(start: string): StreamError {
  return isNcName(start.slice(1)) || /^&#(?:[0-9]*|x[0-9a-fA-F]*)$/.test(start)
    ? policyViolation(`reference longer than ${MAX_REFERENCE} characters`)
    : notWellFormed('bare "&"')
}

/** The character of a reference "#…" or "#x…" (XML 1.0 §4.1, production 66 and its constraint). */
function character(name: string): string {
  const hex = /^#x[0-9a-fA-F]+$/.test(name)
  if (!hex && !/^#[0-9]+$/.test(name)) {
    // RFC 6120 §11.1: entity references other than the predefined five are restricted XML; anything else is no XML at all.
    if (isNcName(name)) throw new StreamError('restricted-xml', 'entity reference')
    throw notWellFormed('bare "&"')
  }
  const code = hex ? Number.parseInt(name.slice(2), 16) : Number.parseInt(name.slice(1), 10)
  if (!isCharacter(code)) throw notWellFormed('reference to what is no character')
  return String.fromCodePoint(code)
}

/** XML 1.0 §2.2, production Char. */
function isCharacter(code: number): boolean {
  if (code < 0x20) return code === 0x09 || code === 0x0a || code === 0x0d
  return code < 0xd800 || (code > 0xdfff && code < 0xfffe) || (code > 0xffff && code <= 0x10ffff)
}
