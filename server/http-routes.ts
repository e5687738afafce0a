/**
 * What modules have registered at the HTTP server: routes, upgrades and links by host, each removable. fastify cannot
 * remove routes, so it gets one route for everything and asks here.
 */
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import findMyWay, { type HTTPVersion, type Instance } from 'find-my-way'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Http, HttpBody, HttpPeer } from './module.ts'

/** Methods that a module can have routes for. */
export const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS'] as const
type Method = (typeof METHODS)[number]

/** A registered route. */
export interface Route {
  readonly module: string
  readonly method: Method
  readonly path: string
  readonly maxBody: number
  readonly body: 'buffer' | 'stream'
  handle(req: FastifyRequest, reply: FastifyReply): HttpBody | Promise<HttpBody>
}

/** A route that fits a request, with the parameters of its path. */
export interface Match {
  readonly route: Route
  readonly params: Readonly<Record<string, string | undefined>>
}

/** Takes over a connection. */
export type UpgradeHandler = (req: IncomingMessage, socket: Duplex, head: Buffer, peer: HttpPeer) => void
/** An announced way to connect. */
export type Link = Parameters<Http['link']>[0]

/** Of one host, or of the server ('' as name), which all hosts fall back to. */
class HostTable {
  readonly router: Instance<HTTPVersion.V1> = findMyWay({ maxParamLength: 1024 })
  readonly upgrades = new Map<string, { readonly module: string; readonly handle: UpgradeHandler }>()
  readonly links: Link[] = []
}

/** All registrations of all modules. */
export class RouteTable {
  readonly #tables = new Map<string, HostTable>([['', new HostTable()]])

  constructor(hosts: readonly string[]) {
    for (const host of hosts) this.#tables.set(host, new HostTable())
  }

  /** Throws when the place is taken or the path is not one. */
  route(host: string, route: Route): Disposable {
    const { router } = this.#table(host)
    const { method, path, module } = route
    const old = router.findRoute(method, path)
    if (old !== null)
      throw new Error(taken(`${method} ${path}`, host, module, storedRoute(old.store)?.module))
    router.on(method, path, unused, route)
    return { [Symbol.dispose]: () => router.off(method, path) }
  }

  /** Throws when the place is taken. */
  upgrade(host: string, path: string, module: string, handle: UpgradeHandler): Disposable {
    const { upgrades } = this.#table(host)
    const old = upgrades.get(path)
    if (old !== undefined) throw new Error(taken(`upgrade ${path}`, host, module, old.module))
    upgrades.set(path, { module, handle })
    return { [Symbol.dispose]: () => void upgrades.delete(path) }
  }

  link(host: string, link: Link): Disposable {
    const { links } = this.#table(host)
    links.push(link)
    return { [Symbol.dispose]: () => void links.splice(links.indexOf(link), 1) }
  }

  /** The route of a request; or, when the path has only other methods, those. */
  find(host: string, method: string, url: string): Match | { readonly allowed: readonly string[] } {
    const known = METHODS.find((name) => name === method)
    const tables = this.#tablesFor(host)
    for (const { router } of known === undefined ? [] : tables) {
      const found = router.find(known ?? 'GET', url)
      const route = storedRoute(found?.store)
      if (found !== null && route !== undefined) return { route, params: found.params }
    }
    const other = METHODS.filter((name) => tables.some(({ router }) => router.find(name, url) !== null))
    return { allowed: other }
  }

  findUpgrade(host: string, url: string): UpgradeHandler | undefined {
    const [path = ''] = url.split(/[?#]/, 1)
    for (const { upgrades } of this.#tablesFor(host)) {
      const found = upgrades.get(path)
      if (found !== undefined) return found.handle
    }
    return undefined
  }

  /** Announced for the host itself and for all hosts. */
  links(host: string): readonly Link[] {
    return this.#tablesFor(host).flatMap(({ links }) => links)
  }

  #table(host: string): HostTable {
    const table = this.#tables.get(host)
    if (table === undefined) throw new Error(`there is no host ${host}`)
    return table
  }

  #tablesFor(host: string): HostTable[] {
    const names = host === '' ? [''] : [host, '']
    return names.flatMap((name) => this.#tables.get(name) ?? [])
  }
}

const taken = (what: string, host: string, module: string, owner: string | undefined) =>
  `module ${module}: ${what}${host === '' ? '' : ` on ${host}`} belongs to module ${owner ?? 'unknown'} already`

function unused(): void {
  // The router only finds; fastify calls.
}

function storedRoute(store: unknown): Route | undefined {
  return store as Route | undefined // only `route` above stores
}
