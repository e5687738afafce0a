/** The rules of retries, one place for all drivers: when a job is tried again, and how long a run may take. */
import { randomInt } from 'node:crypto'
import type { Clock } from '../clock.ts'
import type { Json } from '../storage/contract.ts'
import type { JobHandler, QueueSettings, RetryRule } from './contract.ts'

/** A part of the wait that is left to chance, so that jobs that failed together do not come back together. */
const STEPS = 1_000_000

/**
 * Milliseconds before the run that follows failed run number `attempt` (from 1): between half of the wait and all of it.
 * `chance`: 0 to 1.
 */
export function waitAfter(attempt: number, rule: RetryRule, chance = randomInt(STEPS) / STEPS): number {
  const whole = Math.min(rule.maxMs, rule.firstMs * 2 ** (attempt - 1))
  return Math.round(whole / 2 + (whole / 2) * chance)
}

/** One run within its time. Rejects when it fails, takes too long, or `stop` is aborted because the queue closes. */
export async function runOnce(
  handle: JobHandler,
  data: Json,
  attempt: number,
  { attempts, timeoutMs }: QueueSettings,
  stop: AbortSignal,
  clock: Clock,
): Promise<void> {
  const time = new AbortController()
  using _timer = clock.after(timeoutMs, () => time.abort(new Error(`not done within ${timeoutMs} ms`)))
  const signal = AbortSignal.any([time.signal, stop])
  signal.throwIfAborted()
  const { promise: ended, reject } = Promise.withResolvers<never>()
  signal.addEventListener('abort', () => reject(signal.reason as Error))
  await Promise.race([handle(data, { attempt, last: attempt >= attempts, signal }), ended])
}
