/**
 * What the groups of the storage suite share: the fixture a driver gives, registration with skips, small
 * helpers.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Archive, Doc, Entry, Page, Query, Storage, Store } from '../../../server/storage/contract.ts'

/**
 * One place where a driver keeps data, with a store open on it; disposing closes the store and deletes the
 * data.
 */
export interface Fixture extends AsyncDisposable {
  /** The open store; another one after `reopen`. */
  readonly store: Store
  /** Closes the store and opens the same place again; resolves to the new store. */
  reopen(): Promise<Store>
  /** Options for the driver's opener, as JSON, with which another process opens the same place. */
  readonly location?: string
}

/** What a driver's test file gives to the suite. */
export interface Contract {
  /** Name of the driver, as in `server/storage/NAME.ts`. */
  readonly name: string
  /** Opens an empty place; `now` is the clock of leases. */
  open(opts: { readonly now?: () => number }): Promise<Fixture>
  /** Title of a test that this driver does not run, to the reason. */
  readonly skip: Readonly<Record<string, string>>
}

/** What one test gets. */
export interface Scene {
  /** A store shared by the tests of the suite; `host` keeps them apart. */
  readonly store: Store
  readonly host: string
  /** Module `m` of that host in that store. */
  readonly storage: Storage
  /** A place of its own, gone after the test. */
  fresh(opts?: { readonly now?: () => number }): Promise<Fixture>
  /** Another process with the same place open, ended after the test. */
  child(fixture: Fixture): Promise<Child>
}

/** Registration of one test. */
export type Test = (title: string, run: (scene: Scene) => Promise<void>, timeoutMs?: number) => void

/** Another process that works on the same data: see storage-child.ts. */
export interface Child {
  /** Does one job there; resolves to its result. */
  call(job: string, args: Readonly<Record<string, unknown>>): Promise<unknown>
  /** What a job without end reports. */
  onReport(fn: (report: unknown) => void): void
  /** Ends the process at once, as a crash would; resolves when it is gone and all it reported has arrived. */
  kill(): Promise<void>
}

/**
 * Starts {@link Child} for a driver. `limits` is shell that runs first, in the same process, such as
 * `ulimit`; what the libraries then print about it is left out.
 */
export async function startChild(driver: string, location: string, limits?: string): Promise<Child> {
  const script = fileURLToPath(new URL('../storage-child.ts', import.meta.url))
  const command = [process.execPath, script, driver, location]
  const [file = '', ...args] =
    limits === undefined ? command : ['/bin/sh', '-c', `${limits}; exec "$@"`, 'sh', ...command]
  const errors = limits === undefined ? 'inherit' : 'ignore'
  const proc = spawn(file, args, { stdio: ['ignore', 'inherit', errors, 'ipc'] })
  const waiting = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>()
  let report: (report: unknown) => void = () => undefined
  let last = 0
  const gone = Promise.all([once(proc, 'exit'), once(proc, 'disconnect')])
  proc.on('message', (message: { id?: number; result?: unknown; error?: string; report?: unknown }) => {
    if (message.id === undefined) return report(message.report)
    const call = waiting.get(message.id)
    waiting.delete(message.id)
    if (message.error === undefined) call?.resolve(message.result)
    else call?.reject(new Error(message.error))
  })
  proc.on('exit', () => {
    for (const call of waiting.values()) call.reject(new Error('the other process ended'))
    waiting.clear()
  })
  const child: Child = {
    call: (job, args) =>
      new Promise((resolve, reject) => {
        last += 1
        waiting.set(last, { resolve, reject })
        proc.send({ id: last, job, args }, (error) => {
          if (error !== null) reject(error)
        })
      }),
    onReport(fn) {
      report = fn
    },
    async kill() {
      if (proc.exitCode === null && proc.signalCode === null) proc.kill('SIGKILL')
      await gone
    },
  }
  await child.call('ready', {})
  return child
}

/** All that an iteration gives. */
export async function collect<T>(all: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = []
  for await (const one of all) found.push(one)
  return found
}

/** What a promise or a function rejects with or throws; throws itself when it does not. */
export async function failure(run: () => unknown): Promise<Error> {
  try {
    await run()
  } catch (error) {
    if (error instanceof Error) return error
    throw error
  }
  throw new Error('expected a rejection, got a result')
}

/** Numbers from 0. */
export function range(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i)
}

/**
 * All entries of an archive in order, read page by page; also checks that each page is as long as it says.
 */
export async function readAll<T extends Doc>(
  archive: Archive<T>,
  owner: string,
  q: Omit<Query, 'from' | 'limit'> = {},
  limit = 1000,
): Promise<Entry<T>[]> {
  const all: Entry<T>[] = []
  let after = q.after
  for (;;) {
    const page: Page<T> = await archive.page(owner, {
      ...q,
      ...(after === undefined ? {} : { after }),
      from: 'first',
      limit,
    })
    all.push(...page.entries)
    if (page.complete) return all
    if (page.entries.length === 0) throw new Error('an empty page that is not the last')
    after = page.entries.at(-1)!.id
  }
}
