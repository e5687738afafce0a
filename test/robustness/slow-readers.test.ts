/** Clients that do not read what they are sent (RFC 6120 §4.9.3.17, §13.12): bounded memory for each, nothing lost in silence, nobody else notices. */
import { expect } from 'chai'
import { connect as connectTcp, type Socket } from 'node:net'
import { Pair } from './pair.ts'
import { inParallel, names, PASSWORD, Stage } from './stage.ts'
import { type Wire, handshake } from './wire.ts'

const MB = 1024 * 1024
const FAST = { rate: '1 GiB', burst: '1 GiB', closeTimeout: '20s' }
const PIECE = 65_536
/** What is stored is kept in memory by the memory store, and is not sent back. */
const NO_ARCHIVE = { mam: false, offline: false }

/** Sends `count` texts one after another; resolves to the highest growth of the server's memory, when it has worked on them all. */
async function flood(
  stage: Stage,
  wire: Wire,
  count: number,
  text: (i: number) => string,
  keepUp?: (sent: number) => Promise<void>,
): Promise<number> {
  const base = (await stage.do('memory')).used
  let highest = base
  for (let i = 0, step = 0; i < count; step++) {
    let piece = ''
    for (; i < count && piece.length < PIECE; i++) piece += text(i)
    await wire.sendAll(piece)
    await keepUp?.(i)
    if (step % 50 === 49) highest = Math.max(highest, (await stage.do('memory')).used)
  }
  await wire.ping('flood')
  return Math.max(highest, (await stage.do('memory')).used) - base
}

/** Counts messages by the number in their id. */
class Seen {
  readonly times = new Map<number, number>()
  readonly #rests = new Map<Wire, string>()

  /** To be set as `onText`. */
  from(wire: Wire): (text: string) => void {
    return (text) => {
      const parts = ((this.#rests.get(wire) ?? '') + text).split('<message')
      this.#rests.set(wire, parts.pop() ?? '') // the last one may be cut
      for (const part of parts) this.#count(part)
    }
  }
  #count(part: string): void {
    const n = /^[^>]*id=["']m(\d+)["']/.exec(part)?.[1]
    if (n !== undefined) this.times.set(Number(n), (this.times.get(Number(n)) ?? 0) + 1)
  }
  /** Also what came last. */
  end(): void {
    for (const rest of this.#rests.values()) this.#count(rest)
  }
  missing(total: number): number[] {
    return Array.from({ length: total }, (_, i) => i).filter((i) => !this.times.has(i))
  }
  /** The first that came: so many had been taken by somebody else. */
  get first(): number | undefined {
    return this.times.keys().next().value
  }
  get repeated(): number[] {
    return [...this.times].filter(([, times]) => times > 1).map(([n]) => n)
  }
}

describe('slow readers', function () {
  this.timeout(60_000)

  for (const via of ['tcp', 'tls', 'websocket'] as const)
    it(`cost below 8 MB over ${via}; what they do not take goes to another resource: nothing is lost, nothing comes twice`, async () => {
      await using stage = await Stage.start({ memoryStore: true, modules: NO_ARCHIVE, limits: FAST })
      await stage.do('accounts', ['slow', 'sender', 'a', 'b'], PASSWORD)
      const slow = await stage.login('slow', 'slow', { via })
      const other = await stage.login('slow', 'other')
      for (const wire of [slow, other]) wire.sendStanza('<presence/>')
      await other.until('/slow')
      await slow.until('/other')
      const sender = await stage.login('sender')
      await using pair = await Pair.start(stage.place, ['a', 'b'], PASSWORD)
      const seen = new Seen()
      slow.take()
      slow.stopReading()
      other.onText = seen.from(other)
      const total = 30_000
      const rest = `to='slow@${stage.place.domain}/slow'><body>${'x'.repeat(900)}</body></message>`
      // The other one reads, but this process also sends: it is not to fall behind by more than the slow one has taken. That is known when
      // the first has come; until then this process is not to be far ahead of the server, however long it is kept from reading.
      let worked = 0
      const keepUp = async (sent: number): Promise<void> => {
        if (sent - worked > 500) {
          await sender.ping(`after-${sent}`)
          worked = sent
        }
        await other.when(
          () => other.closed || seen.first === undefined || sent - seen.first - seen.times.size < 4000,
          () => `${seen.times.size} of ${sent} messages came, the first is ${seen.first}`,
        )
        expect(other.closed, 'the other one is a slow reader too').to.equal(false)
      }
      const grown = await flood(
        stage,
        sender,
        total,
        (i) => `<message type='chat' id='m${i}' ${rest}`,
        keepUp,
      )
      expect((await stage.do('sessions')).bound, 'the slow session is over').to.equal(4)
      slow.onText = seen.from(slow)
      slow.startReading()
      await slow.ended()
      other.sendStanza(`<message type='chat' id='last' to='slow@${stage.place.domain}/other'/>`)
      // what the slow one got last is known at the end only
      await other.when(
        () => seen.times.size >= total - 1,
        () => `${seen.times.size} of ${total} messages came`,
      )
      seen.end()
      expect(seen.missing(total)).to.have.length(0)
      expect(seen.repeated).to.have.length(0)
      // the other one is not always as fast as the sender either
      expect(grown, 'memory of both').to.be.below(2 * 8 * MB)
      expect((await pair.latencies()).median).to.be.below(250)
    })

  it('the last resource: what it does not take comes back to its sender', async () => {
    await using stage = await Stage.start({ memoryStore: true, modules: NO_ARCHIVE, limits: FAST })
    await stage.do('accounts', ['slow', 'sender'], PASSWORD)
    const slow = await stage.login('slow')
    slow.sendStanza('<presence/>')
    await slow.ping()
    const sender = await stage.login('sender')
    slow.take()
    slow.stopReading()
    const seen = new Seen()
    const keep = seen.from(sender)
    let pinged = ''
    sender.onText = (text) => {
      keep(text)
      pinged = (pinged + text).slice(-500)
    }
    const total = 20_000
    const rest = `to='slow@${stage.place.domain}/r'><body>${'x'.repeat(900)}</body></message>`
    for (let i = 0; i < total; ) {
      let piece = ''
      for (; i < total && piece.length < PIECE; i++) piece += `<message type='chat' id='m${i}' ${rest}`
      await sender.sendAll(piece)
    }
    slow.onText = seen.from(slow)
    slow.startReading()
    await slow.ended()
    const late = (): number => total - seen.times.size
    await sender.when(
      () => late() <= 2,
      () => `${late()} are missing: ${pinged}`,
    )
    seen.end()
    expect(seen.missing(total)).to.have.length(0)
    expect(seen.repeated).to.have.length(0)
  })

  it('tiny stanzas count with what they take in memory', async () => {
    await using stage = await Stage.start({ memoryStore: true, modules: NO_ARCHIVE, limits: FAST })
    await stage.do('accounts', ['slow', 'sender'], PASSWORD)
    const slow = await stage.login('slow')
    slow.sendStanza('<presence/>')
    await slow.ping()
    slow.stopReading()
    const sender = await stage.login('sender')
    sender.onText = undefined
    const text = `<message to='slow@${stage.place.domain}/r' type='headline'/>`
    const grown = await flood(stage, sender, 150_000, () => text)
    expect(grown).to.be.below(8 * MB)
    expect((await stage.do('sessions')).bound).to.equal(1)
  })

  it('ten at once, and one that takes a byte now and then, cost below 8 MB each', async () => {
    await using stage = await Stage.start({ memoryStore: true, modules: NO_ARCHIVE, limits: FAST })
    const slow = names('slow', 10)
    await stage.do('accounts', [...slow, 'drip', 'sender', 'a', 'b'], PASSWORD)
    const wires = await inParallel(slow, 5, (name) => stage.login(name))
    for (const wire of wires) {
      wire.sendStanza('<presence/>')
      await wire.ping()
      wire.stopReading()
    }
    using _drip = await dripping(stage, 'drip')
    const sender = await stage.login('sender')
    sender.onText = () => undefined
    await using pair = await Pair.start(stage.place, ['a', 'b'], PASSWORD)
    const all = [...slow, 'drip']
    const body = `<body>${'x'.repeat(2000)}</body></message>`
    const to = (i: number): string => `${all[i % all.length] ?? ''}@${stage.place.domain}/r`
    sender.onText = undefined
    const grown = await flood(
      stage,
      sender,
      4400 * all.length,
      (i) => `<message type='headline' to='${to(i)}'>${body}`,
    )
    expect(grown / all.length, 'memory of each').to.be.below(8 * MB)
    expect((await stage.do('sessions')).bound, 'all of them are over').to.equal(3)
    expect((await pair.latencies()).median).to.be.below(250)
  })

  it('one that never reads but keeps sending costs below 12 MB', async () => {
    const PIECES = 100
    await using stage = await Stage.start({ memoryStore: true, modules: NO_ARCHIVE, limits: FAST })
    await stage.do('accounts', ['mute', 'a', 'b'], PASSWORD)
    const mute = await stage.login('mute')
    mute.stopReading()
    await using pair = await Pair.start(stage.place, ['a', 'b'], PASSWORD)
    const ping = `<iq type='get' id='x' to='${stage.place.domain}'><ping xmlns='urn:xmpp:ping'/></iq>`
    const piece = ping.repeat(Math.floor(PIECE / ping.length))
    const base = (await stage.do('memory')).used
    // the server stops reading: then the rest stays here
    for (let i = 0; i < PIECES; i++) mute.send(piece)
    for (let i = 0; i < 20; i++) expect((await stage.do('memory')).used - base).to.be.below(12 * MB)
    expect((await pair.latencies()).median).to.be.below(250)
    // and when it reads, all is there
    let answers = 0
    let end = ''
    mute.onText = (text) => {
      const all = end + text
      answers += all.split('<iq').length - 1
      end = all.slice(-2) // a tag may come in two pieces
    }
    mute.startReading()
    await mute.when(
      () => answers >= (piece.length / ping.length) * PIECES - 1,
      () => `${answers} answers`,
    )
  })
})

/** A session whose socket is read one byte at a time, some bytes a second. */
async function dripping(stage: Stage, local: string): Promise<Disposable> {
  const { ports } = stage.place
  let text = ''
  const socket: Socket = connectTcp({
    host: '127.0.0.1',
    port: ports.c2s,
    onread: {
      buffer: Buffer.alloc(1),
      callback: (_size, byte) => {
        text += Buffer.from(byte).toString('latin1')
        if (!text.includes('/r</jid>')) return true
        setTimeout(() => socket.resume(), 100)
        return false
      },
    },
  })
  socket.on('error', () => undefined)
  await handshake(socket, stage.place.domain, local, PASSWORD, () => text)
  return { [Symbol.dispose]: () => void socket.destroy() }
}
