/**
 * The storage contract: what a module may ask of a store, and what each driver promises.
 *
 * One contract, no capability flags: a driver does all of it, proven by `test/contracts/storage.ts`, or is
 * not accepted. "Resolved" means visible to every later read, in any process, and safe against a crash of
 * this process; safety against power loss is a setting of the driver. Writes that one process makes to one
 * key, or to one archive of an owner, take effect in the order of the calls, also when it does not wait
 * between them; those to different keys in any order.
 *
 * Text (owners, keys, names, strings in documents) is well-formed Unicode; a lone surrogate is refused with
 * TypeError. What `limits.ts` refuses, it refuses in every driver: wrong lengths with RangeError, documents
 * that are not {@link Doc} with TypeError, documents that are too large with {@link DocTooLarge}. Iterators
 * hold no snapshot: what exists during the whole iteration comes exactly once, what is written meanwhile may
 * or may not.
 */

/** Values a document may hold, apart from bytes at its top level. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [k: string]: Json }
/**
 * A stored document. A field that is undefined is left out, at any depth; numbers are finite (-0 may come
 * back as 0); no field name has a NUL; bytes come back as a plain Uint8Array of their own. Up to 4 MiB of
 * text and bytes is always taken, over 8 MiB never.
 */
export type Doc = { readonly [field: string]: Json | Uint8Array }

/**
 * One store as a module sees it; opened per (host, module). The same call twice returns the same collection.
 */
export interface Storage {
  /**
   * Documents by (owner, key). `index` names string fields that `find` may use; a field may be added in a
   * later version of a module, the documents stored before are then found as well.
   */
  docs<T extends Doc>(name: string, opts?: { readonly index?: readonly (keyof T & string)[] }): Docs<T>
  /**
   * An append-only log per owner. `text` gives the text of a document that {@link Query.text} searches;
   * without it, it is the string field `text` of the document, if it has one.
   */
  archive<T extends Doc>(name: string, opts?: { readonly text?: (doc: T) => string | undefined }): Archive<T>
  /** Strictly increasing numbers per owner. */
  counter(name: string): Counter
  /** Time-bounded ownership of a name. */
  lease(name: string): Lease
}

/**
 * Documents by (owner, key). Owner: localpart, room name or '' for the host, up to 1023 bytes of UTF-8; key
 * up to 3071.
 */
export interface Docs<T> {
  /** The document, or undefined. */
  get(owner: string, key: string): Promise<T | undefined>
  /** Stores, replacing what was there. */
  put(owner: string, key: string, doc: T): Promise<void>
  /**
   * Atomic read-modify-write. `fn` is pure and may run again; returning undefined deletes. Resolves to what
   * is stored. What `fn` throws is what the promise rejects with; nothing is changed then.
   */
  update(owner: string, key: string, fn: (old: T | undefined) => T | undefined): Promise<T | undefined>
  /** Whether there was something to delete. */
  delete(owner: string, key: string): Promise<boolean>
  /**
   * All documents of an owner after `afterKey` (which need not exist any more), in order of the key, bytewise
   * on its first 512 bytes; beyond those in an order of the driver that stays the same.
   */
  list(owner: string, afterKey?: string): AsyncIterable<readonly [key: string, doc: T]>
  /**
   * Documents of any owner whose declared index field has this value. Throws RangeError when the field is not
   * declared.
   */
  find(field: keyof T & string, value: string): AsyncIterable<readonly [owner: string, key: string, doc: T]>
  /** Each owner that has a document, once. */
  owners(): AsyncIterable<string>
  /** Deletes all documents of an owner; resolves to their number. */
  purge(owner: string): Promise<number>
}

/**
 * Append-only log per owner. Ids are opaque, unique per owner for ever (also after the entries, or the owner,
 * were removed), and sort bytewise in append order. Once a reader has seen an id, no lower id of that owner
 * appears.
 */
export interface Archive<T> {
  /**
   * `at`: years 0 to 9999, need not grow with the ids; `with`: up to 3071 bytes. `dedupe` (up to 3071 bytes):
   * at most one entry per owner and key; a repeat stores nothing and resolves to the first entry's id, as
   * long as that is stored.
   */
  append(
    owner: string,
    entry: { readonly at: Date; readonly with: string; readonly doc: T; readonly dedupe?: string },
  ): Promise<{ readonly id: string; readonly duplicate: boolean }>
  /** Throws {@link UnknownEntry} when `after` or `before` is not stored (XEP-0059 §2). */
  page(owner: string, q: Query): Promise<Page<T>>
  /**
   * Replaces the document of an entry in its place, all else of it stays (tombstones, XEP-0424); false when
   * there is none.
   */
  replace(owner: string, id: string, doc: T): Promise<boolean>
  /**
   * Removes entries by id, by age (`until` inclusive), those in front of an id (`before`, which need not be
   * stored any more), or all but the newest `keepLast`; of several conditions all must hold, of none nothing
   * is removed. Resolves to their number. Large removals are not one transaction.
   */
  remove(owner: string, q: Removal): Promise<number>
  /** Each owner that has an entry, once. */
  owners(): AsyncIterable<string>
}

/** What to remove from an archive: see {@link Archive.remove}. */
export interface Removal {
  readonly ids?: readonly string[]
  readonly until?: Date
  readonly before?: string
  readonly keepLast?: number
}

/**
 * What page of an archive to read: entries that match all of `text`, `with`, `start`, `end`, `ids`, between
 * `after` and `before`.
 */
export interface Query {
  /**
   * Full-text search (XEP-0431): every word given must occur; words as `words.ts` finds them. No word:
   * matches all.
   */
  readonly text?: string
  readonly with?: string
  /** Both ends inclusive, milliseconds. */
  readonly start?: Date
  readonly end?: Date
  /** Neither end is included; the entry must be stored, but need not match. */
  readonly after?: string
  readonly before?: string
  /** Only these; ids that are not stored are passed over. At most 1000. */
  readonly ids?: readonly string[]
  /** Which end to fill the page from; entries always come back oldest first. */
  readonly from: 'first' | 'last'
  /** 1 to 1000, required. */
  readonly limit: number
  /**
   * Also count all entries that match the filter, whatever the page: `after`, `before` and `limit` do not
   * matter.
   */
  readonly count?: boolean
  /**
   * Entries that are looked at, 1 or more: the page ends after so many, whether they match or not, so that a
   * search takes a bounded time. What a driver finds by an index it need not look at; a large entry may count
   * as several. Does not bound `count`.
   */
  readonly effort?: number
}
/** One page; `complete` when nothing that matches lies beyond it in the direction of `from`. */
export interface Page<T> {
  readonly entries: readonly Entry<T>[]
  readonly complete: boolean
  readonly count?: number
  /** Where `effort` ended the page: the id of the last entry that was looked at. What follows it is unknown. */
  readonly reached?: string
}
/** One entry of an archive. */
export interface Entry<T> {
  readonly id: string
  readonly at: Date
  readonly with: string
  readonly doc: T
}

/**
 * Strictly increasing integers per owner, from 1 or more: roster versions, pubsub serials. Gaps allowed,
 * repeats never, also after the owner was purged: a client may still remember what it saw before.
 */
export interface Counter {
  /** Grows the counter and resolves to its new value. */
  next(owner: string): Promise<number>
  /** The last value given, or 0 when there is none. */
  get(owner: string): Promise<number>
}

/** Time-bounded ownership. `token` grows with each grant, so a late holder can be refused (fencing). */
export interface Lease {
  /**
   * Grants what is free, expired, or held by the same holder (a node that restarted): each grant has a new
   * token, the one before is worth nothing. Undefined while somebody else holds it.
   */
  acquire(key: string, holder: string, ttlMs: number): Promise<{ readonly token: number } | undefined>
  /** Holds it for `ttlMs` from now; false when the token is not the current one, or its time is over. */
  renew(key: string, token: number, ttlMs: number): Promise<boolean>
  /** Frees it; nothing happens when the token is not the current one. */
  release(key: string, token: number): Promise<void>
  /** Who holds it now, or undefined. */
  get(key: string): Promise<{ readonly holder: string; readonly token: number } | undefined>
}

/** A page was asked for relative to an entry that is not stored. */
export class UnknownEntry extends Error {
  override name = 'UnknownEntry'
}

/** A document is larger than any driver has to take (8 MiB of text and bytes); nothing was stored. */
export class DocTooLarge extends Error {
  override name = 'DocTooLarge'
}

/**
 * The store cannot be used: wrong address, wrong credentials, wrong schema version. The message is for the
 * operator.
 */
export class StoreUnavailable extends Error {
  override name = 'StoreUnavailable'
  /** Of a page with `effort` that was given up: resolves when the store does not work on it any more. */
  over?: Promise<unknown>
}

/** One opened store, shared by all hosts and modules of the process. */
export interface Store {
  /** Driver name, for logs. */
  readonly driver: string
  /** The collections of one module of one host; host '' is the server itself. */
  open(host: string, module: string): Storage
  /**
   * Deletes what this owner has in every collection of every module of the host (documents, archives,
   * counters), loaded or not; resolves to the number of documents and entries.
   */
  purgeOwner(host: string, owner: string): Promise<number>
  /** Whether the store answers now; never throws. */
  healthy(): Promise<boolean>
  /**
   * Waits for pending writes, then closes; later calls reject with {@link StoreUnavailable}. Safe to call
   * twice.
   */
  close(): Promise<void>
}
