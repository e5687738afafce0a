/**
 * What the server adds to a message that goes from a client to a component and back (XEP-0114): parse, hooks, routing, serialising; no
 * sockets. `node test/bench/component.ts [--clients N] [--seconds N] [--bare]` prints microseconds of each direction, the
 * lowest of several rounds.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import component from '../../modules/component/index.ts'
import { handshake, header } from '../helpers/component.ts'
import { type TestClient, testHost } from '../helpers/host.ts'
import { benchModules } from './modules.ts'

const { values } = parseArgs({
  options: {
    clients: { type: 'string', default: '50' },
    seconds: { type: 'string', default: '3' },
    bare: { type: 'boolean', default: false },
  },
})
const PER_TURN = 16
const modules = [...(await benchModules(values.bare)), component]
const count = Number(values.clients)
await using host = await testHost({
  modules,
  accounts: Array.from({ length: count }, (_, i) => `user${i}`),
  config: {
    component: {
      components: { 'echo.example.org': { secret: 'secret' } },
      rate: '100 GiB',
      burst: '100 GiB',
    },
  },
})
const stream = host.connect(5347)
await stream.send(handshake(await stream.send(header('echo.example.org')), 'secret'))
const clients: TestClient[] = []
for (let i = 0; i < count; i++) {
  const client = await host.client(`user${i}@example.org/bench`)
  await client.send('<presence/>')
  clients.push(client)
}
const body = 'x'.repeat(100)
const message = (more: string): string =>
  `<message ${more} type='chat' id='m1'><body>${body}</body></message>`
const out = Buffer.from(message(`to='bot@echo.example.org'`).repeat(PER_TURN))
const back = clients.map((_, i) =>
  Buffer.from(message(`from='bot@echo.example.org/x' to='user${i}@example.org/bench'`).repeat(PER_TURN)),
)

async function round(ms: number, there: boolean, andBack: boolean): Promise<number> {
  let messages = 0
  const started = process.cpuUsage()
  const until = performance.now() + ms
  while (performance.now() < until) {
    for (const [i, client] of clients.entries()) {
      if (there) client.transport.feed(out.toString())
      if (andBack) stream.transport.feed((back[i] as Buffer).toString())
    }
    messages += count * PER_TURN
    do await nextTurn()
    while (stream.transport.paused || clients.some((client) => client.transport.paused))
    for (const one of [stream, ...clients]) one.transport.written.length = 0
  }
  await host.settle()
  const used = process.cpuUsage(started)
  return (used.user + used.system) / messages
}

await round(500, true, true)
for (const [what, there, andBack] of [
  ['to the component', true, false],
  ['from the component', false, true],
  ['both', true, true],
] as const) {
  const rounds: number[] = []
  for (let i = 0; i < 5; i++) rounds.push(await round((Number(values.seconds) * 1000) / 5, there, andBack))
  console.log(
    `component: ${Math.min(...rounds).toFixed(2)} us a message ${what} (rounds ${rounds.map((r) => r.toFixed(2)).join(' ')})`,
  )
}
