/** Owners and keys: odd and long ones, order of lists, resumption, isolation, purging. */
import { expect } from 'chai'
import { collect, failure, range } from './kit.ts'
import type { Test } from './kit.ts'

type Numbered = { readonly n: number }

const odd = [
  '',
  '\0',
  '\0\0',
  '\u0001',
  ' ',
  'a',
  'a\0',
  'a\0b',
  'A',
  'ä',
  'a\u0308',
  '/',
  '//',
  '.',
  '..',
  '$',
  '$a',
  'a.b',
  '*',
]
const more = [
  '__proto__',
  'constructor',
  'hasOwnProperty',
  '0',
  '1',
  '-1',
  'null',
  'undefined',
  '日本',
  '\uffff',
  '😀',
  '\u{10ffff}',
]
const names = [...odd, ...more]

/** The order the contract promises, as far as it does: bytes of UTF-8, the first 512. */
function byFirstBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a).subarray(0, 512), Buffer.from(b).subarray(0, 512))
}

/** Keys of every length at which a driver may change its mind, in pairs that differ in the last byte only. */
function longKeys(ownerBytes: number): string[] {
  const lengths = [254, 255, 256, 510, 511, 512, 513, 1022, 1023, 1024, 2047, 3070, 3071]
  const near = range(12).map((i) => 1978 - ownerBytes - i)
  return [...lengths, ...near, 1977, 1978, 1979]
    .filter((length, i, all) => length > 1 && all.indexOf(length) === i)
    .flatMap((length) => [`${'k'.repeat(length - 1)}0`, `${'k'.repeat(length - 1)}1`])
}

/** Registers the group. */
export function keysGroup(test: Test): void {
  test('odd owners and keys are all different', async ({ storage }) => {
    const docs = storage.docs<Numbered>('d')
    const pairs = names.flatMap((owner) => names.map((key) => [owner, key] as const))
    await Promise.all(pairs.map(([owner, key], n) => docs.put(owner, key, { n })))
    for (const [n, [owner, key]] of pairs.entries()) expect(await docs.get(owner, key)).to.deep.equal({ n })
    const owners = await collect(docs.owners())
    expect(owners).to.have.members(names)
    for (const owner of names) {
      const keys = (await collect(docs.list(owner))).map(([key]) => key)
      expect(keys).to.deep.equal([...names].sort(byFirstBytes))
    }
  })

  test('an owner that starts with another owner is another owner', async ({ storage }) => {
    const docs = storage.docs<Numbered>('d')
    const pairs = [
      ['a', 'bc'],
      ['ab', 'c'],
      ['abc', ''],
      ['', 'abc'],
      ['a\0', 'b'],
      ['a', '\0b'],
      ['a', 'b\0'],
      ['a\0b', ''],
    ] as const
    for (const [n, [owner, key]] of pairs.entries()) await docs.put(owner, key, { n })
    for (const [n, [owner, key]] of pairs.entries()) expect(await docs.get(owner, key)).to.deep.equal({ n })
    expect((await collect(docs.list('a'))).map(([key]) => key)).to.deep.equal(['\0b', 'b\0', 'bc'])
    expect(await docs.purge('a')).to.equal(3)
    expect((await collect(docs.owners())).sort()).to.deep.equal(['', 'a\0', 'a\0b', 'ab', 'abc'])
  })

  for (const ownerBytes of [0, 1, 1023]) {
    test(`keys up to 3071 bytes with an owner of ${ownerBytes} bytes`, async ({ storage }) => {
      const docs = storage.docs<Numbered & { readonly f: string }>('d', { index: ['f'] })
      const owner = 'o'.repeat(ownerBytes)
      const keys = longKeys(ownerBytes)
      await Promise.all(keys.map((key, n) => docs.put(owner, key, { n, f: `f${n % 2}` })))
      for (const [n, key] of keys.entries()) expect((await docs.get(owner, key))!.n).to.equal(n)
      const listed = (await collect(docs.list(owner))).map(([key]) => key)
      expect(listed).to.have.members(keys)
      expect(new Set(listed)).to.have.property('size', keys.length)
      const places = listed.map((key) => key.slice(0, 512))
      expect(places).to.deep.equal([...places].sort(byFirstBytes))
      for (const [i, key] of listed.entries()) {
        expect((await collect(docs.list(owner, key))).map(([k]) => k)).to.deep.equal(listed.slice(i + 1))
      }
      const found = (await collect(docs.find('f', 'f1'))).map(([o, key]) => [o, key])
      expect(found).to.have.deep.members(keys.filter((_, n) => n % 2 === 1).map((key) => [owner, key]))
      expect(await docs.update(owner, keys.at(-1)!, (old) => ({ ...old!, n: -1 }))).to.have.property('n', -1)
      expect(await docs.delete(owner, keys[0]!)).to.equal(true)
      expect(await docs.get(owner, keys[1]!)).to.have.property('n', 1)
      expect(await docs.purge(owner)).to.equal(keys.length - 1)
      expect(await collect(docs.find('f', 'f1'))).to.deep.equal([])
    })
  }

  test('owners and keys that are too long or malformed are refused', async ({ storage }) => {
    const docs = storage.docs<Numbered>('d')
    const archive = storage.archive<Numbered>('a')
    const counter = storage.counter('c')
    const lease = storage.lease('l')
    const at = new Date()
    for (const [bad, error] of [
      ['o'.repeat(1024), RangeError],
      ['é'.repeat(512), RangeError],
      ['\ud800', TypeError],
    ] as const) {
      expect(await failure(() => docs.put(bad, 'k', { n: 1 }))).to.be.instanceOf(error)
      expect(await failure(() => docs.get(bad, 'k'))).to.be.instanceOf(error)
      expect(await failure(() => collect(docs.list(bad)))).to.be.instanceOf(error)
      expect(await failure(() => docs.purge(bad))).to.be.instanceOf(error)
      expect(await failure(() => archive.append(bad, { at, with: '', doc: { n: 1 } }))).to.be.instanceOf(
        error,
      )
      expect(await failure(() => archive.page(bad, { from: 'first', limit: 1 }))).to.be.instanceOf(error)
      expect(await failure(() => counter.next(bad))).to.be.instanceOf(error)
    }
    for (const [bad, error] of [
      ['k'.repeat(3072), RangeError],
      ['日'.repeat(1024), RangeError],
      ['a\udc00', TypeError],
    ] as const) {
      expect(await failure(() => docs.put('o', bad, { n: 1 }))).to.be.instanceOf(error)
      expect(await failure(() => docs.update('o', bad, () => ({ n: 1 })))).to.be.instanceOf(error)
      expect(await failure(() => docs.delete('o', bad))).to.be.instanceOf(error)
      expect(await failure(() => archive.append('o', { at, with: bad, doc: { n: 1 } }))).to.be.instanceOf(
        error,
      )
      expect(
        await failure(() => archive.append('o', { at, with: '', doc: { n: 1 }, dedupe: bad })),
      ).to.be.instanceOf(error)
      expect(await failure(() => lease.acquire(bad, 'me', 1000))).to.be.instanceOf(error)
    }
    expect(await collect(docs.owners())).to.deep.equal([])
    expect(await collect(archive.owners())).to.deep.equal([])
  })

  test('list is in order of the bytes of the key and resumes after any key', async ({ storage }) => {
    const docs = storage.docs<Numbered>('d')
    const keys = [...names, ...range(300).map((i) => `key ${i * 7919}`)]
    await Promise.all(keys.map((key, n) => docs.put('o', key, { n })))
    await docs.put('n', 'z', { n: 0 })
    await docs.put('p', 'a', { n: 0 })
    const sorted = [...keys].sort(byFirstBytes)
    expect((await collect(docs.list('o'))).map(([key]) => key)).to.deep.equal(sorted)
    for (const i of [0, 1, 2, 30, 100, 200, sorted.length - 2, sorted.length - 1]) {
      const rest = (await collect(docs.list('o', sorted[i]!))).map(([key]) => key)
      expect(rest).to.deep.equal(sorted.slice(i + 1))
    }
    await docs.delete('o', sorted[100]!)
    expect((await collect(docs.list('o', sorted[100]!))).map(([key]) => key)).to.deep.equal(sorted.slice(101))
    expect((await collect(docs.list('o', 'key 5x'))).map(([key]) => key)).to.deep.equal(
      sorted.filter((key) => byFirstBytes(key, 'key 5x') > 0),
    )
    expect(await collect(docs.list('nobody'))).to.deep.equal([])
  })

  test('list while writing gives what stays exactly once', async ({ storage }) => {
    const docs = storage.docs<Numbered>('d')
    const key = (i: number) => String(i).padStart(5, '0')
    await Promise.all(range(1000).map((i) => docs.put('o', key(i * 2), { n: i })))
    const seen: string[] = []
    for await (const [found] of docs.list('o')) {
      seen.push(found)
      if (seen.length % 100 === 1) {
        const at = Number(found)
        await docs.put('o', key(at - 1), { n: -1 })
        await docs.put('o', key(at + 99), { n: -1 })
        await docs.delete('o', key(at + 50))
        await docs.put('o', found, { n: -2 })
      }
    }
    expect(seen).to.deep.equal([...new Set(seen)].sort())
    const gone = new Set(range(1000).map((i) => key(i * 2)))
    for await (const [left] of docs.list('o')) gone.delete(left)
    const stayed = range(1000)
      .map((i) => key(i * 2))
      .filter((k) => !gone.has(k))
    expect(stayed.length).to.be.greaterThan(900)
    expect(seen.filter((k) => Number(k) % 2 === 0)).to.include.members(stayed)
  })

  test('an iteration that is left early does no harm', async ({ storage }) => {
    const docs = storage.docs<Numbered & { readonly f: string }>('d', { index: ['f'] })
    await Promise.all(range(300).map((n) => docs.put(`o${n % 3}`, `k${n}`, { n, f: 'x' })))
    for (const iterate of [() => docs.list('o1'), () => docs.find('f', 'x'), () => docs.owners()]) {
      for (const stopAt of range(10)) {
        let i = 0
        for await (const one of iterate()) {
          expect(one).to.not.equal(undefined)
          if (i++ === stopAt) break
        }
      }
    }
    await docs.put('o1', 'last', { n: 1, f: 'y' })
    expect(await collect(docs.list('o1'))).to.have.length(101)
  })

  test('owners gives each owner that has a document, once', async ({ storage }) => {
    const docs = storage.docs<Numbered>('d')
    await Promise.all(range(900).map((n) => docs.put(`owner ${n % 300}`, `k${n}`, { n })))
    await docs.put('', 'host', { n: 1 })
    expect((await collect(docs.owners())).sort()).to.deep.equal(
      ['', ...range(300).map((i) => `owner ${i}`)].sort(),
    )
    await docs.purge('owner 7')
    await docs.delete('', 'host')
    const left = await collect(docs.owners())
    expect(left).to.have.length(299)
    expect(left).to.not.include.members(['owner 7'])
  })

  test('purge deletes all of one owner and says how many', async ({ storage }) => {
    const docs = storage.docs<Numbered>('d')
    await Promise.all(range(700).map((n) => docs.put('o', `k${n}`, { n })))
    await docs.put('p', 'k', { n: 1 })
    expect(await docs.purge('o')).to.equal(700)
    expect(await docs.purge('o')).to.equal(0)
    expect(await collect(docs.list('o'))).to.deep.equal([])
    expect(await docs.get('p', 'k')).to.deep.equal({ n: 1 })
    await docs.put('o', 'again', { n: 2 })
    expect(await collect(docs.list('o'))).to.deep.equal([['again', { n: 2 }]])
  })
}
