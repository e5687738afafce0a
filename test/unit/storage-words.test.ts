/** Words of full-text search. */
import { expect } from 'chai'
import fc from 'fast-check'
import { fold, matcher, maxText, maxWordLength, maxWords, wordsOf } from '../../server/storage/words.ts'

describe('words of full-text search (XEP-0431)', () => {
  it('are found in languages with and without spaces, without punctuation', () => {
    expect([...wordsOf("Hello, world! It's 10:30 (really).")]).to.deep.equal([
      'hello',
      'world',
      "it's",
      '10',
      '30',
      'really',
    ])
    expect([...wordsOf('今日はいい天気ですね')]).to.include.members(['今日', '天気'])
    expect([...wordsOf('สวัสดีครับ')].length).to.be.greaterThan(1)
    expect([...wordsOf(' \n\t.,;:!?— ')]).to.deep.equal([])
    expect([...wordsOf('')]).to.deep.equal([])
  })

  it('are each there once, in order of the text', () => {
    expect([...wordsOf('b a B c A b')]).to.deep.equal(['b', 'a', 'c'])
  })

  it('are compared without regard to case, width and composition', () => {
    for (const [a, b] of [
      ['STRASSE', 'straße'],
      ['Ｈｉ', 'hi'],
      ['caf\u00e9', 'CAFE\u0301'],
      ['ΣΊΣΥΦΟΣ', 'σίσυφος'],
      ['ﬁne', 'FINE'],
    ] as const) {
      expect([...wordsOf(a)], a).to.deep.equal([...wordsOf(b)])
    }
    expect(fold('ABC xyz 123')).to.equal('abc xyz 123')
  })

  it('are cut to a length, never through a character', () => {
    const long = 'x'.repeat(500)
    expect([...wordsOf(long)]).to.deep.equal(['x'.repeat(maxWordLength)])
    expect(matcher(`${long}y`)(long)).to.equal(true)
    const letters = `x${'𝒳'.normalize('NFKC')}${'\u{10428}'.repeat(80)}`
    for (const word of wordsOf(letters)) expect(word.isWellFormed()).to.equal(true)
  })

  it('are at most so many of one text', () => {
    const text = Array.from({ length: maxWords + 500 }, (_, i) => `w${i}`).join(' ')
    expect(wordsOf(text).size).to.equal(maxWords)
    expect(matcher(`w${maxWords - 1}`)(text)).to.equal(true)
    expect(matcher(`w${maxWords}`)(text)).to.equal(false)
  })

  it('are found in a bounded time whatever marks a letter has (UAX #15 §13)', () => {
    for (const marks of ['\u0315\u0300', '\u0315\uff9e', '\u0344\u0345\u05b0']) {
      const text = `a${marks.repeat(60_000 / marks.length)} word`
      const before = process.threadCpuUsage().user
      expect([...wordsOf(text)]).to.include('word')
      expect(matcher('word')(text)).to.equal(true)
      expect((process.threadCpuUsage().user - before) / 1000, 'milliseconds of work').to.be.lessThan(500)
    }
    expect([...wordsOf('Z\u030a\u0323\u0315')]).to.deep.equal([...wordsOf('z\u0315\u0323\u030a')])
  })

  it('are those of the beginning of a text, also when folding makes it longer', () => {
    const text = `first ${'a '.repeat(maxText / 2)}last`
    expect([...wordsOf(text)]).to.deep.equal(['first', 'a'])
    expect([matcher('first')(text), matcher('last')(text)]).to.deep.equal([true, false])
    // U+FDFA is 18 letters when it is folded
    for (const long of ['\ufdfa'.repeat(maxText), `x${'\u{1f600}a'.repeat(maxText)}`]) {
      const words = [...wordsOf(long)]
      expect(words.every((word) => word.isWellFormed() && matcher(word)(long))).to.equal(true)
      expect(words.length).to.be.at.most(maxWords)
    }
  })

  it('a part of a word is not a word', () => {
    expect(matcher('gard')('in the garden')).to.equal(false)
    expect(matcher('garden the')('In the Garden.')).to.equal(true)
    expect(matcher(' - ')('anything')).to.equal(true)
  })

  it('a text matches exactly when it has all words of the search', () => {
    const words = fc.array(fc.constantFrom('a', 'ab', 'abc', 'B', 'ß', 'ss', '天気', 'é', "it's", '.', ' '), {
      maxLength: 8,
    })
    fc.assert(
      fc.property(words, words, (text, query) => {
        const [inText, searched] = [text.join(' '), query.join(' ')]
        const found = wordsOf(inText)
        expect(matcher(searched)(inText)).to.equal([...wordsOf(searched)].every((word) => found.has(word)))
      }),
      { numRuns: 500 },
    )
  })

  it('folding plain letters gives what folding all text gives', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary-ascii' }), (text) => {
        expect(fold(text)).to.equal(text.normalize('NFKC').toUpperCase().toLowerCase())
      }),
    )
  })
})
