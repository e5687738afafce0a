/** Settings of the queues that the tests open. */
import type { QueueSettings } from '../../server/jobs/contract.ts'

/** Short times, long enough to be told apart. */
export const settings: QueueSettings = {
  attempts: 3,
  firstMs: 60,
  maxMs: 90,
  concurrency: 2,
  timeoutMs: 2000,
  maxWaiting: 50,
}
