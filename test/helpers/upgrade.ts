/** Logins with SASL2 that ask for upgrades (XEP-0480): hosts with accounts that lack keys, and the client's side of the tasks. */
import { pbkdf2Sync } from 'node:crypto'
import type { Element } from 'ltx'
import accounts from '../../modules/accounts/index.ts'
import authLimits from '../../modules/auth-limits.ts'
import bind from '../../modules/bind.ts'
import bind2 from '../../modules/bind2.ts'
import fast from '../../modules/fast.ts'
import sasl from '../../modules/sasl/index.ts'
import saslUpgrade from '../../modules/sasl-upgrade.ts'
import sasl2 from '../../modules/sasl2.ts'
import sm from '../../modules/stream-management/index.ts'
import type { ScramHash } from '../../server/module.ts'
import type { Store } from '../../server/storage/contract.ts'
import { openMemory } from '../../server/storage/memory.ts'
import { type TestHost, testHost } from './host.ts'
import { bindingData, bindingTls, LoginStream } from './login.ts'
import { Scram } from './scram.ts'

/** XEP-0388. */
export const NS = 'urn:xmpp:sasl:2'
/** XEP-0480 §2. */
export const NS_UPGRADE = 'urn:xmpp:sasl:upgrade:0'
/** XEP-0480 §3. */
export const NS_SCRAM = 'urn:xmpp:scram-upgrade:0'
/** What clients say of themselves. */
export const AGENT = "<user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'/>"
/** Of all accounts. */
export const PASSWORD = 'r0m30myr0m30'
/** Whose keys are of old hashes only. */
export const JULIET = 'juliet@example.org'
/** All hashes. */
export const ALL: readonly ScramHash[] = ['SHA-1', 'SHA-256', 'SHA-512']
const NODE: Readonly<Record<string, readonly [name: string, bytes: number]>> = {
  'SHA-1': ['sha1', 20],
  'SHA-256': ['sha256', 32],
  'SHA-512': ['sha512', 64],
}
/** TLS of all streams, with channel bindings. */
export const tls = bindingTls()
/** Base64. */
export const b64 = (data: string | Uint8Array): string => Buffer.from(data as string).toString('base64')
/** Text of base64, none of nothing. */
export const unb64 = (text: string | null | undefined): string => Buffer.from(text ?? '', 'base64').toString()

type Modules = Parameters<typeof testHost>[0]['modules']

/** A host on this store whose new passwords get keys of these hashes. */
export function hostWith(store: Store, hashes: readonly ScramHash[], ...more: Modules): Promise<TestHost> {
  return testHost({
    modules: [accounts, authLimits, sasl, bind, sasl2, bind2, sm, fast, saslUpgrade, ...more],
    config: { accounts: { iterations: 4096, hashes }, 'auth-limits': { perAccount: 3 } },
    store,
  })
}

/** A host with all hashes, on which juliet's keys are of `old` only, and romeo's of all. */
export async function start(old: readonly ScramHash[] = ['SHA-1'], ...more: Modules): Promise<TestHost> {
  const store = await openMemory()
  {
    await using before = await hostWith(store, old)
    await before.service('auth').create('juliet', PASSWORD)
  }
  const host = await hostWith(store, ALL, ...more)
  await host.service('auth').create('romeo', PASSWORD)
  return host
}

/** The upgrades that the features announce. */
export const upgradesOf = (login: LoginStream): string[] =>
  login.features
    ?.getChild('authentication', NS)
    ?.getChildren('upgrade', NS_UPGRADE)
    .map((one) => one.getText()) ?? []
/** Names of the children. */
export const names = (element: Element | undefined): string[] =>
  element?.getChildElements().map((child) => child.getName()) ?? []
/** Tasks of a <continue/>. */
export const tasksOf = (element: Element): string[] =>
  element
    .getChild('tasks', NS)
    ?.getChildren('task')
    .map((task) => task.getText()) ?? []
/** The hashes an account has keys for. */
export const hashesOf = async (host: TestHost, local = 'juliet'): Promise<string> =>
  String((await host.service('auth').info(local))?.['hashes'])

/** Children of <authenticate/> that ask for upgrades. */
export const ask = (...hashes: string[]): string =>
  hashes.map((hash) => `<upgrade xmlns='${NS_UPGRADE}'>UPGR-SCRAM-${hash}</upgrade>`).join('')
/** <next/>. */
export const next = (hash: string): string => `<next xmlns='${NS}' task='UPGR-SCRAM-${hash}'/>`
/** <task-data/>. */
export const taskData = (inner: string): string => `<task-data xmlns='${NS}'>${inner}</task-data>`
/** <task-data/> with a hash, text as given. */
export const hashed = (text: string): string => taskData(`<hash xmlns='${NS_SCRAM}'>${text}</hash>`)

/** What a client answers: SaltedPassword (RFC 5802 §3), by node:crypto. */
export function salted(hash: string, data: Element, password = PASSWORD): Buffer {
  const salt = data.getChild('salt', NS_SCRAM)
  const [name = '', bytes = 0] = NODE[hash] ?? []
  const iterations = Number(salt?.attrs['iterations'])
  return pbkdf2Sync(password, Buffer.from(salt?.getText() ?? '', 'base64'), iterations, bytes, name)
}

interface How {
  readonly mechanism?: string
  readonly from?: string
  readonly user?: string
  readonly inner?: string
}
/** A SCRAM login up to what comes after its last message. */
export async function scramLogin(
  host: TestHost,
  how: How,
): Promise<{ login: LoginStream; answers: Element[]; proven: boolean }> {
  const { mechanism = 'SCRAM-SHA-1-PLUS', from = JULIET, user = 'juliet', inner = '' } = how
  const login = await LoginStream.open(host, { tls, ...(from === '' ? {} : { from }) })
  const plus = mechanism.endsWith('-PLUS')
  const scram = new Scram(
    mechanism,
    user,
    PASSWORD,
    plus ? { gs2: 'p=tls-exporter,,' } : {},
    plus ? bindingData('tls-exporter') : undefined,
  )
  const challenge = await login.ask(
    `<authenticate xmlns='${NS}' mechanism='${mechanism}'><initial-response>${b64(scram.first())}</initial-response>${AGENT}${inner}</authenticate>`,
  )
  if (challenge.getName() !== 'challenge') return { login, answers: [challenge], proven: false }
  const final = scram.final(unb64(challenge.getText()))
  const answers = await login.send(`<response xmlns='${NS}'>${b64(final)}</response>`)
  return { login, answers, proven: scram.verify(unb64(answers[0]?.getChildText('additional-data'))) }
}
/** A login by PLAIN. */
export async function plainLogin(host: TestHost, inner: string, password = PASSWORD): Promise<Element[]> {
  const login = await LoginStream.open(host, { tls, from: JULIET })
  const initial = b64(`\0juliet\0${password}`)
  return login.send(
    `<authenticate xmlns='${NS}' mechanism='PLAIN'><initial-response>${initial}</initial-response>${AGENT}${inner}</authenticate>`,
  )
}
/** Logs in and asks for an upgrade, up to the salt. */
export async function begun(
  host: TestHost,
  hash = 'SHA-256',
  inner = '',
): Promise<{ login: LoginStream; data: Element }> {
  const { login } = await scramLogin(host, { inner: ask(hash) + inner })
  return { login, data: await login.ask(next(hash)) }
}
