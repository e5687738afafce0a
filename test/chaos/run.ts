/**
 * Messages between accounts with several devices each while connections break in every way and the server is stopped and killed; then
 * a comparison of what was sent with what archives and devices have. The server is a process of its own, with its data in a folder.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { type CommandFolder, commandFolder, type RunningCommand } from '../helpers/command.ts'
import { Device, type World } from './device.ts'
import { type Archived, examine, type Faults, type Message } from './ledger.ts'
import { Random } from './random.ts'

const DOMAIN = 'example.org'
const PASSWORD = 'secret'
const ACCOUNTS = ['alice', 'bob', 'carol', 'dave']
const RESOURCES = ['phone', 'desk', 'web']
/** Time between two decisions. */
const STEP_MS = 10
/** Time between questions how far the server is, when nothing more is sent. */
const ASK_MS = 300
/** Messages of each device in the moment before the server ends. */
const BURST = 10
/** How long everything may take to arrive in the end. */
const SETTLE_MS = 20_000

/** What to do. */
export interface ChaosOptions {
  /** Each ends with the server stopped or killed in turn, and a comparison. */
  readonly rounds: number
  /** Length of a round. */
  readonly seconds: number
  readonly seed: number
  /** The `storage:` line of the configuration; lmdb in the folder when absent. */
  readonly storage?: string
  readonly progress?: (line: string) => void
}

/** What happened. */
export interface ChaosReport {
  readonly messages: number
  readonly happened: Readonly<Record<string, number>>
  readonly faults: Readonly<Faults>
  /** Of the harness and of the server: what went otherwise than it must. */
  readonly notes: readonly string[]
}

/** Runs it all. Rejects when the server does not start or things do not come to rest. */
export async function chaos(options: ChaosOptions): Promise<ChaosReport> {
  await using folder = await commandFolder()
  await using run = new Run(folder, options)
  await run.prepare()
  for (let round = 1; round <= options.rounds; round++) {
    await run.round(round)
    options.progress?.(`round ${round}: ${run.summary()}`)
  }
  return await run.finish()
}

class Run implements AsyncDisposable {
  readonly #folder: CommandFolder
  readonly #options: ChaosOptions
  readonly #random: Random
  readonly #sent = new Map<number, Message>()
  readonly #notes: string[] = []
  readonly #happened: Record<string, number> = {}
  readonly #devices: Device[]
  readonly #world: World
  #server: RunningCommand | undefined

  constructor(folder: CommandFolder, options: ChaosOptions) {
    this.#folder = folder
    this.#options = options
    this.#random = new Random(options.seed)
    this.#world = {
      domain: DOMAIN,
      password: PASSWORD,
      ports: () => this.#server?.ports,
      note: (text) => void this.#notes.push(text),
      counts: { resumed: 0, fresh: 0, resent: 0, bounced: 0 },
    }
    this.#devices = ACCOUNTS.flatMap((account) =>
      RESOURCES.map((resource, i) => new Device(this.#world, account, resource, i === 0)),
    )
  }

  summary(): string {
    return `${this.#sent.size} messages, ${this.#notes.length} notes`
  }

  async prepare(): Promise<void> {
    await this.#folder.configure(
      `log: { format: json }
limits: { connectionsPerAddress: 100000, newConnectionsPerMinute: 100000 }
modules:
  starttls: { required: false }
  sasl: { requireTls: false, plainInClear: true }
  accounts: { iterations: 4096 }
  stream-management: true
  carbons: true
  stanza-id: true
  mam: true
  auth-limits: { perAddress: 100000, perAccount: 100000 }
`,
      this.#options.storage,
    )
    this.#server = await this.#folder.start()
    await Promise.all(ACCOUNTS.map((account) => this.#addAccount(account)))
    for (const device of this.#devices) device.connect()
    await this.#all((device) => device.settled, 'the first login')
  }

  async #addAccount(account: string): Promise<void> {
    const input = `${PASSWORD}\n`
    const { code, stderr } = await this.#folder.run(['user', 'add', `${account}@${DOMAIN}`], { input })
    if (code !== 0) throw new Error(`no account ${account}: ${stderr}`)
  }

  async round(number: number): Promise<void> {
    const random = this.#random
    const steps = Math.ceil((this.#options.seconds * 1000) / STEP_MS)
    const disaster = random.below(steps)
    const how = number % 2 === 1 ? 'SIGKILL' : 'SIGTERM'
    let restarted: Promise<void> | undefined
    for (let step = 0; step < steps; ) {
      const up = this.#server !== undefined
      if (up || random.once(20)) this.#send(random.pick(this.#devices))
      if (up && random.once(6)) this.#break(random.pick(this.#devices))
      if (step === disaster) restarted ??= this.#disaster(how)
      // Time without a server is no time.
      if (up) step++
      await pause(STEP_MS)
    }
    await (restarted ?? this.#disaster(how))
    await this.#rest()
  }

  /** Checks after everything came to rest. */
  async finish(): Promise<ChaosReport> {
    const archives = new Map<string, readonly Archived[]>()
    for (const account of ACCOUNTS) archives.set(account, await this.#archive(account))
    const faults = examine(this.#sent, archives, this.#devices, this.#notes)
    await this.#stop('SIGTERM')
    const happened = { ...this.#happened, ...this.#world.counts }
    return { messages: this.#sent.size, happened, faults, notes: this.#notes }
  }

  #send(device: Device): void {
    const random = this.#random
    const to = random.pick(ACCOUNTS) // also to itself
    const n = this.#sent.size + 1
    const message = { n, from: device.account, to, device: device.name }
    this.#sent.set(n, message)
    device.send(message, `${to}@${DOMAIN}${random.once(4) ? `/${random.pick(RESOURCES)}` : ''}`)
  }

  #break(device: Device): void {
    const how = this.#random.pick(['cut', 'torn', 'half-open', 'close'] as const)
    if (!device.online) return
    // What is on its way when it breaks.
    for (let i = this.#random.below(5); i > 0; i--) this.#send(device)
    device.break(how, this.#random.once(3) ? 0 : this.#random.below(800))
    this.#count(how)
  }

  #count(what: string): void {
    this.#happened[what] = (this.#happened[what] ?? 0) + 1
  }

  /** In the midst of as much as there can be: some of it stored, some of it acknowledged, some of it still in sockets. */
  async #disaster(how: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    for (const device of this.#devices) for (let i = BURST; i > 0; i--) this.#send(device)
    // Half of the time just when somebody is told that messages were handled: then they must be stored.
    if (this.#random.once(2)) await pause(this.#random.below(60))
    else
      await Promise.race(
        this.#devices.map((device) => {
          const before = device.unconfirmed
          return device.until(() => device.unconfirmed < before, 100)
        }),
      )
    await this.#restart(how)
  }

  async #restart(how: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    await this.#stop(how)
    this.#count(how)
    this.#server = await this.#folder.start()
  }

  async #stop(how: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    const server = this.#server
    if (server === undefined) return
    this.#server = undefined
    server.signal(how)
    const { code, stdout, stderr } = await server.done
    if (how === 'SIGTERM' && code !== 0) this.#notes.push(`server: ended with ${code}`)
    for (const line of `${stdout}\n${stderr}`.split('\n'))
      if (/"level":(50|60|"error"|"fatal")/.test(line) || (line !== '' && !line.startsWith('{')))
        this.#notes.push(`server: ${line.slice(0, 1000)}`)
  }

  /** Everything acknowledged, everything read; and then a message of each device, which must reach all live. */
  async #rest(): Promise<void> {
    await this.#all((device) => device.settled, 'rest')
    for (const device of this.#devices) this.#send(device)
    for (const device of this.#devices) device.request()
    await this.#all((device) => device.settled, 'the acknowledgement of the last messages')
    // The server answers this when what was delivered before is on its way.
    for (const device of this.#devices) device.catchUp()
    await this.#all((device) => device.settled, 'the last page of the archive')
  }

  async #all(test: (device: Device) => boolean, what: string): Promise<void> {
    const asking = setInterval(() => this.#devices.forEach((device) => device.request()), ASK_MS)
    const results = await Promise.all(
      this.#devices.map(async (device) =>
        (await device.until(() => test(device), SETTLE_MS)) ? [] : [device.name],
      ),
    )
    clearInterval(asking)
    const late = results.flat()
    if (late.length > 0)
      throw new Error(`${what} did not come for ${late.join(', ')}\n${this.#notes.slice(0, 20).join('\n')}`)
  }

  /** All of an archive, read by a device that has nothing. */
  async #archive(account: string): Promise<readonly Archived[]> {
    const reader = new Device(this.#world, account, 'auditor', false)
    reader.connect()
    try {
      if (!(await reader.until(() => reader.sessions.length > 0 && reader.settled, SETTLE_MS)))
        throw new Error(`the archive of ${account} cannot be read`)
      return reader.sessions.flat().map(({ n, id }) => ({ n, id }))
    } finally {
      reader.stop()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const device of this.#devices) device.stop()
    const server = this.#server
    this.#server = undefined
    await server?.[Symbol.asyncDispose]()
  }
}
