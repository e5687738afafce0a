/**
 * The configuration: what the file may say, its defaults, and where in the file a mistake is.
 *
 * One YAML file. Options of modules stand under `modules`, for all hosts, or under `hosts.NAME.modules` for one.
 */
import { readFile } from 'node:fs/promises'
import { LineCounter, parseDocument } from 'yaml'
import type { core } from 'zod'
import { DEFAULT_MODULES } from './default-modules.ts'
import { type AnyModule, ConfigError, orderModules, withoutOrphans } from './loader.ts'
import { c } from './schema.ts'
import { tryJid } from './xmpp/jid.ts'

/** `true`: on, with defaults. `false`: off. An object: on, with these options. */
const moduleOptions = c
  .record(c.string(), c.union([c.boolean(), c.record(c.string(), c.unknown())]))
  .default({})
  .describe('Modules by name: true, false, or their options. Defaults go with what they require.')

const listener = (port: number, what: string) =>
  c
    .array(
      c.strictObject({
        address: c.string().optional().describe('One address to listen on; default: `listen.addresses`.'),
        port: c.int().min(0).max(65_535).default(port).describe('TCP port; 0 takes a free one.'),
        proxyProtocol: c
          .boolean()
          .default(false)
          .describe('Expect a PROXY protocol header (v1 or v2) in front.'),
      }),
    )
    .default([{ port, proxyProtocol: false }])
    .describe(what)

const hostName = c
  .string()
  .refine((name) => isDomain(name), { error: 'is not a domain name in its prepared form' })

/** The schema of the whole file. */
export const configSchema = c.strictObject({
  hosts: c
    .union([
      c.array(hostName).min(1),
      c.record(
        hostName,
        c
          .strictObject({
            modules: moduleOptions,
            certificate: c.string().optional(),
            key: c.string().optional(),
          })
          .nullable(),
      ),
    ])
    .default(['localhost'])
    .describe(
      'Virtual hosts: a list of names, or names with options of their own (modules, certificate, key).',
    ),
  listen: c
    .strictObject({
      addresses: c
        .array(c.string())
        .min(1)
        .default(['::'])
        .describe('Addresses of all listeners; `::` is every address of the machine.'),
      client: listener(5222, 'Clients, TCP with STARTTLS.'),
      clientTls: listener(5223, 'Clients, TLS from the first byte (XEP-0368).'),
      http: listener(5280, 'HTTP: WebSocket, discovery, web client.'),
      https: listener(5281, 'The same over TLS.'),
      proxyFrom: c
        .array(c.string())
        .default([])
        .describe('Addresses or networks (CIDR) that may send PROXY protocol or X-Forwarded-For.'),
    })
    .prefault({}),
  tls: c
    .strictObject({
      folder: c.string().default('./certs').describe('Where HOST.crt and HOST.key are looked for.'),
      development: c
        .boolean()
        .default(true)
        .describe('Make a self-signed certificate for a host that has none.'),
      minVersion: c
        .enum(['TLSv1.2', 'TLSv1.3'])
        .default('TLSv1.2')
        .describe('Oldest version of TLS that is accepted.'),
      clientCa: c
        .string()
        .optional()
        .describe('Certificate authorities (PEM file) whose client certificates may log in by EXTERNAL.'),
    })
    .prefault({}),
  storage: c
    .discriminatedUnion('driver', [
      c.strictObject({
        driver: c.literal('lmdb'),
        path: c.string().default('./data').describe('Folder of the embedded store.'),
        durable: c
          .boolean()
          .default(true)
          .describe('Wait for the disk, so that a power loss loses nothing that was acknowledged.'),
      }),
      c.strictObject({
        driver: c.literal('mongodb'),
        url: c.string().describe('Connection string; `env:NAME` takes it from the environment.'),
        database: c.string().default('hermod'),
      }),
      c.strictObject({ driver: c.literal('memory') }),
    ])
    .prefault({ driver: 'lmdb' })
    .describe('Where data lives: lmdb (embedded), mongodb, or memory (lost at the end).'),
  redis: c
    .strictObject({
      url: c
        .string()
        .describe(
          'Address, such as `redis://:password@host:6379/`; `env:NAME` takes it from the environment.',
        ),
      prefix: c
        .string()
        .regex(/^[\w-]{1,32}$/, { error: 'letters, digits, - and _' })
        .default('hermod')
        .describe('Before each key, so that several servers can share one Redis.'),
    })
    .optional()
    .describe(
      'Redis, where jobs wait for any of several processes. Needs storage that they share (mongodb).',
    ),
  limits: c
    .strictObject({
      stanzaBytes: c
        .bytes('256 KiB', { min: '10 KB', max: '16 MiB' })
        .describe('Largest stanza of a client that has logged in.'),
      stanzaBytesBeforeLogin: c
        .bytes('16 KiB', { min: '10 KB', max: '1 MiB' })
        .describe('Largest element before login.'),
      depth: c.int().min(10).max(1000).default(100).describe('Nesting of elements.'),
      attributes: c.int().min(10).max(1000).default(64).describe('Attributes of one element.'),
      queue: c
        .bytes('4 MiB', { min: '64 KiB', max: '1 GiB' })
        .describe('Output kept for a client that does not read.'),
      rate: c
        .bytes('1 MiB', { min: '1 KiB' })
        .describe('Input of one client per second, averaged; above it the socket waits.'),
      burst: c.bytes('4 MiB', { min: '16 KiB' }).describe('Input above the rate in one go.'),
      rateBeforeLogin: c.bytes('32 KiB', { min: '1 KiB' }).describe('The same before login.'),
      burstBeforeLogin: c.bytes('64 KiB', { min: '16 KiB' }).describe('The same before login.'),
      ratePerAddress: c
        .bytes('16 MiB', { min: '1 KiB' })
        .describe('Input of all clients of one address together, per second, averaged.'),
      burstPerAddress: c.bytes('64 MiB', { min: '16 KiB' }).describe('Input above that rate in one go.'),
      loginTimeout: c.duration('60s', { min: '1s' }).describe('From connecting to a bound resource.'),
      idle: c
        .duration('5min', { min: '10s' })
        .describe('Silence of a client after which it is asked for a sign of life.'),
      closeTimeout: c
        .duration('5s', { min: '100ms' })
        .describe('How long a client may take to close its side.'),
      connectionsPerAddress: c.int().min(1).default(1000).describe('Open connections of one address.'),
      newConnectionsPerMinute: c
        .int()
        .min(1)
        .default(1000)
        .describe('New connections of one address in a minute.'),
    })
    .prefault({}),
  http: c
    .strictObject({
      publicUrls: c
        .record(c.string(), c.array(c.string()))
        .default({})
        .describe('Base URLs by host that clients reach this server at, when a proxy stands in front.'),
    })
    .prefault({}),
  log: c
    .strictObject({
      level: c.enum(['debug', 'info', 'warn', 'error', 'silent']).default('info'),
      format: c
        .enum(['auto', 'json', 'pretty'])
        .default('auto')
        .describe('auto: readable lines on a terminal, JSON otherwise.'),
    })
    .prefault({}),
  modules: moduleOptions,
})

/** The file's content with all defaults. */
export type FileConfig = ReturnType<typeof configSchema.parse>

/** One virtual host. */
export interface HostConfig {
  readonly name: string
  readonly modules: ReadonlyMap<string, unknown>
  readonly certificate: string | undefined
  readonly key: string | undefined
}

/** The configuration of a server. */
export interface Config extends Omit<FileConfig, 'hosts' | 'modules'> {
  readonly hosts: readonly HostConfig[]
  /** Options of the modules of scope 'server'. */
  readonly serverModules: ReadonlyMap<string, unknown>
}

/** One mistake in the file. */
export interface Problem {
  /** Line in the file, from 1; undefined when the option is missing or there is no file. */
  readonly line: number | undefined
  /** Path of the option, such as `listen.client[0].port`. */
  readonly option: string
  readonly message: string
}

/** The configuration cannot be used. */
export class ConfigProblems extends ConfigError {
  readonly problems: readonly Problem[]
  constructor(file: string, problems: readonly Problem[]) {
    super(
      problems
        .map((p) => `${file}${p.line === undefined ? '' : `:${p.line}`}: ${p.option}: ${p.message}`)
        .join('\n'),
    )
    this.problems = problems
  }
}

/** Used when no file is named: one host for this machine alone. */
const BUILT_IN = { listen: { addresses: ['127.0.0.1', '::1'] } }

/**
 * Reads and checks a configuration, the options of all modules included. Throws ConfigProblems.
 * `file` undefined: the built-in configuration for a first try on one's own machine.
 */
export async function loadConfig(
  file: string | undefined,
  modules: ReadonlyMap<string, AnyModule>,
): Promise<Config> {
  if (file === undefined) return checkConfig(BUILT_IN, modules, 'built-in configuration', () => undefined)
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (error) {
    throw new ConfigProblems(file, [
      { line: undefined, option: 'file', message: `cannot be read (${errorCode(error)})` },
    ])
  }
  return parseConfigText(text, modules, file)
}

/** The same for a text. */
export function parseConfigText(text: string, modules: ReadonlyMap<string, AnyModule>, file: string): Config {
  const lines = new LineCounter()
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true })
  const lineAt = (offset: number | undefined) =>
    offset === undefined ? undefined : lines.linePos(offset).line
  if (document.errors.length > 0)
    throw new ConfigProblems(
      file,
      document.errors.map((e) => ({
        line: lineAt(e.pos[0]),
        option: 'syntax',
        message: (e.message.split('\n')[0] ?? '').replace(/ at line \d+, column \d+:$/, ''),
      })),
    )
  const lineOf = (path: readonly PropertyKey[]): number | undefined => {
    for (let length = path.length; length > 0; length--) {
      const node: unknown = document.getIn(path.slice(0, length), true)
      if (typeof node === 'object' && node !== null && 'range' in node) {
        const range = node.range
        if (Array.isArray(range)) return lineAt(range[0])
      }
    }
    return undefined
  }
  return checkConfig(document.toJS() ?? {}, modules, file, lineOf)
}

function checkConfig(
  raw: unknown,
  modules: ReadonlyMap<string, AnyModule>,
  file: string,
  lineOf: (path: readonly PropertyKey[]) => number | undefined,
): Config {
  const parsed = configSchema.safeParse(raw)
  if (!parsed.success)
    throw new ConfigProblems(
      file,
      parsed.error.issues.flatMap((i) => problemsOf(i, [], lineOf)),
    )
  const { hosts, modules: shared, ...rest } = parsed.data
  const problems: Problem[] = []
  const options = (
    path: readonly PropertyKey[],
    own: FileConfig['modules'],
  ): ReadonlyMap<string, unknown> => {
    const enabled = new Map<string, unknown>(DEFAULT_MODULES.map((name) => [name, undefined]))
    const wanted = new Set<string>()
    for (const [from, layer] of [
      [['modules'], shared],
      [path, own],
    ] as const) {
      for (const [name, value] of Object.entries(layer)) {
        const def = modules.get(name)
        if (value !== false) wanted.add(name)
        if (def === undefined)
          problems.push({
            line: lineOf([...from, name]),
            option: dotted([...from, name]),
            message: 'there is no such module',
          })
        else if (value === false) enabled.delete(name)
        else if (value === true) enabled.set(name, enabled.get(name))
        else {
          enabled.set(name, { ...(enabled.get(name) as object | undefined), ...value })
          const checked = def.config?.safeParse(enabled.get(name))
          if (checked === undefined)
            problems.push({
              line: lineOf([...from, name]),
              option: dotted([...from, name]),
              message: 'this module has no options',
            })
          else if (!checked.success)
            problems.push(...checked.error.issues.flatMap((i) => problemsOf(i, [...from, name], lineOf)))
        }
      }
    }
    withoutOrphans(enabled, wanted, modules)
    return enabled
  }
  const named = Array.isArray(hosts) ? Object.fromEntries(hosts.map((name) => [name, null])) : hosts
  const list = Object.entries(named).map(([name, own]) => ({
    name,
    modules: options(['hosts', name, 'modules'], own?.modules ?? {}),
    certificate: own?.certificate,
    key: own?.key,
  }))
  const serverModules = options([], {})
  const needs = (enabled: ReadonlyMap<string, unknown>, scope: 'host' | 'server'): void => {
    try {
      orderModules([...modules.values()].filter((m) => enabled.has(m.name) && (m.scope ?? 'host') === scope))
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      problems.push({ line: lineOf(['modules']), option: 'modules', message: error.message })
    }
  }
  for (const host of list) needs(host.modules, 'host')
  needs(serverModules, 'server')
  // other processes on the same Redis cannot see that data
  if (rest.redis !== undefined && rest.storage.driver !== 'mongodb')
    problems.push({
      line: lineOf(['redis']),
      option: 'redis',
      message: `needs storage.driver mongodb: other processes cannot see the data of ${rest.storage.driver}`,
    })
  if (problems.length > 0) throw new ConfigProblems(file, unique(problems))
  return { ...rest, hosts: list, serverModules }
}

/** What a zod issue says, with all members of a union that nearly fitted. */
function problemsOf(
  issue: core.$ZodIssue,
  prefix: readonly PropertyKey[],
  lineOf: (path: readonly PropertyKey[]) => number | undefined,
): Problem[] {
  const path = [...prefix, ...issue.path]
  if (issue.code === 'unrecognized_keys')
    return issue.keys.map((key) => ({
      line: lineOf([...path, key]),
      option: dotted([...path, key]),
      message: 'there is no such option',
    }))
  if (issue.code === 'invalid_union' && issue.errors.length > 0) {
    const nearest = issue.errors.toSorted((a, b) => depth(b) - depth(a))[0] ?? []
    if (depth(nearest) > 0) return nearest.flatMap((i) => problemsOf(i, path, lineOf))
  }
  // what is wrong with a name is said by the schema of names
  const message = (issue.code === 'invalid_key' ? issue.issues[0]?.message : undefined) ?? issue.message
  return [{ line: lineOf(path), option: dotted(path) || 'configuration', message }]
}

const depth = (issues: readonly core.$ZodIssue[]): number => Math.max(0, ...issues.map((i) => i.path.length))

const dotted = (path: readonly PropertyKey[]): string =>
  path.reduce<string>(
    (text, p) => (typeof p === 'number' ? `${text}[${p}]` : text === '' ? String(p) : `${text}.${String(p)}`),
    '',
  )

const unique = (problems: readonly Problem[]): Problem[] => [
  ...new Map(problems.map((p) => [`${p.option} ${p.message}`, p])).values(),
]

function isDomain(name: string): boolean {
  const jid = tryJid(name)
  return jid !== undefined && jid.local === '' && jid.resource === '' && jid.domain === name
}

const errorCode = (error: unknown): string =>
  error instanceof Error && 'code' in error ? String(error.code) : 'error'
