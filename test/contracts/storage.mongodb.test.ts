/** The mongodb driver against the suite, on whatever server `helpers/mongodb.ts` finds. */
import { expect } from 'chai'
import { randomBytes } from 'node:crypto'
import { openMongodb } from '../../server/storage/mongodb.ts'
import { dropDatabase, emptyDatabase, hasMongod, startMongo, startTimeoutMs } from '../helpers/mongodb.ts'
import { Recorder, uncovered } from '../helpers/mongodb-commands.ts'
import type { MongoServer } from '../helpers/mongodb.ts'
import { storageContract } from './storage.ts'

const recorder = new Recorder()
const fast = hasMongod()
const slow = 'FerretDB reads the whole archive for each page; HERMOD_TEST_MONGODB or mongod runs it'
const orders = [
  'growing times',
  'some from a clock that is ahead',
  'equal times in groups',
  'falling times',
  'older entries imported later',
  'a wrong clock at the start',
  'small steps back',
]
const skipped = Object.fromEntries(
  [
    ...orders.map((order) => `all filters and pairs of filters, both ways: ${order}`),
    'a few matches among many entries are found, both ways',
  ].map((title) => [title, slow]),
)

describe('mongodb driver', () => {
  const runs = process.env['HERMOD_TEST_RUNS']
  let server: MongoServer | undefined
  let shared: string | undefined

  before('start a database', async function () {
    this.timeout(startTimeoutMs)
    const started = await startMongo()
    if ('skipped' in started) {
      console.log(`      not run: ${started.skipped}`)
      this.skip()
    }
    server = started
    // A sequence takes FerretDB the better part of a second.
    if (!fast && runs === undefined) process.env['HERMOD_TEST_RUNS'] = '20'
  })
  // The tests of the suite share a database and have a host each. FerretDB reads a whole collection for most queries, so
  // that what earlier tests left would make later ones slow.
  afterEach('empty the shared database', async () => {
    if (server !== undefined && shared !== undefined) await emptyDatabase(server.url, shared)
  })
  after('stop the database', async () => {
    if (runs === undefined) delete process.env['HERMOD_TEST_RUNS']
    await server?.[Symbol.asyncDispose]()
  })

  storageContract({
    name: 'mongodb',
    async open(opts) {
      if (server === undefined) throw new Error('no database')
      const { url } = server
      const database = `hermod-test-${randomBytes(6).toString('hex')}`
      shared ??= database
      let store = await openMongodb({ url, database, settleMs: 0, onCommand: recorder.record, ...opts })
      return {
        get store() {
          return store
        },
        async reopen() {
          await store.close()
          store = await openMongodb({ url, database, settleMs: 0, onCommand: recorder.record, ...opts })
          return store
        },
        location: JSON.stringify({ url, database }),
        async [Symbol.asyncDispose]() {
          await store.close()
          await dropDatabase(url, database)
        },
      }
    },
    skip: fast ? {} : skipped,
  })

  describe('commands', () => {
    it('every filter and sort of the suite is covered by an index that the driver made', () => {
      const shapes = [...recorder.shapes.values()]
      // All of the suite has run, not a part of it chosen with --grep.
      if (shapes.length < 40) throw new Error(`only ${shapes.length} kinds of queries were seen`)
      const indexesOf = (collection: string) => recorder.indexes.get(collection) ?? []
      const without = shapes
        .map((query) => uncovered(query, indexesOf(query.collection)))
        .filter((reason) => reason !== undefined)
      // Joined: chai shows what is in a text, and only the length of a list.
      expect(without.join('\n')).to.equal('')
      // The check finds what has no index.
      const range = { $gt: 'a', $lt: 'b' }
      for (const [collection, filter, sort] of [
        ['docs.m.d', { 'd.f': 'x' }, undefined],
        ['docs.m.d', { v: 'x' }, undefined],
        ['docs.m.d', { _id: range, 'd.f': 'x' }, { _id: 1 }],
        ['docs.m.d', { _id: range }, { v: 1 }],
        ['archive.m.a', { t: range }, undefined],
        ['archive.m.a', { o: 'x', w: 'y' }, { t: 1 }],
        ['archive.m.a', {}, { _id: 1 }],
        ['counter.m.c', { n: 1 }, undefined],
      ] as const) {
        const query = { command: 'find', collection, filter, ...(sort === undefined ? {} : { sort }) }
        expect(uncovered(query, [{ o: 1, w: 1, _id: 1 }]), JSON.stringify(filter)).to.be.a('string')
      }
    })

    it('every command of the suite belongs to the portable part of the protocol', () => {
      expect([...recorder.foreign]).to.deep.equal([])
      expect(recorder.counts.get('insert')).to.be.greaterThan(100)
    })
  })
})
