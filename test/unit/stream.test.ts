/** One XML stream over one transport: output in batches, input, the end (RFC 6120 §4.4, §4.6, §4.9; RFC 7395). */
import { expect } from 'chai'
import { el } from '../../server/xmpp/element.ts'
import { StreamError } from '../../server/xmpp/errors.ts'
import { PipeTransport } from '../helpers/host.ts'
import { header, openFrame, read, readFrames } from '../helpers/raw-stream.ts'
import { settle } from '../helpers/settle.ts'
import { Lingering, messageOf, rigLimits, streamRig } from '../helpers/stream-rig.ts'

const tcp = () => streamRig(new PipeTransport({}))

describe('stream: output', () => {
  it('writes what one turn of the event loop sends at once, in order', async () => {
    const { stream, transport } = tcp()
    transport.feed(header())
    for (let i = 0; i < 100; i++) stream.send(messageOf(String(i)))
    expect(transport.written).to.deep.equal([])
    await settle()
    expect(transport.written).to.have.length(1)
    const bodies = read(transport.written[0] ?? '').elements.map((e) => e.getChildText('body'))
    expect(bodies).to.deep.equal(Array.from({ length: 100 }, (_, i) => String(i)))
  })

  it('does not gather more than 64 KiB before it writes', () => {
    const { stream, transport } = tcp()
    transport.feed(header())
    for (let i = 0; i < 30; i++) stream.send(messageOf('x'.repeat(10_000)))
    expect(transport.written.length).to.be.greaterThan(2)
    for (const chunk of transport.written) expect(chunk.length).to.be.lessThan(80_000)
  })

  it('declares no namespace that the header has declared (§4.8.5), and keeps others', async () => {
    const { stream, transport, out } = tcp()
    transport.feed(header())
    await settle()
    out()
    stream.send(el('message', 'jabber:client', {}, el('x', 'urn:x')))
    stream.send(el('features', 'http://etherx.jabber.org/streams'))
    stream.flush()
    expect(out()).to.equal("<message><x xmlns='urn:x'/></message><stream:features/>")
  })

  it('says when the transport has had enough, and when it takes more', () => {
    const { stream, transport, owner } = tcp()
    transport.feed(header())
    transport.blocked = true
    stream.send(messageOf('1'))
    stream.flush()
    expect(stream.blocked).to.equal(true)
    expect(stream.send(messageOf('2'))).to.equal(false)
    transport.unblock()
    expect(stream.blocked).to.equal(false)
    expect(owner.told).to.include('drained')
  })

  it('sends nothing after its end', async () => {
    const { stream, transport, out } = tcp()
    transport.feed(header())
    stream.close()
    expect(stream.send(messageOf('late'))).to.equal(false)
    expect(stream.sendText('<late/>')).to.equal(false)
    await settle()
    expect(out()).to.match(/<\/stream:stream>$/)
  })
})

describe('stream: input', () => {
  it('takes white space between stanzas as a sign of life and nothing else (§4.6.1)', async () => {
    const { clock, stream, transport, owner } = tcp()
    transport.feed(header())
    await clock.advance(60_000)
    transport.feed(' \n')
    expect(stream.lastReceivedAt).to.equal(clock.now())
    expect(owner.told).to.deep.equal(['header'])
  })

  it('delivers elements that come in any pieces', () => {
    const { transport, owner } = tcp()
    for (const char of `${header()}<message><body>ψ</body></message><presence/>`) transport.feed(char)
    expect(owner.told).to.deep.equal(['header', 'element message', 'element presence'])
  })

  it('new limits hold from the next element on', async () => {
    const { stream, transport, owner, out } = tcp()
    transport.feed(header())
    owner.onElement = () => stream.setLimits({ ...rigLimits, maxBytes: 100 }, undefined)
    transport.feed(`<message>${'x'.repeat(200)}</message>`)
    transport.feed(`<message>${'x'.repeat(200)}</message>`)
    await settle()
    expect(owner.elements).to.equal(1)
    expect(read(out()).error).to.equal('policy-violation')
  })

  it('a StreamError of its owner ends it as it is', async () => {
    const { transport, owner, logged, out } = tcp()
    transport.feed(header())
    owner.onElement = () => {
      throw new StreamError('conflict', 'because')
    }
    transport.feed('<presence/>')
    await settle()
    expect(read(out()).error).to.equal('conflict')
    expect(owner.told.at(-1)).to.equal('closed conflict')
    expect(logged).to.deep.equal([])
  })

  it('a bug of its owner ends it with internal-server-error, and is logged, not told (§4.9.3.8)', async () => {
    const { transport, owner, logged, out } = tcp()
    transport.feed(header())
    owner.onElement = () => {
      throw new TypeError('secret detail')
    }
    transport.feed('<presence/>')
    await settle()
    const text = out()
    expect(read(text).error).to.equal('internal-server-error')
    expect(text).not.to.contain('secret')
    expect(logged).to.deep.equal(['stream failed'])
  })
})

describe('stream: rate limit', () => {
  const rate = { bytesPerSecond: 1000, burstBytes: 4000 }
  const stanza = `<message>${'x'.repeat(981)}</message>` // 1,000 bytes

  it('stops reading when the burst is used up, for as long as it takes to earn what was taken', async () => {
    const { clock, stream, transport, owner } = tcp()
    transport.feed(header())
    stream.setLimits(rigLimits, rate)
    for (let i = 0; i < 10; i++) transport.feed(stanza)
    expect(owner.elements).to.equal(5) // 4 of the burst, and the one that went beyond it
    expect(transport.paused).to.equal(true)
    await clock.advance(999)
    expect(owner.elements).to.equal(5)
    await clock.advance(2)
    expect(owner.elements).to.be.within(6, 7)
    await clock.advance(6000)
    expect(owner.elements).to.equal(10)
  })

  it('holds over a long time, and gives no more than the burst after a pause', async () => {
    const { clock, stream, transport, owner } = tcp()
    transport.feed(header())
    stream.setLimits(rigLimits, rate)
    for (let i = 0; i < 200; i++) transport.feed(stanza)
    await clock.advance(100_000)
    expect(owner.elements).to.be.within(100, 106)
    await clock.advance(3_600_000)
    owner.told.length = 0
    for (let i = 0; i < 10; i++) transport.feed(stanza)
    expect(owner.elements).to.equal(5)
  })

  it('does not read when the session has said pause, although the rate would allow it again', async () => {
    const { clock, stream, transport, owner } = tcp()
    transport.feed(header())
    stream.setLimits(rigLimits, rate)
    for (let i = 0; i < 6; i++) transport.feed(stanza)
    stream.pause()
    await clock.advance(60_000)
    expect(transport.paused).to.equal(true)
    stream.resume()
    await settle()
    expect(owner.elements).to.equal(6)
  })

  it('does not read when the session resumes while the rate is still exceeded', async () => {
    const { stream, transport, owner } = tcp()
    transport.feed(header())
    stream.setLimits(rigLimits, rate)
    for (let i = 0; i < 6; i++) transport.feed(stanza)
    stream.pause()
    stream.resume()
    await settle()
    expect(transport.paused).to.equal(true)
    expect(owner.elements).to.equal(5)
  })

  it('slows one stream down, not others', () => {
    const [fast, slow] = [tcp(), tcp()]
    for (const { stream, transport } of [fast, slow]) {
      transport.feed(header())
      stream.setLimits(rigLimits, rate)
    }
    for (let i = 0; i < 6; i++) slow.transport.feed(stanza)
    fast.transport.feed(stanza)
    expect(slow.transport.paused).to.equal(true)
    expect(fast.transport.paused).to.equal(false)
  })
})

describe('stream: the end (RFC 6120 §4.4)', () => {
  it('answers the closing tag with ours, after what was on its way, and closes the connection', async () => {
    const { stream, transport, owner, out } = tcp()
    transport.feed(header())
    stream.send(messageOf('last'))
    transport.feed('</stream:stream>')
    await settle()
    const { elements, ended } = read(out())
    expect(elements).to.have.length(1)
    expect(ended).to.equal(true)
    expect(transport.closed).to.equal(true)
    expect(owner.told).to.deep.equal(['header', 'input ended', 'closed closed'])
  })

  it('sends no closing tag where no header was sent', async () => {
    const { transport, owner, out } = tcp()
    transport.sink?.ended()
    await settle()
    expect(out()).to.equal('')
    expect(owner.told).to.deep.equal(['input ended', 'closed lost'])
  })

  it('sends a header first when an error comes before one (§4.9.1.2)', async () => {
    const { stream, out } = tcp()
    stream.close(new StreamError('resource-constraint'))
    await settle()
    const { header: ours, error, ended } = read(out())
    expect(ours?.attrs).to.include({ from: 'example.org', id: 'e1' })
    expect(error).to.equal('resource-constraint')
    expect(ended).to.equal(true)
  })

  it('waits for the peer to close its side, but not for ever (§4.4 rules 1 and 3)', async () => {
    const { clock, stream, transport, owner } = streamRig(new Lingering({}))
    transport.feed(header())
    await settle()
    stream.close(new StreamError('system-shutdown'))
    await settle()
    expect(transport.endedAt).to.equal(2) // the header, the error
    expect(transport.destroyed).to.equal(false)
    await clock.advance(4999)
    expect(transport.destroyed).to.equal(false)
    await clock.advance(1)
    expect(transport.destroyed).to.equal(true)
    expect(owner.told).to.deep.equal(['header', 'closed system-shutdown'])
  })

  it('takes nothing any more once it has closed its side', async () => {
    const { stream, transport, owner } = streamRig(new Lingering({}))
    transport.feed(header())
    stream.close()
    transport.feed('<message/></stream:stream>')
    transport.sink?.ended()
    transport.sink?.closed(undefined)
    await settle()
    expect(owner.told).to.deep.equal(['header', 'closed closed'])
  })

  it('is told once, with the first reason', async () => {
    const { stream, transport, owner } = tcp()
    transport.feed(header())
    stream.close(new StreamError('conflict'))
    stream.close(new StreamError('reset'))
    transport.destroy()
    await settle()
    expect(owner.told.filter((t) => t.startsWith('closed'))).to.deep.equal(['closed conflict'])
  })

  it('a lost connection is told as lost, and nothing is written to it', async () => {
    const { stream, transport, owner, out } = tcp()
    transport.feed(header())
    await settle()
    out()
    stream.send(messageOf('never'))
    transport.destroy()
    await settle()
    expect(owner.told.at(-1)).to.equal('closed lost')
    expect(stream.open).to.equal(false)
    stream.send(messageOf('later'))
    await settle()
    expect(out()).not.to.contain('later')
  })
})

describe('stream: frames (RFC 7395)', () => {
  const ws = () => streamRig(new PipeTransport({ framing: 'frames' }))

  it('sends each element in a frame of its own, complete with its namespaces (§3.3.3)', () => {
    const { stream, transport } = ws()
    transport.feed(openFrame())
    stream.send(messageOf('1'))
    stream.send(el('features', 'http://etherx.jabber.org/streams'))
    const { header: ours, elements } = readFrames(transport.written)
    expect(ours?.attrs['id']).to.equal('i1')
    expect(elements.map((e) => e.getNS())).to.deep.equal([
      'jabber:client',
      'http://etherx.jabber.org/streams',
    ])
    expect(transport.written).to.have.length(3)
  })

  it('answers <close/> with <close/> (§3.6)', async () => {
    const { transport, owner } = ws()
    transport.feed(openFrame())
    transport.feed("<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>")
    await settle()
    expect(readFrames(transport.written).ended).to.equal(true)
    expect(transport.closed).to.equal(true)
    expect(owner.told).to.deep.equal(['header', 'input ended', 'closed closed'])
  })

  it('reads frames of bytes as UTF-8, and nothing else (§3.2)', () => {
    const { transport, owner } = ws()
    transport.sink?.data(Buffer.from(openFrame()))
    transport.sink?.data(Buffer.from("<message xmlns='jabber:client'>ψ</message>"))
    expect(owner.told).to.deep.equal(['header', 'element message'])
    transport.sink?.data(Buffer.from([0x3c, 0xff, 0x3e]))
    expect(readFrames(transport.written).error).to.equal('unsupported-encoding')
  })

  it('holds each frame to the size limit', () => {
    const { transport } = ws()
    transport.feed(openFrame())
    transport.feed(`<message xmlns='jabber:client'>${'x'.repeat(200_000)}</message>`)
    expect(readFrames(transport.written).error).to.equal('policy-violation')
  })
})
