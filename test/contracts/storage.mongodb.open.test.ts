/** Opening a store: which driver, and what an operator reads when the database cannot be used. */
import { expect } from 'chai'
import { MongoClient } from 'mongodb'
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { promisify } from 'node:util'
import { inspect } from 'node:util'
import { StoreUnavailable } from '../../server/storage/contract.ts'
import { redact } from '../../server/storage/mongodb/connect.ts'
import { openStore } from '../../server/storage/open.ts'
import { dropDatabase, mongoOfSuite } from '../helpers/mongodb.ts'
import { startTcpProxy } from '../helpers/tcp-proxy.ts'
import { failure } from './storage/kit.ts'

const secret = 'hunter2%40home'

/** Opens what must not open; how long it took, and what it said. */
async function refused(url: string, rest: { readonly database?: string } = {}) {
  const started = performance.now()
  const error = await failure(() => openStore({ driver: 'mongodb', url, timeoutMs: 400, ...rest }))
  expect(error, error.message).to.be.instanceOf(StoreUnavailable)
  // One sentence, on one line, without credentials in it or anywhere below it.
  expect(error.message).to.not.match(/[\r\n]/)
  const all = inspect(error, { depth: 20, showHidden: true })
  for (const word of ['hunter2', 'home', 'juliet']) expect(all).to.not.include(word)
  return { message: error.message, ms: performance.now() - started }
}

describe('opening a mongodb store', () => {
  const server = mongoOfSuite()
  let database = ''
  beforeEach('name a database', () => {
    database = `hermod-test-${randomBytes(6).toString('hex')}`
  })
  afterEach('drop it', async () => {
    await dropDatabase(server().url, database)
  })

  it('openStore opens the driver that the configuration names', async () => {
    const store = await openStore({ driver: 'mongodb', url: server().url, database })
    expect(store.driver).to.equal('mongodb')
    expect(await store.healthy()).to.equal(true)
    await store.close()
    expect(await store.healthy()).to.equal(false)
    const memory = await openStore({ driver: 'memory' })
    expect(memory.driver).to.equal('memory')
    await memory.close()
  })

  it('a driver that is not used is not loaded', async () => {
    const script = `
      import { registerHooks } from 'node:module'
      const loaded = []
      registerHooks({ load(url, context, next) { loaded.push(url); return next(url, context) } })
      const { openStore } = await import('./server/storage/open.ts')
      const store = await openStore({ driver: 'memory' })
      await store.close()
      console.log(JSON.stringify(loaded))`
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script])
    const loaded = (JSON.parse(stdout) as string[]).join()
    expect(loaded)
      .to.include('memory.ts')
      .and.to.not.match(/mongodb|lmdb/)
  })

  it('the name of the database comes from the configuration, the address, or is hermod', async () => {
    const url = `${server().url}${database}?appName=x`
    const named = await openStore({ driver: 'mongodb', url })
    await named.open('h', 'm').docs<{ v: number }>('d').put('o', 'k', { v: 1 })
    await named.close()
    const client = new MongoClient(server().url)
    try {
      const found = await client.db(database).collection('docs.m.d').find().toArray()
      expect(found.map(({ _id }) => String(_id))).to.deep.equal(['h/o/k'])
    } finally {
      await client.close()
    }
  })

  it('nobody at the address: StoreUnavailable that names it, within the time limit', async () => {
    const listener = createServer()
    listener.listen(0, '127.0.0.1')
    await once(listener, 'listening')
    const { port } = listener.address() as AddressInfo
    listener.close()
    await once(listener, 'close')
    const { message, ms } = await refused(`mongodb://juliet:${secret}@127.0.0.1:${port}/`)
    expect(message)
      .to.include(`127.0.0.1:${port}`)
      .and.to.match(/ECONNREFUSED/)
    expect(ms).to.be.lessThan(3000)
  })

  it('somebody who never answers: StoreUnavailable within the time limit', async () => {
    const sockets: Socket[] = []
    const silent = createServer((socket) => {
      sockets.push(socket)
      socket.on('error', () => undefined)
    })
    silent.listen(0, '127.0.0.1')
    await once(silent, 'listening')
    const { port } = silent.address() as AddressInfo
    try {
      const { message, ms } = await refused(`mongodb://juliet:${secret}@127.0.0.1:${port}/`)
      expect(message).to.include(`127.0.0.1:${port}`)
      expect(ms).to.be.lessThan(3000)
    } finally {
      for (const socket of sockets) socket.destroy()
      silent.close()
      await once(silent, 'close')
    }
  })

  it('somebody who speaks something else: StoreUnavailable', async () => {
    const sockets: Socket[] = []
    const web = createServer((socket) => {
      sockets.push(socket)
      socket.on('error', () => undefined)
      socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')
    })
    web.listen(0, '127.0.0.1')
    await once(web, 'listening')
    try {
      const { ms } = await refused(
        `mongodb://juliet:${secret}@127.0.0.1:${(web.address() as AddressInfo).port}/`,
      )
      expect(ms).to.be.lessThan(3000)
    } finally {
      for (const socket of sockets) socket.destroy()
      web.close()
      await once(web, 'close')
    }
  })

  it('wrong credentials: StoreUnavailable without them', async () => {
    const { message } = await refused(server().url.replace('://', `://juliet:${secret}@`), { database })
    expect(message).to.match(/auth|credential|user|password|mechanism/i)
  })

  it('addresses that are none: StoreUnavailable without their credentials', async () => {
    for (const url of [
      '',
      'http://juliet:hunter2@127.0.0.1/',
      `mongodb://juliet:${secret}@`,
      `mongodb://juliet:${secret}@127.0.0.1:99999/`,
      `mongodb://juliet:${secret}@127.0.0.1:1/?unknownOption=juliet`,
      `mongodb://juliet:hunter2@home@127.0.0.1:1/`,
      `mongodb://127.0.0.1:1/?tls=maybe&tlsCertificateKeyFilePassword=hunter2`,
    ]) {
      const { ms } = await refused(url)
      expect(ms, url).to.be.lessThan(3000)
    }
    expect(
      (await failure(() => openStore({ driver: 'mongodb', url: 'env:HERMOD_NO_SUCH_NAME' }))).message,
    ).to.include('HERMOD_NO_SUCH_NAME')
  })

  it('redact hides credentials in either spelling', () => {
    const url =
      'mongodb+srv://juliet:p%40ss%2Fword@db.example/x?authMechanismProperties=AWS_SESSION_TOKEN:abc'
    for (const text of [url, 'juliet', 'p%40ss%2Fword', 'p@ss/word', 'juliet:p%40ss%2Fword']) {
      expect(redact(`before ${text} after`, url)).to.equal('before *** after')
    }
    expect(redact('nothing to hide', 'mongodb://127.0.0.1/')).to.equal('nothing to hide')
    expect(redact('an x of %zz', 'mongodb://x:%zz@h/')).to.equal('an *** of ***')
  })

  it('a database that a newer version wrote is refused, and left as it is', async () => {
    const client = new MongoClient(server().url)
    try {
      const meta = client.db(database).collection<{ _id: string; version: number }>('meta')
      await meta.insertOne({ _id: 'schema', version: 2 })
      const { message } = await refused(server().url, { database })
      expect(message)
        .to.include(database)
        .and.to.match(/newer version .*schema 2, this one knows 1/)
      expect(await meta.findOne({ _id: 'schema' })).to.deep.equal({ _id: 'schema', version: 2 })
      await meta.replaceOne({ _id: 'schema' }, {} as { version: number })
      expect((await refused(server().url, { database })).message).to.match(/not one of this server/)
    } finally {
      await client.close()
    }
  })

  it('many processes may open an empty database at once', async () => {
    const url = server().url
    const stores = await Promise.all(
      Array.from({ length: 8 }, () => openStore({ driver: 'mongodb', url, database })),
    )
    await Promise.all(
      stores.map((store, n) =>
        store.open('h', 'm').docs<{ n: number }>('d', { index: [] }).put('o', `${n}`, { n }),
      ),
    )
    for (const store of stores) await store.close()
  })

  it('the connection is given back when the store cannot be used', async () => {
    const port = Number(new URL(server().url.replace('mongodb:', 'http:')).port)
    const client = new MongoClient(server().url)
    await using proxy = await startTcpProxy(port)
    try {
      await client
        .db(database)
        .collection<{ _id: string; version: number }>('meta')
        .insertOne({ _id: 'schema', version: 9 })
      await refused(`mongodb://127.0.0.1:${proxy.port}/`, { database })
      await proxy.idle()
    } finally {
      await client.close()
    }
  })
})
