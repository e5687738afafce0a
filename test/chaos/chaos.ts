/**
 * Nothing acknowledged is lost, nothing comes twice, order is kept, every device converges: run.ts for as long as one likes.
 * `node test/chaos/chaos.ts [--rounds N] [--ms N] [--seed S] [--driver lmdb|mongodb] [--fault-every N] [--epoch N] [--burst N] [--trace FOLDER]`;
 * exit code 1 when a count is not 0.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { startMongo } from '../helpers/mongodb.ts'
import { disturbedLmdb, disturbedMongo, type Disturbed } from './faults.ts'
import { type ChaosReport, chaos } from './run.ts'

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '10' },
    ms: { type: 'string', default: '500' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    driver: { type: 'string', default: 'lmdb' },
    'fault-every': { type: 'string', default: '4' },
    epoch: { type: 'string', default: '' },
    burst: { type: 'string', default: '3' },
    trace: { type: 'string', default: '' },
  },
})
const { driver, trace } = values
if (!['lmdb', 'mongodb'].includes(driver)) throw new Error('--driver is lmdb or mongodb')
const number = (
  name: 'rounds' | 'ms' | 'seed' | 'fault-every' | 'epoch' | 'burst',
  text = values[name],
): number => {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 0) throw new Error(`--${name} is a number`)
  return value
}
const options = {
  rounds: number('rounds'),
  ms: number('ms'),
  seed: number('seed'),
  faultEvery: number('fault-every'),
  burst: number('burst'),
  // A small database: FerretDB reads the whole of it for each question.
  epoch: number('epoch', values.epoch || (driver === 'mongodb' ? '25' : '100')),
}

const print = (line: string): void => void process.stdout.write(`${line}\n`)
print(`seed ${options.seed}, ${options.rounds} rounds on ${driver}`)
const began = performance.now()
const report = driver === 'mongodb' ? await onMongo() : await run(disturbedLmdb(options.faultEvery > 0))

const rows: [string, number][] = [
  ['messages', report.messages],
  ...Object.entries(report.happened),
  ...Object.entries(report.faults),
  ['seconds', Math.round((performance.now() - began) / 1000)],
]
for (const [name, count] of rows) print(`${name.padEnd(16)} ${String(count).padStart(8)}`)
for (const note of report.notes.slice(0, 40)) print(note)
if (report.notes.length > 0) print(`seed ${options.seed}: ${report.notes.length} notes`)
process.exit(report.notes.length > 0 ? 1 : 0)

function run(store: Disturbed): Promise<ChaosReport> {
  if (trace !== '') mkdirSync(trace, { recursive: true })
  const keep = (round: number, lines: readonly string[]): void => {
    if (trace === '') return print('(--trace FOLDER keeps what happened)')
    const file = join(trace, `seed-${options.seed}-round-${round}.log`)
    writeFileSync(file, `${lines.join('\n')}\n`)
    print(`what happened: ${file}`)
  }
  return chaos({ ...options, store, progress: print, trace: keep })
}

async function onMongo(): Promise<ChaosReport> {
  const mongo = await startMongo()
  if ('skipped' in mongo) throw new Error(mongo.skipped)
  await using _ = mongo
  await using store = await disturbedMongo(mongo)
  return await run(store)
}
