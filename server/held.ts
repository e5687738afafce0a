/** Output that a client does not read: elements as bytes, oldest first. The bound is the session's to watch. */
import type { Element } from './xmpp/element.ts'
import { NS } from './xmpp/ns.ts'
import { parseXml } from './xmpp/parser.ts'

/** A queue of elements; bytes, because elements may be part of a larger input that they would keep. */
export class Held {
  bytes = 0
  #queue: (Buffer | undefined)[] = []
  #head = 0

  push(element: Element): void {
    const text = Buffer.from(element.toString())
    this.bytes += text.length
    this.#queue.push(text)
  }

  /** Text of the oldest element, for a framed transport or for a stream. */
  shift(framed: boolean): string | undefined {
    const text = this.#queue[this.#head]
    if (text === undefined) return undefined
    this.#queue[this.#head++] = undefined
    this.bytes -= text.length
    if (this.#head > 64 && this.#head * 2 > this.#queue.length) {
      this.#queue = this.#queue.slice(this.#head)
      this.#head = 0
    }
    return framed ? text.toString() : parseXml(text.toString()).toString(NS.CLIENT, false)
  }

  elements(): readonly Element[] {
    return this.#queue
      .slice(this.#head)
      .flatMap((text) => (text === undefined ? [] : [parseXml(text.toString())]))
  }
}
