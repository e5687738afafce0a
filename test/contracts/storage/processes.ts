/**
 * Several processes on the same data: each sees what the other was told is done, nothing acknowledged is
 * lost.
 */
import { expect } from 'chai'
import { collect, range, readAll } from './kit.ts'
import type { Test } from './kit.ts'

type Numbered = { readonly n: number; readonly by: string }

/** Registers the group. */
export function processesGroup(test: Test): void {
  test("two processes see each other's writes", async ({ fresh, child }) => {
    const fixture = await fresh()
    const storage = fixture.store.open('h', 'm')
    const docs = storage.docs<Numbered>('d', { index: ['by'] })
    const archive = storage.archive<Numbered>('a')
    const other = await child(fixture)
    const owners = new Set<string>()
    for (const n of range(30)) {
      const owner = `o${n % 5}`
      owners.add(owner)
      await other.call('put', { owner, key: `there ${n}`, doc: { n, by: 'there' } })
      expect(await docs.get(owner, `there ${n}`)).to.deep.equal({ n, by: 'there' })
      await docs.put(owner, `here ${n}`, { n, by: 'here' })
      expect(await other.call('get', { owner, key: `here ${n}` })).to.deep.equal({ n, by: 'here' })
      const id = await other.call('append', {
        owner,
        entry: { at: n, with: 'w', doc: { n, by: 'there' }, dedupe: `d${n}` },
      })
      const last = await archive.page(owner, { from: 'last', limit: 1, with: 'w' })
      expect(last.entries[0]!.id).to.equal(id)
      const again = { at: new Date(), with: '', doc: { n, by: 'here' }, dedupe: `d${n}` }
      expect(await archive.append(owner, again)).to.deep.equal({ id, duplicate: true })
    }
    expect((await collect(docs.find('by', 'there'))).length).to.equal(30)
    expect(await other.call('find', { field: 'by', value: 'here' })).to.have.length(30)
    expect((await collect(docs.owners())).sort()).to.deep.equal([...owners].sort())
    expect(await other.call('delete', { owner: 'o1', key: 'here 1' })).to.equal(true)
    expect(await docs.get('o1', 'here 1')).to.equal(undefined)
  }, 60_000)

  test('a collection and an index that another process makes are seen', async ({ fresh, child }) => {
    const fixture = await fresh()
    const other = await child(fixture)
    const plain = fixture.store.open('h', 'm').docs<Numbered>('d')
    await plain.put('o', 'before', { n: 1, by: 'x' })
    expect(await other.call('find', { field: 'by', value: 'x' })).to.have.length(1)
    // This process has not declared the index, the other one has: it is kept up all the same.
    await plain.put('o', 'after', { n: 2, by: 'x' })
    await plain.put('o', 'before', { n: 1, by: 'y' })
    expect(await other.call('find', { field: 'by', value: 'x' })).to.deep.equal([
      ['o', 'after', { n: 2, by: 'x' }],
    ])
    await other.call('append', {
      module: 'new',
      owner: 'o',
      entry: { at: 1, with: '', doc: { n: 1, by: '' } },
    })
    expect(await readAll(fixture.store.open('h', 'new').archive('a'), 'o')).to.have.length(1)
    await other.call('append', {
      module: 'newer',
      owner: 'o',
      entry: { at: 1, with: '', doc: { n: 1, by: '' } },
    })
    expect(await fixture.store.purgeOwner('h', 'o')).to.equal(4)
  }, 60_000)

  test('update and counter lose nothing between processes', async ({ fresh, child }) => {
    const fixture = await fresh()
    const storage = fixture.store.open('h', 'm')
    const docs = storage.docs<Numbered>('d')
    const counter = storage.counter('c')
    const others = await Promise.all([child(fixture), child(fixture)])
    const each = 150
    const [here, ...there] = await Promise.all([
      (async () => {
        const got: number[] = []
        for (const _ of range(each)) {
          await docs.update('o', 'k', (old) => ({ n: (old?.n ?? 0) + 1, by: '' }))
          got.push(await counter.next('o'))
        }
        return got
      })(),
      ...others.map((other) => other.call('count', { owner: 'o', key: 'k', times: each })),
    ])
    const all = [...here, ...there.flatMap((got) => got as number[])]
    expect(new Set(all)).to.have.property('size', each * 3)
    for (const got of [here, ...there] as number[][])
      expect([...got].sort((a, b) => a - b)).to.deep.equal(got)
    expect((await docs.get('o', 'k'))!.n).to.equal(each * 3)
  }, 60_000)

  test('with writers in several processes no id appears below one already seen', async ({ fresh, child }) => {
    const fixture = await fresh()
    const archive = fixture.store.open('h', 'm').archive<Numbered>('a')
    const others = await Promise.all(range(3).map(() => child(fixture)))
    const each = 200
    let writing = true
    const writes = Promise.all([
      ...others.map((other, i) =>
        other.call('appendMany', { owner: 'o', by: `p${i}`, times: each, inFlight: 8 }),
      ),
      Promise.all(
        range(each).map((n) => archive.append('o', { at: new Date(), with: '', doc: { n, by: 'here' } })),
      ),
    ]).finally(() => {
      writing = false
    })
    const seen: { readonly id: string; readonly doc: Numbered }[] = []
    for (let more = true; more; ) {
      more = writing
      const after = seen.at(-1)?.id
      seen.push(...(await readAll(archive, 'o', after === undefined ? {} : { after }, 50)))
      await new Promise((resolve) => setImmediate(resolve))
    }
    await writes
    expect(seen).to.have.length(each * 4)
    expect(seen.map(({ id }) => id)).to.deep.equal((await readAll(archive, 'o')).map(({ id }) => id))
    for (const by of ['here', 'p0', 'p1', 'p2']) {
      expect(seen.filter(({ doc }) => doc.by === by).map(({ doc }) => doc.n)).to.deep.equal(range(each))
    }
  }, 60_000)

  test('a lease is held by one process', async ({ fresh, child }) => {
    const fixture = await fresh()
    const lease = fixture.store.open('h', 'm').lease('l')
    const others = await Promise.all([child(fixture), child(fixture)])
    for (const i of range(10)) {
      const granted = await Promise.all([
        lease.acquire(`k${i}`, 'here', 60_000),
        ...others.map((other, n) => other.call('acquire', { key: `k${i}`, holder: `p${n}` })),
      ])
      expect(granted.filter((one) => one !== undefined)).to.have.length(1)
    }
  }, 60_000)

  test('a process killed while it writes loses nothing it was told is stored', async ({ fresh, child }) => {
    const fixture = await fresh()
    for (const round of range(3)) {
      const other = await child(fixture)
      // In one round nobody else has the place open, so whoever opens it next finds it as the process left
      // it.
      const alone = round === 1
      if (alone) await fixture.store.close()
      const acknowledged: { readonly n: number; readonly id: string }[] = []
      await new Promise<void>((resolve) => {
        other.onReport((report) => {
          acknowledged.push(report as { n: number; id: string })
          if (acknowledged.length === 300 + round * 137) resolve()
        })
        void other.call('flood', { owner: `o${round}`, inFlight: 32 }).catch(() => undefined)
      })
      await other.kill()
      const check = async () => {
        const storage = fixture.store.open('h', 'm')
        const docs = storage.docs<Numbered>('d', { index: ['by'] })
        const entries = new Map(
          (await readAll(storage.archive<Numbered>('a'), `o${round}`)).map((e) => [e.id, e.doc.n]),
        )
        for (const { n, id } of acknowledged) {
          expect(entries.get(id), `entry ${n}`).to.equal(n)
          expect(await docs.get(`o${round}`, `k${n}`), `document ${n}`).to.deep.equal({ n, by: `o${round}` })
        }
        const found = new Set((await collect(docs.find('by', `o${round}`))).map(([, key]) => key))
        for (const { n } of acknowledged) expect(found.has(`k${n}`), `index ${n}`).to.equal(true)
        expect(await storage.counter('c').get(`o${round}`)).to.be.at.least(acknowledged.length)
      }
      // At once in this process, which had the store open all the time, and after opening it anew.
      if (!alone) await check()
      await fixture.reopen()
      await check()
      const next = { at: new Date(), with: '', doc: { n: -1, by: 'after' } }
      const { id } = await fixture.store.open('h', 'm').archive<Numbered>('a').append(`o${round}`, next)
      for (const one of acknowledged) expect(id > one.id).to.equal(true)
    }
  }, 120_000)
}
