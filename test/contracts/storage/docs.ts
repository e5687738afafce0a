/** Documents: values, atomic updates, order of writes, indexes. */
import { expect } from 'chai'
import { DocTooLarge } from '../../../server/storage/contract.ts'
import type { Doc, Json } from '../../../server/storage/contract.ts'
import { collect, failure, range } from './kit.ts'
import type { Test } from './kit.ts'

type Free = { readonly [field: string]: Json | Uint8Array }

const texts = [
  '',
  'plain',
  'é',
  'e\u0301',
  '日本語',
  '😀👩‍👩‍👧',
  'a\0b',
  '\0',
  '\u{10ffff}',
  '\ufffe\uffff',
  '\r\n\t',
  '"\\/<&>',
  'x'.repeat(70_000),
]
const numbers = [
  0,
  1,
  -1,
  23,
  24,
  255,
  256,
  65_535,
  65_536,
  2 ** 31,
  -(2 ** 31),
  2 ** 32 - 1,
  2 ** 32,
  -(2 ** 32) - 1,
]
const large = [
  2 ** 53 - 1,
  -(2 ** 53 - 1),
  2 ** 53,
  2 ** 60,
  0.1,
  -2.5,
  1e-300,
  5e-324,
  1.797_693_134_862_315_7e308,
  Date.now(),
]
// Names that mean something to JavaScript or to a database.
const fields = ['', ' ', 'a.b', '$set', '$', '__proto__', 'constructor', 'toString', '0', '10', 'ü', '_id']

/** One field per value: f0, f1, ... */
function listed(all: readonly Json[]): Free {
  return Object.fromEntries(all.map((one, i) => [`f${i}`, one]))
}

const values: Readonly<Record<string, Free>> = {
  'an empty document': {},
  text: listed(texts),
  numbers: listed(numbers),
  'large numbers and fractions': listed(large),
  'null and booleans': { none: null, yes: true, no: false },
  bytes: { none: new Uint8Array(), all: Uint8Array.from(range(256)), large: new Uint8Array(100_000).fill(7) },
  nested: {
    list: [[], {}, [null, [1, 'two', { three: [3] }]], ''],
    object: { a: { b: { c: [{}] } }, empty: {} },
  },
  'deep nesting': { deep: range(60).reduce<Json>((inner) => [inner], 'bottom') },
  'long lists': { many: range(5000), texts: range(300).map((i) => `text ${i}`) },
  'many fields': Object.fromEntries(range(400).map((i) => [`field${i}`, i])),
  'odd names of fields': { nested: Object.fromEntries(fields.map((field) => [field, { [field]: [field] }])) },
  'odd names at the top': Object.fromEntries(fields.map((field, i) => [field, i])),
}

/** Registers the group. */
export function docsGroup(test: Test): void {
  for (const [name, value] of Object.entries(values)) {
    test(`round trip: ${name}`, async ({ storage }) => {
      const docs = storage.docs<Free>('d')
      await docs.put('o', 'k', value)
      expect(await docs.get('o', 'k')).to.deep.equal(value)
      expect(await docs.update('o', 'k', (old) => old)).to.deep.equal(value)
      expect(await collect(docs.list('o'))).to.deep.equal([['k', value]])
      const archive = storage.archive<Free>('a')
      const { id } = await archive.append('o', { at: new Date(5), with: 'w', doc: value })
      const page = await archive.page('o', { from: 'first', limit: 1 })
      expect(page.entries).to.deep.equal([{ id, at: new Date(5), with: 'w', doc: value }])
    })
  }

  test('bytes come back as a plain Uint8Array of their own', async ({ storage }) => {
    const docs = storage.docs<{ readonly b: Uint8Array }>('d')
    const given = Buffer.from('secret')
    const written = docs.put('o', 'k', { b: given })
    given.fill(0)
    await written
    const got = (await docs.get('o', 'k'))!.b
    expect(Object.getPrototypeOf(got)).to.equal(Uint8Array.prototype)
    expect(Buffer.from(got).toString()).to.equal('secret')
    got.fill(1)
    expect(Buffer.from((await docs.get('o', 'k'))!.b).toString()).to.equal('secret')
    expect(got.buffer.byteLength).to.be.lessThan(4096)
  })

  test('what is stored shares nothing with what was given or got', async ({ storage }) => {
    const docs = storage.docs<{ list: number[] }>('d')
    const given = { list: [1] }
    const written = docs.put('o', 'k', given)
    given.list.push(2)
    await written
    const got = await docs.get('o', 'k')
    got!.list.push(3)
    const updated = await docs.update('o', 'k', (old) => old)
    updated!.list.push(4)
    expect(await docs.get('o', 'k')).to.deep.equal({ list: [1] })
  })

  test('a field that is undefined is left out', async ({ storage }) => {
    const docs = storage.docs<Doc>('d')
    const given = { a: 1, b: undefined, c: { d: undefined, e: 2 } } as unknown as Doc
    await docs.put('o', 'k', given)
    const got = await docs.get('o', 'k')
    expect(Object.keys(got!)).to.deep.equal(['a', 'c'])
    expect(Object.keys(got!['c'] as object)).to.deep.equal(['e'])
    const updated = await docs.update('o', 'k', () => given)
    expect(Object.keys(updated!)).to.deep.equal(['a', 'c'])
  })

  test('what is not a document is refused with TypeError and changes nothing', async ({ storage }) => {
    const docs = storage.docs<Doc>('d')
    const archive = storage.archive<Doc>('a')
    await docs.put('o', 'k', { kept: true })
    const bad: Readonly<Record<string, unknown>> = {
      nan: { v: Number.NaN },
      infinity: { v: [Number.POSITIVE_INFINITY] },
      'bytes below the top': { v: [new Uint8Array(1)] },
      'undefined in a list': { v: [undefined] },
      'a hole in a list': { v: Object.assign<Json[], object>([], { length: 1 }) },
      bigint: { v: 1n },
      function: { v: () => 1 },
      date: { v: new Date() },
      map: { v: new Map() },
      'lone surrogate': { v: '\ud800' },
      'lone surrogate in a name': { v: { '\udc00': 1 } },
      'NUL in a name': { v: { 'a\0b': 1 } },
      'NUL in a name at the top': { '\0': 1 },
      'too deep': { v: range(70).reduce<Json>((inner) => [inner], 0) },
      'not an object': 'text',
      null: null,
    }
    for (const [name, doc] of Object.entries(bad)) {
      const given = doc as Doc
      expect(await failure(() => docs.put('o', 'k', given)), name).to.be.instanceOf(TypeError)
      expect(await failure(() => docs.update('o', 'k', () => given)), name).to.be.instanceOf(TypeError)
      const entry = { at: new Date(), with: '', doc: given }
      expect(await failure(() => archive.append('o', entry)), name).to.be.instanceOf(TypeError)
    }
    expect(await docs.get('o', 'k')).to.deep.equal({ kept: true })
    expect((await archive.page('o', { from: 'first', limit: 1 })).entries).to.deep.equal([])
  })

  test('4 MiB of text or bytes is taken, more than 8 MiB is refused and the store goes on', async ({
    storage,
  }) => {
    const docs = storage.docs<{ readonly v: string | Uint8Array }>('d')
    const archive = storage.archive<{ readonly v: string | Uint8Array }>('a')
    const mib = 1024 * 1024
    for (const v of [
      'x'.repeat(4 * mib),
      '日'.repeat((4 * mib) / 3),
      new Uint8Array(4 * mib - 100).fill(9),
    ]) {
      await docs.put('o', 'k', { v })
      expect(Buffer.from((await docs.get('o', 'k'))!.v as string).equals(Buffer.from(v as string))).to.equal(
        true,
      )
    }
    for (const v of ['x'.repeat(8 * mib + 1), '日'.repeat((8 * mib) / 3 + 1), new Uint8Array(8 * mib + 1)]) {
      expect(await failure(() => docs.put('o', 'k', { v }))).to.be.instanceOf(DocTooLarge)
      expect(await failure(() => docs.update('o', 'k', () => ({ v })))).to.be.instanceOf(DocTooLarge)
      const entry = { at: new Date(), with: '', doc: { v } }
      expect(await failure(() => archive.append('o', entry))).to.be.instanceOf(DocTooLarge)
    }
    expect((await docs.get('o', 'k'))!.v).to.have.length(4 * mib - 100)
    await docs.put('o', 'k', { v: 'small' })
    expect(await docs.get('o', 'k')).to.deep.equal({ v: 'small' })
  }, 60_000)

  test('get, put, replace and delete', async ({ storage }) => {
    const docs = storage.docs<{ readonly v: number }>('d')
    expect(await docs.get('o', 'k')).to.equal(undefined)
    expect(await docs.delete('o', 'k')).to.equal(false)
    await docs.put('o', 'k', { v: 1 })
    await docs.put('o', 'k', { v: 2 })
    expect(await docs.get('o', 'k')).to.deep.equal({ v: 2 })
    expect(await docs.delete('o', 'k')).to.equal(true)
    expect(await docs.get('o', 'k')).to.equal(undefined)
    expect(await docs.delete('o', 'k')).to.equal(false)
  })

  test('update creates, changes and deletes, and resolves to what is stored', async ({ storage }) => {
    const docs = storage.docs<{ readonly v: number }>('d')
    const grow = (old: { readonly v: number } | undefined) => ({ v: (old?.v ?? 0) + 1 })
    expect(await docs.update('o', 'k', grow)).to.deep.equal({ v: 1 })
    expect(await docs.update('o', 'k', grow)).to.deep.equal({ v: 2 })
    expect(await docs.update('o', 'k', () => undefined)).to.equal(undefined)
    expect(await docs.get('o', 'k')).to.equal(undefined)
    expect(await docs.update('o', 'k', () => undefined)).to.equal(undefined)
    expect(await collect(docs.owners())).to.deep.equal([])
  })

  test('update rejects with what its function throws and changes nothing', async ({ storage }) => {
    const docs = storage.docs<{ readonly v: number }>('d')
    await docs.put('o', 'k', { v: 1 })
    const thrown = new Error('refused')
    const results = await Promise.allSettled([
      docs.put('o', 'before', { v: 1 }),
      docs.update('o', 'k', () => {
        throw thrown
      }),
      docs.put('o', 'after', { v: 1 }),
    ])
    expect(results.map((result) => result.status)).to.deep.equal(['fulfilled', 'rejected', 'fulfilled'])
    expect((results[1] as PromiseRejectedResult).reason).to.equal(thrown)
    expect((await collect(docs.list('o'))).map(([key]) => key)).to.deep.equal(['after', 'before', 'k'])
    expect(await docs.get('o', 'k')).to.deep.equal({ v: 1 })
  })

  test('update under 50 concurrent writers loses none', async ({ storage }) => {
    const docs = storage.docs<{ readonly n: number; readonly by: readonly number[] }>('d')
    const seen = await Promise.all(
      range(50).map((i) =>
        docs.update('o', 'k', (old) => ({ n: (old?.n ?? 0) + 1, by: [...(old?.by ?? []), i] })),
      ),
    )
    const end = await docs.get('o', 'k')
    expect(end!.n).to.equal(50)
    expect([...end!.by].sort((a, b) => a - b)).to.deep.equal(range(50))
    expect(seen.map((doc) => doc!.n).sort((a, b) => a - b)).to.deep.equal(range(50).map((i) => i + 1))
  })

  test('writes to one key take effect in the order of the calls', async ({ storage }) => {
    const docs = storage.docs<{ readonly v: number }>('d')
    for (const round of range(5)) {
      const key = `k${round}`
      const done = range(20).map((v) => docs.put('o', key, { v }))
      const added = docs.update('o', key, (old) => ({ v: old!.v + 100 }))
      await Promise.all([...done, added])
      expect(await docs.get('o', key)).to.deep.equal({ v: 119 })
      const last = await Promise.all([
        docs.delete('o', key),
        docs.delete('o', key),
        docs.put('o', key, { v: 1 }),
        docs.update('o', key, (old) => (old === undefined ? undefined : { v: old.v + 1 })),
      ])
      expect(last).to.deep.equal([true, false, undefined, { v: 2 }])
    }
  })

  test('find follows put, update, delete and purge', async ({ storage }) => {
    const docs = storage.docs<{ readonly jid: string; readonly n?: number }>('d', { index: ['jid'] })
    const found = async (value: string) =>
      (await collect(docs.find('jid', value))).map(([owner, key]) => `${owner}/${key}`).sort()
    await docs.put('a', '1', { jid: 'x' })
    await docs.put('a', '2', { jid: 'y' })
    await docs.put('b', '1', { jid: 'x' })
    expect(await found('x')).to.deep.equal(['a/1', 'b/1'])
    await docs.put('a', '1', { jid: 'y' })
    expect([await found('x'), await found('y')]).to.deep.equal([['b/1'], ['a/1', 'a/2']])
    await docs.update('a', '1', (old) => ({ jid: 'x', n: old!.jid.length }))
    expect([await found('x'), await found('y')]).to.deep.equal([['a/1', 'b/1'], ['a/2']])
    await docs.update('a', '1', (old) => ({ ...old!, n: 7 }))
    expect(await collect(docs.find('jid', 'y'))).to.deep.equal([['a', '2', { jid: 'y' }]])
    await docs.delete('b', '1')
    await docs.update('a', '2', () => undefined)
    expect([await found('x'), await found('y')]).to.deep.equal([['a/1'], []])
    await docs.purge('a')
    expect(await found('x')).to.deep.equal([])
  })

  test('find takes any value, and documents without the field are not found', async ({ storage }) => {
    const docs = storage.docs<{ readonly f?: string | number; readonly g?: string }>('d', {
      index: ['f', 'g'],
    })
    const odd = [
      '',
      '\0',
      'a\0',
      'a',
      'A',
      'é',
      'e\u0301',
      'x'.repeat(3000),
      `${'x'.repeat(2999)}y`,
      '__proto__',
      '1',
      '😀',
    ]
    for (const [i, f] of odd.entries()) await docs.put(`o${i}`, 'k', { f, g: 'same' })
    await docs.put('other', 'none', {})
    await docs.put('other', 'number', { f: 1 })
    for (const [i, f] of odd.entries()) {
      expect(await collect(docs.find('f', f)), f.slice(0, 10)).to.deep.equal([
        [`o${i}`, 'k', { f, g: 'same' }],
      ])
    }
    expect(await collect(docs.find('g', 'same'))).to.have.length(odd.length)
    expect(await collect(docs.find('f', 'undefined'))).to.deep.equal([])
    await docs.update('other', 'number', () => ({ f: '1' }))
    expect(await collect(docs.find('f', '1'))).to.have.length(2)
  })

  test('find on an index that is not declared throws RangeError', async ({ storage }) => {
    const docs = storage.docs<{ readonly f: string; readonly g: string }>('d', { index: ['f'] })
    await docs.put('o', 'k', { f: 'x', g: 'x' })
    expect(await failure(() => collect(docs.find('g', 'x')))).to.be.instanceOf(RangeError)
    const plain = storage.docs<{ readonly f: string }>('plain')
    expect(await failure(() => collect(plain.find('f', 'x')))).to.be.instanceOf(RangeError)
  })

  test('an index declared later finds the documents stored before', async ({ store, host }) => {
    const before = store
      .open(host, 'm')
      .docs<{ readonly f: string; readonly g: string }>('d', { index: ['f'] })
    await Promise.all(range(150).map((i) => before.put(`o${i % 7}`, `k${i}`, { f: 'x', g: `g${i % 3}` })))
    const later = store
      .open(host, 'm')
      .docs<{ readonly f: string; readonly g: string }>('d', { index: ['f', 'g'] })
    expect(await collect(later.find('g', 'g1'))).to.have.length(50)
    await before.put('o', 'new', { f: 'x', g: 'g1' })
    await before.delete('o1', 'k1')
    const keys = (await collect(later.find('g', 'g1'))).map(([, key]) => key)
    expect(keys).to.have.length(50)
    expect(keys).to.include('new')
    expect(await collect(later.find('f', 'x'))).to.have.length(150)
  })

  test('find gives many, and each once while others are written', async ({ storage }) => {
    const docs = storage.docs<{ readonly f: string; readonly n: number }>('d', { index: ['f'] })
    await Promise.all(range(600).map((i) => docs.put(`o${i % 20}`, `k${i}`, { f: 'x', n: i })))
    const seen: number[] = []
    for await (const [owner, key, doc] of docs.find('f', 'x')) {
      seen.push(doc.n)
      if (seen.length % 50 === 0) {
        await docs.put(owner, key, { ...doc, n: doc.n + 10_000 })
        await docs.put('later', `l${seen.length}`, { f: 'x', n: 20_000 })
        await docs.put('other', `l${seen.length}`, { f: 'y', n: 30_000 })
      }
    }
    expect(seen.filter((n) => n < 10_000).sort((a, b) => a - b)).to.deep.equal(range(600))
    expect(seen).to.not.include(30_000)
  })
}
