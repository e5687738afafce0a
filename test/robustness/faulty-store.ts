/** A store with failures on demand, for tests of what the server does when its store fails, is slow or hangs. */
import type { Storage, Store } from '../../server/storage/contract.ts'
import { openMemory } from '../../server/storage/memory.ts'

/**
 * What calls do now. reject: they fail, nothing was done. unsure: they are done, and then fail. hang: they never settle (until the fault is
 * over they are not even begun). slow: they take that long. until: they wait for that, and are done after it or, `done`, before.
 */
export type Fault =
  | 'none'
  | 'reject'
  | 'unsure'
  | 'hang'
  | { readonly slowMs: number }
  | { readonly until: Promise<void>; readonly done: boolean }

/** A store that fails when it is told to. */
export interface FaultyStore extends Store {
  fault: Fault
  /** Only these calls fail, written `module.operation`, such as `roster.update`; undefined: all. */
  only: RegExp | undefined
  /** Of those, one in so many. */
  every: number
  /** Calls that met the fault. */
  met: number
}

/** Opens an empty one in memory without faults. */
export async function openFaulty(): Promise<FaultyStore> {
  return makeFaulty(await openMemory())
}

/** Puts faults in front of a store; none for now. */
export function makeFaulty(inner: Store): FaultyStore {
  const faulty: FaultyStore = {
    fault: 'none',
    only: undefined,
    every: 1,
    met: 0,
    driver: inner.driver,
    open: (host, module) => faultyStorage(faulty, inner.open(host, module), module),
    purgeOwner: (host, owner) => meet(faulty, 'store.purgeOwner', () => inner.purgeOwner(host, owner)),
    healthy: () => inner.healthy(),
    close: () => inner.close(),
  }
  return faulty
}

async function meet<T>(store: FaultyStore, call: string, run: () => Promise<T>): Promise<T> {
  const { fault } = store
  if (fault === 'none' || store.only?.test(call) === false) return run()
  if (store.met++ % store.every !== 0) return run()
  if (fault === 'reject') throw new Error(`fault injected into ${call}`)
  if (fault === 'hang') return new Promise<T>(() => undefined)
  if (fault === 'unsure') {
    await run()
    throw new Error(`fault injected after ${call}`)
  }
  if ('until' in fault) {
    const result = fault.done ? await run() : undefined
    await fault.until
    return fault.done ? (result as T) : run() // it was assigned
  }
  await new Promise((resolve) => setTimeout(resolve, fault.slowMs))
  return run()
}

/** A collection whose calls meet the fault. */
function faultyCollection<T extends object>(store: FaultyStore, module: string, inner: T): T {
  return new Proxy(inner, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name)
      if (typeof value !== 'function') return value
      const call = `${module}.${String(name)}`
      return (...args: readonly unknown[]): unknown => {
        const run = (): unknown => Reflect.apply(value, target, args)
        if (name !== 'list' && name !== 'find' && name !== 'owners')
          return meet(store, call, async () => await run())
        return faultyIterator(store, call, run() as AsyncIterable<unknown>)
      }
    },
  })
}

async function* faultyIterator(
  store: FaultyStore,
  call: string,
  items: AsyncIterable<unknown>,
): AsyncIterable<unknown> {
  await meet(store, call, async () => undefined)
  yield* items
}

function faultyStorage(store: FaultyStore, inner: Storage, module: string): Storage {
  return {
    docs: (name, opts) => faultyCollection(store, module, inner.docs(name, opts)),
    archive: (name, opts) => faultyCollection(store, module, inner.archive(name, opts)),
    counter: (name) => faultyCollection(store, module, inner.counter(name)),
    lease: (name) => faultyCollection(store, module, inner.lease(name)),
  }
}
