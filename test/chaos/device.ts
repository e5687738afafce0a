/**
 * A device as a good client is: stream management with resumption (XEP-0198), carbons, and the archive from the last message it knows on.
 * It sends what was not acknowledged again with the same origin-id, whatever happened to its connection.
 */
import { escapeXML } from 'ltx'
import type { Element } from '../helpers/xml.ts'
import type { Arrival, DeviceLog, Message } from './ledger.ts'
import { Link, type Ports } from './link.ts'

const NS_SM = 'urn:xmpp:sm:3'
const NS_CARBONS = 'urn:xmpp:carbons:2'
const NS_MAM = 'urn:xmpp:mam:2'
const NS_FORWARD = 'urn:xmpp:forward:0'
const NS_SID = 'urn:xmpp:sid:0'
const NS_RSM = 'http://jabber.org/protocol/rsm'
const PAGE = 20
/** Messages after which the device asks the server how far it is. */
const ASK_EVERY = 4
const RETRY_MS = 50

/** All devices of one run share it. */
export interface World {
  readonly domain: string
  readonly password: string
  /** Where the server is; undefined while there is none. */
  ports(): Ports | undefined
  note(text: string): void
  readonly counts: { resumed: number; fresh: number; resent: number; bounced: number }
}

/** A stanza of ours that the server has not acknowledged. */
interface Unconfirmed {
  readonly xml: string
  readonly message: boolean
}

/** One device of one account. */
export class Device implements DeviceLog {
  readonly name: string
  readonly account: string
  readonly jid: string
  readonly sessions: Arrival[][] = []
  readonly #resource: string
  readonly #world: World
  readonly #tls: boolean
  #link: Link | undefined
  #online = false
  #stopped = false
  /** Sent in this session, or to be sent in the next, oldest first. */
  #unconfirmed: Unconfirmed[] = []
  #confirmed = 0
  #received = 0
  #id: string | undefined
  #sinceAsked = 0
  #queries = 0
  /** Up to here it has everything. */
  #synced: string | undefined
  #newestLive: string | undefined
  #available = false
  #catchingUp = ''
  readonly #wakers = new Set<() => void>()

  constructor(world: World, account: string, resource: string, tls: boolean) {
    this.#world = world
    this.account = account
    this.#resource = resource
    this.name = `${account}/${resource}`
    this.jid = `${account}@${world.domain}/${resource}`
    this.#tls = tls
  }

  /** Connected, and knows all that was in the archive when it came. */
  get settled(): boolean {
    return this.#online && this.#catchingUp === '' && !this.#unconfirmed.some((stanza) => stanza.message)
  }
  /** Stanzas that were not acknowledged. */
  get unconfirmed(): number {
    return this.#unconfirmed.length
  }
  get online(): boolean {
    return this.#online
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

  send({ n }: Message, to: string): void {
    const id = `chaos-${n}`
    this.#push(
      `<message type='chat' to='${escapeXML(to)}' id='${id}'><body>${n}</body><origin-id xmlns='${NS_SID}' id='${id}'/></message>`,
      true,
    )
  }

  /** Asks the server how much it has handled. */
  request(): void {
    if (this.#online) this.#link?.write(`<r xmlns='${NS_SM}'/>`)
  }

  #push(xml: string, message: boolean): void {
    this.#unconfirmed.push({ xml, message })
    if (!this.#online) return
    this.#link?.write(xml)
    if (++this.#sinceAsked >= ASK_EVERY) {
      this.#sinceAsked = 0
      this.request()
    }
  }

  #confirm(h: number): void {
    const count = h - this.#confirmed
    if (count < 0 || count > this.#unconfirmed.length)
      this.#world.note(
        `wrong h: ${this.name} was told ${h}, had ${this.#confirmed} and ${this.#unconfirmed.length} more`,
      )
    this.#unconfirmed.splice(0, count)
    this.#confirmed = h
  }

  // ---- connections

  /** Keeps connected until told to stop; tries again while there is no server. */
  connect(): void {
    this.#stopped = false
    this.#try()
  }

  #try(): void {
    if (this.#stopped || this.#link !== undefined) return
    const ports = this.#world.ports()
    if (ports === undefined) return this.#later(RETRY_MS)
    const link = new Link(ports, this.#world.domain, this.#tls)
    this.#link = link
    link.onElement = (element) => this.#element(element)
    link.onEnd = () => this.#lost(link)
    this.#login(link).catch((error: unknown) => {
      if (!link.over && error instanceof Error) this.#world.note(`login of ${this.name}: ${error.message}`)
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
    setTimeout(() => this.#try(), ms)
  }

  /** Breaks the connection, which comes back after `ms`. */
  break(how: 'cut' | 'torn' | 'half-open' | 'close', ms: number): void {
    const link = this.#link
    if (link === undefined || !this.#online) return
    this.#link = undefined
    this.#online = false
    link.onElement = () => undefined
    if (how === 'cut') link.cut()
    else if (how === 'half-open') link.freeze(ms + 3000)
    else if (how === 'torn') {
      // Not the whole of it: what was sent so far is no stanza.
      const last = this.#unconfirmed.at(-1)?.xml ?? '<presence><status>away</status></presence>'
      link.cut(last.slice(0, 1 + Math.floor(last.length / 2)))
    } else {
      this.#id = undefined // it said goodbye
      link.close()
    }
    this.#later(ms)
  }

  stop(): void {
    this.#stopped = true
    const link = this.#link
    this.#link = undefined
    this.#online = false
    if (link === undefined) return
    link.onElement = () => undefined
    link.close()
  }

  async #login(link: Link): Promise<void> {
    const { password } = this.#world
    await link.header()
    const auth = Buffer.from(`\0${this.account}\0${password}`).toString('base64')
    await expectName(
      link.ask(`<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>${auth}</auth>`),
      'success',
    )
    await link.header()
    if (this.#id !== undefined && (await this.#resume(link, this.#id))) return
    await this.#bind(link)
  }

  async #resume(link: Link, id: string): Promise<boolean> {
    const answer = await link.ask(`<resume xmlns='${NS_SM}' previd='${id}' h='${this.#received}'/>`)
    const h = answer.attrs['h']
    if (h !== undefined) this.#confirm(Number(h))
    if (answer.name === 'failed') {
      this.#id = undefined
      return false
    }
    if (answer.name !== 'resumed') throw new Error(`<${answer.name}/> in answer to resume`)
    this.#world.counts.resumed++
    this.#up(link)
    return true
  }

  async #bind(link: Link): Promise<void> {
    const iq = `<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>${this.#resource}</resource></bind></iq>`
    const bound = await expectName(link.ask(iq), 'iq')
    if (bound.attrs['type'] !== 'result') throw new Error(`not bound: ${bound.toString()}`)
    this.sessions.push([])
    this.#newestLive = undefined
    this.#available = false
    this.#catchingUp = 'soon'
    this.#unconfirmed = this.#unconfirmed.filter((stanza) => stanza.message)
    this.#confirmed = 0
    this.#world.counts.fresh++
    let enabled = await link.ask(`<enable xmlns='${NS_SM}' resume='true'/>`)
    // What is for exactly this resource may come before; it is not counted.
    for (; enabled.name === 'message'; enabled = await link.next()) this.#message(enabled)
    if (enabled.name !== 'enabled') throw new Error(`not enabled: ${enabled.toString()}`)
    this.#id = enabled.attrs['id']
    this.#received = 0
    this.#up(link)
    this.#push(`<iq type='set' id='carbons'><enable xmlns='${NS_CARBONS}'/></iq>`, false)
    // Says that it reads the archive, so that nothing stored comes by itself; the pages come when it is available.
    this.#push(query('first', `<max>0</max>`), false)
    this.#push('<presence/>', false)
    this.catchUp()
  }

  #up(link: Link): void {
    this.#online = true
    for (const { xml } of this.#unconfirmed) link.write(xml)
    this.#world.counts.resent += this.#unconfirmed.filter((stanza) => stanza.message).length
    link.ready()
    this.request()
    this.#wake()
  }

  // ---- the archive

  /** Asks for what is new in the archive. */
  catchUp(): void {
    this.#catchingUp = `${this.name} ${++this.#queries}`
    this.#page()
  }

  #page(): void {
    const after = this.#synced === undefined ? '' : `<after>${escapeXML(this.#synced)}</after>`
    this.#push(query(this.#catchingUp, `<max>${PAGE}</max>${after}`), false)
  }

  #fin(iq: Element): void {
    const fin = iq.getChild('fin', NS_MAM)
    if (iq.attrs['type'] !== 'result' || fin === undefined) {
      this.#world.note(`archive: ${this.name} got ${iq.toString()}`)
      this.#catchingUp = ''
      return
    }
    const last = fin.getChild('set', NS_RSM)?.getChildText('last', NS_RSM)
    this.#synced = last ?? this.#synced
    if (fin.attrs['complete'] !== 'true') return this.#page()
    this.#synced = this.#newestLive ?? this.#synced
    this.#catchingUp = ''
  }

  // ---- what comes

  #element(element: Element): void {
    if (element.getNS() === NS_SM) this.#management(element)
    else if (['message', 'iq', 'presence'].includes(element.name)) {
      this.#received = (this.#received + 1) % 2 ** 32
      if (element.name === 'message') this.#message(element)
      else if (element.name === 'iq') this.#iq(element)
      else if (element.attrs['from'] === this.jid) this.#available = true // RFC 6121 §4.2.2
    }
    this.#wake()
  }

  #management(element: Element): void {
    if (element.name === 'r') this.#link?.write(`<a xmlns='${NS_SM}' h='${this.#received}'/>`)
    else if (element.name === 'a') this.#confirm(Number(element.attrs['h']))
  }

  #iq(iq: Element): void {
    if (iq.attrs['id'] === this.#catchingUp && this.#catchingUp !== '') this.#fin(iq)
    else if (iq.attrs['type'] === 'get')
      this.#push(
        `<iq type='result' id='${escapeXML(iq.attrs['id'] ?? '')}' to='${escapeXML(iq.attrs['from'] ?? '')}'/>`,
        false,
      )
  }

  #message(message: Element): void {
    const own = [`${this.account}@${this.#world.domain}`, undefined].includes(message.attrs['from'])
    const result = message.getChild('result', NS_MAM)
    if (own && result !== undefined) {
      if (result.attrs['queryid'] === this.#catchingUp)
        this.#note(forwarded(result), result.attrs['id'] ?? '', false)
      return
    }
    const copy = message.getChild('sent', NS_CARBONS) ?? message.getChild('received', NS_CARBONS)
    const inner = own && copy !== undefined ? forwarded(copy) : message
    if (inner?.attrs['type'] === 'error') {
      this.#world.counts.bounced++
      this.#world.note(`bounced: ${inner.toString()}`)
      return
    }
    const by = `${this.account}@${this.#world.domain}`
    const ids = inner?.getChildren('stanza-id', NS_SID).filter((id) => id.attrs['by'] === by) ?? []
    this.#note(inner, ids[0]?.attrs['id'] ?? '', true)
  }

  #note(message: Element | undefined, id: string, live: boolean): void {
    const n = Number(message?.getChild('body', 'jabber:client')?.getText() ?? Number.NaN)
    if (Number.isNaN(n)) return
    this.sessions.at(-1)?.push({ n, id, live, covered: this.#available })
    if (!live || id === '') return
    this.#newestLive = id
    if (this.#catchingUp === '') this.#synced = id
  }

  #wake(): void {
    for (const check of this.#wakers) check()
  }
}

function query(id: string, set: string): string {
  return `<iq type='set' id='${id}'><query xmlns='${NS_MAM}' queryid='${id}'><set xmlns='${NS_RSM}'>${set}</set></query></iq>`
}

function forwarded(wrapper: Element): Element | undefined {
  return wrapper.getChild('forwarded', NS_FORWARD)?.getChild('message', 'jabber:client')
}

async function expectName(answer: Promise<Element>, name: string): Promise<Element> {
  const element = await answer
  if (element.name !== name) throw new Error(`<${element.name}/> came, not <${name}/>: ${element.toString()}`)
  return element
}
