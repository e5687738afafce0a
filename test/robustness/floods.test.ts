/**
 * Input that never ends, and connections that never get on: refused at the limit and not stored first (RFC 6120 §13.12), cut off in time
 * (§4.9.3.4), as many as are allowed of one address, and afterwards all is as before.
 */
import { expect } from 'chai'
import { once } from 'node:events'
import { connect as connectTcp, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { Pair } from './pair.ts'
import { inParallel, names, PASSWORD, Stage } from './stage.ts'
import type { Wire } from './wire.ts'

const MB = 1024 * 1024
const KB64 = 'a'.repeat(65_536)

/** Feeds the same piece until the server has had enough or `bytes` were taken; the highest growth of the server's memory. */
async function feed(stage: Stage, wire: Wire, piece: string | Buffer, bytes: number): Promise<number> {
  const base = (await stage.do('memory')).used
  let highest = base
  for (let sent = 0, step = 0; sent < bytes && !wire.closed; sent += piece.length, step++) {
    // not longer than it takes for the server to close: nobody reads what comes behind an error
    await Promise.race([wire.sendAll(piece), wire.ended()])
    if (step % 40 === 0) highest = Math.max(highest, (await stage.do('memory')).used)
  }
  return Math.max(highest, (await stage.do('memory')).used) - base
}

/** What is fed: how it begins, what is repeated, and the stream errors that may come. */
const ENDLESS: readonly (readonly [what: string, start: string, piece: string, conditions: RegExp])[] = [
  ['nesting', '<message>', '<a>'.repeat(20_000), /policy-violation/],
  ['a name of an element', '<', KB64, /policy-violation/],
  ['a name of an attribute', '<message ', KB64, /policy-violation/],
  [
    'attributes',
    '<message ',
    Array.from({ length: 5000 }, (_, i) => `a${i}='x' `).join(''),
    /policy-violation|not-well-formed/,
  ],
  ['a value of an attribute', `<message a='`, KB64, /policy-violation/],
  ['text', '<message><body>', KB64, /policy-violation/],
  ['character references', '<message><body>', '&amp;'.repeat(13_000), /policy-violation/],
  ['a character reference', '<message><body>&#', '0'.repeat(65_536), /policy-violation|not-well-formed/],
  ['an entity', '<message><body>&', KB64, /policy-violation|not-well-formed|restricted-xml/],
  ['CDATA', '<message><body><![CDATA[', KB64, /policy-violation/],
  ['children', '<message>', '<a/>'.repeat(16_000), /policy-violation/],
  [
    'namespaces',
    '<message>',
    Array.from({ length: 2500 }, (_, i) => `<a xmlns:n${i}='urn:${i}'/>`).join(''),
    /policy-violation/,
  ],
  ['a comment', '<!--', KB64, /restricted-xml|policy-violation/],
  ['a processing instruction', '<?x ', KB64, /restricted-xml|policy-violation|not-well-formed/],
  ['a document type', '<!DOCTYPE x [', '<!ENTITY a "b">'.repeat(4000), /restricted-xml|not-well-formed/],
  ['white space in a tag', '<message ', ' '.repeat(65_536), /policy-violation/],
  ['a closing tag', '<message></message', ' '.repeat(65_536), /policy-violation/],
]

describe('input without end', function () {
  this.timeout(60_000)

  for (const login of [false, true])
    it(`${login ? 'after' : 'before'} login: each kind is refused at the limit with its stream error, and memory stays flat`, async () => {
      await using stage = await Stage.start({
        memoryStore: true,
        limits: { rate: '1 GiB', burst: '1 GiB', rateBeforeLogin: '1 GiB', burstBeforeLogin: '1 GiB' },
      })
      await stage.do('accounts', ['eve'], PASSWORD)
      for (const [what, start, piece, conditions] of ENDLESS) {
        const wire = login ? await stage.login('eve') : await stage.connect()
        if (!login) await wire.openStream()
        let text = wire.take()
        wire.onText = (more) => (text += more)
        wire.send(start)
        const grown = await feed(stage, wire, piece, 20 * MB)
        await wire.when(
          () => text.includes('stream:error') || wire.closed,
          () => `${what}: no stream error`,
        )
        expect(text, what).to.match(conditions)
        // an element takes more memory than its four characters
        expect(grown, `memory for ${what}`).to.be.below(8 * MB)
        wire.drop()
      }
    })

  it('before the header: a declaration, attributes or white space without end', async () => {
    await using stage = await Stage.start({
      memoryStore: true,
      limits: { rateBeforeLogin: '1 GiB', burstBeforeLogin: '1 GiB' },
    })
    for (const [what, start, piece] of [
      ['nothing but white space', '', ' '.repeat(65_536)],
      ['a declaration', '<?xml version="1.0" ', ' '.repeat(65_536)],
      ['a name', '<', KB64],
      ['attributes', '<stream:stream ', Array.from({ length: 5000 }, (_, i) => `a${i}='x' `).join('')],
      ['a value', `<stream:stream to='`, KB64],
      ['no XML', '', KB64],
    ] as const) {
      const wire = await stage.connect()
      wire.send(start)
      const grown = await feed(stage, wire, piece, 20 * MB)
      expect(grown, `memory for ${what}`).to.be.below(4 * MB)
      if (what !== 'nothing but white space') await wire.ended()
      wire.drop()
    }
  })

  it('WebSocket: fragments without end, tiny fragments, empty fragments, huge frames, pings that nobody reads the answers of', async () => {
    await using stage = await Stage.start({ memoryStore: true })
    const frame = (opcode: number, fin: boolean, payload: Buffer, declared = payload.length): Buffer => {
      const head = declared < 126 ? Buffer.from([0, 0x80 + declared]) : Buffer.alloc(10)
      if (declared >= 126) {
        head[1] = 0x80 + 127
        head.writeBigUInt64BE(BigInt(declared), 2)
      }
      head[0] = (fin ? 0x80 : 0) + opcode
      return Buffer.concat([head, Buffer.alloc(4), payload]) // a mask of zeros
    }
    const many = (one: Buffer, count: number): Buffer =>
      Buffer.concat(Array.from({ length: count }, () => one))
    for (const [what, start, piece] of [
      ['fragments', frame(1, false, Buffer.from('<a>')), frame(0, false, Buffer.alloc(60_000, 'a'))],
      ['tiny fragments', frame(1, false, Buffer.from('<')), many(frame(0, false, Buffer.from('a')), 9000)],
      ['empty fragments', frame(1, false, Buffer.from('<')), many(frame(0, false, Buffer.alloc(0)), 9000)],
      ['a huge frame', frame(1, true, Buffer.from('<a>'), 2 ** 40), Buffer.alloc(65_536, 'a')],
      ['a large frame, byte by byte', frame(1, true, Buffer.from('<a>'), 15_000), Buffer.from('a')],
    ] as const) {
      const wire = await stage.connect({ via: 'websocket' })
      await wire.openStream()
      const { socket } = wire
      const base = (await stage.do('memory')).used
      let highest = base
      socket.write(start)
      for (let step = 0; step < 300 && !socket.destroyed; step++) {
        await new Promise<void>((resolve) => socket.write(piece, () => resolve()))
        if (step % 40 === 0) highest = Math.max(highest, (await stage.do('memory')).used)
      }
      highest = Math.max(highest, (await stage.do('memory')).used)
      expect(highest - base, `memory for ${what}`).to.be.below(4 * MB)
      wire.drop()
    }
    const wire = await stage.connect({ via: 'websocket' })
    await wire.openStream()
    wire.stopReading()
    const base = (await stage.do('memory')).used
    const pings = many(frame(9, true, Buffer.alloc(125, 'p')), 5000)
    for (let step = 0; step < 60 && !wire.closed; step++) {
      const taken = new Promise<'taken'>((resolve) => wire.socket.write(pings, () => resolve('taken')))
      // the server may have stopped reading: then the kernel takes no more, which is as good
      const waited = (async () => {
        for (let i = 0; i < 20; i++) await stage.do('sessions')
      })()
      if ((await Promise.race([taken, waited])) !== 'taken') break
    }
    expect((await stage.do('memory')).used - base, 'memory for pongs').to.be.below(8 * MB)
  })
})

/** Resolves when the other side has closed. */
async function gone(socket: Socket): Promise<number> {
  const began = performance.now()
  socket.on('error', () => undefined)
  socket.resume()
  if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve))
  return performance.now() - began
}

describe('connections that never get on', function () {
  this.timeout(60_000)

  // Both mostly wait, so they do it together.
  const stuck = async (): Promise<void> => {
    await using stage = await Stage.start({
      memoryStore: true,
      limits: { loginTimeout: '2s', closeTimeout: '500ms' },
      config: { listen: { client: [{ port: 0 }, { port: 0, proxyProtocol: true } as object] } as object },
    })
    await stage.do('accounts', ['idle', 'a', 'b'], PASSWORD)
    await using pair = await Pair.start(stage.place, ['a', 'b'], PASSWORD)
    const { ports } = stage.place
    const dial = async (port: number, text = ''): Promise<Socket> => {
      const socket = connectTcp({ host: '127.0.0.1', port })
      await once(socket, 'connect')
      socket.write(text)
      return socket
    }
    const drip = (socket: Socket, bytes: Buffer): void => {
      let at = 0
      const timer = setInterval(() => {
        if (socket.destroyed || at >= bytes.length) clearInterval(timer)
        else socket.write(bytes.subarray(at, ++at))
      }, 300)
    }
    const hello = Buffer.concat([Buffer.from('1603010200010001fc0303', 'hex'), Buffer.alloc(600)])
    const waiting: Promise<readonly [string, number]>[] = []
    const add = (what: string, socket: Socket): void =>
      void waiting.push(gone(socket).then((ms) => [what, ms] as const))
    add('silent', await dial(ports.c2s))
    add('half a header', await dial(ports.c2s, `<?xml version='1.0'?><stream:str`))
    const slow = await dial(ports.c2s)
    drip(
      slow,
      Buffer.from(
        `<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xmlns='jabber:client'`.padEnd(400),
      ),
    )
    add('a header letter by letter', slow)
    add('direct TLS: silent', await dial(ports.c2sTls))
    const half = await dial(ports.c2sTls)
    drip(half, hello)
    add('direct TLS: a hello byte by byte', half)
    add('HTTP: silent', await dial(ports.http))
    add('HTTP: half a request', await dial(ports.http, 'GET / HTTP/1.1\r\nHost: loc'))
    const loris = await dial(ports.http, 'GET / HTTP/1.1\r\n')
    drip(loris, Buffer.from('X-A: b\r\n'.repeat(100)))
    add('HTTP: headers letter by letter', loris)
    add('HTTPS: silent', await dial(ports.https))
    add('HTTPS: half a handshake', await dial(ports.https, hello.subarray(0, 40).toString('latin1')))
    const secured = connectTls({
      host: '127.0.0.1',
      port: ports.c2sTls,
      servername: 'localhost',
      rejectUnauthorized: false,
    })
    await once(secured, 'secureConnect')
    add('direct TLS: silent after the handshake', secured)
    const upgrading = await stage.connect()
    await upgrading.openStream()
    upgrading.send(`<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>`)
    await upgrading.until('<proceed')
    add('STARTTLS: no handshake', upgrading.socket)
    const unbound = await stage.connect()
    await unbound.openStream()
    expect(await unbound.plain('idle', PASSWORD)).to.equal('success')
    await unbound.openStream()
    add('authenticated, not bound', unbound.socket)
    const web = await stage.connect({ via: 'websocket' })
    add('WebSocket: no header', web.socket)
    const fragment = await stage.connect({ via: 'websocket' })
    await fragment.openStream()
    fragment.socket.write(Buffer.from([0x01, 0x81, 0, 0, 0, 0, 0x3c]))
    add('WebSocket: an open fragment', fragment.socket)
    const done = await Promise.all(waiting)
    for (const [what, ms] of done) expect(ms, what).to.be.below(25_000)
    expect((await stage.do('sessions')).streams, 'the pair is still there').to.equal(2)
    expect((await pair.latencies()).median).to.be.below(100)
  }

  const idle = async (): Promise<void> => {
    await using stage = await Stage.start({
      memoryStore: true,
      limits: { loginTimeout: '15s', closeTimeout: '500ms' },
    })
    await stage.do('accounts', ['a', 'b'], PASSWORD)
    await using pair = await Pair.start(stage.place, ['a', 'b'], PASSWORD)
    const base = (await stage.do('memory')).used
    const wires = await inParallel(names('', 5000), 100, async (name) => {
      const wire = await stage.connect({ from: `127.0.${Number(name) % 50}.1` })
      wire.send(wire.header)
      return wire
    })
    // the kernel has taken them all; the server may not have yet
    for (const wire of wires) await wire.until('features')
    expect((await stage.do('sessions')).streams).to.equal(5002)
    const each = ((await stage.do('memory')).used - base) / 5000
    expect(each, 'bytes of one connection').to.be.below(24 * 1024)
    const { median, max } = await pair.latencies()
    expect(median).to.be.below(100)
    expect(max).to.be.below(3000)
    for (const wire of wires) await wire.ended()
    expect((await stage.do('sessions')).streams).to.equal(2)
    // what was closed last is held a moment longer
    const left = async (): Promise<number> => (await stage.do('memory')).used - base
    for (let i = 0; i < 20 && (await left()) > 2 * MB; i++) await stage.do('sessions')
    // a part of what they took, 5,000 times; the collector decides when the last of it goes
    expect(await left(), 'memory afterwards').to.be.below(16 * MB)
  }
  let running: { readonly stuck: Promise<void>; readonly idle: Promise<void> }
  before(() => {
    running = { stuck: stuck(), idle: idle() }
    for (const one of Object.values(running)) one.catch(() => undefined) // told by its test
  })

  it('each is closed in time: silent, half a header, half a handshake, half a request, an open fragment, no binding', () =>
    running.stuck)

  it('5,000 idle connections of many addresses cost little, others do not notice, and they end in time', () =>
    running.idle)

  it('more connections of one address than allowed are refused, also before a TLS handshake and over HTTP; another address is served', async () => {
    await using stage = await Stage.start({
      memoryStore: true,
      limits: { connectionsPerAddress: 40, loginTimeout: '30s' },
    })
    await stage.do('accounts', ['romeo'], PASSWORD)
    const { ports } = stage.place
    for (const [what, port] of [
      ['client', ports.c2s],
      ['direct TLS', ports.c2sTls],
      ['http', ports.http],
      ['https', ports.https],
    ] as const) {
      const sockets = await inParallel(names('', 120), 20, async () => {
        const socket = connectTcp({ host: '127.0.0.1', port })
        socket.on('error', () => undefined)
        socket.resume()
        await once(socket, 'connect').catch(() => undefined)
        return socket
      })
      await stage.do('sessions') // the server has seen them all
      const other = await stage.login('romeo', 'r', {
        from: '127.0.0.2',
        via: what === 'direct TLS' ? 'tls' : 'tcp',
      })
      await other.ping()
      other.drop()
      const open = (): number => sockets.filter((socket) => !socket.closed && !socket.readableEnded).length
      for (let i = 0; i < 50 && open() > 40; i++) await stage.do('sessions')
      expect(open(), `${what}: connections that stay`).to.be.at.most(40).and.at.least(30)
      for (const socket of sockets) socket.destroy()
      for (let i = 0; i < 50 && (await stage.do('sessions')).streams > 0; i++) await new Promise(setImmediate)
    }
    // and all is as before
    const again = await stage.login('romeo', 'r', { via: 'tls' })
    await again.ping()
    again.drop()
    const web = await stage.login('romeo', 'r', { via: 'websocket' })
    await web.ping()
  })
})
