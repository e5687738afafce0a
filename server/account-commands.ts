/**
 * What the command line does with accounts. The same code runs in the server (asked over the control socket) and in the
 * command itself, when no server runs on this store.
 */
import type { ControlAnswer, ControlRequest } from './control.ts'
import type { Host } from './host.ts'
import type { AuthService, ScramHash, ScramKeys } from './module.ts'
import { StanzaError } from './xmpp/errors.ts'
import { JidError, parseJid } from './xmpp/jid.ts'

/**
 * Commands by name: `user.add JID PASSWORD`, `user.import JID KEYS...` (see `parseKeys`), `user.passwd JID PASSWORD`, `user.del JID`,
 * `user.list HOST`, `user.info JID`.
 */
export async function runAccountCommand(
  hosts: ReadonlyMap<string, Host>,
  request: ControlRequest,
): Promise<ControlAnswer> {
  try {
    return { lines: await run(hosts, request) }
  } catch (error) {
    if (error instanceof Refusal || error instanceof StanzaError) return { error: error.message }
    throw error
  }
}

/** Something the user can put right. */
class Refusal extends Error {}

async function run(
  hosts: ReadonlyMap<string, Host>,
  { command, args }: ControlRequest,
): Promise<readonly string[]> {
  const [address = '', password = ''] = args
  if (command === 'user.list') return list(hosts, address)
  const { host, auth, local } = account(hosts, address)
  const bare = `${local}@${host.name}`
  const known = await auth.info(local)
  const adds = command === 'user.add' || command === 'user.import'
  if (adds && known !== undefined) throw new Refusal(`there is an account ${bare} already`)
  // what an earlier removal has left that was interrupted
  if (command === 'user.del' && known === undefined) await host.deleteAccount(local)
  if (!adds && known === undefined) throw new Refusal(`there is no account ${bare}`)
  switch (command) {
    case 'user.add':
      await auth.create(local, password)
      return [`added ${bare}`]
    case 'user.import': {
      if (auth.scramStore === undefined) throw new Refusal('accounts of this host take no keys')
      await auth.scramStore.create(local, parseKeys(args.slice(1)))
      return [`added ${bare}`]
    }
    case 'user.passwd':
      await auth.setPassword(local, password)
      return [`changed the password of ${bare}`]
    case 'user.del':
      await host.deleteAccount(local)
      return [`removed ${bare} and everything it had here`]
    case 'user.info': {
      const resources = host.of(local).map((s) => `resource: ${s.jid.resource} (${s.remoteAddress})`)
      return [
        `account: ${bare}`,
        ...Object.entries(known ?? {}).map(([name, value]) => `${name}: ${value}`),
        ...resources,
      ]
    }
    default:
      throw new Refusal(`unknown command ${command}`)
  }
}

async function list(hosts: ReadonlyMap<string, Host>, name: string): Promise<readonly string[]> {
  const chosen = name === '' ? [...hosts.values()] : [hostNamed(hosts, name)]
  const lines: string[] = []
  for (const host of chosen)
    for await (const local of authOf(host).list()) lines.push(`${local}@${host.name}`)
  return lines.toSorted()
}

function account(
  hosts: ReadonlyMap<string, Host>,
  address: string,
): { host: Host; auth: AuthService; local: string } {
  try {
    const jid = parseJid(address)
    if (jid.local === '' || jid.resource !== '')
      throw new Refusal(`"${address}" is not the address of an account (user@host)`)
    const host = hostNamed(hosts, jid.domain)
    return { host, auth: authOf(host), local: jid.local }
  } catch (error) {
    if (error instanceof JidError) throw new Refusal(`"${address}" is not an address: ${error.message}`)
    throw error
  }
}

function hostNamed(hosts: ReadonlyMap<string, Host>, name: string): Host {
  const host = hosts.get(name)
  if (host === undefined)
    throw new Refusal(`this server does not serve ${name} (it serves ${[...hosts.keys()].join(', ')})`)
  return host
}

function authOf(host: Host): AuthService {
  const auth = host.service('auth')
  if (auth === undefined) throw new Refusal(`no module of ${host.name} keeps accounts`)
  return auth
}

const HASHES: ReadonlyMap<string, ScramHash> = new Map([
  ['SCRAM-SHA-1', 'SHA-1'],
  ['SCRAM-SHA-256', 'SHA-256'],
  ['SCRAM-SHA-512', 'SHA-512'],
])
/** `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey` (RFC 5803 §2), the last three in base64. */
const KEYS = /^(SCRAM-[A-Z0-9-]{1,10})\$(\d{1,9}):([^$:]+)\$([^$:]+):([^$:]+)$/

/** The keys of an account, one text for each hash. Messages do not repeat what they are about: it is worth a password. */
function parseKeys(texts: readonly string[]): ReadonlyMap<ScramHash, ScramKeys> {
  const found = new Map<ScramHash, ScramKeys>()
  for (const [i, text] of texts.entries()) {
    const [, name = '', iterations, salt = '', stored = '', server = ''] = KEYS.exec(text.trim()) ?? []
    const hash = HASHES.get(name)
    const [saltBytes, storedKey, serverKey] = [salt, stored, server].map(fromBase64)
    if (hash === undefined || saltBytes === undefined || storedKey === undefined || serverKey === undefined)
      throw new Refusal(`line ${i + 1} is not SCRAM-SHA-...$iterations:salt$StoredKey:ServerKey`)
    if (found.has(hash)) throw new Refusal(`line ${i + 1} is for the same hash as another one`)
    found.set(hash, { salt: saltBytes, iterations: Number(iterations), storedKey, serverKey })
  }
  return found
}

function fromBase64(text: string): Uint8Array | undefined {
  const bytes = Buffer.from(text, 'base64')
  return bytes.toString('base64') === text ? bytes : undefined
}
