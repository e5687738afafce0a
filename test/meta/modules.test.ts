/** What is true of each module: a test, a row in the table, specifications that are declared where they are cited. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'chai'
import { findModules } from '../../server/catalog.ts'
import { DEFAULT_MODULES } from '../../server/default-modules.ts'
import { orderModules } from '../../server/loader.ts'
import { complaints, expectNone, root, source, sources, type Source } from './sources.ts'

const modules = await findModules()

/** The files of a module. */
function filesOf(name: string): readonly Source[] {
  const folder = sources(`modules/${name}`)
  return folder.length > 0 ? folder : [source(`modules/${name}.ts`)]
}

describe('modules', () => {
  it('each has a test of the same name', () => {
    const missing = [...modules.keys()].filter(
      (name) => !existsSync(join(root, `test/modules/${name}.test.ts`)),
    )
    expectNone(
      missing.map((name) => `test/modules/${name}.test.ts`),
      'tests that are missing',
    )
  })

  it('each has a row in modules/README.md', () => {
    const path = 'modules/README.md'
    const text = existsSync(join(root, path)) ? source(path).text : ''
    expectNone(
      [...modules.keys()].filter((name) => !text.includes(`| [${name}](./${name}`)),
      `modules without a row in ${path}`,
    )
  })

  it('each says in one line what it does, without a full stop', () => {
    const wrong = [...modules.values()].filter(
      ({ summary }) => summary === '' || summary.length > 100 || /\.$|\n/.test(summary),
    )
    expectNone(
      wrong.map(({ name, summary }) => `${name}: ${summary}`),
      'summaries',
    )
  })

  it('each names its specifications, with the version that was implemented', () => {
    const wrong = [...modules.values()].flatMap(({ name, specs }) => [
      ...(specs.length === 0 ? [`${name}: no specification`] : []),
      ...specs.flatMap((s) =>
        'xep' in s && !/^\d+\.\d+(\.\d+)?$/.test(s.version)
          ? [`${name}: XEP-${s.xep} version ${s.version}`]
          : [],
      ),
    ])
    expectNone(wrong, 'specifications')
  })

  it('each option has a description and a default, or is required', () => {
    const missing = [...modules.values()].flatMap(({ name, config }) => {
      if (config === undefined || !('shape' in config)) return []
      const shape = config.shape as Readonly<Record<string, { readonly description?: string }>>
      return Object.entries(shape).flatMap(([option, schema]) =>
        (schema.description ?? '') === '' ? [`modules.${name}.${option}`] : [],
      )
    })
    expectNone(missing, 'options without a description')
  })

  it('each section cited belongs to a specification of its manifest', () => {
    const wrong = [...modules.values()].flatMap(({ name, specs }) => {
      const declared = new Set(
        specs.map((s) => ('rfc' in s ? `RFC ${s.rfc}` : `XEP-${String(s.xep).padStart(4, '0')}`)),
      )
      return complaints(filesOf(name), (line) => {
        const cited = [...line.matchAll(/\b(RFC \d{4}|XEP-\d{4})(?: \d[\d.]*)? §/g)].map((m) => m[1] ?? '')
        const missing = cited.filter((spec) => !declared.has(spec))
        return missing.length > 0 ? `cites ${missing.join(', ')}` : undefined
      })
    })
    expectNone(wrong, 'specifications that are cited and not in the manifest')
  })

  it('each specification of a manifest is named in the files of the module', () => {
    const wrong = [...modules.values()].flatMap(({ name, specs }) => {
      const text = filesOf(name)
        .map((f) => f.text.replace(/specs: \[[^;]*?\],\n {2}[a-z]/, ''))
        .join('\n')
      return specs
        .map((s) => ('rfc' in s ? `RFC ${s.rfc}` : `XEP-${String(s.xep).padStart(4, '0')}`))
        .filter((spec) => !text.includes(spec))
        .map((spec) => `${name}: ${spec}`)
    })
    expectNone(wrong, 'specifications that no line speaks of')
  })

  it('those of the default set exist and can be loaded together', () => {
    expectNone(
      DEFAULT_MODULES.filter((name) => !modules.has(name)),
      'modules of the default set that do not exist',
    )
    const enabled = DEFAULT_MODULES.flatMap((name) => modules.get(name) ?? [])
    expect(orderModules(enabled).map((def) => def.name)).to.have.members([...DEFAULT_MODULES])
  })
})
