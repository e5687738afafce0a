/**
 * Races between processes that only show when one of them is held at the worst moment: writers that fall behind a removal,
 * entries that are dead from the start, processes that end in between. See server/storage/mongodb/archive-rows.ts.
 */
import { expect } from 'chai'
import { MongoClient } from 'mongodb'
import { randomBytes } from 'node:crypto'
import type { Archive, Store } from '../../server/storage/contract.ts'
import { UnknownEntry } from '../../server/storage/contract.ts'
import { openMongodb } from '../../server/storage/mongodb.ts'
import { dropDatabase, mongoOfSuite } from '../helpers/mongodb.ts'
import { startTcpProxy } from '../helpers/tcp-proxy.ts'
import type { TcpProxy } from '../helpers/tcp-proxy.ts'
import { collect, failure, range, readAll } from './storage/kit.ts'

type Numbered = { readonly n: number; readonly by?: string }

const at = new Date(1_700_000_000_000)

describe('mongodb driver and races', function () {
  this.timeout(60_000)
  const server = mongoOfSuite()
  let proxy: TcpProxy
  let database = ''
  const stores: Store[] = []
  beforeEach('a relay for the process that is held', async () => {
    database = `hermod-test-${randomBytes(6).toString('hex')}`
    proxy = await startTcpProxy(Number(new URL(server().url.replace('mongodb:', 'http:')).port))
  })
  afterEach('close', async () => {
    proxy.onRequest = undefined
    for (const store of stores.splice(0)) await store.close()
    await proxy[Symbol.asyncDispose]()
    await dropDatabase(server().url, database)
  })

  async function open(way: 'held' | 'direct', settleMs?: number, timeoutMs = 5000): Promise<Store> {
    const url = way === 'held' ? `mongodb://127.0.0.1:${proxy.port}/` : server().url
    const store = await openMongodb({
      url,
      database,
      timeoutMs,
      ...(settleMs === undefined ? {} : { settleMs }),
    })
    stores.push(store)
    return store
  }
  const archiveOf = (store: Store) => store.open('h', 'm').archive<Numbered>('a')
  const add = (archive: Archive<Numbered>, n: number, dedupe?: string) =>
    archive.append('o', { at, with: 'w', doc: { n }, ...(dedupe === undefined ? {} : { dedupe }) })
  const numbersIn = async (archive: Archive<Numbered>) =>
    (await readAll(archive, 'o')).map(({ doc }) => doc.n)

  /** Holds the next command of this name on its way to the database. */
  function hold(command: string): { readonly caught: Promise<void>; release(passes?: boolean): void } {
    const caught = Promise.withResolvers<void>()
    const released = Promise.withResolvers<boolean>()
    proxy.onRequest = (bytes) => {
      // The name of the command is the first field of the first section of a message.
      if (bytes.subarray(26, 26 + command.length + 1).toString('latin1') !== `${command}\0`) return true
      proxy.onRequest = undefined
      caught.resolve()
      return released.promise
    }
    return { caught: caught.promise, release: (passes = true) => released.resolve(passes) }
  }

  /** All rows of the archive as they lie in the database. */
  async function rows(): Promise<{ readonly _id: string; readonly g?: boolean; readonly d?: Numbered }[]> {
    const client = new MongoClient(server().url)
    try {
      const all = client.db(database).collection<{ _id: string; g?: boolean; d?: Numbered }>('archive.m.a')
      return await all.find().sort({ _id: 1 }).toArray()
    } finally {
      await client.close()
    }
  }

  for (const settleMs of [0, undefined]) {
    const kind = settleMs === 0 ? 'deleted' : 'made a tombstone'

    it(`an insert that comes after its number was taken and ${kind} is not seen, and is moved up`, async () => {
      const slow = archiveOf(await open('held'))
      const quick = archiveOf(await open('direct', settleMs))
      await add(slow, 0)
      // It has chosen the number after the first entry.
      const insert = hold('insert')
      const late = add(slow, 100)
      await insert.caught
      const ids: string[] = []
      for (const n of [1, 2, 3]) ids.push((await add(quick, n)).id)
      expect(await quick.remove('o', { keepLast: 0 })).to.equal(4)
      // Now it arrives. Held again before it looks whether its number still counts.
      const look = hold('find')
      insert.release()
      await look.caught
      expect(await numbersIn(quick)).to.deep.equal([])
      expect((await quick.page('o', { from: 'first', limit: 9, count: true })).count).to.equal(0)
      expect((await rows()).filter(({ d }) => d?.n === 100)).to.have.length(1)
      look.release()
      const { id, duplicate } = await late
      expect(duplicate).to.equal(false)
      expect(id > ids.at(-1)!, `${id} after ${ids.at(-1)!}`).to.equal(true)
      expect((await readAll(quick, 'o')).map((entry) => [entry.id, entry.doc.n])).to.deep.equal([[id, 100]])
      expect((await rows()).filter(({ d }) => d?.n === 100)).to.have.length(1)
    })
  }

  it('an insert cannot fill a hole that a removal by id has left', async () => {
    const slow = archiveOf(await open('held'))
    const quick = archiveOf(await open('direct', 0))
    await add(slow, 0)
    const insert = hold('insert')
    const late = add(slow, 100)
    await insert.caught
    const ids: string[] = []
    for (const n of [1, 2, 3]) ids.push((await add(quick, n)).id)
    expect(await quick.remove('o', { ids: [ids[0]!] })).to.equal(1)
    insert.release()
    expect((await late).id > ids[2]!).to.equal(true)
    expect(await numbersIn(quick)).to.deep.equal([0, 2, 3, 100])
  })

  it('an entry that was removed before its writer looked again is not stored a second time', async () => {
    const slow = archiveOf(await open('held'))
    const quick = archiveOf(await open('direct'))
    const first = await add(slow, 0)
    const insert = hold('insert')
    const late = add(slow, 1)
    await insert.caught
    const look = hold('find')
    insert.release()
    await look.caught
    const seen = await readAll(quick, 'o')
    expect(seen.map(({ doc }) => doc.n)).to.deep.equal([0, 1])
    expect(await quick.remove('o', { keepLast: 0 })).to.equal(2)
    look.release()
    expect(await late).to.deep.equal({ id: seen[1]!.id, duplicate: false })
    expect(await numbersIn(quick)).to.deep.equal([])
    const next = await add(slow, 2)
    expect(next.id > seen[1]!.id && next.id > first.id).to.equal(true)
    expect(await numbersIn(quick)).to.deep.equal([2])
  })

  it('a dead entry of a process that ended does no harm, and its dedupe key is free', async () => {
    const slow = await open('held', undefined, 800)
    const quick = await open('direct', 0)
    await add(archiveOf(slow), 0)
    const insert = hold('insert')
    const lost = failure(() => add(archiveOf(slow), 100, 'key'))
    await insert.caught
    for (const n of [1, 2, 3]) await add(archiveOf(quick), n)
    await archiveOf(quick).remove('o', { keepLast: 0 })
    const look = hold('find')
    insert.release()
    await look.caught
    // It never gets to move the entry.
    proxy.refuse(true)
    look.release(false)
    proxy.cut()
    const archive = archiveOf(quick)
    const again = await add(archive, 200, 'key')
    expect(again.duplicate).to.equal(false)
    expect(await numbersIn(archive)).to.deep.equal([200])
    expect(await add(archive, 300, 'key')).to.deep.equal({ id: again.id, duplicate: true })
    await lost
    proxy.refuse(false)
  })

  it('purgeOwner leaves nothing that says whose it was, dead entries included', async () => {
    const slow = await open('held', undefined, 800)
    const quick = await open('direct', 0)
    const owner = 'juliet'
    const entry = { at, with: 'w', doc: { n: 1 } }
    await archiveOf(slow).append(owner, entry)
    const insert = hold('insert')
    const lost = failure(() => archiveOf(slow).append(owner, entry))
    await insert.caught
    for (const _ of range(3)) await archiveOf(quick).append(owner, entry)
    await archiveOf(quick).remove(owner, { keepLast: 0 })
    const look = hold('find')
    insert.release()
    await look.caught
    proxy.refuse(true)
    look.release(false)
    proxy.cut()
    await lost
    proxy.refuse(false)
    await quick.open('h', 'm').counter('c').next(owner)
    await quick.open('h', 'm').docs<Numbered>('d').put(owner, 'k', { n: 1 })
    expect(await quick.purgeOwner('h', owner)).to.equal(1)
    const client = new MongoClient(server().url)
    try {
      const db = client.db(database)
      const names = (await db.listCollections({}, { nameOnly: true }).toArray()).map(({ name }) => name)
      expect(names).to.include.members(['archive.m.a', 'counter.m.c', 'docs.m.d'])
      for (const name of names) {
        expect(JSON.stringify(await db.collection(name).find().toArray()), name).to.not.include(owner)
      }
    } finally {
      await client.close()
    }
  })

  it('while entries are removed no id appears below one already seen, and none twice', async () => {
    const all = await Promise.all(range(4).map(() => open('direct')))
    const archives = all.map(archiveOf)
    const each = 50
    let writing = true
    const ids: string[] = []
    const writes = Promise.all(
      archives.slice(0, 3).map(async (archive, w) => {
        for (const n of range(each)) {
          const entry = { at, with: 'w', doc: { n, by: `w${w}` } }
          ids.push((await archive.append('o', n % 3 === 0 ? entry : { ...entry, dedupe: `${w} ${n}` })).id)
        }
      }),
    ).finally(() => {
      writing = false
    })
    const removes = Promise.all(
      [archives[1]!, archives[3]!].map(async (archive, i) => {
        let removed = 0
        while (writing) removed += await archive.remove('o', { keepLast: i * 7 })
        return removed
      }),
    )
    const seen: { readonly id: string; readonly doc: Numbered }[] = []
    const reader = archives[0]!
    for (let more = true; more; ) {
      more = writing
      const last = seen.at(-1)?.id
      try {
        seen.push(...(await readAll(reader, 'o', last === undefined ? {} : { after: last }, 20)))
      } catch (error) {
        // The last one it saw is gone: it starts from the beginning.
        if (!(error instanceof UnknownEntry)) throw error
        seen.push(...(await readAll(reader, 'o')).filter(({ id }) => last === undefined || id > last))
      }
    }
    await writes
    const removed = await removes
    expect(new Set(ids)).to.have.property('size', each * 3)
    const read = seen.map(({ id }) => id)
    expect(read).to.deep.equal([...new Set(read)].sort())
    const what = seen.map(({ doc }) => `${doc.by} ${doc.n}`)
    expect(new Set(what)).to.have.property('size', what.length)
    for (const w of [0, 1, 2]) {
      const order = seen.filter(({ doc }) => doc.by === `w${w}`).map(({ doc }) => doc.n)
      expect(order).to.deep.equal([...order].sort((a, b) => a - b))
    }
    const left = await readAll(reader, 'o')
    expect(removed[0]! + removed[1]! + left.length).to.equal(each * 3)
    expect(seen.length).to.be.greaterThan(0)
    await reader.remove('o', { keepLast: 0 })
    expect(await collect(reader.owners())).to.deep.equal([])
    const { id } = await add(reader, 0)
    expect([...ids].sort().at(-1)! < id).to.equal(true)
    console.log(`        ${each * 3} appended, ${seen.length} read, ${removed.join(' + ')} removed meanwhile`)
  })

  it('two processes that make the first entry of an owner at once have one order', async () => {
    for (const round of range(10)) {
      const all = await Promise.all([open('direct'), open('direct'), open('direct')])
      const owner = `o${round}`
      const done = await Promise.all(
        all.map((store, n) => archiveOf(store).append(owner, { at, with: 'w', doc: { n }, dedupe: 'same' })),
      )
      expect(new Set(done.map(({ id }) => id))).to.have.property('size', 1)
      expect(done.filter(({ duplicate }) => !duplicate)).to.have.length(1)
      for (const store of stores.splice(0)) await store.close()
    }
  })
})
