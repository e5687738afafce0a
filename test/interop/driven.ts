/**
 * A client that nobody here wrote, as a child process that takes orders and tells events: one JSON object per line each way (the language
 * is in slixmpp/resume.py). What it tells is kept; every wait has a limit.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'

/** What a client tells. */
export interface Told {
  readonly event: string
  readonly text?: string
  readonly jid?: string
  readonly h?: string | null
  readonly id?: string
  readonly [field: string]: unknown
}

/** A client that does what it is told. */
export interface Driven extends AsyncDisposable {
  /** Everything it has told so far. */
  readonly told: readonly Told[]
  /** Connects, also again after the connection was lost. */
  connect(port: number): void
  /** Chat messages with these texts. */
  send(texts: readonly string[], to: string): void
  /** Resolves when the server has answered something that was sent after everything before. */
  sync(): Promise<void>
  /** The next event of one of these names that was not waited for yet. */
  next(...names: readonly string[]): Promise<Told>
  /** Resolves once `test` holds for what was told. */
  until(test: (told: readonly Told[]) => boolean, waitingFor: string): Promise<void>
}

const TIMEOUT_MS = 30_000

/** Keeps what is told and lets others wait for it; for clients in this process too. */
export class Events {
  readonly told: Told[] = []
  readonly #watchers = new Set<() => void>()
  readonly #taken = new Set<Told>()
  #over: string | undefined

  add(event: Told): void {
    this.told.push(event)
    for (const check of this.#watchers) check()
  }

  /** Nothing more will come. */
  end(reason: string): void {
    this.#over = reason
    for (const check of this.#watchers) check()
  }

  until(test: (told: readonly Told[]) => boolean, waitingFor: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const stop = (problem?: string): void => {
        clearTimeout(timer)
        this.#watchers.delete(check)
        if (problem === undefined) resolve()
        else reject(new Error(`${problem} while waiting for ${waitingFor}; the client said\n${this.#tail()}`))
      }
      const check = (): void => {
        if (test(this.told)) stop()
        else if (this.#over !== undefined) stop(this.#over)
      }
      const timer = setTimeout(() => stop('nothing for 30 seconds'), TIMEOUT_MS)
      this.#watchers.add(check)
      check()
    })
  }

  async next(...names: readonly string[]): Promise<Told> {
    let found: Told | undefined
    const search = (): boolean => {
      found = this.told.find((told) => names.includes(told.event) && !this.#taken.has(told))
      return found !== undefined
    }
    await this.until(search, names.join(' or '))
    if (found === undefined) throw new Error('unreachable')
    this.#taken.add(found)
    return found
  }

  #tail(): string {
    return this.told
      .slice(-30)
      .map((told) => JSON.stringify(told))
      .join('\n')
  }
}

/** Starts a program that speaks this language. */
export function startDriven(program: string, args: readonly string[]): Driven {
  const child: ChildProcess = spawn(program, args, {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { ...process.env, PYTHONWARNINGS: 'ignore' },
  })
  const { stdin, stdout, stderr } = child
  if (stdin === null || stdout === null || stderr === null) throw new Error('no pipes')
  const events = new Events()
  const errors: string[] = []
  createInterface({ input: stdout }).on('line', (line) => {
    if (line.startsWith('{')) events.add(JSON.parse(line) as Told)
  })
  createInterface({ input: stderr }).on('line', (line) => errors.push(line))
  child.on('error', (error) => events.end(`cannot be started (${error.message})`))
  child.on('exit', (code, signal) =>
    events.end(`the client ended (${code ?? signal})\n${errors.slice(-15).join('\n')}`),
  )
  stdin.on('error', () => undefined) // it has ended, which whoever waits for an event is told
  const order = (what: object): void => void stdin.write(`${JSON.stringify(what)}\n`)
  let syncs = 0
  return {
    told: events.told,
    connect: (port) => order({ connect: port }),
    send: (texts, to) => order({ send: texts, to }),
    async sync() {
      const id = `sync-${++syncs}`
      order({ sync: id })
      await events.until((told) => told.some((one) => one.event === 'pong' && one.id === id), id)
    },
    next: (...names) => events.next(...names),
    until: (test, waitingFor) => events.until(test, waitingFor),
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return
      const gone = once(child, 'exit')
      child.kill('SIGKILL')
      await gone
    },
  }
}
