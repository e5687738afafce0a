/** server/proxy-protocol.ts: the header by itself; the connections are in net.test.ts. */
import { expect } from 'chai'
import fc from 'fast-check'
import { MAX_HEADER, parseProxyHeader, ProxyError } from '../../server/proxy-protocol.ts'

const SIGNATURE = '0d0a0d0a000d0a515549540a'

function v2(command: number, family: number, ...parts: (Buffer | string)[]): Buffer {
  const body = Buffer.concat(
    parts.map((part) => (typeof part === 'string' ? Buffer.from(part, 'hex') : part)),
  )
  const head = Buffer.alloc(16)
  head.write(SIGNATURE, 'hex')
  head[12] = command
  head[13] = family
  head.writeUInt16BE(body.length, 14)
  return Buffer.concat([head, body])
}
// 192.0.2.1:56324 -> 203.0.113.15:443
const TCP4 = 'c0000201cb00710fdc0401bb'
const TCP6 = `20010db8000000000000000000000001${'20010db8000000000000000000000002'}dc0401bb`

/** The header must come out whole, and be incomplete at each byte before its end. */
function expectHeader(bytes: Buffer, source: { address: string; port: number } | undefined): void {
  for (let end = 0; end < bytes.length; end++)
    expect(parseProxyHeader(bytes.subarray(0, end)), `cut at ${end}`).to.equal(undefined)
  const expected = { length: bytes.length, source }
  expect(parseProxyHeader(bytes)).to.deep.equal(expected)
  expect(parseProxyHeader(Buffer.concat([bytes, Buffer.from('<stream>\r\n')]))).to.deep.equal(expected)
}

describe('proxy-protocol', () => {
  describe('version 1', () => {
    it('reads the client address', () => {
      expectHeader(Buffer.from('PROXY TCP4 192.0.2.1 203.0.113.15 56324 443\r\n'), {
        address: '192.0.2.1',
        port: 56324,
      })
      expectHeader(Buffer.from('PROXY TCP6 2001:DB8:0:0:0:0:0:1 2001:db8::2 1 65535\r\n'), {
        address: '2001:db8::1',
        port: 1,
      })
      expectHeader(Buffer.from('PROXY TCP6 ::ffff:192.0.2.9 ::ffff:192.0.2.1 80 81\r\n'), {
        address: '192.0.2.9',
        port: 80,
      })
    })

    it('§2.1: ignores the line after UNKNOWN, up to its longest form', () => {
      expectHeader(Buffer.from('PROXY UNKNOWN\r\n'), undefined)
      const most = 'ffff:f...f:ffff ffff:f...f:ffff 65535 65535'.replaceAll(
        'f...f',
        'ffff:'.repeat(5) + 'ffff',
      )
      expectHeader(Buffer.from(`PROXY UNKNOWN ${most}\r\n`), undefined)
    })

    it('§2.1: refuses a line of more than 107 bytes as soon as it is too long', () => {
      const line = Buffer.from(`PROXY UNKNOWN ${'x'.repeat(300)}`)
      expect(parseProxyHeader(line.subarray(0, 106))).to.equal(undefined)
      expect(() => parseProxyHeader(line.subarray(0, 107))).to.throw(ProxyError)
      expectHeader(Buffer.from(`PROXY UNKNOWN ${'x'.repeat(91)}\r\n`), undefined) // 107 bytes
      expect(() => parseProxyHeader(Buffer.from(`PROXY UNKNOWN ${'x'.repeat(92)}\r\n`))).to.throw(ProxyError)
    })

    for (const line of [
      'PROXY TCP4 192.0.2.1 203.0.113.15 56324 443 \r\n',
      'PROXY TCP4 192.0.2.1 203.0.113.15 56324\r\n',
      'PROXY TCP4 192.0.2.256 203.0.113.15 56324 443\r\n',
      'PROXY TCP4 2001:db8::1 2001:db8::2 56324 443\r\n',
      'PROXY TCP6 192.0.2.1 203.0.113.15 56324 443\r\n',
      'PROXY TCP6 fe80::1%eth0 2001:db8::2 56324 443\r\n',
      'PROXY TCP4 192.0.2.1 203.0.113.15 056324 443\r\n',
      'PROXY TCP4 192.0.2.1 203.0.113.15 65536 443\r\n',
      'PROXY TCP4 192.0.2.1 203.0.113.15 -1 443\r\n',
      'PROXY TCP4  192.0.2.1 203.0.113.15 1 443\r\n',
      'PROXY UDP4 192.0.2.1 203.0.113.15 1 443\r\n',
      'PROXY tcp4 192.0.2.1 203.0.113.15 1 443\r\n',
      'PROXY \r\n',
    ])
      it(`refuses ${JSON.stringify(line)}`, () => {
        expect(() => parseProxyHeader(Buffer.from(line))).to.throw(ProxyError)
      })
  })

  describe('version 2', () => {
    it('reads the client address over IPv4 and IPv6', () => {
      expectHeader(v2(0x21, 0x11, TCP4), { address: '192.0.2.1', port: 56324 })
      expectHeader(v2(0x21, 0x21, TCP6), { address: '2001:db8::1', port: 56324 })
      const mapped = `${'0'.repeat(20)}ffffc0000201${'0'.repeat(32)}dc0401bb`
      expectHeader(v2(0x21, 0x21, mapped), { address: '192.0.2.1', port: 56324 })
    })

    it('§2.2: LOCAL, UNSPEC and sockets of the proxy itself have no client address', () => {
      expectHeader(v2(0x20, 0x00), undefined)
      expectHeader(v2(0x20, 0x11, TCP4), undefined)
      expectHeader(v2(0x20, 0x21, 'abcd'), undefined)
      expectHeader(v2(0x21, 0x00), undefined)
      expectHeader(v2(0x21, 0x31, Buffer.alloc(216, 'x')), undefined)
      expectHeader(v2(0x21, 0x12, TCP4), undefined)
    })

    it('§2.2: skips type-length-values, such as those about TLS', () => {
      const ssl = Buffer.concat([Buffer.from('200005', 'hex'), Buffer.alloc(5)])
      const authority = Buffer.concat([Buffer.from('02000b', 'hex'), Buffer.from('example.org')])
      expectHeader(v2(0x21, 0x11, TCP4, ssl, authority, '040000'), { address: '192.0.2.1', port: 56324 })
    })

    it('§2.2.3: checks the CRC32c', () => {
      const header = v2(0x21, 0x11, TCP4, '03000400000000', '040000')
      // By an independent program: crc32c of the header with the checksum cleared
      const good = '40a2cdd7'
      const sum = Buffer.from(header)
      sum.write(good, 31, 'hex')
      expectHeader(sum, { address: '192.0.2.1', port: 56324 })
      for (let at = 16; at < sum.length; at++) {
        if (at === 28 || at === 29 || at === 30) continue // type and length of the checksum itself
        const broken = Buffer.from(sum)
        broken[at] = (broken[at]! + 1) % 256
        expect(() => parseProxyHeader(broken), `byte ${at}`).to.throw(ProxyError)
      }
    })

    for (const [what, bytes] of [
      ['version 1 in the binary header', v2(0x11, 0x11, TCP4)],
      ['an unknown command', v2(0x22, 0x11, TCP4)],
      ['an unknown family', v2(0x21, 0x41, TCP4)],
      ['an unknown protocol', v2(0x21, 0x13, TCP4)],
      ['addresses that are cut off', v2(0x21, 0x11, TCP4.slice(0, -2))],
      ['IPv6 with the size of IPv4', v2(0x21, 0x21, TCP4)],
      ['a value that is cut off', v2(0x21, 0x11, TCP4, '0400ff00')],
      ['a value without length', v2(0x21, 0x11, TCP4, '0400')],
      ['a checksum of three bytes', v2(0x21, 0x11, TCP4, '030003000000')],
      ['a header that is too long', v2(0x21, 0x11, TCP4, Buffer.alloc(MAX_HEADER))],
    ] as const)
      it(`refuses ${what}`, () => {
        expect(() => parseProxyHeader(bytes)).to.throw(ProxyError)
      })

    it('refuses a header that is too long before it has been received', () => {
      const bytes = v2(0x21, 0x11, TCP4, Buffer.alloc(MAX_HEADER))
      expect(() => parseProxyHeader(bytes.subarray(0, 16))).to.throw(ProxyError)
    })
  })

  it('refuses anything else at the first byte that differs', () => {
    for (const text of ['<', 'GET / HTTP/1.1', '\x16\x03\x01', 'P', '\r\n\r\n\0\r\nQUIX', 'PROXIES'])
      if (text === 'P') expect(parseProxyHeader(Buffer.from(text))).to.equal(undefined)
      else expect(() => parseProxyHeader(Buffer.from(text)), text).to.throw(ProxyError)
  })

  it('never fails otherwise, whatever the bytes', () => {
    const start = fc.constantFrom(Buffer.from('PROXY '), Buffer.from(SIGNATURE, 'hex'), Buffer.alloc(0))
    const bytes = fc.tuple(start, fc.uint8Array({ maxLength: 300 })).map(([a, b]) => Buffer.concat([a, b]))
    fc.assert(
      fc.property(bytes, (input) => {
        try {
          const header = parseProxyHeader(input)
          if (header !== undefined) expect(header.length).to.be.at.most(input.length)
        } catch (error) {
          expect(error).to.be.instanceOf(ProxyError)
        }
      }),
      { numRuns: 2000 },
    )
  })
})
