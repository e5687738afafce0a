/**
 * XEP-0077 In-Band Registration 2.4: new accounts before login (off by default), new passwords and removal of the own account. Without
 * the numeric error codes of XEP-0086, the obsolete key (§7), and fields beyond name and password.
 */
import { c, type Ctx, defineModule, type Iq, type Session, type StreamStep } from '../../server/module.ts'
import { type Element, el } from '../../server/xmpp/element.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { type JID, JidError, makeJid, tryJid } from '../../server/xmpp/jid.ts'
import {
  asksToRemove,
  CHANGE_PASSWORD,
  credentials,
  fieldsElement,
  NS_REGISTER,
  redirectElement,
  registeredElement,
} from './query.ts'

declare module '../../server/module.ts' {
  interface Services {
    register: RegisterService
  }
  interface Hooks {
    /** Somebody wants an account; guards may bounce. */
    'account:register': { readonly session: Session; readonly account: JID }
    /** The account was made in band. */
    'account:registered': { readonly session: Session; readonly account: JID }
  }
}
/** What other modules may ask of registration. */
export interface RegisterService {
  /** Lets this stream register one account even where registration is off (invitations); with `username` only that one. */
  permit(s: Session, username?: string): void
}

const NS_FEATURE = 'http://jabber.org/features/iq-register'
const INSTRUCTIONS = 'Choose a user name and a password.'
/** RFC 2142 and names that people take for the operator. */
const RESERVED =
  'abuse admin administrator daemon hostmaster info mail news noc nobody operator postmaster root security staff support sysadmin system usenet webmaster www xmpp'

const options = c.object({
  enabled: c.boolean().default(false).describe('Let anybody make an account'),
  requireTls: c.boolean().default(true).describe('Passwords are taken on encrypted streams only'),
  perAddress: c
    .number()
    .int()
    .min(1)
    .default(3)
    .describe('Attempts to register from one address within the window'),
  window: c.duration('1h', { min: '1s' }).describe('How long an attempt counts'),
  minPassword: c.number().int().min(1).max(256).default(8).describe('Characters a password needs at least'),
  reserved: c.array(c.string()).default(RESERVED.split(' ')).describe('Names that cannot be registered'),
  instructions: c.string().default(INSTRUCTIONS).describe('What people are told who want an account'),
  redirect: c
    .string()
    .optional()
    .describe('Where to send people who want an account, when registration is off'),
  changePassword: c.boolean().default(true).describe('Users may change their password'),
  remove: c.boolean().default(true).describe('Users may remove their account'),
})
type Options = ReturnType<(typeof options)['parse']>

export default defineModule({
  name: 'register',
  summary: 'New accounts, new passwords and removal of accounts by the users themselves',
  specs: [
    { rfc: 2142, sections: '3-6' },
    { rfc: 6120, sections: '5.3.1, 7.1, 8.2.3' },
    { xep: 77, version: '2.4', status: 'complete', note: 'name and password only' },
  ],
  requires: ['auth-limits'],
  optional: ['accounts', 'auth-http', 'auth-ldap', 'starttls'],
  config: options,
  setup(ctx, config) {
    const newcomers = new Newcomers(ctx, config)
    const members = new Members(ctx, config)
    ctx.provide('register', { permit: (s, username) => newcomers.permit(s, username) })
    ctx.streamFeature({
      ns: NS_REGISTER,
      streams: ['c2s'], // §8
      needs: [],
      forbids: ['authenticated'],
      advertise: (s) => (newcomers.announced(s) ? el('register', NS_FEATURE) : undefined),
      handle: (s, iq) => newcomers.handle(s, iq),
    })
    // §10; to the server, or to nobody, which is the own account
    for (const target of ['host', 'self'] as const) {
      const advertise = { advertise: target === 'host' }
      ctx.iq(target, 'get', NS_REGISTER, 'query', (iq) => members.get(iq), advertise)
      ctx.iq(target, 'set', NS_REGISTER, 'query', (iq) => members.set(iq), advertise)
    }
    ctx.timers.daily('leaving', () => members.resume())
    return { ready: () => members.resume() }
  },
})

/** The localpart a name, not empty, stands for; throws not-acceptable. */
function prepare(username: string, host: string): string {
  try {
    return makeJid(username, host).local
  } catch (error) {
    if (error instanceof JidError) throw new StanzaError('not-acceptable', { text: error.message })
    throw error
  }
}

function checkPassword(password: string, min: number): void {
  // XEP-0438: at least eight characters, nothing else asked for
  if (Array.from(password).length < min)
    throw new StanzaError('not-acceptable', { text: `the password needs ${min} characters` })
}

/** What a stream may do before login. */
interface Permit {
  /** undefined: any. */
  readonly username: string | undefined
}

/** Accounts for streams that are not logged in (§3.1). */
class Newcomers {
  readonly #ctx: Ctx
  readonly #config: Options
  readonly #tlsFirst: boolean
  readonly #attempts
  readonly #network: (address: string) => string
  readonly #permits: { get(s: Session): Permit | undefined; set(s: Session, v: Permit | undefined): void }
  readonly #reserved: ReadonlySet<string>
  readonly #done: { get(s: Session): boolean; set(s: Session, v: boolean): void }

  constructor(ctx: Ctx, config: Options) {
    this.#ctx = ctx
    this.#config = config
    // RFC 6120 §5.3.1: where TLS is mandatory nothing else is offered before it
    this.#tlsFirst = config.requireTls || ctx.find('starttls')?.required === true
    const limits = ctx.use('authLimits')
    this.#attempts = limits.window(config.perAddress, config.window)
    this.#network = (address) => limits.network(address)
    this.#permits = ctx.perSession<Permit | undefined>(() => undefined)
    this.#done = ctx.perSession(() => false)
    this.#reserved = new Set(config.reserved)
  }

  permit(s: Session, username: string | undefined): void {
    this.#permits.set(s, { username })
  }

  announced(s: Session): boolean {
    const { enabled, redirect } = this.#config
    return (enabled || redirect !== undefined) && (!this.#tlsFirst || s.is('secure'))
  }

  /** An iq before login. */
  async handle(s: Session, iq: Element): Promise<StreamStep> {
    const to = iq.attr('to')
    const type = iq.attr('type')
    if (type !== 'get' && type !== 'set') return {}
    // RFC 6120 §7.1: nobody but the server can be addressed
    if (to !== undefined && tryJid(to)?.equals(this.#ctx.hostJid) !== true)
      return { close: { condition: 'not-authorized' } }
    try {
      const query = iq.firstElement()
      // RFC 6120 §8.2.3: an id and one payload
      if (query?.name !== 'query' || iq.elements.length !== 1 || (iq.attr('id') ?? '') === '')
        throw new StanzaError('bad-request')
      return {
        reply: answer(iq, 'result', type === 'get' ? this.#fields(s) : await this.#register(s, query)),
      }
    } catch (error) {
      if (!(error instanceof StanzaError)) throw error
      // §3.3: what was sent does not go back, it may hold a password
      return { reply: answer(iq, 'error', error.toElement(iq.ns)) }
    }
  }

  #fields(s: Session): Element {
    const { enabled, redirect, instructions } = this.#config
    if (!enabled && redirect !== undefined && this.#permits.get(s) === undefined)
      return redirectElement(redirect)
    this.#check(s)
    return fieldsElement(instructions)
  }

  /** Whether this stream may register at all. */
  #check(s: Session): void {
    // §3.1: "If the host does not support In-Band Registration"
    if (!this.#config.enabled && this.#permits.get(s) === undefined)
      throw new StanzaError('service-unavailable')
    if (this.#tlsFirst && !s.is('secure'))
      throw new StanzaError('not-authorized', { type: 'modify', text: 'encrypt the stream first' })
    // §3.1.1: one identity
    if (this.#done.get(s))
      throw new StanzaError('not-acceptable', { text: 'log in with the account you made' })
  }

  async #register(s: Session, query: Element): Promise<undefined> {
    const auth = this.#ctx.use('auth')
    // §3.2: there is nobody to remove yet
    if (query.getChild('remove') !== undefined) throw new StanzaError('unexpected-request')
    this.#check(s)
    const { username, password } = credentials(query, NS_REGISTER, 'not-acceptable')
    const local = prepare(username, this.#ctx.host)
    const permit = this.#permits.get(s)
    if (permit?.username !== undefined && permit.username !== local)
      throw new StanzaError('not-acceptable', { text: `the invitation is for ${permit.username}` })
    if (permit === undefined && this.#reserved.has(local))
      throw new StanzaError('not-acceptable', { text: 'this name is reserved' })
    checkPassword(password, this.#config.minPassword)
    // §3.1.1; refused names count too, since each tells that somebody has it
    const address = this.#network(s.remoteAddress)
    if (permit === undefined && !this.#attempts.allows(address))
      throw new StanzaError('not-acceptable', { text: 'too many attempts, try later' })
    this.#attempts.add(address)

    const event = { session: s, account: makeJid(local, this.#ctx.host) }
    const verdict = await this.#ctx.run('account:register', event)
    if (verdict !== undefined) throw 'bounce' in verdict ? verdict.bounce : new StanzaError('not-allowed')
    await auth.create(local, password)
    this.#done.set(s, true)
    this.#permits.set(s, undefined)
    this.#ctx.log.info('account registered', { account: local, address: s.remoteAddress })
    await this.#ctx.run('account:registered', event)
    return undefined
  }
}

function answer(iq: Element, type: 'result' | 'error', payload: Element | undefined): Element {
  return el('iq', iq.ns, { type, id: iq.attr('id') ?? '', from: iq.attr('to') }, payload)
}

/** An account whose removal was promised. */
type LeavingDoc = { readonly at: number }

/** Passwords and removal, for those who are logged in (§3.2, §3.3). */
class Members {
  readonly #ctx: Ctx
  readonly #config: Options
  readonly #leaving

  constructor(ctx: Ctx, config: Options) {
    this.#ctx = ctx
    this.#config = config
    this.#leaving = ctx.storage.docs<LeavingDoc>('leaving')
    ctx.hook('account:register', { phase: 'guard' }, async ({ account }) => {
      // what is left of the last owner of that name is still to be removed
      if ((await this.#leaving.get('', account.local)) !== undefined)
        return { bounce: new StanzaError('conflict') }
      return undefined
    })
  }

  get(iq: Iq): Element {
    return registeredElement(this.#local(iq).local)
  }

  /** The account that asks. */
  #local(iq: Iq): { readonly local: string; readonly session: Session } {
    // §3.1.1: others have no account here, and cannot get one this way
    if (iq.session === undefined || iq.from.domain !== this.#ctx.host || iq.from.local === '')
      throw new StanzaError('service-unavailable')
    // XEP-0175: an anonymous user has no account that could be changed
    if (iq.session.flag('anonymous') === true) throw new StanzaError('registration-required')
    return { local: iq.from.local, session: iq.session }
  }

  async set(iq: Iq): Promise<undefined> {
    try {
      const { local, session } = this.#local(iq)
      if (asksToRemove(iq.payload)) await this.#remove(local, iq)
      else await this.#changePassword(local, session, iq.payload)
      return undefined
    } catch (error) {
      if (!(error instanceof StanzaError)) throw error
      // §3.3: "SHOULD NOT return the original XML", which has a password in it
      const { condition, type, text } = error
      throw new StanzaError(condition, { type, echo: false, ...(text === undefined ? {} : { text }) })
    }
  }

  async #changePassword(local: string, session: Session, query: Element): Promise<void> {
    if (!this.#config.changePassword) throw new StanzaError('not-allowed')
    // §3.3: "does not consider the channel safe enough"
    if (this.#config.requireTls && !session.is('secure'))
      throw new StanzaError('not-authorized', { type: 'modify', text: 'the stream is not encrypted' })
    const { username, password } = credentials(query, CHANGE_PASSWORD, 'bad-request')
    if (prepare(username, this.#ctx.host) !== local)
      throw new StanzaError('not-allowed', { text: 'not your account' })
    checkPassword(password, this.#config.minPassword)
    await this.#ctx.use('auth').setPassword(local, password)
    this.#ctx.log.info('password changed', { account: local })
  }

  /**
   * §3.2: the account itself is gone when the result is sent. Its data and sessions go right after, since a session must live to
   * get the result; a crash in between is made up for at the next start, a store that fails once a day.
   */
  async #remove(local: string, iq: Iq): Promise<void> {
    if (!this.#config.remove) throw new StanzaError('not-allowed')
    await this.#leaving.put('', local, { at: this.#ctx.now() })
    await this.#ctx.use('auth').remove(local)
    this.#ctx.log.info('account removed by its user', { account: local })
    iq.afterReply(() => {
      this.#finish(local).catch((error: unknown) =>
        this.#ctx.log.error('removal not finished', { err: error }),
      )
    })
  }

  async #finish(local: string): Promise<void> {
    try {
      await this.#ctx.deleteAccount(local)
    } catch (error) {
      // nobody goes on in the name of an account that is gone
      for (const session of this.#ctx.sessions.of(local).slice())
        session.close('not-authorized', 'account removed')
      throw error
    }
    await this.#leaving.delete('', local)
  }

  /** Finishes what a crash, or a store that failed, has left. */
  async resume(): Promise<void> {
    const locals: string[] = []
    for await (const [local] of this.#leaving.list('')) locals.push(local)
    for (const local of locals) {
      // made again by the operator in between, or not removed after all: removing it now would hit the new owner
      if (await this.#ctx.use('auth').exists(local)) {
        this.#ctx.log.warn('account made again before all data of its last owner was removed', {
          account: local,
        })
        await this.#leaving.delete('', local) // told once, not each day
      } else await this.#finish(local)
    }
  }
}
