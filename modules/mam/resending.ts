/**
 * Messages that clients send again after a broken stream (XEP-0359 0.7.0 §2.2), beyond what the archive of the receiver can tell: it is not
 * there, or has the message although nobody got it. What is unknown after a crash is delivered once more rather than never; so is what came
 * back to its sender with an error.
 */
import type { Ctx, Session, StanzaEvent, Verdict } from '../../server/module.ts'
import type { JID } from '../../server/xmpp/jid.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { stanzaIdBy } from '../../server/xmpp/stanza.ts'
import type { Ends } from './ends.ts'
import { messageKey, type Passage, Passed, Refused, Stopped, Unkept } from './resent.ts'

/** What to do with a message that has been sent before. */
export interface Resending {
  /** On its way out, where the archive of the sender has it or there is none: stopped when it got out of here before and did not come back. */
  leaving(e: StanzaEvent, originId: string | undefined): Verdict
  /** On its way in, where there is no archive: the same. */
  arriving(e: StanzaEvent, originId: string | undefined): Verdict
  /** On its way in, where the archive has it; `since`: when it came there. The stanza of `e` has its id from there. */
  known(e: StanzaEvent, originId: string, since: Date | undefined): Verdict | Promise<Verdict>
  /** On its way in: the archive has it, and its sender is told that it failed. */
  failed(e: StanzaEvent, originId: string): void
  /** The same on its way out: it was not copied to other devices. */
  stopped(e: StanzaEvent, originId: string): void
  /** Whether that is so of one that is sent again; it is forgotten then. */
  wasStopped(e: StanzaEvent, originId: string): boolean
  /** This process ends in order: the next one shall know what this one does. */
  over(): Promise<void>
}

/** In the store, between processes. */
type Remembered = {
  readonly left: readonly (readonly [string, Passage])[]
  readonly arrived: readonly (readonly [string, Passage])[]
  readonly refused: readonly string[]
  readonly unkept: readonly string[]
}

const KEY = 'resent'
const NOTHING: Remembered = { left: [], arrived: [], refused: [], unkept: [] }
const SENT_BEFORE: Verdict = { stop: 'duplicate' }

/**
 * Follows what becomes of messages. `isHere`: whether the receiver's side has an archive in this process. `askedAt`: when a session asked last for
 * all of its archive up to then, milliseconds since 1970.
 */
export async function resending(
  ctx: Ctx,
  ends: Ends,
  windowMs: number,
  isHere: (to: JID) => boolean,
  askedAt: (session: Session) => number | undefined,
): Promise<Resending> {
  const docs = ctx.storage.docs<Remembered>('processes')
  const before = await docs.get('', KEY)
  // If this process is killed, nobody knows what became of them; what came back has reached nobody, and is to be given when it comes again.
  const unkeptBefore = before?.unkept ?? []
  if (unkeptBefore.length > 0) await docs.put('', KEY, { ...NOTHING, unkept: unkeptBefore })
  else if (before !== undefined) await docs.delete('', KEY)
  const refused = new Refused(before?.refused ?? [])
  const left = new Passed('out', windowMs, before?.left ?? [])
  const arrived = new Passed('in', windowMs, before?.arrived ?? [])
  const unkept = new Unkept(unkeptBefore)
  const uncopied = new Stopped()
  /** Messages that are being given to those who did not get them when they were sent first. */
  const underWay = new Map<string, Promise<void>>()

  ctx.hook('client:in', { phase: 'observe', kinds: ['message'] }, (e) => {
    const id = e.passing ?? (isHere(e.to) ? undefined : e.archiving?.originId)
    if (id !== undefined && id !== '') left.add(e, id, ctx.now())
  })
  ctx.hook('account:in', { phase: 'observe', kinds: ['message'] }, (e) => {
    if (e.passing !== undefined) arrived.add(e, e.passing, ctx.now())
    const { stanza, from, to } = e
    // What others send back. Accounts here have no say in what was delivered to them.
    if (stanza.attr('type') === 'error' && !isHere(from))
      refused.add(to.local, from, stanza.attr('id'), originIdOf(stanza))
  })
  // Only now is it certain that nobody takes it: a session may have become available since it was archived.
  ctx.hook('account:offline', { phase: 'guard', kinds: ['message'], before: ['offline'] }, (e) => {
    const { originId = '' } = e.archiving ?? {}
    if (originId !== '') unkept.add(e, originId)
  })
  ctx.hook('account:stored', { phase: 'observe' }, (e) => {
    if (e.archiving !== undefined) unkept.delete(e, e.archiving.originId ?? '')
  })
  ctx.hook('message:bounced', { phase: 'observe' }, (e) => {
    const { stanza, from, to } = e
    const originId = originIdOf(stanza)
    if (originId === '') return
    if (from.domain === ctx.host) left.cameBack(e, originId)
    if (to.domain !== ctx.host) return
    arrived.cameBack(e, originId)
    if (stanzaIdBy(stanza, to.bare) !== undefined) unkept.fail(e, originId)
  })

  /**
   * It was archived and may have got no further. Devices that have read the archive since found it there, since none was available then; others get it,
   * or it is kept for them.
   */
  async function late(e: StanzaEvent, originId: string, since: Date | undefined): Promise<Verdict> {
    const passed = arrived.get(e, originId, ctx.now())
    if (passed?.back === false) return SENT_BEFORE
    const key = messageKey(e, originId)
    const giving = give(e, since)
      .then(
        () => arrived.add(e, originId, ctx.now()),
        (error: unknown) => {
          unkept.fail(e, originId) // its sender is told, and may try again
          throw error
        },
      )
      .finally(() => underWay.delete(key))
    underWay.set(key, giving)
    await giving
    return SENT_BEFORE
  }

  async function give(e: StanzaEvent, since: Date | undefined): Promise<void> {
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
      if (!hasRead(session, since) && !pending.includes(session)) ctx.deliver(session, e.stanza)
    if (takers.length === 0 || pending.length > 0) await kept?.keep(e, since)
  }

  /** Whether the session has found there what was archived then; where the clock was set back nobody knows. */
  function hasRead(session: Session, since: Date | undefined): boolean {
    const asked = askedAt(session)
    return asked !== undefined && asked <= ctx.now() && (since === undefined || since.getTime() < asked)
  }

  function known(e: StanzaEvent, originId: string, since: Date | undefined): Verdict | Promise<Verdict> {
    // An earlier attempt is being given: all end as that one does.
    const giving = underWay.size === 0 ? undefined : underWay.get(messageKey(e, originId))
    if (giving !== undefined) return giving.then(() => SENT_BEFORE)
    const failed = unkept.take(e, originId)
    if (failed instanceof Promise) return failed.then(() => known(e, originId, since))
    // A process that was killed: nobody knows what it did besides.
    return failed || (since !== undefined && ends.cut(since)) ? late(e, originId, since) : SENT_BEFORE
  }

  return {
    leaving(e, originId) {
      if (originId === undefined || originId === '') return undefined
      const { stanza, from, to } = e
      const passed = left.get(e, originId, ctx.now())
      if (passed === undefined) return undefined
      e.duplicate = true
      // The server may have been killed in between, so the receiver's side decides, where there is one.
      if (passed.back || isHere(to)) return undefined
      return refused.take(from.local, to, stanza.attr('id'), originId) ? undefined : SENT_BEFORE
    },
    arriving(e, originId) {
      if (originId === undefined) return undefined
      return arrived.get(e, originId, ctx.now())?.back === false ? SENT_BEFORE : undefined
    },
    known,
    failed(e, originId) {
      if (originId !== '') unkept.fail(e, originId)
    },
    stopped(e, originId) {
      if (originId !== '') uncopied.add(e, originId)
    },
    wasStopped: (e, originId) => uncopied.take(e, originId),
    async over() {
      const now = ctx.now()
      const remembered = {
        left: left.all(now),
        arrived: arrived.all(now),
        refused: refused.all(),
        unkept: unkept.all(),
      }
      if (Object.values(remembered).some((list) => list.length > 0)) await docs.put('', KEY, remembered)
      else if (unkeptBefore.length > 0) await docs.delete('', KEY)
    },
  }
}

const originIdOf = (message: StanzaEvent['stanza']): string =>
  message.getChild('origin-id', NS.SID)?.attr('id') ?? ''
