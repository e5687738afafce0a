/**
 * Who serves the domains that are no virtual hosts: components, services inside the server, other servers. Also lists them among the
 * items of the virtual host that they are below (XEP-0030 2.5.0 §4.1).
 */
import type { Host } from './host.ts'
import type { DomainTaker, TakenDomain } from './module.ts'
import { type JID, makeJid } from './xmpp/jid.ts'

/** The table of one server. */
export class DomainTable {
  readonly #hosts: ReadonlyMap<string, Host>
  readonly #takers = new Map<string, DomainTaker>()
  #others: DomainTaker | undefined

  constructor(hosts: ReadonlyMap<string, Host>) {
    this.#hosts = hosts
  }

  /** Throws Error when the domain is a virtual host or has a taker; JidError when it is no domain. */
  take(domain: string, taker: DomainTaker): TakenDomain {
    const jid = makeJid('', domain)
    if (this.#hosts.has(jid.domain)) throw new Error(`${domain} is a virtual host`)
    if (this.#takers.has(jid.domain)) throw new Error(`${domain} is served already`)
    this.#takers.set(jid.domain, taker)
    let listed: Disposable | undefined
    let given = false
    return {
      setListed: (on) => {
        if (given || on === (listed !== undefined)) return
        listed?.[Symbol.dispose]()
        listed = on ? this.#list(jid) : undefined
      },
      [Symbol.dispose]: () => {
        given = true
        listed?.[Symbol.dispose]()
        listed = undefined
        if (this.#takers.get(jid.domain) === taker) this.#takers.delete(jid.domain)
      },
    }
  }

  /** Throws Error when there is one already. */
  takeOthers(taker: DomainTaker): Disposable {
    if (this.#others !== undefined) throw new Error('other domains are served already')
    this.#others = taker
    return {
      [Symbol.dispose]: () => {
        if (this.#others === taker) this.#others = undefined
      },
    }
  }

  /** Who gets what is for this domain. */
  takerOf(domain: string): DomainTaker | undefined {
    return this.#takers.get(domain) ?? this.#others
  }

  /** Who serves this domain by name. */
  servedBy(domain: string): 'host' | 'taker' | undefined {
    if (this.#hosts.has(domain)) return 'host'
    return this.#takers.has(domain) ? 'taker' : undefined
  }

  /** Adds an item to the nearest virtual host above. */
  #list(jid: JID): Disposable {
    const undo = new DisposableStack()
    const above = jid.domain.split('.')
    while (above.length > 1) {
      above.shift()
      const host = this.#hosts.get(above.join('.'))
      if (host === undefined) continue
      host.disco.view((undoing) => void undo.use(undoing)).items('host', '', () => [{ jid }])
      break
    }
    return undo
  }
}
