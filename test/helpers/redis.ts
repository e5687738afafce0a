/**
 * A Redis server for tests: Debian's redis-server (or any on the PATH) on a free port in a scratch folder. It can be killed and started
 * again on the same port.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { freePort, onPath } from './programs.ts'

/** A running server. */
export interface RedisServer extends AsyncDisposable {
  /** With the password that the server wants. */
  readonly url: string
  readonly port: number
  /** Ends it with SIGKILL; what it had is on disk. */
  kill(): Promise<void>
  /** Starts it again, on the same port and data. */
  restart(): Promise<void>
}

/** Not a real one, and in no log. */
export const PASSWORD = 'not-in-any-log'

/** Starts a server. Throws when there is none and CI is set; else says why there is none. */
export async function startRedis(): Promise<RedisServer | { readonly skipped: string }> {
  const file = await onPath('redis-server')
  if (file === undefined) {
    const skipped = 'no redis-server on the PATH'
    if ((process.env['CI'] ?? '') !== '') throw new Error(`redis tests cannot run: ${skipped}`)
    return { skipped }
  }
  const folder = await mkdtemp(join(tmpdir(), 'hermod-redis-'))
  const port = await freePort()
  let child: ChildProcess | undefined = await start(file, port, folder)

  async function kill(): Promise<void> {
    const stopping = child
    child = undefined
    if (stopping === undefined) return
    const ended = once(stopping, 'close')
    stopping.kill('SIGKILL')
    await ended
  }
  return {
    url: `redis://:${PASSWORD}@127.0.0.1:${port}/`,
    port,
    kill,
    async restart() {
      await kill()
      child = await start(file, port, folder)
    },
    async [Symbol.asyncDispose]() {
      await kill()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

async function start(file: string, port: number, folder: string): Promise<ChildProcess> {
  const options = {
    port: String(port),
    bind: '127.0.0.1',
    dir: folder,
    requirepass: PASSWORD,
    appendonly: 'yes',
    appendfsync: 'always',
    save: '',
    'maxmemory-policy': 'noeviction',
  }
  const args = Object.entries(options).flatMap(([name, value]) => [`--${name}`, value])
  const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  const killWithUs = (): boolean => child.kill('SIGKILL')
  process.once('exit', killWithUs)
  child.once('close', () => process.off('exit', killWithUs))
  await new Promise<void>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code) => reject(new Error(`redis-server ended with ${code}`)))
    createInterface({ input: child.stdout }).on('line', (line) => {
      if (line.includes('Ready to accept connections')) resolve()
    })
  })
  return child
}
