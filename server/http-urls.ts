/** Names and base URLs of hosts at the HTTP server, and the links that modules announce for them. */
import { isIP, isIPv6 } from 'node:net'
import { comparableHost } from './http-peer.ts'
import type { Link } from './http-routes.ts'
import { OperatorError } from './operator-error.ts'

/** Base URLs by host. */
export type PublicUrls = Readonly<Record<string, readonly string[]>>

/** Virtual hosts by the names that requests may ask for. */
export interface HostNames {
  /** `name` as `comparableHost` gives it. */
  get(name: string): string | undefined
}

/**
 * The names are the hosts, those in their public URLs, and for the first host `localhost` and addresses: no page elsewhere can make
 * a browser send one of these for its own name. Throws an Error with one clear sentence when a public URL is none.
 */
export function hostNames(hosts: readonly string[], publicUrls: PublicUrls): HostNames {
  const names = new Map<string, string>()
  for (const host of hosts) names.set(comparableHost(host), host)
  for (const [host, urls] of Object.entries(publicUrls)) {
    if (!hosts.includes(host))
      throw new OperatorError(`there are public URLs for ${host}, which is no host of this server`)
    for (const url of urls) {
      const name = comparableHost(parsed(url).hostname)
      if (!names.has(name)) names.set(name, host)
    }
  }
  const [first] = hosts
  if (first !== undefined && !names.has('localhost')) names.set('localhost', first)
  return { get: (name) => names.get(name) ?? (isIP(name) === 0 ? undefined : first) }
}

function parsed(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || !/^https?:$/.test(url.protocol))
    throw new OperatorError(`the public URL "${text}" is not a URL such as https://example.org`)
  return url
}

/** The public URLs of a host, else one for each port, those with TLS first. Without a slash at the end. */
export function baseUrls(
  host: string,
  listeners: readonly { readonly tls: boolean }[],
  ports: readonly number[],
  publicUrls: PublicUrls,
): readonly string[] {
  const named = publicUrls[host]
  if (named !== undefined && named.length > 0) return named.map(withoutSlash).toSorted(secureFirst)
  const name = comparableHost(host)
  const authority = isIPv6(name) ? `[${name}]` : name
  const urls = ports.map((port, index) => {
    const tls = listeners[index]?.tls === true
    const suffix = port === (tls ? 443 : 80) ? '' : `:${port}`
    return `${tls ? 'https' : 'http'}://${authority}${suffix}`
  })
  return [...new Set(urls)].toSorted(secureFirst) // one port may be open at several addresses
}

const withoutSlash = (url: string): string => (url.endsWith('/') ? url.slice(0, -1) : url)

const secureFirst = (a: string, b: string): number =>
  Number(b.startsWith('https:')) - Number(a.startsWith('https:'))

/** All links at all base URLs, those with TLS first. */
export function linksOf(links: readonly Link[], urls: readonly string[]): { rel: string; href: string }[] {
  return urls.flatMap((url) =>
    links.map(({ rel, path, scheme }) => ({
      rel,
      href: `${scheme === 'ws' ? url.replace(/^http/, 'ws') : url}${path}`,
    })),
  )
}
