/**
 * XEP-0198 Stream Management 1.6.3: acknowledgement of stanzas in both directions, and sessions that go on with a new stream. Also within
 * SASL2 (<resume/>) and Bind 2 (<enable/>), §9. Client streams only; no 'location': a server is reached where it was found.
 */
import {
  c,
  type Ctx,
  defineModule,
  type Session,
  type StreamFeature,
  type StreamStep,
} from '../../server/module.ts'
import { type Element, el } from '../../server/xmpp/element.ts'
import { type StanzaCondition, StreamError } from '../../server/xmpp/errors.ts'
import { NS } from '../../server/xmpp/ns.ts'
import type { Managed } from './managed.ts'
import { Manager, NS_SM } from './manager.ts'

/** How long an answer waits for what is on its way to the store, milliseconds. */
const WITHHELD_MS = 1000

const config = c.object({
  hibernation: c
    .duration('10min', { max: '7d' })
    .describe('How long a client may be away and come back to its session; 0s: sessions cannot be resumed'),
  maxStanzas: c
    .int()
    .min(50)
    .default(2000)
    .describe('Stanzas kept for one session until its client confirms them; more end the session'),
  maxBytes: c.bytes('2 MiB', { min: '64 KiB' }).describe('The same in bytes'),
  maxHibernating: c
    .int()
    .min(1)
    .default(5)
    .describe('Sessions of one account that wait for their clients; of more the oldest ends'),
  askEvery: c
    .int()
    .min(1)
    .default(10)
    .describe('Stanzas after which a client is asked to confirm them at once'),
  askAfter: c
    .duration('1s', { min: '100ms', max: '1min' })
    .describe('Time after which it is asked to confirm fewer'),
  ackTimeout: c
    .duration('1min', { min: '5s' })
    .describe('How long a client may take to confirm before its connection counts as lost'),
})

export default defineModule({
  name: 'stream-management',
  summary: 'Acknowledges stanzas and lets clients come back to their sessions',
  specs: [
    { xep: 198, version: '1.6.3', status: 'complete', note: 'client streams' },
    { xep: 203, version: '2.0', status: 'partial', note: 'on what is sent again' },
    { xep: 280, version: '1.0.1', status: 'partial', note: 'what had a copy does not come again' },
    { xep: 352, version: '1.0.0', status: 'partial', note: 'presence that waits for a client' },
    { rfc: 6121, sections: '8.5.3.2.1' },
  ],
  optional: ['sasl2', 'bind2', 'carbons'],
  config,
  setup(ctx, limits) {
    const manager = new Manager(ctx, limits)
    const management = new StreamManagement(ctx, manager)
    for (const feature of management.features()) ctx.streamFeature(feature)
    return {
      reconfigure: (next) => manager.setLimits(next),
      stop: () => manager.stop(),
    }
  },
})

class StreamManagement {
  readonly #ctx: Ctx
  readonly #manager: Manager
  readonly #resumed: { add(n?: number): void }
  readonly #refused: { add(n?: number): void }

  constructor(ctx: Ctx, manager: Manager) {
    this.#ctx = ctx
    this.#manager = manager
    this.#resumed = ctx.metrics.counter('resumed', 'Sessions that went on with a new stream')
    this.#refused = ctx.metrics.counter('failed', 'Attempts to resume a session that failed')
  }

  features(): readonly StreamFeature[] {
    const common = { ns: NS_SM, streams: ['c2s'], forbids: [] } as const
    return [
      {
        ...common,
        needs: [], // §3: what comes too early gets <failed/>
        advertise: (s) => this.#advertise(s),
        handle: (s, element) => this.#handle(s, element),
      },
      {
        ...common,
        needs: ['authenticated'],
        inline: 'sasl2',
        first: true, // §9.2
        advertise: () => el('sm', NS_SM),
        handle: (s, element) => (element.name === 'resume' ? this.#resume(s, element) : undefined),
      },
      {
        ...common,
        needs: ['authenticated'],
        inline: 'bind2',
        advertise: () => el('feature', NS.BIND2, { var: NS_SM }), // §9.1
        handle: (s, element) => (element.name === 'enable' ? this.#enable(s, element) : undefined),
      },
    ]
  }

  /** §2: once stanzas may be sent soon, and while it is of use. */
  #advertise(s: Session): Element | undefined {
    return s.is('authenticated') && this.#manager.of(s) === undefined ? el('sm', NS_SM) : undefined
  }

  #handle(s: Session, element: Element): StreamStep | void | Promise<StreamStep> {
    switch (element.name) {
      case 'a':
        return this.#confirmed(s, element)
      case 'r':
        return this.#acknowledge(s)
      case 'enable':
        return this.#enable(s, element)
      case 'resume':
        return this.#resume(s, element)
      default:
        throw new StreamError('unsupported-stanza-type') // not one of its five elements
    }
  }

  // ---- acknowledgement: §4 ----

  #acknowledge(s: Session): StreamStep | void {
    const managed = this.#manager.of(s)
    if (managed === undefined) return { reply: failed('unexpected-request') } // §6
    const { input } = managed.session
    // what is on its way to the store is not handled yet; it will be within milliseconds
    const waiting = input.settled
    if (waiting === undefined) return { reply: answer(managed) }
    const asked = input.received
    if (this.#answering.get(managed) === asked) return undefined // the answer is on its way
    this.#answering.set(managed, asked)
    const tell = (): void => {
      if (this.#answering.get(managed) === asked) this.#answering.delete(managed)
      managed.session.write(answer(managed))
    }
    // §4: not withheld for anything but a timeout
    const late = this.#ctx.timers.after(WITHHELD_MS, () => {
      done = true
      tell()
    })
    let done = false
    void waiting.then(() => {
      late[Symbol.dispose]()
      if (!done) tell()
    })
  }
  readonly #answering = new WeakMap<Managed, number>()

  #confirmed(s: Session, element: Element): StreamStep | void {
    const managed = this.#manager.of(s)
    if (managed === undefined) return { reply: failed('unexpected-request') }
    const h = numberOf(element)
    if (h === undefined) throw new StreamError('bad-format', '<a/> needs h')
    this.#confirm(managed, h)
  }

  /** False when the client has confirmed more before. */
  #confirm(managed: Managed, h: number): boolean {
    switch (managed.queue.check(h)) {
      case 'ok':
        this.#manager.confirm(managed, h)
        return true
      case 'stale':
        return false
      case 'beyond':
        throw tooHigh(h, managed.queue.sent)
    }
  }

  // ---- enabling: §3 ----

  #enable(s: Session, element: Element): StreamStep {
    const session = s.is('bound') && s.jid !== undefined ? this.#ctx.sessions.get(s.jid) : undefined
    // within Bind 2 time may have passed: the client is gone, and its resource is another session's
    if (session === undefined || session !== s) return { reply: failed('unexpected-request') }
    // at most one attempt; the answer of example 6, and then the stream error of the sentence before it
    if (this.#manager.of(s) !== undefined)
      return { reply: failed('unexpected-request'), close: { condition: 'policy-violation' } }
    const maxMs = this.#time(element)
    const { id } = this.#manager.enable(session, maxMs)
    const resumable = maxMs === undefined ? {} : { id, resume: 'true', max: String(maxMs / 1000) }
    return { reply: el('enabled', NS_SM, resumable) }
  }

  /** How long the session may wait for its client; undefined: it is not to be resumed. */
  #time(element: Element): number | undefined {
    const wanted = element.attr('resume')
    const { hibernation } = this.#manager.limits
    if ((wanted !== 'true' && wanted !== '1') || hibernation < 1000) return undefined
    const max = element.attr('max') ?? ''
    const own = Math.floor(hibernation / 1000)
    // a preference; what is no number of seconds is none
    const seconds = /^\d{1,9}$/.test(max) && Number(max) > 0 ? Math.min(Number(max), own) : own
    return seconds * 1000
  }

  // ---- resumption: §5 ----

  #resume(s: Session, element: Element): StreamStep | Promise<StreamStep> {
    const local = s.jid?.local
    if (!s.is('authenticated') || s.is('bound') || local === undefined)
      return { reply: failed('unexpected-request') }
    const id = element.attr('previd')
    const h = numberOf(element)
    if (id === undefined || h === undefined) return this.#fail('bad-request')
    const managed = this.#manager.find(id, local)
    if (managed === undefined) {
      const { hibernation } = this.#manager.limits
      return hibernation < 1000 ? this.#fail('feature-not-implemented') : this.#tooLate(local, id)
    }
    // its queue does not reach back to where the client says it is
    if (!this.#confirm(managed, h)) return this.#fail('unexpected-request', managed.settledCount)
    return {
      resume: {
        session: managed.session,
        reply: () => el('resumed', NS_SM, { h: String(managed.handled), previd: id }),
        refused: () => {
          this.#refused.add()
          return failed('item-not-found', managed.settledCount)
        },
        after: () => {
          this.#resumed.add()
          this.#manager.awake(managed)
        },
      },
    }
  }

  /** The count is a help (MAY); the answer must come without it too (§6, §9.2.1). */
  async #tooLate(local: string, id: string): Promise<StreamStep> {
    const handled = await this.#manager.ended.handled(local, id).catch((error: unknown) => {
      this.#ctx.log.warn('the count of an ended session cannot be read', { err: error })
      return undefined
    })
    return this.#fail('item-not-found', handled)
  }

  #fail(condition: StanzaCondition, h?: number): StreamStep {
    this.#refused.add()
    return { reply: failed(condition, h) }
  }
}

const answer = (managed: Managed): Element => el('a', NS_SM, { h: String(managed.handled) })

function failed(condition: StanzaCondition, h?: number): Element {
  return el('failed', NS_SM, { h: h === undefined ? undefined : String(h) }, el(condition, NS.STANZAS))
}

/** §6. */
function tooHigh(h: number, sent: number): StreamError {
  const app = el('handled-count-too-high', NS_SM, { h: String(h), 'send-count': String(sent) })
  return new StreamError(
    'undefined-condition',
    `You acknowledged ${h} stanzas, but I only sent you ${sent} so far.`,
    app,
  )
}

/** 'h' as §13 has it: an unsigned number of 32 bits. */
function numberOf(element: Element): number | undefined {
  const text = element.attr('h') ?? ''
  if (!/^\d{1,20}$/.test(text)) return undefined
  const h = Number(text)
  return h < 2 ** 32 ? h : undefined
}
