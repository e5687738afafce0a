/**
 * Client streams: from the first header to a bound session, and its end (RFC 6120 §4 to §7).
 *
 * Features come from modules; what changes a session (TLS, identity, resource) happens here and nowhere else.
 */
import { randomBytes } from 'node:crypto'
import type { Clock } from './clock.ts'
import { ConnectionLimits } from './connection-limits.ts'
import { HandingOn } from './handing-on.ts'
import type { Host } from './host.ts'
import { checkAccount, GENERATION } from './identity.ts'
import type { Bound, Log, StreamStep, Transport } from './module.ts'
import { Negotiation, type NegotiationDriver } from './negotiation.ts'
import type { Router } from './router.ts'
import { type BoundClient, ClientSession, type SessionDriver } from './session.ts'
import { type HeaderAttrs, XmlStream } from './stream.ts'
import type { RateLimit } from './token-bucket.ts'
import { free, later, nextSlice } from './turns.ts'
import { type Element, el } from './xmpp/element.ts'
import { StreamError } from './xmpp/errors.ts'
import { type JID, tryJid } from './xmpp/jid.ts'
import { NS } from './xmpp/ns.ts'
import type { ParserLimits } from './xmpp/parser.ts'

/** Limits on client streams; all of them are options of the configuration. */
export interface C2sLimits {
  /** Before and after authentication. */
  readonly before: ParserLimits
  readonly after: ParserLimits
  readonly rateBefore: RateLimit | undefined
  readonly rateAfter: RateLimit | undefined
  /** Bytes of output held for a client that does not read. */
  readonly maxQueueBytes: number
  /** From connecting to a bound session. */
  readonly loginTimeoutMs: number
  /** Silence after which 'session:idle' is told, again and again. */
  readonly idleMs: number
  readonly closeTimeoutMs: number
  /** Connections of one address at the same time; new ones beyond it are refused. */
  readonly maxPerAddress: number
  /** Input of all streams of one address together. */
  readonly ratePerAddress: RateLimit | undefined
  /** New connections of one address within a minute. */
  readonly maxNewPerMinute: number
}

/** What client streams need from the server. */
export interface C2sEnv {
  readonly clock: Clock
  readonly log: Log
  readonly hosts: ReadonlyMap<string, Host>
  readonly router: Router
  limits: C2sLimits
}

/** §4.7.4: the language of our own texts, whatever the client prefers. */
const LANG = 'en'
/** Default namespaces of a client's header: of its stanzas, or none (§4.8.2: each element names its own). */
const CONTENT_NAMESPACES: ReadonlySet<string> = new Set([NS.CLIENT, NS.STREAM, ''])
/** How often deadlines are looked at: one timer for all sessions. */
const SWEEP_MS = 5_000

/** All client streams of the process. */
export class C2s implements SessionDriver, NegotiationDriver {
  readonly #env: C2sEnv
  readonly #sessions = new Set<ClientSession>()
  readonly #connections: ConnectionLimits
  readonly #negotiation: Negotiation
  readonly #handingOn: HandingOn
  readonly router: Router
  #sweeper: Disposable
  #stopping = false

  constructor(env: C2sEnv) {
    this.#env = { ...env }
    this.router = env.router
    this.#handingOn = new HandingOn(env.router)
    this.#connections = new ConnectionLimits(env.limits)
    this.#negotiation = new Negotiation(this)
    this.#sweeper = env.clock.after(SWEEP_MS, this.#sweep)
  }

  get maxQueueBytes(): number {
    return this.#env.limits.maxQueueBytes
  }
  limits(session: ClientSession): ClientSession['limits'] {
    const { before, after, idleMs } = this.#env.limits
    return {
      maxBytes: (session.authenticated ? after : before).maxBytes,
      idleMs: session.authenticated ? idleMs : undefined,
    }
  }

  canStartTls(session: ClientSession): boolean {
    const { transport } = session.stream
    return transport.kind === 'tcp' && transport.tls === undefined // each host has a certificate
  }

  /** New limits for new streams, and for open ones where they are looked at again and again. */
  setLimits(limits: C2sLimits): void {
    this.#env.limits = limits
    this.#connections.setLimits(limits)
  }

  /** Streams now open, bound or not. */
  get size(): number {
    return this.#sessions.size
  }

  /** A new connection. */
  accept(transport: Transport): ClientSession {
    const { clock, limits, log } = this.#env
    const session = new ClientSession(
      this,
      (owner) =>
        new XmlStream(transport, NS.CLIENT, owner, limits.before, {
          clock,
          log,
          closeTimeoutMs: limits.closeTimeoutMs,
        }),
      clock.now() + limits.loginTimeoutMs,
    )
    session.stream.setLimits(limits.before, limits.rateBefore)
    this.#sessions.add(session)
    const allowed = this.#connections.opened(transport.remoteAddress, clock.now())
    session.stream.sharedBucket = this.#connections.bucket(transport.remoteAddress, clock.now())
    if (this.#stopping) session.close('system-shutdown')
    // RFC 6120 §4.9.3.14, §13.12
    else if (!allowed) session.close('policy-violation', 'too many connections from this address')
    return session
  }

  // ---- headers ----

  /** RFC 6120 §4.7, §4.9.3; RFC 7395 §3.3.2. */
  header(session: ClientSession, root: Element): void | Promise<void> {
    const first = session.id === ''
    const framed = session.stream.transport.framing === 'frames'
    const from = root.attr('from')
    session.claimed = from === undefined ? undefined : tryJid(from) // first, so that errors are addressed (§4.9.1.2)
    if (framed ? !root.is('open', NS.FRAMING) : !root.is('stream', NS.STREAM))
      throw new StreamError(root.ns === NS.STREAM ? 'bad-format' : 'invalid-namespace') // §4.9.3.1, §4.9.3.10
    if (!first && session.bound) throw new StreamError('bad-format', 'no new stream here')
    // §4.8.3: servers and components have ports of their own
    if (!framed && !CONTENT_NAMESPACES.has(session.stream.peerContentNs))
      throw new StreamError('invalid-namespace')
    this.#lang(session, root)
    const to = root.attr('to')
    // §4.9.3.6, §4.7.2: the host must be one of ours, and stay the same
    const domain = to === undefined ? undefined : tryJid(to)
    const host =
      domain === undefined || domain.local !== '' || domain.resource !== ''
        ? undefined
        : this.#env.hosts.get(domain.domain)
    // §4.7.2: to whom the client said it is, or to nobody; §4.9.1.3: from a host of ours in any case
    this.#answer(session, { from: host?.name ?? this.#name(session), to: session.claimed?.bare.toString() })
    if (to === undefined) throw new StreamError('host-unknown', 'the header names no host')
    if (host === undefined)
      throw new StreamError(domain === undefined ? 'improper-addressing' : 'host-unknown')
    if (!first && session.vhost !== undefined && session.vhost !== host)
      throw new StreamError('host-unknown', 'another host than before')
    // §4.7.1, XEP-0388 §2.1: an address of this host; after authentication the one that was authenticated
    if (from !== undefined && session.claimed?.domain !== host.name) throw new StreamError('invalid-from')
    if (
      session.claimed !== undefined &&
      session.jid !== undefined &&
      !session.claimed.bare.equals(session.jid.bare)
    )
      throw new StreamError('invalid-from')
    this.#version(root.attr('version'))
    session.vhost = host
    session.host = host.name
    // what is offered may depend on who the client says it is (XEP-0388 §2.1)
    const ready = host.emit('stream:opened', { session })
    return ready === undefined ? this.sendFeatures(session) : ready.then(() => this.sendFeatures(session))
  }

  #answer(session: ClientSession, attrs: HeaderAttrs): void {
    const id = randomBytes(15).toString('base64url') // §4.7.3: unique and unpredictable
    session.id = session.id === '' ? id : session.id
    session.stream.sendHeader({ ...attrs, id, version: '1.0', 'xml:lang': LANG })
  }

  errorHeader(session: ClientSession): HeaderAttrs {
    const to = session.claimed?.bare.toString()
    const id = randomBytes(15).toString('base64url')
    return { from: this.#name(session), to, id, version: '1.0', 'xml:lang': LANG }
  }

  #name(session: ClientSession): string | undefined {
    return session.vhost?.name ?? this.#env.hosts.keys().next().value
  }

  /** §4.7.4: the default language of what the client sends. */
  #lang(session: ClientSession, root: Element): void {
    const lang = root.attr('xml:lang') ?? ''
    if (lang !== '' && (lang.length > 64 || !/^[A-Za-z0-9-]+$/.test(lang)))
      throw new StreamError('invalid-xml', 'xml:lang')
    session.lang = lang
  }

  /** §4.7.5: the lower of both versions; without one the peer knows no features, which all of our logins need. */
  #version(version: string | undefined): void {
    const match = /^(\d{1,9})\.(\d{1,9})$/.exec(version ?? '0.9')
    if (match === null || Number(match[1]) !== 1) throw new StreamError('unsupported-version')
  }

  /** §4.3.2: what may or must come next. */
  sendFeatures(session: ClientSession): void {
    const features = session.vhost?.offered(session) ?? []
    session.stream.send(el('features', NS.STREAM, {}, ...features))
  }

  secured(session: ClientSession): void {
    session.clearInbox()
  }

  // ---- negotiation ----

  /** An element that is no stanza of a bound session. */
  negotiate(session: ClientSession, element: Element): void | Promise<void> {
    return this.#negotiation.negotiate(session, element)
  }

  /** RFC 6120 §6.4.6: from now on the client acts for this bare JID. */
  identify(session: ClientSession, step: StreamStep): void {
    session.jid = step.identity?.bare
    session.setFlag(GENERATION, step.generation)
    session.authenticated = true
    const { limits } = this.#env
    session.stream.setLimits(limits.after, limits.rateAfter)
  }

  /** Makes a stream that has had its header a bound session, without authentication: for a caller that vouches for it. */
  async adopt(session: ClientSession, jid: JID): Promise<void> {
    const host = session.vhost
    if (host === undefined) throw new Error('adopt before the header')
    this.identify(session, { identity: jid.bare })
    await this.#register(session, host, jid.resource)
    session.uncork()
  }

  /** Makes the stream a session, unless its account was removed, or got another password, since it authenticated. */
  bind(session: ClientSession, host: Host, resource: string): void | Promise<void> {
    const go = (): void | Promise<void> => {
      session.setFlag(GENERATION, undefined) // an idle session keeps nothing of its login
      return this.#register(session, host, resource)
    }
    const checked = checkAccount(session, host)
    return checked === undefined ? go() : checked.then(go)
  }

  /** RFC 6120 §7.7.2.2: an older session of the same full JID gives way. */
  #register(session: ClientSession, host: Host, resource: string): void | Promise<void> {
    if (session.jid === undefined) throw new Error('bind before authentication')
    const jid = session.jid.bare.withResource(resource)
    host.get(jid)?.close('conflict')
    // What the older one leaves goes on its way as a whole: none of it to the account, and the rest to this session.
    const handing = this.#handingOn.of(jid)
    if (handing !== undefined) return handing.then(() => this.#register(session, host, resource))
    if (!session.stream.open) throw new StreamError('reset', 'gone before it was bound')
    session.jid = jid
    session.bound = true
    session.cork()
    if (!session.isBound()) return undefined
    host.register(session)
    // what an account sends and what arrives for it have one order, in which they are stored and shown to its devices
    session.lane = host.hold(jid.local).lane
    return host.emit('session:bound', { session })
  }

  // ---- the end ----

  /** The stream is over: whoever may still hold something for the client lets go of it. */
  closed(session: ClientSession, reason: string): void {
    if (this.#sessions.delete(session)) this.#connections.closed(session.remoteAddress)
    else if (!this.#detached.delete(session)) return
    const host = session.vhost
    if (host === undefined || !session.isBound()) return
    host.unregister(session)
    const bound: BoundClient = session
    this.#ending.add(bound)
    this.#over(host, bound, reason)
      .catch((error: unknown) => host.log.error('session end failed', { err: error }))
      .finally(() => this.#ending.delete(bound))
  }

  /** Sessions whose end is still told to others. */
  readonly #ending = new Set<Bound>()

  /** XEP-0198 §5: the old stream is gone and its input handled before anything is counted. */
  async takeOver(session: ClientSession, fresh: ClientSession): Promise<boolean> {
    let waiting = fresh.vhost && checkAccount(fresh, fresh.vhost)
    do {
      await waiting
      // again after each wait: a third stream may have come, or the end
      if (this.#sessions.has(session)) this.detached(session)
      else if (!this.#detached.has(session)) return false
      waiting = session.leave()
    } while (waiting !== undefined)
    if (!this.#sessions.delete(fresh)) {
      session.lost()
      return false
    }
    this.#detached.delete(session)
    this.#sessions.add(session)
    session.takeStream(fresh)
    return true
  }

  /** Bound sessions that a keeper holds without a stream. */
  readonly #detached = new Set<ClientSession>()

  /** The stream is gone, the session stays. */
  detached(session: ClientSession): void {
    this.#sessions.delete(session)
    this.#connections.closed(session.remoteAddress)
    this.#detached.add(session)
  }

  async #over(host: Host, session: BoundClient, reason: string): Promise<void> {
    const handedOn = this.#handingOn.begin(host, session, reason === 'not-authorized') // before anything newer finds its way
    await session.pending // what the client sent before it left comes first
    if (!free()) await nextSlice() // many may be lost at once
    await host.emit('session:closed', { session, reason, resumable: false })
    session.bound = false
    session.setPresence(undefined)
    await handedOn
    const account = host.account(session.jid.local)
    if (account !== undefined) host.release(account) // what the client sent at last was in its lane until now
  }

  // ---- time ----

  readonly #sweep = (): void => {
    const now = this.#env.clock.now()
    const { limits } = this.#env
    for (const session of this.#sessions) {
      if (!session.isBound()) {
        // RFC 6120 §4.9.3.4
        if (now >= session.deadlineAt) session.close('connection-timeout', 'not logged in in time')
      } else if (now - Math.max(session.stream.lastReceivedAt, session.idleToldAt) >= limits.idleMs) {
        session.idleToldAt = now
        // many may have become idle together
        if (free()) this.#idle(session)
        else later(() => this.#idle(session))
      }
    }
    this.#sweeper = this.#env.clock.after(SWEEP_MS, this.#sweep)
  }

  #idle(session: ClientSession): void {
    if (session.isBound()) void session.vhost?.emit('session:idle', { session })
  }

  /** What clients have and confirm now need not go to them again; those that do not answer are not waited for long. */
  async #confirmed(graceMs: number): Promise<void> {
    if (graceMs === 0) return
    const waiting = Array.from(this.#sessions, (session) => session.confirmed())
    const enough = AbortSignal.timeout(graceMs)
    const { promise, resolve } = Promise.withResolvers<void>()
    enough.addEventListener('abort', () => resolve())
    await Promise.race([promise, Promise.all(waiting.filter((one) => one !== undefined))])
  }

  /**
   * Ends all streams with a stream error and waits until what their clients sent is stored and their end is told. Before that, clients get
   * up to `graceMs` of real time to confirm what they were sent.
   */
  async stop(condition: 'system-shutdown' | 'reset' = 'system-shutdown', graceMs = 0): Promise<void> {
    this.#stopping = true
    await this.#confirmed(graceMs)
    for (const session of Array.from(this.#sessions)) {
      session.stream.pause()
      await session.pending // accepted before the end: stored before the end
      session.close(condition)
    }
    for (const session of Array.from(this.#detached)) {
      await session.pending // whoever keeps it sees what comes back
      session.end(condition)
    }
    while (this.#ending.size > 0) await new Promise((resolve) => setImmediate(resolve))
    this.#sweeper[Symbol.dispose]()
  }
}
