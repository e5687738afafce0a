/** Answers to presence probes: RFC 6121 §4.3.2 and, for directed presence, §4.6.6. */
import type { Bound, Ctx, Services, StanzaEvent, Verdict } from '../../server/module.ts'
import { el } from '../../server/xmpp/element.ts'
import type { JID } from '../../server/xmpp/jid.ts'
import { NS } from '../../server/xmpp/ns.ts'
import type { Directed } from './directed.ts'
import type { LastPresences } from './last.ts'
import type { Reach } from './reach.ts'

type RosterView = Awaited<ReturnType<Services['roster']['of']>>

/** What the answers are made of. */
export interface ProbeSources {
  readonly ctx: Ctx
  readonly reach: Reach
  readonly last: LastPresences
  directed(session: Bound): Directed | undefined
}

/** Answers a probe of an account or of one of its resources, as far as the prober may know. */
export function answerProbe(e: StanzaEvent, sources: ProbeSources): Verdict | Promise<Verdict> {
  const roster = sources.ctx.use('roster').of(e.to.local)
  if (!(roster instanceof Promise)) return answer(e, sources, roster)
  return roster.then((loaded) => answer(e, sources, loaded))
}

function answer(e: StanzaEvent, sources: ProbeSources, roster: RosterView): Verdict | Promise<Verdict> {
  const handled: Verdict = { stop: 'probe answered' }
  const contact = roster.get(e.from)
  const own = e.from.bare.equals(e.to.bare)
  if (own || contact?.from === true) {
    if (e.to.isFull) {
      resource(e, sources)
      return handled
    }
    if (available(e, sources)) return handled
    return nobody(e, sources).then(() => handled)
  }
  if (directed(e, sources)) return handled
  // The account has still to decide. "unsubscribed" would make an end to the request at the other side only.
  if (contact?.pendingIn === true) return { stop: 'probe by somebody who waits for an answer' }
  // §4.3.2 rule 1, between bare JIDs; §4.3.2.1: with the id of the probe. A pre-approval stays: nothing changes here.
  const addresses = { from: e.to.bare.toString(), to: e.from.bare.toString(), id: e.stanza.attr('id') }
  sources.reach.post(el('presence', NS.CLIENT, { ...addresses, type: 'unsubscribed' }))
  return handled
}

/** An answer goes to where the probe came from. */
const answerTo = (e: StanzaEvent, from: JID): { readonly from: string; readonly to: string } => ({
  from: from.toString(),
  to: e.from.toString(),
})

/** Rule 4: all that the available resources have last said; §4.3.2.1: with the ids of then. */
function available(e: StanzaEvent, { ctx, reach }: ProbeSources): boolean {
  let any = false
  for (const session of ctx.sessions.of(e.to.local)) {
    if (session.presence === undefined) continue
    any = true
    reach.post(session.presence.withAttrs({ to: e.from.toString() }))
  }
  return any
}

/** Rule 3: when the account was last there, with the id of the probe. */
async function nobody(e: StanzaEvent, { reach, last }: ProbeSources): Promise<void> {
  const addresses = { ...answerTo(e, e.to.bare), id: e.stanza.attr('id') }
  const stanza = (await last.stanza(e.to.local)) ?? el('presence', NS.CLIENT, { type: 'unavailable' })
  reach.post(stanza.withAttrs(addresses))
}

/** A probe of one resource: only whether it is there. */
function resource(e: StanzaEvent, { ctx, reach }: ProbeSources): void {
  const there = ctx.sessions.get(e.to)?.presence !== undefined
  const attrs = there ? {} : { type: 'unavailable', id: e.stanza.attr('id') }
  reach.post(el('presence', NS.CLIENT, { ...answerTo(e, e.to), ...attrs }))
}

/** §4.6.6: mere presence of those resources that have sent directed presence to the prober; false when there is none. */
function directed(e: StanzaEvent, sources: ProbeSources): boolean {
  let any = false
  for (const session of sources.ctx.sessions.of(e.to.local)) {
    if (e.to.isFull && session.jid.resource !== e.to.resource) continue
    const list = sources.directed(session)
    if (list === undefined || !(list.has(e.from) || list.has(e.from.bare))) continue
    any = true
    sources.reach.post(el('presence', NS.CLIENT, answerTo(e, session.jid)))
  }
  return any
}
