/** Who sends and gets messages in tests of what is sent again. */
import carbons from '../../modules/carbons/index.ts'
import disco from '../../modules/disco.ts'
import mam from '../../modules/mam/index.ts'
import presence from '../../modules/presence/index.ts'
import roster from '../../modules/roster/index.ts'
import stanzaIdModule from '../../modules/stanza-id.ts'
import type { TestClient, TestHost } from './host.ts'

/** With an archive and without a store for those who are away. */
export const modules = [disco, roster, presence, stanzaIdModule, mam, carbons]
/** Two devices of one account, and one of another. */
export const THREE = [
  'juliet@example.org/balcony',
  'juliet@example.org/phone',
  'romeo@example.org/orchard',
] as const
/** For hosts whose store fails. */
export const quiet = { onLog: () => undefined }

/** They are available and get copies. */
export async function online(h: TestHost, ...jids: readonly string[]): Promise<TestClient[]> {
  const clients: TestClient[] = []
  for (const jid of jids) {
    const client = await h.client(jid)
    await client.send('<presence/>')
    await client.send("<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>")
    clients.push(client)
  }
  for (const client of clients) client.take()
  return clients
}

/** Bodies of what came. */
export const bodies = (client: TestClient) => client.take().map((e) => e.getChildText('body'))
/** Bodies of what was copied. */
export const copies = (client: TestClient) =>
  client
    .take()
    .filter((e) => e.attr('type') !== 'error')
    .map((e) => e.elements[0]?.elements[0]?.elements[0]?.getChildText('body'))
