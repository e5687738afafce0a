/**
 * Starts other XMPP servers for interoperability tests: Debian's Prosody and ejabberd, each with its own configuration
 * (test/interop/peers), a scratch folder and free ports on 127.0.0.1. Stopped by process id when disposed of.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { COMPONENT_SECRET, componentDomains } from './component-client.ts'
import type { Address } from './connection.ts'
import { freePorts } from './programs.ts'

const CONFIG = join(import.meta.dirname, '../interop/peers')

/** A running peer. */
export interface Peer extends Address, AsyncDisposable {
  readonly name: 'prosody' | 'ejabberd'
  readonly ports: {
    readonly c2s: number
    readonly c2sTls: number
    readonly http: number
    readonly s2s: number
    readonly component: number
  }
  readonly ca: string
  readonly folder: string
  addUser(local: string, password: string): Promise<void>
}

/** Settings of a peer; `s2s` opens a port for other servers, `requireTls` refuses logins on plain TCP. */
export interface PeerOptions {
  readonly domain?: string
  readonly requireTls?: boolean
  readonly s2s?: boolean
}

/** Where a program of a Debian package is, or undefined when the package is not installed. */
export function findProgram(...paths: readonly string[]): string | undefined {
  return paths.find((path) => existsSync(path))
}

/** Path of Prosody, undefined when it is not installed. */
/** Debian's Prosody, or undefined. */
export const prosodyProgram = findProgram('/usr/bin/prosody')
/** Path of ejabberd's control program, undefined when it is not installed. */
/** Debian's ejabberd, or undefined. */
export const ejabberdProgram = findProgram('/usr/sbin/ejabberdctl', '/usr/bin/ejabberdctl')

/** A scratch folder with cert.pem, key.pem and both.pem: a self-signed certificate for the domain. */
export async function scratchFolder(domain: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'hermod-peer-'))
  const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')]
  // A subject of its own: OpenSSL finds certificates by a hash of it, and packages put a CN=localhost into the system's store.
  const subject = `/O=${basename(folder)}/CN=${domain}`
  const names = `subjectAltName=DNS:${domain},DNS:conference.${domain}`
  const options = [
    'req',
    '-x509',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-days',
    '2',
  ]
  const output = ['-keyout', key, '-out', cert, '-subj', subject, '-addext', names]
  execFileSync('openssl', [...options, ...output], { stdio: 'pipe' })
  writeFileSync(join(folder, 'both.pem'), readFileSync(cert, 'utf8') + readFileSync(key, 'utf8'))
  return folder
}

/** Prosody 0.12 or later. */
export async function startProsody(options: PeerOptions = {}): Promise<Peer> {
  if (prosodyProgram === undefined) throw new Error('prosody is not installed')
  const domain = options.domain ?? 'localhost'
  const folder = await scratchFolder(domain)
  const [c2s = 0, c2sTls = 0, http = 0, component = 0, free = 0] = await freePorts(5)
  const s2s = options.s2s === true ? free : 0
  const env = {
    ...process.env,
    PEER_DIR: folder,
    PEER_DOMAIN: domain,
    PEER_C2S: String(c2s),
    PEER_C2S_TLS: String(c2sTls),
    PEER_HTTP: String(http),
    PEER_S2S: String(s2s),
    PEER_COMPONENT: String(component),
    PEER_COMPONENTS: componentDomains(domain).join(' '),
    PEER_COMPONENT_SECRET: COMPONENT_SECRET,
    PEER_REQUIRE_TLS: options.requireTls === true ? '1' : '0',
  }
  const config = join(CONFIG, 'prosody.cfg.lua')
  const child = spawn(prosodyProgram, ['-F', '--config', config], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  const accounts = join(folder, 'data', encodeName(domain), 'accounts')
  mkdirSync(accounts, { recursive: true })
  await untilListening(child, folder, [c2s, component], 'prosody.log')
  return {
    name: 'prosody',
    domain,
    ports: { c2s, c2sTls, http, s2s, component },
    ca: join(folder, 'cert.pem'),
    folder,
    // Its file storage is read anew at each login, so that writing the file is all it takes.
    addUser: (local, password) => {
      writeFileSync(
        join(accounts, `${encodeName(local)}.dat`),
        `return { ["password"] = ${JSON.stringify(password)}; };\n`,
      )
      return Promise.resolve()
    },
    [Symbol.asyncDispose]: () => stop(child, folder),
  }
}

/** ejabberd 23.01 or later, without Erlang distribution (no epmd). */
export async function startEjabberd(options: PeerOptions = {}): Promise<Peer> {
  if (ejabberdProgram === undefined) throw new Error('ejabberd is not installed')
  const domain = options.domain ?? 'localhost'
  const folder = await scratchFolder(domain)
  const [c2s = 0, c2sTls = 0, http = 0, component = 0] = await freePorts(4)
  const values = new Map([
    ['DIR', folder],
    ['DOMAIN', domain],
    ['HOST', '127.0.0.1'],
    ['C2S', String(c2s)],
    ['C2S_TLS', String(c2sTls)],
    ['HTTP', String(http)],
    ['COMPONENT', String(component)],
    [
      'COMPONENTS',
      JSON.stringify(
        Object.fromEntries(componentDomains(domain).map((name) => [name, { password: COMPONENT_SECRET }])),
      ),
    ],
    ['REQUIRE_TLS', String(options.requireTls === true)],
  ])
  const template = readFileSync(join(CONFIG, 'ejabberd.yml'), 'utf8')
  const config = join(folder, 'ejabberd.yml')
  writeFileSync(
    config,
    template.replaceAll(/@([A-Z_0-9]+)@/g, (_, name: string) => values.get(name) ?? ''),
  )
  writeFileSync(join(folder, 'inetrc'), '{lookup,["file","native"]}.\n{host,{127,0,0,1},["localhost"]}.\n')
  const libraries = /^ *ERL_LIBS='?([^'\n]*)/m.exec(readFileSync(ejabberdProgram, 'utf8'))?.[1]
  const env = {
    ...process.env,
    ...(libraries === undefined ? {} : { ERL_LIBS: libraries }),
    ERL_INETRC: join(folder, 'inetrc'),
    ERL_CRASH_DUMP_BYTES: '0',
    HOME: folder,
    EJABBERD_CONFIG_PATH: config,
    EJABBERD_LOG_PATH: join(folder, 'ejabberd.log'),
  }
  const quiet = ['+sbwt', 'none', '+sbwtdcpu', 'none', '+sbwtdio', 'none'] // idle schedulers must not spin
  const erl = ['-noinput', '+K', 'true', ...quiet, '-mnesia', 'dir', `"${folder}/mnesia"`, '-s', 'ejabberd']
  const child = spawn('erl', erl, { env, cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] })
  await untilListening(child, folder, [http, c2s, component], 'ejabberd.log')
  return {
    name: 'ejabberd',
    domain,
    ports: { c2s, c2sTls, http, s2s: 0, component },
    ca: join(folder, 'cert.pem'),
    folder,
    addUser: async (local, password) => {
      const body = JSON.stringify({ user: local, host: domain, password })
      const answer = await fetch(`http://127.0.0.1:${http}/api/register`, { method: 'POST', body })
      if (!answer.ok) throw new Error(`ejabberd refused an account: ${answer.status} ${await answer.text()}`)
    },
    [Symbol.asyncDispose]: () => stop(child, folder),
  }
}

/** Prosody's way to write a name as a file name. */
function encodeName(name: string): string {
  return [...Buffer.from(name)]
    .map((byte) => String.fromCharCode(byte))
    .map((char) => (/[A-Za-z0-9]/.test(char) ? char : `%${char.charCodeAt(0).toString(16).padStart(2, '0')}`))
    .join('')
}

/** Tries to connect until it works; stops the server and says what it printed and logged when it does not in 40 s. */
async function untilListening(
  child: ChildProcess,
  folder: string,
  ports: readonly number[],
  logName: string,
): Promise<void> {
  let printed = ''
  const keep = (data: Buffer) => (printed = (printed + data.toString()).slice(-4000))
  child.stdout?.on('data', keep)
  child.stderr?.on('data', keep)
  const deadline = Date.now() + 40_000
  for (const port of ports) {
    while (!(await accepts(port))) {
      if (child.exitCode !== null || Date.now() > deadline) {
        const logFile = join(folder, logName)
        const log = existsSync(logFile) ? readFileSync(logFile, 'utf8').slice(-4000) : ''
        await stop(child, folder)
        throw new Error(`${child.spawnfile} does not listen on ${port}\n${printed}\n${log}`)
      }
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }
}

async function accepts(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1')
  return new Promise((resolve) => {
    socket.on('connect', () => resolve(true)).on('error', () => resolve(false))
  }).finally(() => socket.destroy()) as Promise<boolean>
}

async function stop(child: ChildProcess, folder: string): Promise<void> {
  const ended = child.exitCode === null && child.signalCode === null ? once(child, 'exit') : undefined
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), 5000)
  await ended
  clearTimeout(timer)
  await rm(folder, { recursive: true, force: true, maxRetries: 3 })
}
