/** server/net.ts over real sockets: STARTTLS and direct TLS. */
import { createHash } from 'node:crypto'
import type { Socket } from 'node:net'
import { expect } from 'chai'
import { HandClock, listening } from '../helpers/listening.ts'
import { Accepted } from '../helpers/sink.ts'

describe('net with TLS', () => {
  const { start, gone, received, secure, log } = listening()

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

    it('§5.4.3.1 rule 4: takes the certificate of the host that the stream header has named', async () => {
      const { accepted, dial } = await start()
      const cases = [
        [{ servername: 'a.example' }, 'a.example', 'a.example'],
        [{ servername: 'b.example' }, 'b.example', 'b.example'],
        [{ servername: 'a.example' }, 'b.example', 'b.example'],
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

    it('closes the connection where there is no TLS', async () => {
      const { accepted, dial } = await start({ tls: 'none' })
      dial()
      const sink = await accepted.sink()
      sink.call(() => sink.transport.startTls('a.example'))
      await sink.until(() => sink.events.includes('closed'))
      expect(sink.reentered).to.equal(false)
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

    it('takes the certificate by SNI, else the first', async () => {
      const { accepted, dial } = await start({ tls: 'direct' })
      for (const [index, [servername, served]] of [
        ['b.example', 'b.example'],
        ['a.example', 'a.example'],
        ['', 'a.example'],
        ['unknown.test', 'a.example'],
      ].entries()) {
        const secured = await secure(dial(), { servername })
        expect(secured.getPeerCertificate().subject.CN, servername).to.equal(served)
        const sink = await accepted.sink(index)
        const raw = secured.getPeerX509Certificate()?.raw ?? ''
        expect(sink.transport.tls?.channelBinding('tls-server-end-point')).to.deep.equal(
          createHash('sha256').update(raw).digest(),
        )
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
})
