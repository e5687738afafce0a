/** XEP-0430: what is kept of inboxes and how: restarts, crashes, several processes, retention, removal of accounts, long archives, failures of the store. */
import { expect } from 'chai'
import inboxModule from '../../modules/inbox/index.ts'
import { openLmdb } from '../../server/storage/lmdb.ts'
import { openMemory } from '../../server/storage/memory.ts'
import type { Store } from '../../server/storage/contract.ts'
import { parseJid } from '../../server/xmpp/jid.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { chat, query } from '../helpers/archive.ts'
import type { TestClient, TestHost } from '../helpers/host.ts'
import { deliver, displayed, inbox, inboxHost, NS_INBOX, readAnswer, retraction } from '../helpers/inbox.ts'
import { tempFolder } from '../helpers/temp.ts'
import { openFaulty } from '../robustness/faulty-store.ts'

const R = 'romeo@example.org'
const J = 'juliet@example.org'
const HOUR = 3_600_000

const lines = async (client: TestClient): Promise<readonly string[]> => (await inbox(client)).lines
const kept = (store: Store) => store.open('example.org', 'inbox')
async function keys(store: Store, local: string): Promise<readonly string[]> {
  const all: string[] = []
  for (const name of ['accounts', 'conversations', 'marks'])
    for await (const [key] of kept(store).docs(name).list(local)) all.push(key)
  return all
}
/** Messages m0, m1, … of romeo to juliet, already in her archive. */
async function fill(h: TestHost, from: number, to: number, peer = R): Promise<void> {
  for (let i = from; i < to; i++) {
    const stanza = parseXml(
      `<message xmlns='jabber:client' from='${peer}/x' to='${J}' type='chat' id='m${i}'><body>m${i}</body></message>`,
    )
    await h.service('archive').add('juliet', { at: new Date(h.clock.now()), peer: parseJid(peer), stanza })
  }
}

for (const driver of ['memory', 'lmdb'] as const)
  describe(`module inbox: what is kept (${driver})`, () => {
    async function withStore(test: (store: Store) => Promise<void>): Promise<void> {
      await using folder = await tempFolder()
      const store =
        driver === 'lmdb' ? await openLmdb({ path: folder.path, durable: false }) : await openMemory()
      try {
        await test(store)
      } finally {
      }
    }

    // Where time is turned by hand, work on a disk cannot be waited for.
    const inMemory = driver === 'memory' ? it : () => undefined

    it('a restart: counts and read positions stay, and go on', () =>
      withStore(async (store) => {
        {
          await using h = await inboxHost({}, { store })
          const [juliet, romeo] = [await h.client(`${J}/balcony`), await h.client(`${R}/orchard`)]
          for (const body of ['one', 'two', 'three']) await deliver(romeo, chat(J, body))
          await deliver(juliet, displayed(R, 'one'))
          expect(await lines(juliet)).to.deep.equal(['romeo 2 three'])
        }
        expect(await keys(store, 'juliet')).to.deep.equal(['state', R])
        await using h = await inboxHost({}, { store })
        const [juliet, romeo] = [await h.client(`${J}/balcony`), await h.client(`${R}/orchard`)]
        expect(await lines(juliet)).to.deep.equal(['romeo 2 three'])
        await deliver(romeo, chat(J, 'four'))
        await deliver(juliet, displayed(R, 'two'))
        expect(await lines(juliet)).to.deep.equal(['romeo 2 four'])
      }))

    it('a crash before anything was written, and one between the conversations and how far they are', () =>
      withStore(async (store) => {
        await using h = await inboxHost({}, { store })
        const [juliet, romeo] = [await h.client(`${J}/balcony`), await h.client(`${R}/orchard`)]
        for (const body of ['one', 'two', 'three']) await deliver(romeo, chat(J, body))
        await deliver(juliet, displayed(R, 'one'))
        const expected = ['romeo 2 three']
        expect(await lines(juliet)).to.deep.equal(expected)
        expect(await keys(store, 'juliet')).to.deep.equal([])
        {
          // another process on the same store knows what the first one would know after its end
          await using other = await inboxHost({}, { store })
          expect(await lines(await other.client(`${J}/garden`))).to.deep.equal(expected)
        }
        const states = kept(store).docs<{ readonly upto: string; readonly rules: string }>('accounts')
        await states.update('juliet', 'state', (old) => ({ ...(old ?? { rules: '' }), upto: '' }))
        await using other = await inboxHost({}, { store })
        expect(await lines(await other.client(`${J}/garden`))).to.deep.equal(expected)
      }))

    inMemory(
      'two processes at once: each tells the same, and the slower one does not turn back what is stored',
      () =>
        withStore(async (store) => {
          await using one = await inboxHost({}, { store })
          await using two = await inboxHost({}, { store })
          const [juliet, romeo] = [await one.client(`${J}/balcony`), await one.client(`${R}/orchard`)]
          const garden = await two.client(`${J}/garden`)
          await deliver(romeo, chat(J, 'one'))
          expect(await lines(juliet)).to.deep.equal(['romeo 1 one'])
          await deliver(romeo, chat(J, 'two'))
          await deliver(romeo, retraction(J, 'one', 'r1'))
          expect(await lines(garden)).to.deep.equal(['romeo 1 two'])
          await two.clock.advance(11_000)
          const state = async () => (await kept(store).docs('accounts').get('juliet', 'state'))?.['upto']
          const far = await state()
          expect(far).to.be.a('string')
          await one.clock.advance(11_000)
          expect(await state()).to.equal(far)
          expect(await lines(juliet)).to.deep.equal(['romeo 1 two'])
        }),
    )

    inMemory(
      'old messages are removed (XEP-0313 §3.2): those that are gone are not counted, conversations without any are gone',
      async () => {
        let now = Date.now
        const store = await openMemory({ now: () => now() })
        const config = { mam: { days: 1 } }
        await using h = await inboxHost({}, { store, config })
        now = () => h.clock.now()
        const [juliet, romeo] = [await h.client(`${J}/balcony`), await h.client(`${R}/orchard`)]
        const nurse = await h.client('nurse@example.org/kitchen')
        await deliver(nurse, chat(J, 'old'))
        await deliver(romeo, chat(J, 'older'))
        await h.clock.advance(20 * HOUR)
        await deliver(romeo, chat(J, 'new'))
        expect(await lines(juliet)).to.deep.equal(['romeo 2 new', 'nurse 1 old'])
        await h.clock.advance(20 * HOUR)
        expect(await lines(juliet)).to.deep.equal(['romeo 1 new'])
        await h.clock.advance(50 * HOUR)
        expect((await inbox(juliet, "messages='false'")).totals).to.deep.equal([0, 0, 0])
        await h.clock.advance(11_000)
        expect(await keys(store, 'juliet')).to.deep.equal(['state'])
        await deliver(romeo, chat(J, 'newest'))
        expect(await lines(juliet)).to.deep.equal(['romeo 1 newest'])
      },
    )

    it('what was removed while the inbox was not in memory is not counted either', () =>
      withStore(async (store) => {
        {
          await using h = await inboxHost({}, { store })
          await fill(h, 0, 10)
          await fill(h, 10, 12, 'tybalt@example.net')
          const juliet = await h.client(`${J}/balcony`)
          expect(await lines(juliet)).to.deep.equal(['tybalt 2 m11', 'romeo 10 m9'])
        }
        await store.open('example.org', 'mam').archive('messages').remove('juliet', { keepLast: 5 })
        await using h = await inboxHost({}, { store })
        const juliet = await h.client(`${J}/balcony`)
        expect(await lines(juliet)).to.deep.equal(['tybalt 2 m11', 'romeo 3 m9'])
        await store.open('example.org', 'mam').archive('messages').remove('juliet', { keepLast: 1 })
        expect(await lines(juliet)).to.deep.equal(['tybalt 1 m11'])
      }))

    inMemory('the account is removed: nothing stays, and the next one of that name begins with nothing', () =>
      withStore(async (store) => {
        await using h = await inboxHost({}, { store })
        const [juliet, romeo] = [await h.client(`${J}/balcony`), await h.client(`${R}/orchard`)]
        await deliver(romeo, chat(J, 'one'))
        await deliver(juliet, displayed('x@example.net', 'x', "<no-store xmlns='urn:xmpp:hints'/>"))
        expect(await lines(juliet)).to.deep.equal(['romeo 1 one'])
        await h.host.deleteAccount('juliet')
        await h.clock.advance(61_000)
        expect(await keys(store, 'juliet')).to.deep.equal([])
        await h.service('auth').create('juliet', 'secret')
        const next = await h.client(`${J}/balcony`)
        expect(await lines(next)).to.deep.equal([])
        await deliver(romeo, chat(J, 'two'))
        expect(await lines(next)).to.deep.equal(['romeo 1 two'])
        // and once more, right behind the removal, with somebody asking in between
        await h.host.deleteAccount('juliet')
        await h.service('inbox').unread('juliet')
        await h.service('auth').create('juliet', 'secret')
        const again = await h.client(`${J}/phone`)
        await deliver(romeo, chat(J, 'three'), chat(J, 'four'))
        await deliver(again, displayed(R, 'three', "<no-store xmlns='urn:xmpp:hints'/>"))
        expect(await lines(again)).to.deep.equal(['romeo 1 four'])
        await h.unload('inbox')
        await h.load(inboxModule)
        expect(await lines(again)).to.deep.equal(['romeo 1 four'])
      }),
    )
  })

describe('module inbox: work', () => {
  it('messages cost nothing here when they come: nothing of it is written or read until somebody asks', async () => {
    const store = await openFaulty()
    await using h = await inboxHost({}, { store })
    const [juliet, romeo] = [await h.client(`${J}/balcony`), await h.client(`${R}/orchard`)]
    expect(await lines(juliet)).to.deep.equal([])
    await h.clock.advance(11_000)
    store.only = /^inbox\./
    store.fault = { slowMs: 0 }
    store.met = 0
    for (let i = 0; i < 50; i++) {
      await romeo.send(chat(J, `m${i}`))
      await juliet.send(displayed(R, `m${i}`))
    }
    expect(store.met).to.equal(0)
    store.fault = 'none'
    expect(await lines(juliet)).to.deep.equal(['romeo 0 m49'])
  })

  it('archives are followed once a day without being asked, those of accounts that use the inbox', async () => {
    await using h = await inboxHost()
    await fill(h, 0, 3)
    const romeo = await h.client(`${R}/orchard`)
    const juliet = await h.client(`${J}/balcony`)
    const states = kept(h.store).docs('accounts')
    await h.clock.advance(30 * HOUR)
    expect(await states.get('juliet', 'state')).to.equal(undefined)
    await inbox(juliet)
    await h.clock.advance(11_000)
    const before = (await states.get('juliet', 'state'))?.['upto']
    await romeo.send(chat(J, 'one'))
    await h.clock.advance(30 * HOUR)
    expect((await states.get('juliet', 'state'))?.['upto']).not.to.equal(before)
    expect(await lines(juliet)).to.deep.equal(['romeo 4 one'])
  })

  it('a long archive: who asks is told to wait, and the work goes on', async () => {
    const store = await openFaulty()
    const { promise, resolve } = Promise.withResolvers<void>()
    await using h = await inboxHost({}, { store })
    await fill(h, 0, 10)
    const juliet = await h.client(`${J}/balcony`)
    store.only = /^mam\.page$/
    store.fault = { until: promise, done: false }
    juliet.transport.feed(`<iq type='get' id='i1'><inbox xmlns='${NS_INBOX}'/></iq>`)
    await h.settle()
    expect(juliet.take()).to.deep.equal([])
    await h.clock.advance(5000)
    const answer = readAnswer(juliet.take(), 'i1')
    expect([answer.outcome, answer.entries.length]).to.deep.equal(['wait resource-constraint', 0])
    store.fault = 'none'
    resolve()
    await h.settle()
    expect(await lines(juliet)).to.deep.equal(['romeo 10 m9'])
  })

  it('the store fails: the request is refused, the next one is right', async () => {
    for (const only of [/^mam\.page$/, /^inbox\.(get|list)$/]) {
      const store = await openFaulty()
      await using h = await inboxHost({}, { store, onLog: () => undefined })
      await fill(h, 0, 10)
      const juliet = await h.client(`${J}/balcony`)
      store.only = only
      store.fault = 'reject'
      expect((await inbox(juliet)).outcome).to.match(/internal-server-error/)
      store.fault = 'none'
      expect(await lines(juliet)).to.deep.equal(['romeo 10 m9'])
      await fill(h, 10, 12)
      store.only = /^mam\.page$/
      store.fault = 'reject'
      expect((await inbox(juliet)).outcome).to.match(/internal-server-error/)
      store.fault = 'none'
      expect(await lines(juliet)).to.deep.equal(['romeo 12 m11'])
    }
  })

  it('writing fails: it is tried again, nothing is counted twice', async () => {
    const errors: string[] = []
    const store = await openFaulty()
    {
      await using h = await inboxHost(
        {},
        { store, onLog: (level, message) => void (level === 'error' && errors.push(message)) },
      )
      const juliet = await h.client(`${J}/balcony`)
      await fill(h, 0, 10)
      expect(await lines(juliet)).to.deep.equal(['romeo 10 m9'])
      store.only = /^inbox\.update$/
      store.fault = 'unsure'
      await h.clock.advance(11_000)
      expect(errors).to.have.length(1)
      store.fault = 'none'
      await fill(h, 10, 12)
      expect(await lines(juliet)).to.deep.equal(['romeo 12 m11'])
      await h.clock.advance(11_000)
    }
    await using h = await inboxHost({}, { store })
    expect(await lines(await h.client(`${J}/balcony`))).to.deep.equal(['romeo 12 m11'])
  })

  it('a marker that is not archived and cannot be stored is refused, like a message', async () => {
    const store = await openFaulty()
    await using h = await inboxHost({}, { store, onLog: () => undefined })
    const juliet = await h.client(`${J}/balcony`)
    await fill(h, 0, 1)
    store.only = /^inbox\.update$/
    store.fault = 'reject'
    const back = await juliet.send(
      displayed(R, 'm0', "<no-store xmlns='urn:xmpp:hints'/>").replace('<message', "<message id='d1'"),
    )
    expect(back.map((e) => `${e.attr('type')} ${e.attr('id')}`)).to.deep.equal(['error d1'])
  })

  it('messages removed or taken back between the count and the answer: the answer is made anew', async () => {
    const store = await openFaulty()
    await using h = await inboxHost({}, { store })
    await fill(h, 0, 3)
    const juliet = await h.client(`${J}/balcony`)
    expect(await lines(juliet)).to.deep.equal(['romeo 3 m2'])
    const { results } = await query(juliet)
    const tombstone = parseXml(
      `<message xmlns='jabber:client' from='${R}/x' to='${J}' id='m2'><retracted xmlns='urn:xmpp:message-retract:1' id='r'/></message>`,
    )
    // without a word in the archive, as an operator might
    await h.service('archive').replace('juliet', results[2]?.id ?? '', tombstone)
    expect(await lines(juliet)).to.deep.equal(['romeo 2 m1'])
  })

  it('§3.1: of too many conversations the oldest are forgotten', async () => {
    await using h = await inboxHost({ conversations: 10 })
    const juliet = await h.client(`${J}/balcony`)
    for (let i = 0; i < 30; i++) await juliet.send(chat(`c${i}@example.net`, `m${i}`))
    const { totals, lines: told } = await inbox(juliet)
    expect([totals, told.at(-1)]).to.deep.equal([[9, 0, 0], 'c21 0 m21'])
    await h.clock.advance(11_000)
    expect(await keys(h.store, 'juliet')).to.have.length(10)
    await juliet.send(chat('c1@example.net', 'again'))
    expect((await lines(juliet))[0]).to.equal('c1 0 again')
  })

  it('with other rules everything is counted anew', async () => {
    const store = await openMemory()
    for (const [readBySending, expected] of [
      [true, 'romeo 0 mine'],
      [false, 'romeo 2 mine'],
      [true, 'romeo 0 mine'],
    ] as const) {
      await using h = await inboxHost({ readBySending }, { store })
      const juliet = await h.client(`${J}/balcony`)
      if ((await query(juliet)).results.length === 0) {
        await fill(h, 0, 2)
        await juliet.send(chat(R, 'mine'))
      }
      expect(await lines(juliet)).to.deep.equal([expected])
    }
  })

  it('a conversation with very many unread messages is counted up to ten thousand', async function () {
    this.timeout(20_000)
    await using h = await inboxHost()
    await fill(h, 0, 10_050)
    const juliet = await h.client(`${J}/balcony`)
    const asked = async () => {
      juliet.transport.feed(`<iq type='get' id='i1'><inbox xmlns='${NS_INBOX}'/></iq>`)
      for (let i = 0; i < 1000; i++) {
        await h.settle()
        const received = juliet.take()
        if (received.length > 0) return readAnswer(received, 'i1').lines
      }
      throw new Error('no answer')
    }
    expect(await asked()).to.deep.equal(['romeo 10000 m10049'])
    await juliet.send(displayed(R, 'm9999'))
    expect(await asked()).to.deep.equal(['romeo 50 m10049'])
  })
})

describe('module inbox: what other modules may ask', () => {
  it('unread: conversations and messages; several at once', async () => {
    await using h = await inboxHost()
    await fill(h, 0, 3)
    await fill(h, 3, 5, 'tybalt@example.net')
    const service = h.service('inbox')
    expect(await Promise.all([1, 2, 3].map(() => service.unread('juliet')))).to.deep.equal(
      [1, 2, 3].map(() => ({ conversations: 2, messages: 5 })),
    )
    expect(await service.unread('nurse')).to.deep.equal({ conversations: 0, messages: 0 })
  })

  it('displayed (XEP-0490 §4.2): by the id in the archive; unknown ids and those of other conversations are not taken', async () => {
    await using h = await inboxHost()
    const juliet = await h.client(`${J}/balcony`)
    await fill(h, 0, 3)
    await fill(h, 3, 5, 'tybalt@example.net')
    const { ids } = await query(juliet)
    const service = h.service('inbox')
    const romeo = parseJid(`${R}/x`)
    expect(await service.displayed('juliet', romeo, ids[1] ?? '')).to.equal(true)
    expect(await lines(juliet)).to.deep.equal(['tybalt 2 m4', 'romeo 1 m2'])
    for (const id of [ids[4] ?? '', 'unknown', ''])
      expect(await service.displayed('juliet', romeo, id)).to.equal(false)
    // it only moves forward (XEP-0490 §5.1)
    expect(await service.displayed('juliet', romeo, ids[0] ?? '')).to.equal(true)
    expect(await lines(juliet)).to.deep.equal(['tybalt 2 m4', 'romeo 1 m2'])
  })
})
