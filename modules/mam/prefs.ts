/**
 * XEP-0441 Message Archive Management Preferences 0.2.0: whose messages an account wants in its archive. Without words of the user the
 * default of the configuration holds. Preferences of accounts that were used lately are in memory.
 */
import type { Ctx, Doc, Docs, Iq } from '../../server/module.ts'
import { type Element, el } from '../../server/xmpp/element.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { type JID, tryJid } from '../../server/xmpp/jid.ts'
import { NS_MAM } from './ns.ts'

const POLICIES = ['always', 'roster', 'never'] as const
/** What happens to messages with those who are in no list (§2.1.1). */
export type Policy = (typeof POLICIES)[number]

type PrefsDoc = {
  readonly default: Policy
  readonly always: readonly string[]
  readonly never: readonly string[]
}

/** The preferences of one account. */
export interface Prefs {
  readonly default: Policy
  /** Addresses as text, bare or full. */
  readonly always: ReadonlySet<string>
  readonly never: ReadonlySet<string>
}

interface Cached {
  readonly prefs: Prefs
  /** Another process may have changed them; milliseconds since 1970. */
  readonly until: number
}

const KEY = 'prefs'
const MAX_CACHED = 20_000
const FRESH_MS = 60_000

/** Options on preferences. */
export interface PrefsOptions {
  readonly default: Policy
  /** Users may change them. */
  readonly preferences: boolean
  /** Addresses in both lists together. */
  readonly maxPreferences: number
}

/** The preferences of a host. */
export class Preferences {
  readonly #ctx: Ctx
  readonly #options: PrefsOptions
  readonly #docs: Docs<PrefsDoc & Doc>
  readonly #initial: Prefs
  /** Least recently read first. */
  readonly #cache = new Map<string, Cached>()
  readonly #loading = new Map<string, Promise<Prefs>>()

  constructor(ctx: Ctx, options: PrefsOptions) {
    this.#ctx = ctx
    this.#options = options
    this.#docs = ctx.storage.docs<PrefsDoc & Doc>('prefs')
    this.#initial = { default: options.default, always: new Set(), never: new Set() }
  }

  /** Whether the account wants messages with that address; plainly when all that decides is in memory. */
  wants(local: string, peer: JID): boolean | Promise<boolean> {
    const prefs = this.of(local)
    return prefs instanceof Promise
      ? prefs.then((loaded) => this.#judge(loaded, local, peer))
      : this.#judge(prefs, local, peer)
  }

  #judge(prefs: Prefs, local: string, peer: JID): boolean | Promise<boolean> {
    // §2.3.1: an entry with a resource is compared with the address as it is, one without with the bare address
    if (prefs.always.size > 0 || prefs.never.size > 0) {
      for (const text of peer.isFull ? [peer.toString(), peer.bare.toString()] : [peer.toString()]) {
        if (prefs.never.has(text)) return false
        if (prefs.always.has(text)) return true
      }
    }
    if (prefs.default !== 'roster') return prefs.default === 'always'
    // Notes to oneself: nobody is in his own roster, and nobody is nearer.
    if (peer.local === local && peer.domain === this.#ctx.host) return true
    const roster = this.#ctx.find('roster')?.of(local)
    if (roster instanceof Promise) return roster.then((loaded) => loaded.get(peer)?.listed === true)
    return roster?.get(peer)?.listed === true
  }

  of(local: string): Prefs | Promise<Prefs> {
    const cached = this.#cache.get(local)
    if (cached !== undefined && cached.until > this.#ctx.now()) return cached.prefs
    return this.#loading.get(local) ?? this.#load(local)
  }

  #load(local: string): Promise<Prefs> {
    const loading: Promise<Prefs> = this.#docs
      .get(local, KEY)
      .then((doc) => {
        const prefs = doc === undefined ? this.#initial : prefsOf(doc)
        // unless they were changed meanwhile
        if (this.#loading.get(local) === loading) this.#keep(local, prefs)
        return prefs
      })
      .finally(() => {
        if (this.#loading.get(local) === loading) this.#loading.delete(local)
      })
    this.#loading.set(local, loading)
    return loading
  }

  #keep(local: string, prefs: Prefs): void {
    this.#cache.delete(local)
    if (this.#cache.size >= MAX_CACHED)
      for (const oldest of this.#cache.keys()) {
        this.#cache.delete(oldest)
        break
      }
    this.#cache.set(local, { prefs, until: this.#ctx.now() + FRESH_MS })
  }

  forget(local: string): void {
    this.#loading.delete(local)
    this.#cache.delete(local)
  }

  /** The answer to a request for the preferences (§2.1). */
  async read(iq: Iq): Promise<Element> {
    return toElement(await this.of(iq.to.local))
  }

  /** Changes them as asked and returns what holds now (§2.1). Throws StanzaError. */
  async change(iq: Iq): Promise<Element> {
    // §2.1: the server generally does not allow it
    if (!this.#options.preferences) throw new StanzaError('not-allowed')
    const policy = POLICIES.find((known) => known === iq.payload.attr('default'))
    if (policy === undefined)
      throw new StanzaError('bad-request', { text: "'default' is always, roster or never" })
    if (policy === 'roster' && this.#ctx.find('roster') === undefined)
      throw new StanzaError('not-acceptable', { text: 'there are no rosters here' })
    const never = listOf(iq.payload, 'never')
    // Who is in both lists is not archived: that can be mended later, the other cannot.
    const always = [...listOf(iq.payload, 'always')].filter((jid) => !never.has(jid))
    if (always.length + never.size > this.#options.maxPreferences)
      throw new StanzaError('resource-constraint', {
        text: `at most ${this.#options.maxPreferences} addresses`,
      })
    const doc: PrefsDoc = { default: policy, always, never: [...never] }
    const { local } = iq.to
    await this.#docs.put(local, KEY, doc)
    this.#loading.delete(local)
    this.#keep(local, prefsOf(doc))
    return toElement(prefsOf(doc))
  }
}

function prefsOf(doc: PrefsDoc): Prefs {
  return { default: doc.default, always: new Set(doc.always), never: new Set(doc.never) }
}

/** §2.1.2, §2.1.3: addresses of a list, each once; none when the list is missing. */
function listOf(prefs: Element, name: 'always' | 'never'): ReadonlySet<string> {
  const jids = new Set<string>()
  for (const item of prefs.getChild(name)?.getChildren('jid') ?? []) {
    const jid = tryJid(item.text().trim())
    if (jid === undefined) throw new StanzaError('jid-malformed', { text: `not an address: ${item.text()}` })
    jids.add(jid.toString())
  }
  return jids
}

/** §2.1: all three are always there. */
function toElement(prefs: Prefs): Element {
  const list = (name: string, jids: ReadonlySet<string>) =>
    el(name, NS_MAM, {}, ...[...jids].map((jid) => el('jid', NS_MAM, {}, jid)))
  return el(
    'prefs',
    NS_MAM,
    { default: prefs.default },
    list('always', prefs.always),
    list('never', prefs.never),
  )
}
