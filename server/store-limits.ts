/**
 * A time limit for every call of a store, whatever its driver does: a call that is not answered rejects with StoreUnavailable, so that no
 * session waits for ever, and what is queued behind it goes on. A write that was given up may still take effect.
 *
 * Once a call was given up, and until one is answered again, calls get a fraction of the time: those that come one after another shall not
 * add up to minutes.
 */
import { Deadlines } from './deadlines.ts'
import type { Archive, Counter, Docs, Doc, Lease, Storage, Store } from './storage/contract.ts'
import { StoreUnavailable } from './storage/contract.ts'

/** Milliseconds; less than a handler has (hooks.ts), so that the sender is told of the store and not of a handler. */
export const STORE_LIMIT_MS = 8_000
/** Removals of everything an account has are no single write, and nobody waits for them in a stream. */
const REMOVAL_LIMIT_MS = 600_000
/** The part of the limit that a call has while the store gives no answers. */
const IMPATIENT = 1 / 20

/** The store, with limits. Closing it has none: drivers bound that themselves. */
export function withTimeLimit(store: Store, limitMs = STORE_LIMIT_MS): Store {
  const calls = new Limit(limitMs)
  const removals = new Limit(Math.max(limitMs, REMOVAL_LIMIT_MS))
  return {
    driver: store.driver,
    open: (host, module) => limitedStorage(store.open(host, module), calls, removals),
    purgeOwner: (host, owner) => removals.of(store.purgeOwner(host, owner)),
    healthy: () => calls.of(store.healthy()).catch(() => false),
    close: () => store.close(),
  }
}

type Reject = (error: Error) => void

/** Promises that must settle in time; two timers for all of them. */
class Limit {
  readonly #patient: Deadlines<Reject>
  readonly #impatient: Deadlines<Reject>
  /** A call was given up, and none has been answered since. */
  #silent = false

  constructor(limitMs: number) {
    const giveUp = (reject: Reject): void => {
      this.#silent = true
      reject(new StoreUnavailable(`the store gave no answer within ${limitMs} ms`))
    }
    this.#patient = new Deadlines(giveUp, limitMs)
    this.#impatient = new Deadlines(giveUp, Math.ceil(limitMs * IMPATIENT))
  }

  of<T>(work: Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const waiting = this.#silent ? this.#impatient : this.#patient
      waiting.add(reject)
      work.then(
        (value) => {
          this.#silent = false
          waiting.delete(reject)
          resolve(value)
        },
        (error: unknown) => {
          this.#silent = false
          waiting.delete(reject)
          reject(error)
        },
      )
    })
  }

  /** Each step of an iteration has its own time. */
  each<T>(items: AsyncIterable<T>): AsyncIterable<T> {
    return {
      [Symbol.asyncIterator]: () => {
        const inner = items[Symbol.asyncIterator]()
        return {
          next: () => this.of(inner.next()),
          // Not awaited: behind a step that hangs it would hang too.
          return: async () => {
            inner.return?.().catch(() => undefined)
            return { done: true, value: undefined }
          },
        }
      },
    }
  }
}

function limitedStorage(inner: Storage, calls: Limit, removals: Limit): Storage {
  return {
    docs: <T extends Doc>(name: string, opts?: { readonly index?: readonly (keyof T & string)[] }) =>
      limitedDocs(inner.docs<T>(name, opts), calls, removals),
    archive: <T extends Doc>(name: string, opts?: { readonly text?: (doc: T) => string | undefined }) =>
      limitedArchive(inner.archive<T>(name, opts), calls, removals),
    counter: (name) => limitedCounter(inner.counter(name), calls),
    lease: (name) => limitedLease(inner.lease(name), calls),
  }
}

function limitedDocs<T>(docs: Docs<T>, calls: Limit, removals: Limit): Docs<T> {
  return {
    get: (owner, key) => calls.of(docs.get(owner, key)),
    put: (owner, key, doc) => calls.of(docs.put(owner, key, doc)),
    update: (owner, key, fn) => calls.of(docs.update(owner, key, fn)),
    delete: (owner, key) => calls.of(docs.delete(owner, key)),
    list: (owner, afterKey) => calls.each(docs.list(owner, afterKey)),
    find: (field, value) => calls.each(docs.find(field, value)),
    owners: () => calls.each(docs.owners()),
    purge: (owner) => removals.of(docs.purge(owner)),
  }
}

function limitedArchive<T>(archive: Archive<T>, calls: Limit, removals: Limit): Archive<T> {
  return {
    append: (owner, entry) => calls.of(archive.append(owner, entry)),
    page: (owner, q) => {
      const page = archive.page(owner, q)
      return q.effort === undefined ? calls.of(page) : calls.of(page).catch(given(page))
    },
    replace: (owner, id, doc) => calls.of(archive.replace(owner, id, doc)),
    remove: (owner, q) => removals.of(archive.remove(owner, q)),
    owners: () => calls.each(archive.owners()),
  }
}

/** Who asked for a search may want to know when it has really ended. */
const given =
  (page: Promise<unknown>) =>
  (error: unknown): never => {
    if (error instanceof StoreUnavailable) error.over = page.catch(() => undefined)
    throw error
  }

function limitedCounter(counter: Counter, calls: Limit): Counter {
  return { next: (owner) => calls.of(counter.next(owner)), get: (owner) => calls.of(counter.get(owner)) }
}

function limitedLease(lease: Lease, calls: Limit): Lease {
  return {
    acquire: (key, holder, ttlMs) => calls.of(lease.acquire(key, holder, ttlMs)),
    renew: (key, token, ttlMs) => calls.of(lease.renew(key, token, ttlMs)),
    release: (key, token) => calls.of(lease.release(key, token)),
    get: (key) => calls.of(lease.get(key)),
  }
}
