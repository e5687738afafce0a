/** server/xmpp/precis.ts and unicode.ts: RFC 8264, RFC 8265, RFC 5892 appendix A, RFC 5893. */
import { domainToASCII } from 'node:url'
import { expect } from 'chai'
import fc from 'fast-check'
import {
  mapCase,
  nickname,
  nicknameKey,
  opaqueString,
  PrecisError,
  precisProperty,
  usernameCaseMapped,
  usernameCasePreserved,
} from '../../server/xmpp/precis.ts'
import { bidiRuleHolds, codePoints, contextRulesHold, hasRightToLeft } from '../../server/xmpp/unicode.ts'

function attempt(profile: (text: string) => string, text: string): string | undefined {
  try {
    return profile(text)
  } catch (error) {
    if (error instanceof PrecisError) return undefined
    throw error
  }
}

describe('precis: derived property (RFC 8264 §8)', () => {
  const rows: [category: string, property: string, codePoints: number[]][] = [
    ['Exceptions, valid (§9.6)', 'pvalid', [0xdf, 0x3c2, 0x6fd, 0x6fe, 0xf0b, 0x3007]],
    ['Exceptions, contextual', 'contexto', [0xb7, 0x375, 0x5f3, 0x5f4, 0x30fb, 0x660, 0x669, 0x6f0, 0x6f9]],
    ['Exceptions, disallowed', 'disallowed', [0x640, 0x7fa, 0x302e, 0x302f, 0x3031, 0x3035, 0x303b]],
    ['Unassigned (§9.10)', 'unassigned', [0x378, 0x1cfff, 0xe0080]],
    ['ASCII7 (§9.11)', 'pvalid', [0x21, 0x22, 0x40, 0x41, 0x7e]],
    ['JoinControl (§9.8)', 'contextj', [0x200c, 0x200d]],
    ['OldHangulJamo (§9.9)', 'disallowed', [0x1100, 0x11ff, 0xa960, 0xd7b0, 0xd7fb]],
    [
      'PrecisIgnorableProperties (§9.13)',
      'disallowed',
      [0xad, 0x34f, 0x200b, 0x2060, 0xfe0f, 0xfdd0, 0xffff, 0x10ffff],
    ],
    ['Controls (§9.12)', 'disallowed', [0, 9, 0x1f, 0x7f, 0x9f]],
    ['HasCompat (§9.17)', 'free', [0xa0, 0xaa, 0x2163, 0xfb01, 0xff21, 0x212a, 0x3131]],
    [
      'LetterDigits (§9.1)',
      'pvalid',
      [0xe9, 0x3a3, 0x3c0, 0x5d0, 0x301, 0x903, 0x966, 0x4e00, 0xac00, 0x1e900],
    ],
    ['OtherLetterDigits (§9.18)', 'free', [0x1f88, 0x16ee, 0xbf2, 0x488]],
    ['Spaces (§9.14)', 'free', [0x20, 0x1680]],
    ['Symbols (§9.15)', 'free', [0xa2, 0x221e, 0x265a, 0x1f600]],
    ['Punctuation (§9.16)', 'free', [0xa1, 0x2014, 0x3001]],
    ['anything else', 'disallowed', [0xe000, 0x600, 0x2028, 0xd800]],
  ]
  for (const [category, property, points] of rows) {
    it(`${category}: ${property}`, () => {
      for (const point of points) expect(precisProperty(point), point.toString(16)).to.equal(property)
    })
  }

  it('gives every character of the FreeformClass only to opaque strings, every PVALID one to both (RFC 8264 §4.4)', () => {
    for (let point = 0x80; point < 0x3000; point++) {
      const property = precisProperty(point)
      const char = String.fromCodePoint(point)
      if (char.normalize('NFC') !== char || property.startsWith('context')) continue
      const opaque = attempt(opaqueString, char)
      expect(opaque !== undefined, point.toString(16)).to.equal(property === 'pvalid' || property === 'free')
      if (property !== 'pvalid') expect(attempt(usernameCasePreserved, char)).to.equal(undefined)
    }
  })
})

describe('precis: user names (RFC 8265 §3)', () => {
  const legal: [row: number, text: string, mapped: string][] = [
    [1, 'juliet@example.com', 'juliet@example.com'],
    [2, 'fussball', 'fussball'],
    [3, 'fu\u00dfball', 'fu\u00dfball'],
    [4, '\u03c0', '\u03c0'],
    [5, '\u03a3', '\u03c3'],
    [6, '\u03c3', '\u03c3'],
    [7, '\u03c2', '\u03c2'],
  ]
  for (const [row, text, mapped] of legal) {
    it(`§3.6 row ${row}: ${text} is legal`, () => {
      expect(usernameCaseMapped(text)).to.equal(mapped)
      expect(usernameCasePreserved(text)).to.equal(text)
    })
  }
  for (const [row, text] of [
    [8, 'foo bar'],
    [9, ''],
    [10, 'henry\u2163'],
    [11, '\u221e'],
  ] as const) {
    it(`§3.6 row ${row}: ${JSON.stringify(text)} is refused`, () => {
      expect(() => usernameCaseMapped(text)).to.throw(PrecisError)
      expect(() => usernameCasePreserved(text)).to.throw(PrecisError)
    })
  }

  it('gives capital sigma no final form (RFC 7622 §3.5 on rows 9 to 11)', () => {
    expect(usernameCaseMapped('\u0391\u03a3')).to.equal('\u03b1\u03c3')
    expect(mapCase('\u03a3\u0391\u03a3 \u03a3')).to.equal('\u03c3\u03b1\u03c3 \u03c3')
  })

  it('maps fullwidth and halfwidth characters (§3.3.1 rule 1)', () => {
    expect(usernameCaseMapped('\uff2a\uff11')).to.equal('j1')
    expect(usernameCasePreserved('\uff2a\uff11')).to.equal('J1')
    expect(usernameCaseMapped('\uff76\uff9e')).to.equal('\u30ac')
    // A halfwidth Hangul letter decomposes into a compatibility letter, which is refused
    expect(attempt(usernameCaseMapped, '\uffa1')).to.equal(undefined)
    expect(attempt(usernameCaseMapped, 'a\u3000b')).to.equal(undefined)
  })

  it('maps before it tests, where that gives something valid (RFC 8264 §7)', () => {
    expect(usernameCaseMapped('\u212a\u212b')).to.equal('k\u00e5')
    expect(usernameCaseMapped('\u1f88')).to.equal('\u1f80')
    expect(usernameCaseMapped('\u1112\u1161\u11ab')).to.equal('\ud55c')
    expect(attempt(usernameCaseMapped, '\u01c5')).to.equal(undefined)
  })

  it('composes (§3.3.1 rule 4)', () => {
    expect(usernameCaseMapped('E\u0301')).to.equal('\u00e9')
    expect(usernameCasePreserved('E\u0301')).to.equal('\u00c9')
  })
})

describe('precis: opaque strings (RFC 8265 §4)', () => {
  const legal: [row: number, text: string, mapped: string][] = [
    [12, 'correct horse battery staple', 'correct horse battery staple'],
    [13, 'Correct Horse Battery Staple', 'Correct Horse Battery Staple'],
    [14, '\u03c0\u00df\u00e5', '\u03c0\u00df\u00e5'],
    [15, 'Jack of \u2666s', 'Jack of \u2666s'],
    [16, 'foo\u1680bar', 'foo bar'],
  ]
  for (const [row, text, mapped] of legal) {
    it(`§4.3 row ${row}: ${text} is legal`, () => expect(opaqueString(text)).to.equal(mapped))
  }
  for (const [row, text] of [
    [17, ''],
    [18, 'my cat is a \tby'],
  ] as const) {
    it(`§4.3 row ${row}: ${JSON.stringify(text)} is refused`, () => {
      expect(() => opaqueString(text)).to.throw(PrecisError)
    })
  }

  it('has no width, case or direction rule, and composes (§4.2.2)', () => {
    expect(opaqueString('\uff21\u2163\ufb01 \u05d0a')).to.equal('\uff21\u2163\ufb01 \u05d0a')
    expect(opaqueString('a\u0308')).to.equal('\u00e4')
  })

  it('refuses ignorable and private characters, and what is not Unicode text', () => {
    for (const text of ['\u2764\ufe0f', 'a\u00adb', '\ue000', '\ud83d', 'a\udc00b', '\ufdd0']) {
      expect(attempt(opaqueString, text), text).to.equal(undefined)
    }
  })
})

describe('precis: nicknames (RFC 8266)', () => {
  it('trims and joins spaces, composes by compatibility, keeps case (§2.3)', () => {
    expect(nickname('  Foo\u00a0  Bar ')).to.equal('Foo Bar')
    expect(nickname('\u2163 \uff21\ufb01')).to.equal('IV A\u0066i')
    expect(nickname('\u265a')).to.equal('\u265a')
    // NFKC of U+00B4 starts with a space
    expect(nickname('\u00b4')).to.equal('\u0301')
    for (const text of ['', ' ', '\u3000', 'a\tb', '\u2764\ufe0f', '\ud800', 'a'.repeat(4097)]) {
      expect(attempt(nickname, text), text).to.equal(undefined)
    }
  })

  it('compares without case and width (§2.4, §3)', () => {
    expect(nicknameKey('Foo Bar')).to.equal(nicknameKey(' foo  bar'))
    expect(nicknameKey('\u03a3')).to.equal(nicknameKey('\u03c3'))
    expect(nicknameKey('\u03c3')).not.to.equal(nicknameKey('\u03c2'))
    expect(nicknameKey('Richard \u2163')).to.equal('richard iv')
    expect(nicknameKey('\uff21')).to.equal('a')
  })
})

describe('precis: contextual rules (RFC 5892 appendix A)', () => {
  const rows: [rule: string, legal: string[], illegal: string[]][] = [
    [
      'A.1 ZERO WIDTH NON-JOINER',
      [
        '\u0915\u094d\u200c\u0937',
        '\u0646\u0627\u0645\u0647\u200c\u0627\u06cc',
        '\u0628\u064b\u200c\u064b\u0628',
        '\ua872\u200c\u0628',
      ],
      [
        'a\u200cb',
        '\u200c',
        '\u0628\u200c',
        '\u200c\u0628',
        '\u0627\u200c\u0628',
        '\u0628\u200ca',
        '\u0628\u200c\u200c\u0628',
      ],
    ],
    [
      'A.2 ZERO WIDTH JOINER',
      ['\u0915\u094d\u200d\u0937', '\u0dc1\u0dca\u200d'],
      ['a\u200db', '\u200d', '\u0628\u200d\u0628'],
    ],
    ['A.3 MIDDLE DOT', ['l\u00b7l'], ['\u00b7', 'l\u00b7', '\u00b7l', 'l\u00b7a', 'a\u00b7l']],
    ['A.4 GREEK KERAIA', ['\u0375\u03b1'], ['\u0375', '\u0375a', '\u03b1\u0375']],
    ['A.5 HEBREW GERESH', ['\u05d0\u05f3'], ['\u05f3', 'a\u05f3', '\u05f3\u05d0']],
    ['A.6 HEBREW GERSHAYIM', ['\u05d0\u05f4'], ['\u05f4', 'a\u05f4', '\u05f4\u05d0']],
    [
      'A.7 KATAKANA MIDDLE DOT',
      ['\u30fb\u3042', '\u30a2\u30fb', 'a\u30fb\u4e00'],
      ['\u30fb', 'a\u30fbb', '\u30fb\u30fb'],
    ],
    [
      'A.8, A.9 Arabic digits',
      ['\u0661\u0662', '\u06f1\u06f2', '\u06f11'],
      ['\u0661\u06f1', '\u06f1x\u0669'],
    ],
  ]
  for (const [rule, legal, illegal] of rows) {
    it(rule, () => {
      for (const text of legal) expect(opaqueString(text)).to.equal(text)
      for (const text of illegal) expect(attempt(opaqueString, text), text).to.equal(undefined)
    })
  }

  it('joins what the resolver of the runtime joins, whose tables end before Unicode 6', () => {
    let joined = 0
    for (let point = 0x80; point < 0x1f000; point++) {
      if (precisProperty(point) !== 'pvalid') continue
      const char = String.fromCodePoint(point)
      for (const text of [`\u0628\u200c${char}`, `${char}\u200c\u0628`]) {
        if (text.normalize('NFC') !== text || !bidiRuleHolds(codePoints(text))) continue
        const accepted = contextRulesHold(codePoints(text))
        const expected = domainToASCII(text) !== ''
        if (expected || point < 0x767) expect(accepted, point.toString(16)).to.equal(expected)
        if (accepted) joined += 1
      }
    }
    expect(joined).to.be.above(300)
  })

  it('takes for a virama what the resolver of the runtime does, and those its older tables lack', () => {
    const newer = [0x1715, 0x11070, 0x113ce, 0x113cf, 0x113d0, 0x11f41, 0x11f42]
    let viramas = 0
    for (let point = 0x300; point < 0x12000; point++) {
      if (precisProperty(point) !== 'pvalid') continue
      const text = `a${String.fromCodePoint(point)}\u200da`
      if (text.normalize('NFC') !== text || hasRightToLeft(codePoints(text))) continue
      const accepted = attempt(usernameCasePreserved, text) !== undefined
      const expected = newer.includes(point) || domainToASCII(text).startsWith('xn--')
      expect(accepted, point.toString(16)).to.equal(expected)
      if (accepted) viramas += 1
    }
    expect(viramas).to.be.above(60)
  })
})

describe('precis: Bidi rule (RFC 5893 §2)', () => {
  const holds = (text: string) => bidiRuleHolds(codePoints(text))

  it('1: starts with class L, R or AL', () => {
    for (const text of ['a', '\u05d0', '\u0627']) expect(holds(text)).to.equal(true)
    for (const text of ['1\u05d0', '\u0661', '-\u05d0', '\u0301\u05d0', ''])
      expect(holds(text), text).to.equal(false)
  })

  it('2 and 3: a right-to-left string has no class L and ends with R, AL, EN or AN, marks aside', () => {
    for (const text of [
      '\u05d01',
      '\u06271',
      '\u0627\u0661',
      '\u05d0.\u05d1',
      '\u05d0_+$\u05d1',
      '\u05d0\u05b0',
      '\u0627\u06f1',
    ]) {
      expect(holds(text), text).to.equal(true)
    }
    for (const text of ['\u05d0a', '\u05d0a\u05d1', '\u05d0-', '\u05d0+', '\u05d0\u0903\u05d0']) {
      expect(holds(text), text).to.equal(false)
    }
  })

  it('4: a right-to-left string has not both European and Arabic numbers', () => {
    expect(holds('\u06271\u0661')).to.equal(false)
    expect(holds('\u0661\u0627')).to.equal(false)
  })

  it('5 and 6: a left-to-right string has no R, AL or AN and ends with L or EN, marks aside', () => {
    for (const text of ['a1', 'a.b', 'a-1', 'a\u0301']) expect(holds(text), text).to.equal(true)
    for (const text of ['a\u05d0', 'a\u0661', 'a-', 'a+']) expect(holds(text), text).to.equal(false)
  })

  it('applies to user names with right-to-left characters only', () => {
    expect(usernameCaseMapped('\u05e9\u05dc\u05d5\u05dd')).to.equal('\u05e9\u05dc\u05d5\u05dd')
    expect(usernameCaseMapped('1-')).to.equal('1-')
    expect(usernameCaseMapped('1-\u00e9-')).to.equal('1-\u00e9-')
    for (const text of ['a\u05d0', '1\u05d0', '\u0661a', '\u05d0-'])
      expect(attempt(usernameCaseMapped, text), text).to.equal(undefined)
  })

  it('agrees with the resolver of the runtime on labels of letters, digits and marks', () => {
    const unit = fc.constantFrom(
      'a',
      '1',
      '-',
      '\u05d0',
      '\u05b0',
      '\u0627',
      '\u0661',
      '\u06f1',
      '\u0301',
      '\u3042',
      '\u00e9',
    )
    fc.assert(
      fc.property(fc.string({ unit, minLength: 1, maxLength: 6 }), (text) => {
        const points = codePoints(text)
        fc.pre(hasRightToLeft(points) && text.normalize('NFC') === text && !/^\p{M}|^-|-$|^..--/u.test(text))
        expect(bidiRuleHolds(points)).to.equal(domainToASCII(text) !== '')
      }),
      { numRuns: 2000 },
    )
  })
})

describe('precis: properties of the profiles', () => {
  const text = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 20 }),
    fc.string({ unit: 'grapheme', maxLength: 20 }),
    fc.string({
      unit: fc.constantFrom(
        ...Array.from(
          'aZ \u0130\u03a3\u03c2\uff21\uff9e\uff76\u0301\u0345\u1112\u1161\u0627\u0661\u06f1\u200c\u094d',
        ),
      ),
      maxLength: 8,
    }),
  )
  for (const profile of [usernameCaseMapped, usernameCasePreserved, opaqueString, nickname, nicknameKey]) {
    it(`${profile.name} is idempotent and throws nothing but PrecisError`, () => {
      fc.assert(
        fc.property(text, (input) => {
          const output = attempt(profile, input)
          if (output === undefined) return
          expect(profile(output)).to.equal(output)
          expect(output.normalize('NFC')).to.equal(output)
        }),
        { numRuns: 2000 },
      )
    })
  }

  it('every code point alone is refused or stable', () => {
    for (let point = 0x80; point <= 0x10ffff; point += point < 0x20000 ? 1 : 61) {
      const char = String.fromCodePoint(point)
      const mapped = attempt(usernameCaseMapped, char)
      if (mapped !== undefined) expect(usernameCaseMapped(mapped)).to.equal(mapped)
    }
  })

  it('refuses strings above 4096 units', () => {
    for (const profile of [usernameCaseMapped, usernameCasePreserved, opaqueString]) {
      expect(attempt(profile, 'a'.repeat(4097))).to.equal(undefined)
      expect(attempt(profile, '\u00e9'.repeat(4097))).to.equal(undefined)
      expect(attempt(profile, 'a'.repeat(4096))).to.have.length(4096)
    }
  })
})
