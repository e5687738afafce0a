/** Durations and sizes of the configuration. */
import { expect } from 'chai'
import { c } from '../../server/schema.ts'

const issue = (schema: ReturnType<typeof c.duration>, value: unknown): string =>
  schema.safeParse(value).error?.issues[0]?.message ?? 'accepted'

describe('schema: durations', () => {
  const schema = c.duration('30s')
  for (const [text, ms] of [
    ['0ms', 0],
    ['500ms', 500],
    ['30s', 30_000],
    ['30 s', 30_000],
    ['1.5min', 90_000],
    ['2h', 7_200_000],
    ['7d', 604_800_000],
  ] as const)
    it(`${text} is ${ms} ms`, () => expect(schema.parse(text)).to.equal(ms))

  for (const text of ['30', 's', '-1s', '1e3s', '30 sec', '1s ', ' 1s', '1,5s', '1  s', '', '1m', '1S'])
    it(`"${text}" is none`, () =>
      expect(issue(schema, text)).to.equal(
        `expected a quantity such as 30s (units: ms, s, min, h, d), got "${text}"`,
      ))

  it('a number without a unit is none', () => expect(schema.safeParse(30).success).to.equal(false))

  it('takes the default when nothing is given, in the unit of the code', () =>
    expect(schema.parse(undefined)).to.equal(30_000))

  it('has bounds, both included', () => {
    const bounded = c.duration('5s', { min: '1s', max: '1min' })
    expect(bounded.parse('1s')).to.equal(1000)
    expect(bounded.parse('60s')).to.equal(60_000)
    expect(issue(bounded, '999ms')).to.equal('must be at least 1s')
    expect(issue(bounded, '60001ms')).to.equal('must be at most 1min')
  })

  it('is read in linear time, whatever is given', () => {
    const started = performance.now()
    expect(schema.safeParse(`${'9'.repeat(1_000_000)}s`).success).to.equal(false)
    expect(performance.now() - started).to.be.lessThan(1000)
  })
})

describe('schema: sizes', () => {
  const schema = c.bytes('64 KiB')
  for (const [text, bytes] of [
    ['0 B', 0],
    ['512 B', 512],
    ['1 KB', 1000],
    ['64 KiB', 65_536],
    ['64KiB', 65_536],
    ['10 MB', 10_000_000],
    ['1.5 MiB', 1_572_864],
    ['1 GB', 1_000_000_000],
    ['2 GiB', 2_147_483_648],
  ] as const)
    it(`${text} is ${bytes} bytes`, () => expect(schema.parse(text)).to.equal(bytes))

  for (const text of ['64', '64 K', '64 kb', '64 Ki', '1 TB'])
    it(`"${text}" is none`, () => expect(schema.safeParse(text).success).to.equal(false))

  it('takes the default and has bounds', () => {
    expect(schema.parse(undefined)).to.equal(65_536)
    const bounded = c.bytes('1 KiB', { min: '1 KB', max: '1 MiB' })
    expect(issue(bounded, '999 B')).to.equal('must be at least 1 KB')
    expect(issue(bounded, '1048577 B')).to.equal('must be at most 1 MiB')
  })
})
