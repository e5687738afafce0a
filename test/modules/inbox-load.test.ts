/** XEP-0430: what an inbox costs when somebody wants it to cost much, and how long others wait meanwhile. */
import { expect } from 'chai'
import { AccountInbox } from '../../modules/inbox/account-inbox.ts'
import inboxModule from '../../modules/inbox/index.ts'
import type { Ctx } from '../../server/module.ts'
import { parseJid } from '../../server/xmpp/jid.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { chat } from '../helpers/archive.ts'
import type { TestHost } from '../helpers/host.ts'
import { displayed, inbox, inboxHost, retraction } from '../helpers/inbox.ts'
import { type FaultyStore, openFaulty } from '../robustness/faulty-store.ts'

const J = 'juliet@example.org'
const R = 'romeo@example.org'

/** Puts stanzas into juliet's archive. */
async function put(h: TestHost, peer: string, stanzas: readonly string[]): Promise<void> {
  for (const xml of stanzas)
    await h.service('archive').add('juliet', {
      at: new Date(h.clock.now()),
      peer: parseJid(peer),
      stanza: parseXml(xml.replace('<message ', "<message xmlns='jabber:client' ")),
    })
}
const received = (from: number, to: number): string[] =>
  Array.from(
    { length: to - from },
    (_, i) =>
      `<message from='${R}/x' to='${J}' type='chat' id='m${from + i}'><body>m${from + i}</body></message>`,
  )

/** How often the archive is read while `run` runs. */
async function readings(store: FaultyStore, run: () => Promise<unknown>): Promise<number> {
  store.only = /^mam\.page$/
  store.fault = { until: Promise.resolve(), done: false }
  store.met = 0
  await run()
  store.fault = 'none'
  return store.met
}

describe('module inbox: load', () => {
  it('markers with ids of nowhere cost no more than the archive is long', async function () {
    this.timeout(20_000)
    const store = await openFaulty()
    await using h = await inboxHost({ readBySending: false }, { store })
    const juliet = await h.client(`${J}/balcony`)
    const [messages, markers] = [3000, 3000]
    await put(h, R, received(0, messages))
    await put(
      h,
      R,
      Array.from({ length: markers }, (_, i) =>
        displayed(R, `nowhere${i}`).replace('<message ', `<message from='${J}/x' `),
      ),
    )
    const pages = await readings(store, async () => {
      expect((await inbox(juliet)).lines).to.deep.equal([`romeo ${messages} m${messages - 1}`])
    })
    // forwards 30; backwards as many entries as there are, and ten thousand more. Without a bound it were 45,000 pages.
    expect(pages).to.be.lessThan(1000)
    await juliet.send(displayed(R, 'm2000'))
    expect((await inbox(juliet)).lines).to.deep.equal([`romeo 999 m${messages - 1}`])
  })

  it('an archive with messages of very many addresses is followed without knowing all of them at once', async () => {
    await using h = await inboxHost()
    for (let i = 0; i < 500; i++)
      await put(h, `c${i}@example.net`, [retraction(J, `r${i}`, `m${i}`), ...received(0, 1)])
    const ctx: Pick<Ctx, 'inSlices' | 'now' | 'signal'> = {
      signal: new AbortController().signal,
      now: () => h.clock.now(),
      async inSlices(items, fn) {
        for await (const item of items) await fn(item)
      },
    }
    const rules = { readBySending: true, maxConversations: 20 }
    const source = h.service('archive').source('juliet')
    const followed = new AccountInbox(ctx as Ctx, source, rules, { upto: '', conversations: [] })
    let most = 0
    await followed.follow(() => void (most = Math.max(most, followed.conversations.size)))
    expect(most).to.be.at.most(40)
    expect(followed.conversations.size).to.be.within(10, 20)
    expect([...followed.conversations.keys()].at(-1)).to.equal('c499@example.net')
  })

  it('the other side takes back message after message of a long conversation: counted anew once a minute, and right in the end', async function () {
    this.timeout(20_000)
    const store = await openFaulty()
    {
      await using h = await inboxHost({}, { store })
      const [juliet, romeo] = [await h.client(`${J}/balcony`), await h.client(`${R}/orchard`)]
      const messages = 2000
      await put(h, R, received(0, messages))
      const unread = () => h.service('inbox').unread('juliet')
      expect((await unread()).messages).to.equal(messages)
      await romeo.send(retraction(J, 'm0', 'r0'))
      expect((await unread()).messages).to.equal(messages - 1)
      for (let i = 1; i <= 50; i++) {
        await romeo.send(retraction(J, `m${i}`, `r${i}`))
        const pages = await readings(store, unread)
        expect(pages).to.be.lessThan(5)
      }
      await h.clock.advance(61_000)
      expect((await unread()).messages).to.equal(messages - 51)
      await romeo.send(retraction(J, 'm60', 'r60'))
      await unread()
      // what the account does itself is right at once
      await juliet.send(displayed(R, 'm99'))
      expect((await unread()).messages).to.equal(1900)
      await h.clock.advance(61_000)
      await romeo.send(retraction(J, 'm1000', 'r1000'))
      await romeo.send(chat(J, 'last'))
      await unread()
      await romeo.send(retraction(J, 'm1001', 'r1001'))
      await unread()
    }
    // what waited to be counted is counted after a restart
    await using h = await inboxHost({}, { store })
    expect((await h.service('inbox').unread('juliet')).messages).to.equal(1899)
    await h.unload('inbox')
    await h.load(inboxModule)
    expect((await h.service('inbox').unread('juliet')).messages).to.equal(1899)
  })

  it('others have their turn while a long archive is read for the first time', async function () {
    this.timeout(20_000)
    await using h = await inboxHost()
    const [juliet, romeo] = [await h.client(`${J}/balcony`), await h.client(`${R}/orchard`)]
    await put(h, R, received(0, 20_000))
    let over = false
    const asking = h
      .service('inbox')
      .unread('juliet')
      .finally(() => (over = true))
    let answered = 0
    while (!over) {
      await romeo.send(
        "<iq type='get' id='p' to='example.org'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>",
      )
      answered++
    }
    expect((await asking).messages).to.equal(10_000)
    expect(answered).to.be.greaterThan(2)
    expect((await inbox(juliet)).lines).to.deep.equal(['romeo 10000 m19999'])
  })

  it('the module is unloaded while an archive is read: who asked is told, and nothing of it goes on', async () => {
    const store = await openFaulty()
    const { promise, resolve } = Promise.withResolvers<void>()
    await using h = await inboxHost({}, { store })
    const juliet = await h.client(`${J}/balcony`)
    await put(h, R, received(0, 500))
    store.only = /^mam\.page$/
    store.fault = { until: promise, done: false }
    juliet.transport.feed("<iq type='get' id='i1'><inbox xmlns='urn:xmpp:inbox:1'/></iq>")
    await h.settle()
    await h.unload('inbox')
    store.fault = 'none'
    resolve()
    await h.settle()
    const answers = juliet.take().map((e) => `${e.name} ${e.attr('type')} ${e.attr('id')}`)
    expect(answers).to.deep.equal(['iq error i1'])
    await h.load(inboxModule)
    expect((await inbox(juliet)).lines).to.deep.equal(['romeo 500 m499'])
  })

  it('markers in rooms, in errors and in notes are nothing to be kept', async () => {
    const store = await openFaulty()
    await using h = await inboxHost({}, { store })
    const juliet = await h.client(`${J}/balcony`)
    store.only = /^inbox\./
    store.fault = { until: Promise.resolve(), done: false }
    await juliet.send(displayed('room@muc.example.net', 'x').replace("'chat'", "'groupchat'"))
    await juliet.send(displayed('x@example.net', 'x').replace("'chat'", "'error'"))
    await juliet.send(displayed(J, 'x', "<no-store xmlns='urn:xmpp:hints'/>"))
    expect(store.met).to.equal(0)
    await juliet.send(displayed('x@example.net', 'x', "<no-store xmlns='urn:xmpp:hints'/>"))
    expect(store.met).to.equal(1)
  })

  it('processes that look at an account for the first time, at once: what is stored is whole', async () => {
    const store = await openFaulty()
    {
      await using one = await inboxHost({}, { store })
      await using two = await inboxHost({}, { store })
      await put(one, R, received(0, 300))
      await put(one, 'nurse@example.org', received(300, 302))
      const unread = (h: TestHost) => h.service('inbox').unread('juliet')
      const both = await Promise.all([unread(one), unread(two)])
      for (const told of both) expect(told).to.deep.equal({ conversations: 2, messages: 302 })
      await one.clock.advance(11_000)
      await put(one, R, received(302, 303))
      await unread(two)
      await Promise.all([two.clock.advance(11_000), unread(one)])
    }
    await using h = await inboxHost({}, { store })
    const juliet = await h.client(`${J}/balcony`)
    expect((await inbox(juliet)).lines).to.deep.equal(['romeo 301 m302', 'nurse 2 m301'])
  })
})
