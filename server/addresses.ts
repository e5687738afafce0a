/** IP addresses of peers: one spelling for each, and sets of networks. No names, no look-ups. */
import { BlockList, isIP } from 'node:net'
import { OperatorError } from './operator-error.ts'

/** The address in one spelling: IPv4 mapped into IPv6 becomes IPv4, a zone is cut off. '' when there is none. */
export function plainAddress(address: string | undefined): string {
  if (address === undefined) return ''
  const zone = address.indexOf('%')
  const text = zone < 0 ? address : address.slice(0, zone)
  if (text.startsWith('::ffff:') && text.includes('.')) return text.slice(7)
  return text
}

/** Whether the address is one of this machine itself. */
export function isLoopback(address: string): boolean {
  const plain = plainAddress(address)
  return plain === '::1' || (isIP(plain) === 4 && plain.startsWith('127.'))
}

/** Addresses and networks such as `127.0.0.1`, `10.0.0.0/8`, `fd00::/8`. */
export class AddressSet {
  readonly #list = new BlockList()

  /** Throws an Error with one clear sentence when an entry is neither an address nor a network. */
  constructor(entries: readonly string[]) {
    for (const entry of entries) this.#add(entry)
  }

  #add(entry: string): void {
    const slash = entry.indexOf('/')
    const address = slash < 0 ? entry : entry.slice(0, slash)
    const version = isIP(address)
    const type = version === 4 ? 'ipv4' : 'ipv6'
    const widest = version === 4 ? 32 : 128
    const bits =
      slash < 0 ? widest : /^\d{1,3}$/.test(entry.slice(slash + 1)) ? Number(entry.slice(slash + 1)) : -1
    if (version === 0 || bits < 0 || bits > widest)
      throw new OperatorError(`"${entry}" is neither an IP address nor a network such as 10.0.0.0/8`)
    this.#list.addSubnet(address, bits, type)
  }

  /** False for everything that is not an IP address. */
  has(address: string): boolean {
    const plain = plainAddress(address)
    const version = isIP(plain)
    return version !== 0 && this.#list.check(plain, version === 4 ? 'ipv4' : 'ipv6')
  }
}
