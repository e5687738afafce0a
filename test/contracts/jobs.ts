/** What each driver of job queues must do (server/jobs/contract.ts). A driver's test file is one call of `jobsContract`. */
import { expect } from 'chai'
import type { JobRun, Jobs, OpenQueue, QueueEvent, QueueSettings } from '../../server/jobs/contract.ts'
import { waitAfter } from '../../server/jobs/retry.ts'
import type { Json } from '../../server/storage/contract.ts'
import { settings } from './jobs-settings.ts'

/** A driver to be tested. */
export interface JobsUnderTest extends AsyncDisposable {
  readonly jobs: Jobs
  /** The same queues as another process sees them; undefined: the driver lives in one process. */
  other?(): Jobs
  now(): number
  /** Lets some time pass, at most that many milliseconds; less when something has happened. */
  pass(ms: number): Promise<void>
}

/** A queue that writes down what happens. */
export class Watched {
  readonly runs: { readonly data: Json; readonly attempt: number; readonly at: number }[] = []
  readonly events: QueueEvent[] = []
  readonly queue: OpenQueue
  readonly #driver: JobsUnderTest

  constructor(
    driver: JobsUnderTest,
    work: (data: Json, run: JobRun) => Promise<void> | void = () => undefined,
    changes: Partial<QueueSettings> = {},
    jobs: Jobs = driver.jobs,
    name = 'host/module/queue',
  ) {
    this.#driver = driver
    this.queue = jobs.open(
      name,
      { ...settings, ...changes },
      async (data, run) => {
        this.runs.push({ data, attempt: run.attempt, at: driver.now() })
        await work(data, run)
      },
      (event) => void this.events.push(event),
    )
  }
  count(event: QueueEvent): number {
    return this.events.filter((one) => one === event).length
  }
  get done(): Json[] {
    return this.runs.map(({ data }) => data)
  }
  /** Until something is so; fails after ten seconds. */
  until(so: () => boolean): Promise<void> {
    return until(this.#driver, so)
  }
}

/** Until something is so; fails after ten seconds. */
export async function until(driver: JobsUnderTest, so: () => boolean): Promise<void> {
  const end = driver.now() + 10_000
  while (!so()) {
    if (driver.now() > end) throw new Error(`it does not come: ${so.toString()}`)
    await driver.pass(20)
  }
}

/** The suite. */
export function jobsContract(name: string, open: () => Promise<JobsUnderTest>): void {
  describe(`jobs: ${name}`, () => {
    it('a job runs once, with the data it was added with', async () => {
      await using driver = await open()
      const data = { text: 'Romeo ♥ "x" \n', list: [1, null, true, { a: '' }], empty: {} }
      const watched = new Watched(driver)
      watched.queue.add(data)
      await watched.until(() => watched.count('done') === 1)
      watched.queue.add('sentinel')
      await watched.until(() => watched.count('done') === 2)
      expect(watched.runs.map(({ data: got, attempt }) => [got, attempt])).to.deep.equal([
        [data, 1],
        ['sentinel', 1],
      ])
      expect(watched.events).to.deep.equal(['added', 'done', 'added', 'done'])
    })

    it('jobs begin in the order in which they were added', async () => {
      await using driver = await open()
      const watched = new Watched(driver, undefined, { concurrency: 1 })
      const numbers = Array.from({ length: 40 }, (_, i) => i)
      for (const number of numbers) watched.queue.add(number)
      await watched.until(() => watched.count('done') === 40)
      expect(watched.done).to.deep.equal(numbers)
    })

    it('add does not begin the work itself', async () => {
      await using driver = await open()
      const watched = new Watched(driver)
      watched.queue.add(1)
      expect(watched.runs).to.have.length(0)
      await watched.until(() => watched.count('done') === 1)
    })

    it('no more than `concurrency` run at the same time', async () => {
      await using driver = await open()
      const gates: PromiseWithResolvers<void>[] = []
      const watched = new Watched(driver, () => {
        const gate = Promise.withResolvers<void>()
        gates.push(gate)
        return gate.promise
      })
      for (let i = 0; i < 6; i++) watched.queue.add(i)
      await watched.until(() => gates.length === 2)
      for (let i = 0; i < 6; i++) {
        await watched.until(() => gates.length === Math.min(6, i + 2))
        expect(watched.runs.length - watched.count('done')).to.be.at.most(2)
        gates[i]?.resolve()
        await watched.until(() => watched.count('done') === i + 1)
      }
    })

    it('a delayed job does not run before its time', async () => {
      await using driver = await open()
      const watched = new Watched(driver)
      const added = driver.now()
      watched.queue.add('later', { delayMs: 200 })
      watched.queue.add('now')
      await watched.until(() => watched.count('done') === 2)
      expect(watched.done).to.deep.equal(['now', 'later'])
      expect((watched.runs[1]?.at ?? 0) - added).to.be.at.least(199)
    })

    it('a failed job is tried again after waits that grow, and given up after the last attempt', async () => {
      await using driver = await open()
      const last: boolean[] = []
      const watched = new Watched(driver, (data, run) => {
        if (data !== 'bad') return
        last.push(run.last)
        throw new Error('as it should')
      })
      watched.queue.add('bad')
      await watched.until(() => watched.count('failed') === 1)
      watched.queue.add('sentinel', { delayMs: 300 })
      await watched.until(() => watched.count('done') === 1)
      expect(watched.done).to.deep.equal(['bad', 'bad', 'bad', 'sentinel'])
      expect(last).to.deep.equal([false, false, true])
      expect(watched.runs.slice(0, 3).map(({ attempt }) => attempt)).to.deep.equal([1, 2, 3])
      const [a = 0, b = 0, c = 0] = watched.runs.map(({ at }) => at)
      expect(b - a).to.be.at.least(29) // half of 60
      expect(c - b).to.be.at.least(44) // half of 90, the longest
      expect(watched.events).to.deep.equal(['added', 'retried', 'retried', 'failed', 'added', 'done'])
    })

    it('what succeeds at the second attempt is done', async () => {
      await using driver = await open()
      const watched = new Watched(driver, (_, run) => {
        if (run.attempt === 1) throw new Error('once')
      })
      watched.queue.add(1)
      await watched.until(() => watched.count('done') === 1)
      expect(watched.events).to.deep.equal(['added', 'retried', 'done'])
    })

    it('while a job with a key waits, others with it are not added', async () => {
      await using driver = await open()
      const watched = new Watched(driver)
      watched.queue.add('first', { key: 'k', delayMs: 150 })
      watched.queue.add('second', { key: 'k' })
      watched.queue.add('other', { key: 'l' })
      await watched.until(() => watched.count('done') >= 1)
      watched.queue.add('third', { key: 'k', delayMs: 500 })
      await watched.until(() => watched.count('done') === 2)
      watched.queue.add('fourth', { key: 'k' })
      await watched.until(() => watched.count('done') === 3)
      expect(watched.done).to.deep.equal(['other', 'first', 'fourth'])
    })

    it('while a job with a key waits for its next attempt, others are not added', async () => {
      await using driver = await open()
      const watched = new Watched(driver, (_, run) => {
        if (run.attempt === 1) throw new Error('once')
      })
      watched.queue.add('first', { key: 'k' })
      await watched.until(() => watched.count('retried') === 1)
      watched.queue.add('second', { key: 'k' })
      await watched.until(() => watched.count('done') === 1)
      watched.queue.add('sentinel')
      await watched.until(() => watched.count('done') === 2)
      expect(watched.runs.filter(({ attempt }) => attempt > 1).map(({ data }) => data)).to.deep.equal([
        'first',
        'sentinel',
      ])
    })

    it('of those added with the key of a job that runs, the last runs after it', async () => {
      await using driver = await open()
      const gate = Promise.withResolvers<void>()
      let running = 0
      let together = 0
      const watched = new Watched(driver, async (data) => {
        together = Math.max(together, ++running)
        if (data === 'first') await gate.promise
        running--
      })
      watched.queue.add('first', { key: 'k' })
      await watched.until(() => watched.runs.length === 1)
      watched.queue.add('second', { key: 'k' })
      watched.queue.add('third', { key: 'k' })
      watched.queue.add('other')
      await watched.until(() => watched.done.includes('other'))
      await driver.pass(20)
      expect(watched.done).to.deep.equal(['first', 'other'])
      gate.resolve()
      await watched.until(() => watched.count('done') === 3)
      watched.queue.add('sentinel')
      await watched.until(() => watched.count('done') === 4)
      expect(watched.done).to.have.length(4)
      expect(watched.done[2]).to.equal('third')
      expect(together).to.be.at.most(2) // 'first' and 'other'
    })

    it('a run that takes too long is aborted, and counts as failed', async () => {
      await using driver = await open()
      const aborted: number[] = []
      const watched = new Watched(
        driver,
        (_, run) => {
          run.signal.addEventListener('abort', () => aborted.push(run.attempt))
          return run.attempt === 1 ? new Promise(() => undefined) : undefined
        },
        { timeoutMs: 100 },
      )
      watched.queue.add(1)
      await watched.until(() => watched.count('done') === 1)
      expect(aborted).to.deep.equal([1])
      expect(watched.events).to.deep.equal(['added', 'retried', 'done'])
    })

    it('a full queue refuses, and takes again when there is room', async () => {
      await using driver = await open()
      const watched = new Watched(driver, undefined, { maxWaiting: 3 })
      for (let i = 0; i < 5; i++) watched.queue.add(i, { delayMs: 200 })
      expect(watched.count('refused')).to.equal(2)
      expect(watched.queue.waiting).to.equal(3)
      await watched.until(() => watched.count('done') === 3)
      await watched.until(() => watched.queue.waiting === 0)
      watched.queue.add('again')
      await watched.until(() => watched.count('done') === 4)
      expect(watched.done).to.have.members([0, 1, 2, 'again'])
    })

    it('a closed queue aborts what runs and takes nothing; its name is free again', async () => {
      await using driver = await open()
      let aborted = false
      const first = new Watched(driver, (_, { signal }) => {
        signal.addEventListener('abort', () => (aborted = true))
        return new Promise(() => undefined)
      })
      expect(() => new Watched(driver)).to.throw('open already')
      first.queue.add(1, { key: 'k' })
      await first.until(() => first.runs.length === 1)
      await first.queue.close()
      expect(aborted).to.equal(true)
      first.queue.add(2)
      expect(first.count('added')).to.equal(1)
      const second = new Watched(driver)
      second.queue.add('new')
      await second.until(() => second.done.includes('new'))
      expect(first.runs).to.have.length(1)
    })

    it('when the driver closes, what runs is done and nothing else begins', async () => {
      const driver = await open()
      const gate = Promise.withResolvers<void>()
      const watched = new Watched(driver, () => gate.promise, { concurrency: 1 })
      watched.queue.add(1)
      watched.queue.add(2)
      await watched.until(() => watched.runs.length === 1)
      const closed = driver.jobs.close(5000)
      watched.queue.add(3)
      await driver.pass(20)
      gate.resolve()
      await closed
      await driver[Symbol.asyncDispose]()
      expect(watched.done).to.deep.equal([1])
      expect(watched.count('done')).to.equal(1)
    })

    it('when the driver closes, what does not end is not waited for', async () => {
      const driver = await open()
      const watched = new Watched(driver, () => new Promise(() => undefined))
      watched.queue.add(1)
      await watched.until(() => watched.runs.length === 1)
      let over = false
      const closed = driver.jobs.close(50).then(() => (over = true))
      await until(driver, () => over)
      await closed
      await driver[Symbol.asyncDispose]()
    })

    it('queues of different names do not see each other', async () => {
      await using driver = await open()
      const one = new Watched(driver)
      const two = new Watched(driver, undefined, {}, driver.jobs, 'host/other/queue')
      one.queue.add('one', { key: 'k' })
      two.queue.add('two', { key: 'k' })
      await one.until(() => one.count('done') === 1 && two.count('done') === 1)
      expect([one.done, two.done]).to.deep.equal([['one'], ['two']])
    })

    it('waits: half of the time at least, all of it at most, twice as long each time, up to a bound', () => {
      const rule = { attempts: 9, firstMs: 1000, maxMs: 5000 }
      const bounds = [1, 2, 3, 4, 60].map((n) => [waitAfter(n, rule, 0), waitAfter(n, rule, 1)])
      expect(bounds).to.deep.equal([
        [500, 1000],
        [1000, 2000],
        [2000, 4000],
        [2500, 5000],
        [2500, 5000],
      ])
    })
  })
}
