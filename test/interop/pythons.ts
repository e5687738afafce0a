/** Finds Python interpreters that have slixmpp, for the interoperability tests. */
import { execFile } from 'node:child_process'
import { existsSync, mkdirSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)
const NEWEST = '1.17.0'

/**
 * Interpreters by the version of slixmpp: Debian's package, and with `newest` a virtual environment in the user's cache folder, which
 * is made on the first call. What cannot be had is left out, with a line on the console.
 */
export async function findPythons(newest: boolean): Promise<ReadonlyMap<string, string>> {
  const found = new Map<string, string>()
  const version = async (python: string) =>
    (await run(python, ['-c', 'import slixmpp; print(slixmpp.__version__)'])).stdout.trim()
  const missing = (what: string, error: unknown) =>
    console.log(
      `${what} is not run: ${error instanceof Error ? error.message.split('\n')[0] : 'unknown reason'}`,
    )
  try {
    found.set(await version('/usr/bin/python3'), '/usr/bin/python3')
  } catch (error) {
    missing("Debian's slixmpp", error)
  }
  if (!newest) return found
  const cache = process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache')
  const folder = join(cache, 'hermod-test', `slixmpp-${NEWEST}`)
  const python = join(folder, 'bin/python')
  try {
    if (!existsSync(join(folder, 'ready'))) {
      mkdirSync(folder, { recursive: true })
      await run('python3', ['-m', 'venv', '--clear', folder], { timeout: 120_000 })
      await run(python, ['-m', 'pip', 'install', '--quiet', `slixmpp==${NEWEST}`], { timeout: 240_000 })
      mkdirSync(join(folder, 'ready'))
    }
    found.set(await version(python), python)
  } catch (error) {
    missing(`slixmpp ${NEWEST}`, error)
  }
  return found
}
