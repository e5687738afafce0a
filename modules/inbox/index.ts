/**
 * XEP-0430 Inbox 0.2.0: the conversations of an account with last message and number of unread messages, in one request. All of it follows from the
 * account's archive (module mam) and is taken from there when somebody asks: no message costs anything here when it comes.
 *
 * A message is unread until the account has displayed it or a later one, as one of its devices says by a marker (XEP-0333), or has written in the
 * conversation (option `readBySending`). What is not an instant message (kinds.ts) neither counts nor is shown. Conversations are told apart by bare
 * address, so all occupants of a room are one. Left out: "set unread" (§2.2), which version 0.2.0 has no element for; rooms, whose messages are in
 * archives of their own; collation (XEP-0427), apart from corrections of the last message.
 */
import { c, defineModule, type StanzaEvent } from '../../server/module.ts'
import { answerInbox } from './answer.ts'
import { Inboxes } from './inboxes.ts'
import { displayedId } from './kinds.ts'
import { NS_INBOX, viewOf } from './query.ts'

const config = c.object({
  readBySending: c
    .boolean()
    .default(true)
    .describe('Who writes in a conversation has read all that came before'),
  conversations: c
    .int()
    .min(1)
    .max(50_000)
    .default(10_000)
    .describe('Conversations of one account that are known, the newest'),
  cache: c.int().min(0).default(100_000).describe('Conversations in memory, of all accounts together'),
  maxPage: c.int().min(1).max(5000).default(1000).describe('Conversations in one answer at most'),
})

export default defineModule({
  name: 'inbox',
  summary: 'Tells the conversations of an account, with last message and unread messages',
  specs: [
    { xep: 430, version: '0.2.0', status: 'complete', note: 'rooms: with their archives' },
    { xep: 59, version: '1.0', status: 'complete' },
    { xep: 45, version: '1.35.5', status: 'partial', note: 'occupants of rooms are told apart' },
    { xep: 308, version: '1.2.1', status: 'partial', note: 'a correction of the last message is shown' },
    {
      xep: 333,
      version: '1.0.0',
      status: 'complete',
      note: 'what is read, also by markers that are not archived',
    },
    { xep: 334, version: '1.0.0', status: 'partial', note: 'markers that are not to be stored' },
    { xep: 359, version: '0.7.0', status: 'partial', note: 'ids that markers name' },
    { xep: 384, version: '0.9.0', status: 'partial', note: 'empty messages do not count' },
    { xep: 424, version: '0.4.2', status: 'partial', note: 'what was taken back does not count' },
    { xep: 441, version: '0.2.0', status: 'partial', note: 'what is not archived' },
    { xep: 444, version: '0.2.0', status: 'partial', note: 'reactions do not count' },
    { xep: 490, version: '1.0.1', status: 'partial', note: 'a service for it' },
    { rfc: 6121, sections: '5.2.2, 5.2.4' },
  ],
  requires: ['mam'],
  config,
  setup(ctx, { readBySending, conversations, cache, maxPage }) {
    const inboxes = new Inboxes(ctx, { readBySending, maxConversations: conversations, maxCached: cache })

    // §3.1; others are refused by the target. §2.1: announced with it
    ctx.iq('self', 'get', NS_INBOX, 'inbox', (iq) => answerInbox(ctx, iq, inboxes, maxPage))

    // A marker that the archive will not get (mam has decided before): it is handled when it is stored here.
    ctx.hook('client:in', { phase: 'store', kinds: ['message'] }, (e) =>
      e.archiving === undefined ? unarchived(e) : undefined,
    )
    function unarchived({ stanza, from, to }: StanzaEvent): void | Promise<void> {
      const type = stanza.attr('type')
      // Rooms have archives of their own; in errors is what somebody else said; notes to oneself are read.
      if (type === 'groupchat' || type === 'error' || from.bare.equals(to.bare)) return undefined
      const id = displayedId(stanza)
      if (id === undefined) return undefined
      return inboxes.mark(from.local, { jid: to.bare.toString(), id, by: 'id' })
    }

    ctx.hook('archive:removed', { phase: 'observe' }, ({ local }) => inboxes.removed(local))
    ctx.hook('account:deleted', { phase: 'observe' }, ({ account }) => inboxes.deleted(account.local))
    ctx.timers.daily('follow', () => inboxes.followAll())

    ctx.provide('inbox', {
      async unread(local) {
        const inbox = await inboxes.soon(local)
        const { unread, allUnread } = viewOf(inbox.conversations.values(), true)
        return { conversations: unread, messages: allUnread }
      },
      displayed: (local, peer, id) => inboxes.displayed(local, peer.bare.toString(), id),
    })
    return { stop: () => inboxes.stop() }
  },
})
