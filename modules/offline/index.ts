/**
 * XEP-0160 Best Practices for Handling Offline Messages 1.0.1: keeps messages for accounts that have no available resource of
 * non-negative priority (RFC 6121 §8.5.2.2.1) and delivers them to the first one, in order, with the time they were sent (XEP-0203).
 * Hints of the sender (XEP-0334) decide first. A device that reads the archive (XEP-0313) gets only what is not there,
 * and what was kept after it asked last.
 *
 * Messages are handed over within the lane of the account, so that what arrives later comes later. What was handed over is removed
 * afterwards: after a crash in between it comes again, with the same ids. Left out: retrieval by the client (XEP-0013).
 */
import { type Bound, c, defineModule, type StanzaEvent, type Verdict } from '../../server/module.ts'
import { type Element, el } from '../../server/xmpp/element.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { type JID, tryJid } from '../../server/xmpp/jid.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { formatDateTime, parseDateTime } from '../../server/xmpp/xml-time.ts'
import { Box, type Hand, type Kept, type Message, type Waiting } from './box.ts'
import { Copies } from './copies.ts'
import { dedupeKey, isArchived, isKept, retractedIn } from './rules.ts'

/** Accounts of which something is in memory; more are let go when they are idle. */
const MAX_BOXES = 10_000
/** A session has asked for all of its archive up to now (XEP-0313), and reads on from there. */
interface Reading {
  /** When it asked last, milliseconds since 1970; -Infinity: the clock was set back since, and what was before that cannot be told. */
  at: number
  /** The first entry kept since it asked last. */
  next: string | undefined
}
/** How long the account waits while a client confirms what it is given, milliseconds; what arrives after that may come before the rest. */
const PATIENCE_MS = 1_000
/** Messages that are remembered as handed over. */
const MAX_HANDED = 10_000

declare module '../../server/module.ts' {
  interface StanzaEvent {
    /** account:stored: it waits for the account to become available. */
    kept?: boolean
  }
  interface Services {
    offline: {
      /** Whether a message is worth keeping for an account that is not there; there may be no room for it. */
      keeps(e: Pick<StanzaEvent, 'stanza' | 'to'>): boolean
      /**
       * Keeps a message for an account that is not there, if it is worth it; once, when its sender gave it an id. `since`: when it came into the
       * archive of the account, if that is not just now.
       */
      keep(e: Pick<StanzaEvent, 'stanza' | 'from' | 'to'>, since?: Date): Promise<void>
      /**
       * Whether a message was kept and has been handed over, as far as this process knows. A promise: something is being handed over, ask again
       * when that is done.
       */
      handed(e: Pick<StanzaEvent, 'stanza' | 'from' | 'to'>): boolean | Promise<void>
      /** Whether a session has asked for all of its archive, and goes on from there: what is archived and lost with it, it finds there. */
      reads(session: Bound): boolean
      /** Whether an available session is still to get what is kept. */
      pending(session: Bound): boolean
    }
  }
}

const config = c.object({
  messages: c.int().min(1).default(1000).describe('Messages that may wait for one account'),
  bytes: c.bytes('1 MiB').describe('Size of all messages that may wait for one account'),
})

export default defineModule({
  name: 'offline',
  summary: 'Keeps messages for accounts that are not online',
  specs: [
    { xep: 160, version: '1.0.1', status: 'complete' },
    { xep: 203, version: '2.0', status: 'complete' },
    { xep: 334, version: '1.0.0', status: 'partial', note: 'hints on storing' },
    { xep: 85, version: '2.1', status: 'partial', note: 'chat states alone are not kept' },
    { xep: 359, version: '0.7.0', status: 'partial', note: 'a message that is sent again is kept once' },
    { xep: 424, version: '0.4.2', status: 'partial', note: 'what was taken back meanwhile is not delivered' },
    { xep: 313, version: '1.1.3', status: 'partial', note: 'who reads the archive gets nothing twice' },
    { xep: 280, version: '1.0.1', status: 'partial', note: 'who has a copy gets nothing twice' },
    { xep: 45, version: '1.35.5', status: 'partial', note: 'occupants of rooms are told apart' },
    { xep: 386, version: '1.1.0', status: 'partial', note: 'archived messages are cleared, not sent' },
    { rfc: 6121, sections: '8.5.2.2.1' },
  ],
  requires: ['presence'],
  optional: ['mam'],
  config,
  setup(ctx, initial) {
    let bounds = initial
    const archive = ctx.storage.archive<Kept>('messages')
    const stored = ctx.metrics.counter('stored', 'Messages kept for accounts that were not online')
    const refused = ctx.metrics.counter('refused', 'Messages refused because too many were waiting')
    const delivered = ctx.metrics.counter('delivered', 'Kept messages that were delivered')
    const boxes = new Map<string, Box>()
    const handed = new Set<string>()
    /** The session was given what waited when it became available. */
    const served = ctx.perSession<boolean>(() => false)
    const reading = ctx.perSession<Reading | undefined>(() => undefined)
    const copies = ctx.perSession(() => new Copies())
    ctx.disco.feature('host', 'msgoffline') // §4

    function boxOf(local: string): Box {
      const known = boxes.get(local)
      if (known !== undefined) return known
      if (boxes.size >= MAX_BOXES) {
        for (const [name, { idle }] of boxes) {
          if (!idle) continue
          boxes.delete(name)
          break
        }
      }
      const box = new Box(archive, local, () => bounds)
      boxes.set(local, box)
      return box
    }

    // ---- storing ----

    ctx.hook('account:offline', { phase: 'store', kinds: ['message'], before: ['mam'] }, (e) =>
      isKept(e.stanza, e.to) ? keep(e) : undefined,
    )

    ctx.hook('account:missing', { phase: 'guard', kinds: ['message'] }, ({ stanza, to }) =>
      isKept(stanza, to) ? { stop: 'would be kept' } : undefined,
    )

    ctx.provide('offline', {
      keeps: ({ stanza, to }) => isKept(stanza, to),
      async keep(e, since) {
        if (isKept(e.stanza, e.to)) await keep(e, since)
      },
      handed({ stanza, from, to }) {
        const handing = boxes.get(to.local)?.handing
        if (handing !== undefined) return handing
        const key = dedupeKey(stanza, from)
        return key !== undefined && handed.has(`${to.local} ${key}`)
      },
      reads: (session) => reading.get(session) !== undefined,
      pending: (session) => (session.priority ?? -1) >= 0 && !served.get(session),
    })

    async function keep(
      e: Pick<StanzaEvent, 'stanza' | 'from' | 'to' | 'copied' | 'kept'>,
      since?: Date,
    ): Promise<Verdict> {
      const { stanza, from, to } = e
      const account = to.bare.toString()
      const whole = stanza.attr('to') === undefined ? stanza.withAttrs({ to: account }) : stanza
      const message = {
        at: ctx.now(),
        with: from.bare.toString(),
        xml: whole.toString(),
        since: since?.getTime() ?? sentAt(stanza),
        dedupe: dedupeKey(stanza, from),
        ...notesFor(to.local, e.copied ?? []),
      }
      if (await boxOf(to.local).add(message)) {
        stored.add()
        e.kept = true
        return { stop: 'stored' }
      }
      refused.add()
      // It is in the archive, where its receiver will find it: not an error.
      if (isArchived(stanza, to)) return undefined
      return { bounce: new StanzaError('service-unavailable') } // §2, step 3
    }

    // ---- devices that get messages otherwise ----

    // XEP-0313 §6.1.1, XEP-0386 §3.2: they have got there what was kept before they asked, and must be given what comes later.
    ctx.hook('archive:read', { phase: 'observe' }, ({ session, whole }) => {
      if (whole) reading.set(session, { at: ctx.now(), next: undefined })
    })

    /** Who has asked by now will not find there what is about to be kept. `copied`: who has a copy of it. */
    function notesFor(local: string, copied: readonly Bound[]): Pick<Message, 'stored'> {
      const asked = ctx.sessions.of(local).flatMap((session) => {
        const one = reading.get(session)
        if (one !== undefined && ctx.now() < one.at) one.at = -Infinity
        return one === undefined || one.next !== undefined ? [] : [one]
      })
      if (asked.length === 0 && copied.length === 0) return {}
      return {
        stored(id, fresh) {
          for (const session of copied) copies.get(session).add(id, session)
          if (!fresh) return
          for (const one of asked) if (one.next === undefined || id < one.next) one.next = id
        },
      }
    }

    /** Whether the session has an archived message from its archive. Ids sort in the order of storing. */
    function hasRead(session: Bound, { id, since }: Waiting): boolean {
      const one = reading.get(session)
      if (one === undefined) return false
      return since === undefined ? one.next === undefined || id < one.next : since < one.at
    }

    /** XEP-0203: when what comes back to be kept was sent, or was kept, first; it was archived before. Milliseconds since 1970. */
    function sentAt(stanza: Element): number | undefined {
      const delay = stanza.getChildren('delay', NS.DELAY).find((one) => one.attr('from') === ctx.host)
      return parseDateTime(delay?.attr('stamp') ?? '')
    }

    // ---- delivering ----

    // §2, step 5. The lane of the account waits for it: what arrives meanwhile comes behind.
    ctx.hook(
      'client:in',
      { phase: 'copy', kinds: ['presence'], after: ['presence'] },
      ({ stanza, session }) =>
        session === undefined || stanza.attr('to') !== undefined ? undefined : serve(session),
    )

    function serve(session: Bound): Promise<void> | undefined {
      // RFC 6121 §8.5.2.2.1: a negative priority counts as being away
      if (session.priority === undefined || session.priority < 0) {
        served.set(session, false)
        return undefined
      }
      if (served.get(session)) return undefined
      served.set(session, true)
      return deliver(session)
    }

    async function deliver(session: Bound): Promise<void> {
      const { local } = session.jid
      const box = boxOf(local)
      try {
        await box.take((all, over) => handOver(session, all, over))
      } catch (error) {
        served.set(session, false) // the next presence tries again
        throw error
      } finally {
        if (box.idle && boxes.get(local) === box) boxes.delete(local)
      }
    }

    async function handOver(
      session: Bound,
      all: readonly Waiting[],
      over: Parameters<Hand>[1],
    ): Promise<void> {
      const messages: { readonly entry: Waiting; readonly stanza: Element }[] = []
      await ctx.inSlices(all, (entry) => {
        const stanza = read(session.jid, entry)
        if (stanza !== undefined) messages.push({ entry, stanza })
      })
      const retracted = retractedIn(messages.map(({ stanza }) => stanza))
      const keys = new Set<string>()
      const enough = Promise.withResolvers<false>()
      using _timer = ctx.timers.after(PATIENCE_MS, () => enough.resolve(false))
      // All at once, or as many as the client can confirm: more would end its session (XEP-0198), and all of them be back.
      for (const { entry, stanza } of messages) {
        const room = session.output?.room()
        if (room !== undefined) {
          const late = (await Promise.race([room, enough.promise])) === false
          if (late || !session.connected) {
            goOnAfter(session, room)
            break
          }
        }
        // Gone, or away again: it stays for the next one. What has lost its stream and may come back gets it then, before what is newer.
        if (!isThere(session)) {
          served.set(session, false)
          break
        }
        const key = keyOf(stanza)
        over(entry, key)
        if (retracted.has(stanza)) continue
        // It came back, and a crash left what it had been stored as before; or its sender sent it again meanwhile.
        if (key !== undefined && keys.has(key)) continue
        const archived = isArchived(stanza, session.jid)
        if (archived && hasRead(session, entry)) continue
        if (key !== undefined) {
          keys.add(key)
          remember(`${session.jid.local} ${key}`)
        }
        const safe = archived && reading.get(session) !== undefined
        if (copies.get(session).has(entry.id, session, safe)) continue // XEP-0280 §7
        ctx.deliver(session, delayed(stanza, entry.at))
        delivered.add()
      }
    }

    /** The client has too much to confirm, which may be behind something that waits for this one: the rest comes when it has. */
    function goOnAfter(session: Bound, room: Promise<void>): void {
      served.set(session, false)
      room
        .then(() => (session.connected ? serve(session) : undefined))
        .catch((error: unknown) => ctx.log.error('what is kept cannot be handed over', { err: error }))
    }
    ctx.hook('session:resumed', { phase: 'observe' }, ({ session }) => serve(session))

    /** An entry that cannot be read must not keep others waiting. It stays where it is: to remove it would make a loss of what may only be a limit. */
    function read(account: JID, { id, xml }: Waiting): Element | undefined {
      try {
        return parseXml(xml)
      } catch (error) {
        const about = { account: account.bare.toString(), id, err: error }
        ctx.log.error('a kept message cannot be read and is left out', about)
        return undefined
      }
    }

    function keyOf(stanza: Element): string | undefined {
      const from = tryJid(stanza.attr('from') ?? '')
      return from === undefined ? undefined : dedupeKey(stanza, from)
    }

    function remember(key: string): void {
      const [oldest] = handed
      if (oldest !== undefined && handed.size >= MAX_HANDED) handed.delete(oldest)
      handed.add(key)
    }

    const isThere = (session: Bound): boolean =>
      (session.priority ?? -1) >= 0 && ctx.sessions.get(session.jid) === session

    /** XEP-0203 §3: when it was sent first; one that has been on its way before says so. */
    function delayed(stanza: Element, at: number): Element {
      if (sentAt(stanza) !== undefined) return stanza
      const attrs = { from: ctx.host, stamp: formatDateTime(at) }
      return stanza.append(el('delay', NS.DELAY, attrs, 'Offline Storage'))
    }

    // ---- the end ----

    ctx.hook('account:deleted', { phase: 'observe' }, async ({ account: { local } }) => {
      // What is being stored would be there after the rest was removed.
      await boxes.get(local)?.settled()
      boxes.delete(local)
    })

    return {
      // Who has read the archive, has copies, or is being given what waits, is so still.
      reconfigure(next) {
        bounds = next
      },
    }
  },
})
