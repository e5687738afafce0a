/** The files of the project as the tests of this folder read them: what is generated or installed is left out. */
import { readdirSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The project's folder. */
export const root = fileURLToPath(new URL('../../', import.meta.url))

/** Not ours, or made by running something. */
const IGNORED = new Set(['node_modules', '.git', 'data', 'coverage', 'test/output'])

/** One text file. */
export interface Source {
  /** Path from the project's folder, with slashes. */
  readonly path: string
  readonly text: string
  readonly lines: readonly string[]
}

function* walk(folder: string): Generator<string> {
  for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
    const path = folder === '' ? entry.name : `${folder}/${entry.name}`
    if (IGNORED.has(path) || entry.name === 'node_modules') continue
    if (entry.isDirectory()) yield* walk(path)
    else if (entry.isFile()) yield path
  }
}

/** Paths of all files, sorted. */
export const paths: readonly string[] = [...walk('')].toSorted()

/** Reads a file. */
export function source(path: string): Source {
  const text = readFileSync(join(root, path), 'utf8')
  return { path, text, lines: text.split('\n') }
}

/** All TypeScript of the project, or of some folders, such as 'modules'. */
export function sources(...folders: readonly string[]): readonly Source[] {
  return paths
    .filter((path) => path.endsWith('.ts'))
    .filter((path) => folders.length === 0 || folders.some((folder) => path.startsWith(`${folder}/`)))
    .map(source)
}

/** `path:line: what` for each line on which `test` says what is wrong. */
export function complaints(
  files: readonly Source[],
  test: (line: string, index: number, file: Source) => string | undefined,
): string[] {
  return files.flatMap((file) =>
    file.lines.flatMap((line, index) => {
      const wrong = test(line, index, file)
      return wrong === undefined ? [] : [`${file.path}:${index + 1}: ${wrong}`]
    }),
  )
}

/** Fails with one complaint a line. */
export function expectNone(found: readonly string[], rule: string): void {
  if (found.length > 0) throw new Error(`${rule}:\n${found.join('\n')}`)
}

/** A path relative to the project's folder. */
export const fromRoot = (path: string): string => relative(root, path).replaceAll('\\', '/')
