/**
 * Entries of archives as bytes, and what is kept of an archive as a whole. Entries are numbered in the order
 * in which they were appended; their times usually grow with the numbers, and `high` makes use of that. An
 * entry whose time does not fit (imported later, or by a wrong clock) is a stray: it does not raise `high`
 * and is in an index by time of its own.
 */
import type { Doc } from '../contract.ts'
import { decodeDoc, encodeDoc } from './codec.ts'
import type { Env } from './env.ts'
import { dedupeKey, headKey, lateKey, logKey, withKey } from './keys.ts'

/** Numbers of one archive: the log of one owner in one collection. */
export interface Head {
  /** Number of the archive, in its keys. */
  readonly archive: number
  /** Number of the last entry ever appended. */
  last: number
  /** Entries stored. */
  count: number
  /** Of them, strays. */
  strays: number
  /** Time of the last entry that is no stray, milliseconds, or -Infinity. */
  high: number
}

/** An entry without its document. */
export interface Line {
  readonly at: number
  /**
   * Highest time of this entry and those before it that are no strays, milliseconds; grows with the numbers.
   */
  readonly high: number
  readonly stray: boolean
  readonly with: string
  readonly dedupe: string | undefined
  /** Where the document starts. */
  readonly docAt: number
}

// Clocks of servers differ; more than this is a mistake. Milliseconds.
const futureMs = 3_600_000

/** Whether a time does not fit after what an archive has. */
export function isStray(head: Head, atMs: number, nowMs: number): boolean {
  return atMs < head.high || atMs > nowMs + futureMs
}

/**
 * The numbers of archives. In a transaction those of one archive are read and stored once, however many
 * entries it gets.
 */
export class Heads {
  readonly #env: Env
  readonly #changed = new Map<string, { readonly key: Buffer; readonly head: Head }>()

  constructor(env: Env) {
    this.#env = env
    const forget = () => this.#changed.clear()
    env.onGroup({ begin: forget, end: () => this.#store(), failed: forget })
  }

  /** Those of one archive; within a read or a write. */
  get(collection: number, owner: string): Head | undefined {
    const changed = this.#changed.get(`${collection} ${owner}`)
    if (changed !== undefined) return changed.head
    const stored = this.#env.tables.heads.get(headKey(collection, owner))
    return stored === undefined ? undefined : parseHead(stored)
  }

  /** Stores them at the end of the transaction; within a write. */
  set(collection: number, owner: string, head: Head): void {
    const name = `${collection} ${owner}`
    if (!this.#changed.has(name)) this.#changed.set(name, { key: headKey(collection, owner), head })
  }

  /** Deletes them; within a write. */
  remove(collection: number, owner: string): void {
    this.#changed.delete(`${collection} ${owner}`)
    this.#env.tables.heads.remove(headKey(collection, owner))
  }

  #store(): void {
    for (const { key, head } of this.#changed.values()) this.#env.tables.heads.put(key, headBytes(head))
    this.#changed.clear()
  }
}

/** The numbers of an archive from the value of their row. */
export function parseHead(stored: Buffer): Head {
  return {
    archive: stored.readDoubleBE(0),
    last: stored.readDoubleBE(8),
    count: stored.readDoubleBE(16),
    strays: stored.readDoubleBE(24),
    high: stored.readDoubleBE(32),
  }
}

function headBytes(head: Head): Buffer {
  const bytes = Buffer.allocUnsafe(40)
  bytes.writeDoubleBE(head.archive, 0)
  bytes.writeDoubleBE(head.last, 8)
  bytes.writeDoubleBE(head.count, 16)
  bytes.writeDoubleBE(head.strays, 24)
  bytes.writeDoubleBE(head.high, 32)
  return bytes
}

// form(1) flags(1) at(8) high(8) with-length(2) dedupe-length(2) with dedupe document
const form = 1
const fixed = 22
const strayFlag = 1
const dedupeFlag = 2

/** Bytes of an entry; {@link placeEntry} fills in what is known in the transaction only. */
export function encodeEntry(atMs: number, peer: string, dedupe: string | undefined, doc: Doc): Buffer {
  const peerBytes = Buffer.byteLength(peer)
  const dedupeBytes = dedupe === undefined ? 0 : Buffer.byteLength(dedupe)
  const bytes = encodeDoc(doc, fixed + peerBytes + dedupeBytes)
  bytes[0] = form
  bytes[1] = dedupe === undefined ? 0 : dedupeFlag
  bytes.writeDoubleBE(atMs, 2)
  bytes.writeDoubleBE(atMs, 10)
  bytes.writeUInt16BE(peerBytes, 18)
  bytes.writeUInt16BE(dedupeBytes, 20)
  bytes.write(peer, fixed)
  if (dedupe !== undefined) bytes.write(dedupe, fixed + peerBytes)
  return bytes
}

/** Fills in how the time of an entry fits those before it. */
export function placeEntry(bytes: Buffer, high: number, stray: boolean): void {
  bytes[1] = ((bytes[1] ?? 0) >= dedupeFlag ? dedupeFlag : 0) + (stray ? strayFlag : 0)
  bytes.writeDoubleBE(high, 10)
}

/** All of an entry but its document. */
export function parseLine(bytes: Buffer): Line {
  const peerEnd = fixed + bytes.readUInt16BE(18)
  const docAt = peerEnd + bytes.readUInt16BE(20)
  const flags = bytes[1] ?? 0
  return {
    at: bytes.readDoubleBE(2),
    high: bytes.readDoubleBE(10),
    stray: flags % 2 === strayFlag,
    with: bytes.toString('utf8', fixed, peerEnd),
    dedupe: flags >= dedupeFlag ? bytes.toString('utf8', peerEnd, docAt) : undefined,
    docAt,
  }
}

/** The highest time up to an entry, without the rest of it. */
export function highOf(bytes: Buffer): number {
  return bytes.readDoubleBE(10)
}

/** The same entry with another document. */
export function withDoc(bytes: Buffer, doc: Buffer): Buffer {
  return Buffer.concat([bytes.subarray(0, parseLine(bytes).docAt), doc])
}

/** The document of an entry. */
export function docOf<T extends Doc>(bytes: Buffer, line: Line): T {
  return decodeDoc<T>(bytes, line.docAt)
}

/** Stores an entry with its rows; within a write. */
export function putEntry(env: Env, archive: number, n: number, bytes: Buffer, line: Line): void {
  const { log, aux } = env.tables
  log.put(logKey(archive, n), bytes)
  aux.put(withKey(archive, line.with, n), nothing)
  if (line.stray) aux.put(lateKey(archive, line.at, n), nothing)
  if (line.dedupe !== undefined) aux.put(dedupeKey(archive, line.dedupe), logKey(archive, n).subarray(6))
}

/** Deletes an entry with its rows; within a write. */
export function removeEntry(env: Env, head: Head, n: number, line: Line): void {
  const { log, aux } = env.tables
  aux.remove(withKey(head.archive, line.with, n))
  if (line.stray) aux.remove(lateKey(head.archive, line.at, n))
  if (line.dedupe !== undefined) aux.remove(dedupeKey(head.archive, line.dedupe))
  log.remove(logKey(head.archive, n))
  head.count -= 1
  if (line.stray) head.strays -= 1
}

const nothing = Buffer.alloc(0)
const idDigits = 10

/** Id of an entry: its number, of fixed width so that ids sort as numbers do. */
export function idOf(n: number): string {
  return n.toString(36).padStart(idDigits, '0')
}

/** Number in an id, or 0 when it is not an id: no entry has it. */
export function numberIn(id: string): number {
  if (id.length !== idDigits || !/^[0-9a-z]+$/.test(id)) return 0
  const n = Number.parseInt(id, 36)
  return n < 2 ** 48 ? n : 0
}
