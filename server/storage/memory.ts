/**
 * The reference driver: everything in maps of this process, gone with it. Small on purpose, because the other
 * drivers are compared with it; right for tests and for trying the server out, not for archives that grow.
 */
import { StoreUnavailable } from './contract.ts'
import type { Archive, Counter, Doc, Docs, Lease, Storage, Store } from './contract.ts'
import { checkKey, checkName, checkOwner, checkTtl, copyDoc } from './limits.ts'
import { MemoryArchive } from './memory-archive.ts'
import type { Collection } from './memory-archive.ts'
import { textField } from './words.ts'

/** Opens an empty store; `now` is the clock of leases, milliseconds since the epoch. */
export async function openMemory(opts: { readonly now?: () => number } = {}): Promise<Store> {
  const now = opts.now ?? Date.now
  const collections = new Map<string, Collection>()
  let open = true

  function check(): void {
    if (!open) throw new StoreUnavailable('the store is closed')
  }

  function collection<C extends Collection>(
    host: string,
    module: string,
    kind: string,
    name: string,
    make: () => C,
  ): C {
    checkName('collection', name)
    const id = [host, module, kind, name].join('\0')
    let found = collections.get(id)
    if (found === undefined) collections.set(id, (found = make()))
    return found as C // the kind is part of the id
  }

  function storage(host: string, module: string): Storage {
    checkName('host', host)
    checkName('module', module)
    return {
      docs<T extends Doc>(name: string, o?: { readonly index?: readonly (keyof T & string)[] }): Docs<T> {
        const docs = collection(host, module, 'docs', name, () => new MemoryDocs<T>(check))
        for (const field of o?.index ?? []) docs.declare(field)
        return docs
      },
      archive<T extends Doc>(
        name: string,
        o?: { readonly text?: (doc: T) => string | undefined },
      ): Archive<T> {
        return collection(
          host,
          module,
          'archive',
          name,
          () => new MemoryArchive<T>(check, o?.text ?? textField),
        )
      },
      counter: (name) => collection(host, module, 'counter', name, () => new MemoryCounter(check)),
      lease: (name) => collection(host, module, 'lease', name, () => new MemoryLease(check, now)),
    }
  }

  return {
    driver: 'memory',
    open: storage,
    async purgeOwner(host, owner) {
      check()
      checkOwner(owner)
      let count = 0
      for (const [id, found] of collections) if (id.startsWith(`${host}\0`)) count += found.drop(owner)
      return count
    },
    healthy: async () => open,
    async close() {
      open = false
      collections.clear()
    },
  }
}

interface Row<T> {
  readonly owner: string
  readonly key: string
  doc: T
}

class MemoryDocs<T extends Doc> implements Docs<T>, Collection {
  readonly #check: () => void
  readonly #owners = new Map<string, Map<string, Row<T>>>()
  readonly #indexes = new Map<string, Map<string, Set<Row<T>>>>()

  constructor(check: () => void) {
    this.#check = check
  }

  declare(field: string): void {
    checkName('index field', field)
    if (this.#indexes.has(field)) return
    this.#indexes.set(field, new Map())
    for (const rows of this.#owners.values()) for (const row of rows.values()) this.#index(field, row)
  }

  async get(owner: string, key: string): Promise<T | undefined> {
    this.#enter(owner, key)
    const row = this.#owners.get(owner)?.get(key)
    return row === undefined ? undefined : copyDoc(row.doc)
  }

  async put(owner: string, key: string, doc: T): Promise<void> {
    this.#enter(owner, key)
    this.#set(owner, key, copyDoc(doc))
  }

  async update(
    owner: string,
    key: string,
    fn: (old: T | undefined) => T | undefined,
  ): Promise<T | undefined> {
    this.#enter(owner, key)
    const old = this.#owners.get(owner)?.get(key)
    const doc = fn(old === undefined ? undefined : copyDoc(old.doc))
    if (doc === undefined) this.#delete(owner, key)
    else this.#set(owner, key, copyDoc(doc))
    return doc === undefined ? undefined : copyDoc(doc)
  }

  async delete(owner: string, key: string): Promise<boolean> {
    this.#enter(owner, key)
    return this.#delete(owner, key)
  }

  async *list(owner: string, afterKey?: string): AsyncIterable<readonly [key: string, doc: T]> {
    this.#enter(owner, afterKey ?? '')
    const rows = [...(this.#owners.get(owner)?.values() ?? [])].map((row) => ({
      row,
      bytes: Buffer.from(row.key),
    }))
    const after = afterKey === undefined ? undefined : Buffer.from(afterKey)
    for (const { row } of rows
      .filter(({ bytes }) => after === undefined || Buffer.compare(bytes, after) > 0)
      .sort((a, b) => Buffer.compare(a.bytes, b.bytes))) {
      this.#check()
      if (this.#owners.get(owner)?.get(row.key) === row) yield [row.key, copyDoc(row.doc)]
    }
  }

  async *find(field: keyof T & string, value: string): AsyncIterable<readonly [string, string, T]> {
    this.#check()
    const index = this.#indexes.get(field)
    if (index === undefined) throw new RangeError(`no index on ${field} is declared`)
    for (const row of Array.from(index.get(value) ?? [])) {
      this.#check()
      if (index.get(value)?.has(row) === true) yield [row.owner, row.key, copyDoc(row.doc)]
    }
  }

  async *owners(): AsyncIterable<string> {
    this.#check()
    for (const owner of Array.from(this.#owners.keys())) if (this.#owners.has(owner)) yield owner
  }

  async purge(owner: string): Promise<number> {
    this.#enter(owner, '')
    return this.drop(owner)
  }

  drop(owner: string): number {
    const rows = [...(this.#owners.get(owner)?.values() ?? [])]
    for (const row of rows) this.#delete(owner, row.key)
    return rows.length
  }

  #enter(owner: string, key: string): void {
    this.#check()
    checkOwner(owner)
    checkKey(key)
  }

  #set(owner: string, key: string, doc: T): void {
    let rows = this.#owners.get(owner)
    if (rows === undefined) this.#owners.set(owner, (rows = new Map<string, Row<T>>()))
    let row = rows.get(key)
    if (row === undefined) rows.set(key, (row = { owner, key, doc }))
    else {
      for (const field of this.#indexes.keys()) this.#unindex(field, row)
      row.doc = doc
    }
    for (const field of this.#indexes.keys()) this.#index(field, row)
  }

  #delete(owner: string, key: string): boolean {
    const rows = this.#owners.get(owner)
    const row = rows?.get(key)
    if (rows === undefined || row === undefined) return false
    for (const field of this.#indexes.keys()) this.#unindex(field, row)
    rows.delete(key)
    if (rows.size === 0) this.#owners.delete(owner)
    return true
  }

  #index(field: string, row: Row<T>): void {
    const value = row.doc[field]
    const index = this.#indexes.get(field)
    if (typeof value !== 'string' || index === undefined) return
    const found = index.get(value)
    if (found === undefined) index.set(value, new Set([row]))
    else found.add(row)
  }

  #unindex(field: string, row: Row<T>): void {
    const value = row.doc[field]
    const index = this.#indexes.get(field)
    if (typeof value !== 'string' || index === undefined) return
    const found = index.get(value)
    found?.delete(row)
    if (found?.size === 0) index.delete(value)
  }
}

class MemoryCounter implements Counter, Collection {
  readonly #check: () => void
  readonly #values = new Map<string, number>()
  // New owners start after what purged owners had: an owner of the same name must not see a number again.
  #floor = 0

  constructor(check: () => void) {
    this.#check = check
  }

  async next(owner: string): Promise<number> {
    this.#check()
    checkOwner(owner)
    const value = (this.#values.get(owner) ?? this.#floor) + 1
    this.#values.set(owner, value)
    return value
  }

  async get(owner: string): Promise<number> {
    this.#check()
    checkOwner(owner)
    return this.#values.get(owner) ?? 0
  }

  drop(owner: string): number {
    this.#floor = Math.max(this.#floor, this.#values.get(owner) ?? 0)
    this.#values.delete(owner)
    return 0
  }
}

class MemoryLease implements Lease, Collection {
  readonly #check: () => void
  readonly #now: () => number
  readonly #held = new Map<
    string,
    { readonly holder: string; readonly token: number; readonly until: number }
  >()
  #last = 0

  constructor(check: () => void, now: () => number) {
    this.#check = check
    this.#now = now
  }

  async acquire(key: string, holder: string, ttlMs: number): Promise<{ readonly token: number } | undefined> {
    this.#enter(key)
    checkKey(holder, 'holder')
    checkTtl(ttlMs)
    const held = this.#live(key)
    if (held !== undefined && held.holder !== holder) return undefined
    this.#last += 1
    this.#held.set(key, { holder, token: this.#last, until: this.#now() + ttlMs })
    return { token: this.#last }
  }

  async renew(key: string, token: number, ttlMs: number): Promise<boolean> {
    this.#enter(key)
    checkTtl(ttlMs)
    const held = this.#live(key)
    if (held === undefined || held.token !== token) return false
    this.#held.set(key, { ...held, until: this.#now() + ttlMs })
    return true
  }

  async release(key: string, token: number): Promise<void> {
    this.#enter(key)
    if (this.#held.get(key)?.token === token) this.#held.delete(key)
  }

  async get(key: string): Promise<{ readonly holder: string; readonly token: number } | undefined> {
    this.#enter(key)
    const held = this.#live(key)
    return held === undefined ? undefined : { holder: held.holder, token: held.token }
  }

  drop(): number {
    return 0
  }

  #enter(key: string): void {
    this.#check()
    checkKey(key)
  }

  #live(
    key: string,
  ): { readonly holder: string; readonly token: number; readonly until: number } | undefined {
    const held = this.#held.get(key)
    return held === undefined || this.#now() >= held.until ? undefined : held
  }
}
