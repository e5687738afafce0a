/**
 * One TLS connection on the server's side: the upgrade of a socket, and what is known afterwards (channel bindings of
 * RFC 9266 and RFC 5929 §4, the client's certificate).
 */
import { createHash, type X509Certificate } from 'node:crypto'
import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import type { TlsInfo } from './module.ts'
import type { Tls, TlsPurpose } from './tls.ts'

/** A TLS connection and what it says of itself. Reads from the socket when asked, so an idle connection keeps little. */
export class TlsConnection implements TlsInfo {
  readonly socket: TLSSocket
  readonly #tls: Tls
  readonly #purpose: TlsPurpose
  readonly #host: string
  // Set for a resumed session: the certificate of its first handshake, if that is known.
  #resumed: { readonly certificate: X509Certificate | undefined } | undefined

  /**
   * Takes the socket over for TLS; what it has received and nobody has read becomes part of the handshake. `host` is for
   * clients that name none. The caller waits for the socket's 'secure' (then calls `established`) or 'close', and listens to
   * 'error'. Errors of TLS close the connection.
   */
  constructor(raw: Socket, tls: Tls, purpose: TlsPurpose, host: string = tls.defaultHost) {
    this.#tls = tls
    this.#purpose = purpose
    this.#host = host
    this.socket = new TLSSocket(raw, tls.optionsFor(purpose, host))
    // A server's socket is connected already; the listener would stay as long as the connection.
    raw.removeAllListeners('connect')
    // Node gives errors after the handshake to its own tls.Server only, by this event.
    this.socket.on('_tlsError', destroyOnTlsError)
  }

  /** To be called once, when the handshake is through. */
  established(): void {
    const { socket } = this
    if (!socket.isSessionReused()) return
    // OpenSSL does not choose a certificate when it resumes, so it does not tell which one it was; with TLS 1.2 it does not
    // tell the SNI either. After STARTTLS the stream has named the host, and nothing else counts.
    let name: string | undefined = ''
    if (this.#purpose !== 'c2s') {
      if (typeof socket.servername === 'string') name = socket.servername
      else if (socket.getProtocol() !== 'TLSv1.3') name = undefined
    }
    this.#resumed = { certificate: this.#tls.certificateFor(name, this.#host) }
  }

  get protocol(): string {
    return this.socket.getProtocol() ?? ''
  }

  get cipher(): string {
    return this.socket.destroyed ? '' : this.socket.getCipher().standardName
  }

  channelBinding(type: 'tls-exporter' | 'tls-server-end-point'): Uint8Array | undefined {
    if (this.socket.destroyed) return undefined
    switch (type) {
      case 'tls-exporter':
        return this.#exporter()
      case 'tls-server-end-point': {
        const certificate =
          this.#resumed === undefined ? this.socket.getX509Certificate() : this.#resumed.certificate
        return certificate === undefined ? undefined : endPointBinding(certificate)
      }
    }
  }

  clientCertificate(): Uint8Array | undefined {
    const certificate = this.socket.getPeerX509Certificate()
    // A resumed session without certificate verifies too, so both are asked.
    return certificate !== undefined && isVerified(this.socket) ? certificate.raw : undefined
  }

  #exporter(): Uint8Array | undefined {
    const protocol = this.socket.getProtocol()
    // RFC 9266 §2: defined for TLS 1.3, before that only with the extended master secret
    if (protocol !== 'TLSv1.3') {
      const session = this.socket.getSession()
      if (protocol !== 'TLSv1.2' || session === undefined || !hasExtendedMasterSecret(session))
        return undefined
    }
    return this.socket.exportKeyingMaterial(32, 'EXPORTER-Channel-Binding', Buffer.alloc(0))
  }
}

function destroyOnTlsError(this: TLSSocket, error: Error): void {
  this.destroy(error)
}

/** Whether the chain of the client's certificate leads to a known authority. Node tells its own tls.Server only. */
function isVerified(socket: TLSSocket): boolean {
  const handle: unknown = Reflect.get(socket, '_handle')
  if (typeof handle !== 'object' || handle === null) return false
  const verifyError: unknown = Reflect.get(handle, 'verifyError')
  if (typeof verifyError !== 'function') return false
  const error: unknown = Reflect.apply(verifyError, handle, [])
  return error === undefined || error === null
}

const HASHES: ReadonlyMap<string, string> = new Map([
  // RFC 5929 §4.1: SHA-256 in place of MD5 and SHA-1
  ['1.2.840.113549.1.1.4', 'sha256'],
  ['1.2.840.113549.1.1.5', 'sha256'],
  ['1.2.840.10045.4.1', 'sha256'],
  ['1.2.840.10040.4.3', 'sha256'],
  ['1.2.840.113549.1.1.11', 'sha256'],
  ['1.2.840.113549.1.1.12', 'sha384'],
  ['1.2.840.113549.1.1.13', 'sha512'],
  ['1.2.840.113549.1.1.14', 'sha224'],
  ['1.2.840.10045.4.3.1', 'sha224'],
  ['1.2.840.10045.4.3.2', 'sha256'],
  ['1.2.840.10045.4.3.3', 'sha384'],
  ['1.2.840.10045.4.3.4', 'sha512'],
])
const RSA_PSS = '1.2.840.113549.1.1.10'
// Hashes inside the parameters of RSASSA-PSS (RFC 4055 §2.1), DER of the identifier in hex
const PSS_HASHES: ReadonlyMap<string, string> = new Map([
  ['2b0e03021a', 'sha256'], // SHA-1, replaced
  ['608648016503040201', 'sha256'],
  ['608648016503040202', 'sha384'],
  ['608648016503040203', 'sha512'],
  ['608648016503040204', 'sha224'],
])
const SHA1 = '2b0e03021a'

/** RFC 5929 §4.1: a hash of the certificate, by the hash of its signature; undefined when that has none or several. */
export function endPointBinding(certificate: X509Certificate): Uint8Array | undefined {
  const oid = certificate.signatureAlgorithmOid
  const hash = oid === RSA_PSS ? pssHash(certificate.raw) : HASHES.get(oid)
  return hash === undefined ? undefined : createHash(hash).update(certificate.raw).digest()
}

/** The one hash of an RSASSA-PSS signature; undefined when message and mask use different ones. */
function pssHash(certificate: Uint8Array): string | undefined {
  const parameters = at(certificate, 0x30, 1, 1) // Certificate.signatureAlgorithm.parameters
  if (parameters === undefined) return undefined
  let message = SHA1
  let mask = SHA1
  for (const { tag, content } of elements(parameters)) {
    // hashAlgorithm [0], maskGenAlgorithm [1]: the identifier, in the latter one deeper
    if (tag === 0xa0) message = hex(at(content, 0x30, 0))
    if (tag === 0xa1) mask = hex(at(content, 0x30, 1, 0))
  }
  return message === mask ? PSS_HASHES.get(message) : undefined
}

const hex = (bytes: Uint8Array | undefined): string =>
  bytes === undefined ? '' : Buffer.from(bytes).toString('hex')

/** RFC 7627: whether a session (OpenSSL's ASN.1 form) has the extended master secret: the lowest bit of its flags, [13]. */
export function hasExtendedMasterSecret(session: Uint8Array): boolean {
  for (const { tag, content } of elements(at(session, 0x30) ?? new Uint8Array())) {
    if (tag !== 0xad) continue
    const [flags] = elements(content)
    return (flags?.content.at(-1) ?? 0) % 2 === 1
  }
  return false
}

/** Walks into nested elements: the content of the outer one (which must have `tag`), then by position. */
function at(der: Uint8Array, tag: number, ...path: number[]): Uint8Array | undefined {
  const [outer] = elements(der)
  let found = outer?.tag === tag ? outer.content : undefined
  for (const index of path) found = found === undefined ? undefined : [...elements(found)][index]?.content
  return found
}

/** The elements of DER one after another; ends at the first that is not complete. */
function* elements(der: Uint8Array): Generator<{ readonly tag: number; readonly content: Uint8Array }> {
  let pos = 0
  while (pos + 2 <= der.length) {
    const tag = der[pos] ?? 0
    let length = der[pos + 1] ?? 0
    pos += 2
    if (length > 0x80) {
      const size = length - 0x80
      if (size > 4) return
      length = 0
      for (let i = 0; i < size; i++) length = length * 256 + (der[pos + i] ?? 0)
      pos += size
    }
    if (pos + length > der.length) return
    yield { tag, content: der.subarray(pos, pos + length) }
    pos += length
  }
}
