/**
 * The embedded driver: everything in one folder, in an LMDB environment (package `lmdb`), nothing to install
 * or start. Several processes may have the folder open at once, on one machine and not on a network file
 * system. The layout is described in lmdb/keys.ts, what is acknowledged when in lmdb/env.ts. Not for several
 * machines: that is mongodb.ts.
 */
import { accessSync, constants, mkdirSync, statSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { StoreUnavailable } from './contract.ts'
import type { Archive, Doc, Docs, Storage, Store } from './contract.ts'
import { checkName, checkOwner } from './limits.ts'
import { LmdbArchive, dropArchive } from './lmdb/archive.ts'
import { Catalogue } from './lmdb/catalogue.ts'
import { LmdbDocs, purgeDocs } from './lmdb/docs.ts'
import { Heads } from './lmdb/entries.ts'
import { Env } from './lmdb/env.ts'
import type { EnvOptions } from './lmdb/env.ts'
import { flaw } from './lmdb/file.ts'
import { LmdbCounter, LmdbLease, purgeCounter } from './lmdb/numbers.ts'
import { textField } from './words.ts'

/** Settings of {@link openLmdb}. */
export interface LmdbOptions {
  /** Folder of the data; made when it is missing. */
  readonly path: string
  /**
   * Acknowledge a write when it is on the disk; else when it is safe against a crash of the process. Default
   * false.
   */
  readonly durable?: boolean
  /** Clock, milliseconds since the epoch: leases, and entries whose time lies in the future. */
  readonly now?: () => number
  /** First size of the memory map, bytes; it grows by itself, so this is for few remappings only. */
  readonly mapSize?: number
  /**
   * When the disk, or another process with the folder open, keeps a write waiting for longer than this,
   * writes are refused until it is through, and the store is not healthy; milliseconds. Default 30 seconds.
   */
  readonly patienceMs?: number
}

/**
 * Opens the store in a folder. Throws StoreUnavailable, with a sentence for the operator, when the folder
 * cannot be used, what is in it is not such a store, or a later version of the server wrote it.
 */
export async function openLmdb(opts: LmdbOptions): Promise<Store> {
  const { path, durable = false, now = Date.now, patienceMs = 30_000 } = opts
  const env = openEnv({ path, durable, mapSize: opts.mapSize, patienceMs })
  const catalogue = new Catalogue(env)
  const heads = new Heads(env)
  try {
    catalogue.checkSchema(path)
    env.openTables()
    await catalogue.storeSchema()
  } catch (error) {
    await env.close()
    throw error
  }
  const collections = new Map<string, unknown>()

  // The kind is part of the id, so what is found is what `make` makes.
  function collection<C>(kind: string, host: string, module: string, name: string, make: () => C): C {
    checkName('collection', name)
    const id = [kind, host, module, name].join('\0')
    let found = collections.get(id) as C | undefined
    if (found === undefined) collections.set(id, (found = make()))
    return found
  }

  function storage(host: string, module: string): Storage {
    checkName('host', host)
    checkName('module', module)
    return {
      docs<T extends Doc>(name: string, o?: { readonly index?: readonly (keyof T & string)[] }): Docs<T> {
        const docs = collection(
          'docs',
          host,
          module,
          name,
          () => new LmdbDocs<T>(env, catalogue, host, module, name),
        )
        for (const field of o?.index ?? []) docs.declare(field)
        return docs
      },
      archive<T extends Doc>(
        name: string,
        o?: { readonly text?: (doc: T) => string | undefined },
      ): Archive<T> {
        const text = o?.text ?? textField
        return collection(
          'archive',
          host,
          module,
          name,
          () => new LmdbArchive<T>(env, catalogue, heads, { now, text }, host, module, name),
        )
      },
      counter: (name) =>
        collection('counter', host, module, name, () => new LmdbCounter(env, catalogue, host, module, name)),
      lease: (name) =>
        collection('lease', host, module, name, () => new LmdbLease(env, catalogue, now, host, module, name)),
    }
  }

  return {
    driver: 'lmdb',
    open: storage,
    async purgeOwner(host, owner) {
      checkName('host', host)
      checkOwner(owner)
      let count = 0
      for (const { kind, place, number } of env.read(() => catalogue.ofHost(host))) {
        if (kind === 'docs') count += await purgeDocs(env, catalogue, place, owner)
        else if (kind === 'archive') count += await dropArchive(env, catalogue, heads, place, owner)
        else if (kind === 'counter') await purgeCounter(env, number, owner)
      }
      return count
    },
    async healthy() {
      if (!env.usable) return false
      try {
        env.read(() => catalogue.checkSchema(path))
        return true
      } catch {
        return false
      }
    },
    close: () => env.close(),
  }
}

function openEnv(opts: EnvOptions): Env {
  const { path } = opts
  try {
    makeFolder(resolve(path))
  } catch (error) {
    const isFile = statSync(path, { throwIfNoEntry: false })?.isFile() === true
    const why = isFile ? 'it is a file, not a folder' : `the folder cannot be made: ${reason(error)}`
    throw new StoreUnavailable(`the store cannot be opened in ${path}: ${why}`, { cause: error })
  }
  try {
    accessSync(path, constants.R_OK + constants.W_OK + constants.X_OK)
    for (const name of ['data.mdb', 'lock.mdb']) {
      const file = join(path, name)
      if (statSync(file, { throwIfNoEntry: false }) !== undefined)
        accessSync(file, constants.R_OK + constants.W_OK)
    }
  } catch (error) {
    throw new StoreUnavailable(
      `the store cannot be opened in ${path}: no right to read and write there: ${reason(error)}`,
      {
        cause: error,
      },
    )
  }
  const problem = flaw(join(path, 'data.mdb'))
  if (problem !== undefined) throw new StoreUnavailable(`the store cannot be opened in ${path}: ${problem}`)
  try {
    return new Env(opts)
  } catch (error) {
    throw new StoreUnavailable(`the store cannot be opened in ${path}: ${reason(error)}`, { cause: error })
  }
}

// Not with `recursive`: where a folder can never be made, as below /proc, Node 26 tries for ever.
function makeFolder(path: string): void {
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory() === true) return
  if (dirname(path) !== path) makeFolder(dirname(path))
  try {
    mkdirSync(path)
  } catch (error) {
    // Another process may have made it.
    if (statSync(path, { throwIfNoEntry: false })?.isDirectory() !== true) throw error
  }
}

function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
