/** XEP-0424: tombstones in archives, who may ask for them, and what stays. */
import { expect } from 'chai'
import { NS } from '../../server/xmpp/ns.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { archiveHost, chat, query } from '../helpers/archive.ts'
import type { TestClient } from '../helpers/host.ts'
import { fromRemote } from '../helpers/im.ts'
import { features } from '../helpers/iq.ts'

const RETRACT = 'urn:xmpp:message-retract:1'

const retraction = (target: string, id = 'r1'): string =>
  `<message to='romeo@example.org' type='chat' id='${id}'><retract xmlns='${RETRACT}' id='${target}'/><fallback xmlns='urn:xmpp:fallback:0' for='${RETRACT}'/><body>/me retracted</body><store xmlns='urn:xmpp:hints'/></message>`

/** What the archive of a client's account has: bodies, or 'tombstone ID by RETRACTION'. */
async function contents(client: TestClient): Promise<string[]> {
  const { results } = await query(client, { rsm: '<max>1000</max>' })
  return results.map(({ message, body }) => {
    const retracted = message.getChild('retracted', RETRACT)
    return retracted === undefined
      ? (body ?? '')
      : `tombstone ${message.attr('id')} by ${retracted.attr('id')}`
  })
}

describe('module retract', () => {
  it('§2, §4: the features, of account and host', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    for (const jid of ['juliet@example.org', 'example.org'])
      expect(await features(juliet, jid)).to.include.members([RETRACT, `${RETRACT}#tombstone`])
    await h.unload('retract')
    expect(await features(juliet, 'juliet@example.org')).not.to.include(`${RETRACT}#tombstone`)
  })

  it('goes when the archives are turned off, and is there when they are turned on', async () => {
    await using h = await archiveHost()
    await h.unload('mam')
    const juliet = await h.client('juliet@example.org/balcony')
    expect(await features(juliet, 'juliet@example.org')).not.to.include.members([RETRACT])
    await h.reload(new Map())
    expect(await features(juliet, 'juliet@example.org')).to.include.members([RETRACT])
    await juliet.send(chat('romeo@example.org', 'wrong'))
    await juliet.send(retraction('wrong'))
    expect(await contents(juliet)).to.deep.equal(['tombstone wrong by r1', '/me retracted'])
  })

  it('§4: in both archives, with the receiver offline; the retraction stays, id and time too', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    await juliet.send(chat('romeo@example.org', 'before'))
    const sentAt = new Date(h.clock.now()).toISOString()
    await juliet.send(
      "<message to='romeo@example.org' type='chat' id='wrong' xml:lang='en'><body>secret words</body><x xmlns='urn:x'>secret</x></message>",
    )
    await juliet.send(chat('romeo@example.org', 'after'))
    const old = (await query(juliet)).ids
    await h.clock.advance(5000)
    await juliet.send(retraction('wrong'))
    const romeo = await h.client('romeo@example.org/orchard')
    for (const client of [juliet, romeo]) {
      expect(await contents(client)).to.deep.equal([
        'before',
        'tombstone wrong by r1',
        'after',
        '/me retracted',
      ])
      const { results } = await query(client)
      expect(results[1]?.message.toString(NS.CLIENT)).to.equal(
        `<message to='romeo@example.org' type='chat' id='wrong' xml:lang='en' from='juliet@example.org/balcony'><retracted xmlns='${RETRACT}' id='r1' stamp='${new Date(h.clock.now()).toISOString()}'/></message>`,
      )
      expect(results[1]?.stamp).to.equal(sentAt)
      expect(results.map(({ message }) => message.toString()).join('')).not.to.contain('secret')
      expect(
        (await query(client, { form: { '{urn:xmpp:fulltext:0}fulltext': 'secret' } })).results,
      ).to.have.length(0)
    }
    expect((await query(juliet)).ids.slice(0, 3)).to.deep.equal(old)
  })

  it('§5: only the author’s retraction counts, whichever of his devices it is from', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    const romeo = await h.client('romeo@example.org/orchard')
    await juliet.send(chat('romeo@example.org', 'one'))
    // the other side of the conversation
    await romeo.send(retraction('one').replace("to='romeo@", "to='juliet@"))
    // somebody else
    await fromRemote(h, retraction('one').replace('<message', "<message from='nurse@example.net/x'"))
    // the same name elsewhere
    await fromRemote(h, retraction('one').replace('<message', "<message from='juliet@example.net/balcony'"))
    expect((await contents(romeo))[0]).to.equal('one')
    expect((await contents(juliet))[0]).to.equal('one')
    const other = await h.client('juliet@example.org/other')
    await other.send(retraction('one', 'r2'))
    expect((await contents(romeo))[0]).to.equal('tombstone one by r2')
    expect((await contents(juliet))[0]).to.equal('tombstone one by r2')
  })

  it('§5: among the occupants of a room the full address tells who is the author', async () => {
    await using h = await archiveHost()
    const romeo = await h.client('romeo@example.org/orchard')
    const x = "<x xmlns='http://jabber.org/protocol/muc#user'/>"
    const from = (nick: string, message: string) =>
      fromRemote(
        h,
        message
          .replace('<message', `<message from='room@conference.example.net/${nick}'`)
          .replace('</message>', `${x}</message>`),
      )
    await from('juliet', chat('romeo@example.org', 'one'))
    await from('nurse', retraction('one'))
    expect((await contents(romeo))[0]).to.equal('one')
    await from('juliet', retraction('one'))
    expect((await contents(romeo))[0]).to.equal('tombstone one by r1')
  })

  it('§5, XEP-0045 §7.5: also when only the message, or only the retraction, says that it is from an occupant', async () => {
    const x = "<x xmlns='http://jabber.org/protocol/muc#user'/>"
    for (const [ofMessage, ofRetraction] of [
      [x, ''],
      ['', x],
    ] as const) {
      await using h = await archiveHost()
      const romeo = await h.client('romeo@example.org/orchard')
      const from = (nick: string, message: string, mark: string) =>
        fromRemote(
          h,
          message
            .replace('<message', `<message from='room@conference.example.net/${nick}'`)
            .replace('</message>', `${mark}</message>`),
        )
      await from('juliet', chat('romeo@example.org', 'one'), ofMessage)
      await from('mallory', retraction('one'), ofRetraction)
      expect((await contents(romeo))[0]).to.equal('one')
      await from('juliet', retraction('one', 'r2'), ofRetraction)
      expect((await contents(romeo))[0]).to.equal('tombstone one by r2')
    }
  })

  it('§5: what the account said to an occupant it takes back from another device', async () => {
    await using h = await archiveHost()
    const x = "<x xmlns='http://jabber.org/protocol/muc#user'/>"
    const to = "<message to='room@conference.example.net/juliet'"
    const marked = (message: string): string =>
      message.replace("<message to='romeo@example.org'", to).replace('</message>', `${x}</message>`)
    const [orchard, phone] = [
      await h.client('romeo@example.org/orchard'),
      await h.client('romeo@example.org/phone'),
    ]
    await orchard.send(marked(chat('romeo@example.org', 'one')))
    await phone.send(marked(retraction('one')))
    expect((await contents(orchard))[0]).to.equal('tombstone one by r1')
  })

  it('corrections (XEP-0308) of a message go with it, other messages do not', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    const correct = (id: string) => `<replace xmlns='urn:xmpp:message-correct:0' id='${id}'/>`
    await juliet.send(chat('romeo@example.org', 'one'))
    await juliet.send(chat('romeo@example.org', 'two', correct('one')))
    await juliet.send(chat('romeo@example.org', 'three', correct('two')))
    await juliet.send(retraction('one'))
    expect(await contents(juliet)).to.deep.equal([
      'tombstone one by r1',
      'tombstone two by r1',
      'three',
      '/me retracted',
    ])
  })

  it('of several messages with one id the newest goes; a second retraction changes nothing', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    for (let i = 0; i < 2; i++) await juliet.send(chat('romeo@example.org', 'one'))
    await juliet.send(retraction('one'))
    await juliet.send(retraction('one', 'r2'))
    expect((await contents(juliet)).slice(0, 2)).to.deep.equal(['one', 'tombstone one by r1'])
  })

  it('ignores retractions that name nothing, or nothing that is there, or have no id (§4) or name themselves', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    await juliet.send(chat('romeo@example.org', 'one'))
    await juliet.send(chat('romeo@example.org', 'two').replace(" id='two'", ''))
    const all = [
      retraction('nothing'),
      retraction(''),
      retraction('one').replace(" id='r1'", ''),
      retraction('r9', 'r9'),
      retraction('one').replace(" id='one'", ''),
    ]
    for (const xml of all) await juliet.send(xml)
    expect(await contents(juliet)).to.deep.equal(['one', 'two', ...all.map(() => '/me retracted')])
  })

  it('a message that is sent again after it was retracted stays retracted', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    const message = chat('romeo@example.org', 'one', `<origin-id xmlns='${NS.SID}' id='one'/>`)
    await juliet.send(message)
    await juliet.send(retraction('one'))
    await juliet.send(message)
    expect(await contents(juliet)).to.deep.equal(['tombstone one by r1', '/me retracted'])
  })

  it('a retraction that is sent again, because the server was killed before its work was done, is carried out', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    const again = retraction('one').replace('<body>', `<origin-id xmlns='${NS.SID}' id='r1'/><body>`)
    await juliet.send(chat('romeo@example.org', 'one'))
    const id = (await query(juliet)).ids[0]!
    await juliet.send(again)
    // as if it had not been done
    const stanza = parseXml(
      "<message xmlns='jabber:client' from='juliet@example.org/balcony' to='romeo@example.org' id='one'><body>one</body></message>",
    )
    await h.service('archive').replace('juliet', id, stanza)
    await juliet.send(again)
    expect(await contents(juliet)).to.deep.equal(['tombstone one by r1', '/me retracted'])
  })

  it('looks back as far as configured', async () => {
    for (const searchBack of [5, 4]) {
      await using h = await archiveHost({}, { config: { retract: { searchBack } } })
      const juliet = await h.client('juliet@example.org/balcony')
      for (const id of ['one', 'two', 'three', 'four']) await juliet.send(chat('romeo@example.org', id))
      // with others nothing counts
      for (let i = 0; i < 5; i++) await juliet.send(chat('nurse@example.org', 'other'))
      await juliet.send(retraction('one'))
      expect((await contents(juliet))[0]).to.equal(searchBack === 5 ? 'tombstone one by r1' : 'one')
    }
  })

  it('many retractions at once are all carried out, and messages go on meanwhile', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    const ids = Array.from({ length: 60 }, (_, i) => `m${i}`)
    juliet.transport.feed(ids.map((id) => chat('romeo@example.org', id)).join(''))
    await h.settle()
    juliet.transport.feed(ids.map((id) => retraction(id, `r-${id}`)).join(''))
    // one after another, in slices of time
    for (let i = 0; i < 30; i++) await h.settle()
    expect((await contents(juliet)).slice(0, 60)).to.deep.equal(ids.map((id) => `tombstone ${id} by r-${id}`))
  })
})
