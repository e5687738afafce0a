/** The step `C finds in its archive [where k=v k=v]: ids`: a query of XEP-0313 and the ids of the messages that come, in order. */
import { escapeXML } from 'ltx'
import type { Client } from '../helpers/client.ts'

const NS_MAM = 'urn:xmpp:mam:2'
/** Keys that belong to the page (XEP-0059 §2); all others are fields of the form (XEP-0313 §4.1). */
const PAGE: ReadonlySet<string> = new Set(['max', 'before', 'after'])
let queries = 0

/** `where`: filters and page; a field that is given twice has two values. `wanted`: ids of messages, or `nothing`. */
export async function findsInArchive(client: Client, where: string, wanted: string): Promise<void> {
  const id = `archive-${(queries += 1)}`
  const words = where.split(' ').filter((word) => word !== '')
  const pairs = words.map(
    (word) => [word.slice(0, word.indexOf('=')), word.slice(word.indexOf('=') + 1)] as const,
  )
  const fields = new Map<string, string[]>()
  let page = ''
  for (const [key, value] of pairs) {
    if (PAGE.has(key)) page += `<${key}>${escapeXML(value)}</${key}>`
    else fields.set(key, [...(fields.get(key) ?? []), value])
  }
  const form = [...fields].map(
    ([name, values]) =>
      `<field var='${escapeXML(name)}'>${values.map((v) => `<value>${escapeXML(v)}</value>`).join('')}</field>`,
  )
  const filters =
    form.length === 0
      ? ''
      : `<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>${NS_MAM}</value></field>${form.join('')}</x>`
  const set = page === '' ? '' : `<set xmlns='http://jabber.org/protocol/rsm'>${page}</set>`
  client.sendStanza(
    `<iq type='set' id='${id}'><query xmlns='${NS_MAM}' queryid='${id}'>${filters}${set}</query></iq>`,
  )
  const found: string[] = []
  for (;;) {
    const el = await client.nextElement(`results of ${id}`)
    const result = el.is('message') ? el.getChild('result', NS_MAM) : undefined
    if (result?.attrs['queryid'] === id) {
      const message = result.getChild('forwarded', 'urn:xmpp:forward:0')?.getChild('message', 'jabber:client')
      found.push(message?.attrs['id'] ?? '?')
    } else if (el.is('iq') && el.attrs['id'] === id) {
      if (el.attrs['type'] !== 'result') client.fail(`the archive answered ${el.toString()}`)
      break
    } else client.fail(`${el.toString()} came instead of a result`)
  }
  const got = found.join(' ') || 'nothing'
  if (got !== wanted) client.fail(`the archive has ${got} instead of ${wanted}`)
}
