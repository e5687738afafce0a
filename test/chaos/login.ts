/**
 * Ways to log in and come back: SASL with binding (RFC 6120 §6, §7), and SASL2 in one round trip (XEP-0388) with the password or a token
 * (XEP-0484), resumption (XEP-0198 §9) and binding (XEP-0386) inline.
 */
import { createHmac } from 'node:crypto'
import type { Element } from '../helpers/xml.ts'
import type { Link } from './link.ts'

const NS_SASL2 = 'urn:xmpp:sasl:2'
const NS_BIND2 = 'urn:xmpp:bind:0'
const NS_FAST = 'urn:xmpp:fast:0'
const NS_CARBONS = 'urn:xmpp:carbons:2'
const NS_SM = 'urn:xmpp:sm:3'
/** Not bound to the connection; the others differ in the MAC only. */
const HT = 'HT-SHA-256-NONE'

/** How a device logs in; classic without TLS. */
export type Way = 'classic' | 'sasl2' | 'fast'

/** What a device has to log in with. */
export interface Credentials {
  readonly way: Way
  readonly account: string
  readonly password: string
  readonly resource: string
  /** UUID of the installation. */
  readonly agent: string
  token: string | undefined
}

/** A session to come back to. */
export interface Former {
  readonly id: string
  /** Stanzas received in it. */
  readonly h: number
}

/** What came of it. `h` is what the server says that it has handled of the former session. */
export interface Welcome {
  readonly resumed: boolean
  readonly h: number | undefined
  /** Of a new session. */
  readonly jid: string
  /** SM-ID of a new session. */
  readonly id: string | undefined
  /** Messages that came before the answer, which are not counted. */
  readonly early: readonly Element[]
}

/** The server does not let us in. */
export class Refused extends Error {}

/** The server is about to end. */
export class Stopping extends Error {}

/** Logs in, resuming `former` when it can be. Rejects with Refused, or when the connection ends. */
export async function login(link: Link, who: Credentials, former: Former | undefined): Promise<Welcome> {
  await link.header()
  return who.way === 'classic' ? classic(link, who, former) : inline(link, who, former)
}

const plain = ({ account, password }: Credentials): string =>
  Buffer.from(`\0${account}\0${password}`).toString('base64')

const numberOf = (text: string | undefined): number | undefined =>
  text === undefined ? undefined : Number(text)

const resumeOf = ({ id, h }: Former): string => `<resume xmlns='${NS_SM}' previd='${id}' h='${h}'/>`

async function classic(link: Link, who: Credentials, former: Former | undefined): Promise<Welcome> {
  const auth = `<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>${plain(who)}</auth>`
  await expect(link.ask(auth), 'success')
  await link.header()
  let h: number | undefined
  if (former !== undefined) {
    const answer = await link.ask(resumeOf(former))
    h = numberOf(answer.attrs['h'])
    if (answer.name === 'resumed') return { resumed: true, h, jid: '', id: former.id, early: [] }
    if (isStopping(answer)) throw new Stopping()
    if (answer.name !== 'failed') throw new Refused(answer.toString())
  }
  const iq = `<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>${who.resource}</resource></bind></iq>`
  const bound = await expect(link.ask(iq), 'iq')
  const jid = bound.getChild('bind')?.getChildText('jid') ?? ''
  if (jid === '') throw new Refused(bound.toString())
  let enabled = await link.ask(`<enable xmlns='${NS_SM}' resume='true'/>`)
  const early: Element[] = []
  // What is for exactly this resource may come before.
  for (; enabled.name === 'message'; enabled = await link.next()) early.push(enabled)
  if (isStopping(enabled)) throw new Stopping()
  if (enabled.name !== 'enabled') throw new Refused(enabled.toString())
  return { resumed: false, h, jid, id: enabled.attrs['id'], early }
}

async function inline(link: Link, who: Credentials, former: Former | undefined): Promise<Welcome> {
  const { token } = who
  const mechanism = token === undefined ? 'PLAIN' : HT
  const response =
    token === undefined
      ? plain(who)
      : Buffer.concat([
          Buffer.from(`${who.account}\0`),
          createHmac('sha256', token).update('Initiator').digest(),
        ]).toString('base64')
  const fast =
    token === undefined
      ? `<request-token xmlns='${NS_FAST}' mechanism='${HT}'/>`
      : `<fast xmlns='${NS_FAST}'/>`
  const request =
    `<authenticate xmlns='${NS_SASL2}' mechanism='${mechanism}'><initial-response>${response}</initial-response>` +
    `<user-agent id='${who.agent}'/>${who.way === 'fast' ? fast : ''}${former === undefined ? '' : resumeOf(former)}` +
    `<bind xmlns='${NS_BIND2}'><tag>${who.resource}</tag><enable xmlns='${NS_CARBONS}'/><enable xmlns='${NS_SM}' resume='true'/></bind></authenticate>`
  const answer = await link.ask(request)
  if (isStopping(answer)) throw new Stopping()
  if (answer.name !== 'success') {
    who.token = undefined
    throw new Refused(`${mechanism}: ${answer.toString()}`)
  }
  who.token = answer.getChild('token', NS_FAST)?.attrs['token'] ?? token
  const resumed = answer.getChild('resumed', NS_SM)
  if (resumed !== undefined)
    return { resumed: true, h: numberOf(resumed.attrs['h']), jid: '', id: former?.id, early: [] }
  const h = numberOf(answer.getChild('failed', NS_SM)?.attrs['h'])
  const id = answer.getChild('bound', NS_BIND2)?.getChild('enabled', NS_SM)?.attrs['id']
  if (id === undefined) throw new Refused(answer.toString())
  return { resumed: false, h, jid: answer.getChildText('authorization-identifier') ?? '', id, early: [] }
}

async function expect(answer: Promise<Element>, name: string): Promise<Element> {
  const element = await answer
  if (isStopping(element)) throw new Stopping()
  if (element.name !== name)
    throw new Refused(`<${element.name}/> came, not <${name}/>: ${element.toString()}`)
  return element
}

const isStopping = (element: Element): boolean =>
  element.getChild('system-shutdown', 'urn:ietf:params:xml:ns:xmpp-streams') !== undefined
