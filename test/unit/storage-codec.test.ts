/** Documents as CBOR, and the copies that the reference driver makes: both take and refuse the same. */
import { expect } from 'chai'
import fc from 'fast-check'
import type { Doc, Json } from '../../server/storage/contract.ts'
import { copyDoc } from '../../server/storage/limits.ts'
import { decodeDoc, encodeDoc } from '../../server/storage/lmdb/codec.ts'

const json = fc.letrec<{ value: Json }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'small' },
    fc.constantFrom<Json>(null, true, false, '', 0, -1),
    fc.integer(),
    fc.maxSafeInteger(),
    fc.double({ noNaN: true, noDefaultInfinity: true }).map((n) => (n === 0 ? 0 : n)),
    fc.string({ unit: 'binary' }),
    fc.array(tie('value'), { maxLength: 30 }),
    fc.dictionary(fc.string({ unit: 'grapheme' }), tie('value')),
  ),
})).value
const bytes = fc.uint8Array({ maxLength: 300 })
const doc = fc.dictionary(
  fc.oneof(fc.string({ unit: 'grapheme' }), fc.constantFrom('__proto__', 'constructor')),
  fc.oneof(json, bytes),
)

describe('documents as bytes', () => {
  it('come back as they were', () => {
    fc.assert(
      fc.property(doc, fc.nat({ max: 40 }), (given, front) => {
        // fast-check makes objects without a prototype, the decoder plain ones.
        const plain = copyDoc(given)
        const encoded = encodeDoc(given, front)
        expect(decodeDoc(encoded, front)).to.deep.equal(plain)
      }),
      { numRuns: 2000 },
    )
  })

  it('of every length of text and bytes come back as they were', () => {
    for (const unit of ['a', 'é', '日', '😀']) {
      for (const length of [
        0, 1, 7, 8, 11, 12, 23, 24, 84, 85, 86, 255, 256, 21_845, 21_846, 65_535, 65_536,
      ]) {
        const given = {
          t: unit.repeat(length),
          b: new Uint8Array(length).fill(1),
          [unit.repeat(Math.min(length, 300))]: 1,
        }
        expect(decodeDoc(encodeDoc(given, 0), 0)).to.deep.equal(given)
      }
    }
  })

  // RFC 8949, Appendix A: values inside a map {"v": ...}.
  const examples: readonly (readonly [Json, string])[] = [
    [0, '00'],
    [23, '17'],
    [24, '1818'],
    [100, '1864'],
    [1000, '1903e8'],
    [1_000_000, '1a000f4240'],
    [1_000_000_000_000, '1b000000e8d4a51000'],
    [-1, '20'],
    [-10, '29'],
    [-100, '3863'],
    [-1000, '3903e7'],
    [1.1, 'fb3ff199999999999a'],
    [1e300, 'fb7e37e43c8800759c'],
    [-4.1, 'fbc010666666666666'],
    [false, 'f4'],
    [true, 'f5'],
    [null, 'f6'],
    ['', '60'],
    ['a', '6161'],
    ['IETF', '6449455446'],
    ['\u00fc', '62c3bc'],
    ['\u6c34', '63e6b0b4'],
    [[], '80'],
    [[1, 2, 3], '83010203'],
    [[1, [2, 3], [4, 5]], '8301820203820405'],
    [{}, 'a0'],
    [{ a: 1, b: [2, 3] }, 'a26161016162820203'],
  ]
  for (const [value, hex] of examples) {
    it(`${JSON.stringify(value)} is ${hex} (RFC 8949 Appendix A)`, () => {
      expect(encodeDoc({ v: value }, 0).toString('hex')).to.equal(`a16176${hex}`)
      expect(decodeDoc(Buffer.from(`a16176${hex}`, 'hex'), 0)).to.deep.equal({ v: value })
    })
  }

  it('bytes are a byte string (RFC 8949 §3.1)', () => {
    expect(encodeDoc({ b: Uint8Array.of(1, 2, 3, 4) }, 0).toString('hex')).to.equal('a161624401020304')
  })

  it('are refused or taken alike by the encoder and by the copy', () => {
    const odd = fc.oneof(
      json,
      fc.constantFrom<unknown>(
        undefined,
        Number.NaN,
        Number.NEGATIVE_INFINITY,
        '\ud800',
        1n,
        Symbol('s'),
        new Date(0),
        new Map(),
        () => 1,
      ),
      fc.constantFrom<unknown>(new Uint8Array(1), Object.create({ inherited: 1 }), new (class Some {})()),
    )
    const deep = fc.oneof(
      odd,
      fc.array(odd, { maxLength: 3 }),
      fc.dictionary(fc.constantFrom('a', 'b\0', '\udc00'), odd),
    )
    fc.assert(
      fc.property(fc.oneof(fc.dictionary(fc.constantFrom('a', 'b', '\0'), deep), odd), (given) => {
        const outcome = (run: () => Doc) => {
          try {
            return run()
          } catch (error) {
            return (error as Error).constructor.name
          }
        }
        const [one, other] = [
          outcome(() => copyDoc(given as Doc)),
          outcome(() => decodeDoc(encodeDoc(given as Doc, 0), 0)),
        ]
        expect(one).to.deep.equal(other)
      }),
      { numRuns: 2000 },
    )
  })

  it('that are not a document are an error', () => {
    for (const hex of ['', '00', '80', '6161', 'a16176ff', 'a16176f9', 'a161761f']) {
      expect(() => decodeDoc(Buffer.from(hex, 'hex'), 0), hex).to.throw(Error)
    }
  })
})
