/**
 * Two clients who have nothing to do with an attack: one sends the other a message every few milliseconds. In a thread of their own, so that
 * what is measured is the server and not the attacker's side. A message counts from the time it was due, so that a stall is not hidden.
 */
import { once } from 'node:events'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import type { Place } from './orders.ts'
import { Wire } from './wire.ts'

/** Milliseconds from when a message was due to when it was there. */
export interface Latencies {
  readonly count: number
  readonly median: number
  readonly p99: number
  readonly max: number
}

interface Setup {
  readonly place: Place
  readonly accounts: readonly [string, string]
  readonly password: string
}
const EVERY_MS = 5

/** The pair, from the outside. */
export class Pair implements AsyncDisposable {
  readonly #worker: Worker

  private constructor(worker: Worker) {
    this.#worker = worker
  }

  /** Logs both in; they begin at once. */
  static async start(place: Place, accounts: readonly [string, string], password: string): Promise<Pair> {
    const setup: Setup = { place, accounts, password }
    const worker = new Worker(new URL(import.meta.url), { workerData: setup })
    await once(worker, 'message')
    return new Pair(worker)
  }

  /** What was measured since the last call; waits for what is on its way. */
  async latencies(): Promise<Latencies> {
    this.#worker.postMessage('latencies')
    const [latencies] = (await once(this.#worker, 'message')) as [Latencies]
    return latencies
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker.terminate()
  }
}

/** In the thread. */
async function talk({ place, accounts: [from, to], password }: Setup): Promise<void> {
  const sender = await Wire.open(place)
  const receiver = await Wire.open(place)
  await sender.login(from, password, 'pair')
  await receiver.login(to, password, 'pair')
  const port = parentPort
  if (port === null) throw new Error('not in a thread')
  let began = performance.now()
  let sent = 0
  let arrived = 0
  let measured: number[] = []
  let rest = ''
  receiver.onText = (text) => {
    const now = performance.now()
    const parts = (rest + text).split('</message>')
    rest = parts.pop() ?? ''
    for (const part of parts) {
      const due = /<body>([\d.]+)</.exec(part)?.[1]
      if (due === undefined) continue
      arrived++
      measured.push(now - Number(due))
    }
  }
  setInterval(() => {
    const now = performance.now()
    // late timers of this thread do not hide anything: what was due meanwhile is sent now
    for (; began + EVERY_MS <= now; began += EVERY_MS) {
      sent++
      sender.send(`<message to='${to}@${place.domain}/pair'><body>${began + EVERY_MS}</body></message>`)
    }
  }, EVERY_MS)
  port.on('message', () => {
    const upTo = sent
    const report = (): void => {
      if (arrived < upTo) return void setTimeout(report, EVERY_MS)
      const sorted = measured.toSorted((a, b) => a - b)
      measured = []
      const at = (share: number): number =>
        sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0
      port.postMessage({ count: sorted.length, median: at(0.5), p99: at(0.99), max: sorted.at(-1) ?? 0 })
    }
    report()
  })
  port.postMessage('ready')
}

if (!isMainThread) await talk(workerData as Setup)
