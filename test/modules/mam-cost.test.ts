/** What a page of an archive costs, in rows of the store that are read, whatever the machine: it must not grow with the archive. */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { expect } from 'chai'
import { Env, type Range, type Table } from '../../server/storage/lmdb/env.ts'
import { openLmdb } from '../../server/storage/lmdb.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { type Asked, archiveHost, queryXml } from '../helpers/archive.ts'
import type { TestClient, TestHost } from '../helpers/host.ts'
import { tempFolder } from '../helpers/temp.ts'

const START = Date.UTC(2026, 0, 1)
const PEERS = 20

/** Counts the rows of all archives that are read, until `stop`. */
function countRows(): { rows: number; stop: () => void } {
  const tables = Object.getOwnPropertyDescriptor(Env.prototype, 'tables')
  if (tables?.get === undefined) throw new Error('tables of an environment are not what they were')
  const read = tables.get
  const count = { rows: 0, stop: () => void Object.defineProperty(Env.prototype, 'tables', tables) }
  const counted = (table: Table): Table => ({
    ...table,
    get: (key) => {
      count.rows++
      return table.get(key)
    },
    has: (key) => {
      count.rows++
      return table.has(key)
    },
    range: (q: Range, visit) =>
      table.range(q, (key, value) => {
        count.rows++
        return visit(key, value)
      }),
    keys: (q: Range) => {
      const keys = table.keys(q)
      count.rows += keys.length
      return keys
    },
  })
  Object.defineProperty(Env.prototype, 'tables', {
    ...tables,
    get(this: Env) {
      const all = read.call(this) as Env['tables']
      return { ...all, log: counted(all.log), aux: counted(all.aux) }
    },
  })
  return count
}

/** Messages of juliet, a second apart, with one contact after another. */
async function fill(h: TestHost, size: number): Promise<void> {
  const archive = h.store.open('example.org', 'mam').archive<{ readonly xml: string }>('messages')
  for (let from = 0; from < size; from += 1000)
    await Promise.all(
      Array.from({ length: 1000 }, (_, i) => {
        const n = from + i
        const peer = `peer${n % PEERS}@example.com`
        const xml = `<message xmlns='${NS.CLIENT}' from='${peer}/x' to='juliet@example.org' type='chat'><body>m${n}</body></message>`
        return archive.append('juliet', { at: new Date(START + n * 1000), with: peer, doc: { xml } })
      }),
    )
}

/** Ids of the results, once the query is answered. */
async function ask(client: TestClient, what: Asked): Promise<readonly string[]> {
  client.transport.written.length = 0
  client.transport.feed(queryXml(what, 'q'))
  const until = performance.now() + 10_000
  while (performance.now() < until && !client.transport.written.at(-1)?.includes('</iq>')) await nextTurn()
  const text = client.transport.written.join('')
  if (!text.includes("type='result'")) throw new Error(text.slice(0, 500))
  return [...text.matchAll(/<result xmlns='urn:xmpp:mam:2' id='([^']*)'/g)].map((m) => m[1] ?? '')
}

/** Rows that each kind of query reads. */
async function costs(size: number): Promise<ReadonlyMap<string, number>> {
  await using folder = await tempFolder()
  const store = await openLmdb({ path: folder.path })
  await using _ = { [Symbol.asyncDispose]: () => store.close() }
  await using h = await archiveHost({}, { store })
  await fill(h, size)
  const juliet = await h.client('juliet@example.org/balcony')
  const at = (n: number): string => new Date(START + Math.floor(n) * 1000).toISOString()
  const max = '<max>50</max>'
  const [middle = ''] = await ask(juliet, { form: { start: at(size / 2) }, rsm: '<max>1</max>' })
  const peer = 'peer7@example.com'
  const queries: Readonly<Record<string, Asked>> = {
    'the first page': { rsm: max },
    'the last page': { rsm: `${max}<before/>` },
    'after an id in the middle': { rsm: `${max}<after>${middle}</after>` },
    'before an id in the middle': { rsm: `${max}<before>${middle}</before>` },
    'with one contact, the last': { form: { with: peer }, rsm: `${max}<before/>` },
    'from a time on': { form: { start: at(size / 3) }, rsm: max },
    'up to a time': { form: { end: at(size / 3) }, rsm: `${max}<before/>` },
    'with one contact between two times': {
      form: { with: peer, start: at(size / 3), end: at(size / 3 + 500) },
      rsm: max,
    },
    'after-id and before-id in the form': { form: { 'after-id': middle, 'before-id': middle } },
    'one by its id': { form: { ids: middle } },
    'the number of all': { rsm: '<max>0</max>' },
  }
  const rows = new Map<string, number>()
  const count = countRows()
  try {
    for (const [name, what] of Object.entries(queries)) {
      count.rows = 0
      await ask(juliet, what)
      rows.set(name, count.rows)
    }
  } finally {
    count.stop()
  }
  return rows
}

describe('module mam: the cost of a page', () => {
  it('does not grow with the archive: rows read of a store on disk, thirty times as many messages', async function () {
    this.timeout(60_000)
    const [small, large] = [await costs(1000), await costs(30_000)]
    for (const [name, rows] of large) {
      // Times and ids are found by halves: five steps more, at either end of a span.
      expect(rows, name).to.be.at.most((small.get(name) ?? 0) + 20)
      expect(rows, name).to.be.within(1, 150)
    }
  })
})
