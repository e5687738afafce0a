/**
 * Publishes to app servers (XEP-0357 §7), as jobs: ordinary notifications at most once in an interval for each device, with what is true
 * when they are published; calls at once, in a queue of their own, and not later than somebody would still ring. Failures: §7.1.
 */
import type { Ctx, JobQueue, JobRun } from '../../server/module.ts'
import { RequestTimeout, StanzaError } from '../../server/xmpp/errors.ts'
import { parseJid } from '../../server/xmpp/jid.ts'
import type { DeviceState } from './devices.ts'
import { publishElement, type Summary } from './notification.ts'
import { Reach } from './reach.ts'
import { isUnchanged, type RegistrationDoc, type Registrations } from './registrations.ts'
import { Shares } from './shares.ts'

/** A call that was not told of after this time is over. */
const CALL_MS = 60_000
/** Failures in a row before a registration can be given up. */
const MANY_ERRORS = 10
/** A domain that could not be reached, and took longer than that to find out, holds others up like one that gives no answer. */
const SLOW_MS = 5000
/** What a run may take besides the request. */
const MARGIN_MS = 30_000
const SWEEP_MS = 1000
const MAX_WAITING = { messages: 100_000, calls: 10_000 }

/** The app server, or the way to it, has a problem that may pass; all others say that the registration is worth nothing. */
const TRANSIENT: ReadonlySet<string> = new Set([
  'internal-server-error',
  'recipient-unavailable',
  'remote-server-not-found',
  'remote-server-timeout',
  'resource-constraint',
  'service-unavailable',
])

/** What the administrator decides; times in milliseconds. */
export interface PublisherOptions {
  readonly interval: number
  readonly timeout: number
  readonly callTimeout: number
  readonly unreachable: number
  readonly concurrency: number
}

type Ordinary = { readonly local: string; readonly key: string }
type Call = Ordinary & { readonly at: number }

/** The queues of one host. */
export class Publisher {
  readonly #ctx: Ctx
  readonly #registrations: Registrations
  readonly #options: PublisherOptions
  readonly #stateOf: (local: string, key: string) => DeviceState
  readonly #ordinary: JobQueue<Ordinary>
  readonly #calls: JobQueue<Call>
  readonly #published
  readonly #refused
  readonly #removed
  readonly #reach: Reach
  readonly #messageShares: Shares
  readonly #callShares: Shares

  /** `stateOf`: of the device of a registration, as far as this process knows. */
  constructor(
    ctx: Ctx,
    registrations: Registrations,
    options: PublisherOptions,
    stateOf: (local: string, key: string) => DeviceState,
  ) {
    this.#ctx = ctx
    this.#registrations = registrations
    this.#options = options
    this.#stateOf = stateOf
    this.#published = ctx.metrics.counter('published', 'Notifications that app servers have taken')
    this.#refused = ctx.metrics.counter('refused', 'Notifications that app servers have not taken')
    this.#removed = ctx.metrics.counter('removed', 'Registrations removed because app servers refused them')
    const { concurrency, timeout, callTimeout } = options
    const now = (): number => ctx.now()
    this.#reach = new Reach(now)
    this.#messageShares = new Shares(concurrency, MAX_WAITING.messages, now)
    this.#callShares = new Shares(concurrency, MAX_WAITING.calls, now)
    ctx.timers.every(SWEEP_MS, () => {
      this.#messageShares.sweep()
      this.#callShares.sweep()
    })
    ctx.metrics.gauge(
      'held_back',
      'Notifications that wait because their app server or account has its share of requests under way',
      () => this.#messageShares.waiting + this.#callShares.waiting,
    )
    // a request ends before its job does
    this.#ordinary = ctx.jobs<Ordinary>(
      'publish',
      // about an hour
      {
        attempts: 12,
        backoff: { firstMs: 5000, maxMs: 900_000 },
        concurrency,
        timeoutMs: timeout + MARGIN_MS,
        maxWaiting: MAX_WAITING.messages,
      },
      (job, run) => this.#publish(job, run),
    )
    this.#calls = ctx.jobs<Call>(
      'call',
      {
        attempts: 4,
        backoff: { firstMs: 1000, maxMs: 4000 },
        concurrency,
        timeoutMs: callTimeout + MARGIN_MS,
        maxWaiting: MAX_WAITING.calls,
      },
      (job, run) => this.#publishCall(job, run),
    )
  }

  /** Something is due for a device, which was told something at `pushedAt` last. */
  due(local: string, key: string, pushedAt: number): void {
    this.#ordinary.add({ local, key }, { key: `${local} ${key}`, delayMs: this.#leftOf(pushedAt) })
  }

  /** What is left of the interval; nothing where the clock has gone back since, by however much. */
  #leftOf(pushedAt: number): number {
    const since = this.#ctx.now() - pushedAt
    return since < 0 ? 0 : Math.max(0, this.#options.interval - since)
  }

  /** Somebody calls; `id` tells calls apart. */
  call(local: string, key: string, id: string | undefined): void {
    const job = { local, key, at: this.#ctx.now() }
    this.#calls.add(job, id === undefined ? {} : { key: `${local} ${key} ${id.slice(0, 64)}` })
  }

  async #publish({ local, key }: Ordinary, run: JobRun): Promise<void> {
    const doc = await this.#registrations.get(local, key)
    if (doc?.due !== '1') return // §6: not enabled any more, or the device was there meanwhile
    switch (this.#stateOf(local, key)) {
      case 'fine':
        // unless something has come since for a device that has gone again
        await this.#registrations.change(local, key, (old) => (isUnchanged(doc, old) ? caughtUp(old) : {}))
        return
      case 'waiting':
        return // it comes again if the device turns out to be silent
      case 'away':
    }
    // another process may have published
    if (this.#leftOf(doc.pushedAt) > 0) return this.due(local, key, doc.pushedAt)
    const standing = this.#reach.standing(doc.jid)
    if (standing === 'silent' || (standing === 'doubtful' && this.#messageShares.under(doc.jid) > 0))
      throw new Error('the app server gave no answer a moment ago')
    using room = this.#messageShares.take({
      account: local,
      service: doc.jid,
      standing,
      id: `${local} ${key}`,
      until: Infinity,
      again: () => this.due(local, key, 0),
    })
    if (room === undefined) return
    if (!(await this.#send(local, key, doc, false, run.signal))) return
    const now = this.#ctx.now()
    const after = await this.#registrations.change(local, key, (old) => ({
      pushedAt: now,
      errors: 0,
      failingSince: 0,
      // something may have come since
      ...(isUnchanged(doc, old) ? { due: '' } : {}),
    }))
    if (after?.due === '1') this.due(local, key, now)
  }

  async #publishCall(job: Call, run: JobRun): Promise<void> {
    const { local, key, at } = job
    if (this.#ctx.now() - at > CALL_MS) return
    const doc = await this.#registrations.get(local, key)
    if (doc === undefined) return
    const id = `${local} ${key} ${at}`
    using room = this.#callShares.take({
      account: local,
      service: doc.jid,
      standing: this.#reach.standing(doc.jid),
      id,
      until: at + CALL_MS,
      again: () => this.#calls.add(job, { key: id }),
    })
    if (room === undefined) return
    await this.#send(local, key, doc, true, run.signal)
  }

  async #summary(local: string, doc: RegistrationDoc, urgent: boolean): Promise<Summary> {
    const { count, sender, body } = doc
    return {
      messages: count,
      subscriptions: await this.#subscriptions(local),
      sender: sender === '' ? undefined : sender,
      body: body === '' ? undefined : body,
      urgent,
    }
  }

  /** Requests that wait for an answer of the user (RFC 6121 §3.1.3). */
  async #subscriptions(local: string): Promise<number | undefined> {
    const roster = await this.#ctx.find('roster')?.of(local)
    if (roster === undefined) return undefined
    let count = 0
    for (const contact of roster.contacts()) if (contact.pendingIn) count++
    return count
  }

  /** False when the registration is gone; throws when it is to be tried again. */
  async #send(
    local: string,
    key: string,
    doc: RegistrationDoc,
    urgent: boolean,
    signal: AbortSignal,
  ): Promise<boolean> {
    const summary = await this.#summary(local, doc, urgent)
    // §6: it may have been disabled, or enabled anew, while the store was asked
    if (!this.#registrations.isCurrent(local, key, doc)) return false
    const payload = publishElement(doc.node, doc.options === '' ? undefined : doc.options, summary)
    const { timeout, callTimeout } = this.#options
    const sentAt = this.#ctx.now()
    try {
      // §7: from the server (version 0.3)
      const timeoutMs = urgent ? callTimeout : timeout
      await this.#ctx.request(parseJid(doc.jid), payload, { type: 'set', timeoutMs })
      this.#reach.answered(doc.jid)
      this.#published.add()
      return true
    } catch (error) {
      signal.throwIfAborted()
      this.#refused.add()
      if (!(error instanceof RequestTimeout || error instanceof StanzaError)) throw error
      this.#noteFailure(doc.jid, sentAt, error)
      if (await this.#givenUp(local, key, doc, error)) return false
      throw error
    }
  }

  /** §7.1: an error disables, unless it may pass; then only many in a row over a long time do. */
  async #givenUp(local: string, key: string, doc: RegistrationDoc, error: unknown): Promise<boolean> {
    const condition = error instanceof StanzaError ? error.condition : 'timeout'
    const passing =
      error instanceof StanzaError ? error.type === 'wait' || TRANSIENT.has(error.condition) : true
    if (passing) {
      const now = this.#ctx.now()
      const after = await this.#registrations.change(local, key, (old) => ({
        errors: old.errors + 1,
        failingSince: old.errors === 0 ? now : old.failingSince,
      }))
      if (after === undefined) return true
      const { errors, failingSince } = after
      if (errors < MANY_ERRORS || now - failingSince < this.#options.unreachable) return false
    }
    if (await this.#registrations.remove(local, key, doc.enabledAt)) {
      this.#removed.add()
      this.#ctx.log.info('push registration removed', { service: doc.jid, condition })
    }
    return true
  }

  /** What a failed request says of the app server. */
  #noteFailure(service: string, sentAt: number, error: RequestTimeout | StanzaError): void {
    // somebody on the way has answered in its place
    const unreached =
      error instanceof RequestTimeout ||
      error.condition === 'remote-server-timeout' ||
      error.condition === 'remote-server-not-found'
    if (!unreached) this.#reach.answered(service)
    else if (error instanceof RequestTimeout || this.#ctx.now() - sentAt >= SLOW_MS)
      this.#reach.unanswered(service, sentAt)
  }
}

/** What is stored of a device that has seen everything. */
export function caughtUp({ generation = 0 }: RegistrationDoc): Partial<RegistrationDoc> {
  return { count: 0, due: '', sender: '', body: '', generation: generation + 1 }
}
