/**
 * The public module API: all types a module sees, and `defineModule`. No behaviour of its own.
 *
 * A module is a manifest (plain data) plus `setup(ctx, config)`. Everything it registers through `ctx` is undone
 * by the loader when the module is unloaded, so a module keeps only what `ctx` does not know.
 */

import type { Bound, Session, SessionTable, StreamFeature, Transport } from './module-streams.ts'
import type { Domains, ListenOptions, ModuleListener, PeerStreamRules, PeerStreams } from './module-peers.ts'
import type { Disco, Http, JobOptions, JobQueue, JobRun, Log, Metrics, Timers } from './module-tools.ts'
import type { Schema } from './schema.ts'
import type { Json, Storage } from './storage/contract.ts'
import type { Element } from './xmpp/element.ts'
import type { SaslError, StanzaError } from './xmpp/errors.ts'
import type { JID } from './xmpp/jid.ts'

export { OperatorError } from './operator-error.ts'
export { c, type Schema } from './schema.ts'
export type * from './module-peers.ts'
export type * from './module-streams.ts'
export type * from './module-tools.ts'
export type * from './storage/contract.ts'
export { StoreUnavailable, UnknownEntry } from './storage/contract.ts'

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
/** A specification that a module implements. */
export type Spec = XepSpec | RfcSpec
/** A XEP, with the version that was read. */
export interface XepSpec {
  readonly xep: number
  readonly version: string
  readonly status: 'complete' | 'partial'
  readonly note?: string
}
/** Sections of an RFC. */
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
  /** Domains that are no virtual hosts, and who serves them. */
  readonly domains: Domains
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
  /**
   * Opens a queue of jobs, named within this module and host, and does what is in it: of all processes on the same Redis, or of this one
   * without Redis (then what waits is lost at its end). What a job must know of today it reads when it runs: `data` may be old, and may run
   * twice. No secrets in it.
   */
  jobs<T extends Json>(
    name: string,
    opts: JobOptions,
    handle: (data: T, run: JobRun) => Promise<void>,
  ): JobQueue<T>
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
  /** Listens on a port of the module's own. Rejects with one clear sentence when it cannot. */
  listen(opts: ListenOptions, accept: (transport: Transport) => void): Promise<ModuleListener>
  /** XML streams of the module's own, on connections of `listen`. */
  streams(rules: PeerStreamRules): PeerStreams
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
  /**
   * A message to an account that does not exist, which 'account:in' does not see. A verdict `stop` says that 'account:offline' would take care of
   * it: the sender is told nothing, as when the account is away, and does not learn which of them exist (RFC 6120 §13.11). No other effect.
   */
  'account:missing': StanzaEvent
  /** A message that no session took, after a module has taken care of it (phases copy and observe). */
  'account:stored': StanzaEvent
  /**
   * A message that the host has let pass goes back to its sender with an error of this server: nobody took it, it could not be kept, its domain is
   * out of reach. On the host of the sender, unless 'client:in' has refused it there, and on that of the receiver, unless 'remote:in' or 'account:in' has.
   * The error waits for nobody (phase observe). What modules have added to the event may be missing: it may have been on its way twice.
   */
  'message:bounced': StanzaEvent
  /** To one session, before its queue. */
  'client:out': StanzaEvent
  /** From a component or another server to an address of this host, before routing. */
  'remote:in': StanzaEvent
  /** From an address of this host to a domain that somebody else serves, before it leaves. */
  'remote:out': StanzaEvent
  /** A stream header came: `host` and `claimed` are known; the features are sent when all handlers are done. */
  'stream:opened': { readonly session: Session }
  /** A resource was bound. */
  'session:bound': { readonly session: Bound }
  /** A session without stream has one again. */
  'session:resumed': { readonly session: Bound }
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
/** RFC 6120 §8. */
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
/** Hashes of the SCRAM mechanisms. */
export type ScramHash = 'SHA-1' | 'SHA-256' | 'SHA-512'
/** SCRAM keys that were not made here from a password: of accounts from another server, of clients that add a hash (XEP-0480). */
export interface ScramStore {
  /** The hashes that each account should have keys for. */
  readonly hashes: readonly ScramHash[]
  /** The hashes an account has keys for; for the name of no account those that one may have, the same each time. */
  hashesOf(local: string): readonly ScramHash[] | Promise<readonly ScramHash[]>
  /**
   * How the account gets keys of that hash; undefined when it should not, has them, or does not exist. `generation`: whose password the
   * client has shown; undefined too when the account has another one now.
   */
  upgrade(local: string, hash: ScramHash, generation?: string): Promise<KeyUpgrade | undefined>
  /** A new account with these keys. Throws StanzaError: 'conflict' when it exists, 'not-acceptable' for keys that cannot be. */
  create(local: string, keys: ReadonlyMap<ScramHash, ScramKeys>): Promise<void>
}
/** What a client needs to make keys of one more hash from the password (RFC 5802 §3). */
export interface KeyUpgrade {
  readonly salt: Uint8Array
  readonly iterations: number
  /** Length of the SaltedPassword in bytes. */
  readonly bytes: number
  /**
   * Stores the keys, all of them or nothing. 'present': somebody else has meanwhile. 'changed': the account or its password is
   * another one now. Throws RangeError for a wrong length.
   */
  finish(saltedPassword: Uint8Array): Promise<'stored' | 'present' | 'changed'>
}
/**
 * Generations of accounts. A generation is text that is another one after each `create` and each `setPassword`, by the same write, and that
 * stays when keys are added. What was proven or given under one (a login under way, a token) is void under every other, whoever may have
 * failed to remove it. '' is that of accounts stored before there were generations. Not secret.
 */
export interface Generations {
  /**
   * That of the account, undefined when there is none. What this process has written is known at once, also to an answer on its way; what
   * another one writes, as late as `exists` knows it.
   */
  of(local: string): string | undefined | Promise<string | undefined>
  /** The same, read from the store. */
  read(local: string): Promise<string | undefined>
  /** `AuthService.verify` that tells whose password it is; undefined: a wrong one. */
  verify(local: string, password: string): Promise<string | undefined>
  /** `AuthService.scramKeys` that tells whose keys they are. */
  scramKeys(
    local: string,
    hash: ScramHash,
  ): Promise<(ScramKeys & { readonly generation: string }) | undefined>
}
/** Who has an account here. Implemented by `accounts` (own store), later by directories. */
export interface AuthService {
  /** Asked by the router for each stanza to an account without sessions, so it must be cheap (cached). */
  exists(local: string): boolean | Promise<boolean>
  /** undefined when there is no such account or no key of this hash. */
  scramKeys(local: string, hash: ScramHash): Promise<ScramKeys | undefined>
  /** Tells old passwords and former owners of a name; undefined: nobody can (directories), so only `exists` is asked. */
  readonly generations?: Generations
  /** The hashes that all accounts have keys for. */
  readonly scramHashes: readonly ScramHash[]
  /** Where keys may come from elsewhere, so that an account may lack those of a hash; undefined: nowhere. */
  readonly scramStore?: ScramStore
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
