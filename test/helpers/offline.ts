/** What the tests of module offline share: hosts with it, messages, a store with switches. */
import disco from '../../modules/disco.ts'
import mam from '../../modules/mam/index.ts'
import offline from '../../modules/offline/index.ts'
import presence from '../../modules/presence/index.ts'
import roster from '../../modules/roster/index.ts'
import stanzaId from '../../modules/stanza-id.ts'
import type { Archive, Doc, Store } from '../../server/storage/contract.ts'
import { openMemory } from '../../server/storage/memory.ts'
import type { Element } from '../../server/xmpp/element.ts'
import { type TestClient, type TestHost, testHost, type TestHostOptions } from './host.ts'

/** XEP-0334. */
export const HINTS = 'urn:xmpp:hints'
const accounts = ['juliet', 'romeo']

/** A host; `config` is the module's. */
export function start(config: object = {}, more: Partial<TestHostOptions> = {}): Promise<TestHost> {
  return testHost({
    modules: [disco, roster, presence, offline],
    accounts,
    config: { offline: config },
    ...more,
  })
}
/** The same with archives. */
export const withArchive = (config: object = {}, more: Partial<TestHostOptions> = {}): Promise<TestHost> =>
  start(config, { modules: [disco, roster, presence, stanzaId, mam, offline], ...more })

/** A message to juliet with this id and body. */
export const say = (text: string, attrs = "type='chat'", more = ''): string =>
  `<message to='juliet@example.org' id='${text}' ${attrs}><body>${text}</body>${more}</message>`
/** Only the messages. */
export const messages = (received: readonly Element[]): Element[] =>
  received.filter((e) => e.name === 'message')
/** Bodies of the messages. */
export const bodies = (received: readonly Element[]): (string | undefined)[] =>
  messages(received).map((e) => e.getChildText('body'))
/** The sender. */
export const romeoAt = (h: TestHost): Promise<TestClient> => h.client('romeo@example.org/orchard')
/** What juliet gets on a device that becomes available. */
export async function arrive(h: TestHost, resource = 'balcony', inner = ''): Promise<Element[]> {
  const client = await h.client(`juliet@example.org/${resource}`)
  return messages(await client.send(`<presence>${inner}</presence>`))
}

/** A store in memory with switches. */
export async function switched(): Promise<{
  readonly store: Store
  /** Reads, and removals, of the module wait for these. */
  reading: Promise<void> | undefined
  removing: Promise<void> | undefined
  /** Calls that fail. */
  readonly failing: Set<'append' | 'page' | 'remove'>
}> {
  const inner = await openMemory()
  const check = (name: 'append' | 'page' | 'remove'): void => {
    if (state.failing.has(name)) throw new Error('disk full')
  }
  const wrap = <T extends Doc>(archive: Archive<T>): Archive<T> => ({
    append: async (owner, entry) => {
      check('append')
      return archive.append(owner, entry)
    },
    page: async (owner, q) => {
      await state.reading
      check('page')
      return archive.page(owner, q)
    },
    replace: (owner, id, doc) => archive.replace(owner, id, doc),
    remove: async (owner, q) => {
      await state.removing
      check('remove')
      return archive.remove(owner, q)
    },
    owners: () => archive.owners(),
  })
  const state = {
    store: {
      driver: inner.driver,
      open: (host: string, module: string) => {
        const opened = inner.open(host, module)
        if (module !== 'offline') return opened
        return { ...opened, archive: (name, opts) => wrap(opened.archive(name, opts)) }
      },
      purgeOwner: (host: string, owner: string) => inner.purgeOwner(host, owner),
      healthy: () => inner.healthy(),
      close: () => inner.close(),
    } satisfies Store as Store,
    reading: undefined as Promise<void> | undefined,
    removing: undefined as Promise<void> | undefined,
    failing: new Set<'append' | 'page' | 'remove'>(),
  }
  return state
}
