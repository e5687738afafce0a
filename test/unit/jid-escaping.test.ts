/** server/xmpp/jid-escaping.ts: XEP-0106. */
import { expect } from 'chai'
import fc from 'fast-check'
import { JidError, makeJid } from '../../server/xmpp/jid.ts'
import { escapeLocal, unescapeLocal } from '../../server/xmpp/jid-escaping.ts'

describe('jid escaping (XEP-0106)', () => {
  const table: [row: number, name: string, local: string][] = [
    [1, 'space cadet', 'space\\20cadet'],
    [2, 'call me "ishmael"', 'call\\20me\\20\\22ishmael\\22'],
    [3, 'at&t guy', 'at\\26t\\20guy'],
    [4, "d'artagnan", 'd\\27artagnan'],
    [5, '/.fanboy', '\\2f.fanboy'],
    [6, '::foo::', '\\3a\\3afoo\\3a\\3a'],
    [7, '<foo>', '\\3cfoo\\3e'],
    [8, 'user@host', 'user\\40host'],
    [9, 'c:\\net', 'c\\3a\\net'],
    [10, 'c:\\\\net', 'c\\3a\\\\net'],
    [11, 'c:\\cool stuff', 'c\\3a\\cool\\20stuff'],
    [12, 'c:\\5commas', 'c\\3a\\5c5commas'],
  ]
  for (const [row, name, local] of table) {
    it(`§5.1 row ${row}: ${name}`, () => {
      expect(escapeLocal(name)).to.equal(local)
      expect(unescapeLocal(local)).to.equal(name)
    })
  }

  it('escapes a backslash that would read as an escape, and no other (§4.2 step 3)', () => {
    expect(escapeLocal('\\3and\\2is\\5cool')).to.equal('\\5c3and\\2is\\5c5cool')
    expect(unescapeLocal('\\5c3and\\2is\\5c5cool')).to.equal('\\3and\\2is\\5cool')
    expect(escapeLocal('somenick!user"&\'/:<>\\3address')).to.equal(
      'somenick!user\\22\\26\\27\\2f\\3a\\3c\\3e\\5c3address',
    )
  })

  it('ignores partial and foreign sequences, and upper case (§4.3, §3.1)', () => {
    for (const text of ['\\2plus\\2is\\4', 'foo\\bar', 'foob\\41r', '\\2F\\3A']) {
      expect(escapeLocal(text)).to.equal(text)
      expect(unescapeLocal(text)).to.equal(text)
    }
  })

  it('has no escape for a space at either end (§4.1 rule 6)', () => {
    expect(() => escapeLocal(' a')).to.throw(JidError)
    expect(() => escapeLocal('a ')).to.throw(JidError)
    expect(unescapeLocal('\\20a\\20')).to.equal('\\20a\\20')
    expect(unescapeLocal('\\20')).to.equal('\\20')
    expect(escapeLocal('\\20a')).to.equal('\\5c20a')
  })

  it('gives localparts without forbidden characters, and back', () => {
    const name = fc.string({
      unit: fc.constantFrom(...Array.from('\\25c0a037f \'"&/:<>@')),
      minLength: 1,
      maxLength: 12,
    })
    fc.assert(
      fc.property(name, (text) => {
        fc.pre(!text.startsWith(' ') && !text.endsWith(' '))
        const local = escapeLocal(text)
        expect(unescapeLocal(local)).to.equal(text)
        expect(makeJid(local, 'example.com').local).to.equal(local)
      }),
      { numRuns: 2000 },
    )
  })
})
