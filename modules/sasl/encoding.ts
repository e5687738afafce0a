/**
 * What the wire says, decoded without tolerance: base64 (RFC 4648 §4, as RFC 6120 §6.3.5 wants it), UTF-8, and names of accounts.
 * A second spelling of the same bytes is refused, so that nothing is accepted here that another parser reads differently.
 */
import { isUtf8 } from 'node:buffer'
import { SaslError } from '../../server/xmpp/errors.ts'
import { JidError, makeJid } from '../../server/xmpp/jid.ts'

/** The bytes of canonical base64; '' is no bytes. Throws SaslError('incorrect-encoding'). */
export function decodeBase64(text: string): Uint8Array {
  const bytes = Buffer.from(text, 'base64')
  // RFC 4648 §3.1, §3.3, §3.5; RFC 6120 §6.3.5: no white space, no other alphabet, padding at the end only, padding bits zero
  if (bytes.toString('base64') !== text) throw new SaslError('incorrect-encoding')
  return bytes
}

/** Canonical base64. */
export function encodeBase64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64')
}

/** UTF-8 text; throws SaslError('malformed-request') when it is none. */
export function decodeUtf8(bytes: Uint8Array): string {
  if (!isUtf8(bytes)) throw new SaslError('malformed-request', 'not UTF-8')
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8')
}

/** The localpart that a user name stands for (RFC 8265 §3.3, RFC 7622 §3.3); undefined when no account can have that name. */
export function prepareLocal(name: string, host: string): string | undefined {
  try {
    return name === '' ? undefined : makeJid(name, host).local
  } catch (error) {
    if (error instanceof JidError) return undefined
    throw error
  }
}
