/** What the tests of inboxes share: a host, and requests of a client with their answers in readable form. */
import blocking from '../../modules/blocking/index.ts'
import carbons from '../../modules/carbons/index.ts'
import disco from '../../modules/disco.ts'
import inboxModule from '../../modules/inbox/index.ts'
import mam from '../../modules/mam/index.ts'
import presence from '../../modules/presence/index.ts'
import retract from '../../modules/retract/index.ts'
import roster from '../../modules/roster/index.ts'
import stanzaIdModule from '../../modules/stanza-id.ts'
import type { Element } from '../../server/xmpp/element.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { archiveAccounts, NS_MAM } from './archive.ts'
import { type TestClient, type TestHost, type TestHostOptions, testHost } from './host.ts'
import { outcome } from './iq.ts'

/** The namespace of inboxes. */
export const NS_INBOX = 'urn:xmpp:inbox:1'

/** A host with inboxes and what they work with. */
export function inboxHost(options: object = {}, more: Partial<TestHostOptions> = {}): Promise<TestHost> {
  return testHost({
    modules: [disco, roster, presence, blocking, stanzaIdModule, mam, retract, carbons, inboxModule],
    accounts: archiveAccounts,
    ...more,
    config: { inbox: options, ...more.config },
  })
}

/** A conversation as it was told. */
export interface Told {
  readonly jid: string
  readonly unread: number
  /** The last id of its archive. */
  readonly id: string
  /** Body of the last message. */
  readonly body: string | undefined
  /** The last message with all around it. */
  readonly result: Element | undefined
  readonly outer: Element
}

/** The answer to a request. */
export interface InboxAnswer {
  readonly entries: readonly Told[]
  /** 'romeo 2 hello': localpart, unread messages, body of the last message. */
  readonly lines: readonly string[]
  /** 'result', or type and condition of the error. */
  readonly outcome: string
  readonly fin: Element | undefined
  /** total, unread and all-unread of <fin/>. */
  readonly totals: readonly number[]
  readonly first: string | undefined
  readonly last: string | undefined
  readonly index: string | undefined
  readonly count: string | undefined
}

let asked = 0

/** Asks for the inbox; `attrs` and `rsm` as in XML. Throws when conversations come after the answer. */
export async function inbox(client: TestClient, attrs = '', rsm?: string, id?: string): Promise<InboxAnswer> {
  const name = id ?? `inbox${++asked}`
  const set = rsm === undefined ? '' : `<set xmlns='${NS.RSM}'>${rsm}</set>`
  const request = `<iq type='get' id='${name}'><inbox xmlns='${NS_INBOX}' ${attrs}>${set}</inbox></iq>`
  return readAnswer(await sendAndWait(client, request, name), name)
}

/** Sends something and waits until the request with that id, in it, is answered: stores on disk take their time. */
async function sendAndWait(client: TestClient, text: string, id: string): Promise<readonly Element[]> {
  const received = await client.send(text)
  const until = performance.now() + 10_000
  while (performance.now() < until && !received.some((e) => e.name === 'iq' && e.attr('id') === id))
    received.push(...(await client.send('')))
  return received
}

/** Sends messages; all of it is handled, and in the archives of this host, when it resolves. */
export async function deliver(client: TestClient, ...messages: readonly string[]): Promise<void> {
  const id = `done${++asked}`
  await sendAndWait(client, `${messages.join('')}<iq type='get' id='${id}'><done xmlns='urn:x'/></iq>`, id)
}

/** The answer with that id among what a client received. */
export function readAnswer(received: readonly Element[], id: string): InboxAnswer {
  const at = received.findIndex((e) => e.name === 'iq' && e.attr('id') === id)
  const answer = received[at]
  if (answer === undefined) throw new Error(`no answer: ${received.join('')}`)
  if (received.slice(at).some((e) => e.getChild('entry', NS_INBOX) !== undefined))
    throw new Error('a conversation after the answer')
  const entries = received.flatMap((outer) => toldOf(outer) ?? [])
  const fin = answer.getChild('fin', NS_INBOX)
  const set = fin?.getChild('set', NS.RSM)
  return {
    entries,
    lines: entries.map(({ jid, unread, body }) => `${jid.split('@')[0]} ${unread} ${body ?? '-'}`),
    outcome: outcome(answer),
    fin,
    totals: ['total', 'unread', 'all-unread'].map((attr) => Number(fin?.attr(attr))),
    first: set?.getChildText('first'),
    last: set?.getChildText('last'),
    index: set?.getChild('first')?.attr('index'),
    count: set?.getChildText('count'),
  }
}

function toldOf(outer: Element): Told | undefined {
  const entry = outer.getChild('entry', NS_INBOX)
  if (entry === undefined) return undefined
  const result = outer.getChild('result', NS_MAM)
  const message = result?.getChild('forwarded', 'urn:xmpp:forward:0')?.getChild('message', NS.CLIENT)
  return {
    jid: entry.attr('jid') ?? '',
    unread: Number(entry.attr('unread')),
    id: entry.attr('id') ?? '',
    body: message?.getChildText('body'),
    result,
    outer,
  }
}

/** A marker: all up to that message was displayed. */
export const displayed = (to: string, id: string, more = '', name = 'displayed'): string =>
  `<message to='${to}' type='chat'><${name} xmlns='urn:xmpp:chat-markers:0' id='${id}'/>${more}</message>`

/** Takes back a message. */
export const retraction = (to: string, id: string, own: string): string =>
  `<message to='${to}' type='chat' id='${own}'><retract xmlns='urn:xmpp:message-retract:1' id='${id}'/><body>retracted</body></message>`
