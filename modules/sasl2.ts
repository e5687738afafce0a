/**
 * XEP-0388 Extensible SASL Profile 1.0.4: login in one round trip less, with tasks after the password and stream features negotiated
 * inline. Mechanisms and their rules are those of the module sasl. Tasks come from other modules (`Services['sasl2'].addTask`), inline
 * features too (`StreamFeature.inline: 'sasl2'`). Client streams only.
 */
import { type Ctx, defineModule, type Services, type Session, type StreamStep } from '../server/module.ts'
import { type Element, el } from '../server/xmpp/element.ts'
import { SaslError } from '../server/xmpp/errors.ts'
import type { JID } from '../server/xmpp/jid.ts'
import { NS } from '../server/xmpp/ns.ts'

declare module '../server/module.ts' {
  interface Services {
    sasl2: Sasl2Service
  }
}

/** What a client says of itself (§2.3); for the account's owner, never for others. */
export interface UserAgent {
  /** Lower case UUID, the same for each login of an installation; undefined when not given. */
  readonly id: string | undefined
  readonly software: string | undefined
  readonly device: string | undefined
}
/** A login whose mechanism has succeeded. */
export interface Login {
  readonly session: Session
  /** Bare. */
  readonly jid: JID
  readonly mechanism: string
  /** Which generation of the account was proven (AuthService.generations); undefined where there are none. */
  readonly generation: string | undefined
  /** The client has shown that it knows the account's password, not just a token or a certificate. */
  readonly password: boolean
  /** <authenticate/>. */
  readonly request: Element
  /** Tasks done so far. */
  readonly done: readonly string[]
}
/** Something to do between the mechanism and the success (§2.6.3): a second factor, a new password, new keys (XEP-0480). */
export interface Task {
  /** At most 20 characters. */
  readonly name: string
  /** Offered by itself, when no task is wanted any more that is not (XEP-0480: after second factors, one at a time). */
  readonly alone?: boolean
  /** Whether this login has to do it now; asked again after each task, so that one of several can do. */
  wanted(login: Login): boolean | Promise<boolean>
  /** <next/> came. */
  start(login: Login, next: Element): TaskTurn | Promise<TaskTurn>
  /** Children of <authentication/> that announce it. */
  advertise?(s: Session): readonly Element[]
}
/** What a task makes of a message; it throws SaslError to refuse the login. */
export type TaskTurn =
  /** Children of <task-data/>, and what takes the answer. */
  | { readonly data: readonly Element[]; readonly next: (data: Element) => TaskTurn | Promise<TaskTurn> }
  /** Done; the elements go with the success. */
  | { readonly done: readonly Element[] }
/** What other modules may ask of SASL2. */
export interface Sasl2Service {
  addTask(task: Task): Disposable
  /** What the client of an authenticated stream has said of itself. */
  userAgent(s: Session): UserAgent | undefined
}

type Sasl = Services['sasl']
type SaslReply = Awaited<ReturnType<Sasl['begin']>>
type TaskStep = (data: Element) => TaskTurn | Promise<TaskTurn>

/** Where a stream is between <authenticate/> and <success/>. */
type Phase =
  | { readonly kind: 'mechanism'; readonly request: Element; readonly agent: UserAgent | undefined }
  | { readonly kind: 'choice'; readonly login: Login; readonly offered: readonly Task[] }
  | { readonly kind: 'task'; readonly login: Login; readonly task: Task; readonly next: TaskStep }

/** §8; the text asks for version 4, but nothing here depends on how the client made it up. */
const UUID = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/i
const MAX_AGENT_TEXT = 256
const MAX_INLINE = 32

export default defineModule({
  name: 'sasl2',
  summary: 'Logs clients in with fewer round trips, in one go with binding and more',
  specs: [{ xep: 388, version: '1.0.4', status: 'complete' }],
  requires: ['sasl'],
  setup(ctx) {
    const flow = new Sasl2(ctx)
    ctx.provide('sasl2', flow)
    ctx.streamFeature({
      ns: NS.SASL2,
      streams: ['c2s'],
      needs: [],
      forbids: ['authenticated'], // §4.8
      advertise: (s) => flow.advertise(s),
      handle: (s, element) => flow.handle(s, element),
    })
  },
})

class Sasl2 implements Sasl2Service {
  readonly #ctx: Ctx
  readonly #tasks = new Map<string, Task>()
  readonly #phases: { get(s: Session): Phase | undefined; set(s: Session, v: Phase | undefined): void }
  readonly #agents: {
    get(s: Session): UserAgent | undefined
    set(s: Session, v: UserAgent | undefined): void
  }

  constructor(ctx: Ctx) {
    this.#ctx = ctx
    this.#phases = ctx.perSession<Phase | undefined>(() => undefined)
    this.#agents = ctx.perSession<UserAgent | undefined>(() => undefined)
  }

  get #sasl(): Sasl {
    return this.#ctx.use('sasl')
  }

  addTask(task: Task): Disposable {
    if (this.#tasks.has(task.name)) throw new Error(`task ${task.name} exists`)
    this.#tasks.set(task.name, task)
    return { [Symbol.dispose]: () => void this.#tasks.delete(task.name) }
  }

  userAgent(s: Session): UserAgent | undefined {
    return this.#agents.get(s)
  }

  /** §2.1: not without a mechanism. */
  advertise(s: Session): Element | undefined {
    const offers = this.#sasl.offers(s, 'sasl2')
    if (offers.length === 0) return undefined
    const inline = this.#ctx.inlineFeatures('sasl2', s)
    return el(
      'authentication',
      NS.SASL2,
      {},
      ...offers.map((name) => el('mechanism', NS.SASL2, {}, name)),
      inline.length === 0 ? undefined : el('inline', NS.SASL2, {}, ...inline),
      ...[...this.#tasks.values()].flatMap((task) => task.advertise?.(s) ?? []),
    )
  }

  async handle(s: Session, element: Element): Promise<StreamStep> {
    const phase = this.#phases.get(s)
    // §4.5: at any time before the end; §4.8: tasks are part of the login
    if (element.name === 'abort') return this.#refuse(s, new SaslError('aborted'), false)
    switch (phase?.kind) {
      case undefined:
        if (element.name === 'authenticate') return this.#authenticate(s, element)
        if (element.name !== 'response') break
        return this.#refuse(s, new SaslError('malformed-request', 'no exchange is going on'), false)
      case 'mechanism':
        if (element.name !== 'response') break
        if (element.elements.length > 0) return this.#refuse(s, new SaslError('malformed-request'), false)
        return this.#proceed(s, phase, await this.#sasl.respond(s, 'sasl2', element.text()))
      case 'choice':
        if (element.name === 'next') return this.#next(s, phase, element)
        break
      case 'task':
        if (element.name === 'task-data')
          return this.#task(s, phase.login, phase.task, () => phase.next(element))
    }
    // §2.4: "Servers MUST disconnect Clients immediately if any other traffic is received"; §4.8
    this.#phases.set(s, undefined)
    return { close: { condition: 'policy-violation', text: `<${element.name}/> is not expected now` } }
  }

  async #authenticate(s: Session, request: Element): Promise<StreamStep> {
    const responses = request.getChildren('initial-response')
    const agent = userAgentOf(request)
    if (responses.length > 1 || responses[0]?.firstElement() !== undefined || agent === 'malformed')
      return this.#refuse(s, new SaslError('malformed-request'), false)
    const phase = { kind: 'mechanism', request, agent } as const
    this.#phases.set(s, phase)
    const reply = await this.#sasl.begin(s, {
      profile: 'sasl2',
      mechanism: request.attr('mechanism'),
      initial: responses[0]?.text(), // §2.2: empty is empty, absent is absent
      element: request,
    })
    return this.#proceed(s, phase, reply)
  }

  #proceed(
    s: Session,
    { agent, request }: Phase & { kind: 'mechanism' },
    reply: SaslReply,
  ): StreamStep | Promise<StreamStep> {
    switch (reply.kind) {
      case 'challenge':
        return { reply: el('challenge', NS.SASL2, {}, reply.data), exclusive: true }
      case 'failure':
        return this.#failure(s, reply)
      case 'success': {
        this.#agents.set(s, agent)
        const { jid, mechanism, generation, data } = reply
        const { name, password = false } = mechanism
        const login: Login = { session: s, jid, mechanism: name, generation, password, request, done: [] }
        // §2.6.1, §2.6.3: additional data goes with the first answer after the mechanism
        const proof = data === undefined ? [] : [el('additional-data', NS.SASL2, {}, data)]
        return this.#goOn(s, login, mechanism.exempt === true, proof)
      }
    }
  }

  /** §2.6.3: the tasks that are still to be done, or the end. */
  async #goOn(s: Session, login: Login, exempt: boolean, parts: readonly Element[]): Promise<StreamStep> {
    const offered = exempt ? [] : await this.#wanted(login)
    if (offered.length === 0) return this.#succeed(s, login, parts)
    this.#phases.set(s, { kind: 'choice', login, offered })
    const names = offered.map((task) => el('task', NS.SASL2, {}, task.name))
    return {
      reply: el('continue', NS.SASL2, {}, ...parts, el('tasks', NS.SASL2, {}, ...names)),
      exclusive: true,
    }
  }

  async #wanted(login: Login): Promise<readonly Task[]> {
    const left = [...this.#tasks.values()].filter((task) => !login.done.includes(task.name))
    const together: Task[] = []
    for (const task of left) if (task.alone !== true && (await task.wanted(login))) together.push(task)
    if (together.length > 0) return together
    for (const task of left) if (task.alone === true && (await task.wanted(login))) return [task]
    return []
  }

  #next(s: Session, phase: Phase & { kind: 'choice' }, next: Element): StreamStep | Promise<StreamStep> {
    const task = phase.offered.find((one) => one.name === next.attr('task'))
    if (task === undefined) return this.#refuse(s, new SaslError('malformed-request', 'no such task'), false)
    return this.#task(s, phase.login, task, () => task.start(phase.login, next))
  }

  async #task(
    s: Session,
    login: Login,
    task: Task,
    take: () => TaskTurn | Promise<TaskTurn>,
  ): Promise<StreamStep> {
    // time has passed: a task must not do to an account what its former owner, or who knew its password, has asked for
    const changed = await this.#sasl.check(s)
    if (changed !== undefined) return this.#failure(s, changed)
    let turn: TaskTurn
    try {
      turn = await take()
    } catch (error) {
      if (!(error instanceof SaslError)) throw error
      return this.#refuse(s, error, error.condition === 'not-authorized')
    }
    if ('done' in turn) return this.#goOn(s, { ...login, done: [...login.done, task.name] }, false, turn.done)
    this.#phases.set(s, { kind: 'task', login, task, next: turn.next })
    return { reply: el('task-data', NS.SASL2, {}, ...turn.data), exclusive: true }
  }

  /** §2.6.1. */
  async #succeed(s: Session, login: Login, parts: readonly Element[]): Promise<StreamStep> {
    const changed = await this.#sasl.accept(s)
    if (changed !== undefined) return this.#failure(s, changed)
    this.#phases.set(s, undefined)
    const others = login.request.elements.filter((child) => child.ns !== NS.SASL2).slice(0, MAX_INLINE)
    // XEP-0386: whether a session is resumed is settled before one is bound
    const requests = [...others.filter((r) => r.ns !== NS.BIND2), ...others.filter((r) => r.ns === NS.BIND2)]
    return {
      identity: login.jid,
      generation: login.generation,
      inline: {
        of: 'sasl2',
        requests,
        finish: (replies, now) => success(now.jid ?? login.jid, parts, replies),
      },
      next: 'features',
    }
  }

  async #refuse(s: Session, error: SaslError, judged: boolean): Promise<StreamStep> {
    return this.#failure(s, await this.#sasl.reject(s, error, judged))
  }

  /** §2.6.2: back to where the stream was. */
  #failure(s: Session, reply: SaslReply & { readonly kind: 'failure' }): StreamStep {
    this.#phases.set(s, undefined)
    this.#agents.set(s, undefined)
    const failure = reply.error.toElement(NS.SASL2)
    return reply.close === undefined ? { reply: failure } : { reply: failure, close: reply.close }
  }
}

function success(jid: JID, parts: readonly Element[], replies: readonly Element[]): Element {
  const identifier = el('authorization-identifier', NS.SASL2, {}, jid.toString())
  return el('success', NS.SASL2, {}, ...parts, identifier, ...replies)
}

function userAgentOf(request: Element): UserAgent | undefined | 'malformed' {
  const agent = request.getChild('user-agent')
  if (agent === undefined) return undefined
  const id = agent.attr('id')
  if (id !== undefined && !UUID.test(id)) return 'malformed'
  const text = (name: string): string | undefined => agent.getChildText(name)?.slice(0, MAX_AGENT_TEXT)
  return { id: id?.toLowerCase(), software: text('software'), device: text('device') }
}
