/**
 * What was sent, and what each account and device has in the end: counts of what must not be. Messages are known by the number in their
 * body, places in an archive by the stanza-id (XEP-0359).
 */

/** One message, as its sender made it. */
export interface Message {
  readonly n: number
  /** Accounts. */
  readonly from: string
  readonly to: string
  /** Name of the device that sends it. */
  readonly device: string
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
}

/** Compares. `notes` gets a line for each fault. */
export function examine(
  sent: ReadonlyMap<number, Message>,
  archives: ReadonlyMap<string, readonly Archived[]>,
  devices: readonly DeviceLog[],
  notes: string[],
): Faults {
  const faults: Faults = {
    lost: 0,
    duplicated: 0,
    twice: 0,
    strange: 0,
    reordered: 0,
    overtaken: 0,
    missing: 0,
    'missing carbons': 0,
  }
  const fault = (kind: keyof Faults, note: string): void => {
    faults[kind]++
    notes.push(`${kind}: ${note}`)
  }

  for (const [account, entries] of archives) {
    const places = new Map<number, number>()
    const newest = new Map<string, number>()
    for (const [at, { n, id }] of entries.entries()) {
      const message = sent.get(n)
      if (message === undefined) {
        fault('strange', `${account} has number ${n}, which nobody sent`)
        continue
      }
      if (places.has(n)) {
        fault('duplicated', `${n} again in the archive of ${account}, as ${id}`)
        continue
      }
      places.set(n, at)
      // RFC 6120 §10.1: in order between two entities. Of an account's own archive more can be said, but for messages to
      // itself: they are archived on their way in, where they are delivered.
      const keys = [`${message.device} ${message.to}`]
      if (message.from === account && message.to !== account) keys.push(message.device)
      for (const key of keys) {
        const last = newest.get(key) ?? 0
        if (last > n)
          fault(
            'overtaken',
            `${n} of ${message.device} (to ${message.to}) after ${last} (to ${sent.get(last)?.to ?? ''}) in the archive of ${account}`,
          )
        else newest.set(key, n)
      }
    }
    for (const { n, from, to } of sent.values())
      if ((from === account || to === account) && !places.has(n))
        fault('lost', `${n} from ${from} to ${to} is not in the archive of ${account}`)
    const own = devices.filter((device) => device.account === account)
    for (const device of own) examineDevice(device, entries, sent, fault)
  }
  return faults
}

function examineDevice(
  { name, sessions }: DeviceLog,
  entries: readonly Archived[],
  sent: ReadonlyMap<number, Message>,
  fault: (kind: keyof Faults, note: string) => void,
): void {
  const position = new Map(entries.map(({ id }, at) => [id, at]))
  const known = new Set<string>()
  const everLive = new Set<string>()
  for (const arrivals of sessions) {
    let first: number | undefined
    let last = -1
    const live = new Set<number>()
    for (const arrival of arrivals) {
      const at = position.get(arrival.id)
      if (at === undefined || entries[at]?.n !== arrival.n) {
        fault('strange', `${name} has ${arrival.n} as '${arrival.id}', which the archive does not`)
        continue
      }
      known.add(arrival.id)
      if (!arrival.live) continue
      if (everLive.has(arrival.id)) {
        fault('twice', `${arrival.n} came twice to ${name}`)
        continue
      }
      everLive.add(arrival.id)
      if (at < last) fault('reordered', `${arrival.n} came to ${name} late`)
      if (arrival.covered) first ??= at
      live.add(at)
      last = Math.max(last, at)
    }
    if (first === undefined) continue
    for (let at = first; at <= last; at++) {
      const n = entries[at]?.n ?? 0
      if (!live.has(at) && sent.get(n)?.device !== name)
        fault('missing carbons', `${n} did not come live to ${name}`)
    }
  }
  for (const { n, id } of entries)
    if (!known.has(id) && sent.get(n)?.device !== name) fault('missing', `${name} does not have ${n}`)
}
