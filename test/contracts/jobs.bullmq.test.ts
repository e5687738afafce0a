/** The driver in Redis, against a server of its own. */
import { expect } from 'chai'
import { Queue } from 'bullmq'
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as tick } from 'node:timers/promises'
import { Redis } from 'ioredis'
import type { Jobs } from '../../server/jobs/contract.ts'
import { openBullmqJobs } from '../../server/jobs/bullmq.ts'
import { PASSWORD, type RedisServer, startRedis } from '../helpers/redis.ts'
import { jobsContract, type JobsUnderTest, Watched } from './jobs.ts'

describe('redis', function () {
  this.timeout(30_000)
  let server: RedisServer
  const lines: { readonly message: string; readonly fields: object | undefined }[] = []
  const line = (message: string, fields?: object): void => void lines.push({ message, fields })
  const log = { debug: line, info: line, warn: line, error: line }

  before('start redis', async function () {
    const started = await startRedis()
    if ('skipped' in started) {
      console.log(`      not run: ${started.skipped}`)
      this.skip()
    }
    server = started
  })
  after('stop redis', () => server?.[Symbol.asyncDispose]())
  beforeEach(() => void lines.splice(0))

  async function open(): Promise<JobsUnderTest & { other(): Jobs }> {
    const prefix = `test-${randomBytes(6).toString('hex')}`
    const opened = [openBullmqJobs({ url: server.url, prefix }, log)]
    return {
      jobs: opened[0]!,
      other() {
        const jobs = openBullmqJobs({ url: server.url, prefix }, log)
        opened.push(jobs)
        return jobs
      },
      now: () => Date.now(),
      pass: (ms) => tick(ms),
      [Symbol.asyncDispose]: async () => void (await Promise.all(opened.map((jobs) => jobs.close(0)))),
    }
  }

  jobsContract('bullmq', open)

  function start(url: string, prefix: string) {
    const script = join(import.meta.dirname, 'jobs-child.ts')
    return spawn(process.execPath, [script, url, prefix, 'host/module/queue'], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
  }

  it('another process does what this one has put in, each job once', async () => {
    await using driver = await open()
    const one = new Watched(driver, () => tick(2), { concurrency: 1 })
    const two = new Watched(driver, () => tick(2), { concurrency: 1 }, driver.other())
    for (let i = 0; i < 40; i++) one.queue.add(i)
    await one.until(() => one.count('done') + two.count('done') === 40)
    expect([...one.done, ...two.done].toSorted((a, b) => Number(a) - Number(b))).to.deep.equal(
      Array.from({ length: 40 }, (_, i) => i),
    )
    expect(two.done.length).to.be.greaterThan(5)
  })

  it('a key holds for all processes', async () => {
    await using driver = await open()
    const gate = Promise.withResolvers<void>()
    const one = new Watched(driver, () => gate.promise)
    const two = new Watched(driver, () => gate.promise, {}, driver.other())
    one.queue.add(1, { key: 'k' })
    await one.until(() => one.runs.length + two.runs.length === 1)
    two.queue.add(2, { key: 'k' })
    one.queue.add('sentinel')
    await one.until(() => one.runs.length + two.runs.length === 2)
    expect([...one.done, ...two.done]).to.have.members([1, 'sentinel'])
    gate.resolve()
    await one.until(() => one.count('done') + two.count('done') === 3)
  })

  it('what waits when all processes end is done by the next one', async () => {
    await using driver = await open()
    const first = new Watched(driver)
    first.queue.add('kept', { delayMs: 300 })
    await first.until(() => first.count('added') === 1)
    await driver.jobs.close(1000)
    expect(first.done).to.deep.equal([])
    const second = new Watched(driver, undefined, {}, driver.other())
    await second.until(() => second.count('done') === 1)
    expect(second.done).to.deep.equal(['kept'])
  })

  it('what was added while redis was away goes in when it is back; one line says so, without the password', async () => {
    await using driver = await open()
    const watched = new Watched(driver)
    watched.queue.add('before')
    await watched.until(() => watched.count('done') === 1)
    await server.kill()
    for (let i = 0; i < 10; i++) watched.queue.add(i, { key: `k${i}` })
    watched.queue.add('again', { key: 'k3' })
    await watched.until(() => lines.length > 0)
    expect(watched.queue.waiting).to.be.at.least(10)
    await server.restart()
    await watched.until(() => watched.count('done') === 11)
    expect(watched.done).to.have.members([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 'before'])
    expect(lines.map(({ message }) => message)).to.deep.equal([
      'redis cannot be reached, jobs wait',
      'redis is back',
    ])
    expect(JSON.stringify(lines)).to.not.contain(PASSWORD)
  })

  it('a start without redis is no failure: jobs run when it comes', async () => {
    await server.kill()
    await using driver = await open()
    const watched = new Watched(driver)
    watched.queue.add(1)
    await watched.until(() => lines.length > 0)
    await server.restart()
    await watched.until(() => watched.count('done') === 1)
  })

  it('closing without redis takes no longer than its bounds', async () => {
    await using driver = await open()
    const watched = new Watched(driver)
    watched.queue.add(1)
    await watched.until(() => watched.count('done') === 1)
    await server.kill()
    const began = Date.now()
    watched.queue.add(2)
    await driver.jobs.close(100)
    expect(Date.now() - began).to.be.lessThan(8000)
    await server.restart()
  })

  it('what a process was doing when it died is done by another', async () => {
    const prefix = `test-${randomBytes(6).toString('hex')}`
    const child = start(server.url, prefix)
    const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
    const ended = once(child, 'close')
    const jobs = openBullmqJobs({ url: server.url, prefix, deadMs: 500 }, log)
    const driver = { jobs, now: () => Date.now(), pass: tick, [Symbol.asyncDispose]: () => jobs.close(0) }
    await using _jobs = driver
    // only the child takes from the queue until it is dead
    const queue = new Queue('host/module/queue', {
      connection: { url: server.url },
      prefix: `${prefix}:jobs`,
    })
    await queue.add('job', 'precious', { attempts: 3, removeOnComplete: true })
    const said = [await lines.next(), await lines.next()].map(({ value }) => value as string)
    expect(said).to.have.members(['"precious"', '"quick"'])
    child.kill('SIGKILL')
    await ended
    await queue.close()
    const watched = new Watched(driver)
    await watched.until(() => watched.done.includes('precious'))
  })

  for (const [when, url, killed] of [
    ['with redis', () => server.url, false],
    ['when redis was lost', () => server.url, true],
    ['when redis was never there', () => 'redis://127.0.0.1:1/', false],
  ] as const)
    it(`a process that closes its queues ends by itself, ${when}`, async () => {
      const child = start(url(), `test-${randomBytes(6).toString('hex')}`)
      const ended = once(child, 'close')
      if (url() === server.url) await once(child.stdout, 'data')
      if (killed) await server.kill()
      child.stdin.end()
      expect(await ended).to.deep.equal([0, null])
      if (killed) await server.restart()
    })

  it('redis restarts while jobs run: none is lost, and later ones run', async () => {
    await using driver = await open()
    const gate = Promise.withResolvers<void>()
    const watched = new Watched(driver, (data) => (data === 'long' ? gate.promise : undefined))
    watched.queue.add('long')
    await watched.until(() => watched.runs.length === 1)
    await server.restart()
    watched.queue.add('later')
    await watched.until(() => watched.done.includes('later'))
    gate.resolve()
    await watched.until(() => watched.count('done') === 2)
    watched.queue.add('last')
    await watched.until(() => watched.done.includes('last'))
  })

  it('why a job has failed is not told to redis, and what is over leaves nothing but counts', async () => {
    await using driver = await open()
    const watched = new Watched(driver, (_, { attempt }) => {
      if (attempt < 3) throw new Error('told by a peer: s3cret')
    })
    watched.queue.add('text', { key: 'k' })
    const redis = new Redis(server.url)
    const everything = async (): Promise<string> => {
      const parts: string[] = []
      for (const key of await redis.keys('*')) {
        const type = await redis.type(key)
        if (type === 'hash') parts.push(key, JSON.stringify(await redis.hgetall(key)))
        else if (type === 'stream') parts.push(key, JSON.stringify(await redis.xrange(key, '-', '+')))
        else parts.push(key)
      }
      return parts.join('\n')
    }
    await watched.until(() => watched.count('retried') === 1)
    expect(await everything()).to.not.contain('s3cret')
    await watched.until(() => watched.count('done') === 1)
    let after = await everything()
    for (let n = 0; after.includes('"text"') && n < 200; n++) after = await everything()
    expect(after).to.not.contain('s3cret')
    expect(after).to.not.contain('"text"')
    redis.disconnect()
  })
})
