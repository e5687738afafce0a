/** Pieces of raw streams: headers, and what a server's output says, read with sax and ltx. */
import type { Element } from 'ltx'
import { NS_CLIENT, NS_FRAMING, NS_STREAM, parseDocument, StreamReader } from './xml.ts'

/** Attributes of a header; undefined leaves one out. */
export interface HeaderFields {
  readonly to?: string | undefined
  readonly from?: string | undefined
  readonly version?: string | undefined
  readonly id?: string | undefined
  readonly 'xml:lang'?: string | undefined
  readonly xmlns?: string | undefined
  readonly 'xmlns:stream'?: string | undefined
}

/** A stream header to example.org, with changes. */
export function header(changes: HeaderFields = {}): string {
  const fields = {
    to: 'example.org',
    version: '1.0',
    xmlns: NS_CLIENT,
    'xmlns:stream': NS_STREAM,
    ...changes,
  }
  return `<?xml version='1.0'?><stream:stream${attributes(fields)}>`
}

/** The same for a framed stream (RFC 7395 §3.3.2). */
export function openFrame(changes: HeaderFields = {}): string {
  return `<open${attributes({ to: 'example.org', version: '1.0', xmlns: NS_FRAMING, ...changes })}/>`
}

function attributes(fields: HeaderFields): string {
  return Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => ` ${name}='${value}'`)
    .join('')
}

/** What came: the header if any, first-level elements, the end. */
export interface Output {
  readonly header: Element | undefined
  readonly elements: readonly Element[]
  readonly ended: boolean
  /** Condition of the stream error, '' when none came. */
  readonly error: string
}

const conditionOf = (elements: readonly Element[]): string =>
  elements
    .find((e) => e.getName() === 'error' && e.getNS() === NS_STREAM)
    ?.getChildElements()[0]
    ?.getName() ?? ''

/** Reads the output of a stream from its header on; without one, the elements of a stream whose header came before. */
export function read(text: string): Output {
  let found: Element | undefined
  let ended = false
  const elements: Element[] = []
  const reader = new StreamReader({
    open: (root) => (found = root),
    element: (element) => elements.push(element),
    close: () => (ended = true),
  })
  const own = text.startsWith('<?xml') || text.startsWith('<stream:stream')
  reader.write(own ? text : `${header()}${text}`)
  return { header: own ? found : undefined, elements, ended, error: conditionOf(elements) }
}

/** Reads frames (RFC 7395), one element each. */
export function readFrames(frames: readonly string[]): Output {
  const all = frames.map((frame) => parseDocument(frame))
  const framing = (name: string) => all.find((e) => e.getName() === name && e.getNS() === NS_FRAMING)
  const elements = all.filter((e) => e.getNS() !== NS_FRAMING)
  return {
    header: framing('open'),
    elements,
    ended: framing('close') !== undefined,
    error: conditionOf(elements),
  }
}
