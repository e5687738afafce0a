/** The mongodb driver against the suite, on whatever server `helpers/mongodb.ts` finds. */
import { randomBytes } from 'node:crypto'
import { openMongodb } from '../../server/storage/mongodb.ts'
import { dropDatabase, emptyDatabase, startMongo, startTimeoutMs } from '../helpers/mongodb.ts'
import type { MongoServer } from '../helpers/mongodb.ts'
import { storageContract } from './storage.ts'

describe('mongodb driver', () => {
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
  })
  // The tests of the suite share a database and have a host each. FerretDB reads a whole collection for most queries, so
  // that what earlier tests left would make later ones slow.
  afterEach('empty the shared database', async () => {
    if (server !== undefined && shared !== undefined) await emptyDatabase(server.url, shared)
  })
  after('stop the database', async () => {
    await server?.[Symbol.asyncDispose]()
  })

  storageContract({
    name: 'mongodb',
    async open(opts) {
      if (server === undefined) throw new Error('no database')
      const { url } = server
      const database = `hermod-test-${randomBytes(6).toString('hex')}`
      shared ??= database
      let store = await openMongodb({ url, database, settleMs: 0, ...opts })
      return {
        get store() {
          return store
        },
        async reopen() {
          await store.close()
          store = await openMongodb({ url, database, settleMs: 0, ...opts })
          return store
        },
        location: JSON.stringify({ url, database }),
        async [Symbol.asyncDispose]() {
          await store.close()
          await dropDatabase(url, database)
        },
      }
    },
    skip: {},
  })
})
