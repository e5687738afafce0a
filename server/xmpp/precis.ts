/**
 * PRECIS: preparation and enforcement of user names, passwords and other internationalised strings (RFC 8264 framework, RFC 8265
 * profiles, RFC 8266 nicknames), the ground of the XMPP address format. Properties follow the Unicode version of the runtime. Written
 * here because no maintained package has it (the only one on npm stopped at Unicode 8). Not here: the further exclusions for localparts
 * (jid.ts), SASLprep (saslprep.ts).
 *
 * Order of operations: RFC 8264 §7, that is mapping first and the string class last. RFC 8265 §3.3.2 tests the class before it maps
 * case and composes, which would refuse what both steps turn into something valid (titlecase letters, KELVIN SIGN, decomposed Hangul);
 * RFC 7622 §4 asks to map where that is possible. The results are valid by either order.
 */
import {
  bidiRuleHolds,
  codePoints,
  codePointTable,
  contextRulesHold,
  exception,
  hasRightToLeft,
  isLetterDigit,
  isOldHangulJamo,
  isUnassigned,
} from './unicode.ts'

/** A string does not conform to a PRECIS profile. */
export class PrecisError extends Error {
  override readonly name = 'PrecisError'
}

/**
 * Derived property of a code point (RFC 8264 §8): `pvalid` is allowed in both classes, `free` only in the FreeformClass, `contextj` and
 * `contexto` where a contextual rule allows it, the others never.
 */
export type PrecisProperty = 'pvalid' | 'free' | 'contextj' | 'contexto' | 'disallowed' | 'unassigned'

const PROPERTIES: readonly PrecisProperty[] = [
  'pvalid',
  'free',
  'contextj',
  'contexto',
  'disallowed',
  'unassigned',
]

// RFC 8264 §9.13
const IGNORABLE = /^[\p{Default_Ignorable_Code_Point}\p{Noncharacter_Code_Point}]$/u
const CONTROL = /^\p{Cc}$/u
// RFC 8264 §9.18, §9.14, §9.15, §9.16
const FREEFORM_ONLY = /^[\p{Lt}\p{Nl}\p{No}\p{Me}\p{Zs}\p{S}\p{P}]$/u

function derive(codePoint: number): PrecisProperty {
  // RFC 8264 §8: the order of these tests is part of the algorithm; BackwardCompatible is empty (§9.7)
  const special = exception(codePoint)
  if (special !== undefined) return special
  const char = String.fromCodePoint(codePoint)
  if (isUnassigned(char)) return 'unassigned'
  if (codePoint >= 0x21 && codePoint <= 0x7e) return 'pvalid'
  if (codePoint === 0x200c || codePoint === 0x200d) return 'contextj'
  if (isOldHangulJamo(codePoint) || IGNORABLE.test(char) || CONTROL.test(char)) return 'disallowed'
  if (char.normalize('NFKC') !== char) return 'free'
  if (isLetterDigit(char)) return 'pvalid'
  return FREEFORM_ONLY.test(char) ? 'free' : 'disallowed'
}

const propertyIndex = codePointTable((codePoint) => PROPERTIES.indexOf(derive(codePoint)))

/** The derived property of a code point (RFC 8264 §8); surrogates are disallowed. */
export function precisProperty(codePoint: number): PrecisProperty {
  return PROPERTIES[propertyIndex(codePoint)] ?? 'disallowed'
}

/** Longest string the profiles take, in UTF-16 units: far above every use, and composing long runs of marks costs their square. */
export const MAX_PRECIS_LENGTH = 4096

function describe(codePoint: number): string {
  return `U+${codePoint.toString(16).toUpperCase().padStart(4, '0')}`
}

/** Throws PrecisError unless `text` is of the string class and its contextual rules hold (RFC 8264 §4). */
function checkClass(points: readonly number[], freeform: boolean): void {
  let contextual = false
  for (const codePoint of points) {
    const property = precisProperty(codePoint)
    if (property === 'contextj' || property === 'contexto') contextual = true
    else if (property !== 'pvalid' && !(freeform && property === 'free')) {
      throw new PrecisError(`${describe(codePoint)} is not allowed`)
    }
  }
  if (contextual && !contextRulesHold(points)) {
    throw new PrecisError('a character stands where its contextual rule forbids it')
  }
}

/** Applies the mapping rules of a profile until the string is stable. */
function stabilise(text: string, map: (text: string) => string): string {
  if (text.length > MAX_PRECIS_LENGTH) throw new PrecisError('string too long')
  if (!text.isWellFormed()) throw new PrecisError('string has a lone surrogate')
  let mapped = map(text)
  // RFC 8264 §7: apply again, at most three times, until nothing changes
  for (let round = 0; round < 3; round++) {
    const again = map(mapped)
    if (again === mapped) return mapped
    mapped = again
  }
  throw new PrecisError('string does not become stable')
}

// RFC 8265 §3.3.1 (1): Decomposition_Type wide or narrow. The halfwidth Hangul letters decompose into compatibility letters, which the
// class refuses like the halfwidth ones, so they need no mapping; of the others NFKC of one character is that decomposition, or refused too.
const WIDE_OR_NARROW = /[\u3000\uff01-\uff9f\uffe0-\uffe6\uffe8-\uffee]/g

/** Maps fullwidth and halfwidth characters to their decomposition (RFC 8264 §5.2.1, RFC 5895 §2). */
export function mapWidth(text: string): string {
  return text.replace(WIDE_OR_NARROW, (char) => char.normalize('NFKC'))
}

/**
 * Unicode toLowerCase of each character by itself (RFC 8264 §5.2.3). RFC 7622 §3.5 and RFC 8265 §3.6 give GREEK CAPITAL LETTER SIGMA no
 * final form, while the method of strings has one for the end of a word.
 */
export function mapCase(text: string): string {
  return text.replaceAll('\u03a3', '\u03c3').toLowerCase()
}

const ASCII_USERNAME = /^[\x21-\x7e]+$/

function username(text: string, map: (text: string) => string): string {
  if (text === '') throw new PrecisError('empty user name')
  const mapped = stabilise(text, map)
  const points = codePoints(mapped)
  checkClass(points, false)
  // RFC 8265 §3.3.1 (5): only strings with right-to-left characters
  if (hasRightToLeft(points) && !bidiRuleHolds(points)) throw new PrecisError('string breaks the Bidi rule')
  // RFC 8265 §3.3.3: not empty after all rules, which holds because no rule removes a character
  return mapped
}

/** Enforces the UsernameCaseMapped profile (RFC 8265 §3.3); throws PrecisError. One userpart: no spaces. */
export function usernameCaseMapped(text: string): string {
  if (ASCII_USERNAME.test(text) && text.length <= MAX_PRECIS_LENGTH) return text.toLowerCase()
  return username(text, (string) => mapCase(mapWidth(string)).normalize('NFC'))
}

/** Enforces the UsernameCasePreserved profile (RFC 8265 §3.4); throws PrecisError. One userpart: no spaces. */
export function usernameCasePreserved(text: string): string {
  if (ASCII_USERNAME.test(text) && text.length <= MAX_PRECIS_LENGTH) return text
  return username(text, (string) => mapWidth(string).normalize('NFC'))
}

const ASCII_OPAQUE = /^[\x20-\x7e]+$/
const SPACES = /\p{Zs}/gu

/** Enforces the OpaqueString profile (RFC 8265 §4.2), of resourceparts and passwords; throws PrecisError. */
export function opaqueString(text: string): string {
  if (ASCII_OPAQUE.test(text) && text.length <= MAX_PRECIS_LENGTH) return text
  if (text === '') throw new PrecisError('empty string')
  // RFC 8265 §4.2.2 (2) and (4): no width and no case mapping
  const mapped = stabilise(text, (string) => string.replace(SPACES, ' ').normalize('NFC'))
  checkClass(codePoints(mapped), true)
  return mapped
}

const SPACE_RUNS = / {2,}/g

/** RFC 8266 §2.1 (2): other spaces to SPACE, none at the ends, one in a row. */
function mapNickname(text: string): string {
  const spaced = text.replace(SPACES, ' ').replace(SPACE_RUNS, ' ')
  return spaced.slice(spaced.startsWith(' ') ? 1 : 0, spaced.endsWith(' ') ? -1 : undefined)
}

function nick(text: string, map: (text: string) => string): string {
  const mapped = stabilise(text, map)
  // RFC 8266 §2.3: not empty after all rules
  if (mapped === '') throw new PrecisError('empty nickname')
  checkClass(codePoints(mapped), true)
  return mapped
}

/** Enforces the Nickname profile (RFC 8266 §2.3), for names that people see, such as those in rooms (RFC 7622 §3.4.1); throws PrecisError. */
export function nickname(text: string): string {
  return nick(text, (string) => mapNickname(string).normalize('NFKC'))
}

/** What two nicknames have in common when they are the same (RFC 8266 §2.4): as `nickname`, without case; throws PrecisError. */
export function nicknameKey(text: string): string {
  return nick(text, (string) => mapCase(mapNickname(string)).normalize('NFKC'))
}
