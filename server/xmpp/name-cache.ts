/**
 * Bounded caches that turn the bytes of names and namespaces into one checked string each: looking a name up costs less than making
 * it, and equal names are the same object.
 */
import { isUtf8 } from 'node:buffer'
import { endsName } from './chars.ts'
import { notWellFormed, StreamError } from './errors.ts'
import { isNcName } from './names.ts'

/** What a name does when it stands on an attribute. */
export type Role = 'plain' | 'prefixed' | 'default' | 'declaration'

/** A qualified name as written, checked. */
export class Name {
  readonly qname: string
  /** '' when none. */
  readonly prefix: string
  readonly local: string
  readonly role: Role
  /** Whether an attribute of this name declares a namespace. */
  readonly declares: boolean
  /** UTF-8 of `qname`. */
  readonly bytes: Uint8Array
  /** Whether it has characters beyond ASCII. */
  readonly high: boolean

  constructor(qname: string, bytes: Uint8Array) {
    const colon = qname.indexOf(':')
    const prefix = colon < 0 ? '' : qname.slice(0, colon)
    const local = qname.slice(colon + 1)
    // Namespaces in XML 1.0 §4, production QName: at most one colon, with a name on both sides.
    if (!isNcName(local) || (colon >= 0 && !isNcName(prefix))) throw notWellFormed('not a name')
    this.qname = qname
    this.prefix = prefix
    this.local = local
    this.role = role(prefix, local)
    this.declares = this.role === 'default' || this.role === 'declaration'
    this.bytes = bytes
    this.high = bytes.length !== qname.length
  }
}

function role(prefix: string, local: string): Role {
  if (prefix === 'xmlns') return 'declaration'
  // "xml" is bound without a declaration and `xml:lang` is what everybody calls the attribute: no need to resolve it.
  if (prefix === 'xml') return 'plain'
  return prefix !== '' ? 'prefixed' : local === 'xmlns' ? 'default' : 'plain'
}

/** Strings up to that many bytes are worth keeping. */
const MAX_CACHED_BYTES = 96
const SETS = 1024

interface Entry {
  /** UTF-8 of the string. */
  readonly bytes: Uint8Array
}

/**
 * Two entries per set, chosen by a few of the bytes, enough to tell the names of real protocols apart; the older one goes. So what a
 * hostile peer fills the cache with does not stay either.
 */
class ByteCache<E extends Entry> {
  readonly #newer: (E | undefined)[] = Array.from({ length: SETS })
  readonly #older: (E | undefined)[] = Array.from({ length: SETS })

  find(data: Buffer, start: number, end: number): E | undefined {
    const set = setOf(data, start, end)
    const newer = this.#newer[set]
    if (newer !== undefined && sameBytes(newer.bytes, data, start, end)) return newer
    const older = this.#older[set]
    if (older !== undefined && sameBytes(older.bytes, data, start, end)) return older
    return undefined
  }

  add(entry: E): E {
    const { bytes } = entry
    if (bytes.length > MAX_CACHED_BYTES) return entry
    const set = setOf(bytes, 0, bytes.length)
    this.#older[set] = this.#newer[set]
    this.#newer[set] = entry
    return entry
  }
}

function setOf(data: Uint8Array, start: number, end: number): number {
  const length = end - start
  const near = data[length > 3 ? end - 3 : start] ?? 0
  const far = data[length > 6 ? end - 6 : start] ?? 0
  return (length * 67 + (data[start] ?? 0) * 113 + (data[end - 1] ?? 0) * 31 + near * 7 + far * 251) % SETS
}

function sameBytes(bytes: Uint8Array, data: Buffer, start: number, end: number): boolean {
  const length = bytes.length
  if (length !== end - start) return false
  for (let i = 0; i < length; i++) if (bytes[i] !== data[start + i]) return false
  return true
}

const names = new ByteCache<Name>()

/** Names by their first three bytes, or what follows a shorter name: found before it is known where the name ends. */
const recent: (Name | undefined)[] = Array.from({ length: SETS })

function recentSlot(data: Buffer, start: number): number {
  return ((data[start] ?? 0) * 113 + (data[start + 1] ?? 0) * 31 + (data[start + 2] ?? 0) * 7) % SETS
}

/** The name that begins at `start`, when the same one was met lately and something that ends it follows before `end`. */
export function recentName(data: Buffer, start: number, end: number): Name | undefined {
  if (start + 2 >= end) return undefined
  const name = recent[recentSlot(data, start)]
  if (name === undefined) return undefined
  const bytes = name.bytes
  const length = bytes.length
  if (start + length >= end) return undefined
  for (let i = 0; i < length; i++) if (bytes[i] !== data[start + i]) return undefined
  return endsName(data[start + length] ?? 0) ? name : undefined
}

/** The name between two offsets, at least one byte. Throws `not-well-formed` when it is none. */
export function nameAt(data: Buffer, start: number, end: number): Name {
  const name = names.find(data, start, end) ?? newName(data, start, end)
  if (start + 2 < data.length && name.bytes.length <= MAX_CACHED_BYTES) recent[recentSlot(data, start)] = name
  return name
}

function newName(data: Buffer, start: number, end: number): Name {
  const bytes = new Uint8Array(data.subarray(start, end))
  if (!isUtf8(bytes)) throw new StreamError('unsupported-encoding', 'invalid UTF-8')
  return names.add(new Name(unique(data.toString('utf8', start, end)), bytes))
}

interface Namespace extends Entry {
  readonly text: string
}

const namespaces = new ByteCache<Namespace>()

/** The namespace name between two offsets: ASCII with nothing to decode. */
export function namespaceAt(data: Buffer, start: number, end: number): string {
  if (start === end) return ''
  const cached = namespaces.find(data, start, end)
  if (cached !== undefined) return cached.text
  const bytes = new Uint8Array(data.subarray(start, end))
  return namespaces.add({ bytes, text: unique(data.toString('latin1', start, end)) }).text
}

const keys: Record<string, true> = Object.create(null)

/**
 * The string the engine itself keeps for this text, the same that stands in the code: comparing the two is comparing pointers.
 * Property keys are such strings.
 */
function unique(text: string): string {
  keys[text] = true
  const [key] = Object.keys(keys)
  delete keys[text]
  return key ?? text
}
