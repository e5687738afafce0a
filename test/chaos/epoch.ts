/** Some rounds of chaos on one store, from the first login to the comparison of everything. */
import { setTimeout as pause } from 'node:timers/promises'
import type { CommandFolder, RunningCommand } from '../helpers/command.ts'
import { Device, type World } from './device.ts'
import { type Disturbed, type Doubt, WITH_FAULTS } from './faults.ts'
import { type Archived, examine, type Faults, Ledger, type Message, noFaults } from './ledger.ts'
import type { Random } from './random.ts'

const DOMAIN = 'example.org'
const PASSWORD = 'secret-secret'
const ACCOUNTS = ['alice', 'bob', 'carol', 'dave']
/** Its one device knows neither archives nor carbons. */
const SIMPLE = 'erin'
/** Time between two decisions. */
const STEP_MS = 10
/** Time between questions how far the server is, when nothing more is sent. */
const ASK_MS = 100
/** How long everything may take to arrive in the end. */
const SETTLE_MS = 45_000
const SETTLE_SLOWLY_MS = 180_000
/** Lines of what happened that are kept. */
const MAX_LINES = 20_000
/** Devices that may be away for whole rounds. */
const MAX_AWAY = 4

/** How rounds are. */
export interface Rounds {
  /** Length of a round before things come to rest; without the time in which there is no server. */
  readonly ms: number
  /** Messages of each device in the moment before the server ends. */
  readonly burst: number
  /** The store is disturbed in one of so many rounds; 0: never. */
  readonly faultEvery: number
  /** Accounts with three devices each, 1 to 4; 4 when absent. */
  readonly accounts?: number
  /** Archives are compared in one of so many rounds; in each when absent. */
  readonly compareEvery?: number
  /** Longest time of a disturbance in milliseconds; 15 seconds when absent. */
  readonly longest?: number
  readonly store: Disturbed
}

/** One. */
export class Epoch implements AsyncDisposable {
  readonly notes: string[] = []
  /** What happened in the last two rounds. */
  readonly lines: string[] = []
  readonly happened: Record<string, number> = {}
  readonly #folder: CommandFolder
  readonly #random: Random
  readonly #options: Rounds
  readonly #database: string
  readonly #sent = new Map<number, Message>()
  readonly #accounts: readonly string[]
  readonly #devices: Device[]
  readonly #readers: Device[]
  readonly #ledger: Ledger
  readonly #world: World
  readonly #began = performance.now()
  #server: RunningCommand | undefined
  /** Disturbances since the server was started. */
  #disturbed = false
  #fault: Promise<void> | undefined
  /** What it leaves behind. */
  #current: Doubt = 'nothing'
  /** What they may have left behind. */
  #doubt: Doubt = 'nothing'
  #complete: Faults = noFaults()

  constructor(folder: CommandFolder, random: Random, options: Rounds, database: string) {
    this.#folder = folder
    this.#random = random
    this.#options = options
    this.#database = database
    this.#ledger = new Ledger(this.#sent, this.notes)
    const counts = { resumed: 0, fresh: 0, resent: 0, bounced: 0, tokens: 0, doubtful: 0, shaken: 0 }
    this.happened = counts
    this.#world = {
      domain: DOMAIN,
      password: PASSWORD,
      ports: () => this.#server?.ports,
      faulty: () => this.#disturbed,
      doubt: () => this.#doubt,
      note: (line) => {
        this.notes.push(line)
        this.#trace(`NOTE ${line}`)
      },
      failed: (line) => {
        if (!this.#disturbed && !options.store.slow) this.#world.note(line)
        if (!this.#disturbed) this.#doubt = 'all'
        this.#disturbed = true
        this.#trace(line)
      },
      trace: (line) => this.#trace(line),
      counts,
    }
    const accounts = ACCOUNTS.slice(0, options.accounts)
    this.#accounts = [...accounts, SIMPLE]
    this.#devices = accounts.flatMap((account) => [
      new Device(this.#world, account, 'phone', 'fast'),
      new Device(this.#world, account, 'desk', 'classic'),
      new Device(this.#world, account, 'web', 'sasl2'),
    ])
    this.#devices.push(new Device(this.#world, SIMPLE, 'old', 'classic', 'simple'))
    this.#readers = this.#accounts.map(
      (account) => new Device(this.#world, account, 'reader', 'classic', 'reader'),
    )
  }

  get messages(): number {
    return this.#sent.size
  }
  get faults(): Faults {
    const faults = { ...this.#ledger.faults }
    for (const name of Object.keys(faults) as (keyof Faults)[])
      faults[name] = Math.max(faults[name], this.#complete[name])
    return faults
  }

  #trace(line: string): void {
    this.lines.push(`${Math.round(performance.now() - this.#began)} ${line}`)
    if (this.lines.length > MAX_LINES) this.lines.splice(0, MAX_LINES / 2)
  }

  #count(what: string): void {
    this.happened[what] = (this.happened[what] ?? 0) + 1
    this.#trace(what)
  }

  async prepare(): Promise<void> {
    await this.#folder.configure(
      `log: { format: json, level: info }
limits: { connectionsPerAddress: 100000, newConnectionsPerMinute: 100000, closeTimeout: 1s }
modules:
  starttls: { required: false }
  sasl: { requireTls: false, plainInClear: true }
  accounts: { iterations: 4096 }
  auth-limits: { perAddress: 100000, perAccount: 100000 }
`,
      this.#options.store.storage(this.#database),
    )
    // The other program has a way to make accounts that costs no process for each.
    const server = await this.#folder.start(WITH_FAULTS)
    this.#server = server
    for (const account of this.#accounts) {
      server.tell(`add ${DOMAIN} ${account} ${PASSWORD}`)
      await server.line(new RegExp(`^added ${account}$`))
    }
    for (const device of this.#devices) device.connect()
    await this.#all('the first login', (device) => device.settled)
  }

  // ---- a round

  /** `last`: of this epoch; all devices come back. */
  async round(number: number, last: boolean): Promise<void> {
    const random = this.#random
    const { ms, faultEvery, compareEvery = 1 } = this.#options
    this.#trace(`ROUND ${number}`)
    const steps = Math.ceil(ms / STEP_MS)
    const disaster = random.below(steps)
    const how = random.once(3) ? 'SIGTERM' : 'SIGKILL'
    const disturbance = faultEvery > 0 && random.once(faultEvery) ? random.below(steps) : -1
    const returning = this.#devices.filter((device) => device.away && (last || random.once(3)))
    const leaving = random.once(2) && !last ? random.pick(this.#devices) : undefined
    let restarted: Promise<void> | undefined
    for (let step = 0; step < steps; step++) {
      this.#sendSome(random.below(2))
      if (random.once(5)) this.#break(random.pick(this.#devices))
      if (random.once(10)) this.#comeBack(returning.pop())
      if (step === disturbance) this.#disturb()
      if (step === Math.floor(steps / 2) && leaving !== undefined) this.#leave(leaving)
      if (step === disaster) restarted = this.#disaster(how)
      await pause(STEP_MS)
    }
    while (returning.length > 0) this.#comeBack(returning.pop())
    await restarted
    await this.#fault
    this.#trace('rest')
    await this.#rest()
    if (!last && number % compareEvery > 0) return
    this.#trace('compare')
    await this.#compare()
  }

  #sendSome(count: number): void {
    const present = this.#devices.filter((device) => !device.away)
    for (let i = 0; i < count; i++) this.#send(this.#random.pick(present))
  }

  #send(device: Device): void {
    const random = this.#random
    const to = random.pick(this.#accounts) // also to itself
    const n = this.#sent.size + 1
    const kind = random.pick([
      'text',
      'text',
      'text',
      'text',
      'text',
      'bare',
      'receipt',
      'marker',
      'transient',
    ] as const)
    const direct = random.once(4)
    const message: Message = { n, from: device.account, to, device: device.name, kind, direct }
    this.#sent.set(n, message)
    const one = random.pick(this.#devices.filter(({ account }) => account === to))
    device.send(message, direct ? one.jid : `${to}@${DOMAIN}`)
  }

  #break(device: Device): void {
    const random = this.#random
    const how = random.pick(['cut', 'torn', 'half-open', 'close'] as const)
    const ms = random.once(3) ? 0 : random.below(200)
    const forgets = random.once(4)
    if (!device.online) return
    // What is on its way when it breaks.
    for (let i = random.below(4); i > 0; i--) this.#send(device)
    device.break(how, ms)
    if (forgets) device.forget()
    this.#count(how)
  }

  /** For whole rounds; may have lost its session when it comes back, or not even know of it. */
  #leave(device: Device): void {
    const random = this.#random
    const how = random.pick(['cut', 'torn', 'half-open', 'close'] as const)
    const forgets = random.once(2)
    if (!device.online || device.away || this.#devices.filter(({ away }) => away).length >= MAX_AWAY) return
    for (let i = random.below(3); i > 0; i--) this.#send(device)
    device.break(how, Number.POSITIVE_INFINITY)
    device.away = true
    if (forgets) device.forget()
    this.#count('went away')
  }

  #comeBack(device: Device | undefined): void {
    device?.connect()
  }

  #disturb(): void {
    const random = this.#random
    const { longest = 15_000 } = this.#options
    const ms = random.once(12) ? longest / 3 + random.below(longest / 1.5) : 100 + random.below(1500)
    this.#disturbed = true
    const { what, doubt, over } = this.#options.store.begin(random, Math.round(ms), this.#server)
    this.#current = doubt
    this.#doubts(doubt)
    this.#count('disturbed')
    this.#trace(what)
    this.#fault = over.then(() => {
      this.#fault = undefined
      this.#trace('disturbance over')
    })
  }

  /** In the midst of as much as there can be: some of it stored, some of it acknowledged, some of it still in sockets. */
  async #disaster(how: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    const { burst } = this.#options
    const present = this.#devices.filter((device) => !device.away)
    for (const device of present) for (let i = burst; i > 0; i--) this.#send(device)
    // Half of the time just when somebody is told that messages were handled: then they must be stored.
    if (this.#random.once(2)) await pause(this.#random.below(60))
    else
      await Promise.race(
        present.map((device) => {
          const before = device.unconfirmed
          return device.until(() => device.unconfirmed < before, 100)
        }),
      )
    await this.#stop(how)
    await this.#start()
  }

  #doubts(doubt: Doubt): void {
    if (this.#doubt !== 'all' && doubt !== 'nothing') this.#doubt = doubt
  }

  async #start(): Promise<void> {
    const { program } = this.#options.store
    for (;;) {
      const waiting = this.#fault
      try {
        this.#disturbed = this.#fault !== undefined
        this.#doubt = this.#disturbed ? this.#current : 'nothing'
        this.#server = await this.#folder.start(program)
        this.#trace('server there')
        return
      } catch (error) {
        // It says so and ends when its database is not there.
        if (waiting === undefined && !this.#disturbed) throw error
        await (waiting ?? this.#fault)
      }
    }
  }

  async #stop(how: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    const server = this.#server
    if (server === undefined) return
    this.#server = undefined
    this.#count(how)
    server.signal(how)
    const { code, stdout, stderr } = await server.done
    for (const device of this.#devices) device.serverEnded(how === 'SIGKILL', this.#doubt, this.#sent.size)
    if (how === 'SIGTERM' && code !== 0) this.#world.note(`server: ended with ${code}`)
    for (const line of `${stdout}\n${stderr}`.split('\n')) {
      const failure = /"level":(50|60)/.test(line)
      const wrong = failure
        ? !this.#disturbed && !this.#options.store.slow
        : line !== '' && !/^\{|^clients: |^add/.test(line)
      if (wrong) this.#world.note(`server: ${line.slice(0, 1000)}`)
    }
  }

  // ---- the end of a round

  /** Everything acknowledged, everything read; and then a message of each device, which must reach all live. */
  async #rest(): Promise<void> {
    await this.#all('rest', (device) => device.settled)
    for (const device of this.#devices) if (!device.away) this.#send(device)
    await this.#all('the acknowledgement of the last messages', (device) => device.settled)
    // The server answers this when what was delivered before is on its way.
    for (const device of this.#devices) if (!device.away) device.catchUp()
    await this.#all('the last page of the archive', (device) => device.settled)
  }

  async #all(what: string, test: (device: Device) => boolean, devices = this.#devices): Promise<void> {
    const present = devices.filter((device) => !device.away)
    const ask = (): void => present.forEach((device) => !device.settled && device.request())
    ask()
    const patience = this.#options.store.slow ? SETTLE_SLOWLY_MS : SETTLE_MS
    const asking = setInterval(ask, ASK_MS)
    const results = await Promise.all(
      present.map(async (device) =>
        (await device.until(() => test(device), patience)) ? [] : [device.name],
      ),
    )
    clearInterval(asking)
    const late = results.flat()
    if (late.length > 0) throw new Error(`${what} did not come for ${late.join(', ')}`)
  }

  async #compare(): Promise<void> {
    const before = this.#readers.map((reader) => reader.sessions.length)
    for (const reader of this.#readers) reader.connect()
    await this.#all('the archive', (reader) => reader.settled, this.#readers)
    for (const [i, reader] of this.#readers.entries()) {
      reader.stop()
      this.#ledger.archived(reader.account, entriesOf(reader.sessions.slice(before[i]).flat()))
    }
    const present = this.#devices.filter((device) => !device.away)
    const away = this.#devices.filter((device) => device.away)
    this.#ledger.check(present, away)
  }

  /** Compares everything with archives read from the beginning. */
  async finish(): Promise<void> {
    const archives = new Map<string, readonly Archived[]>()
    for (const account of this.#accounts) {
      const reader = new Device(this.#world, account, 'auditor', 'classic', 'reader')
      reader.connect()
      await this.#all('the whole archive', (one) => one.settled, [reader])
      reader.stop()
      archives.set(account, entriesOf(reader.sessions.flat()))
    }
    const notes: string[] = []
    this.#complete = examine(this.#sent, archives, [...this.#devices, ...this.#readers], notes)
    const known = new Set(this.notes)
    for (const note of notes) if (!known.has(note)) this.#world.note(note)
    await this.#stop('SIGTERM')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const device of [...this.#devices, ...this.#readers]) device.stop()
    await this.#fault
    const server = this.#server
    this.#server = undefined
    await server?.[Symbol.asyncDispose]()
  }
}

const entriesOf = (arrivals: readonly { readonly n: number; readonly id: string }[]): Archived[] =>
  arrivals.map(({ n, id }) => ({ n, id }))
