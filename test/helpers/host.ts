/**
 * One virtual host in memory, no sockets: the real host, router, hooks, loader and sessions over a pipe, the memory store
 * and a virtual clock.
 */
import { C2s, type C2sLimits } from '../../server/c2s.ts'
import type { ContextEnv } from '../../server/context.ts'
import { Host } from '../../server/host.ts'
import { openLocalJobs } from '../../server/jobs/local.ts'
import { type AnyModule, Loader } from '../../server/loader.ts'
import type {
  Http,
  ListenOptions,
  Log,
  Services,
  TlsInfo,
  Transport,
  TransportSink,
} from '../../server/module.ts'
import { Router } from '../../server/router.ts'
import type { ClientSession } from '../../server/session.ts'
import type { Store } from '../../server/storage/contract.ts'
import { openMemory } from '../../server/storage/memory.ts'
import { Telemetry } from '../../server/telemetry.ts'
import { Element, el } from '../../server/xmpp/element.ts'
import { type JID, parseJid } from '../../server/xmpp/jid.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { Parser } from '../../server/xmpp/parser.ts'
import { accountsStub } from './accounts.ts'
import { VirtualClock } from './clock.ts'
import { settle } from './settle.ts'

const limits = { maxBytes: 262_144, maxDepth: 100, maxAttrs: 64, maxName: 256 }

/** Limits of the tests: large enough not to matter unless a test is about them. */
export const testLimits: C2sLimits = {
  before: { ...limits, maxBytes: 65_536 },
  after: limits,
  rateBefore: undefined,
  rateAfter: undefined,
  ratePerAddress: undefined,
  maxQueueBytes: 4 * 1024 * 1024,
  loginTimeoutMs: 60_000,
  idleMs: 300_000,
  closeTimeoutMs: 5_000,
  maxPerAddress: 1_000_000,
  maxNewPerMinute: 1_000_000,
}

/** What a test may choose. */
export interface TestHostOptions {
  readonly domain?: string
  readonly modules: readonly AnyModule[]
  /** Module name to options, as in the configuration file. */
  readonly config?: Readonly<Record<string, object>>
  /** Localparts that exist, in a small auth service; leave out when an auth module is among the modules. */
  readonly accounts?: readonly string[]
  readonly store?: Store
  readonly limits?: Partial<C2sLimits>
  /** Where log lines of level warn and error go; default: an error fails the test at dispose. */
  readonly onLog?: (level: keyof Log, message: string, fields?: object) => void
}

/** A running host. */
export interface TestHost extends AsyncDisposable {
  readonly clock: VirtualClock
  readonly store: Store
  readonly host: Host
  readonly router: Router
  readonly c2s: C2s
  readonly telemetry: Telemetry
  service<K extends keyof Services>(name: K): Services[K]
  /** A bound client session; authentication and binding are skipped. */
  client(fullJid: string, opts?: StreamOptions): Promise<TestClient>
  /** A raw stream as the network sees it. */
  stream(opts?: StreamOptions): TestStream
  /** Listeners of modules, by port. */
  readonly listening: ReadonlyMap<number, ListenOptions>
  /** Connects to a listener of a module. */
  connect(port: number, opts?: StreamOptions): TestConnection
  settle(): Promise<void>
  unload(name: string): Promise<void>
  load(def: AnyModule, config?: object): Promise<void>
  /** Loads a module of scope 'server', which stands beside the host. */
  loadShared(def: AnyModule, config?: object): Promise<void>
  /** The same modules with these options (by name), as SIGHUP does it. */
  reload(options: ReadonlyMap<string, unknown>): Promise<void>
}
/** How a stream arrives. */
export interface StreamOptions {
  readonly tls?: TlsInfo
  /** What `tls` becomes when the server starts TLS; default: a TLS 1.3 connection without channel bindings. */
  readonly tlsAfterUpgrade?: TlsInfo
  readonly framing?: 'stream' | 'frames'
  readonly remoteAddress?: string
}

/** TLS as a test pretends it. */
export const fakeTls: TlsInfo = {
  protocol: 'TLSv1.3',
  cipher: 'TLS_AES_128_GCM_SHA256',
  channelBinding: () => undefined,
  clientCertificate: () => undefined,
}

/** A pipe in place of a socket. `blocked`: the client does not read. */
export class PipeTransport implements Transport {
  readonly kind
  readonly framing
  readonly remoteAddress
  tls: TlsInfo | undefined
  readonly #tlsAfter: TlsInfo
  sink: TransportSink | undefined
  readonly written: string[] = []
  blocked = false
  paused = false
  closed = false
  #pendingIn: string[] = []

  constructor(opts: StreamOptions) {
    this.framing = opts.framing ?? 'stream'
    this.kind = this.framing === 'frames' ? ('websocket' as const) : ('tcp' as const)
    this.remoteAddress = opts.remoteAddress ?? '192.0.2.1'
    this.tls = opts.tls
    this.#tlsAfter = opts.tlsAfterUpgrade ?? fakeTls
  }
  get buffered(): number {
    return this.blocked ? this.written.reduce((n, t) => n + t.length, 0) : 0
  }
  start(sink: TransportSink): void {
    this.sink = sink
  }
  write(text: string): boolean {
    this.written.push(text)
    return !this.blocked
  }
  /** Data from the client; waits like a socket buffer while the server does not read. */
  feed(text: string): void {
    if (this.paused) this.#pendingIn.push(text)
    else if (!this.closed) this.sink?.data(this.framing === 'frames' ? text : Buffer.from(text))
  }
  pause(): void {
    this.paused = true
  }
  resume(): void {
    this.paused = false
    queueMicrotask(() => {
      while (!this.paused && this.#pendingIn.length > 0) this.feed(this.#pendingIn.shift() ?? '')
    })
  }
  startTls(): void {
    queueMicrotask(() => {
      this.tls = this.#tlsAfter
      this.sink?.secured()
    })
  }
  unblock(): void {
    this.blocked = false
    this.sink?.drain()
  }
  end(): void {
    this.destroy()
  }
  destroy(): void {
    if (this.closed) return
    this.closed = true
    queueMicrotask(() => this.sink?.closed(undefined))
  }
}

/** A raw stream. */
export interface TestStream {
  readonly transport: PipeTransport
  readonly session: ClientSession
  /** Sends text; resolves to the raw output since the last call, when everything has settled. */
  send(text: string): Promise<string>
  readonly closed: boolean
  drop(): Promise<void>
}

/** A connection to a listener of a module. */
export type TestConnection = Pick<TestStream, 'transport' | 'send' | 'closed' | 'drop'>

/** A bound client. */
export interface TestClient {
  readonly jid: JID
  readonly transport: PipeTransport
  readonly session: ClientSession
  /** Sends, settles, and resolves to what this client received since the last call. */
  send(xml: string | Element): Promise<Element[]>
  /** What was received since the last call. */
  take(): Element[]
  close(): Promise<void>
  drop(): Promise<void>
  readonly closed: boolean
  /** The stream error received, if any. */
  readonly error: Element | undefined
}

/** Starts a host; dispose it with `await using`. */
export async function testHost(opts: TestHostOptions): Promise<TestHost> {
  const clock = new VirtualClock()
  const domain = opts.domain ?? 'example.org'
  const errors: string[] = []
  const line = (level: keyof Log) => (message: string, fields?: object) => {
    if (opts.onLog !== undefined) opts.onLog(level, message, fields)
    else if (level === 'error') errors.push(`${message} ${describe(fields)}`)
  }
  const log: Log = { debug: line('debug'), info: line('info'), warn: line('warn'), error: line('error') }
  const store = opts.store ?? (await openMemory({ now: () => clock.now() }))
  const host = new Host(domain, { clock, log, store })
  const hosts = new Map([[domain, host]])
  const router = new Router(hosts)
  const telemetry = new Telemetry()
  const c2s = new C2s({
    clock,
    log,
    hosts,
    router,
    limits: { ...testLimits, ...opts.limits },
  })
  const listening = new Map<number, ListenOptions & { accept(transport: Transport): void }>()
  const env: Omit<ContextEnv, 'host' | 'scope'> = {
    hosts: [domain],
    router,
    clock,
    log,
    telemetry,
    jobs: openLocalJobs(clock, log),
    http: () => ({ http: noHttp, dispose: () => undefined }),
    accept: (transport) => void c2s.accept(transport),
    listen: async (_module, options, accept) => {
      let port = options.port === 0 ? 40_000 : options.port
      while (listening.has(port)) port++
      listening.set(port, { ...options, port, accept })
      return { port, close: async () => void listening.delete(port) }
    },
  }
  const loader = new Loader({ ...env, host, scope: 'host' })
  const shared = new Loader({ ...env, host: new Host('', { clock, log, store }), scope: 'server' })
  const accounts = opts.accounts === undefined ? [] : [accountsStub(opts.accounts)]
  const config = new Map(Object.entries(opts.config ?? {}))
  await loader.loadAll([...accounts, ...opts.modules], config)
  const open = (options: StreamOptions = {}): { transport: PipeTransport; session: ClientSession } => {
    const transport = new PipeTransport(options)
    return { transport, session: c2s.accept(transport) }
  }
  return {
    clock,
    store,
    host,
    router,
    c2s,
    telemetry,
    service(name) {
      const service = host.service(name)
      if (service === undefined) throw new Error(`no service ${name}`)
      return service
    },
    stream(options) {
      const { transport, session } = open(options)
      return Object.assign(connection(transport), { session })
    },
    listening,
    connect(port, options = {}) {
      const transport = new PipeTransport(options)
      const listener = listening.get(port)
      if (listener === undefined) throw new Error(`nobody listens on ${port}`)
      listener.accept(transport)
      return connection(transport)
    },
    client: (fullJid, options) => boundClient(host, c2s, open(options), parseJid(fullJid)),
    settle,
    unload: async (name) => void (await loader.unload(name)),
    load: (def, options) => loader.load(def, options),
    loadShared: (def, options) => shared.load(def, options),
    reload: (options) => loader.reload([...accounts, ...opts.modules], options),
    async [Symbol.asyncDispose]() {
      await c2s.stop()
      await shared.unloadAll()
      await loader.unloadAll()
      if (opts.store === undefined) await store.close()
      if (errors.length > 0) throw new Error(`the server logged errors:\n${errors.join('\n')}`)
    },
  }
}

function describe(fields: object | undefined): string {
  const err = fields !== undefined && 'err' in fields ? fields.err : undefined
  return err instanceof Error ? (err.stack ?? err.message) : JSON.stringify(fields ?? {})
}

function connection(transport: PipeTransport): TestConnection {
  return {
    transport,
    async send(text) {
      transport.feed(text)
      await settle()
      return transport.written.splice(0).join('')
    },
    get closed() {
      return transport.closed
    },
    async drop() {
      transport.destroy()
      await settle()
    },
  }
}

const HEADER = `<stream:stream xmlns='${NS.CLIENT}' xmlns:stream='${NS.STREAM}'>`

async function boundClient(
  host: Host,
  c2s: C2s,
  { transport, session }: { transport: PipeTransport; session: ClientSession },
  jid: JID,
): Promise<TestClient> {
  const framed = transport.framing === 'frames'
  transport.feed(
    framed
      ? `<open xmlns='${NS.FRAMING}' to='${host.name}' version='1.0'/>`
      : `<?xml version='1.0'?><stream:stream to='${host.name}' version='1.0' xmlns='${NS.CLIENT}' xmlns:stream='${NS.STREAM}'>`,
  )
  await settle()
  await c2s.adopt(session, jid)
  await settle()
  transport.written.length = 0
  const received: Element[] = []
  let error: Element | undefined
  const parser = new Parser(
    {
      open: () => undefined,
      element: (e) => (e.is('error', NS.STREAM) ? (error = e) : received.push(e)),
      close: () => undefined,
    },
    { maxBytes: 1e8, maxDepth: 1000, maxAttrs: 1000, maxName: 1000 },
  )
  parser.write(Buffer.from(HEADER))
  const collect = (): void => {
    for (const text of transport.written.splice(0)) parser.write(Buffer.from(text))
  }
  const take = (): Element[] => {
    collect()
    return received.splice(0)
  }
  return {
    jid,
    transport,
    session,
    async send(xml) {
      const text = typeof xml === 'string' ? xml : xml.toString(framed ? undefined : NS.CLIENT)
      transport.feed(text)
      await settle()
      return take()
    },
    take,
    async close() {
      transport.feed(framed ? el('close', NS.FRAMING).toString() : '</stream:stream>')
      await settle()
    },
    async drop() {
      transport.destroy()
      await settle()
    },
    get closed() {
      return transport.closed
    },
    get error() {
      collect()
      return error
    },
  }
}

const noHttp: Http = {
  route: () => undefined,
  upgrade: () => undefined,
  files: () => undefined,
  urls: () => [],
  link: () => undefined,
  links: () => [],
}
