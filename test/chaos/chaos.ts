/**
 * Nothing acknowledged is lost, nothing comes twice, order is kept, every device converges: run.ts for as long as one likes.
 * `node test/chaos/chaos.ts [--rounds N] [--seconds N] [--seed S] [--driver lmdb|mongodb]`; exit code 1 when a count is not 0.
 */
import { parseArgs } from 'node:util'
import { startMongo } from '../helpers/mongodb.ts'
import { type ChaosReport, chaos } from './run.ts'

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '6' },
    seconds: { type: 'string', default: '5' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    driver: { type: 'string', default: 'lmdb' },
  },
})
const options = { rounds: Number(values.rounds), seconds: Number(values.seconds), seed: Number(values.seed) }
for (const [name, value] of Object.entries(options))
  if (!Number.isFinite(value) || value < 0) throw new Error(`--${name} is a number`)
if (!['lmdb', 'mongodb'].includes(values.driver)) throw new Error('--driver is lmdb or mongodb')

const print = (line: string): void => void process.stdout.write(`${line}\n`)
print(`seed ${options.seed}, ${options.rounds} rounds of ${options.seconds} s, ${values.driver}`)
const report = values.driver === 'mongodb' ? await onMongo() : await chaos({ ...options, progress: print })

const rows: [string, number][] = [
  ['messages', report.messages],
  ...Object.entries(report.happened),
  ...Object.entries(report.faults),
]
for (const [name, count] of rows) print(`${name.padEnd(16)} ${String(count).padStart(8)}`)
for (const note of report.notes.slice(0, 40)) print(note)
process.exitCode = report.notes.length > 0 ? 1 : 0

async function onMongo(): Promise<ChaosReport> {
  const mongo = await startMongo()
  if ('skipped' in mongo) throw new Error(mongo.skipped)
  await using _ = mongo
  const storage = `storage: { driver: mongodb, url: "${mongo.url}", database: chaos${options.seed} }`
  return await chaos({ ...options, storage, progress: print })
}
