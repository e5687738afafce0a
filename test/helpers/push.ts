/** Scenery for tests of push notifications (XEP-0357): a host, an app server that is a client of it, devices. */
import carbons from '../../modules/carbons/index.ts'
import csi from '../../modules/csi.ts'
import disco from '../../modules/disco.ts'
import mam from '../../modules/mam/index.ts'
import offline from '../../modules/offline/index.ts'
import presence from '../../modules/presence/index.ts'
import push from '../../modules/push/index.ts'
import roster from '../../modules/roster/index.ts'
import stanzaId from '../../modules/stanza-id.ts'
import sm from '../../modules/stream-management/index.ts'
import { el, type Element } from '../../server/xmpp/element.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { type TestClient, type TestHost, type TestHostOptions, testHost } from './host.ts'
import { ask, outcome } from './iq.ts'

/** XEP-0357 §11.1. */
export const NS_PUSH = 'urn:xmpp:push:0'
const PUBSUB = 'http://jabber.org/protocol/pubsub'
/** Where the app server is. */
export const APP = 'app@example.org/push'
/** Who is woken. */
export const ROMEO = 'romeo@example.org'
/** Who writes. */
export const JULIET = 'juliet@example.org/balcony'
/** A session to come back to. */
export const SM_ENABLE = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>"
/** XEP-0004 form of publish options with a secret. */
export const SECRET = `<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>${PUBSUB}#publish-options</value></field><field var='secret'><value>eruio234vzxc2kla-91</value></field></x>`

/** What the app server was told. */
export interface Told {
  readonly node: string | undefined
  readonly from: string | undefined
  /** Fields of the summary. */
  readonly summary: Readonly<Record<string, string>>
  readonly priority: string | undefined
  /** Fields of the publish options. */
  readonly options: Readonly<Record<string, string>>
  readonly iq: Element
}

/** An app server that is a client. */
export class AppServer {
  readonly client: TestClient
  /** What it says: 'result', nothing, or an error. */
  answer: 'result' | 'nothing' | { readonly type: string; readonly condition: string } = 'result'
  constructor(client: TestClient) {
    this.client = client
  }

  /** What came since the last call, answered. */
  async told(): Promise<Told[]> {
    const all: Told[] = []
    for (let got = this.client.take(); got.length > 0; ) {
      const next: Element[] = []
      for (const iq of got) {
        all.push(toldBy(iq))
        next.push(...(await this.#reply(iq)))
      }
      got = next
    }
    return all
  }

  /** Node and number of messages: 'phone 3'. */
  async counts(): Promise<string[]> {
    return (await this.told()).map(({ node, summary }) => `${node} ${summary['message-count']}`)
  }

  /** Lets time pass and answers what comes: node and number of messages. */
  async during(host: TestHost, ms: number): Promise<string[]> {
    const all: string[] = []
    for (let left = ms; left > 0; left -= 5000) {
      await host.clock.advance(Math.min(5000, left))
      all.push(...(await this.counts()))
    }
    return all
  }

  async #reply(iq: Element): Promise<Element[]> {
    const { answer } = this
    if (answer === 'nothing') return []
    const attrs = { id: iq.attr('id'), to: iq.attr('from') }
    if (answer === 'result') return this.client.send(el('iq', NS.CLIENT, { ...attrs, type: 'result' }))
    const error = el('error', NS.CLIENT, { type: answer.type }, el(answer.condition, NS.STANZAS))
    return this.client.send(el('iq', NS.CLIENT, { ...attrs, type: 'error' }, error))
  }
}

function fields(form: Element | undefined): Record<string, string> {
  return Object.fromEntries(
    (form?.getChildren('field') ?? []).map((field) => [
      field.attr('var') ?? '',
      field.getChildText('value') ?? '',
    ]),
  )
}

function toldBy(iq: Element): Told {
  const pubsub = iq.getChild('pubsub', PUBSUB)
  const publish = pubsub?.getChild('publish')
  const notification = publish?.getChild('item')?.getChild('notification', NS_PUSH)
  if (iq.attr('type') !== 'set' || notification === undefined)
    throw new Error(`no publish request: ${iq.toString()}`)
  return {
    node: publish?.attr('node'),
    from: iq.attr('from'),
    summary: fields(notification.getChild('x', NS.DATA)),
    priority: notification.getChildText('priority', 'tigase:push:priority:0'),
    options: fields(pubsub?.getChild('publish-options')?.getChild('x', NS.DATA)),
    iq,
  }
}

/** A host with an app server; Juliet writes. */
export interface PushStage extends AsyncDisposable {
  readonly host: TestHost
  readonly app: AppServer
  readonly juliet: TestClient
  /** A client of Romeo's, available. */
  device(resource: string, more?: string): Promise<TestClient>
  /** One that has enabled push for that node and gone. */
  away(node: string): Promise<void>
  say(text: string, to?: string): Promise<void>
  send(content: string, attrs?: string): Promise<void>
}

/** Modules of `pushStage`, without push itself. */
export const around = { disco, roster, presence, 'stanza-id': stanzaId, mam, offline, carbons, csi, sm }

/** Sets it up; `without`: names of modules that are missing. */
export async function pushStage(
  options: object = {},
  more: Partial<TestHostOptions> = {},
  without: readonly string[] = [],
): Promise<PushStage> {
  const modules = Object.entries(around).flatMap(([name, def]) => (without.includes(name) ? [] : [def]))
  const host = await testHost({
    modules: [...modules, push],
    accounts: ['romeo', 'juliet', 'app'],
    config: { push: options },
    ...more,
  })
  const app = new AppServer(await host.client(APP))
  const juliet = await host.client(JULIET)
  let ids = 0
  async function device(resource: string, first = '<presence/>'): Promise<TestClient> {
    const client = await host.client(`${ROMEO}/${resource}`)
    await client.send(first)
    return client
  }
  async function send(content: string, attrs = `to='${ROMEO}' type='chat'`): Promise<void> {
    await juliet.send(`<message ${attrs} id='m${++ids}'>${content}</message>`)
  }
  return {
    host,
    app,
    juliet,
    device,
    async away(node) {
      const client = await device(node)
      await enable(client, node)
      await client.close()
    },
    say: (text, to = ROMEO) => send(`<body>${text}</body>`, `to='${to}' type='chat'`),
    send,
    [Symbol.asyncDispose]: () => host[Symbol.asyncDispose](),
  }
}

/** Asks for push notifications; 'result' or type and condition of the error. */
export async function enable(client: TestClient, node: string, form = '', jid = APP): Promise<string> {
  return outcome(
    await ask(
      client,
      'set',
      ROMEO,
      `<enable xmlns='${NS_PUSH}' jid='${jid}' node='${node}'>${form}</enable>`,
    ),
  )
}

/** Takes it back. */
export async function disable(client: TestClient, node?: string, jid = APP): Promise<string> {
  const at = node === undefined ? '' : ` node='${node}'`
  return outcome(await ask(client, 'set', ROMEO, `<disable xmlns='${NS_PUSH}' jid='${jid}'${at}/>`))
}

/** Keys of Romeo's registrations in the store. */
export async function kept(host: TestHost): Promise<string[]> {
  const keys: string[] = []
  for await (const [key] of host.store.open('example.org', 'push').docs('registrations').list('romeo'))
    keys.push(key)
  return keys
}

/** A device whose session can be resumed; the id of the session. */
export async function managed(
  stage: PushStage,
  node: string,
): Promise<{ readonly client: TestClient; readonly id: string }> {
  const client = await stage.device(node)
  const [enabled] = (await client.send(SM_ENABLE)).filter((e) => e.name === 'enabled')
  await enable(client, node)
  return { client, id: enabled?.attr('id') ?? '' }
}
