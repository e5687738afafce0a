/**
 * IQ dispatch (RFC 6120 §8.2.3, §10): one handler for each (target, type, namespace, name), exactly one answer to each
 * request; and the tracker of our own requests.
 */
import { randomBytes } from 'node:crypto'
import type { Clock } from './clock.ts'
import type { Bound, Iq, IqHandler, Log, StanzaEvent, Target } from './module.ts'
import type { Element } from './xmpp/element.ts'
import { el } from './xmpp/element.ts'
import { RequestTimeout, StanzaError } from './xmpp/errors.ts'
import type { JID } from './xmpp/jid.ts'
import { NS } from './xmpp/ns.ts'
import { stanzaErrorOf } from './xmpp/stanza.ts'

/** Handlers of one host. */
export class IqTable {
  readonly #handlers = new Map<string, { readonly module: string; readonly handle: IqHandler }>()

  /** Throws when there is a handler already: that is a mistake in the set of modules. */
  add(
    module: string,
    target: Target,
    type: 'get' | 'set',
    ns: string,
    name: string,
    handle: IqHandler,
  ): Disposable {
    const key = keyOf(target, type, ns, name)
    const taken = this.#handlers.get(key)
    if (taken !== undefined)
      throw new Error(
        `module ${module}: iq ${type} {${ns}}${name} on ${target} is handled by module ${taken.module} already`,
      )
    this.#handlers.set(key, { module, handle })
    return { [Symbol.dispose]: () => this.#handlers.delete(key) }
  }

  /**
   * The handler for a request. `self` handlers are closed to strangers here, in one place.
   * Throws StanzaError: forbidden (self, asked by another), service-unavailable (nobody handles it).
   */
  find(to: JID, from: JID, type: 'get' | 'set', payload: Element): IqHandler {
    if (to.local === '') {
      const host = this.#handlers.get(keyOf('host', type, payload.ns, payload.name))
      if (host !== undefined) return host.handle
    } else {
      const self = this.#handlers.get(keyOf('self', type, payload.ns, payload.name))
      const own = from.bare.equals(to.bare)
      if (self !== undefined && own) return self.handle
      const account = this.#handlers.get(keyOf('account', type, payload.ns, payload.name))
      if (account !== undefined) return account.handle
      // RFC 6121 §2.3.3: a roster is its owner's; the same for all that belongs to one account alone.
      if (self !== undefined) throw new StanzaError('forbidden')
    }
    // RFC 6120 §10.3.3, RFC 6121 §8.5.2.1.3
    throw new StanzaError('service-unavailable')
  }
}

const keyOf = (target: Target, type: string, ns: string, name: string): string =>
  `${target} ${type} ${name} ${ns}`

/** RFC 6120 §8.2.3: what makes an iq well formed. Throws StanzaError('bad-request'). */
export function checkIq(stanza: Element): {
  readonly type: 'get' | 'set' | 'result' | 'error'
  readonly payload: Element | undefined
} {
  const type = stanza.attr('type')
  if (stanza.attr('id') === undefined) throw new StanzaError('bad-request', { text: 'an iq needs an id' }) // rule 1
  const elements = stanza.elements
  switch (type) {
    case 'get':
    case 'set':
      // rule 5: exactly one child that says what is asked
      if (elements.length !== 1)
        throw new StanzaError('bad-request', { text: 'a request has exactly one child' })
      return { type, payload: elements[0] }
    case 'result':
      // rule 6: zero or one child
      if (elements.length > 1)
        throw new StanzaError('bad-request', { text: 'a result has at most one child' })
      return { type, payload: elements[0] }
    case 'error':
      return { type, payload: elements[0] }
    default:
      throw new StanzaError('bad-request', { text: 'unknown type of iq' }) // rule 2
  }
}

/** What the sender of a request is told of an exception. */
export function refusal(error: unknown, log: Log, iq: Iq): StanzaError {
  if (error instanceof StanzaError) return error
  log.error('iq handler failed', { err: error, ns: iq.payload.ns, name: iq.payload.name })
  return new StanzaError('internal-server-error')
}

interface Pending {
  readonly to: JID
  readonly from: JID
  readonly resolve: (payload: Element | undefined) => void
  readonly reject: (error: Error) => void
  readonly timer: Disposable
}
/** Requests of ours that wait for an answer at the same time, at most. */
const MAX_PENDING = 100_000

/** Our own requests. An answer counts when kind, id, sender and addressee match. */
export class RequestTracker {
  readonly #pending = new Map<string, Pending>()
  readonly #clock: Clock

  constructor(clock: Clock) {
    this.#clock = clock
  }

  get size(): number {
    return this.#pending.size
  }

  /** Builds the request and hands it to `route`; settles with the answer. */
  send(
    from: JID,
    to: JID,
    payload: Element,
    opts: { readonly type: 'get' | 'set'; readonly timeoutMs: number },
    route: (stanza: Element) => void | Promise<void>,
  ): Promise<Element | undefined> {
    if (this.#pending.size >= MAX_PENDING) return Promise.reject(new StanzaError('resource-constraint'))
    const id = randomBytes(12).toString('base64url')
    return new Promise((resolve, reject) => {
      const timer = this.#clock.after(opts.timeoutMs, () => {
        this.#pending.delete(id)
        reject(new RequestTimeout(`no answer from ${to.toString()} in ${opts.timeoutMs} ms`))
      })
      this.#pending.set(id, { to, from, resolve, reject, timer })
      // One that cannot be sent will not be answered.
      const failed = (error: unknown): void => {
        this.#pending.delete(id)
        timer[Symbol.dispose]()
        reject(error)
      }
      try {
        const sent = route(
          el('iq', NS.CLIENT, { type: opts.type, id, from: from.toString(), to: to.toString() }, payload),
        )
        if (sent instanceof Promise) sent.catch(failed)
      } catch (error) {
        failed(error)
      }
    })
  }

  /** Takes an iq of type result or error; false when it answers nothing of ours. */
  settle(from: JID, to: JID, stanza: Element): boolean {
    const id = stanza.attr('id') ?? ''
    const pending = this.#pending.get(id)
    // RFC 6120 §8.2.3, security: an answer is one only from whom it was asked of
    if (pending === undefined || !pending.to.equals(from) || !pending.from.bare.equals(to.bare)) return false
    this.#pending.delete(id)
    pending.timer[Symbol.dispose]()
    if (stanza.attr('type') === 'error') pending.reject(stanzaErrorOf(stanza))
    else pending.resolve(stanza.firstElement())
    return true
  }
}

/** A request as its handler sees it. */
export class Request implements Iq {
  readonly from: JID
  readonly to: JID
  readonly id: string
  readonly type: 'get' | 'set'
  readonly payload: Element
  readonly stanza: Element
  readonly session: Bound | undefined
  #after: (() => void)[] | undefined

  constructor(e: StanzaEvent, type: 'get' | 'set', payload: Element) {
    this.from = e.from
    this.to = e.to
    this.id = e.stanza.attr('id') ?? ''
    this.type = type
    this.payload = payload
    this.stanza = e.stanza
    this.session = e.session
  }

  afterReply(fn: () => void): void {
    ;(this.#after ??= []).push(fn)
  }

  /** The result is in the sender's queue. */
  answered(): void {
    for (const fn of this.#after ?? []) fn()
  }
}
