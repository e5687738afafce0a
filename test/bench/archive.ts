/**
 * Queries of a client in archives of several sizes, through the server without sockets: `node test/bench/archive.ts [--sizes 10000,5000000]
 * [--folder DIR]`. Prints milliseconds from the query to its answer, the median and the 99th of 100, with the embedded store. A page must cost the
 * same in a small archive and in a large one.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import mam from '../../modules/mam/index.ts'
import stanzaId from '../../modules/stanza-id.ts'
import { openLmdb } from '../../server/storage/lmdb.ts'
import { type Asked, queryXml } from '../helpers/archive.ts'
import { type TestClient, testHost } from '../helpers/host.ts'

const { values } = parseArgs({
  options: {
    sizes: { type: 'string', default: '10000,5000000' },
    folder: { type: 'string', default: tmpdir() },
  },
})
const sizes = values.sizes.split(',').map(Number)
const START = Date.UTC(2025, 0, 1)
const CONTACTS = 50
const body =
  'I am in the garden, come and see how the roses are, they are all red and white this year, and then tea.'
const xml = (n: number): string =>
  `<message xmlns='jabber:client' from='juliet@example.com/balcony' to='user@example.org' type='chat' id='a1b2c3d4${n}'><body>${body}</body></message>`

const folder = await mkdtemp(join(values.folder, 'hermod-bench-'))
const store = await openLmdb({ path: folder, durable: false })
try {
  const accounts = sizes.map((size) => `user${size}`)
  await using host = await testHost({ modules: [stanzaId, mam], accounts, store })
  for (const size of sizes) {
    await fill(`user${size}`, size)
    await measure(await host.client(`user${size}@example.org/bench`), size)
  }
} finally {
  await store.close()
  await rm(folder, { recursive: true, force: true })
}

async function fill(owner: string, size: number): Promise<void> {
  const archive = store.open('example.org', 'mam').archive('messages')
  for (let i = 0; i < size; i += 2000) {
    const some = Array.from({ length: Math.min(2000, size - i) }, (_, k) => i + k)
    await Promise.all(
      some.map((n) =>
        archive.append(owner, {
          at: new Date(START + n * 1000),
          with: `peer${n % CONTACTS}@example.com`,
          doc: { xml: xml(n) },
        }),
      ),
    )
  }
}

/** Sends a query and waits for its answer; the ids of the results. */
async function ask(client: TestClient, what: Asked): Promise<readonly string[]> {
  client.transport.written.length = 0
  client.transport.feed(queryXml(what, 'q'))
  while (!client.transport.written.at(-1)?.includes('</fin>')) await nextTurn()
  const text = client.transport.written.join('')
  if (!text.includes("type='result'")) throw new Error(text.slice(0, 500))
  return [...text.matchAll(/<result xmlns='urn:xmpp:mam:2' id='([^']*)'/g)].map((m) => m[1] ?? '')
}

async function measure(client: TestClient, size: number): Promise<void> {
  const at = (n: number): string => new Date(START + Math.floor(n) * 1000).toISOString()
  const max = '<max>50</max>'
  const [middle = ''] = await ask(client, { form: { start: at(size / 2) }, rsm: '<max>1</max>' })
  const queries: Readonly<Record<string, Asked>> = {
    'the last page': { rsm: `${max}<before/>` },
    'the last page, flipped': { rsm: `${max}<before/>`, flip: true },
    'after an id in the middle': { rsm: `${max}<after>${middle}</after>` },
    'before an id in the middle': { rsm: `${max}<before>${middle}</before>` },
    'with one contact, the last': { form: { with: 'peer7@example.com' }, rsm: `${max}<before/>` },
    'from a time on': { form: { start: at(size / 3) }, rsm: max },
    'with one contact between two times': {
      form: { with: 'peer7@example.com', start: at(size / 3), end: at(size / 3 + 5000) },
      rsm: max,
    },
    'after-id in the form': { form: { 'after-id': middle }, rsm: max },
    'one by its id': { form: { ids: middle } },
    'the number of all': { rsm: '<max>0</max>' },
  }
  for (const [name, what] of Object.entries(queries)) {
    const times: number[] = []
    for (let i = 0; i < 130; i++) {
      const from = performance.now()
      await ask(client, what)
      if (i >= 30) times.push(performance.now() - from)
    }
    times.sort((a, b) => a - b)
    const [median, late] = [times[50] ?? 0, times[98] ?? 0]
    console.log(
      `${String(size).padStart(9)} messages: ${name.padEnd(36)} ${median.toFixed(2)} ms   ${late.toFixed(2)}`,
    )
  }
}
