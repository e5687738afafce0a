/**
 * XMPP addresses: split, prepare, compare (RFC 7622), with a bounded cache so that an address seen before costs one Map lookup.
 * It knows nothing of who may use an address, and applies neither nickname rules (XEP-0045) nor JID escaping (XEP-0106).
 */
import { isIPv4, isIPv6 } from 'node:net'

/** A string is not an address, or not that part of one. */
export class JidError extends Error {
  override readonly name = 'JidError'
}

/** A prepared address. Made only by `parseJid`, `tryJid` and `makeJid`; equal addresses have equal strings. */
export class JID {
  /** Localpart, '' when none. */
  readonly local: string
  readonly domain: string
  /** Resourcepart, '' when none. */
  readonly resource: string
  readonly #text: string
  #bare: JID | undefined

  /** The parts must be prepared and `text` must be their canonical form. */
  constructor(local: string, domain: string, resource: string, text: string) {
    this.local = local
    this.domain = domain
    this.resource = resource
    this.#text = text
    this.#bare = undefined
  }

  /** The address without resource; the same object when there is none. */
  get bare(): JID {
    if (this.resource === '') return this
    this.#bare ??= parseJid(this.#text.slice(0, this.#text.length - this.resource.length - 1))
    return this.#bare
  }

  get isBare(): boolean {
    return this.resource === ''
  }

  get isFull(): boolean {
    return this.resource !== ''
  }

  toString(): string {
    return this.#text
  }

  toJSON(): string {
    return this.#text
  }

  equals(other: JID): boolean {
    return this === other || this.#text === other.#text
  }

  /** This account or service with resource `resource`; throws JidError when that is no resourcepart. */
  withResource(resource: string): JID {
    return makeJid(this.local, this.domain, resource)
  }
}

// Entries and characters in one of the two generations of the cache.
const MAX_ENTRIES = 8192
const MAX_CHARS = 1_048_576
const MAX_CACHED_LENGTH = 256

let young = new Map<string, JID>()
let old = new Map<string, JID>()
let youngChars = 0

function remember(key: string, jid: JID): void {
  if (key.length > MAX_CACHED_LENGTH) return
  if (young.size >= MAX_ENTRIES || youngChars + key.length > MAX_CHARS) {
    old = young
    young = new Map()
    youngChars = 0
  }
  young.set(key, jid)
  youngChars += key.length
}

/** The address in `text`, prepared (RFC 7622); the same text usually gives the same object. Throws JidError. */
export function parseJid(text: string): JID {
  const hit = young.get(text)
  if (hit !== undefined) return hit
  const older = old.get(text)
  if (older !== undefined) {
    remember(text, older)
    return older
  }
  const jid = parse(text)
  remember(text, jid)
  return jid
}

/** As `parseJid`, but undefined when `text` is no address. */
export function tryJid(text: string): JID | undefined {
  try {
    return parseJid(text)
  } catch (error) {
    if (error instanceof JidError) return undefined
    throw error
  }
}

/** The address with these parts, each prepared; '' leaves local or resource out. Throws JidError. */
export function makeJid(local: string, domain: string, resource = ''): JID {
  return assemble(
    local === '' ? '' : prepareLocal(local),
    prepareDomain(domain),
    resource === '' ? '' : prepareResource(resource),
  )
}

function parse(text: string): JID {
  // RFC 7622 §3.2: the first slash ends the domainpart, then the first at sign before it ends the localpart.
  const slash = text.indexOf('/')
  const head = slash < 0 ? text : text.slice(0, slash)
  const at = head.indexOf('@')
  if (at === 0) throw new JidError('empty localpart')
  if (slash === text.length - 1) throw new JidError('empty resourcepart')
  return assemble(
    at < 0 ? '' : prepareLocal(head.slice(0, at)),
    prepareDomain(head.slice(at + 1)),
    slash < 0 ? '' : prepareResource(text.slice(slash + 1)),
  )
}

function assemble(local: string, domain: string, resource: string): JID {
  const bare = local === '' ? domain : `${local}@${domain}`
  return new JID(local, domain, resource, resource === '' ? bare : `${bare}/${resource}`)
}

function checkLength(part: string, name: string): string {
  if (part === '') throw new JidError(`empty ${name}`)
  if (Buffer.byteLength(part) > 1023) throw new JidError(`${name} longer than 1023 bytes`)
  return part
}

function prepareLocal(text: string): string {
  const local = text.toLowerCase().normalize('NFC')
  // RFC 7622 §3.3.1 and RFC 8264 §9.11 (printable ASCII without space)
  if (/[\u0000-\u0020\u007f-\u009f"&'/:<>@]/.test(local))
    throw new JidError('localpart has a forbidden character')
  return checkLength(local, 'localpart')
}

function prepareResource(text: string): string {
  if (/[\u0000-\u001f\u007f-\u009f]/.test(text)) throw new JidError('resourcepart has a control character')
  return checkLength(text.normalize('NFC'), 'resourcepart')
}

function prepareDomain(text: string): string {
  // RFC 7622 §3.2: a final dot is stripped before anything else
  const domain = (text.endsWith('.') ? text.slice(0, -1) : text).toLowerCase()
  if (isIPv4(domain)) return domain
  if (domain.startsWith('[')) {
    if (domain.endsWith(']') && isIPv6(domain.slice(1, -1))) return domain
    throw new JidError('bad IPv6 literal')
  }
  for (const label of domain.split('.')) {
    if (label === '' || label.length > 63) throw new JidError('domainpart has an empty or overlong label')
    if (label.startsWith('-') || label.endsWith('-'))
      throw new JidError('domain label starts or ends with a hyphen')
    if (/[\u0000-\u002c\u002f\u003a-\u0060\u007b-\u00a0]/.test(label)) {
      throw new JidError('domainpart has a forbidden character')
    }
  }
  return checkLength(domain, 'domainpart')
}
