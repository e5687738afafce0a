/**
 * Text to XML (XML 1.0, fifth edition, §2.2, §2.4, §2.11, §3.3.3): escaping for the serialiser, and which names may be written.
 * Characters that XML cannot carry at all, not even as references, are replaced by U+FFFD: output is always well-formed.
 */

/** What makes escaping of character data necessary; a carriage return would be normalised away by the reader (§2.11). */
const UNSAFE_TEXT = /[&<>\r\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]/
const UNSAFE_ATTR = /[&<>'"\t\n\r\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]/
const UNSAFE_TEXT_ALL = new RegExp(UNSAFE_TEXT, 'g')
const UNSAFE_ATTR_ALL = new RegExp(UNSAFE_ATTR, 'g')

const REFERENCES = new Map([
  ['&', '&amp;'],
  ['<', '&lt;'],
  ['>', '&gt;'], // XML 1.0 §2.4: needed in "]]>" only, written always
  ["'", '&apos;'],
  ['"', '&quot;'],
  // XML 1.0 §3.3.3: white space in attributes survives only as a reference
  ['\t', '&#9;'],
  ['\n', '&#10;'],
  ['\r', '&#13;'],
])

function reference(character: string): string {
  return REFERENCES.get(character) ?? '\ufffd'
}

/** Character data for element content. */
export function escapeText(text: string): string {
  const safe = UNSAFE_TEXT.test(text) ? text.replace(UNSAFE_TEXT_ALL, reference) : text
  return safe.isWellFormed() ? safe : safe.toWellFormed()
}

/** An attribute value, to stand between quotes of either kind. */
export function escapeAttr(text: string): string {
  const safe = UNSAFE_ATTR.test(text) ? text.replace(UNSAFE_ATTR_ALL, reference) : text
  return safe.isWellFormed() ? safe : safe.toWellFormed()
}
