/**
 * Stream negotiation (RFC 6120 §4.3): which feature takes an element, and what its step means for the stream. Inline requests of
 * SASL2 (XEP-0388) and Bind 2 (XEP-0386) run here too. What a step changes (identity, resource, TLS) is done by the driver, c2s.ts.
 */
import type { Host } from './host.ts'
import type { StreamFeature, StreamStep } from './module.ts'
import type { ClientSession } from './session.ts'
import type { Element } from './xmpp/element.ts'
import { SaslError, StanzaError, StreamError } from './xmpp/errors.ts'
import { NS } from './xmpp/ns.ts'

type Resume = NonNullable<StreamStep['resume']>

/** What negotiation may change. */
export interface NegotiationDriver {
  identify(session: ClientSession, step: StreamStep): void
  bind(session: ClientSession, host: Host, resource: string): void | Promise<void>
  /** Moves the stream of `fresh` to `session`; false: that session is over, or `fresh` is. */
  takeOver(session: ClientSession, fresh: ClientSession): Promise<boolean>
  sendFeatures(session: ClientSession): void
}

/** Negotiates for all client streams. */
export class Negotiation {
  readonly #driver: NegotiationDriver

  constructor(driver: NegotiationDriver) {
    this.#driver = driver
  }

  /** An element that is no stanza of a bound session. */
  negotiate(session: ClientSession, element: Element): void | Promise<void> {
    const host = session.vhost
    // RFC 6120 §4.3.5, RFC 7395 §3.3: nothing before the header
    if (host === undefined) throw new StreamError('not-authorized')
    if (element.ns === NS.STREAM) {
      if (element.name === 'error') return session.stream.close()
      throw new StreamError('unsupported-stanza-type')
    }
    if (session.exclusiveNs !== undefined && element.ns !== session.exclusiveNs)
      throw new StreamError('policy-violation', 'another negotiation is under way')
    const isStanza = element.ns === NS.CLIENT
    const payload = isStanza ? element.firstElement() : undefined
    const ns = isStanza ? (element.name === 'iq' ? (payload?.ns ?? '') : '') : element.ns
    const feature = host.featureFor(session, ns)
    if (feature === undefined) throw this.#refusal(session, host, element, isStanza)
    const step = feature.handle(session, element)
    if (step instanceof Promise) return step.then((s) => this.#apply(session, host, feature, s))
    return this.#apply(session, host, feature, step)
  }

  #refusal(session: ClientSession, host: Host, element: Element, isStanza: boolean): StreamError {
    const known = host.features.some((f) => f.ns === element.ns)
    if (element.ns === NS.SERVER || element.ns === NS.COMPONENT) return new StreamError('invalid-namespace') // §4.8.3
    // §4.9.3.24: not a stanza and not a feature
    if (isStanza && !['message', 'presence', 'iq'].includes(element.name))
      return new StreamError('unsupported-stanza-type')
    if (!isStanza && (!known || session.bound)) return new StreamError('unsupported-stanza-type')
    // §4.9.3.12, §7.1: not before the stream is ready for it
    return new StreamError('not-authorized')
  }

  #apply(
    session: ClientSession,
    host: Host,
    feature: StreamFeature,
    step: StreamStep | void,
  ): void | Promise<void> {
    session.exclusiveNs = step?.exclusive === true ? feature.ns : undefined
    if (step === undefined || !session.stream.open) return undefined
    if (step.identity !== undefined) this.#driver.identify(session, step)
    if (step.resume !== undefined) return this.#resume(session, step.resume)
    if (step.resource !== undefined) {
      const bound = this.#driver.bind(session, host, step.resource)
      if (bound instanceof Promise) return bound.then(() => this.#reply(session, host, step))
    }
    return this.#reply(session, host, step)
  }

  #reply(session: ClientSession, host: Host, step: StreamStep): void | Promise<void> {
    if (step.inline === undefined) return this.#finish(session, step, step.reply)
    return this.#inline(session, host, step.inline).then((reply) => this.#finish(session, step, reply))
  }

  #finish(session: ClientSession, step: StreamStep, reply: Element | undefined): void {
    if (reply !== undefined) session.answer(reply)
    const resumed = this.#resumed.get(session)
    if (resumed !== undefined) return this.#goOn(session, resumed)
    if (step.next !== 'features') session.uncork()
    if (step.close !== undefined) {
      const { condition, text } = step.close
      return session.stream.close(condition === undefined ? undefined : new StreamError(condition, text))
    }
    switch (step.next) {
      case 'tls':
        session.clearInbox()
        return session.stream.startTls(session.host)
      case 'restart':
        return session.stream.restart()
      case 'features':
        this.#driver.sendFeatures(session)
        return session.uncork()
      case undefined:
        return undefined
    }
  }

  /** Inline requests of SASL2 and Bind 2, one after another; the replies go into the enclosing one. */
  async #inline(
    session: ClientSession,
    host: Host,
    inline: NonNullable<StreamStep['inline']>,
  ): Promise<Element> {
    const replies: Element[] = []
    const requests = inline.requests.map((request) => ({
      request,
      feature: host.inlineFeature(request.ns, inline.of),
    }))
    // XEP-0198 §9.2: resumption comes first, and when it succeeds there is nothing to bind
    for (const { request, feature } of requests.toSorted((a, b) => rank(a.feature) - rank(b.feature))) {
      if (this.#resumed.has(session) && feature?.first !== true) break
      const step = await this.#inlineStep(session, host, feature, request)
      if (step === undefined) continue
      if (step.resume !== undefined) replies.push(await this.#takeOver(session, step.resume))
      if (step.resource !== undefined) await this.#driver.bind(session, host, step.resource)
      const reply = step.inline === undefined ? step.reply : await this.#inline(session, host, step.inline)
      if (reply !== undefined) replies.push(reply)
    }
    return await inline.finish(replies, this.#resumed.get(session)?.session ?? session)
  }

  /** Fresh sessions whose stream has gone over to another one, until that is told. */
  readonly #resumed = new WeakMap<ClientSession, { readonly session: ClientSession; after(): void }>()

  async #resume(fresh: ClientSession, resume: Resume): Promise<void> {
    this.#finish(fresh, {}, await this.#takeOver(fresh, resume))
  }

  async #takeOver(fresh: ClientSession, resume: Resume): Promise<Element> {
    const session = resume.session as ClientSession // every Bound is one
    if (!(await this.#driver.takeOver(session, fresh))) return resume.refused()
    this.#resumed.set(fresh, { session, after: () => resume.after() })
    return resume.reply()
  }

  #goOn(fresh: ClientSession, resumed: { readonly session: ClientSession; after(): void }): void {
    this.#resumed.delete(fresh)
    const { session } = resumed
    // a third stream has taken over meanwhile, or this one is lost: the session sleeps again, or is over
    if (session.stream !== fresh.stream || !session.connected) return
    session.goOn(() => {
      resumed.after()
      if (session.isBound()) void session.vhost?.emit('session:resumed', { session })
    })
  }

  /** A refusal of one inline request must not undo the others: it has no reply then. */
  async #inlineStep(
    session: ClientSession,
    host: Host,
    feature: StreamFeature | undefined,
    request: Element,
  ): Promise<StreamStep | undefined> {
    try {
      return (await feature?.handle(session, request)) ?? undefined
    } catch (error) {
      if (error instanceof StreamError) throw error
      if (!(error instanceof StanzaError) && !(error instanceof SaslError))
        host.log.error('inline feature failed', { err: error, ns: request.ns })
      return undefined
    }
  }
}

/** XEP-0198 §9.2: resumption comes before everything else. */
const rank = (feature: StreamFeature | undefined): number => (feature?.first === true ? 0 : 1)
