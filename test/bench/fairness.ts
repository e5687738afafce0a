/**
 * How long others wait while one client makes the server work: `node test/bench/fairness.ts [part of a name]`. Prints, for each load, how long
 * it took, the latencies of messages between two other clients meanwhile (every 5 ms, from when they were due), and the longest time that the
 * event loop was busy in one go (processor time). The tests of the same are test/robustness/fairness.test.ts.
 */
import { LOADS } from '../robustness/loads.ts'
import { type Latencies, Pair } from '../robustness/pair.ts'
import { PASSWORD, Stage } from '../robustness/stage.ts'

const wanted = process.argv[2] ?? ''
const ms = (n: number): string => n.toFixed(1).padStart(8)
const line = (name: string, took: number, busiest: number, { count, median, p99, max }: Latencies): void =>
  console.log(
    `${name.padEnd(70)}${ms(took)}${String(count).padStart(8)}${ms(median)}${ms(p99)}${ms(max)}${ms(busiest)}`,
  )
console.log(`${'milliseconds'.padEnd(70)}    took   count  median     p99     max busiest`)

for (const load of LOADS.filter(({ name }) => name.includes(wanted))) {
  await using stage = await Stage.start(load.memoryStore === true ? { memoryStore: true } : {})
  await stage.do('accounts', ['a', 'b'], PASSWORD)
  const run = await load.prepare(stage)
  await using pair = await Pair.start(stage.place, ['a', 'b'], PASSWORD)
  await pair.latencies()
  await stage.do('busiest')
  const began = performance.now()
  try {
    await run()
  } catch (error) {
    console.log(`${load.name}: ${String(error).slice(0, 300)}`)
  }
  const took = performance.now() - began
  line(load.name, took, await stage.do('busiest'), await pair.latencies())
}
