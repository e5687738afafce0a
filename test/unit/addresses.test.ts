/** server/addresses.ts */
import { expect } from 'chai'
import { AddressSet, isLoopback, plainAddress } from '../../server/addresses.ts'

describe('addresses', () => {
  it('have one spelling', () => {
    expect(plainAddress('192.0.2.1')).to.equal('192.0.2.1')
    expect(plainAddress('::ffff:192.0.2.1')).to.equal('192.0.2.1')
    expect(plainAddress('fe80::1%eth0')).to.equal('fe80::1')
    expect(plainAddress('2001:db8::1')).to.equal('2001:db8::1')
    expect(plainAddress(undefined)).to.equal('')
  })

  it('are of this machine or not', () => {
    for (const address of ['127.0.0.1', '127.255.0.3', '::1', '::ffff:127.0.0.1'])
      expect(isLoopback(address), address).to.equal(true)
    for (const address of [
      '',
      '128.0.0.1',
      '10.0.0.1',
      '::',
      '::2',
      '127.evil',
      'localhost',
      '127.0.0.1.evil.example',
    ])
      expect(isLoopback(address), address).to.equal(false)
  })

  it('are in networks or not', () => {
    const set = new AddressSet(['10.0.0.0/8', '192.0.2.7', 'fd00::/8', '2001:db8::1'])
    for (const address of [
      '10.0.0.0',
      '10.255.255.255',
      '::ffff:10.1.2.3',
      '192.0.2.7',
      'fd12::1',
      '2001:db8:0::1',
    ])
      expect(set.has(address), address).to.equal(true)
    for (const address of [
      '11.0.0.0',
      '192.0.2.8',
      'fe00::1',
      '2001:db8::2',
      '',
      'example.org',
      '10.0.0',
      '0x0a000001',
    ])
      expect(set.has(address), address).to.equal(false)
    expect(new AddressSet(['0.0.0.0/0']).has('::1')).to.equal(false)
    expect(new AddressSet(['::/0']).has('2001:db8::1')).to.equal(true)
    expect(new AddressSet([]).has('127.0.0.1')).to.equal(false)
  })

  it('that are none are told in one sentence', () => {
    for (const entry of [
      '',
      'localhost',
      '10.0.0.0/33',
      '10.0.0.0/-1',
      '10.0.0.0/',
      '10.0.0.0/8/8',
      '::/129',
      '10.0.0.0/a',
      '/8',
    ])
      expect(() => new AddressSet([entry]), entry).to.throw(
        `"${entry}" is neither an IP address nor a network such as 10.0.0.0/8`,
      )
  })
})
