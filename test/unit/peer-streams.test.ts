/** RFC 6120 §4: streams that a module runs itself; what happens to output that has not left when they end. */
import { expect } from 'chai'
import type { Log, PeerLimits, PeerStream, PeerStreamRules } from '../../server/module.ts'
import { ModuleStreams } from '../../server/peer-streams.ts'
import type { Element } from '../../server/xmpp/element.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { VirtualClock } from '../helpers/clock.ts'
import { header } from '../helpers/component.ts'
import { PipeTransport } from '../helpers/host.ts'
import { settle } from '../helpers/settle.ts'
import { messageOf } from '../helpers/stream-rig.ts'

const limits: PeerLimits = {
  maxBytesBefore: 10_000,
  maxBytes: 100_000,
  maxDepth: 20,
  bytesPerSecond: 0,
  burstBytes: 0,
  maxQueueBytes: 100_000,
  handshakeTimeoutMs: 10_000,
  maxPerAddress: 10,
  maxNewPerMinute: 10,
}

/** A transport that says by itself how much it has not given to the kernel. */
class Slow extends PipeTransport {
  left = 0
  override get buffered(): number {
    return this.left
  }
}

/** Streams whose peer is known at once, and what they tell. */
function rig(more: Partial<PeerStreamRules> = {}) {
  const clock = new VirtualClock()
  const told: string[] = []
  const logged: string[] = []
  const line = (message: string): void => void logged.push(message)
  const log: Log = { debug: () => undefined, info: line, warn: line, error: line }
  const rules: PeerStreamRules = {
    contentNs: NS.COMPONENT,
    name: 'example.org',
    limits,
    header(s) {
      s.sendHeader({ from: 'example.org' })
      s.establish()
    },
    element: (_s, element) => void told.push(`${element.name} ${element.ns}`),
    closed: (_s, reason, unsent) =>
      void told.push(
        `closed ${reason}: ${Array.from(unsent, (e: Element) => e.getChildText('body')).join(' ')}`,
      ),
    ...more,
  }
  const streams = new ModuleStreams(rules, { clock, log })
  const open = async (transport = new Slow({})): Promise<{ transport: Slow; stream: PeerStream }> => {
    const stream = streams.accept(transport)
    transport.feed(header())
    await settle()
    return { transport, stream }
  }
  return { clock, told, logged, streams, open }
}

describe('peer-streams', () => {
  it('what the kernel has taken does not come back when the connection is lost', async () => {
    const { told, open } = rig()
    const { transport, stream } = await open()
    stream.send(messageOf('1'))
    await settle()
    transport.destroy()
    await settle()
    expect(told).to.deep.equal(['closed lost: '])
  })

  it('what it has not taken comes back, and what was gathered in this turn', async () => {
    const { told, open } = rig()
    const { transport, stream } = await open()
    stream.send(messageOf('1'))
    await settle()
    transport.left = 10
    stream.send(messageOf('2'))
    await settle()
    stream.send(messageOf('3'))
    transport.sink?.closed(undefined)
    expect(told).to.deep.equal(['closed lost: 2 3'])
  })

  it('a peer that is always a little behind does not make us keep what it has', async () => {
    const { told, open } = rig()
    const { transport, stream } = await open()
    transport.left = 100 // about two messages
    for (let i = 0; i < 50; i++) {
      stream.send(messageOf(`${i}`))
      await settle()
    }
    transport.destroy()
    await settle()
    expect(told).to.deep.equal(['closed lost: 47 48 49'])
  })

  it('it is looked again whether it has left', async () => {
    const { clock, told, open } = rig()
    const { transport, stream } = await open()
    transport.left = 10
    stream.send(messageOf('1'))
    await settle()
    await clock.advance(2_500)
    transport.left = 0
    await clock.advance(1_000)
    transport.destroy()
    await settle()
    expect(told).to.deep.equal(['closed lost: '])
  })

  it('a block of the queue that was written and has not left comes back too, each stanza once and in order', async () => {
    const { told, open } = rig()
    const { transport, stream } = await open()
    transport.blocked = true
    transport.left = 1e9
    for (let i = 0; i < 30; i++) {
      stream.send(messageOf(`${i}`.padEnd(2000, '.')))
      await settle()
    }
    transport.sink?.drain() // a block is written, which fills it again
    await settle()
    const written = transport.written.join('').match(/<message>/g)?.length ?? 0
    expect(written).to.be.greaterThan(1).and.to.be.lessThan(30)
    transport.destroy()
    await settle()
    const back = told.at(-1)?.replace('closed lost: ', '').split(' ').map(Number.parseFloat)
    expect(back).to.deep.equal(Array.from({ length: 30 }, (_, i) => i))
  })

  it('an orderly end is not a loss', async () => {
    const { told, open } = rig()
    const { transport, stream } = await open()
    transport.left = 10
    stream.send(messageOf('1'))
    await settle()
    stream.close('reset')
    expect(told).to.deep.equal(['closed reset: '])
    expect(stream.send(messageOf('2'))).to.equal(false)
  })

  it('stanzas arrive in jabber:client, other elements as they are', async () => {
    const { told, open } = rig()
    const { transport } = await open()
    transport.feed(`<message/><iq/><other/><message xmlns='jabber:client'/>`)
    await settle()
    expect(told).to.deep.equal([
      'message jabber:client',
      'iq jabber:client',
      'other jabber:component:accept',
      'message jabber:client',
    ])
  })

  it('RFC 6120 §4.9.3.8: what a handler did not mean to throw is our fault, and logged', async () => {
    for (const element of [
      (): never => {
        throw new Error('bug')
      },
      () => Promise.reject(new Error('bug')),
    ]) {
      const { told, logged, open } = rig({ element })
      const { transport } = await open()
      transport.feed('<message/>')
      await settle()
      expect(told).to.deep.equal(['closed internal-server-error: '])
      expect(logged).to.deep.equal(['stream failed'])
    }
  })

  it('close: waits for what was begun, and takes nothing new', async () => {
    const gate = Promise.withResolvers<void>()
    const { told, streams, open } = rig({ element: () => gate.promise })
    const { transport } = await open()
    transport.feed('<message/>')
    await settle()
    const closed = streams.close()
    await settle()
    expect(told).to.deep.equal([])
    gate.resolve()
    await closed
    expect(told).to.deep.equal(['closed system-shutdown: '])
    const late = new Slow({})
    streams.accept(late)
    await settle()
    expect(late.written.join('')).to.contain('<system-shutdown xmlns=')
    expect(streams.size).to.equal(0)
  })

  it('RFC 6120 §4.4: the peer closes: what it sent before is handled, then the stream ends', async () => {
    const { told, open } = rig()
    const { transport } = await open()
    transport.feed('<message/></stream:stream>')
    await settle()
    expect(told).to.deep.equal(['message jabber:client', 'closed closed: '])
    expect(transport.written.join('')).to.match(/<\/stream:stream>$/)
  })
})
