/**
 * The PROXY protocol of HAProxy, versions 1 and 2 (receiver): the first bytes of a connection say who the client behind a
 * load balancer is. Checks the CRC32c of version 2; ignores its other type-length-values. Does not send headers.
 */
import type { Socket } from 'node:net'
import { isIPv4, isIPv6 } from 'node:net'

/** What a header says. */
export interface ProxyHeader {
  /** Length in bytes; the client's own data follow. */
  readonly length: number
  /** The client; undefined when the proxy speaks for itself (LOCAL) or does not know (UNKNOWN, UNSPEC). */
  readonly source: { readonly address: string; readonly port: number } | undefined
}

/** The header is malformed, so the connection must be closed. */
export class ProxyError extends Error {}

/** Longest header that is accepted: TLVs of version 2 may be long, but not without end. */
export const MAX_HEADER = 4096

const SIGNATURE = Buffer.from('0d0a0d0a000d0a515549540a', 'hex')
const V1_START = Buffer.from('PROXY ')
const V1_MAX = 107
const V2_FIXED = 16
const TLV_CRC32C = 0x03

/** Reads a header. Returns undefined while it is not complete; throws ProxyError when this is no valid header. */
export function parseProxyHeader(bytes: Buffer): ProxyHeader | undefined {
  if (startsAlike(bytes, SIGNATURE)) return bytes.length < V2_FIXED ? undefined : parseV2(bytes)
  if (startsAlike(bytes, V1_START)) return parseV1(bytes)
  throw new ProxyError('no PROXY header')
}

function startsAlike(bytes: Buffer, start: Buffer): boolean {
  const length = Math.min(bytes.length, start.length)
  return bytes.subarray(0, length).equals(start.subarray(0, length))
}

function parseV1(bytes: Buffer): ProxyHeader | undefined {
  // §2.1: at most 107 bytes with CR LF
  const end = bytes.subarray(0, V1_MAX).indexOf('\r\n')
  if (end < 0) {
    if (bytes.length >= V1_MAX) throw new ProxyError('the PROXY line is too long')
    return undefined
  }
  const length = end + 2
  const fields = bytes.toString('latin1', 0, end).split(' ')
  const [, family, from = '', to = '', fromPort = '', toPort = ''] = fields
  // §2.1: what follows UNKNOWN up to the end of the line is ignored
  if (family === 'UNKNOWN') return { length, source: undefined }
  const isAddress = family === 'TCP4' ? isIPv4 : family === 'TCP6' ? isIPv6 : undefined
  if (isAddress === undefined || fields.length !== 6) throw new ProxyError('malformed PROXY line')
  if (
    !isAddress(from) ||
    !isAddress(to) ||
    `${from}${to}`.includes('%') ||
    !isPort(fromPort) ||
    !isPort(toPort)
  )
    throw new ProxyError('malformed address in the PROXY line')
  const address = family === 'TCP4' ? from : canonicalIPv6(from)
  return { length, source: { address, port: Number(fromPort) } }
}

/** §2.1: decimal, no leading zero, 0 to 65535 */
const isPort = (text: string) => /^(0|[1-9]\d{0,4})$/.test(text) && Number(text) <= 65_535

function parseV2(bytes: Buffer): ProxyHeader | undefined {
  const versionCommand = bytes.readUInt8(12)
  const family = bytes.readUInt8(13)
  const rest = bytes.readUInt16BE(14)
  const length = V2_FIXED + rest
  if (versionCommand !== 0x20 && versionCommand !== 0x21)
    throw new ProxyError('unknown version or command of the PROXY header')
  if (length > MAX_HEADER) throw new ProxyError('the PROXY header is too long')
  const size = ADDRESS_SIZE.get(family)
  if (size === undefined) throw new ProxyError('unknown address family in the PROXY header')
  // §2.2: with LOCAL the addresses are to be skipped whatever they are
  const local = versionCommand === 0x20
  if (!local && rest < size) throw new ProxyError('the addresses in the PROXY header are cut off')
  if (bytes.length < length) return undefined
  const header = bytes.subarray(0, length)
  if (rest >= size) checkTlvs(header, V2_FIXED + size)
  return { length, source: local ? undefined : readSource(header, family) }
}

// §2.2: transport protocol and address family, and how many bytes of addresses they have
const ADDRESS_SIZE: ReadonlyMap<number, number> = new Map([
  [0x00, 0],
  [0x11, 12],
  [0x12, 12],
  [0x21, 36],
  [0x22, 36],
  [0x31, 216],
  [0x32, 216],
])

function readSource(header: Buffer, family: number): ProxyHeader['source'] {
  switch (family) {
    case 0x11:
      return { address: [...header.subarray(16, 20)].join('.'), port: header.readUInt16BE(24) }
    case 0x21: {
      const groups = Array.from({ length: 8 }, (_, i) => header.readUInt16BE(16 + 2 * i).toString(16))
      return { address: canonicalIPv6(groups.join(':')), port: header.readUInt16BE(48) }
    }
    default:
      // UNSPEC, a socket of the proxy's own machine, or datagrams: the addresses of the connection itself count
      return undefined
  }
}

function canonicalIPv6(address: string): string {
  const short = new URL(`http://[${address}]/`).hostname.slice(1, -1)
  const mapped = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(short)
  if (mapped === null) return short
  const octets = [mapped[1], mapped[2]].flatMap((group) => {
    const value = Number.parseInt(group ?? '', 16)
    return [Math.floor(value / 256), value % 256]
  })
  return octets.join('.')
}

/** §2.2: type-length-values must fill the header exactly; a checksum must be right (§2.2.3). */
function checkTlvs(header: Buffer, start: number): void {
  let pos = start
  while (pos < header.length) {
    if (pos + 3 > header.length) throw new ProxyError('the PROXY header ends inside a value')
    const type = header.readUInt8(pos)
    const next = pos + 3 + header.readUInt16BE(pos + 1)
    if (next > header.length) throw new ProxyError('the PROXY header ends inside a value')
    if (type === TLV_CRC32C) {
      if (next !== pos + 7) throw new ProxyError('the checksum in the PROXY header has a wrong length')
      const cleared = Buffer.from(header)
      cleared.fill(0, pos + 3, next)
      if (crc32c(cleared) !== header.readUInt32BE(pos + 3))
        throw new ProxyError('the checksum in the PROXY header is wrong')
    }
    pos = next
  }
}

/* oxlint-disable no-bitwise -- a checksum is made of nothing else */
let crcTable: Uint32Array | undefined

/** RFC 3720 appendix B.4 (Castagnoli). */
function crc32c(bytes: Uint8Array): number {
  crcTable ??= Uint32Array.from({ length: 256 }, (_, n) => {
    let value = n
    for (let bit = 0; bit < 8; bit++) value = (value >>> 1) ^ ((value & 1) === 1 ? 0x82f63b78 : 0)
    return value
  })
  let crc = 0xffffffff
  for (const byte of bytes) crc = (crc >>> 8) ^ (crcTable[(crc ^ byte) & 0xff] ?? 0)
  return (crc ^ 0xffffffff) >>> 0
}
/* oxlint-enable no-bitwise */

/**
 * Reads the header from a new socket, then calls `done` with it; what follows the header is put back. When the header is
 * malformed or the connection ends first, calls `done` with the error and has destroyed the socket. No time limit of its own:
 * destroying the socket ends the reading.
 */
export function readProxyHeader(socket: Socket, done: (result: ProxyHeader | Error) => void): void {
  let received: Buffer = Buffer.alloc(0)
  const finish = (result: ProxyHeader | Error): void => {
    socket.off('readable', read)
    socket.off('end', ended)
    socket.off('close', ended)
    socket.off('error', failed)
    done(result)
  }
  const ended = (): void => {
    socket.destroy()
    finish(new ProxyError('the connection ended before its PROXY header was complete'))
  }
  const failed = (error: Error): void => {
    socket.destroy()
    finish(error)
  }
  const read = (): void => {
    for (;;) {
      const chunk: unknown = socket.read()
      if (!(chunk instanceof Buffer)) break
      received = received.length === 0 ? chunk : Buffer.concat([received, chunk])
    }
    let header: ProxyHeader | undefined
    try {
      header = parseProxyHeader(received)
    } catch (error) {
      socket.destroy()
      finish(error instanceof Error ? error : new ProxyError(String(error)))
      return
    }
    if (header === undefined) return
    if (received.length > header.length) socket.unshift(received.subarray(header.length))
    finish(header)
  }
  socket.on('readable', read)
  socket.on('end', ended)
  socket.on('close', ended)
  socket.on('error', failed)
}
