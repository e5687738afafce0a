/** A server in a process of its own, and clients for it. Dispose it with `await using`. */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import type { Answer, Commands, Place, StageOptions } from './orders.ts'
import { Wire, type WireOptions } from './wire.ts'

/** The password of all accounts of these tests. */
export const PASSWORD = 'secret'

/** A running server process. */
export class Stage implements AsyncDisposable {
  readonly place: Place
  readonly #child: ChildProcess
  readonly #ask: Ask
  readonly #wires = new Set<Wire>()

  private constructor(child: ChildProcess, ask: Ask, place: Place) {
    this.#child = child
    this.#ask = ask
    this.place = place
  }

  static async start(options: StageOptions = {}): Promise<Stage> {
    const child = fork(join(import.meta.dirname, 'server-child.ts'), {
      // a small young generation, so that the memory in use is what is kept
      execArgv: ['--expose-gc', '--max-semi-space-size=4'],
    })
    const ask = questions(child)
    try {
      return new Stage(child, ask, await ask('start', options))
    } catch (error) {
      child.kill('SIGKILL')
      throw error
    }
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  /** Has the child do something. */
  do<C extends keyof Commands>(command: C, ...args: Parameters<Commands[C]>): ReturnType<Commands[C]> {
    return this.#ask(command, ...args)
  }

  /** A connection, not logged in. */
  async connect(options: WireOptions = {}): Promise<Wire> {
    const wire = await Wire.open(this.place, options)
    this.#wires.add(wire)
    return wire
  }

  /** A bound session. */
  async login(local: string, resource = 'r', options: WireOptions = {}): Promise<Wire> {
    const wire = await this.connect(options)
    await wire.login(local, PASSWORD, resource)
    return wire
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const wire of this.#wires) wire.drop()
    const ended = once(this.#child, 'exit')
    try {
      const errors = await this.do('errors')
      await this.do('stop')
      if (errors.length > 0) throw new Error(`the server logged errors:\n${errors.slice(0, 10).join('\n')}`)
    } finally {
      this.#child.kill('SIGKILL')
      await ended
    }
  }
}

type Ask = <C extends keyof Commands>(command: C, ...args: Parameters<Commands[C]>) => ReturnType<Commands[C]>

function questions(child: ChildProcess): Ask {
  const waiting = new Map<number, PromiseWithResolvers<unknown>>()
  let ids = 0
  child.on('message', ({ id, value, error }: Answer) => {
    const asked = waiting.get(id)
    waiting.delete(id)
    if (error === undefined) asked?.resolve(value)
    else asked?.reject(new Error(error))
  })
  child.on('exit', (code, signal) => {
    for (const asked of waiting.values())
      asked.reject(new Error(`the server process has ended: ${code ?? signal}`))
    waiting.clear()
  })
  const ask = (command: keyof Commands, ...args: readonly unknown[]): Promise<unknown> => {
    const asked = Promise.withResolvers<unknown>()
    waiting.set(++ids, asked)
    child.send({ id: ids, command, args })
    return asked.promise
  }
  return ask as Ask // the child answers each command with its type
}

/** Calls `fn` for each item, at most `width` at the same time. */
export async function inParallel<T, R>(
  items: readonly T[],
  width: number,
  fn: (item: T) => Promise<R>,
): Promise<R[]> {
  const results: R[] = []
  let next = 0
  const worker = async (): Promise<void> => {
    while (next < items.length) {
      const at = next++
      results[at] = await fn(items[at] as T)
    }
  }
  await Promise.all(Array.from({ length: Math.min(width, items.length) }, worker))
  return results
}

/** `name0`, `name1`, … */
export const names = (name: string, count: number): string[] =>
  Array.from({ length: count }, (_, i) => `${name}${i}`)
