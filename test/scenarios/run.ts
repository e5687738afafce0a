/** Runs one dialogue (format.ts) against a server: the words of README.md in this folder, each one function. */
import { randomBytes } from 'node:crypto'
import { request } from 'node:http'
import { escapeXML } from 'ltx'
import { Client, decode } from '../helpers/client.ts'
import { type Address, describe, type Via } from '../helpers/connection.ts'
import type { ScramOverrides } from '../helpers/scram.ts'
import { type Captures, matchElement, parseDocument, parsePattern } from '../helpers/xml.ts'
import type { Dialogue, Step, TargetName } from './format.ts'

/** A running server to talk to. */
export interface Target extends Address {
  readonly name: TargetName
  addUser(local: string, password: string): Promise<void>
}

/** What became of a dialogue: run to its end, or ended at a difference that its file announces. */
export type Outcome = { readonly kind: 'passed' } | { readonly kind: 'differs'; readonly reason: string }

/** Throws an Error with file, line and the clients' last lines when a step fails, or when an announced difference is gone. */
export async function runDialogue(dialogue: Dialogue, target: Target): Promise<Outcome> {
  await using stage = new Stage(target)
  const clients = dialogue.steps
    .map((step) => CLIENT.exec(step.text)?.[1] ?? '')
    .filter((name) => name !== '')
  for (const name of [...dialogue.accounts, ...clients.map(accountOf)]) await stage.account(name)
  for (const step of dialogue.steps) {
    const reason = step.differs.get(target.name)
    try {
      if (reason !== undefined) stage.timeoutMs = 1500
      await stage.perform(step)
    } catch (error) {
      if (reason !== undefined) return { kind: 'differs', reason }
      const text = error instanceof Error ? error.message : String(error)
      const message = `${dialogue.file}:${step.line}: ${step.text}\n${text}\n${stage.otherLogs(text)}`
      throw new Error(message, { cause: error })
    }
    if (reason !== undefined) {
      throw new Error(`${dialogue.file}:${step.line}: ${target.name} no longer differs here (${reason})`)
    }
  }
  return { kind: 'passed' }
}

type Action = (stage: Stage, client: Client, args: readonly string[], payload: string) => Promise<void> | void

/** Steps of the form `NAME words`, after the name. */
const ACTIONS: readonly (readonly [RegExp, Action])[] = [
  [/^opens a stream(?: to (\S+))?$/, (_, c, [to]) => c.openStream(to)],
  [/^starts TLS$/, (_, c) => c.startTls()],
  [/^starts the TLS handshake$/, (_, c) => c.secure()],
  [
    /^authenticates without restarting$/,
    async (stage, c) => {
      const { local, password } = await stage.account(accountOf(c.name))
      await c.authenticate(local, password, undefined, undefined, false)
    },
  ],
  [
    /^authenticates(?: by (\S+))?(?: with (.+))?$/,
    async (stage, c, [mechanism, how]) => {
      const { local, password } = await stage.account(accountOf(c.name))
      await c.authenticate(local, password, mechanism, overrides(how))
    },
  ],
  [/^binds$/, (_, c) => bind(c)],
  [/^logs in$/, (stage, c) => stage.login(c)],
  [
    /^comes online(?: with priority (-?\d+))?$/,
    async (stage, c, [priority]) => {
      if (c.jid === '') await stage.login(c)
      await c.goOnline(priority === undefined ? undefined : Number(priority))
    },
  ],
  [
    /^begins (SCRAM-[\w-]+)(?: with (.+))?$/,
    async (stage, c, [mechanism, how]) => {
      const { local, password } = await stage.account(accountOf(c.name))
      c.beginScram(mechanism ?? '', local, password, overrides(how))
    },
  ],
  [
    /^answers the challenge(?: with (.+))?$/,
    async (_, c, [how]) => {
      const challenge = await c.expect(`<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>*</challenge>`)
      c.scram?.override(overrides(how))
      c.finishScram(decode(challenge.getText()))
    },
  ],
  [
    /^sees the server's signature$/,
    async (_, c) => {
      const success = await c.expect(`<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>*</success>`)
      c.verifyScram(decode(success.getText()))
    },
  ],
  [/^sends$/, (_, c, __, payload) => c.send(payload)],
  [
    /^sends exactly$/,
    (_, c, __, payload) => c.send(payload.startsWith('"') ? String(JSON.parse(payload)) : payload),
  ],
  [/^sends bytes$/, (_, c, __, payload) => c.send(bytes(payload))],
  [/^restarts its parser$/, (_, c) => c.resetReader()],
  [
    /^receives$/,
    async (stage, c, _, payload) => {
      for (const pattern of parsePattern(payload)) await c.expect(pattern, stage.captures)
    },
  ],
  [
    /^receives in any order$/,
    (stage, c, _, payload) => c.expectUnordered(parsePattern(payload), stage.captures),
  ],
  [/^receives one of$/, (stage, c, _, payload) => c.expectOneOf(parsePattern(payload), stage.captures)],
  [
    /^eventually receives$/,
    async (stage, c, _, payload) => {
      for (const pattern of parsePattern(payload)) await c.eventually(pattern, stage.captures)
    },
  ],
  [
    /^receives a header$/,
    async (stage, c, _, payload) => {
      const header = await c.expectHeader()
      const [pattern] = parsePattern(payload)
      const difference = pattern && matchElement(pattern, header, stage.captures)
      if (difference !== undefined) c.fail(difference)
    },
  ],
  [
    /^receives the features$/,
    async (stage, c, _, payload) => {
      const [pattern] = parsePattern(payload)
      if (pattern !== undefined) c.features = await c.expect(pattern, stage.captures)
    },
  ],
  [
    /^receives nothing, or$/,
    async (stage, c, _, payload) => {
      await c.settleAfter(stage.others(c))
      if (c.inbox.length > 0)
        for (const pattern of parsePattern(payload)) await c.expect(pattern, stage.captures)
      await c.expectNothing()
    },
  ],
  [
    /^receives nothing but presence$/,
    async (stage, c) => {
      await c.settleAfter(stage.others(c))
      c.clear((item) => item.kind === 'element' && item.el.is('presence'))
      await c.expectNothing()
    },
  ],
  [
    /^receives no subscription$/,
    async (stage, c) => {
      await c.settleAfter(stage.others(c))
      const kinds = ['subscribe', 'subscribed', 'unsubscribe', 'unsubscribed']
      const found = c.inbox.find(
        (item) =>
          item.kind === 'element' && item.el.is('presence') && kinds.includes(item.el.attrs['type'] ?? ''),
      )
      if (found !== undefined) c.fail(`${describe(found)} came, but no subscription must`)
    },
  ],
  [/^receives nothing$/, (stage, c) => c.expectNothing(stage.others(c))],
  [
    /^receives a stream error (\S+)$/,
    (_, c, [condition]) => c.expectStreamError((condition ?? '').replace(/[()]/g, '').split('|')),
  ],
  [/^sees the stream closed$/, (_, c) => c.expectEnd()],
  [/^is disconnected$/, (_, c) => c.expectClosed()],
  [/^pings$/, (_, c) => c.ping()],
  [/^ends its side$/, (_, c) => c.endOutput()],
  [
    /^loses the connection, or gets nothing of it after the handshake$/,
    async (_, c) => {
      await c.expect(`<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>`)
      try {
        await c.secure()
      } catch {
        return // the plain text was taken for a broken handshake: refused, which is what the test is about
      }
      await c.openStream()
      if (c.features?.getChild('mechanisms', 'urn:ietf:params:xml:ns:xmpp-sasl') === undefined)
        c.fail('what was sent in plain text before the handshake was acted upon')
    },
  ],
  [
    /^fails to authenticate until the stream ends \((\S+)\)$/,
    async (stage, c, [conditions]) => {
      const { local } = await stage.account(accountOf(c.name))
      // RFC 6120 §6.4.5: at least 2 and no more than 5 retries
      for (let tries = 1; ; tries++) {
        c.sendAuth('PLAIN', `\0${local}\0wrong ${tries}`)
        const item = await c.next('a failure')
        if (item.kind === 'element' && item.el.is('failure')) {
          if (tries > 6) c.fail('more than 5 retries were allowed')
          continue
        }
        if (tries < 3) c.fail('fewer than 2 retries were allowed')
        c.inbox.unshift(item)
        return c.expectStreamError((conditions ?? '').split('|'))
      }
    },
  ],
  [
    /^fails by an answer or at once$/,
    async (stage, c, _, payload) => {
      const item = await c.next('a challenge or a failure')
      if (item.kind === 'element' && item.el.is('challenge')) c.finishScram(decode(item.el.getText()))
      else c.inbox.unshift(item)
      await c.expectOneOf(parsePattern(payload), stage.captures)
    },
  ],
  [/^asks for the roster$/, (_, c) => c.roster().then(() => undefined)],
  [
    /^has the roster$/,
    async (stage, c, _, payload) => {
      const wanted = parsePattern(`<query xmlns='jabber:iq:roster' ver='?'>${payload}</query>`)
      const difference = wanted[0] && matchElement(wanted[0], await c.roster(), stage.captures)
      if (difference !== undefined) c.fail(`the roster differs: ${difference}`)
    },
  ],
  [
    /^has an empty roster$/,
    async (_, c) => {
      const items = (await c.roster()).getChildElements()
      if (items.length > 0) c.fail(`the roster is not empty: ${items.join('')}`)
    },
  ],
  [/^and (\S+) reach ([a-z+]+)$/, (stage, c, [other, state]) => stage.reach(c, other ?? '', state ?? '')],
  [/^closes the stream$/, (_, c) => c.closeStream()],
  [
    /^logs out$/,
    async (_, c) => {
      c.closeStream()
      await c.until(() => c.inbox.some((item) => item.kind === 'end'), 'the closing tag')
      c.drop()
      c.jid = ''
    },
  ],
  [
    /^drops the connection$/,
    (_, c) => {
      c.drop()
      c.jid = ''
    },
  ],
  [/^forgets what came$/, (_, c) => c.clear()],
  [/^is (not )?offered$/, (stage, c, [not], payload) => offered(stage, c, not === undefined, payload)],
]

/** A step of a client: its name and what it does. `all settle` and `http GET ...` are no clients' steps. */
const CLIENT = /^(?!all |http )([a-z][a-z0-9-]*(?:\/[\w-]+)?) (.+)$/

/** All clients and accounts of one dialogue. */
class Stage implements AsyncDisposable {
  readonly target: Target
  readonly captures: Captures = new Map()
  readonly #clients = new Map<string, Client>()
  readonly #accounts = new Map<string, { readonly local: string; readonly password: string }>()
  readonly #suffix = randomBytes(4).toString('hex')
  #timeoutMs = 5000

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

  async connect(name: string, via: Via): Promise<Client> {
    await this.account(accountOf(name))
    const client = await Client.connect(this.target, via, name)
    client.timeoutMs = this.#timeoutMs
    this.#clients.set(name, client)
    return client
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
    await this.#settle()
  }

  others(client: Client): Client[] {
    return [...this.#clients.values()].filter((other) => other !== client && other.jid !== '')
  }

  /** What the clients that the message does not show have seen. */
  otherLogs(message: string): string {
    const quiet = [...this.#clients.values()].filter((c) => !message.includes(`dialogue of ${c.name} ---`))
    return quiet.map((client) => `--- dialogue of ${client.name} ---\n${client.log}`).join('\n')
  }

  async perform(step: Step): Promise<void> {
    const text = this.#fill(step.text)
    const payload = this.#fill(expandPushes(step.payload, CLIENT.exec(step.text)?.[1] ?? ''))
    const http = /^http GET (\S+) gives (\d+)(?: (\S+))?$/.exec(text)
    if (http !== null) return this.#http(http[1] ?? '', Number(http[2]), http[3], payload)
    if (text === 'all settle') return this.#settle()
    const [, name = '', words = ''] = CLIENT.exec(text) ?? []
    const connects = /^connects(?: by (tls|websocket))?$/.exec(words)
    if (connects !== null) {
      await this.connect(name, (connects[1] ?? 'tcp') as Via)
      return
    }
    const client = this.#clients.get(name) ?? (await this.connect(name, 'tcp'))
    for (const [words_, action] of ACTIONS) {
      const match = words_.exec(words)
      if (match !== null) return action(this, client, match.slice(1), payload)
    }
    throw new Error(`no such step: ${step.text}`)
  }

  /** Everybody who is logged in has what was under way; it is forgotten. */
  async #settle(): Promise<void> {
    const bound = [...this.#clients.values()].filter((client) => client.jid !== '')
    for (const client of bound) await client.ping()
    for (const client of bound) await client.ping() // what the last ones' stanzas caused has arrived too
    for (const client of bound) client.clear()
  }

  async #http(path: string, status: number, type: string | undefined, payload: string): Promise<void> {
    const { port, host } = { port: this.target.ports.http, host: '127.0.0.1' }
    const { promise, resolve, reject } = Promise.withResolvers<{
      head: string
      status: number
      body: string
    }>()
    const req = request({ host, port, path, headers: { host: this.target.domain } }, (res) => {
      let body = ''
      res.setEncoding('utf8').on('data', (chunk: string) => (body += chunk))
      res.on('end', () =>
        resolve({ head: res.headers['content-type'] ?? '', status: res.statusCode ?? 0, body }),
      )
    })
    req.on('error', reject).end()
    const answer = await promise
    const got = `${answer.status} ${answer.head}\n${answer.body}`
    if (answer.status !== status || !answer.head.startsWith(type ?? ''))
      throw new Error(`the answer was ${got}`)
    const [pattern] = parsePattern(payload)
    const difference = pattern && matchElement(pattern, parseDocument(answer.body), this.captures)
    if (difference !== undefined) throw new Error(`${difference}\nthe answer was ${got}`)
  }

  /** Fills in `${...}`, innermost first, and puts the run's own accounts in place of the script's. */
  #fill(text: string): string {
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
    if (word === 'repeat') {
      const [, times, what] = /^(\d+) (.*)$/s.exec(rest) ?? []
      return (what ?? '').repeat(Number(times))
    }
    const captured = this.captures.get(word)
    if (captured !== undefined) return escapeXML(captured)
    const [, name = '', part] = /^(.+)\.(local|password|jid)$/.exec(word) ?? []
    const value =
      part === 'jid' ? this.#clients.get(name)?.jid : this.#accounts.get(name)?.[part as 'local' | 'password']
    if (value === undefined) throw new Error(`\${${expression}} is unknown`)
    return escapeXML(value)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients.values()) client.drop()
  }
}

function accountOf(clientName: string): string {
  return clientName.split('/')[0] ?? clientName
}

/** `<push>` stands for a roster push to the client (RFC 6121 §2.1.6). */
function expandPushes(payload: string, name: string): string {
  const start = `<iq type='set' id='*' from='?${accountOf(name)}@localhost' to='?${accountOf(name)}@localhost/${name.split('/')[1]}'>`
  return payload
    .replaceAll('<push>', `${start}<query xmlns='jabber:iq:roster' ver='?'>`)
    .replaceAll('</push>', '</query></iq>')
}

async function bind(client: Client): Promise<void> {
  await client.bind(client.name.split('/')[1])
}

function overrides(words: string | undefined): ScramOverrides {
  return Object.fromEntries(
    (words ?? '').split(' ').map((word) => /^(\w+)=(.*)$/.exec(word)?.slice(1) ?? ['', '']),
  )
}

/** Hexadecimal digits and "quoted text". */
function bytes(payload: string): Buffer {
  const parts = payload.matchAll(/"([^"]*)"|([0-9a-f]{2})/g)
  return Buffer.concat(
    [...parts].map(([, text, hex]) => Buffer.from(text ?? hex ?? '', text === undefined ? 'hex' : 'utf8')),
  )
}

function offered(stage: Stage, client: Client, wanted: boolean, payload: string): void {
  for (const pattern of parsePattern(payload)) {
    const children = client.features?.getChildElements() ?? []
    const there = children.some((child) => matchElement(pattern, child, stage.captures) === undefined)
    if (there !== wanted) client.fail(`${pattern.toString()} ${there ? 'is' : 'is not'} offered`)
  }
}
