/** The answer to a request for the inbox (XEP-0430 §3.1): a message for each conversation, then <fin/>. */
import type { Ctx, Iq, Services } from '../../server/module.ts'
import { type Element, el } from '../../server/xmpp/element.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { pageInfo } from '../../server/xmpp/rsm.ts'
import type { AccountInbox } from './account-inbox.ts'
import type { Inboxes } from './inboxes.ts'
import { kindOf } from './kinds.ts'
import {
  type InboxQuery,
  NS_INBOX,
  pageOfRows,
  parseInboxQuery,
  type Row,
  type View,
  viewOf,
} from './query.ts'
import type { Message } from './service.ts'

/** XML of the messages of a page, in UTF-16 units: beyond this it ends, whatever was asked for; one conversation is always in it. */
const MAX_PAGE_SIZE = 512 * 1024
/** Messages read at once. */
const STEP = 50
/** Characters of the id of a request, which comes back with each message. */
const MAX_QUERY_ID = 1024
/** How often an inbox is looked at again because a message was removed meanwhile. */
const ATTEMPTS = 3

/** A conversation with its last message, if that is wanted. */
interface Told {
  readonly row: Row
  readonly message: Message | undefined
}

/** Sends the conversations asked for, and returns <fin/>. Throws StanzaError. */
export async function answerInbox(ctx: Ctx, iq: Iq, inboxes: Inboxes, max: number): Promise<Element> {
  const query = parseInboxQuery(iq.payload)
  if (iq.id.length > MAX_QUERY_ID)
    throw new StanzaError('bad-request', { text: `the id has at most ${MAX_QUERY_ID} characters` })
  const { local } = iq.to
  const inbox = await inboxes.soon(local)
  const { source } = inbox
  const encode = (entry: string): string => source.ids.encode(local, entry)
  const { view, told, index } = await collect(inboxes, inbox, query, max)
  const archive = ctx.use('archive')
  await ctx.inSlices(told, (one) => send(ctx, iq, entryOf(one, encode, archive, inbox, iq.id)))
  // What was not sent must not look as if it had been.
  if (ctx.signal.aborted) throw new StanzaError('service-unavailable')
  const [first, last] = [told[0]?.row.message, told.at(-1)?.row.message]
  return el(
    'fin',
    NS_INBOX,
    { total: String(view.total), unread: String(view.unread), 'all-unread': String(view.allUnread) },
    pageInfo({
      ...(first === undefined || last === undefined
        ? {}
        : { first: encode(first), last: encode(last), index }),
      count: view.rows.length,
    }),
  )
}

interface Collected {
  readonly view: View
  readonly told: readonly Told[]
  readonly index: number
}

async function collect(
  inboxes: Inboxes,
  current: AccountInbox,
  query: InboxQuery,
  max: number,
): Promise<Collected> {
  let inbox = current
  for (let attempt = 1; ; attempt++) {
    const { source } = inbox
    const { owner, ids } = source
    const view = viewOf(inbox.conversations.values(), query.unreadOnly)
    const page = pageOfRows(view.rows, query.page, max, (name) => ids.decode(owner, name))
    if (!query.messages)
      return { view, index: page.index, told: page.rows.map((row) => ({ row, message: undefined })) }
    const { told, wrong } = await withMessages(inbox, page.backwards ? page.rows.toReversed() : page.rows)
    if (wrong.length === 0 || attempt === ATTEMPTS) {
      const index = page.backwards ? page.index + page.rows.length - told.length : page.index
      return { view, index, told: page.backwards ? told.toReversed() : told }
    }
    // Removed because of its age, or taken back, since the archive was followed.
    for (const { jid } of wrong) inbox.doubt(jid)
    inbox = await inboxes.soon(owner)
  }
}

/** The last messages of some conversations, as many as may be in one answer; those whose message is not there any more. */
async function withMessages(
  { source }: AccountInbox,
  rows: readonly Row[],
): Promise<{ readonly told: readonly Told[]; readonly wrong: readonly Row[] }> {
  const told: Told[] = []
  const wrong: Row[] = []
  let size = 0
  for (let i = 0; i < rows.length; i += STEP) {
    const some = rows.slice(i, i + STEP)
    const wanted = some.map(({ shown }) => shown)
    const { entries } = await source.archive.page(source.owner, {
      ids: wanted,
      from: 'first',
      limit: wanted.length,
    })
    const found = new Map(entries.map((entry) => [entry.id, entry]))
    for (const row of some) {
      const entry = found.get(row.shown)
      const stands = entry !== undefined && isMessage(entry, source.jid)
      if (!stands) wrong.push(row)
      size += stands ? entry.doc.xml.length : 0
      if (told.length > 0 && size > MAX_PAGE_SIZE) return { told, wrong }
      told.push({ row, message: stands ? entry : undefined })
    }
  }
  return { told, wrong }
}

/** Not what is left of one that was taken back; such a one is short. */
function isMessage({ doc: { xml } }: Message, account: AccountInbox['source']['jid']): boolean {
  if (!xml.includes('<retracted')) return true
  const kind = kindOf(parseXml(xml), account)
  return kind.message || kind.corrects !== undefined
}

/** §3.1: <entry/>, followed by the latest message as XEP-0313 has it. */
function entryOf(
  { row, message }: Told,
  encode: (entry: string) => string,
  archive: Services['archive'],
  { source }: AccountInbox,
  queryId: string,
): readonly Element[] {
  const entry = el('entry', NS_INBOX, {
    jid: row.jid,
    unread: String(row.unread),
    id: encode(row.last),
  })
  return message === undefined ? [entry] : [entry, archive.result(source, message, queryId)]
}

function send(ctx: Ctx, iq: Iq, content: readonly Element[]): void | Promise<void> {
  const { from, to, session } = iq
  const message = el('message', NS.CLIENT, { from: to.bare.toString(), to: from.toString() }, ...content)
  if (session === undefined) return ctx.send(message)
  ctx.deliver(session, message)
  return undefined
}
