/** The mongodb driver while the database is killed and started again: what was acknowledged is there exactly once. */
import { expect } from 'chai'
import { randomBytes } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { StoreUnavailable } from '../../server/storage/contract.ts'
import { openMongodb } from '../../server/storage/mongodb.ts'
import { mongoOfSuite } from '../helpers/mongodb.ts'
import { range, readAll } from './storage/kit.ts'

type Numbered = { readonly n: number }

const at = new Date(1_700_000_000_000)

describe('mongodb driver and a database that is killed', function () {
  this.timeout(60_000)
  const server = mongoOfSuite()

  it('kill -9 and restart in the middle of writes: what was acknowledged is there exactly once', async () => {
    const database = `hermod-test-${randomBytes(6).toString('hex')}`
    const store = await openMongodb({ url: server().url, database })
    const storage = store.open('h', 'm')
    const docs = storage.docs<Numbered>('d')
    const archive = storage.archive<Numbered>('a')
    const counter = storage.counter('c')
    const acked = {
      plain: new Map<number, string>(),
      keyed: new Map<number, string>(),
      docs: new Map<number, number>(),
    }
    const numbers: number[] = []
    let rejected = 0
    let grown = 0
    let unsure = 0
    let writing = true
    let last = 0
    let progress: (() => void) | undefined

    async function attempt(run: () => Promise<void>): Promise<boolean> {
      try {
        await run()
        progress?.()
        return true
      } catch (error) {
        expect(error).to.be.instanceOf(StoreUnavailable)
        rejected += 1
        // Not at once again: the database is away.
        await delay(20)
        return false
      }
    }
    const writers = range(6).map(async (w) => {
      while (writing) {
        const n = (last += 1)
        await attempt(async () => {
          acked.plain.set(n, (await archive.append(`o${w % 2}`, { at, with: 'plain', doc: { n } })).id)
        })
        // As a client does that resends after a broken stream: until it is told that it is stored.
        const entry = { at, with: 'keyed', doc: { n }, dedupe: `d${n}` }
        while (
          !(await attempt(async () => {
            acked.keyed.set(n, (await archive.append(`o${w % 2}`, entry)).id)
          }))
        );
        await attempt(async () => {
          await docs.put('o', `k${n}`, { n })
          acked.docs.set(n, n)
        })
        if (
          await attempt(async () => void (await docs.update('o', 'sum', (old) => ({ n: (old?.n ?? 0) + 1 }))))
        ) {
          grown += 1
        } else unsure += 1
        await attempt(async () => void numbers.push(await counter.next('o')))
      }
    })
    for (const round of range(3)) {
      await new Promise<void>((resolve) => {
        let left = 200 + round * 67
        progress = () => {
          left -= 1
          if (left === 0) resolve()
        }
      })
      progress = undefined
      await server().kill()
      await server().restart()
    }
    writing = false
    await Promise.all(writers)

    const entries = [...(await readAll(archive, 'o0')), ...(await readAll(archive, 'o1'))]
    for (const kind of ['plain', 'keyed'] as const) {
      const found = entries.filter((entry) => entry.with === kind)
      expect(new Set(found.map(({ doc }) => doc.n)), `${kind} twice`).to.have.property('size', found.length)
      const ids = new Map(found.map(({ id, doc }) => [doc.n, id]))
      for (const [n, id] of acked[kind]) expect(ids.get(n), `${kind} ${n}`).to.equal(id)
    }
    expect(acked.keyed.size).to.equal(last)
    for (const n of acked.docs.keys())
      expect(await docs.get('o', `k${n}`), `document ${n}`).to.deep.equal({ n })
    expect(new Set(numbers)).to.have.property('size', numbers.length)
    const sum = (await docs.get('o', 'sum'))!.n
    expect(sum)
      .to.be.at.least(grown)
      .and.at.most(grown + unsure)
    await store.close()
    console.log(`        ${entries.length} entries, 3 kills, ${rejected} operations rejected`)
  })
})
