/**
 * SASLprep (RFC 4013, stringprep RFC 3454) and the decision which form of a password an account keeps.
 *
 * SCRAM (RFC 5802 §2.2) hashes `Normalize(password)`, which is SASLprep: NFKC, other spaces to SPACE, some characters to nothing.
 * RFC 8265 replaces it by OpaqueString: NFC, other spaces to SPACE, no characters removed. A server that knows only keys cannot tell the two
 * apart, and the mechanism was never updated, so clients hash SASLprep. Hence the form to keep is SASLprep. Where SASLprep refuses,
 * a client cannot use it either, and OpaqueString stands in. The forms differ for a password with compatibility characters (ligatures,
 * fullwidth letters, superscripts) or ignorable ones (soft hyphen, variation selector); in ASCII never.
 *
 * Differences from the RFC: unassigned code points pass, for Unicode 3.2 knows no emoji; letters stand in for table D.2.
 */
import { MAX_PRECIS_LENGTH, opaqueString, PrecisError } from './precis.ts'

// RFC 3454 C.1.2
const SPACES = /[\u00a0\u1680\u2000-\u200b\u202f\u205f\u3000]/g
// RFC 3454 B.1
const MAPPED_TO_NOTHING = /\u00ad|\u034f|\u1806|[\u180b-\u180d]|\u200c|\u200d|\u2060|[\ufe00-\ufe0f]|\ufeff/g
// RFC 4013 §2.3: tables C.1.2, C.2.1, C.2.2, C.3 to C.9
const PROHIBITED =
  /[\u00a0\u1680\u2000-\u200f\u2028-\u202f\u205f-\u2063\u206a-\u206f\u3000\p{Cc}\u06dd\u070f\u180e\ufeff\ufff9-\ufffd\u{1d173}-\u{1d17a}\p{Co}\p{Noncharacter_Code_Point}\p{Cs}\u2ff0-\u2ffb\u{e0001}\u{e0020}-\u{e007f}]|\u0340|\u0341/u
// RFC 3454 D.1
const RIGHT_TO_LEFT =
  /[\u05be\u05c0\u05c3\u05d0-\u05ea\u05f0-\u05f4\u061b\u061f\u0621-\u063a\u0640-\u064a\u066d-\u066f\u0671-\u06d5\u06dd\u06e5\u06e6\u06fa-\u06fe\u0700-\u070d\u0710\u0712-\u072c\u0780-\u07a5\u07b1\u200f\ufb1d\ufb1f-\ufb28\ufb2a-\ufb36\ufb38-\ufb3c\ufb3e\ufb40\ufb41\ufb43\ufb44\ufb46-\ufbb1\ufbd3-\ufd3d\ufd50-\ufd8f\ufd92-\ufdc7\ufdf0-\ufdfc\ufe70-\ufe74\ufe76-\ufefc]/u
const LETTER = /[\p{L}\p{Mc}\p{Nl}]/u

function bidiHolds(text: string): boolean {
  const chars = Array.from(text)
  if (!chars.some((char) => RIGHT_TO_LEFT.test(char))) return true
  // RFC 3454 §6 (2) and (3)
  if (chars.some((char) => LETTER.test(char) && !RIGHT_TO_LEFT.test(char))) return false
  return RIGHT_TO_LEFT.test(chars[0] ?? '') && RIGHT_TO_LEFT.test(chars.at(-1) ?? '')
}

/** A user name or password in SASLprep form (RFC 4013); throws PrecisError when it is refused or nothing is left. */
export function saslPrep(text: string): string {
  if (text.length > MAX_PRECIS_LENGTH) throw new PrecisError('string too long')
  const mapped = text.replace(SPACES, ' ').replace(MAPPED_TO_NOTHING, '').normalize('NFKC')
  if (mapped === '') throw new PrecisError('empty string')
  if (PROHIBITED.test(mapped)) throw new PrecisError('string has a character that SASLprep prohibits')
  if (!bidiHolds(mapped)) throw new PrecisError('string mixes directions')
  return mapped
}

/**
 * The form of a password to derive keys from: when it is set, and when it comes in plain (PLAIN, registration, administration). Throws
 * PrecisError when it is no password in either form.
 */
export function preparePassword(password: string): string {
  try {
    return saslPrep(password)
  } catch (error) {
    if (error instanceof PrecisError) return opaqueString(password)
    throw error
  }
}

/**
 * The distinct forms to try, in this order and at most three, when a password in plain is compared with keys or hashes of another origin
 * (imports, external directories): the one of `preparePassword`, OpaqueString, and as received. One form for ASCII. Never throws.
 */
export function passwordForms(password: string): readonly string[] {
  const forms = new Set<string>()
  for (const prepare of [preparePassword, opaqueString]) {
    try {
      forms.add(prepare(password))
    } catch (error) {
      if (!(error instanceof PrecisError)) throw error
    }
  }
  return [...forms.add(password)]
}
