/**
 * Who is behind an HTTP request: addresses and TLS as trusted proxies report them (X-Forwarded-For, X-Forwarded-Proto,
 * X-Forwarded-Host), else as the connection has them. Does not read the Forwarded header (RFC 7239).
 */
import type { IncomingMessage } from 'node:http'
import { isIP } from 'node:net'
import type { Duplex } from 'node:stream'
import { domainToASCII } from 'node:url'
import { AddressSet, plainAddress } from './addresses.ts'
import type { HttpPeer, TlsInfo } from './module.ts'

/** Entries of X-Forwarded-For that are looked at, from the last one on. */
const MAX_HOPS = 20

/** TLS that ends at a proxy: encrypted on the way to the client, but nothing to bind to. */
const forwardedTls: TlsInfo = {
  protocol: 'forwarded',
  cipher: '',
  channelBinding: () => undefined,
  clientCertificate: () => undefined,
}

/** Reads who the peer of a request is. */
export class Peers {
  readonly #trusted: AddressSet
  readonly #tls = new WeakMap<Duplex, TlsInfo>()

  /** Throws an Error with one clear sentence when an entry is no address or network. */
  constructor(trustedProxies: readonly string[]) {
    this.#trusted = new AddressSet(trustedProxies)
  }

  /** Notes the TLS of a connection. */
  setTls(socket: Duplex, tls: TlsInfo): void {
    this.#tls.set(socket, tls)
  }

  isTrusted(address: string): boolean {
    return this.#trusted.has(address)
  }

  /** Address and TLS of the client. */
  of(req: IncomingMessage): HttpPeer {
    const direct = plainAddress(req.socket.remoteAddress)
    const own = this.#tls.get(req.socket)
    if (!this.isTrusted(direct)) return { remoteAddress: direct, tls: own }
    const scheme = lastOf(req.headers['x-forwarded-proto'])
    const outside =
      scheme === undefined ? own : scheme === 'https' || scheme === 'wss' ? forwardedTls : undefined
    return { remoteAddress: this.#client(direct, req.headers['x-forwarded-for']), tls: outside }
  }

  /** The host that the client asked for, without port; undefined when it named none. */
  hostName(req: IncomingMessage): string | undefined {
    const direct = plainAddress(req.socket.remoteAddress)
    const forwarded = this.isTrusted(direct) ? lastOf(req.headers['x-forwarded-host']) : undefined
    const host = forwarded ?? req.headers.host
    return host === undefined || host === '' ? undefined : withoutPort(host)
  }

  #client(direct: string, header: string | readonly string[] | undefined): string {
    const text = typeof header === 'string' ? header : (header ?? []).join(',')
    let client = direct
    for (const entry of text.split(',').slice(-MAX_HOPS).reverse()) {
      const address = plainAddress(entry.trim())
      if (isIP(address) === 0) break
      client = address
      if (!this.isTrusted(address)) break
    }
    return client
  }
}

function lastOf(header: string | readonly string[] | undefined): string | undefined {
  const text = typeof header === 'string' ? header : header?.at(-1)
  return text?.split(',').at(-1)?.trim().toLowerCase()
}

function withoutPort(host: string): string {
  const end = host.startsWith('[') ? host.indexOf(']') + 1 : host.indexOf(':')
  return end <= 0 ? host : host.slice(0, end)
}

/** A host name for comparing: ASCII, lower case, without the final dot and the brackets of an address. */
export function comparableHost(name: string): string {
  const bare = name.startsWith('[') && name.endsWith(']') ? name.slice(1, -1) : name
  const plain = bare.endsWith('.') ? bare.slice(0, -1) : bare
  return /^[\0-\x7f]*$/.test(plain) ? plain.toLowerCase() : domainToASCII(plain)
}
