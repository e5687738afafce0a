/** XEP-0359: forged ids go, others stay; XEP-0203 §5: forged delays go. */
import { expect } from 'chai'
import stanzaIds from '../../modules/stanza-id.ts'
import disco from '../../modules/disco.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { archiveHost, chat, query, stanzaId } from '../helpers/archive.ts'
import { type TestClient, type TestHost, testHost } from '../helpers/host.ts'
import { fromRemote } from '../helpers/im.ts'
import { features } from '../helpers/iq.ts'

const id = (by: string, value = 'forged'): string => `<stanza-id xmlns='${NS.SID}' id='${value}' by='${by}'/>`
const delay = (from: string): string =>
  `<delay xmlns='${NS.DELAY}' from='${from}' stamp='2020-01-01T00:00:00Z'/>`

async function start(): Promise<{ h: TestHost; juliet: TestClient; romeo: TestClient }> {
  const h = await testHost({ modules: [disco, stanzaIds], accounts: ['juliet', 'romeo'] })
  const [juliet, romeo] = [
    await h.client('juliet@example.org/balcony'),
    await h.client('romeo@example.org/orchard'),
  ]
  return { h, juliet, romeo }
}

/** What romeo finds in a message with that content: 'name by/from' of each element but the body. */
async function arrives(
  { h, juliet, romeo }: Awaited<ReturnType<typeof start>>,
  content: string,
  sender = 'juliet@example.org/balcony',
): Promise<readonly string[]> {
  if (sender.startsWith('juliet@example.org'))
    await juliet.send(chat('romeo@example.org/orchard', 'Hi', content))
  else
    await fromRemote(
      h,
      `<message from='${sender}' to='romeo@example.org/orchard' type='chat'><body>Hi</body>${content}</message>`,
    )
  const [message] = romeo.take()
  expect(message?.getChildText('body')).to.equal('Hi')
  return (message?.elements ?? [])
    .slice(1)
    .map((e) => `${e.name} ${e.attr('by') ?? e.attr('from') ?? e.attr('id') ?? ''}`.trim())
}

describe('module stanza-id', () => {
  it('§5: the namespace is a feature of accounts and of the host; not after unload', async () => {
    const { h, juliet } = await start()
    await using _ = h
    for (const jid of ['juliet@example.org', 'example.org'])
      expect(await features(juliet, jid)).to.include(NS.SID)
    await h.unload('stanza-id')
    expect(await features(juliet, 'juliet@example.org')).not.to.include(NS.SID)
  })

  it('§3 rule 2: an id with the address of the receiving account is deleted, of local and remote senders', async () => {
    const stage = await start()
    await using _ = stage.h
    const content = id('romeo@example.org')
    expect(await arrives(stage, content)).to.deep.equal([])
    expect(await arrives(stage, content, 'nurse@example.net/x')).to.deep.equal([])
    expect(await arrives(stage, content + id('room@conference.example.net') + content)).to.deep.equal([
      'stanza-id room@conference.example.net',
    ])
  })

  it('§3 rule 2: so is one with the address of the sending account', async () => {
    const stage = await start()
    await using _ = stage.h
    expect(await arrives(stage, id('juliet@example.org'))).to.deep.equal([])
  })

  it('§3 rule 7: addresses are compared when they are prepared', async () => {
    const stage = await start()
    await using _ = stage.h
    expect(await arrives(stage, id('ROMEO@Example.ORG') + id('Romeo@example.org'))).to.deep.equal([])
  })

  it('§3 rule 3: all else of the namespace stays', async () => {
    const stage = await start()
    await using _ = stage.h
    const content = [
      id('room@conference.example.net'),
      id('romeo@example.net'),
      id('romeo@example.org/orchard'),
      id('example.org'),
      id('not an address @'),
      `<origin-id xmlns='${NS.SID}' id='o1'/>`,
      `<referenced-stanza xmlns='${NS.SID}' id='r1' by='romeo@example.org'/>`,
      "<stanza-id xmlns='urn:x' by='romeo@example.org' id='1'/>",
    ].join('')
    expect(await arrives(stage, content)).to.deep.equal([
      'stanza-id room@conference.example.net',
      'stanza-id romeo@example.net',
      'stanza-id romeo@example.org/orchard',
      'stanza-id example.org',
      'stanza-id not an address @',
      'origin-id o1',
      'referenced-stanza romeo@example.org',
      'stanza-id romeo@example.org',
    ])
  })

  it('ids deeper in the message are somebody’s text', async () => {
    const stage = await start()
    await using _ = stage.h
    await stage.juliet.send(
      chat('romeo@example.org/orchard', 'Hi', `<x xmlns='urn:x'>${id('romeo@example.org')}</x>`),
    )
    expect(stage.romeo.take()[0]?.toString()).to.contain("id='forged'")
  })

  it('XEP-0203 §5: a delay in the name of this server is deleted, others stay', async () => {
    const stage = await start()
    await using _ = stage.h
    const content =
      delay('example.org') + delay('juliet@example.org') + delay('example.net') + delay('EXAMPLE.org')
    const left = ['delay juliet@example.org', 'delay example.net']
    expect(await arrives(stage, content)).to.deep.equal(left)
    expect(await arrives(stage, content, 'nurse@example.net/x')).to.deep.equal(left)
  })

  it('XEP-0203 §5: so it is in presence', async () => {
    const stage = await start()
    await using _ = stage.h
    const presence = (from: string) =>
      `<presence from='${from}' to='romeo@example.org/orchard'>${delay('example.org')}${delay('a.example')}</presence>`
    const delays = () =>
      stage.romeo.take().flatMap((e) => e.getChildren('delay', NS.DELAY).map((d) => d.attr('from')))
    await stage.juliet.send(presence('juliet@example.org/balcony'))
    expect(delays()).to.deep.equal(['a.example'])
    await fromRemote(stage.h, presence('nurse@example.net/x'))
    expect(delays()).to.deep.equal(['a.example'])
    // the time of the last presence, told by the server itself (XEP-0203 §2)
    await fromRemote(stage.h, presence('juliet@example.org/balcony'))
    expect(delays()).to.deep.equal(['example.org', 'a.example'])
  })

  it('a delay that a service of this server added stays', async () => {
    const stage = await start()
    await using _ = stage.h
    expect(await arrives(stage, delay('example.org'), 'example.org')).to.deep.equal(['delay example.org'])
  })

  it('§3 rule 4: with an archive there is exactly one id of the account, the true one', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    const romeo = await h.client('romeo@example.org/orchard')
    await juliet.send(
      chat('romeo@example.org/orchard', 'Hi', id('romeo@example.org') + id('juliet@example.org')),
    )
    const [message] = romeo.take()
    expect(message?.getChildren('stanza-id', NS.SID)).to.have.length(1)
    const { ids, results } = await query(romeo)
    expect(stanzaId(message, 'romeo@example.org')).to.equal(ids[0])
    // nor is a forged one in an archive, where it could be taken for one of the archive
    expect(results[0]?.message.toString()).not.to.contain("by='romeo@example.org'")
    expect((await query(juliet)).results[0]?.message.toString()).not.to.contain("by='juliet@example.org'")
  })
})
