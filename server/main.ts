#!/usr/bin/env -S node --max-semi-space-size=16
/** The command line: start, check, user, hooks, specs. Mistakes of the user get a sentence and an exit code, not a stack. */
import { existsSync } from 'node:fs'
import { createInterface } from 'node:readline/promises'
import { Writable } from 'node:stream'
import { Command, CommanderError } from 'commander'
import manifest from '../package.json' with { type: 'json' }
import { runAccountCommand } from './account-commands.ts'
import { findModules } from './catalog.ts'
import { type Config, loadConfig } from './config.ts'
import { askServer, type ControlAnswer, type ControlRequest } from './control.ts'
import { ConfigError } from './loader.ts'
import type { Log } from './module.ts'
import { OperatorError } from './operator-error.ts'
import { controlPath, type RunningServer, startServer } from './server.ts'
import { StoreUnavailable } from './storage/contract.ts'
import { makeLog, makeLogger } from './telemetry.ts'
import { makeLocalHosts } from './offline.ts'

/** The file that is used when none is named and it exists. */
const DEFAULT_FILE = 'hermod.yaml'
/** Exit codes: 1 a refusal or failure, 2 wrong usage, 78 (EX_CONFIG) a wrong configuration. */
const EXIT = { failure: 1, usage: 2, config: 78 } as const

interface Options {
  readonly config?: string
}

const program = new Command('hermod')
  .description('Hermod, an XMPP server')
  .version(manifest.version)
  .option(
    '-c, --config <file>',
    `configuration file (default: $HERMOD_CONFIG, ${DEFAULT_FILE} if it exists, else built in)`,
  )
  .showHelpAfterError('(hermod --help shows the commands)')
  .exitOverride()

const configFile = (): string | undefined => {
  const { config } = program.opts<Options>()
  return config ?? process.env['HERMOD_CONFIG'] ?? (existsSync(DEFAULT_FILE) ? DEFAULT_FILE : undefined)
}

const readConfig = async (): Promise<Config> => loadConfig(configFile(), await findModules())

program
  .command('start')
  .description(
    'run the server until SIGTERM or SIGINT; SIGHUP reads the configuration and certificates again',
  )
  .action(start)

program
  .command('check')
  .description('check the configuration: file, line and option of each mistake')
  .action(async () => {
    const config = await readConfig()
    print(
      `${configFile() ?? 'built-in configuration'}: good, serves ${config.hosts.map((h) => h.name).join(', ')}`,
    )
  })

const user = program.command('user').description('accounts; works while the server runs')
user
  .command('add <address>')
  .description('add an account; asks for the password, or reads one line from standard input')
  .action((address: string) => withPassword('user.add', address))
user
  .command('import <address>')
  .description(
    'add an account from another server; reads its SCRAM keys from standard input, a line SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey for each hash',
  )
  .action(async (address: string) => {
    const keys: string[] = []
    for await (const line of createInterface({ input: process.stdin }))
      if (line.trim() !== '') keys.push(line)
    await account({ command: 'user.import', args: [address, ...keys] })
  })
user
  .command('passwd <address>')
  .description('change a password')
  .action((address: string) => withPassword('user.passwd', address))
user
  .command('del <address>')
  .description('remove an account and everything it has here')
  .action((address: string) => account({ command: 'user.del', args: [address] }))
user
  .command('list [host]')
  .description('list accounts')
  .action((host?: string) => account({ command: 'user.list', args: host === undefined ? [] : [host] }))
user
  .command('info <address>')
  .description('what is known of an account')
  .action((address: string) => account({ command: 'user.info', args: [address] }))

program
  .command('hooks')
  .description('print the chains that stanzas pass through, with their modules in order')
  .action(async () => {
    await using local = await makeLocalHosts(await readConfig(), await findModules(), quiet, 'memory')
    for (const host of local.hosts.values()) {
      print(host.name)
      for (const { name, links } of host.hooks.describe())
        for (const link of links)
          print(`  ${name.padEnd(16)} ${link.place.phase.padEnd(8)} ${link.module}${kinds(link.place.kinds)}`)
    }
  })

program
  .command('specs')
  .description('write the tables of modules, specifications and options; --check only compares')
  .option('--check', 'fail when a generated file is not up to date')
  .action(async (options: { readonly check?: boolean }) => {
    const { writeDocs } = await import('./docs.ts')
    const stale = await writeDocs(await findModules(), options.check === true)
    if (stale.length > 0) throw new UserError(`not up to date: ${stale.join(', ')}; run npm run specs`)
    print('tables of modules, specifications and options are up to date')
  })

/** Something the user can put right. */
class UserError extends OperatorError {}

const quiet: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
}
const kinds = (list: readonly string[] | undefined): string =>
  list === undefined ? '' : ` (${list.join(', ')})`
const print = (line: string): void => void process.stdout.write(`${line}\n`)

async function start(): Promise<void> {
  const config = await readConfig()
  const { level, format } = config.log
  const logger = makeLogger(level, format === 'auto' ? undefined : format === 'pretty')
  const log = makeLog(logger)
  const modules = await findModules()
  const server = await startServer({ config, modules, log })
  greet(server, config, log)
  const reload = async (): Promise<void> => {
    try {
      const next = await readConfig()
      await server.reload(next)
      logger.level = next.log.level
      log.info('configuration and certificates were read again')
    } catch (error) {
      log.error(`the new configuration is not used: ${sentence(error)}`)
    }
  }
  process.on('SIGHUP', () => void reload())
  const stop = async (signal: string): Promise<void> => {
    log.info(`stopping (${signal})`)
    await server.stop()
    log.info('stopped')
    process.exitCode = 0
  }
  process.once('SIGTERM', () => void stop('SIGTERM'))
  process.once('SIGINT', () => void stop('SIGINT'))
}

/** Where to connect, and what to do next. */
function greet(server: RunningServer, config: Config, log: Log): void {
  const names = config.hosts.map((h) => h.name)
  const first = names[0] ?? 'localhost'
  const { client, clientTls, http, https } = server.ports
  log.info(`Hermod serves ${names.join(', ')}`)
  log.info(
    `clients: port ${list(client)} (STARTTLS), ${list(clientTls)} (TLS); web client: http://${first}:${http[0]}/ or https://${first}:${https[0]}/`,
  )
  log.info(`add a user: npx hermod user add alice@${first}`)
}

const list = (ports: readonly number[]): string => [...new Set(ports)].join(', ')

async function withPassword(command: string, address: string): Promise<void> {
  const password = await readPassword(address)
  if (password === '') throw new UserError('the password is empty')
  await account({ command, args: [address, password] })
}

/** Asks the running server, or does it here when none runs on this store. */
async function account(request: ControlRequest): Promise<void> {
  const config = await readConfig()
  const path = controlPath(config)
  const answer =
    (path === undefined ? undefined : await askServer(path, request)) ?? (await locally(config, request))
  if ('error' in answer) throw new UserError(answer.error)
  for (const line of answer.lines) print(line)
}

async function locally(config: Config, request: ControlRequest): Promise<ControlAnswer> {
  if (config.storage.driver === 'memory')
    throw new UserError('the memory store keeps nothing: there is no server to ask')
  await using local = await makeLocalHosts(config, await findModules(), quiet)
  return await runAccountCommand(local.hosts, request)
}

/** A password typed without echo on a terminal, or the first line of standard input. */
async function readPassword(address: string): Promise<string> {
  const terminal = process.stdin.isTTY === true
  const silent = new Writable({ write: (_chunk, _encoding, done) => done() })
  const lines = createInterface(
    terminal ? { input: process.stdin, output: silent, terminal } : { input: process.stdin },
  )
  try {
    if (!terminal) {
      for await (const line of lines) return line
      return ''
    }
    process.stderr.write(`Password for ${address}: `)
    const password = await lines.question('')
    process.stderr.write('\nAgain: ')
    const again = await lines.question('')
    process.stderr.write('\n')
    if (password !== again) throw new UserError('the two passwords differ')
    return password
  } finally {
    lines.close()
  }
}

const sentence = (error: unknown): string => (error instanceof Error ? error.message : String(error))

function fail(error: unknown): void {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : EXIT.usage
    return
  }
  process.stderr.write(
    `hermod: ${expected(error) ? sentence(error) : (error instanceof Error && error.stack) || String(error)}\n`,
  )
  process.exitCode = error instanceof ConfigError ? EXIT.config : EXIT.failure
}

/** Errors whose message is for the user; others are bugs and show where they come from. */
function expected(error: unknown): boolean {
  if (error instanceof OperatorError || error instanceof StoreUnavailable) return true
  return error instanceof Error && error.cause instanceof Error // the core has said it in a sentence of its own
}

// What the server writes (accounts, keys of development certificates) is for its own user.
process.umask(0o077)
try {
  await program.parseAsync()
} catch (error) {
  fail(error)
}
