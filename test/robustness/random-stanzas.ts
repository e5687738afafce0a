/** Random stanzas: well-formed XML of all kinds, types, addresses and namespaces that modules know, made from a seed. */
import { escapeXML } from 'ltx'

/** The same numbers for the same seed (Lehmer). */
export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = (Math.abs(seed) % 2_147_483_646) + 1
  }

  /** From 0 to `below` - 1. */
  int(below: number): number {
    this.#state = (this.#state * 48_271) % 2_147_483_647
    return this.#state % below
  }
  pick<T>(list: readonly T[]): T {
    return list[this.int(list.length)] as T
  }
  chance(percent: number): boolean {
    return this.int(100) < percent
  }
}

/** Payloads that a module has a handler, a hook or a rule for. */
const PAYLOADS: readonly (readonly [name: string, ns: string])[] = [
  ['query', 'jabber:iq:roster'],
  ['query', 'jabber:iq:private'],
  ['query', 'jabber:iq:register'],
  ['query', 'jabber:iq:version'],
  ['query', 'jabber:iq:last'],
  ['query', 'jabber:iq:auth'],
  ['query', 'http://jabber.org/protocol/disco#info'],
  ['query', 'http://jabber.org/protocol/disco#items'],
  ['ping', 'urn:xmpp:ping'],
  ['time', 'urn:xmpp:time'],
  ['vCard', 'vcard-temp'],
  ['x', 'vcard-temp:x:update'],
  ['blocklist', 'urn:xmpp:blocking'],
  ['block', 'urn:xmpp:blocking'],
  ['unblock', 'urn:xmpp:blocking'],
  ['bind', 'urn:ietf:params:xml:ns:xmpp-bind'],
  ['session', 'urn:ietf:params:xml:ns:xmpp-session'],
  ['query', 'urn:xmpp:mam:2'],
  ['prefs', 'urn:xmpp:mam:2'],
  ['metadata', 'urn:xmpp:mam:2'],
  ['enable', 'urn:xmpp:carbons:2'],
  ['disable', 'urn:xmpp:carbons:2'],
  ['private', 'urn:xmpp:carbons:2'],
  ['received', 'urn:xmpp:carbons:2'],
  ['sent', 'urn:xmpp:carbons:2'],
  ['forwarded', 'urn:xmpp:forward:0'],
  ['delay', 'urn:xmpp:delay'],
  ['stanza-id', 'urn:xmpp:sid:0'],
  ['origin-id', 'urn:xmpp:sid:0'],
  ['retract', 'urn:xmpp:message-retract:1'],
  ['no-store', 'urn:xmpp:hints'],
  ['no-copy', 'urn:xmpp:hints'],
  ['store', 'urn:xmpp:hints'],
  ['request', 'urn:xmpp:receipts'],
  ['received', 'urn:xmpp:receipts'],
  ['active', 'http://jabber.org/protocol/chatstates'],
  ['markable', 'urn:xmpp:chat-markers:0'],
  ['displayed', 'urn:xmpp:chat-markers:0'],
  ['x', 'http://jabber.org/protocol/muc'],
  ['x', 'http://jabber.org/protocol/muc#user'],
  ['x', 'jabber:x:data'],
  ['x', 'jabber:x:conference'],
  ['c', 'http://jabber.org/protocol/caps'],
  ['c', 'urn:xmpp:caps'],
  ['report', 'urn:xmpp:reporting:1'],
  ['pubsub', 'http://jabber.org/protocol/pubsub'],
  ['pubsub', 'http://jabber.org/protocol/pubsub#owner'],
  ['event', 'http://jabber.org/protocol/pubsub#event'],
  ['command', 'http://jabber.org/protocol/commands'],
  ['services', 'urn:xmpp:extdisco:2'],
  ['request', 'urn:xmpp:http:upload:0'],
  ['enable', 'urn:xmpp:push:0'],
  ['disable', 'urn:xmpp:push:0'],
  ['r', 'urn:xmpp:sm:3'],
  ['authenticate', 'urn:xmpp:sasl:2'],
  ['error', 'jabber:client'],
  ['body', 'jabber:client'],
  ['subject', 'jabber:client'],
  ['thread', 'jabber:client'],
  ['show', 'jabber:client'],
  ['status', 'jabber:client'],
  ['priority', 'jabber:client'],
  ['nothing', 'urn:example:unknown'],
  ['nothing', ''],
]
const NAMES =
  'item items x field value set max before after index count group query status show priority reason actor invite decline password username instructions FN N PHOTO BINVAL TYPE default always never jid start end with text body error service-unavailable gone report stanza-id forwarded message presence iq'.split(
    ' ',
  )
const ATTRIBUTES =
  'jid name subscription ask node ver hash id stamp from to type var by action xml:lang category affiliation role nick version code queryid'.split(
    ' ',
  )
const VALUES = [
  '',
  'x',
  'remove',
  'both',
  'to',
  'from',
  'none',
  'result',
  'set',
  'get',
  '0',
  '-1',
  '1',
  '999999999999999999999',
  'NaN',
  '2020-01-01T00:00:00Z',
  '2020-13-45T99:99:99Z',
  'urn:xmpp:mam:2',
  'FORM_TYPE',
  'submit',
  'hidden',
  'false',
  'true',
  'sha-1',
  '__proto__',
  'constructor',
  '\u00e9\u{1f600}',
  '<&>\'"',
  'a'.repeat(2000),
]

/** Who is there: addresses that mean something to the server. */
export interface Cast {
  readonly domain: string
  readonly self: string
  readonly others: readonly string[]
}

/** One stanza; `answers`: how many an iq must get. */
export interface RandomStanza {
  readonly xml: string
  readonly id: string
  readonly answers: 0 | 1
}

/** Makes stanzas. */
export class Stanzas {
  readonly #random: Random
  readonly #addresses: readonly string[]
  readonly #prefix: string
  #count = 0

  /** `prefix`: what all ids begin with. */
  constructor(random: Random, { domain, self, others }: Cast, prefix: string) {
    this.#random = random
    this.#prefix = prefix
    const bare = self.replace(/\/.*/, '')
    const malformed = [
      '@',
      '@@',
      'a@',
      `@${domain}`,
      'a b@c',
      '/x',
      `${'a'.repeat(1100)}@${domain}`,
      `\u0000`.replace('\u0000', '%00'),
      'x@y@z',
      `"@${domain}`,
      `${domain}/`,
      ' ',
    ]
    const strange = ['nobody', 'NOBODY', 'r\u00f6meo', 'a\u0301', '__proto__', 'a'.repeat(1023)].map(
      (local) => `${local}@${domain}`,
    )
    const elsewhere = [
      'remote.example',
      'juliet@remote.example/balcony',
      '127.0.0.1',
      '[::1]',
      'xn--mnchen-3ya.example',
    ]
    this.#addresses = [
      bare,
      self,
      `${bare}/nobody`,
      domain,
      `${domain}/x`,
      ...others,
      ...others.map((jid) => jid.replace(/\/.*/, '')),
      ...others.map((jid) => `${jid}x`),
      ...strange,
      ...elsewhere,
      ...malformed,
    ]
  }

  next(): RandomStanza {
    const random = this.#random
    const kind = random.pick(['message', 'presence', 'iq', 'iq', 'iq'] as const)
    const types = {
      message: ['chat', 'normal', 'groupchat', 'headline', 'error', 'nonsense', ''],
      presence: [
        'unavailable',
        'subscribe',
        'subscribed',
        'unsubscribe',
        'unsubscribed',
        'probe',
        'error',
        'nonsense',
      ],
      iq: ['get', 'get', 'get', 'set', 'set', 'set', 'result', 'error', 'nonsense'],
    }[kind]
    const type = random.chance(kind === 'iq' ? 98 : 60) ? random.pick(types) : undefined
    const id = `${this.#prefix}${this.#count++}`
    const attrs = [
      `id='${id}'`,
      ...(type === undefined ? [] : [`type='${type}'`]),
      ...(random.chance(80) ? [`to='${escapeXML(random.pick(this.#addresses))}'`] : []),
      ...(random.chance(5) ? [`from='${escapeXML(random.pick(this.#addresses))}'`] : []),
      ...(random.chance(5) ? [`xml:lang='${random.pick(['en', 'de-DE', '', 'x'.repeat(100)])}'`] : []),
    ]
    const count = kind === 'iq' ? (random.chance(90) ? 1 : random.int(3)) : random.int(4)
    const content = Array.from({ length: count }, () => this.#payload()).join('')
    const text = random.chance(5) ? escapeXML(random.pick(VALUES)) : ''
    const asks = kind === 'iq' && type !== 'result' && type !== 'error'
    return { xml: `<${kind} ${attrs.join(' ')}>${content}${text}</${kind}>`, id, answers: asks ? 1 : 0 }
  }

  #payload(): string {
    const [name, ns] = this.#random.pick(PAYLOADS)
    return this.#element(name, ns === 'jabber:client' ? '' : ` xmlns='${ns}'`, 0)
  }

  #element(name: string, xmlns: string, depth: number): string {
    const random = this.#random
    const names = new Set(Array.from({ length: random.int(4) }, () => random.pick(ATTRIBUTES)))
    const attrs = [...names].map((attribute) => ` ${attribute}='${escapeXML(this.#value())}'`).join('')
    const count = depth > 3 ? 0 : random.int(depth === 0 ? 4 : 3)
    const children = Array.from({ length: count }, () => {
      if (random.chance(25)) return escapeXML(this.#value())
      const [other, ns] = random.pick(PAYLOADS)
      return random.chance(20)
        ? this.#element(other, ` xmlns='${ns}'`, depth + 1)
        : this.#element(random.pick(NAMES), '', depth + 1)
    })
    return `<${name}${xmlns}${attrs}>${children.join('')}</${name}>`
  }

  #value(): string {
    return this.#random.chance(40) ? this.#random.pick(this.#addresses) : this.#random.pick(VALUES)
  }
}
