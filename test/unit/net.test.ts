/** server/net.ts over real sockets. */
import { connect, type Socket } from 'node:net'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect as tlsConnect, type ConnectionOptions, type TLSSocket } from 'node:tls'
import { expect } from 'chai'
import type { Clock } from '../../server/clock.ts'
import { type Listener, type ListenerOptions, listenTcp } from '../../server/net.ts'
import { Tls } from '../../server/tls.ts'
import { Accepted, recordingLog } from '../helpers/sink.ts'

/** Runs due timers by hand. */
class HandClock implements Clock {
  #now = 1_000_000
  readonly #timers = new Set<{ at: number; fn: () => void }>()
  now(): number {
    return this.#now
  }
  after(ms: number, fn: () => void): Disposable {
    const timer = { at: this.#now + ms, fn }
    this.#timers.add(timer)
    return { [Symbol.dispose]: () => void this.#timers.delete(timer) }
  }
  advance(ms: number): void {
    this.#now += ms
    for (const timer of [...this.#timers].filter((t) => t.at <= this.#now)) {
      this.#timers.delete(timer)
      timer.fn()
    }
  }
}

describe('net', () => {
  let folder: string
  let tls: Tls
  const log = recordingLog()
  const open: (Listener | Socket)[] = []

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'hermod-net-'))
    tls = await Tls.load({ hosts: ['a.example', 'b.example'], folder, development: true, log })
  })
  after(() => rm(folder, { recursive: true }))
  afterEach(async () => {
    for (const item of open.splice(0)) {
      if ('close' in item) await item.close()
      else item.destroy()
    }
    log.lines.length = 0
  })

  async function start(opts: Partial<ListenerOptions> = {}) {
    const accepted = new Accepted()
    const address = opts.address ?? '127.0.0.1'
    const listener = await listenTcp(
      { address, port: 0, tls: 'starttls', ...opts },
      tls,
      accepted.accept,
      log,
    )
    open.push(listener)
    const dial = (): Socket => {
      const socket = connect({ port: listener.port, host: address, allowHalfOpen: true })
      socket.on('error', () => undefined)
      open.push(socket)
      return socket
    }
    return { accepted, listener, dial }
  }

  /** Resolves when the server has closed the connection. */
  async function gone(socket: Socket): Promise<void> {
    socket.on('end', () => socket.end())
    socket.resume()
    if (!socket.destroyed) await once(socket, 'close')
  }

  async function received(socket: Socket, text: string): Promise<void> {
    let all = ''
    for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
      all += String(chunk)
      if (all.includes(text)) return
    }
    throw new Error(`ended after ${JSON.stringify(all)}`)
  }

  async function secure(socket: Socket, opts: ConnectionOptions = {}): Promise<TLSSocket> {
    const secured = tlsConnect({ socket, rejectUnauthorized: false, servername: 'a.example', ...opts })
    open.push(secured)
    await once(secured, 'secureConnect')
    return secured
  }

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
      tls,
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
      tls,
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

  describe('STARTTLS (RFC 6120 §5.4)', () => {
    it('upgrades in place: proceed goes out in plain, all else encrypted', async () => {
      const { accepted, dial } = await start()
      const client = dial()
      client.write('<starttls/>')
      const sink = await accepted.sink()
      await sink.until(() => sink.text === '<starttls/>')
      sink.call(() => {
        sink.transport.write('<proceed/>')
        sink.transport.startTls('a.example')
      })
      await received(client, '<proceed/>')
      const secured = await secure(client)
      await sink.until(() => sink.events.includes('secured'))
      expect(sink.reentered).to.equal(false)
      expect(sink.transport.tls?.protocol).to.equal('TLSv1.3')
      expect(sink.transport.tls?.cipher).to.match(/^TLS_/)
      secured.write('<secret/>')
      await sink.until(() => sink.text.endsWith('<secret/>'))
      sink.transport.write('<answer/>')
      await received(secured, '<answer/>')
      sink.transport.end()
      secured.end()
      await sink.until(() => sink.events.includes('closed'))
      expect(sink.error).to.equal(undefined)
      expect(sink.events).to.deep.equal(['data', 'secured', 'data', 'closed'])
    })

    it('takes the certificate by SNI, else by the host of the stream', async () => {
      const { accepted, dial } = await start()
      const cases = [
        [{ servername: 'a.example' }, 'b.example', 'a.example'],
        [{ servername: 'b.example' }, 'a.example', 'b.example'],
        [{ servername: '' }, 'b.example', 'b.example'],
        [{ servername: 'unknown.test' }, 'b.example', 'b.example'],
      ] as const
      for (const [index, [opts, host, served]] of cases.entries()) {
        const client = dial()
        const sink = await accepted.sink(index)
        sink.transport.startTls(host)
        const secured = await secure(client, opts)
        expect(secured.getPeerCertificate().subject.CN, JSON.stringify(opts)).to.equal(served)
        await sink.until(() => sink.events.includes('secured'))
        const x509 = secured.getPeerX509Certificate()
        const { createHash } = await import('node:crypto')
        expect(sink.transport.tls?.channelBinding('tls-server-end-point')).to.deep.equal(
          createHash('sha256')
            .update(x509?.raw ?? '')
            .digest(),
        )
      }
    })

    it('§5.4.3.3: hands on nothing that was sent in plain after <starttls/>', async () => {
      for (const paused of [false, true]) {
        const { accepted, dial } = await start()
        const client = dial()
        client.write('<starttls/>')
        const sink = await accepted.sink()
        await sink.until(() => sink.text === '<starttls/>')
        // Injected plaintext waits in the kernel, or in the socket of a paused transport.
        if (paused) sink.transport.pause()
        await new Promise((resolve) => client.write('<injected/>', resolve))
        if (paused) await new Promise(setImmediate)
        sink.transport.startTls('a.example')
        await sink.until(() => sink.events.includes('closed'))
        expect(sink.events).to.deep.equal(['data', 'closed'])
        expect(sink.text).to.equal('<starttls/>')
        expect(sink.error).to.be.instanceOf(Error)
        expect(log.lines.join()).to.include('debug TLS handshake failed {"address":"127.0.0.1"')
      }
    })

    it('sends nothing in plain while TLS is negotiated', async () => {
      const { accepted, dial } = await start()
      const client = dial()
      const sink = await accepted.sink()
      sink.transport.startTls('a.example')
      expect(sink.transport.write('<plain/>')).to.equal(false)
      const secured = await secure(client)
      await sink.until(() => sink.events.includes('secured'))
      sink.transport.write('<after/>')
      let all = ''
      for await (const chunk of secured.iterator({ destroyOnReturn: false })) {
        all += String(chunk)
        if (all.includes('<after/>')) break
      }
      expect(all).to.equal('<after/>')
    })

    it('closes once when the connection ends, fails or is destroyed in the handshake', async () => {
      const ways: ((client: Socket, sink: Awaited<ReturnType<Accepted['sink']>>) => void)[] = [
        (client) => client.end(),
        (client) => client.destroy(),
        (client) => client.resetAndDestroy(),
        (client) => client.write('not TLS at all'),
        (_, sink) => sink.transport.destroy(),
        (_, sink) => sink.transport.end(),
      ]
      for (const way of ways) {
        const { accepted, dial } = await start()
        const client = dial()
        const sink = await accepted.sink()
        sink.transport.startTls('a.example')
        await new Promise(setImmediate)
        way(client, sink)
        await sink.until(() => sink.events.includes('closed'))
        await new Promise(setImmediate)
        expect(sink.events).to.deep.equal(['closed'])
        expect(sink.reentered).to.equal(false)
      }
    })

    it('limits the time of a handshake', async () => {
      const clock = new HandClock()
      const { accepted, dial } = await start({ clock, handshakeTimeoutMs: 3000 })
      dial()
      const sink = await accepted.sink()
      sink.transport.startTls('a.example')
      clock.advance(2999)
      await new Promise(setImmediate)
      expect(sink.events).to.deep.equal([])
      clock.advance(1)
      await sink.until(() => sink.events.includes('closed'))
      expect(sink.error?.message).to.equal('the TLS handshake took too long')
    })

    it('closes on a broken record after the handshake', async () => {
      const { accepted, dial } = await start()
      const client = dial()
      const sink = await accepted.sink()
      sink.transport.startTls('a.example')
      const secured = await secure(client)
      secured.on('error', () => undefined)
      await sink.until(() => sink.events.includes('secured'))
      client.write(Buffer.from('17030300050102030405', 'hex')) // an application record that nobody encrypted
      await sink.until(() => sink.events.includes('closed'))
      expect(sink.error).to.be.instanceOf(Error)
    })
  })

  describe('direct TLS (XEP-0368 §3)', () => {
    it('accepts clients with ALPN xmpp-client and clients without ALPN', async () => {
      const { accepted, dial } = await start({ tls: 'direct' })
      for (const [index, ALPNProtocols] of [['xmpp-client'], undefined, ['h2', 'xmpp-client']].entries()) {
        const secured = await secure(dial(), ALPNProtocols === undefined ? {} : { ALPNProtocols })
        const sink = await accepted.sink(index)
        expect(sink.transport.tls?.protocol).to.equal('TLSv1.3')
        expect(secured.alpnProtocol).to.equal(ALPNProtocols === undefined ? false : 'xmpp-client')
        secured.write('<stream/>')
        await sink.until(() => sink.text === '<stream/>')
      }
    })

    it('refuses a client whose ALPN does not name xmpp-client', async () => {
      const { accepted, dial } = await start({ tls: 'direct' })
      const error = await secure(dial(), { ALPNProtocols: ['http/1.1', 'xmpp-server'] }).catch(
        (e: unknown) => e,
      )
      expect(error).to.have.property('code', 'ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL')
      expect(accepted.sinks).to.have.length(0)
    })

    it('does not hand out connections whose handshake fails or takes too long', async () => {
      const clock = new HandClock()
      const { accepted, dial } = await start({ tls: 'direct', clock, handshakeTimeoutMs: 3000 })
      const plain = dial()
      plain.write("<?xml version='1.0'?><stream:stream>")
      await gone(plain)
      const silent = dial()
      const other = await secure(dial())
      await accepted.sink() // when this one is through, the silent one is known too
      clock.advance(3000)
      await gone(silent)
      other.destroy()
      expect(accepted.sinks).to.have.length(1)
    })

    it('destroys unfinished handshakes at close', async () => {
      const { accepted, dial, listener } = await start({ tls: 'direct' })
      const silent = dial()
      await secure(dial())
      await accepted.sink()
      await listener.close()
      await gone(silent)
    })
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
