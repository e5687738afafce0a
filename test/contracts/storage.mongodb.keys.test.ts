/** Keys and values of the mongodb driver, without a database: nothing collides, order and contents survive. */
import { expect } from 'chai'
import fc from 'fast-check'
import { BSON } from 'mongodb'
import { DocTooLarge } from '../../server/storage/contract.ts'
import type { Doc } from '../../server/storage/contract.ts'
import {
  below,
  collectionName,
  docKey,
  entryId,
  entryNumber,
  hiddenKey,
  hostPrefix,
  isCut,
  kindOf,
  maxPartBytes,
  ownerKey,
  ownerOf,
  part,
} from '../../server/storage/mongodb/keys.ts'
import { fromStored, toStored } from '../../server/storage/mongodb/values.ts'

const text = fc.string({ unit: 'binary', maxLength: 8 })
// Characters that mean something in a key, and their escapes.
const odd = fc.string({
  unit: fc.constantFrom('/', '%', '2', 'F', '5', '0', '\0', 'a', '~', '#', 'é', '😀', '\uffff'),
})
const long = fc
  .tuple(fc.constantFrom('k', 'é', '日', '😀'), fc.nat(1100), odd)
  .map(([c, n, end]) => c.repeat(n) + end)
const any = fc.oneof(text, odd, long)
const bytewise = (a: string, b: string) => Buffer.compare(Buffer.from(a), Buffer.from(b))
const runs = { numRuns: 2000 }

describe('keys of the mongodb driver', () => {
  it('different places have different keys', () => {
    fc.assert(
      fc.property(fc.tuple(any, any, any), fc.tuple(any, any, any), (a, b) => {
        const key = ([host, owner, name]: readonly [string, string, string]) =>
          docKey(ownerKey(host, owner), name)
        expect(key(a) === key(b)).to.equal(a.join('\u0001') === b.join('\u0001'))
      }),
      runs,
    )
    // Short ones collide more often, if they do.
    const seen = new Map<string, string>()
    for (const host of ['', 'a', '/', 'a/', '%2F', '%']) {
      for (const owner of ['', 'a', '/', '/a', '%2F', '2F', '%']) {
        for (const name of ['', 'a', '/', 'a/', '%2F', '\0']) {
          const key = docKey(ownerKey(host, owner), name)
          expect(seen.get(key), key).to.equal(undefined)
          seen.set(key, JSON.stringify([host, owner, name]))
        }
      }
    }
  })

  it('an owner can be read from its key, unless it was cut', () => {
    fc.assert(
      fc.property(any, any, (host, owner) => {
        const key = ownerKey(host, owner)
        if (isCut(owner)) expect(key.length).to.be.lessThan(owner.length * 3 + host.length * 3 + 700)
        else expect(ownerOf(key)).to.equal(owner)
      }),
      runs,
    )
  })

  it('keys keep the order of the bytes of the first 512', () => {
    const first = (key: string) => Buffer.from(key).subarray(0, maxPartBytes)
    fc.assert(
      fc.property(any, any, (a, b) => {
        const wanted = Buffer.compare(first(a), first(b))
        if (wanted !== 0) expect(bytewise(part(a), part(b))).to.equal(wanted)
        expect(part(a) === part(b)).to.equal(a === b)
      }),
      runs,
    )
    for (const bytes of [511, 512, 513, 514]) {
      for (const end of ['', 'é', '日', '😀']) {
        const key = 'k'.repeat(bytes) + end
        expect(part(key) === key, `${bytes} and ${end}`).to.equal(Buffer.byteLength(key) <= maxPartBytes)
        expect(part(key).isWellFormed()).to.equal(true)
      }
    }
  })

  it('a key never has more than 2,048 bytes', () => {
    for (const c of ['k', '/', '%', 'é', '日', '😀']) {
      const fill = (bytes: number) => c.repeat(Math.floor(bytes / Buffer.byteLength(c)))
      const key = docKey(ownerKey(fill(255), fill(1023)), fill(3071))
      expect(Buffer.byteLength(key), c).to.be.at.most(2048)
      // Compound indexes of archives: owner, correspondent and the key of the entry.
      const entry = `${ownerKey(fill(60), fill(1023))}/${entryId(1)}`
      expect(Buffer.byteLength(entry)).to.be.at.most(1024)
    }
  })

  it('what belongs to an owner or host lies in its range, and nothing else does', () => {
    fc.assert(
      fc.property(any, any, any, any, any, (host, owner, name, otherHost, otherOwner) => {
        const inside = (key: string, prefix: string) => {
          const { $gte, $lt } = below(prefix)
          return bytewise(key, $gte) >= 0 && bytewise(key, $lt) < 0
        }
        const key = docKey(ownerKey(host, owner), name)
        expect(inside(key, docKey(ownerKey(host, owner), ''))).to.equal(true)
        expect(inside(key, hostPrefix(host))).to.equal(true)
        expect(inside(key, hostPrefix(otherHost))).to.equal(host === otherHost)
        expect(inside(key, docKey(ownerKey(host, otherOwner), ''))).to.equal(owner === otherOwner)
        expect(inside(hiddenKey(host, owner), docKey(ownerKey(host, owner), ''))).to.equal(false)
        expect(inside(hiddenKey(host, owner), hostPrefix(host))).to.equal(true)
      }),
      runs,
    )
  })

  it('a hidden key does not tell the owner', () => {
    expect(hiddenKey('h', 'juliet')).to.not.include('juliet')
    expect(hiddenKey('h', 'juliet')).to.not.equal(hiddenKey('h', 'romeo'))
    expect(hiddenKey('h', 'juliet')).to.not.equal(hiddenKey('i', 'juliet'))
  })

  it('names of collections are short, plain and different', () => {
    const names = [
      'a',
      'A',
      'a.b',
      'a~b',
      'a~2e~b',
      'é',
      '__proto__',
      '$x',
      'x'.repeat(255),
      `${'x'.repeat(254)}y`,
      '日'.repeat(85),
    ]
    const all = names.flatMap((module) =>
      names.flatMap((name) =>
        (['docs', 'archive', 'counter', 'lease'] as const).map((kind) => {
          const collection = collectionName(kind, module, name)
          expect(collection).to.match(/^[a-z]+\.[a-z0-9_~-]+\.[a-z0-9_~-]+$/)
          expect(collection.length).to.be.at.most(100)
          expect(kindOf(collection)).to.equal(kind)
          return collection
        }),
      ),
    )
    expect(new Set(all)).to.have.property('size', all.length)
    for (const other of ['meta', 'system.indexes', 'docs', 'docs.x', 'other.m.a', 'docs.a.b.c']) {
      expect(kindOf(other), other).to.equal(undefined)
    }
  })

  it('ids sort bytewise as their numbers do, and nothing else is an id', () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), fc.maxSafeNat(), (a, b) => {
        expect(entryNumber(entryId(a))).to.equal(a)
        expect(Math.sign(bytewise(entryId(a), entryId(b)))).to.equal(Math.sign(a - b))
      }),
      runs,
    )
    expect(entryId(0)).to.have.length(11)
    expect(entryId(Number.MAX_SAFE_INTEGER)).to.have.length(11)
    for (const id of [
      '',
      '0',
      'w'.repeat(11),
      'V'.repeat(11),
      '-0000000001',
      '0000000000.',
      'v'.repeat(11),
      `${entryId(1)}0`,
    ]) {
      expect(entryNumber(id), id).to.equal(undefined)
    }
  })
})

describe('values of the mongodb driver', () => {
  const name = fc.oneof(
    text,
    fc.constantFrom(
      '',
      '%',
      '%json',
      '%25',
      '$set',
      '$',
      'a.b',
      '.',
      '_bsontype',
      '$ref',
      '__proto__',
      'toJSON',
    ),
  )
  const { doc } = fc.letrec<{ json: unknown; doc: Record<string, unknown> }>((tie) => ({
    json: fc.oneof(
      { maxDepth: 5, withCrossShrink: true },
      fc.oneof(
        text,
        fc.integer(),
        fc.double({ noNaN: true, noDefaultInfinity: true }),
        fc.boolean(),
        fc.constant(null),
      ),
      fc.array(tie('json'), { maxLength: 4 }),
      fc.dictionary(name, tie('json'), { maxKeys: 4, noNullPrototype: true }),
    ),
    doc: fc.dictionary(name, fc.oneof(tie('json'), fc.uint8Array({ maxLength: 20 })), {
      maxKeys: 6,
      noNullPrototype: true,
    }),
  }))

  /** Names of fields at any depth. */
  function namesIn(value: unknown): string[] {
    if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return []
    return Object.entries(value).flatMap(([field, inner]) => [
      ...(Array.isArray(value) ? [] : [field]),
      ...namesIn(inner),
    ])
  }

  it('documents come back as they were, through BSON', () => {
    fc.assert(
      fc.property(doc, (given) => {
        // What copyDoc does before: no NUL in names, no -0 (JSON has none).
        fc.pre(!namesIn(given).some((one) => one.includes('\0')) && !hasNegativeZero(given))
        const { stored, bytes } = toStored(given as Doc)
        const wire = BSON.serialize(stored)
        expect(bytes).to.equal(wire.length)
        expect(fromStored(BSON.deserialize(wire))).to.deep.equal(given)
      }),
      { numRuns: 1000 },
    )
  })

  function hasNegativeZero(value: unknown): boolean {
    if (typeof value === 'number') return Object.is(value, -0)
    if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return false
    return Object.values(value).some(hasNegativeZero)
  }

  it('no stored name of a field is one that servers refuse, no list is in a list', () => {
    const check = (value: unknown): void => {
      if (typeof value !== 'object' || value === null || '_bsontype' in value) return
      for (const [field, inner] of Object.entries(value)) {
        if (Array.isArray(value)) expect(Array.isArray(inner)).to.equal(false)
        else expect(field).to.match(/^[^$.]+$/u)
        check(inner)
      }
    }
    fc.assert(
      fc.property(doc, (given) => check(toStored(given as Doc).stored)),
      { numRuns: 1000 },
    )
  })

  it('more than 15 MiB of BSON is DocTooLarge, however little text it was', () => {
    const many = Array.from({ length: 1_500_000 }, () => 0.5)
    expect(() => toStored({ many })).to.throw(DocTooLarge)
  })
})
