/** One domain that components serve: who is connected, and which of them gets what (XEP-0114 1.6 §3). */
import { randomInt, randomUUID } from 'node:crypto'
import {
  type Ctx,
  OperatorError,
  type PeerStream,
  type StanzaEvent,
  type TakenDomain,
} from '../../server/module.ts'
import { type Element, el } from '../../server/xmpp/element.ts'
import { StanzaError, StreamError } from '../../server/xmpp/errors.ts'
import { JidError, parseJid, tryJid } from '../../server/xmpp/jid.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { errorReply } from '../../server/xmpp/stanza.ts'

/** What happens when a component of the same domain is connected already. */
export type Conflict = 'refuse' | 'replace' | 'share'

/** Settings of one domain. */
export interface ComponentSettings {
  readonly secret: string
  readonly conflict: Conflict
  readonly signOfLifeMs: number
}

interface Connection {
  readonly stream: PeerStream
  /** Decides, together with the sender's address, who gets what. */
  readonly salt: number
  /** A sign of life is waited for. */
  asked: boolean
}

/** So that its square is exact as a number. */
const PRIME = 67_108_859

/** One domain, served by whoever is connected. */
export class Component {
  readonly domain: string
  #settings: ComponentSettings
  readonly #ctx: Ctx
  readonly #taken: TakenDomain
  readonly #returned: () => void
  readonly #connections: Connection[] = []
  readonly #returning = new Set<Promise<void>>()
  #over = false

  /** Takes the domain, which is free. `returned` is called for each stanza that nobody takes. */
  constructor(ctx: Ctx, domain: string, settings: ComponentSettings, returned: () => void) {
    this.domain = domain
    this.#ctx = ctx
    this.#settings = settings
    this.#returned = returned
    this.#taken = ctx.domains.take(domain, (e) => this.#take(e))
  }

  get secret(): string {
    return this.#settings.secret
  }

  /** How many are connected. */
  get connections(): number {
    return this.#connections.length
  }

  /** Whether this stream has proved to be a component of this domain. */
  has(stream: PeerStream): boolean {
    return this.#connections.some((one) => one.stream === stream)
  }

  /** Other settings from now on. Whoever has proved another secret has to come again. */
  change(settings: ComponentSettings): void {
    const old = this.#settings
    this.#settings = settings
    if (old.secret !== settings.secret) this.#closeAll('reset') // RFC 6120 §4.9.3.16
  }

  /** The domain is served no more. */
  end(condition: 'host-gone'): void {
    this.#over = true
    this.#closeAll(condition)
    this.#taken[Symbol.dispose]()
  }

  #closeAll(condition: 'reset' | 'host-gone'): void {
    for (const { stream } of this.#connections.slice()) stream.close(condition)
  }

  // ---- who is connected ----

  /** Whether one more may connect now. The one that stands in the way is asked whether it is still alive. */
  mayJoin(newcomer: PeerStream): boolean {
    if (this.#over) return false
    if (this.#settings.conflict !== 'refuse' || this.#connections.length === 0) return true
    for (const one of this.#connections) if (!one.asked) this.#askForLife(one, newcomer)
    return false
  }

  /** A machine that has crashed leaves a connection that looks open for many minutes. */
  #askForLife(one: Connection, newcomer: PeerStream): void {
    const { stream } = one
    const asked = this.#ctx.now()
    const heard = stream.lastReceivedAt
    one.asked = true
    const from = this.#ctx.hosts[0]
    const ping = el('ping', 'urn:xmpp:ping')
    stream.send(el('iq', NS.CLIENT, { type: 'get', id: randomUUID(), from, to: this.domain }, ping))
    this.#ctx.timers.after(this.#settings.signOfLifeMs, () => {
      one.asked = false
      // one that answers within the millisecond is alive, and the clock may have gone back
      if (!stream.open || stream.lastReceivedAt !== heard || heard >= asked) return
      this.#ctx.log.warn('component gives no sign of life', {
        component: this.domain,
        newcomer: newcomer.remoteAddress,
      })
      stream.close('connection-timeout')
    })
  }

  /** A stream whose handshake was right. */
  join(stream: PeerStream): void {
    const older = this.#settings.conflict === 'share' ? [] : this.#connections.slice()
    this.#connections.push({ stream, salt: randomInt(1, PRIME), asked: false })
    this.#taken.setListed(true)
    for (const one of older) one.stream.close('conflict') // RFC 6120 §4.9.3.3
  }

  /** A stream is over; what it was not sent goes to another one or back. False: it had not joined. */
  left(stream: PeerStream, unsent: Iterable<Element>): boolean {
    const at = this.#connections.findIndex((one) => one.stream === stream)
    if (at < 0) return false
    this.#connections.splice(at, 1)
    if (this.#connections.length === 0) this.#taken.setListed(false)
    if (this.#connections.length > 0) {
      // at once, so that nothing newer is there before it
      for (const stanza of unsent) {
        const sender = tryJid(stanza.attr('from') ?? '')?.bare.toString() ?? ''
        if (this.#choose(sender)?.send(stanza) !== true) this.#return(stanza)
      }
    } else this.#returnAll(unsent)
    return true
  }

  /** Resolves when all that has to go back to its sender is on its way. */
  async settled(): Promise<void> {
    await Promise.all(this.#returning)
  }

  /** In slices: it may be much. */
  #returnAll(stanzas: Iterable<Element>): void {
    const done = this.#ctx
      .inSlices(stanzas, (stanza) => this.#return(stanza))
      .finally(() => this.#returning.delete(done))
    this.#returning.add(done)
    done.catch((error: unknown) => this.#ctx.log.error('stanzas could not be returned', { err: error }))
  }

  // ---- stanzas ----

  /** For the component. Throws StanzaError when none is connected. */
  #take(e: StanzaEvent): void {
    if (this.#choose(e.from.bare.toString())?.send(e.stanza) === true) return
    this.#returned()
    throw unavailable()
  }

  /** One of those connected, the same for the same sender as long as possible (rendezvous hashing). */
  #choose(sender: string): PeerStream | undefined {
    const [first] = this.#connections
    if (this.#connections.length < 2) return first?.stream
    let hash = 1
    for (let i = 0; i < sender.length; i++) hash = (hash * 31 + sender.charCodeAt(i)) % PRIME
    let best: Connection | undefined
    let most = -1
    for (const one of this.#connections) {
      const weight = (hash * one.salt) % PRIME
      if (weight > most) [best, most] = [one, weight]
    }
    return best?.stream
  }

  /** What a component that is gone was not sent goes back. */
  #return(stanza: Element): void {
    this.#returned()
    const answer = errorReply(stanza, unavailable())
    if (answer === undefined) return
    this.#ctx.send(answer).catch((error: unknown) => {
      this.#ctx.log.warn('a stanza could not be returned', { component: this.domain, err: error })
    })
  }

  /** From the component. §3: any address at its domain, and none elsewhere. Throws StreamError. */
  received(stanza: Element): void | Promise<void> {
    const text = stanza.attr('from')
    // RFC 6120 §8.1.1.2, §8.1.2.2, §4.9.3.7
    if (text === undefined || stanza.attr('to') === undefined) throw new StreamError('improper-addressing')
    try {
      if (parseJid(text).domain !== this.domain) throw new StreamError('invalid-from') // §4.9.3.9
      return this.#ctx.domains.receive(stanza)
    } catch (error) {
      if (error instanceof JidError) throw new StreamError('improper-addressing', error.message)
      throw error
    }
  }
}

/** RFC 6120 §8.3.3.17: the domain is known, and nobody can be reached there now; worth another try. */
const unavailable = (): StanzaError =>
  new StanzaError('remote-server-timeout', { text: 'the component is not connected' })

/** Throws OperatorError when somebody else serves the domain. */
export function checkFree(ctx: Ctx, domain: string): void {
  const other = ctx.domains.servedBy(domain)
  if (other === undefined) return
  const who = other === 'host' ? 'a virtual host' : 'served by another module'
  throw new OperatorError(`component ${domain}: this domain is ${who}`)
}
