/** Archives: ids, order, duplicates, replacement, removal. */
import { expect } from 'chai'
import type { Archive } from '../../../server/storage/contract.ts'
import { collect, failure, range, readAll } from './kit.ts'
import type { Test } from './kit.ts'

type Msg = { readonly n: number; readonly text?: string }

const bytewise = (a: string, b: string) => Buffer.compare(Buffer.from(a), Buffer.from(b))

async function fill(archive: Archive<Msg>, owner: string, count: number, first = 0): Promise<string[]> {
  const done = range(count).map((i) =>
    archive.append(owner, { at: new Date(1000 + first + i), with: `w${i % 2}`, doc: { n: first + i } }),
  )
  return (await Promise.all(done)).map(({ id }) => id)
}

/** Registers the group. */
export function archiveGroup(test: Test): void {
  test('ids are unique and sort bytewise in the order of the calls', async ({ storage }) => {
    const archive = storage.archive<Msg>('a')
    const ids: string[] = []
    for (const round of range(6)) ids.push(...(await fill(archive, 'o', 50, round * 50)))
    expect(new Set(ids)).to.have.property('size', 300)
    expect([...ids].sort(bytewise)).to.deep.equal(ids)
    const all = await readAll(archive, 'o')
    expect(all.map(({ id }) => id)).to.deep.equal(ids)
    expect(all.map(({ doc }) => doc.n)).to.deep.equal(range(300))
  })

  test('appends of the same millisecond keep their order', async ({ storage }) => {
    const archive = storage.archive<Msg>('a')
    const at = new Date(1_700_000_000_000)
    await Promise.all(range(100).map((n) => archive.append('o', { at, with: 'w', doc: { n } })))
    const all = await readAll(archive, 'o', { start: at, end: at, with: 'w' }, 7)
    expect(all.map(({ doc }) => doc.n)).to.deep.equal(range(100))
    expect(all.every((entry) => entry.at.getTime() === at.getTime())).to.equal(true)
  })

  test('times from year 0 to 9999 and any correspondent come back as given', async ({ storage }) => {
    const archive = storage.archive<Msg>('a')
    const times = [
      0,
      -1,
      1,
      Date.UTC(9999, 11, 31, 23, 59, 59, 999),
      -62_167_219_200_000,
      2 ** 31,
      2 ** 32 + 0.5,
      Date.now(),
    ]
    const peers = ['', '\0', 'a@b/c', 'x'.repeat(3071), `${'x'.repeat(3070)}y`, '日本', '__proto__', 'a\0']
    for (const [n, ms] of times.entries()) {
      await archive.append('o', { at: new Date(ms), with: peers[n]!, doc: { n } })
    }
    const all = await readAll(archive, 'o')
    expect(all.map(({ at }) => at.getTime())).to.deep.equal(times.map((ms) => Math.trunc(ms)))
    expect(all.map((entry) => entry.with)).to.deep.equal(peers)
    for (const [n, ms] of times.entries()) {
      const at = new Date(ms)
      expect((await readAll(archive, 'o', { start: at, end: at })).map(({ doc }) => doc.n)).to.deep.equal([n])
      expect((await readAll(archive, 'o', { with: peers[n]! })).map(({ doc }) => doc.n)).to.deep.equal([n])
    }
  })

  test('a reader that pages after the last id it saw gets every entry once and in order', async ({
    storage,
  }) => {
    const archive = storage.archive<Msg>('a')
    const writers = 8
    const each = 60
    let writing = true
    const writes = Promise.all(
      range(writers).map(async (w) => {
        for (const i of range(each))
          await archive.append('o', { at: new Date(), with: `w${w}`, doc: { n: i } })
      }),
    ).finally(() => {
      writing = false
    })
    const seen: { readonly id: string; readonly with: string; readonly n: number }[] = []
    for (let more = true; more; ) {
      more = writing
      const after = seen.at(-1)?.id
      for (const entry of await readAll(archive, 'o', after === undefined ? {} : { after }, 13)) {
        seen.push({ id: entry.id, with: entry.with, n: entry.doc.n })
      }
      await new Promise((resolve) => setImmediate(resolve))
    }
    await writes
    expect(seen).to.have.length(writers * each)
    expect(seen.map(({ id }) => id)).to.deep.equal((await readAll(archive, 'o')).map(({ id }) => id))
    for (const w of range(writers)) {
      expect(seen.filter((one) => one.with === `w${w}`).map(({ n }) => n)).to.deep.equal(range(each))
    }
  })

  test('dedupe: a repeat stores nothing and gives the id of the first', async ({ storage }) => {
    const archive = storage.archive<Msg>('a')
    const append = (owner: string, n: number, dedupe: string) =>
      archive.append(owner, { at: new Date(n), with: `w${n}`, doc: { n }, dedupe })
    const first = await append('o', 1, 'origin-1')
    expect(first.duplicate).to.equal(false)
    expect(await append('o', 2, 'origin-1')).to.deep.equal({ id: first.id, duplicate: true })
    expect((await append('p', 3, 'origin-1')).duplicate).to.equal(false)
    expect((await append('o', 4, 'origin-2')).duplicate).to.equal(false)
    const odd = ['', '\0', 'x'.repeat(3071), `${'x'.repeat(3070)}y`, '__proto__', 'origin-1\0']
    for (const dedupe of odd)
      expect((await append('o', 5, dedupe)).duplicate, dedupe.slice(0, 9)).to.equal(false)
    for (const dedupe of odd)
      expect((await append('o', 6, dedupe)).duplicate, dedupe.slice(0, 9)).to.equal(true)
    const all = await readAll(archive, 'o')
    expect(all.map(({ doc }) => doc.n)).to.deep.equal([1, 4, 5, 5, 5, 5, 5, 5])
  })

  test('dedupe: of concurrent repeats one is stored', async ({ storage }) => {
    const archive = storage.archive<Msg>('a')
    const results = await Promise.all(
      range(60).map((n) =>
        archive.append('o', { at: new Date(n), with: '', doc: { n }, dedupe: `d${n % 3}` }),
      ),
    )
    expect(results.filter(({ duplicate }) => !duplicate)).to.have.length(3)
    for (const [n, { id }] of results.entries()) expect(id).to.equal(results[n % 3]!.id)
    expect(await readAll(archive, 'o')).to.have.length(3)
  })

  test('dedupe: after its entry is removed a key may be used again', async ({ storage }) => {
    const archive = storage.archive<Msg>('a')
    const append = (n: number) => archive.append('o', { at: new Date(n), with: '', doc: { n }, dedupe: 'd' })
    const first = await append(1)
    expect(await archive.remove('o', { ids: [first.id] })).to.equal(1)
    const second = await append(2)
    expect(second.duplicate).to.equal(false)
    expect(second.id > first.id).to.equal(true)
    expect(await append(3)).to.deep.equal({ id: second.id, duplicate: true })
    expect(await archive.remove('o', { keepLast: 0 })).to.equal(1)
    expect((await append(4)).duplicate).to.equal(false)
  })

  test('replace changes the document in its place and nothing else', async ({ storage }) => {
    const archive = storage.archive<Msg>('a')
    const { id } = await archive.append('o', {
      at: new Date(5),
      with: 'w',
      doc: { n: 1, text: 'old words' },
      dedupe: 'd',
    })
    const rest = await fill(archive, 'o', 3, 10)
    expect(await archive.replace('o', id, { n: 2, text: 'new words' })).to.equal(true)
    const all = await readAll(archive, 'o')
    expect(all[0]).to.deep.equal({ id, at: new Date(5), with: 'w', doc: { n: 2, text: 'new words' } })
    expect(all.map((entry) => entry.id)).to.deep.equal([id, ...rest])
    const found = async (text: string) => (await readAll(archive, 'o', { text })).map((entry) => entry.id)
    expect([await found('old'), await found('new'), await found('words')]).to.deep.equal([[], [id], [id]])
    expect(await archive.append('o', { at: new Date(), with: '', doc: { n: 3 }, dedupe: 'd' })).to.deep.equal(
      {
        id,
        duplicate: true,
      },
    )
    await archive.replace('o', id, { n: 9, text: 'x'.repeat(50_000) })
    expect((await readAll(archive, 'o', { with: 'w', ids: [id] }))[0]!.doc.text).to.have.length(50_000)
  })

  test('replace of what is not stored is false', async ({ storage }) => {
    const archive = storage.archive<Msg>('a')
    const [id] = await fill(archive, 'o', 1)
    for (const unknown of ['', 'x', '\0', `${id!}0`, '__proto__', '😀', 'f'.repeat(5000)]) {
      expect(await archive.replace('o', unknown, { n: 9 }), unknown).to.equal(false)
    }
    expect(await archive.replace('p', id!, { n: 9 })).to.equal(false)
    await archive.remove('o', { ids: [id!] })
    expect(await archive.replace('o', id!, { n: 9 })).to.equal(false)
    expect(await readAll(archive, 'o')).to.deep.equal([])
  })

  test('remove by ids, by age and by count', async ({ storage }) => {
    const archive = storage.archive<Msg>('a')
    const ids = await fill(archive, 'o', 20)
    await fill(archive, 'p', 3)
    const left = async () => (await readAll(archive, 'o')).map(({ doc }) => doc.n)
    expect(await archive.remove('o', { ids: [ids[3]!, ids[5]!, 'unknown', '', ids[3]!] })).to.equal(2)
    expect(await left()).to.deep.equal(range(20).filter((n) => n !== 3 && n !== 5))
    expect(await archive.remove('o', { until: new Date(1007) })).to.equal(6)
    expect(await left()).to.deep.equal(range(20).slice(8))
    expect(await archive.remove('o', { keepLast: 5 })).to.equal(7)
    expect(await left()).to.deep.equal(range(20).slice(15))
    expect(await archive.remove('o', { keepLast: 5 })).to.equal(0)
    expect(await archive.remove('o', { ids: [] })).to.equal(0)
    expect(await archive.remove('o', {})).to.equal(0)
    expect(await archive.remove('nobody', { keepLast: 0 })).to.equal(0)
    expect((await archive.page('o', { from: 'first', limit: 1, count: true })).count).to.equal(5)
    expect((await archive.page('o', { from: 'first', limit: 9, with: 'w1', count: true })).count).to.equal(3)
    expect(await archive.remove('o', { keepLast: 0 })).to.equal(5)
    expect(await collect(archive.owners())).to.deep.equal(['p'])
  })

  test('remove with several conditions removes what meets all of them', async ({ storage }) => {
    const archive = storage.archive<Msg>('a')
    const ids = await fill(archive, 'o', 20)
    const left = async () => (await readAll(archive, 'o')).map(({ doc }) => doc.n)
    expect(await archive.remove('o', { until: new Date(1015), keepLast: 14 })).to.equal(6)
    expect(await left()).to.deep.equal(range(20).slice(6))
    expect(await archive.remove('o', { ids: ids.slice(10), until: new Date(1011) })).to.equal(2)
    expect(await archive.remove('o', { ids: ids.slice(0, 9), keepLast: 10 })).to.equal(2)
    expect(await left()).to.deep.equal([8, 9, ...range(20).slice(12)])
    expect(await archive.remove('o', { ids, until: new Date(1013), keepLast: 9 })).to.equal(1)
    expect(await left()).to.deep.equal([9, ...range(20).slice(12)])
  })

  test('remove in front of an id, which need not be stored any more', async ({ storage }) => {
    const archive = storage.archive<Msg>('a')
    const ids = await fill(archive, 'o', 30)
    const left = async () => (await readAll(archive, 'o')).map(({ doc }) => doc.n)
    expect(await archive.remove('o', { before: ids[0]! })).to.equal(0)
    expect(await archive.remove('o', { before: ids[4]! })).to.equal(4)
    expect(await left()).to.deep.equal(range(30).slice(4))
    expect(await archive.remove('o', { before: ids[2]! })).to.equal(0)
    expect(await archive.remove('o', { before: ids[9]!, until: new Date(1006) })).to.equal(3)
    expect(await archive.remove('o', { before: ids[12]!, ids: ids.slice(10, 20) })).to.equal(2)
    expect(await archive.remove('o', { before: ids[29]!, keepLast: 20 })).to.equal(1)
    expect(await archive.remove('o', { before: ids[14]!, keepLast: 1 })).to.equal(4)
    expect(await left()).to.deep.equal(range(30).slice(14))
    expect(await archive.remove('o', { before: ids[29]!, keepLast: 0 })).to.equal(15)
    expect(await archive.remove('nobody', { before: ids[29]! })).to.equal(0)
  })

  test('an effort that is no whole number of 1 or more is RangeError', async ({ storage }) => {
    const archive = storage.archive<Msg>('a')
    for (const effort of [0, -1, 1.5, Number.NaN])
      expect(
        await failure(() => archive.page('o', { from: 'first', limit: 1, effort })),
        String(effort),
      ).to.be.instanceOf(RangeError)
  })

  test('remove by age looks at the times, not at the order', async ({ storage }) => {
    const archive = storage.archive<Msg>('a')
    const times = [50, 10, 90, 20, 20, 95, 5, 60, 20]
    for (const [n, ms] of times.entries())
      await archive.append('o', { at: new Date(ms), with: 'w', doc: { n } })
    expect(await archive.remove('o', { until: new Date(20) })).to.equal(5)
    expect((await readAll(archive, 'o')).map(({ at }) => at.getTime())).to.deep.equal([50, 90, 95, 60])
    expect((await readAll(archive, 'o', { end: new Date(60) })).map(({ doc }) => doc.n)).to.deep.equal([0, 7])
    const ahead = [4e12, 10, 20, 4e12 + 1, 30]
    for (const [n, ms] of ahead.entries())
      await archive.append('p', { at: new Date(ms), with: 'w', doc: { n } })
    expect(await archive.remove('p', { until: new Date(20) })).to.equal(2)
    expect((await readAll(archive, 'p')).map(({ doc }) => doc.n)).to.deep.equal([0, 3, 4])
    expect(await archive.remove('p', { until: new Date(4e12) })).to.equal(2)
    expect((await readAll(archive, 'p')).map(({ doc }) => doc.n)).to.deep.equal([3])
  })

  test('many entries are removed, and counted, in one call', async ({ storage }) => {
    const archive = storage.archive<Msg>('a')
    await fill(archive, 'o', 3500)
    expect(await archive.remove('o', { until: new Date(1000 + 2999) })).to.equal(3000)
    expect((await readAll(archive, 'o')).map(({ doc }) => doc.n)).to.deep.equal(range(3500).slice(3000))
    expect(await archive.remove('o', { keepLast: 0 })).to.equal(500)
  }, 60_000)

  test('ids never repeat, also after everything was removed', async ({ store, host, storage }) => {
    const archive = storage.archive<Msg>('a')
    let highest = ''
    for (const remove of [
      async () => await archive.remove('o', { keepLast: 0 }),
      async (ids: string[]) => await archive.remove('o', { ids }),
      async () => await archive.remove('o', { until: new Date(99_999) }),
      async () => await store.purgeOwner(host, 'o'),
    ]) {
      const ids = await fill(archive, 'o', 30)
      expect(ids[0]! > highest, `${ids[0]!} after ${highest}`).to.equal(true)
      highest = ids.at(-1)!
      expect(await remove(ids)).to.equal(30)
      expect(await readAll(archive, 'o')).to.deep.equal([])
    }
    const [next] = await fill(archive, 'o', 1)
    expect(next! > highest).to.equal(true)
  })

  test('owners gives each owner that has an entry, once', async ({ storage }) => {
    const archive = storage.archive<Msg>('a')
    for (const owner of range(150)) await fill(archive, `owner ${owner}`, 1 + (owner % 3))
    await fill(archive, '', 1)
    expect((await collect(archive.owners())).sort()).to.deep.equal(
      ['', ...range(150).map((i) => `owner ${i}`)].sort(),
    )
    await archive.remove('owner 3', { keepLast: 0 })
    expect(await collect(archive.owners())).to.have.length(150)
    await fill(archive, 'owner 3', 1)
    expect(await collect(archive.owners())).to.have.length(151)
  }, 60_000)
}
