/**
 * XEP-0357 Push Notifications 0.4.1: devices name an app server, and are woken by it when something waits for them that matters (rules.ts).
 *
 * A device is told of a message when it has no session, has one without stream (XEP-0198), or does not react (devices.ts): when the message
 * went into the archive or the offline store while it was away, when it waits for its session, or when it was sent and not confirmed. A
 * device that has got the message is not told, nor one that would never see it. Each message counts once for each device.
 *
 * App servers get the number of messages that the device has not seen since it was last there, and of open subscription requests; sender
 * and text only where the administrator says so (§9). Left out: changes of that by the user in band, which §9 advises against.
 */
import { c, defineModule, type Iq, type StanzaEvent } from '../../server/module.ts'
import type { Element } from '../../server/xmpp/element.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { type JID, tryJid } from '../../server/xmpp/jid.ts'
import { stanzaIdBy } from '../../server/xmpp/stanza.ts'
import { Devices } from './devices.ts'
import { optionsOf } from './notification.ts'
import { NS_PUBSUB, NS_PUSH } from './ns.ts'
import { Owed } from './owed.ts'
import { Publisher } from './publisher.ts'
import { type Registration, Registrations } from './registrations.ts'
import { type Notice, noticeOf } from './rules.ts'

/** Longest name of a node, UTF-16 units. */
const MAX_NODE = 1024

const config = c.object({
  interval: c
    .duration('10s', { max: '1h' })
    .describe(
      'A device is told of messages once in that time, of all that came meanwhile; calls are told at once',
    ),
  callsPerMinute: c
    .int()
    .min(1)
    .default(10)
    .describe('Calls that one device is told of at once; of more it is told like of messages'),
  silence: c
    .duration('30s', { min: '1s' })
    .describe('A connected client that has not confirmed a message after that time is treated as away'),
  callSilence: c.duration('5s', { min: '1s' }).describe('The same for calls'),
  sender: c.boolean().default(false).describe('App servers are told who the last message is from'),
  body: c
    .union([c.boolean(), c.string().max(200)])
    .default(false)
    .describe('App servers get the text of the last message, or this text in its place'),
  services: c
    .array(c.string())
    .default([])
    .describe('Domains of the app servers that may be used; none: all'),
  registrations: c.int().min(1).max(1000).default(20).describe('For one account; the oldest makes room'),
  options: c.bytes('4 KiB', { max: '64 KiB' }).describe('Size of the publish options of one registration'),
  timeout: c
    .duration('30s', { min: '1s', max: '5min' })
    .describe('How long an app server may take to answer'),
  callTimeout: c.duration('10s', { min: '1s', max: '1min' }).describe('The same for calls'),
  unreachable: c
    .duration('7d')
    .describe('How long an app server may be out of reach before its registrations are removed'),
  concurrency: c
    .int()
    .min(1)
    .default(64)
    .describe(
      'Requests to app servers at the same time, each for messages and for calls; one app server or account has up to a quarter of them',
    ),
})

export default defineModule({
  name: 'push',
  summary: 'Wakes devices that are away, by their app servers',
  specs: [
    { xep: 357, version: '0.4.1', status: 'complete' },
    { xep: 60, version: '1.30.0', status: 'partial', note: 'publishing with options' },
    { xep: 353, version: '0.8.0', status: 'partial', note: 'calls are told at once' },
    { xep: 198, version: '1.6.3', status: 'partial', note: 'sessions without stream, unconfirmed messages' },
    { xep: 352, version: '1.0.0', status: 'partial', note: 'clients that nobody looks at' },
    { xep: 359, version: '0.7.0', status: 'partial', note: 'what is in the archive' },
    { xep: 388, version: '1.0.4', status: 'partial', note: 'devices are known by their user agent' },
    { rfc: 6121, sections: '3.1.3' },
  ],
  optional: ['sasl2', 'roster', 'stream-management', 'csi', 'carbons', 'mam', 'offline'],
  config,
  setup(ctx, options) {
    const registrations = new Registrations(ctx, options.registrations)
    const publisher = new Publisher(ctx, registrations, options, (local, key) => {
      const one = registrations.known(local)?.find((known) => known.key === key)
      return one === undefined ? 'away' : devices.stateOf(one)
    })
    const owed = new Owed(ctx, registrations, publisher, options)
    const devices = new Devices(ctx, {
      patience: options,
      registrations: (session) => registrations.known(session.jid.local) ?? [],
      missed: (registration, notice, sent) => owed.missed(registration, notice, sent),
      caughtUp,
    })
    ctx.metrics.gauge('accounts', 'Accounts whose registrations are in memory', () => registrations.size)

    const what = (stanza: Element, account: JID): Notice | undefined =>
      noticeOf(stanza, account, ctx.find('carbons'), options.body === true)

    function caughtUp(registration: Registration): void {
      owed.caughtUp(registration)
    }

    /** Runs `fn` with the registrations of an account, now if they are in memory; not at all when there are none. */
    function withThose(local: string, fn: (all: readonly Registration[]) => void): void {
      const known = registrations.known(local)
      if (known !== undefined) {
        if (known.length > 0) fn(known)
        return
      }
      registrations.load(local).then(
        (all) => (all.length > 0 ? fn(all) : undefined),
        (error: unknown) => ctx.log.error('registrations cannot be read', { err: error }),
      )
    }

    // ---- §5, §6: what clients ask for; §4.1: announced for accounts by having a handler ----

    ctx.iq('self', 'set', NS_PUSH, 'enable', async ({ payload, from, to, session }) => {
      const jid = serviceOf(payload)
      if (!isAllowed(jid))
        throw new StanzaError('not-allowed', { text: 'this is no app server to be used here' })
      const node = payload.attr('node') ?? ''
      if (node.length > MAX_NODE)
        throw new StanzaError('policy-violation', { text: 'the name of the node is too long' })
      await registrations.enable(to.local, {
        jid,
        node,
        options: optionsOf(payload, options.options),
        resource: from.resource,
        agent: session === undefined ? '' : devices.agentOf(session),
        session: session?.id,
      })
      return undefined
    })
    ctx.iq('self', 'set', NS_PUSH, 'disable', async ({ payload, to }: Iq) => {
      await registrations.disable(to.local, serviceOf(payload), payload.attr('node'))
      return undefined
    })

    /** The server and accounts of ours answer for themselves, not for devices; publishing to them in the name of the server would be trusted too much. */
    function isAllowed(jid: JID): boolean {
      if (ctx.hosts.includes(jid.domain) && (jid.local === '' || jid.resource === '')) return false
      return options.services.length === 0 || options.services.includes(jid.domain)
    }

    // ---- §8: the app server takes it back ----

    function takenBack({ stanza, from, to }: StanzaEvent, all: readonly Registration[]): void {
      const pubsub = stanza.getChild('pubsub', NS_PUBSUB)
      if (pubsub === undefined) return
      const node = pubsub.attr('node')
      const gone = pubsub.getChildren('affiliation').some((affiliation) => {
        const what = affiliation.attr('affiliation')
        const who = tryJid(affiliation.attr('jid') ?? '')
        return (what === 'none' || what === 'outcast') && who?.bare.equals(to.bare) === true
      })
      if (!gone || node === undefined || !all.some((one) => one.jid.equals(from) && one.node === node)) return
      registrations
        .disable(to.local, from, node)
        .catch((error: unknown) => ctx.log.error('a registration cannot be removed', { err: error }))
    }

    // ---- messages ----

    // One that others take now: a device that is away will find it in the archive.
    ctx.hook('account:in', { phase: 'observe', kinds: ['message'] }, (e) => {
      if (registrations.known(e.to.local)?.length === 0) return
      const { to, stanza } = e
      if (ctx.sessions.of(to.local).length === 0) return // see account:stored
      withThose(to.local, (all) => {
        takenBack(e, all)
        if (stanzaIdBy(stanza, to.bare) === undefined) return
        const notice = what(stanza, to.bare)
        if (notice === undefined || ctx.sessions.takers(to, stanza.attr('type')).length === 0) return
        for (const one of all) devices.kept(one, notice)
      })
    })

    // Nobody takes it now, and it is kept.
    ctx.hook('account:stored', { phase: 'observe', kinds: ['message'] }, (e) => {
      withThose(e.to.local, (all) => {
        takenBack(e, all)
        const notice = what(e.stanza, e.to.bare)
        if (notice === undefined) return
        for (const one of all) devices.kept(one, notice)
      })
    })

    // One for the session of a device: it may be without stream, or not there although it seems so.
    ctx.hook('client:out', { phase: 'observe', kinds: ['message'] }, ({ stanza, session }) => {
      if (session === undefined) return
      const { local, bare } = session.jid
      const all = registrations.known(local)
      if (all === undefined || all.length === 0) return
      const mine = all.filter((one) => devices.owns(session, one))
      const notice = mine.length === 0 ? undefined : what(stanza, bare)
      if (notice !== undefined) devices.sending(session, mine, notice)
    })

    // ---- sessions ----

    ctx.hook('session:bound', { phase: 'observe' }, ({ session }) => {
      withThose(session.jid.local, (all) => {
        for (const one of all) if (one.owed && devices.owns(session, one)) caughtUp(one)
      })
    })
    ctx.hook('session:resumed', { phase: 'observe' }, ({ session }) => {
      withThose(session.jid.local, (all) => {
        const mine = all.filter((one) => one.owed && devices.owns(session, one))
        if (mine.length > 0) devices.resumed(session, mine)
      })
    })
    ctx.hook('session:closed', { phase: 'observe' }, ({ session, reason }) => devices.closed(session, reason))

    ctx.hook('account:deleted', { phase: 'observe' }, ({ account: { local } }) => {
      for (const one of registrations.known(local) ?? []) owed.forget(one)
      registrations.forgetAccount(local)
    })

    return {
      ready() {
        // What was due when the server stopped; in the background, because it may be much.
        ctx
          .inSlices(registrations.due(), ([local, key]) => publisher.due(local, key, 0))
          .catch((error: unknown) => ctx.log.error('what is due cannot be read', { err: error }))
      },
    }
  },
})

/** 'jid' of a request (§5, §6). Throws StanzaError: bad-request when there is none, jid-malformed. */
function serviceOf(request: Element): JID {
  const text = request.attr('jid')
  if (text === undefined || text === '')
    throw new StanzaError('bad-request', { text: "'jid' of the app server is missing" })
  const jid = tryJid(text)
  if (jid === undefined) throw new StanzaError('jid-malformed')
  return jid
}
