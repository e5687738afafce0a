/**
 * The mongodb driver when the database or the way to it fails: nothing acknowledged is lost or there twice, every operation
 * ends within the time limit, and the driver goes on by itself.
 */
import { expect } from 'chai'
import { randomBytes } from 'node:crypto'
import type { Store } from '../../server/storage/contract.ts'
import { StoreUnavailable } from '../../server/storage/contract.ts'
import { openMongodb } from '../../server/storage/mongodb.ts'
import { mongoOfSuite } from '../helpers/mongodb.ts'
import { startTcpProxy } from '../helpers/tcp-proxy.ts'
import type { TcpProxy } from '../helpers/tcp-proxy.ts'
import { collect, failure, range, readAll } from './storage/kit.ts'

type Numbered = { readonly n: number }

const at = new Date(1_700_000_000_000)
const limitMs = 700
// Of the limit, for a loaded machine.
const slackMs = 1500

describe('mongodb driver and failures', function () {
  this.timeout(60_000)
  const server = mongoOfSuite()
  let proxy: TcpProxy
  let store: Store
  let database = ''
  beforeEach('open a store through a relay', async function () {
    database = `hermod-test-${randomBytes(6).toString('hex')}`
    proxy = await startTcpProxy(Number(new URL(server().url.replace('mongodb:', 'http:')).port))
    // The library looks for the server again half a second after it was cut off.
    const timeoutMs = this.currentTest!.title.includes(' is lost') ? 5000 : limitMs
    store = await openMongodb({ url: `mongodb://127.0.0.1:${proxy.port}/`, database, timeoutMs })
  })
  afterEach('close it', async () => {
    await store.close()
    await proxy[Symbol.asyncDispose]()
  })

  /** Cuts the connection at the next command of this name: before it arrives, or instead of its answer. */
  function cutAt(command: string, when: 'request' | 'answer', times = 1): { readonly count: () => number } {
    let seen = false
    let left = times
    proxy.onRequest = (bytes) => {
      // The name of the command is the first field of the first section of a message.
      if (left === 0 || bytes.subarray(26, 26 + command.length + 1).toString('latin1') !== `${command}\0`)
        return true
      if (when === 'request') {
        left -= 1
        return false
      }
      seen = true
      return true
    }
    proxy.onAnswer = () => {
      if (!seen) return true
      seen = false
      left -= 1
      return false
    }
    return { count: () => times - left }
  }

  for (const when of ['request', 'answer'] as const) {
    const what = when === 'request' ? 'the command is lost' : 'the answer is lost'

    for (const dedupe of [undefined, 'key'] as const) {
      const kind = dedupe === undefined ? 'without' : 'with'
      it(`append ${kind} dedupe key, ${what}: resolves, and is there once`, async () => {
        const archive = store.open('h', 'm').archive<Numbered>('a')
        const first = await archive.append('o', { at, with: 'w', doc: { n: 0 } })
        // Once the command has arrived it is found there, and not sent again.
        for (const times of when === 'request' ? [1, 2] : [1]) {
          const cut = cutAt('insert', when, times)
          const entry = {
            at,
            with: 'w',
            doc: { n: times },
            ...(dedupe === undefined ? {} : { dedupe: `${dedupe}${times}` }),
          }
          const { id, duplicate } = await archive.append('o', entry)
          expect(cut.count()).to.equal(times)
          expect(duplicate).to.equal(false)
          expect(id > first.id).to.equal(true)
          const all = await readAll(archive, 'o')
          expect(all.filter(({ doc }) => doc.n === times).map((one) => one.id)).to.deep.equal([id])
        }
      })
    }

    it(`fifty appends at once, ${what}: all are there once, in order`, async () => {
      const archive = store.open('h', 'm').archive<Numbered>('a')
      await archive.append('o', { at, with: 'w', doc: { n: -1 } })
      const cut = cutAt('insert', when)
      const done = await Promise.all(range(50).map((n) => archive.append('o', { at, with: 'w', doc: { n } })))
      expect(cut.count()).to.equal(1)
      const all = (await readAll(archive, 'o')).slice(1)
      expect(all.map(({ doc }) => doc.n)).to.deep.equal(range(50))
      expect(all.map(({ id }) => id)).to.deep.equal(done.map(({ id }) => id))
    })

    it(`update, ${what}: rejects, and is done at most once`, async () => {
      const docs = store.open('h', 'm').docs<Numbered>('d')
      for (const [command, before] of [
        ['insert', undefined],
        ['update', 1],
      ] as const) {
        if (before !== undefined) await docs.put('o', command, { n: before })
        const cut = cutAt(command, when)
        const grow = () => docs.update('o', command, (old) => ({ n: (old?.n ?? 0) + 1 }))
        expect(await failure(grow)).to.be.instanceOf(StoreUnavailable)
        expect(cut.count()).to.equal(1)
        const start = before ?? 0
        const now = (await docs.get('o', command))?.n ?? 0
        expect(now).to.equal(when === 'answer' ? start + 1 : start)
        await grow()
        expect((await docs.get('o', command))!.n).to.equal(now + 1)
      }
    })

    it(`put, delete, ${what}: reject, and the next ones work`, async () => {
      const docs = store.open('h', 'm').docs<Numbered>('d')
      await docs.put('o', 'k', { n: 1 })
      cutAt('update', when)
      expect(await failure(() => docs.put('o', 'k', { n: 2 }))).to.be.instanceOf(StoreUnavailable)
      expect((await docs.get('o', 'k'))!.n).to.equal(when === 'answer' ? 2 : 1)
      cutAt('delete', when)
      expect(await failure(() => docs.delete('o', 'k'))).to.be.instanceOf(StoreUnavailable)
      expect(await docs.delete('o', 'k')).to.equal(when === 'request')
      await docs.put('o', 'k', { n: 3 })
      expect((await docs.get('o', 'k'))!.n).to.equal(3)
    })

    it(`counter, ${what}: rejects, and no number comes twice`, async () => {
      const counter = store.open('h', 'm').counter('c')
      const first = await counter.next('o')
      cutAt('findAndModify', when)
      expect(await failure(() => counter.next('o'))).to.be.instanceOf(StoreUnavailable)
      expect(await counter.next('o')).to.equal(when === 'answer' ? first + 2 : first + 1)
    })

    it(`reads, ${what}: are tried again`, async () => {
      const docs = store.open('h', 'm').docs<Numbered>('d')
      await docs.put('o', 'k', { n: 1 })
      const cut = cutAt('find', when)
      expect(await docs.get('o', 'k')).to.deep.equal({ n: 1 })
      expect(cut.count()).to.equal(1)
    })
  }

  /** Every kind of operation; each must reject within the limit. */
  async function allReject(): Promise<void> {
    const storage = store.open('h', 'm')
    const docs = storage.docs<Numbered>('d', { index: ['n'] })
    const archive = storage.archive<Numbered>('a')
    const operations: Readonly<Record<string, () => Promise<unknown>>> = {
      get: () => docs.get('o', 'k'),
      put: () => docs.put('o', 'k', { n: 9 }),
      update: () => docs.update('o', 'u', () => ({ n: 9 })),
      delete: () => docs.delete('o', 'x'),
      list: async () => {
        for await (const _ of docs.list('o')) throw new Error('found something')
      },
      owners: async () => {
        for await (const _ of archive.owners()) throw new Error('found something')
      },
      purge: () => docs.purge('p'),
      append: () => archive.append('o', { at, with: 'w', doc: { n: 9 }, dedupe: 'late' }),
      page: () => archive.page('o', { from: 'last', limit: 5 }),
      remove: () => archive.remove('p', { keepLast: 0 }),
      next: () => storage.counter('c').next('o'),
      acquire: () => storage.lease('l').acquire('k', 'me', 1000),
      purgeOwner: () => store.purgeOwner('h', 'p'),
    }
    const names = Object.keys(operations)
    const started = performance.now()
    const results = await Promise.all(
      names.map(async (name) => {
        const error = await failure(operations[name]!)
        return { name, error, ms: performance.now() - started }
      }),
    )
    for (const { name, error, ms } of results) {
      expect(error, `${name}: ${error.message}`).to.be.instanceOf(StoreUnavailable)
      expect(ms, name).to.be.lessThan(limitMs + slackMs)
    }
  }

  it('a way that is frozen: every operation rejects within the limit, and works again afterwards', async () => {
    const storage = store.open('h', 'm')
    const docs = storage.docs<Numbered>('d', { index: ['n'] })
    const archive = storage.archive<Numbered>('a')
    await docs.put('o', 'k', { n: 1 })
    const { id } = await archive.append('o', { at, with: 'w', doc: { n: 1 } })
    proxy.freeze(true)
    await allReject()
    const started = performance.now()
    expect(await store.healthy()).to.equal(false)
    expect(performance.now() - started).to.be.lessThan(limitMs + slackMs)
    // What was on its way arrives now, long after its sender gave up.
    proxy.freeze(false)
    const again = await archive.append('o', { at, with: 'w', doc: { n: 9 }, dedupe: 'late' })
    expect(again.id > id).to.equal(true)
    expect((await readAll(archive, 'o')).map(({ doc }) => doc.n)).to.deep.equal([1, 9])
    expect(await docs.get('o', 'k')).to.be.an('object')
    expect(await store.healthy()).to.equal(true)
  })

  it('a database that is gone: every operation rejects within the limit, and works when it is back', async () => {
    const storage = store.open('h', 'm')
    const docs = storage.docs<Numbered>('d', { index: ['n'] })
    const archive = storage.archive<Numbered>('a')
    await docs.put('o', 'k', { n: 1 })
    await archive.append('o', { at, with: 'w', doc: { n: 1 } })
    await server().kill()
    try {
      await allReject()
      expect(await store.healthy()).to.equal(false)
    } finally {
      await server().restart()
    }
    expect(await docs.get('o', 'k')).to.deep.equal({ n: 1 })
    await archive.append('o', { at, with: 'w', doc: { n: 9 }, dedupe: 'late' })
    expect((await readAll(archive, 'o')).map(({ doc }) => doc.n)).to.deep.equal([1, 9])
    expect(await store.healthy()).to.equal(true)
  })

  it('while the database is away what waits to be written has a bound', async () => {
    const storage = store.open('h', 'm')
    const docs = storage.docs<{ readonly v: string }>('d')
    const archive = storage.archive<{ readonly v: string }>('a')
    await archive.append('o', { at, with: 'w', doc: { v: '' } })
    proxy.freeze(true)
    const v = 'x'.repeat(4 * 1024 * 1024)
    const results = await Promise.all(
      range(80).map((n) =>
        failure(() =>
          n % 2 === 0
            ? docs.put(`o${n}`, 'k', { v })
            : archive.append(`o${n}`, { at, with: 'w', doc: { v } }),
        ),
      ),
    )
    const messages = results.map(({ message }) => message)
    for (const error of results) expect(error).to.be.instanceOf(StoreUnavailable)
    // 256 MiB are 64 of these, without what lies around them.
    const refused = messages.filter((message) => message.includes('too many writes wait'))
    expect(refused.length).to.be.within(17, 25)
    proxy.freeze(false)
    await docs.put('o', 'k', { v: 'small' })
  })

  it('close ends within the limit when the database is gone, and what waited rejects', async () => {
    const archive = store.open('h', 'm').archive<Numbered>('a')
    await archive.append('o', { at, with: 'w', doc: { n: 1 } })
    proxy.freeze(true)
    const waiting = failure(() => archive.append('o', { at, with: 'w', doc: { n: 2 } }))
    const started = performance.now()
    await store.close()
    expect(performance.now() - started).to.be.lessThan(2 * limitMs + slackMs)
    expect(await waiting).to.be.instanceOf(StoreUnavailable)
    proxy.freeze(false)
  })

  it('an index that could not be made at the start is made later', async () => {
    proxy.refuse(true)
    proxy.cut()
    const docs = store.open('h', 'new').docs<{ readonly f: string }>('d', { index: ['f'] })
    const archive = store.open('h', 'new').archive<Numbered>('a')
    expect(await failure(() => docs.put('o', 'k', { f: 'x' }))).to.be.instanceOf(StoreUnavailable)
    expect(await failure(() => archive.append('o', { at, with: '', doc: { n: 0 } }))).to.be.instanceOf(
      StoreUnavailable,
    )
    proxy.refuse(false)
    await docs.put('o', 'k', { f: 'x' })
    for await (const [owner] of docs.find('f', 'x')) expect(owner).to.equal('o')
    const entry = { at, with: '', doc: { n: 1 }, dedupe: 'd' }
    const { id } = await archive.append('o', entry)
    expect(await archive.append('o', entry)).to.deep.equal({ id, duplicate: true })
  })

  it('a way that freezes while an index is made: what needs it rejects within the limit', async () => {
    proxy.freeze(true)
    const docs = store.open('h', 'frozen').docs<{ readonly f: string }>('d', { index: ['f'] })
    const archive = store.open('h', 'frozen').archive<Numbered>('a')
    const started = performance.now()
    const errors = await Promise.all([
      failure(() => collect(docs.find('f', 'x'))),
      failure(() => archive.append('o', { at, with: '', doc: { n: 0 } })),
      failure(() => archive.page('o', { from: 'first', limit: 1 })),
    ])
    expect(performance.now() - started).to.be.lessThan(2 * limitMs + slackMs)
    for (const error of errors) expect(error).to.be.instanceOf(StoreUnavailable)
    proxy.freeze(false)
    expect((await archive.append('o', { at, with: '', doc: { n: 1 } })).duplicate).to.equal(false)
    expect(await collect(docs.find('f', 'x'))).to.deep.equal([])
  })
})
