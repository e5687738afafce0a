/** What is remembered, for a while, of messages that may be sent again: those that came back, and those that went where no archive knows them. */
import { createHash } from 'node:crypto'
import type { Element } from '../../server/xmpp/element.ts'
import type { JID } from '../../server/xmpp/jid.ts'
import { looksOf } from './archives.ts'

/** Of each; more, and the oldest are forgotten. */
const MAX = 10_000

/** Messages that came back to their senders with an error. */
export class Refused {
  readonly #messages = new Map<string, true>()

  /** `from`: whom the message was for. */
  add(local: string, from: JID, id: string | undefined): void {
    if (id !== undefined) keep(this.#messages, keyOf(local, from, id), true)
  }

  /** Whether that message came back; it is forgotten then. */
  take(local: string, peer: JID, id: string | undefined): boolean {
    return id !== undefined && this.#messages.delete(keyOf(local, peer, id))
  }
}

/** How long a message may be on its way: longer than a handler has; milliseconds. */
const ON_ITS_WAY_MS = 15_000

/** Messages in archives that are on their way to the store for those who are away: when that fails, nobody gets them, and their sender is told. */
export class Unkept {
  readonly #messages = new Map<string, { readonly at: number; failed: boolean }>()

  /** `originId`: the id its sender gave it. */
  add(local: string, from: JID, originId: string, now: number): void {
    keep(this.#messages, keyOf(local, from, originId), { at: now, failed: false })
  }

  /** It is kept. */
  delete(local: string, from: JID, originId: string): void {
    if (this.#messages.size > 0) this.#messages.delete(keyOf(local, from, originId))
  }

  /** Its sender is told that it failed. */
  fail(local: string, from: JID, originId: string): void {
    const known = this.#messages.get(keyOf(local, from, originId))
    if (known !== undefined) known.failed = true
  }

  /** Whether it was not kept, and is not on its way any more; it is forgotten then. */
  take(local: string, from: JID, originId: string, now: number): boolean {
    if (this.#messages.size === 0) return false
    const key = keyOf(local, from, originId)
    const known = this.#messages.get(key)
    if (known === undefined || (!known.failed && now - known.at < ON_ITS_WAY_MS)) return false
    return this.#messages.delete(key)
  }
}

/**
 * Messages that were delivered to somebody without an archive. A process that was killed does not know them any more: what is sent again
 * then is delivered, perhaps for the second time, because nobody could tell that it was delivered at all.
 */
export class Passed {
  readonly #times = new Map<string, number>()
  readonly #windowMs: number

  /** `windowMs`: how long a message that is sent again counts as the same, milliseconds. */
  constructor(windowMs: number) {
    this.#windowMs = windowMs
  }

  add(message: Element, from: JID, to: JID, originId: string, now: number): void {
    keep(this.#times, passedKey(message, from, to, originId), now)
  }

  has(message: Element, from: JID, to: JID, originId: string, now: number): boolean {
    const at = this.#times.get(passedKey(message, from, to, originId))
    return at !== undefined && now - at <= this.#windowMs
  }
}

function keep<T>(map: Map<string, T>, key: string, value: T): void {
  const [oldest] = map.keys()
  if (oldest !== undefined && map.size >= MAX) map.delete(oldest)
  map.set(key, value)
}

const keyOf = (local: string, peer: JID, id: string): string =>
  `${local} ${peer.bare.toString()} ${id.slice(0, 256)}`

function passedKey(message: Element, from: JID, to: JID, originId: string): string {
  const parts = JSON.stringify([from.bare.toString(), to.bare.toString(), originId, looksOf(message)])
  return createHash('sha256').update(parts).digest('base64url')
}
