/** XEP-0424: what is to be done lasts until it is done, whatever ends meanwhile, and one account does not hold up the others. */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { expect } from 'chai'
import retract from '../../modules/retract/index.ts'
import type { Store } from '../../server/storage/contract.ts'
import { openMemory } from '../../server/storage/memory.ts'
import { parseJid } from '../../server/xmpp/jid.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { archived, archiveHost, chat, origin, query } from '../helpers/archive.ts'
import type { TestHost } from '../helpers/host.ts'
import { fromRemote } from '../helpers/im.ts'
import { quiet } from '../helpers/resent.ts'
import { wrapped } from '../helpers/wrapped-store.ts'
import { makeFaulty } from '../robustness/faulty-store.ts'

const R = 'romeo@example.org'
const J = 'juliet@example.org'
const MINUTE = 60_000

const retraction = (target: string, id = 'r1', to = R): string =>
  `<message to='${to}' type='chat' id='${id}'><retract xmlns='urn:xmpp:message-retract:1' id='${target}'/><body>taken back</body></message>`

/** Notes of an account to itself, already in its archive. */
async function fill(h: TestHost, local: string, count: number): Promise<void> {
  const jid = `${local}@example.org`
  const stanza = parseXml(
    `<message xmlns='jabber:client' from='${jid}/x' to='${jid}' type='chat' id='x'><body>note</body></message>`,
  )
  const at = new Date(h.clock.now())
  for (let i = 0; i < count; i++) await h.service('archive').add(local, { at, peer: parseJid(jid), stanza })
}

/** What waits in the store. */
async function waiting(store: Store, local: string): Promise<number> {
  let count = 0
  for await (const _ of store.open('example.org', 'retract').docs('waiting').list(local)) count++
  return count
}

/** Counts the entries that are read of each archive. */
function counting(inner: Store): { readonly store: Store; readonly read: Map<string, number> } {
  const read = new Map<string, number>()
  const store = wrapped(inner, (archive) => ({
    page: async (owner, q) => {
      const page = await archive.page(owner, q)
      read.set(owner, (read.get(owner) ?? 0) + page.entries.length)
      return page
    },
  }))
  return { store, read }
}

describe('module retract: what waits', () => {
  it('is done by the next process when this one is killed, or stopped in order', async () => {
    for (const end of ['killed', 'stopped'] as const) {
      const inner = await openMemory()
      const store = makeFaulty(inner)
      await using before = await archiveHost({}, { store, ...quiet })
      const juliet = await before.client(`${J}/balcony`)
      for (const body of ['secret', 'other']) await juliet.send(chat(R, body))
      // From here on it cannot get at the archive any more.
      store.only = /^mam\.page$/
      store.fault = 'reject'
      await juliet.send(retraction('secret'))
      expect(await waiting(inner, 'juliet')).to.equal(1)
      if (end === 'stopped') await before.unload('retract')
      await using after = await archiveHost({}, { store: inner })
      await after.settle()
      for (const jid of [J, R])
        expect(await archived(await after.client(`${jid}/phone`))).to.deep.equal([
          undefined,
          'other',
          'taken back',
        ])
      expect([await waiting(inner, 'juliet'), await waiting(inner, 'romeo')]).to.deep.equal([0, 0])
    }
  })

  it('is done when the server was killed before it was written down, and the client comes back with another resource', async () => {
    const store = await openMemory()
    {
      // As if killed: the archives have it, nobody was to carry it out.
      await using before = await archiveHost({}, { store, ...quiet })
      await before.unload('retract')
      const juliet = await before.client(`${J}/balcony`)
      await juliet.send(chat(R, 'secret', origin('o1')))
      await juliet.send(retraction('secret').replace('</message>', `${origin('o2')}</message>`))
    }
    await using after = await archiveHost({}, { store })
    const juliet = await after.client(`${J}/garden`)
    await juliet.send(retraction('secret').replace('</message>', `${origin('o2')}</message>`))
    await after.settle()
    for (const client of [juliet, await after.client(`${R}/phone`)])
      expect(await archived(client)).to.deep.equal([undefined, 'taken back'])
  })

  it('is stopped in the middle of a long search, and done after the start', async () => {
    const store = await openMemory()
    await using h = await archiveHost({}, { store })
    const nurse = await h.client('nurse@example.org/house')
    await nurse.send(chat('nurse@example.org', 'secret'))
    await fill(h, 'nurse', 5000)
    nurse.transport.feed(
      ['nowhere', 'secret'].map((id) => retraction(id, `r-${id}`, 'nurse@example.org')).join(''),
    )
    for (let turns = 0; turns < 200 && (await waiting(store, 'nurse')) < 2; turns++) await nextTurn()
    await h.unload('retract')
    expect(await waiting(store, 'nurse')).to.equal(2)
    expect((await archived(nurse))[0]).to.equal('secret')
    await h.load(retract)
    for (let i = 0; i < 30; i++) await h.settle()
    expect((await archived(nurse))[0]).to.equal(undefined)
    expect(await waiting(store, 'nurse')).to.equal(0)
  })

  it('is written before the retraction counts as handled; other messages write nothing', async () => {
    const inner = await openMemory()
    const store = makeFaulty(inner)
    await using h = await archiveHost({}, { store })
    const juliet = await h.client(`${J}/balcony`)
    const romeo = await h.client(`${R}/orchard`)
    await romeo.send('<presence/>')
    romeo.take()
    const { promise: until, resolve: go } = Promise.withResolvers<void>()
    store.only = /^retract\./
    store.fault = { until, done: false }
    await juliet.send(chat(R, 'secret'))
    expect([romeo.take().length, store.met]).to.deep.equal([1, 0])
    juliet.transport.feed(`${retraction('secret')}${chat(R, 'behind')}`)
    await h.settle()
    expect(romeo.take()).to.deep.equal([])
    go()
    await h.settle()
    expect(romeo.take().map((e) => e.getChildText('body'))).to.deep.equal(['taken back', 'behind'])
    expect((await archived(juliet))[0]).to.equal(undefined)
  })

  it('is done also when it could not be written, and when the archive cannot be read at first', async () => {
    const store = makeFaulty(await openMemory())
    await using h = await archiveHost({}, { store, ...quiet })
    const juliet = await h.client(`${J}/balcony`)
    for (const [only, later] of [
      [/^retract\.put$/, 0],
      [/^retract\.list$/, MINUTE],
      [/^mam\.page$/, MINUTE],
      [/^mam\.replace$/, MINUTE],
    ] as const) {
      const id = `secret ${only.source}`
      await juliet.send(chat(R, id))
      store.only = only
      store.fault = 'reject'
      expect(await juliet.send(retraction(id, `r ${id}`))).to.deep.equal([])
      store.fault = 'none'
      if (later > 0) await h.clock.advance(later)
      await h.settle()
      for (const jid of [J, R]) expect(await archived(await h.client(`${jid}/x`)), id).not.to.include(id)
    }
  })

  it('a conversation that cannot be read keeps the others of its account from nothing', async () => {
    const store = await openMemory()
    await using h = await archiveHost({}, { store, ...quiet })
    const juliet = await h.client(`${J}/balcony`)
    await juliet.send(chat('nurse@example.org', 'lost'))
    await juliet.send(chat(R, 'secret'))
    const { archive } = h.service('archive').source('juliet')
    const [lost] = (await archive.page('juliet', { from: 'first', limit: 1 })).entries
    const { xml } = lost!.doc
    await archive.replace('juliet', lost!.id, { xml: '<message' })
    await juliet.send(retraction('lost', 'r1', 'nurse@example.org'))
    await h.clock.advance(1)
    await juliet.send(retraction('secret', 'r2'))
    await h.settle()
    expect(await waiting(store, 'juliet')).to.equal(1)
    const bodies = async () => (await archived(juliet)).slice(0, 2)
    // Once it can be read again it is its turn too.
    await archive.replace('juliet', lost!.id, { xml })
    expect(await bodies()).to.deep.equal(['lost', undefined])
    await h.clock.advance(MINUTE)
    await h.settle()
    expect(await bodies()).to.deep.equal([undefined, undefined])
    expect(await waiting(store, 'juliet')).to.equal(0)
  })

  it('is given up when a conversation could not be read for a week', async () => {
    const store = await openMemory()
    await using h = await archiveHost({}, { store, ...quiet })
    const juliet = await h.client(`${J}/balcony`)
    await juliet.send(chat(R, 'lost'))
    const { archive } = h.service('archive').source('juliet')
    const [lost] = (await archive.page('juliet', { from: 'first', limit: 1 })).entries
    await archive.replace('juliet', lost!.id, { xml: '<message' })
    await juliet.send(retraction('lost'))
    const docs = store.open('example.org', 'retract').docs<{ at: number }>('waiting')
    const days = async (count: number) => {
      for await (const [key, doc] of docs.list('juliet'))
        await docs.put('juliet', key, { ...doc, at: h.clock.now() - count * 24 * 60 * MINUTE })
      await h.clock.advance(MINUTE)
      await h.settle()
      return await waiting(store, 'juliet')
    }
    expect([await days(6), await days(8)]).to.deep.equal([1, 0])
  })

  it('goes on when an entry that the search came to is taken out of the archive', async () => {
    const store = await openMemory()
    await using h = await archiveHost({}, { store })
    const nurse = await h.client('nurse@example.org/house')
    await nurse.send(chat('nurse@example.org', 'secret'))
    await fill(h, 'nurse', 300)
    const { archive } = h.service('archive').source('nurse')
    const page = archive.page.bind(archive)
    let removed = 0
    archive.page = async (owner, q) => {
      const read = await page(owner, q)
      const [oldest] = read.entries
      if (removed === 0 && q.with !== undefined && !read.complete && oldest !== undefined)
        removed = await archive.remove(owner, { ids: [oldest.id] })
      return read
    }
    await nurse.send(retraction('secret', 'r1', 'nurse@example.org'))
    for (let i = 0; i < 10; i++) await h.settle()
    expect(removed).to.equal(1)
    expect((await archived(nurse))[0]).to.equal(undefined)
    expect(await waiting(store, 'nurse')).to.equal(0)
  })

  it('many that find nothing cost few searches, and nobody else waits for them', async function () {
    this.timeout(60_000)
    const warned: string[] = []
    const { store, read } = counting(await openMemory())
    await using h = await archiveHost({}, { store, onLog: (_level, message) => void warned.push(message) })
    const nurse = await h.client('nurse@example.org/house')
    const juliet = await h.client(`${J}/balcony`)
    await fill(h, 'nurse', 10_000)
    await juliet.send(chat(R, 'secret'))
    for (let i = 0; i < 900; i += 100) {
      const some = Array.from({ length: 100 }, (_, k) =>
        retraction('nowhere', `r${i + k}`, 'nurse@example.org'),
      )
      nurse.transport.feed(some.join(''))
      await h.settle()
    }
    await juliet.send(retraction('secret'))
    for (let i = 0; i < 10; i++) await h.settle()
    expect((await archived(juliet))[0]).to.equal(undefined)
    for (let i = 0; i < 100; i++) await h.settle()
    expect(read.get('nurse')).to.be.lessThan(25_000)
    await h.clock.advance(MINUTE)
    for (let i = 0; i < 100; i++) await h.settle()
    expect(await waiting(store, 'nurse')).to.equal(0)
    expect(read.get('nurse')).to.be.lessThan(40_000)
    expect(warned).to.deep.equal([])
  })

  it('many in as many conversations are not read again for each of them', async () => {
    const store = makeFaulty(await openMemory())
    const docs = store.open('example.org', 'retract').docs('waiting')
    for (let i = 0; i < 500; i++) {
      const peer = `peer${i}@example.net`
      await docs.put('juliet', `${i}`, { from: `${J}/x`, peer, target: 'a', by: 'b', occupant: false, at: 0 })
    }
    // Counts the calls; none fails.
    Object.assign(store, { only: /^retract\.list$/, every: Infinity, met: 1, fault: 'reject' })
    await using h = await archiveHost({}, { store })
    for (let i = 0; i < 50; i++) await h.settle()
    const { met } = store
    expect(await waiting(store, 'juliet')).to.equal(0)
    expect(met - 1).to.be.within(1, 10)
  })

  it('has a bound for each author, whose others are left out; those of the others are not', async function () {
    this.timeout(60_000)
    const warned: string[] = []
    const store = makeFaulty(await openMemory())
    await using h = await archiveHost({}, { store, onLog: (_level, message) => void warned.push(message) })
    const juliet = await h.client(`${J}/balcony`)
    const from = (message: string) =>
      fromRemote(h, message.replace('<message', `<message from='tybalt@example.net/x'`))
    await juliet.send(chat(R, 'secret'))
    await from(chat(R, 'mine'))
    const { promise: until, resolve: go } = Promise.withResolvers<void>()
    store.only = /^mam\.page$/
    store.fault = { until, done: false }
    for (let i = 0; i < 1010; i++) await from(retraction('nowhere', `r${i}`))
    expect(warned).to.deep.equal(['too many retractions of one account at once, some are left out'])
    expect(await waiting(store, 'romeo')).to.equal(1000)
    await juliet.send(retraction('secret'))
    store.fault = 'none'
    go()
    await h.settle()
    // That was a long search in vain, of tybalt's conversation alone.
    const romeo = await h.client(`${R}/orchard`)
    expect((await archived(romeo))[0]).to.equal(undefined)
    await h.clock.advance(MINUTE)
    for (let i = 0; i < 20; i++) await h.settle()
    expect(await waiting(store, 'romeo')).to.equal(0)
    await h.clock.advance(MINUTE)
    await from(retraction('mine'))
    expect((await archived(romeo)).slice(0, 2)).to.deep.equal([undefined, undefined])
  })

  it('does not touch what came behind the retraction with the same id, however late it is done', async () => {
    const store = makeFaulty(await openMemory())
    await using h = await archiveHost({}, { store, ...quiet })
    const juliet = await h.client(`${J}/balcony`)
    await juliet.send(chat(R, '1', origin('a')))
    store.only = /^mam\.page$/
    store.fault = 'reject'
    const at = new Date(h.clock.now()).toISOString()
    await juliet.send(retraction('1'))
    store.fault = 'none'
    // Its client counts its messages anew.
    await juliet.send(chat(R, '1', origin('b')))
    await h.clock.advance(MINUTE)
    await h.settle()
    const { results } = await query(juliet)
    expect(results.map(({ body }) => body)).to.deep.equal([undefined, 'taken back', '1'])
    // §4: when it was taken back, not when that was carried out
    expect(results[0]?.message.elements[0]?.attr('stamp')).to.equal(at)
  })
})
