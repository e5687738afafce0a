/** Waiting for what is under way in this process, without sleeping. */
import { setImmediate as nextTurn } from 'node:timers/promises'

const busy = new Set<Promise<unknown>>()

/** Makes `settle` wait for a promise that event-loop turns alone do not show: work in a thread pool. */
export function track<T>(promise: Promise<T>): Promise<T> {
  busy.add(promise)
  promise.finally(() => busy.delete(promise)).catch(() => undefined)
  return promise
}

/** Some event-loop turns without anything tracked being under way. */
export async function settle(turns = 8): Promise<void> {
  for (let quiet = 0; quiet < turns; quiet++) {
    await nextTurn()
    if (busy.size > 0) {
      await Promise.allSettled(busy)
      quiet = 0
    }
  }
}
