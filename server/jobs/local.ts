/** Job queues in this process. What waits is lost at its end. */
import type { Clock } from '../clock.ts'
import type { Log } from '../module.ts'
import type { Json } from '../storage/contract.ts'
import type { AddOptions, JobHandler, Jobs, OpenQueue, QueueEvent, QueueSettings } from './contract.ts'
import { runOnce, waitAfter } from './retry.ts'

interface Entry {
  readonly data: Json
  readonly key: string | undefined
  /** Runs so far. */
  attempts: number
  /** Set while it waits for its time. */
  timer: Disposable | undefined
  running: boolean
  /** Added with the same key while it runs. */
  next: { readonly data: Json; readonly opts: AddOptions } | undefined
}

/** Opens the driver. */
export function openLocalJobs(clock: Clock, log: Log): Jobs {
  const open = new Map<string, LocalQueue>()
  let closed: Promise<void> | undefined
  return {
    driver: 'local',
    open(name, settings, handle, told) {
      if (open.has(name)) throw new Error(`job queue ${name} is open already`)
      const queue = new LocalQueue(name, settings, handle, told, {
        clock,
        log,
        gone: () => open.delete(name),
      })
      open.set(name, queue)
      return queue
    },
    close(graceMs) {
      return (closed ??= (async () => {
        const queues = Array.from(open.values())
        const { promise: over, resolve } = Promise.withResolvers<void>()
        using _timer = clock.after(graceMs, resolve)
        await Promise.race([Promise.all(queues.map((queue) => queue.settle())), over])
        await Promise.all(queues.map((queue) => queue.close()))
      })())
    },
  }
}

class LocalQueue implements OpenQueue {
  readonly #name: string
  readonly #settings: QueueSettings
  readonly #handle: JobHandler
  readonly #told: (event: QueueEvent) => void
  readonly #env: { readonly clock: Clock; readonly log: Log; gone(): void }
  readonly #entries = new Set<Entry>()
  readonly #byKey = new Map<string, Entry>()
  /** Due, oldest first. */
  readonly #due = new Set<Entry>()
  readonly #running = new Set<Promise<void>>()
  readonly #stop = new AbortController()
  #planned = false
  #closed = false

  constructor(
    name: string,
    settings: QueueSettings,
    handle: JobHandler,
    told: (event: QueueEvent) => void,
    env: { readonly clock: Clock; readonly log: Log; gone(): void },
  ) {
    this.#name = name
    this.#settings = settings
    this.#handle = handle
    this.#told = told
    this.#env = env
  }

  get waiting(): number {
    return this.#entries.size - this.#running.size
  }

  add(data: Json, opts: AddOptions = {}): void {
    if (this.#closed) return
    const same = opts.key === undefined ? undefined : this.#byKey.get(opts.key)
    if (same !== undefined) {
      if (same.running) same.next = { data, opts }
      return
    }
    if (this.waiting >= this.#settings.maxWaiting) return this.#told('refused')
    const entry: Entry = {
      data,
      key: opts.key,
      attempts: 0,
      timer: undefined,
      running: false,
      next: undefined,
    }
    this.#entries.add(entry)
    if (entry.key !== undefined) this.#byKey.set(entry.key, entry)
    this.#told('added')
    this.#wait(entry, opts.delayMs ?? 0)
  }

  #wait(entry: Entry, ms: number): void {
    if (ms <= 0) return this.#ready(entry)
    entry.timer = this.#env.clock.after(ms, () => {
      entry.timer = undefined
      this.#ready(entry)
    })
  }

  #ready(entry: Entry): void {
    this.#due.add(entry)
    if (this.#planned) return
    this.#planned = true
    queueMicrotask(() => this.#work()) // not within the stanza that has added it
  }

  #work(): void {
    this.#planned = false
    for (const entry of this.#due) {
      if (this.#closed || this.#running.size >= this.#settings.concurrency) return
      this.#due.delete(entry)
      const run = this.#run(entry).finally(() => {
        this.#running.delete(run)
        this.#work()
      })
      this.#running.add(run)
    }
  }

  async #run(entry: Entry): Promise<void> {
    entry.running = true
    entry.attempts++
    try {
      const { clock } = this.#env
      await runOnce(this.#handle, entry.data, entry.attempts, this.#settings, this.#stop.signal, clock)
      this.#told('done')
    } catch (error) {
      if (this.#closed) return
      if (entry.attempts < this.#settings.attempts) {
        entry.running = false
        this.#told('retried')
        this.#wait(entry, waitAfter(entry.attempts, this.#settings))
        return
      }
      this.#told('failed')
      this.#env.log.warn('job failed', { queue: this.#name, attempts: entry.attempts, err: error })
    }
    this.#over(entry)
  }

  #over(entry: Entry): void {
    this.#entries.delete(entry)
    if (entry.key !== undefined) this.#byKey.delete(entry.key)
    if (entry.next !== undefined) this.add(entry.next.data, entry.next.opts)
  }

  /** Nothing begins any more; resolves when what runs has ended. */
  async settle(): Promise<void> {
    this.#closed = true
    for (const entry of this.#entries) entry.timer?.[Symbol.dispose]()
    await Promise.all(this.#running)
  }

  async close(): Promise<void> {
    const settled = this.settle()
    this.#stop.abort(new Error('the queue is closed'))
    this.#entries.clear()
    this.#byKey.clear()
    this.#due.clear()
    this.#env.gone()
    await settled
  }
}
