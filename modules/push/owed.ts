/**
 * What devices have missed: each message once, counted in the store, so that the number and the duty to tell outlive this process. Changes of
 * one registration that come while one is being written become one.
 */
import type { Ctx } from '../../server/module.ts'
import { caughtUp, type Publisher } from './publisher.ts'
import type { Registration, RegistrationDoc, Registrations } from './registrations.ts'
import type { Notice } from './rules.ts'

/**
 * Messages of one device that are remembered, so that they count once. Those in the archive (XEP-0359) only until their other ways to the device
 * are over: when one comes again after a long time, because it waited for a session, its place in the archive says that it was told. Others as
 * long as sessions wait, which is as many as one keeps (`maxStanzas` of stream-management).
 */
const MAX_RECENT = { archived: 64, others: 2000 }
/** Registrations that anything is remembered of, and messages of all of them, the archived ones left out. */
const MAX_DEVICES = 10_000
const MAX_KEYS = 1_000_000
const MINUTE_MS = 60_000
/** What could not be written is tried again after this, or with what comes next. */
const RETRY_MS = 5000

/** What the administrator decides. */
export interface OwedOptions {
  readonly callsPerMinute: number
  readonly sender: boolean
  readonly body: boolean | string
}

interface State {
  /** Messages that were told, in the archive and others; true: since the device has last seen everything. */
  readonly archived: Map<string, boolean>
  readonly others: Map<string, boolean>
  /** The newest entry of the archive that was told; the store's ids sort in the order of the archive. */
  newest: string
  /** Not written yet. */
  missed: number
  again: boolean
  reset: boolean
  last: Notice | undefined
  writing: boolean
  /** It could not be written, and is tried again. */
  retrying: boolean
  /** The account was removed: nothing of it is for the next one of that name. */
  gone: boolean
  /** Calls in the present minute. */
  calls: number
  minute: number
}

/** All of one host. */
export class Owed {
  readonly #ctx: Ctx
  readonly #registrations: Registrations
  readonly #publisher: Publisher
  readonly #options: OwedOptions
  readonly #states = new Map<string, State>()
  /** Messages that are remembered and not in the archive. */
  #keys = 0
  readonly #told
  readonly #limited

  constructor(ctx: Ctx, registrations: Registrations, publisher: Publisher, options: OwedOptions) {
    this.#ctx = ctx
    this.#registrations = registrations
    this.#publisher = publisher
    this.#options = options
    this.#told = ctx.metrics.counter('missed', 'Messages and calls that devices were away for')
    this.#limited = ctx.metrics.counter(
      'limited',
      'Calls that a device was told of like messages because there were too many',
    )
  }

  /**
   * The device will not see this for now; without a notice: what it was sent again. `sent`: it was sent to the device while that was there, which
   * has not confirmed it: to have been told of it before that time does not count.
   */
  missed(registration: Registration, notice: Notice | undefined, sent: boolean): void {
    const state = this.#stateOf(registration)
    if (notice === undefined) state.again = true
    else {
      if (this.#isKnown(registration.local, state, notice, sent)) return
      this.#told.add()
      if (notice.call && this.#mayCall(state)) {
        this.#publisher.call(registration.local, registration.key, notice.key)
        return
      }
      state.missed++
      state.last = notice
    }
    registration.owed = true
    this.#write(registration, state)
  }

  /** One call too many is told of as a message is: who floods the device must not keep it from the call of somebody else. */
  #mayCall(state: State): boolean {
    const minute = Math.floor(this.#ctx.now() / MINUTE_MS)
    if (state.minute !== minute) {
      state.minute = minute
      state.calls = 0
    }
    if (++state.calls <= this.#options.callsPerMinute) return true
    this.#limited.add()
    return false
  }

  /** The device has seen everything. */
  caughtUp(registration: Registration): void {
    if (!registration.owed) return
    const state = this.#stateOf(registration)
    registration.owed = false
    state.reset = true
    for (const told of [state.archived, state.others]) for (const key of told.keys()) told.set(key, false)
    state.missed = 0
    state.again = false
    state.last = undefined
    this.#write(registration, state)
  }

  forget({ local, key }: Registration): void {
    const id = `${local} ${key}`
    const state = this.#states.get(id)
    if (state !== undefined) state.gone = true // it may still be written
    this.#drop(id)
  }

  #drop(id: string): void {
    this.#keys -= this.#states.get(id)?.others.size ?? 0
    this.#states.delete(id)
  }

  #stateOf({ local, key, newest }: Registration): State {
    const id = `${local} ${key}`
    let state = this.#states.get(id)
    if (state !== undefined) return state
    if (this.#states.size >= MAX_DEVICES) {
      for (const [oldest, { writing }] of this.#states) {
        if (writing) continue
        this.#drop(oldest)
        break
      }
    }
    state = {
      archived: new Map(),
      others: new Map(),
      newest,
      missed: 0,
      again: false,
      reset: false,
      last: undefined,
      writing: false,
      retrying: false,
      gone: false,
      calls: 0,
      minute: 0,
    }
    this.#states.set(id, state)
    return state
  }

  #write(registration: Registration, state: State): void {
    if (state.writing) return
    state.writing = true
    this.#writeAll(registration, state)
      .catch((error: unknown) => {
        this.#ctx.log.warn('a registration cannot be written', { err: error })
        this.#writeLater(registration, state)
      })
      .finally(() => {
        state.writing = false
      })
  }

  /** Nothing else may come for the device, and it is still to be told. */
  #writeLater(registration: Registration, state: State): void {
    if (state.retrying || state.gone) return
    state.retrying = true
    this.#ctx.timers.after(RETRY_MS, () => {
      state.retrying = false
      this.#write(registration, state)
    })
  }

  async #writeAll({ local, key }: Registration, state: State): Promise<void> {
    while (!state.gone && (state.missed > 0 || state.again || state.reset)) {
      const { missed, again, reset, last } = state
      state.missed = 0
      state.again = false
      state.reset = false
      state.last = undefined
      try {
        const doc = await this.#registrations.change(local, key, (old) => ({
          ...(reset ? caughtUp(old) : {}),
          ...(missed > 0 || again ? this.#due(old, reset, missed, last) : {}),
          // told once, also when the module is loaded anew before the other ways of the message are over
          newest: later(old.newest ?? '', state.newest),
        }))
        if (doc?.due === '1') this.#publisher.due(local, key, doc.pushedAt)
      } catch (error) {
        // goes with the next one, or by itself later
        if (!state.reset) {
          state.missed += missed
          state.again ||= again
          state.reset = reset
          state.last ??= last
        }
        throw error
      }
    }
  }

  #due(
    old: RegistrationDoc,
    reset: boolean,
    missed: number,
    last: Notice | undefined,
  ): Partial<RegistrationDoc> {
    const { sender, body } = this.#options
    const text = typeof body === 'string' ? body : body ? last?.body : undefined
    return {
      count: (reset ? 0 : old.count) + missed,
      due: '1',
      generation: (old.generation ?? 0) + 1,
      ...(last !== undefined && sender ? { sender: last.sender } : {}),
      ...(last !== undefined && body !== false ? { body: text ?? '' } : {}),
    }
  }

  /** Whether the device was told of it; from now on it was. */
  #isKnown(local: string, state: State, { key, archived, waited }: Notice, sent: boolean): boolean {
    const place = archived === undefined ? undefined : this.#placeOf(local, archived)
    if (place !== undefined) {
      if (!sent && waited && place <= state.newest) return true
      if (place > state.newest) state.newest = place
    }
    if (key === undefined) return false
    const told = place === undefined ? state.others : state.archived
    const known = told.get(key)
    if (known === true || (known === false && !sent)) return true
    told.set(key, true)
    if (told === state.archived) shorten(told, MAX_RECENT.archived)
    else if (known === undefined) {
      this.#keys += 1 - shorten(told, MAX_RECENT.others)
      if (this.#keys > MAX_KEYS) this.#makeRoom()
    }
    return false
  }

  #placeOf(local: string, id: string): string | undefined {
    const source = this.#ctx.find('archive')?.source(local)
    return source?.ids.decode(source.owner, id)
  }

  #makeRoom(): void {
    for (const { others } of this.#states.values()) {
      this.#keys -= shorten(others, MAX_RECENT.archived)
      if (this.#keys <= MAX_KEYS) return
    }
  }
}

const later = (one: string, other: string): string => (one > other ? one : other)

/** Forgets the oldest; how many. */
function shorten(told: Map<string, boolean>, most: number): number {
  let count = 0
  for (const key of told.keys()) {
    if (told.size <= most) break
    told.delete(key)
    count++
  }
  return count
}
