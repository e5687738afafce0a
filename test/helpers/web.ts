/** HTTP in tests: a server on free ports with certificates of its own, and requests whose every byte the test decides. */
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { type IncomingHttpHeaders, type IncomingMessage, type RequestOptions, request } from 'node:http'
import { request as requestTls } from 'node:https'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Host } from '../../server/host.ts'
import { type HttpServer, type HttpSettings, startHttp } from '../../server/http.ts'
import { noJobs } from '../../server/jobs/open.ts'
import { type AnyModule, Loader } from '../../server/loader.ts'
import type { Http } from '../../server/module.ts'
import { Router } from '../../server/router.ts'
import { openMemory } from '../../server/storage/memory.ts'
import { Telemetry } from '../../server/telemetry.ts'
import { Tls } from '../../server/tls.ts'
import { VirtualClock } from './clock.ts'
import { Accepted, recordingLog } from './sink.ts'

/** A response, read to its end. */
export interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

type Ask = RequestOptions & { readonly tls?: boolean; readonly body?: string | Buffer }

/** A running HTTP server for a test. */
export class WebServer implements AsyncDisposable {
  readonly log: ReturnType<typeof recordingLog>
  readonly server: HttpServer
  readonly folder: string
  readonly #open: Socket[] = []
  readonly #loaders: Loader[] = []

  private constructor(server: HttpServer, folder: string, log: ReturnType<typeof recordingLog>) {
    this.server = server
    this.folder = folder
    this.log = log
  }

  /** Default: one plain listener (port 0 of `server.ports`) and one with TLS (port 1), host a.example and b.example. */
  static async start(settings: Partial<HttpSettings> = {}): Promise<WebServer> {
    const folder = await mkdtemp(join(tmpdir(), 'hermod-http-'))
    const log = recordingLog()
    const hosts = settings.hosts ?? ['a.example', 'b.example']
    const listeners = settings.listeners ?? [
      { address: '127.0.0.1', port: 0, tls: false },
      { address: '127.0.0.1', port: 0, tls: true },
    ]
    try {
      const tls = await Tls.load({ hosts, folder, development: true, log })
      const server = await startHttp({ ...settings, hosts, listeners }, tls, log)
      return new WebServer(server, folder, log)
    } catch (error) {
      await rm(folder, { recursive: true })
      throw error
    }
  }

  port(index = 0): number {
    return this.server.ports[index] ?? 0
  }

  http(host = '', module = 'test'): Http {
    return this.server.httpFor(module, host).http
  }

  /** One request, by default for a.example on the plain port, without keep-alive. */
  async ask(path: string, opts: Ask = {}): Promise<Answer> {
    const { body, ...rest } = await this.#ask(path, opts)
    return { ...rest, body: body.toString() }
  }

  /** A GET whose answer is not text. */
  async bytes(path: string, headers: Readonly<Record<string, string>>) {
    return await this.#ask(path, { headers })
  }

  async #ask(path: string, opts: Ask) {
    const { tls = false, body, headers, ...rest } = opts
    const all = { host: 'a.example', ...(headers as Record<string, string> | undefined) }
    const port = this.port(tls ? 1 : 0)
    const common = { host: '127.0.0.1', port, path, agent: false, headers: all, ...rest }
    const req = tls
      ? requestTls({ rejectUnauthorized: false, servername: all.host, ...common })
      : request(common)
    req.end(body)
    const [res] = (await once(req, 'response')) as [IncomingMessage]
    const chunks: Buffer[] = []
    for await (const chunk of res) chunks.push(chunk)
    return { status: res.statusCode ?? 0, headers: res.headers, body: Buffer.concat(chunks) }
  }

  /** A connection on which the test writes what it likes. */
  dial(index = 0): Socket {
    const socket = connect(this.port(index), '127.0.0.1')
    socket.on('error', () => undefined)
    this.#open.push(socket)
    return socket
  }

  /** Everything the server sends on a raw connection until it closes it. */
  async raw(text: string, index = 0): Promise<string> {
    const socket = this.dial(index)
    socket.write(text)
    let all = ''
    for await (const chunk of socket) all += String(chunk)
    return all
  }

  /** Loads modules of the server ('' as host) or of one host; `accepted` gets the connections they accept. */
  async load(host: string, defs: readonly AnyModule[], config: Readonly<Record<string, object>> = {}) {
    const clock = new VirtualClock()
    const { log } = this
    const store = await openMemory({ now: () => clock.now() })
    const accepted = new Accepted()
    const loader = new Loader({
      host: new Host(host, { clock, log, store }),
      scope: host === '' ? 'server' : 'host',
      hosts: ['a.example', 'b.example'],
      router: new Router(new Map()),
      clock,
      log,
      telemetry: new Telemetry(),
      jobs: noJobs,
      http: (module, name) => this.server.httpFor(module, name),
      accept: accepted.accept,
      listen: () => Promise.reject(new Error('no listeners in this test')),
    })
    await loader.loadAll(defs, new Map(Object.entries(config)))
    this.#loaders.push(loader)
    return { loader, clock, accepted }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const loader of this.#loaders) await loader.unloadAll()
    for (const socket of this.#open) socket.destroy()
    await this.server.close()
    await rm(this.folder, { recursive: true, force: true })
  }
}

/** The head of a request for a WebSocket, as far as the HTTP server is concerned. */
export function upgradeRequest(path: string, headers = '', host = 'a.example'): string {
  return `GET ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n${headers}\r\n`
}
