/**
 * What every driver refuses before it stores anything: lengths of owners, keys and names, malformed text,
 * values that are not documents, queries out of range. Drivers call these first, so that all of them refuse
 * the same with the same error.
 */
import { DocTooLarge } from './contract.ts'
import type { Doc, Json, Query, Removal } from './contract.ts'

/** Longest owner, bytes of UTF-8. */
export const maxOwnerBytes = 1023
/** Longest key, `with` and dedupe key, bytes of UTF-8 (a full JID, RFC 7622 §3.1). */
export const maxKeyBytes = 3071
/** More text and bytes than this in one document is refused; bytes. */
export const maxDocBytes = 8 * 1024 * 1024
/** Deepest nesting of a document. */
export const maxDepth = 64
/** Largest page. */
export const maxPage = 1000

const maxNameBytes = 255
// Years 0 to 9999, milliseconds: what XEP-0082 can write.
const firstTime = -62_167_219_200_000
const lastTime = 253_402_300_799_999

function checkText(what: string, text: string, maxBytes: number): void {
  if (typeof text !== 'string') throw new TypeError(`${what} is not a string`)
  if (text.length > maxBytes) throw new RangeError(`${what} is longer than ${maxBytes} bytes`)
  if (!text.isWellFormed()) throw new TypeError(`${what} is not well-formed Unicode`)
  // A UTF-16 unit is at most three bytes of UTF-8, so most need not be measured.
  if (text.length * 3 > maxBytes && Buffer.byteLength(text) > maxBytes) {
    throw new RangeError(`${what} is longer than ${maxBytes} bytes`)
  }
}

/** Throws RangeError or TypeError when `owner` cannot be one. */
export function checkOwner(owner: string): void {
  checkText('owner', owner, maxOwnerBytes)
}

/** Throws RangeError or TypeError when `key` cannot be one; `what` names it in the message. */
export function checkKey(key: string, what = 'key'): void {
  checkText(what, key, maxKeyBytes)
}

/** Throws when a host, module or collection name cannot be one; only a host may be empty. */
export function checkName(what: 'host' | 'module' | 'collection' | 'index field', name: string): void {
  checkText(what, name, maxNameBytes)
  if (name === '' && what !== 'host') throw new RangeError(`${what} is empty`)
  if (name.includes('\0')) throw new RangeError(`${what} has a NUL`)
}

/** Throws RangeError unless the time is one that an archive entry may have. */
export function checkTime(at: Date): void {
  const ms = at.getTime()
  if (!(ms >= firstTime && ms <= lastTime))
    throw new RangeError('time of an entry is not in the years 0 to 9999')
}

/** Throws RangeError when a query is out of range. */
export function checkQuery(q: Query): void {
  if (!Number.isInteger(q.limit) || q.limit < 1 || q.limit > maxPage) {
    throw new RangeError(`limit of a page is not 1 to ${maxPage}`)
  }
  if (q.ids !== undefined && q.ids.length > maxPage) throw new RangeError(`more than ${maxPage} ids`)
  if (q.effort !== undefined && !(Number.isInteger(q.effort) && q.effort >= 1)) {
    throw new RangeError('effort of a page is not a whole number of 1 or more')
  }
  for (const at of [q.start, q.end]) {
    if (at !== undefined && Number.isNaN(at.getTime())) throw new RangeError('start or end is not a time')
  }
}

/** Throws RangeError when a removal is out of range. */
export function checkRemoval(q: Removal): void {
  if (q.until !== undefined && Number.isNaN(q.until.getTime())) throw new RangeError('until is not a time')
  if (q.keepLast !== undefined && !(Number.isInteger(q.keepLast) && q.keepLast >= 0)) {
    throw new RangeError('keepLast is not a whole number')
  }
}

/** Throws RangeError unless a lease can last so long. */
export function checkTtl(ttlMs: number): void {
  if (!(Number.isFinite(ttlMs) && ttlMs > 0)) throw new RangeError('a lease needs a time to live above 0')
}

/** Throws {@link DocTooLarge} when a document of that many bytes is over the limit. */
export function checkDocBytes(bytes: number): void {
  if (bytes > maxDocBytes) throw new DocTooLarge(`document has more than ${maxDocBytes} bytes`)
}

/**
 * A copy of a document that shares nothing with it, undefined fields left out. Throws TypeError for what is
 * not a document (a number that is not finite, a lone surrogate, a NUL in a name, bytes below the top level,
 * more than {@link maxDepth} levels), {@link DocTooLarge} for too much of it.
 */
export function copyDoc<T extends Doc>(doc: T): T {
  const size = { bytes: 0 }
  const copy: Record<string, Json | Uint8Array> = {}
  for (const [field, value] of Object.entries<Json | Uint8Array | undefined>(checkObject(doc))) {
    if (value === undefined) continue
    countName(field, size)
    if (value instanceof Uint8Array) {
      size.bytes += value.length
      checkDocBytes(size.bytes)
      // Not slice(): on a Buffer that gives a view of the same memory.
      setField(copy, field, new Uint8Array(value))
    } else setField(copy, field, copyJson(value, 1, size))
  }
  return copy as T // the same fields with the same values, as just checked
}

function copyJson(value: Json, depth: number, size: { bytes: number }): Json {
  switch (typeof value) {
    case 'string':
      countText(value, size)
      return value
    case 'number':
      if (!Number.isFinite(value)) throw new TypeError('number in a document is not finite')
      size.bytes += 1
      return value
    case 'boolean':
      return value
    default:
  }
  if (value === null) return null
  if (depth >= maxDepth) throw new TypeError(`document has more than ${maxDepth} levels`)
  if (Array.isArray(value)) {
    size.bytes += value.length
    checkDocBytes(size.bytes)
    return Array.from<Json, Json>(value, (item) => copyJson(item, depth + 1, size))
  }
  const copy: Record<string, Json> = {}
  for (const [field, item] of Object.entries<Json | undefined>(checkObject(value))) {
    if (item === undefined) continue
    countName(field, size)
    setField(copy, field, copyJson(item, depth + 1, size))
  }
  return copy
}

function countName(name: string, size: { bytes: number }): void {
  checkFieldName(name)
  countText(name, size)
}

/** Throws TypeError for a NUL in the name of a field: BSON cannot have it. */
export function checkFieldName(name: string): void {
  if (name.includes('\0')) throw new TypeError('name of a field in a document has a NUL')
}

function countText(text: string, size: { bytes: number }): void {
  if (!text.isWellFormed()) throw new TypeError('text in a document is not well-formed Unicode')
  size.bytes += text.length > 1000 ? Buffer.byteLength(text) : text.length
  checkDocBytes(size.bytes)
}

/** The value itself when it is a plain object; else throws TypeError. */
export function checkObject<T>(value: T): T & object {
  if (typeof value !== 'object' || value === null) throw new TypeError(`${typeof value} in a document`)
  const proto: unknown = Object.getPrototypeOf(value)
  if (proto !== null && proto !== Object.prototype)
    throw new TypeError('object in a document is not a plain one')
  return value
}

/** Sets a field of a new plain object, whatever its name is. */
export function setField<V>(target: Record<string, V>, field: string, value: V): void {
  if (field !== '__proto__') target[field] = value
  // Assigning to __proto__ would change what the object inherits from.
  else Object.defineProperty(target, field, { value, writable: true, enumerable: true, configurable: true })
}
