/** Writes what can be said from data: tables of modules and specifications, the DOAP file, the options, their JSON Schema. */
import { readFile, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import * as z from 'zod'
import { configSchema } from './config.ts'
import { DEFAULT_MODULES } from './default-modules.ts'
import type { AnyModule } from './loader.ts'
import { OperatorError } from './operator-error.ts'

const root = new URL('../', import.meta.url)

/** JSON Schema as far as the tables read it. */
interface JsonSchema {
  readonly type?: string
  readonly description?: string
  readonly default?: unknown
  readonly enum?: readonly unknown[]
  readonly const?: unknown
  readonly properties?: Readonly<Record<string, JsonSchema>>
  readonly items?: JsonSchema
  readonly anyOf?: readonly JsonSchema[]
  readonly oneOf?: readonly JsonSchema[]
}

/**
 * Writes all generated files, or with `check` only compares; resolves to the names of those that differ. `folder` is the project's, as a
 * URL that ends with a slash.
 */
export async function writeDocs(
  modules: ReadonlyMap<string, AnyModule>,
  check: boolean,
  folder: URL = root,
): Promise<readonly string[]> {
  const schema = fullSchema(modules)
  const files = new Map<string, string>([
    ['modules/README.md', await withSection(folder, 'modules/README.md', 'modules', moduleTable(modules))],
    [
      'config/README.md',
      await withSection(folder, 'config/README.md', 'options', optionTables(schema, modules)),
    ],
    ['config/schema.json', `${JSON.stringify(schema, undefined, 2)}\n`],
    ['server/doap.xml', doap(modules)],
  ])
  const stale: string[] = []
  for (const [name, text] of files) {
    if ((await readText(folder, name)) === text) continue
    stale.push(name)
    if (!check) await writeFile(path(folder, name), text)
  }
  return check ? stale : []
}

const path = (folder: URL, name: string): string => fileURLToPath(new URL(name, folder))

async function readText(folder: URL, name: string): Promise<string> {
  try {
    return await readFile(path(folder, name), 'utf8')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return '' // not written yet
    throw error
  }
}

/** The file with the text between its two marks replaced. */
async function withSection(folder: URL, name: string, mark: string, text: string): Promise<string> {
  const [begin, end] = [`<!-- generated: ${mark} -->`, `<!-- end: ${mark} -->`]
  const old = (await readText(folder, name)) || `${begin}\n${end}\n`
  const from = old.indexOf(begin)
  const to = old.indexOf(end)
  if (from < 0 || to < from) throw new OperatorError(`${name} has no section ${mark}`)
  return `${old.slice(0, from + begin.length)}\n\n${text}\n${old.slice(to)}`
}

function moduleTable(modules: ReadonlyMap<string, AnyModule>): string {
  const rows = [...modules.values()].map((def) => {
    const specs = def.specs.map((s) =>
      'rfc' in s
        ? `RFC ${s.rfc} ${s.sections}`
        : `XEP-${pad(s.xep)} ${s.version}${s.status === 'partial' ? ' (partial)' : ''}`,
    )
    const on = DEFAULT_MODULES.includes(def.name) ? 'yes' : 'no'
    return `| [${def.name}](${def.name}) | ${def.summary} | ${specs.join(', ')} | ${on} |`
  })
  return ['| module | what it does | specifications | on by default |', '|---|---|---|---|', ...rows, '']
    .join('\n')
    .replaceAll('](', '](./')
}

const pad = (xep: number): string => String(xep).padStart(4, '0')

function fullSchema(modules: ReadonlyMap<string, AnyModule>): JsonSchema {
  const base = toJson(configSchema)
  const options = [...modules.values()].map((def) => [
    def.name,
    {
      description: def.summary,
      anyOf: [{ type: 'boolean' }, def.config === undefined ? { type: 'object' } : toJson(def.config)],
    },
  ])
  return {
    ...base,
    properties: { ...base.properties, modules: { type: 'object', properties: Object.fromEntries(options) } },
  }
}

const toJson = (schema: z.ZodType): JsonSchema =>
  z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }) as JsonSchema

function optionTables(schema: JsonSchema, modules: ReadonlyMap<string, AnyModule>): string {
  const { modules: _modules, ...own } = schema.properties ?? {}
  const parts = ['### The server', '', ...table(rows(own, ''))]
  for (const def of modules.values()) {
    if (def.config === undefined) continue
    parts.push(
      '',
      `### modules.${def.name}`,
      '',
      `${def.summary}.`,
      '',
      ...table(rows(toJson(def.config).properties ?? {}, '')),
    )
  }
  return `${parts.join('\n')}\n`
}

const table = (lines: readonly string[]): string[] => [
  '| option | type | default | meaning |',
  '|---|---|---|---|',
  ...lines,
]

function rows(properties: Readonly<Record<string, JsonSchema>>, prefix: string): string[] {
  return Object.entries(properties).flatMap(([name, schema]) => {
    const option = `${prefix}${name}`
    const variants = schema.oneOf ?? schema.anyOf ?? []
    const own =
      schema.description !== undefined || schema.properties === undefined ? [row(option, schema)] : []
    const inner = [schema, schema.items ?? {}, ...variants].flatMap((s) =>
      Object.entries(s.properties ?? {}).length > 0
        ? rows(s.properties ?? {}, `${option}${s === schema.items ? '[]' : ''}.`)
        : [],
    )
    return [...own, ...new Set(inner)]
  })
}

function row(option: string, schema: JsonSchema): string {
  const value = schema.default === undefined ? '' : `\`${JSON.stringify(schema.default)}\``
  return `| \`${option}\` | ${typeOf(schema)} | ${value} | ${(schema.description ?? '').replaceAll('|', '\\|')} |`
}

function typeOf(schema: JsonSchema): string {
  if (schema.enum !== undefined) return schema.enum.map((v) => `\`${String(v)}\``).join(', ')
  if (schema.const !== undefined) return `\`${JSON.stringify(schema.const)}\``
  const variants = schema.oneOf ?? schema.anyOf
  if (variants !== undefined) return [...new Set(variants.map(typeOf))].join(' or ')
  return schema.type === 'array' ? `list of ${typeOf(schema.items ?? {})}` : (schema.type ?? 'any')
}

/** The description of the project that software listings read (XEP-0453). */
function doap(modules: ReadonlyMap<string, AnyModule>): string {
  const entries = new Map<string, string>()
  const complete = new Set<number>()
  for (const def of modules.values()) {
    for (const s of def.specs) {
      // one module may do all of a specification, and others what touches them
      if ('xep' in s && complete.has(s.xep)) continue
      if ('xep' in s && s.status === 'complete') complete.add(s.xep)
      if ('rfc' in s)
        entries.set(
          `rfc${s.rfc}`,
          `    <implements rdf:resource="https://www.rfc-editor.org/info/rfc${s.rfc}"/>`,
        )
      else {
        const note = s.note === undefined ? '' : `<xmpp:note>${escape(s.note)}</xmpp:note>`
        entries.set(
          `xep${pad(s.xep)}`,
          `    <implements><xmpp:SupportedXep><xmpp:xep rdf:resource="https://xmpp.org/extensions/xep-${pad(s.xep)}.html"/>` +
            `<xmpp:version>${s.version}</xmpp:version><xmpp:status>${s.status}</xmpp:status>${note}</xmpp:SupportedXep></implements>`,
        )
      }
    }
  }
  const lines = [...entries].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, line]) => line)
  return [
    `<?xml version="1.0" encoding="UTF-8"?>`,
    `<rdf:RDF xmlns="http://usefulinc.com/ns/doap#" xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:xmpp="https://linkmauve.fr/ns/xmpp-doap#">`,
    `  <Project>`,
    `    <name>Hermod</name>`,
    `    <shortdesc xml:lang="en">XMPP server</shortdesc>`,
    `    <programming-language>TypeScript</programming-language>`,
    `    <category rdf:resource="https://linkmauve.fr/ns/xmpp-doap#category-server"/>`,
    ...lines,
    `  </Project>`,
    `</rdf:RDF>`,
    ``,
  ].join('\n')
}

const escape = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
