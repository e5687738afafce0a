/**
 * Names and keys in the database. One database collection per (kind, module, collection name) holds all hosts: a server
 * with a thousand hosts has no more of them than one with a single host. A key is one string, `host/owner/key`, so that
 * the index on `_id`, which every collection has, answers "this key", "this owner" and "this host" alike, and the order
 * is the one of the key: strings compare bytewise everywhere. An embedded `_id` would need a second index, depends on
 * the order of its fields, and not all compatible servers can use it for ranges.
 */
import { createHash } from 'node:crypto'

/** Kinds of collections; the first part of a collection's name. */
export type Kind = 'docs' | 'archive' | 'counter' | 'lease'

/** From here on (bytes of UTF-8) the tail of a key is a hash: compatible servers index 2,048 bytes, not more. */
export const maxPartBytes = 512

/** Name of the database collection that holds a module's collection of all hosts. */
export function collectionName(kind: Kind, module: string, name: string): string {
  return `${kind}.${namePart(module)}.${namePart(name)}`
}

/** The kind of a collection by its name; undefined when it is not one of ours. */
export function kindOf(collection: string): Kind | undefined {
  const kind = /^(docs|archive|counter|lease)\.[^.]+\.[^.]+$/.exec(collection)?.[1]
  return kind === 'docs' || kind === 'archive' || kind === 'counter' || kind === 'lease' ? kind : undefined
}

function namePart(name: string): string {
  // Lower case only: some servers keep collections in files or tables whose names know no case.
  const safe = name.replace(/[^a-z0-9_-]/gu, (c) => `~${Buffer.from(c).toString('hex')}~`)
  // Names with the database are limited to 120 bytes in old servers. `~~` comes from no other name.
  return safe.length <= 40 ? safe : `${safe.slice(0, 12)}~~${sha256(name).toString('hex').slice(0, 24)}`
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}

/**
 * The text, or its first {@link maxPartBytes} bytes (to the end of a character) with a hash of all of it: same order on
 * those bytes, same equality. Whether it was cut is the caller's to see: the result differs from `text`.
 */
export function part(text: string): string {
  // A UTF-16 unit is at most three bytes of UTF-8.
  if (text.length * 3 <= maxPartBytes) return text
  const bytes = Buffer.from(text)
  if (bytes.length <= maxPartBytes) return text
  let end = maxPartBytes
  while (((bytes[end] ?? 0) & 0xc0) === 0x80) end += 1 // oxlint-disable-line no-bitwise -- UTF-8 is defined by bits
  return `${bytes.toString('utf8', 0, end)}%#${sha256(text).toString('base64url')}`
}

function escape(text: string): string {
  return text.replace(/[%/]/g, (c) => (c === '%' ? '%25' : '%2F'))
}

function unescape(text: string): string {
  return text.replace(/%25|%2F/g, (c) => (c === '%25' ? '%' : '/'))
}

/** `host/`: what every key of a host begins with. */
export function hostPrefix(host: string): string {
  return `${part(escape(host))}/`
}

/** `host/owner`: the name of an owner among all hosts. */
export function ownerKey(host: string, owner: string): string {
  return `${hostPrefix(host)}${part(escape(owner))}`
}

/** The owner of an {@link ownerKey}; wrong when it was cut, callers keep the full name beside it then. */
export function ownerOf(key: string): string {
  return unescape(key.slice(key.indexOf('/') + 1))
}

/** Whether {@link ownerKey} does not hold the whole owner. */
export function isCut(owner: string): boolean {
  const escaped = escape(owner)
  return part(escaped) !== escaped
}

/**
 * A key for what outlives the owner (the last number of a counter or archive): it does not say whose it was. Never equal
 * to an owner key with something after it, since it has one slash.
 */
export function hiddenKey(host: string, owner: string): string {
  return `${hostPrefix(host)}${sha256(owner).toString('base64url')}`
}

/** `_id` of a document. */
export function docKey(owner: string, key: string): string {
  return `${owner}/${part(key)}`
}

/** Everything below a key that ends in a slash: `0` is the character after `/`. */
export function below(prefix: string): { readonly $gte: string; readonly $lt: string } {
  return { $gte: prefix, $lt: `${prefix.slice(0, -1)}0` }
}

// 53 bits in base 32 are 11 characters, whose bytes sort as the numbers do.
const idLength = 11
const idForm = /^[0-9a-v]{11}$/

/** The id of an archive entry: its number, written so that ids sort bytewise as the numbers do. */
export function entryId(n: number): string {
  return n.toString(32).padStart(idLength, '0')
}

/** The number in an entry's id; undefined when it is none of ours. */
export function entryNumber(id: string): number | undefined {
  if (!idForm.test(id)) return undefined
  const n = Number.parseInt(id, 32)
  return Number.isSafeInteger(n) ? n : undefined
}

/** The entry's id at the end of its `_id`. */
export function idOf(key: string): string {
  return key.slice(-idLength)
}
