/** server/xmpp/parser.ts: limits, work and memory (RFC 6120 §4.9.3.14, §13.12). */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect } from 'chai'
import { Parser, type ParserLimits, parseXml } from '../../server/xmpp/parser.ts'
import { conditionOf, HEADER, inStream, LIMITS, Log, refusal } from '../helpers/parsing.ts'

/** Writes `first`, then `piece` again and again; returns how many bytes went in before the error. */
function flood(first: string, piece: string, limits: ParserLimits, maxBytes: number): number {
  const parser = new Log(limits).write(HEADER + first).parser
  const bytes = Buffer.from(piece)
  let taken = 0
  const condition = conditionOf(() => {
    for (; taken < maxBytes; taken += bytes.length) parser.write(bytes)
  })
  if (condition !== undefined) expect(condition).to.equal('policy-violation')
  return taken
}

/** Runs the garbage collector, whether the process was started with --expose-gc or not. */
function collect(): void {
  setFlagsFromString('--expose-gc')
  runInNewContext('gc')()
}

/** Bytes in use, on the heap and in buffers. */
function memoryUsed(): number {
  collect()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

describe('parser: limits are policy violations (RFC 6120 §4.9.3.14)', () => {
  const exactly = (bytes: number) => `<a>${'x'.repeat(bytes - 7)}</a>`

  it('maxBytes counts from the first to the last byte of a first-level element', () => {
    const limits = { ...LIMITS, maxBytes: 2000 }
    expect(inStream(exactly(2000), limits)).to.equal(undefined)
    expect(inStream(exactly(2001), limits)).to.equal('policy-violation')
    expect(inStream(exactly(2000).repeat(3), limits)).to.equal(undefined)
    expect(inStream(exactly(2000) + exactly(2001), limits)).to.equal('policy-violation')
  })

  it('maxBytes counts bytes, not characters', () => {
    const limits = { ...LIMITS, maxBytes: 2000 }
    expect(inStream(`<a>${'ü'.repeat(996)}</a>`, limits)).to.equal(undefined)
    expect(inStream(`<a>${'ü'.repeat(997)}</a>`, limits)).to.equal('policy-violation')
    expect(inStream(`<a b='${'😀'.repeat(497)}'/>`, limits)).to.equal(undefined)
    expect(inStream(`<a b='${'😀'.repeat(498)}'/>`, limits)).to.equal('policy-violation')
  })

  it('maxBytes holds for every part of an element, and for the header', () => {
    const limits = { ...LIMITS, maxBytes: 300, maxAttrs: 1000, maxDepth: 1000 }
    const long = 'x'.repeat(300)
    for (const text of [
      `<a b='${long}'/>`,
      `<a${' '.repeat(300)}/>`,
      `<a></a${' '.repeat(300)}>`,
      `<a><![CDATA[${long}]]></a>`,
    ]) {
      expect(inStream(text, limits), text).to.equal('policy-violation')
      expect(inStream(text.slice(0, 320), limits), `${text}, cut`).to.equal('policy-violation')
    }
    expect(refusal(`<a b='${long}'>`, limits)).to.equal('policy-violation')
    expect(refusal(`<?xml version='1.0'${' '.repeat(300)}?>`, limits)).to.equal('policy-violation')
    expect(inStream(`<a>${'<b/>'.repeat(100)}</a>`, limits)).to.equal('policy-violation')
    expect(inStream(`</stream:stream${' '.repeat(300)}>`, limits)).to.equal('policy-violation')
  })

  it('an element beyond the limit is refused before it ends', () => {
    const limits = { ...LIMITS, maxBytes: 1000 }
    for (const [first, piece] of [
      ['<a>', 'text '],
      ['<a>', 'ü'],
      ['<a><![CDATA[', ']]'],
      ['<a>', '<b/>'],
      ['<a', ' '],
      ['<a b="', 'value'],
      ['<a></a', ' '],
    ] as const) {
      expect(flood(first, piece, { ...limits, maxBytes: 1000 }, 5000), first + piece).to.be.within(900, 1010)
    }
  })

  it('maxDepth counts levels', () => {
    const nested = (levels: number) => '<a>'.repeat(levels) + '</a>'.repeat(levels)
    const limits = { ...LIMITS, maxDepth: 3 }
    expect(inStream(nested(3), limits)).to.equal(undefined)
    expect(inStream('<a><a><a/><a/></a></a>', limits)).to.equal(undefined)
    expect(inStream(nested(4), limits)).to.equal('policy-violation')
    expect(inStream('<a><a><a><a/></a></a></a>', limits)).to.equal('policy-violation')
    expect(flood('', '<a>', limits, 5000)).to.equal(9)
  })

  it('maxAttrs counts attributes and namespace declarations', () => {
    const limits = { ...LIMITS, maxAttrs: 3 }
    expect(inStream(`<a xmlns='u' b='1' c='2'/>`, limits)).to.equal(undefined)
    expect(inStream(`<a xmlns='u' b='1' c='2' d='3'/>`, limits)).to.equal('policy-violation')
    expect(refusal(HEADER, { ...LIMITS, maxAttrs: 2 })).to.equal('policy-violation')
  })

  it('maxName holds for names of elements and attributes, and before they end', () => {
    const limits = { ...LIMITS, maxName: 20 }
    const fits = 'n'.repeat(20)
    expect(inStream(`<${fits} ${fits}='1'></${fits}>`, limits)).to.equal(undefined)
    expect(inStream(`<${fits}n/>`, limits)).to.equal('policy-violation')
    expect(inStream(`<a ${fits}n='1'/>`, limits)).to.equal('policy-violation')
    expect(flood('<', 'n', limits, 5000)).to.be.at.most(21)
    expect(flood('<a ', 'n', limits, 5000)).to.be.at.most(21)
    expect(flood(`<a b='`, 'n', limits, 5000)).to.be.at.least(5000)
  })

  it('white space between elements is free', () => {
    const log = new Log({ ...LIMITS, maxBytes: 200 }).write(HEADER)
    for (let i = 0; i < 100; i++) log.write(' '.repeat(1000))
    log.write('<a/>')
    expect(log.elements).to.have.length(1)
  })

  it('limits of documents', () => {
    expect(conditionOf(() => parseXml(exactly(101), { ...LIMITS, maxBytes: 100 }))).to.equal(
      'policy-violation',
    )
    expect(conditionOf(() => parseXml(exactly(100), { ...LIMITS, maxBytes: 100 }))).to.equal(undefined)
    expect(conditionOf(() => parseXml(`<a>${'ü'.repeat(47)}</a>`, { ...LIMITS, maxBytes: 100 }))).to.equal(
      'policy-violation',
    )
  })
})

describe('parser: work is linear in the bytes', () => {
  const BIG = 2_000_000
  const limits = { maxBytes: 10 * BIG, maxDepth: BIG, maxAttrs: BIG, maxName: BIG }

  /** Shortest time of five, in milliseconds, for `bytes` bytes of that kind, one at a time. */
  function time(first: string, piece: string, last: string, bytes: number): number {
    const one = Buffer.from(piece)
    let best = Number.POSITIVE_INFINITY
    for (let round = 0; round < 5; round++) {
      let count = 0
      const parser = new Parser({ open() {}, element: () => void count++, close() {} }, limits)
      parser.write(Buffer.from(HEADER + first))
      const start = performance.now()
      for (let at = 0; at < bytes; at++) parser.write(one.subarray(at % one.length, (at % one.length) + 1))
      parser.write(Buffer.from(last.replaceAll('N', String(bytes / one.length))))
      best = Math.min(best, performance.now() - start)
      expect(count).to.equal(1)
    }
    return best
  }

  for (const [what, first, piece, last] of [
    ['text', '<a>', 'x', '</a>'],
    ['text with references', '<a>', 'xyz&amp;', '</a>'],
    ['brackets in text', '<a>', ']', '</a>'],
    ['a CDATA section', '<a><![CDATA[', ']', ']]></a>'],
    ['an attribute value', '<a b="', 'x', '"/>'],
    ['white space in a tag', '<a', ' ', '/>'],
    ['child elements', '<a>', '<b/>', '</a>'],
    ['text between child elements', '<a>', 'x<b/>', '</a>'],
  ] as const) {
    it(`byte by byte: ${what}`, () => {
      time(first, piece, last, 10_000)
      const small = time(first, piece, last, 10_000)
      const large = time(first, piece, last, 100_000)
      // Quadratic work would take a hundred times as long.
      expect(large / small).to.be.below(35)
    })
  }

  it('deep nesting', () => {
    const nested = (depth: number) => Buffer.from(HEADER + '<a>'.repeat(depth) + '</a>'.repeat(depth))
    const measure = (depth: number) => {
      const data = nested(depth)
      let best = Number.POSITIVE_INFINITY
      for (let round = 0; round < 5; round++) {
        const start = performance.now()
        new Log(limits).parser.write(data.subarray(0, data.length - 4))
        best = Math.min(best, performance.now() - start)
      }
      return best
    }
    measure(2000)
    expect(measure(100_000) / measure(10_000)).to.be.below(70) // quadratic: 100
  })
})

describe('parser: no short input costs much', () => {
  const BYTES = 262_144
  const limits = { maxBytes: BYTES, maxDepth: 200, maxAttrs: 200, maxName: 1000 }
  const prefixes = Array.from({ length: 90 }, (_, i) => `xmlns:p${String(i).padStart(3, '0')}='u'`).join(' ')

  for (const [what, first, piece, last] of [
    ['white space in the end tag of the stream', '</stream:stream', ' ', 'x>'],
    ['white space in a tag', '<a', ' ', '='],
    ['white space after an attribute', '<a b', '\t', 'c'],
    ['white space in an end tag', '<a></a', '\n', 'x'],
    ['references', '<a>', '&lt;', '</a>'],
    ['references in an attribute', '<a b="', '&#x41;', '"/>'],
    ['brackets', '<a>', ']]', '</a>'],
    ['line ends', '<a>', '\r', '</a>'],
    ['CDATA sections', '<a>', '<![CDATA[]]>', '</a>'],
    ['quotes in an attribute', '<a b="', "'", '"/>'],
    ['prefixes', `<a ${prefixes}>`, '<p000:b/>', '</a>'],
    ['attributes with prefixes', `<a ${prefixes}>`, `<p001:b p001:c='' p002:d='' p003:e=''/>`, '</a>'],
    ['names never seen before', '<a>', '', '</a>'],
  ] as const) {
    it(what, () => {
      const length = BYTES - 2000 - first.length
      const middle =
        piece === ''
          ? Array.from({ length: length / 12 }, (_, i) => `<x${i} y='1'/>`)
              .join('')
              .slice(0, length)
          : piece.repeat(length / piece.length)
      const data = Buffer.from(HEADER + first + middle + last)
      let best = Number.POSITIVE_INFINITY
      for (let round = 0; round < 3; round++) {
        const start = performance.now()
        conditionOf(() => new Parser({ open() {}, element() {}, close() {} }, limits).write(data))
        best = Math.min(best, performance.now() - start)
      }
      // A quarter of a megabyte of messages takes about 2 ms.
      expect(best).to.be.below(150)
    })
  }

  it('XML declaration', () => {
    const data = Buffer.from(`<?xml version='1.0'${' '.repeat(BYTES - 100)}x?>`)
    const start = performance.now()
    expect(conditionOf(() => new Log(limits).write(data))).to.equal('not-well-formed')
    expect(performance.now() - start).to.be.below(150)
  })

  it('prefixes in force have a bound', () => {
    const declared = (from: number, count: number) =>
      Array.from({ length: count }, (_, i) => `xmlns:p${from + i}='u'`).join(' ')
    expect(
      inStream(`<a ${declared(0, 50)}><b ${declared(50, 49)}/><c ${declared(50, 49)}/></a>`, limits),
    ).to.equal(undefined)
    expect(inStream(`<a ${declared(0, 50)}><b ${declared(50, 50)}/></a>`, limits)).to.equal(
      'policy-violation',
    )
  })
})

describe('parser: memory is bounded', () => {
  const ROOM = 16_000_000
  const limits = { maxBytes: 262_144, maxDepth: 100, maxAttrs: 100, maxName: 1000 }

  it('200 MB of hostile input without end leave nothing behind', function () {
    this.timeout(60_000)
    const chunk = 65_536
    const hostile: readonly (readonly [string, string])[] = [
      ['', `<${'n'.repeat(chunk - 1)}`],
      ['<a ', 'n'.repeat(chunk)],
      ['<a b="', 'v'.repeat(chunk)],
      ['<a>', 'text'.repeat(chunk / 4)],
      ['<a>', ']'.repeat(chunk)],
      ['<a>', 'ü€😀'.repeat(chunk / 9)],
      ['<a><![CDATA[', ']]'.repeat(chunk / 2)],
      ['', '<a>'.repeat(chunk / 3)],
      ['<a>', '<b/>'.repeat(chunk / 4)],
      ['<a>', `<b c='d'>e</b>`.repeat(chunk / 14)],
      ['<a', ' '.repeat(chunk)],
      ['<a>', `<${'n'.repeat(90)}/>`.repeat(chunk / 93)],
    ]
    const before = memoryUsed()
    let total = 0
    const parsers: Parser[] = []
    while (total < 200_000_000) {
      for (const [first, piece] of hostile) {
        const bytes = Buffer.from(piece)
        const { parser } = new Log(limits).write(HEADER + first)
        parsers.push(parser)
        let taken = 0
        const condition = conditionOf(() => {
          while (taken < 8 * chunk) {
            taken += bytes.length
            parser.write(bytes)
          }
        })
        expect(condition, first + piece.slice(0, 20)).to.equal('policy-violation')
        expect(taken).to.be.at.most(limits.maxBytes + chunk)
        // The peer does not stop sending because of an error.
        for (; taken < 64 * chunk; taken += bytes.length) parser.write(bytes)
        total += taken
      }
    }
    expect(memoryUsed() - before).to.be.below(ROOM)
    expect(parsers.length).to.be.above(40)
  })

  it('a parser between elements keeps less than a kilobyte', () => {
    const count = 2000
    const chunk = Buffer.from(`${HEADER}<message><body>${'x'.repeat(20_000)}</body></message>`)
    const before = memoryUsed()
    const logs: Parser[] = []
    for (let i = 0; i < count; i++) {
      const parser = new Parser({ open() {}, element() {}, close() {} }, limits)
      parser.write(chunk)
      logs.push(parser)
    }
    expect((memoryUsed() - before) / logs.length).to.be.below(1000)
  })

  it('a string of an element keeps little of the input alive', () => {
    const piece = `<a b='${'x'.repeat(20)}'>${'y'.repeat(20)}</a>`
    const chunk = Buffer.from(HEADER + piece.repeat(65_536 / piece.length))
    const kept: (string | undefined)[] = []
    const before = memoryUsed()
    for (let i = 0; i < 500; i++) {
      const log = new Log(limits)
      log.parser.write(chunk)
      kept.push(log.elements[700]?.attr('b'))
    }
    expect((memoryUsed() - before) / kept.length).to.be.below(10_000)
    expect(kept[0]).to.have.length(20)
  })

  it('many names never seen before do not stay', () => {
    const log = new Log(limits).write(HEADER)
    log.write('<x/>')
    const before = memoryUsed()
    for (let i = 0; i < 100_000; i++) log.parser.write(Buffer.from(`<n${i} a${i}='1' xmlns='urn:${i}'/>`))
    log.elements.length = 0
    log.events.length = 0
    expect(memoryUsed() - before).to.be.below(ROOM)
  })
})
