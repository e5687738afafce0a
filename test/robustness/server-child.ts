/**
 * A whole server in a process of its own, told what to do by its parent (stage.ts): so that its memory and the time its event loop is
 * busy can be measured apart from its clients. Started by `fork` with --expose-gc.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Doc } from '../../server/module.ts'
import { openLmdb } from '../../server/storage/lmdb.ts'
import { openMemory } from '../../server/storage/memory.ts'
import { openMongodb } from '../../server/storage/mongodb.ts'
import type { Store } from '../../server/storage/contract.ts'
import { parseJid } from '../../server/xmpp/jid.ts'
import { toDoc, unknownContact } from '../../modules/roster/contact.ts'
import { startServer, type TestServer, type TestServerOptions } from '../helpers/server.ts'
import { NullTransport } from './null-transport.ts'
import type { Answer, Commands, Order, StageOptions } from './orders.ts'

let server: TestServer | undefined
const undo = new AsyncDisposableStack()
const errors: string[] = []
const crowd: NullTransport[] = []

function running(): TestServer {
  if (server === undefined) throw new Error('the server is not started')
  return server
}

async function openStore(options: StageOptions): Promise<Store> {
  if (options.mongodb !== undefined)
    return openMongodb({ url: options.mongodb, database: options.database ?? 'robustness' })
  if (options.memoryStore === true) return openMemory()
  const path = await mkdtemp(join(tmpdir(), 'hermod-robust-'))
  undo.defer(() => rm(path, { recursive: true, force: true }))
  return openLmdb({ path, durable: false })
}

// Processor time between two ticks of a timer: how long the event loop was busy in one go, whatever else the machine does.
let longest = 0
let seen = busy()
function busy(): number {
  const { user, system } = process.threadCpuUsage()
  return (user + system) / 1000
}
setInterval(() => {
  const now = busy()
  longest = Math.max(longest, now - seen)
  seen = now
}, 2)

const commands: Commands = {
  async start(options) {
    const store = await openStore(options)
    undo.defer(() => store.close())
    const clear = { starttls: { required: false }, sasl: { requireTls: false, plainInClear: true } }
    const many = {
      connectionsPerAddress: 1_000_000,
      newConnectionsPerMinute: 1_000_000,
      ratePerAddress: '1 GiB',
      burstPerAddress: '1 GiB',
    }
    const drop = (): void => undefined
    const serverOptions: TestServerOptions = {
      modules: {
        ...clear,
        accounts: { iterations: 4096 },
        'auth-limits': { perAddress: 1e6, perAccount: 1e6 },
        ...options.modules,
      },
      config: { ...options.config, limits: { ...many, ...options.limits } },
      store,
      log: {
        debug: drop,
        info: drop,
        warn: drop,
        error(message, fields) {
          const err = fields !== undefined && 'err' in fields ? fields.err : undefined
          errors.push(`${message} ${err instanceof Error ? err.stack : JSON.stringify(fields ?? {})}`)
        },
      },
    }
    server = await startServer(serverOptions)
    const { ports, ca, domain } = server
    return { ports, ca, domain }
  },

  async accounts(names, password) {
    const { domain, server: core } = running()
    const [first, ...rest] = names
    if (first === undefined) return
    await running().addUser(first, password)
    const docs = core.store.open(domain, 'accounts').docs<Doc>('accounts')
    const keys = await docs.get(first, 'account')
    if (keys === undefined) throw new Error('the first account was not stored')
    await Promise.all(rest.map((name) => docs.put(name, 'account', keys)))
  },

  async roster(local, contacts, how) {
    const { domain, server: core } = running()
    const docs = core.store.open(domain, 'roster').docs<Doc>('contacts')
    await Promise.all(
      contacts.map(async (contact, i) => {
        const jid = parseJid(contact)
        const request =
          how.request === true
            ? `<presence xmlns='jabber:client' type='subscribe' from='${contact}'/>`
            : undefined
        const state = {
          to: how.to === true,
          from: how.from === true,
          pendingIn: request !== undefined,
          request,
        }
        const listed = request === undefined
        const doc = toDoc({
          ...unknownContact(jid),
          ...state,
          listed,
          name: `Contact ${i}`,
          groups: ['Friends'],
          version: i + 1,
        })
        if (doc !== undefined) await docs.put(local, contact, doc)
      }),
    )
  },

  async archive(local, peer, count) {
    const { domain, server: core } = running()
    const archive = core.store.open(domain, 'mam').archive<Doc>('messages')
    const at = Date.now() - 1000 * count
    for (let i = 0; i < count; i += 1000)
      await Promise.all(
        Array.from({ length: Math.min(1000, count - i) }, (_, n) => {
          const xml = `<message xmlns='jabber:client' type='chat' from='${peer}/x' to='${local}@${domain}'><body>message number ${i + n} of the test</body></message>`
          return archive.append(local, { at: new Date(at + 1000 * (i + n)), with: peer, doc: { xml } })
        }),
      )
  },

  async disperse() {
    for (const transport of crowd.splice(0)) transport.destroy()
  },

  async crowd(names) {
    const { domain, server: core } = running()
    for (const name of names) {
      const transport = new NullTransport()
      crowd.push(transport)
      const session = core.c2s.accept(transport)
      transport.feed(
        `<?xml version='1.0'?><stream:stream to='${domain}' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>`,
      )
      await core.c2s.adopt(session, parseJid(`${name}@${domain}/crowd`))
      transport.feed('<presence/>')
    }
  },

  async deleteAccount(local) {
    const { domain, server: core } = running()
    await core.hosts.get(domain)?.deleteAccount(local)
  },

  async setPassword(local, password) {
    const { domain, server: core } = running()
    await core.hosts.get(domain)?.service('auth')?.setPassword(local, password)
  },

  async sessions() {
    const { domain, server: core } = running()
    return { streams: core.c2s.size, bound: core.hosts.get(domain)?.count ?? 0 }
  },

  async memory() {
    for (let i = 0; i < 2; i++) {
      globalThis.gc?.()
      await new Promise((resolve) => setImmediate(resolve))
    }
    const { heapUsed, external, rss } = process.memoryUsage()
    return { used: heapUsed + external, rss }
  },

  async busiest() {
    const result = longest
    longest = 0
    return result
  },

  async errors() {
    return errors.splice(0)
  },

  async stop() {
    await server?.server.stop()
    await server?.[Symbol.asyncDispose]()
    await undo.disposeAsync()
  },
}

process.on('message', (order: Order) => {
  const run = commands[order.command] as (...args: readonly unknown[]) => Promise<unknown>
  run(...order.args).then(
    (value) => answer({ id: order.id, value }),
    (error: unknown) =>
      answer({
        id: order.id,
        error: error instanceof Error ? (error.stack ?? error.message) : String(error),
      }),
  )
})
process.once('disconnect', () => process.exit(1)) // the parent is gone

function answer(message: Answer): void {
  process.send?.(message)
}
