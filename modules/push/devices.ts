/**
 * Where the device of a registration is, and whether it has got what it was sent.
 *
 * A device is away when it has no session, or one without stream. One with a stream is silent when
 * - its client confirms stanzas (XEP-0198) and has not confirmed a message for the time of `silence`, or
 * - it does not, has said that nobody looks at it (XEP-0352), and nothing at all came from it for that time after the message.
 * Then its socket may be half open, and it is treated as away until it is heard again. A client that neither confirms nor says that it is
 * inactive is taken at its word: what was written to it has arrived.
 */
import type { Bound, Ctx, OutputCount, Session } from '../../server/module.ts'
import type { Registration } from './registrations.ts'
import type { Notice } from './rules.ts'

/**
 * Messages that one session is watched for; of more, only those that came first. Clients that confirm stanzas are not sent many more without
 * that (`maxStanzas` of stream-management).
 */
const MAX_WATCHED = { confirming: 2000, others: 100 }
/** How often it is looked whether sessions are silent. */
const SWEEP_MS = 1000
const CSI = 'csi'

/** When a session counts as silent, milliseconds. */
export interface Patience {
  readonly silence: number
  readonly callSilence: number
}

/** away: not there, or silent. waiting: it has not confirmed everything yet. fine: there, and has got everything. */
export type DeviceState = 'away' | 'waiting' | 'fine'
/** What is told of sessions. */
export interface DeviceOwner {
  patience: Patience
  /** Registrations of the session's account. */
  registrations(session: Bound): readonly Registration[]
  /**
   * The device will not see this for now; undefined: what it was sent again after it came back. `sent`: it was sent to the device while that was
   * there, which has not confirmed it.
   */
  missed(registration: Registration, notice: Notice | undefined, sent: boolean): void
  /** The device has seen everything. */
  caughtUp(registration: Registration): void
}

interface Watched {
  /** Undefined: what was sent again when the session went on with a new stream. */
  readonly notice: Notice | undefined
  at: number
  /** Confirmed when the client has confirmed so many; where it does not, when it was heard last before that. */
  readonly position: number
  /** The owner knows that it was missed. */
  told: boolean
  /** It was not sent: the device is not available yet, and takes it when it is, or reads it from the archive. */
  readonly kept: boolean
}

/** The sessions of devices, of one host. */
export class Devices {
  readonly #ctx: Ctx
  readonly #owner: DeviceOwner
  /** What sessions have not confirmed, oldest first. */
  readonly #watched = new Map<
    Bound,
    { readonly output: OutputCount | undefined; readonly list: Watched[]; silent: boolean }
  >()

  constructor(ctx: Ctx, owner: DeviceOwner) {
    this.#ctx = ctx
    this.#owner = owner
    ctx.timers.every(SWEEP_MS, () => this.#sweep())
    ctx.metrics.gauge('watched', 'Sessions that have not confirmed a message yet', () => this.#watched.size)
  }

  /** The session of a registration's device, the one with a stream if there are several. */
  sessionOf(registration: Registration): Bound | undefined {
    let found: Bound | undefined
    for (const session of this.#ctx.sessions.of(registration.local)) {
      if (!this.owns(session, registration)) continue
      if (session.connected) return session
      found ??= session
    }
    return found
  }

  /** Whether the session is that of the device. */
  owns(session: Bound, { session: id, agent, resource }: Registration): boolean {
    if (session.id === id) return true
    const own = this.agentOf(session)
    return own !== '' && agent !== '' ? own === agent : session.jid.resource === resource
  }

  /** The installation (XEP-0388 §2.3), '' when the client has not said. */
  agentOf(session: Session): string {
    return this.#ctx.find('sasl2')?.userAgent(session)?.id ?? ''
  }

  /** Of the device of a registration, now. */
  stateOf(registration: Registration): DeviceState {
    const session = this.sessionOf(registration)
    if (session?.connected !== true) return 'away'
    this.#prune(session)
    const watched = this.#watched.get(session)
    if (watched === undefined) return 'fine'
    return watched.silent ? 'away' : 'waiting'
  }

  /** A message that matters is about to be sent to a session. */
  sending(session: Bound, mine: readonly Registration[], notice: Notice): void {
    if (!session.connected) {
      for (const one of mine) this.#owner.missed(one, notice, false)
      return
    }
    // it may have been silent for long enough already
    const silent = this.#watched.get(session)?.silent === true
    if (session.output !== undefined || session.flag(CSI) === 'inactive')
      this.#watch(session, notice, { ahead: 1, told: silent })
    if (silent) for (const one of mine) this.#owner.missed(one, notice, false)
  }

  /** A message that matters is kept, and not sent to the device now. */
  kept(registration: Registration, notice: Notice): void {
    const session = this.sessionOf(registration)
    if (session === undefined || this.stateOf(registration) === 'away')
      this.#owner.missed(registration, notice, false)
    else if (session.priority === undefined && session.output !== undefined)
      this.#watch(session, notice, { ahead: 1, kept: true }) // by what it is sent next
  }

  #watch(
    session: Bound,
    notice: Notice | undefined,
    { ahead, told = false, kept = false }: { ahead: number; told?: boolean; kept?: boolean },
  ): void {
    const { output } = session
    const most = output === undefined ? MAX_WATCHED.others : MAX_WATCHED.confirming
    if ((this.#watched.get(session)?.list.length ?? 0) >= most) this.#prune(session)
    const watched = this.#watched.get(session) ?? { output, list: [], silent: false }
    this.#watched.set(session, watched)
    if (watched.list.length >= most) return
    if (kept && watched.list.at(-1)?.notice === notice) return // of several registrations of one device
    const position = output === undefined ? session.heardAt : output.sentCount + ahead
    watched.list.push({ notice, at: this.#ctx.now(), position, told, kept })
  }

  /** Forgets what has arrived. */
  #prune(session: Bound): void {
    const watched = this.#watched.get(session)
    if (watched === undefined) return
    const { list, output } = watched
    const arrived =
      output === undefined
        ? (one: Watched) => session.heardAt !== one.position // whatever the clock has done
        : (one: Watched) => output.confirmedCount >= one.position
    const first = list.findIndex((one) => !arrived(one))
    list.splice(0, first < 0 ? list.length : first)
    if (list.length > 0) return
    this.#watched.delete(session)
    for (const one of this.#owner.registrations(session))
      if (one.owed && session.connected && this.owns(session, one)) this.#owner.caughtUp(one)
  }

  #sweep(): void {
    const now = this.#ctx.now()
    const { silence, callSilence } = this.#owner.patience
    for (const [session, watched] of Array.from(this.#watched)) {
      for (const one of watched.list) if (one.at > now) one.at = now // the clock has gone back
      this.#prune(session)
      if (!this.#watched.has(session)) continue
      const isLate = ({ notice, at }: Watched): boolean =>
        now - at >= (notice?.call === true ? callSilence : silence)
      if (!session.connected) this.#give(session)
      else if (!watched.silent && watched.list.some(isLate)) {
        watched.silent = true
        this.#tell(session)
      }
    }
  }

  #tell(session: Bound): void {
    const list = this.#watched.get(session)?.list.filter(({ told }) => !told) ?? []
    for (const one of this.#owner.registrations(session))
      if (this.owns(session, one)) for (const { notice } of list) this.#owner.missed(one, notice, true)
    for (const one of list) one.told = true
  }

  /** The session has no stream any more: what it has not confirmed was missed. */
  #give(session: Bound): void {
    this.#prune(session)
    this.#tell(session)
    this.#watched.delete(session)
  }

  /** The session goes on with a new stream, and its client is sent what it has missed. */
  resumed(session: Bound, mine: readonly Registration[]): void {
    // what nobody has been told of yet is still to be told, in its time, when the new stream is lost, too
    const untold = this.#watched.get(session)?.list.filter(({ notice, told }) => notice && !told) ?? []
    this.#watched.delete(session)
    const { output } = session
    if (output === undefined || output.sentCount === output.confirmedCount)
      for (const one of mine) this.#owner.caughtUp(one)
    else {
      this.#watch(session, undefined, { ahead: 0 })
      this.#watched.get(session)?.list.unshift(...untold)
    }
  }

  /** The session is over. */
  closed(session: Bound, reason: string): void {
    const watched = this.#watched.get(session)
    if (watched === undefined) return
    // what a client leaves behind that has closed its stream finds its own way, and is told of there; what was kept is where it was
    if (reason === 'closed') watched.list.splice(0, Infinity, ...watched.list.filter(({ kept }) => kept))
    if (watched.list.length > 0) this.#give(session)
    this.#watched.delete(session)
  }
}
