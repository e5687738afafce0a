/**
 * Limits on guessing passwords (RFC 6120 §13.9.4 leaves the means to the server): failures per account and per address within a sliding
 * window. An address from which an account was used before is judged by its own failures only, so that a stranger who guesses cannot
 * lock the owner out. All in memory of this process, all bounded.
 */
import { c, defineModule } from '../server/module.ts'

declare module '../server/module.ts' {
  interface Services {
    authLimits: AuthLimits
  }
}

/** What others may ask of the limits. */
export interface AuthLimits {
  /** Whether an attempt may be made from this address, for this account (undefined: not known yet). */
  allows(address: string, local: string | undefined): boolean
  /** A sliding window of its own: at most `limit` events per key within `windowMs`. */
  window(limit: number, windowMs: number): EventWindow
  /** The part of an address that stands for one network: IPv6 counts by /64. */
  network(address: string): string
}
/** Events per key, the old ones forgotten. */
export interface EventWindow {
  /** Whether one more event is within the limit. */
  allows(key: string): boolean
  add(key: string): void
  /** Keys remembered now. */
  readonly size: number
}

/** Keys a window remembers; beyond it the longest untouched ones are forgotten. */
const MAX_KEYS = 20_000

export default defineModule({
  name: 'auth-limits',
  summary: 'Limits failed logins per account and per address',
  specs: [
    { rfc: 4291, sections: '2.5.5.2' },
    { rfc: 6120, sections: '6.5.11, 13.9.4' },
  ],
  config: c.object({
    perAccount: c
      .number()
      .int()
      .min(1)
      .default(10)
      .describe('Wrong passwords for one account within the window'),
    perAddress: c
      .number()
      .int()
      .min(1)
      .default(30)
      .describe('Wrong passwords from one address (IPv6: /64) within the window'),
    window: c.duration('5min', { min: '1s' }).describe('How long a failure counts'),
    exempt: c
      .array(c.string())
      .default([])
      .describe('Addresses without a limit of their own, such as that of a proxy in front of the server'),
  }),
  setup(ctx, config) {
    const now = () => ctx.now()
    const accounts = new Window(config.perAccount, config.window, now)
    const addresses = new Window(config.perAddress, config.window, now)
    const known = new Recent(MAX_KEYS)
    const exempt = new Set(config.exempt.map(network))
    const refused = ctx.metrics.counter('refused', 'Login attempts refused because of earlier failures')

    ctx.provide('authLimits', {
      allows(address, local) {
        const net = network(address)
        const strange = local !== undefined && !known.has(`${net} ${local}`)
        const allowed = (exempt.has(net) || addresses.allows(net)) && (!strange || accounts.allows(local))
        if (!allowed) refused.add()
        return allowed
      },
      window: (limit, windowMs) => new Window(limit, windowMs, now),
      network,
    })
    ctx.hook('auth:result', { phase: 'observe' }, ({ session, mechanism, local, error, judged }) => {
      const net = network(session.remoteAddress)
      if (error === undefined) {
        // nobody logs in to the account of an anonymous user a second time
        if (mechanism !== 'ANONYMOUS') known.add(`${net} ${local}`)
      } else if (judged) {
        addresses.add(net)
        if (local !== '') accounts.add(local)
      }
    })
    ctx.metrics.gauge('addresses', 'Addresses with recent failures', () => addresses.size)
    ctx.metrics.gauge('accounts', 'Account names with recent failures', () => accounts.size)
  },
})

/** At most `limit` events per key in any `windowMs`. The times of the newest `limit` events are kept. */
class Window implements EventWindow {
  readonly #limit: number
  readonly #windowMs: number
  readonly #now: () => number
  /** In the order of their newest event. */
  readonly #times = new Map<string, number[]>()

  constructor(limit: number, windowMs: number, now: () => number) {
    this.#limit = limit
    this.#windowMs = windowMs
    this.#now = now
  }

  get size(): number {
    return this.#times.size
  }

  allows(key: string): boolean {
    const times = this.#times.get(key)
    if (times === undefined || times.length < this.#limit) return true
    return (times[0] ?? 0) <= this.#now() - this.#windowMs
  }

  add(key: string): void {
    const times = this.#times.get(key) ?? []
    if (times.length >= this.#limit) times.shift()
    times.push(this.#now())
    this.#times.delete(key)
    this.#times.set(key, times)
    this.#forget()
  }

  /** Drops what is too old, from the oldest on, and the oldest when there are too many. */
  #forget(): void {
    const old = this.#now() - this.#windowMs
    for (const [key, times] of this.#times) {
      if (this.#times.size <= MAX_KEYS && (times.at(-1) ?? 0) > old) return
      this.#times.delete(key)
    }
  }
}

/** The most recent members of a set. */
class Recent {
  readonly #max: number
  readonly #members = new Set<string>()

  constructor(max: number) {
    this.#max = max
  }
  has(member: string): boolean {
    return this.#members.has(member)
  }
  add(member: string): void {
    this.#members.delete(member)
    this.#members.add(member)
    if (this.#members.size > this.#max)
      for (const oldest of this.#members) return void this.#members.delete(oldest)
  }
}

/** IPv4 as it is, also when mapped into IPv6 (RFC 4291 §2.5.5.2); IPv6 by its first 64 bits, which one user usually has. */
function network(address: string): string {
  const plain = address.replace(/%.*$/, '').toLowerCase()
  const mapped = /^::ffff:(\d{1,3}(?:\.\d{1,3}){3})$/.exec(plain)
  if (mapped?.[1] !== undefined) return mapped[1]
  if (!plain.includes(':')) return plain
  const [head = '', tail] = plain.split('::')
  const left = head === '' ? [] : head.split(':')
  const right = tail === undefined || tail === '' ? [] : tail.split(':')
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - left.length - right.length)
  const groups = [...left, ...Array<string>(zeros).fill('0'), ...right].slice(0, 4)
  return `${groups.map((group) => group.replace(/^0+(?=.)/, '')).join(':')}::/64`
}
