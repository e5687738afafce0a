/** Opens the store that a configuration names. A driver that is not used is not loaded. */
import { type Store, StoreUnavailable } from './contract.ts'
import type { MongoConfig } from './mongodb.ts'

/** Which driver, and where its data is. */
export type StoreConfig =
  | { readonly driver: 'memory' }
  | { readonly driver: 'lmdb'; readonly path: string; readonly durable?: boolean }
  /** `url` is a connection string, or `env:NAME` to take it from the environment. */
  | ({ readonly driver: 'mongodb' } & Omit<MongoConfig, 'now' | 'onCommand' | 'settleMs'>)

/** Throws StoreUnavailable with one sentence for the operator. */
export async function openStore(config: StoreConfig): Promise<Store> {
  switch (config.driver) {
    case 'memory': {
      const { openMemory } = await import('./memory.ts')
      return openMemory()
    }
    case 'lmdb': {
      const { openLmdb } = await import('./lmdb.ts')
      const { path, durable } = config
      return openLmdb({ path, ...(durable === undefined ? {} : { durable }) })
    }
    case 'mongodb': {
      const { openMongodb } = await import('./mongodb.ts')
      const { driver: _, ...rest } = config
      return openMongodb({ ...rest, url: fromEnvironment(rest.url) })
    }
  }
}

function fromEnvironment(url: string): string {
  if (!url.startsWith('env:')) return url
  const value = process.env[url.slice('env:'.length)]
  if (value === undefined || value === '')
    throw new StoreUnavailable(`the environment variable ${url.slice('env:'.length)} is not set`)
  return value
}
