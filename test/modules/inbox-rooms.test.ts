/** XEP-0430 with occupants of rooms (XEP-0045): their private messages are one conversation, but they are not one author. And what is in memory. */
import { expect } from 'chai'
import inboxModule from '../../modules/inbox/index.ts'
import { Recent } from '../../modules/inbox/recent.ts'
import { openMemory } from '../../server/storage/memory.ts'
import { parseJid } from '../../server/xmpp/jid.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { chat } from '../helpers/archive.ts'
import type { TestHost } from '../helpers/host.ts'
import { displayed, inbox, inboxHost } from '../helpers/inbox.ts'

const J = 'juliet@example.org'
const ROOM = 'room@muc.example.net'
const MARK = "<x xmlns='http://jabber.org/protocol/muc#user'/>"

/** A private message of an occupant, in juliet's archive. */
async function whisper(
  h: TestHost,
  nick: string,
  id: string,
  content = `<body>${id}</body>`,
  mark = MARK,
): Promise<void> {
  const stanza = parseXml(
    `<message xmlns='jabber:client' from='${ROOM}/${nick}' to='${J}/x' type='chat' id='${id}'>${content}${mark}</message>`,
  )
  await h.service('archive').add('juliet', { at: new Date(h.clock.now()), peer: parseJid(ROOM), stanza })
}

describe('module inbox: occupants of rooms', () => {
  it('all of one room are one conversation', async () => {
    await using h = await inboxHost()
    const juliet = await h.client(`${J}/x`)
    await whisper(h, 'first', 'one')
    await whisper(h, 'second', 'two')
    expect((await inbox(juliet)).lines).to.deep.equal(['room 2 two'])
    await juliet.send(displayed(`${ROOM}/first`, 'one'))
    expect((await inbox(juliet)).lines).to.deep.equal(['room 1 two'])
  })

  it('XEP-0424 §5, XEP-0308 §4: one cannot take back or correct what another said', async () => {
    const retract = (id: string) => `<retract xmlns='urn:xmpp:message-retract:1' id='${id}'/><body>x</body>`
    const correct = (id: string, body: string) =>
      `<replace xmlns='urn:xmpp:message-correct:0' id='${id}'/><body>${body}</body>`
    for (const ask of [false, true]) {
      await using h = await inboxHost()
      const juliet = await h.client(`${J}/x`)
      await whisper(h, 'first', 'one')
      await whisper(h, 'second', 'two')
      if (ask) await inbox(juliet)
      await whisper(h, 'first', 'c1', correct('two', 'forged'))
      await whisper(h, 'first', 'r1', retract('two'))
      expect((await inbox(juliet)).lines).to.deep.equal(['room 2 two'])
      await whisper(h, 'second', 'c2', correct('two', 'better'))
      expect((await inbox(juliet)).lines).to.deep.equal(['room 2 better'])
      await whisper(h, 'second', 'r2', retract('two'))
      expect((await inbox(juliet)).lines).to.deep.equal(['room 1 one'])
    }
  })
})

describe('module inbox: occupants of rooms that do not always say so', () => {
  const retract = "<retract xmlns='urn:xmpp:message-retract:1' id='two'/><body>x</body>"
  const correct = "<replace xmlns='urn:xmpp:message-correct:0' id='two'/><body>forged</body>"
  for (const [name, ofMessage, ofWord] of [
    ['the message', MARK, ''],
    ['what is said of it', '', MARK],
  ] as const)
    it(`XEP-0045 §7.5: only ${name} is marked, and one cannot take back or correct what another said`, async () => {
      const store = await openMemory()
      for (const ask of ['before', 'after a restart', 'never']) {
        await using h = await inboxHost({}, { store })
        const juliet = await h.client(`${J}/x`)
        await store.purgeOwner('example.org', 'juliet')
        await whisper(h, 'first', 'one')
        await whisper(h, 'second', 'two', undefined, ofMessage)
        if (ask !== 'never') await inbox(juliet)
        if (ask === 'after a restart') {
          await h.unload('inbox')
          await h.load(inboxModule)
        }
        await whisper(h, 'first', 'c1', correct, ofWord)
        await whisper(h, 'first', 'r1', retract, ofWord)
        expect((await inbox(juliet)).lines).to.deep.equal(['room 2 two'])
        await whisper(h, 'second', 'r2', retract, ofWord)
        expect((await inbox(juliet)).lines).to.deep.equal(['room 1 one'])
      }
    })
})

describe('module inbox: memory', () => {
  it('inboxes that have not been asked for lately are written and let go; nothing is lost', async () => {
    const store = await openMemory()
    await using h = await inboxHost({ cache: 0 }, { store })
    const names = ['juliet', 'romeo', 'nurse'] as const
    const clients = await Promise.all(names.map((name) => h.client(`${name}@example.org/x`)))
    for (let round = 1; round <= 5; round++) {
      for (const [i, client] of clients.entries())
        await client.send(chat(`${names[(i + 1) % 3]}@example.org`, `m${round}`))
      for (const [i, client] of clients.entries())
        expect((await inbox(client, "unread-only='true'")).lines).to.deep.equal([
          `${names[(i + 2) % 3]} ${round} m${round}`,
        ])
    }
    // the last one alone is in memory
    expect(await h.telemetry.registry.metrics()).to.match(/hermod_inbox_cached\{[^}]*\} 22\n/)
    const docs = store.open('example.org', 'inbox').docs('accounts')
    const kept = await Promise.all(names.map((name) => docs.get(name, 'state')))
    expect(kept.map((doc) => typeof doc?.['upto'])).to.deep.equal(['string', 'string', 'string'])
  })

  it('what was received lately is kept up to a number; what is not kept is known not to be', () => {
    const recent = new Recent()
    const add = (jid: string, n: number) =>
      recent.add(jid, { entry: String(n).padStart(6, '0'), ids: [`i${n}`], message: true })
    recent.begin('a', '000000')
    for (let n = 1; n <= 64; n++) add('a', n)
    expect(recent.hasAllAfter('a', '000000')).to.equal(true)
    expect(recent.find('a', 'i63')).to.deep.equal({ entry: '000063', unread: ['000064'] })
    add('a', 65)
    expect(recent.find('a', 'i1')).to.equal(undefined)
    expect(recent.hasAllAfter('a', '000000')).to.equal(false)
    expect(recent.hasAllAfter('a', '000001')).to.equal(true)
    for (let jid = 0; jid < 1000; jid++) {
      recent.begin(`b${jid}`, '000000')
      for (let n = 1; n <= 60; n++) add(`b${jid}`, n)
    }
    expect(recent.find('a', 'i65')).to.equal(undefined)
    expect(recent.hasAllAfter('a', '000065')).to.equal(false)
    expect(recent.find('b999', 'i60')?.entry).to.equal('000060')
  })
})
