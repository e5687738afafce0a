/** What is remembered, for a while, of messages that may be sent again: those that came back, and those that went where no archive knows them. */
import { createHash } from 'node:crypto'
import type { StanzaEvent } from '../../server/module.ts'
import type { JID } from '../../server/xmpp/jid.ts'
import { looksOf } from './archives.ts'
import { NS_MUC_USER } from './ns.ts'

/** Of each; more, and the oldest are forgotten. */
const MAX = 10_000

/** Whose archive it is about: the receiver's or the sender's. */
type Way = 'in' | 'out'

/** A message on its way, or on its way once more. */
type Sent = Pick<StanzaEvent, 'stanza' | 'from' | 'to'>

/** Messages that others than this server sent back with an error, by what those repeat of them. */
export class Refused {
  readonly #messages: Map<string, true>

  /** `known`: from an earlier process. */
  constructor(known: readonly string[]) {
    this.#messages = new Map(known.map((key) => [key, true]))
  }

  /** `from`: whom the message was for. */
  add(local: string, from: JID, id: string | undefined, originId: string | undefined): void {
    for (const key of keysOf(local, from, id, originId)) keep(this.#messages, key, true)
  }

  /** Whether that message came back; it is forgotten then. */
  take(local: string, peer: JID, id: string | undefined, originId: string): boolean {
    if (this.#messages.size === 0) return false
    const took = keysOf(local, peer, id, originId).map((key) => this.#messages.delete(key))
    return took.includes(true)
  }

  /** For the next process. */
  all(): readonly string[] {
    return [...this.#messages.keys()]
  }
}

/** Messages in archives that nobody has taken: on their way to the store for those who are away, or sent back since that failed. */
export class Unkept {
  readonly #onTheirWay = new Map<string, PromiseWithResolvers<void> | undefined>()
  readonly #failed: Map<string, true>

  /** `failed`: from an earlier process. */
  constructor(failed: readonly string[]) {
    this.#failed = new Map(failed.map((key) => [key, true]))
  }

  /** It is on its way. `originId`: the id its sender gave it. */
  add({ from, to }: Sent, originId: string): void {
    const key = keyOf(to.local, from, originId)
    if (this.#onTheirWay.has(key)) return
    const [oldest] = this.#onTheirWay
    if (oldest !== undefined && this.#onTheirWay.size >= MAX) oldest[1]?.resolve() // nobody waits for what is forgotten
    keep(this.#onTheirWay, key, undefined)
  }

  /** It is kept. */
  delete({ from, to }: Sent, originId: string): void {
    if (this.#onTheirWay.size === 0) return
    const key = keyOf(to.local, from, originId)
    this.#onTheirWay.get(key)?.resolve()
    this.#onTheirWay.delete(key)
  }

  /** Its sender is told that it failed. */
  fail(e: Sent, originId: string): void {
    keep(this.#failed, messageKey(e, originId), true)
    this.delete(e, originId)
  }

  /** Whether it was sent back; it is forgotten then. A promise: it is on its way, ask again when that is over. */
  take(e: Sent, originId: string): boolean | Promise<void> {
    if (this.#failed.size > 0 && this.#failed.delete(messageKey(e, originId))) return true
    if (this.#onTheirWay.size === 0) return false
    const key = keyOf(e.to.local, e.from, originId)
    if (!this.#onTheirWay.has(key)) return false
    const over = this.#onTheirWay.get(key) ?? Promise.withResolvers<void>()
    this.#onTheirWay.set(key, over)
    return over.promise
  }

  /** What was sent back, for the next process. */
  all(): readonly string[] {
    return [...this.#failed.keys()]
  }
}

/** Messages in the archives of their senders that went no further, not even to other devices of those. */
export class Stopped {
  readonly #messages = new Map<string, true>()

  add(e: Sent, originId: string): void {
    keep(this.#messages, messageKey(e, originId, 'out'), true)
  }

  /** Whether it is one; it is forgotten then. */
  take(e: Sent, originId: string): boolean {
    return this.#messages.size > 0 && this.#messages.delete(messageKey(e, originId, 'out'))
  }
}

/** What is known of a message that went where no archive knows it; as it is stored. */
export type Passage = {
  /** When, milliseconds since 1970. */
  readonly at: number
  /** It came back to its sender with an error. */
  readonly back: boolean
}

/**
 * Messages that were delivered where no archive knows them. What a process that was killed knew of them is lost: what is sent again
 * then is delivered, perhaps for the second time, because nobody could tell that it was delivered at all.
 */
export class Passed {
  readonly #messages: Map<string, Passage>
  readonly #way: Way
  readonly #windowMs: number

  /** `windowMs`: how long a message that is sent again counts as the same, milliseconds. `known`: from an earlier process. */
  constructor(way: Way, windowMs: number, known: readonly (readonly [string, Passage])[]) {
    this.#way = way
    this.#windowMs = windowMs
    this.#messages = new Map(known)
  }

  add(e: Sent, originId: string, now: number): void {
    const key = messageKey(e, originId, this.#way)
    this.#messages.delete(key) // behind the others
    keep(this.#messages, key, { at: now, back: false })
  }

  /** Its sender is told that it failed. */
  cameBack(e: Sent, originId: string): void {
    if (this.#messages.size === 0) return
    const key = messageKey(e, originId, this.#way)
    const known = this.#messages.get(key)
    if (known !== undefined) this.#messages.set(key, { ...known, back: true })
  }

  /** Undefined: it is not known, or that is too long ago. */
  get(e: Sent, originId: string, now: number): Passage | undefined {
    if (this.#messages.size === 0) return undefined
    const known = this.#messages.get(messageKey(e, originId, this.#way))
    return known !== undefined && now - known.at <= this.#windowMs ? known : undefined
  }

  /** For the next process. */
  all(now: number): readonly (readonly [string, Passage])[] {
    return [...this.#messages].filter(([, { at }]) => now - at <= this.#windowMs)
  }
}

function keep<T>(map: Map<string, T>, key: string, value: T): void {
  const [oldest] = map.keys()
  if (oldest !== undefined && map.size >= MAX) map.delete(oldest)
  map.set(key, value)
}

const keyOf = (local: string, peer: JID, id: string): string =>
  `${local} ${peer.bare.toString()} ${id.slice(0, 256)}`

/** The id of a stanza, and the one that its sender gave it (XEP-0359 §2.2), which are different things. */
function keysOf(
  local: string,
  peer: JID,
  id: string | undefined,
  originId: string | undefined,
): readonly string[] {
  const keys: string[] = []
  if (id !== undefined) keys.push(hash([local, peer.bare.toString(), 'id', id]))
  if (originId !== undefined && originId !== '')
    keys.push(hash([local, peer.bare.toString(), 'origin-id', originId]))
  return keys
}

/** What tells a message from others, also from those that have the same id of their sender; equal for all attempts to send it. */
export function messageKey({ stanza, from, to }: Sent, originId: string, way: Way = 'in'): string {
  // All occupants of a room have the bare address in common. The account itself may come back with another resource.
  const occupant = stanza.getChild('x', NS_MUC_USER) !== undefined
  const sender = occupant && way === 'in' ? from : from.bare
  const receiver = occupant && way === 'out' ? to : to.bare
  return hash([sender.toString(), receiver.toString(), originId, looksOf(stanza)])
}

const hash = (parts: readonly string[]): string =>
  createHash('sha256').update(JSON.stringify(parts)).digest('base64url')
