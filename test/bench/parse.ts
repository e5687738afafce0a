/**
 * CPU time to turn the bytes of a message into elements, ours against ltx and sax: `node test/bench/parse.ts`.
 * Every round runs each parser in turn; the minimum of the rounds counts, so that other load on the machine hurts all alike.
 * ltx and sax take strings: the decoding that a socket needs is part of their time, as it is of ours.
 */
import LtxElement from 'ltx/lib/Element.js'
import LtxParser from 'ltx/lib/parsers/ltx.js'
import sax from 'sax'
import type { Element } from '../../server/xmpp/element.ts'
import { parseXml, Parser } from '../../server/xmpp/parser.ts'

const HEADER =
  "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"

/** What a phone sends: body, chat state, origin id, receipt request, marker. */
const MESSAGE = message(
  422,
  (body) =>
    `<message to='romeo@montague.example/orchard' type='chat' id='c6f2a8a0-9d3b-4a06' xml:lang='en'><body>${body}</body>` +
    `<active xmlns='http://jabber.org/protocol/chatstates'/><request xmlns='urn:xmpp:receipts'/>` +
    `<markable xmlns='urn:xmpp:chat-markers:0'/><origin-id xmlns='urn:xmpp:sid:0' id='c6f2a8a0-9d3b-4a06'/></message>`,
)
const CHAT = message(
  200,
  (body) =>
    `<message to='romeo@montague.example/orchard' type='chat' id='c6f2a8a0'><body>${body}</body></message>`,
)

function message(bytes: number, build: (body: string) => string): string {
  return build('Wherefore art thou? '.repeat(20).slice(0, bytes - build('').length))
}

const ROUNDS = 12
const BATCH = 10_000
const LIMITS = { maxBytes: 262_144, maxDepth: 100, maxAttrs: 100, maxName: 1000 }

interface Contestant {
  readonly name: string
  /** Parses one message more. */
  parse(data: Buffer): void
  /** How many messages have been delivered. */
  count(): number
}

function ours(name: string, use: (el: Element) => boolean): Contestant {
  let count = 0
  const element = (el: Element) => {
    if (use(el)) count++
  }
  const parser = new Parser({ open() {}, element, close() {} }, LIMITS)
  parser.write(Buffer.from(HEADER))
  return { name, parse: (data) => parser.write(data), count: () => count }
}

function oursDocument(): Contestant {
  let count = 0
  const parse = (data: Buffer) => {
    if (parseXml(data).name === 'message') count++
  }
  return { name: 'hermod, document by document', parse, count: () => count }
}

/** As @xmpp/xml builds its elements. */
function ltx(name: string, use: (el: LtxElement) => boolean): Contestant {
  let count = 0
  let cursor: LtxElement | undefined
  const parser = new LtxParser()
  parser.on('startElement', (tag, attrs) => {
    const element = new LtxElement(tag, attrs)
    if (tag === 'stream:stream') return
    cursor?.append(element)
    cursor = element
  })
  parser.on('endElement', () => {
    const done = cursor
    cursor = done?.parent ?? undefined
    if (done !== undefined && cursor === undefined && use(done)) count++
  })
  parser.on('text', (text) => cursor?.t(text))
  parser.write(HEADER)
  return { name, parse: (data) => parser.write(data.toString()), count: () => count }
}

interface Tree {
  readonly name: string
  readonly ns: string
  readonly attributes: Readonly<Record<string, unknown>>
  readonly children: (Tree | string)[]
  readonly parent: Tree | undefined
}

function saxStrict(): Contestant {
  let count = 0
  let cursor: Tree | undefined
  const parser = sax.parser(true, { xmlns: true })
  parser.onopentag = (tag) => {
    if (!('local' in tag) || tag.local === 'stream') return
    const tree: Tree = {
      name: tag.local,
      ns: tag.uri,
      attributes: tag.attributes,
      children: [],
      parent: cursor,
    }
    cursor?.children.push(tree)
    cursor = tree
  }
  parser.onclosetag = () => {
    if (cursor?.name === 'message') count++
    cursor = cursor?.parent
  }
  parser.ontext = (text) => cursor?.children.push(text)
  parser.write(HEADER)
  return {
    name: 'sax, strict with namespaces',
    parse: (data) => void parser.write(data.toString()),
    count: () => count,
  }
}

function measure(data: Buffer): ReadonlyMap<string, number> {
  const from = 'juliet@capulet.example/balcony'
  const contestants = [
    ours('hermod', (el) => el.name === 'message'),
    oursDocument(),
    ltx('ltx', (el) => el.name === 'message'),
    saxStrict(),
    ours('hermod, and written with a new from', (el) => {
      return Buffer.from(el.withAttrs({ from }).toString('jabber:client')).length > data.length
    }),
    ltx('ltx, and written with a new from', (el) => {
      el.attrs['from'] = from
      return Buffer.from(el.toString()).length > data.length
    }),
  ]
  const best = new Map<string, number>()
  for (let round = 0; round < ROUNDS; round++) {
    for (const contestant of contestants) {
      const before = contestant.count()
      const start = process.cpuUsage()
      for (let i = 0; i < BATCH; i++) contestant.parse(data)
      const { user, system } = process.cpuUsage(start)
      if (contestant.count() - before !== BATCH) throw new Error(`${contestant.name} lost messages`)
      const micros = (user + system) / BATCH
      best.set(contestant.name, Math.min(micros, best.get(contestant.name) ?? micros))
    }
  }
  return best
}

for (const text of [MESSAGE, CHAT]) {
  const data = Buffer.from(text)
  const best = measure(data)
  console.log(`message of ${data.length} bytes, us each:`)
  for (const [name, micros] of best) {
    const reference = best.get(name.includes('written') ? 'ltx, and written with a new from' : 'ltx') ?? 0
    console.log(
      `  ${micros.toFixed(2).padStart(6)}  ${name.padEnd(40)} throughput ${(reference / micros).toFixed(2)} times that of ltx`,
    )
  }
}
