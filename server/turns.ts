/**
 * Turns: how much work on stanzas is done before the event loop looks at its other connections again.
 *
 * In one turn of the loop, input is worked on where it arrives until the time of a slice is used up. What is left then waits in one queue for
 * all sessions; of that, too, a slice is done in each turn, a little of each session after another. So a client that sends a lot waits for
 * itself, and somebody else's message for two slices at most.
 */

/** Milliseconds of work where input arrives, and as much again from the queue, in each turn of the event loop. */
const SLICE_MS = 4
/** What one job of the queue has before the next one gets its turn, in milliseconds. */
const SHARE_MS = 1

let until = 0
let planned = false
let jobs: (() => void)[] = []

/** Whether there is time left in this turn. Where not: `later`. */
export function free(): boolean {
  const now = performance.now()
  if (until === 0) {
    until = now + SLICE_MS
    plan()
  }
  return now < until
}

/** Calls `job` in one of the next turns; it works as long as `free` says so, and comes again if there is more. It must not throw. */
export function later(job: () => void): void {
  jobs.push(job)
  plan()
}

function plan(): void {
  if (planned) return
  planned = true
  setImmediate(serve)
}

function serve(): void {
  planned = false
  if (jobs.length > 0) work()
  until = 0 // a new turn begins
  if (jobs.length > 0) plan()
}

function work(): void {
  const waiting = jobs
  jobs = []
  const end = performance.now() + SLICE_MS
  let next = 0
  for (let now = end - SLICE_MS; next < waiting.length && now < end; now = performance.now()) {
    until = Math.min(end, now + SHARE_MS)
    waiting[next++]?.()
  }
  if (next < waiting.length) jobs = [...waiting.slice(next), ...jobs]
}
