/** What a device has sent and must perhaps send again: stanzas the server has not acknowledged, messages that came back with an error. */
import type { Message } from './ledger.ts'
import type { Doubt } from './faults.ts'
import { NS_SM } from './texts.ts'
import type { World } from './device.ts'

/** Messages after which the device asks the server how far it is. */
const ASK_EVERY = 4
/** Time until a message that came back is sent again. */
const AGAIN_MS = 100
/** Messages that may still come back. */
const MAX_REMEMBERED = 2000

interface Unconfirmed {
  readonly xml: string
  readonly message: Message | undefined
}

/** One device's. */
export class Outbox {
  readonly #world: World
  readonly #name: string
  /** False when there is no connection. */
  readonly #write: (xml: string) => boolean
  /** Sent in this session, or to be sent in the next, oldest first. */
  #unconfirmed: Unconfirmed[] = []
  #confirmed = 0
  #sinceAsked = 0
  /** Messages that this server refused, or perhaps did. */
  readonly #shaky = new Set<Message>()
  /** Messages that came back and wait to be sent again. */
  readonly #waiting = new Set<Message>()
  readonly #own = new Map<number, { readonly message: Message; readonly xml: string }>()

  constructor(world: World, name: string, write: (xml: string) => boolean) {
    this.#world = world
    this.#name = name
    this.#write = write
  }

  get open(): number {
    return this.#unconfirmed.length
  }
  /** Messages are to be acknowledged, or to be sent again. */
  get messagesOpen(): boolean {
    return this.#waiting.size > 0 || this.#unconfirmed.some(({ message }) => message !== undefined)
  }
  get newest(): string | undefined {
    return this.#unconfirmed.at(-1)?.xml
  }

  message(message: Message, xml: string): void {
    message.open = true
    this.#own.set(message.n, { message, xml })
    const [oldest] = this.#own.keys()
    if (oldest !== undefined && this.#own.size > MAX_REMEMBERED) this.#own.delete(oldest)
    this.#push(xml, message)
  }

  other(xml: string): void {
    this.#push(xml, undefined)
  }

  #push(xml: string, message: Message | undefined): void {
    this.#unconfirmed.push({ xml, message })
    if (!this.#write(xml) || ++this.#sinceAsked < ASK_EVERY) return
    this.#sinceAsked = 0
    this.ask()
  }

  /** Asks the server how much it has handled. */
  ask(): void {
    this.#write(`<r xmlns='${NS_SM}'/>`)
  }

  /** The server has handled so many of this session. */
  confirm(h: number): void {
    const count = h - this.#confirmed
    if (count < 0 || count > this.#unconfirmed.length)
      this.#world.note(
        `wrong h: ${this.#name} was told ${h}, had ${this.#confirmed} and ${this.#unconfirmed.length} more`,
      )
    const handled = this.#unconfirmed.splice(0, count)
    const open = new Set([...this.#waiting, ...this.#unconfirmed.map(({ message }) => message)])
    // What came back meanwhile is on its way again.
    for (const { message } of handled) if (message !== undefined) message.open = open.has(message)
    this.#confirmed = h
  }

  /** There is a new session. `told`: the server has said what it handled of the old one, so that the rest can go again without doubt. */
  newSession(told: boolean): void {
    const kept: Unconfirmed[] = []
    for (const entry of this.#unconfirmed) {
      const { message } = entry
      if (message === undefined) continue
      // The error that would have said that it comes too late may be lost with the connection.
      if (this.#world.doubt() !== 'nothing') message.again = true
      // Nobody could know it again.
      if (!told && (message.kind === 'bare' || message.kind === 'transient')) this.#giveUp(message)
      else kept.push(entry)
    }
    this.#unconfirmed = kept
    this.#confirmed = 0
  }

  #shake(message: Message): void {
    if (message.shaken !== true) this.#world.counts.shaken++
    message.shaken = true
  }

  #giveUp(message: Message): void {
    message.open = false
    message.doubtful = true
    this.#shaky.add(message)
    this.#world.counts.doubtful++
  }

  /** The server ended. `doubt`: what failures of its store may have left behind. */
  serverEnded(doubt: Doubt): void {
    const unsure = [...this.#shaky, ...this.#unconfirmed.map(({ message }) => message)]
    for (const message of doubt === 'nothing' ? [] : unsure) {
      if (message === undefined) continue
      if (doubt === 'all') this.#shake(message)
      message.again = true
    }
    this.#shaky.clear()
  }

  /** There is a connection: everything goes again. */
  again(): void {
    for (const { xml, message } of this.#unconfirmed) {
      this.#write(xml)
      if (message === undefined) continue
      message.resent = true
      this.#world.counts.resent++
    }
  }

  /** An error came for a message. */
  bounced(n: number, error: string): void {
    const own = this.#own.get(n)
    if (own === undefined) return this.#world.note(`${this.#name} got an error for nothing of it: ${error}`)
    const { message, xml } = own
    // Nobody is there, which is what it was for.
    if (message.kind === 'transient') return
    this.#world.failed(`bounced: ${error}`)
    this.#world.counts.bounced++
    message.again = true
    message.open = true
    this.#shaky.add(message)
    if (message.kind === 'bare') {
      // It may be there all the same, without a name by which it could be found and shown.
      this.#shake(message)
      return this.#giveUp(message)
    }
    this.#waiting.add(message)
    setTimeout(() => {
      this.#waiting.delete(message)
      message.open = true
      this.#push(xml, message)
    }, AGAIN_MS)
  }
}
