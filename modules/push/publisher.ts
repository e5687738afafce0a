/**
 * Publishes to app servers (XEP-0357 §7), as jobs: ordinary notifications at most once in an interval for each device, with what is true
 * when they are published; calls at once, in a queue of their own, and not later than somebody would still ring. Failures: §7.1.
 */
import type { Ctx, JobQueue, JobRun } from '../../server/module.ts'
import { RequestTimeout, StanzaError } from '../../server/xmpp/errors.ts'
import { type JID, parseJid } from '../../server/xmpp/jid.ts'
import type { DeviceState } from './devices.ts'
import { publishElement, type Summary } from './notification.ts'
import type { RegistrationDoc, Registrations } from './registrations.ts'

/** A call that was not told of after this time is over. */
const CALL_MS = 60_000
/** Failures in a row before a registration can be given up. */
const MANY_ERRORS = 10
/** After an app server gave no answer, others are not sent to it for this time, so that they do not all wait. */
const SILENT_MS = 30_000
const MAX_SILENT = 1000

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
  /** App servers that gave no answer, by domain, and until when they are left alone. */
  readonly #silent = new Map<string, number>()

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
    const { concurrency, timeout } = options
    // a request ends before its job does
    const timeoutMs = timeout + 30_000
    this.#ordinary = ctx.jobs<Ordinary>(
      'publish',
      // about an hour
      {
        attempts: 12,
        backoff: { firstMs: 5000, maxMs: 900_000 },
        concurrency,
        timeoutMs,
        maxWaiting: 100_000,
      },
      (job, run) => this.#publish(job, run),
    )
    this.#calls = ctx.jobs<Call>(
      'call',
      { attempts: 4, backoff: { firstMs: 1000, maxMs: 4000 }, concurrency, timeoutMs, maxWaiting: 10_000 },
      (job) => this.#publishCall(job),
    )
  }

  /** Something is due for a device, which was told something at `pushedAt` last. */
  due(local: string, key: string, pushedAt: number): void {
    const delayMs = Math.max(0, pushedAt + this.#options.interval - this.#ctx.now())
    this.#ordinary.add({ local, key }, { key: `${local} ${key}`, delayMs })
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
        await this.#registrations.change(local, key, caughtUp)
        return
      case 'waiting':
        return // it comes again if the device turns out to be silent
      case 'away':
    }
    // another process may have published
    if (doc.pushedAt + this.#options.interval > this.#ctx.now()) return this.due(local, key, doc.pushedAt)
    const jid = parseJid(doc.jid)
    if (this.#isSilent(jid)) throw new Error('the app server gave no answer a moment ago')
    if (!(await this.#send(local, key, doc, await this.#summary(local, doc, false), run.signal))) return
    const now = this.#ctx.now()
    await this.#registrations.change(local, key, (old) => ({
      pushedAt: now,
      errors: 0,
      failingSince: 0,
      // something has come since
      due: old.count > doc.count ? '1' : '',
    }))
  }

  async #publishCall({ local, key, at }: Call): Promise<void> {
    if (this.#ctx.now() - at > CALL_MS) return
    const doc = await this.#registrations.get(local, key)
    if (doc === undefined) return
    await this.#send(local, key, doc, await this.#summary(local, doc, true), this.#ctx.signal)
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
    summary: Summary,
    signal: AbortSignal,
  ): Promise<boolean> {
    const jid = parseJid(doc.jid)
    const payload = publishElement(doc.node, doc.options === '' ? undefined : doc.options, summary)
    try {
      // §7: from the server (version 0.3)
      await this.#ctx.request(jid, payload, { type: 'set', timeoutMs: this.#options.timeout })
      this.#silent.delete(jid.domain)
      this.#published.add()
      return true
    } catch (error) {
      signal.throwIfAborted()
      this.#refused.add()
      if (error instanceof RequestTimeout) this.#noteSilence(jid)
      else if (!(error instanceof StanzaError)) throw error
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

  #isSilent({ domain }: JID): boolean {
    const until = this.#silent.get(domain)
    if (until === undefined) return false
    if (this.#ctx.now() < until) return true
    this.#silent.delete(domain)
    return false
  }

  #noteSilence({ domain }: JID): void {
    const [oldest] = this.#silent.keys()
    if (oldest !== undefined && this.#silent.size >= MAX_SILENT) this.#silent.delete(oldest)
    this.#silent.set(domain, this.#ctx.now() + SILENT_MS)
  }
}

/** What is stored of a device that has seen everything. */
export function caughtUp(): Partial<RegistrationDoc> {
  return { count: 0, due: '', sender: '', body: '' }
}
