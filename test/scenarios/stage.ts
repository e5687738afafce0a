/** The stage of one dialogue: its clients, its accounts (each run has its own), what was captured, and how `${...}` is filled in. */
import { createHmac, randomBytes } from 'node:crypto'
import { escapeXML } from 'ltx'
import { Client } from '../helpers/client.ts'
import { ComponentClient } from '../helpers/component-client.ts'
import type { Address, Via } from '../helpers/connection.ts'
import { NS_SM } from '../helpers/stream-counts.ts'
import { type Captures, type Element, NS_BIND } from '../helpers/xml.ts'
import type { TargetName } from './format.ts'

/** A running server to talk to. */
export interface Target extends Address {
  readonly name: TargetName
  addUser(local: string, password: string): Promise<void>
}

/** All clients and accounts of one dialogue. */
export class Stage implements AsyncDisposable {
  readonly target: Target
  readonly captures: Captures = new Map()
  /** Whether the last `receives nothing, or` got what it allows. */
  bounced = false
  readonly #clients = new Map<string, Client>()
  readonly #accounts = new Map<string, { readonly local: string; readonly password: string }>()
  readonly #suffix = randomBytes(4).toString('hex')
  #timeoutMs = 15_000

  constructor(target: Target) {
    this.target = target
  }

  set timeoutMs(value: number) {
    this.#timeoutMs = value
    for (const client of this.#clients.values()) client.timeoutMs = value
  }

  /** The account behind a name of the script; each run has its own. */
  async account(name: string) {
    const known = this.#accounts.get(name)
    if (known !== undefined) return known
    const account = { local: `${name}-${this.#suffix}`, password: `secret of ${name}` }
    await this.target.addUser(account.local, account.password)
    this.#accounts.set(name, account)
    return account
  }

  /** The client of that name, if it has connected. */
  client(name: string): Client | undefined {
    return this.#clients.get(name)
  }

  async connect(name: string, via: Via): Promise<Client> {
    await this.account(accountOf(name))
    const client = await Client.connect(this.target, via, name)
    client.timeoutMs = this.#timeoutMs
    this.#clients.set(name, client)
    return client
  }

  /** A component (XEP-0114) in place of a client. */
  async connectComponent(name: string): Promise<ComponentClient> {
    const component = await ComponentClient.connect(this.target, 'tcp', name)
    component.timeoutMs = this.#timeoutMs
    this.#clients.set(name, component)
    return component
  }

  async login(client: Client): Promise<void> {
    const { local, password } = await this.account(accountOf(client.name))
    await client.authenticate(local, password)
    await bind(client)
  }

  /**
   * Brings two accounts into a subscription state of RFC 6121 §A.1, seen from the first; both are online and interested, and
   * what they received on the way is forgotten.
   */
  async reach(user: Client, otherName: string, state: string): Promise<void> {
    const contact = this.#clients.get(otherName) ?? (await this.connect(otherName, 'tcp'))
    for (const client of [user, contact]) {
      await this.login(client)
      await client.roster()
      await client.goOnline()
    }
    const bare = (client: Client) => client.jid.split('/')[0]
    const send = async (from: Client, type: string, to: Client) => {
      from.send(`<presence type='${type}' to='${bare(to)}'/>`)
      await to.settleAfter([from])
      await from.settleAfter([to])
    }
    const [base = '', ...pending] = state.split('+')
    if (base === 'to' || base === 'both') {
      await send(user, 'subscribe', contact)
      await send(contact, 'subscribed', user)
    }
    if (base === 'from' || base === 'both') {
      await send(contact, 'subscribe', user)
      await send(user, 'subscribed', contact)
    }
    if (pending.includes('out')) await send(user, 'subscribe', contact)
    if (pending.includes('in')) await send(contact, 'subscribe', user)
    await this.settle()
  }

  others(client: Client): Client[] {
    return [...this.#clients.values()].filter((other) => other !== client && other.jid !== '')
  }

  /** What the clients that the message does not show have seen. */
  otherLogs(message: string): string {
    const quiet = [...this.#clients.values()].filter((c) => !message.includes(`dialogue of ${c.name} ---`))
    return quiet.map((client) => `--- dialogue of ${client.name} ---\n${client.log}`).join('\n')
  }

  /** Everybody who is logged in has what was under way; it is forgotten. */
  async settle(): Promise<void> {
    const bound = [...this.#clients.values()].filter((client) => client.jid !== '')
    for (const client of bound) await client.ping()
    for (const client of bound) await client.ping() // what the last ones' stanzas caused has arrived too
    for (const client of bound) client.clear()
  }

  /** Fills in `${...}`, innermost first, and puts the run's own accounts in place of the script's. */
  fill(text: string): string {
    let filled = text
    for (let found = true; found; ) {
      found = false
      filled = filled.replace(/\$\{([^${}]*)\}/g, (_, expression: string) => {
        found = true
        return this.#evaluate(expression)
      })
    }
    for (const [name, client] of this.#clients) {
      if (!name.includes('/') || client.jid === '') continue
      filled = filled.replaceAll(
        new RegExp(`${accountOf(name)}@localhost/${name.split('/')[1]}\\b`, 'g'),
        client.jid,
      )
    }
    for (const [name, { local }] of this.#accounts) {
      const address = `${local}@${this.target.domain}`
      filled = filled.replaceAll(new RegExp(`(?<![\\w.-])${name}@localhost\\b`, 'g'), address)
    }
    return filled.replaceAll(/\blocalhost\b/g, this.target.domain)
  }

  #evaluate(expression: string): string {
    const [, word = '', rest = ''] = /^(\S+)(?: (.*))?$/s.exec(expression) ?? []
    if (word === 'base64') return Buffer.from(rest.replaceAll('\\0', '\0')).toString('base64')
    if (word === 'upper') return rest.toUpperCase()
    if (word === 'ht') return hashedToken(rest)
    if (word === 'repeat') {
      const [, times, what] = /^(\d+) (.*)$/s.exec(rest) ?? []
      return (what ?? '').repeat(Number(times))
    }
    const captured = this.captures.get(word)
    if (captured !== undefined) return escapeXML(captured)
    const [, name = '', part] = /^(.+)\.(local|password|jid|sm-id|sent|received)$/.exec(word) ?? []
    const value = this.#about(name, part)
    if (value === undefined) throw new Error(`\${${expression}} is unknown`)
    return escapeXML(value)
  }

  #about(name: string, part: string | undefined): string | undefined {
    const client = this.#clients.get(name)
    switch (part) {
      case 'jid':
        return client?.jid
      case 'sm-id':
        return client?.counts?.id
      case 'sent':
      case 'received':
        return client?.counts?.[part].toString()
      default:
        return this.#accounts.get(name)?.[part as 'local' | 'password']
    }
  }

  /** XEP-0198 §5: asks to go on with the session of another client; when the answer is <resumed/>, `client` is that one from now on. */
  async resume(client: Client, from: Client, answer: Element): Promise<void> {
    if (client.jid === '' && client.features?.getChild('bind', NS_BIND) === undefined) {
      const { local, password } = await this.account(accountOf(client.name))
      await client.authenticate(local, password)
    }
    const { counts } = from
    counts?.pause()
    client.counts = counts
    client.send(
      `<resume xmlns='${NS_SM}' previd='${escapeXML(counts?.id ?? '')}' h='${counts?.received ?? 0}'/>`,
    )
    const came = await client.expect(answer, this.captures)
    if (came.is('resumed')) [client.jid, from.jid] = [from.jid, '']
    else client.counts = undefined
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients.values()) client.drop()
  }
}

/** First message of HT-SHA-256-NONE (draft-schmaus-kitten-sasl-ht §3.1), from "name token". */
function hashedToken(words: string): string {
  const [name = '', token = ''] = words.split(' ')
  const mac = createHmac('sha256', token).update('Initiator').digest()
  return Buffer.concat([Buffer.from(`${name}\0`), mac]).toString('base64')
}

/** `romeo` of `romeo/orchard`. */
export function accountOf(clientName: string): string {
  return clientName.split('/')[0] ?? clientName
}

/** Binds the resource of the client's name, or one the server chooses. */
export async function bind(client: Client): Promise<void> {
  await client.bind(client.name.split('/')[1])
}
