/** The embedded driver against the suite, and what only it has: folders, layouts, full disks, snapshots. */
import { expect } from 'chai'
import { open } from 'lmdb'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { StoreUnavailable } from '../../server/storage/contract.ts'
import type { Doc } from '../../server/storage/contract.ts'
import { openLmdb } from '../../server/storage/lmdb.ts'
import { schema } from '../../server/storage/lmdb/catalogue.ts'
import { storageContract } from './storage.ts'
import { collect, failure, range, readAll, startChild } from './storage/kit.ts'

// In memory where there is such a folder: the tests are not about the disk.
const scratch = existsSync('/dev/shm') ? '/dev/shm' : tmpdir()

storageContract({
  name: 'lmdb',
  async open(opts) {
    const path = await mkdtemp(join(scratch, 'hermod-lmdb-'))
    let store = await openLmdb({ path, ...opts })
    return {
      get store() {
        return store
      },
      async reopen() {
        await store.close()
        store = await openLmdb({ path, ...opts })
        return store
      },
      location: JSON.stringify({ path }),
      async [Symbol.asyncDispose]() {
        await store.close()
        await rm(path, { recursive: true, force: true })
      },
    }
  },
  skip: {},
})

/** A folder for one test. */
function folder() {
  const path = mkdtempSync(join(scratch, 'hermod-lmdb-'))
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) }
}

/** What opening a path fails with; checks that it is one sentence for the operator that names the path. */
async function refusal(path: string): Promise<string> {
  const error = await failure(() => openLmdb({ path }))
  expect(error).to.be.instanceOf(StoreUnavailable)
  expect(error.message).to.include(path).and.to.not.include('\n')
  return error.message
}

describe('lmdb driver', () => {
  describe('folder', () => {
    it('makes the folder, and those above it', async () => {
      using dir = folder()
      const path = join(dir.path, 'a', 'b.c', 'd')
      const store = await openLmdb({ path })
      await store.open('h', 'm').docs<Doc>('d').put('o', 'k', {})
      await store.close()
      expect(statSync(join(path, 'data.mdb')).isFile()).to.equal(true)
    })

    it('refuses a file in place of the folder, and a folder below a file', async () => {
      using dir = folder()
      const path = join(dir.path, 'file')
      writeFileSync(path, 'text')
      expect(await refusal(path)).to.include('a file, not a folder')
      expect(await refusal(join(path, 'below'))).to.include('cannot be made')
    })

    it('refuses a folder that cannot be made or written', async function () {
      if (process.platform !== 'linux') this.skip() // the paths are those of Linux
      expect(await refusal('/proc/hermod/data')).to.include('cannot be made')
      await refusal('/proc/self')
      // Rights do not bind root.
      if (process.getuid?.() === 0) return
      using dir = folder()
      chmodSync(dir.path, 0o500)
      expect(await refusal(dir.path)).to.include('no right')
    })

    it('refuses what is not such a store, or only a part of it, and leaves it alone', async () => {
      using dir = folder()
      const file = join(dir.path, 'data.mdb')
      for (const bytes of [1, 10, 159, 4096, 100_000]) {
        writeFileSync(file, Buffer.alloc(bytes, 'not a store'))
        expect(await refusal(dir.path)).to.include('not a file of this store')
        expect(statSync(file).size).to.equal(bytes)
      }
      rmSync(file)
      const store = await openLmdb({ path: dir.path })
      await Promise.all(
        range(50).map((n) =>
          store
            .open('h', 'm')
            .docs('d')
            .put('o', `k${n}`, { text: 'x'.repeat(1000) }),
        ),
      )
      await store.close()
      const whole = readFileSync(file)
      for (const bytes of [200, 4096, 8191, 8192, whole.length - 1]) {
        writeFileSync(file, whole.subarray(0, bytes))
        expect(await refusal(dir.path)).to.include('damaged')
      }
      writeFileSync(file, '')
      await (await openLmdb({ path: dir.path })).close()
    })

    it('refuses the layout of a later version, and leaves it alone', async () => {
      using dir = folder()
      await (await openLmdb({ path: dir.path })).close()
      const later = Buffer.alloc(8)
      later.writeDoubleBE(schema + 1)
      const root = open<Buffer, Buffer>({ path: dir.path, noSubdir: false, maxDbs: 10 })
      await root
        .openDB<Buffer, Buffer>('meta', { keyEncoding: 'binary', encoding: 'binary' })
        .put(Buffer.from('schema'), later)
      await root.close()
      for (const _ of range(2))
        expect(await refusal(dir.path))
          .to.include('later version')
          .and.to.include(String(schema + 1))
    })

    it('may be open twice in one process', async () => {
      using dir = folder()
      const [one, two] = [await openLmdb({ path: dir.path }), await openLmdb({ path: dir.path })]
      const [a, b] = [one, two].map((store) => store.open('h', 'm').docs<{ readonly n: number }>('d'))
      const grow = (old: { readonly n: number } | undefined) => ({ n: (old?.n ?? 0) + 1 })
      await Promise.all(range(100).map((i) => (i % 2 === 0 ? a! : b!).update('o', 'k', grow)))
      expect([await a!.get('o', 'k'), await b!.get('o', 'k')]).to.deep.equal([{ n: 100 }, { n: 100 }])
      await one.close()
      await b!.put('o', 'k', { n: 1 })
      expect(await b!.get('o', 'k')).to.deep.equal({ n: 1 })
      await two.close()
    })
  })

  it('durable: acknowledges what is flushed, and waits for it when it closes', async () => {
    using dir = folder()
    const store = await openLmdb({ path: dir.path, durable: true })
    const docs = store.open('h', 'm').docs<{ readonly n: number }>('d')
    for (const n of range(5)) await docs.put('o', `a${n}`, { n })
    const done = Promise.all(range(300).map((n) => docs.put('o', `b${n}`, { n })))
    await store.close()
    await done
    const again = await openLmdb({ path: dir.path })
    expect(await collect(again.open('h', 'm').docs('d').list('o'))).to.have.length(305)
    await again.close()
  })

  it('an iteration that nobody goes on with does not keep the store from using its space again', async () => {
    using dir = folder()
    const store = await openLmdb({ path: dir.path })
    const docs = store
      .open('h', 'm')
      .docs<{ readonly f: string; readonly text: string }>('d', { index: ['f'] })
    const text = 'x'.repeat(2000)
    await Promise.all(range(200).map((n) => docs.put('o', `k${n}`, { f: 'f', text })))
    const archive = store.open('h', 'm').archive<{ readonly text: string }>('a')
    for (const _ of range(100)) await archive.append('o', { at: new Date(), with: 'w', doc: { text: '' } })
    const open = [docs.list('o'), docs.find('f', 'f'), docs.owners(), archive.owners()].map((all) =>
      all[Symbol.asyncIterator](),
    )
    for (const all of open) expect((await all.next()).done).to.equal(false)
    const size = statSync(join(dir.path, 'data.mdb')).size
    for (const round of range(40)) {
      await Promise.all(range(200).map((n) => docs.put('o', `k${n}`, { f: `f${round}`, text })))
    }
    // 40 times 400 kB were written.
    expect(statSync(join(dir.path, 'data.mdb')).size).to.be.lessThan(size * 5)
    for (const all of open) await all.return?.()
    await store.close()
  })

  it('sees what another process wrote, also within one turn of the event loop', async () => {
    using dir = folder()
    const store = await openLmdb({ path: dir.path })
    const docs = store.open('h', 'm').docs<{ readonly n: number }>('d')
    await docs.put('o', 'k', { n: 1 })
    const driver = new URL('../../server/storage/lmdb.ts', import.meta.url).href
    const program = `
      const { openLmdb } = await import(${JSON.stringify(driver)})
      const store = await openLmdb({ path: process.argv[1] })
      await store.open('h', 'm').docs('d').put('o', 'k', { n: 2 })
      await store.close()`
    expect(await docs.get('o', 'k')).to.deep.equal({ n: 1 })
    const done = spawnSync(process.execPath, ['--input-type=module', '-e', program, dir.path], {
      stdio: 'inherit',
    })
    expect(done.status).to.equal(0)
    expect(await docs.get('o', 'k')).to.deep.equal({ n: 2 })
    await store.close()
  })

  it('leaves nothing of what was deleted', async () => {
    using dir = folder()
    const store = await openLmdb({ path: dir.path })
    const storage = store.open('h', 'm')
    const docs = storage.docs<{ readonly f: string }>('d', { index: ['f'] })
    const archive = storage.archive<Doc>('a')
    await Promise.all(
      range(300).flatMap((n) => [
        docs.put(`o${n % 3}`, `k${n % 50}${'x'.repeat(n * 10)}`, { f: `f${n % 7}${'y'.repeat(n * 5)}` }),
        docs.put(`o${n % 3}`, 'again', { f: `f${n}` }),
        archive.append(`o${n % 3}`, {
          at: new Date((n * 7919) % 300),
          with: `w${n % 5}`,
          doc: {},
          dedupe: `d${n}`,
        }),
        storage.counter('c').next(`o${n % 3}`),
      ]),
    )
    const { token } = (await storage.lease('l').acquire('k', 'me', 1000))!
    await storage.lease('l').release('k', token)
    await docs.purge('o0')
    for await (const [key] of docs.list('o1')) await docs.delete('o1', key)
    await archive.remove('o0', { until: new Date(100) })
    await archive.remove('o0', { keepLast: 10 })
    await archive.remove('o0', { ids: (await readAll(archive, 'o0')).map(({ id }) => id) })
    for (const owner of ['o0', 'o1', 'o2']) await store.purgeOwner('h', owner)
    await store.close()
    const root = open<Buffer, Buffer>({ path: dir.path, noSubdir: false, maxDbs: 10 })
    for (const name of ['docs', 'index', 'heads', 'log', 'aux']) {
      const table = root.openDB<Buffer, Buffer>(name, { keyEncoding: 'binary', encoding: 'binary' })
      expect([...table.getKeys({ start: Buffer.alloc(1) })], name).to.deep.equal([])
    }
    // Where the ids, counters and tokens of the collections go on.
    const numbers = root.openDB<Buffer, Buffer>('numbers', { keyEncoding: 'binary', encoding: 'binary' })
    const kinds = [...numbers.getKeys({ start: Buffer.alloc(1) })].map(
      (key) => `${key.toString('latin1', 0, 1)}${key.length}`,
    )
    expect(kinds).to.deep.equal(['f5', 'f5', 't5'])
    await root.close()
  })

  it('the files grow far beyond their first size, in two processes', async () => {
    using dir = folder()
    const store = await openLmdb({ path: dir.path, mapSize: 1024 * 1024 })
    const docs = store
      .open('h', 'm')
      .docs<{ readonly n: number; readonly by: string; readonly text: string }>('d', { index: ['by'] })
    const child = await startChild('lmdb', JSON.stringify({ path: dir.path }))
    try {
      const text = 'x'.repeat(100_000)
      for (const n of range(60)) {
        await docs.put('here', `k${n}`, { n, by: 'here', text })
        await child.call('put', { owner: 'there', key: `k${n}`, doc: { n, by: 'there', text } })
      }
      expect((await collect(docs.list('there'))).map(([, doc]) => doc.text.length)).to.deep.equal(
        range(60).map(() => 100_000),
      )
      expect(await child.call('find', { field: 'by', value: 'here' })).to.have.length(60)
      expect(statSync(join(dir.path, 'data.mdb')).size).to.be.greaterThan(12_000_000)
    } finally {
      await child.kill()
      await store.close()
    }
  })

  it('refuses writes while another process holds up all writing, and goes on after it', async () => {
    using dir = folder()
    const store = await openLmdb({ path: dir.path, patienceMs: 100 })
    const docs = store.open('h', 'm').docs<{ readonly n: number }>('d')
    await docs.put('o', 'k', { n: 0 })
    const program = `
      const { open } = await import('lmdb')
      const root = open({ path: process.argv[1], noSubdir: false, maxDbs: 10 })
      root.transactionSync(() => {
        process.send('holds')
        require('node:fs').readSync(0, Buffer.alloc(1))
      })
      await root.close()`
    const other = spawn(
      process.execPath,
      [
        '--input-type=module',
        '-e',
        `import { createRequire } from 'node:module'; const require = createRequire(import.meta.url); ${program}`,
        dir.path,
      ],
      {
        cwd: fileURLToPath(new URL('../..', import.meta.url)),
        stdio: ['pipe', 'inherit', 'inherit', 'ipc'],
      },
    )
    try {
      await once(other, 'message')
      const first = docs.put('o', 'k', { n: 1 })
      for (const error of await Promise.all([
        failure(() => first),
        failure(() => docs.put('o', 'other', { n: 2 })),
      ])) {
        expect(error).to.be.instanceOf(StoreUnavailable)
        expect(error.message).to.include('does not answer')
      }
      expect(await store.healthy()).to.equal(false)
      expect(await failure(() => docs.put('o', 'k', { n: 3 }))).to.be.instanceOf(StoreUnavailable)
      other.stdin!.write('x')
      await once(other, 'exit')
      while (!(await store.healthy())) await new Promise((resolve) => setImmediate(resolve))
      await docs.put('o', 'k', { n: 4 })
      expect(await docs.get('o', 'k')).to.deep.equal({ n: 4 })
      expect(await docs.get('o', 'other')).to.equal(undefined)
    } finally {
      other.kill('SIGKILL')
      await store.close()
    }
  })

  describe('a disk that is full', () => {
    // A limit on the size of files fails like a full disk does; it is ignored as a signal so that it is an
    // error.
    const limits = "trap '' XFSZ; ulimit -f 6000"

    for (const durable of [false, true]) {
      it(`refuses writes, keeps what was acknowledged and goes on when there is room (durable: ${durable})`, async function () {
        if (process.platform === 'win32') this.skip() // has no such limit
        using dir = folder()
        const location = JSON.stringify({ path: dir.path, durable })
        const child = await startChild('lmdb', location, limits)
        const doc = (n: number) => ({ n, by: 'x', text: 'x'.repeat(40_000) })
        let stored = 0
        let refused = ''
        while (refused === '' && stored < 200) {
          await child.call('put', { owner: 'o', key: `k${stored}`, doc: doc(stored) }).then(
            () => {
              stored += 1
            },
            (error: Error) => {
              refused = error.message
            },
          )
        }
        expect(refused).to.match(/^StoreUnavailable: the store could not write/)
        expect(stored).to.be.within(20, 100)
        const many = range(20).map((n) =>
          failure(() => child.call('put', { owner: 'o', key: `more${n}`, doc: doc(n) })),
        )
        for (const error of await Promise.all(many)) expect(error.message).to.include('could not write')
        expect(await child.call('healthy', {})).to.equal(true)
        expect(await child.call('get', { owner: 'o', key: 'k0' })).to.have.property('n', 0)
        expect(await child.call('find', { field: 'by', value: 'x' })).to.have.length(stored)
        // Not even the collection, or the owner, is there.
        const large = { at: 1, with: 'w', doc: doc(0), dedupe: 'd' }
        const elsewhere = { module: 'other', owner: 'p', entry: large }
        for (const error of [
          await failure(() => child.call('append', elsewhere)),
          await failure(() => child.call('append', elsewhere)),
        ]) {
          expect(error.message).to.include('could not write')
        }
        // Another process, without that limit, makes a collection meanwhile.
        const second = await openLmdb({ path: dir.path })
        await second.open('h', 'third').docs('d').put('o', 'k', {})
        await second.close()
        // Room again: the pages of what is deleted.
        for (const n of range(stored))
          expect(await child.call('delete', { owner: 'o', key: `k${n}` })).to.equal(true)
        await child.call('put', { owner: 'o', key: 'small', doc: { n: -1, by: 'y' } })
        const at = { at: 1, with: 'w', doc: { n: 1, by: '' }, dedupe: 'd' }
        expect(await child.call('append', { owner: 'o', entry: at })).to.be.a('string')
        expect(await child.call('append', { module: 'other', owner: 'p', entry: at })).to.be.a('string')
        await child.call('close', {})
        await child.kill()
        const store = await openLmdb({ path: dir.path })
        expect(await readAll(store.open('h', 'other').archive('a'), 'p')).to.have.length(1)
        expect((await collect(store.open('h', 'm').docs('d').list('o'))).map(([key]) => key)).to.deep.equal([
          'small',
        ])
        expect(await readAll(store.open('h', 'm').archive('a'), 'o')).to.have.length(1)
        await store.close()
      })
    }

    it('does not keep the store from closing', async function () {
      if (process.platform === 'win32') this.skip() // has no such limit
      using dir = folder()
      const child = await startChild('lmdb', JSON.stringify({ path: dir.path }), limits)
      const large = { n: 1, by: '', text: 'x'.repeat(7_000_000) }
      expect(
        (await failure(() => child.call('put', { owner: 'o', key: 'k', doc: large }))).message,
      ).to.include('could not write')
      await child.call('close', {})
      await child.kill()
    })
  })
})
