/** server/net.ts over real sockets: connections, flow, the end, the PROXY protocol. TLS: net-tls.test.ts. */
import { once } from 'node:events'
import { connect } from 'node:net'
import { expect } from 'chai'
import { HandClock, listening } from '../helpers/listening.ts'
import { listenTcp } from '../../server/net.ts'
import { Accepted } from '../helpers/sink.ts'

describe('net', () => {
  const { start, gone, received, secure, log, open, tls } = listening()

  it('carries text both ways and tells the address of the peer', async () => {
    const { accepted, dial } = await start()
    const client = dial()
    client.write('<hi/>')
    const sink = await accepted.sink()
    await sink.until(() => sink.text === '<hi/>')
    expect(sink.transport).to.include({ kind: 'tcp', framing: 'stream', remoteAddress: '127.0.0.1' })
    expect(sink.transport.tls).to.equal(undefined)
    expect(sink.transport.write('<grüß dich="😀"/>')).to.equal(true)
    await received(client, '<grüß dich="😀"/>')
  })

  it('listens on IPv6 and gives mapped IPv4 addresses as IPv4', async () => {
    const { accepted, dial, listener } = await start({ address: '::' })
    dial()
    const v4 = connect({ port: listener.port, host: '127.0.0.1' })
    open.push(v4)
    await accepted.sink(1)
    expect(accepted.sinks.map((s) => s.transport.remoteAddress).sort()).to.deep.equal(['127.0.0.1', '::1'])
  })

  it('says in one sentence why it cannot listen', async () => {
    const { listener } = await start()
    const error = await listenTcp(
      { address: '127.0.0.1', port: listener.port, tls: 'none' },
      tls(),
      () => undefined,
      log,
    ).catch((e: unknown) => e)
    expect(error).to.be.instanceOf(Error)
    expect(String(error)).to.equal(
      `Error: cannot listen on 127.0.0.1:${listener.port}: another program uses this port`,
    )
  })

  it('frees the port at close and leaves accepted connections alone', async () => {
    const { accepted, dial, listener } = await start()
    const client = dial()
    const sink = await accepted.sink()
    await listener.close()
    const again = await start({ port: listener.port })
    expect(again.listener.port).to.equal(listener.port)
    client.write('still here')
    await sink.until(() => sink.text === 'still here')
  })

  it('refuses connections above maxConnections', async () => {
    const { accepted, dial } = await start({ maxConnections: 1 })
    dial()
    await accepted.sink()
    const second = dial()
    await gone(second)
    expect(accepted.sinks).to.have.length(1)
    expect(log.lines.filter((line) => line.includes('too many'))).to.have.length(1)
  })

  it('tells a half-close, and can still send before it closes', async () => {
    const { accepted, dial } = await start()
    const client = dial()
    client.end('bye')
    const sink = await accepted.sink()
    await sink.until(() => sink.events.includes('ended'))
    sink.call(() => {
      sink.transport.write('bye too')
      sink.transport.end()
    })
    await received(client, 'bye too')
    await sink.until(() => sink.events.includes('closed'))
    expect(sink.events).to.deep.equal(['data', 'ended', 'closed'])
    expect(sink.error).to.equal(undefined)
    expect(sink.reentered).to.equal(false)
  })

  it('flushes everything at end() although the peer has sent what nobody reads', async () => {
    const { accepted, dial } = await start()
    const client = dial()
    client.pause()
    const sink = await accepted.sink()
    sink.transport.pause()
    client.write('x'.repeat(200_000)) // unread input: a plain close would reset the connection
    const big = `${'y'.repeat(3_000_000)}END`
    sink.call(() => {
      sink.transport.write(big)
      sink.transport.end()
    })
    let length = 0
    for await (const chunk of client.iterator({ destroyOnReturn: false })) length += Buffer.byteLength(chunk)
    expect(length).to.equal(big.length)
    client.end()
    await sink.until(() => sink.events.includes('closed'))
    expect(sink.text, 'nothing is handed on after end()').to.equal('')
    expect(sink.error).to.equal(undefined)
  })

  it('destroys a connection whose peer does not close after end()', async () => {
    const clock = new HandClock()
    const { accepted, dial } = await start({ clock, closeTimeoutMs: 5000 })
    dial()
    const sink = await accepted.sink()
    sink.transport.end()
    clock.advance(4999)
    expect(sink.events).to.deep.equal([])
    clock.advance(1)
    await sink.until(() => sink.events.includes('closed'))
  })

  it('reports a reset once', async () => {
    const { accepted, dial } = await start()
    const client = dial()
    const sink = await accepted.sink()
    client.resetAndDestroy()
    await sink.until(() => sink.events.includes('closed'))
    expect(sink.error).to.have.property('code', 'ECONNRESET')
    sink.transport.destroy()
    sink.transport.end()
    expect(sink.transport.write('x')).to.equal(false)
    await new Promise(setImmediate)
    expect(sink.events).to.deep.equal(['closed'])
  })

  it('tells start() of a connection that is gone already', async () => {
    const accepted = new Accepted()
    let late: (() => void) | undefined
    const listener = await listenTcp(
      { address: '127.0.0.1', port: 0, tls: 'none' },
      tls(),
      (transport) => {
        transport.destroy()
        late = () => accepted.accept(transport)
      },
      log,
    )
    open.push(listener)
    const client = connect(listener.port, '127.0.0.1')
    open.push(client)
    await once(client, 'close')
    await new Promise(setImmediate)
    late?.()
    const sink = await accepted.sink()
    await sink.until(() => sink.events.includes('closed'))
    expect(sink.reentered).to.equal(false)
  })

  it('pauses reading, bounds what it keeps meanwhile, and resumes', async () => {
    const { accepted, dial } = await start()
    const client = dial()
    const sink = await accepted.sink()
    sink.transport.pause()
    const total = 20_000_000
    const sent = client.write(Buffer.alloc(total, 'z'))
    expect(sent).to.equal(false)
    await new Promise(setImmediate)
    expect(sink.chunks).to.have.length(0)
    expect(client.writableLength, 'the kernel took it all').to.be.greaterThan(1_000_000)
    sink.transport.resume()
    await sink.until(() => sink.chunks.reduce((sum, chunk) => sum + chunk.length, 0) === total)
  })

  it('tells when the peer is slow, and drains', async () => {
    const { accepted, dial } = await start()
    const client = dial()
    client.pause()
    const sink = await accepted.sink()
    const results: boolean[] = []
    sink.call(() => {
      for (let i = 0; i < 100; i++) results.push(sink.transport.write('w'.repeat(100_000)))
    })
    expect(results.at(-1)).to.equal(false)
    expect(sink.transport.buffered).to.be.greaterThan(1_000_000)
    client.resume()
    await sink.until(() => sink.events.includes('drain'))
    expect(sink.transport.buffered).to.equal(0)
    expect(sink.reentered).to.equal(false)
  })

  describe('PROXY protocol', () => {
    it('takes the client address from the header, and the rest as the stream, split at every byte', async () => {
      const { accepted, dial } = await start({ proxyProtocol: true })
      const text = 'PROXY TCP4 192.0.2.7 198.51.100.1 1234 5222\r\n<stream>'
      for (let cut = 1; cut < text.length; cut++) {
        const client = dial()
        await once(client, 'connect')
        client.setNoDelay(true)
        await new Promise((resolve) => client.write(text.slice(0, cut), resolve))
        await new Promise(setImmediate)
        client.write(text.slice(cut))
        const sink = await accepted.sink(cut - 1)
        expect(sink.transport.remoteAddress).to.equal('192.0.2.7')
        await sink.until(() => sink.text === '<stream>')
        client.destroy()
      }
    })

    it('comes before TLS', async () => {
      const { accepted, dial } = await start({ proxyProtocol: true, tls: 'direct' })
      const client = dial()
      const header = Buffer.from('0d0a0d0a000d0a515549540a21110000c000020744332201', 'hex')
      // version 2, TCP over IPv4, 12 bytes of addresses
      header.writeUInt16BE(12, 14)
      client.write(Buffer.concat([header, Buffer.from('04d21466', 'hex')]))
      const secured = await secure(client)
      const sink = await accepted.sink()
      expect(sink.transport.remoteAddress).to.equal('192.0.2.7')
      secured.write('hello')
      await sink.until(() => sink.text === 'hello')
    })

    it('closes connections with a malformed, missing or late header', async () => {
      const clock = new HandClock()
      const { accepted, dial } = await start({ proxyProtocol: true, clock, handshakeTimeoutMs: 3000 })
      for (const text of ['<stream:stream>', 'PROXY TCP4 x y 1 2\r\n', `PROXY UNKNOWN ${'x'.repeat(200)}`]) {
        const client = dial()
        client.write(text)
        await gone(client)
      }
      const halfClosed = dial()
      halfClosed.end('PROXY TCP4 ')
      await gone(halfClosed)
      const silent = dial()
      const good = dial()
      good.write('PROXY UNKNOWN\r\n')
      const sink = await accepted.sink()
      expect(sink.transport.remoteAddress, 'UNKNOWN: the address of the connection').to.equal('127.0.0.1')
      clock.advance(3000)
      await gone(silent)
      expect(accepted.sinks).to.have.length(1)
    })

    it('refuses headers from others than the proxies', async () => {
      const { accepted, dial } = await start({
        proxyProtocol: true,
        proxyFrom: ['192.0.2.0/24', '2001:db8::1'],
      })
      const client = dial()
      client.write('PROXY UNKNOWN\r\n')
      await gone(client)
      expect(accepted.sinks).to.have.length(0)
    })
  })
})
