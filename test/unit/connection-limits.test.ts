/** RFC 6120 §13.12: connections of one address. */
import { expect } from 'chai'
import { ConnectionLimits } from '../../server/connection-limits.ts'

const A = '192.0.2.1'
const B = '192.0.2.2'

describe('connection limits', () => {
  it('allows so many open connections of one address, not counting those that are closed', () => {
    const limits = new ConnectionLimits({ maxPerAddress: 2, maxNewPerMinute: 100 })
    expect([limits.opened(A, 0), limits.opened(A, 0), limits.opened(A, 0)]).to.deep.equal([true, true, false])
    limits.closed(A) // the one that was refused
    limits.closed(A)
    expect(limits.opened(A, 0)).to.equal(true)
    expect(limits.opened(B, 0)).to.equal(true)
  })

  it('allows so many new connections of one address in a minute', () => {
    const limits = new ConnectionLimits({ maxPerAddress: 100, maxNewPerMinute: 3 })
    const attempt = (now: number): boolean => {
      const allowed = limits.opened(A, now)
      limits.closed(A)
      return allowed
    }
    expect([attempt(0), attempt(10_000), attempt(20_000), attempt(30_000)]).to.deep.equal([
      true,
      true,
      true,
      false,
    ])
    expect(limits.opened(B, 30_000)).to.equal(true)
    expect(attempt(59_999)).to.equal(false)
    expect(attempt(60_000)).to.equal(true)
  })

  it('keeps counting open connections across minutes', () => {
    const limits = new ConnectionLimits({ maxPerAddress: 1, maxNewPerMinute: 100 })
    limits.opened(A, 0)
    expect(limits.opened(A, 600_000)).to.equal(false)
  })

  it('counts an IPv6 network of 64 bits as one address, however it is written', () => {
    const limits = new ConnectionLimits({ maxPerAddress: 1, maxNewPerMinute: 100 })
    expect(limits.opened('2001:db8:0:1::1', 0)).to.equal(true)
    expect(limits.opened('2001:db8:0:1:ffff:ffff:ffff:ffff', 0)).to.equal(false)
    expect(limits.opened('2001:db8::1:2:3:4:5', 0)).to.equal(false)
    expect(limits.opened('2001:db8:0:2::1', 0)).to.equal(true)
    expect(limits.opened('::1', 0)).to.equal(true)
    expect(limits.opened('2001:db8::', 0)).to.equal(true)
  })

  it('IPv4 addresses written as IPv6 are one by one', () => {
    const limits = new ConnectionLimits({ maxPerAddress: 1, maxNewPerMinute: 100 })
    expect(limits.opened('::ffff:192.0.2.1', 0)).to.equal(true)
    expect(limits.opened('::ffff:192.0.2.2', 0)).to.equal(true)
    expect(limits.opened('::ffff:192.0.2.1', 0)).to.equal(false)
  })

  it('takes new limits for addresses it knows', () => {
    const limits = new ConnectionLimits({ maxPerAddress: 1, maxNewPerMinute: 100 })
    limits.opened(A, 0)
    limits.setLimits({ maxPerAddress: 2, maxNewPerMinute: 100 })
    expect(limits.opened(A, 0)).to.equal(true)
    expect(limits.opened(A, 0)).to.equal(false)
  })

  it('does not mind a close it knows nothing of', () => {
    const limits = new ConnectionLimits({ maxPerAddress: 1, maxNewPerMinute: 100 })
    limits.closed(A)
    expect(limits.opened(A, 0)).to.equal(true)
  })
})
