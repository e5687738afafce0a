/**
 * The storage contract: what a module may ask of a store, and what each driver promises.
 *
 * One contract, no capability flags: a driver does all of it, proven by `test/contracts/storage.ts`, or is not
 * accepted. "Resolved" means visible to every later read and safe against a crash of this process; safety against
 * power loss is a setting of the driver.
 */

/** Values a document may hold, apart from bytes at its top level. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [k: string]: Json }
/** A stored document. */
export type Doc = { readonly [field: string]: Json | Uint8Array }

/** One store as a module sees it; opened per (host, module). The same call twice returns the same collection. */
export interface Storage {
  /** Documents by (owner, key). `index` names string fields that `find` may use. */
  docs<T extends Doc>(name: string, opts?: { readonly index?: readonly (keyof T & string)[] }): Docs<T>
  /** An append-only log per owner. */
  archive<T extends Doc>(name: string): Archive<T>
  /** Strictly increasing numbers per owner. */
  counter(name: string): Counter
  /** Time-bounded ownership of a name. */
  lease(name: string): Lease
}

/** Documents by (owner, key). Owner: localpart, room name or '' for the host, up to 1023 bytes of UTF-8; key up to 3071. */
export interface Docs<T> {
  /** The document, or undefined. */
  get(owner: string, key: string): Promise<T | undefined>
  /** Stores, replacing what was there. */
  put(owner: string, key: string, doc: T): Promise<void>
  /** Atomic read-modify-write. `fn` is pure and may run again; returning undefined deletes. Resolves to what is stored. */
  update(owner: string, key: string, fn: (old: T | undefined) => T | undefined): Promise<T | undefined>
  /** Whether there was something to delete. */
  delete(owner: string, key: string): Promise<boolean>
  /** All documents of an owner after `afterKey`, in order of the key, bytewise on its first 512 bytes. */
  list(owner: string, afterKey?: string): AsyncIterable<readonly [key: string, doc: T]>
  /** Documents of any owner whose declared index field has this value. */
  find(field: keyof T & string, value: string): AsyncIterable<readonly [owner: string, key: string, doc: T]>
  /** Each owner that has a document, once. */
  owners(): AsyncIterable<string>
  /** Deletes all documents of an owner; resolves to their number. */
  purge(owner: string): Promise<number>
}

/** Append-only log per owner. Ids are opaque, unique, and sort bytewise in append order. */
export interface Archive<T> {
  /** `dedupe`: at most one entry per owner and key; a repeat stores nothing and resolves to the first entry's id. */
  append(
    owner: string,
    entry: { readonly at: Date; readonly with: string; readonly doc: T; readonly dedupe?: string },
  ): Promise<{ readonly id: string; readonly duplicate: boolean }>
  /** Throws {@link UnknownEntry} when `after` or `before` is not stored (XEP-0059 §2). */
  page(owner: string, q: Query): Promise<Page<T>>
  /** Replaces the document of an entry in its place (tombstones, XEP-0424); false when there is none. */
  replace(owner: string, id: string, doc: T): Promise<boolean>
  /** Removes entries by id, by age, or all but the newest `keepLast`; resolves to their number. */
  remove(
    owner: string,
    q: { readonly ids?: readonly string[]; readonly until?: Date; readonly keepLast?: number },
  ): Promise<number>
  /** Each owner that has an entry, once. */
  owners(): AsyncIterable<string>
}

/** What page of an archive to read. */
export interface Query {
  /** Full-text search (XEP-0431): every word given must occur; words by Intl.Segmenter, case folded. */
  readonly text?: string
  readonly with?: string
  /** Both ends inclusive, milliseconds. */
  readonly start?: Date
  readonly end?: Date
  readonly after?: string
  readonly before?: string
  readonly ids?: readonly string[]
  /** Which end to fill the page from; entries always come back oldest first. */
  readonly from: 'first' | 'last'
  /** 1 to 1000, required. */
  readonly limit: number
  /** Also count all entries that match the filter, whatever the page. */
  readonly count?: boolean
}
/** One page; `complete` when nothing that matches lies beyond it in the direction of `from`. */
export interface Page<T> {
  readonly entries: readonly Entry<T>[]
  readonly complete: boolean
  readonly count?: number
}
/** One entry of an archive. */
export interface Entry<T> {
  readonly id: string
  readonly at: Date
  readonly with: string
  readonly doc: T
}

/** Strictly increasing integers per owner: roster versions, pubsub serials. Gaps allowed, repeats never. */
export interface Counter {
  next(owner: string): Promise<number>
  get(owner: string): Promise<number>
}

/** Time-bounded ownership. `token` grows with each grant, so a late holder can be refused (fencing). */
export interface Lease {
  acquire(key: string, holder: string, ttlMs: number): Promise<{ readonly token: number } | undefined>
  renew(key: string, token: number, ttlMs: number): Promise<boolean>
  release(key: string, token: number): Promise<void>
}

/** A page was asked for relative to an entry that is not stored. */
export class UnknownEntry extends Error {
  override name = 'UnknownEntry'
}

/** The store cannot be used: wrong address, wrong credentials, wrong schema version. The message is for the operator. */
export class StoreUnavailable extends Error {
  override name = 'StoreUnavailable'
}

/** One opened store, shared by all hosts and modules of the process. */
export interface Store {
  /** Driver name, for logs. */
  readonly driver: string
  /** The collections of one module of one host; host '' is the server itself. */
  open(host: string, module: string): Storage
  /**
   * Deletes what this owner has in every collection of every module of the host (documents, archives, counters),
   * loaded or not; resolves to the number of documents and entries.
   */
  purgeOwner(host: string, owner: string): Promise<number>
  /** Whether the store answers now; never throws. */
  healthy(): Promise<boolean>
  /** Waits for pending writes, then closes. Safe to call twice. */
  close(): Promise<void>
}
