/**
 * What a login costs: stream, SCRAM-SHA-256, stream, binding, roster, presence, over a pipe, with the default modules that take part.
 * `node test/bench/login.ts` prints microseconds per login, the lowest of several rounds. The client's few hashes are in the figure; its
 * PBKDF2 is not (it is computed once).
 */
import { createHash, createHmac, pbkdf2Sync } from 'node:crypto'
import { findModules } from '../../server/catalog.ts'
import { DEFAULT_MODULES } from '../../server/default-modules.ts'
import { openMemory } from '../../server/storage/memory.ts'
import { fakeTls, type TestStream, testHost } from '../helpers/host.ts'

const LOGINS = 300
// those that need no HTTP server
const HTTP = new Set(['websocket', 'host-meta', 'web-client'])
const all = await findModules()
await using host = await testHost({
  modules: DEFAULT_MODULES.filter((name) => !HTTP.has(name)).flatMap((name) => all.get(name) ?? []),
  store: await openMemory(),
})
await host.service('auth').create('romeo', 'secret')

const hmac = (key: Buffer, text: string): Buffer => createHmac('sha256', key).update(text).digest()
const keys = new Map<string, Buffer>()
const header = `<?xml version='1.0'?><stream:stream to='example.org' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>`
const SASL = 'urn:ietf:params:xml:ns:xmpp-sasl'

/** Sends and waits for an answer that has `mark` in it. */
async function ask(stream: TestStream, text: string, mark: string): Promise<string> {
  stream.transport.feed(text)
  for (;;) {
    const answer = stream.transport.written.join('')
    if (answer.includes(mark)) {
      stream.transport.written.length = 0
      return answer
    }
    if (stream.closed) throw new Error(`the stream ended: ${answer}`)
    await new Promise(setImmediate)
  }
}

async function login(n: number): Promise<void> {
  const stream = host.stream({ tls: fakeTls, remoteAddress: `192.0.2.${n % 250}` })
  await ask(stream, header, '</stream:features>')
  const bare = `n=romeo,r=client${n}`
  const challenge = await ask(
    stream,
    `<auth xmlns='${SASL}' mechanism='SCRAM-SHA-256'>${Buffer.from(`n,,${bare}`).toString('base64')}</auth>`,
    '</challenge>',
  )
  const first = Buffer.from(/>([^<]+)<\/challenge>/.exec(challenge)?.[1] ?? '', 'base64').toString()
  const field = (name: string): string => new RegExp(`(?:^|,)${name}=([^,]*)`).exec(first)?.[1] ?? ''
  const known = keys.get(field('s'))
  const salted =
    known ?? pbkdf2Sync('secret', Buffer.from(field('s'), 'base64'), Number(field('i')), 32, 'sha256')
  keys.set(field('s'), salted)
  const clientKey = hmac(salted, 'Client Key')
  const withoutProof = `c=biws,r=${field('r')}`
  const signature = hmac(createHash('sha256').update(clientKey).digest(), `${bare},${first},${withoutProof}`)
  // oxlint-disable-next-line no-bitwise -- RFC 5802 §3: ClientProof is an exclusive or
  const proof = Buffer.from(clientKey.map((byte, i) => byte ^ (signature[i] ?? 0))).toString('base64')
  await ask(
    stream,
    `<response xmlns='${SASL}'>${Buffer.from(`${withoutProof},p=${proof}`).toString('base64')}</response>`,
    '</success>',
  )
  await ask(stream, header, '</stream:features>')
  await ask(
    stream,
    `<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>r${n}</resource></bind></iq>`,
    '</iq>',
  )
  await ask(stream, `<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq><presence/>`, `id='r'`)
  stream.transport.feed('</stream:stream>')
}

async function round(from: number): Promise<number> {
  const started = process.cpuUsage()
  for (let n = 0; n < LOGINS; n++) await login(from + n)
  const used = process.cpuUsage(started)
  return (used.user + used.system) / LOGINS
}

const rounds: number[] = []
for (let i = 0; i < 6; i++) rounds.push(await round(i * LOGINS))
console.log(
  `login: ${Math.min(...rounds).toFixed(0)} us (rounds ${rounds.map((r) => r.toFixed(0)).join(' ')})`,
)
