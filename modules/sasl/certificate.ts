/**
 * XMPP addresses in a certificate: id-on-xmppAddr entries of subjectAltName (RFC 6120 §13.7.1.4), which node:crypto does not show.
 * Reads just as much DER (X.690) as it takes to get there; whether the certificate can be trusted was decided by TLS.
 */

/** One value: its tag octet and where its content lies. */
interface Tlv {
  readonly tag: number
  readonly start: number
  readonly end: number
}

const SEQUENCE = 0x30
const OBJECT_ID = 0x06
const OCTET_STRING = 0x04
const UTF8_STRING = 0x0c
const CONTEXT_0 = 0xa0
const CONTEXT_3 = 0xa3
/** 2.5.29.17, subjectAltName (RFC 5280 §4.2.1.6). */
const SUBJECT_ALT_NAME = '551d11'
/** 1.3.6.1.5.5.7.8.5, id-on-xmppAddr. */
const XMPP_ADDR = '2b06010505070805'
/** More entries than that are not looked at. */
const MAX_VALUES = 256

class Malformed extends Error {}

/** The value at `start`, which must lie within `end`. */
function read(der: Uint8Array, start: number, end: number): Tlv {
  const tag = der[start]
  let length = der[start + 1]
  let at = start + 2
  if (tag === undefined || length === undefined) throw new Malformed()
  if (length >= 0x80) {
    // the long form of X.690; four octets are more than any certificate has
    const octets = length - 0x80
    if (octets < 1 || octets > 4) throw new Malformed()
    length = 0
    for (let i = 0; i < octets; i++) length = length * 256 + (der[at + i] ?? 0)
    at += octets
  }
  if (at + length > end) throw new Malformed()
  return { tag, start: at, end: at + length }
}

/** The values inside a constructed one. */
function children(der: Uint8Array, parent: Tlv): readonly Tlv[] {
  const values: Tlv[] = []
  for (let at = parent.start; at < parent.end && values.length < MAX_VALUES; ) {
    const value = read(der, at, parent.end)
    values.push(value)
    at = value.end
  }
  return values
}

const hex = (der: Uint8Array, value: Tlv): string =>
  Buffer.from(der.subarray(value.start, value.end)).toString('hex')

const isObject = (der: Uint8Array, value: Tlv | undefined, id: string): boolean =>
  value?.tag === OBJECT_ID && hex(der, value) === id

/** Certificate > TBSCertificate > [3] extensions > SEQUENCE OF Extension (RFC 5280 §4.1). */
function extensions(der: Uint8Array): readonly Tlv[] {
  const certificate = read(der, 0, der.length)
  const body = children(der, certificate)[0]
  if (certificate.tag !== SEQUENCE || body?.tag !== SEQUENCE) throw new Malformed()
  const wrapper = children(der, body).find((value) => value.tag === CONTEXT_3)
  return wrapper === undefined ? [] : children(der, read(der, wrapper.start, wrapper.end))
}

function addresses(der: Uint8Array): string[] {
  const found: string[] = []
  for (const extension of extensions(der)) {
    const parts = children(der, extension)
    const value = parts.at(-1)
    if (!isObject(der, parts[0], SUBJECT_ALT_NAME) || value?.tag !== OCTET_STRING) continue
    for (const name of children(der, read(der, value.start, value.end))) {
      // otherName [0] { type-id, value [0] EXPLICIT } (RFC 5280 §4.2.1.6)
      if (name.tag !== CONTEXT_0) continue
      const [id, explicit] = children(der, name)
      if (!isObject(der, id, XMPP_ADDR) || explicit?.tag !== CONTEXT_0) continue
      const text = read(der, explicit.start, explicit.end)
      if (text.tag === UTF8_STRING)
        found.push(Buffer.from(der.subarray(text.start, text.end)).toString('utf8'))
    }
  }
  return found
}

/** The xmppAddr entries of a certificate in DER, as written; none when it is malformed. */
export function xmppAddresses(der: Uint8Array): readonly string[] {
  try {
    return addresses(der)
  } catch (error) {
    if (error instanceof Malformed) return []
    throw error
  }
}
