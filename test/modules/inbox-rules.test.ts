/** XEP-0430 §4 with XEP-0333: what counts as unread, what resets it, what is shown as the last message. */
import { expect } from 'chai'
import inboxModule from '../../modules/inbox/index.ts'
import { parseJid } from '../../server/xmpp/jid.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { chat, query } from '../helpers/archive.ts'
import type { TestClient, TestHost } from '../helpers/host.ts'
import { displayed, inbox, inboxHost, retraction } from '../helpers/inbox.ts'
import { ask } from '../helpers/iq.ts'

const R = 'romeo@example.org'
const J = 'juliet@example.org'

async function two(h: TestHost): Promise<[TestClient, TestClient]> {
  return [await h.client(`${J}/balcony`), await h.client(`${R}/orchard`)]
}
const lines = async (client: TestClient): Promise<readonly string[]> => (await inbox(client)).lines
const raw = (content: string, type = 'chat', id = 'raw'): string =>
  `<message to='${J}' type='${type}' id='${id}'>${content}</message>`

describe('module inbox: what counts (XEP-0430 §4)', () => {
  it('an instant message starts unread; those of the account itself never are', async () => {
    await using h = await inboxHost()
    const [juliet, romeo] = await two(h)
    for (const body of ['one', 'two', 'three']) await romeo.send(chat(J, body))
    expect(await lines(juliet)).to.deep.equal(['romeo 3 three'])
    expect(await lines(romeo)).to.deep.equal(['juliet 0 three'])
  })

  const counted: Readonly<Record<string, string>> = {
    'a body': '<body>x</body>',
    'a subject alone (RFC 6121 §5.2.4)': '<subject>x</subject>',
    'OMEMO with payload':
      "<encrypted xmlns='eu.siacs.conversations.axolotl'><header/><payload>x</payload></encrypted>",
    'OMEMO 2 with payload': "<encrypted xmlns='urn:xmpp:omemo:2'><header/><payload>x</payload></encrypted>",
    OpenPGP: "<openpgp xmlns='urn:xmpp:openpgp:0'>x</openpgp>",
    'a file': "<file-sharing xmlns='urn:xmpp:sfs:0'/>",
    'an invitation': "<x xmlns='jabber:x:conference' jid='room@example.net'/>",
    'an invitation by way of a room':
      "<x xmlns='http://jabber.org/protocol/muc#user'><invite from='a@example.net'/></x>",
    'a body with a request for a receipt and a marker':
      "<body>x</body><request xmlns='urn:xmpp:receipts'/><markable xmlns='urn:xmpp:chat-markers:0'/>",
  }
  for (const [what, content] of Object.entries(counted))
    it(`counts: ${what}`, async () => {
      await using h = await inboxHost()
      const [juliet, romeo] = await two(h)
      await romeo.send(chat(J, 'one'))
      await romeo.send(raw(content))
      const [entry] = (await inbox(juliet)).entries
      const { ids } = await query(juliet)
      expect([entry?.unread, entry?.result?.attr('id'), ids.length]).to.deep.equal([2, ids[1], 2])
    })

  const ignored: Readonly<Record<string, readonly [content: string, type?: string]>> = {
    'a receipt (§4)': ["<received xmlns='urn:xmpp:receipts' id='a'/>"],
    'a marker': ["<displayed xmlns='urn:xmpp:chat-markers:0' id='a'/>"],
    'a reaction, also with a body for others (XEP-0444 §3)': [
      "<reactions xmlns='urn:xmpp:reactions:0' id='one'><reaction>x</reaction></reactions><body>x</body><fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reactions:0'/>",
    ],
    'a correction (XEP-0308 §3)': ["<body>y</body><replace xmlns='urn:xmpp:message-correct:0' id='other'/>"],
    'a call (XEP-0353)': [
      "<propose xmlns='urn:xmpp:jingle-message:0' id='a'/><store xmlns='urn:xmpp:hints'/>",
    ],
    'an empty OMEMO message (XEP-0384 §5.5)': [
      "<encrypted xmlns='urn:xmpp:omemo:2'><header/></encrypted><store xmlns='urn:xmpp:hints'/>",
    ],
    'a chat state that is to be stored': [
      "<composing xmlns='http://jabber.org/protocol/chatstates'/><store xmlns='urn:xmpp:hints'/>",
    ],
    'sources of a file': ["<sources xmlns='urn:xmpp:sfs:0'/>"],
    'a fastening': [
      "<apply-to xmlns='urn:xmpp:fasten:0' id='one'><external name='body'/></apply-to><body>x</body>",
    ],
    'a retraction of something unknown (XEP-0424 §3)': [
      "<retract xmlns='urn:xmpp:message-retract:1' id='unknown'/><body>x</body>",
    ],
    'a headline, also when it is stored': ["<body>x</body><store xmlns='urn:xmpp:hints'/>", 'headline'],
  }
  for (const [what, [content, type]] of Object.entries(ignored))
    it(`does not count, and is not shown: ${what}`, async () => {
      await using h = await inboxHost()
      const [juliet, romeo] = await two(h)
      await romeo.send(chat(J, 'one'))
      await romeo.send(raw(content, type))
      const [entry] = (await inbox(juliet)).entries
      const { ids } = await query(juliet)
      expect([entry?.unread, entry?.result?.attr('id')]).to.deep.equal([1, ids[0]])
      // but it is in the archive
      expect([ids.length, entry?.id]).to.deep.equal([2, ids[1]])
    })

  it('what the archive does not keep is not there: chat states, no-store, errors', async () => {
    await using h = await inboxHost()
    const [juliet, romeo] = await two(h)
    await romeo.send(raw("<composing xmlns='http://jabber.org/protocol/chatstates'/>"))
    await romeo.send(raw("<body>x</body><no-store xmlns='urn:xmpp:hints'/>"))
    await romeo.send(raw("<body>x</body><error type='cancel'/>", 'error'))
    expect(await lines(juliet)).to.deep.equal([])
  })

  it('a conversation of which nothing is a message is none', async () => {
    await using h = await inboxHost()
    const [juliet, romeo] = await two(h)
    await romeo.send(raw("<received xmlns='urn:xmpp:receipts' id='a'/>"))
    expect((await inbox(juliet)).totals).to.deep.equal([0, 0, 0])
    await romeo.send(chat(J, 'one'))
    expect(await lines(juliet)).to.deep.equal(['romeo 1 one'])
  })

  it('a message that is sent again after a broken stream counts once', async () => {
    await using h = await inboxHost()
    const [juliet, romeo] = await two(h)
    const message = chat(J, 'one', "<origin-id xmlns='urn:xmpp:sid:0' id='o1'/>")
    await romeo.send(message)
    await romeo.send(message)
    expect(await lines(juliet)).to.deep.equal(['romeo 1 one'])
  })
})

describe('module inbox: what is read (XEP-0430 §4, XEP-0333)', () => {
  async function three(h: TestHost): Promise<[TestClient, TestClient]> {
    const [juliet, romeo] = await two(h)
    for (const body of ['one', 'two', 'three']) await romeo.send(chat(J, body))
    juliet.take()
    return [juliet, romeo]
  }

  it('XEP-0333 §4.2: a marker reads all up to its message, of that conversation only', async () => {
    await using h = await inboxHost()
    const [juliet] = await three(h)
    const nurse = await h.client('nurse@example.org/kitchen')
    await nurse.send(chat(J, 'two'))
    await juliet.send(displayed(R, 'two'))
    expect(await lines(juliet)).to.deep.equal(['nurse 1 two', 'romeo 1 three'])
    await juliet.send(displayed(`${R}/orchard`, 'three'))
    expect(await lines(juliet)).to.deep.equal(['nurse 1 two', 'romeo 0 three'])
  })

  it('asked in between or not, the numbers are the same; and markers found in the archive count like those just seen', async () => {
    await using h = await inboxHost()
    const [juliet] = await three(h)
    expect(await lines(juliet)).to.deep.equal(['romeo 3 three'])
    await juliet.send(displayed(R, 'one'))
    expect(await lines(juliet)).to.deep.equal(['romeo 2 three'])
    await juliet.send(displayed(R, 'three'))
    expect(await lines(juliet)).to.deep.equal(['romeo 0 three'])
  })

  it('§4: <acknowledged/> does the same; a receipt (XEP-0184) and <received/> do nothing', async () => {
    await using h = await inboxHost()
    const [juliet] = await three(h)
    await juliet.send(`<message to='${R}'><received xmlns='urn:xmpp:receipts' id='three'/></message>`)
    await juliet.send(displayed(R, 'three', '', 'received'))
    expect(await lines(juliet)).to.deep.equal(['romeo 3 three'])
    await juliet.send(displayed(R, 'two', '', 'acknowledged'))
    expect(await lines(juliet)).to.deep.equal(['romeo 1 three'])
  })

  it('XEP-0333 §5: markers only move forward; unknown ids, and ids of other conversations, are ignored', async () => {
    await using h = await inboxHost()
    const [juliet] = await three(h)
    await juliet.send(displayed(R, 'two'))
    await juliet.send(displayed(R, 'one'))
    expect(await lines(juliet)).to.deep.equal(['romeo 1 three'])
    for (const id of ['unknown', '', 'x'.repeat(600)]) await juliet.send(displayed(R, id))
    await juliet.send(displayed('nurse@example.org', 'three'))
    await juliet.send(`<message to='${R}'><displayed xmlns='urn:xmpp:chat-markers:0'/></message>`)
    expect(await lines(juliet)).to.deep.equal(['romeo 1 three'])
    // and again when they are found in the archive
    await juliet.send(displayed(R, 'one'))
    expect(await lines(juliet)).to.deep.equal(['romeo 1 three'])
  })

  it('XEP-0333 §5: an id of a message that the account itself sent is not meant', async () => {
    await using h = await inboxHost({ readBySending: false })
    const [juliet, romeo] = await three(h)
    await juliet.send(chat(R, 'mine'))
    await romeo.send(chat(J, 'four'))
    await juliet.send(displayed(R, 'mine'))
    expect(await lines(juliet)).to.deep.equal(['romeo 4 four'])
  })

  it('of several messages with one id the newest is meant', async () => {
    await using h = await inboxHost()
    const [juliet, romeo] = await three(h)
    await romeo.send(chat(J, 'one'))
    await romeo.send(chat(J, 'five'))
    await juliet.send(displayed(R, 'one'))
    expect(await lines(juliet)).to.deep.equal(['romeo 1 five'])
  })

  it('an origin-id (XEP-0359) names a message too', async () => {
    await using h = await inboxHost()
    const [juliet, romeo] = await two(h)
    await romeo.send(chat(J, 'one', "<origin-id xmlns='urn:xmpp:sid:0' id='o1'/>"))
    await juliet.send(displayed(R, 'o1'))
    expect(await lines(juliet)).to.deep.equal(['romeo 0 one'])
  })

  it('XEP-0333 §4.3: the id that a room gave; not one that somebody else pretends to have given', async () => {
    await using h = await inboxHost()
    const juliet = await h.client(`${J}/balcony`)
    const add = (body: string, by: string) =>
      h.service('archive').add('juliet', {
        at: new Date(h.clock.now()),
        peer: parseJid('room@muc.example.net'),
        stanza: parseXml(
          `<message xmlns='jabber:client' from='room@muc.example.net/nick' to='${J}/balcony' type='chat' id='${body}'><body>${body}</body><stanza-id xmlns='urn:xmpp:sid:0' by='${by}' id='given'/></message>`,
        ),
      })
    await add('one', 'other@muc.example.net')
    await juliet.send(displayed('room@muc.example.net', 'given'))
    expect(await lines(juliet)).to.deep.equal(['room 1 one'])
    await add('two', 'room@muc.example.net')
    await juliet.send(displayed('room@muc.example.net', 'given'))
    expect(await lines(juliet)).to.deep.equal(['room 0 two'])
  })

  it('a marker from the other side changes nothing for the account', async () => {
    await using h = await inboxHost()
    const [juliet, romeo] = await three(h)
    await romeo.send(displayed(J, 'three'))
    expect(await lines(juliet)).to.deep.equal(['romeo 3 three'])
  })

  it('a marker of any device counts, and all devices are told the same', async () => {
    await using h = await inboxHost()
    const [juliet] = await three(h)
    const garden = await h.client(`${J}/garden`)
    expect(await lines(garden)).to.deep.equal(['romeo 3 three'])
    await garden.send(displayed(R, 'two'))
    expect(await lines(juliet)).to.deep.equal(['romeo 1 three'])
    expect(await lines(garden)).to.deep.equal(['romeo 1 three'])
  })

  it('XEP-0333: a marker reaches the other side, the other devices (carbons), and both archives', async () => {
    await using h = await inboxHost()
    const [juliet, romeo] = await three(h)
    const garden = await h.client(`${J}/garden`)
    await ask(garden, 'set', undefined, "<enable xmlns='urn:xmpp:carbons:2'/>")
    await romeo.send('<presence/>')
    await juliet.send(displayed(R, 'three'))
    const marker = /<displayed xmlns='urn:xmpp:chat-markers:0' id='three'\/>/
    expect(romeo.take().join('')).to.match(marker)
    expect(garden.take().join(''))
      .to.match(/<sent xmlns='urn:xmpp:carbons:2'>/)
      .and.to.match(marker)
    for (const client of [juliet, romeo])
      expect((await query(client)).results.at(-1)?.message.toString()).to.match(marker)
  })

  it('who writes in a conversation has read it: message, correction; not a reaction, nor a receipt', async () => {
    await using h = await inboxHost()
    const [juliet, romeo] = await three(h)
    await juliet.send(`<message to='${R}'><reactions xmlns='urn:xmpp:reactions:0' id='one'/></message>`)
    await juliet.send(`<message to='${R}'><received xmlns='urn:xmpp:receipts' id='one'/></message>`)
    expect(await lines(juliet)).to.deep.equal(['romeo 3 three'])
    await juliet.send(chat(R, 'mine'))
    await romeo.send(chat(J, 'four'))
    expect(await lines(juliet)).to.deep.equal(['romeo 1 four'])
    await juliet.send(chat(R, 'mended', "<replace xmlns='urn:xmpp:message-correct:0' id='mine'/>"))
    expect(await lines(juliet)).to.deep.equal(['romeo 0 four'])
  })

  it('readBySending: false: only markers count', async () => {
    await using h = await inboxHost({ readBySending: false })
    const [juliet] = await three(h)
    await juliet.send(chat(R, 'mine'))
    expect(await lines(juliet)).to.deep.equal(['romeo 3 mine'])
    await juliet.send(displayed(R, 'two'))
    expect(await lines(juliet)).to.deep.equal(['romeo 1 mine'])
  })

  it('XEP-0334 §4: a marker that is not to be stored counts all the same, also after a restart', async () => {
    await using h = await inboxHost()
    const [juliet, romeo] = await three(h)
    await juliet.send(displayed(R, 'two', "<no-store xmlns='urn:xmpp:hints'/>"))
    expect((await query(juliet)).results).to.have.length(3)
    await h.unload('inbox')
    await h.load(inboxModule)
    expect(await lines(juliet)).to.deep.equal(['romeo 1 three'])
    await romeo.send(chat(J, 'four'))
    await juliet.send(displayed(R, 'one', "<no-permanent-store xmlns='urn:xmpp:hints'/>"))
    await juliet.send(displayed(R, 'unknown', "<no-permanent-store xmlns='urn:xmpp:hints'/>"))
    expect(await lines(juliet)).to.deep.equal(['romeo 2 four'])
  })

  it('XEP-0441 §2: the same when the user wants nothing of that conversation in the archive any more', async () => {
    await using h = await inboxHost()
    const [juliet] = await three(h)
    const never = `<prefs xmlns='urn:xmpp:mam:2' default='always'><always/><never><jid>${R}</jid></never></prefs>`
    await ask(juliet, 'set', undefined, never)
    await juliet.send(displayed(R, 'three'))
    expect(await lines(juliet)).to.deep.equal(['romeo 0 three'])
  })

  it('many markers that are not stored, of an account that never asks, are worked off', async () => {
    await using h = await inboxHost()
    const [juliet] = await three(h)
    const hint = "<no-store xmlns='urn:xmpp:hints'/>"
    for (let i = 0; i < 100; i++) await juliet.send(displayed(`c${i}@example.net`, 'x', hint))
    await juliet.send(displayed(R, 'two', hint))
    const kept = await h.store.open('example.org', 'inbox').docs('marks').get('juliet', 'marks')
    expect(kept?.['marks']).to.be.an('array').with.property('length').that.is.lessThan(65)
    expect(await lines(juliet)).to.include('romeo 1 three')
    expect(await h.store.open('example.org', 'inbox').docs('marks').get('juliet', 'marks')).to.equal(
      undefined,
    )
  })
})

describe('module inbox: what is taken back or corrected', () => {
  it('XEP-0424: a message that its author takes back does not count, and the one before is shown; before and after a request', async () => {
    for (const ask of [false, true]) {
      await using h = await inboxHost()
      const [juliet, romeo] = await two(h)
      for (const body of ['one', 'two', 'three']) await romeo.send(chat(J, body))
      if (ask) expect(await lines(juliet)).to.deep.equal(['romeo 3 three'])
      await romeo.send(retraction(J, 'three', 'r1'))
      expect(await lines(juliet)).to.deep.equal(['romeo 2 two'])
      await romeo.send(retraction(J, 'one', 'r2'))
      expect(await lines(juliet)).to.deep.equal(['romeo 1 two'])
      await romeo.send(retraction(J, 'two', 'r3'))
      // nothing is left but tombstones
      expect(await lines(juliet)).to.deep.equal([])
      await romeo.send(chat(J, 'four'))
      expect(await lines(juliet)).to.deep.equal(['romeo 1 four'])
    }
  })

  it('also without tombstones, when module retract is off', async () => {
    await using h = await inboxHost()
    await h.unload('retract')
    const [juliet, romeo] = await two(h)
    for (const body of ['one', 'two']) await romeo.send(chat(J, body))
    await romeo.send(retraction(J, 'two', 'r1'))
    expect(await lines(juliet)).to.deep.equal(['romeo 1 one'])
  })

  it('XEP-0424 §5: only its author takes a message back', async () => {
    await using h = await inboxHost({ readBySending: false })
    const [juliet, romeo] = await two(h)
    await romeo.send(chat(J, 'one'))
    await juliet.send(retraction(R, 'one', 'r1'))
    expect(await lines(juliet)).to.deep.equal(['romeo 1 one'])
    expect(await lines(romeo)).to.deep.equal(['juliet 0 one'])
  })

  it('a message of the account that it takes back has read what came before, and still has', async () => {
    await using h = await inboxHost()
    const [juliet, romeo] = await two(h)
    await romeo.send(chat(J, 'one'))
    await juliet.send(chat(R, 'mine'))
    await juliet.send(retraction(R, 'mine', 'r1'))
    expect(await lines(juliet)).to.deep.equal(['romeo 0 one'])
    await romeo.send(chat(J, 'two'))
    await romeo.send(retraction(J, 'one', 'r2'))
    expect(await lines(juliet)).to.deep.equal(['romeo 1 two'])
  })

  it('a marker names a message that was taken back since', async () => {
    await using h = await inboxHost()
    const [juliet, romeo] = await two(h)
    for (const body of ['one', 'two', 'three']) await romeo.send(chat(J, body))
    await romeo.send(retraction(J, 'two', 'r1'))
    await juliet.send(displayed(R, 'two'))
    expect(await lines(juliet)).to.deep.equal(['romeo 1 three'])
  })

  it('XEP-0308 §3: the newest correction of the last message is shown; that of an older one, or by somebody else, is not', async () => {
    const correct = (to: string, id: string, body: string) =>
      chat(to, body, `<replace xmlns='urn:xmpp:message-correct:0' id='${id}'/>`)
    for (const ask of [false, true]) {
      await using h = await inboxHost({ readBySending: false })
      const [juliet, romeo] = await two(h)
      await romeo.send(chat(J, 'one'))
      await romeo.send(chat(J, 'two'))
      if (ask) expect(await lines(juliet)).to.deep.equal(['romeo 2 two'])
      await romeo.send(correct(J, 'one', 'wrong'))
      await juliet.send(correct(R, 'two', 'forged'))
      if (ask) expect(await lines(juliet)).to.deep.equal(['romeo 2 two'])
      await romeo.send(correct(J, 'two', 'better'))
      await romeo.send(correct(J, 'two', 'best'))
      expect(await lines(juliet)).to.deep.equal(['romeo 2 best'])
      // the correction can be taken back, or the message with all its corrections
      await romeo.send(retraction(J, 'best', 'r1'))
      expect(await lines(juliet)).to.deep.equal(['romeo 2 better'])
      await romeo.send(retraction(J, 'two', 'r2'))
      expect(await lines(juliet)).to.deep.equal(['romeo 1 wrong'])
      await romeo.send(chat(J, 'three'))
      expect(await lines(juliet)).to.deep.equal(['romeo 2 three'])
    }
  })
})
