/**
 * Presence: RFC 6121 §4 (broadcast, probes, directed presence, unavailable on behalf of sessions that are gone) and the
 * protection of resources from strangers' requests (§8.5.3.1). Delivery of presence to resources is the core's matter (§8.5),
 * subscriptions are the roster module's.
 *
 * Left out: the "moved" answers to probes (§4.3.2 rule 2), probes for other reasons than initial presence (§4.3.1, MAY).
 */
import { c, defineModule, type Bound, type StanzaEvent, type Verdict } from '../../server/module.ts'
import { type Element, el } from '../../server/xmpp/element.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import type { JID } from '../../server/xmpp/jid.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { Broadcasts } from './broadcast.ts'
import { checkedPresence } from './check.ts'
import { Directed } from './directed.ts'
import { LastPresences } from './last.ts'
import { answerProbe } from './probes.ts'
import { Reach } from './reach.ts'
import type { PresenceService } from './service.ts'
import { makeVisibility } from './visibility.ts'

const config = c.object({
  maxDirected: c
    .int()
    .min(1)
    .default(60_000)
    .describe('Addresses that one session may have sent directed presence to at the same time'),
  protectResources: c
    .boolean()
    .default(true)
    .describe('Refuse requests to a resource by who may not know that it is there (RFC 6121 §8.5.3.1)'),
})

export default defineModule({
  name: 'presence',
  summary: 'Presence of contacts, probes, directed presence',
  specs: [
    { rfc: 6121, sections: '3.1.2-3.1.3, 4, 8.5.3.1' },
    { rfc: 6120, sections: '10.1' },
  ],
  requires: ['roster'],
  config,
  setup(ctx, options) {
    const rosters = ctx.use('roster')
    const reach = new Reach(ctx)
    const last = new LastPresences(ctx)
    const lists = ctx.perSession<Directed | undefined>(() => undefined)
    const directed = (session: Bound): Directed | undefined => lists.get(session)
    const availableElsewhere = (session: Bound): boolean =>
      ctx.sessions.of(session.jid.local).some((other) => other !== session && other.presence !== undefined)
    const broadcasts = new Broadcasts(ctx, reach, directed, (session, stanza) =>
      availableElsewhere(session) ? undefined : last.keep(session.jid.local, stanza),
    )

    // ---- what clients send ----

    ctx.hook('client:in', { phase: 'guard', kinds: ['presence'] }, (e) => {
      const { stanza } = e
      e.stanza = checkedPresence(stanza)
      if (stanza.attr('to') !== undefined) return undefined
      const type = stanza.attr('type')
      // §4.3: a probe is no cause for an error; and an error is addressed to nobody
      if (type === 'probe' || type === 'error') return { stop: 'presence without an addressee' }
      return undefined
    })

    // What may fail is done before the stanza's turn has come: the roster is in memory then.
    ctx.hook('client:in', { phase: 'store', kinds: ['presence'] }, (e) => {
      const type = e.stanza.attr('type')
      const { session } = e
      if (session === undefined || (type !== undefined && type !== 'unavailable')) return undefined
      if (e.stanza.attr('to') === undefined) {
        const roster = rosters.of(session.jid.local)
        return roster instanceof Promise ? roster.then(() => undefined) : undefined
      }
      const list = directed(session)
      if (type === 'unavailable' || list?.full !== true || list.has(e.to)) return undefined
      const text = 'too many addressees of directed presence'
      return { bounce: new StanzaError('resource-constraint', { text }) }
    })

    // The rest is done in its turn, behind all that the client has sent before: an addressee must not hear of the end first.
    ctx.hook('client:in', { phase: 'copy', kinds: ['presence'] }, (e) => {
      const type = e.stanza.attr('type')
      const { session } = e
      if (session === undefined || (type !== undefined && type !== 'unavailable')) return
      const available = type === undefined
      if (e.stanza.attr('to') !== undefined) noteDirected(session, e.to, available)
      else if (available) becomeAvailable(session, e.stanza)
      else becomeUnavailable(session, e.stanza)
    })

    // RFC 6120 §10.1: what the client sends next to somebody does not overtake its presence on the way there. Further broadcasts do
    // not wait, so that of many changes only the last is told.
    ctx.hook('client:in', { phase: 'copy' }, (e) =>
      broadcasts.idle || e.stanza.attr('to') === undefined ? undefined : broadcasts.told(e.from),
    )

    function becomeAvailable(session: Bound, sent: Element): void {
      // What stays in memory must not keep the whole input that it came in.
      const presence = sent.children.length === 0 ? sent : parseXml(sent.toString())
      const previous = session.presence
      const initial = previous === undefined
      const to = session.jid.toString()
      if (initial) {
        // §4.2.2: everybody is subscribed to his own presence
        for (const other of ctx.sessions.of(session.jid.local)) {
          if (other !== session && other.presence !== undefined)
            ctx.deliver(session, other.presence.withAttrs({ to }))
        }
      }
      session.setPresence(presence)
      changed(session, presence, previous)
      broadcasts.push({ kind: 'available', session, stanza: presence, initial })
    }

    function becomeUnavailable(session: Bound, stanza: Element): void {
      const previous = session.presence
      session.setPresence(undefined)
      // §4.5.2: also to the resource that has sent it; the core delivers to those that are available
      ctx.deliver(session, stanza.withAttrs({ to: session.jid.toString() }))
      tellUnavailable(session, stanza, previous)
      if (previous !== undefined) changed(session, undefined, previous)
    }

    function tellUnavailable(session: Bound, stanza: Element, previous: Element | undefined): void {
      const list = lists.get(session)
      lists.set(session, undefined) // §4.6.1
      if (previous === undefined && list === undefined) return
      const toContacts = previous !== undefined
      broadcasts.push({ kind: 'unavailable', session, stanza, toContacts, directed: [...(list ?? [])] })
    }

    function changed(session: Bound, presence: Element | undefined, previous: Element | undefined): void {
      const done = ctx.run('presence:changed', { session, presence, previous })
      if (done instanceof Promise)
        done.catch((error: unknown) => ctx.log.error('presence:changed failed', { err: error }))
    }

    /** §4.6.1, §4.6.3 */
    function noteDirected(session: Bound, to: JID, available: boolean): void {
      const list = directed(session)
      if (!available) list?.delete(to)
      else if (list !== undefined) list.add(to)
      else {
        const first = new Directed(options.maxDirected)
        first.add(to)
        lists.set(session, first)
      }
    }

    // ---- what reaches accounts ----

    ctx.hook('account:in', { phase: 'rewrite', kinds: ['presence'] }, (e) => {
      // A broadcast on its way to the resources of its own account (§4.2.2)
      if (e.stanza.attr('to') === undefined) e.stanza = e.stanza.withAttrs({ to: e.to.toString() })
    })

    ctx.hook('account:in', { phase: 'store', kinds: ['presence'] }, (e) => {
      const type = e.stanza.attr('type')
      if (type === 'probe') return answerProbe(e, { ctx, reach, last, directed })
      // §4.6.1: whoever is gone needs not be told any more
      if (type === 'unavailable') {
        for (const session of ctx.sessions.of(e.to.local)) directed(session)?.delete(e.from)
      }
      return undefined
    })

    if (options.protectResources) {
      ctx.hook('account:in', { phase: 'guard', kinds: ['iq'] }, (e) => {
        if (!e.to.isFull || e.from.bare.equals(e.to.bare)) return undefined
        const type = e.stanza.attr('type')
        if (type !== 'get' && type !== 'set') return undefined
        if (e.from.local === '' && ctx.hosts.includes(e.from.domain)) return undefined
        return mayAsk(e)
      })
    }

    /** §8.5.3.1: only who may know that the resource is there. The same error as when it is not (§8.5.3.2.3). */
    function mayAsk(e: StanzaEvent): Verdict | Promise<Verdict> {
      const session = ctx.sessions.get(e.to)
      if (session === undefined || directed(session)?.hasAny(e.from.bare) === true) return undefined
      const refuse = (known: boolean): Verdict =>
        known ? undefined : { bounce: new StanzaError('service-unavailable') }
      const roster = rosters.of(e.to.local)
      return roster instanceof Promise
        ? roster.then((loaded) => refuse(loaded.get(e.from)?.from === true))
        : refuse(roster.get(e.from)?.from === true)
    }

    // ---- the end of sessions and accounts ----

    ctx.hook('session:bound', { phase: 'observe' }, ({ session }) => last.sessionBound(session.jid.local))
    ctx.hook('session:closed', { phase: 'observe' }, ({ session, resumable }) => {
      if (resumable) return undefined
      // §4.5.2: on behalf of a client that did not say so itself
      const from = session.jid.toString()
      const stanza = el('presence', NS.CLIENT, { from, type: 'unavailable' })
      const previous = session.presence
      session.setPresence(undefined)
      // What a newer session of the same full JID has said is what counts.
      const succeeded = ctx.sessions.get(session.jid)?.presence !== undefined
      if (previous !== undefined && !succeeded && availableElsewhere(session))
        reach.post(stanza.withAttrs({ to: session.jid.bare.toString() }))
      tellUnavailable(session, stanza, previous)
      if (previous !== undefined) changed(session, undefined, previous)
      return broadcasts.told(session.jid) // so that a stopping server waits for it
    })
    ctx.hook('account:deleted', { phase: 'observe' }, ({ account }) => last.deleted(account.local))

    const service: PresenceService = {
      ...makeVisibility(ctx, reach, directed),
      directedTo: (session, jid) => directed(session)?.hasAny(jid.bare) === true,
      last: async (local) =>
        ctx.sessions.of(local).some((session) => session.presence !== undefined)
          ? undefined
          : last.get(local),
    }
    ctx.provide('presence', service)
  },
})
