/** What is remembered, for a while, of messages that may be sent again: those that came back, and those that went where no archive knows them. */
import { createHash } from 'node:crypto'
import type { Element } from '../../server/xmpp/element.ts'
import type { JID } from '../../server/xmpp/jid.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { looksOf } from './archives.ts'

/** Of each; more, and the oldest are forgotten. */
const MAX = 10_000

/** Messages that came back to their senders with an error. */
export class Refused {
  /** Whether the fault was the server's. */
  readonly #messages = new Map<string, boolean>()

  /** Whether there are any. */
  get some(): boolean {
    return this.#messages.size > 0
  }

  /** `error`: the message of type error that `local` was sent; `from`: whom the refused one was for. */
  add(local: string, from: JID, error: Element): void {
    const id = error.attr('id')
    if (id === undefined) return
    const ours = error.getChild('error')?.getChild('internal-server-error', NS.STANZAS) !== undefined
    keep(this.#messages, keyOf(local, from, id), ours)
  }

  /** Whether that message came back; it is forgotten then. `ours`: only when the server failed, so that nobody was shown it. */
  take(local: string, peer: JID, id: string | undefined, ours = false): boolean {
    if (id === undefined) return false
    const key = keyOf(local, peer, id)
    const known = this.#messages.get(key)
    if (known === undefined || (ours && !known)) return false
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
