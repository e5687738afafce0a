/** The store as a whole: isolation, deletion of an account, closing and reopening. */
import { expect } from 'chai'
import { StoreUnavailable } from '../../../server/storage/contract.ts'
import type { Storage, Store } from '../../../server/storage/contract.ts'
import { collect, failure, range, readAll } from './kit.ts'
import type { Test } from './kit.ts'

type Tagged = { readonly tag: string }

async function write(storage: Storage, name: string, owner: string, tag: string): Promise<void> {
  const indexed = storage.docs<Tagged>(name, { index: ['tag'] })
  await indexed.put(owner, 'k', { tag })
  await storage.archive<Tagged>(name).append(owner, { at: new Date(1), with: tag, doc: { tag }, dedupe: 'd' })
}

async function read(storage: Storage, name: string, owner: string): Promise<(string | undefined)[]> {
  const docs = storage.docs<Tagged>(name, { index: ['tag'] })
  const entries = await readAll(storage.archive<Tagged>(name), owner)
  return [(await docs.get(owner, 'k'))?.tag, ...entries.map(({ doc }) => doc.tag)]
}

const places = [
  ['a.example', 'roster', 'items'],
  ['b.example', 'roster', 'items'],
  ['', 'roster', 'items'],
  ['a.example', 'rosterx', 'items'],
  ['a.example', 'roster', 'itemsx'],
  ['a.example', 'roster.items', 'x'],
  ['a.example', 'roster', 'items.x'],
  ['a.examplé', '__proto__', 'constructor'],
] as const

/** Registers the group. */
export function storeGroup(test: Test): void {
  test('hosts, modules and collections do not see each other', async ({ fresh }) => {
    const { store } = await fresh()
    for (const [host, module, name] of places)
      await write(store.open(host, module), name, 'o', [host, module, name].join())
    for (const [host, module, name] of places) {
      const tag = [host, module, name].join()
      const storage = store.open(host, module)
      expect(await read(storage, name, 'o')).to.deep.equal([tag, tag])
      const docs = storage.docs<Tagged>(name, { index: ['tag'] })
      expect(await collect(docs.owners())).to.deep.equal(['o'])
      expect(await collect(docs.find('tag', tag))).to.have.length(1)
      expect(await collect(docs.find('tag', 'a.example,roster,other'))).to.have.length(0)
      const archive = storage.archive<Tagged>(name)
      expect((await archive.page('o', { from: 'last', limit: 9, count: true })).count).to.equal(1)
      await storage.counter(name).next('o')
    }
    const [host, module, name] = places[0]
    await store.open(host, module).docs(name).purge('o')
    await store.open(host, module).archive(name).remove('o', { keepLast: 0 })
    for (const [h, m, n] of places.slice(1)) {
      expect(await read(store.open(h, m), n, 'o')).to.deep.equal([[h, m, n].join(), [h, m, n].join()])
    }
  })

  test('the same call twice gives the same collection', async ({ store, host }) => {
    await store.open(host, 'm').docs<Tagged>('d').put('o', 'k', { tag: 'x' })
    expect(await store.open(host, 'm').docs<Tagged>('d').get('o', 'k')).to.deep.equal({ tag: 'x' })
    const one = store.open(host, 'm').counter('c')
    const two = store.open(host, 'm').counter('c')
    expect(await one.next('o')).to.be.lessThan(await two.next('o'))
  })

  test('names of hosts, modules and collections that cannot be are refused', async ({ store }) => {
    const open = (host: string, module: string, name: string) => () => store.open(host, module).docs(name)
    for (const [host, module, name] of [
      ['h', '', 'c'],
      ['h', 'm', ''],
      ['h\0', 'm', 'c'],
      ['h', 'm\0', 'c'],
      ['h', 'm', 'c'.repeat(256)],
    ] as const) {
      expect(await failure(open(host, module, name))).to.be.instanceOf(RangeError)
    }
  })

  test('purgeOwner deletes an account from all modules of a host, loaded or not', async ({ fresh }) => {
    const fixture = await fresh()
    const { store } = fixture
    for (const host of ['h.example', 'h.example2', 'x.example']) {
      for (const module of ['one', 'two']) {
        for (const name of ['a', 'b']) {
          const storage = store.open(host, module)
          for (const owner of ['o', 'other', '']) {
            await write(storage, name, owner, 'x')
            await storage.counter(name).next(owner)
          }
        }
      }
    }
    await Promise.all(
      range(1200).map((i) => store.open('h.example', 'one').docs('a').put('o', `more ${i}`, { i })),
    )
    const lease = store.open('h.example', 'one').lease('l')
    await lease.acquire('o', 'me', 60_000)
    expect(await store.purgeOwner('h.example', 'o')).to.equal(1208)
    expect(await store.purgeOwner('h.example', 'o')).to.equal(0)
    expect(await store.purgeOwner('nowhere.example', 'o')).to.equal(0)
    for (const module of ['one', 'two']) {
      for (const name of ['a', 'b']) {
        const storage = store.open('h.example', module)
        expect(await read(storage, name, 'o')).to.deep.equal([undefined])
        expect(await storage.counter(name).get('o')).to.equal(0)
        expect((await collect(storage.docs(name).owners())).sort()).to.deep.equal(['', 'other'])
        expect((await collect(storage.archive(name).owners())).sort()).to.deep.equal(['', 'other'])
        const found = await collect(storage.docs<Tagged>(name, { index: ['tag'] }).find('tag', 'x'))
        expect(found).to.have.length(2)
        // The dedupe key went with the entry.
        const again = { at: new Date(1), with: '', doc: { tag: 'y' }, dedupe: 'd' }
        expect((await storage.archive<Tagged>(name).append('o', again)).duplicate).to.equal(false)
        for (const host of ['h.example2', 'x.example']) {
          expect(await read(store.open(host, module), name, 'o')).to.deep.equal(['x', 'x'])
          expect(await store.open(host, module).counter(name).get('o')).to.be.greaterThan(0)
        }
      }
    }
    expect(await lease.get('o')).to.not.equal(undefined)
    expect(await store.purgeOwner('h.example', '')).to.equal(8)
  }, 60_000)

  test('purgeOwner knows collections of an earlier run', async ({ fresh }) => {
    const fixture = await fresh()
    await write(fixture.store.open('h', 'old-module'), 'c', 'o', 'x')
    await fixture.store.open('h', 'old-module').counter('n').next('o')
    const store = await fixture.reopen()
    expect(await store.purgeOwner('h', 'o')).to.equal(2)
    expect(await read(store.open('h', 'old-module'), 'c', 'o')).to.deep.equal([undefined])
    expect(await store.open('h', 'old-module').counter('n').get('o')).to.equal(0)
  })

  test('everything is there after close and reopen', async ({ fresh }) => {
    let now = 5000
    const fixture = await fresh({ now: () => now })
    const numbers: number[] = []
    const tokens: number[] = []
    const ids: string[] = []
    const fill = async (store: Store, round: number) => {
      const storage = store.open('h', 'm')
      await storage.docs<Tagged>('d', { index: ['tag'] }).put(`o${round}`, 'k'.repeat(3000), { tag: 'x' })
      for (const _ of range(5)) numbers.push(await storage.counter('c').next('o'))
      const entry = { at: new Date(round), with: `w${round}`, doc: { tag: `t${round}` }, dedupe: `d${round}` }
      ids.push((await storage.archive<Tagged>('a').append('o', entry)).id)
      tokens.push((await storage.lease('l').acquire('k', `holder ${round}`, 1000))!.token)
      now += 2000
    }
    await fill(fixture.store, 0)
    for (const round of [1, 2, 3]) {
      const store = await fixture.reopen()
      const storage = store.open('h', 'm')
      expect(await storage.counter('c').get('o')).to.equal(numbers.at(-1))
      await fill(store, round)
      expect(
        await storage
          .archive<Tagged>('a')
          .append('o', { at: new Date(), with: '', doc: { tag: '' }, dedupe: 'd0' }),
      ).to.deep.equal({ id: ids[0], duplicate: true })
      const entries = await readAll(storage.archive<Tagged>('a'), 'o')
      expect(entries.map(({ id }) => id)).to.deep.equal(ids)
      expect(entries.map(({ doc }) => doc.tag)).to.deep.equal(range(round + 1).map((i) => `t${i}`))
      expect(await collect(storage.docs<Tagged>('d', { index: ['tag'] }).find('tag', 'x'))).to.have.length(
        round + 1,
      )
    }
    expect(numbers).to.deep.equal([...new Set(numbers)].sort((a, b) => a - b))
    expect(tokens).to.deep.equal([...new Set(tokens)].sort((a, b) => a - b))
    expect([...ids].sort()).to.deep.equal(ids)
    const last = fixture.store.open('h', 'm')
    await last.archive('a').remove('o', { keepLast: 0 })
    const store = await fixture.reopen()
    const next = await store
      .open('h', 'm')
      .archive<Tagged>('a')
      .append('o', { at: new Date(), with: '', doc: { tag: '' } })
    expect(next.id > ids.at(-1)!).to.equal(true)
  }, 60_000)

  test('an index declared after a restart finds the documents stored before', async ({ fresh }) => {
    const fixture = await fresh()
    const plain = fixture.store.open('h', 'm').docs<Tagged>('d')
    await Promise.all(range(100).map((i) => plain.put('o', `k${i}`, { tag: `t${i % 4}` })))
    const docs = (await fixture.reopen()).open('h', 'm').docs<Tagged>('d', { index: ['tag'] })
    expect(await collect(docs.find('tag', 't2'))).to.have.length(25)
    // A version of the module that does not know the index does not break it.
    const older = (await fixture.reopen()).open('h', 'm').docs<Tagged>('d')
    await older.put('o', 'k2', { tag: 't3' })
    await older.put('p', 'new', { tag: 't2' })
    await older.delete('o', 'k6')
    const again = (await fixture.reopen()).open('h', 'm').docs<Tagged>('d', { index: ['tag'] })
    const keys = (await collect(again.find('tag', 't2'))).map(([owner, key]) => `${owner}/${key}`)
    expect(keys).to.have.length(24)
    expect(keys).to.include('p/new').and.to.not.include('o/k2').and.to.not.include('o/k6')
  }, 60_000)

  test('close waits for the writes before it', async ({ fresh }) => {
    const fixture = await fresh()
    const docs = fixture.store.open('h', 'm').docs<Tagged>('d')
    const done = Promise.all(range(200).map((i) => docs.put('o', `k${i}`, { tag: 'x' })))
    const store = await fixture.reopen()
    await done
    expect(await collect(store.open('h', 'm').docs<Tagged>('d').list('o'))).to.have.length(200)
  })

  test('after close every call is refused with StoreUnavailable', async ({ fresh }) => {
    const { store } = await fresh()
    const storage = store.open('h', 'm')
    const docs = storage.docs<Tagged>('d', { index: ['tag'] })
    const archive = storage.archive<Tagged>('a')
    await docs.put('o', 'k', { tag: 'x' })
    expect(await store.healthy()).to.equal(true)
    await store.close()
    await store.close()
    expect(await store.healthy()).to.equal(false)
    const calls: readonly (() => Promise<unknown>)[] = [
      () => docs.get('o', 'k'),
      () => docs.put('o', 'k', { tag: 'y' }),
      () => docs.update('o', 'k', (old) => old),
      () => docs.delete('o', 'k'),
      () => docs.purge('o'),
      () => collect(docs.list('o')),
      () => collect(docs.find('tag', 'x')),
      () => collect(docs.owners()),
      () => archive.append('o', { at: new Date(), with: '', doc: { tag: '' } }),
      () => archive.page('o', { from: 'first', limit: 1 }),
      () => archive.replace('o', 'x', { tag: '' }),
      () => archive.remove('o', { keepLast: 0 }),
      () => collect(archive.owners()),
      () => storage.counter('c').next('o'),
      () => storage.counter('c').get('o'),
      () => storage.lease('l').acquire('k', 'a', 1000),
      () => storage.lease('l').get('k'),
      () => store.purgeOwner('h', 'o'),
    ]
    for (const call of calls) expect(await failure(call), String(call)).to.be.instanceOf(StoreUnavailable)
  })
}
