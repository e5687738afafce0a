/** Smack (Java) resumes its session after the connection was cut (see smack/). Built by Maven, into the user's cache folder. */
import { execFile } from 'node:child_process'
import { mkdirSync, readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { delimiter, join } from 'node:path'
import { promisify } from 'node:util'
import { describe } from 'mocha'
import { startDriven } from './driven.ts'
import { resumptionTests } from './resumption.ts'

const PROJECT = join(import.meta.dirname, 'smack')
const run = promisify(execFile)

/**
 * The class path of the client. Undefined, with a line on the console, where there is no Java, no Maven or no network for it: nothing else
 * here needs them, so that they are not asked for in CI either.
 */
async function build(): Promise<string | undefined> {
  const folder = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'hermod-test', 'smack')
  const list = join(folder, 'classpath')
  const goals = ['compile', 'dependency:build-classpath', `-Dmdep.outputFile=${list}`]
  mkdirSync(folder, { recursive: true })
  try {
    await run('java', ['-version'])
    await run('mvn', ['-q', '-B', `-Dbuild.folder=${folder}`, ...goals], { cwd: PROJECT, timeout: 240_000 })
  } catch (error) {
    const output = String((error as { stdout?: string }).stdout)
    if (output.includes('COMPILATION ERROR')) throw new Error(output, { cause: error })
    console.log(
      `Smack is not run: ${error instanceof Error ? error.message.split('\n')[0] : 'unknown reason'}`,
    )
    return undefined
  }
  return [join(folder, 'classes'), readFileSync(list, 'utf8')].join(delimiter)
}

const classpath = await build()

if (classpath !== undefined)
  describe('Smack resumes (XEP-0198 §5)', () =>
    resumptionTests({
      start: ({ jid, password, ca }) => startDriven('java', ['-cp', classpath, 'Resume', jid, password, ca]),
      resends: true,
    }))
