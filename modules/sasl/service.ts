/**
 * The one state machine of SASL exchanges (RFC 4422 §3, RFC 6120 §6.4), used by every protocol that carries them. It keeps the
 * registry of mechanisms, applies what is true for all of them (encryption, limits, identity against the stream header, retries),
 * and tells 'auth:result'. Which element a reply becomes is the business of its callers.
 */
import type { Ctx, ScramHash, Session, StreamStep, TlsInfo } from '../../server/module.ts'
import { type SaslCondition, SaslError } from '../../server/xmpp/errors.ts'
import { type JID, makeJid, tryJid } from '../../server/xmpp/jid.ts'
import { decodeBase64, encodeBase64, prepareLocal } from './encoding.ts'
import type {
  Attempt,
  ChannelBinding,
  Mechanism,
  MechanismEnv,
  Profile,
  SaslReply,
  SaslRequest,
  SaslService,
  Step,
  Turn,
} from './mechanism.ts'
import { bindingsOf } from './scram.ts'

/** What the administrator decides. */
export interface Policy {
  /** Nothing at all on streams without encryption. */
  readonly requireTls: boolean
  /** Wrong credentials a stream may give before the one that ends it (RFC 6120 §6.4.5). */
  readonly retries: number
}

/** Failures of other kinds that a stream may cause before the one that ends it: enough to try every mechanism once. */
const MAX_MISHAPS = 12

type Failure = SaslReply & { readonly kind: 'failure' }
type Proof = Exclude<Turn, { readonly challenge: unknown }>

/** Where the exchange of a stream stands. */
type Phase =
  | { readonly kind: 'idle' }
  | { readonly kind: 'waiting'; readonly exchange: Exchange; readonly next: Step }
  | { readonly kind: 'proven'; readonly exchange: Exchange }

/** What a stream has before it is authenticated. */
interface State {
  phase: Phase
  guesses: number
  mishaps: number
  /** The channel bindings of this TLS connection: asking costs a key derivation each time. */
  bound: { readonly tls: TlsInfo; readonly bindings: readonly ChannelBinding[] } | undefined
}
const IDLE: Phase = { kind: 'idle' }

/** One exchange, as its mechanism sees it. */
class Exchange implements Attempt {
  readonly session: Session
  readonly mechanism: string
  readonly profile: Profile
  readonly request: SaslRequest['element']
  readonly #sasl: Sasl
  readonly definition: Mechanism
  /** Who is trying, '' while unknown. */
  local = ''
  /** Which generation of the account was proven; undefined where there are none, and no account. */
  generation: string | undefined
  judged = false
  /** Refused by a limit: more attempts on this stream are pointless. */
  limited = false

  constructor(sasl: Sasl, session: Session, request: SaslRequest, mechanism: Mechanism) {
    this.#sasl = sasl
    this.session = session
    this.mechanism = mechanism.name
    this.profile = request.profile
    this.request = request.element
    this.definition = mechanism
  }

  get offered(): readonly string[] {
    return this.#sasl.offers(this.session, this.profile)
  }
  get bindings(): readonly ChannelBinding[] {
    return this.#sasl.bindings(this.session)
  }

  account(authcid: string): string {
    const local = prepareLocal(authcid, this.session.host)
    // RFC 5802 §5.1, RFC 4616 §2: no account can have a name that does not survive preparation
    if (local === undefined) throw new SaslError('not-authorized')
    this.local = local
    this.#sasl.checkLimits(this, local)
    return local
  }

  authorize(authzid: string, local: string): void {
    if (authzid === '') return
    // RFC 6120 §6.3.8: a bare JID; acting for others is not provided for
    const jid = tryJid(authzid)
    if (jid === undefined || !jid.isBare || jid.local !== local || jid.domain !== this.session.host)
      throw new SaslError('invalid-authzid')
  }

  wrong(): SaslError {
    this.judged = true
    return new SaslError('not-authorized')
  }
}

/** The service of one host. */
export class Sasl implements SaslService {
  readonly #ctx: Ctx
  readonly #env: MechanismEnv
  readonly #policy: Policy
  readonly #mechanisms = new Map<string, Mechanism>()
  /** Sorted for offers. */
  #ranked: readonly Mechanism[] = []
  readonly #states: { get(s: Session): State | undefined; set(s: Session, v: State | undefined): void }

  readonly #logins: { add(n?: number): void }
  readonly #failures: { add(n?: number): void }

  constructor(ctx: Ctx, env: MechanismEnv, policy: Policy) {
    this.#ctx = ctx
    this.#env = env
    this.#logins = ctx.metrics.counter('logins', 'Successful logins')
    this.#failures = ctx.metrics.counter('failures', 'Failed attempts to log in, whatever the reason')
    this.#policy = policy
    this.#states = ctx.perSession<State | undefined>(() => undefined)
  }

  register(mechanism: Mechanism): Disposable {
    // RFC 4422 §3.1
    if (!/^[A-Z0-9_-]{1,20}$/.test(mechanism.name)) throw new Error(`not a mechanism name: ${mechanism.name}`)
    if (this.#mechanisms.has(mechanism.name)) throw new Error(`mechanism ${mechanism.name} exists`)
    this.#mechanisms.set(mechanism.name, mechanism)
    this.#rank()
    return {
      [Symbol.dispose]: () => {
        this.#mechanisms.delete(mechanism.name)
        this.#rank()
      },
    }
  }

  #rank(): void {
    this.#ranked = [...this.#mechanisms.values()].toSorted((a, b) => b.rank - a.rank)
  }

  offers(s: Session, profile: Profile): readonly string[] {
    const names: string[] = []
    for (const mechanism of this.#ranked) {
      if (mechanism.listed !== false && this.#refusal(s, profile, mechanism) === undefined)
        names.push(mechanism.name)
    }
    return names
  }

  hashes(s: Session): readonly ScramHash[] {
    return this.#env.hashes(s)
  }

  bindings(s: Session): readonly ChannelBinding[] {
    const { tls } = s
    if (tls === undefined) return []
    const state = this.#state(s)
    if (state.bound?.tls !== tls) state.bound = { tls, bindings: bindingsOf(tls) }
    return state.bound.bindings
  }

  pending(s: Session, profile: Profile): boolean {
    const phase = this.#states.get(s)?.phase ?? IDLE
    return phase.kind === 'waiting' && phase.exchange.profile === profile
  }

  /** Why this stream cannot use the mechanism. A condition, no error with a stack: most streams cannot use most mechanisms. */
  #refusal(s: Session, profile: Profile, mechanism: Mechanism): SaslCondition | undefined {
    if (mechanism.profiles?.includes(profile) === false) return 'invalid-mechanism'
    // RFC 6120 §6.3.4, §6.5.4; XEP-0388 knows no login without TLS
    const inClear = !this.#policy.requireTls && profile === 'sasl' && !mechanism.needsTls
    if (!inClear && !s.is('secure')) return 'encryption-required'
    return mechanism.usable(s, this.bindings(s)) ? undefined : 'invalid-mechanism'
  }

  async begin(s: Session, request: SaslRequest): Promise<SaslReply> {
    const state = this.#state(s)
    // RFC 6120 §6.4.2: "MUST discard the ongoing handshake"
    state.phase = IDLE
    // RFC 6120 §6.5.7
    const mechanism = this.#mechanisms.get(request.mechanism ?? '')
    if (mechanism === undefined) return this.#fail(s, undefined, new SaslError('invalid-mechanism'))
    const exchange = new Exchange(this, s, request, mechanism)
    const refusal = this.#refusal(s, request.profile, mechanism)
    if (refusal !== undefined) return this.#fail(s, exchange, new SaslError(refusal))
    return this.#guarded(s, exchange, () => {
      this.checkLimits(exchange, undefined)
      const step = mechanism.start(exchange)
      // RFC 4422 §5 (2a): a client-first mechanism begins with an empty challenge when the client did not
      if (request.initial === undefined) return { challenge: new Uint8Array(), next: step }
      return step(decodeBase64(request.initial))
    })
  }

  async respond(s: Session, profile: Profile, data: string): Promise<SaslReply> {
    const { phase } = this.#state(s)
    // RFC 6120 §6.5.8: a response to nothing
    if (phase.kind !== 'waiting' || phase.exchange.profile !== profile)
      return this.#fail(s, undefined, new SaslError('malformed-request', 'no exchange is going on'))
    return this.#guarded(s, phase.exchange, () => phase.next(decodeBase64(data)))
  }

  async #guarded(s: Session, exchange: Exchange, take: () => Turn | Promise<Turn>): Promise<SaslReply> {
    try {
      const turn = await take()
      if ('challenge' in turn) {
        this.#state(s).phase = { kind: 'waiting', exchange, next: turn.next }
        return { kind: 'challenge', data: encodeBase64(turn.challenge) }
      }
      return await this.#prove(s, exchange, turn)
    } catch (error) {
      if (error instanceof SaslError) return this.#fail(s, exchange, error)
      // RFC 6120 §6.5.11: the store does not answer, or a bug; the client can do nothing about either
      this.#ctx.log.error('authentication failed on our side', { err: error, mechanism: exchange.mechanism })
      return this.#fail(s, exchange, new SaslError('temporary-auth-failure'))
    }
  }

  async #prove(s: Session, exchange: Exchange, { local, data, generation }: Proof): Promise<SaslReply> {
    const jid = makeJid(local, s.host)
    exchange.local = local
    if (claimsAnother(s, exchange.definition, jid)) {
      const failure = await this.#fail(
        s,
        exchange,
        new SaslError('invalid-authzid', 'not the address of the stream header'),
      )
      // RFC 6120 §6.4.6: "terminate the connection attempt", since the header stays what it is; XEP-0388 asks for the failure
      return { ...failure, close: { condition: 'invalid-from' } }
    }
    if (generation !== undefined) {
      exchange.generation = generation
      // the keys of an exchange were read when it began
      const changed = this.#check(s, exchange)
      const failure = changed && (await changed)
      if (failure !== undefined) return failure
    } else if (exchange.definition.assigns !== true) {
      const now = this.#env.auth().generations?.of(local)
      exchange.generation = now instanceof Promise ? await now : now
    }
    this.#state(s).phase = { kind: 'proven', exchange }
    const text = data === undefined ? undefined : encodeBase64(data)
    return {
      kind: 'success',
      data: text,
      jid,
      mechanism: exchange.definition,
      generation: exchange.generation,
    }
  }

  async check(s: Session): Promise<Failure | undefined> {
    return await this.#check(s, this.#proven(s))
  }

  #proven(s: Session): Exchange {
    const { phase } = this.#state(s)
    if (phase.kind !== 'proven') throw new Error('nothing was proven')
    return phase.exchange
  }

  #check(s: Session, exchange: Exchange): undefined | Promise<Failure | undefined> {
    const { local, generation } = exchange
    const { generations } = this.#env.auth()
    if (generations === undefined || generation === undefined) return undefined
    const now = generations.of(local)
    if (now instanceof Promise) return this.#checkLater(s, exchange, now)
    return now === generation ? undefined : this.#fail(s, exchange, expired())
  }

  async #checkLater(
    s: Session,
    exchange: Exchange,
    asked: Promise<string | undefined>,
  ): Promise<Failure | undefined> {
    let now: string | undefined
    try {
      now = await asked
    } catch (error) {
      this.#ctx.log.error('account cannot be looked at', { err: error, mechanism: exchange.mechanism })
      return this.#fail(s, exchange, new SaslError('temporary-auth-failure')) // RFC 6120 §6.5.11
    }
    return now === exchange.generation ? undefined : this.#fail(s, exchange, expired())
  }

  async accept(s: Session): Promise<Failure | undefined> {
    const exchange = this.#proven(s)
    const changed = this.#check(s, exchange)
    const failure = changed && (await changed)
    if (failure !== undefined) return failure
    this.#states.set(s, undefined) // an idle session keeps nothing of this
    await this.#tell(s, exchange, undefined, true)
    return undefined
  }

  reject(s: Session, error: SaslError, judged: boolean): Promise<Failure> {
    const { phase } = this.#state(s)
    const exchange = phase.kind === 'idle' ? undefined : phase.exchange
    if (exchange !== undefined) exchange.judged = judged
    return this.#fail(s, exchange, error)
  }

  async #fail(s: Session, exchange: Exchange | undefined, error: SaslError): Promise<Failure> {
    const state = this.#state(s)
    state.phase = IDLE
    const judged = exchange?.judged === true
    if (judged) state.guesses++
    else state.mishaps++
    await this.#tell(s, exchange, error, judged)
    return { kind: 'failure', error, close: this.#closes(state, exchange) }
  }

  /** RFC 6120 §6.4.5: who "exceeds the number of retries" is sent away. */
  #closes(state: State, exchange: Exchange | undefined): StreamStep['close'] {
    if (exchange?.limited !== true && state.guesses <= this.#policy.retries && state.mishaps <= MAX_MISHAPS)
      return undefined
    return { condition: 'policy-violation', text: 'too many failed logins' }
  }

  async #tell(
    session: Session,
    exchange: Exchange | undefined,
    error: SaslError | undefined,
    judged: boolean,
  ): Promise<void> {
    const { mechanism = '', local = '' } = exchange ?? {}
    if (error === undefined) this.#logins.add()
    else this.#failures.add()
    // what tools that block addresses read
    if (judged && error !== undefined)
      this.#ctx.log.info('login failed', { account: local, address: session.remoteAddress, mechanism })
    await this.#ctx.run('auth:result', { session, mechanism, local, error, judged })
  }

  /** Throws temporary-auth-failure when this address, or this account from this address, has failed too often. */
  checkLimits(exchange: Exchange, local: string | undefined): void {
    const limits = this.#ctx.find('authLimits')
    if (limits === undefined || limits.allows(exchange.session.remoteAddress, local)) return
    exchange.limited = true
    throw new SaslError('temporary-auth-failure', 'too many failed logins, try later')
  }

  #state(s: Session): State {
    let state = this.#states.get(s)
    if (state === undefined) {
      state = { phase: IDLE, guesses: 0, mishaps: 0, bound: undefined }
      this.#states.set(s, state)
    }
    return state
  }
}

const expired = (): SaslError =>
  new SaslError('credentials-expired', 'account removed or password changed meanwhile') // RFC 6120 §6.5.3

/** RFC 6120 §6.4.6: whether the client's header, protected by TLS, named somebody else. */
function claimsAnother(s: Session, mechanism: Mechanism, jid: JID): boolean {
  return (
    mechanism.assigns !== true && s.is('secure') && s.claimed !== undefined && !s.claimed.bare.equals(jid)
  )
}
