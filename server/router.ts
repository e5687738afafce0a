/**
 * Where a stanza goes: one function for each kind of address (RFC 6120 §10, RFC 6121 §8).
 *
 * A stanza enters through `fromClient` (from a local session), `fromRemote` (from components and other servers) or `route` (from modules).
 * Everything for one account passes through the account's lane, so that it arrives in order whatever the handlers of
 * single stanzas wait for. Calls that need not wait return undefined, not a promise.
 */
import { tellBounced, withoutArchiveId } from './bounced.ts'
import { DomainTable } from './domains.ts'
import type { Account, Host } from './host.ts'
import { HANDLER_TIMEOUT_MS } from './hooks.ts'
import { checkIq, refusal, Request, type RequestTracker } from './iq.ts'
import { Lanes } from './lanes.ts'
import type { Bound, StanzaEvent, Verdict } from './module.ts'
import type { BoundClient, ClientSession } from './session.ts'
import { isPast } from './takers.ts'
import type { Element } from './xmpp/element.ts'
import { StanzaError } from './xmpp/errors.ts'
import { type JID, JidError, parseJid } from './xmpp/jid.ts'
import { errorReply, reply } from './xmpp/stanza.ts'

type Done = void | Promise<void>
type StanzaName = 'message' | 'presence' | 'iq'

/** Routes between the hosts of one server. */
export class Router {
  readonly #hosts: ReadonlyMap<string, Host>
  /** Who serves other domains. */
  readonly domains: DomainTable
  readonly #leaving = new Lanes()
  readonly #entering = new Lanes()

  constructor(hosts: ReadonlyMap<string, Host>) {
    this.#hosts = hosts
    this.domains = new DomainTable(hosts)
  }

  /** Where answers to that domain are expected; undefined: it is no host of this server. */
  requestsOf(domain: string): RequestTracker | undefined {
    return this.#hosts.get(domain)?.requests
  }

  // ---- entries ----

  /**
   * A stanza of a bound session. RFC 6120 §8.1.2.1: the sender's address is what the server knows, never what the client
   * says. Settles when the stanza is delivered, stored or answered.
   */
  fromClient(session: BoundClient, host: Host, sent: Element): Done {
    const attrs: Record<string, string> = { from: session.jid.toString() }
    if (session.lang !== '' && sent.attr('xml:lang') === undefined) attrs['xml:lang'] = session.lang
    // §10.3: without an address it is for the sender's own account; messages say so, since others of its devices and its archive get them
    if (sent.name === 'message' && sent.attr('to') === undefined) attrs['to'] = session.jid.bare.toString()
    const stanza = sent.withAttrs(attrs)
    const kind = stanza.name as StanzaName // the session has checked
    let to: JID
    try {
      const address = stanza.attr('to')
      to = address === undefined ? session.jid.bare : parseJid(address)
      if (kind === 'iq') checkIq(stanza)
    } catch (error) {
      return this.#answerError(stanza, session, error)
    }
    const e: StanzaEvent = { stanza, from: session.jid, to, session }
    return session.lane.pass(host.chains.clientIn, host.chains.clientIn[kind], e, this.#afterClientIn)
  }

  readonly #afterClientIn = (e: StanzaEvent, verdict: Verdict): Done => {
    if (verdict !== undefined) return this.#stopped(e, verdict)
    return this.#dispatch(e)
  }

  /**
   * A stanza of a component or another server, whose `from` was checked. Throws StanzaError (no proper stanza), JidError (an address
   * is missing or none).
   */
  fromRemote(stanza: Element): Done {
    const from = parseJid(stanza.attr('from') ?? '')
    const to = parseJid(stanza.attr('to') ?? '')
    const e: StanzaEvent = { stanza, from, to, session: undefined }
    if (stanza.name === 'iq') {
      try {
        checkIq(stanza)
      } catch (error) {
        if (error instanceof StanzaError) return this.bounce(e, error)
        throw error
      }
    }
    const chain = this.#hosts.get(to.domain)?.chains.remoteIn
    if (chain === undefined) return this.#dispatch(e)
    return this.#entering.pass(chain, e, this.#afterRemoteIn)
  }

  readonly #afterRemoteIn = (e: StanzaEvent, verdict: Verdict): Done =>
    verdict === undefined ? this.#dispatch(e) : this.#stopped(e, verdict)

  /** A stanza with from and to, from a module. Throws JidError on bad addresses. */
  route(stanza: Element, session?: Bound): Done {
    const from = parseJid(stanza.attr('from') ?? '')
    const to = parseJid(stanza.attr('to') ?? '')
    return this.#dispatch({ stanza, from, to, session })
  }

  /**
   * A message that was accepted for the session `of`, which is gone: the other sessions, or `account:offline`, or the sender. `removed`: so is the
   * account; it is as if there had been none (RFC 6121 §8.5.1).
   */
  undelivered(host: Host, stanza: Element, of: JID, removed = false): Done {
    const from = parseJid(stanza.attr('from') ?? host.name)
    const to = parseJid(stanza.attr('to') ?? of.toString()) // what modules send may name nobody
    // What the account itself tells one of its sessions (copies, results, events) is for no other, not even for the next of that name.
    if (from.resource === '' && to.resource !== '' && from.equals(to.bare)) return undefined
    if (stanza.name === 'message') {
      if (removed) return this.#tooLate(host, { stanza, from, to, session: undefined }, undefined)
      const next = isPast(host.get(to), stanza, to, of) ? to.bare : to
      return this.#message(host, { stanza, from, to: next, session: undefined })
    }
    if (stanza.name === 'iq')
      return this.bounce({ stanza, from, to, session: undefined }, new StanzaError('service-unavailable'))
    return undefined
  }

  // ---- by address ----

  #dispatch(e: StanzaEvent): Done {
    const host = this.#hosts.get(e.to.domain)
    if (host === undefined) return this.#remote(e)
    if (e.to.local === '') return this.#toHost(host, e)
    return this.#toAccount(host, e)
  }

  /** RFC 6120 §10.4: another domain, which somebody serves or nobody. */
  #remote(e: StanzaEvent): Done {
    if (this.domains.takerOf(e.to.domain) === undefined) return this.#notFound(e)
    const chain = this.#hosts.get(e.from.domain)?.chains.remoteOut
    if (chain === undefined) return this.#leave(e)
    return this.#leaving.pass(chain, e, this.#afterRemoteOut)
  }

  readonly #afterRemoteOut = (e: StanzaEvent, verdict: Verdict): Done =>
    verdict === undefined ? this.#leave(e) : this.#stopped(e, verdict, 'all')

  #leave(e: StanzaEvent): Done {
    const taker = this.domains.takerOf(e.to.domain)
    if (taker === undefined) return this.#notFound(e)
    try {
      return taker(e)?.catch((error: unknown) => this.#notTaken(e, error))
    } catch (error) {
      return this.#notTaken(e, error)
    }
  }

  /** §10.4.3 */
  #notFound(e: StanzaEvent): Done {
    return this.bounce(e, new StanzaError('remote-server-not-found'))
  }

  #notTaken(e: StanzaEvent, error: unknown): Done {
    if (error instanceof StanzaError) return this.bounce(e, error)
    this.#hosts.get(e.from.domain)?.log.error('a stanza for another domain failed', { err: error })
    return this.bounce(e, new StanzaError('internal-server-error'))
  }

  /** RFC 6120 §10.5.1, §10.5.2: the server itself. */
  #toHost(host: Host, e: StanzaEvent): Done {
    if (e.stanza.name === 'iq') return this.#iq(host, e)
    if (host.serving.length > 0) return this.#serve(host, e)
    // Presence to the server has no meaning here; probes and directed presence are not answered (RFC 6121 §4.3.2).
    if (e.stanza.name === 'presence') return undefined
    return this.bounce(e, new StanzaError('service-unavailable'))
  }

  async #serve(host: Host, e: StanzaEvent): Promise<void> {
    try {
      for (const serve of host.serving) await serve(e)
    } catch (error) {
      if (!(error instanceof StanzaError)) host.log.error('service failed', { err: error })
      await this.bounce(e, error instanceof StanzaError ? error : new StanzaError('internal-server-error'))
    }
  }

  /** RFC 6121 §8.5: an account, or one of its resources. */
  #toAccount(host: Host, e: StanzaEvent): Done {
    const chain = host.chains.accountIn
    const part = chain[e.stanza.name as StanzaName]
    const known = host.account(e.to.local)
    // The short way: somebody is there and nobody is waiting.
    if (known !== undefined && known.sessions.length > 0) {
      const { removals } = known
      return known.lane.pass(chain, part, e, (event, verdict) =>
        known.removals === removals
          ? this.#arrived(host, event, verdict)
          : this.#tooLate(host, event, verdict),
      )
    }
    return this.#toAbsent(host, host.hold(e.to.local), e)
  }

  /** No session: whether there is such an account decides what modules see (RFC 6121 §8.5.1). */
  #toAbsent(host: Host, account: Account, e: StanzaEvent): Done {
    const chain = host.chains.accountIn
    const { removals } = account
    const done = account.lane.pass(chain, chain[e.stanza.name as StanzaName], e, (event, verdict) =>
      account.removals === removals
        ? this.#arrived(host, event, verdict)
        : this.#tooLate(host, event, verdict),
    )
    if (done === undefined) {
      host.release(account)
      return undefined
    }
    return done.finally(() => host.release(account))
  }

  /** The account was removed meanwhile; another one of its name may be there (RFC 6121 §8.5.1). */
  #tooLate(host: Host, e: StanzaEvent, verdict: Verdict): Done {
    const missing = verdict ?? host.noAccount(e)
    if (!(missing instanceof Promise)) return this.#stopped(e, missing, 'sender')
    return missing.then((v) => this.#stopped(e, v, 'sender'))
  }

  /** The chain `account:in` is done. */
  #arrived(host: Host, e: StanzaEvent, verdict: Verdict): Done {
    if (verdict !== undefined) return this.#stopped(e, verdict, 'sender')
    switch (e.stanza.name) {
      case 'message':
        return this.#message(host, e)
      case 'presence':
        return this.#presence(host, e)
      default:
        return e.to.resource === '' ? this.#iq(host, e) : this.#iqToResource(host, e)
    }
  }

  // ---- message: RFC 6121 §8.5.2.1.1, §8.5.2.2.1, §8.5.3, table 1 ----

  #message(host: Host, e: StanzaEvent): Done {
    const type = e.stanza.attr('type')
    const takers = host.takers(e.to, type)
    if (takers.length > 0) return this.#deliverAll(host, takers, e)
    if (type === 'error' || (type === 'headline' && e.to.resource === '')) return undefined
    if (type === 'groupchat' || type === 'headline') return this.#unavailable(e)
    return this.#absent(host, e)
  }

  #unavailable(e: StanzaEvent): Done {
    return this.bounce(e, new StanzaError('service-unavailable'))
  }

  #deliverAll(host: Host, sessions: readonly Bound[], e: StanzaEvent): Done {
    const [only] = sessions
    if (only !== undefined && sessions.length === 1) return this.#deliver(host, only, e)
    let waiting: Promise<void>[] | undefined
    for (const session of sessions) {
      const done = this.#deliver(host, session, e)
      if (done !== undefined) (waiting ??= []).push(done)
    }
    return waiting === undefined ? undefined : Promise.all(waiting).then(() => undefined)
  }

  /** §8.5.2.2.1: nobody takes it now. Modules may keep it; otherwise the sender is told. */
  #absent(host: Host, e: StanzaEvent): Done {
    const chain = host.chains.accountOffline
    const verdict = chain.run(e, chain.message)
    return verdict instanceof Promise
      ? verdict.then((v) => this.#afterOffline(host, e, v))
      : this.#afterOffline(host, e, verdict)
  }

  #afterOffline(host: Host, e: StanzaEvent, verdict: Verdict): Done {
    if (verdict === undefined) return this.#unavailable(e)
    if ('bounce' in verdict) return this.bounce(e, verdict.bounce)
    const { accountStored } = host.chains
    return accountStored.runAfter(accountStored.message, e)
  }

  // ---- presence: RFC 6121 §8.5.2.1.2, §8.5.3 ----

  #presence(host: Host, e: StanzaEvent): Done {
    const type = e.stanza.attr('type')
    // Subscriptions and probes have their modules (§3, §4.3); what they left is ignored.
    if (type !== undefined && type !== 'unavailable' && type !== 'error') return undefined
    if (e.to.resource !== '') {
      const session = host.get(e.to)
      return session === undefined ? undefined : this.#deliver(host, session, e)
    }
    const available = host.of(e.to.local).filter((session) => session.priority !== undefined)
    return this.#deliverAll(host, available, e)
  }

  // ---- iq: RFC 6120 §8.2.3, §10.3.3, RFC 6121 §8.5.2.1.3, §8.5.3 ----

  /** Addressed to the server, or to an account on whose behalf it answers. */
  #iq(host: Host, e: StanzaEvent): Done {
    try {
      const { type, payload } = checkIq(e.stanza)
      if (type === 'result' || type === 'error' || payload === undefined) {
        host.requests.settle(e.from, e.to, e.stanza)
        return undefined // an answer to nothing of ours is ignored (§10.3.3)
      }
      const handle = host.iq.find(e.to, e.from, type, payload)
      const iq = new Request(e, type, payload)
      try {
        const result = handle(iq)
        if (!(result instanceof Promise)) return this.#answer(e, iq, result)
        return inTime(result, host).then(
          (payloadOut) => this.#answer(e, iq, payloadOut),
          (error: unknown) => this.bounce(e, refusal(error, host.log, iq)),
        )
      } catch (error) {
        return this.bounce(e, refusal(error, host.log, iq))
      }
    } catch (error) {
      return this.bounce(e, error instanceof StanzaError ? error : new StanzaError('internal-server-error'))
    }
  }

  #answer(e: StanzaEvent, iq: Request, payload: Element | undefined | void): Done {
    const done = this.#back(e, reply(e.stanza, payload ?? undefined))
    iq.answered()
    return done
  }

  #iqToResource(host: Host, e: StanzaEvent): Done {
    const session = host.get(e.to)
    if (session !== undefined) return this.#deliver(host, session, e)
    // RFC 6121 §8.5.3.2.3; an answer to somebody who has left is dropped
    return this.#unavailable(e)
  }

  // ---- delivery and answers ----

  #deliver(host: Host, session: Bound, e: StanzaEvent): Done {
    return (session as ClientSession).deliver(host, e) // the table holds nothing else
  }

  /** `told`: whose host is told of it, since it let the stanza pass. */
  #stopped(e: StanzaEvent, verdict: Verdict, told?: 'sender' | 'all'): Done {
    return verdict !== undefined && 'bounce' in verdict ? this.#sendBack(e, verdict.bounce, told) : undefined
  }

  /** Answers a stanza that was on its way with an error, unless that is forbidden (RFC 6120 §8.3.1). */
  bounce(e: StanzaEvent, error: StanzaError): Done {
    return this.#sendBack(e, error, 'all')
  }

  #sendBack(e: StanzaEvent, error: StanzaError, told: 'sender' | 'all' | undefined): Done {
    if (told !== undefined) tellBounced(this.#hosts, e, told)
    const answer = errorReply(withoutArchiveId(e), error)
    return answer === undefined ? undefined : this.#back(e, answer)
  }

  /** Sends an answer to where the stanza came from. */
  #back(e: StanzaEvent, answer: Element): Done {
    const host = this.#hosts.get(e.from.domain)
    if (host === undefined)
      return this.#backOut({ stanza: answer, from: e.to, to: e.from, session: undefined })
    const session = e.from.resource === '' ? undefined : (e.session ?? host.get(e.from))
    if (session !== undefined) {
      return this.#deliver(host, session, { stanza: answer, from: e.to, to: e.from, session })
    }
    // Our own request, or a stanza that a module sent in the name of the host or of an account.
    if (answer.name === 'iq') host.requests.settle(e.to, e.from, answer)
    else if (answer.name === 'presence' && e.from.local !== '')
      return this.#dispatch({ stanza: answer, from: e.to, to: e.from, session: undefined })
    return undefined
  }

  /** To another domain; where nobody serves it now, an answer is lost like any that cannot be delivered. */
  #backOut(answer: StanzaEvent): Done {
    return this.domains.takerOf(answer.to.domain) === undefined ? undefined : this.#remote(answer)
  }

  /** A stanza that failed before it had addresses. */
  #answerError(stanza: Element, session: BoundClient, error: unknown): Done {
    if (error instanceof JidError) error = new StanzaError('jid-malformed', { text: error.message }) // §8.3.3.8
    if (!(error instanceof StanzaError)) throw error
    const answer = errorReply(stanza, error)
    // §8.3.3.8: the address in error is not repeated as ours
    if (answer !== undefined) session.send(answer.withAttrs({ from: undefined }))
    return undefined
  }
}

/** A handler that does not answer must not hold what its sender sends next. */
async function inTime<T>(result: Promise<T>, host: Host): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>()
  using _timer = host.env.clock.after(HANDLER_TIMEOUT_MS, () => reject(new Error('handler timed out')))
  return await Promise.race([result, late])
}
