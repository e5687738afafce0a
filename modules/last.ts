/**
 * XEP-0012 Last Activity 2.0: when an account was last here, for those who may see its presence; how long the server has run.
 * Requests to a full JID are the client's to answer, once its owner's presence may be seen (§4).
 */
import { defineModule, type Doc } from '../server/module.ts'
import { type Element, el } from '../server/xmpp/element.ts'
import { StanzaError } from '../server/xmpp/errors.ts'
import type { JID } from '../server/xmpp/jid.ts'

const NS = 'jabber:iq:last'
const KEY = 'last'

interface Stored extends Doc {
  readonly at: number
  readonly status: string
}

export default defineModule({
  name: 'last',
  summary: 'Tells when an account was last online and how long the server has run',
  specs: [{ xep: 12, version: '2.0', status: 'complete' }],
  optional: ['roster'],
  setup(ctx) {
    const docs = ctx.storage.docs<Stored>('logout')
    const status = ctx.perSession(() => '')
    const startedAt = ctx.now()
    const answer = (ms: number, text = ''): Element =>
      el('query', NS, { seconds: String(Math.max(0, Math.floor(ms / 1000))) }, text === '' ? undefined : text)

    ctx.iq('host', 'get', NS, 'query', () => answer(ctx.now() - startedAt)) // §5
    ctx.iq('account', 'get', NS, 'query', async (iq) => {
      if (!(await maySee(iq.from, iq.to))) throw new StanzaError('forbidden') // §3
      if (ctx.sessions.of(iq.to.local).length > 0) return answer(0) // §3: somebody is connected
      const last = await docs.get(iq.to.local, KEY)
      if (last === undefined) throw new StanzaError('item-not-found', { text: 'never seen here' })
      return answer(ctx.now() - last.at, last.status)
    })
    // §4: a client may be asked only by those who may see that it is there. Before the presence module, which would refuse with
    // another error.
    ctx.hook('account:in', { phase: 'guard', kinds: ['iq'], before: ['presence'] }, (e) => {
      if (e.to.resource === '' || e.stanza.attr('type') !== 'get' || e.stanza.firstElement()?.ns !== NS)
        return undefined
      return maySee(e.from, e.to).then((may) => (may ? undefined : { bounce: new StanzaError('forbidden') }))
    })
    // §3: the status message of the last unavailable presence
    ctx.hook('client:in', { phase: 'observe', kinds: ['presence'] }, (e) => {
      if (e.session === undefined || e.stanza.attr('to') !== undefined) return
      const text = e.stanza.attr('type') === 'unavailable' ? e.stanza.getChildText('status') : undefined
      status.set(e.session, text ?? '')
    })
    ctx.hook('session:closed', { phase: 'store' }, async ({ session }) => {
      const { local } = session.jid
      if (await ctx.find('auth')?.exists(local))
        await docs.put(local, KEY, { at: ctx.now(), status: status.get(session) })
    })

    async function maySee(asker: JID, account: JID): Promise<boolean> {
      if (asker.bare.equals(account.bare)) return true
      const roster = await ctx.find('roster')?.of(account.local)
      return roster?.get(asker.bare)?.from === true
    }
  },
})
