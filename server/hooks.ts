/**
 * Hook chains: ordered handlers that stanzas and events pass through.
 *
 * Order: phase first, then before/after by module name, then load order. Handlers return plainly unless they do
 * I/O; a chain without promises runs without one. A crash or time-out in guard, rewrite or store bounces the stanza
 * with internal-server-error; in copy or observe it is logged.
 */
import type { Clock } from './clock.ts'
import { Deadlines } from './deadlines.ts'
import type { Hooks, Log, Phase, Place, StanzaKind, Verdict } from './module.ts'
import { StanzaError } from './xmpp/errors.ts'

type Handler<E> = (e: E) => Verdict | void | Promise<Verdict | void>

/** One registered handler, as `npm run hooks` prints it. */
export interface Link<E> {
  readonly module: string
  readonly place: Place
  readonly handle: Handler<E>
}

const PHASES: readonly Phase[] = ['guard', 'rewrite', 'store', 'copy', 'observe']
const KINDS: readonly StanzaKind[] = ['message', 'presence', 'iq']
/** A handler that has not answered after this is treated as crashed. */
export const HANDLER_TIMEOUT_MS = 10_000

/** The handlers of one chain for one kind of stanza, in the three parts that matter for ordering. */
export interface Compiled<E> {
  /** guard and rewrite: one after another. */
  readonly before: readonly Link<E>[]
  /** store: started together, so that a session's messages are stored in groups. */
  readonly store: readonly Link<E>[]
  /** copy and observe: one after another; never stop a stanza. */
  readonly after: readonly Link<E>[]
}

/** Sorts links: phases, then before/after inside a phase, then the order of registration. Throws on a cycle. */
export function sortLinks<E>(name: string, links: readonly Link<E>[]): Link<E>[] {
  return PHASES.flatMap((phase) =>
    sortPhase(
      name,
      links.filter((l) => l.place.phase === phase),
    ),
  )
}

function sortPhase<E>(name: string, links: readonly Link<E>[]): Link<E>[] {
  const sorted: Link<E>[] = []
  let rest = [...links]
  const mustFollow = (a: Link<E>, b: Link<E>): boolean =>
    a.module !== b.module &&
    (a.place.after?.includes(b.module) === true || b.place.before?.includes(a.module) === true)
  while (rest.length > 0) {
    const next = rest.find((link) => !rest.some((other) => mustFollow(link, other)))
    if (next === undefined)
      throw new Error(`hook ${name}: before/after form a cycle among ${rest.map((l) => l.module).join(', ')}`)
    sorted.push(next)
    rest = rest.filter((link) => link !== next)
  }
  return sorted
}

/** One named chain. */
export class Chain<E> {
  readonly name: string
  readonly #links: Link<E>[] = []
  readonly #log: Log
  readonly #clock: Clock
  /** Handlers that have not answered yet, as what ends the waiting for them. */
  readonly #waiting: Deadlines<() => void>
  /** Compiled per kind; chains of events that are not stanzas use `any`. */
  message: Compiled<E>
  presence: Compiled<E>
  iq: Compiled<E>
  any: Compiled<E>

  constructor(name: string, log: Log, clock: Clock) {
    this.name = name
    this.#log = log
    this.#clock = clock
    this.#waiting = new Deadlines((giveUp) => giveUp(), HANDLER_TIMEOUT_MS, clock)
    const empty: Compiled<E> = { before: [], store: [], after: [] }
    this.message = empty
    this.presence = empty
    this.iq = empty
    this.any = empty
  }

  /** Adds a link; disposing removes it. */
  add(link: Link<E>): Disposable {
    this.#links.push(link)
    this.#compile()
    return {
      [Symbol.dispose]: () => {
        const at = this.#links.indexOf(link)
        if (at >= 0) this.#links.splice(at, 1)
        this.#compile()
      },
    }
  }

  /** All links in their order. */
  list(): readonly Link<E>[] {
    return sortLinks(this.name, this.#links)
  }

  #compile(): void {
    const sorted = this.list()
    const part = (kind: StanzaKind | undefined): Compiled<E> => {
      const mine = sorted.filter(
        (l) => kind === undefined || l.place.kinds === undefined || l.place.kinds.includes(kind),
      )
      const inPhases = (...phases: Phase[]) => mine.filter((l) => phases.includes(l.place.phase))
      return {
        before: inPhases('guard', 'rewrite'),
        store: inPhases('store'),
        after: inPhases('copy', 'observe'),
      }
    }
    for (const kind of KINDS) this[kind] = part(kind)
    this.any = part(undefined)
  }

  /** The time, for those who wait to enter. */
  now(): number {
    return this.#clock.now()
  }

  /** guard and rewrite, in order, until a verdict. */
  runBefore(part: Compiled<E>, e: E): Verdict | Promise<Verdict> {
    const links = part.before
    for (let i = 0; i < links.length; i++) {
      const verdict = this.#call(links[i] as Link<E>, e)
      if (verdict === undefined) continue
      if (verdict instanceof Promise) return this.#beforeFrom(links, i + 1, e, verdict)
      return verdict
    }
    return undefined
  }

  async #beforeFrom(
    links: readonly Link<E>[],
    from: number,
    e: E,
    first: Promise<Verdict>,
  ): Promise<Verdict> {
    let verdict = await first
    for (let i = from; verdict === undefined && i < links.length; i++)
      verdict = await this.#call(links[i] as Link<E>, e)
    return verdict
  }

  /** Starts all store handlers; resolves to the first verdict in their order. */
  runStore(part: Compiled<E>, e: E): Verdict | Promise<Verdict> {
    const links = part.store
    const [first] = links
    if (first === undefined) return undefined
    if (links.length === 1) return this.#call(first, e)
    let only: Verdict | Promise<Verdict>
    let several: (Verdict | Promise<Verdict>)[] | undefined
    for (const link of links) {
      const answer = this.#call(link, e)
      // Mostly one of them stores, and the others have nothing to do with it: that costs no more than if they were not there.
      if (answer === undefined) continue
      if (several !== undefined) several.push(answer)
      else if (only === undefined) only = answer
      else if (only instanceof Promise || answer instanceof Promise) several = [only, answer]
    }
    return several === undefined ? only : firstVerdict(several)
  }

  /** copy and observe: errors are logged, verdicts are ignored. */
  runAfter(part: Compiled<E>, e: E): void | Promise<void> {
    const links = part.after
    for (let i = 0; i < links.length; i++) {
      const result = this.#observe(links[i] as Link<E>, e)
      if (result !== undefined) return this.#afterFrom(links, i + 1, e, result)
    }
    return undefined
  }

  async #afterFrom(links: readonly Link<E>[], from: number, e: E, first: Promise<void>): Promise<void> {
    await first
    for (let i = from; i < links.length; i++) await this.#observe(links[i] as Link<E>, e)
  }

  /** The whole chain for an event that is not a stanza (or whose order does not matter). */
  run(e: E, part: Compiled<E> = this.any): Verdict | Promise<Verdict> {
    const verdict = this.runBefore(part, e)
    if (verdict instanceof Promise) return this.#runAsync(e, part, verdict)
    if (verdict !== undefined) return verdict
    const stored = this.runStore(part, e)
    if (stored instanceof Promise) return this.#runAsync(e, part, undefined, stored)
    if (stored !== undefined) return stored
    const done = this.runAfter(part, e)
    return done === undefined ? undefined : done.then(() => undefined)
  }

  async #runAsync(
    e: E,
    part: Compiled<E>,
    before: Promise<Verdict> | undefined,
    store?: Promise<Verdict>,
  ): Promise<Verdict> {
    const verdict = (await before) ?? (await (store ?? this.runStore(part, e)))
    if (verdict === undefined) await this.runAfter(part, e)
    return verdict
  }

  #call(link: Link<E>, e: E): Verdict | Promise<Verdict> {
    try {
      const result = link.handle(e)
      if (result === undefined || !(result instanceof Promise)) return result as Verdict
      return this.#guarded(link, result)
    } catch (error) {
      return this.#crashed(link, error)
    }
  }

  /** What a handler answers, in time; never rejects. Few promises, because every stored message has one of these. */
  #guarded(link: Link<E>, result: Promise<Verdict | void>): Promise<Verdict> {
    return new Promise((resolve) => {
      let late = false
      const giveUp = (): void => {
        late = true
        resolve(this.#crashed(link, new Error('handler timed out')))
      }
      this.#waiting.add(giveUp)
      result.then(
        (verdict) => {
          this.#waiting.delete(giveUp)
          resolve(verdict ?? undefined)
        },
        (error: unknown) => {
          if (late) return // it is told already
          this.#waiting.delete(giveUp)
          resolve(this.#crashed(link, error))
        },
      )
    })
  }

  /** A refusal is a bounce; anything else is a bug or a store failure, told to the sender as our fault. */
  #crashed(link: Link<E>, error: unknown): Verdict {
    if (error instanceof StanzaError) return { bounce: error }
    this.#log.error(`hook ${this.name} of module ${link.module} failed`, { err: error })
    return { bounce: new StanzaError('internal-server-error') }
  }

  #observe(link: Link<E>, e: E): Promise<void> | undefined {
    const failed = (error: unknown): void =>
      this.#log.error(`hook ${this.name} of module ${link.module} failed`, { err: error })
    try {
      const result = link.handle(e)
      if (!(result instanceof Promise)) return undefined
      return this.#guarded(link, result).then(() => undefined)
    } catch (error) {
      failed(error)
      return undefined
    }
  }
}

async function firstVerdict(pending: readonly (Verdict | Promise<Verdict>)[]): Promise<Verdict> {
  const verdicts = await Promise.all(pending.map(async (v) => await v))
  return verdicts.find((v) => v !== undefined)
}

/** All chains of one host. */
export class HookTable {
  readonly #chains = new Map<string, Chain<never>>()
  readonly #log: Log
  readonly #clock: Clock

  constructor(log: Log, clock: Clock) {
    this.#log = log
    this.#clock = clock
  }

  /** The chain of this name, created when first asked for. */
  chain<K extends keyof Hooks>(name: K): Chain<Hooks[K]> {
    let chain = this.#chains.get(name)
    if (chain === undefined) {
      chain = new Chain<never>(name, this.#log, this.#clock)
      this.#chains.set(name, chain)
    }
    return chain as unknown as Chain<Hooks[K]> // the map key fixes the event type
  }

  /** Every chain that has links, with module names in order: `npm run hooks`. */
  describe(): readonly {
    readonly name: string
    readonly links: readonly Pick<Link<never>, 'module' | 'place'>[]
  }[] {
    return [...this.#chains.values()]
      .map((chain) => ({ name: chain.name, links: chain.list() }))
      .filter((chain) => chain.links.length > 0)
  }
}
