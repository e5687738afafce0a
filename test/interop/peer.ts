/** The one whom a client under test talks with: this suite's own test client, its messages and its archive. */
import { Client } from '../helpers/client.ts'
import type { Address } from '../helpers/connection.ts'

/** The password of all accounts of these tests. */
export const PASSWORD = 'a good password'

/** A user of this suite's own test client, who talks with the client under test; without a proxy in between. */
export class Peer {
  readonly client: Client
  readonly #to: string

  private constructor(client: Client, to: string) {
    this.client = client
    client.timeoutMs = 30_000
    this.#to = to
  }

  static async login(address: Address, local: string, to: string): Promise<Peer> {
    const client = await Client.connect(address, 'tls', local)
    await client.authenticate(local, PASSWORD)
    await client.bind('peer')
    await client.goOnline()
    return new Peer(client, to)
  }

  send(bodies: readonly string[]): void {
    for (const body of bodies)
      this.client.sendStanza(`<message type='chat' to='${this.#to}'><body>${body}</body></message>`)
  }

  /** Texts that came, in order. */
  get got(): string[] {
    return this.client.inbox.flatMap((item) => {
      if (item.kind !== 'element' || item.el.getName() !== 'message') return []
      return item.el.getChildText('body') ?? []
    })
  }

  async waitFor(text: string): Promise<void> {
    await this.client.until(() => this.got.includes(text), `the message ${text}`)
  }

  /** Texts of its archive, oldest first (XEP-0313). */
  async archive(): Promise<string[]> {
    const { client } = this
    client.clear()
    client.sendStanza(
      "<iq type='set' id='archive'><query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><max>100</max></set></query></iq>",
    )
    await client.until(
      () => client.inbox.some((item) => item.kind === 'element' && item.el.attrs['id'] === 'archive'),
      'the archive',
    )
    return client.inbox.flatMap((item) => {
      if (item.kind !== 'element') return []
      const forwarded = item.el
        .getChild('result', 'urn:xmpp:mam:2')
        ?.getChild('forwarded', 'urn:xmpp:forward:0')
      return forwarded?.getChild('message', 'jabber:client')?.getChildText('body') ?? []
    })
  }
}
