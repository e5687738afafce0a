/**
 * Shares of the requests that are under way at the same time: no app server and no account has more than a quarter of them, those not known to
 * answer have not more than half together, so that others always find room. A job that finds none does not wait in the place of another:
 * it ends, and is added to its queue again when there is room.
 */
import type { Standing } from './reach.ts'

/** One request that somebody wants to make. */
export interface Claim {
  readonly account: string
  /** Address of the app server as registered. */
  readonly service: string
  readonly standing: Standing
  /** While one of that name waits, it is not put down again. */
  readonly id: string
  /** Not worth anything after that time; milliseconds since 1970. */
  readonly until: number
  /** Called when there may be room: to claim again. */
  again(): void
}

interface Gate {
  readonly most: number
  taken: number
  readonly waiting: Map<string, Claim>
}

/** The shares of one queue. */
export class Shares {
  readonly #most: number
  readonly #maxWaiting: number
  readonly #now: () => number
  readonly #gates = new Map<string, Gate>()
  #waiting = 0

  /** `total`: requests at the same time, which the queue sees to. `maxWaiting`: claims that may wait. */
  constructor(total: number, maxWaiting: number, now: () => number) {
    this.#most = total
    this.#maxWaiting = maxWaiting
    this.#now = now
  }

  /** Claims that wait for room. */
  get waiting(): number {
    return this.#waiting
  }

  /** Requests to an app server that are under way. */
  under(service: string): number {
    return this.#gates.get(`service ${service}`)?.taken ?? 0
  }

  /** Room until it is disposed of; undefined: there is none, and `again` is called later. Throws when too many wait. */
  take(claim: Claim): Disposable | undefined {
    const { account, service, standing } = claim
    const names: [name: string, most: number][] = [
      [`service ${service}`, this.#part(4)],
      [`account ${account}`, this.#part(4)],
    ]
    if (standing !== 'answers') names.push(['not known to answer', this.#part(2)])
    // others may still try; a dead one costs each account one request at a time
    if (standing === 'silent' || standing === 'doubtful') names.push([`both ${service} ${account}`, 1])
    for (const [name, most] of names) {
      const gate = this.#gates.get(name)
      if (gate === undefined || gate.taken < most) continue
      this.#wait(gate, claim)
      return undefined
    }
    for (const [name, most] of names) this.#gate(name, most).taken++
    return { [Symbol.dispose]: () => names.forEach(([name]) => this.#leave(name)) }
  }

  #part(of: number): number {
    return Math.max(1, Math.floor(this.#most / of))
  }

  #gate(name: string, most: number): Gate {
    let gate = this.#gates.get(name)
    if (gate === undefined) {
      gate = { most, taken: 0, waiting: new Map() }
      this.#gates.set(name, gate)
    }
    return gate
  }

  #wait({ waiting }: Gate, claim: Claim): void {
    if (waiting.has(claim.id)) return
    if (this.#waiting >= this.#maxWaiting) throw new Error('too many wait for app servers')
    waiting.set(claim.id, claim)
    this.#waiting++
  }

  #leave(name: string): void {
    const gate = this.#gates.get(name)
    if (gate === undefined) return
    gate.taken--
    this.#next(gate)
    this.#tidy(name, gate)
  }

  #tidy(name: string, { taken, waiting }: Gate): void {
    if (taken === 0 && waiting.size === 0) this.#gates.delete(name)
  }

  /** The one that has waited longest and is still worth it claims again. */
  #next({ waiting }: Gate): boolean {
    for (const [id, claim] of waiting) {
      waiting.delete(id)
      this.#waiting--
      if (this.#now() > claim.until) continue
      claim.again()
      return true
    }
    return false
  }

  /** To be called now and then: one that was told of room may not have needed it, and then the next would not hear of it. */
  sweep(): void {
    if (this.#waiting === 0) return
    for (const [name, gate] of this.#gates) {
      for (let room = gate.most - gate.taken; room > 0 && this.#next(gate); room--);
      this.#tidy(name, gate)
    }
  }
}
