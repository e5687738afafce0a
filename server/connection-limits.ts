/** Connections of one address: how many at the same time, how many new ones in a minute (RFC 6120 §13.12). */

import { type RateLimit, TokenBucket } from './token-bucket.ts'

interface Entry {
  open: number
  opened: number
  /** What all streams of the address may send together. */
  bucket: TokenBucket | undefined
}

/** What one address may have. */
export interface AddressLimits {
  /** Connections at the same time. */
  readonly maxPerAddress: number
  readonly maxNewPerMinute: number
  /** Input of all its streams together. */
  readonly ratePerAddress?: RateLimit | undefined
}

const WINDOW_MS = 60_000

/** Counts connections by address. An IPv6 /64 counts as one address: that is what one customer gets. */
export class ConnectionLimits {
  readonly #entries = new Map<string, Entry>()
  #maxOpen = 0
  #maxNewPerMinute = 0
  #rate: RateLimit | undefined
  #windowEndsAt = 0

  constructor(limits: AddressLimits) {
    this.setLimits(limits)
  }

  setLimits(limits: AddressLimits): void {
    this.#maxOpen = limits.maxPerAddress
    this.#maxNewPerMinute = limits.maxNewPerMinute
    this.#rate = limits.ratePerAddress
  }

  /** Counts a new connection; false when it is one too many. Each call needs a later `closed`. */
  opened(address: string, now: number): boolean {
    this.#turn(now)
    const key = network(address)
    let entry = this.#entries.get(key)
    if (entry === undefined) {
      entry = { open: 0, opened: 0, bucket: undefined }
      this.#entries.set(key, entry)
    }
    entry.open++
    entry.opened++
    return entry.open <= this.#maxOpen && entry.opened <= this.#maxNewPerMinute
  }

  /** What the streams of this address share; undefined: no limit. Ask after `opened`. */
  bucket(address: string, now: number): TokenBucket | undefined {
    const entry = this.#entries.get(network(address))
    if (entry === undefined || this.#rate === undefined) return undefined
    return (entry.bucket ??= new TokenBucket(this.#rate, now))
  }

  closed(address: string): void {
    const key = network(address)
    const entry = this.#entries.get(key)
    if (entry === undefined) return
    entry.open--
    if (entry.open <= 0 && entry.opened === 0) this.#entries.delete(key)
  }

  #turn(now: number): void {
    if (now < this.#windowEndsAt) return
    this.#windowEndsAt = now + WINDOW_MS
    for (const [key, entry] of this.#entries) {
      entry.opened = 0
      if (entry.open <= 0) this.#entries.delete(key)
    }
  }
}

/** The same limits where there is no stream yet that could count and say so: TLS handshakes, HTTP. */
export class Doors {
  readonly #limits: ConnectionLimits
  readonly #now: () => number

  constructor(limits: AddressLimits, now: () => number) {
    this.#limits = new ConnectionLimits(limits)
    this.#now = now
  }

  setLimits(limits: AddressLimits): void {
    this.#limits.setLimits(limits)
  }

  /** Lets a connection in, which needs a later `leave`; false: it is one too many, and is not counted. */
  enter(address: string): boolean {
    if (this.#limits.opened(address, this.#now())) return true
    this.#limits.closed(address)
    return false
  }

  leave(address: string): void {
    this.#limits.closed(address)
  }
}

/** The part of an address that stands for one peer. */
function network(address: string): string {
  if (!address.includes(':') || address.startsWith('::ffff:')) return address
  const [head = '', tail] = address.split('::')
  const groups = head.split(':')
  const missing = tail === undefined ? 0 : 8 - groups.length - tail.split(':').length
  const full = [
    ...groups,
    ...Array.from({ length: Math.max(0, missing) }, () => '0'),
    ...(tail ?? '').split(':'),
  ]
  return full
    .slice(0, 4)
    .map((g) => g || '0')
    .join(':')
}
