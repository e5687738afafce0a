/**
 * Pages of an archive: every filter, all pairs of filters, both directions, compared with a plain filter of a
 * list.
 */
import { expect } from 'chai'
import { UnknownEntry } from '../../../server/storage/contract.ts'
import type { Archive, Entry, Query } from '../../../server/storage/contract.ts'
import { wordsOf } from '../../../server/storage/words.ts'
import { failure, range, readAll } from './kit.ts'
import type { Test } from './kit.ts'

type Msg = { readonly n: number; readonly text: string }
type Filter = Omit<Query, 'from' | 'limit' | 'count' | 'effort'>

const count = 120
const words = ['apple', 'banana', 'cherry', 'damson']

/** Orders of the times of the entries, as live traffic, imports and wrong clocks make them. */
const clocks: Readonly<Record<string, (i: number) => number>> = {
  'growing times': (i) => 1000 + i * 10,
  'equal times in groups': (i) => 1000 + Math.floor(i / 15) * 150,
  'falling times': (i) => 1000 + (count - i) * 10,
  'older entries imported later': (i) => (i < 60 ? 1600 + i * 10 : 1000 + (i - 60) * 10),
  'a wrong clock at the start': (i) => (i === 0 ? 99_999_999 : 1000 + i * 10),
  'some from a clock that is ahead': (i) => (i % 17 === 5 ? 4e12 - i * 10 : 1000 + i * 10),
  'small steps back': (i) => 1000 + i * 10 - (i % 7 === 0 ? 65 : 0),
  'mixed times': (i) => 1000 + ((i * 7919) % count) * 10,
}

async function fill(archive: Archive<Msg>, at: (i: number) => number): Promise<Entry<Msg>[]> {
  const entries = range(count).map((i) => ({
    at: new Date(at(i)),
    with: `${['a', 'b', 'c'][(i * 5) % 3]!}@example.com`,
    doc: { n: i, text: `${words[i % 4]!} and ${words[(i * 3 + 1) % 4]!} number ${i % 9}` },
  }))
  const done = await Promise.all(entries.map((entry) => archive.append('o', entry)))
  await archive.append('p', {
    at: new Date(1200),
    with: 'a@example.com',
    doc: { n: -1, text: words.join(' ') },
  })
  // Some are gone, so ids have holes.
  const all = entries.map((entry, i) => ({ id: done[i]!.id, ...entry }))
  const gone = all.filter(({ doc }) => doc.n % 13 === 5)
  await archive.remove('o', { ids: gone.map(({ id }) => id) })
  return all.filter((entry) => !gone.includes(entry))
}

function matches(entry: Entry<Msg>, q: Filter): boolean {
  const found = wordsOf(entry.doc.text)
  return (
    (q.with === undefined || entry.with === q.with) &&
    (q.start === undefined || entry.at.getTime() >= q.start.getTime()) &&
    (q.end === undefined || entry.at.getTime() <= q.end.getTime()) &&
    (q.ids === undefined || q.ids.includes(entry.id)) &&
    (q.text === undefined || [...wordsOf(q.text)].every((word) => found.has(word)))
  )
}

function inside(entry: Entry<Msg>, q: Filter): boolean {
  return (q.after === undefined || entry.id > q.after) && (q.before === undefined || entry.id < q.before)
}

/** Pages through a whole result in one direction; the entries oldest first. */
async function walk(archive: Archive<Msg>, q: Filter, from: Query['from'], limit: number, total: number) {
  let all: Entry<Msg>[] = []
  let position: Filter = {}
  for (;;) {
    const page = await archive.page('o', { ...q, ...position, from, limit, count: true })
    expect(page.count, 'count').to.equal(total)
    expect(page.entries.length, 'length of a page').to.be.at.most(limit)
    all = from === 'first' ? [...all, ...page.entries] : [...page.entries, ...all]
    if (page.complete) return all
    expect(page.entries.length, 'length of a page that is not the last').to.equal(limit)
    position = from === 'first' ? { after: page.entries.at(-1)!.id } : { before: page.entries[0]!.id }
  }
}

/** Registers the group. */
export function pagingGroup(test: Test): void {
  for (const [name, at] of Object.entries(clocks)) {
    test(`all filters and pairs of filters, both ways: ${name}`, async ({ storage }) => {
      const archive = storage.archive<Msg>('a')
      const all = await fill(archive, at)
      const parts: readonly Filter[] = [
        {},
        { text: 'Cherry' },
        { text: 'apple BANANA' },
        { with: 'b@example.com' },
        { start: new Date(1400) },
        { end: new Date(1800) },
        { start: new Date(1301), end: new Date(1699) },
        {
          ids: all
            .filter(({ doc }) => doc.n % 3 === 0)
            .map(({ id }) => id)
            .toReversed(),
        },
        { after: all[20]!.id },
        { before: all[90]!.id },
        { with: 'nobody@example.com' },
        { start: new Date(4e12 - 800) },
      ]
      for (const [i, one] of parts.entries()) {
        for (const two of parts.slice(i)) {
          const q = { ...one, ...two }
          const matching = all.filter((entry) => matches(entry, q))
          const wanted = matching.filter((entry) => inside(entry, q))
          const place = `${Object.keys(one).join()} + ${Object.keys(two).join()}`
          for (const [from, limit] of [
            ['first', 7],
            ['last', 7],
            ['first', 1000],
            ['last', wanted.length || 1],
          ] as const) {
            const got = await walk(archive, q, from, limit, matching.length)
            expect(
              got.map(({ id }) => id),
              `${place} ${from} ${limit}`,
            ).to.deep.equal(wanted.map(({ id }) => id))
            if (limit === 1000) expect(got).to.deep.equal(wanted)
          }
        }
      }
    }, 120_000)
  }

  test('a few matches among many entries are found, both ways', async ({ storage }) => {
    const archive = storage.archive<Msg>('a')
    const total = 2600
    // From the middle on, half of the times are from before the others.
    const at = (n: number) => (n > 1300 && n % 2 === 0 ? 5000 - n : 10_000 + n)
    const appended = range(total).map((n) => {
      const text = n % 397 === 5 ? `a needle ${n}` : `hay ${n}`
      return archive.append('o', {
        at: new Date(at(n)),
        with: n % 611 === 7 ? 'rare' : 'often',
        doc: { n, text },
      })
    })
    const ids = (await Promise.all(appended)).map(({ id }) => id)
    const wanted = (test: (n: number) => boolean) => range(total).filter(test)
    const cases: readonly (readonly [Filter, readonly number[]])[] = [
      [{ text: 'needle' }, wanted((n) => n % 397 === 5)],
      [{ with: 'rare' }, wanted((n) => n % 611 === 7)],
      [{ with: 'often', text: 'needle' }, wanted((n) => n % 397 === 5 && n % 611 !== 7)],
      [{ start: new Date(3000), end: new Date(3100) }, wanted((n) => at(n) >= 3000 && at(n) <= 3100)],
      [{ with: 'often' }, wanted((n) => n % 611 !== 7)],
      [{ with: 'rare', end: new Date(9999) }, wanted((n) => n % 611 === 7 && at(n) < 10_000)],
      [{ start: new Date(10_000) }, wanted((n) => at(n) >= 10_000)],
      [
        { start: new Date(4000), end: new Date(10_400), with: 'often' },
        wanted((n) => at(n) >= 4000 && at(n) <= 10_400 && n % 611 !== 7),
      ],
      [{ end: new Date(12_000) }, wanted((n) => at(n) <= 12_000)],
      [
        { text: 'needle', after: ids[500]!, before: ids[2400]! },
        wanted((n) => n % 397 === 5 && n > 500 && n < 2400),
      ],
    ]
    for (const [q, numbers] of cases) {
      const everywhere =
        numbers.length +
        (q.after === undefined ? 0 : wanted((n) => n % 397 === 5 && (n <= 500 || n >= 2400)).length)
      for (const [from, limit] of [
        ['first', 3],
        ['last', 3],
        ['first', 700],
        ['last', 1000],
      ] as const) {
        if (limit === 3 && numbers.length > 30) continue
        const got = await walk(archive, q, from, limit, everywhere)
        expect(
          got.map(({ doc }) => doc.n),
          `${JSON.stringify(q)} ${from} ${limit}`,
        ).to.deep.equal(numbers)
      }
    }
    // Those that are out of order go with the others of their age.
    expect(await archive.remove('o', { until: new Date(4000) })).to.equal(wanted((n) => at(n) <= 4000).length)
    expect(await archive.remove('o', { until: new Date(10_300), keepLast: 1500 })).to.equal(301)
    const left = wanted((n) => at(n) > 4000 && n > 300)
    expect((await readAll(archive, 'o')).map(({ doc }) => doc.n)).to.deep.equal(left)
    expect((await archive.page('o', { from: 'first', limit: 1, count: true })).count).to.equal(left.length)
  }, 120_000)

  test('a page is complete when nothing that matches lies beyond it', async ({ storage }) => {
    const archive = storage.archive<Msg>('a')
    const all = await fill(archive, (i) => 1000 + i)
    const page = async (q: Query) => {
      const { entries, complete } = await archive.page('o', q)
      return [entries.length, complete]
    }
    expect(await page({ from: 'first', limit: all.length })).to.deep.equal([all.length, true])
    expect(await page({ from: 'first', limit: all.length - 1 })).to.deep.equal([all.length - 1, false])
    expect(await page({ from: 'last', limit: all.length })).to.deep.equal([all.length, true])
    expect(await page({ from: 'last', limit: 5 })).to.deep.equal([5, false])
    expect(await page({ from: 'first', limit: 5, after: all.at(-1)!.id })).to.deep.equal([0, true])
    expect(await page({ from: 'last', limit: 5, before: all[0]!.id })).to.deep.equal([0, true])
    expect(await page({ from: 'first', limit: 5, after: all.at(-6)!.id })).to.deep.equal([5, true])
    expect(await page({ from: 'first', limit: 5, after: all.at(-7)!.id })).to.deep.equal([5, false])
    expect(await page({ from: 'last', limit: 5, before: all[5]!.id })).to.deep.equal([5, true])
    // Bounds on both sides: what lies beyond `before` does not make a page incomplete.
    expect(await page({ from: 'first', limit: 5, after: all[10]!.id, before: all[16]!.id })).to.deep.equal([
      5,
      true,
    ])
    expect(await page({ from: 'last', limit: 5, after: all[10]!.id, before: all[17]!.id })).to.deep.equal([
      5,
      false,
    ])
    expect(await page({ from: 'first', limit: 5, after: all[16]!.id, before: all[10]!.id })).to.deep.equal([
      0,
      true,
    ])
    expect(await page({ from: 'first', limit: 5, after: all[16]!.id, before: all[16]!.id })).to.deep.equal([
      0,
      true,
    ])
  })

  test('a page looks at no more entries than it may, and says how far it came', async ({ storage }) => {
    let looked = 0
    const text = (doc: Msg): string => {
      looked++
      return doc.text
    }
    const archive = storage.archive<Msg>('effort', { text })
    const all = await fill(archive, clocks['mixed times']!)
    const effort = 25
    const filters: readonly Filter[] = [
      {},
      { text: 'nothing' },
      { text: 'apple 5' },
      { with: 'b@example.com', text: 'damson' },
      { start: new Date(1300), end: new Date(1500) },
      { ids: all.slice(3, 50).map(({ id }) => id) },
    ]
    for (const filter of filters)
      for (const from of ['first', 'last'] as const) {
        const found: Entry<Msg>[] = []
        let bound: string | undefined
        for (let pages = 1; ; pages++) {
          looked = 0
          const next = bound === undefined ? {} : from === 'first' ? { after: bound } : { before: bound }
          const page = await archive.page('o', { ...filter, ...next, from, limit: 10, effort })
          expect(looked).to.be.at.most(effort)
          found.push(...(from === 'first' ? page.entries : page.entries.toReversed()))
          if (page.complete) break
          bound = page.reached ?? found.at(-1)?.id
          expect(pages).to.be.lessThan(all.length)
        }
        const expected = all.filter((entry) => matches(entry, filter))
        expect(found.map(({ id }) => id)).to.deep.equal(
          (from === 'first' ? expected : expected.toReversed()).map(({ id }) => id),
        )
      }
    // Enough for all of it, exactly.
    const page = await archive.page('o', { text: 'nothing', from: 'first', limit: 1, effort: all.length })
    expect(page).to.deep.equal({ entries: [], complete: true })
  })

  test('after or before that is not stored is UnknownEntry (XEP-0059 §2)', async ({ storage }) => {
    const archive = storage.archive<Msg>('a')
    const at = new Date()
    const first = (await archive.append('o', { at, with: '', doc: { n: 1, text: '' } })).id
    const gone = (await archive.append('o', { at, with: '', doc: { n: 2, text: '' } })).id
    await archive.append('o', { at, with: '', doc: { n: 3, text: '' } })
    await archive.append('p', { at, with: '', doc: { n: 4, text: '' } })
    await archive.remove('o', { ids: [gone] })
    for (const id of [
      gone,
      '',
      'x',
      '\0',
      '00',
      `${first}0`,
      '__proto__',
      'ZZZZ',
      '😀',
      'é'.repeat(3000),
      '-1',
    ]) {
      for (const from of ['first', 'last'] as const) {
        for (const q of [
          { after: id },
          { before: id },
          { after: first, before: id },
          { before: first, after: id },
        ]) {
          const error = await failure(() => archive.page('o', { ...q, from, limit: 5 }))
          expect(error, JSON.stringify(q).slice(0, 80)).to.be.instanceOf(UnknownEntry)
        }
        const ids = await archive.page('o', { ids: [id, first], from, limit: 5 })
        expect(ids.entries.map((entry) => entry.id)).to.deep.equal([first])
      }
    }
    expect(
      await failure(() => archive.page('nobody', { after: first, from: 'first', limit: 5 })),
    ).to.be.instanceOf(UnknownEntry)
    // A bound need not match the filter itself.
    const page = await archive.page('o', { after: first, with: '', start: at, from: 'first', limit: 5 })
    expect(page.entries.map(({ doc }) => doc.n)).to.deep.equal([3])
  })

  test('limits out of 1 to 1000 and times that are none are RangeError', async ({ storage }) => {
    const archive = storage.archive<Msg>('a')
    for (const limit of [0, -1, 1001, 1.5, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(
        await failure(() => archive.page('o', { from: 'first', limit })),
        String(limit),
      ).to.be.instanceOf(RangeError)
    }
    const never = new Date(Number.NaN)
    const doc = { n: 1, text: '' }
    expect(
      await failure(() => archive.page('o', { from: 'first', limit: 1, start: never })),
    ).to.be.instanceOf(RangeError)
    expect(await failure(() => archive.page('o', { from: 'first', limit: 1, end: never }))).to.be.instanceOf(
      RangeError,
    )
    for (const at of [never, new Date(8.64e15), new Date(-8.64e15)]) {
      expect(await failure(() => archive.append('o', { at, with: '', doc }))).to.be.instanceOf(RangeError)
    }
    for (const keepLast of [-1, 0.5, Number.NaN]) {
      expect(await failure(() => archive.remove('o', { keepLast }))).to.be.instanceOf(RangeError)
    }
    expect(await failure(() => archive.remove('o', { until: never }))).to.be.instanceOf(RangeError)
  })

  test('an archive without entries gives empty complete pages', async ({ storage }) => {
    const archive = storage.archive<Msg>('a')
    for (const from of ['first', 'last'] as const) {
      const page = await archive.page('o', {
        from,
        limit: 10,
        count: true,
        with: 'w',
        start: new Date(0),
        text: 'x',
      })
      expect(page).to.deep.equal({ entries: [], complete: true, count: 0 })
      expect(await archive.page('o', { from, limit: 10 })).to.deep.equal({ entries: [], complete: true })
      expect(await archive.page('o', { from, limit: 10, ids: [] })).to.deep.equal({
        entries: [],
        complete: true,
      })
    }
  })

  test('start and end include their own millisecond, and an empty span gives nothing', async ({
    storage,
  }) => {
    const archive = storage.archive<Msg>('a')
    for (const n of range(10)) await archive.append('o', { at: new Date(n), with: '', doc: { n, text: '' } })
    const got = async (start: number, end: number) =>
      (await readAll(archive, 'o', { start: new Date(start), end: new Date(end) })).map(({ doc }) => doc.n)
    expect(await got(3, 5)).to.deep.equal([3, 4, 5])
    expect(await got(-8.64e15, 8.64e15)).to.deep.equal(range(10))
    expect(await got(5, 3)).to.deep.equal([])
    expect(await got(10, 99)).to.deep.equal([])
    expect(await got(-9, -1)).to.deep.equal([])
  })

  test('text search: words in any order and case, of any script (XEP-0431)', async ({ storage }) => {
    const archive = storage.archive<{ readonly body: string }>('a', { text: (doc) => doc.body })
    const bodies = [
      'Der Fuß im Straßenverkehr',
      'ＦＵＬＬ ｗｉｄｔｈ',
      '今日はいい天気ですね',
      'Σίσυφος ΣΊΣΥΦΟΣ',
      "it's 10:30, e-mail me!",
      '',
      'สวัสดีครับ ผมชื่อ',
    ]
    const ids: string[] = []
    for (const body of bodies)
      ids.push((await archive.append('o', { at: new Date(), with: '', doc: { body } })).id)
    const found = async (text: string) =>
      (await readAll(archive, 'o', { text })).map(({ id }) => ids.indexOf(id))
    expect(await found('STRASSENVERKEHR fuss')).to.deep.equal([0])
    expect(await found('straße')).to.deep.equal([])
    expect(await found('full WIDTH')).to.deep.equal([1])
    expect(await found('天気')).to.deep.equal([2])
    expect(await found('σίσυφος')).to.deep.equal([3])
    expect(await found('mail')).to.deep.equal([4])
    expect(await found('fuß mail')).to.deep.equal([])
    expect(await found('สวัสดี')).to.deep.equal([6])
    expect(await found(' ,;! ')).to.deep.equal(range(7))
    expect(await found('')).to.deep.equal(range(7))
    // The search is of the text that the collection names, not of its other fields.
    const plain = storage.archive<{ readonly text?: string; readonly body: string }>('plain')
    await plain.append('o', { at: new Date(), with: '', doc: { body: 'hidden' } })
    await plain.append('o', { at: new Date(), with: '', doc: { body: 'hidden', text: 'shown' } })
    expect(await readAll(plain, 'o', { text: 'hidden' })).to.have.length(0)
    expect(await readAll(plain, 'o', { text: 'shown' })).to.have.length(1)
  })
}
