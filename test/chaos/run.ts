/**
 * Messages between accounts with several devices each while connections break in every way, the server is stopped and killed and its store
 * fails; after each round a comparison of what was sent with what archives and devices have. The server is a process of its own, with its
 * data in a folder or a database. A run is cut into epochs: each begins with an empty store and ends with a comparison of everything.
 */
import { commandFolder } from '../helpers/command.ts'
import { Epoch, type Rounds } from './epoch.ts'
import type { Disturbed } from './faults.ts'
import { type Faults, noFaults } from './ledger.ts'
import { Random } from './random.ts'

/** After so many notes no epoch begins. */
const ENOUGH = 200

/** What to do. */
export interface ChaosOptions extends Rounds {
  /** Each has one end of the server in it. */
  readonly rounds: number
  readonly seed: number
  readonly store: Disturbed
  /** Rounds with one store; 50 when absent. */
  readonly epoch?: number
  /** No round begins after that time; milliseconds. */
  readonly limitMs?: number
  /** Told after each so many rounds; 25 when absent. */
  readonly every?: number
  readonly progress?: (line: string) => void
  /** Told once for each of the first rounds with faults: what happened in it, for those who look for the cause. */
  readonly trace?: (round: number, lines: readonly string[]) => void
}

/** What happened. */
export interface ChaosReport {
  readonly messages: number
  readonly happened: Readonly<Record<string, number>>
  readonly faults: Readonly<Faults>
  /** Of the harness and of the server: what went otherwise than it must. */
  readonly notes: readonly string[]
}

/** Runs it all. Rejects when the server does not start. */
export async function chaos(options: ChaosOptions): Promise<ChaosReport> {
  const random = new Random(options.seed)
  const { epoch: length = 50, every = 25, limitMs = Number.POSITIVE_INFINITY, progress, trace } = options
  const end = performance.now() + limitMs
  const total = {
    messages: 0,
    happened: {} as Record<string, number>,
    faults: noFaults(),
    notes: [] as string[],
  }
  let traced = 0
  for (
    let first = 1;
    first <= options.rounds && total.notes.length < ENOUGH && performance.now() < end;
    first += length
  ) {
    await using folder = await commandFolder()
    await using epoch = new Epoch(folder, random, options, `chaos${options.seed}_${first}`)
    let noted = 0
    const look = (round: number): void => {
      if (epoch.notes.length > noted) {
        progress?.(
          `seed ${options.seed}, round ${round}: ${epoch.notes
            .slice(noted, noted + 5)
            .join(' | ')
            .slice(0, 1000)}`,
        )
        if (++traced <= 3) trace?.(round, epoch.lines)
      }
      noted = epoch.notes.length
    }
    let last = Math.min(options.rounds, first + length - 1)
    try {
      await epoch.prepare()
      for (let round = first; round <= last; round++) {
        if (performance.now() >= end) last = round
        await epoch.round(round, round === last)
        look(round)
        if (round % every === 0 && round !== last)
          progress?.(summary(round, total.messages + epoch.messages, epoch.faults, epoch.happened))
      }
      await epoch.finish()
    } catch (error) {
      epoch.notes.push(error instanceof Error ? error.message : String(error))
    }
    look(last)
    total.messages += epoch.messages
    for (const [name, count] of Object.entries(epoch.happened))
      total.happened[name] = (total.happened[name] ?? 0) + count
    for (const [name, count] of Object.entries(epoch.faults)) total.faults[name as keyof Faults] += count
    total.notes.push(...epoch.notes)
    progress?.(`${summary(last, total.messages, total.faults, total.happened)}; everything compared`)
  }
  return total
}

function summary(
  round: number,
  messages: number,
  faults: Faults,
  happened: Readonly<Record<string, number>>,
): string {
  const list = (counts: Readonly<Record<string, number>>): string =>
    Object.entries(counts)
      .filter(([, count]) => count > 0)
      .map(([name, count]) => `${name} ${count}`)
      .join(', ')
  const bad = list({ ...faults })
  return `round ${round}: ${messages} messages, ${bad === '' ? 'no faults' : `FAULTS: ${bad}`} (${list(happened)})`
}
