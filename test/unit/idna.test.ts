/** server/xmpp/idna.ts: IDNA2008 domainparts (RFC 7622 §3.2, RFC 5890 to 5893). */
import { domainToASCII } from 'node:url'
import { expect } from 'chai'
import fc from 'fast-check'
import { IdnaError, idnaAllows, prepareDomain, toAsciiDomain } from '../../server/xmpp/idna.ts'

function attempt(text: string): string | undefined {
  try {
    return prepareDomain(text)
  } catch (error) {
    if (error instanceof IdnaError) return undefined
    throw error
  }
}

const refused = (...domains: string[]) => {
  for (const domain of domains) expect(attempt(domain), domain).to.equal(undefined)
}

describe('idna: names', () => {
  it('maps case and width, composes, and takes the ideographic full stop as a dot (RFC 5895 §2)', () => {
    expect(prepareDomain('EXAMPLE.Com')).to.equal('example.com')
    expect(prepareDomain('B\u00dcCHER.example')).to.equal('b\u00fccher.example')
    expect(prepareDomain('bu\u0308cher.example')).to.equal('b\u00fccher.example')
    expect(prepareDomain('\uff45\uff58\uff0ecom')).to.equal('ex.com')
    expect(prepareDomain('\u4f8b\u3048\u3002\u30c6\u30b9\u30c8')).to.equal('\u4f8b\u3048.\u30c6\u30b9\u30c8')
  })

  it('makes U-labels of A-labels (RFC 7622 §3.2.1), and A-labels for DNS', () => {
    expect(prepareDomain('xn--bcher-kva.example')).to.equal('b\u00fccher.example')
    expect(prepareDomain('XN--BCHER-KVA.example')).to.equal('b\u00fccher.example')
    expect(prepareDomain('xn--fuball-cta.example')).to.equal('fu\u00dfball.example')
    expect(toAsciiDomain('b\u00fccher.example')).to.equal('xn--bcher-kva.example')
    expect(toAsciiDomain('example.com')).to.equal('example.com')
    expect(toAsciiDomain('[::1]')).to.equal('[::1]')
  })

  it('keeps sharp s and final sigma (RFC 5892 §2.6)', () => {
    expect(prepareDomain('stra\u00dfe.example')).to.equal('stra\u00dfe.example')
    expect(prepareDomain('\u03b2\u03cc\u03bb\u03bf\u03c2.example')).to.equal(
      '\u03b2\u03cc\u03bb\u03bf\u03c2.example',
    )
  })

  it('refuses A-labels that no U-label encodes to, and other reserved labels (RFC 5890 §2.3.1, RFC 5891 §5.4)', () => {
    refused(
      'xn--a',
      'xn--abc',
      'xn--',
      'xn--n3h.example',
      'xn--bcher-.example',
      'xn--BCHER-KVA-.example',
      'ab--c.example',
    )
    expect(prepareDomain('a--b.example')).to.equal('a--b.example')
    expect(prepareDomain('abc--d.example')).to.equal('abc--d.example')
    refused('\u00fcb--c.example')
  })

  it('strips one final dot and refuses empty labels (RFC 7622 §3.2)', () => {
    expect(prepareDomain('example.com.')).to.equal('example.com')
    expect(prepareDomain('b\u00fccher.')).to.equal('b\u00fccher')
    refused('', '.', '..', 'a..', 'a..b', '.a', '\u00fc..b', '\u00fc\u3002')
  })

  it('refuses what is not a letter, digit or hyphen (RFC 5890 §2.3.1)', () => {
    for (let code = 0; code < 0x80; code++) {
      const char = String.fromCharCode(code)
      const legal = /[A-Za-z0-9.-]/.test(char)
      expect(attempt(`a${char}b`) !== undefined, JSON.stringify(char)).to.equal(legal)
      expect(attempt(`\u00fc${char}b`) !== undefined, JSON.stringify(char)).to.equal(legal)
    }
    refused('-a', 'a-', 'a.-b', 'a-.b', '-\u00fc', '\u00fc-', 'a b', 'a_b')
  })

  it('refuses symbols and emoji, which UTS #46 takes', () => {
    expect(domainToASCII('\u2603.example')).to.equal('xn--n3h.example')
    refused(
      '\u2603.example',
      '\u{1f600}.example',
      '\u265a.example',
      '\u221e',
      '\ud800',
      'a\u200bb',
      'a\u00adb',
    )
  })

  it('reads numbers as names unless they are an IPv4 address, other than the resolver of the runtime', () => {
    expect(domainToASCII('0x7f.1')).to.equal('127.0.0.1')
    expect(prepareDomain('0x7f.1')).to.equal('0x7f.1')
    expect(prepareDomain('1.2.3')).to.equal('1.2.3')
  })

  it('limits labels to 63 octets and names to 253, in ASCII form (RFC 1034 §3.1)', () => {
    const label = 'a'.repeat(63)
    expect(prepareDomain(`${label}.b`)).to.equal(`${label}.b`)
    refused(`${label}a.b`, `${label}.${label}.${label}.${label}`)
    expect(prepareDomain(`${label}.${label}.${label}.${'a'.repeat(61)}`)).to.have.length(253)
    refused(`${label}.${label}.${label}.${'a'.repeat(62)}`)
    expect(toAsciiDomain(prepareDomain('\u00fc'.repeat(50))).length).to.be.at.most(63)
    refused('\u00fc'.repeat(63), 'a\u{10400}'.repeat(60))
  })

  it('refuses a label that starts with a combining mark (RFC 5891 §4.2.3.2)', () => {
    refused('\u0301a.example', 'a.\u0903')
  })

  it('applies contextual rules (RFC 5892 appendix A)', () => {
    expect(prepareDomain('l\u00b7l.example')).to.equal('l\u00b7l.example')
    expect(prepareDomain('\u0646\u0627\u0645\u0647\u200c\u0627\u06cc.example')).to.include('\u200c')
    refused(
      'a\u00b7l.example',
      'a\u200cb.example',
      'a\u30fbb.example',
      '\u0627\u0661\u06f1',
      '\u0375.example',
    )
  })

  it('holds every label to the Bidi rule when one is right-to-left (RFC 5893 §2)', () => {
    expect(prepareDomain('\u05d0\u05d1.example')).to.equal('\u05d0\u05d1.example')
    refused('\u05d0a.example', '1.\u05d0', '1a.\u05d0', 'a.b-1.\u0661')
    expect(prepareDomain('1.example')).to.equal('1.example')
  })
})

describe('idna: addresses (RFC 7622 §3.1)', () => {
  it('takes IPv4 and bracketed IPv6 literals', () => {
    expect(prepareDomain('127.0.0.1')).to.equal('127.0.0.1')
    expect(prepareDomain('\uff11\uff12\uff17.0.0.1')).to.equal('127.0.0.1')
    expect(prepareDomain('[::1]')).to.equal('[::1]')
    expect(prepareDomain('[2001:DB8::A]')).to.equal('[2001:db8::a]')
    expect(prepareDomain('[::ffff:192.0.2.1]')).to.equal('[::ffff:192.0.2.1]')
    expect(prepareDomain('[fe80::1%25En0]')).to.equal('[fe80::1%25En0]')
  })

  it('refuses other literals', () => {
    refused(
      '::1',
      '[::1',
      '::1]',
      '[]',
      '[1.2.3.4]',
      '[v1.x]',
      '[::1%eth0]',
      '[fe80::1%25]',
      '[::1]x',
      '[fe80::1%25a%25b]',
    )
    refused('[::1%25a b]', '[::1%25\u00fc]', '[[::1]]')
  })
})

describe('idna: properties', () => {
  it('takes for a character what IDNA2008 calls PVALID or contextual (RFC 5892 appendix B.1, samples)', () => {
    const valid = [0x2d, 0x30, 0x61, 0xdf, 0xb7, 0x101, 0x3b1, 0x5d0, 0x4e00, 0xac00, 0x3042, 0x1f70, 0x200c]
    for (const point of valid) expect(idnaAllows(point), point.toString(16)).to.equal(true)
    for (const point of [
      0x41, 0x5f, 0xaa, 0xc0, 0x149, 0x1c5, 0x2100, 0x20d0, 0x1100, 0xe000, 0xff41, 0x378, 0x1d165,
    ]) {
      expect(idnaAllows(point), point.toString(16)).to.equal(false)
    }
  })

  const name = fc.oneof(
    fc.domain(),
    fc.string({ unit: 'binary', maxLength: 12 }),
    fc.string({
      unit: fc.constantFrom(
        ...Array.from('aB1-.\u3002\u00fc\u00df\u0130\u05d0\u05b0\u0661\u0301\u30fb\u4e00\uff0e[:]'),
      ),
      maxLength: 10,
    }),
    fc
      .string({ unit: fc.constantFrom(...Array.from('abcz0159-')), maxLength: 10 })
      .map((label) => `xn--${label}`),
  )

  it('is idempotent, throws nothing but IdnaError, and goes to DNS and back', () => {
    fc.assert(
      fc.property(name, (input) => {
        const domain = attempt(input)
        if (domain === undefined) return
        expect(prepareDomain(domain)).to.equal(domain)
        const ascii = toAsciiDomain(domain)
        expect(ascii).to.match(/^[\x21-\x7e]{1,253}$/)
        expect(prepareDomain(ascii)).to.equal(domain)
      }),
      { numRuns: 5000 },
    )
  })
})
