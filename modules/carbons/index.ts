/**
 * XEP-0280 Message Carbons 1.0.1: other devices of an account see what it sends and receives, wrapped by XEP-0297. Implements all of
 * the rules of §6.1 ('urn:xmpp:carbons:rules:0') and the hint <no-copy/> of XEP-0334. Enabled by an iq or within Bind 2 (XEP-0386).
 * A <private/> element stays in the message (§9). What devices missed while they were gone is the matter of the archive.
 */
import {
  type Bound,
  type Ctx,
  defineModule,
  type Iq,
  type Session,
  type StanzaEvent,
} from '../../server/module.ts'
import { type Element, el } from '../../server/xmpp/element.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { type JID, tryJid } from '../../server/xmpp/jid.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { stanzaIdBy } from '../../server/xmpp/stanza.ts'
import { Remembered } from './remembered.ts'
import { type Rooms, roomsAfter } from './rooms.ts'
import { CARBONS, copyFor, copyIn, isFromOccupant, isInstantMessage } from './rules.ts'
import type { CarbonsService, Copy } from './service.ts'

const RULES = 'urn:xmpp:carbons:rules:0'
const FLAG = 'carbons'

export default defineModule({
  name: 'carbons',
  summary: 'Copies of sent and received messages for the other devices of an account',
  specs: [
    { xep: 280, version: '1.0.1', status: 'complete' },
    { xep: 297, version: '1.0', status: 'partial', note: 'as carbons use it' },
    { xep: 334, version: '1.0.0', status: 'partial', note: 'no-copy' },
    { xep: 160, version: '1.0.1', status: 'partial', note: 'what is kept does not come twice' },
    { rfc: 6120, sections: '8.3.1' },
    { rfc: 6121, sections: '5.2.2' },
    { xep: 386, version: '1.1.0', status: 'partial', note: 'carbons within it' },
  ],
  optional: ['bind2', 'offline'],
  setup(ctx) {
    // §3, §6.2
    for (const target of ['host', 'account'] as const) {
      ctx.disco.feature(target, CARBONS)
      ctx.disco.feature(target, RULES)
    }
    enabling(ctx)
    const rooms = ctx.perSession((): Rooms | undefined => undefined)
    const eligibleOnes = new Remembered()

    ctx.hook('client:in', { phase: 'observe', kinds: ['presence'] }, ({ session, stanza, to }) => {
      if (session !== undefined && to.resource !== '')
        rooms.set(session, roomsAfter(rooms.get(session), stanza, to))
    })
    ctx.hook('client:in', { phase: 'copy', kinds: ['message'] }, (e) => {
      // what an account sends to itself arrives here too and is copied then, so that no device gets it twice
      if (e.session === undefined || e.from.bare.equals(e.to.bare)) return
      const joined = rooms.get(e.session)?.get(e.to.bare.toString())
      sent(e, e.session, (other) => joined === undefined || sharesNick(other, e.to, joined))
    })
    ctx.hook('account:in', { phase: 'copy', kinds: ['message'] }, (e) => {
      if (!e.from.bare.equals(e.to.bare)) received(e)
      else if (e.session !== undefined) {
        const takers = ctx.sessions.takers(e.to, e.stanza.attr('type'))
        sent(e, e.session, (other) => !takers.includes(other), isToBeKept(e, takers))
      }
    })
    // It is in the archive, and found no room: nobody will be given it later.
    ctx.hook('account:stored', { phase: 'copy', kinds: ['message'] }, ({ kept, spare = [] }) => {
      if (kept !== true) for (const one of spare) copy(one.session, one.direction, one.message)
    })
    // Errors that this server makes do not arrive at the account: they go straight back to the session that caused them.
    ctx.hook('client:out', { phase: 'copy', kinds: ['message'] }, (e) => {
      if (e.stanza.attr('type') !== 'error' || e.session === undefined || copyIn(e.stanza, e.session.jid))
        return
      const { from, session, stanza } = e
      const joined = rooms.get(session)?.get(from.bare.toString())
      const others = enabled(session.jid.local).filter(
        (other) => other !== session && (joined === undefined || sharesNick(other, from, joined)),
      )
      if (others.length > 0 && eligibleOnes.has(session.jid.local, stanza, from))
        for (const other of others) copy(other, 'received', stanza)
    })
    ctx.hook('session:closed', { phase: 'observe' }, ({ session }) => {
      const { local } = session.jid
      if (ctx.sessions.of(local).every((other) => other === session)) eligibleOnes.forget(local)
    })

    const service: CarbonsService = {
      copies: (session) => session.flag(FLAG) === true,
      copyIn,
      isCopied(message, session) {
        const from = tryJid(message.attr('from') ?? '') ?? session.jid.bare
        const to = tryJid(message.attr('to') ?? '') ?? session.jid.bare
        const joined = rooms.get(session)?.has(from.bare.toString()) === true
        return isInstantMessage(message) && !isFromOccupant(message, from, to, joined)
      },
    }
    ctx.provide('carbons', service)

    function sharesNick(session: Bound, occupant: JID, nick: string): boolean {
      // §6.1, note: only these could answer to a private message within a room
      return occupant.resource === '' || rooms.get(session)?.get(occupant.bare.toString()) === nick
    }

    function enabled(local: string): readonly Bound[] {
      return ctx.sessions.of(local).filter((session) => session.flag(FLAG) === true)
    }

    /** §8: copies of what `sender` sends, for those sessions that `wanted` says. */
    function sent(e: StanzaEvent, sender: Bound, wanted: (other: Bound) => boolean, kept = false): void {
      const all = enabled(e.from.local)
      if (all.length === 0 || !isEligible(e, e.from.local, e.to)) return
      if (e.stanza.attr('type') !== 'error') eligibleOnes.add(e.from.local, e.stanza, e.to)
      if (e.duplicate === true) return // the client did not know that we had it; the others got theirs
      // irrespective of whether the sending client has carbons enabled; never to itself
      const others = all.filter((other) => other !== sender && wanted(other))
      if (others.length === 0) return
      const { archivedAs, stanza } = e
      // XEP-0359: the id in the account's own archive, from which a device can page on
      const message =
        archivedAs === undefined || stanzaIdBy(stanza, e.from.bare) !== undefined
          ? stanza
          : stanza.append(el('stanza-id', NS.SID, { by: e.from.bare.toString(), id: archivedAs }))
      copyAll(e, others, { direction: 'sent', message }, kept)
    }

    /** §7: copies of what arrives, for those sessions that do not get it anyway. */
    function received(e: StanzaEvent): void {
      const all = enabled(e.to.local)
      if (all.length === 0) return
      const type = e.stanza.attr('type')
      const takers = ctx.sessions.takers(e.to, type)
      if (type === 'error' && takers.length > 0) return // copied when it is delivered, see client:out
      const occupant = takers.some((taker) => rooms.get(taker)?.has(e.from.bare.toString()) === true)
      if (isFromOccupant(e.stanza, e.from, e.to, occupant) || !isEligible(e, e.to.local, e.from)) return
      if (type !== 'error') eligibleOnes.add(e.to.local, e.stanza, e.from)
      const others = all.filter((session) => !takers.includes(session))
      copyAll(e, others, { direction: 'received', message: e.stanza }, isToBeKept(e, takers))
    }

    function isToBeKept(e: StanzaEvent, takers: readonly Bound[]): boolean {
      return takers.length === 0 && ctx.find('offline')?.keeps(e) === true
    }

    /**
     * `kept`: nobody takes the message, and who becomes available next is given it (XEP-0160 §2). A session that has not said yet what it is gets
     * it in that way, once, and it stays there for others if that session ends. Copies are for those of negative priority, which may never, and
     * for those that would find it in the archive: they get all in the order of that.
     */
    function copyAll(e: StanzaEvent, others: readonly Bound[], what: Copy, kept: boolean): void {
      const archived = kept && stanzaIdBy(e.stanza, e.to.bare) !== undefined
      const now = kept
        ? others.filter(
            (other) =>
              other.priority !== undefined || (archived && ctx.find('offline')?.reads(other) === true),
          )
        : others
      for (const other of now) copy(other, what.direction, what.message)
      if (!kept) return
      e.copied = now
      e.spare = others.filter((other) => !now.includes(other)).map((session) => ({ ...what, session }))
    }

    /** `local`: whose devices would get copies; `peer`: the other side. */
    function isEligible({ stanza, from, to }: StanzaEvent, local: string, peer: JID): boolean {
      if (stanza.attr('type') !== 'error') return isInstantMessage(stanza)
      // §6.1: an error counts when what it answers did. §10.3: an answer to a copy is none, whatever it contains
      return !from.bare.equals(to.bare) && eligibleOnes.has(local, stanza, peer)
    }

    function copy(session: Bound, direction: Copy['direction'], message: Element): void {
      ctx.deliver(session, copyFor(session.jid, { direction, message }))
    }
  },
})

/** §4, §5: the two requests, and the same within Bind 2 (XEP-0386 §3.2). */
function enabling(ctx: Ctx): void {
  const turn = (s: Session, on: true | undefined): void => {
    const before = s.flag(FLAG)
    s.setFlag(FLAG, on)
    if (on === true && before !== on) void ctx.run('carbons:enabled', { session: s })
  }
  const set = (on: true | undefined) => (iq: Iq) => {
    // §4.1, §5.1: a client of another server, or of another account
    if (iq.session === undefined || !iq.from.bare.equals(iq.to.bare)) throw new StanzaError('not-allowed')
    turn(iq.session, on) // §10.1: again and again is no error
  }
  ctx.iq('account', 'set', CARBONS, 'enable', set(true), { advertise: false })
  ctx.iq('account', 'set', CARBONS, 'disable', set(undefined), { advertise: false })
  ctx.streamFeature({
    ns: CARBONS,
    streams: ['c2s'],
    needs: ['authenticated'],
    forbids: [],
    inline: 'bind2',
    advertise: () => el('feature', NS.BIND2, { var: CARBONS }),
    handle(s: Session, request) {
      if (request.name === 'enable') turn(s, true)
    },
  })
}
