/**
 * Starts a server that speaks MongoDB's wire protocol, for tests: the one at HERMOD_TEST_MONGODB, else `mongod` from the
 * PATH, else FerretDB (`ferretdb/`), built with Go once and kept in the user's cache folder. Without any of them tests are
 * skipped with the reason; with CI set they fail.
 */
import { execFile, spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rename, rm } from 'node:fs/promises'
import { MongoClient } from 'mongodb'
import { homedir, tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { freePort, isProgram, onPath } from './programs.ts'

/** A running server. */
export interface MongoServer {
  /** For the driver; no database in it. */
  readonly url: string
  /** What it is, for the output of the tests. */
  readonly kind: 'url' | 'mongod' | 'ferretdb'
  /** Process id, to freeze it with SIGSTOP; undefined when it is not ours. */
  readonly pid: () => number | undefined
  /** Ends it with SIGKILL, as a crash would. */
  kill(): Promise<void>
  /** Starts it again on the same port and data. */
  restart(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

/** Why there is none. */
export interface NoMongoServer {
  readonly skipped: string
}

/** Time for `before` hooks that may have to build FerretDB; milliseconds. */
export const startTimeoutMs = 300_000

/**
 * Starts a server. Throws instead of reporting `skipped` when CI is set. `own`: one that can be killed, so not the one at
 * HERMOD_TEST_MONGODB.
 */
export async function startMongo(
  opts: { readonly own?: boolean } = {},
): Promise<MongoServer | NoMongoServer> {
  const url = process.env['HERMOD_TEST_MONGODB']
  if (url !== undefined && url !== '' && opts.own !== true) return remote(url)
  const command = await findCommand()
  if ('args' in command) return startOwn(command)
  if ((process.env['CI'] ?? '') !== '') throw new Error(`mongodb tests cannot run: ${command.skipped}`)
  return command
}

/** A server that can be killed, for the suite in which this is called, whose tests are skipped where there is none. */
export function mongoOfSuite(): () => MongoServer {
  let server: MongoServer | undefined
  before('start a database of our own', async function () {
    this.timeout(startTimeoutMs)
    const started = await startMongo({ own: true })
    if ('skipped' in started) {
      console.log(`      not run: ${started.skipped}`)
      this.skip()
    }
    server = started
  })
  after('stop the database', () => server?.[Symbol.asyncDispose]())
  return () => {
    if (server === undefined) throw new Error('there is no database')
    return server
  }
}

/** Whether {@link startMongo} gives a real MongoDB, as far as can be said without starting it; FerretDB is slow. */
export function hasMongod(): boolean {
  if ((process.env['HERMOD_TEST_MONGODB'] ?? '') !== '') return true
  return (process.env['PATH'] ?? '').split(delimiter).some((folder) => existsSync(join(folder, 'mongod')))
}

function remote(url: string): MongoServer {
  const refuse = async (): Promise<void> => {
    throw new Error('the server at HERMOD_TEST_MONGODB is not ours to stop')
  }
  return {
    url,
    kind: 'url',
    pid: () => undefined,
    kill: refuse,
    restart: refuse,
    [Symbol.asyncDispose]: async () => {},
  }
}

interface Command {
  readonly kind: 'mongod' | 'ferretdb'
  readonly file: string
  readonly args: (port: number, folder: string) => readonly string[]
  /** A line of its output that says that it listens. */
  readonly ready: RegExp
}

async function findCommand(): Promise<Command | NoMongoServer> {
  const mongod = await onPath('mongod')
  if (mongod !== undefined) {
    return {
      kind: 'mongod',
      file: mongod,
      args: (port, folder) => ['--dbpath', folder, '--port', `${port}`, '--bind_ip', '127.0.0.1'],
      ready: /Waiting for connections/i,
    }
  }
  if ((await onPath('go')) === undefined) {
    return { skipped: 'neither HERMOD_TEST_MONGODB is set nor mongod or go (to build FerretDB) on the PATH' }
  }
  try {
    return {
      kind: 'ferretdb',
      file: await buildFerret(),
      args: (port, folder) => ['-listen', `127.0.0.1:${port}`, '-data', folder],
      ready: /^mongodb:/,
    }
  } catch (error) {
    return { skipped: `FerretDB cannot be built: ${String(error).slice(0, 500)}` }
  }
}

let building: Promise<string> | undefined

/** Path of the binary; builds it when its sources changed since the last time. */
function buildFerret(): Promise<string> {
  building ??= build()
  return building
}

async function build(): Promise<string> {
  const sources = join(import.meta.dirname, 'ferretdb')
  const hash = createHash('sha256')
  for (const file of ['main.go', 'go.mod', 'go.sum']) hash.update(await readFile(join(sources, file)))
  const cache = process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache')
  const folder = join(cache, 'hermod', `ferretdb-${hash.digest('hex').slice(0, 16)}`)
  const binary = join(folder, 'ferretdb-local')
  if (await isProgram(binary)) return binary
  await mkdir(folder, { recursive: true })
  // Another process may build at the same time: only a finished binary gets the name.
  const unfinished = `${binary}.${process.pid}`
  const tags = 'ferretdb_no_postgresql,ferretdb_no_mysql,ferretdb_no_hana'
  try {
    await promisify(execFile)(
      'go',
      ['build', '-trimpath', '-ldflags', '-s -w', '-tags', tags, '-o', unfinished],
      {
        cwd: sources,
        env: { ...process.env, CGO_ENABLED: '0' },
        timeout: startTimeoutMs,
      },
    )
    await rename(unfinished, binary)
  } finally {
    await rm(unfinished, { force: true })
  }
  return binary
}

async function startOwn(command: Command): Promise<MongoServer> {
  const folder = await mkdtemp(join(tmpdir(), 'hermod-mongodb-'))
  const port = await freePort()
  let child: ChildProcess | undefined = await start(command, port, folder)

  async function stop(signal: NodeJS.Signals): Promise<void> {
    const stopping = child
    child = undefined
    if (stopping === undefined) return
    const ended = once(stopping, 'close')
    // A frozen process would not notice.
    stopping.kill('SIGCONT')
    stopping.kill(signal)
    await ended
  }

  return {
    url: `mongodb://127.0.0.1:${port}/`,
    kind: command.kind,
    pid: () => child?.pid,
    kill: () => stop('SIGKILL'),
    async restart() {
      await stop('SIGKILL')
      child = await start(command, port, folder)
    },
    async [Symbol.asyncDispose]() {
      // Not asked to end: it would wait for clients that a failed test has left, and its data is not needed any more.
      await stop('SIGKILL')
      await rm(folder, { recursive: true, force: true })
    },
  }
}

async function start(command: Command, port: number, folder: string): Promise<ChildProcess> {
  const child = spawn(command.file, [...command.args(port, folder)], {
    stdio: ['ignore', 'pipe', 'pipe'],
    // FerretDB reads whole collections; collecting garbage less often saves a quarter of its time.
    env: { ...process.env, GOGC: '800' },
  })
  const killWithUs = (): boolean => child.kill('SIGKILL')
  process.once('exit', killWithUs)
  child.once('close', () => process.off('exit', killWithUs))
  const last: string[] = []
  await new Promise<void>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code) => {
      reject(new Error(`${command.kind} ended with ${code}: ${last.join('\n')}`))
    })
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on('line', (line) => {
        last.push(line)
        if (last.length > 10) last.shift()
        if (command.ready.test(line)) resolve()
      })
    }
  })
  return child
}

/** Deletes a database that a test made. */
export async function dropDatabase(url: string, database: string): Promise<void> {
  const client = new MongoClient(url)
  await client.db(database).dropDatabase()
  await client.close()
}

/** Deletes all documents of a database, but not its indexes. */
export async function emptyDatabase(url: string, database: string): Promise<void> {
  const client = new MongoClient(url)
  const db = client.db(database)
  const names = (await db.listCollections({}, { nameOnly: true }).toArray()).map(({ name }) => name)
  for (const name of names) if (name !== 'meta') await db.collection(name).deleteMany({})
  await client.close()
}
