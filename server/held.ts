/** Output that a client does not read, as bytes in blocks, oldest first. The bound is the session's to watch. */
import { type Element, el } from './xmpp/element.ts'
import { NS } from './xmpp/ns.ts'
import { Parser, parseXml, UNLIMITED } from './xmpp/parser.ts'

/** Bytes of a block; a larger element has one of its own. */
const BLOCK = 16 * 1024
/** Between two frames: not a character of XML. */
const BREAK = '\0'
const HEADER = `${el('stream', NS.STREAM).toString(NS.CLIENT, true).slice(0, -2)} xmlns='${NS.CLIENT}'>`

interface Block {
  readonly bytes: Buffer
  used: number
}

/**
 * A queue of elements, written as they will be sent. Bytes, because elements may be part of a larger input that they would keep; blocks, because
 * many small buffers take more memory than what is in them.
 */
export class Held {
  /** Memory in use. */
  bytes = 0
  readonly #framed: boolean
  #blocks: Block[] = []
  /** Blocks, from the first, that came before the mark. */
  #marked = 0

  /** `framed`: each element is sent by itself (RFC 7395). */
  constructor(framed: boolean) {
    this.#framed = framed
  }

  push(element: Element): void {
    const text = this.#framed ? element.toString() + BREAK : element.toString(NS.CLIENT, false)
    const size = Buffer.byteLength(text)
    let last = this.#blocks.length === this.#marked ? undefined : this.#blocks.at(-1)
    if (last === undefined || last.used + size > last.bytes.length) {
      last = { bytes: Buffer.allocUnsafeSlow(Math.max(BLOCK, size)), used: 0 }
      this.#blocks.push(last)
      this.bytes += last.bytes.length
    }
    last.used += last.bytes.write(text, last.used)
  }

  /** The oldest texts to send: some elements in one piece, or in one frame each; undefined: there are none. */
  shift(): readonly string[] | undefined {
    const block = this.#blocks.shift()
    if (block === undefined) return undefined
    if (this.#marked > 0) this.#marked--
    this.bytes -= block.bytes.length
    return this.#framed ? framesOf(block) : [textOf(block)]
  }

  /** From now on `marked` tells what is there now. */
  mark(): void {
    this.#marked = this.#blocks.length
  }
  /** Elements that came before the mark and are still there. */
  marked(): Element[] {
    return this.#blocks.slice(0, this.#marked).flatMap((block) => this.#read(block))
  }

  /** Takes out all elements; read as they are asked for. */
  *elements(): Iterable<Element> {
    this.#marked = 0
    for (let block = this.#blocks.shift(); block !== undefined; block = this.#blocks.shift()) {
      this.bytes -= block.bytes.length
      yield* this.#read(block)
    }
  }

  #read(block: Block): readonly Element[] {
    return this.#framed ? framesOf(block).map((text) => parseXml(text)) : elementsOf(textOf(block))
  }
}

const textOf = ({ bytes, used }: Block): string => bytes.toString('utf8', 0, used)

const framesOf = (block: Block): string[] => textOf(block).split(BREAK).slice(0, -1)

/** The elements of such a text, which stands for part of a stream. */
export function elementsOf(text: string): readonly Element[] {
  const found: Element[] = []
  const nothing = (): void => undefined
  const parser = new Parser({ open: nothing, element: (e) => found.push(e), close: nothing }, UNLIMITED)
  parser.write(Buffer.from(HEADER + text))
  return found
}

/** One after the other. */
export function* both(first: Iterable<Element>, then: Iterable<Element>): Iterable<Element> {
  yield* first
  yield* then
}
