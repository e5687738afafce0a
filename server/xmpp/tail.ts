/**
 * The beginning of a token whose end has not come yet. Only new bytes are searched for the end, and space doubles as it fills, so
 * that the work is linear however small the pieces are; the bound on bytes holds before anything is stored.
 */
import { BYTE, NAME_END } from './chars.ts'
import { policyViolation } from './errors.ts'
import { TEXT_PIECE } from './scanner.ts'

/** While the token is that short it is tried again with every write: what it is may be wrong from the start. */
const SHORT = 16

/** What a token is, as far as finding its end goes. */
export type TokenKind = 'tag' | 'text' | 'cdata'

/** The beginning of one token. */
export class Tail {
  readonly #kind: TokenKind
  #bytes: Buffer
  #length = 0
  /** In a tag: the quote of the attribute value that is open, 0 outside of values. */
  #quote = 0
  /** In a tag, outside of values: characters since the last white space or delimiter. */
  #nameLength = 0

  constructor(kind: TokenKind, bytes: Buffer, maxName: number) {
    this.#kind = kind
    this.#bytes = Buffer.allocUnsafeSlow(Math.max(64, bytes.length))
    if (kind === 'tag') this.#endsTag(bytes, maxName)
    this.#append(bytes)
  }

  /** Bytes stored. */
  get length(): number {
    return this.#length
  }

  /** The token so far together with `chunk` when it may end there, otherwise undefined, and the chunk is stored. */
  take(chunk: Uint8Array, maxBytes: number, maxName: number): Buffer | undefined {
    if (this.#length < SHORT || this.#ends(chunk, maxName)) {
      return Buffer.concat([this.#bytes.subarray(0, this.#length), chunk])
    }
    if (this.#length + chunk.length > maxBytes) throw policyViolation('element too big')
    this.#append(chunk)
    return undefined
  }

  #ends(chunk: Uint8Array, maxName: number): boolean {
    if (this.#kind === 'tag') return this.#endsTag(chunk, maxName)
    if (this.#length + chunk.length >= TEXT_PIECE) return true
    return chunk.includes(this.#kind === 'text' ? BYTE.LT : BYTE.GT)
  }

  /** Whether a ">" outside of attribute values ends the tag, or a "<" makes it an error. */
  #endsTag(chunk: Uint8Array, maxName: number): boolean {
    for (let i = 0; i < chunk.length; i++) {
      const byte = chunk[i] ?? 0
      if (byte === BYTE.LT && this.#length > 0) return true
      if (this.#quote !== 0) {
        if (byte === this.#quote) this.#quote = 0
      } else if (byte === BYTE.GT) return true
      else if (byte === BYTE.APOS || byte === BYTE.QUOTE) this.#quote = byte
      else if (NAME_END[byte] === 1) this.#nameLength = 0
      else if ((byte < 0x80 || byte >= 0xc0) && ++this.#nameLength > maxName) {
        throw policyViolation(`name longer than ${maxName}`)
      }
    }
    return false
  }

  #append(chunk: Uint8Array): void {
    const length = this.#length + chunk.length
    if (length > this.#bytes.length) {
      const bigger = Buffer.allocUnsafeSlow(Math.max(length, this.#bytes.length * 2))
      bigger.set(this.#bytes.subarray(0, this.#length))
      this.#bytes = bigger
    }
    this.#bytes.set(chunk, this.#length)
    this.#length = length
  }
}
