/**
 * The server as a load generator wants it: the default modules and limits, archives only when asked for (ARCHIVE=1), and three
 * differences, each because all clients of a load generator are one machine. Login in clear is allowed (the scenarios without TLS measure
 * the server, not TLS); connections of one address are not limited; neither is the input rate of a client, which is what is measured.
 */
import { copyFile, mkdir } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { findModules } from '../../server/catalog.ts'
import { parseConfigText } from '../../server/config.ts'
import type { Doc } from '../../server/module.ts'
import { makeLocalHosts } from '../../server/offline.ts'
import { startServer } from '../../server/server.ts'
import { makeLog, makeLogger } from '../../server/telemetry.ts'

const {
  PORT = '15222',
  TLS_PORT = '15223',
  DOMAIN = 'localhost',
  USERS = '2000',
  PASSWORD = 'secret',
  CERT_DIR,
  ARCHIVE = '0',
} = process.env
const folder = resolve(process.argv[2] ?? '.')
const certs = join(folder, 'certs')
await mkdir(certs, { recursive: true })
if (CERT_DIR !== undefined) {
  await copyFile(join(CERT_DIR, 'cert.pem'), join(certs, `${DOMAIN}.crt`))
  await copyFile(join(CERT_DIR, 'key.pem'), join(certs, `${DOMAIN}.key`))
}
const UNLIMITED = 1_000_000
const file = {
  hosts: [DOMAIN],
  listen: {
    addresses: ['127.0.0.1'],
    client: [{ port: Number(PORT) }],
    clientTls: [{ port: Number(TLS_PORT) }],
    http: [{ port: 0 }],
    https: [{ port: 0 }],
  },
  tls: { folder: certs },
  storage: { driver: 'lmdb', path: join(folder, 'data') },
  limits: {
    rate: '1 GiB',
    burst: '1 GiB',
    ratePerAddress: '1 GiB',
    burstPerAddress: '1 GiB',
    connectionsPerAddress: UNLIMITED,
    newConnectionsPerMinute: UNLIMITED,
  },
  log: { level: 'warn' },
  modules: {
    starttls: { required: false },
    sasl: { requireTls: false, plainInClear: true },
    ...Object.fromEntries(['stanza-id', 'mam', 'retract'].map((name) => [name, ARCHIVE === '1'])),
  },
}
const modules = await findModules()
const config = parseConfigText(JSON.stringify(file), modules, 'benchmark') // JSON is YAML
const log = makeLog(makeLogger('warn', false))

/** One account is made in full; the others get its keys, so that a load generator computes its side once. */
async function addAccounts(): Promise<void> {
  await using local = await makeLocalHosts(config, modules, log)
  const host = local.hosts.get(DOMAIN)
  const auth = host?.service('auth')
  if (host === undefined || auth === undefined || (await auth.exists('user0'))) return
  await auth.create('user0', PASSWORD)
  const docs = host.env.store.open(DOMAIN, 'accounts').docs<Doc>('accounts')
  const first = await docs.get('user0', 'account')
  if (first === undefined) throw new Error('the first account was not stored')
  const rest = Array.from({ length: Number(USERS) - 1 }, (_, i) => `user${i + 1}`)
  await Promise.all(rest.map((name) => docs.put(name, 'account', first)))
}

await addAccounts()
const server = await startServer({ config, modules, log })
process.once('SIGTERM', () => void server.stop())
process.once('SIGINT', () => void server.stop())
