/**
 * What a request for the inbox costs, through the server without sockets: `node test/bench/inbox.ts [--messages 100000] [--conversations 500] [--folder
 * DIR]`. Prints milliseconds from the request to its answer, and of CPU, with the embedded store: the first one of an account ever, the first after a restart, later
 * ones; and how long others waited in the event loop meanwhile.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import inbox from '../../modules/inbox/index.ts'
import mam from '../../modules/mam/index.ts'
import stanzaId from '../../modules/stanza-id.ts'
import { openLmdb } from '../../server/storage/lmdb.ts'
import { type TestClient, testHost } from '../helpers/host.ts'

const { values } = parseArgs({
  options: {
    messages: { type: 'string', default: '100000' },
    conversations: { type: 'string', default: '500' },
    folder: { type: 'string', default: tmpdir() },
  },
})
const messages = Number(values.messages)
const conversations = Number(values.conversations)
const START = Date.UTC(2025, 0, 1)
const body =
  'I am in the garden, come and see how the roses are, they are all red and white this year, and then tea.'

/** Of ten entries seven are messages from somebody, two from the account, one is a marker of the account. */
function xml(n: number, peer: string): string {
  const [me, other] = ['user@example.org/phone', `${peer}/balcony`]
  const turn = Math.floor(n / conversations) % 10
  if (turn === 9)
    return `<message xmlns='jabber:client' from='${me}' to='${peer}' type='chat' id='d${n}'><displayed xmlns='urn:xmpp:chat-markers:0' id='m${n - conversations}'/></message>`
  const [from, to] = turn < 3 || turn > 4 ? [other, me] : [me, peer]
  return `<message xmlns='jabber:client' from='${from}' to='${to}' type='chat' id='m${n}'><body>${body}</body><markable xmlns='urn:xmpp:chat-markers:0'/></message>`
}

const folder = await mkdtemp(join(values.folder, 'hermod-bench-'))
const store = await openLmdb({ path: folder, durable: false })
try {
  await fill(0, messages)
  await withHost(async (client) => {
    await report('the first ever', [await timed(client)])
    await report('again, nothing new', await many(client, 100))
    await report('again, without messages', await many(client, 100, "messages='false'"))
    await report('again, the first 50', await many(client, 100, '', '<max>50</max>'))
    await fill(messages, messages + 1000)
    await report('1000 messages later', [await timed(client)])
    const times: Time[] = []
    for (let i = 0; i < 100; i++) {
      await fill(messages + 1000 + i, messages + 1001 + i)
      times.push(await timed(client, '', '<max>50</max>'))
    }
    await report('one message later each, the first 50', times)
  })
  await withHost(async (client) => {
    await report('the first after a restart', [await timed(client)])
  })
} finally {
  await store.close()
  await rm(folder, { recursive: true, force: true })
}

async function withHost(run: (client: TestClient) => Promise<void>): Promise<void> {
  await using host = await testHost({ modules: [stanzaId, mam, inbox], accounts: ['user'], store })
  await run(await host.client('user@example.org/bench'))
}

async function fill(from: number, to: number): Promise<void> {
  const archive = store.open('example.org', 'mam').archive('messages')
  for (let i = from; i < to; i += 2000) {
    const some = Array.from({ length: Math.min(2000, to - i) }, (_, k) => i + k)
    await Promise.all(
      some.map((n) => {
        const peer = `peer${n % conversations}@example.com`
        return archive.append('user', {
          at: new Date(START + n * 1000),
          with: peer,
          doc: { xml: xml(n, peer) },
        })
      }),
    )
  }
}

interface Time {
  readonly wall: number
  readonly cpu: number
  /** How long the event loop was held at most. */
  readonly held: number
}

/** Asks, and waits for the answer; milliseconds. */
async function timed(client: TestClient, attrs = '', rsm = ''): Promise<Time> {
  const delay = monitorEventLoopDelay({ resolution: 1 })
  delay.enable()
  const from = performance.now()
  const used = process.cpuUsage()
  const set = rsm === '' ? '' : `<set xmlns='http://jabber.org/protocol/rsm'>${rsm}</set>`
  client.transport.written.length = 0
  client.transport.feed(`<iq type='get' id='q'><inbox xmlns='urn:xmpp:inbox:1' ${attrs}>${set}</inbox></iq>`)
  while (!/<fin |<error /.test(client.transport.written.at(-1) ?? '')) await nextTurn()
  const text = client.transport.written.join('')
  if (!text.includes('<fin')) throw new Error(text.slice(0, 500))
  const { user, system } = process.cpuUsage(used)
  const wall = performance.now() - from
  delay.disable()
  return { wall, cpu: (user + system) / 1000, held: delay.max / 1e6 }
}

async function many(client: TestClient, count: number, attrs = '', rsm = ''): Promise<Time[]> {
  const times: Time[] = []
  for (let i = 0; i < count; i++) times.push(await timed(client, attrs, rsm))
  return times
}

async function report(name: string, times: readonly Time[]): Promise<void> {
  const at = (key: keyof Time, part: number): string => {
    const sorted = times.map((time) => time[key]).toSorted((a, b) => a - b)
    return (sorted[Math.floor((sorted.length - 1) * part)] ?? 0).toFixed(2)
  }
  const late = times.length > 1 ? `, the 99th of 100 ${at('wall', 0.99)}` : ''
  console.log(
    `${name.padEnd(40)} ${at('wall', 0.5).padStart(9)} ms, cpu ${at('cpu', 0.5)}, others waited ${at('held', 1)}${late}`,
  )
  await nextTurn()
}
