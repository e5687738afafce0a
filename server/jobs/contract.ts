/**
 * The contract of job queues: work that is not done on the way of a stanza, tried again when it fails. Two drivers: `local`, in this
 * process, and `bullmq`, in Redis, where any process of a cluster may do what another has put in. `test/contracts/jobs.ts` is what each
 * driver must pass.
 *
 * A job runs at least once as long as its driver lives: with Redis again by another process when one dies, in process not beyond its end. A
 * handler must bear that a job runs twice, and must not trust that a job runs at all: what has to happen is in the store, not in the queue.
 */
import type { Json } from '../storage/contract.ts'

/** How often, and when, a job that has failed is tried again. */
export interface RetryRule {
  /** Runs of one job, the first included. */
  readonly attempts: number
  /** Wait before the second run, milliseconds; doubled for each further one. */
  readonly firstMs: number
  /** The longest wait. */
  readonly maxMs: number
}
/** What is fixed when a queue is opened; the same in all processes. */
export interface QueueSettings extends RetryRule {
  /** Jobs of this queue that one process works on at the same time. */
  readonly concurrency: number
  /** A run that takes longer counts as failed. */
  readonly timeoutMs: number
  /** Jobs that may wait; more are refused. In Redis about that many. */
  readonly maxWaiting: number
}
/** One run of a job. */
export interface JobRun {
  /** From 1. */
  readonly attempt: number
  /** Not tried again when it fails now. */
  readonly last: boolean
  /** Aborted when the time is over or the queue closes. */
  readonly signal: AbortSignal
}
/** Does the work; a rejection is a failure. `data` comes back from the wire of the driver: JSON as it was added, maybe by an older version. */
export type JobHandler = (data: Json, run: JobRun) => Promise<void>
/** How a job is added. */
export interface AddOptions {
  /**
   * One job for each key: while one waits (also for its next attempt), others are not added; those added while it runs become one job
   * with the data of the last, which begins after it. Up to 512 UTF-16 units.
   */
  readonly key?: string
  /** Not before; milliseconds from now. */
  readonly delayMs?: number
}
/** What happens in a queue, for metrics. */
export type QueueEvent = 'added' | 'done' | 'retried' | 'failed' | 'refused'
/** An open queue. */
export interface OpenQueue {
  /** Never throws, never waits. */
  add(data: Json, opts?: AddOptions): void
  /** Jobs of this process's making that wait, as far as it is known here. */
  readonly waiting: number
  /** Takes nothing more and aborts what runs. What is not done stays in Redis; in process it is forgotten. */
  close(): Promise<void>
}
/** A driver. */
export interface Jobs {
  /** Name of the driver, for logs. */
  readonly driver: string
  /** `name` is unique in the process, and the same in others: host, module and queue. Throws when it is open already. */
  open(
    name: string,
    settings: QueueSettings,
    handle: JobHandler,
    told: (event: QueueEvent) => void,
  ): OpenQueue
  /** Nothing begins any more; what runs has `graceMs` to end, then all queues are closed. Safe to call twice. */
  close(graceMs: number): Promise<void>
}
