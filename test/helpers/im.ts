/** What the tests of rosters, presence and blocking share: clients that are online, readable views of what they received. */
import presence from '../../modules/presence/index.ts'
import roster from '../../modules/roster/index.ts'
import type { Store } from '../../server/storage/contract.ts'
import type { Element } from '../../server/xmpp/element.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { type TestClient, type TestHost, testHost } from './host.ts'
import { settle } from './settle.ts'

/** Accounts of `startIm`. */
export const imAccounts: readonly string[] = ['juliet', 'romeo', 'nurse']

/** A host with roster and presence. */
export function startIm(config: object = {}, store?: Store): Promise<TestHost> {
  return testHost({
    modules: [roster, presence],
    accounts: imAccounts,
    config: { roster: config },
    ...(store === undefined ? {} : { store }),
  })
}

/** Asks for the roster, which also makes the client interested (RFC 6121 §2.2). */
export async function getRoster(client: TestClient, ver?: string): Promise<Element[]> {
  const attr = ver === undefined ? '' : ` ver='${ver}'`
  return client.send(`<iq type='get' id='get'><query xmlns='${NS.ROSTER}'${attr}/></iq>`)
}

/** The whole roster as the client gets it now. */
export async function wholeRoster(client: TestClient): Promise<Element> {
  // A large one is read from the store in slices.
  for (let received = await getRoster(client); ; received = client.take()) {
    const result = received.find((e) => e.attr('id') === 'get')
    if (result !== undefined) return result.getChild('query', NS.ROSTER)!
    await settle(1)
  }
}

/** A roster set. */
export function setItem(client: TestClient, item: string, id = 'set'): Promise<Element[]> {
  return client.send(`<iq type='set' id='${id}'><query xmlns='${NS.ROSTER}'>${item}</query></iq>`)
}

/** A client that is interested and available and has nothing unread. */
export async function online(host: TestHost, jid: string): Promise<TestClient> {
  const client = await host.client(jid)
  await getRoster(client)
  await client.send('<presence/>')
  return client
}

/** Makes a mutual subscription of two clients that are online. */
export async function befriend(a: TestClient, b: TestClient): Promise<void> {
  const [toA, toB] = [a.jid.bare.toString(), b.jid.bare.toString()]
  await a.send(`<presence to='${toB}' type='subscribe'/>`)
  await b.send(`<presence to='${toA}' type='subscribed'/>`)
  await b.send(`<presence to='${toA}' type='subscribe'/>`)
  await a.send(`<presence to='${toB}' type='subscribed'/>`)
  a.take()
  b.take()
}

/** A stanza as it would come from another domain. */
export async function fromRemote(host: TestHost, xml: string): Promise<void> {
  await host.router.route(parseXml(xml.replace(/^<\w+/, `$& xmlns='jabber:client'`)))
  await host.settle()
}

/** Presence stanzas among what was received. */
export const presences = (received: readonly Element[]): Element[] =>
  received.filter((e) => e.name === 'presence')

/** Roster and other pushes among what was received. */
export const pushes = (received: readonly Element[]): Element[] =>
  received.filter((e) => e.name === 'iq' && e.attr('type') === 'set')

/** The item of each roster push, as XML without the namespace. */
export const items = (received: readonly Element[]): string[] =>
  pushes(received).map((push) => push.getChild('query', NS.ROSTER)!.getChild('item')!.toString(NS.ROSTER))

/** The version of each roster push. */
export const vers = (received: readonly Element[]): string[] =>
  pushes(received).map((push) => push.getChild('query', NS.ROSTER)!.attr('ver') ?? '')

/** The condition of an error stanza. */
export const condition = (e: Element | undefined): string | undefined =>
  e?.getChild('error')?.elements.find((child) => child.ns === NS.STANZAS)?.name

/** Presence as 'type from', roster pushes as 'push item', in the order received. */
export const seen = (received: readonly Element[]): string[] =>
  received.map((e) =>
    e.name === 'presence'
      ? `${e.attr('type') ?? 'available'} ${e.attr('from')}`
      : e.attr('type') === 'set'
        ? `push ${items([e])[0]}`
        : `${e.name} ${e.attr('type')}`,
  )
