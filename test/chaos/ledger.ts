/**
 * What was sent, and what each account and device has: counts of what must not be. Messages are known by the number in their id, places in an
 * archive by the stanza-id (XEP-0359). Looks at what is new since the last time, so that a long run costs no more for each round.
 */

/**
 * What a message is. text: with an origin-id. bare: without one, so that nobody can know it again. receipt, marker: without a body.
 * transient: with <no-store/>, for those who are there now.
 */
export type Kind = 'text' | 'bare' | 'receipt' | 'marker' | 'transient'

/** One message, as its sender made it. */
export interface Message {
  readonly n: number
  /** Accounts. */
  readonly from: string
  readonly to: string
  /** Name of the device that sends it. */
  readonly device: string
  readonly kind?: Kind
  /** To a full address: comes to that device even before it is available. */
  readonly direct?: boolean
  /** Its sender waits to be told that it was handled. */
  open?: boolean
  /** Its sender cannot know what became of it, and has not sent it again. */
  doubtful?: boolean
  /** It was sent on a second connection too. */
  resent?: boolean
  /** The store refused it, or may have, and it was sent again, perhaps behind newer ones. */
  again?: boolean
  /**
   * The store failed, and the server ended before its sender was sure: it may stand in an archive though nobody was shown it, and no server
   * could know. It has to stand there once all the same.
   */
  shaken?: boolean
}

/** Something that came to a device. */
export interface Arrival {
  readonly n: number
  /** Its id in the archive of the device's account; '' when it has none. */
  readonly id: string
  readonly live: boolean
  /** The device was available (RFC 6121 §4.2) and its carbons were on: from here on everything comes live. */
  readonly covered: boolean
}

/** What one device knows. A session lasts over resumptions. */
export interface DeviceLog {
  readonly name: string
  readonly account: string
  readonly sessions: readonly (readonly Arrival[])[]
  /** It knows nothing of archives and carbons: gets what comes to the account, live or from the offline store. */
  readonly simple?: boolean
  /** Of a simple one: numbers up to here may have been on their way to it in a process that was killed, or had nowhere to put them. */
  readonly excused?: number
}

/** An entry of an archive. */
export interface Archived {
  readonly n: number
  readonly id: string
}

/** Counts; all must be 0. */
export interface Faults {
  /** Acknowledged, but not in the archive of sender or receiver. */
  lost: number
  /** Entries of an archive for a message that stands there already. */
  duplicated: number
  /** Messages that came live twice to one device. */
  twice: number
  /** Messages that a device had under an id that the archive does not know, or without one. */
  strange: number
  /** Live messages out of the order of the archive. */
  reordered: number
  /** Messages of one device that stand in an archive before older ones of it. */
  overtaken: number
  /** Entries of the archive that a device has neither live nor from there. */
  missing: number
  /** Entries that a device did not get live between two that it did get in one session. */
  'missing carbons': number
  /** Messages in an archive that were not to be stored. */
  leaked: number
}

/** None of each. */
export const noFaults = (): Faults => ({
  lost: 0,
  duplicated: 0,
  twice: 0,
  strange: 0,
  reordered: 0,
  overtaken: 0,
  missing: 0,
  'missing carbons': 0,
  leaked: 0,
})

interface Account {
  readonly entries: Archived[]
  readonly byId: Map<string, number>
  readonly numbers: Set<number>
  /** The newest of each order that must hold. */
  readonly newest: Map<string, number>
}
interface Session {
  seen: number
  first: number | undefined
  last: number
  scanned: number
  readonly live: Set<number>
  readonly transient: Set<number>
}
interface Device {
  readonly known: Set<number>
  readonly everLive: Set<number>
  readonly sessions: Session[]
  checked: number
}

/** The books of one run. */
export class Ledger {
  readonly faults = noFaults()
  readonly #sent: ReadonlyMap<number, Message>
  readonly #notes: string[]
  readonly #accounts = new Map<string, Account>()
  readonly #devices = new Map<string, Device>()
  #known = 0
  readonly #unchecked = new Set<Message>()

  /** `sent` grows; `notes` gets a line for each fault. */
  constructor(sent: ReadonlyMap<number, Message>, notes: string[]) {
    this.#sent = sent
    this.#notes = notes
  }

  #fault(kind: keyof Faults, note: string): void {
    this.faults[kind]++
    this.#notes.push(`${kind}: ${note}`)
  }

  #account(name: string): Account {
    let account = this.#accounts.get(name)
    if (account === undefined) {
      account = { entries: [], byId: new Map(), numbers: new Set(), newest: new Map() }
      this.#accounts.set(name, account)
    }
    return account
  }

  /** Entries that are new in an archive, in its order. */
  archived(name: string, entries: readonly Archived[]): void {
    const account = this.#account(name)
    for (const { n, id } of entries) {
      account.byId.set(id, account.entries.push({ n, id }) - 1)
      const message = this.#sent.get(n)
      if (message === undefined) this.#fault('strange', `${name} has number ${n}, which nobody sent`)
      else if (account.numbers.has(n))
        this.#fault('duplicated', `${n} again in the archive of ${name}, as ${id}`)
      else if (message.kind === 'transient') this.#fault('leaked', `${n} is in the archive of ${name}`)
      else this.#inOrder(name, account, message)
      account.numbers.add(n)
    }
  }

  #inOrder(name: string, { newest }: Account, message: Message): void {
    if (message.again === true) return // its place was taken
    // RFC 6120 §10.1: in order between two entities. Of an account's own archive more can be said, but for messages to itself: they are
    // archived on their way in, where they are delivered.
    const keys = [`${message.device} ${message.to}`]
    if (message.from === name && message.to !== name) keys.push(message.device)
    for (const key of keys) {
      const last = newest.get(key) ?? 0
      if (last > message.n) {
        const other = this.#sent.get(last)?.to ?? ''
        this.#fault(
          'overtaken',
          `${message.n} of ${message.device} (to ${message.to}) after ${last} (to ${other}) in the archive of ${name}`,
        )
      } else newest.set(key, message.n)
    }
  }

  /** At rest: everything is acknowledged and archived, and those `devices` have what they are to have; `others` may still lack something. */
  check(devices: readonly DeviceLog[], others: readonly DeviceLog[] = []): void {
    while (this.#known < this.#sent.size) {
      const message = this.#sent.get(++this.#known)
      if (message !== undefined && message.kind !== 'transient') this.#unchecked.add(message)
    }
    for (const message of this.#unchecked) {
      const { n, from, to } = message
      if (message.open === true) continue
      this.#unchecked.delete(message)
      for (const name of message.doubtful === true ? [] : new Set([from, to]))
        if (this.#accounts.has(name) && !this.#account(name).numbers.has(n))
          this.#fault('lost', `${n} from ${from} to ${to} is not in the archive of ${name}`)
    }
    for (const device of [...devices, ...others]) this.#read(device)
    for (const device of devices) this.#complete(device)
  }

  #device(name: string): Device {
    let device = this.#devices.get(name)
    if (device === undefined) {
      device = { known: new Set(), everLive: new Set(), sessions: [], checked: 0 }
      this.#devices.set(name, device)
    }
    return device
  }

  #read(log: DeviceLog): void {
    const state = this.#device(log.name)
    const account = this.#account(log.account)
    for (const [i, arrivals] of log.sessions.entries()) {
      const session = (state.sessions[i] ??= {
        seen: 0,
        first: undefined,
        last: -1,
        scanned: 0,
        live: new Set(),
        transient: new Set(),
      })
      for (; session.seen < arrivals.length; session.seen++) {
        const arrival = arrivals[session.seen]
        if (arrival !== undefined) this.#arrived(log, state, session, account, arrival)
      }
      if (log.simple !== true) this.#scan(log, session, account)
    }
  }

  #arrived(log: DeviceLog, state: Device, session: Session, account: Account, arrival: Arrival): void {
    const { n, id, live } = arrival
    if (this.#sent.get(n)?.kind === 'transient' && id === '') {
      if (session.transient.has(n)) this.#fault('twice', `${n} (transient) came twice to ${log.name}`)
      session.transient.add(n)
      return
    }
    const at = account.byId.get(id)
    if (at === undefined || account.entries[at]?.n !== n) {
      this.#fault('strange', `${log.name} has ${n} as '${id}', which the archive does not`)
      return
    }
    state.known.add(at)
    if (!live) return
    // What a simple device had and did not confirm may come again, with the same id.
    const before = log.simple === true ? session.live : state.everLive
    if (before.has(at)) {
      this.#fault('twice', `${n} came twice to ${log.name}`)
      return
    }
    state.everLive.add(at)
    session.live.add(at)
    // What is stored for it comes when it is available; what a server was killed over or could not store for it, when it is sent again.
    const { direct, resent, again } = this.#sent.get(n) ?? {}
    if (log.simple === true && (direct === true || resent === true || again === true)) return
    if (at < session.last) this.#fault('reordered', `${n} came to ${log.name} late`)
    if (arrival.covered) session.first ??= at
    session.last = Math.max(session.last, at)
  }

  #scan(log: DeviceLog, session: Session, account: Account): void {
    if (session.first === undefined) return
    for (let at = Math.max(session.first, session.scanned); at <= session.last; at++) {
      const n = account.entries[at]?.n ?? 0
      const message = this.#sent.get(n)
      if (!session.live.has(at) && message?.device !== log.name && message?.shaken !== true)
        this.#fault('missing carbons', `${n} did not come live to ${log.name}`)
    }
    session.scanned = session.last + 1
  }

  #complete(log: DeviceLog): void {
    const state = this.#device(log.name)
    const { entries } = this.#account(log.account)
    for (; state.checked < entries.length; state.checked++) {
      const n = entries[state.checked]?.n ?? 0
      const message = this.#sent.get(n)
      if (state.known.has(state.checked) || message?.device === log.name || message?.shaken === true) continue
      // Nobody sends a simple device what its account has sent; what was not acknowledged may have reached the archive only.
      const { doubtful, to } = message ?? {}
      if (log.simple === true && (to !== log.account || doubtful === true || n <= (log.excused ?? 0)))
        continue
      this.#fault('missing', `${log.name} does not have ${n}`)
    }
  }
}

/** Compares all at once. `notes` gets a line for each fault. */
export function examine(
  sent: ReadonlyMap<number, Message>,
  archives: ReadonlyMap<string, readonly Archived[]>,
  devices: readonly DeviceLog[],
  notes: string[],
): Faults {
  const ledger = new Ledger(sent, notes)
  for (const [account, entries] of archives) ledger.archived(account, entries)
  ledger.check(devices)
  return ledger.faults
}
