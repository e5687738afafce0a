/** Stanzas of the devices as text, and what they find in those that come. */
import { escapeXML } from 'ltx'
import type { Element } from '../helpers/xml.ts'
import type { Message } from './ledger.ts'

/** XEP-0198 §12.1. */
export const NS_SM = 'urn:xmpp:sm:3'
const NS_CARBONS = 'urn:xmpp:carbons:2'
const NS_MAM = 'urn:xmpp:mam:2'
const NS_FORWARD = 'urn:xmpp:forward:0'
const NS_SID = 'urn:xmpp:sid:0'
const NS_RSM = 'http://jabber.org/protocol/rsm'
const PAGE = 50

/** Switches carbons on. */
export const carbons = `<iq type='set' id='carbons'><enable xmlns='${NS_CARBONS}'/></iq>`

/** A message of each kind; `to` undefined: it names nobody. */
export function message({ n, kind = 'text' }: Message, to: string | undefined): string {
  const id = `chaos-${n}`
  const origin = kind === 'bare' ? '' : `<origin-id xmlns='${NS_SID}' id='${id}'/>`
  const address = to === undefined ? '' : ` to='${escapeXML(to)}'`
  return `<message type='chat'${address} id='${id}'>${contentOf(n, kind)}${origin}</message>`
}

function contentOf(n: number, kind: NonNullable<Message['kind']>): string {
  switch (kind) {
    case 'receipt':
      return `<received xmlns='urn:xmpp:receipts' id='r${n}'/>`
    case 'marker':
      return `<displayed xmlns='urn:xmpp:chat-markers:0' id='r${n}'/>`
    case 'transient':
      return `<body>${n}</body><no-store xmlns='urn:xmpp:hints'/>`
    case 'text':
    case 'bare':
      return `<body>${n}</body>`
  }
}

/** A page of the archive after that id. */
export function query(id: string, after: string | undefined, max = PAGE): string {
  const from = after === undefined ? '' : `<after>${escapeXML(after)}</after>`
  return `<iq type='set' id='${id}'><query xmlns='${NS_MAM}' queryid='${id}'><set xmlns='${NS_RSM}'><max>${max}</max>${from}</set></query></iq>`
}

/** Asks the server for a sign of life, behind everything sent before. */
export const ping = (id: string, domain: string): string =>
  `<iq type='get' id='${id}' to='${domain}'><ping xmlns='urn:xmpp:ping'/></iq>`

/** The end of a page. */
export function page(iq: Element): { readonly last: string | undefined; readonly complete: boolean } {
  const fin = iq.getChild('fin', NS_MAM)
  const last = fin?.getChild('set', NS_RSM)?.getChildText('last', NS_RSM) ?? undefined
  return { last, complete: fin?.attrs['complete'] === 'true' }
}

/** An empty result. */
export const result = (iq: Element): string =>
  `<iq type='result' id='${escapeXML(iq.attrs['id'] ?? '')}' to='${escapeXML(iq.attrs['from'] ?? '')}'/>`

/** One result of a page. */
export function fromArchive(
  wrapper: Element,
): { readonly query: string; readonly id: string; readonly message: Element | undefined } | undefined {
  const found = wrapper.getChild('result', NS_MAM)
  if (found === undefined) return undefined
  const { queryid = '', id = '' } = found.attrs as Readonly<Record<string, string | undefined>>
  return { query: queryid, id, message: forwarded(found) }
}

/** The message in a carbon. */
export function carbonOf(wrapper: Element): Element | undefined {
  const copy = wrapper.getChild('sent', NS_CARBONS) ?? wrapper.getChild('received', NS_CARBONS)
  return copy === undefined ? undefined : forwarded(copy)
}

function forwarded(wrapper: Element): Element | undefined {
  return wrapper.getChild('forwarded', NS_FORWARD)?.getChild('message', 'jabber:client')
}

/** Its id in the archive of that account; '' when it has none. */
export function idBy(stanza: Element, account: string): string {
  const ids = stanza.getChildren('stanza-id', NS_SID).filter((id) => id.attrs['by'] === account)
  return ids[0]?.attrs['id'] ?? ''
}

/** The number of a message of ours. */
export function numberOf(stanza: Element | undefined): number | undefined {
  const digits = /^chaos-(\d+)$/.exec(stanza?.attrs['id'] ?? '')?.[1]
  return digits === undefined ? undefined : Number(digits)
}
