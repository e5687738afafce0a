/** server/xmpp/xml-time.ts: XEP-0082. */
import { expect } from 'chai'
import fc from 'fast-check'
import {
  formatDate,
  formatDateTime,
  formatOffset,
  formatTime,
  parseDate,
  parseDateTime,
  parseTime,
} from '../../server/xmpp/xml-time.ts'

const MOON = Date.UTC(1969, 6, 21, 2, 56, 15)

describe('dates and times (XEP-0082)', () => {
  it('reads DateTime in UTC and with offset (§3.2 examples 2 and 3)', () => {
    expect(parseDateTime('1969-07-21T02:56:15Z')).to.equal(MOON)
    expect(parseDateTime('1969-07-20T21:56:15-05:00')).to.equal(MOON)
    expect(parseDateTime('1969-07-21T08:26:15+05:30')).to.equal(MOON)
    expect(parseDateTime('1969-07-21T02:56:15-00:00')).to.equal(MOON)
    expect(parseDateTime('0001-01-01T00:00:00Z')).to.equal(-62135596800000)
    expect(parseDateTime('0099-01-01T00:00:00Z')).to.equal(Date.parse('0099-01-01T00:00:00Z'))
  })

  it('takes any number of fraction digits and cuts below a millisecond', () => {
    expect(parseDateTime('1969-07-21T02:56:15.1Z')).to.equal(MOON + 100)
    expect(parseDateTime('1969-07-21T02:56:15.12Z')).to.equal(MOON + 120)
    expect(parseDateTime('1969-07-21T02:56:15.123Z')).to.equal(MOON + 123)
    expect(parseDateTime('1969-07-21T02:56:15.123999Z')).to.equal(MOON + 123)
    expect(parseDateTime(`1969-07-21T02:56:15.${'9'.repeat(1000)}Z`)).to.equal(MOON + 999)
  })

  it('refuses what is no DateTime', () => {
    for (const text of [
      '',
      '1969-07-21',
      '1969-07-21T02:56:15',
      '1969-07-21T02:56Z',
      '1969-07-21 02:56:15Z',
      '1969-07-21t02:56:15z',
      '19690721T02:56:15Z',
      '19690721T02:56:15',
      '1969-7-21T02:56:15Z',
      '1969-13-21T02:56:15Z',
      '1969-00-21T02:56:15Z',
      '1969-07-00T02:56:15Z',
      '1969-07-32T02:56:15Z',
      '1969-06-31T02:56:15Z',
      '1969-02-29T02:56:15Z',
      '1900-02-29T02:56:15Z',
      '1969-07-21T25:00:00Z',
      '1969-07-21T24:00:01Z',
      '1969-07-21T24:00:00.001Z',
      '1969-07-21T02:60:00Z',
      '1969-07-21T02:56:15.Z',
      '1969-07-21T02:56:15,5Z',
      '1969-07-21T02:56:15+5:00',
      '1969-07-21T02:56:15+0500',
      '1969-07-21T02:56:15+14:01',
      '1969-07-21T02:56:15+15:00',
      '1969-07-21T02:56:15+05:60',
      '1969-07-21T02:56:15ZZ',
      '1969-07-21T02:56:15Z ',
      ' 1969-07-21T02:56:15Z',
      '-1969-07-21T02:56:15Z',
      '+1969-07-21T02:56:15Z',
      '11969-07-21T02:56:15Z',
      '1969-07-21T02:56:1\u0665Z',
    ]) {
      expect(parseDateTime(text), text).to.equal(undefined)
    }
  })

  it('knows leap years, the end of the day, and no leap second (XML Schema)', () => {
    expect(parseDateTime('2000-02-29T00:00:00Z')).to.equal(Date.UTC(2000, 1, 29))
    expect(parseDateTime('1999-12-31T24:00:00Z')).to.equal(Date.UTC(2000, 0, 1))
    expect(parseDateTime('2016-12-31T23:59:60Z')).to.equal(undefined)
  })

  it('reads and writes Date (§3.1) and Time (§3.3)', () => {
    expect(parseDate('1776-07-04')).to.equal(Date.UTC(1776, 6, 4))
    expect(parseDate('1776-07-04+01:00')).to.equal(Date.UTC(1776, 6, 3, 23))
    expect(parseDate('1776-07-04Z')).to.equal(Date.UTC(1776, 6, 4))
    for (const text of ['1776-07-4', '1776-02-30', '1776-07-04T', '1776-07-04x'])
      expect(parseDate(text)).to.equal(undefined)
    expect(parseTime('16:00:00')).to.deep.equal({ ms: 57_600_000, offsetMinutes: undefined })
    expect(parseTime('16:00:00.5-07:00')).to.deep.equal({ ms: 57_600_500, offsetMinutes: -420 })
    expect(parseTime('24:00:00Z')).to.deep.equal({ ms: 0, offsetMinutes: 0 })
    for (const text of ['16:00', '16:00:00x', '16:00:60', 'T16:00:00', '16:00:00+1'])
      expect(parseTime(text)).to.equal(undefined)
    expect([formatDate(MOON), formatTime(MOON), formatDateTime(MOON)]).to.deep.equal([
      '1969-07-21',
      '02:56:15.000Z',
      '1969-07-21T02:56:15.000Z',
    ])
    expect(() => formatDateTime(Date.UTC(10_000, 0, 1))).to.throw(RangeError)
    expect(() => formatDateTime(Number.NaN)).to.throw(RangeError)
  })

  it('writes offsets', () => {
    expect([0, 60, -330, 840].map(formatOffset)).to.deep.equal(['Z', '+01:00', '-05:30', '+14:00'])
  })

  it('reads what it writes, in every zone, and throws on no text', () => {
    const moment = fc.date({
      min: new Date(-62167219200000),
      max: new Date(253402300799999),
      noInvalidDate: true,
    })
    fc.assert(
      fc.property(moment, fc.integer({ min: -840, max: 840 }), (date, offset) => {
        const ms = date.getTime()
        expect(parseDateTime(formatDateTime(ms))).to.equal(ms)
        const local = ms + offset * 60_000
        fc.pre(local >= -62167219200000 && local <= 253402300799999)
        expect(parseDateTime(formatDateTime(local).slice(0, -1) + formatOffset(offset))).to.equal(ms)
      }),
    )
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom(...Array.from('0129-:.TZ+ ')), maxLength: 30 }),
        (text) => {
          const ms = parseDateTime(text)
          if (ms !== undefined) expect(Number.isInteger(ms)).to.equal(true)
          parseDate(text)
          parseTime(text)
        },
      ),
    )
  })
})
