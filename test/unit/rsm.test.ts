/** server/xmpp/rsm.ts: XEP-0059. */
import { expect } from 'chai'
import fc from 'fast-check'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { pageInfo, pageOf, pageRequest, parsePageInfo, parsePageRequest } from '../../server/xmpp/rsm.ts'

const NONE = { max: undefined, after: undefined, before: undefined, index: undefined }
const set = (inner: string) => parseXml(`<set xmlns='http://jabber.org/protocol/rsm'>${inner}</set>`)
const read = (inner: string) => parsePageRequest(set(inner))

function condition(run: () => unknown): string {
  try {
    run()
  } catch (error) {
    if (error instanceof StanzaError) return error.condition
    throw error
  }
  return 'none'
}

describe('result sets: requests (XEP-0059 §2)', () => {
  it('reads limit, next, previous, last page, index and count', () => {
    expect(read('<max>10</max>')).to.deep.equal({ ...NONE, max: 10 })
    expect(read('<max>10</max><after>peterpan@neverland.lit</after>')).to.deep.equal({
      ...NONE,
      max: 10,
      after: 'peterpan@neverland.lit',
    })
    expect(read('<before>a</before>')).to.deep.equal({ ...NONE, before: 'a' })
    expect(read('<before/>')).to.deep.equal({ ...NONE, before: '' })
    expect(read('<after/>')).to.deep.equal(NONE)
    expect(read('<max>10</max><index>371</index>')).to.deep.equal({ ...NONE, max: 10, index: 371 })
    expect(read('<max>0</max>')).to.deep.equal({ ...NONE, max: 0 })
    expect(read('')).to.deep.equal(NONE)
    expect(parsePageRequest(undefined)).to.equal(undefined)
  })

  it('refuses numbers that are none, repetitions and undefined combinations', () => {
    for (const inner of [
      '<max/>',
      '<max>-1</max>',
      '<max>1.5</max>',
      '<max>0x10</max>',
      '<max>2147483648</max>',
      '<max>99999999999999999999</max>',
      '<index>x</index>',
      '<max>1</max><max>2</max>',
      '<after>a</after><after>b</after>',
      '<before>a</before><after>b</after>',
      '<before/><after>b</after>',
      '<before/><index>1</index>',
      '<after>a</after><index>1</index>',
    ]) {
      expect(
        condition(() => read(inner)),
        inner,
      ).to.equal('bad-request')
    }
    expect(condition(() => parsePageRequest(parseXml("<set xmlns='urn:other'/>")))).to.equal('bad-request')
  })

  it('writes what it reads', () => {
    const request = { ...NONE, max: 5, after: 'a&b' }
    expect(parsePageRequest(parseXml(pageRequest(request).toString()))).to.deep.equal(request)
    expect(parsePageRequest(parseXml(pageRequest({ before: '' }).toString()))).to.deep.equal({
      ...NONE,
      before: '',
    })
  })
})

describe('result sets: pages (XEP-0059 §2)', () => {
  const items = ['a', 'b', 'c', 'd', 'e']
  const page = (request: Parameters<typeof pageRequest>[0], most = 100) => {
    const result = pageOf(items, (item) => item, { ...NONE, ...request }, most)
    return [result.items.join(''), parsePageInfo(parseXml(result.set.toString()))]
  }

  it('pages forwards (§2.2), with index and count', () => {
    expect(page({ max: 2 })).to.deep.equal(['ab', { first: 'a', last: 'b', index: 0, count: 5 }])
    expect(page({ max: 2, after: 'b' })).to.deep.equal(['cd', { first: 'c', last: 'd', index: 2, count: 5 }])
    expect(page({ max: 2, after: 'd' })).to.deep.equal(['e', { first: 'e', last: 'e', index: 4, count: 5 }])
    expect(page({ max: 2, after: 'e' })).to.deep.equal(['', { count: 5 }])
  })

  it('pages backwards (§2.3) and gives the last page (§2.5)', () => {
    expect(page({ max: 2, before: '' })).to.deep.equal(['de', { first: 'd', last: 'e', index: 3, count: 5 }])
    expect(page({ max: 2, before: 'd' })).to.deep.equal(['bc', { first: 'b', last: 'c', index: 1, count: 5 }])
    expect(page({ max: 2, before: 'b' })).to.deep.equal(['a', { first: 'a', last: 'a', index: 0, count: 5 }])
    expect(page({ max: 2, before: 'a' })).to.deep.equal(['', { count: 5 }])
  })

  it('jumps to an index (§2.6), and gives an empty page behind the end', () => {
    expect(page({ max: 2, index: 3 })).to.deep.equal(['de', { first: 'd', last: 'e', index: 3, count: 5 }])
    expect(page({ max: 2, index: 5 })).to.deep.equal(['', { count: 5 }])
    expect(page({ max: 2, index: 2_000_000_000 })).to.deep.equal(['', { count: 5 }])
  })

  it('gives the count alone for a page of no items (§2.7)', () => {
    expect(page({ max: 0 })).to.deep.equal(['', { count: 5 }])
    expect(page({ max: 0, before: '' })).to.deep.equal(['', { count: 5 }])
  })

  it('bounds the page by its own limit', () => {
    expect(page({ max: 5 }, 3)[0]).to.equal('abc')
    expect(pageOf(items, (item) => item, undefined, 4).items).to.deep.equal(['a', 'b', 'c', 'd'])
  })

  it('answers item-not-found for an item that is gone (§2.4)', () => {
    expect(condition(() => page({ after: 'x' }))).to.equal('item-not-found')
    expect(condition(() => page({ before: 'x' }))).to.equal('item-not-found')
  })

  it('visits every item once, forwards and backwards, whatever the size of the page', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.string({ minLength: 1 })),
        fc.integer({ min: 1, max: 7 }),
        (list, max) => {
          const forwards: string[] = []
          const backwards: string[] = []
          for (const [seen, step] of [
            [forwards, (last: string | undefined) => (last === undefined ? {} : { after: last })],
            [backwards, (last: string | undefined) => ({ before: last ?? '' })],
          ] as const) {
            for (;;) {
              const last = seen === forwards ? seen.at(-1) : seen[0]
              const result = pageOf(list, (item) => item, { ...NONE, max, ...step(last) }, 100)
              if (result.items.length === 0) break
              if (seen === forwards) seen.push(...result.items)
              else seen.unshift(...result.items)
            }
          }
          expect(forwards).to.deep.equal(list)
          expect(backwards).to.deep.equal(list)
        },
      ),
    )
  })

  it('leaves first and last out of an empty page, and reads an answer', () => {
    expect(pageInfo({ count: 790 }).toString()).to.equal(
      "<set xmlns='http://jabber.org/protocol/rsm'><count>790</count></set>",
    )
    expect(parsePageInfo(set("<first index='10'>a</first><last>b</last><count>800</count>"))).to.deep.equal({
      first: 'a',
      last: 'b',
      index: 10,
      count: 800,
    })
    expect(parsePageInfo(set(''))).to.deep.equal({})
    expect(condition(() => parsePageInfo(set('<count>many</count>')))).to.equal('bad-request')
  })
})
