/** The context of a module: every registration goes to the host's tables and is handed to the loader for undoing. */
import { randomUUID } from 'node:crypto'
import manifest from '../package.json' with { type: 'json' }
import type { Clock } from './clock.ts'
import type { Host } from './host.ts'
import type { Jobs } from './jobs/contract.ts'
import { openJobQueue } from './jobs/of-module.ts'
import type { AnyModule } from './loader.ts'
import type {
  Ctx,
  Disco,
  Domains,
  Http,
  ListenOptions,
  Log,
  ModuleListener,
  Services,
  Session,
  Storage,
  Timers,
  Transport,
} from './module.ts'
import { ModuleStreams } from './peer-streams.ts'
import type { Router } from './router.ts'
import type { ClientSession } from './session.ts'
import type { Telemetry } from './telemetry.ts'
import { free, nextSlice } from './turns.ts'
import { parseJid } from './xmpp/jid.ts'

/** What contexts are made from. In scope 'server', `host` is a host of no name that no stream reaches. */
export interface ContextEnv {
  readonly host: Host
  readonly scope: 'host' | 'server'
  readonly hosts: readonly string[]
  readonly router: Router
  readonly clock: Clock
  readonly log: Log
  readonly telemetry: Telemetry
  readonly jobs: Jobs
  /** The HTTP server as this module sees it, with the undoing of its routes. */
  http(module: string, host: string): { readonly http: Http; dispose(): void }
  accept(transport: Transport): void
  /** Listens for connections of that module. */
  listen(module: string, opts: ListenOptions, accept: (transport: Transport) => void): Promise<ModuleListener>
}

const software = { name: 'Hermod', version: manifest.version }
/** Work of a long list that is done before others get a turn. */
const SLICE_MS = 4
let slots = 0

/** Makes the context of one module; everything it registers goes onto `undo`. */
export function makeContext(
  env: ContextEnv,
  def: AnyModule,
  undo: AsyncDisposableStack,
  signal: AbortSignal,
): Ctx {
  const { host } = env
  const log = childLog(env.log, { module: def.name, ...(env.scope === 'host' ? { host: host.name } : {}) })
  const own = (undoing: Disposable): void => void undo.use(undoing)
  const register = <T>(list: T[], entry: T): void => {
    list.push(entry)
    own({ [Symbol.dispose]: () => void list.splice(list.indexOf(entry), 1) })
  }
  const disco: Disco = host.disco.view(own)
  const metrics = env.telemetry.metrics(def.name, env.scope === 'host' ? host.name : '', own)
  let http: Http | undefined
  const once = (): Http => {
    if (http === undefined) {
      const part = env.http(def.name, env.scope === 'host' ? host.name : '')
      own({ [Symbol.dispose]: () => part.dispose() })
      http = part.http
    }
    return http
  }
  const storage: Storage = host.env.store.open(env.scope === 'host' ? host.name : '', def.name)
  return {
    host: env.scope === 'host' ? host.name : '',
    get hostJid() {
      if (env.scope === 'server') throw new Error(`module ${def.name} has scope 'server' and no host`)
      return host.jid
    },
    signal,
    log,
    metrics,
    timers: makeTimers(env.clock, log, storage, own),
    disco,
    sessions: host,
    get http() {
      return once()
    },
    domains: domainsOf(env.router, own),
    hosts: env.hosts,
    storage,
    software,
    now: () => env.clock.now(),
    iq(to, type, ns, name, handle, opts) {
      own(host.iq.add(def.name, to, type, ns, name, handle))
      if (opts?.advertise !== false) disco.feature(to === 'self' ? 'account' : to, ns)
    },
    jobs(name, opts, handle) {
      const queue = openJobQueue(env.jobs, [host.name, def.name, name], opts, handle, metrics)
      undo.defer(() => queue.close())
      return queue
    },
    hook: (name, place, handle) => own(host.hooks.chain(name).add({ module: def.name, place, handle })),
    run: (name, event) => host.hooks.chain(name).run(event),
    streamFeature: (feature) => register(host.features, feature),
    inlineFeatures: (of, s) => host.offered(s, of),
    serve: (handle) => register(host.serving, handle),
    async send(stanza) {
      await env.router.route(
        stanza.attr('from') === undefined ? stanza.withAttrs({ from: host.name }) : stanza,
      )
    },
    deliver(session, stanza) {
      const done = (session as ClientSession).deliver(host, {
        stanza,
        from: parseJid(stanza.attr('from') ?? session.jid.bare.toString()),
        to: session.jid,
        session,
      })
      done?.catch((error: unknown) => log.error('delivery failed', { err: error }))
    },
    request(to, payload, opts) {
      const from = opts.from ?? host.jid
      // a module of scope 'server' asks in the name of one of the hosts
      const requests = env.router.requestsOf(from.domain) ?? host.requests
      return requests.send(from, to, payload, opts, (stanza) => env.router.route(stanza))
    },
    perSession<T>(init: (s: Session) => T) {
      const slot = slots++
      return {
        get(s: Session): T {
          const fields = slotsOf(s)
          if (!(slot in fields)) fields[slot] = init(s)
          return fields[slot] as T // only this closure writes the slot
        },
        set(s: Session, v: T): void {
          slotsOf(s)[slot] = v
        },
      }
    },
    provide<K extends keyof Services>(name: K, impl: Services[K]) {
      if (host.services.has(name)) throw new Error(`module ${def.name}: service ${name} is provided already`)
      host.services.set(name, impl)
      own({ [Symbol.dispose]: () => host.services.delete(name) })
    },
    use<K extends keyof Services>(name: K): Services[K] {
      const service = host.service(name)
      if (service === undefined)
        throw new Error(`module ${def.name}: no module it requires provides service ${name}`)
      return service
    },
    find: (name) => host.service(name),
    accept: (transport) => env.accept(transport),
    async listen(opts, accept) {
      const listener = await env.listen(def.name, opts, accept)
      undo.defer(() => listener.close())
      return listener
    },
    streams: (rules) => undo.use(new ModuleStreams(rules, { clock: env.clock, log })),
    async inSlices(items, fn) {
      if (!free()) await nextSlice()
      let until = performance.now() + SLICE_MS
      for await (const item of items) {
        if (signal.aborted) return
        await fn(item)
        if (performance.now() < until) continue
        await nextSlice()
        until = performance.now() + SLICE_MS
      }
    },
    deleteAccount: (local) => host.deleteAccount(local),
  }
}

/** What a module takes of other domains is given back at unload. */
function domainsOf(router: Router, own: (d: Disposable) => void): Domains {
  const { domains } = router
  return {
    take(domain, taker) {
      const taken = domains.take(domain, taker)
      own(taken)
      return taken
    },
    takeOthers(taker) {
      const taken = domains.takeOthers(taker)
      own(taken)
      return taken
    },
    servedBy: (domain) => domains.servedBy(domain),
    receive: (stanza) => router.fromRemote(stanza),
  }
}

/** The fields of modules on a session; sessions of the core carry an array for them. */
function slotsOf(s: Session): unknown[] {
  return (s as Session & { readonly slots: unknown[] }).slots // every Session is a ClientSession
}

/** A log that adds fields to each line. */
export function childLog(log: Log, fields: object): Log {
  const line = (level: keyof Log) => (message: string, more?: object) =>
    log[level](message, { ...fields, ...more })
  return { debug: line('debug'), info: line('info'), warn: line('warn'), error: line('error') }
}

const DAY_MS = 86_400_000

function makeTimers(clock: Clock, log: Log, storage: Storage, own: (d: Disposable) => void): Timers {
  const running = new Set<Disposable>()
  own({
    [Symbol.dispose]() {
      for (const handle of running) handle[Symbol.dispose]()
    },
  })
  const after = (ms: number, fn: () => void | Promise<void>, again: boolean): Disposable => {
    let timer: Disposable | undefined
    const fire = async (): Promise<void> => {
      try {
        if (!again) running.delete(handle)
        await fn()
      } catch (error) {
        log.error('timer failed', { err: error })
      }
      if (again && running.has(handle)) timer = clock.after(ms, () => void fire())
    }
    const handle = {
      [Symbol.dispose]: () => {
        running.delete(handle)
        timer?.[Symbol.dispose]()
      },
    }
    running.add(handle)
    timer = clock.after(ms, () => void fire())
    return handle
  }
  return {
    after: (ms, fn) => after(ms, fn, false),
    every: (ms, fn) => after(ms, fn, true),
    daily(name, fn) {
      const lease = storage.lease('daily')
      const attempt = async (): Promise<void> => {
        // Held for the day, so that of all processes on this store one does the work, once; a crash gives it up at its end.
        const grant = await lease.acquire(name, randomUUID(), DAY_MS - 60_000)
        if (grant === undefined) return
        try {
          await fn()
        } catch (error) {
          await lease.release(name, grant.token).catch(() => undefined) // to be tried again, where the store takes that
          throw error
        }
      }
      return after(60 * 60_000, attempt, true)
    },
  }
}
