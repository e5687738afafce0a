/** What the tests of carbons share: devices of two accounts, readable views of what they received. */
import carbons from '../../modules/carbons/index.ts'
import type { Element } from '../../server/xmpp/element.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { type TestClient, type TestHost, testHost } from './host.ts'
import { ask } from './iq.ts'

/** XEP-0280. */
export const NS = 'urn:xmpp:carbons:2'
/** XEP-0297. */
export const FORWARD = 'urn:xmpp:forward:0'
/** XEP-0280 §9. */
export const PRIVATE = `<private xmlns='${NS}'/>`
/** XEP-0045. */
export const MUC_USER = 'http://jabber.org/protocol/muc#user'
/** Accounts of these tests. */
export const accounts = ['romeo', 'juliet']
/** A host with carbons and nothing else. */
export const start = (): Promise<TestHost> => testHost({ modules: [carbons], accounts })

/** A client with a priority, with carbons unless told not to. */
export async function device(
  h: TestHost,
  jid: string,
  opts: { on?: boolean; priority?: number } = {},
): Promise<TestClient> {
  const client = await h.client(jid)
  client.session.setPresence(
    parseXml(`<presence xmlns='jabber:client'><priority>${opts.priority ?? 0}</priority></presence>`),
  )
  if (opts.on !== false) await ask(client, 'set', undefined, `<enable xmlns='${NS}'/>`)
  client.take()
  return client
}
/** Copies as 'sent body' and 'received body', other messages as their body or type. */
export const seen = (received: readonly Element[]): string[] =>
  received.map((e) => {
    const [kind, inner] = unwrap(e)
    return kind === undefined ? words(e) : `${kind} ${words(inner!)}`
  })
const words = (e: Element): string =>
  (e.attr('type') === 'error' ? undefined : e.getChildText('body')) ?? e.attr('type') ?? e.name
/** 'sent' or 'received' and the message within a copy. */
export function unwrap(e: Element): readonly [string | undefined, Element | undefined] {
  const wrapper = e.elements.find(
    (child) => child.ns === NS && child.getChild('forwarded', FORWARD) !== undefined,
  )
  return [wrapper?.name, wrapper?.getChild('forwarded', FORWARD)?.getChild('message', 'jabber:client')]
}
/** A message. */
export const say = (to: string, inner = '<body>Hi</body>', attrs = "type='chat'"): string =>
  `<message to='${to}' ${attrs}>${inner}</message>`

/** Romeo has three devices: one that talks, one that listens and one without carbons; Juliet has two. */
export async function scene(h: TestHost) {
  return {
    phone: await device(h, 'romeo@example.org/phone'),
    laptop: await device(h, 'romeo@example.org/laptop'),
    old: await device(h, 'romeo@example.org/old', { on: false }),
    balcony: await device(h, 'juliet@example.org/balcony', { priority: 1 }),
    chamber: await device(h, 'juliet@example.org/chamber'),
  }
}
/** The devices of `scene`. */
export type Scene = Awaited<ReturnType<typeof scene>>
/** What the devices other than the sender and the addressed one get of a message from Romeo's phone: 'laptop old chamber'. */
export async function copied(s: Scene, message: string): Promise<string> {
  await s.phone.send(message)
  s.balcony.take()
  const got = { laptop: s.laptop.take(), old: s.old.take(), chamber: s.chamber.take() }
  return Object.entries(got)
    .filter(([, received]) => received.length > 0)
    .map(([name, received]) => `${name}:${seen(received).join(',')}`)
    .join(' ')
}
/** What `copied` gives when both sides have a copy. */
export const both = (what: string): string => `laptop:sent ${what} chamber:received ${what}`
