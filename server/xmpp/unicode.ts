/**
 * Unicode rules that PRECIS (RFC 8264) and IDNA2008 share: letters and digits, exceptions and contextual rules (RFC 5892), the Bidi rule
 * (RFC 5893). Properties come from the runtime, so they follow its Unicode version; only joining types and the few bidi classes that
 * identifiers need stand here as data. Not a general bidi or shaping library.
 */
import { DUAL_JOINING, LEFT_JOINING, RIGHT_JOINING } from './joining-types.ts'

/** A function of a code point with small results (0 to 254), remembered in pages; at most 1.1 MB when every code point was asked. */
export function codePointTable(compute: (codePoint: number) => number): (codePoint: number) => number {
  const pages: (Uint8Array | undefined)[] = []
  return (codePoint) => {
    const pageNumber = Math.floor(codePoint / 256)
    const page = pages[pageNumber] ?? new Uint8Array(256).fill(255)
    pages[pageNumber] = page
    const known = page[codePoint % 256] ?? 255
    if (known !== 255) return known
    const value = compute(codePoint)
    page[codePoint % 256] = value
    return value
  }
}

/** The code points of a well-formed string. */
export function codePoints(text: string): number[] {
  return Array.from(text, (char) => char.codePointAt(0) ?? 0)
}

// RFC 5892 §2.6
const VALID = new Set([0xdf, 0x3c2, 0x6fd, 0x6fe, 0xf0b, 0x3007])
const CONTEXTUAL = new Set([0xb7, 0x375, 0x5f3, 0x5f4, 0x30fb])
const DISALLOWED = new Set([0x640, 0x7fa, 0x302e, 0x302f, 0x3031, 0x3032, 0x3033, 0x3034, 0x3035, 0x303b])

const isArabicDigit = (codePoint: number) => codePoint >= 0x660 && codePoint <= 0x669
const isExtendedArabicDigit = (codePoint: number) => codePoint >= 0x6f0 && codePoint <= 0x6f9

/** The entry of the exceptions table for a code point (RFC 5892 §2.6). */
export function exception(codePoint: number): 'pvalid' | 'contexto' | 'disallowed' | undefined {
  if (VALID.has(codePoint)) return 'pvalid'
  if (CONTEXTUAL.has(codePoint) || isArabicDigit(codePoint) || isExtendedArabicDigit(codePoint))
    return 'contexto'
  return DISALLOWED.has(codePoint) ? 'disallowed' : undefined
}

/** Whether a code point is a conjoining jamo: Hangul_Syllable_Type L, V or T (RFC 5892 §2.9). */
export function isOldHangulJamo(codePoint: number): boolean {
  return (
    (codePoint >= 0x1100 && codePoint <= 0x11ff) ||
    (codePoint >= 0xa960 && codePoint <= 0xa97c) ||
    (codePoint >= 0xd7b0 && codePoint <= 0xd7c6) ||
    (codePoint >= 0xd7cb && codePoint <= 0xd7fb)
  )
}

const UNASSIGNED = /^\p{Cn}$/u
const NONCHARACTER = /^\p{Noncharacter_Code_Point}$/u
const LETTER_DIGIT = /^[\p{Ll}\p{Lu}\p{Lo}\p{Nd}\p{Lm}\p{Mn}\p{Mc}]$/u

/** Whether a character is not designated yet (RFC 5892 §2.10). */
export function isUnassigned(char: string): boolean {
  return UNASSIGNED.test(char) && !NONCHARACTER.test(char)
}

/** Whether a character is of the LetterDigits category (RFC 5892 §2.1). */
export function isLetterDigit(char: string): boolean {
  return LETTER_DIGIT.test(char)
}

const JOINING_NONE = 0
const JOINING_DUAL = 1
const JOINING_LEFT = 2
const JOINING_RIGHT = 3
const JOINING_TRANSPARENT = 4

type Range = readonly [first: number, last: number]

function parseRanges(text: string): Range[] {
  return text.split(' ').map((range): Range => {
    const [first = '', last = first] = range.split('-')
    return [Number.parseInt(first, 16), Number.parseInt(last, 16)]
  })
}

const within = (ranges: readonly Range[], codePoint: number) =>
  ranges.some(([first, last]) => codePoint >= first && codePoint <= last)

const dual = parseRanges(DUAL_JOINING)
const left = parseRanges(LEFT_JOINING)
const right = parseRanges(RIGHT_JOINING)
const NONSPACING = /^\p{Mn}$/u

const joiningType = codePointTable((codePoint) => {
  // Of the characters allowed in identifiers, exactly these are transparent
  if (codePoint === 0x1e94b || NONSPACING.test(String.fromCodePoint(codePoint))) return JOINING_TRANSPARENT
  if (within(dual, codePoint)) return JOINING_DUAL
  if (within(left, codePoint)) return JOINING_LEFT
  return within(right, codePoint) ? JOINING_RIGHT : JOINING_NONE
})

function joins(points: readonly number[], index: number): boolean {
  let before = index - 1
  while (before >= 0 && joiningType(points[before] ?? 0) === JOINING_TRANSPARENT) before -= 1
  let after = index + 1
  while (after < points.length && joiningType(points[after] ?? 0) === JOINING_TRANSPARENT) after += 1
  if (before < 0 || after >= points.length) return false
  const first = joiningType(points[before] ?? 0)
  const second = joiningType(points[after] ?? 0)
  return (
    (first === JOINING_LEFT || first === JOINING_DUAL) &&
    (second === JOINING_RIGHT || second === JOINING_DUAL)
  )
}

/**
 * Whether the canonical combining class is Virama (9). Canonical ordering tells: such a mark goes before one of class 8 (U+3099 goes
 * after it) and before one of class 10 (U+05B0 goes after it), and a starter does neither.
 */
function isVirama(codePoint: number): boolean {
  const char = String.fromCodePoint(codePoint)
  return (
    char !== '\u3099' &&
    char !== '\u05b0' &&
    `${char}\u3099`.normalize('NFD') === `\u3099${char}` &&
    `\u05b0${char}`.normalize('NFD') === `${char}\u05b0`
  )
}

const GREEK = /^\p{Script=Greek}$/u
const HEBREW = /^\p{Script=Hebrew}$/u
const KANA_OR_HAN = /^[\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Han}]$/u

const matches = (pattern: RegExp, codePoint: number | undefined) =>
  codePoint !== undefined && pattern.test(String.fromCodePoint(codePoint))

/** Whether every CONTEXTJ and CONTEXTO code point of a string stands where its rule allows it (RFC 5892 appendix A). */
export function contextRulesHold(points: readonly number[]): boolean {
  let kanaOrHan: boolean | undefined
  let arabicDigits = false
  let extendedArabicDigits = false
  for (const [index, codePoint] of points.entries()) {
    const before = points[index - 1]
    const after = points[index + 1]
    switch (codePoint) {
      case 0x200c: // RFC 5892 A.1
        if (!(before !== undefined && isVirama(before)) && !joins(points, index)) return false
        break
      case 0x200d: // RFC 5892 A.2
        if (before === undefined || !isVirama(before)) return false
        break
      case 0xb7: // RFC 5892 A.3: between two small l (Catalan)
        if (before !== 0x6c || after !== 0x6c) return false
        break
      case 0x375: // RFC 5892 A.4
        if (!matches(GREEK, after)) return false
        break
      case 0x5f3: // RFC 5892 A.5
      case 0x5f4: // RFC 5892 A.6
        if (!matches(HEBREW, before)) return false
        break
      case 0x30fb: // RFC 5892 A.7
        kanaOrHan ??= points.some((point) => matches(KANA_OR_HAN, point))
        if (!kanaOrHan) return false
        break
      default:
        // RFC 5892 A.8, A.9: the two rows of digits do not mix
        arabicDigits ||= isArabicDigit(codePoint)
        extendedArabicDigits ||= isExtendedArabicDigit(codePoint)
    }
  }
  return !(arabicDigits && extendedArabicDigits)
}

type BidiClass = 'L' | 'R' | 'AN' | 'EN' | 'ES' | 'CS' | 'ET' | 'ON' | 'BN' | 'NSM'

// Blocks whose characters have class R or AL unless said otherwise, assigned or not (Unicode 17.0, DerivedBidiClass.txt)
const RIGHT_TO_LEFT: readonly Range[] = [
  [0x590, 0x8ff],
  [0xfb1d, 0xfdff],
  [0xfe70, 0xfeff],
  [0x10800, 0x10fff],
  [0x1e800, 0x1efff],
]
const ARABIC_NUMBER: readonly Range[] = [
  [0x660, 0x669],
  [0x10d30, 0x10d39],
  [0x10d40, 0x10d49],
]
const OTHER_NEUTRAL: readonly Range[] = [
  [0xb7, 0xb7],
  [0x2b9, 0x2ba],
  [0x2c6, 0x2cf],
  [0x2ec, 0x2ec],
  [0x375, 0x375],
  [0x2e2f, 0x2e2f],
  [0x30fb, 0x30fb],
  [0xa67f, 0xa67f],
  [0xa717, 0xa71f],
  [0xa788, 0xa788],
  [0x10920, 0x10920],
  [0x10b40, 0x10b40],
  [0x10d6f, 0x10d6f],
]
// Nonspacing marks with class L
const MARKS_LEFT_TO_RIGHT = new Set([0xcbf, 0xcc6, 0x11a07, 0x11a08, 0x11c3f])

/** Bidi_Class of a character that identifiers may contain, R standing for R and AL, which no rule here tells apart. */
function bidiClass(codePoint: number): BidiClass {
  if (codePoint < 0x80) {
    const char = String.fromCodePoint(codePoint)
    if (/[A-Za-z]/.test(char)) return 'L'
    if (/[0-9]/.test(char)) return 'EN'
    if (/[+-]/.test(char)) return 'ES'
    if (/[#$%]/.test(char)) return 'ET'
    return /[,./:]/.test(char) ? 'CS' : 'ON'
  }
  if (codePoint === 0x200c || codePoint === 0x200d) return 'BN'
  if (isExtendedArabicDigit(codePoint)) return 'EN'
  if (within(ARABIC_NUMBER, codePoint)) return 'AN'
  if (NONSPACING.test(String.fromCodePoint(codePoint)))
    return MARKS_LEFT_TO_RIGHT.has(codePoint) ? 'L' : 'NSM'
  if (within(OTHER_NEUTRAL, codePoint)) return 'ON'
  return within(RIGHT_TO_LEFT, codePoint) ? 'R' : 'L'
}

/** Whether a string holds right-to-left characters: class R, AL or AN (RFC 5893 §1.4). */
export function hasRightToLeft(points: readonly number[]): boolean {
  return points.some((codePoint) => {
    // Nothing before the Hebrew block is written from right to left
    if (codePoint < 0x590) return false
    const kind = bidiClass(codePoint)
    return kind === 'R' || kind === 'AN'
  })
}

/** Whether a string of characters that identifiers may contain satisfies the six conditions of the Bidi rule (RFC 5893 §2). */
export function bidiRuleHolds(points: readonly number[]): boolean {
  const kinds = points.map(bidiClass)
  const last = kinds.findLast((kind) => kind !== 'NSM')
  const has = (kind: BidiClass) => kinds.includes(kind)
  switch (kinds[0]) {
    case 'R': // conditions 2, 3 and 4
      return !has('L') && (last === 'R' || last === 'EN' || last === 'AN') && !(has('EN') && has('AN'))
    case 'L': // conditions 5 and 6
      return !has('R') && !has('AN') && (last === 'L' || last === 'EN')
    default: // condition 1
      return false
  }
}
