/** server/deadlines.ts with a clock turned by hand. */
import { expect } from 'chai'
import { Deadlines } from '../../server/deadlines.ts'
import { HandClock } from '../helpers/listening.ts'

describe('deadlines', () => {
  it('expire what was not deleted in time, in order, each at its own time', () => {
    const clock = new HandClock()
    const expired: string[] = []
    const deadlines = new Deadlines<string>((item) => expired.push(item), 100, clock)
    deadlines.add('a')
    clock.advance(40)
    deadlines.add('b')
    deadlines.add('c')
    clock.advance(59)
    expect(expired).to.deep.equal([])
    clock.advance(1)
    expect(expired).to.deep.equal(['a'])
    deadlines.delete('b')
    clock.advance(39)
    expect(expired).to.deep.equal(['a'])
    clock.advance(1)
    expect(expired).to.deep.equal(['a', 'c'])
    expect(deadlines.size).to.equal(0)
  })

  it('start again when an item is added again', () => {
    const clock = new HandClock()
    const expired: string[] = []
    const deadlines = new Deadlines<string>((item) => expired.push(item), 100, clock)
    deadlines.add('a')
    deadlines.add('b')
    clock.advance(60)
    deadlines.add('a')
    clock.advance(40)
    expect(expired).to.deep.equal(['b'])
    clock.advance(60)
    expect(expired).to.deep.equal(['b', 'a'])
  })

  it('work with items that are added while others expire, and with one timer for all', () => {
    const clock = new HandClock()
    let timers = 0
    const counting = {
      now: () => clock.now(),
      after(ms: number, fn: () => void) {
        timers++
        return clock.after(ms, fn)
      },
    }
    const expired: number[] = []
    const deadlines: Deadlines<number> = new Deadlines<number>(
      (item) => {
        expired.push(item)
        if (item < 3) deadlines.add(item + 1)
      },
      100,
      counting,
    )
    deadlines.add(1)
    for (let i = 10; i < 1000; i++) deadlines.add(i)
    expect(timers).to.equal(1)
    for (let i = 10; i < 1000; i++) deadlines.delete(i)
    for (let i = 0; i < 3; i++) clock.advance(100)
    expect(expired).to.deep.equal([1, 2, 3])
    clock.advance(1000)
    expect(timers).to.be.at.most(4)
  })

  it('expire everything at once when told to', () => {
    const clock = new HandClock()
    const expired: string[] = []
    const deadlines = new Deadlines<string>((item) => expired.push(item), 100, clock)
    deadlines.add('a')
    deadlines.add('b')
    deadlines.expireAll()
    expect(expired).to.deep.equal(['a', 'b'])
    clock.advance(1000)
    expect(expired).to.deep.equal(['a', 'b'])
  })
})
