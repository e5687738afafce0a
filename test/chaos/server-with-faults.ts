/**
 * The server as server/main.ts starts it, with a store that fails when it is told to. In its own process, in the folder of its hermod.yaml.
 * Lines of standard input: `add HOST NAME PASSWORD` makes an account and answers `added NAME`; `KIND MS ONLY EVERY` is a disturbance, kinds as
 * Fault has them (robustness/faulty-store.ts), ONLY is a pattern of calls.
 */
import { createInterface } from 'node:readline'
import { findModules } from '../../server/catalog.ts'
import { loadConfig } from '../../server/config.ts'
import { startServer } from '../../server/server.ts'
import { openStore } from '../../server/storage/open.ts'
import { makeLog, makeLogger } from '../../server/telemetry.ts'
import { type Fault, makeFaulty } from '../robustness/faulty-store.ts'

const modules = await findModules()
const config = await loadConfig('hermod.yaml', modules)
const inner = await openStore(config.storage)
const store = makeFaulty(inner)
const log = makeLog(makeLogger('warn', false))
const server = await startServer({ config, modules, log, store })
const { client, clientTls, http, https } = server.ports
process.stdout.write(
  `clients: port ${client[0]} (STARTTLS), ${clientTls[0]} (TLS); web client: http://x:${http[0]}/ or https://x:${https[0]}/\nadd a user\n`,
)

createInterface({ input: process.stdin }).on('line', (line) => {
  const [kind = '', ms = '', only = '', every = ''] = line.split(' ')
  if (kind === 'add') {
    const added = server.hosts.get(ms)?.service('auth')?.create(only, every)
    void added?.then(() => process.stdout.write(`added ${only}\n`))
    return
  }
  const over = new Promise<void>((resolve) => void setTimeout(resolve, Number(ms)))
  const fault: Fault =
    kind === 'reject' || kind === 'unsure' ? kind : { until: over, done: kind === 'answers-late' }
  store.only = new RegExp(only)
  store.every = Number(every)
  store.fault = fault
  void over.then(() => {
    if (store.fault === fault) store.fault = 'none'
  })
})

process.once('SIGTERM', () => {
  void server
    .stop()
    .then(() => inner.close())
    .then(() => process.exit(0))
})
