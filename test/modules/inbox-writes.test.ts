/** XEP-0430: what the archive does not tell again is neither turned back by writes that overlap, nor forgotten when the rules change. */
import { expect } from 'chai'
import { openMemory } from '../../server/storage/memory.ts'
import { chat } from '../helpers/archive.ts'
import { deliver, displayed, inbox, inboxHost, NS_INBOX } from '../helpers/inbox.ts'
import { openFaulty } from '../robustness/faulty-store.ts'

const R = 'romeo@example.org'
const J = 'juliet@example.org'
const NO_STORE = "<no-store xmlns='urn:xmpp:hints'/>"
const ASK = `<iq type='get' id='ask'><inbox xmlns='${NS_INBOX}'/></iq>`

describe('module inbox: markers that are not archived', () => {
  it('count also when everything is counted anew by other rules', async () => {
    const store = await openMemory()
    for (const readBySending of [true, false, true]) {
      await using h = await inboxHost({ readBySending }, { store })
      const [juliet, romeo] = [await h.client(`${J}/balcony`), await h.client(`${R}/orchard`)]
      if ((await inbox(juliet)).lines.length === 0) {
        await deliver(romeo, chat(J, 'one'))
        await deliver(juliet, chat(R, 'mine'))
        await deliver(romeo, chat(J, 'two'), chat(J, 'three'))
        await deliver(juliet, displayed(R, 'two', NO_STORE))
      }
      expect((await inbox(juliet)).lines).to.deep.equal(['romeo 1 three'])
    }
  })
})

describe('module inbox: more conversations than are known', () => {
  it('those that were read last keep their markers when the rules change', async () => {
    const store = await openMemory()
    for (const readBySending of [true, false]) {
      await using h = await inboxHost({ readBySending, conversations: 2 }, { store })
      const [juliet, romeo] = [await h.client(`${J}/balcony`), await h.client(`${R}/orchard`)]
      if (readBySending) {
        for (let i = 0; i < 6; i++) {
          await deliver(juliet, chat(`c${i}@example.net`, 'mine'))
          await inbox(juliet)
        }
        await deliver(romeo, chat(J, 'one'), chat(J, 'two'))
        await inbox(juliet)
        await deliver(juliet, displayed(R, 'one', NO_STORE))
      }
      expect((await inbox(juliet)).lines[0]).to.equal('romeo 1 two')
    }
  })
})

describe('module inbox: a marker that is not archived, while an earlier write takes its time', () => {
  for (const [when, options] of [
    ['some time after a request', {}],
    ['since the inbox leaves the memory', { cache: 0 }],
  ] as const)
    it(`counts for good (${when})`, async () => {
      const store = await openFaulty()
      {
        await using h = await inboxHost(options, { store })
        const [juliet, romeo] = [await h.client(`${J}/balcony`), await h.client(`${R}/orchard`)]
        for (const body of ['one', 'two', 'three']) await deliver(romeo, chat(J, body))
        expect((await inbox(juliet)).lines).to.deep.equal(['romeo 3 three'])
        const { promise, resolve } = Promise.withResolvers<void>()
        store.only = /^inbox\.update$/
        store.fault = { until: promise, done: false }
        if (!('cache' in options)) await h.clock.advance(10_500)
        else await romeo.send(ASK) // his takes the place of hers
        expect(store.met).to.equal(1)
        store.fault = 'none'
        await deliver(juliet, displayed(R, 'two', NO_STORE))
        juliet.transport.feed(ASK)
        await h.settle()
        resolve()
        await h.settle()
        juliet.take()
        expect((await inbox(juliet)).lines).to.deep.equal(['romeo 1 three'])
      }
      await using h = await inboxHost(options, { store })
      expect((await inbox(await h.client(`${J}/balcony`))).lines).to.deep.equal(['romeo 1 three'])
    })
})

describe('module inbox: an account that is removed while its inbox is written', () => {
  it('leaves nothing for the next owner of its name, also when the inbox has left the memory', async () => {
    const store = await openFaulty()
    await using h = await inboxHost({ cache: 25 }, { store })
    const [juliet, romeo] = [await h.client(`${J}/balcony`), await h.client(`${R}/orchard`)]
    await deliver(romeo, chat(J, 'one'))
    await inbox(juliet)
    const { promise, resolve } = Promise.withResolvers<void>()
    store.only = /^inbox\.update$/
    store.fault = { until: promise, done: true }
    await h.clock.advance(10_500) // a write begins
    expect(store.met).to.equal(1)
    store.fault = 'none'
    await deliver(romeo, chat(J, 'two'))
    await inbox(juliet)
    await inbox(romeo) // his takes the place of hers, which has to be written
    await h.host.deleteAccount('juliet')
    resolve()
    await h.settle()
    expect(await store.purgeOwner('example.org', 'juliet')).to.equal(0)
  })
})
