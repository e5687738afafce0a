/**
 * XEP-0431 Full Text Search in MAM 0.2.0: the text of a message that is searched, its bodies and subjects, without what is only there for
 * clients that do not understand the rest (XEP-0428 0.2.1). Words are found by the store: each word asked for must occur, in any order.
 */
import type { Element } from '../../server/xmpp/element.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import type { Stored } from './service.ts'

const FALLBACK = 'urn:xmpp:fallback:0'
const OPEN = '<body>'
const CLOSE = '</body>'

/** The text of an entry, undefined when it has none. Called for each entry that a search looks at. */
export function textOf({ xml }: Stored): string | undefined {
  // Most messages are a start tag and a body; those need not be parsed.
  const body = xml.indexOf(OPEN)
  if (body < 0 && !xml.includes('<body') && !xml.includes('<subject')) return undefined
  if (body >= 0 && xml.indexOf('>') === body - 1 && !xml.includes(FALLBACK) && !xml.includes('<subject')) {
    const end = xml.indexOf(CLOSE, body)
    const text = xml.slice(body + OPEN.length, end)
    // A second body is in another language; what has to be unescaped is rare.
    if (end > 0 && !text.includes('&') && !text.includes('<') && !xml.includes('<body', end)) return text
  }
  const message = parseXml(xml)
  const texts = message.elements
    .filter((child) => child.ns === message.ns && (child.name === 'body' || child.name === 'subject'))
    .filter((child) => !isFallback(message, child.name))
    .map((child) => child.text())
  return texts.length === 0 ? undefined : texts.join('\n')
}

/** XEP-0428 §2.2: all of that element is a replacement for something else. */
function isFallback(message: Element, name: string): boolean {
  return message.getChildren('fallback', FALLBACK).some((fallback) => {
    if (fallback.elements.length === 0) return true
    return fallback
      .getChildren(name)
      .some((part) => part.attr('start') === undefined && part.attr('end') === undefined)
  })
}
