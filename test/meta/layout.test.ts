/** Where things are: six folders, names, sizes, who may import what. */
import { existsSync, readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { complaints, expectNone, fromRoot, paths, root, type Source, sources } from './sources.ts'

const FOLDERS = ['server', 'modules', 'clients', 'config', 'certs', 'test']
const FILES = [
  'README.md',
  'CHANGELOG.md',
  'CONTRIBUTING.md',
  'SECURITY.md',
  'LICENSE',
  'package.json',
  'package-lock.json',
  'tsconfig.json',
  'biome.json',
  '.oxlintrc.json',
  '.mocharc.json',
  '.editorconfig',
  '.gitignore',
  '.npmrc',
]
/** Made by running something, or there for tools. */
const TOLERATED = new Set(['.git', '.ci', '.github', 'node_modules', 'data', 'coverage'])

describe('layout', () => {
  it('the project has six folders and its well-known files, nothing else', () => {
    const known = new Set([...FOLDERS, ...FILES, ...TOLERATED])
    const found = readdirSync(root)
    expectNone(
      found.filter((name) => !known.has(name)),
      'not part of the layout',
    )
    expectNone(
      [...FOLDERS, ...FILES].filter((name) => !found.includes(name)),
      'missing',
    )
  })

  it('each folder explains itself in a README.md', () => {
    expectNone(
      FOLDERS.filter((folder) => !existsSync(join(root, folder, 'README.md'))),
      'folders without README.md',
    )
  })

  it('names of files and folders are kebab-case', () => {
    const good = /^[a-z0-9]+(-[a-z0-9]+)*(\.[a-z0-9-]+)*$/
    const conventional = /^(README\.md|Dockerfile|Caddyfile|\..+)$/
    const wrong = FOLDERS.flatMap((folder) => paths.filter((path) => path.startsWith(`${folder}/`))).filter(
      (path) => !path.split('/').every((part) => good.test(part) || conventional.test(part)),
    )
    expectNone(wrong, 'not kebab-case')
  })

  it('no file is longer than 400 lines, no single-file module than 300', () => {
    const limit = ({ path }: Source): number => (/^modules\/[^/]+\.ts$/.test(path) ? 300 : 400)
    const long = sources().flatMap((file) => {
      const count = file.text.endsWith('\n') ? file.lines.length - 1 : file.lines.length
      return count > limit(file) ? [`${file.path}: ${count} lines, at most ${limit(file)}`] : []
    })
    expectNone(long, 'too long')
  })
})

/** What a file may import beyond node: builtins and npm packages: path prefixes. */
function allowed(path: string): readonly string[] {
  if (path.startsWith('server/xmpp/')) return ['server/xmpp/']
  if (path.startsWith('server/storage/')) return ['server/storage/', 'server/xmpp/', 'server/clock.ts']
  if (path.startsWith('server/cluster/')) return ['server/cluster/', 'server/xmpp/', 'server/clock.ts']
  if (path.startsWith('server/')) return ['server/', 'certs/', 'package.json']
  if (path.startsWith('clients/')) return ['clients/', 'server/xmpp/']
  if (path.startsWith('certs/')) return ['certs/']
  const [, module = ''] = path.split('/')
  const own = module.endsWith('.ts') ? [] : [`modules/${module}/`]
  return ['server/module.ts', 'server/xmpp/', ...own]
}

/** Targets of import and export … from, static and dynamic, with their lines. */
function imports(file: Source): readonly { readonly target: string; readonly line: number }[] {
  const found: { target: string; line: number }[] = []
  for (const match of file.text.matchAll(/(?:\bfrom\s+|\bimport\s*\(\s*|^import\s+)'([^']+)'/gm)) {
    found.push({ target: match[1] ?? '', line: file.text.slice(0, match.index).split('\n').length })
  }
  return found
}

describe('import tiers', () => {
  const tiers = sources('server', 'modules', 'clients', 'certs')

  it('server/xmpp imports nothing of the project; storage and clients only server/xmpp; modules only module.ts and server/xmpp', () => {
    const wrong = tiers.flatMap((file) =>
      imports(file).flatMap(({ target, line }) => {
        if (!target.startsWith('.')) return []
        const path = fromRoot(join(root, dirname(file.path), target))
        return allowed(file.path).some((prefix) => path.startsWith(prefix))
          ? []
          : [`${file.path}:${line}: imports ${path}`]
      }),
    )
    expectNone(wrong, 'imports across tiers')
  })

  it('server/xmpp uses no npm package', () => {
    const wrong = sources('server/xmpp').flatMap((file) =>
      imports(file)
        .filter(({ target }) => !target.startsWith('.') && !target.startsWith('node:'))
        .map(({ target, line }) => `${file.path}:${line}: imports ${target}`),
    )
    expectNone(wrong, 'packages in server/xmpp')
  })

  it('builtins are imported with node:, own files with their extension', () => {
    const builtins = new Set(process.getBuiltinModule('node:module').builtinModules)
    const wrong = sources().flatMap((file) =>
      imports(file).flatMap(({ target, line }) => {
        if (builtins.has(target)) return [`${file.path}:${line}: ${target} without node:`]
        if (target.startsWith('.') && !/\.(ts|json)$/.test(target))
          return [`${file.path}:${line}: ${target} without extension`]
        return []
      }),
    )
    expectNone(wrong, 'imports')
  })

  it('only tests import test files', () => {
    expectNone(
      complaints(tiers, (line) => (/from '(\.\.\/)+test\//.test(line) ? line.trim() : undefined)),
      'tests in the product',
    )
  })
})
