/** The server as its operator starts it: `node server/main.ts --config FILE start`, in a process of its own, with a folder of its own. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import type { Place } from './orders.ts'

const MAIN = join(import.meta.dirname, '..', '..', 'server', 'main.ts')
const LIMIT_MS = 30_000

/** How a process ended. */
export interface Exit {
  readonly code: number | null
  readonly signal: string | null
  readonly ms: number
}

/** One program; may be started again on the same folder. */
export class Program implements AsyncDisposable {
  readonly folder: string
  /** Lines of its log since the last start, as JSON. */
  readonly lines: string[] = []
  #child: ChildProcess | undefined
  #place: Place | undefined
  #wake: (() => void) | undefined

  private constructor(folder: string) {
    this.folder = folder
  }

  /** Writes the configuration; `more` are other parts of it. Does not start. */
  static async make(more: Parameters<Program['configure']>[0] = {}): Promise<Program> {
    const program = new Program(await mkdtemp(join(tmpdir(), 'hermod-program-')))
    await program.configure(more)
    return program
  }

  get file(): string {
    return join(this.folder, 'hermod.yaml')
  }
  get place(): Place {
    if (this.#place === undefined) throw new Error('the program is not started')
    return this.#place
  }

  /** `modules` are added to those that the tests need, other parts replace what is there. */
  async configure(more: { readonly modules?: object; readonly [part: string]: unknown }): Promise<void> {
    const { modules = {}, ...rest } = more
    const free = [{ port: 0 }]
    const config = {
      hosts: ['localhost'],
      listen: { addresses: ['127.0.0.1'], client: free, clientTls: free, http: free, https: free },
      tls: { folder: join(this.folder, 'certs') },
      storage: { driver: 'lmdb', path: join(this.folder, 'data'), durable: false },
      log: { level: 'info', format: 'json' },
      modules: {
        starttls: { required: false },
        sasl: { requireTls: false, plainInClear: true },
        accounts: { iterations: 4096 },
        bind: { maxResources: 200 },
        'auth-limits': { perAddress: 100_000, perAccount: 100_000 },
        ...modules,
      },
      ...rest,
    }
    // in one step: the program may be reading it
    await writeFile(`${this.file}.new`, JSON.stringify(config)) // JSON is YAML
    await rename(`${this.file}.new`, this.file)
  }

  /** Starts, and waits until it listens. */
  async start(): Promise<void> {
    this.lines.length = 0
    const child = spawn(process.execPath, [MAIN, '--config', this.file, 'start'], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    this.#child = child
    for (const stream of [child.stdout, child.stderr])
      createInterface({ input: stream }).on('line', (line) => {
        this.lines.push(line)
        this.#wake?.()
      })
    child.once('exit', () => this.#wake?.())
    const line = await this.line(
      /clients: port (\d+).*?, (\d+) \(TLS\); web client: http:\/\/[^:]+:(\d+)\/ or https:\/\/[^:]+:(\d+)\//,
    )
    const [c2s = 0, c2sTls = 0, http = 0, https = 0] = line.slice(1).map(Number)
    this.#place = {
      domain: 'localhost',
      ca: join(this.folder, 'certs', 'localhost.crt'),
      ports: { c2s, c2sTls, http, https },
    }
  }

  /** The first line from number `from` on that matches, as soon as it is there. */
  async line(pattern: RegExp, from = 0): Promise<RegExpExecArray> {
    const deadline = AbortSignal.timeout(LIMIT_MS)
    for (;;) {
      for (const line of this.lines.slice(from)) {
        const found = pattern.exec(line)
        if (found !== null) return found
      }
      if (this.#child?.exitCode !== null || deadline.aborted)
        throw new Error(`no line ${pattern}:\n${this.lines.join('\n')}`)
      await new Promise<void>((resolve) => {
        this.#wake = resolve
        deadline.addEventListener('abort', () => resolve(), { once: true })
      })
    }
  }

  signal(name: NodeJS.Signals): void {
    this.#child?.kill(name)
  }

  /** Sends a signal and waits for the end. */
  async stop(name: NodeJS.Signals = 'SIGTERM'): Promise<Exit> {
    const child = this.#child
    if (child === undefined) throw new Error('the program is not started')
    const began = performance.now()
    const ended = once(child, 'exit') as Promise<[number | null, string | null]>
    child.kill(name)
    const [code, signal] = await ended
    this.#child = undefined
    return { code, signal, ms: performance.now() - began }
  }

  /** Another command of the same program, such as `user add`. */
  async command(args: readonly string[], input = ''): Promise<string> {
    const running = promisify(execFile)(process.execPath, [MAIN, '--config', this.file, ...args])
    running.child.stdin?.end(input)
    return (await running).stdout
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child !== undefined) await this.stop('SIGKILL')
    await rm(this.folder, { recursive: true, force: true })
  }
}
