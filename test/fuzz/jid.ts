/**
 * Random and mutated addresses against the rules that hold for every one: `node test/fuzz/jid.ts [--seconds N] [--seed N]`.
 * A text that breaks a rule is saved in test/fuzz/corpus/jid, which test/unit/jid.test.ts runs. Exit status 1 then.
 */
import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { checkJidText, JID_CORPUS } from '../helpers/jid-rules.ts'
import { jidCacheUsage, tryJid } from '../../server/xmpp/jid.ts'

const { values } = parseArgs({
  options: { seconds: { type: 'string', default: '10' }, seed: { type: 'string', default: '' } },
})
let state = values.seed === '' ? (Date.now() % 2_147_483_646) + 1 : Number(values.seed)
console.log(`fuzz jid: seed ${state}, ${values.seconds} s`)

/** A whole number below `limit` (Park and Miller's generator, so that a seed repeats a run). */
function random(limit: number): number {
  state = (state * 48_271) % 2_147_483_647
  return state % limit
}

const pick = <T>(list: readonly T[]): T => list[random(list.length)] as T

const SEEDS = [
  'juliet@example.com/balcony',
  'fu\u00dfball@b\u00fccher.example/\u265a',
  '\u05e9\u05dc\u05d5\u05dd@\u05d0\u05d1.example/x',
  'a@xn--bcher-kva.example./r',
  'a@[fe80::1%25eth0]/r',
  'l\u00b7l@127.0.0.1',
  '\u0646\u0627\u0645\u0647\u200c\u0627\u06cc@\u4f8b\u3048\u3002\u30c6\u30b9\u30c8/\u0915\u094d\u200d\u0937',
  '\uff2a\uff35@\uff45\uff58\uff0e\uff43/e\u0301',
]
const PIECES = [
  ...Array.from(
    '@/.-_:[]% \\"&\'<>aZ09xn\u00ad\u00b7\u00df\u0130\u0131\u0301\u0344\u0345\u03a3\u03c2\u0375\u05d0\u05f3\u0627\u0640\u0661\u06f1',
  ),
  ...Array.from(
    '\u094d\u1100\u1161\u1e9e\u200b\u200c\u200d\u2028\u2163\u212a\u3000\u3002\u30fb\u3131\uac00\ufdfa\ufe0f\ufeff\uff0e\uff0f\uff20\uff9e',
  ),
  '\u{1d173}',
  '\u{1e900}',
  '\u{10ffff}',
  '\ud800',
  '\udc00',
  '\u0000',
  '--',
  'xn--',
  '::1',
  '1.2.3.4',
  '\u0315\u0300\u05ae',
]

function randomText(): string {
  let text = ''
  for (let i = random(30); i >= 0; i--) {
    const kind = random(8)
    if (kind === 0) text += String.fromCodePoint(random(0x110000))
    else if (kind === 1) text += String.fromCharCode(random(0x3000))
    else if (kind === 2) text += pick(PIECES).repeat(random(200))
    else text += pick(PIECES)
  }
  return text
}

function mutate(text: string): string {
  const chars = Array.from(text)
  for (let i = random(4); i >= 0; i--) {
    const at = random(chars.length + 1)
    const kind = random(4)
    if (kind === 0) chars.splice(at, 1)
    else if (kind === 1) chars.splice(at, 0, pick(PIECES))
    else if (kind === 2) chars[at] = pick(PIECES)
    else chars.splice(at, 0, ...chars.slice(random(at + 1), at))
  }
  return chars.join('')
}

const corpus = [
  ...SEEDS,
  ...readdirSync(JID_CORPUS).map((file) => readFileSync(`${JID_CORPUS}/${file}`, 'utf16le')),
]
const until = performance.now() + Number(values.seconds) * 1000
let runs = 0
let accepted = 0
let slowest = 0
let slowestText = ''
while (performance.now() < until) {
  for (let i = 0; i < 100; i++) {
    const kind = random(3)
    const text = kind === 0 ? randomText() : mutate(kind === 1 ? pick(corpus) : pick(SEEDS))
    const started = performance.now()
    tryJid(text)
    const took = performance.now() - started
    if (took > slowest) {
      slowest = took
      slowestText = text
    }
    try {
      if (checkJidText(text)) accepted += 1
    } catch (error) {
      mkdirSync(JID_CORPUS, { recursive: true })
      const file = `${JID_CORPUS}/${createHash('sha256').update(text, 'utf16le').digest('hex').slice(0, 16)}`
      writeFileSync(file, text, 'utf16le')
      console.error(`broken by ${JSON.stringify(text)}, saved as ${file}`, error)
      process.exit(1)
    }
    runs += 1
  }
}
const heapMb = process.memoryUsage().heapUsed / 1_048_576
const { entries } = jidCacheUsage()
console.log(
  `${runs} texts, ${accepted} addresses, slowest ${slowest.toFixed(1)} ms (${slowestText.length} units), heap ${heapMb.toFixed(0)} MB, cache ${entries}`,
)
if (heapMb > 300) {
  console.error('heap above 300 MB')
  process.exit(1)
}
