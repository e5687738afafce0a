/**
 * Keys of the tables. LMDB takes keys up to 1,978 bytes here; what may be longer ends in a SHA-256 of the
 * whole and the whole is in the value. Numbers are big-endian, so the order of the bytes is the order of the
 * numbers; text is UTF-8.
 *
 *     docs    collection(4) owner-length(2) owner key...        document
 *     index   collection(4) field(2) value... place in docs     nothing, or the place in docs
 *     heads   collection(4) owner...                            numbers of an archive, see archive.ts
 *     log     archive(6) number(6)                              entry
 *     aux     archive(6) 'w' with... number(6)                  nothing
 *             archive(6) 'l' time(7) number(6)                  nothing: entries older than one before them
 *             archive(6) 'd' dedupe key...                      number(6)
 *     numbers kind(1) collection(4) owner or key...             counters and leases, see numbers.ts
 */
import { hash } from 'node:crypto'

/** Longest key of LMDB with pages of 4096 bytes, as lmdb-js limits it. */
export const maxKey = 1978
const digestBytes = 32
// Longer values than this are in an index by their digest.
const maxInline = 254
const maxInlineName = 1900
// Entries are from year 0 on; the difference makes their times positive.
const epoch = 62_167_219_200_000

/** SHA-256. */
export function digest(bytes: Buffer | string): Buffer {
  return hash('sha256', bytes, 'buffer')
}

/** The first key after all that start with `prefix`. */
export function after(prefix: Buffer): Buffer {
  const key = Buffer.from(prefix)
  for (let i = key.length - 1; i >= 0; i -= 1) {
    const byte = key[i] ?? 0
    if (byte < 0xff) {
      key[i] = byte + 1
      return key.subarray(0, i + 1)
    }
  }
  throw new RangeError('no key is after this one')
}

/** The least key after this one. */
export function next(key: Buffer): Buffer {
  return Buffer.concat([key, Buffer.alloc(1)])
}

/** Start of the keys of a collection. */
export function collectionPrefix(collection: number): Buffer {
  const key = Buffer.allocUnsafe(4)
  key.writeUInt32BE(collection)
  return key
}

/** Start of the keys of the documents of an owner. */
export function ownerPrefix(collection: number, owner: string): Buffer {
  return docKey(collection, owner, '')
}

/** Key of a document; as long as {@link maxKey} when its end is a digest. */
export function docKey(collection: number, owner: string, key: string): Buffer {
  const ownerBytes = Buffer.byteLength(owner)
  const length = 6 + ownerBytes + Buffer.byteLength(key)
  const bytes = Buffer.allocUnsafe(length)
  bytes.writeUInt32BE(collection, 0)
  bytes.writeUInt16BE(ownerBytes, 4)
  bytes.write(owner, 6)
  if (key !== '') bytes.write(key, 6 + ownerBytes)
  if (length < maxKey) return bytes
  // Of what follows the collection, so that its number may be filled in later.
  return Buffer.concat([bytes.subarray(0, maxKey - digestBytes), digest(bytes.subarray(4))])
}

/** Whether a key of a document ends in a digest. */
export function isCut(key: Uint8Array): boolean {
  return key.length === maxKey
}

/** Owner in the key of a document. */
export function ownerOf(key: Buffer): string {
  return key.toString('utf8', 6, 6 + key.readUInt16BE(4))
}

/** Key in the key of a document that is not cut. */
export function keyOf(key: Buffer): string {
  return key.toString('utf8', 6 + key.readUInt16BE(4))
}

/**
 * Text of any length as a part of a key with others after it: different texts give different parts, none
 * starts with another.
 */
function part(text: string): Buffer {
  const length = Buffer.byteLength(text)
  if (length > maxInline) return Buffer.concat([Buffer.from([maxInline + 1]), digest(text)])
  const bytes = Buffer.allocUnsafe(length + 1)
  bytes[0] = length
  bytes.write(text, 1)
  return bytes
}

/** Start of the keys in the index for a value of a field. */
export function indexPrefix(collection: number, field: number, value: string): Buffer {
  const head = Buffer.allocUnsafe(6)
  head.writeUInt32BE(collection, 0)
  head.writeUInt16BE(field, 4)
  return Buffer.concat([head, part(value)])
}

const empty = Buffer.alloc(0)
const noOwner = Buffer.from([0xff, 0xff])

/** Key and value in the index for a document at `place` in docs. */
export function indexRow(prefix: Buffer, place: Buffer): readonly [key: Buffer, value: Buffer] {
  const key = Buffer.concat([prefix, place.subarray(4)])
  // No owner is 65,535 bytes long, so a digest is never taken for a place.
  return key.length < maxKey ? [key, empty] : [Buffer.concat([prefix, noOwner, digest(place)]), place]
}

/** Place in docs that a row of the index stands for. */
export function placeOf(prefix: Buffer, key: Buffer, value: Buffer): Buffer {
  return value.length > 0
    ? Buffer.from(value)
    : Buffer.concat([key.subarray(0, 4), key.subarray(prefix.length)])
}

/** Key of the numbers of an archive. */
export function headKey(collection: number, owner: string): Buffer {
  const key = Buffer.allocUnsafe(4 + Buffer.byteLength(owner))
  key.writeUInt32BE(collection, 0)
  key.write(owner, 4)
  return key
}

/** Key of an entry. */
export function logKey(archive: number, n: number): Buffer {
  const key = Buffer.allocUnsafe(12)
  key.writeUIntBE(archive, 0, 6)
  key.writeUIntBE(n, 6, 6)
  return key
}

/** Number of an entry at the end of its key, in log, and of its rows by correspondent and by time. */
export function numberOf(key: Buffer): number {
  return key.readUIntBE(key.length - 6, 6)
}

/** Start of the rows of an archive in aux. */
export function auxPrefix(archive: number): Buffer {
  const key = Buffer.allocUnsafe(6)
  key.writeUIntBE(archive, 0, 6)
  return key
}

function auxKey(archive: number, kind: string, middle: Buffer, n: number | undefined): Buffer {
  const key = Buffer.allocUnsafe(7 + middle.length + (n === undefined ? 0 : 6))
  key.writeUIntBE(archive, 0, 6)
  key.write(kind, 6, 'latin1')
  key.set(middle, 7)
  if (n !== undefined) key.writeUIntBE(n, 7 + middle.length, 6)
  return key
}

/** Key of the row of an entry by its correspondent. */
export function withKey(archive: number, peer: string, n: number): Buffer {
  return auxKey(archive, 'w', part(peer), n)
}

/** Key of the row of a late entry by its time, milliseconds. */
export function lateKey(archive: number, atMs: number, n: number): Buffer {
  const time = Buffer.allocUnsafe(7)
  const positive = atMs + epoch
  time[0] = Math.floor(positive / 2 ** 48)
  time.writeUIntBE(positive % 2 ** 48, 1, 6)
  return auxKey(archive, 'l', time, n)
}

/** Key of the row of an entry by its dedupe key. */
export function dedupeKey(archive: number, dedupe: string): Buffer {
  return auxKey(archive, 'd', part(dedupe), undefined)
}

/** Key of a counter (`n`), of a lease (`l`), or of a number of a collection (`f`, `t`). */
export function numbersKey(kind: 'n' | 'l' | 'f' | 't', collection: number, name: string): Buffer {
  const bytes = Buffer.from(name)
  const head = Buffer.allocUnsafe(5)
  head.write(kind, 0, 'latin1')
  head.writeUInt32BE(collection, 1)
  if (bytes.length <= maxInlineName) return Buffer.concat([head, bytes])
  // Longer than any that is not cut.
  return Buffer.concat([head, bytes.subarray(0, maxInlineName), digest(bytes)])
}
