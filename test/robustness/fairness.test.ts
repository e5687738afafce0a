/**
 * No client makes another wait: what grows with what one client sends is cut into slices, and messages between two others pass meanwhile.
 * Measured is processor time, so that other work of the machine does not matter; times of the clock are in test/bench/fairness.ts.
 */
import { expect } from 'chai'
import { LOADS } from './loads.ts'
import { Pair } from './pair.ts'
import { PASSWORD, Stage } from './stage.ts'

/** The event loop may be busy in one go for that long, in milliseconds; a slice is 4. */
const BUSY_MS = 80

describe('fairness: a message between two others passes while one client causes', function () {
  this.timeout(60_000)

  for (const load of LOADS)
    it(load.name, async () => {
      await using stage = await Stage.start(load.memoryStore === true ? { memoryStore: true } : {})
      await stage.do('accounts', ['a', 'b'], PASSWORD)
      const run = await load.prepare(stage)
      await using pair = await Pair.start(stage.place, ['a', 'b'], PASSWORD)
      await pair.latencies()
      await stage.do('busiest')
      await run()
      const busiest = await stage.do('busiest')
      const { median } = await pair.latencies()
      expect(busiest, 'longest time the event loop was busy').to.be.below(BUSY_MS)
      expect(median, 'half of the messages').to.be.below(250)
    })
})
