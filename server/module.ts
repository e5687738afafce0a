/**
 * The public module API: all types a module sees, and `defineModule`. No behaviour of its own.
 *
 * A module is a manifest (plain data) plus `setup(ctx, config)`. Everything it registers through `ctx` is undone
 * by the loader when the module is unloaded, so a module keeps only what `ctx` does not know.
 */

import type { Readable } from 'node:stream'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Storage } from './storage/contract.ts'
import type { Element } from './xmpp/element.ts'
import type { SaslError, StanzaError, StreamCondition } from './xmpp/errors.ts'
import type { JID } from './xmpp/jid.ts'
import type { Schema } from './schema.ts'

export { c, type Schema } from './schema.ts'
export type * from './storage/contract.ts'

/** What the loader knows of a module before it runs: data for the load order, the XEP table and the config docs. */
export interface ModuleDef<C> {
  /** kebab-case; equals the file or folder name. */
  readonly name: string
  /** One line for the table of modules. */
  readonly summary: string
  readonly specs: readonly Spec[]
  /** Default 'host': one instance per virtual host; 'server': one per process. */
  readonly scope?: 'host' | 'server'
  /** Loaded before and unloaded after this one; absence is a configuration error. */
  readonly requires?: readonly string[]
  /** Loaded before this one when enabled, otherwise ignored. */
  readonly optional?: readonly string[]
  /** Defaults applied and frozen before setup. */
  readonly config?: Schema<C>
  setup(ctx: Ctx, config: C): Lifecycle<C> | void | Promise<Lifecycle<C> | void>
}
export type Spec = XepSpec | RfcSpec
export interface XepSpec {
  readonly xep: number
  readonly version: string
  readonly status: 'complete' | 'partial'
  readonly note?: string
}
export interface RfcSpec {
  readonly rfc: number
  readonly sections: string
}
/** What a module may do beyond its setup. */
export interface Lifecycle<C> {
  /** All modules of this host are set up; streams are accepted after this. */
  ready?(): void | Promise<void>
  /** New configuration without a reload; absent: the loader unloads the module and sets it up again. */
  reconfigure?(next: C): void | Promise<void>
  /** Only for resources `ctx` does not own. */
  stop?(): void | Promise<void>
}
/** Declares a module; the identity function, for its types. */
export const defineModule = <C = undefined>(def: ModuleDef<C>): ModuleDef<C> => def

/** All that a module may touch. The loader undoes every registration made through it. */
export interface Ctx {
  /** The virtual host; '' in scope 'server'. */
  readonly host: string
  /** The host as JID (bare domain). In scope 'server' reading it throws. */
  readonly hostJid: JID
  /** Aborted at unload. */
  readonly signal: AbortSignal
  readonly log: Log
  readonly metrics: Metrics
  readonly timers: Timers
  readonly disco: Disco
  readonly sessions: SessionTable
  readonly http: Http
  /** The names of all virtual hosts of this server. */
  readonly hosts: readonly string[]
  /** Collection names are private to this module and host. */
  readonly storage: Storage
  /** Name and version of this server. */
  readonly software: { readonly name: string; readonly version: string }
  /** The time in milliseconds since 1970; virtual in tests. Never Date.now() in a module. */
  now(): number
  /** The one handler of an IQ (target, type, namespace, name). A duplicate is a load error. Advertises `ns` in disco of the target unless told not to. */
  iq(
    to: Target,
    type: 'get' | 'set',
    ns: string,
    name: string,
    handle: IqHandler,
    opts?: { readonly advertise?: boolean },
  ): void
  /** Adds a link to a chain. */
  hook<K extends keyof Hooks>(
    name: K,
    place: Place,
    handle: (e: Hooks[K]) => Verdict | void | Promise<Verdict | void>,
  ): void
  /** Runs a chain that this module owns. */
  run<K extends keyof Hooks>(name: K, event: Hooks[K]): Verdict | Promise<Verdict>
  streamFeature(f: StreamFeature): void
  /** The elements that inline features of SASL2 or Bind 2 announce for this stream now. */
  inlineFeatures(of: 'sasl2' | 'bind2', s: Session): readonly Element[]
  /** Takes stanzas addressed to the host itself that no IQ handler took (component hosts, services). */
  serve(handle: (e: StanzaEvent) => void | Promise<void>): void
  /** Routes a stanza; its from defaults to the host. Ordered behind what is already on its way to the same account. */
  send(stanza: Element): Promise<void>
  /**
   * Gives a stanza to one session: through `client:out`, then its queue, behind what is on its way there. For copies, pushes
   * and presence that are not routed; 'account:in' does not see it. `from` may be missing (the account itself).
   */
  deliver(session: Bound, stanza: Element): void
  /** Our own request. Resolves to the payload of the result; throws StanzaError (error answer) or RequestTimeout. `from` defaults to the host. */
  request(
    to: JID,
    payload: Element,
    opts: { readonly type: 'get' | 'set'; readonly timeoutMs: number; readonly from?: JID },
  ): Promise<Element | undefined>
  /** A field on each session, private to this module; created when first read. */
  perSession<T>(init: (s: Session) => T): { get(s: Session): T; set(s: Session, v: T): void }
  provide<K extends keyof Services>(name: K, impl: Services[K]): void
  /** Throws in setup when the provider is not in `requires` or `optional`; undefined never: see `find`. */
  use<K extends keyof Services>(name: K): Services[K]
  /** The service, if some enabled module provides it. */
  find<K extends keyof Services>(name: K): Services[K] | undefined
  /** Hands a new connection to the core (websocket, bosh). Scope 'server' only. */
  accept(transport: Transport): void
  /**
   * Calls `fn` for each item in slices of a few milliseconds, letting other work pass between them, so that a long
   * list of one client does not make others wait. Stops when the module is unloaded.
   */
  inSlices<T>(items: Iterable<T> | AsyncIterable<T>, fn: (item: T) => void | Promise<void>): Promise<void>
  /** Removes the account's data in every collection of every module, then closes its sessions. Runs 'account:deleted'. */
  deleteAccount(local: string): Promise<void>
}

/**
 * Who is asked. host: the server (no localpart). self: an account, by itself only (the core refuses others).
 * account: an account, by anyone, so the handler authorises.
 */
export type Target = 'host' | 'self' | 'account'
/** An IQ request. `to` is the host, or the bare JID of the account asked. */
export interface Iq {
  readonly from: JID
  readonly to: JID
  readonly id: string
  readonly type: 'get' | 'set'
  readonly payload: Element
  readonly stanza: Element
  /** The local session that sent it, if any. */
  readonly session: Bound | undefined
  /** Calls `fn` right after the result is in the sender's queue, before anything else happens; not after an error. */
  afterReply(fn: () => void): void
}
/** Returns the payload of the result (undefined: an empty result) or throws StanzaError. The core answers exactly once. */
export type IqHandler = (iq: Iq) => Element | undefined | void | Promise<Element | undefined | void>

/** A stanza on its way. `stanza` may be replaced by a changed copy in the rewrite phase. */
export interface StanzaEvent {
  stanza: Element
  readonly from: JID
  readonly to: JID
  /** client:in: the sending session. client:out: the receiving one. account:in, account:offline: the sender's, if local. */
  readonly session: Bound | undefined
}
/** All chains. A module adds its own by declaration merging. */
export interface Hooks {
  /** From a local client, before routing. */
  'client:in': StanzaEvent
  /** To a local account, once, before sessions are chosen. `to` may be bare or full. */
  'account:in': StanzaEvent
  /** A message that no session took: offline store, push. A verdict `stop` says it was taken care of. */
  'account:offline': StanzaEvent
  /** To one session, before its queue. */
  'client:out': StanzaEvent
  'remote:in': StanzaEvent
  'remote:out': StanzaEvent
  /** A resource was bound. */
  'session:bound': { readonly session: Bound }
  /** Nothing was received from the client for the idle time of the configuration. */
  'session:idle': { readonly session: Bound }
  /** The session is over; the reason is a stream condition or 'closed' (closed by the client) or 'lost' (connection lost). */
  'session:closed': { readonly session: Bound; readonly reason: string; readonly resumable: boolean }
  /** Before the account's data is removed. */
  'account:deleted': { readonly account: JID }
  /** A login succeeded or failed (for limits and audit). */
  'auth:result': {
    readonly session: Session
    readonly mechanism: string
    readonly local: string
    readonly error: SaslError | undefined
    /** Credentials of that account were judged; false: the attempt failed before (syntax, mechanism, aborted). */
    readonly judged: boolean
  }
}
export type StanzaKind = 'message' | 'presence' | 'iq'
/** guard rejects, rewrite edits, store keeps, copy multiplies, observe looks. */
export type Phase = 'guard' | 'rewrite' | 'store' | 'copy' | 'observe'
/** Where in a chain: phase first, then before/after by module name, then load order. */
export interface Place {
  readonly phase: Phase
  readonly before?: readonly string[]
  readonly after?: readonly string[]
  /** For chains of stanzas: only these kinds; the others do not pay for the handler. Default: all. */
  readonly kinds?: readonly StanzaKind[]
}
/** undefined: go on. stop: taken, with a reason for the log. bounce: answer with this error (dropped where no error may be sent). */
export type Verdict = undefined | { readonly stop: string } | { readonly bounce: StanzaError }

/** What has been negotiated on a stream. */
export type StreamState = 'secure' | 'authenticated' | 'bound'
/** A feature of stream negotiation. The order follows from needs and forbids (RFC 6120 §4.3). */
export interface StreamFeature {
  readonly ns: string
  readonly streams: readonly ('c2s' | 's2s')[]
  readonly needs: readonly StreamState[]
  readonly forbids: readonly StreamState[]
  /** Offered inside that exchange only (and not as a top-level feature unless `alsoTopLevel`); handle() then runs inside it. */
  readonly inline?: 'sasl2' | 'bind2'
  readonly alsoTopLevel?: boolean
  /** The child of <features/> (or of <inline/>), or undefined when not offered now. */
  advertise(s: Session): Element | undefined
  /**
   * An element of `ns` sent by the client in a state that needs/forbids allow (before binding also an iq whose payload has
   * that namespace: then `el` is the iq). Not called while an earlier call on the same stream is pending: the core holds the input.
   */
  handle(s: Session, el: Element): StreamStep | void | Promise<StreamStep | void>
}
/** What the core does next; TLS, identity and resource are changed there and nowhere else. */
export interface StreamStep {
  /** Sent first (for `inline`: returned to the enclosing exchange instead). */
  readonly reply?: Element
  /** tls: start TLS, then expect a new header. restart: expect a new header. features: send the features again (SASL2). */
  readonly next?: 'tls' | 'restart' | 'features'
  /** The bare JID that this stream now acts for. */
  readonly identity?: JID
  /** The resource to bind (prepared by the core); an older session of the same full JID is closed with conflict. */
  readonly resource?: string
  /**
   * Run these requests by the inline features of that exchange, in the given order, after identity and resource are set;
   * `finish` gets the replies and gives the element to send (or to return, when nested).
   */
  readonly inline?: {
    readonly of: 'sasl2' | 'bind2'
    readonly requests: readonly Element[]
    finish(replies: readonly Element[], s: Session): Element | Promise<Element>
  }
  /** Until a step of this feature without it, any first-level element of another feature ends the stream (policy-violation). */
  readonly exclusive?: boolean
  /** Close the stream after `reply` with this condition (too many failures); without one: an orderly end (RFC 6120 §5.4.2.2). */
  readonly close?: { readonly condition?: StreamCondition; readonly text?: string }
}
/** A stream as modules see it, from its first header on. */
export interface Session {
  /** The stream id of its first stream; unique, unguessable. */
  readonly id: string
  readonly kind: 'c2s' | 's2s'
  /** The virtual host that the client's header named. */
  readonly host: string
  /** Bare after authentication, full after binding. */
  readonly jid: JID | undefined
  readonly remoteAddress: string
  readonly transport: Transport['kind']
  /** TLS of the connection, undefined on plain ones. */
  readonly tls: TlsInfo | undefined
  /** xml:lang of the stream header, '' when none. */
  readonly lang: string
  /** `from` of the newest stream header when it is an address: a claim, not to be trusted (RFC 6120 §4.7.1). */
  readonly claimed: JID | undefined
  /** TLS could be started now: TCP without TLS, and there is a certificate for this host. */
  readonly canStartTls: boolean
  /** What the core enforces on input of this stream now; idleMs: silence after which the stream counts as idle, undefined: never. */
  readonly limits: { readonly maxBytes: number; readonly idleMs: number | undefined }
  is(state: StreamState): boolean
  /** Puts an element into the queue as it is; false when the queue is above its high-water mark or the stream has ended. */
  send(el: Element): boolean
  /** Visible to other modules: 'carbons', 'interested'. */
  setFlag(name: string, value: string | boolean | undefined): void
  flag(name: string): string | boolean | undefined
  /** Ends the stream with a stream error. */
  close(condition: StreamCondition, text?: string): void
}
/** A session with a full JID. */
export interface Bound extends Session {
  readonly jid: JID
  /** Last available presence as broadcast (no `to`), with its from; undefined: not available. */
  readonly presence: Element | undefined
  /** Priority of that presence; undefined: not available. */
  readonly priority: number | undefined
  /** Set by the presence module only. */
  setPresence(presence: Element | undefined): void
}
/** The bound sessions of the host. */
export interface SessionTable {
  /** All sessions of an account, by its localpart; stable array, do not keep. */
  of(local: string): readonly Bound[]
  get(jid: JID): Bound | undefined
  all(): Iterable<Bound>
  readonly count: number
}
/** What is known of the TLS layer of a connection. */
export interface TlsInfo {
  /** 'TLSv1.2' or 'TLSv1.3'. */
  readonly protocol: string
  readonly cipher: string
  /** Channel binding data; undefined when this connection has none of that type. */
  channelBinding(type: 'tls-exporter' | 'tls-server-end-point'): Uint8Array | undefined
  /** The client's certificate when one was sent and its chain was verified, DER; undefined otherwise. */
  clientCertificate(): Uint8Array | undefined
}

/** One connection below a stream. Calls of the sink are never made from within a call of the transport. */
export interface Transport {
  readonly kind: 'tcp' | 'websocket'
  /** stream: a byte stream with one long document (RFC 6120). frames: one element a frame (RFC 7395). */
  readonly framing: 'stream' | 'frames'
  readonly remoteAddress: string
  readonly tls: TlsInfo | undefined
  /** Bytes written but not yet taken by the kernel. */
  readonly buffered: number
  start(sink: TransportSink): void
  /** stream: any text. frames: exactly one element. False above the transport's high-water mark; `drain` follows. */
  write(text: string): boolean
  pause(): void
  resume(): void
  /** Upgrades to TLS as server; tcp only. `host` picks the default certificate. */
  startTls(host: string): void
  /** Sends what is buffered, then closes. */
  end(): void
  /** Closes at once. */
  destroy(): void
}
/** Events of a transport. */
export interface TransportSink {
  data(chunk: Uint8Array | string): void
  drain(): void
  /** TLS is up after startTls (`transport.tls` is set). */
  secured(): void
  /** The peer will send nothing more (half-close). */
  ended(): void
  /** Gone; called exactly once. */
  closed(error: Error | undefined): void
}

/** What this host (or account) says of itself. Also the registry that the disco module answers from. */
export interface Disco {
  feature(on: Target, ns: string): void
  identity(on: Target, category: string, type: string, name?: string): void
  /** XEP-0128 extension form, built for each answer; undefined leaves it out. */
  form(on: Target, build: () => Element | undefined): void
  items(
    on: Target,
    node: string,
    list: (asker: JID, to: JID) => AsyncIterable<DiscoItem> | Iterable<DiscoItem>,
  ): void
  /** A node with an answer of its own; return undefined when the node does not exist (now). */
  node(
    on: Target,
    match: (node: string) => boolean,
    info: (node: string, asker: JID, to: JID) => DiscoInfo | undefined | Promise<DiscoInfo | undefined>,
  ): void
  /** What stands in the registry now, sorted; without nodes. */
  info(on: Target): DiscoInfo
  /** The info of a node, undefined when no module knows it. */
  nodeInfo(on: Target, node: string, asker: JID, to: JID): Promise<DiscoInfo | undefined>
  /** The item lists of a node ('' for none), undefined when no module knows it. */
  itemLists(
    on: Target,
    node: string,
  ): readonly ((asker: JID, to: JID) => AsyncIterable<DiscoItem> | Iterable<DiscoItem>)[] | undefined
  /** Called when features or identities of a target changed (caps recomputes). */
  onChange(fn: () => void): void
}
export interface DiscoItem {
  readonly jid: JID
  readonly node?: string
  readonly name?: string
}
export interface DiscoInfo {
  readonly identities: readonly {
    readonly category: string
    readonly type: string
    readonly name?: string
    readonly lang?: string
  }[]
  readonly features: readonly string[]
  readonly forms: readonly Element[]
}
/** A callback never overlaps itself; its errors are logged. Cancelled at unload. */
export interface Timers {
  after(ms: number, fn: () => void | Promise<void>): Disposable
  every(ms: number, fn: () => void | Promise<void>): Disposable
  /** Once a day per store, guarded by a lease. */
  daily(name: string, fn: () => Promise<void>): Disposable
}
/** Exported as hermod_<module>_<name> with label host. */
export interface Metrics {
  counter(name: string, help: string): { add(n?: number): void }
  gauge(name: string, help: string, read: () => number): void
  histogram(name: string, help: string, unit: 'seconds' | 'bytes' | 'items'): { observe(v: number): void }
}
/** Structured log; the module and host are added by the core. Never a secret, never a stanza's body. */
export type Log = Readonly<
  Record<'debug' | 'info' | 'warn' | 'error', (message: string, fields?: object) => void>
>

/** The shared HTTP(S) server, as one module sees it. Routes of a host-scoped module answer for its host only (Host header). */
export interface Http {
  route(r: {
    readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE' | 'OPTIONS'
    /** fastify's path syntax. */
    readonly path: string
    /** Largest request body in bytes; 0 (default) refuses bodies. */
    readonly maxBody?: number
    handle(req: FastifyRequest, reply: FastifyReply): HttpBody | Promise<HttpBody>
  }): void
  /** WebSocket and other upgrades on a path. `secure`: TLS data of the connection, if any. */
  upgrade(
    path: string,
    handle: (req: IncomingMessage, socket: Duplex, head: Buffer, peer: HttpPeer) => void,
  ): void
  /** A folder of static files below a path prefix. `index`: the file served at the prefix itself. */
  files(
    prefix: string,
    folder: string,
    opts?: { readonly index?: string; readonly headers?: Readonly<Record<string, string>> },
  ): void
  /** Base URLs clients can reach, for documents such as host-meta: ['https://example.org:5281', 'http://…'], public ones first. */
  urls(host: string): readonly string[]
}
export interface HttpPeer {
  readonly remoteAddress: string
  readonly tls: TlsInfo | undefined
}
export type HttpBody = string | Uint8Array | Readable | object | undefined

/** Services: what one module offers to others. Filled by declaration merging; the core itself uses `auth`. */
export interface Services {
  auth: AuthService
}
/** SCRAM keys of one hash (RFC 5802 §3), as stored. */
export interface ScramKeys {
  readonly salt: Uint8Array
  readonly iterations: number
  readonly storedKey: Uint8Array
  readonly serverKey: Uint8Array
}
export type ScramHash = 'SHA-1' | 'SHA-256' | 'SHA-512'
/** Who has an account here. Implemented by `accounts` (own store), later by directories. */
export interface AuthService {
  /** Asked by the router for each stanza to an account without sessions, so it must be cheap (cached). */
  exists(local: string): boolean | Promise<boolean>
  /** undefined when there is no such account or no key of this hash. */
  scramKeys(local: string, hash: ScramHash): Promise<ScramKeys | undefined>
  /** The hashes that all accounts have keys for. */
  readonly scramHashes: readonly ScramHash[]
  /**
   * Keys for an account that does not exist: the same each time for the same name, indistinguishable from real ones,
   * so that a login attempt does not tell who exists (RFC 5802 §9).
   */
  decoyKeys(local: string, hash: ScramHash): ScramKeys
  /** Checks a password (already prepared or not); takes the same time for unknown accounts. */
  verify(local: string, password: string): Promise<boolean>
  /** Prepares (RFC 8265 OpaqueString), derives and stores keys. Throws StanzaError('conflict') when the account exists. */
  create(local: string, password: string): Promise<void>
  /** Throws StanzaError('item-not-found') when there is no such account. */
  setPassword(local: string, password: string): Promise<void>
  /** Removes the credentials only; see Ctx.deleteAccount. False when there was none. */
  remove(local: string): Promise<boolean>
  list(): AsyncIterable<string>
  /** Facts for an operator: created, last changed; undefined when there is no such account. */
  info(local: string): Promise<Readonly<Record<string, string | number>> | undefined>
}
