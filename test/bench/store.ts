/**
 * Speed of a storage driver: `node test/bench/store.ts [--driver lmdb|memory|mongodb] [--location JSON]
 * [--folder DIR] [--big]`. Prints operations per second with 1 and with 64 in flight, processor time per
 * operation, and the time of archive pages in an archive of 10,000 entries and, with --big, of 5,000,000. Not
 * a test: nothing here fails.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { parseArgs } from 'node:util'
import type { Archive, Query, Store } from '../../server/storage/contract.ts'

const { values: args } = parseArgs({
  options: {
    driver: { type: 'string', default: 'lmdb' },
    location: { type: 'string' },
    folder: { type: 'string', default: tmpdir() },
    big: { type: 'boolean', default: false },
  },
})

type Msg = { readonly xml: string; readonly text: string }
type Item = { readonly name: string; readonly group: string }

const body =
  'I am in the garden, come and see how the roses are, they are all red and white this year, and then tea.'
const xml = `<message from='juliet@example.com/balcony' to='romeo@example.com' type='chat' id='a1b2c3d4'><body>${body}</body><origin-id xmlns='urn:xmpp:sid:0' id='de305d54-75b4-431b-adb2-eb6b9e546013'/><request xmlns='urn:xmpp:receipts'/><markable xmlns='urn:xmpp:chat-markers:0'/></message>`
// Five million of these are two gigabytes.
const short = xml.slice(0, 120)
const start = Date.UTC(2025, 0, 1)

async function open(path: string): Promise<Store> {
  if (args.driver === 'memory') return (await import('../../server/storage/memory.ts')).openMemory()
  if (args.driver === 'mongodb') {
    const { openMongodb } = await import('../../server/storage/mongodb.ts')
    return openMongodb(JSON.parse(args.location ?? '{}') as Parameters<typeof openMongodb>[0])
  }
  const { openLmdb } = await import('../../server/storage/lmdb.ts')
  return openLmdb({ path, ...(JSON.parse(args.location ?? '{}') as { readonly path?: string }) })
}

/** Runs `one` with numbers from 0, so many at a time, for about a second. */
async function rate(name: string, inFlight: number, one: (i: number) => Promise<unknown>): Promise<void> {
  let next = 0
  const run = async (until: number, most: number) => {
    let done = 0
    await Promise.all(
      Array.from({ length: inFlight }, async () => {
        while (performance.now() < until && done < most) {
          done += 1
          await one(next++)
        }
      }),
    )
    return done
  }
  await run(performance.now() + 300, 100_000)
  const cpu = process.cpuUsage()
  const from = performance.now()
  const count = await run(from + 1500, 400_000)
  const seconds = (performance.now() - from) / 1000
  const { user, system } = process.cpuUsage(cpu)
  const each = ((user + system) / count).toFixed(1)
  print(`${name}, ${inFlight} in flight`, `${Math.round(count / seconds)} /s`, `${each} us of processor each`)
}

async function pages(archive: Archive<Msg>, owner: string, entries: number): Promise<void> {
  const first = (await archive.page(owner, { from: 'first', limit: 1 })).entries[0]!
  const middle = await archive.page(owner, {
    from: 'first',
    limit: 1,
    start: new Date(start + (entries / 2) * 1000),
  })
  const after = middle.entries[0]!.id
  const week = {
    start: new Date(start + (entries / 3) * 1000),
    end: new Date(start + (entries / 3 + 5000) * 1000),
  }
  const queries: Readonly<Record<string, Query>> = {
    'last page': { from: 'last', limit: 50 },
    'page after an id in the middle': { from: 'first', limit: 50, after },
    'page before an id in the middle': { from: 'last', limit: 50, before: after },
    'page with one correspondent': { from: 'last', limit: 50, with: 'peer7@example.com' },
    'page from a time on': { from: 'first', limit: 50, start: week.start },
    'page between two times': { from: 'first', limit: 50, ...week },
    'page with one correspondent between two times': {
      from: 'first',
      limit: 50,
      with: 'peer7@example.com',
      ...week,
    },
    'page with count of all': { from: 'last', limit: 50, count: true },
    'page with count between two times': { from: 'first', limit: 50, ...week, count: true },
    'page of one, first': { from: 'first', limit: 1, ids: [first.id] },
  }
  for (const [name, q] of Object.entries(queries)) {
    const times: number[] = []
    for (let i = 0; i < 200; i += 1) {
      const from = performance.now()
      const page = await archive.page(owner, q)
      times.push(performance.now() - from)
      if (page.entries.length !== q.limit) throw new Error(`${name}: ${page.entries.length} entries`)
    }
    times.sort((a, b) => a - b)
    print(`${entries} entries: ${name}`, `${times[100]!.toFixed(3)} ms`, `worst ${times[199]!.toFixed(3)}`)
  }
  const from = performance.now()
  const page = await archive.page(owner, { from: 'last', limit: 50, text: 'nowhere' })
  print(
    `${entries} entries: search of a word that does not occur`,
    `${(performance.now() - from).toFixed(1)} ms`,
    `${page.entries.length} found`,
  )
}

async function fill(archive: Archive<Msg>, owner: string, entries: number): Promise<void> {
  const cpu = process.cpuUsage()
  const from = performance.now()
  for (let i = 0; i < entries; i += 2000) {
    const some = Array.from({ length: Math.min(2000, entries - i) }, (_, k) => i + k)
    await Promise.all(
      some.map((n) =>
        archive.append(owner, {
          at: new Date(start + n * 1000),
          with: `peer${n % 50}@example.com`,
          doc: { xml: short, text: body },
        }),
      ),
    )
  }
  const { user, system } = process.cpuUsage(cpu)
  const seconds = (performance.now() - from) / 1000
  print(
    `fill with ${entries}, 2000 in flight`,
    `${Math.round(entries / seconds)} /s`,
    `${((user + system) / entries).toFixed(1)} us of processor each`,
  )
}

function print(name: string, value: string, more: string): void {
  console.log(`${name.padEnd(70)} ${value.padStart(14)}   ${more}`)
}

const path = await mkdtemp(join(args.folder, 'hermod-bench-'))
const store = await open(path)
try {
  const storage = store.open('example.com', 'bench')
  const items = storage.docs<Item>('plain')
  const indexed = storage.docs<Item>('indexed', { index: ['group'] })
  const archive = storage.archive<Msg>('archive')
  const owner = (i: number) => `user${i % 50}`
  for (const inFlight of [1, 64]) {
    await rate('put', inFlight, (i) =>
      items.put(owner(i), `contact${i % 997}@example.com`, { name: xml, group: `g${i % 10}` }),
    )
    await rate('put with an index', inFlight, (i) =>
      indexed.put(owner(i), `contact${i % 997}@example.com`, { name: xml, group: `g${i % 10}` }),
    )
    await rate('get', inFlight, (i) => items.get(owner(i), `contact${i % 97}@example.com`))
    await rate('update', inFlight, (i) =>
      items.update(owner(i), `contact${i % 97}@example.com`, (old) => ({
        name: old?.name ?? '',
        group: 'x',
      })),
    )
    await rate('append', inFlight, (i) =>
      archive.append(owner(i), {
        at: new Date(start + i),
        with: `peer${i % 7}@example.com`,
        doc: { xml, text: body },
        dedupe: `${inFlight} ${i}`,
      }),
    )
  }
  for (const entries of args.big ? [10_000, 5_000_000] : [10_000]) {
    await fill(archive, `owner of ${entries}`, entries)
    await pages(archive, `owner of ${entries}`, entries)
  }
} finally {
  await store.close()
  await rm(path, { recursive: true, force: true })
}
