/** The modules that benchmarks on a host in memory use. */
import { findModules } from '../../server/catalog.ts'
import { DEFAULT_MODULES } from '../../server/default-modules.ts'
import type { AnyModule } from '../../server/loader.ts'

/** Those that need no HTTP server and keep no accounts: these are made up by the benchmark. */
const OTHERS = new Set(['accounts', 'register', 'websocket', 'host-meta', 'web-client'])

/** The default modules without the others; `bare`: none. */
export async function benchModules(bare: boolean): Promise<readonly AnyModule[]> {
  if (bare) return []
  const all = await findModules()
  return DEFAULT_MODULES.filter((name) => !OTHERS.has(name)).flatMap((name) => all.get(name) ?? [])
}
