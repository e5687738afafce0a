/**
 * A store that fails or hangs in the middle of everything. lmdb: the server runs with a store between that fails (server-with-faults.ts).
 * MongoDB: a relay between that freezes, cuts, or swallows what the database answered; where the database is ours, it is stopped or killed.
 */
import { join } from 'node:path'
import type { RunningCommand } from '../helpers/command.ts'
import type { MongoServer } from '../helpers/mongodb.ts'
import { startTcpProxy, type TcpProxy } from '../helpers/tcp-proxy.ts'
import type { Random } from './random.ts'

/**
 * What it may leave behind when the server ends. nothing: calls take longer. order: what was refused comes later. all: what was refused may have
 * been done.
 */
export type Doubt = 'nothing' | 'order' | 'all'

/** Longer than that, and the server gives up; milliseconds. */
const GIVES_UP_MS = 7000

/** Where the messages are, and how to disturb it. */
export interface Disturbed extends AsyncDisposable {
  /** The `storage:` line of the configuration for data of that name; undefined: in the folder. */
  storage(name: string): string
  /** The program that serves; undefined: the usual one. */
  readonly program: string | undefined
  /** It may fail without being disturbed, when the machine is busy. */
  readonly slow: boolean
  /** Begins something that is over after `ms`; resolves then. */
  begin(
    random: Random,
    ms: number,
    server: RunningCommand | undefined,
  ): { readonly what: string; readonly doubt: Doubt; readonly over: Promise<void> }
}

const after = (ms: number): Promise<void> => new Promise((resolve) => void setTimeout(resolve, ms))
const KINDS = ['reject', 'unsure', 'unsure', 'begins-late', 'answers-late'] as const
/** All calls, what stores messages, or the archive alone. */
const CALLS = ['.', '^(mam|offline)\\.append', '^mam\\.append'] as const

/** The server with a store that fails on demand. */
export const WITH_FAULTS = join(import.meta.dirname, 'server-with-faults.ts')

/** The embedded store. `faults` false: the program as it is, which nothing disturbs. */
export function disturbedLmdb(faults: boolean): Disturbed {
  return {
    storage: (name) => `storage: { driver: lmdb, path: ${name}, durable: false }`,
    slow: false,
    program: faults ? WITH_FAULTS : undefined,
    begin(random, ms, server) {
      const kind = random.pick(KINDS)
      // A store keeps the order of its calls: those that come later are not done before.
      const every = kind === 'begins-late' ? 1 : 1 + random.below(3)
      const order = `${kind} ${ms} ${random.pick(CALLS)} ${every}`
      server?.tell(order)
      const doubt = kind === 'unsure' || ms > GIVES_UP_MS ? 'all' : kind === 'reject' ? 'order' : 'nothing'
      return { what: order, doubt, over: after(ms) }
    },
    [Symbol.asyncDispose]: async () => undefined,
  }
}

/** A database behind a relay. */
export async function disturbedMongo(mongo: MongoServer): Promise<Disturbed> {
  const proxy = await startTcpProxy(Number(new URL(mongo.url).port || 27017))
  const url = new URL(mongo.url)
  url.port = String(proxy.port)
  return {
    storage: (name) => `storage: { driver: mongodb, url: "${url.href}", database: ${name} }`,
    slow: mongo.kind === 'ferretdb',
    program: undefined,
    begin(random, ms) {
      const kinds =
        mongo.pid() === undefined
          ? (['freeze', 'swallow', 'refuse'] as const)
          : (['freeze', 'swallow', 'refuse', 'stop', 'kill'] as const)
      const what = random.pick(kinds)
      const doubt = (what === 'freeze' || what === 'stop') && ms < GIVES_UP_MS ? 'nothing' : 'all'
      return { what: `${what} ${ms}`, doubt, over: disturb(proxy, mongo, what, ms) }
    },
    [Symbol.asyncDispose]: () => proxy[Symbol.asyncDispose](),
  }
}

async function disturb(
  proxy: TcpProxy,
  mongo: MongoServer,
  what: 'freeze' | 'swallow' | 'refuse' | 'stop' | 'kill',
  ms: number,
): Promise<void> {
  switch (what) {
    case 'freeze':
      proxy.freeze(true)
      await after(ms)
      proxy.freeze(false)
      return
    case 'swallow': // done, and nobody is told
      proxy.onAnswer = () => false
      await after(Math.min(ms, 1000))
      proxy.onAnswer = undefined
      return
    case 'refuse':
      proxy.refuse(true)
      proxy.cut()
      await after(ms)
      proxy.refuse(false)
      return
    case 'stop': {
      const pid = mongo.pid()
      if (pid !== undefined) process.kill(pid, 'SIGSTOP')
      await after(ms)
      if (pid !== undefined) process.kill(pid, 'SIGCONT')
      return
    }
    case 'kill':
      await mongo.kill()
      await after(Math.min(ms, 2000))
      await mongo.restart()
  }
}
