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

/** The clock is looked at after stanzas of this weight: it costs as much as a part of a stanza. */
const CHECK_AT = 8
/** Input of more bytes in one piece weighs that much by itself. */
const HEAVY_BYTES = 8192

let turn = 0
let until = 0
let weight = 0
let over = false
let planned = false
let jobs: (() => void)[] = []
const slices: (() => void)[] = []

/**
 * Whether there is time left in this turn for something of that weight (a message: 1, what may cost more: up to 8). Where not: `later`.
 */
export function free(heaviness = CHECK_AT): boolean {
  if (over) return false
  if (until === 0) {
    begin()
    weight = heaviness
    return true
  }
  weight += heaviness
  if (weight <= CHECK_AT) return true
  weight = heaviness
  over = performance.now() >= until
  return !over
}

/** The number of this turn. */
export function currentTurn(): number {
  if (until === 0) begin()
  return turn
}

function begin(): void {
  turn++
  until = performance.now() + SLICE_MS
  weight = 0
  plan()
}

/** Tells of input that was parsed and handed on in this turn; true when it was much and there is no time left for more of it. */
export function parsed(bytes: number): boolean {
  return bytes >= HEAVY_BYTES && !free()
}

/** Calls `job` in one of the next turns; it works as long as `free` says so, and comes again if there is more. It must not throw. */
export function later(job: () => void): void {
  jobs.push(job)
  plan()
}

/**
 * For long work that waits in between: resolves in a later turn of the event loop, for one caller after another while the time of a slice
 * lasts. The caller works as long as `free` says so, and asks again.
 */
export function nextSlice(): Promise<void> {
  return new Promise((resolve) => {
    slices.push(resolve)
    plan()
  })
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
  over = false
  if (slices.length > 0) wake(performance.now() + SLICE_MS)
  if (jobs.length > 0 || slices.length > 0) plan()
}

/** Lets one go on, and when it waits again, the next. */
function wake(end: number): void {
  slices.shift()?.()
  queueMicrotask(() => {
    if (slices.length > 0 && performance.now() < end) wake(end)
  })
}

function work(): void {
  const waiting = jobs
  jobs = []
  const end = performance.now() + SLICE_MS
  let next = 0
  for (let now = end - SLICE_MS; next < waiting.length && now < end; now = performance.now()) {
    until = Math.min(end, now + SHARE_MS)
    over = false
    waiting[next++]?.()
  }
  if (next < waiting.length) jobs = [...waiting.slice(next), ...jobs]
}
