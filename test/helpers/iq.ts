/** Requests of a bound client, and short forms of their answers. */
import type { Element } from '../../server/xmpp/element.ts'
import type { TestClient } from './host.ts'

let ids = 0

/** Sends a request; the one answer to it. Other stanzas that came with it are dropped. */
export async function ask(
  client: TestClient,
  type: 'get' | 'set',
  to: string | undefined,
  payload: string,
): Promise<Element> {
  const id = `ask${++ids}`
  const address = to === undefined ? '' : ` to='${to}'`
  const received = await client.send(`<iq type='${type}' id='${id}'${address}>${payload}</iq>`)
  const answers = received.filter((e) => e.name === 'iq' && e.attr('id') === id)
  const [answer] = answers
  if (answer === undefined || answers.length > 1)
    throw new Error(`${answers.length} answers to ${payload}: ${received.join('')}`)
  return answer
}

/** 'result', or the type and condition of an error: 'cancel service-unavailable'. */
export function outcome(answer: Element): string {
  const error = answer.getChild('error')
  if (error === undefined) return answer.attr('type') ?? ''
  return `${error.attr('type')} ${error.firstElement()?.name}`
}

const INFO = 'http://jabber.org/protocol/disco#info'

/** The disco information of an address. */
export async function discoInfo(client: TestClient, to: string, node?: string): Promise<Element> {
  const at = node === undefined ? '' : ` node='${node}'`
  const answer = await ask(client, 'get', to, `<query xmlns='${INFO}'${at}/>`)
  const query = answer.getChild('query', INFO)
  if (query === undefined) throw new Error(`no disco information: ${answer.toString()}`)
  return query
}

/** The features that an address announces. */
export async function features(client: TestClient, to: string): Promise<string[]> {
  const query = await discoInfo(client, to)
  return query.getChildren('feature').map((f) => f.attr('var') ?? '')
}

/** Makes `owner` show its presence to `contact`; both need a roster, and leave what was sent to them unread. */
export async function share(owner: TestClient, contact: TestClient): Promise<void> {
  await contact.send(`<presence to='${owner.jid.bare.toString()}' type='subscribe'/>`)
  await owner.send(`<presence to='${contact.jid.bare.toString()}' type='subscribed'/>`)
  owner.take()
  contact.take()
}
