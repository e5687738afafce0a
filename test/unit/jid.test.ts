/** server/xmpp/jid.ts: RFC 7622, its tables of examples, the cache. */
import { expect } from 'chai'
import fc from 'fast-check'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { readdirSync, readFileSync } from 'node:fs'
import { checkJidText, JID_CORPUS } from '../helpers/jid-rules.ts'
import { JID, JidError, jidCacheUsage, makeJid, parseJid, tryJid } from '../../server/xmpp/jid.ts'

const parts = (text: string) => {
  const jid = parseJid(text)
  return [jid.local, jid.domain, jid.resource]
}

describe('jid: examples of RFC 7622 §3.5', () => {
  const legal: [row: number, text: string, local: string, domain: string, resource: string][] = [
    [1, 'juliet@example.com', 'juliet', 'example.com', ''],
    [2, 'juliet@example.com/foo', 'juliet', 'example.com', 'foo'],
    [3, 'juliet@example.com/foo bar', 'juliet', 'example.com', 'foo bar'],
    [4, 'juliet@example.com/foo@bar', 'juliet', 'example.com', 'foo@bar'],
    [5, 'foo\\20bar@example.com', 'foo\\20bar', 'example.com', ''],
    [6, 'fussball@example.com', 'fussball', 'example.com', ''],
    [7, 'fu\u00dfball@example.com', 'fu\u00dfball', 'example.com', ''],
    [8, '\u03c0@example.com', '\u03c0', 'example.com', ''],
    [9, '\u03a3@example.com/foo', '\u03c3', 'example.com', 'foo'],
    [10, '\u03c3@example.com/foo', '\u03c3', 'example.com', 'foo'],
    [11, '\u03c2@example.com/foo', '\u03c2', 'example.com', 'foo'],
    [12, 'king@example.com/\u265a', 'king', 'example.com', '\u265a'],
    [13, 'example.com', '', 'example.com', ''],
    [14, 'example.com/foobar', '', 'example.com', 'foobar'],
    [15, 'a.example.com/b@example.net', '', 'a.example.com', 'b@example.net'],
  ]
  for (const [row, text, local, domain, resource] of legal) {
    it(`row ${row}: ${text} is legal`, () => {
      expect(parts(text)).to.deep.equal([local, domain, resource])
    })
  }

  const illegal: [row: number, text: string][] = [
    [16, '"juliet"@example.com'],
    [17, 'foo bar@example.com'],
    [19, '@example.com/'],
    [20, 'henry\u2163@example.com'],
    [21, '\u265a@example.com'],
    [22, 'juliet@'],
    [23, '/foobar'],
  ]
  for (const [row, text] of illegal) {
    it(`row ${row}: ${text} is refused`, () => {
      expect(() => parseJid(text)).to.throw(JidError)
      expect(tryJid(text)).to.equal(undefined)
    })
  }

  it('row 18: a space in front of a resourcepart is legal (RFC errata 4560; OpaqueString allows it)', () => {
    expect(parseJid('juliet@example.com/ foo').resource).to.equal(' foo')
  })
})

describe('jid: the parts', () => {
  it('splits before it maps: a fullwidth separator is no separator (RFC 7622 §3.1)', () => {
    expect(tryJid('a\uff20b@example.com')).to.equal(undefined)
    expect(tryJid('a\uff0fb@example.com')).to.equal(undefined)
    expect(tryJid('a\uff20example.com')).to.equal(undefined)
    expect(tryJid('example.com\uff0fx')).to.equal(undefined)
    expect(parseJid('example.com/a\uff0fb').resource).to.equal('a\uff0fb')
  })

  it('refuses a second at sign before the slash, and every empty part', () => {
    const corpus = ['', '@', '/', '@/', '@/resource', '@server', '@server/resource', 'node@/server', 'user@@']
    for (const text of [
      ...corpus,
      'user@@host',
      'user@@host/resource',
      'a@b@c',
      'server/',
      'user@host/',
      '.',
      'a@.',
    ]) {
      expect(tryJid(text), text).to.equal(undefined)
    }
    expect(parts('server/resource@foo/bar')).to.deep.equal(['', 'server', 'resource@foo/bar'])
  })

  it('refuses each further excluded character of localparts, and takes the other printable ones (RFC 7622 §3.3.1)', () => {
    for (let code = 0; code < 0x80; code++) {
      const char = String.fromCharCode(code)
      const legal = code > 0x20 && code < 0x7f && !`"&'/:<>@`.includes(char)
      // A separator splits elsewhere: those are for makeJid
      expect(makeJidFails(`a${char}b`, 'example.com'), JSON.stringify(char)).to.equal(!legal)
      if (char !== '/' && char !== '@') expect(tryJid(`a${char}b@example.com`) !== undefined).to.equal(legal)
    }
  })

  it('refuses an excluded character that width mapping makes', () => {
    for (const char of '"&\'/:<>@') {
      const wide = String.fromCharCode(char.charCodeAt(0) + 0xfee0)
      expect(makeJidFails(`a${wide}b`, 'example.com'), wide).to.equal(true)
    }
    expect(parseJid('\uff2a\uff35\uff2c\uff29\uff25\uff34@example.com').toString()).to.equal(
      'juliet@example.com',
    )
  })

  it('keeps case and width of resourceparts, maps spaces and composes (RFC 7622 §3.4, RFC 8265 §4.2)', () => {
    expect(parseJid('a@b/Foo\uff21').resource).to.equal('Foo\uff21')
    expect(parseJid('a@b/x\u00a0y').resource).to.equal('x y')
    expect(parseJid('a@b/e\u0301').resource).to.equal('\u00e9')
    expect(tryJid('a@b/x\ty')).to.equal(undefined)
    expect(tryJid('a@b/x\u0000')).to.equal(undefined)
    expect(tryJid('a@b/\ud800')).to.equal(undefined)
  })

  it('allows 1 to 1023 octets in each part, counted after preparation (RFC 7622 §3.1)', () => {
    expect(parseJid(`${'a'.repeat(1023)}@b/${'r'.repeat(1023)}`).local).to.have.length(1023)
    expect(tryJid(`${'a'.repeat(1024)}@b`)).to.equal(undefined)
    expect(tryJid(`a@b/${'r'.repeat(1024)}`)).to.equal(undefined)
    expect(parseJid(`a@b/${'\u00e9'.repeat(511)}r`).resource).to.have.length(512)
    expect(tryJid(`a@b/${'\u00e9'.repeat(512)}`)).to.equal(undefined)
    // 1533 octets before composition, 1022 after
    expect(parseJid(`a@b/${'e\u0301'.repeat(511)}`).resource).to.equal('\u00e9'.repeat(511))
    expect(parseJid(`${'\uff41'.repeat(1023)}@b`).local).to.equal('a'.repeat(1023))
  })

  it('makes addresses of parts and does not split them again', () => {
    expect(makeJid('Juliet', 'Example.COM', 'Balcony').toString()).to.equal('juliet@example.com/Balcony')
    expect(makeJid('', 'example.com', 'a@b/c').resource).to.equal('a@b/c')
    for (const [local, domain] of [
      ['a@b', 'c'],
      ['a/b', 'c'],
      ['a', 'b/c'],
      ['a', 'b@c'],
      ['a', ''],
      ['', ''],
    ] as const) {
      expect(makeJidFails(local, domain), `${local} ${domain}`).to.equal(true)
    }
  })

  it('replaces the resource', () => {
    const jid = parseJid('juliet@example.com/a')
    expect(jid.withResource('e\u0301/x').toString()).to.equal('juliet@example.com/\u00e9/x')
    expect(parseJid('example.com').withResource('x').toString()).to.equal('example.com/x')
    expect(() => jid.withResource('')).to.throw(JidError)
    expect(() => jid.withResource('\t')).to.throw(JidError)
  })
})

function makeJidFails(local: string, domain: string): boolean {
  try {
    makeJid(local, domain)
    return false
  } catch (error) {
    if (error instanceof JidError) return true
    throw error
  }
}

describe('jid: identity and cache', () => {
  it('gives one object for the same text, for its prepared form, and for the bare address', () => {
    const jid = parseJid('Romeo@Example.net/Garden')
    expect(parseJid('Romeo@Example.net/Garden')).to.equal(jid)
    expect(parseJid('romeo@example.net/Garden')).to.equal(jid)
    expect(jid.bare).to.equal(parseJid('romeo@example.net'))
    expect(jid.bare.bare).to.equal(jid.bare)
    expect([jid.isFull, jid.isBare, jid.bare.isFull, jid.bare.isBare]).to.deep.equal([
      true,
      false,
      false,
      true,
    ])
    expect(JSON.stringify({ jid })).to.equal('{"jid":"romeo@example.net/Garden"}')
  })

  it('compares by octets, also objects that the cache does not share (RFC 7622 §3.2.3)', () => {
    const jid = parseJid('romeo@example.net/Garden')
    expect(jid.equals(new JID('romeo', 'example.net', 'Garden', 'romeo@example.net/Garden'))).to.equal(true)
    expect(jid.equals(parseJid('romeo@example.net/garden'))).to.equal(false)
    expect(jid.equals(jid.bare)).to.equal(false)
  })

  it('is bounded in entries and characters, and leaves long addresses out', () => {
    for (let n = 0; n < 40_000; n++) parseJid(`user${n}@example.com/${'r'.repeat(n % 200)}x`)
    const { entries, chars } = jidCacheUsage()
    expect(entries).to.be.within(1000, 32_768)
    expect(chars).to.be.within(10_000, 4_194_304)
    const long = `a@b/${'r'.repeat(500)}`
    expect(parseJid(long)).not.to.equal(parseJid(long))
    expect(parseJid(long).equals(parseJid(long))).to.equal(true)
  })

  it('keeps an address that is in use through many generations', () => {
    const jid = parseJid('busy@example.com/x')
    for (let n = 0; n < 60_000; n++) {
      parseJid(`idle${n}@example.com`)
      if (n % 1000 === 0) expect(parseJid('busy@example.com/x')).to.equal(jid)
    }
  })

  it('does not keep the input alive that an address was cut out of', () => {
    setFlagsFromString('--expose-gc')
    const collect: () => void = runInNewContext('gc')
    collect()
    const before = process.memoryUsage().heapUsed
    const held: unknown[] = []
    for (let n = 0; n < 100; n++) {
      const address = `somebody-${n}-${'l'.repeat(20)}@input-${n}.example/${'r'.repeat(40)}`
      // Below the size from which the runtime keeps the text outside of the heap
      const input = Buffer.from(`${address} ${'x'.repeat(500_000)}`).toString('latin1')
      const slice = input.slice(0, address.length)
      held.push(parseJid(slice), parseJid(`f\u00fc${slice}`), parseJid(slice.slice(slice.indexOf('@') + 1)))
      held.push(
        makeJid(slice.slice(0, 30), 'example.com', slice.slice(40)),
        parseJid('a@b').withResource(slice),
      )
    }
    collect()
    expect(process.memoryUsage().heapUsed - before).to.be.below(10_000_000)
    expect(held).to.have.length(500)
  })

  it('has no entry for a property name', () => {
    for (const name of ['__proto__', 'constructor', 'tostring'])
      expect(parseJid(`${name}@b`).local).to.equal(name)
    expect(tryJid('__proto__')).to.equal(undefined)
  })
})

describe('jid: properties', () => {
  const text = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 40 }),
    fc.string({ unit: 'grapheme', maxLength: 40 }),
    fc.string({
      unit: fc.constantFrom(...Array.from('aZ@/.-\u00df\u05d0\u0661\u06f1\u200d\u3002\uff20\u0301\ud800 xn')),
      maxLength: 12,
    }),
    fc
      .tuple(
        fc.string({ unit: 'grapheme', maxLength: 8 }),
        fc.domain(),
        fc.string({ unit: 'grapheme', maxLength: 8 }),
      )
      .map(([local, domain, resource]) => `${local}@${domain}/${resource}`),
  )

  it('every rule holds for every text', () => {
    let addresses = 0
    fc.assert(
      fc.property(text, (input) => {
        if (checkJidText(input)) addresses += 1
      }),
      { numRuns: 3000 },
    )
    expect(addresses).to.be.above(100)
  })

  it('the rules hold for the texts that once broke them', () => {
    for (const file of readdirSync(JID_CORPUS)) checkJidText(readFileSync(`${JID_CORPUS}/${file}`, 'utf16le'))
  })

  it('makes what it parses', () => {
    fc.assert(
      fc.property(fc.stringMatching(/^[a-z0-9._-]{1,20}$/), fc.domain(), (local, domain) => {
        fc.pre(!domain.includes('--'))
        expect(makeJid(local, domain).toString()).to.equal(`${local}@${domain.toLowerCase()}`)
      }),
    )
  })

  it('takes time in proportion to the length of hostile input', () => {
    const hostile = [
      '@',
      '/',
      '.',
      'a',
      '\u0301',
      '\u200c',
      '\u05d0',
      '\u30fb',
      '\uff21',
      '\ud800',
      'xn--',
      '\u0344',
    ]
    const start = process.cpuUsage()
    for (const unit of hostile) {
      for (const shape of [
        `${unit.repeat(100_000)}@b`,
        `a@${unit.repeat(100_000)}`,
        `a@b/${unit.repeat(100_000)}`,
      ]) {
        tryJid(shape)
      }
      tryJid(`a@b/${unit.repeat(4000)}`)
    }
    const { user } = process.cpuUsage(start)
    expect(user / 1000).to.be.below(2000)
  })
})
