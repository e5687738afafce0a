/**
 * XEP-0191 Blocking Command 1.3, with the reports of XEP-0377 0.4.1. "Polite" blocking (§4): subscriptions stay, nobody is told.
 *
 * Stanzas between clients are stopped here in both directions. What modules send in the name of an account is up to them: they ask
 * the service. Left out: privacy lists (§5).
 */
import { randomUUID } from 'node:crypto'
import { c, defineModule, type Bound, type StanzaEvent, type Verdict } from '../../server/module.ts'
import { type Element, el } from '../../server/xmpp/element.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { type JID, parseJid, tryJid } from '../../server/xmpp/jid.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { BlockList, BlockLists, NOBODY } from './lists.ts'
import { type AbuseReport, REPORTING, readReport } from './report.ts'

const ERRORS = 'urn:xmpp:blocking:errors'
/** Ctx.flag of sessions that have asked for the list (§3.3). */
const FLAG = 'blocklist'

/** Who does not want to hear of whom. */
export interface BlockingService {
  /** Whether the account has blocked that address (§6); never the account itself or its server. Plainly when in memory. */
  blocks(local: string, jid: JID): boolean | Promise<boolean>
}

declare module '../../server/module.ts' {
  interface Services {
    blocking: BlockingService
  }
}

const config = c.object({
  maxItems: c.int().min(1).default(5000).describe('Addresses that one account may block'),
})

export default defineModule({
  name: 'blocking',
  summary: 'Blocked addresses, and reports of spam and abuse',
  specs: [
    { xep: 191, version: '1.3', status: 'complete' },
    {
      xep: 377,
      version: '0.4.1',
      status: 'complete',
      note: 'reports are logged and offered to other modules, never forwarded',
    },
  ],
  optional: ['roster', 'presence'],
  config,
  setup(ctx, options) {
    const lists = new BlockLists(ctx)
    ctx.disco.feature('host', NS.BLOCKING) // §3.1
    ctx.disco.feature('host', REPORTING) // XEP-0377 §3

    /** §5, note 1: not between resources of one account; and the server has to be reached to undo a block. */
    const exempt = (account: JID, other: JID): boolean =>
      (other.local === account.local && other.domain === account.domain) ||
      (other.local === '' && other.domain === ctx.host)
    const inForce = (list: BlockList, account: JID, other: JID): boolean =>
      list.matches(other) && !exempt(account, other)

    ctx.provide('blocking', {
      blocks(local, jid) {
        const own = (list: BlockList): boolean =>
          list.matches(jid) && !(jid.domain === ctx.host && (jid.local === '' || jid.local === local))
        const list = lists.of(local)
        return list instanceof Promise ? list.then(own) : own(list)
      },
    })

    // ---- what blocked addresses send (§3.3) ----

    type Judge = (e: StanzaEvent) => Verdict
    function arriving(e: StanzaEvent, judge: Judge): Verdict | Promise<Verdict> {
      const list = lists.of(e.to.local)
      if (list === NOBODY) return undefined
      if (!(list instanceof Promise)) return inForce(list, e.to, e.from) ? judge(e) : undefined
      return list.then((loaded) => (inForce(loaded, e.to, e.from) ? judge(e) : undefined))
    }
    const dropped: Verdict = { stop: 'sender is blocked' }
    const refused: Judge = () => ({ bounce: new StanzaError('service-unavailable') })

    const judgeMessage: Judge = (e) => {
      const type = e.stanza.attr('type')
      // An error in answer to a room's or a service's notification could end more than was meant.
      if (type === 'groupchat' || type === 'headline' || type === 'error') return dropped
      return refused(e)
    }
    const judgeIq: Judge = (e) => {
      const type = e.stanza.attr('type')
      return type === 'get' || type === 'set' ? refused(e) : dropped
    }
    ctx.hook('account:in', { phase: 'guard', kinds: ['message'] }, (e) => arriving(e, judgeMessage))
    ctx.hook('account:in', { phase: 'guard', kinds: ['iq'] }, (e) => arriving(e, judgeIq))
    ctx.hook('account:in', { phase: 'guard', kinds: ['presence'] }, (e) => {
      const type = e.stanza.attr('type')
      // Nobody is there to get it, so the list of an offline account need not be read.
      const passing = type === undefined || type === 'unavailable' || type === 'error'
      if (passing && ctx.sessions.of(e.to.local).length === 0) return undefined
      return arriving(e, () => dropped)
    })

    // Nor is delivered what was accepted before: kept for the account, or left by a session that is over. An error is an answer to the account,
    // made here in the name of whom it wrote to.
    const judgeDelivered: Judge = (e) => (e.stanza.attr('type') === 'error' ? undefined : dropped)
    ctx.hook('client:out', { phase: 'guard', kinds: ['message'] }, (e) => {
      const verdict = arriving(e, judgeDelivered)
      // A list that is not in memory for once, as the store fails, does not make a loss of what was accepted.
      return verdict instanceof Promise ? verdict.catch(() => undefined) : verdict
    })

    // ---- what is sent to blocked addresses (§3.3) ----

    const judgeSent = (e: StanzaEvent, list: BlockList): Verdict => {
      if (e.stanza.attr('to') === undefined || !inForce(list, e.from, e.to)) return undefined
      return { bounce: new StanzaError('not-acceptable', { type: 'cancel', app: el('blocked', ERRORS) }) }
    }
    ctx.hook('client:in', { phase: 'guard' }, (e) => {
      const list = lists.of(e.from.local)
      if (list === NOBODY) return undefined
      return list instanceof Promise ? list.then((loaded) => judgeSent(e, loaded)) : judgeSent(e, list)
    })

    // ---- lists in memory ----

    ctx.hook('session:bound', { phase: 'observe' }, ({ session }) => lists.sessionBound(session.jid.local))
    ctx.hook('session:closed', { phase: 'observe' }, ({ session, resumable }) => {
      const { local } = session.jid
      if (!resumable && !ctx.sessions.of(local).some((other) => other !== session)) lists.offline(local)
    })
    ctx.hook('account:deleted', { phase: 'observe' }, ({ account }) => lists.removed(account.local))

    // ---- commands ----

    function pushTo(session: Bound, name: 'block' | 'unblock', jids: readonly string[]): void {
      const payload = el(name, NS.BLOCKING, {}, ...items(jids))
      const attrs = { type: 'set', id: randomUUID(), to: session.jid.toString() }
      ctx.deliver(session, el('iq', NS.CLIENT, attrs, payload))
    }
    /** §3.3, §3.4: to all resources that have asked for the list. */
    function push(local: string, name: 'block' | 'unblock', jids: readonly string[]): void {
      for (const session of ctx.sessions.of(local))
        if (session.flag(FLAG) === true) pushTo(session, name, jids)
    }

    ctx.iq(
      'self',
      'get',
      NS.BLOCKING,
      'blocklist',
      (iq) => {
        const answer = (list: BlockList): Element => {
          // Nothing comes between the list and the first push (§3.3).
          iq.afterReply(() => iq.session?.setFlag(FLAG, true))
          return el('blocklist', NS.BLOCKING, {}, ...items([...list.jids])) // §3.2
        }
        const list = lists.of(iq.to.local)
        return list instanceof Promise ? list.then(answer) : answer(list)
      },
      { advertise: false },
    )

    ctx.iq(
      'self',
      'set',
      NS.BLOCKING,
      'block',
      async (iq) => {
        const wanted = readItems(iq.payload)
        // §3.3: at least one item
        if (wanted.size === 0) throw new StanzaError('bad-request', { text: 'nobody is named' })
        await lists.change(
          iq.to.local,
          (jids) => {
            const now = new Set([...jids, ...wanted.keys()])
            if (now.size > options.maxItems && now.size > jids.size)
              throw new StanzaError('resource-constraint', { text: 'too many addresses are blocked' })
            return now
          },
          (before, after) => {
            push(iq.to.local, 'block', [...wanted.keys()])
            later(showOrHide(iq.to, before, after))
          },
        )
        for (const [jid, item] of wanted) {
          const report = readReport(item, iq.to, parseJid(jid))
          if (report !== undefined) reported(report)
        }
      },
      { advertise: false },
    )

    ctx.iq(
      'self',
      'set',
      NS.BLOCKING,
      'unblock',
      async (iq) => {
        const wanted = readItems(iq.payload)
        await lists.change(
          iq.to.local,
          // §3.5: no item stands for all
          (jids) => new Set(wanted.size === 0 ? [] : [...jids].filter((jid) => !wanted.has(jid))),
          (before, after) => {
            push(iq.to.local, 'unblock', [...wanted.keys()])
            later(showOrHide(iq.to, before, after))
          },
        )
      },
      { advertise: false },
    )

    /** §3.3, §3.4: tells those who may see the account's presence and are newly blocked or newly not blocked any more. */
    async function showOrHide(account: JID, before: BlockList, after: BlockList): Promise<void> {
      const presence = ctx.find('presence')
      const roster = await ctx.find('roster')?.of(account.local)
      if (presence === undefined || roster === undefined) return
      const { local } = account
      const was = (jid: JID): boolean => inForce(before, account, jid)
      const is = (jid: JID): boolean => inForce(after, account, jid)
      const blocked = [...after.jids].filter((jid) => !before.jids.has(jid))
      const unblocked = [...before.jids].filter((jid) => !after.jids.has(jid))
      if (blocked.length > 0) await presence.hideMatching(local, (jid) => is(jid) && !was(jid))
      if (unblocked.length > 0) await presence.showMatching(local, (jid) => was(jid) && !is(jid))
      // One resource of a subscriber: the subscription is of the account, the block is not.
      for (const jid of resourcesOf(blocked))
        if (roster.get(jid)?.from === true && !was(jid)) presence.hide(local, jid)
      for (const jid of resourcesOf(unblocked))
        if (roster.get(jid)?.from === true && !is(jid)) presence.show(local, jid)
    }

    function reported(report: AbuseReport): void {
      const { account, jid, reason, stanzaIds } = report
      ctx.log.info('abuse reported', { account: account.local, jid: jid.toString(), reason, stanzaIds })
      const done = ctx.run('abuse:report', report)
      if (done instanceof Promise) later(done)
    }

    function later(work: Promise<unknown>): void {
      work.catch((error: unknown) => ctx.log.error('block not told to all', { err: error }))
    }
  },
})

const resourcesOf = (jids: readonly string[]): readonly JID[] =>
  jids.map((jid) => parseJid(jid)).filter((jid) => jid.isFull)

const items = (jids: readonly string[]): Element[] => jids.map((jid) => el('item', NS.BLOCKING, { jid }))

/** The items by canonical address. Throws StanzaError: bad-request (no address), jid-malformed. */
function readItems(command: Element): ReadonlyMap<string, Element> {
  const wanted = new Map<string, Element>()
  for (const item of command.getChildren('item')) {
    const text = item.attr('jid')
    if (text === undefined) throw new StanzaError('bad-request', { text: 'an item needs a jid' })
    const jid = tryJid(text)
    if (jid === undefined) throw new StanzaError('jid-malformed', { text: `not an address: ${text}` })
    wanted.set(jid.toString(), item)
  }
  return wanted
}
