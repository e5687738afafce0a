/** RFC 6120 §10, RFC 6121 §8.5: delivery of stanzas between local accounts. */
import { expect } from 'chai'
import { testHost } from '../helpers/host.ts'

describe('router', () => {
  it('delivers a chat message to the resource of the highest priority (RFC 6121 §8.5.2.1.1)', async () => {
    await using h = await testHost({ modules: [], accounts: ['romeo', 'juliet'] })
    const romeo = await h.client('romeo@example.org/orchard')
    const juliet = await h.client('juliet@example.org/balcony')
    expect(
      (await romeo.send(`<message to='juliet@example.org' type='chat' id='1'><body>hi</body></message>`)).map(
        String,
      ),
    ).to.deep.equal([
      `<message xmlns='jabber:client' type='error' id='1' to='romeo@example.org/orchard' from='juliet@example.org'><body>hi</body><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>`,
    ])
    expect(juliet.take()).to.deep.equal([])
    await romeo.send(`<message to='juliet@example.org/balcony' type='chat' id='2'><body>hi</body></message>`)
    expect(juliet.take().map(String)).to.deep.equal([
      `<message xmlns='jabber:client' to='juliet@example.org/balcony' type='chat' id='2' from='romeo@example.org/orchard'><body>hi</body></message>`,
    ])
  })
})
