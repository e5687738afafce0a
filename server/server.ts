/**
 * Composes a server from its configuration: store, certificates, hosts and their modules, HTTP, listeners; start, reload
 * and stop in the right order.
 */
import { join } from 'node:path'
import { C2s, type C2sLimits } from './c2s.ts'
import { type Clock, systemClock } from './clock.ts'
import { Doors } from './connection-limits.ts'
import { runAccountCommand } from './account-commands.ts'
import type { Config, HostConfig } from './config.ts'
import type { ContextEnv } from './context.ts'
import { serveControl } from './control.ts'
import { Host } from './host.ts'
import { type HttpServer, startHttp } from './http.ts'
import { openJobs } from './jobs/open.ts'
import { type AnyModule, Loader } from './loader.ts'
import type { Log } from './module.ts'
import { ModuleListeners } from './module-listeners.ts'
import { type Listener, listenTcp } from './net.ts'
import { Router } from './router.ts'
import type { Store } from './storage/contract.ts'
import { openStore } from './storage/open.ts'
import { withTimeLimit } from './store-limits.ts'
import { Telemetry } from './telemetry.ts'
import { Tls } from './tls.ts'

/** How long clients may take to confirm what they were sent before the server stops. */
const CONFIRM_MS = 1000
/** How long jobs that are being done may take before it stops. */
const JOBS_MS = 2000

/** What a server is started with. */
export interface ServerOptions {
  readonly config: Config
  readonly modules: ReadonlyMap<string, AnyModule>
  readonly log: Log
  readonly clock?: Clock
  /** Instead of the store the configuration names. */
  readonly store?: Store
}

/** Ports in use, in the order of the configuration. */
export interface Ports {
  readonly client: readonly number[]
  readonly clientTls: readonly number[]
  readonly http: readonly number[]
  readonly https: readonly number[]
  /** Of listeners that modules have opened so far, by module. */
  readonly modules: ReadonlyMap<string, readonly number[]>
}

/** A server that accepts connections. */
export interface RunningServer extends AsyncDisposable {
  readonly ports: Ports
  readonly hosts: ReadonlyMap<string, Host>
  readonly store: Store
  readonly telemetry: Telemetry
  readonly c2s: C2s
  /** New configuration, certificates included, without dropping streams. Throws, and changes nothing, when it is wrong. */
  reload(next: Config): Promise<void>
  /** Closes all streams with system-shutdown after what was accepted is stored. Safe to call twice. */
  stop(): Promise<void>
}

/** Where the control socket of a configuration is; undefined when its data is not on this machine's disk. */
export function controlPath(config: Config): string | undefined {
  return config.storage.driver === 'lmdb' ? join(config.storage.path, 'control.sock') : undefined
}

/** Modules a host has enabled, of the given scope. */
export function enabledModules(
  modules: ReadonlyMap<string, AnyModule>,
  enabled: ReadonlyMap<string, unknown>,
  scope: 'host' | 'server',
): AnyModule[] {
  return [...modules.values()].filter((def) => enabled.has(def.name) && (def.scope ?? 'host') === scope)
}

/** Limits of client streams as the configuration says. */
export function c2sLimits({ limits }: Config): C2sLimits {
  const shape = { maxDepth: limits.depth, maxAttrs: limits.attributes, maxName: 1024 }
  return {
    before: { ...shape, maxBytes: limits.stanzaBytesBeforeLogin },
    after: { ...shape, maxBytes: limits.stanzaBytes },
    rateBefore: { bytesPerSecond: limits.rateBeforeLogin, burstBytes: limits.burstBeforeLogin },
    rateAfter: { bytesPerSecond: limits.rate, burstBytes: limits.burst },
    maxQueueBytes: limits.queue,
    loginTimeoutMs: limits.loginTimeout,
    idleMs: limits.idle,
    closeTimeoutMs: limits.closeTimeout,
    maxPerAddress: limits.connectionsPerAddress,
    maxNewPerMinute: limits.newConnectionsPerMinute,
    ratePerAddress: { bytesPerSecond: limits.ratePerAddress, burstBytes: limits.burstPerAddress },
  }
}

/** Starts a server; when any part fails, what was started is stopped and the error says which. */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const stack = new AsyncDisposableStack()
  try {
    return await start(options, stack)
  } catch (error) {
    await stack.disposeAsync()
    throw error
  }
}

async function start(options: ServerOptions, stack: AsyncDisposableStack): Promise<RunningServer> {
  const { config, modules, log } = options
  const clock = options.clock ?? systemClock
  const telemetry = new Telemetry()
  const store = withTimeLimit(options.store ?? (await openStore(config.storage)))
  if (options.store === undefined) stack.defer(() => store.close())
  const jobs = await openJobs(config.redis, clock, log)
  stack.defer(() => jobs.close(0))
  const tls = await Tls.load(tlsSettings(config, log))
  const newDoors = () => new Doors(c2sLimits(config), () => clock.now())
  const doors = { tls: newDoors(), http: newDoors() }
  const http = await startHttp(
    {
      ...httpListeners(config),
      hosts: config.hosts.map((h) => h.name),
      publicUrls: config.http.publicUrls,
      doors: doors.http,
    },
    tls,
    log,
  )
  stack.defer(() => http.close())
  const hosts = new Map<string, Host>()
  const router = new Router(hosts)
  const c2s = new C2s({
    clock,
    log,
    hosts,
    router,
    limits: c2sLimits(config),
  })
  stack.defer(() => c2s.stop())
  const ofModules = new ModuleListeners(tls, clock, log)
  stack.defer(() => ofModules.close())
  const env = (host: Host, scope: 'host' | 'server'): ContextEnv => ({
    host,
    scope,
    hosts: [...hosts.keys()],
    router,
    clock,
    log,
    telemetry,
    jobs,
    http: (module, name) => http.httpFor(module, name),
    accept: (transport) => void c2s.accept(transport),
    listen: (module, opts, accept) => ofModules.listen(module, opts, accept),
  })
  for (const { name } of config.hosts) hosts.set(name, new Host(name, { clock, log, store }))
  const loaders = new Map<string, Loader>()
  for (const { name } of config.hosts) {
    const host = hosts.get(name)
    if (host !== undefined) loaders.set(name, new Loader(env(host, 'host')))
  }
  const shared = new Loader(env(new Host('', { clock, log, store }), 'server'))
  const loadHost = (loader: Loader | undefined, host: HostConfig) =>
    loader?.loadAll(enabledModules(modules, host.modules, 'host'), host.modules)
  for (const host of config.hosts) {
    const loader = loaders.get(host.name)
    stack.defer(async () => loader?.unloadAll())
    await loadHost(loader, host)
  }
  stack.defer(() => shared.unloadAll())
  await shared.loadAll(enabledModules(modules, config.serverModules, 'server'), config.serverModules)
  gauges(telemetry, hosts, c2s)

  const control = options.store === undefined ? controlPath(config) : undefined
  if (control !== undefined)
    stack.use(await serveControl(control, (request) => runAccountCommand(hosts, request), log))
  const listeners = await listenAll(config, { tls, c2s, log, doors: doors.tls }, stack)

  let current = config
  let reloading: Promise<void> = Promise.resolve()
  const reload = async (next: Config): Promise<void> => {
    const names = (of: Config) => of.hosts.map((h) => h.name).join(' ')
    if (
      names(next) !== names(current) ||
      JSON.stringify([next.listen, next.storage, next.redis]) !==
        JSON.stringify([current.listen, current.storage, current.redis])
    )
      log.warn('changes of hosts, listeners, storage and redis take effect at the next start')
    const known = next.hosts.filter((h) => hosts.has(h.name))
    // the set of hosts stays; their certificates may be elsewhere now
    const kept = [...hosts.keys()]
    await tls.reload({ ...tlsSettings(next, log), hosts: kept })
    for (const host of known)
      await loaders.get(host.name)?.reload(enabledModules(modules, host.modules, 'host'), host.modules)
    await shared.reload(enabledModules(modules, next.serverModules, 'server'), next.serverModules)
    for (const one of [c2s, doors.tls, doors.http]) one.setLimits(c2sLimits(next))
    current = next
  }
  let stopped: Promise<void> | undefined
  const stop = (): Promise<void> =>
    (stopped ??= (async () => {
      await Promise.all([...listeners.all.map((l) => l.close()), ofModules.close()])
      await reloading
      await c2s.stop('system-shutdown', CONFIRM_MS)
      await jobs.close(JOBS_MS)
      await stack.disposeAsync()
    })())
  return {
    ports: { ...listeners.ports, ...httpPorts(config, http), modules: ofModules.ports },
    hosts,
    store,
    telemetry,
    c2s,
    stop,
    [Symbol.asyncDispose]: stop,
    reload(next) {
      // one after another: each begins where the one before has ended
      const done = reloading.then(() => reload(next))
      reloading = done.catch(() => undefined)
      return done
    },
  }
}

function tlsSettings(config: Config, log: Log): Parameters<typeof Tls.load>[0] {
  const perHost = new Map(
    config.hosts.flatMap((h) =>
      h.certificate === undefined || h.key === undefined
        ? []
        : [[h.name, { cert: h.certificate, key: h.key }] as const],
    ),
  )
  const { folder, development, minVersion, clientCa } = config.tls
  return {
    hosts: config.hosts.map((h) => h.name),
    folder,
    development,
    minVersion,
    perHost,
    log,
    ...(clientCa === undefined ? {} : { clientCa }),
  }
}

/** One entry for each listener and address. */
function addressed<T extends { readonly address?: string | undefined }>(
  config: Config,
  list: readonly T[],
): (T & { readonly address: string })[] {
  return list.flatMap((l) =>
    (l.address === undefined ? config.listen.addresses : [l.address]).map((address) => ({ ...l, address })),
  )
}

function httpListeners(config: Config) {
  return {
    listeners: [
      ...addressed(config, config.listen.http).map((l) => ({ ...l, tls: false })),
      ...addressed(config, config.listen.https).map((l) => ({ ...l, tls: true })),
    ],
    trustedProxies: config.listen.proxyFrom,
  }
}

function httpPorts(config: Config, http: HttpServer): Pick<Ports, 'http' | 'https'> {
  const plain = addressed(config, config.listen.http).length
  return { http: http.ports.slice(0, plain), https: http.ports.slice(plain) }
}

async function listenAll(
  config: Config,
  {
    tls,
    c2s,
    log,
    doors,
  }: { readonly tls: Tls; readonly c2s: C2s; readonly log: Log; readonly doors: Doors },
  stack: AsyncDisposableStack,
) {
  const all: Listener[] = []
  const open = async (list: Config['listen']['client'], mode: 'starttls' | 'direct'): Promise<number[]> => {
    const ports: number[] = []
    for (const { address, port, proxyProtocol } of addressed(config, list)) {
      const { proxyFrom } = config.listen
      const opts = {
        address,
        port,
        tls: mode,
        proxyProtocol,
        doors,
        ...(proxyFrom.length > 0 ? { proxyFrom } : {}),
      }
      const listener = await listenTcp(opts, tls, (transport) => void c2s.accept(transport), log)
      stack.defer(() => listener.close())
      all.push(listener)
      ports.push(listener.port)
    }
    return ports
  }
  return {
    ports: {
      client: await open(config.listen.client, 'starttls'),
      clientTls: await open(config.listen.clientTls, 'direct'),
    },
    all,
  }
}

function gauges(telemetry: Telemetry, hosts: ReadonlyMap<string, Host>, c2s: C2s): void {
  const forever = (): void => undefined
  const core = telemetry.metrics('core', '', forever)
  core.gauge('streams', 'Client streams, logged in or not', () => c2s.size)
  for (const host of hosts.values()) {
    telemetry.metrics('core', host.name, forever).gauge('sessions', 'Bound sessions', () => host.count)
  }
}
