/** Logins with tokens (XEP-0484) and what comes before them: the client's side. */
import { createHmac } from 'node:crypto'
import type { Element } from 'ltx'
import accounts from '../../modules/accounts/index.ts'
import bind from '../../modules/bind.ts'
import bind2 from '../../modules/bind2.ts'
import fast from '../../modules/fast.ts'
import sasl from '../../modules/sasl/index.ts'
import sasl2 from '../../modules/sasl2.ts'
import sm from '../../modules/stream-management/index.ts'
import type { TlsInfo } from '../../server/module.ts'
import { type TestHost, testHost } from './host.ts'
import { bindingData, bindingTls, LoginStream } from './login.ts'

/** XEP-0484. */
export const NS = 'urn:xmpp:fast:0'
/** An installation. */
export const AGENT = 'd4565fa7-4d72-4749-b3d3-740edbf87770'
/** Another one. */
export const OTHER = '11111111-4d72-4749-b3d3-740edbf87770'
/** Of all accounts. */
export const PASSWORD = 'r0m30myr0m30'
/** TLS with channel bindings. */
export const tls = bindingTls()
const BINDINGS: Readonly<Record<string, string>> = { EXPR: 'tls-exporter', ENDP: 'tls-server-end-point' }
/** Base64. */
export const b64 = (data: string | Buffer): string => Buffer.from(data).toString('base64')

/** A host with juliet and romeo; `config` is that of the module. */
export async function start(config: object = {}, store?: TestHost['store']): Promise<TestHost> {
  const host = await testHost({
    modules: [accounts, sasl, bind, sasl2, bind2, sm, fast],
    config: { accounts: { iterations: 4096 }, fast: config },
    ...(store === undefined ? {} : { store }),
  })
  for (const name of ['juliet', 'romeo'])
    if ((await host.service('auth').exists(name)) !== true) await host.service('auth').create(name, PASSWORD)
  return host
}

/** <user-agent/>. */
export const agentOf = (id: string | undefined): string =>
  id === undefined ? '' : `<user-agent id='${id}'/>`
/** <request-token/>. */
export const requestToken = (mechanism: string): string =>
  `<request-token xmlns='${NS}' mechanism='${mechanism}'/>`
/** Initiator-hashed-token and Responder-hashed-token of the HT mechanisms. */
export const macOf = (token: string, role: string, mechanism: string): Buffer => {
  const type = BINDINGS[mechanism.slice(-4)]
  return createHmac('sha256', token)
    .update(role)
    .update(type === undefined ? '' : bindingData(type))
    .digest()
}

/** What came of a login. */
export interface Outcome {
  readonly login: LoginStream
  readonly all: readonly Element[]
  readonly success: Element | undefined
  /** '' after a success. */
  readonly failure: string
  readonly token: string | undefined
  readonly expiry: number
}
/** Reads the answers to a login. */
export function outcome(login: LoginStream, all: readonly Element[]): Outcome {
  const [answer] = all
  const token = answer?.getChild('token', NS)?.attrs as Record<string, string> | undefined
  return {
    login,
    all,
    success: answer?.getName() === 'success' ? answer : undefined,
    failure: answer?.getName() === 'failure' ? (answer.getChildElements()[0]?.getName() ?? '?') : '',
    token: token?.['token'],
    expiry: Date.parse(token?.['expiry'] ?? ''),
  }
}

/** Logs in with the password, by PLAIN. */
export async function byPassword(
  host: TestHost,
  inner: string,
  agent: string | undefined = AGENT,
  password = PASSWORD,
): Promise<Outcome> {
  const login = await LoginStream.open(host, { tls })
  const initial = b64(`\0juliet\0${password}`)
  return outcome(
    login,
    await login.send(
      `<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>${initial}</initial-response>${agentOf(agent)}${inner}</authenticate>`,
    ),
  )
}
/** A token for the mechanism. */
export async function obtain(host: TestHost, mechanism = 'HT-SHA-256-EXPR', agent = AGENT): Promise<string> {
  return (await byPassword(host, requestToken(mechanism), agent)).token ?? 'none'
}

/** What is to be other than usual. */
export interface Changes {
  readonly mechanism?: string
  readonly agent?: string | undefined
  readonly user?: string
  readonly fast?: string
  readonly inner?: string
  readonly tls?: TlsInfo
  readonly from?: string
}
/** Logs in with a token. */
export async function byToken(host: TestHost, token: string, changes: Changes = {}): Promise<Outcome> {
  const { mechanism = 'HT-SHA-256-EXPR', user = 'juliet', inner = '' } = changes
  const agent = 'agent' in changes ? changes.agent : AGENT
  const login = await LoginStream.open(host, {
    tls: changes.tls ?? tls,
    ...(changes.from === undefined ? {} : { from: changes.from }),
  })
  const initial = b64(Buffer.concat([Buffer.from(`${user}\0`), macOf(token, 'Initiator', mechanism)]))
  return outcome(
    login,
    await login.send(
      `<authenticate xmlns='urn:xmpp:sasl:2' mechanism='${mechanism}'><initial-response>${initial}</initial-response>${agentOf(agent)}${changes.fast ?? `<fast xmlns='${NS}'/>`}${inner}</authenticate>`,
    ),
  )
}
