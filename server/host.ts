/**
 * One virtual host: its registries (iq, hooks, disco, stream features, services), its accounts with sessions, and the
 * removal of accounts. Filled by the loader, used by router and streams.
 */
import type { Clock } from './clock.ts'
import { DiscoRegistry } from './disco-registry.ts'
import { type Chain, HookTable } from './hooks.ts'
import { IqTable, RequestTracker } from './iq.ts'
import { Lane } from './lane.ts'
import type {
  Bound,
  Hooks,
  Log,
  Services,
  Session,
  SessionTable,
  StanzaEvent,
  StreamFeature,
  Verdict,
} from './module.ts'
import type { Store } from './storage/contract.ts'
import { takersOf } from './takers.ts'
import type { Element } from './xmpp/element.ts'
import { StanzaError } from './xmpp/errors.ts'
import { type JID, makeJid } from './xmpp/jid.ts'

/** What an account with sessions, or with stanzas on their way, has in memory. */
export class Account {
  readonly local: string
  readonly sessions: Bound[] = []
  /** Keeps the order of what arrives for the account. */
  readonly lane = new Lane()
  /** How often it was removed: what has been on its way since before that is for nobody. */
  removals = 0

  constructor(local: string) {
    this.local = local
  }
}

/** The chains of the stanza path, looked up once. */
export interface StanzaChains {
  readonly clientIn: Chain<StanzaEvent>
  readonly accountIn: Chain<StanzaEvent>
  readonly accountOffline: Chain<StanzaEvent>
  readonly accountMissing: Chain<StanzaEvent>
  readonly accountStored: Chain<StanzaEvent>
  readonly messageBounced: Chain<StanzaEvent>
  readonly clientOut: Chain<StanzaEvent>
  readonly remoteIn: Chain<StanzaEvent>
  readonly remoteOut: Chain<StanzaEvent>
}

/** What a host needs from the server. */
export interface HostEnv {
  readonly clock: Clock
  readonly log: Log
  readonly store: Store
}

const NO_SESSIONS: readonly Bound[] = []
const NO_ACCOUNT: Verdict = { stop: 'no such account' }
const UNAVAILABLE: Verdict = { bounce: new StanzaError('service-unavailable') }

/** One virtual host. */
export class Host implements SessionTable {
  readonly name: string
  readonly env: HostEnv
  readonly log: Log
  readonly iq = new IqTable()
  readonly hooks: HookTable
  readonly chains: StanzaChains
  readonly disco = new DiscoRegistry()
  readonly requests: RequestTracker
  readonly features: StreamFeature[] = []
  readonly serving: ((e: StanzaEvent) => void | Promise<void>)[] = []
  readonly services = new Map<keyof Services, unknown>()
  readonly #accounts = new Map<string, Account>()
  /** By account, the last of the removals under way; never rejects. */
  readonly #removals = new Map<string, Promise<void>>()
  #count = 0

  constructor(name: string, env: HostEnv) {
    this.name = name
    this.env = env
    this.log = env.log
    this.hooks = new HookTable(env.log, env.clock)
    this.requests = new RequestTracker(env.clock)
    this.chains = {
      clientIn: this.hooks.chain('client:in'),
      accountIn: this.hooks.chain('account:in'),
      accountOffline: this.hooks.chain('account:offline'),
      accountMissing: this.hooks.chain('account:missing'),
      accountStored: this.hooks.chain('account:stored'),
      messageBounced: this.hooks.chain('message:bounced'),
      clientOut: this.hooks.chain('client:out'),
      remoteIn: this.hooks.chain('remote:in'),
      remoteOut: this.hooks.chain('remote:out'),
    }
    this.chains.accountIn.add({
      module: 'core',
      place: { phase: 'guard' },
      handle: (e) => this.#checkAccount(e),
    })
  }

  /** RFC 6121 §8.5.1: what is for an account that does not exist. First in its chain, so that no module sees it. */
  #checkAccount(e: StanzaEvent): Verdict | Promise<Verdict> {
    if (this.#accounts.get(e.to.local)?.sessions.length !== 0) return undefined // the lane holds an account without sessions
    const exists = this.service('auth')?.exists(e.to.local) ?? false
    if (exists === true) return undefined
    return exists === false
      ? this.noAccount(e)
      : exists.then((known) => (known ? undefined : this.noAccount(e)))
  }

  /** RFC 6121 §8.5.1, table 1: of what is allowed here, that which an account gets that is away (§8.5.2.2, §8.5.3.2). */
  noAccount(e: StanzaEvent): Verdict | Promise<Verdict> {
    const { stanza } = e
    if (stanza.name === 'presence') return NO_ACCOUNT
    if (stanza.name !== 'message') return UNAVAILABLE
    const type = stanza.attr('type')
    if (type === 'error' || (type === 'headline' && e.to.resource === '')) return NO_ACCOUNT
    if (type === 'groupchat' || type === 'headline') return UNAVAILABLE
    const { accountMissing } = this.chains
    const verdict = accountMissing.run(e, accountMissing.message)
    return verdict instanceof Promise ? verdict.then((v) => v ?? UNAVAILABLE) : (verdict ?? UNAVAILABLE)
  }

  /** A service, if some module provides it. */
  service<K extends keyof Services>(name: K): Services[K] | undefined {
    return this.services.get(name) as Services[K] | undefined // provide() stored it under its own key
  }

  /** The host as an address. The host of no name, which carries the modules of scope 'server', has none: throws JidError. */
  get jid(): JID {
    return makeJid('', this.name)
  }

  // ---- sessions ----

  get count(): number {
    return this.#count
  }

  of(local: string): readonly Bound[] {
    return this.#accounts.get(local)?.sessions ?? NO_SESSIONS
  }

  get(jid: JID): Bound | undefined {
    const sessions = this.#accounts.get(jid.local)?.sessions
    if (sessions === undefined) return undefined
    for (const session of sessions) if (session.jid.resource === jid.resource) return session
    return undefined
  }

  *all(): Iterable<Bound> {
    for (const account of this.#accounts.values()) yield* account.sessions
  }

  takers(to: JID, type: string | undefined): readonly Bound[] {
    return takersOf(to.resource === '' ? undefined : this.get(to), this.of(to.local), to, type)
  }

  /** The account in memory, if it has sessions or stanzas on their way. */
  account(local: string): Account | undefined {
    return this.#accounts.get(local)
  }

  /** The account in memory, made if need be; call `release` when the reason is gone. */
  hold(local: string): Account {
    let account = this.#accounts.get(local)
    if (account === undefined) {
      account = new Account(local)
      this.#accounts.set(local, account)
    }
    return account
  }

  /** Forgets an account that has neither sessions nor stanzas on their way. */
  release(account: Account): void {
    if (account.sessions.length > 0 || account.lane.busy) return
    // It may have been forgotten before, and another one be there: what came for it then may take longer than its lane.
    if (this.#accounts.get(account.local) === account) this.#accounts.delete(account.local)
  }

  /** Adds a bound session; the caller has closed an older one of the same full JID. */
  register(session: Bound): void {
    this.hold(session.jid.local).sessions.push(session)
    this.#count++
  }

  unregister(session: Bound): void {
    const account = this.#accounts.get(session.jid.local)
    const at = account?.sessions.indexOf(session) ?? -1
    if (account === undefined || at < 0) return
    account.sessions.splice(at, 1)
    this.#count--
    this.release(account)
  }

  // ---- stream features ----

  /** The features offered on a stream now (RFC 6120 §4.3). */
  offered(s: Session, inline?: 'sasl2' | 'bind2'): readonly Element[] {
    const elements: Element[] = []
    for (const f of this.features) {
      if (inline === undefined ? f.inline !== undefined && f.alsoTopLevel !== true : f.inline !== inline)
        continue
      if (!f.streams.includes(s.kind)) continue
      // inside an exchange the states it leads to are not reached yet
      if (inline === undefined && !allowed(f, s)) continue
      const element = f.advertise(s)
      if (element !== undefined) elements.push(element)
    }
    return elements
  }

  /** The feature that takes an element of this namespace in the present state of the stream. */
  featureFor(s: Session, ns: string): StreamFeature | undefined {
    return this.features.find(
      (f) =>
        f.ns === ns &&
        (f.inline === undefined || f.alsoTopLevel === true) &&
        f.streams.includes(s.kind) &&
        allowed(f, s),
    )
  }

  inlineFeature(ns: string, of: 'sasl2' | 'bind2'): StreamFeature | undefined {
    return this.features.find((f) => f.ns === ns && f.inline === of)
  }

  // ---- accounts ----

  /** Removes everything an account has here (RFC 6120 has no rule; XEP-0077 §3.2): modules first, then every collection. */
  deleteAccount(local: string): Promise<void> {
    // One after another: the end of an earlier removal must not meet the next owner of the name, who waits for a later one only.
    const removal = (this.#removals.get(local) ?? Promise.resolve()).then(() => this.#deleteAccount(local))
    const settled = (): void => {
      if (this.#removals.get(local) === over) this.#removals.delete(local)
    }
    const over: Promise<void> = removal.then(settled, settled)
    this.#removals.set(local, over)
    return removal
  }

  async #deleteAccount(local: string): Promise<void> {
    const account = makeJid(local, this.name)
    // Nobody may log in while the data goes; the credentials go first, so that a crash halfway leaves no login without data.
    await this.service('auth')?.remove(local)
    await this.hooks.chain('account:deleted').run({ account })
    const inMemory = this.#accounts.get(local)
    if (inMemory !== undefined) inMemory.removals++
    // RFC 6120 §4.9.3.12 names not-authorized for streams that may no longer be used.
    for (const session of this.of(local).slice()) session.close('not-authorized', 'account removed')
    await this.env.store.purgeOwner(this.name, local)
  }

  /** Runs a chain that is not on the stanza path. */
  emit<
    K extends
      | 'stream:opened'
      | 'session:bound'
      | 'session:resumed'
      | 'session:idle'
      | 'session:closed'
      | 'auth:result',
  >(name: K, e: Hooks[K]): void | Promise<void> {
    const done = this.hooks.chain(name).run(e)
    return done instanceof Promise ? done.then(() => undefined) : undefined
  }
}

const allowed = (f: StreamFeature, s: Session): boolean =>
  f.needs.every((state) => s.is(state)) && !f.forbids.some((state) => s.is(state))
