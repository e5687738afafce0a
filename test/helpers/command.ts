/** The command line of the server as child processes, in a folder of their own. */
import { spawn } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { tempFolder } from './temp.ts'

const MAIN = fileURLToPath(new URL('../../server/main.ts', import.meta.url))

/** What a command did. */
export interface Outcome {
  /** Exit code; undefined when a signal ended it. */
  readonly code: number | undefined
  readonly stdout: string
  readonly stderr: string
}
/** A server that runs until it is told to stop. */
export interface RunningCommand extends AsyncDisposable {
  /** Numbers in the lines it greeted with. */
  readonly ports: {
    readonly c2s: number
    readonly c2sTls: number
    readonly http: number
    readonly https: number
  }
  signal(name: NodeJS.Signals): void
  /** A line for its standard input. */
  tell(line: string): void
  /** Resolves with the first line of output, from now on or before, that matches. */
  line(pattern: RegExp): Promise<string>
  /** When it has ended. */
  readonly done: Promise<Outcome>
}
/** A folder with a configuration, and the commands in it. */
export interface CommandFolder extends AsyncDisposable {
  readonly path: string
  /** Writes hermod.yaml: free ports on 127.0.0.1, an lmdb store, certificates in the folder; `more` is added as it is. */
  configure(more?: string, storage?: string): Promise<void>
  run(
    args: readonly string[],
    opts?: { readonly input?: string; readonly env?: NodeJS.ProcessEnv },
  ): Promise<Outcome>
  /**
   * Starts the server and waits for its greeting; rejects with its output when it ends instead. `program`: another file that is called and
   * greets as the server does.
   */
  start(program?: string): Promise<RunningCommand>
}

/** A new folder; disposing stops what runs in it. */
export async function commandFolder(): Promise<CommandFolder> {
  const folder = await tempFolder()
  const running = new Set<RunningCommand>()
  const launch = (args: readonly string[], env: NodeJS.ProcessEnv = {}, main = MAIN) => {
    const { PATH, HOME, NODE_COMPILE_CACHE } = process.env
    const cache = NODE_COMPILE_CACHE === undefined ? {} : { NODE_COMPILE_CACHE }
    const inherited = { PATH, HOME, ...cache }
    const child = spawn(process.execPath, [main, ...args], {
      cwd: folder.path,
      env: { ...inherited, ...env },
    })
    let stdout = ''
    let stderr = ''
    const watchers = new Set<() => void>()
    const saw = (): void => watchers.forEach((check) => check())
    child.stdout.on('data', (chunk) => {
      stdout += chunk
      saw()
    })
    child.stderr.on('data', (chunk) => {
      stderr += chunk
      saw()
    })
    child.stdin.on('error', () => undefined) // a command that does not read its input
    const done = new Promise<Outcome>((resolve) => {
      child.on('close', (code) => {
        resolve({ code: code ?? undefined, stdout, stderr })
        saw()
      })
    })
    return { child, done, watchers, output: () => stdout + stderr }
  }

  async function start(program?: string): Promise<RunningCommand> {
    const { child, done, watchers, output } = launch(['start'], {}, program)
    let ended = false
    void done.then(() => (ended = true))
    const line = (pattern: RegExp): Promise<string> =>
      new Promise((resolve, reject) => {
        const check = (): void => {
          const found = output()
            .split('\n')
            .find((text) => pattern.test(text))
          if (found === undefined && !ended && child.exitCode === null) return
          watchers.delete(check)
          if (found === undefined) reject(new Error(`ended without ${pattern}:\n${output()}`))
          else resolve(found)
        }
        watchers.add(check)
        check()
      })
    const greeting = await line(/clients: port/)
    await line(/add a user/)
    const numbers = /port (\d+) \(STARTTLS\), (\d+) \(TLS\).*:(\d+)\/ or https:.*:(\d+)\//.exec(greeting)
    const [, c2s = '', c2sTls = '', http = '', https = ''] = numbers ?? []
    const command: RunningCommand = {
      ports: { c2s: Number(c2s), c2sTls: Number(c2sTls), http: Number(http), https: Number(https) },
      signal: (name) => void child.kill(name),
      tell: (line) => void child.stdin.write(`${line}\n`),
      line,
      done,
      async [Symbol.asyncDispose]() {
        running.delete(command)
        if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL')
        await done
      },
    }
    running.add(command)
    return command
  }

  return {
    path: folder.path,
    configure: (more = '', storage = 'storage: { driver: lmdb, path: data }') =>
      writeFile(
        join(folder.path, 'hermod.yaml'),
        `hosts: [example.org, example.net]
listen:
  addresses: [127.0.0.1]
  client: [{ port: 0 }]
  clientTls: [{ port: 0 }]
  http: [{ port: 0 }]
  https: [{ port: 0 }]
tls: { folder: certs }
${storage}
${more}`,
      ),
    async run(args, { input = '', env } = {}) {
      const { child, done } = launch(args, env)
      child.stdin.end(input)
      return await done
    },
    start,
    async [Symbol.asyncDispose]() {
      for (const command of running) await command[Symbol.asyncDispose]()
      await folder[Symbol.asyncDispose]()
    },
  }
}
