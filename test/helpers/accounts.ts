/** The accounts of a host in memory. */
import * as crypto from 'node:crypto'
import type { AnyModule } from '../../server/loader.ts'
import type { AuthService, ScramKeys } from '../../server/module.ts'

/** Accounts that exist and nothing more; with a password, that of all of them, as in a directory. */
export function accountsStub(locals: readonly string[], password?: string): AnyModule {
  const known = new Set(locals)
  const keys = (): ScramKeys => ({
    salt: crypto.randomBytes(16),
    iterations: 4096,
    storedKey: new Uint8Array(20),
    serverKey: new Uint8Array(20),
  })
  const auth: AuthService = {
    exists: (local) => known.has(local),
    scramKeys: async () => undefined,
    scramHashes: [],
    decoyKeys: keys,
    verify: async (local, tried) => known.has(local) && tried === password,
    create: async (local) => void known.add(local),
    setPassword: async () => undefined,
    remove: async (local) => known.delete(local),
    list: async function* () {
      yield* known
    },
    info: async () => undefined,
  }
  return { name: 'accounts', summary: 'test accounts', specs: [], setup: (ctx) => ctx.provide('auth', auth) }
}
