/** A scripted external component for tests (XEP-0114 1.6): a client's connection with the header and the handshake of a component. */
import { createHash } from 'node:crypto'
import { escapeXML } from 'ltx'
import { Client } from './client.ts'
import type { Address, Incoming } from './connection.ts'
import { NS_CLIENT, NS_STREAM } from './xml.ts'

const NS_COMPONENT = 'jabber:component:accept'

/** The secret of all components of the tests. */
export const COMPONENT_SECRET = 'secret'

/** Domains of components that servers of the tests know: c1.localhost, c2.localhost and so on. */
export const componentDomains = (domain: string): readonly string[] =>
  Array.from({ length: 9 }, (_, i) => `c${i + 1}.${domain}`)

/** One component. Elements of its stream are read as if they were in jabber:client, so that patterns fit both. */
export class ComponentClient extends Client {
  #domain = ''
  #streamId = ''

  /** Connects, and sends nothing yet. */
  static override async connect(
    address: Address,
    _via: unknown,
    name = 'component',
  ): Promise<ComponentClient> {
    const { component } = address.ports
    if (component === undefined) throw new Error('this server has no port for components')
    const client = new ComponentClient(
      { ...address, ports: { ...address.ports, c2s: component } },
      'tcp',
      name,
    )
    await client.open()
    return client
  }

  override sendHeader(to = this.#domain): void {
    this.#domain = to
    this.resetReader()
    this.send(
      `<?xml version='1.0'?><stream:stream to='${escapeXML(to)}' xmlns='${NS_COMPONENT}' xmlns:stream='${NS_STREAM}'>`,
    )
  }

  /** The header and the server's. */
  override async openStream(to = this.#domain): Promise<void> {
    this.sendHeader(to)
    const header = await this.expectHeader()
    this.#streamId = header.attrs['id'] ?? ''
  }

  /** §3, example 3. */
  sendHandshake(secret = COMPONENT_SECRET): void {
    const hash = createHash('sha1').update(this.#streamId + secret)
    this.send(`<handshake>${hash.digest('hex')}</handshake>`)
  }

  /** All of it. */
  async serve(domain: string): Promise<void> {
    await this.openStream(domain)
    this.sendHandshake()
    await this.expect('<handshake/>')
    this.jid = domain
  }

  /** With the address of the component, unless it has one. */
  override sendStanza(text: string): void {
    this.send(/^<\w+[^>]*\sfrom=/.test(text) ? text : text.replace(/^<\w+/, `$& from='${this.jid}'`))
  }

  override takes(item: Incoming): boolean {
    if (item.kind === 'header' && item.el.attrs['xmlns'] === NS_COMPONENT) item.el.attrs['xmlns'] = NS_CLIENT
    return super.takes(item)
  }
}
