/**
 * The driver for MongoDB (standalone, replica set, sharded) and servers that speak its protocol. Several processes may use
 * one database: together they are one store. How documents lie there: `mongodb/docs.ts`, `mongodb/archive-rows.ts`,
 * `mongodb/numbers.ts`, names and keys in `mongodb/keys.ts`.
 *
 * In a sharded cluster each collection stays whole on one shard, as it does unless told otherwise: archives need two unique
 * keys, and MongoDB keeps only one unique across shards. Servers must change a document in one step; FerretDB 1 does not.
 */
import type { Archive, Counter, Doc, Docs, Lease, Storage, Store } from './contract.ts'
import { checkName, checkOwner } from './limits.ts'
import { Lanes } from './mongodb/append.ts'
import { archiveRows, ownerKeys } from './mongodb/archive-rows.ts'
import type { ArchiveRows } from './mongodb/archive-rows.ts'
import { MongoArchive } from './mongodb/archive.ts'
import { connect } from './mongodb/connect.ts'
import type { Connection, MongoConfig } from './mongodb/connection.ts'
import { MongoDocs, purgeDocs } from './mongodb/docs.ts'
import type { DocsRows } from './mongodb/docs.ts'
import { collectionName, hiddenKey, kindOf, ownerKey } from './mongodb/keys.ts'
import { MongoCounter, MongoLease, purgeCounter } from './mongodb/numbers.ts'
import { purgeArchive } from './mongodb/removal.ts'
import { Writes } from './mongodb/writes.ts'
import { textField } from './words.ts'

export type { MongoConfig } from './mongodb/connection.ts'

/** Opens a database. Throws {@link StoreUnavailable} with one sentence when it cannot be used. */
export async function openMongodb(config: MongoConfig): Promise<Store> {
  return new MongoStore(await connect(config))
}

class MongoStore implements Store {
  readonly driver = 'mongodb'
  readonly #connection: Connection
  readonly #docsRows = new Map<string, DocsRows>()
  readonly #archives = new Map<string, { readonly shared: ArchiveRows; readonly lanes: Lanes }>()
  // Collections of modules by host, kind, module and name.
  readonly #collections = new Map<string, unknown>()

  constructor(connection: Connection) {
    this.#connection = connection
  }

  open(host: string, module: string): Storage {
    checkName('host', host)
    checkName('module', module)
    const connection = this.#connection
    return {
      docs: <T extends Doc>(
        name: string,
        o?: { readonly index?: readonly (keyof T & string)[] },
      ): Docs<T> => {
        const docs = this.#once(['docs', host, module, name], () => {
          return new MongoDocs<T>(this.#docsOf(collectionName('docs', module, name)), host)
        })
        for (const field of o?.index ?? []) docs.declare(field)
        return docs
      },
      archive: <T extends Doc>(
        name: string,
        o?: { readonly text?: (doc: T) => string | undefined },
      ): Archive<T> =>
        this.#once(['archive', host, module, name], () => {
          const { shared, lanes } = this.#archiveOf(collectionName('archive', module, name))
          // A failure comes up again in the first operation, which tries once more.
          shared.ready().catch(() => undefined)
          return new MongoArchive<T>(shared, lanes, host, o?.text ?? textField)
        }),
      counter: (name: string): Counter =>
        this.#once(['counter', host, module, name], () => {
          return new MongoCounter(connection, connection.rows(collectionName('counter', module, name)), host)
        }),
      lease: (name: string): Lease =>
        this.#once(['lease', host, module, name], () => {
          return new MongoLease(connection, connection.rows(collectionName('lease', module, name)), host)
        }),
    }
  }

  async purgeOwner(host: string, owner: string): Promise<number> {
    this.#connection.check()
    checkOwner(owner)
    return this.#connection.track(this.#purge(host, owner))
  }

  async #purge(host: string, owner: string): Promise<number> {
    const connection = this.#connection
    // Also those of modules that are not loaded.
    const collections = await connection.run((opts) =>
      connection.db.listCollections({}, { nameOnly: true, ...opts }).toArray(),
    )
    let count = 0
    for (const { name } of collections) {
      const rows = connection.rows(name)
      const kind = kindOf(name)
      if (kind === 'docs') count += await purgeDocs(connection, rows, ownerKey(host, owner))
      else if (kind === 'archive') {
        const { shared } = this.#archiveOf(name)
        await shared.ready()
        count += await purgeArchive(shared, ownerKeys(host, owner))
      } else if (kind === 'counter') await purgeCounter(connection, rows, hiddenKey(host, owner))
    }
    return count
  }

  healthy(): Promise<boolean> {
    return this.#connection.ping()
  }

  close(): Promise<void> {
    return this.#connection.close()
  }

  #docsOf(name: string): DocsRows {
    let found = this.#docsRows.get(name)
    if (found === undefined) {
      const rows = this.#connection.rows(name)
      found = { connection: this.#connection, name, rows, writes: new Writes(this.#connection, rows) }
      this.#docsRows.set(name, found)
    }
    return found
  }

  #archiveOf(name: string): { readonly shared: ArchiveRows; readonly lanes: Lanes } {
    let found = this.#archives.get(name)
    if (found === undefined) {
      const shared = archiveRows(this.#connection, name)
      found = { shared, lanes: new Lanes(shared) }
      this.#archives.set(name, found)
    }
    return found
  }

  #once<C>(id: readonly [kind: string, host: string, module: string, name: string], make: () => C): C {
    checkName('collection', id[3])
    const key = id.join('\0')
    let found = this.#collections.get(key)
    if (found === undefined) this.#collections.set(key, (found = make()))
    return found as C // the kind is part of the id
  }
}
