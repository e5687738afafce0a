/** Finds the modules: each file of `modules/`, each folder of it with an `index.ts`, by its default export. */
import { existsSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { join } from 'node:path'
import type { AnyModule } from './loader.ts'

const FOLDER = fileURLToPath(new URL('../modules/', import.meta.url))

/** All modules by name. Throws when a file is no module or its name is not that of the file. */
export async function findModules(folder: string = FOLDER): Promise<ReadonlyMap<string, AnyModule>> {
  const found = new Map<string, AnyModule>()
  const entries = await readdir(folder, { withFileTypes: true })
  for (const entry of entries.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
    const file = entry.isDirectory() ? join(entry.name, 'index.ts') : entry.name
    if (!file.endsWith('.ts') || !existsSync(join(folder, file))) continue
    const name = entry.isDirectory() ? entry.name : entry.name.slice(0, -'.ts'.length)
    const imported: { readonly default?: unknown } = await import(pathToFileURL(join(folder, file)).href)
    const def = imported.default
    if (!isModule(def) || def.name !== name) throw new Error(`modules/${file} does not define module ${name}`)
    found.set(name, def)
  }
  return found
}

function isModule(value: unknown): value is AnyModule {
  return (
    typeof value === 'object' &&
    value !== null &&
    'name' in value &&
    'setup' in value &&
    typeof value.setup === 'function'
  )
}
