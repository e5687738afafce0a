import { expect } from 'chai'
import { JidError, makeJid, parseJid, tryJid } from '../../server/xmpp/jid.ts'

describe('jid', () => {
  it('splits at the first slash, then at the first at sign before it (RFC 7622 §3.2)', () => {
    const jid = parseJid('a.example.com/b@example.net')
    expect([jid.local, jid.domain, jid.resource]).to.deep.equal(['', 'a.example.com', 'b@example.net'])
    expect(parseJid('Juliet@Example.COM./Balcony').toString()).to.equal('juliet@example.com/Balcony')
  })

  it('gives the same bare object for the same account', () => {
    expect(parseJid('juliet@example.com/a').bare).to.equal(parseJid('juliet@example.com'))
    expect(makeJid('juliet', 'example.com').withResource('x').isFull).to.equal(true)
  })

  it('refuses empty parts (RFC 7622 §3.5 rows 19, 22, 23)', () => {
    for (const text of ['', '@example.com', '@example.com/', 'juliet@', '/foobar', 'juliet@example.com/']) {
      expect(() => parseJid(text), text).to.throw(JidError)
      expect(tryJid(text)).to.equal(undefined)
    }
  })
})
