/** A queue as a module has it: defaults, the name, metrics. */
import type { JobOptions, JobRun, Metrics } from '../module.ts'
import type { Json } from '../storage/contract.ts'
import type { Jobs, OpenQueue, QueueEvent } from './contract.ts'

const COUNTED: Readonly<Record<QueueEvent, string>> = {
  added: 'Jobs added',
  done: 'Jobs done',
  retried: 'Runs of jobs that failed and are tried again',
  failed: 'Jobs given up',
  refused: 'Jobs refused because too many were waiting',
}

/** `name`: host ('' for the server), module, queue. */
export function openJobQueue<T extends Json>(
  jobs: Jobs,
  name: readonly [host: string, module: string, queue: string],
  { attempts = 5, backoff, concurrency = 4, timeoutMs = 30_000, maxWaiting = 10_000 }: JobOptions,
  handle: (data: T, run: JobRun) => Promise<void>,
  metrics: Metrics,
): OpenQueue {
  const { firstMs, maxMs } = backoff ?? { firstMs: 1000, maxMs: 300_000 }
  const settings = { attempts, firstMs, maxMs, concurrency, timeoutMs, maxWaiting }
  const label = `jobs_${name[2].replaceAll('-', '_')}`
  const counters = new Map(
    Object.entries(COUNTED).map(([event, help]) => [event, metrics.counter(`${label}_${event}`, help)]),
  )
  const queue = jobs.open(
    name.join('/'),
    settings,
    (data, run) => handle(data as T, run), // only this queue's `add` puts anything in
    (event) => counters.get(event)?.add(),
  )
  metrics.gauge(`${label}_waiting`, 'Jobs that wait', () => queue.waiting)
  return queue
}
