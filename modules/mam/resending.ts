/**
 * Messages that clients send again after a broken stream (XEP-0359 0.7.0 §2.2), beyond what the archive of the receiver can tell: it is not
 * there, or has the message although nobody got it. What is unknown after a crash is delivered once more rather than never.
 */
import type { Ctx, StanzaEvent, Verdict } from '../../server/module.ts'
import type { JID } from '../../server/xmpp/jid.ts'
import { NS } from '../../server/xmpp/ns.ts'
import type { Ends } from './ends.ts'
import { READS_ARCHIVE } from './ns.ts'
import { Passed, Refused, Unkept } from './resent.ts'

/** What to do with a message that has been sent before. */
export interface Resending {
  /** Where no archive knows: stopped when it went there before and did not come back. */
  again(e: StanzaEvent, originId: string | undefined): Verdict
  /** Where the archive has it; `since`: when it came there. The stanza of `e` has its id from there. */
  known(e: StanzaEvent, originId: string, since: Date | undefined): Verdict | Promise<Verdict>
}

const SENT_BEFORE: Verdict = { stop: 'duplicate' }

/** Follows what becomes of messages. `isHere`: whether the receiver's side has an archive in this process. */
export function resending(ctx: Ctx, ends: Ends, windowMs: number, isHere: (to: JID) => boolean): Resending {
  const refused = new Refused()
  const unkept = new Unkept()
  const passed = new Passed(windowMs)
  const underWay = new Map<string, Promise<void>>()

  ctx.hook('client:in', { phase: 'observe', kinds: ['message'] }, ({ archiving: kept, stanza, from, to }) => {
    const id = kept?.originId
    if (id !== undefined && id !== '' && !isHere(to)) passed.add(stanza, from, to, id, ctx.now())
  })
  ctx.hook('account:in', { phase: 'observe', kinds: ['message'] }, ({ passing, stanza, from, to }) => {
    if (passing !== undefined) passed.add(stanza, from, to, passing, ctx.now())
  })
  // Only now is it certain that nobody takes it: a session may have become available since it was archived.
  ctx.hook(
    'account:offline',
    { phase: 'guard', kinds: ['message'], before: ['offline'] },
    ({ archiving: kept, from, to }) => {
      const { originId = '' } = kept ?? {}
      if (originId !== '') unkept.add(to.local, from, originId, ctx.now())
    },
  )
  ctx.hook('account:stored', { phase: 'observe' }, ({ archiving: kept, from, to }) => {
    if (kept !== undefined) unkept.delete(to.local, from, kept.originId ?? '')
  })
  ctx.hook('client:out', { phase: 'observe', kinds: ['message'] }, ({ stanza, from, to }) => {
    if (stanza.attr('type') !== 'error') return
    refused.add(to.local, from, stanza.attr('id'))
    const originId = stanza.getChild('origin-id', NS.SID)?.attr('id') ?? ''
    if (originId !== '') unkept.fail(from.local, to, originId)
  })

  /**
   * It was archived and may have got no further. Devices that read the archive find it there, since none was available then; others get it,
   * or it is kept for them.
   */
  async function late(e: StanzaEvent, originId: string): Promise<Verdict> {
    const { stanza, from, to } = e
    if (passed.has(stanza, from, to, originId, ctx.now())) return SENT_BEFORE
    const key = `${to.local} ${from.bare.toString()} ${originId}`
    let giving = underWay.get(key)
    if (giving === undefined) {
      giving = give(e)
        .then(
          () => passed.add(stanza, from, to, originId, ctx.now()),
          (error: unknown) => {
            // its sender is told, and may try again
            unkept.add(to.local, from, originId, ctx.now())
            unkept.fail(to.local, from, originId)
            throw error
          },
        )
        .finally(() => underWay.delete(key))
      underWay.set(key, giving)
    }
    await giving
    return SENT_BEFORE
  }

  async function give(e: StanzaEvent): Promise<void> {
    const kept = ctx.find('offline')
    let handed = kept?.handed(e)
    for (; handed instanceof Promise; handed = kept?.handed(e)) await handed
    if (handed === true) return
    // From here on nothing waits: what is kept cannot be on its way.
    // Before a session is available it may still say that it reads the archive.
    const takers = ctx.sessions
      .takers(e.to, e.stanza.attr('type'))
      .filter(({ priority }) => priority !== undefined)
    // What is kept may be this message.
    const pending = takers.filter((session) => kept?.pending(session) === true)
    for (const session of takers)
      if (session.flag(READS_ARCHIVE) !== true && !pending.includes(session)) ctx.deliver(session, e.stanza)
    if (takers.length === 0 || pending.length > 0) await kept?.keep(e)
  }

  return {
    again({ stanza, from, to }, originId) {
      if (originId === undefined || !passed.has(stanza, from, to, originId, ctx.now())) return undefined
      const cameBack = from.domain === ctx.host && refused.take(from.local, to, stanza.attr('id'))
      return cameBack ? undefined : SENT_BEFORE
    },
    known(e, originId, since) {
      const failed = unkept.take(e.to.local, e.from, originId, ctx.now())
      // A process that was killed: nobody knows what it did besides.
      return failed || (since !== undefined && ends.cut(since)) ? late(e, originId) : SENT_BEFORE
    },
  }
}
