/** What the tests of archives share: queries of a client with their results in readable form, messages to archive. */
import blocking from '../../modules/blocking/index.ts'
import mam from '../../modules/mam/index.ts'
import presence from '../../modules/presence/index.ts'
import retract from '../../modules/retract/index.ts'
import roster from '../../modules/roster/index.ts'
import stanzaIdModule from '../../modules/stanza-id.ts'
import disco from '../../modules/disco.ts'
import { type Store, StoreUnavailable } from '../../server/storage/contract.ts'
import { openMemory } from '../../server/storage/memory.ts'
import type { Element } from '../../server/xmpp/element.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { outcome } from './iq.ts'
import { wrapped } from './wrapped-store.ts'
import { type TestClient, type TestHost, type TestHostOptions, testHost } from './host.ts'

/** The namespace of archives. */
export const NS_MAM = 'urn:xmpp:mam:2'
/** Accounts of `archiveHost`. */
export const archiveAccounts: readonly string[] = ['juliet', 'romeo', 'nurse']

/** A host with archives and what they work with. */
export function archiveHost(options: object = {}, more: Partial<TestHostOptions> = {}): Promise<TestHost> {
  return testHost({
    modules: [disco, roster, presence, blocking, stanzaIdModule, mam, retract],
    accounts: archiveAccounts,
    config: { mam: options },
    ...more,
  })
}

/** What a query asks for. */
export interface Asked {
  /** Fields of the form: name to value or values. */
  readonly form?: Readonly<Record<string, string | readonly string[]>>
  /** Content of the <set/>. */
  readonly rsm?: string
  readonly flip?: boolean
  readonly queryId?: string
  readonly to?: string
}

/** A result as it came. */
export interface Got {
  readonly id: string
  readonly queryId: string | undefined
  readonly stamp: string
  readonly message: Element
  readonly body: string | undefined
  readonly outer: Element
}

/** The answer to a query. */
export interface Answer {
  readonly results: readonly Got[]
  readonly bodies: readonly (string | undefined)[]
  readonly ids: readonly string[]
  /** 'result', or type and condition of the error. */
  readonly outcome: string
  readonly fin: Element | undefined
  readonly complete: boolean
  readonly first: string | undefined
  readonly last: string | undefined
  readonly count: string | undefined
}

let asked = 0

/** XML of a query. */
export function queryXml({ form, rsm, flip, queryId, to }: Asked, id: string): string {
  const fields = Object.entries(form ?? {}).map(
    ([name, value]) =>
      `<field var='${name}'>${[value]
        .flat()
        .map((v) => `<value>${v}</value>`)
        .join('')}</field>`,
  )
  const x =
    form === undefined
      ? ''
      : `<x xmlns='${NS.DATA}' type='submit'><field var='FORM_TYPE' type='hidden'><value>${NS_MAM}</value></field>${fields.join('')}</x>`
  const set = rsm === undefined ? '' : `<set xmlns='${NS.RSM}'>${rsm}</set>`
  return `<iq type='set' id='${id}'${to === undefined ? '' : ` to='${to}'`}><query xmlns='${NS_MAM}'${
    queryId === undefined ? '' : ` queryid='${queryId}'`
  }>${x}${set}${flip === true ? '<flip-page/>' : ''}</query></iq>`
}

/** Sends a query and takes what comes until it is answered. Throws when results come after the answer. */
export async function query(client: TestClient, what: Asked = {}): Promise<Answer> {
  const id = `q${++asked}`
  const received = await client.send(queryXml(what, id))
  const at = received.findIndex((e) => e.name === 'iq' && e.attr('id') === id)
  const answer = received[at]
  if (answer === undefined) throw new Error(`no answer: ${received.join('')}`)
  const results = received.flatMap((e) => resultOf(e) ?? [])
  if (received.slice(at).some((e) => resultOf(e) !== undefined)) throw new Error('a result after the answer')
  const fin = answer.getChild('fin', NS_MAM)
  const set = fin?.getChild('set', NS.RSM)
  return {
    results,
    bodies: results.map(({ body }) => body),
    ids: results.map((r) => r.id),
    outcome: outcome(answer),
    fin,
    complete: fin?.attr('complete') === 'true',
    first: set?.getChildText('first'),
    last: set?.getChildText('last'),
    count: set?.getChildText('count'),
  }
}

function resultOf(outer: Element): Got | undefined {
  const result = outer.getChild('result', NS_MAM)
  if (result === undefined) return undefined
  const forwarded = result.getChild('forwarded', 'urn:xmpp:forward:0')
  const message = forwarded?.getChild('message', NS.CLIENT)
  if (message === undefined) throw new Error(`nothing is forwarded: ${outer.toString()}`)
  return {
    id: result.attr('id') ?? '',
    queryId: result.attr('queryid'),
    stamp: forwarded?.getChild('delay', NS.DELAY)?.attr('stamp') ?? '',
    message,
    body: message.getChildText('body'),
    outer,
  }
}

/** Bodies in the archive of a client's account, oldest first. */
export async function archived(client: TestClient): Promise<readonly (string | undefined)[]> {
  return (await query(client, { rsm: '<max>1000</max>' })).bodies
}

/** A chat message with a body. */
export const chat = (to: string, body: string, more = ''): string =>
  `<message to='${to}' type='chat' id='${body}'><body>${body}</body>${more}</message>`

/** An origin-id. */
export const origin = (id: string): string => `<origin-id xmlns='${NS.SID}' id='${id}'/>`

/** The id that the account's server gave a message, undefined without. */
export function stanzaId(message: Element | undefined, by: string): string | undefined {
  const ids = message?.getChildren('stanza-id', NS.SID).filter((e) => e.attr('by') === by) ?? []
  if (ids.length > 1) throw new Error('more than one stanza-id of one account')
  return ids[0]?.attr('id')
}

/** A store whose appends wait or fail as the test says. */
export async function controlledStore(): Promise<{
  readonly store: Store
  /** Appends of an owner wait for this. */
  readonly gates: Map<string, Promise<void>>
  /** Reads of an owner wait for this. */
  readonly reading: Map<string, Promise<void>>
  /** What is written and read of these owners fails. */
  readonly failing: Set<string>
  /** Appends of these owners take effect, and fail nevertheless. */
  readonly unsure: Set<string>
  /** Appends of these owners are given up, and have no effect. */
  readonly silent: Set<string>
  /** Removals of these owners fail. */
  readonly stuck: Set<string>
}> {
  const inner = await openMemory()
  const gates = new Map<string, Promise<void>>()
  const reading = new Map<string, Promise<void>>()
  const [failing, unsure, stuck] = [new Set<string>(), new Set<string>(), new Set<string>()]
  const silent = new Set<string>()
  const fine = (...failures: readonly boolean[]): void => {
    if (failures.includes(true)) throw new Error('disk full')
  }
  const store = wrapped(inner, (archive) => ({
    append: async (owner, entry) => {
      const gate = gates.get(owner)
      if (silent.has(owner)) throw new StoreUnavailable('no answer')
      // What it writes is decided in the order of the calls, when it is there is another matter.
      const written = failing.has(owner)
        ? Promise.reject(new Error('disk full'))
        : archive.append(owner, entry)
      written.catch(() => undefined)
      const fails = unsure.has(owner)
      await gate
      const appended = await written
      if (fails) throw new Error('connection lost')
      return appended
    },
    page: async (owner, q) => {
      await reading.get(owner)
      fine(failing.has(owner))
      return await archive.page(owner, q)
    },
    remove: async (owner, q) => {
      fine(failing.has(owner), stuck.has(owner))
      return await archive.remove(owner, q)
    },
  }))
  return { store, gates, reading, failing, unsure, silent, stuck }
}
