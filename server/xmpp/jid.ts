/**
 * XMPP addresses: split, prepare, compare (RFC 7622), with a bounded cache so that an address seen before costs one Map lookup. It
 * knows nothing of who may use an address, and applies neither nickname rules (XEP-0045) nor JID escaping (XEP-0106, jid-escaping.ts).
 */
import { IdnaError, prepareDomain } from './idna.ts'
import { opaqueString, PrecisError, usernameCaseMapped } from './precis.ts'

/** A string is not an address, or not that part of one: the `jid-malformed` condition (RFC 7622 §4). */
export class JidError extends Error {
  override readonly name = 'JidError'
}

/** A prepared address. Made only by `parseJid`, `tryJid` and `makeJid`; equal addresses have equal strings. */
export class JID {
  /** Localpart, '' when none. */
  readonly local: string
  /** Domain name with U-labels, IPv4 address, or IPv6 address in square brackets. */
  readonly domain: string
  /** Resourcepart, '' when none. */
  readonly resource: string
  readonly #text: string
  #bare: JID | undefined

  /** Checks nothing: the parts must be prepared and `text` be what they add up to. */
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
    this.#bare ??= intern(
      this.local,
      this.domain,
      '',
      this.#text.slice(0, this.#text.length - this.resource.length - 1),
    )
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

  /** The same as `toString`, so that an address in JSON is a string. */
  toJSON(): string {
    return this.#text
  }

  /** RFC 7622 §3.2.3: prepared addresses are the same when their octets are. */
  equals(other: JID): boolean {
    return this === other || this.#text === other.#text
  }

  /** The bare address with this resource, prepared; throws JidError when it is no resourcepart. */
  withResource(resource: string): JID {
    if (resource === '') throw new JidError('empty resourcepart')
    return parseJid(`${this.bare.#text}/${resource}`)
  }
}

// An attribute value can be a slice of all that was read from a socket. It does not keep that alive here: the engine copies a string
// when it is looked up in a Map (a test watches this).
// The cache has two generations: a full young one becomes the old one, whose hits are taken over. Each holds at most this much.
const MAX_ENTRIES = 16_384
const MAX_CHARS = 2_097_152
const MAX_KEY_CHARS = 256
const MAX_DOMAINS = 1024

let young = new Map<string, JID>()
let old = new Map<string, JID>()
let youngChars = 0
let oldChars = 0

let youngDomains = new Map<string, string>()
let oldDomains = new Map<string, string>()

function remember(key: string, jid: JID): void {
  if (key.length > MAX_KEY_CHARS) return
  if (young.size >= MAX_ENTRIES || youngChars + key.length > MAX_CHARS) {
    old = young
    oldChars = youngChars
    young = new Map()
    youngChars = 0
  }
  young.set(key, jid)
  youngChars += key.length
}

function recall(key: string): JID | undefined {
  const hit = young.get(key)
  if (hit !== undefined) return hit
  const older = old.get(key)
  if (older !== undefined) remember(key, older)
  return older
}

/** What the cache of addresses holds, for metrics: entries and the UTF-16 units of their keys. */
export function jidCacheUsage(): { readonly entries: number; readonly chars: number } {
  return { entries: young.size + old.size, chars: youngChars + oldChars }
}

/** The address in `text`, prepared (RFC 7622); the same text usually gives the same object. Throws JidError. */
export function parseJid(text: string): JID {
  return young.get(text) ?? recall(text) ?? parse(text)
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
  // RFC 7622 §3.3.1: without this, a separator inside a part would split the address elsewhere
  if (local.includes('@') || local.includes('/')) throw new JidError('localpart has a separator')
  if (domain.includes('@') || domain.includes('/')) throw new JidError('domainpart has a separator')
  const bare = local === '' ? domain : `${local}@${domain}`
  return parseJid(resource === '' ? bare : `${bare}/${resource}`)
}

function intern(local: string, domain: string, resource: string, text: string): JID {
  const known = recall(text)
  if (known !== undefined) return known
  const jid = new JID(local, domain, resource, text)
  remember(text, jid)
  return jid
}

function parse(text: string): JID {
  const ascii = ASCII.test(text)
  // RFC 7622 §3.2: the first slash ends the domainpart, then the first at sign before it ends the localpart
  const slash = text.indexOf('/')
  const end = slash < 0 ? text.length : slash
  const found = text.indexOf('@')
  const at = found < end ? found : -1
  if (at === 0) throw new JidError('empty localpart')
  if (slash === text.length - 1 && slash >= 0) throw new JidError('empty resourcepart')
  const local = at < 0 ? '' : prepareLocal(text.slice(0, at))
  const domain = cachedDomain(text.slice(at + 1, end))
  const resource = slash < 0 ? '' : prepareResource(text.slice(slash + 1), ascii)
  const bare = local === '' ? domain : `${local}@${domain}`
  const prepared = resource === '' ? bare : `${bare}/${resource}`
  if (prepared === text) return intern(local, domain, resource, text)
  const jid = intern(local, domain, resource, prepared)
  remember(text, jid)
  return jid
}

const ASCII = /^[\x20-\x7e]*$/
// RFC 7622 §3.3.1: printable ASCII without " & ' / : < > @ and space
const ASCII_LOCAL = /^[!#-%(-.0-9;=?A-Z[-~]+$/
const FORBIDDEN_IN_LOCAL = /["&'/:<>@]/
const MAX_PART_BYTES = 1023

function checkLength(part: string, name: string): string {
  // RFC 7622 §3.1: 1 to 1023 octets after preparation; one UTF-16 unit is three octets at most
  if (part.length * 3 > MAX_PART_BYTES && Buffer.byteLength(part) > MAX_PART_BYTES) {
    throw new JidError(`${name} longer than ${MAX_PART_BYTES} bytes`)
  }
  return part
}

function prepareLocal(text: string): string {
  if (ASCII_LOCAL.test(text)) return checkLength(text.toLowerCase(), 'localpart')
  try {
    const local = usernameCaseMapped(text)
    // RFC 7622 §3.3.1: after mapping, which makes such characters out of fullwidth ones
    if (FORBIDDEN_IN_LOCAL.test(local)) throw new JidError('localpart has a forbidden character')
    return checkLength(local, 'localpart')
  } catch (error) {
    if (error instanceof PrecisError) throw new JidError(`localpart: ${error.message}`, { cause: error })
    throw error
  }
}

function prepareResource(text: string, ascii: boolean): string {
  if (ascii) return checkLength(text, 'resourcepart')
  try {
    return checkLength(opaqueString(text), 'resourcepart')
  } catch (error) {
    if (error instanceof PrecisError) throw new JidError(`resourcepart: ${error.message}`, { cause: error })
    throw error
  }
}

/** Prepared domains are few and shared by many addresses: one string each, remembered. */
function cachedDomain(text: string): string {
  const known = youngDomains.get(text) ?? oldDomains.get(text)
  if (known !== undefined) return known
  try {
    const domain = checkLength(prepareDomain(text), 'domainpart')
    if (youngDomains.size >= MAX_DOMAINS) {
      oldDomains = youngDomains
      youngDomains = new Map()
    }
    youngDomains.set(text, domain)
    return domain
  } catch (error) {
    if (error instanceof IdnaError) throw new JidError(`domainpart: ${error.message}`, { cause: error })
    throw error
  }
}
