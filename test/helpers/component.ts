/** External components (XEP-0114) over a pipe, as they talk. */
import { createHash } from 'node:crypto'
import { expect } from 'chai'
import component from '../../modules/component/index.ts'
import disco from '../../modules/disco.ts'
import { Element } from '../../server/xmpp/element.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { Parser } from '../../server/xmpp/parser.ts'
import {
  type StreamOptions,
  type TestConnection,
  type TestHost,
  type TestHostOptions,
  testHost,
} from './host.ts'

/** Where components connect unless told otherwise. */
export const PORT = 5347
/** The component of `start`. */
export const DOMAIN = 'echo.example.org'
/** Its secret. */
export const SECRET = 'a secret of a component'

/** A component's stream header; undefined leaves `to` out. */
export const header = (to: string | undefined = DOMAIN, ns: string = NS.COMPONENT, more = ''): string =>
  `<stream:stream xmlns='${ns}' xmlns:stream='${NS.STREAM}'${to === '' ? '' : ` to='${to}'`}${more}>`

/** The hash of XEP-0114 §3 for the id in our header. */
export function hashFor(ourHeader: string, secret = SECRET): string {
  const id = /\sid='([^']+)'/.exec(ourHeader)?.[1] ?? expect.fail(`no id in ${ourHeader}`)
  return createHash('sha1').update(`${id}${secret}`).digest('hex')
}

/** What a component sends after our header. */
export const handshake = (ourHeader: string, secret = SECRET): string =>
  `<handshake>${hashFor(ourHeader, secret)}</handshake>`

/** A host with the module, and some more; options of the module beside its one component. */
export function start(
  options: Readonly<Record<string, unknown>> = {},
  { modules = [], config = {}, ...more }: Partial<TestHostOptions> = {},
): Promise<TestHost> {
  return testHost({
    modules: [component, disco, ...modules],
    accounts: ['romeo', 'juliet'],
    config: { component: { components: { [DOMAIN]: { secret: SECRET } }, ...options }, ...config },
    ...more,
  })
}

/** A component that has connected. */
export interface TestComponent extends TestConnection {
  /** Sends, settles, and resolves to the stanzas that came since the last call. */
  talk(text: string): Promise<Element[]>
  /** The stream error that came, if any. */
  readonly error: string | undefined
}

/** Connects and proves the secret. `more`: takes what comes right behind the answer; without it nothing must. */
export async function connected(
  h: TestHost,
  { to = DOMAIN, secret = SECRET, ...options }: StreamOptions & { to?: string; secret?: string } = {},
  more?: (text: string) => void,
): Promise<TestComponent> {
  const stream = h.connect(PORT, options)
  const answer = await stream.send(handshake(await stream.send(header(to)), secret))
  if (more === undefined) expect(answer).to.equal('<handshake/>')
  else {
    expect(answer).to.match(/^<handshake\/>/)
    more(answer.slice('<handshake/>'.length))
  }
  const received: Element[] = []
  let error: string | undefined
  const parser = new Parser(
    {
      open: () => undefined,
      element: (e) => (e.is('error', NS.STREAM) ? (error = e.firstElement()?.name) : received.push(e)),
      close: () => undefined,
    },
    { maxBytes: 1e8, maxDepth: 1000, maxAttrs: 1000, maxName: 1000 },
  )
  parser.write(Buffer.from(`<stream:stream xmlns='${NS.COMPONENT}' xmlns:stream='${NS.STREAM}'>`))
  const collect = (text: string): void => {
    if (text !== '') parser.write(Buffer.from(text))
  }
  return {
    transport: stream.transport,
    send: (text) => stream.send(text),
    drop: () => stream.drop(),
    get closed() {
      return stream.closed
    },
    async talk(text) {
      collect(await stream.send(text))
      return received.splice(0)
    },
    get error() {
      collect(stream.transport.written.splice(0).join(''))
      return error
    },
  }
}

/** The condition of an error stanza, with its type. */
export function errorOf(stanza: Element | undefined): string {
  const error = stanza?.getChild('error')
  return `${error?.attr('type')} ${error?.firstElement()?.name}`
}
