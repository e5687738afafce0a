/**
 * Documents as bytes: CBOR (RFC 8949), as far as documents need it: null, booleans, numbers, text, lists,
 * maps with text keys, and bytes. Lengths may be written longer than needed (RFC 8949 §3 allows it), so text
 * is encoded in one pass.
 */
import type { Doc, Json } from '../contract.ts'
import { checkDocBytes, checkFieldName, checkObject, maxDepth, setField } from '../limits.ts'

const keptBytes = 1024 * 1024
const two32 = 2 ** 32

// One encoder at a time: there is no await while it runs.
let out = Buffer.allocUnsafeSlow(64 * 1024)
let end = 0

/**
 * The bytes of a document, in a buffer of their own, after `front` bytes left for the caller. Throws
 * TypeError for what is not a document and DocTooLarge for too much of it, as `limits.ts` says.
 */
export function encodeDoc(doc: Doc, front: number): Buffer {
  end = front
  room(front)
  try {
    const fields = Object.keys(checkObject(doc)).filter((field) => doc[field] !== undefined)
    writeHead(5, fields.length)
    for (const field of fields) {
      const value = doc[field]
      if (value === undefined) continue
      writeName(field)
      if (value instanceof Uint8Array) writeBytes(value)
      else writeValue(value, 1)
    }
    checkDocBytes(end - front)
    return Buffer.from(out.subarray(0, end))
  } finally {
    if (out.length > keptBytes) out = Buffer.allocUnsafeSlow(64 * 1024)
  }
}

function room(bytes: number): void {
  if (end + bytes <= out.length) return
  checkDocBytes(end)
  const larger = Buffer.allocUnsafeSlow(Math.max(out.length * 2, end + bytes))
  out.copy(larger, 0, 0, end)
  out = larger
}

function writeHead(major: number, value: number): void {
  room(9)
  const kind = major * 32
  if (value < 24) out[end++] = kind + value
  else if (value < 0x100) {
    out[end++] = kind + 24
    out[end++] = value
  } else if (value < 0x1_0000) {
    out[end++] = kind + 25
    end = out.writeUInt16BE(value, end)
  } else if (value < two32) {
    out[end++] = kind + 26
    end = out.writeUInt32BE(value, end)
  } else {
    out[end++] = kind + 27
    end = out.writeUInt32BE(Math.floor(value / two32), end)
    end = out.writeUInt32BE(value % two32, end)
  }
}

function writeName(name: string): void {
  checkFieldName(name)
  writeText(name)
}

function writeText(text: string): void {
  if (!text.isWellFormed()) throw new TypeError('text in a document is not well-formed Unicode')
  // A UTF-16 unit is at most three bytes: the head is as long as that may need, so that the text is written
  // only once.
  const most = text.length * 3
  if (most > two32 - 1) checkDocBytes(most)
  room(most + 5)
  const start = end
  end += most < 24 ? 1 : most < 0x100 ? 2 : most < 0x1_0000 ? 3 : 5
  const written = out.write(text, end)
  if (most < 24) out[start] = 96 + written
  else if (most < 0x100) {
    out[start] = 120
    out[start + 1] = written
  } else if (most < 0x1_0000) {
    out[start] = 121
    out.writeUInt16BE(written, start + 1)
  } else {
    out[start] = 122
    out.writeUInt32BE(written, start + 1)
  }
  end += written
}

function writeBytes(bytes: Uint8Array): void {
  checkDocBytes(bytes.length)
  writeHead(2, bytes.length)
  room(bytes.length)
  out.set(bytes, end)
  end += bytes.length
}

function writeNumber(value: number): void {
  if (Number.isSafeInteger(value)) {
    if (value >= 0) writeHead(0, value)
    else writeHead(1, -1 - value)
    return
  }
  if (!Number.isFinite(value)) throw new TypeError('number in a document is not finite')
  room(9)
  out[end++] = 0xfb
  end = out.writeDoubleBE(value, end)
}

function writeValue(value: Json, depth: number): void {
  if (typeof value === 'string') return writeText(value)
  if (typeof value === 'number') return writeNumber(value)
  if (typeof value === 'boolean' || value === null) {
    room(1)
    out[end++] = value === null ? 0xf6 : value ? 0xf5 : 0xf4
    return
  }
  if (depth >= maxDepth) throw new TypeError(`document has more than ${maxDepth} levels`)
  if (Array.isArray(value)) {
    writeHead(4, value.length)
    // By index: a hole in a list must be found, not passed over.
    for (let i = 0; i < value.length; i += 1) writeValue(value[i] as Json, depth + 1)
    return
  }
  const map = checkObject<{ readonly [field: string]: Json | undefined } | readonly Json[]>(value) as {
    readonly [field: string]: Json | undefined
  } // lists went another way
  const fields = Object.keys(map).filter((field) => map[field] !== undefined)
  writeHead(5, fields.length)
  for (const field of fields) {
    writeName(field)
    writeValue(map[field] as Json, depth + 1)
  }
}

// The decoder likewise.
let src: Buffer = out
let at = 0

/**
 * The document whose bytes start at `from`; shares no memory with them. Throws Error when they are not a
 * document.
 */
export function decodeDoc<T extends Doc>(bytes: Buffer, from: number): T {
  src = bytes
  at = from
  const head = src[at++]
  if (head === undefined || head < 160 || head >= 192)
    throw new Error('the store has bytes that are not a document')
  return readMap(readLength(head - 160)) as T // this store only has what encodeDoc wrote
}

function readLength(info: number): number {
  if (info < 24) return info
  if (info === 24) return src[at++] ?? 0
  if (info === 25) {
    at += 2
    return src.readUInt16BE(at - 2)
  }
  if (info === 26) {
    at += 4
    return src.readUInt32BE(at - 4)
  }
  if (info === 27) {
    at += 8
    return src.readUInt32BE(at - 8) * two32 + src.readUInt32BE(at - 4)
  }
  throw new Error(`the store has a CBOR length that is not known here: ${info}`)
}

function readText(length: number): string {
  const start = at
  at += length
  // Short names are faster letter by letter than by a call into the runtime.
  if (length < 12) {
    let text = ''
    for (let i = start; i < at; i += 1) {
      const byte = src[i] ?? 0
      if (byte >= 0x80) return src.toString('utf8', start, at)
      text += String.fromCharCode(byte)
    }
    return text
  }
  return src.toString('utf8', start, at)
}

function readMap(size: number): Record<string, Json | Uint8Array> {
  const map: Record<string, Json | Uint8Array> = {}
  for (let i = 0; i < size; i += 1) {
    const name = readText(readLength((src[at++] ?? 0) % 32))
    setField(map, name, readValue())
  }
  return map
}

function readValue(): Json | Uint8Array {
  const head = src[at++] ?? 0
  const info = head % 32
  switch (head - info) {
    case 0:
      return readLength(info)
    case 32:
      return -1 - readLength(info)
    case 64: {
      const length = readLength(info)
      at += length
      return new Uint8Array(src.subarray(at - length, at))
    }
    case 96:
      return readText(readLength(info))
    case 128: {
      const list: Json[] = []
      // Bytes are at the top level of a document only.
      for (let left = readLength(info); left > 0; left -= 1) list.push(readValue() as Json)
      return list
    }
    case 160:
      return readMap(readLength(info)) as { readonly [field: string]: Json } // no bytes here either
    default:
      return readSimple(head)
  }
}

function readSimple(head: number): Json {
  if (head === 0xf4) return false
  if (head === 0xf5) return true
  if (head === 0xf6) return null
  if (head !== 0xfb) throw new Error(`the store has a CBOR type that is not known here: ${head}`)
  at += 8
  return src.readDoubleBE(at - 8)
}
