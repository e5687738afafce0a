/** What the tests of the XML parser share: a handler that writes down what it gets, and the error a text ends with. */
import { expect } from 'chai'
import type { Element } from '../../server/xmpp/element.ts'
import { type StreamCondition, StreamError } from '../../server/xmpp/errors.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { Parser, type ParserLimits, parseXml } from '../../server/xmpp/parser.ts'

/** Limits that only hostile input meets. */
export const LIMITS: ParserLimits = { maxBytes: 10_000, maxDepth: 20, maxAttrs: 20, maxName: 100 }

/** A client's stream header. */
export const HEADER = `<stream:stream xmlns='jabber:client' xmlns:stream='${NS.STREAM}' version='1.0'>`

/** A parser, and everything it delivered as text, so that two runs can be compared. */
export class Log {
  readonly events: string[] = []
  readonly elements: Element[] = []
  readonly parser: Parser

  constructor(limits: ParserLimits = LIMITS) {
    this.parser = new Parser(
      {
        open: (root) => this.events.push(`open ${root.toString()}`),
        element: (el) => {
          this.elements.push(el)
          this.events.push(`element ${el.toString()}`)
        },
        close: () => this.events.push('close'),
      },
      limits,
    )
  }

  /** Writes all of it, in pieces of `step` bytes. */
  write(text: string | Buffer, step: number = Number.POSITIVE_INFINITY): this {
    const bytes = Buffer.from(text)
    if (step >= bytes.length) this.parser.write(bytes)
    else for (let at = 0; at < bytes.length; at += step) this.parser.write(bytes.subarray(at, at + step))
    return this
  }
}

/** Condition of the stream error that is thrown, undefined when none is. */
export function conditionOf(run: () => unknown): StreamCondition | undefined {
  try {
    run()
  } catch (error) {
    if (error instanceof StreamError) return error.condition
    throw error
  }
  return undefined
}

/** What reading `text` ends with: whole, and byte by byte; both must agree. */
export function refusal(text: string | Buffer, limits?: ParserLimits): StreamCondition | undefined {
  const whole = conditionOf(() => new Log(limits).write(text))
  const split = conditionOf(() => new Log(limits).write(text, 1))
  expect(split, `byte by byte: ${text.toString().slice(0, 200)}`).to.equal(whole)
  return whole
}

/** As `refusal` for what follows a stream header. */
export const inStream = (text: string, limits?: ParserLimits) => refusal(HEADER + text, limits)

/** As `refusal` for the content of a stanza. */
export const inStanza = (text: string, limits?: ParserLimits) =>
  inStream(`<message>${text}</message>`, limits)

/** As `conditionOf` for a document. */
export const inDocument = (text: string) => conditionOf(() => parseXml(text))

/** The only element of a stream. */
export function single(text: string): Element {
  const [element, ...more] = new Log().write(HEADER + text).elements
  if (element === undefined || more.length > 0) throw new Error(`not one element: ${text}`)
  return element
}
