/**
 * A whole server in this process for tests: real sockets on free ports of 127.0.0.1, all default modules, the memory store
 * unless told otherwise, a certificate of its own in a temporary folder. Dispose it with `await using`.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { findModules } from '../../server/catalog.ts'
import type { Clock } from '../../server/clock.ts'
import { parseConfigText } from '../../server/config.ts'
import type { Log } from '../../server/module.ts'
import { type RunningServer, startServer as start } from '../../server/server.ts'
import type { Store } from '../../server/storage/contract.ts'
import { openMemory } from '../../server/storage/memory.ts'
import { COMPONENT_SECRET, componentDomains } from './component-client.ts'

/** What a test may choose. */
export interface TestServerOptions {
  /** The virtual host; default 'localhost'. */
  readonly domain?: string
  /** Further virtual hosts. */
  readonly otherDomains?: readonly string[]
  /** Options of modules as in the configuration file, such as `{ register: { open: true }, ping: false }`. */
  readonly modules?: Readonly<Record<string, boolean | object>>
  /** Serve the components of component-client.ts. */
  readonly components?: boolean
  /** Other parts of the configuration file, such as `{ limits: { idle: '10s' } }`; `listen` is merged with the free ports. */
  readonly config?: Readonly<Record<string, object>>
  /** Instead of the memory store of this server; the caller closes it. */
  readonly store?: Store
  readonly clock?: Clock
  /** Default: an error line fails the test when the server is disposed, the rest is dropped. */
  readonly log?: Log
}

/** A server that accepts connections on 127.0.0.1. */
export interface TestServer extends AsyncDisposable {
  readonly domain: string
  readonly ports: {
    readonly c2s: number
    readonly c2sTls: number
    readonly http: number
    readonly https: number
    readonly component?: number
  }
  /** PEM file of the certificate of the host, to trust. */
  readonly ca: string
  /** Temporary folder with the certificates. */
  readonly folder: string
  readonly server: RunningServer
  /** Adds an account; throws StanzaError('conflict') when it exists. */
  addUser(local: string, password: string): Promise<void>
}

/** Starts a server; rejects with the server's own sentence when it cannot. */
export async function startServer(options: TestServerOptions = {}): Promise<TestServer> {
  await using undo = new AsyncDisposableStack()
  const folder = await mkdtemp(join(tmpdir(), 'hermod-test-'))
  undo.defer(() => rm(folder, { recursive: true, force: true }))
  const domain = options.domain ?? 'localhost'
  const { listen, ...rest } = options.config ?? {}
  const free = [{ port: 0 }]
  const raw = {
    hosts: [domain, ...(options.otherDomains ?? [])],
    listen: { addresses: ['127.0.0.1'], client: free, clientTls: free, http: free, https: free, ...listen },
    tls: { folder: join(folder, 'certs') },
    storage: { driver: 'memory' },
    modules: {
      ...options.modules,
      ...(options.components === true ? { component: componentOptions(domain) } : {}),
    },
    ...rest,
  }
  const modules = await findModules()
  const config = parseConfigText(JSON.stringify(raw), modules, 'test configuration')
  let { store } = options
  if (store === undefined) {
    const own = await openMemory(options.clock === undefined ? {} : { now: () => clockNow(options.clock) })
    undo.defer(() => own.close())
    store = own
  }
  const errors: string[] = []
  undo.defer(() => {
    if (errors.length > 0) throw new Error(`the server logged errors:\n${errors.join('\n')}`)
  })
  const server = await start({
    config,
    modules,
    log: options.log ?? failingLog(errors),
    store,
    ...(options.clock === undefined ? {} : { clock: options.clock }),
  })
  undo.defer(() => server.stop())
  const { client, clientTls, http, https } = server.ports
  const [component] = server.ports.modules.get('component') ?? []
  const ports = {
    c2s: first(client),
    c2sTls: first(clientTls),
    http: first(http),
    https: first(https),
    ...(component === undefined ? {} : { component }),
  }
  const kept = undo.move()
  return {
    domain,
    ports,
    ca: join(folder, 'certs', `${domain}.crt`),
    folder,
    server,
    async addUser(local, password) {
      const auth = server.hosts.get(domain)?.service('auth')
      if (auth === undefined) throw new Error('no module keeps accounts')
      await auth.create(local, password)
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}

const componentOptions = (domain: string): object => ({
  listen: [{ port: 0 }],
  components: Object.fromEntries(
    componentDomains(domain).map((name) => [name, { secret: COMPONENT_SECRET }]),
  ),
})

const clockNow = (clock: Clock | undefined): number => clock?.now() ?? Date.now()

const first = (ports: readonly number[]): number => {
  const [port] = ports
  if (port === undefined) throw new Error('the server does not listen there')
  return port
}

/** A log that keeps error lines and drops the rest. */
function failingLog(errors: string[]): Log {
  const drop = (): void => undefined
  return {
    debug: drop,
    info: drop,
    warn: drop,
    error(message, fields) {
      const err = fields !== undefined && 'err' in fields ? fields.err : undefined
      errors.push(`${message} ${err instanceof Error ? err.stack : JSON.stringify(fields ?? {})}`)
    },
  }
}
