/**
 * What the server adds to a message between two local clients: parse, hooks, routing, serialising; no sockets.
 * `node test/bench/route.ts [--pairs N] [--seconds N]` prints microseconds per message, the lowest of several rounds.
 */
import { parseArgs } from 'node:util'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { type TestClient, testHost } from '../helpers/host.ts'
import { benchModules } from './modules.ts'

const { values } = parseArgs({
  options: {
    pairs: { type: 'string', default: '50' },
    seconds: { type: 'string', default: '3' },
    bare: { type: 'boolean', default: false },
  },
})
const PER_TURN = 16
const modules = await benchModules(values.bare)
const pairs = Number(values.pairs)
await using host = await testHost({
  modules,
  accounts: Array.from({ length: pairs * 2 }, (_, i) => `user${i}`),
})
const clients: TestClient[] = []
for (let i = 0; i < pairs * 2; i++) {
  const client = await host.client(`user${i}@example.org/bench`)
  await client.send('<presence/>')
  clients.push(client)
}
const body = 'x'.repeat(100)
const chunks = clients.map((_, i) =>
  Buffer.from(
    `<message to='user${i % 2 === 0 ? i + 1 : i - 1}@example.org/bench' type='chat' id='m1'><body>${body}</body></message>`.repeat(
      PER_TURN,
    ),
  ),
)

async function round(ms: number): Promise<number> {
  let count = 0
  const started = process.cpuUsage()
  const until = performance.now() + ms
  while (performance.now() < until) {
    for (let i = 0; i < clients.length; i += 2) clients[i]?.transport.sink?.data(chunks[i] as Buffer)
    count += (clients.length / 2) * PER_TURN
    await nextTurn()
    for (const client of clients) client.transport.written.length = 0
  }
  const used = process.cpuUsage(started)
  return (used.user + used.system) / count
}

await round(500)
const rounds: number[] = []
for (let i = 0; i < 5; i++) rounds.push(await round((Number(values.seconds) * 1000) / 5))
console.log(
  `route: ${Math.min(...rounds).toFixed(2)} us a message (${modules.length} modules, ${pairs} pairs; rounds ${rounds.map((r) => r.toFixed(2)).join(' ')})`,
)
