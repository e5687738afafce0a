/**
 * XEP-0484 Fast Authentication Streamlining Tokens 0.2.0, with the mechanisms HT-SHA-256-* (draft-schmaus-kitten-sasl-ht-09): a client that
 * has logged in gets a token for this installation and needs one round trip from then on. No TLS 0-RTT, which the runtime does not have.
 *
 * The server has to know a token to check it (it is the key of a MAC), so a hash of it would be worth as much as the token. Tokens are
 * therefore derived from a key of the host and a random value, and only the latter is stored with the account.
 */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { c, type Ctx, defineModule, type Docs, type Services, type Session } from '../server/module.ts'
import { type Element, el } from '../server/xmpp/element.ts'
import { SaslError } from '../server/xmpp/errors.ts'
import { formatDateTime } from '../server/xmpp/xml-time.ts'

const NS_FAST = 'urn:xmpp:fast:0'
const MAC_BYTES = 32
const UUID = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/i

type Mechanism = Parameters<Services['sasl']['register']>[0]
type Attempt = Parameters<Mechanism['start']>[0]
type Turn = Awaited<ReturnType<ReturnType<Mechanism['start']>>>
type Binding = Attempt['bindings'][number]

/** Strongest first: the token is bound to this connection, to the certificate of the server, or to nothing. */
const MECHANISMS: readonly { readonly name: string; readonly binding: Binding | undefined }[] = [
  { name: 'HT-SHA-256-EXPR', binding: 'tls-exporter' },
  { name: 'HT-SHA-256-ENDP', binding: 'tls-server-end-point' },
  { name: 'HT-SHA-256-NONE', binding: undefined },
]

/** One token (§5.1); times in milliseconds since 1970. */
type Slot = {
  readonly salt: string
  readonly mechanism: string
  readonly issued: number
  readonly expires: number
  /** The highest count of the client (§3.4). */
  readonly count: number
  /** That of the account when it was given (Generations): void under another one. Older tokens have none, which is ''. */
  readonly generation?: string
}
/** The tokens of one installation. */
type Tokens = { readonly next?: Slot; readonly current?: Slot }

const config = c.object({
  lifetime: c.duration('21d', { min: '1h', max: '365d' }).describe('How long a token can be used'),
  rotateAfter: c
    .duration('1d', { min: '1min' })
    .describe('Age from which a token is replaced by a new one when it is used'),
  withoutBinding: c
    .boolean()
    .default(true)
    .describe('Also give tokens to clients that cannot bind them to the connection, such as browsers'),
  maxClients: c
    .int()
    .min(1)
    .default(50)
    .describe('Installations of one account that have tokens; of more the oldest lose theirs'),
})

export default defineModule({
  name: 'fast',
  summary: 'Logs clients in with tokens, in one round trip',
  specs: [{ xep: 484, version: '0.2.0', status: 'complete', note: 'no TLS 0-RTT' }],
  requires: ['sasl', 'sasl2'],
  config,
  async setup(ctx, options) {
    const fast = new Fast(ctx, options, await hostKey(ctx))
    const offered = MECHANISMS.filter(({ binding }) => binding !== undefined || options.withoutBinding)
    const registered = offered.map(({ name, binding }) =>
      ctx.use('sasl').register({
        name,
        rank: 0,
        profiles: ['sasl2'],
        listed: false, // §3.1: announced in <fast/>
        needsTls: true, // §6
        exempt: true, // §4.2
        usable: (_, bindings) => binding === undefined || bindings.includes(binding),
        start: (attempt) => (message) => fast.check(attempt, binding, message),
      }),
    )
    ctx.streamFeature({
      ns: NS_FAST,
      streams: ['c2s'],
      needs: ['authenticated'],
      forbids: [],
      inline: 'sasl2',
      first: true, // also when a session is resumed
      advertise: (s) => fast.advertise(s),
      handle: async (s, element) => {
        const token = await fast.request(s, element)
        return token === undefined ? undefined : { reply: token }
      },
    })
    ctx.hook('account:password', { phase: 'store' }, ({ account }) => fast.revoke(account.local))
    // void anyway when that fails, and others must hear of it all the same
    ctx.hook('account:deleted', { phase: 'observe' }, ({ account }) => fast.revoke(account.local))
    return {
      stop() {
        for (const mechanism of registered) mechanism[Symbol.dispose]()
      },
    }
  },
})

type Options = ReturnType<(typeof config)['parse']>

class Fast {
  readonly #ctx: Ctx
  readonly #options: Options
  readonly #key: Uint8Array
  readonly #tokens: Docs<Tokens>
  /** The mechanism of the new token that is due after a login with one, when the client did not ask for one itself. */
  readonly #due: { get(s: Session): string | undefined; set(s: Session, v: string | undefined): void }
  readonly #issued: { add(n?: number): void }

  constructor(ctx: Ctx, options: Options, key: Uint8Array) {
    this.#ctx = ctx
    this.#options = options
    this.#key = key
    this.#tokens = ctx.storage.docs<Tokens>('tokens')
    this.#due = ctx.perSession<string | undefined>(() => undefined)
    this.#issued = ctx.metrics.counter('issued', 'Tokens given to clients')
  }

  #usable(s: Session): readonly string[] {
    if (!s.is('secure')) return []
    const bindings = this.#ctx.use('sasl').bindings(s)
    return MECHANISMS.filter(({ binding }) =>
      binding === undefined ? this.#options.withoutBinding : bindings.includes(binding),
    ).map(({ name }) => name)
  }

  /** §3.1. */
  advertise(s: Session): Element | undefined {
    const names = this.#usable(s)
    if (names.length === 0) return undefined
    return el('fast', NS_FAST, {}, ...names.map((name) => el('mechanism', NS_FAST, {}, name)))
  }

  // ---- logging in: §3.4 ----

  /** HT draft §3.1: the name, NUL, and a MAC keyed with the token; answered with another MAC. */
  async check(attempt: Attempt, binding: Binding | undefined, message: Uint8Array): Promise<Turn> {
    const fast = attempt.request.getChild('fast', NS_FAST)
    const agent = attempt.request.getChild('user-agent')?.attr('id')?.toLowerCase() ?? ''
    const end = message.indexOf(0)
    const mac = message.subarray(end + 1)
    // §4.1: what such a login must have
    if (fast === undefined || !UUID.test(agent) || end < 1 || mac.length !== MAC_BYTES)
      throw new SaslError('malformed-request')
    const local = attempt.account(new TextDecoder().decode(message.subarray(0, end)))
    const bound = binding === undefined ? undefined : attempt.session.tls?.channelBinding(binding)
    if (binding !== undefined && bound === undefined) throw new SaslError('malformed-request')
    const tokens = await this.#tokens.get(local, agent)
    const slot = this.#find(local, agent, attempt.mechanism, tokens, (token) =>
      timingSafeEqual(macOf(token, 'Initiator', bound), mac),
    )
    const generation = slot && (await this.#generation(local))
    if (slot === undefined || generation === undefined) throw attempt.wrong()
    const now = this.#ctx.now()
    // §4.2; of another password or owner, where it could not be removed: void all the same
    if (now >= slot.expires || generation !== (slot.generation ?? ''))
      throw new SaslError('credentials-expired')
    const invalidate = ['true', '1'].includes(fast.attr('invalidate') ?? '')
    await this.#spend(attempt, local, agent, slot, countOf(fast), invalidate)
    const asks = attempt.request.getChild('request-token', NS_FAST) !== undefined
    const due = now - slot.issued >= this.#options.rotateAfter && !invalidate && !asks // §3.5, §3.6
    this.#due.set(attempt.session, due ? slot.mechanism : undefined)
    const token = this.#token(local, agent, slot.mechanism, slot.salt)
    return { local, data: macOf(token, 'Responder', bound), generation }
  }

  /** As the store has it now, whichever process has written it; undefined: no such account. */
  async #generation(local: string): Promise<string | undefined> {
    const auth = this.#ctx.find('auth')
    if (auth?.generations !== undefined) return await auth.generations.read(local)
    return (await auth?.exists(local)) === true ? '' : undefined
  }

  /** §5.1: the new token, then the current one; both are always looked at, in the same time whether they exist or not. */
  #find(
    local: string,
    agent: string,
    mechanism: string,
    tokens: Tokens | undefined,
    matches: (token: string) => boolean,
  ): Slot | undefined {
    let found: Slot | undefined
    for (const place of ['current', 'next'] as const) {
      const slot = tokens?.[place]
      const right = matches(this.#token(local, agent, mechanism, slot?.salt ?? 'none'))
      // §3.4: for no other mechanism than that it was made for
      if (right && slot?.mechanism === mechanism) found = slot
    }
    return found
  }

  /** §3.4, §3.5, §3.6: older tokens end, the count grows; both at once, so that two connections cannot do it. */
  async #spend(
    attempt: Attempt,
    local: string,
    agent: string,
    slot: Slot,
    count: number | undefined,
    invalidate: boolean,
  ): Promise<void> {
    let refused = false
    await this.#tokens.update(local, agent, (tokens) => {
      refused = false
      const place = (['next', 'current'] as const).find((name) => tokens?.[name]?.salt === slot.salt)
      const stored = place === undefined ? undefined : tokens?.[place]
      if (stored === undefined || (count !== undefined && count <= stored.count)) {
        refused = true
        return tokens
      }
      if (invalidate) return undefined
      const current = { ...stored, count: count ?? stored.count }
      return place === 'current' && tokens?.next !== undefined ? { current, next: tokens.next } : { current }
    })
    if (refused) throw attempt.wrong()
  }

  // ---- giving tokens: §3.2, §3.3, §3.5 ----

  /** A <fast/> or <request-token/> of a login that has succeeded: the token to go with it, if any. */
  async request(s: Session, element: Element): Promise<Element | undefined> {
    if (element.name === 'request-token') return this.#issue(s, element.attr('mechanism') ?? '')
    const mechanism = this.#due.get(s)
    this.#due.set(s, undefined)
    return mechanism === undefined ? undefined : this.#issue(s, mechanism)
  }

  async #issue(s: Session, mechanism: string): Promise<Element | undefined> {
    const agent = this.#ctx.use('sasl2').userAgent(s)?.id
    const local = s.jid?.local
    if (agent === undefined || local === undefined || !this.#usable(s).includes(mechanism)) return undefined
    if (s.flag('anonymous') === true) return undefined // XEP-0175: no account to come back to, or to end with
    const issued = this.#ctx.now()
    const expires = issued + this.#options.lifetime
    const salt = randomBytes(18).toString('base64url')
    // that of the login, which may have been overtaken by a new password
    const generation = String(s.flag('generation') ?? '')
    const next: Slot = { salt, mechanism, issued, expires, count: 0, generation }
    // §3.5: the current one lives until the new one is used; one that was never used ends
    await this.#tokens.update(local, agent, (tokens) => ({ ...tokens, next }))
    await this.#prune(local, issued)
    this.#issued.add()
    const token = this.#token(local, agent, mechanism, next.salt)
    return el('token', NS_FAST, { token, expiry: formatDateTime(expires) })
  }

  /** Removes what has expired, and of too many installations those served longest ago, none that was served since `mine`. */
  async #prune(local: string, mine: number): Promise<void> {
    const clients: [agent: string, issued: number, expires: number][] = []
    for await (const [agent, tokens] of this.#tokens.list(local))
      clients.push([agent, latest(tokens, 'issued'), latest(tokens, 'expires')])
    const now = this.#ctx.now()
    for (const [i, [agent, issued, expires]] of clients.toSorted((a, b) => b[1] - a[1]).entries()) {
      const tooMany = i >= this.#options.maxClients && issued < mine
      // unless it was served meanwhile
      if (tooMany || expires <= now)
        await this.#tokens.update(local, agent, (tokens) =>
          latest(tokens, 'issued') === issued ? undefined : tokens,
        )
    }
  }

  async revoke(local: string): Promise<void> {
    await this.#tokens.purge(local)
  }

  #token(local: string, agent: string, mechanism: string, salt: string): string {
    return createHmac('sha256', this.#key)
      .update(`${local}\0${agent}\0${mechanism}\0${salt}`)
      .digest('base64url')
  }
}

function macOf(token: string, role: 'Initiator' | 'Responder', bound: Uint8Array | undefined): Buffer {
  const mac = createHmac('sha256', token).update(role)
  return (bound === undefined ? mac : mac.update(bound)).digest()
}

const latest = (tokens: Tokens | undefined, time: 'issued' | 'expires'): number =>
  Math.max(tokens?.next?.[time] ?? 0, tokens?.current?.[time] ?? 0)

/** §3.4: a positive integer; undefined when not given. */
function countOf(fast: Element): number | undefined {
  const text = fast.attr('count')
  if (text === undefined) return undefined
  if (!/^[1-9]\d{0,9}$/.test(text)) throw new SaslError('malformed-request')
  return Number(text)
}

/** Made once, the same for all processes on one store. */
async function hostKey(ctx: Ctx): Promise<Uint8Array> {
  const key = randomBytes(32)
  const docs = ctx.storage.docs<{ readonly key: Uint8Array }>('key')
  return (await docs.update('', 'key', (old) => old ?? { key }))?.key ?? key
}
