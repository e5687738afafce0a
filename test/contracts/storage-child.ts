/**
 * The other process of the tests with several processes: `storage-child.ts DRIVER LOCATION`, where LOCATION
 * is JSON for the driver's opener. Takes jobs from its parent and answers each once; ends when the parent is
 * gone.
 */
import { Buffer } from 'node:buffer'
import type { Doc, Store } from '../../server/storage/contract.ts'
import { collect, range } from './storage/kit.ts'

type Numbered = { readonly n: number; readonly by: string }
type Args = Readonly<Record<string, never>>

const [driver = '', location = '{}'] = process.argv.slice(2)
const opener = `open${driver.charAt(0).toUpperCase()}${driver.slice(1)}`
const module = (await import(`../../server/storage/${driver}.ts`)) as Readonly<Record<string, unknown>>
const open = module[opener] as (opts: unknown) => Promise<Store>
const store = await open(JSON.parse(location))

function place(args: Args) {
  const storage = store.open('h', args['module'] ?? 'm')
  return {
    docs: storage.docs<Numbered>('d', { index: ['by'] }),
    archive: storage.archive<Doc>('a'),
    counter: storage.counter('c'),
    lease: storage.lease('l'),
  }
}

const jobs: Readonly<Record<string, (args: Args) => Promise<unknown>>> = {
  ready: async () => await store.healthy(),
  put: async (args) => await place(args).docs.put(args['owner']!, args['key']!, args['doc']!),
  get: async (args) => await place(args).docs.get(args['owner']!, args['key']!),
  delete: async (args) => await place(args).docs.delete(args['owner']!, args['key']!),
  find: async (args) => await collect(place(args).docs.find(args['field']!, args['value']!)),
  async append(args) {
    const entry = args['entry']! as {
      readonly at: number
      readonly with: string
      readonly doc: Doc
      readonly dedupe: string
    }
    const done = await place(args).archive.append(args['owner']!, { ...entry, at: new Date(entry.at) })
    return done.id
  },
  async count(args) {
    const { docs, counter } = place(args)
    const got: number[] = []
    for (const _ of range(args['times']!)) {
      await docs.update(args['owner']!, args['key']!, (old) => ({ n: (old?.n ?? 0) + 1, by: '' }))
      got.push(await counter.next(args['owner']!))
    }
    return got
  },
  async appendMany(args) {
    const { archive } = place(args)
    let pending: Promise<unknown>[] = []
    for (const n of range(args['times']!)) {
      pending.push(archive.append(args['owner']!, { at: new Date(), with: '', doc: { n, by: args['by']! } }))
      if (pending.length === args['inFlight']!) {
        await Promise.all(pending)
        pending = []
      }
    }
    await Promise.all(pending)
  },
  close: async () => await store.close(),
  healthy: async () => await store.healthy(),
  acquire: async (args) => await place(args).lease.acquire(args['key']!, args['holder']!, 60_000),
  // Writes until the process is killed and reports each number when all that belongs to it is acknowledged.
  async flood(args) {
    const { docs, archive, counter } = place(args)
    const owner = args['owner']! as string
    const filler = Buffer.alloc(700, 'x').toString()
    let last = 0
    await Promise.all(
      range(args['inFlight']!).map(async () => {
        for (;;) {
          const n = last++
          const [{ id }] = await Promise.all([
            archive.append(owner, { at: new Date(), with: 'w', doc: { n, filler }, dedupe: `d${n}` }),
            docs.put(owner, `k${n}`, { n, by: owner }),
            counter.next(owner),
          ])
          process.send!({ report: { n, id } })
        }
      }),
    )
  },
}

process.on('message', (message: { readonly id: number; readonly job: string; readonly args: Args }) => {
  const { id, job, args } = message
  Promise.resolve(jobs[job]!(args)).then(
    (result) => process.send!({ id, result }),
    (error: unknown) => process.send!({ id, error: String(error) }),
  )
})
process.on('disconnect', () => process.exit(0))
