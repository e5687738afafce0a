/** modules/mam/moments.ts: equal messages of one archive have times of their own. */
import { expect } from 'chai'
import fc from 'fast-check'
import { Moments } from '../../modules/mam/moments.ts'

describe('module mam: times of messages without a key', () => {
  it('are those of the clock, unless an equal one has that time', () => {
    const moments = new Moments()
    const times = ['a', 'b', 'a', 'a', 'b', 'c'].map((name) => moments.of('romeo', name, 100) - 100)
    expect(times).to.deep.equal([0, 0, 1, 2, 1, 0])
    expect(moments.of('romeo', 'a', 101)).to.equal(103)
    expect(moments.of('juliet', 'a', 101)).to.equal(101)
    expect(moments.of('romeo', 'a', 200)).to.equal(200)
  })

  it('of one that is ahead of the clock are remembered behind others', () => {
    const moments = new Moments()
    const times = (['a', 'a', 'b'] as const).map((name) => moments.of('romeo', name, 100))
    for (const name of ['c', 'a']) times.push(moments.of('romeo', name, 101))
    expect(times).to.deep.equal([100, 101, 100, 101, 102])
  })

  it('are the clock’s when it was set back', () => {
    const moments = new Moments()
    moments.of('romeo', 'a', 100_000)
    expect(moments.of('romeo', 'a', 50_000)).to.equal(50_000)
    expect(moments.of('romeo', 'a', 50_000)).to.equal(50_001)
  })

  it('no two equal ones of an archive have the same, however they come', () => {
    const step = fc.record({
      name: fc.constantFrom('a', 'b', 'c'),
      wait: fc.constantFrom(0, 0, 0, 1, 2, 5),
    })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 90 }), (steps) => {
        const moments = new Moments()
        const seen = new Set<string>()
        let now = 1000
        for (const { name, wait } of steps) {
          now += wait
          const at = moments.of('romeo', name, now)
          expect(at).to.be.at.least(now)
          expect(seen.has(`${name} ${at}`)).to.equal(false)
          seen.add(`${name} ${at}`)
        }
      }),
      { numRuns: 2000 },
    )
  })
})
