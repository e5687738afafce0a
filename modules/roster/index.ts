/**
 * The roster and presence subscriptions: RFC 6121 §2, §3 and Appendix A, with roster versions (§2.6, formerly XEP-0237 1.3) and
 * pre-approved subscriptions (§3.4). Who gets whose presence is decided here; sending presence is the presence module's matter.
 *
 * Left out: the optional acknowledgement of requests (§3.1.3 rule 3) and records of approvals and cancellations for accounts that
 * are offline (§3.1.6, §3.2.3, §3.3.3: MAY); the roster itself tells.
 */
import { c, defineModule, type Iq, type IqHandler } from '../../server/module.ts'
import { type Element, el } from '../../server/xmpp/element.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { NS } from '../../server/xmpp/ns.ts'
import type { AccountRoster } from './account-roster.ts'
import { type Contact, toItem } from './contact.ts'
import { readRosterSet } from './roster-set.ts'
import { Rosters } from './rosters.ts'
import { INTERESTED, SubscriptionFlow } from './subscription-flow.ts'
import { isSubscriptionType } from './subscriptions.ts'

const VERSIONING = 'urn:xmpp:features:rosterver'
const PRE_APPROVAL = 'urn:xmpp:features:pre-approval'
/** So many changes are always sent as pushes, however small the roster is. */
const FEW_CHANGES = 10
/** More changes than this are not sent one by one. */
const MANY_CHANGES = 500
/** Items of an answer that are made in one go. */
const AT_ONCE = 100

const config = c.object({
  maxContacts: c.int().min(1).default(20_000).describe('Items of one roster'),
  maxRequests: c
    .int()
    .min(0)
    .default(2000)
    .describe('Subscription requests to one account that wait for an answer'),
  maxSize: c
    .bytes('4 MiB', { min: '1 KiB' })
    .describe('Addresses, names, groups and requests of one roster together'),
  maxName: c.int().min(1).default(512).describe('Characters of a name'),
  maxGroup: c.int().min(1).default(512).describe('Characters of the name of a group'),
  maxGroups: c.int().min(1).default(50).describe('Groups of one item'),
  maxRequest: c
    .bytes('8 KiB', { min: '256 B' })
    .describe('A larger subscription request is kept without its content'),
})

export default defineModule({
  name: 'roster',
  summary: 'Rosters and presence subscriptions',
  specs: [
    { rfc: 6121, sections: '2-3, 4.2.2, 8.5.3.2.2, A' },
    {
      xep: 237,
      version: '1.3',
      status: 'complete',
      note: 'superseded by RFC 6121 §2.6, which is what is implemented',
    },
  ],
  config,
  setup(ctx, options) {
    const rosters = new Rosters(ctx, options)
    const flow = new SubscriptionFlow(ctx, rosters, options.maxRequest)
    ctx.provide('roster', rosters)

    ctx.hook('client:in', { phase: 'store', kinds: ['presence'] }, (e) => {
      const type = e.stanza.attr('type')
      return isSubscriptionType(type) ? flow.leaving(e, type) : undefined
    })
    ctx.hook('account:in', { phase: 'store', kinds: ['presence'] }, (e) => {
      const type = e.stanza.attr('type')
      return isSubscriptionType(type) ? flow.arriving(e, type) : undefined
    })
    ctx.hook('session:bound', { phase: 'observe' }, ({ session }) => rosters.sessionBound(session.jid.local))
    ctx.hook('session:closed', { phase: 'observe' }, ({ session, resumable }) => {
      if (!resumable) rosters.sessionClosed(session, session.jid.local)
    })
    ctx.hook('account:deleted', { phase: 'observe' }, ({ account }) => flow.deleted(account))

    /** §2.1.4, §2.6.3 */
    function answer(iq: Iq, roster: AccountRoster): Element | undefined | Promise<Element> {
      const asked = roster.known(iq.payload.attr('ver') ?? '')
      const changes = asked === undefined ? undefined : roster.changesSince(asked)
      // §2.6.3: pushes, unless the whole roster is less to send
      const partly =
        changes !== undefined &&
        changes.length <= Math.max(FEW_CHANGES, Math.min(MANY_CHANGES, roster.listed / 2))
      const since = partly && asked !== undefined ? asked : roster.version
      const { session } = iq
      if (session !== undefined)
        iq.afterReply(() => {
          session.setFlag(INTERESTED, true) // §2.2
          for (const contact of roster.changesSince(since)) flow.push(roster, session, contact)
        })
      if (partly) return undefined
      const listed = [...roster.contacts()].filter((contact) => contact.listed)
      const empty = el('query', NS.ROSTER, { ver: roster.ver() })
      return listed.length <= AT_ONCE ? empty.append(...listed.map(toItem)) : inParts(empty, listed)
    }

    /** A long roster, as it was at the beginning: what changes meanwhile is pushed behind the answer. */
    async function inParts(empty: Element, listed: readonly Contact[]): Promise<Element> {
      let query = empty
      query.toString() // now parts that are added are written at once, and not all together in the end
      const starts = Array.from({ length: Math.ceil(listed.length / AT_ONCE) }, (_, i) => i * AT_ONCE)
      await ctx.inSlices(starts, (start) => {
        query = query.append(...listed.slice(start, start + AT_ONCE).map(toItem))
      })
      // inSlices stops early then
      if (ctx.signal.aborted) throw new StanzaError('service-unavailable')
      return query
    }

    ctx.disco.feature('host', NS.ROSTER)
    const unlisted = { advertise: false } // XEP-0030: of the server, not of each account
    const readRoster: IqHandler = (iq) => {
      // §2.1.3: a get has no items
      if (iq.payload.elements.length > 0)
        throw new StanzaError('bad-request', { text: 'a roster get is empty' })
      const roster = rosters.withVersions(iq.to.local)
      return roster instanceof Promise ? roster.then((loaded) => answer(iq, loaded)) : answer(iq, roster)
    }
    ctx.iq('self', 'get', NS.ROSTER, 'query', readRoster, unlisted)

    const changeRoster: IqHandler = async (iq) => {
      const set = readRosterSet(iq.payload, iq.to, options)
      if (set.remove) {
        await flow.remove(iq.to, set.jid)
        return undefined
      }
      await rosters.change({
        local: iq.to.local,
        contact: set.jid,
        always: true, // §2.4.2: each successful set is pushed
        decide(old, roster) {
          // §2.4.1: the item is as it was set; the server's part of it stays
          const now = { ...old, name: set.name, groups: set.groups, listed: true }
          roster.checkRoom(old, now)
          return now
        },
        effect: (old, now, roster) => flow.pushChange(roster, old, now),
      })
      return undefined
    }
    ctx.iq('self', 'set', NS.ROSTER, 'query', changeRoster, unlisted)

    for (const [ns, name] of [
      [VERSIONING, 'ver'],
      [PRE_APPROVAL, 'sub'],
    ] as const) {
      // §2.6.1, §3.4: merely informative, never negotiated
      ctx.streamFeature({
        ns,
        streams: ['c2s'],
        needs: ['authenticated'],
        forbids: ['bound'],
        advertise: () => el(name, ns),
        handle: () => ({ close: { condition: 'unsupported-stanza-type' } }),
      })
    }
  },
})
