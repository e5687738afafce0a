/**
 * A device as a good client is: stream management with resumption (XEP-0198), carbons, and the archive from the last message it knows on.
 * It sends what was not acknowledged again with the same origin-id, whatever happened to its connection, and what came back with an error.
 * A simple one knows neither carbons nor archives; a reader does nothing but read its archive.
 */
import type { Element } from '../helpers/xml.ts'
import type { Doubt } from './faults.ts'
import { Outbox } from './outbox.ts'
import type { Arrival, DeviceLog, Message } from './ledger.ts'
import { Link, type Ports } from './link.ts'
import { type Credentials, login, Refused, Stopping, type Way, type Welcome } from './login.ts'
import * as text from './texts.ts'

const RETRY_MS = 40
/** When the store has failed: time until presence is sent again that was not answered. */
const PRESENCE_MS = 2000
/** Time in which the server puts away what a session that is over did not confirm. */
const PUT_AWAY_MS = 1000

/** All devices of one run share it. */
export interface World {
  readonly domain: string
  readonly password: string
  /** Where the server is; undefined while there is none. */
  ports(): Ports | undefined
  /** The store fails, or has failed since the server was started: errors are to be expected. */
  faulty(): boolean
  /** What that may leave behind. */
  doubt(): Doubt
  note(line: string): void
  /** The server has answered with an error, which it must not unless its store fails. */
  failed(line: string): void
  trace(line: string): void
  readonly counts: Record<
    'resumed' | 'fresh' | 'resent' | 'bounced' | 'tokens' | 'doubtful' | 'shaken',
    number
  >
}

/** What a device is. */
export type Sort = 'full' | 'simple' | 'reader'

/** One device of one account. */
export class Device implements DeviceLog {
  readonly name: string
  readonly account: string
  readonly sort: Sort
  readonly sessions: Arrival[][] = []
  /** Of a simple one: see DeviceLog. */
  excused = 0
  /** Its full address now. */
  jid: string
  /** It is to stay away. */
  away = false
  readonly #who: Credentials
  readonly #world: World
  readonly #outbox: Outbox
  #link: Link | undefined
  /** The server may still have a session of it. */
  #lingers = false
  #online = false
  #stopped = true
  #received = 0
  #id: string | undefined
  #queries = 0
  /** Up to here it has everything. */
  #synced: string | undefined
  #newestLive: string | undefined
  #available = false
  /** When presence was sent; see performance.now(). */
  #told = 0
  #catchingUp = ''
  readonly #wakers = new Set<() => void>()

  constructor(world: World, account: string, resource: string, way: Way, sort: Sort = 'full') {
    this.#world = world
    this.account = account
    this.sort = sort
    this.name = `${account}/${resource}`
    this.jid = `${account}@${world.domain}/${resource}`
    const agent = crypto.randomUUID()
    this.#who = { way, account, password: world.password, resource, agent, token: undefined }
    this.#outbox = new Outbox(world, this.name, (xml) => this.#write(xml))
  }

  get simple(): boolean {
    return this.sort === 'simple'
  }
  get online(): boolean {
    return this.#online
  }
  /** Connected, knows all that was in the archive when it came, and all it sent was handled. */
  get settled(): boolean {
    return (
      this.#online &&
      (this.#available || this.sort === 'reader') &&
      this.#catchingUp === '' &&
      !this.#outbox.messagesOpen
    )
  }
  /** Stanzas that were not acknowledged. */
  get unconfirmed(): number {
    return this.#outbox.open
  }
  /** A process that is killed now may have something for it that nobody else sends. */
  get attached(): boolean {
    return this.#link !== undefined || this.#lingers
  }

  /** Resolves when `test` holds, which is asked whenever something happens here. */
  async until(test: () => boolean, ms: number): Promise<boolean> {
    if (test()) return true
    return new Promise((resolve) => {
      const done = (result: boolean): void => {
        clearTimeout(timer)
        this.#wakers.delete(check)
        resolve(result)
      }
      const check = (): void => {
        if (test()) done(true)
      }
      const timer = setTimeout(done, ms, false)
      this.#wakers.add(check)
    })
  }

  // ---- sending

  send(message: Message, to: string): void {
    // RFC 6120 §10.3: to name nobody means the own account
    const nobody = to === `${this.account}@${this.#world.domain}` && message.n % 2 === 0
    this.#outbox.message(message, text.message(message, nobody ? undefined : to))
  }

  /** Asks the server how much it has handled; and again for what failed. */
  request(): void {
    if (!this.#online) return
    this.#outbox.ask()
    const now = performance.now()
    if (this.#available || this.sort === 'reader' || !this.#world.faulty() || now - this.#told < PRESENCE_MS)
      return
    this.#told = now
    this.#outbox.other('<presence/>')
  }

  #write(xml: string): boolean {
    if (!this.#online) return false
    this.#link?.write(xml)
    return true
  }

  // ---- connections

  /** Keeps connected until told to stop; tries again while there is no server. */
  connect(): void {
    this.#stopped = false
    this.away = false
    this.#try()
  }

  /** The next session is a new one. */
  forget(): void {
    this.#id = undefined
  }

  #try(): void {
    if (this.#stopped || this.away || this.#link !== undefined) return
    const ports = this.#world.ports()
    if (ports === undefined) return this.#later(RETRY_MS)
    const trace = (line: string): void => this.#world.trace(`${this.name} ${line}`)
    const link = new Link(ports, this.#world.domain, this.#who.way !== 'classic', trace)
    this.#link = link
    link.onElement = (element) => this.#element(element)
    link.onEnd = () => this.#lost(link)
    this.#login(link).catch((error: unknown) => {
      const line = `login of ${this.name}: ${String(error)}`
      if (error instanceof Refused) this.#world.failed(line)
      else if (!link.over && !(error instanceof Stopping)) this.#world.note(line)
      link.cut()
    })
  }

  #lost(link: Link): void {
    if (this.#link !== link) return
    this.#link = undefined
    this.#online = false
    this.#wake()
    this.#later(RETRY_MS)
  }

  #later(ms: number): void {
    if (Number.isFinite(ms)) setTimeout(() => this.#try(), ms)
  }

  /** Breaks the connection, which comes back after `ms`. */
  break(how: 'cut' | 'torn' | 'half-open' | 'close', ms: number): void {
    const link = this.#link
    if (link === undefined || !this.#online) return
    this.#link = undefined
    this.#online = false
    link.onElement = () => undefined
    if (how === 'cut') link.cut()
    else if (how === 'half-open') link.freeze(1000 + (Number.isFinite(ms) ? ms : 0))
    else if (how === 'torn') {
      // Not the whole of it: what was sent so far is no stanza.
      const last = this.#outbox.newest ?? '<presence><status>away</status></presence>'
      link.cut(last.slice(0, 1 + Math.floor(last.length / 2)))
    } else {
      this.#id = undefined // it said goodbye
      const sessions = this.sessions.length
      link.onClosed = () => {
        // When it is the end of the server that closes it, the goodbye may not have been read.
        if (this.#world.ports() !== undefined) setTimeout(() => this.#gone(sessions), PUT_AWAY_MS)
      }
      link.close()
    }
    this.#later(ms)
  }

  /** It has said goodbye as the last of so many sessions, and the server had the time to put away what was not confirmed, if its store works. */
  #gone(sessions: number): void {
    if (this.sessions.length === sessions && !this.#world.faulty()) this.#lingers = false
  }

  /** The process of the server is gone, and with it all sessions. `sent`: so many messages were sent before. */
  serverEnded(killed: boolean, doubt: Doubt, sent: number): void {
    const lost = killed || doubt !== 'nothing'
    if (lost && this.simple && this.attached) this.excused = sent
    this.#lingers = false
    this.#outbox.serverEnded(doubt)
  }

  stop(): void {
    this.#stopped = true
    const link = this.#link
    this.#link = undefined
    this.#online = false
    this.#id = undefined
    if (link === undefined) return
    link.onElement = () => undefined
    link.close()
  }

  async #login(link: Link): Promise<void> {
    const former = this.#id === undefined ? undefined : { id: this.#id, h: this.#received }
    if (this.#who.token !== undefined) this.#world.counts.tokens++
    const welcome = await login(link, this.#who, former)
    if (welcome.h !== undefined) this.#outbox.confirm(welcome.h)
    if (welcome.resumed) this.#world.counts.resumed++
    else this.#begin(welcome)
    this.#online = true
    this.#outbox.again()
    link.ready()
    this.#outbox.ask()
    if (!welcome.resumed) this.#start()
    this.#wake()
  }

  /** A new session. */
  #begin(welcome: Welcome): void {
    this.sessions.push([])
    this.#lingers = true
    this.jid = welcome.jid
    this.#id = welcome.id
    this.#newestLive = undefined
    this.#available = false
    this.#catchingUp = this.simple ? '' : 'soon'
    this.#received = 0
    this.#world.counts.fresh++
    this.#outbox.newSession(welcome.h !== undefined)
    for (const message of welcome.early) this.#message(message)
  }

  #start(): void {
    if (this.sort === 'full') {
      if (this.#who.way === 'classic') this.#outbox.other(text.carbons)
      // Says that it reads the archive, so that nothing stored comes by itself; the pages come when it is available.
      this.#outbox.other(text.query('first', undefined, 0))
    }
    if (this.sort !== 'reader') this.#outbox.other('<presence/>')
    this.#told = performance.now()
    this.catchUp()
  }

  // ---- the archive

  /** Asks for what is new in the archive. */
  catchUp(): void {
    this.#catchingUp = `${this.name} ${++this.#queries}`
    if (this.simple) this.#outbox.other(text.ping(this.#catchingUp, this.#world.domain))
    else this.#outbox.other(text.query(this.#catchingUp, this.#synced))
  }

  #answer(iq: Element): void {
    const { type, id } = iq.attrs
    if (type === 'error') {
      this.#world.failed(`an error for ${this.name}: ${iq.toString()}`)
      const session = this.sessions.length
      setTimeout(() => {
        if (this.sessions.length !== session || this.#stopped) return
        if (id === 'carbons') this.#outbox.other(text.carbons)
        else if (id === 'first') this.#outbox.other(text.query('first', undefined, 0))
        else if (id === this.#catchingUp) this.catchUp()
      }, 200)
    } else if (id === this.#catchingUp && id !== '') {
      const { last, complete } = this.simple ? { last: undefined, complete: true } : text.page(iq)
      this.#synced = last ?? this.#synced
      if (!complete) return this.catchUp()
      this.#synced = this.#newestLive ?? this.#synced
      this.#catchingUp = ''
    }
  }

  // ---- what comes

  #element(element: Element): void {
    if (element.getNS() === text.NS_SM) {
      if (element.name === 'r') this.#link?.write(`<a xmlns='${text.NS_SM}' h='${this.#received}'/>`)
      else if (element.name === 'a') this.#outbox.confirm(Number(element.attrs['h']))
    } else if (['message', 'iq', 'presence'].includes(element.name)) {
      this.#received = (this.#received + 1) % 2 ** 32
      if (element.name === 'message') this.#message(element)
      else if (element.name === 'iq') this.#iq(element)
      else if (element.attrs['from'] === this.jid && element.attrs['type'] === undefined)
        this.#available = true // RFC 6121 §4.2.2
    }
    this.#wake()
  }

  #iq(iq: Element): void {
    if (iq.attrs['type'] === 'get') this.#outbox.other(text.result(iq))
    else this.#answer(iq)
  }

  #message(message: Element): void {
    const own = [`${this.account}@${this.#world.domain}`, undefined].includes(message.attrs['from'])
    const found = own ? text.fromArchive(message) : undefined
    if (found !== undefined) {
      if (found.query === this.#catchingUp) this.#note(found.message, found.id, false)
      return
    }
    const copy = own ? text.carbonOf(message) : undefined
    const inner = copy ?? message
    if (inner.attrs['type'] === 'error') {
      if (copy === undefined) this.#outbox.bounced(text.numberOf(inner) ?? 0, inner.toString())
      return
    }
    this.#note(inner, text.idBy(inner, `${this.account}@${this.#world.domain}`), true)
  }

  #note(message: Element | undefined, id: string, live: boolean): void {
    const n = text.numberOf(message)
    if (n === undefined) return
    this.sessions.at(-1)?.push({ n, id, live, covered: this.#available })
    if (!live || id === '') return
    this.#newestLive = id
    if (this.#catchingUp === '') this.#synced = id
  }

  #wake(): void {
    for (const check of this.#wakers) check()
  }
}
