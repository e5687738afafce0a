/** Scenery for tests of stream management (XEP-0198): two clients, what surrounds them, and streams that come back. */
import type { Element as LtxElement } from 'ltx'
import sm from '../../modules/stream-management/index.ts'
import type { AnyModule } from '../../server/loader.ts'
import { defineModule } from '../../server/module.ts'
import type { Element } from '../../server/xmpp/element.ts'
import { parseJid } from '../../server/xmpp/jid.ts'
import { type StreamOptions, type TestClient, type TestHost, testHost, type TestStream } from './host.ts'
import { header, openFrame, type Output, read, readFrames } from './raw-stream.ts'
import { settle } from './settle.ts'

/** XEP-0198 §12.1. */
export const NS = 'urn:xmpp:sm:3'
/** XEP-0359. */
export const SID = 'urn:xmpp:sid:0'
/** A session to come back to. */
export const ENABLE = `<enable xmlns='${NS}' resume='true'/>`
/** Who writes. */
export const JULIET = 'juliet@example.org/balcony'
/** Who comes and goes. */
export const ROMEO = 'romeo@example.org/orchard'
/** A request for acknowledgement. */
export const R = `<r xmlns='${NS}'/>`
/** An acknowledgement. */
export const a = (h: number): string => `<a xmlns='${NS}' h='${h}'/>`
/** A message to Romeo, or to somebody else. */
export const message = (id: string, to = ROMEO): string =>
  `<message to='${to}' id='${id}' type='chat'><body>${id}</body></message>`
/** A request to go on with a session. */
export const resume = (id: string, h: number): string => `<resume xmlns='${NS}' previd='${id}' h='${h}'/>`
/** Name of the first child. */
export const condition = (e: Element | LtxElement | undefined): string =>
  e === undefined
    ? ''
    : 'elements' in e
      ? (e.elements[0]?.name ?? '')
      : (e.getChildElements()[0]?.getName() ?? '')

/** A store for those who are away, a slow store for what clients send, and slow iq handlers. */
export function world() {
  const state = {
    kept: [] as Element[],
    seen: [] as string[],
    closed: [] as string[],
    resumed: [] as string[],
    gates: [] as PromiseWithResolvers<void>[],
    held: false,
  }
  const wait = (): Promise<void> | undefined => {
    if (!state.held) return undefined
    const gate = Promise.withResolvers<void>()
    state.gates.push(gate)
    return gate.promise
  }
  const module = defineModule({
    name: 'world',
    summary: 'what surrounds stream management',
    specs: [],
    setup(ctx) {
      ctx.hook('account:offline', { phase: 'store' }, (e) => {
        state.kept.push(e.stanza)
        return { stop: 'kept' }
      })
      ctx.hook('client:in', { phase: 'store', kinds: ['message'] }, (e) => {
        state.seen.push(e.stanza.attr('id') ?? '')
        return wait()
      })
      ctx.iq('host', 'get', 'urn:x:slow', 'query', async (iq) => {
        state.seen.push(iq.id)
        await wait()
      })
      ctx.hook(
        'session:closed',
        { phase: 'observe' },
        ({ session, reason }) => void state.closed.push(`${session.jid.resource} ${reason}`),
      )
      ctx.hook(
        'session:resumed',
        { phase: 'observe' },
        ({ session }) => void state.resumed.push(session.jid.resource),
      )
    },
  })
  return Object.assign(state, { module })
}
/** What happened around. */
export type World = ReturnType<typeof world>

/** A host with Romeo, managed, and Juliet. */
export interface Stage extends AsyncDisposable {
  readonly host: TestHost
  readonly world: World
  readonly romeo: TestClient
  readonly juliet: TestClient
  readonly id: string
}
/** Sets it up, with further `modules`. */
export async function stage(
  config: object = {},
  enable = ENABLE,
  opts: StreamOptions = {},
  modules: readonly AnyModule[] = [],
): Promise<Stage> {
  const around = world()
  const host = await testHost({
    modules: [sm, around.module, ...modules],
    accounts: ['romeo', 'juliet'],
    config: { 'stream-management': config },
  })
  const romeo = await host.client(ROMEO, opts)
  const juliet = await host.client(JULIET)
  const [enabled] = await romeo.send(enable)
  const id = enabled?.attr('id') ?? ''
  return { host, world: around, romeo, juliet, id, [Symbol.asyncDispose]: () => host[Symbol.asyncDispose]() }
}

/** A stream that is logged in and not bound. */
export class Fresh {
  readonly stream: TestStream
  readonly #framed: boolean
  constructor(stream: TestStream, framed: boolean) {
    this.stream = stream
    this.#framed = framed
  }
  static async open(host: TestHost, opts: StreamOptions = {}, as = 'romeo@example.org'): Promise<Fresh> {
    const framed = opts.framing === 'frames'
    const fresh = new Fresh(host.stream(opts), framed)
    await fresh.stream.send(framed ? openFrame() : header())
    host.c2s.identify(fresh.stream.session, { identity: parseJid(as) })
    return fresh
  }
  /** What came since the last call. */
  take(): Output {
    const written = this.stream.transport.written.splice(0)
    return this.#framed ? readFrames(written) : read(written.join(''))
  }
  async send(text: string): Promise<Output> {
    const parts = this.#framed ? text.split(/(?<=>)(?=<(?:message|r|a|iq)\b)/) : [text]
    for (const part of parts) this.stream.transport.feed(part)
    await settle()
    return this.take()
  }
  ids(output: Output): string[] {
    return output.elements.map((e) => (e.attrs['id'] as string | undefined) ?? e.getName())
  }
}
/** What the first element says. */
export const first = (output: Output): string => {
  const [e] = output.elements
  const h = e?.attrs['h'] as string | undefined
  return `${e?.getName()}${h === undefined ? '' : ` ${h}`} ${condition(e)}`.trim()
}
