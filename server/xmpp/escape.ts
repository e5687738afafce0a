/**
 * Text to XML (XML 1.0, fifth edition, §2.2, §2.4, §2.11, §3.3.3): escaping for the serialiser, and which names may be written.
 * Characters that XML cannot carry at all, not even as references, are replaced by U+FFFD: output is always well-formed.
 */

/** What has to be written differently. A carriage return would be normalised away by the reader (§2.11). */
const UNSAFE_TEXT = /[&<>\r\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]/g
/** XML 1.0 §3.3.3: white space in attributes survives only as a reference. */
const UNSAFE_ATTR = /[&<>'"\t\n\r\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]/g

const REFERENCES = new Map([
  ['&', '&amp;'],
  ['<', '&lt;'],
  ['>', '&gt;'], // XML 1.0 §2.4: needed in "]]>" only, written always
  ["'", '&apos;'],
  ['"', '&quot;'],
  ['\t', '&#9;'],
  ['\n', '&#10;'],
  ['\r', '&#13;'],
])

function reference(character: string): string {
  return REFERENCES.get(character) ?? '\ufffd'
}

/** Below 64, where all of ASCII that is unsafe lies: 1 for unsafe. */
const TEXT_TABLE = table(UNSAFE_TEXT)
const ATTR_TABLE = table(UNSAFE_ATTR)

function table(unsafe: RegExp): Uint8Array {
  return Uint8Array.from({ length: 64 }, (_, code) => (String.fromCharCode(code).search(unsafe) < 0 ? 0 : 1))
}

/** Whether there is nothing to escape, nor anything that has to be looked at closer: faster than an expression on short texts. */
function isSafe(text: string, unsafe: Uint8Array): boolean {
  const length = text.length
  for (let i = 0; i < length; i++) {
    const code = text.charCodeAt(i)
    if (code < 64 ? unsafe[code] !== 0 : code >= 0xd800) return false
  }
  return true
}

/** Character data for element content. */
export function escapeText(text: string): string {
  return isSafe(text, TEXT_TABLE) ? text : text.replace(UNSAFE_TEXT, reference).toWellFormed()
}

/** An attribute value, to stand between quotes of either kind. */
export function escapeAttr(text: string): string {
  return isSafe(text, ATTR_TABLE) ? text : text.replace(UNSAFE_ATTR, reference).toWellFormed()
}
