/**
 * Time to turn the text of an address into a JID: `node test/bench/jid.ts`. Prints nanoseconds a call, the minimum of the rounds, and
 * the heap one cached address takes. Texts are cut out of decoded input anew for each call, as the parser does, so that hashing counts.
 */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { jidCacheUsage, makeJid, parseJid } from '../../server/xmpp/jid.ts'

const ROUNDS = 10
const COUNT = 20_000
let round = 0

/** Fresh strings, sliced out of one large text. */
function slices(text: (n: number) => string): string[] {
  const texts = Array.from({ length: COUNT }, (_, n) => text(n))
  const all = Buffer.from(texts.join('\n')).toString()
  let start = 0
  return texts.map(({ length }) => {
    const slice = all.slice(start, start + length)
    start += length + 1
    return slice
  })
}

function measure(
  name: string,
  text: (n: number) => string,
  call: (text: string) => { readonly domain: string },
): void {
  let best = Number.POSITIVE_INFINITY
  let check = 0
  for (let i = 0; i < ROUNDS; i++) {
    round += 1
    const input = slices(text)
    const start = process.hrtime.bigint()
    for (const one of input) check += call(one).domain.length
    best = Math.min(best, Number(process.hrtime.bigint() - start) / COUNT)
  }
  if (check === 0) throw new Error('nothing was parsed')
  console.log(`${name.padEnd(44)} ${best.toFixed(0).padStart(6)} ns`)
}

setFlagsFromString('--expose-gc')
const collect: () => void = runInNewContext('gc')

/** Heap of one cached address; must come first, while the cache is empty. */
function heapPerAddress(): number {
  const texts = slices((n) => `keep${n}@capulet.example/balcony`).slice(0, 10_000)
  parseJid(texts[0] ?? '')
  collect()
  const before = process.memoryUsage().heapUsed
  for (const text of texts) parseJid(text)
  collect()
  const bytes = (process.memoryUsage().heapUsed - before) / texts.length
  if (jidCacheUsage().entries !== texts.length) throw new Error('the cache was not empty')
  return bytes
}

console.log(`${'heap for a cached full address'.padEnd(44)} ${heapPerAddress().toFixed(0).padStart(6)} bytes`)
measure('cached, 1 address', () => 'juliet@capulet.example/balcony', parseJid)
measure('cached, 1000 addresses', (n) => `user${n % 1000}@capulet.example/balcony`, parseJid)
measure(
  'cached, 1000 addresses, then bare',
  (n) => `user${n % 1000}@capulet.example/balcony`,
  (text) => parseJid(text).bare,
)
measure('new, ASCII', (n) => `user${n}-${round}@capulet.example/balcony`, parseJid)
measure('new, ASCII, upper case', (n) => `User${n}-${round}@Capulet.example/balcony`, parseJid)
measure(
  'new, not ASCII, known domain',
  (n) => `b\u00fccher${n}-${round}@b\u00fccher.example/\u265a`,
  parseJid,
)
measure('new, new domain', (n) => `user@d${n}-${round}.example`, parseJid)
measure('new, new domain, not ASCII', (n) => `user@b\u00fccher${n}-${round}.example`, parseJid)
measure(
  'makeJid, cached',
  (n) => `user${n % 1000}`,
  (text) => makeJid(text, 'capulet.example'),
)
