/**
 * XEP-0313 Message Archive Management 1.1.3: the archive of each account, with preferences (XEP-0441), words (XEP-0431), ids in messages
 * (XEP-0359 0.7.0) and the rules what belongs into it (XEP-0334 and others, rules.ts). A message that a client sends again after a broken
 * stream is known by its origin-id and goes nowhere a second time. Groupchat is not archived here: rooms have archives of their own.
 *
 * Both archives are written before a message counts as handled: the sender's on 'client:in', the receiver's on 'account:in', each in the store
 * phase, whose order in an account's lane is the order of delivery; so is the order of ids. What decides and may wait does so in the phase before.
 */
import { randomBytes } from 'node:crypto'
import {
  c,
  type Ctx,
  defineModule,
  type Iq,
  type Session,
  type StanzaEvent,
  type Verdict,
} from '../../server/module.ts'
import { el } from '../../server/xmpp/element.ts'
import { type JID, makeJid } from '../../server/xmpp/jid.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { stanzaIdBy } from '../../server/xmpp/stanza.ts'
import { Archives } from './archives.ts'
import { Ends } from './ends.ts'
import { IdCodec } from './ids.ts'
import { FULLTEXT, NS_MAM, READS_ARCHIVE } from './ns.ts'
import { metadataOf, resultOf } from './pages.ts'
import { Preferences } from './prefs.ts'
import { isWhole, QUERY_FORM } from './query.ts'
import { resending } from './resending.ts'
import { answerQuery, resultElement } from './results.ts'
import { followRooms } from './rooms.ts'
import { Retention } from './retention.ts'
import { examine, type Finding } from './rules.ts'
import { Searches } from './searches.ts'
import type { Source } from './service.ts'

declare module '../../server/module.ts' {
  interface StanzaEvent {
    /** Set by mam, from phase rewrite on: the account whose chain this is wants the message in its archive. */
    archiving?: Finding | undefined
    /** Of mam alone: the id that its sender gave a message which would belong there, but whose account keeps none such. */
    passing?: string | undefined
  }
}

/** How long what is done with a message may take, milliseconds: less than a handler has. */
const HANDLED_MS = 9_500
/** How long a removed account is remembered, for messages that are still on their way. */
const GONE_MS = 60_000

/** Hosts of this process whose accounts have archives. */
const archiving = new Set<string>()

const limit = {
  days: c.int().min(0).default(0).describe('Days that messages stay; 0: for ever'),
  messages: c.int().min(0).default(0).describe('Messages that stay in one archive, the newest; 0: all'),
}

const config = c.object({
  ...limit,
  accounts: c
    .record(c.string(), c.object(limit))
    .default({})
    .describe('Limits of single accounts by user name, in place of `days` and `messages`'),
  default: c
    .enum(['always', 'roster', 'never'])
    .default('always')
    .describe('What is archived unless the user says otherwise: all, messages with contacts, nothing'),
  preferences: c.boolean().default(true).describe('Users may change what is archived'),
  maxPreferences: c
    .int()
    .min(0)
    .default(1000)
    .describe('Addresses that one account may except from the default'),
  pageSize: c
    .int()
    .min(1)
    .max(1000)
    .default(50)
    .describe('Messages in one answer when the client does not say'),
  maxPage: c.int().min(1).max(1000).default(250).describe('Messages in one answer at most'),
  resendWindow: c
    .duration('7d')
    .describe('How long a message that is sent again with the same id counts as the same'),
})

export default defineModule({
  name: 'mam',
  summary: 'Keeps an archive of messages for each account',
  specs: [
    { xep: 313, version: '1.1.3', status: 'complete', note: 'archives of accounts; rooms have their own' },
    { xep: 59, version: '1.0', status: 'partial', note: 'no pages by index' },
    { xep: 184, version: '1.4.0', status: 'complete', note: 'receipts are archived' },
    { xep: 297, version: '1.0', status: 'complete' },
    { xep: 333, version: '1.0.0', status: 'complete', note: 'markers are archived' },
    { xep: 334, version: '1.0.0', status: 'partial', note: 'hints on storing' },
    { xep: 353, version: '0.8.0', status: 'complete', note: 'invitations to calls are archived' },
    { xep: 359, version: '0.7.0', status: 'complete' },
    { xep: 386, version: '1.1.0', status: 'partial', note: 'metadata at binding' },
    { xep: 424, version: '0.4.2', status: 'partial', note: 'archived; tombstones: module retract' },
    { xep: 428, version: '0.2.1', status: 'partial', note: 'fallbacks are not searched' },
    { xep: 431, version: '0.2.0', status: 'complete' },
    { xep: 441, version: '0.2.0', status: 'complete' },
    { xep: 45, version: '1.35.5', status: 'partial', note: 'occupants of rooms are told apart' },
    { xep: 122, version: '1.0.2', status: 'partial', note: 'the open list of ids' },
    { xep: 82, version: '1.1.1', status: 'complete' },
    { rfc: 6121, sections: '5.2.2, 8.5.3.2.1' },
  ],
  requires: ['stanza-id'],
  optional: ['roster', 'bind2'],
  config,
  async setup(ctx, options) {
    const gone = new Set<string>()
    const archives = new Archives(ctx, new IdCodec(await secretOf(ctx)), options.resendWindow, gone)
    const prefs = new Preferences(ctx, options)
    const accounts = new Map(Object.entries(options.accounts))
    const retention = new Retention(ctx, archives.archive, options, accounts)
    const stored = ctx.metrics.counter('stored', 'Messages put into archives')
    const duplicates = ctx.metrics.counter('duplicates', 'Messages that were sent again and stopped')
    const ends = await Ends.read(ctx, options.resendWindow)
    /** When the session asked last for all of its archive up to then, milliseconds since 1970. */
    const asked = ctx.perSession<number | undefined>(() => undefined)
    const resent = await resending(ctx, ends, options.resendWindow, isHere, (session) => asked.get(session))
    const rooms = followRooms(ctx)
    const searches = new Searches()
    archiving.add(ctx.host)
    ctx.signal.addEventListener('abort', () => archiving.delete(ctx.host))

    // ---- what belongs into whose archive ----

    function decide(e: StanzaEvent, local: string, peer: JID): void | Promise<void> {
      e.archiving = undefined
      e.passing = undefined
      if (e.duplicate === true) e.duplicate = false // on its way in: that was the sender's side
      const found = examine(e.stanza)
      if (found === undefined) return undefined
      // XEP-0045 §7.5: that a private message is marked must not be relied on
      const unmarked = !found.occupant && rooms.isOccupant(local, peer)
      const finding = unmarked ? { ...found, occupant: true } : found
      if (!finding.kept) return decided(e, finding, false)
      const wanted = gone.has(local) ? returned(local) : prefs.wants(local, peer)
      if (!(wanted instanceof Promise)) return decided(e, finding, wanted)
      return wanted.then((answer) => decided(e, finding, answer))
    }
    function decided(e: StanzaEvent, finding: Finding, wanted: boolean): void {
      if (wanted) e.archiving = finding
      else if (finding.originId !== '') e.passing = finding.originId
    }
    /** Whether somebody has that name again. */
    async function returned(local: string): Promise<boolean> {
      const exists = (await ctx.find('auth')?.exists(local)) === true
      if (exists) gone.delete(local)
      return exists
    }

    // Messages to oneself are archived once, on their way in (§6.1.1).
    ctx.hook('client:in', { phase: 'rewrite', kinds: ['message'], after: ['stanza-id'] }, (e) =>
      isOwn(e) ? undefined : decide(e, e.from.local, e.to),
    )
    ctx.hook('account:in', { phase: 'rewrite', kinds: ['message'], after: ['stanza-id'] }, (e) =>
      decide(e, e.to.local, e.from),
    )

    // ---- storing ----

    /** A promise for a retraction alone, which counts as handled when those who carry it out have made sure that they will; never rejects. */
    function done(
      local: string,
      e: StanzaEvent,
      peer: JID,
      finding: Finding,
      duplicate: boolean,
    ): Promise<unknown> | undefined {
      ;(duplicate ? duplicates : stored).add()
      if (!duplicate) retention.added(local)
      if (!finding.retracts) return undefined
      const { stanza, from } = e
      const told = ctx.run('archive:retraction', { local, from, peer, stanza, occupant: finding.occupant })
      if (!(told instanceof Promise)) return undefined
      return told.catch((error: unknown) => ctx.log.error('retraction failed', { err: error }))
    }

    /** `verdict`, when `told` is over too. Rejects when that is not in time for the sender to hear that the message is handled. */
    async function afterBoth(
      told: Promise<unknown>,
      verdict: Verdict | Promise<Verdict>,
      began: number,
    ): Promise<Verdict> {
      const { promise: late, reject } = Promise.withResolvers<never>()
      const left = Math.max(0, began + HANDLED_MS - ctx.now())
      using _timer = ctx.timers.after(left, () => reject(new Error('a retraction was not taken in time')))
      return (await Promise.all([verdict, Promise.race([told, late])]))[0]
    }

    ctx.hook('client:in', { phase: 'store', kinds: ['message'] }, (e) => {
      const finding = e.archiving
      if (isOwn(e)) return undefined
      if (finding === undefined) return resent.leaving(e, e.passing)
      ends.archiving()
      const { stanza, from, to } = e
      const { originId = '' } = finding
      const began = ctx.now()
      const sent = (id: string, duplicate: boolean): Verdict | Promise<Verdict> => {
        const told = done(from.local, e, to, finding, duplicate)
        e.archivedAs = id
        const known = duplicate && !resent.wasStopped(e, originId)
        if (known) e.duplicate = true
        const verdict = known && !isHere(to) ? resent.leaving(e, originId) : undefined
        if (told === undefined) return verdict
        return afterBoth(told, verdict, began).catch((error: unknown) => {
          if (!known) resent.stopped(e, originId)
          throw error
        })
      }
      return archives.append(from.local, 'out', to, stanza, finding, sent)
    })

    /** RFC 6121 §8.5.3.2.1: for a resource that is not there; it goes back. */
    const isUntakenHeadline = ({ stanza, to }: StanzaEvent): boolean =>
      to.resource !== '' &&
      stanza.attr('type') === 'headline' &&
      ctx.sessions.takers(to, 'headline').length === 0

    ctx.hook('account:in', { phase: 'store', kinds: ['message'] }, (e) => {
      // Its sender is told that nobody took it.
      if (e.archiving !== undefined && isUntakenHeadline(e)) e.archiving = undefined
      const finding = e.archiving
      if (finding === undefined) return resent.arriving(e, e.passing)
      ends.archiving()
      const { from, to } = e
      const bare = to.bare.toString()
      const stanza = e.stanza.attr('to') === undefined ? e.stanza.withAttrs({ to: bare }) : e.stanza
      const { originId = '' } = finding
      const began = ctx.now()
      const arrived = (id: string, duplicate: boolean, since?: Date): Verdict | Promise<Verdict> => {
        const told = done(to.local, e, from, finding, duplicate)
        e.duplicate = duplicate
        if (!duplicate && isOwn(e)) e.archivedAs = id
        // §3.5, XEP-0359 §2.1
        const whole = e.stanza.append(el('stanza-id', NS.SID, { by: bare, id }))
        if (!duplicate) e.stanza = whole
        const verdict = duplicate ? resent.known({ ...e, stanza: whole }, originId, since) : undefined
        if (told === undefined) return verdict
        return afterBoth(told, verdict, began).catch((error: unknown) => {
          if (!duplicate) resent.failed(e, originId)
          throw error
        })
      }
      return archives.append(to.local, 'in', from, stanza, finding, arrived)
    })

    // The archive has it and its owner will find it there: to tell the sender that it failed would be wrong.
    ctx.hook(
      'account:offline',
      { phase: 'store', kinds: ['message'], after: ['offline'] },
      ({ stanza, to }) => (stanzaIdBy(stanza, to.bare) !== undefined ? { stop: 'archived' } : undefined),
    )

    // What an account that is away answers nothing to, unless it has preferences of its own, tells nothing here either.
    ctx.hook('account:missing', { phase: 'guard', kinds: ['message'] }, ({ stanza }) =>
      options.default === 'always' && examine(stanza)?.kept === true
        ? { stop: 'would be archived' }
        : undefined,
    )

    ctx.hook('account:deleted', { phase: 'observe' }, ({ account: { local } }) => {
      prefs.forget(local)
      gone.add(local)
      archives.doubts.drop(local)
      ctx.timers.after(GONE_MS, () => void gone.delete(local))
    })

    // ---- requests ----

    const sourceOf = (account: JID): Source => ({
      archive: archives.shown,
      owner: account.local,
      ids: archives.ids,
      jid: account.bare,
    })
    /** Reads an archive when it holds nothing that is in doubt. */
    function settled<T>(local: string, read: () => T | Promise<T>): T | Promise<T> {
      return archives.doubts.settle(local)?.then(read) ?? read()
    }
    /** The same for a client, which gets nothing by itself from the moment it asks, however long the answer takes. */
    function reads<T>(
      { session, to }: Iq,
      whole: boolean,
      read: (source: Source) => T | Promise<T>,
    ): T | Promise<T> {
      if (session !== undefined) asks(session, whole)
      return settled(to.local, () => read(sourceOf(to)))
    }
    function asks(session: Session, whole: boolean): void {
      session.setFlag(READS_ARCHIVE, true)
      if (whole) asked.set(session, ctx.now())
      void ctx.run('archive:read', { session, whole })
    }
    // §8.1: an archive is its owner's; others get forbidden, by the target
    ctx.iq('self', 'set', NS_MAM, 'query', (iq) =>
      reads(iq, isWhole(iq.payload), (source) => answerQuery(ctx, iq, source, options, searches)),
    )
    ctx.iq('self', 'get', NS_MAM, 'query', () => QUERY_FORM)
    ctx.iq('self', 'get', NS_MAM, 'metadata', (iq) => reads(iq, true, metadataOf))
    ctx.iq('self', 'get', NS_MAM, 'prefs', (iq) => prefs.read(iq))
    ctx.iq('self', 'set', NS_MAM, 'prefs', (iq) => prefs.change(iq))
    // §7; "groupchat-field" says that the field is understood
    for (const part of ['#extended', '#groupchat-field']) ctx.disco.feature('account', NS_MAM + part)
    ctx.disco.feature('account', FULLTEXT.slice(1, FULLTEXT.indexOf('}'))) // XEP-0431 §2.1

    // XEP-0386 §3.2: the state of the archive at the time of binding
    ctx.hook('bind2:bound', { phase: 'store' }, async ({ session, jid, parts }) => {
      asks(session, true)
      parts.push(await settled(jid.local, () => metadataOf(sourceOf(jid))))
    })

    ctx.provide('archive', {
      messages: (local, after) => archives.messages(local, after),
      newest: (local, peer) => archives.newest(local, peer),
      add: (local, m) => archives.add(local, m),
      replace: (local, id, stanza) => archives.replace(local, id, stanza),
      source: (local) => sourceOf(makeJid(local, ctx.host)),
      settled: (local) => archives.doubts.settle(local),
      result: (source, entry, queryId) => resultElement(resultOf(source, entry), queryId),
      ids: (secret) => new IdCodec(secret),
      query: (iq, source) => answerQuery(ctx, iq, source, options, searches),
      metadata: metadataOf,
      form: QUERY_FORM,
    })
    return {
      async stop() {
        // When it cannot be put right, the next process must not take what is there for delivered.
        await archives.doubts.settleAll()
        await resent.over() // without it, too, this process is as good as killed
        await ends.over(archives.doubts.lost)
      },
    }
  },
})

/** Whether the receiver's side knows what it was sent before. */
const isHere = (to: JID): boolean => to.local !== '' && archiving.has(to.domain)

const isOwn = ({ from, to }: StanzaEvent): boolean => from.local === to.local && from.domain === to.domain

/** Made once for each host: ids must be the same after a restart, and in all processes. */
async function secretOf(ctx: Ctx): Promise<Uint8Array> {
  const fresh = randomBytes(48)
  const docs = ctx.storage.docs<{ readonly secret: Uint8Array }>('host')
  return (await docs.update('', 'ids', (old) => old ?? { secret: fresh }))?.secret ?? fresh
}
