/** Rules on how files are written that formatter and linter do not know. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { complaints, expectNone, paths, root, source, type Source, sources } from './sources.ts'

const product = sources('server', 'modules', 'clients', 'certs')
const helpers = sources('test').filter(({ path }) => !path.endsWith('.test.ts'))

describe('documentation in the code', () => {
  it('each file opens with a doc comment', () => {
    const wrong = sources().filter(({ path, text }) => {
      const start = text.startsWith('#!') ? text.slice(text.indexOf('\n') + 1) : text
      return !start.startsWith('/**') && !path.endsWith('.d.ts')
    })
    expectNone(
      wrong.map(({ path }) => path),
      'files without a doc comment at the top',
    )
  })

  it('each exported symbol has a doc comment', () => {
    const declaration =
      /^export (?:declare |abstract |async )*(?:const|let|function\*?|class|interface|type|enum)\s+([A-Za-z0-9_$]+)/
    const wrong = complaints([...product, ...helpers], (line, index, file) => {
      const name = declaration.exec(line)?.[1]
      if (name === undefined) return undefined
      const before = file.lines[index - 1] ?? ''
      if (before.trimEnd().endsWith('*/')) return undefined
      if (declaration.exec(before)?.[1] === name) return undefined // the next signature of an overload
      return `${name} has no doc comment`
    })
    expectNone(wrong, 'exports without a doc comment')
  })

  it('exports are named; default exports are modules', () => {
    const wrong = complaints([...product, ...helpers], (line) =>
      line.startsWith('export default') && !line.startsWith('export default defineModule(')
        ? line
        : undefined,
    )
    expectNone(wrong, 'default exports')
  })
})

describe('types', () => {
  it('no any, no non-null assertion, no switched-off check without a reason', () => {
    const anyType = /(?::|\bas|<|\|)\s*any\b(?!\s*[:(.=])|\bany\[\]/
    const wrong = complaints(product, (line) => {
      const code = withoutText(line)
      if (anyType.test(code)) return `any: ${line.trim()}`
      if (/[\w)\]]!(?:[.;,)\]]|$)/.test(code)) return `non-null assertion: ${line.trim()}`
      return undefined
    })
    expectNone(wrong, 'holes in the types')
  })

  it('a switched-off check says why', () => {
    const others = sources().filter(({ path }) => !path.startsWith('test/meta/'))
    const wrong = complaints(others, (line) => {
      if (/@ts-(?:ignore|nocheck)/.test(line)) return line.trim()
      const reason = /(?:@ts-expect-error|(?:eslint|oxlint)-disable.*? -- )(.*)$/.exec(line)?.[1]
      if (reason === undefined) return /(?:eslint|oxlint)-disable/.test(line) ? line.trim() : undefined
      return /\w+ \w+/.test(reason) ? undefined : line.trim()
    })
    expectNone(wrong, 'checks switched off without a reason')
  })
})

describe('tests', () => {
  const tests = sources('test').filter(
    ({ path }) => path.endsWith('.test.ts') || path.startsWith('test/contracts/'),
  )

  it('none is .only', () => {
    expectNone(
      complaints(tests, (line) =>
        /\b(?:describe|it|context|suite|test)\.only\(/.test(withoutStrings(line)) ? line.trim() : undefined,
      ),
      'exclusive tests',
    )
  })

  it('a skipped test says why', () => {
    // the title names the reason in parentheses, or a comment or message stands at the call
    const wrong = complaints(tests, (line, index, file) => {
      if (/\bx(?:it|describe)\(/.test(line)) return line.trim()
      if (/\b(?:describe|it)\.skip\(/.test(withoutStrings(line)))
        return /\([^()]+\)/.test(line.slice(line.indexOf('.skip(') + 6)) ? undefined : line.trim()
      if (/\bthis\.skip\(\)/.test(withoutStrings(line))) {
        const near = file.lines.slice(Math.max(0, index - 3), index + 1).join('\n')
        return /\/\/ |console\.|reason|skipped/i.test(near) ? undefined : line.trim()
      }
      return undefined
    })
    expectNone(wrong, 'skipped without a reason')
  })

  it('none sleeps', () => {
    const wrong = complaints(sources('test/unit', 'test/modules'), (line) =>
      /\bsetTimeout\((?:\w+|\(\) => \w+\(\)), \d/.test(line) || /from 'node:timers\/promises'/.test(line)
        ? /setImmediate/.test(line)
          ? undefined
          : line.trim()
        : undefined,
    )
    expectNone(wrong, 'waiting by the clock')
  })
})

describe('the project speaks of itself only', () => {
  it('no path of somebody’s machine, no host but the public registry', () => {
    const text = paths.filter((path) => /\.(ts|md|json|ya?ml|xmpp|sh|mod|cfg\.lua|html|js)$/.test(path))
    // put together here, so that this file does not find itself
    const machine = new RegExp(`(?:^|[^\\w.])/${'work'}/|/${'home'}/[a-z]+/|/${'Users'}/`)
    const files = text.filter((path) => path !== 'package-lock.json').map(source)
    expectNone(
      complaints(files, (line) => (machine.test(line) ? line.trim() : undefined)),
      'paths of a machine',
    )
  })

  it('package-lock.json names no other registry than the public one', () => {
    const wrong = complaints([source('package-lock.json')], (line) => {
      const host = /"resolved": "(?:git\+)?\w+:\/\/([^/"]+)/.exec(line)?.[1]
      return host === undefined || host === 'registry.npmjs.org' ? undefined : host
    })
    expectNone(wrong, 'registries')
  })
})

/** A line without its comment and without what stands in quotes. */
function withoutText(line: string): string {
  const code = withoutStrings(line)
  const comment = code.search(/\/\/|\/\*|^\s*\*/)
  return comment < 0 ? code : code.slice(0, comment)
}

/** A line without what stands in quotes. */
function withoutStrings(line: string): string {
  return line
    .replaceAll(/'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`(?:[^`\\]|\\.)*`/g, "''")
    .replaceAll(/\/(?:[^/\\\s*]|\\.)+\/[a-z]*/g, "''")
}

describe('documents and scripts agree', () => {
  const manifest = JSON.parse(source('package.json').text) as {
    readonly scripts: Readonly<Record<string, string>>
    readonly dependencies: Readonly<Record<string, string>>
    readonly devDependencies: Readonly<Record<string, string>>
  }
  const documents: readonly Source[] = paths.filter((path) => path.endsWith('.md')).map(source)

  it('each npm script that a document names exists', () => {
    const wrong = complaints(documents, (line) => {
      const named = [...line.matchAll(/\bnpm (?:run (?:--silent )?([\w:-]+)|(start|test)\b)/g)]
      const missing = named
        .map((m) => m[1] ?? m[2] ?? '')
        .filter((name) => manifest.scripts[name] === undefined)
      return missing.length > 0 ? `npm run ${missing.join(', ')}` : undefined
    })
    expectNone(wrong, 'scripts that do not exist')
  })

  it('each npm script is explained in a document', () => {
    const text = documents.map((d) => d.text).join('\n')
    const internal = /^(pre|post)|^ensure$/
    const missing = Object.keys(manifest.scripts).filter(
      (name) => !internal.test(name) && !new RegExp(`npm (run )?${name}(?![\\w:-])`).test(text),
    )
    expectNone(missing, 'scripts that no document explains')
  })

  it('each file that a script runs exists', () => {
    const wrong = Object.entries(manifest.scripts).flatMap(([name, script]) =>
      [...script.matchAll(/(?<![\w'*{/-])((?:server|test|modules|clients|certs)\/[\w./-]+\.(?:ts|sh))/g)]
        .map((m) => m[1] ?? '')
        .filter((path) => !existsSync(join(root, path)))
        .map((path) => `${name}: ${path}`),
    )
    expectNone(wrong, 'files that scripts run')
  })

  it('each command of hermod that a document names exists', () => {
    const main = source('server/main.ts').text
    const commands = new Set([...main.matchAll(/\.command\('(\w+)/g)].map((m) => m[1]))
    const wrong = complaints(documents, (line) => {
      const named = [
        ...line.matchAll(/(?:npx hermod|node server\/main\.ts)(?: (?:-c|--config) \S+)? ([a-z]+)\b/g),
      ]
      const missing = named.map((m) => m[1] ?? '').filter((name) => !commands.has(name))
      return missing.length > 0 ? missing.join(', ') : undefined
    })
    expectNone(wrong, 'commands that do not exist')
  })

  it('each link of a document to a file of the project leads somewhere', () => {
    const wrong = documents.flatMap((file) => {
      const folder = file.path.includes('/') ? file.path.slice(0, file.path.lastIndexOf('/')) : ''
      return complaints([file], (line) => {
        const targets = [...line.matchAll(/\]\((?!https?:|mailto:|xmpp:|#)([^)#\s]+)(?:#[^)]*)?\)/g)].map(
          (m) => m[1] ?? '',
        )
        const missing = targets.filter((target) => {
          const path = join(root, folder, target)
          return !existsSync(path) && !existsSync(`${path}.ts`)
        })
        return missing.length > 0 ? missing.join(', ') : undefined
      })
    })
    expectNone(wrong, 'links that lead nowhere')
  })

  it('each dependency has its reason in CONTRIBUTING.md', () => {
    const text = existsSync(join(root, 'CONTRIBUTING.md')) ? source('CONTRIBUTING.md').text : ''
    const missing = Object.keys(manifest.dependencies).filter((name) => !text.includes(name))
    expectNone(missing, 'dependencies without a reason')
  })

  it('each dependency is used', () => {
    const text =
      sources()
        .map((f) => f.text)
        .join('\n') + Object.values(manifest.scripts).join('\n')
    const used = (name: string): boolean =>
      text.includes(`'${name}'`) ||
      text.includes(`'${name}/`) ||
      text.includes(name.split('/').at(-1) ?? name)
    expectNone(
      Object.keys(manifest.dependencies).filter((name) => !used(name)),
      'dependencies that nothing uses',
    )
  })
})
