/** The client's messages of SCRAM, by the grammar of RFC 5802 §7 and nothing beyond it. */
import { SaslError } from '../../server/xmpp/errors.ts'

/** client-first-message. */
export interface ClientFirst {
  /** gs2-cbind-flag; the name of the binding only with `p`. */
  readonly binding: { readonly flag: 'n' | 'y' } | { readonly flag: 'p'; readonly name: string }
  /** '' when none. */
  readonly authzid: string
  readonly username: string
  /** The client's part. */
  readonly nonce: string
  /** gs2-header and client-first-message-bare as received: both go into later computations. */
  readonly gs2Header: string
  readonly bare: string
}

/** client-final-message. */
export interface ClientFinal {
  /** Base64 as received. */
  readonly binding: string
  readonly nonce: string
  readonly proof: Uint8Array
  readonly withoutProof: string
}

const malformed = (text: string): SaslError => new SaslError('malformed-request', text)

const CB_NAME = /^[A-Za-z0-9.-]{1,64}$/
const PRINTABLE = /^[\x21-\x2b\x2d-\x7e]{1,1024}$/
const BASE64 = /^[A-Za-z0-9+/]+={0,2}$/

/** Parses a client-first-message; throws SaslError('malformed-request'). */
export function parseClientFirst(message: string): ClientFirst {
  const flagEnd = message.indexOf(',')
  const headerEnd = message.indexOf(',', flagEnd + 1)
  if (flagEnd < 0 || headerEnd < 0) throw malformed('no GS2 header')
  const authzid = message.slice(flagEnd + 1, headerEnd)
  if (authzid !== '' && !authzid.startsWith('a=')) throw malformed('no authorization identity')
  const bare = message.slice(headerEnd + 1)
  const [username = '', nonce = '', ...extensions] = bare.split(',')
  // §5.1 m: "its presence in a client or a server message MUST cause authentication failure"
  if (username.startsWith('m=')) throw malformed('extensions-not-supported')
  if (!username.startsWith('n=') || !nonce.startsWith('r=') || !PRINTABLE.test(nonce.slice(2)))
    throw malformed('user name and nonce expected')
  checkExtensions(extensions)
  return {
    binding: cbindFlag(message.slice(0, flagEnd)),
    authzid: authzid === '' ? '' : saslName(authzid.slice(2)),
    username: saslName(username.slice(2)),
    nonce: nonce.slice(2),
    gs2Header: message.slice(0, headerEnd + 1),
    bare,
  }
}

function cbindFlag(flag: string): ClientFirst['binding'] {
  if (flag === 'n' || flag === 'y') return { flag }
  if (flag.startsWith('p=') && CB_NAME.test(flag.slice(2))) return { flag: 'p', name: flag.slice(2) }
  throw malformed('unknown channel binding flag')
}

/** §5.1 n: "=" only as part of "=2C" and "=3D". */
function saslName(text: string): string {
  if (text === '' || text.includes('\0') || /=(?!2C|3D)/.test(text))
    throw malformed('invalid user name encoding')
  return text.replaceAll('=2C', ',').replaceAll('=3D', '=')
}

/** §7: unknown attributes are ignored; those that have a meaning are not allowed here, nor is `m`. */
function checkExtensions(extensions: readonly string[]): void {
  for (const extension of extensions) {
    if (!/^[A-Za-z]=[^\0,]+$/.test(extension)) throw malformed('not an attribute')
    if ('aceimnprsv'.includes(extension.charAt(0))) throw malformed('attribute out of place')
  }
}

/** Parses a client-final-message; throws SaslError('malformed-request'). */
export function parseClientFinal(message: string): ClientFinal {
  const proofAt = message.lastIndexOf(',')
  const proof = message.slice(proofAt + 1)
  if (proofAt < 0 || !proof.startsWith('p=') || !BASE64.test(proof.slice(2)))
    throw malformed('the proof comes last')
  const bytes = Buffer.from(proof.slice(2), 'base64')
  if (bytes.toString('base64') !== proof.slice(2)) throw malformed('the proof is not base64')
  const withoutProof = message.slice(0, proofAt)
  const [binding = '', nonce = '', ...extensions] = withoutProof.split(',')
  if (!binding.startsWith('c=') || !BASE64.test(binding.slice(2)) || !nonce.startsWith('r='))
    throw malformed('channel binding and nonce expected')
  checkExtensions(extensions)
  return { binding: binding.slice(2), nonce: nonce.slice(2), proof: bytes, withoutProof }
}
