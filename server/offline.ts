/** Hosts with their modules and nothing that listens: for commands that work on the store while no server runs. */
import { systemClock } from './clock.ts'
import type { Config } from './config.ts'
import { Host } from './host.ts'
import { noJobs } from './jobs/open.ts'
import { type AnyModule, Loader } from './loader.ts'
import type { Http, Log } from './module.ts'
import { Router } from './router.ts'
import { enabledModules } from './server.ts'
import { openStore } from './storage/open.ts'
import { Telemetry } from './telemetry.ts'

/** Hosts that are set up; dispose to unload them and close the store. */
export interface LocalHosts extends AsyncDisposable {
  readonly hosts: ReadonlyMap<string, Host>
}

const noHttp: Http = {
  route: () => undefined,
  upgrade: () => undefined,
  files: () => undefined,
  urls: () => [],
  link: () => undefined,
  links: () => [],
}

/** Sets up all hosts of a configuration on its store, or on a store in memory when only the set-up is of interest. */
export async function makeLocalHosts(
  config: Config,
  modules: ReadonlyMap<string, AnyModule>,
  log: Log,
  store?: 'memory',
): Promise<LocalHosts> {
  await using undo = new AsyncDisposableStack()
  const opened = await openStore(store === 'memory' ? { driver: 'memory' } : config.storage)
  undo.defer(() => opened.close())
  const hosts = new Map<string, Host>()
  const router = new Router(hosts)
  const telemetry = new Telemetry()
  for (const { name } of config.hosts)
    hosts.set(name, new Host(name, { clock: systemClock, log, store: opened }))
  for (const { name, modules: options } of config.hosts) {
    const host = hosts.get(name)
    if (host === undefined) continue
    const loader = new Loader({
      host,
      scope: 'host',
      hosts: [...hosts.keys()],
      router,
      clock: systemClock,
      log,
      telemetry,
      jobs: noJobs,
      http: () => ({ http: noHttp, dispose: () => undefined }),
      accept: (transport) => transport.destroy(),
      listen: () => Promise.reject(new Error('nobody can connect to a server that does not run')),
    })
    undo.defer(() => loader.unloadAll())
    await loader.loadAll(enabledModules(modules, options, 'host'), options)
  }
  const kept = undo.move()
  return { hosts, [Symbol.asyncDispose]: () => kept.disposeAsync() }
}
