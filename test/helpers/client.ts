/**
 * A scripted XMPP client for tests: a connection (connection.ts) with the steps of a dialogue: open a stream, log in, expect elements
 * that match patterns, and prove by a round trip, not by waiting, that nothing came.
 */
import { escapeXML } from 'ltx'
import { type Address, Connection, describe, type Incoming, type Via } from './connection.ts'
import { Scram, type ScramOverrides } from './scram.ts'
import { countSent, type StreamCounts } from './stream-counts.ts'
import {
  type Captures,
  type Element,
  matchElement,
  NS_BIND,
  NS_FRAMING,
  NS_SASL,
  NS_STREAM,
  NS_TLS,
  parsePattern,
} from './xml.ts'
import type { ConnectionOptions } from 'node:tls'

/** One client. Steps throw an Error with the dialogue's last lines when they do not go as said. */
export class Client extends Connection {
  /** The address given by resource binding. */
  jid = ''
  /** The features the server offered last. */
  features: Element | undefined
  /** The SCRAM exchange under way. */
  scram: Scram | undefined
  /** Once stream management was asked for (XEP-0198). */
  counts: StreamCounts | undefined
  #barriers = 0

  static async connect(address: Address, via: Via = 'tcp', name = 'client'): Promise<Client> {
    const client = new Client(address, via, name)
    await client.open()
    return client
  }

  /** The opening of a stream (RFC 6120 §4.7; RFC 7395 §3.3). */
  sendHeader(to = this.address.domain): void {
    this.resetReader()
    if (this.via === 'websocket') {
      this.send(`<open xmlns='${NS_FRAMING}' to='${escapeXML(to)}' version='1.0'/>`)
      return
    }
    this.send(
      `<?xml version='1.0'?><stream:stream to='${escapeXML(to)}' version='1.0' xml:lang='en' ` +
        `xmlns='jabber:client' xmlns:stream='${NS_STREAM}'>`,
    )
  }

  /** A stanza that the text itself does not put in a namespace: over WebSocket there is no stream header to inherit from. */
  sendStanza(text: string): void {
    this.send(this.via === 'websocket' ? text.replace(/^<(\w+)/, "<$1 xmlns='jabber:client'") : text)
  }

  closeStream(): void {
    this.send(this.via === 'websocket' ? `<close xmlns='${NS_FRAMING}'/>` : '</stream:stream>')
  }

  override send(data: string | Uint8Array): void {
    if (typeof data === 'string') this.counts = countSent(data, this.counts)
    super.send(data)
  }

  // ---- receiving

  override takes(item: Incoming): boolean {
    return item.kind !== 'element' || this.counts === undefined || this.counts.arrived(item.el)
  }

  /** Takes the next thing, whatever it is. */
  async next(waitingFor = 'anything'): Promise<Incoming> {
    await this.until(() => this.inbox.length > 0, waitingFor)
    return this.inbox.shift() ?? this.fail('unreachable')
  }

  /** Takes the next element; anything else fails. */
  async nextElement(waitingFor: string): Promise<Element> {
    const item = await this.next(waitingFor)
    if (item.kind === 'element') return item.el
    return this.fail(`${describe(item)} came instead of ${waitingFor}`)
  }

  /** The next element must match the pattern. */
  async expect(pattern: string | Element, captures: Captures = new Map()): Promise<Element> {
    const wanted = typeof pattern === 'string' ? onePattern(pattern) : pattern
    const el = await this.nextElement(wanted.toString())
    const difference = matchElement(wanted, el, captures)
    if (difference !== undefined)
      this.fail(`${difference}\nexpected ${wanted.toString()}\ngot      ${el.toString()}`)
    return el
  }

  /** The next elements must match the patterns, in any order. */
  async expectUnordered(patterns: readonly Element[], captures: Captures = new Map()): Promise<void> {
    const left = [...patterns]
    while (left.length > 0) {
      const el = await this.nextElement(`one of\n${left.join('\n')}`)
      const at = left.findIndex((pattern) => matchElement(pattern, el, captures) === undefined)
      if (at < 0) this.fail(`unexpected ${el.toString()}\nexpected one of\n${left.join('\n')}`)
      left.splice(at, 1)
    }
  }

  /** The next element must match one of the patterns. */
  async expectOneOf(patterns: readonly Element[], captures: Captures = new Map()): Promise<void> {
    const el = await this.nextElement(`one of\n${patterns.join('\n')}`)
    if (!patterns.some((pattern) => matchElement(pattern, el, captures) === undefined))
      this.fail(`${el.toString()} came instead of one of\n${patterns.join('\n')}`)
  }

  /** Takes the first match out of what came or comes; the rest stays in order. */
  async eventually(pattern: string | Element, captures: Captures = new Map()): Promise<Element> {
    const wanted = typeof pattern === 'string' ? onePattern(pattern) : pattern
    let found: Element | undefined
    const search = () => {
      const at = this.inbox.findIndex(
        (item) => item.kind === 'element' && matchElement(wanted, item.el, captures) === undefined,
      )
      const item = at < 0 ? undefined : this.inbox.splice(at, 1)[0]
      found = item?.kind === 'element' ? item.el : undefined
      return found !== undefined || this.inbox.some((i) => i.kind === 'closed' || i.kind === 'broken')
    }
    await this.until(search, wanted.toString())
    return found ?? this.fail(`the connection ended before ${wanted.toString()}`)
  }

  async expectHeader(): Promise<Element> {
    const item = await this.next('the stream header')
    if (item.kind === 'header') return item.el
    return this.fail(`${describe(item)} came instead of the stream header`)
  }

  /** The stream error, the closing tag, and the end of the connection (RFC 6120 §4.9.1.1). */
  async expectStreamError(conditions: readonly string[]): Promise<void> {
    const patterns = conditions.map((name) => onePattern(`<stream:error><${name}/>...</stream:error>`))
    const wanted = patterns.join(' or ')
    const first = await this.next(wanted)
    // RFC 6120 §4.9.1.2: an error during setup still comes inside a stream
    const item = first.kind === 'header' ? await this.next(wanted) : first
    if (item.kind !== 'element') this.fail(`${describe(item)} came instead of ${wanted}`)
    if (!patterns.some((pattern) => matchElement(pattern, item.el, new Map()) === undefined))
      this.fail(`${item.el.toString()} came instead of ${wanted}`)
    await this.expectEnd()
  }

  /** The closing tag and the end of the connection. */
  async expectEnd(): Promise<void> {
    const end = await this.next('the closing tag')
    if (end.kind !== 'end') this.fail(`${describe(end)} came instead of the closing tag`)
    // RFC 6120 §4.4: whoever gets the closing tag answers with one
    this.closeStream()
    await this.expectClosed()
  }

  /** The end of the connection, with or without a closing tag before it. */
  async expectClosed(): Promise<void> {
    const gone = () => this.inbox.some((i) => i.kind === 'closed' || i.kind === 'broken')
    await this.until(gone, 'the end of the connection')
    this.jid = ''
    const other = this.inbox.find((i) => i.kind === 'element' || i.kind === 'broken')
    if (other !== undefined) this.fail(`${describe(other)} came before the end of the connection`)
  }

  // ---- round trips

  /** A ping to the server and back (XEP-0199): everything the server sent before has arrived. */
  async ping(): Promise<void> {
    const id = `barrier-${(this.#barriers += 1)}`
    this.sendStanza(
      `<iq type='get' id='${id}' to='${this.address.domain}'><ping xmlns='urn:xmpp:ping'/></iq>`,
    )
    await this.eventually(onePattern(`<iq id='${id}' type='(result|error)' etc=''>...</iq>`))
  }

  /** Proves that all we sent to another client before has arrived there (RFC 6120 §10.1: order between two entities). */
  async reach(other: Client): Promise<void> {
    const id = `barrier-${this.name}-${(this.#barriers += 1)}`.replaceAll('/', '-')
    const hints = `<no-store xmlns='urn:xmpp:hints'/><no-copy xmlns='urn:xmpp:hints'/><private xmlns='urn:xmpp:carbons:2'/>`
    this.sendStanza(`<message type='headline' id='${id}' to='${escapeXML(other.jid)}'>${hints}</message>`)
    const marker = onePattern(`<message id='${id}' etc=''>...</message>`)
    const holds = (client: Client) =>
      client.inbox.some((i) => i.kind === 'element' && matchElement(marker, i.el, new Map()) === undefined)
    // A blocked sender gets an error instead (XEP-0191 §3.2).
    const found = new AbortController()
    const wait = async (client: Client) => {
      await client.until(() => holds(client), `${marker.toString()} at ${other.name}`, found.signal)
      found.abort()
    }
    await Promise.all([wait(other), wait(this)])
    for (const client of [this, other]) if (holds(client)) await client.eventually(marker)
  }

  /** What the given clients and the server sent to this one before has arrived. */
  async settleAfter(others: Iterable<Client>): Promise<void> {
    for (const other of others) await other.reach(this)
    await this.ping()
  }

  /** Nothing is waiting, after the given clients' stanzas have arrived and the server has answered a ping. */
  async expectNothing(after: Iterable<Client> = []): Promise<void> {
    await this.settleAfter(after)
    const [item] = this.inbox
    if (item !== undefined) this.fail(`${describe(item)} came, but nothing must come`)
  }

  /** Forgets what came so far, or the part of it that is named. */
  clear(which: (item: Incoming) => boolean = () => true): void {
    const kept = this.inbox.filter((item) => !which(item))
    this.inbox.splice(0, this.inbox.length, ...kept)
  }

  // ---- login

  /** Sends the header and takes the server's header and features. */
  async openStream(to = this.address.domain): Promise<void> {
    this.sendHeader(to)
    if (this.via === 'websocket')
      await this.expect(`<open xmlns='${NS_FRAMING}' from='${to}' id='*' version='1.0' etc=''/>`)
    else await this.expectHeader()
    this.features = await this.expect('<stream:features>...</stream:features>')
  }

  /** STARTTLS and a new stream (RFC 6120 §5.4). */
  async startTls(options: ConnectionOptions = {}): Promise<void> {
    this.send(`<starttls xmlns='${NS_TLS}'/>`)
    await this.expect(`<proceed xmlns='${NS_TLS}'/>`)
    await this.secure(options)
    await this.openStream()
  }

  /** SASL (RFC 6120 §6.4) and the stream that follows; picks a mechanism and uses STARTTLS where it is needed. */
  async authenticate(
    user: string,
    password: string,
    mechanism?: string,
    overrides?: ScramOverrides,
    restart = true,
  ): Promise<void> {
    if (this.features === undefined) await this.openStream()
    if (this.#mechanisms().length === 0 && this.features?.getChild('starttls', NS_TLS) !== undefined)
      await this.startTls()
    const offered = this.#mechanisms()
    const preferred = ['PLAIN', 'SCRAM-SHA-1', 'SCRAM-SHA-256', 'SCRAM-SHA-512']
    const chosen = mechanism ?? preferred.find((name) => offered.includes(name))
    if (chosen === undefined) this.fail('no usable mechanism')
    if (chosen === 'PLAIN') {
      this.sendAuth(chosen, `\0${user}\0${password}`)
      await this.expect(`<success xmlns='${NS_SASL}'/>`)
    } else {
      this.beginScram(chosen, user, password, overrides)
      const challenge = await this.expect(`<challenge xmlns='${NS_SASL}'>*</challenge>`)
      this.finishScram(decode(challenge.getText()))
      const success = await this.expect(`<success xmlns='${NS_SASL}'>*</success>`)
      this.verifyScram(decode(success.getText()))
    }
    if (restart) await this.openStream()
  }

  sendAuth(mechanism: string, initial: string): void {
    this.send(`<auth xmlns='${NS_SASL}' mechanism='${mechanism}'>${encode(initial)}</auth>`)
  }

  beginScram(mechanism: string, user: string, password: string, overrides?: ScramOverrides): void {
    this.scram = new Scram(mechanism, user, password, overrides)
    this.sendAuth(mechanism, this.scram.first())
  }

  finishScram(serverFirst: string): void {
    const final = this.scram?.final(serverFirst) ?? this.fail('SCRAM has not begun')
    this.send(`<response xmlns='${NS_SASL}'>${encode(final)}</response>`)
  }

  verifyScram(serverFinal: string): void {
    if (this.scram?.verify(serverFinal) !== true) this.fail(`wrong server signature: ${serverFinal}`)
  }

  /** Resource binding (RFC 6120 §7). */
  async bind(resource?: string): Promise<string> {
    const wish = resource === undefined ? '' : `<resource>${escapeXML(resource)}</resource>`
    this.sendStanza(`<iq type='set' id='bind'><bind xmlns='${NS_BIND}'>${wish}</bind></iq>`)
    const result = await this.expect(
      `<iq type='result' id='bind' etc=''><bind xmlns='${NS_BIND}'><jid>*</jid></bind></iq>`,
    )
    this.jid = result.getChild('bind', NS_BIND)?.getChildText('jid') ?? ''
    return this.jid
  }

  /** Presence; waits for the copy the server sends to the resource itself (RFC 6121 §4.2.2). */
  async goOnline(priority?: number): Promise<void> {
    this.sendStanza(
      priority === undefined ? '<presence/>' : `<presence><priority>${priority}</priority></presence>`,
    )
    await this.eventually(`<presence from='${escapeXML(this.jid)}' etc=''>...</presence>`)
  }

  /** Asks for the roster (RFC 6121 §2.1.3), which also makes the resource interested in pushes; returns its query element. */
  async roster(): Promise<Element> {
    const id = `roster-${(this.#barriers += 1)}`
    this.sendStanza(`<iq type='get' id='${id}'><query xmlns='jabber:iq:roster'/></iq>`)
    const result = await this.eventually(`<iq type='result' id='${id}' etc=''>...</iq>`)
    return result.getChild('query', 'jabber:iq:roster') ?? this.fail('the answer has no roster')
  }

  #mechanisms(): string[] {
    const list = this.features?.getChild('mechanisms', NS_SASL)?.getChildren('mechanism') ?? []
    return list.map((el) => el.getText())
  }
}

/** Base64 of a SASL message; '=' for an empty one (RFC 6120 §6.4.2). */
export function encode(text: string): string {
  return text === '' ? '=' : Buffer.from(text).toString('base64')
}

/** The text of a SASL message. */
export function decode(base64: string): string {
  return Buffer.from(base64, 'base64').toString()
}

function onePattern(text: string): Element {
  const [only, ...more] = parsePattern(text)
  if (only === undefined || more.length > 0) throw new Error(`not one element: ${text}`)
  return only
}
