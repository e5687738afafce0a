/**
 * Archive ids as clients see them. The store numbers the entries of an archive; who sees two numbers knows how many messages lie between
 * them, so clients get the numbers encrypted (XEP-0313 §3: unpredictable; XEP-0359 §6: nothing can be inferred). The same entry always
 * gives the same id, in every process of a host, and a number gives another id in each archive.
 *
 * One block of AES-128 in the XEX construction: the tweak is made from the owner of the archive by HMAC-SHA-256.
 */
import { createCipheriv, createDecipheriv, createHmac } from 'node:crypto'

const BLOCK = 16
/** base64url of one block. */
const TEXT = 22
/** Owners whose tweak is kept. */
const MAX_TWEAKS = 10_000

/** Translates ids of one host. */
export class IdCodec {
  // A block cipher alone has no state between blocks, so one object does for all of them.
  readonly #encrypt
  readonly #decrypt
  readonly #tweakKey: Uint8Array
  readonly #tweaks = new Map<string, Buffer>()
  readonly #block = Buffer.alloc(BLOCK)

  /** `secret`: 48 bytes. */
  constructor(secret: Uint8Array) {
    if (secret.length !== 48) throw new RangeError('the secret of ids needs 48 bytes')
    this.#encrypt = createCipheriv('aes-128-ecb', secret.subarray(0, 16), null).setAutoPadding(false)
    this.#decrypt = createDecipheriv('aes-128-ecb', secret.subarray(0, 16), null).setAutoPadding(false)
    this.#tweakKey = secret.subarray(16)
  }

  /** The id for clients of an entry. Throws RangeError when the store's id has more than 15 characters, or others than ASCII. */
  encode(owner: string, id: string): string {
    const tweak = this.#tweak(owner)
    const block = this.#block.fill(0)
    if (id.length === 0 || id.length >= BLOCK) throw new RangeError(`an id of the store is too long: ${id}`)
    block[0] = id.length
    for (let i = 0; i < id.length; i++) {
      const code = id.charCodeAt(i)
      if (code > 0x7f) throw new RangeError(`an id of the store is not ASCII: ${id}`)
      block[i + 1] = code
    }
    mask(block, tweak)
    return mask(this.#encrypt.update(block), tweak).toString('base64url')
  }

  /** The store's id of what a client says, undefined when it is no id of this archive. */
  decode(owner: string, text: string): string | undefined {
    if (text.length !== TEXT) return undefined
    const block = Buffer.from(text, 'base64url')
    // Only what we would have written: one entry must not have two names.
    if (block.length !== BLOCK || block.toString('base64url') !== text) return undefined
    const tweak = this.#tweak(owner)
    const plain = mask(this.#decrypt.update(mask(block, tweak)), tweak)
    const length = plain[0] ?? 0
    if (length === 0 || length >= BLOCK) return undefined
    for (let i = 1; i < BLOCK; i++) {
      const code = plain[i] ?? 0
      if (i <= length ? code === 0 || code > 0x7f : code !== 0) return undefined
    }
    return plain.toString('latin1', 1, length + 1)
  }

  #tweak(owner: string): Buffer {
    let tweak = this.#tweaks.get(owner)
    if (tweak !== undefined) return tweak
    tweak = createHmac('sha256', this.#tweakKey).update(owner).digest().subarray(0, BLOCK)
    // Any will do: they cost a few microseconds.
    if (this.#tweaks.size >= MAX_TWEAKS) this.#tweaks.clear()
    this.#tweaks.set(owner, tweak)
    return tweak
  }
}

function mask(block: Buffer, tweak: Buffer): Buffer {
  // oxlint-disable-next-line no-bitwise -- a cipher is made of bits
  for (let i = 0; i < BLOCK; i++) block[i] = (block[i] ?? 0) ^ (tweak[i] ?? 0)
  return block
}
