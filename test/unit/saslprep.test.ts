/** server/xmpp/saslprep.ts: RFC 4013, and which form of a password is kept. */
import { expect } from 'chai'
import fc from 'fast-check'
import { opaqueString, PrecisError } from '../../server/xmpp/precis.ts'
import { passwordForms, preparePassword, saslPrep } from '../../server/xmpp/saslprep.ts'

describe('saslprep (RFC 4013)', () => {
  const rows: [row: number, text: string, prepared: string][] = [
    [1, 'I\u00adX', 'IX'],
    [2, 'user', 'user'],
    [3, 'USER', 'USER'],
    [4, '\u00aa', 'a'],
    [5, '\u2168', 'IX'],
  ]
  for (const [row, text, prepared] of rows) {
    it(`§3 row ${row}: ${JSON.stringify(text)} becomes ${prepared}`, () =>
      expect(saslPrep(text)).to.equal(prepared))
  }
  it('§3 row 6: a control character is refused', () => expect(() => saslPrep('\u0007')).to.throw(PrecisError))
  it('§3 row 7: mixed directions are refused', () =>
    expect(() => saslPrep('\u0627\u0031')).to.throw(PrecisError))

  it('maps other spaces to SPACE and ignorable characters to nothing (§2.1)', () => {
    expect(saslPrep('a\u00a0b\u3000c')).to.equal('a b c')
    expect(saslPrep('\u2764\ufe0f\u200d')).to.equal('\u2764')
    expect(() => saslPrep('\u00ad')).to.throw(PrecisError)
  })

  it('refuses what §2.3 prohibits', () => {
    for (const text of [
      '\u0085',
      '\u200e',
      '\u2028',
      '\ue000',
      '\ufdd0',
      '\ud800',
      '\ufffd',
      '\u2ff0',
      '\u{e0041}',
      '\u{1d173}',
    ]) {
      expect(() => saslPrep(`a${text}`), JSON.stringify(text)).to.throw(PrecisError)
    }
  })

  it('checks direction only with right-to-left characters (§2.4)', () => {
    expect(saslPrep('\u0627\u0661\u0628')).to.equal('\u0627\u0661\u0628')
    expect(() => saslPrep('\u05d0a\u05d0')).to.throw(PrecisError)
    expect(saslPrep('1a!')).to.equal('1a!')
  })
})

describe('passwords: one form is kept', () => {
  it('is SASLprep, which SCRAM clients hash (RFC 5802 §2.2), whichever form the client sent in plain', () => {
    expect(preparePassword('\ufb01sh')).to.equal('fish')
    expect(preparePassword(opaqueString('\ufb01sh\u00a0e\u0301'))).to.equal(
      preparePassword('\ufb01sh\u00a0e\u0301'),
    )
  })

  it('is OpaqueString where SASLprep refuses (RFC 8265 §4.2)', () => {
    expect(preparePassword('\u05d0a')).to.equal('\u05d0a')
    expect(() => preparePassword('')).to.throw(PrecisError)
    expect(() => preparePassword('a\tb')).to.throw(PrecisError)
  })

  it('lists the forms that keys of another origin may have been made from', () => {
    expect(passwordForms('hunter2')).to.deep.equal(['hunter2'])
    expect(passwordForms('\ufb01e\u0301')).to.deep.equal(['fi\u00e9', '\ufb01\u00e9', '\ufb01e\u0301'])
    expect(passwordForms('a\tb')).to.deep.equal(['a\tb'])
  })

  it('is the same before and after preparation', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 16 }), (password) => {
        const [first = ''] = passwordForms(password)
        if (first === password) return
        expect(preparePassword(first)).to.equal(first)
      }),
      { numRuns: 2000 },
    )
  })
})
