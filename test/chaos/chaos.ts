/**
 * Nothing acknowledged is lost, nothing comes twice, order is kept, every device converges: run.ts for as long as one likes. Options are in
 * test/README.md; exit code 1 when a count is not 0.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { startMongo } from '../helpers/mongodb.ts'
import { disturbedLmdb, disturbedMongo, type Disturbed } from './faults.ts'
import { type ChaosReport, chaos } from './run.ts'

/** For each driver. FerretDB reads the whole of a collection for each question: a small database, and fewer questions. */
const DEFAULTS = {
  lmdb: { ms: '500', burst: '3', epoch: '100', 'compare-every': '1', accounts: '4' },
  mongodb: { ms: '500', burst: '2', epoch: '25', 'compare-every': '5', accounts: '2' },
} as const

const { values } = parseArgs({
  options: {
    driver: { type: 'string', default: 'lmdb' },
    rounds: { type: 'string', default: '10' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    'fault-every': { type: 'string', default: '4' },
    minutes: { type: 'string', default: '1000' },
    ms: { type: 'string' },
    burst: { type: 'string' },
    epoch: { type: 'string' },
    'compare-every': { type: 'string' },
    accounts: { type: 'string' },
    trace: { type: 'string', default: '' },
  },
})
const { driver, trace } = values
if (driver !== 'lmdb' && driver !== 'mongodb') throw new Error('--driver is lmdb or mongodb')
const texts: Readonly<Record<string, string | undefined>> = { ...DEFAULTS[driver], ...values }
const number = (name: string): number => {
  const value = Number(texts[name])
  if (!Number.isInteger(value) || value < 0) throw new Error(`--${name} is a number`)
  return value
}
const options = {
  rounds: number('rounds'),
  seed: number('seed'),
  ms: number('ms'),
  burst: number('burst'),
  epoch: number('epoch'),
  faultEvery: number('fault-every'),
  compareEvery: number('compare-every'),
  accounts: number('accounts'),
  limitMs: 60_000 * number('minutes'),
}

const print = (line: string): void => void process.stdout.write(`${line}\n`)
print(`seed ${options.seed}, ${options.rounds} rounds on ${driver}`)
// The server is started once in each round: half of that time is compiling.
const cache = mkdtempSync(join(tmpdir(), 'hermod-chaos-cache-'))
process.env['NODE_COMPILE_CACHE'] = cache
const began = performance.now()
const report = driver === 'mongodb' ? await onMongo() : await run(disturbedLmdb(options.faultEvery > 0))
rmSync(cache, { recursive: true, force: true })

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
    const file = join(trace, `${driver}-seed-${options.seed}-round-${round}.log`)
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
