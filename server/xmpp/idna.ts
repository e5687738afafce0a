/**
 * Domain names as IDNA2008 has them: U-labels for addresses (RFC 7622 §3.2, RFC 5890 to 5893, RFC 5895 for the mapping), A-labels for DNS
 * and TLS. Which characters a label may hold is derived here by RFC 5892, because `url.domainToASCII` is UTS #46: it takes symbols and
 * emoji, reads `0x7f.1` as an IPv4 address, and knows neither CONTEXTO rules nor the length of labels. It serves as punycode codec
 * for one label that has been checked already. No registry rules (scripts, variants), no lookup.
 */
import { isIPv4, isIPv6 } from 'node:net'
import { domainToASCII, domainToUnicode } from 'node:url'
import { mapCase, mapWidth } from './precis.ts'
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

/** A string is not a domain name or IP address that XMPP can use. */
export class IdnaError extends Error {
  override readonly name = 'IdnaError'
}

// CWKCF: NFKC_Casefold(cp) differs from cp, which is Unstable (RFC 5892 §2.2) or, being removed, IgnorableProperties (§2.3)
const UNSTABLE = /^\p{Changes_When_NFKC_Casefolded}$/u
const IGNORABLE = /^[\p{Default_Ignorable_Code_Point}\p{White_Space}\p{Noncharacter_Code_Point}]$/u

// RFC 5892 §2.4: Combining Diacritical Marks for Symbols, Musical Symbols, Ancient Greek Musical Notation
const isIgnorableBlock = (codePoint: number) =>
  (codePoint >= 0x20d0 && codePoint <= 0x20ff) || (codePoint >= 0x1d100 && codePoint <= 0x1d24f)

const isLdh = (codePoint: number) =>
  codePoint === 0x2d || (codePoint >= 0x30 && codePoint <= 0x39) || (codePoint >= 0x61 && codePoint <= 0x7a)

// RFC 5892 §3: whether the derived property is PVALID, CONTEXTJ or CONTEXTO; the order of the tests is part of the algorithm
const allowed = codePointTable((codePoint) => {
  const special = exception(codePoint)
  if (special !== undefined) return special === 'disallowed' ? 0 : 1
  const char = String.fromCodePoint(codePoint)
  if (isUnassigned(char)) return 0
  if (isLdh(codePoint) || codePoint === 0x200c || codePoint === 0x200d) return 1
  if (UNSTABLE.test(char) || IGNORABLE.test(char) || isIgnorableBlock(codePoint)) return 0
  return !isOldHangulJamo(codePoint) && isLetterDigit(char) ? 1 : 0
})

/** Whether a code point may stand in a U-label, possibly under a contextual rule (RFC 5892 §3). */
export function idnaAllows(codePoint: number): boolean {
  return allowed(codePoint) === 1
}

const ASCII = /^[\x00-\x7f]*$/
const LDH_DOMAIN = /^[a-z0-9.-]+$/
const COMBINING_MARK = /^\p{M}/u

/** The A-label of a U-label; '' when it has none or the codec knows better. */
function toALabel(label: string): string {
  const ascii = domainToASCII(label)
  return ascii.startsWith('xn--') ? ascii : ''
}

/** RFC 5891 §4.2.3.1: no hyphen at either end. */
function checkHyphens(label: string): void {
  if (label.startsWith('-') || label.endsWith('-')) throw new IdnaError('label starts or ends with a hyphen')
}

/** RFC 5890 §2.3.1: a label with "--" in the third and fourth place is reserved unless it is an A-label. */
const isReserved = (label: string) => label.startsWith('--', 2)

function checkULabel(label: string): string {
  checkHyphens(label)
  // RFC 5891 §4.2.3.1 to §4.2.3.3, on a string in NFC (§4.2.2)
  if (isReserved(label)) throw new IdnaError('label has hyphens in the third and fourth place')
  if (COMBINING_MARK.test(label)) throw new IdnaError('label starts with a combining mark')
  const points = codePoints(label)
  if (!points.every(idnaAllows)) throw new IdnaError('label has a character that IDNA2008 forbids')
  if (!contextRulesHold(points)) {
    throw new IdnaError('label has a character where its contextual rule forbids it')
  }
  const alabel = toALabel(label)
  if (alabel === '') throw new IdnaError('label has no A-label')
  // RFC 1034 §3.1, RFC 5890 §2.3.2.1: the length limit is that of the A-label
  if (alabel.length > 63) throw new IdnaError('label longer than 63 octets')
  return label
}

function checkAsciiLabel(label: string): string {
  if (label === '') throw new IdnaError('empty label')
  if (label.length > 63) throw new IdnaError('label longer than 63 octets')
  checkHyphens(label)
  if (!isReserved(label)) return label
  if (!label.startsWith('xn--')) throw new IdnaError('label has hyphens in the third and fourth place')
  // RFC 7622 §3.2.1: each A-label becomes a U-label; RFC 5891 §5.4: and must be what that U-label encodes to
  const unicode = domainToUnicode(label)
  if (ASCII.test(unicode) || toALabel(unicode) !== label) throw new IdnaError('label is no A-label')
  return checkULabel(unicode)
}

function checkBidi(labels: readonly string[]): void {
  const points = labels.map(codePoints)
  // RFC 5893 §2: in a Bidi domain name every label is held to the rule
  if (points.some(hasRightToLeft) && !points.every(bidiRuleHolds))
    throw new IdnaError('domain breaks the Bidi rule')
}

/**
 * Prepares a domain name or IP address: mapped to lower case, normal width and NFC, U-labels, without the final dot. IPv6 addresses
 * stand in square brackets (RFC 7622 §3.1). Idempotent. Throws IdnaError.
 */
export function prepareDomain(text: string): string {
  // RFC 7622 §3.2: a final dot is stripped before anything else
  const stripped = text.endsWith('.') ? text.slice(0, -1) : text
  if (stripped === '') throw new IdnaError('empty domain')
  // A name has at most 253 octets, and its Unicode form is shorter than its ASCII form or made of composable characters
  if (stripped.length > 1023) throw new IdnaError('domain too long')
  if (stripped.startsWith('[')) return prepareIpv6(stripped)
  const lower = stripped.toLowerCase()
  if (LDH_DOMAIN.test(lower) && !lower.includes('--')) {
    if (isIPv4(lower)) return lower
    const labels = lower.split('.')
    for (const label of labels) checkAsciiLabel(label)
    if (lower.length > 253) throw new IdnaError('domain longer than 253 octets')
    return lower
  }
  if (!stripped.isWellFormed()) throw new IdnaError('domain has a lone surrogate')
  // RFC 5895 §2: case, width, normal form, and the ideographic full stop; the other label separators are fullwidth
  const mapped = mapCase(mapWidth(stripped)).normalize('NFC').replaceAll('\u3002', '.')
  if (isIPv4(mapped)) return mapped
  const labels = mapped.split('.').map((label) => {
    if (!ASCII.test(label)) return checkULabel(label)
    if (label !== '' && !LDH_DOMAIN.test(label)) throw new IdnaError('label has a forbidden character')
    return checkAsciiLabel(label)
  })
  checkBidi(labels)
  const domain = labels.join('.')
  if (toAsciiDomain(domain).length > 253) throw new IdnaError('domain longer than 253 octets')
  return domain
}

function prepareIpv6(text: string): string {
  const literal = text.slice(1, -1)
  const percent = literal.indexOf('%25')
  const address = percent < 0 ? literal : literal.slice(0, percent)
  const zone = percent < 0 ? undefined : literal.slice(percent + 3)
  // RFC 6874 §2: a zone identifier stands after "%25"; a name of letters, digits and few marks is enough for every system
  const zoneIsFine = zone === undefined || /^[A-Za-z0-9._~-]+$/.test(zone)
  if (!text.endsWith(']') || !zoneIsFine || address.includes('%') || !isIPv6(address)) {
    throw new IdnaError('bad IPv6 address')
  }
  // Hexadecimal digits have no case; zone identifiers do
  return zone === undefined ? `[${address.toLowerCase()}]` : `[${address.toLowerCase()}%25${zone}]`
}

/** The ASCII form of a prepared domain, for DNS, certificates and TLS server names; IP addresses come back unchanged. */
export function toAsciiDomain(domain: string): string {
  if (ASCII.test(domain)) return domain
  return domain
    .split('.')
    .map((label) => (ASCII.test(label) ? label : toALabel(label)))
    .join('.')
}
