/**
 * Job queues in Redis (BullMQ 6): any process that has opened a queue of that name does what any of them has put in, and what waits outlives
 * them all. Nothing here waits for Redis in the way of a caller: what is added while it cannot be reached waits in this process, bounded, and
 * goes in when it is back. The reason of a failure stays in this process's log; Redis is told only that the job has failed.
 */
import { type Job, Queue, Worker } from 'bullmq'
import { Redis } from 'ioredis'
import { type Clock, systemClock } from '../clock.ts'
import type { Log } from '../module.ts'
import type { Json } from '../storage/contract.ts'
import type { AddOptions, JobHandler, Jobs, OpenQueue, QueueEvent, QueueSettings } from './contract.ts'
import { runOnce, waitAfter } from './retry.ts'

/** Jobs that are put in together. */
const BATCH = 100
/** How long Redis has to answer before what was to be put in is tried again. */
const ANSWER_MS = 10_000
const RETRY_MS = { first: 200, most: 10_000 }
/** The number of jobs that wait is asked for again after this. */
const COUNT_MS = 1000
/** What a connection has to end by itself. */
const CLOSE_MS = 1000

/** Where Redis is. */
export interface RedisSettings {
  /** redis:// or rediss:// with user and password; a secret. */
  readonly url: string
  /** Before each key, so that several servers can share one Redis. */
  readonly prefix: string
  /** A process that says nothing for this time has died, and others do what it was doing; milliseconds. */
  readonly deadMs?: number
}

/** Opens the driver; resolves at once, whether Redis answers or not. */
export function openBullmqJobs(
  { url, prefix, deadMs = 30_000 }: RedisSettings,
  log: Log,
  clock: Clock = systemClock,
): Jobs {
  const open = new Map<string, RedisQueue>()
  const outage = new Outage(log, () => connection.status === 'ready')
  // null: a command waits for the connection as long as it takes; who must not wait says so himself
  const connection = new Redis(url, {
    maxRetriesPerRequest: null,
    retryStrategy: (times) => Math.min(RETRY_MS.most, RETRY_MS.first * 2 ** Math.min(times, 10)),
  })
  // A worker has one more connection, made from this one, which it does not end by itself while Redis is away.
  const made: Redis[] = []
  const duplicate = connection.duplicate.bind(connection)
  connection.duplicate = (options) => {
    const another = duplicate(options)
    made.push(another)
    return another
  }
  connection.on('error', (error: Error) => outage.failed(error))
  connection.on('ready', () => outage.over())
  let closed: Promise<void> | undefined
  return {
    driver: 'bullmq',
    open(name, settings, handle, told) {
      if (open.has(name)) throw new Error(`job queue ${name} is open already`)
      const env = {
        connection,
        prefix: `${prefix}:jobs`,
        deadMs,
        clock,
        log,
        outage,
        gone: () => open.delete(name),
      }
      const queue = new RedisQueue(name, settings, handle, told, env)
      open.set(name, queue)
      return queue
    },
    close(graceMs) {
      return (closed ??= (async () => {
        const queues = Array.from(open.values())
        await inTime(Promise.all(queues.map((queue) => queue.settle())), graceMs, clock)
        await Promise.all(queues.map((queue) => queue.close()))
        if (connection.status === 'ready') await inTime(connection.quit(), CLOSE_MS, clock)
        for (const one of [connection, ...made]) one.disconnect()
      })())
    },
  }
}

/** One line when Redis is lost, one when it is back, whichever connection notices. */
class Outage {
  readonly #log: Log
  readonly #reached: () => boolean
  #down = false

  /** `reached`: whether the first of the connections stands. */
  constructor(log: Log, reached: () => boolean) {
    this.#log = log
    this.#reached = reached
  }
  failed(error: Error): void {
    // What Redis says is told; a connection that has not come back yet, after another one has, is not.
    if (this.#down || (this.#reached() && error.name !== 'ReplyError')) return
    this.#down = true
    this.#log.warn('redis cannot be reached, jobs wait', { reason: error.message })
  }
  over(): void {
    if (this.#down) this.#log.info('redis is back')
    this.#down = false
  }
}

interface QueueEnv {
  readonly connection: Redis
  readonly prefix: string
  readonly deadMs: number
  readonly clock: Clock
  readonly log: Log
  readonly outage: Outage
  gone(): void
}
interface Waiting {
  readonly data: Json
  readonly key: string | undefined
  /** Due then; milliseconds since 1970. */
  readonly at: number
  /** Added later with the same key: counts if the job of that key runs by then. */
  last?: Waiting
}

class RedisQueue implements OpenQueue {
  readonly #name: string
  readonly #settings: QueueSettings
  readonly #handle: JobHandler
  readonly #told: (event: QueueEvent) => void
  readonly #env: QueueEnv
  readonly #queue: Queue
  readonly #worker: Worker
  readonly #stop = new AbortController()
  /** Not in Redis yet, oldest first; by key, or by a number. */
  #outbox = new Map<string | number, Waiting>()
  #count = 0
  /** Being put in. */
  #underway = 0
  #pumping: Promise<void> | undefined
  /** Jobs that wait in Redis, when last asked, and those put in since. */
  #inRedis = 0
  #askedAt = 0
  #closed = false

  constructor(
    name: string,
    settings: QueueSettings,
    handle: JobHandler,
    told: (event: QueueEvent) => void,
    env: QueueEnv,
  ) {
    this.#name = name
    this.#settings = settings
    this.#handle = handle
    this.#told = told
    this.#env = env
    const { connection, prefix, deadMs } = env
    this.#queue = new Queue(name, { connection, prefix })
    this.#worker = new Worker(name, (job) => this.#run(job), {
      connection,
      prefix,
      concurrency: settings.concurrency,
      runRetryDelay: RETRY_MS.first,
      lockDuration: deadMs,
      stalledInterval: deadMs,
      maxStalledCount: settings.attempts, // processes may die while they work on it
      settings: { backoffStrategy: (attempt) => waitAfter(attempt ?? 1, settings) },
    })
    const failed = (error: Error): void => {
      if (!this.#closed) env.outage.failed(error)
    }
    this.#queue.on('error', failed)
    this.#worker.on('error', failed)
  }

  get waiting(): number {
    return this.#outbox.size + this.#underway + this.#inRedis
  }

  add(data: Json, { key, delayMs = 0 }: AddOptions = {}): void {
    if (this.#closed) return
    const waiting = { data, key, at: this.#env.clock.now() + delayMs }
    const same = key === undefined ? undefined : this.#outbox.get(key)
    if (same !== undefined) {
      same.last = waiting
      return
    }
    if (this.waiting >= this.#settings.maxWaiting) {
      this.#askCount()
      return this.#told('refused')
    }
    this.#outbox.set(key ?? this.#count++, waiting)
    this.#told('added')
    this.#goOn()
  }

  #goOn(): void {
    if (this.#outbox.size === 0 || this.#stop.signal.aborted) return
    this.#pumping ??= this.#pump().finally(() => {
      this.#pumping = undefined
      this.#goOn()
    })
  }

  /** Puts in what waits in this process, until nothing does. */
  async #pump(): Promise<void> {
    await Promise.resolve() // what is added in the same turn goes together
    for (let wait = RETRY_MS.first; this.#outbox.size > 0 && !this.#stop.signal.aborted; ) {
      const batch = Array.from(this.#outbox).slice(0, BATCH)
      for (const [key] of batch) this.#outbox.delete(key)
      this.#underway = batch.length
      const put = Promise.all(batch.map(([, waiting]) => this.#put(waiting)))
      try {
        if (!(await inTime(put, ANSWER_MS, this.#env.clock))) throw new Error('redis gives no answer')
        this.#inRedis += batch.length
        this.#askCount()
        wait = RETRY_MS.first
      } catch (error) {
        // it may have been done: with a key it is not done twice, without one it may be
        this.#back(batch)
        if (this.#stop.signal.aborted) return
        this.#env.outage.failed(error instanceof Error ? error : new Error(String(error)))
        await pause(wait, this.#env.clock, this.#stop.signal)
        wait = Math.min(wait * 2, RETRY_MS.most)
      } finally {
        this.#underway = 0
      }
    }
  }

  /** What could not be put in is first again. */
  #back(batch: readonly (readonly [string | number, Waiting])[]): void {
    this.#underway = 0
    const newer = this.#outbox
    this.#outbox = new Map(batch)
    for (const [key, waiting] of newer) {
      const same = this.#outbox.get(key)
      if (same === undefined) this.#outbox.set(key, waiting)
      else same.last = waiting.last ?? waiting
    }
  }

  async #put({ data, key, at, last }: Waiting): Promise<void> {
    const added = this.#queue.add('job', data, {
      attempts: this.#settings.attempts,
      backoff: { type: 'custom' },
      delay: Math.max(0, at - this.#env.clock.now()),
      removeOnComplete: true,
      removeOnFail: true,
      stackTraceLimit: 0,
      ...(key === undefined ? {} : { deduplication: { id: key, keepLastIfActive: true } }),
    })
    await Promise.all([added, last === undefined ? undefined : this.#put(last)]) // sent in this order
  }

  #askCount(): void {
    const now = this.#env.clock.now()
    if (Math.abs(now - this.#askedAt) < COUNT_MS) return // the clock may have gone back
    this.#askedAt = now
    this.#queue.getJobCountByTypes('waiting', 'delayed', 'prioritized').then(
      (count) => void (this.#inRedis = count),
      (error: Error) => this.#env.outage.failed(error),
    )
  }

  async #run(job: Job): Promise<void> {
    if (this.#inRedis > 0) this.#inRedis--
    const attempt = job.attemptsMade + 1
    const data = job.data as Json // what Queue.add has written as JSON
    try {
      await runOnce(this.#handle, data, attempt, this.#settings, this.#stop.signal, this.#env.clock)
      this.#told('done')
    } catch (error) {
      const last = attempt >= this.#settings.attempts
      if (!this.#stop.signal.aborted) this.#told(last ? 'failed' : 'retried')
      if (last) this.#env.log.warn('job failed', { queue: this.#name, attempts: attempt, err: error })
      throw new Error('failed') // what it says would stand in Redis
    }
  }

  /** Nothing begins any more; resolves when what runs has ended, and what waited here is in Redis. */
  async settle(): Promise<void> {
    this.#closed = true
    await Promise.all([this.#worker.pause(), this.#pumping])
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#stop.abort(new Error('the queue is closed'))
    const { clock, connection } = this.#env
    // Without Redis a worker waits for what cannot be told to it, and would keep the process from ending.
    const force = connection.status !== 'ready'
    if (!(await inTime(this.#worker.close(force), CLOSE_MS, clock)))
      await inTime(this.#worker.disconnect(), CLOSE_MS, clock)
    await inTime(this.#queue.close(), CLOSE_MS, clock)
    this.#env.gone()
  }
}

/** Whether it has resolved within the time; rejects when it does. */
async function inTime(work: Promise<unknown>, ms: number, clock: Clock): Promise<boolean> {
  const { promise: late, resolve } = Promise.withResolvers<boolean>()
  using _timer = clock.after(ms, () => resolve(false))
  work.catch(() => undefined) // when it is late, nobody looks at it any more
  return await Promise.race([work.then(() => true), late])
}

async function pause(ms: number, clock: Clock, stop: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  using _timer = clock.after(ms, resolve)
  stop.addEventListener('abort', () => resolve(), { once: true })
  await promise
}
