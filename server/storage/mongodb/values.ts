/**
 * Documents as BSON and back. What MongoDB or a compatible server refuses in field names (`$`, `.`, nothing at all)
 * and what the BSON library would take for one of its own objects is escaped with `%`; everything else stays as it is, so
 * that an operator can read the database and indexes work on the fields themselves.
 */
import { Binary, BSON } from 'mongodb'
import type { Document } from 'mongodb'
import { DocTooLarge } from '../contract.ts'
import type { Doc, Json } from '../contract.ts'
import { setField } from '../limits.ts'

/** Servers take 16 MiB; the rest is for what the driver keeps beside the document. */
const maxBsonBytes = 15 * 1024 * 1024

// No name is stored so: a `%` is followed by two hex digits or by nothing.
const textField = '%json'

const odd = /[%.$]/
const odds = /[%.$]/g

/** A field's name as it is stored. */
export function fieldName(name: string): string {
  if (name === '') return '%'
  if (name === '_bsontype') return '%5fbsontype'
  if (!odd.test(name)) return name
  return name.replace(odds, (c) => `%${c.charCodeAt(0).toString(16).padStart(2, '0')}`)
}

function originalName(name: string): string {
  if (!name.includes('%')) return name
  if (name === '%') return ''
  return name.replace(/%([0-9a-f]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
}

/** A checked document (`copyDoc`) as it is stored, and its size in bytes. Throws {@link DocTooLarge}. */
export function toStored(doc: Doc): { readonly stored: Document; readonly bytes: number } {
  const stored: Document = {}
  for (const [name, value] of Object.entries(doc)) {
    setField(stored, fieldName(name), value instanceof Uint8Array ? new Binary(value) : toStoredJson(value))
  }
  const bytes = BSON.calculateObjectSize(stored)
  if (bytes > maxBsonBytes) throw new DocTooLarge(`document has more than ${maxBsonBytes} bytes as BSON`)
  return { stored, bytes }
}

function toStoredJson(value: Json): unknown {
  if (typeof value !== 'object' || value === null) return value
  // COMPAT(FerretDB 1): a list in a list is refused. They are rare, and text is what all servers take.
  if (Array.isArray(value)) {
    return value.map((item: Json) =>
      Array.isArray(item) ? { [textField]: JSON.stringify(item) } : toStoredJson(item),
    )
  }
  const stored: Document = {}
  for (const [name, item] of Object.entries(value)) setField(stored, fieldName(name), toStoredJson(item))
  return stored
}

/** The document of what {@link toStored} gave; shares nothing with the answer it came in. */
export function fromStored<T extends Doc>(stored: Document): T {
  const doc: Record<string, unknown> = {}
  for (const [name, value] of Object.entries<unknown>(stored)) {
    // Bytes are views of the whole answer of the server, which they would keep in memory.
    const own = value instanceof Binary ? new Uint8Array(value.value()) : fromStoredJson(value)
    setField(doc, originalName(name), own)
  }
  return doc as T // what was stored under this name was a T; module versions are the module's business
}

function fromStoredJson(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map(fromStoredJson)
  if (textField in value && typeof value[textField] === 'string') {
    return JSON.parse(value[textField]) as Json // written by toStoredJson
  }
  const json: Record<string, unknown> = {}
  for (const [name, item] of Object.entries(value as Record<string, unknown>)) {
    setField(json, originalName(name), fromStoredJson(item))
  }
  return json
}
