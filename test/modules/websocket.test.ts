/** modules/websocket over real sockets: handshake, TLS, the end, the whole server. Messages: websocket-messages.test.ts. */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { expect } from 'chai'
import { WebSocket } from 'ws'
import { WebSocketTransport } from '../../modules/websocket/transport.ts'
import { startServer } from '../helpers/server.ts'
import { frame, handshake, OPCODE, startWebSocket as start, textOf } from '../helpers/websocket.ts'

describe('websocket', () => {
  describe('handshake', () => {
    it('is that of RFC 6455 §4.2.2 with the subprotocol xmpp (RFC 7395 §3.1), without extensions', async () => {
      await using t = await start()
      const socket = t.web.dial()
      socket.write(
        handshake({
          'Sec-WebSocket-Protocol': 'chat, xmpp',
          'Sec-WebSocket-Extensions': 'permessage-deflate',
        }),
      )
      const [chunk] = (await once(socket, 'data')) as [Buffer]
      expect(chunk.toString().split('\r\n').slice(0, -2)).to.deep.equal([
        'HTTP/1.1 101 Switching Protocols',
        'Upgrade: websocket',
        'Connection: Upgrade',
        'Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=',
        'Sec-WebSocket-Protocol: xmpp',
      ])
      const { transport } = await t.accepted.sink()
      expect(transport).to.include({
        kind: 'websocket',
        framing: 'frames',
        remoteAddress: '127.0.0.1',
        tls: undefined,
      })
    })

    for (const [what, change, status] of [
      ['without the subprotocol xmpp (RFC 7395 §3.1)', { 'Sec-WebSocket-Protocol': undefined }, '400'],
      ['with another subprotocol', { 'Sec-WebSocket-Protocol': 'XMPP, mqtt' }, '400'],
      ['without a key', { 'Sec-WebSocket-Key': undefined }, '400'],
      ['with a key of the wrong length', { 'Sec-WebSocket-Key': 'dGhlIHNhbXBsZQ==' }, '400'],
      ['of an old version (RFC 6455 §4.4)', { 'Sec-WebSocket-Version': '8' }, '426'],
      ['without a version', { 'Sec-WebSocket-Version': undefined }, '426'],
    ] as const)
      it(`is refused ${what}`, async () => {
        await using t = await start()
        const answer = await t.web.raw(handshake(change))
        expect(answer.slice(0, 12)).to.equal(`HTTP/1.1 ${status}`)
        if (status === '426') expect(answer).to.include('\r\nSec-WebSocket-Version: 13\r\n')
        expect(t.accepted.sinks).to.have.length(0)
      })

    it('is not taken for other hosts and other paths; both paths of the configuration work', async () => {
      await using t = await start()
      expect(await t.web.raw(handshake({ Host: 'evil.example' }))).to.match(/^HTTP\/1\.1 421 /)
      expect(await t.web.raw(handshake({}, '/other'))).to.match(/^HTTP\/1\.1 404 /)
      await t.connect({}, '/ws')
      await t.connect({ headers: { host: 'b.example' } })
      const plain = await t.web.ask('/xmpp-websocket')
      expect(plain).to.include({ status: 426, body: 'For WebSocket clients\n' })
    })

    it('takes a first message that comes with it', async () => {
      await using t = await start()
      t.web.dial().write(Buffer.concat([Buffer.from(handshake()), frame(OPCODE.TEXT, '<open/>')]))
      const sink = await t.accepted.sink()
      await sink.until(() => sink.text === '<open/>')
    })

    it('is taken from all web sites, or from those of the configuration and our own (RFC 6455 §10.2)', async () => {
      await using all = await start()
      await all.connect({ headers: { origin: 'https://anywhere.example' } })
      await using some = await start({ origins: ['https://chat.example'] })
      for (const headers of [{}, { origin: 'https://chat.example' }, { origin: 'https://a.example' }])
        await some.connect({ headers })
      for (const Origin of [
        'https://evil.example',
        'http://chat.example',
        'https://chat.example.evil',
        'null',
        'a.example',
      ]) {
        expect(await some.web.raw(handshake({ Origin })), Origin).to.match(
          /^HTTP\/1\.1 403 .*may not connect\n$/s,
        )
      }
    })
  })

  describe('TLS', () => {
    it('is told with its channel bindings (RFC 7395 §3.9)', async () => {
      await using t = await start({ plaintext: 'never' })
      const { ws, sink } = await t.connect({}, '/ws', true)
      const { tls } = sink.transport
      expect(tls?.protocol).to.equal('TLSv1.3')
      const socket: unknown = Reflect.get(ws, '_socket')
      const { TLSSocket } = await import('node:tls')
      if (!(socket instanceof TLSSocket)) throw new Error('no TLS socket')
      expect(tls?.channelBinding('tls-exporter')).to.deep.equal(
        socket.exportKeyingMaterial(32, 'EXPORTER-Channel-Binding', Buffer.alloc(0)),
      )
      const served = socket.getPeerX509Certificate()?.raw ?? ''
      expect(tls?.channelBinding('tls-server-end-point')).to.deep.equal(
        createHash('sha256').update(served).digest(),
      )
    })

    it('is required unless the connection is from this machine, by default', async () => {
      await using never = await start({ plaintext: 'never' })
      expect(await never.web.raw(handshake())).to.match(/^HTTP\/1\.1 403 .*Only over TLS\n$/s)
      await using local = await start({ plaintext: 'local' }, { trustedProxies: ['127.0.0.1'] })
      for (const header of ['X-Forwarded-For', 'X-Real-IP', 'Forwarded', 'Via'])
        expect(await local.web.raw(handshake({ [header]: '127.0.0.1' })), header).to.match(/^HTTP\/1\.1 403 /)
      const { sink } = await local.connect()
      expect(sink.transport.tls, 'no page of this machine').to.equal(undefined)
      const behind = await local.connect({
        headers: { 'x-forwarded-proto': 'https', 'x-forwarded-for': '192.0.2.1' },
      })
      expect(behind.sink.transport.remoteAddress).to.equal('192.0.2.1')
      expect(behind.sink.transport.tls?.channelBinding('tls-exporter')).to.equal(undefined)
      expect(behind.sink.transport.tls).to.not.equal(undefined)
    })

    it('is not needed for pages of this machine, which a browser shows at localhost', async () => {
      await using t = await start({ plaintext: 'local' })
      for (const origin of [
        'http://localhost:5280',
        'http://127.0.0.1',
        'http://[::1]:1',
        'http://x.localhost',
      ])
        expect((await t.connect({ headers: { origin } })).sink.transport.tls?.protocol, origin).to.equal(
          'local',
        )
      for (const origin of [
        'http://a.example',
        'http://localhost.evil.example',
        'http://evil/localhost',
        'null',
      ])
        expect((await t.connect({ headers: { origin } })).sink.transport.tls, origin).to.equal(undefined)
      await using always = await start({ plaintext: 'always' })
      expect((await always.connect({ headers: { origin: 'http://localhost' } })).sink.transport.tls).to.equal(
        undefined,
      )
    })
  })

  describe('the end', () => {
    it('by end() flushes and makes the closing handshake (RFC 7395 §3.6, RFC 6455 §7.1.2)', async () => {
      await using t = await start()
      const { ws, sink } = await t.connect()
      const got: string[] = []
      ws.on('message', (data) => got.push(textOf(data)))
      sink.call(() => {
        sink.transport.write('<close/>')
        sink.transport.end()
      })
      expect(sink.transport.write('<late/>')).to.equal(false)
      const [code] = (await once(ws, 'close')) as [number]
      expect([code, got]).to.deep.equal([1000, ['<close/>']])
      await sink.until(() => sink.events.includes('closed'))
      expect([sink.events, sink.error, sink.reentered]).to.deep.equal([['closed'], undefined, false])
    })

    it('by end() works although the client has sent what nobody reads', async () => {
      await using t = await start()
      const { ws, sink } = await t.connect()
      sink.transport.pause()
      for (let i = 0; i < 100; i++) ws.send('y'.repeat(10_000))
      await new Promise(setImmediate)
      sink.transport.end()
      await once(ws, 'close')
      await sink.until(() => sink.events.includes('closed'))
      expect(sink.events).to.deep.equal(['closed'])
    })

    it('by the client is told once, as lost or not', async () => {
      await using t = await start()
      const polite = await t.connect()
      polite.ws.close(1000)
      await polite.sink.until(() => polite.sink.events.includes('closed'))
      expect(polite.sink.error).to.equal(undefined)
      const gone = await t.connect()
      gone.ws.terminate()
      await gone.sink.until(() => gone.sink.events.includes('closed'))
      expect(gone.sink.error).to.be.instanceOf(Error)
      for (const { transport, events } of [polite.sink, gone.sink]) {
        transport.end()
        transport.destroy()
        transport.pause()
        transport.resume()
        expect(transport.write('<a/>')).to.equal(false)
        expect(events).to.deep.equal(['closed'])
      }
    })

    it('by destroy() is at once', async () => {
      await using t = await start()
      const { ws, sink } = await t.connect()
      sink.call(() => sink.transport.destroy())
      const [code] = (await once(ws, 'close')) as [number]
      expect(code).to.equal(1006)
      await sink.until(() => sink.events.includes('closed'))
      expect(sink.reentered).to.equal(false)
    })

    it('comes when the client answers no ping; control frames and messages are signs of life', async () => {
      await using t = await start({ ping: '25s', timeout: '2min' })
      const alive = await t.connect()
      const dead = await t.connect({ autoPong: false })
      let pings = 0
      dead.ws.on('ping', () => pings++)
      const { transport } = alive.sink
      if (!(transport instanceof WebSocketTransport)) throw new Error('another transport')
      for (let elapsed = 25; elapsed <= 150; elapsed += 25) {
        const pinged = transport.heard ? undefined : once(alive.ws, 'ping')
        const deadPinged = elapsed === 25 || elapsed === 150 ? undefined : once(dead.ws, 'ping')
        await t.clock.advance(25_000)
        await deadPinged
        if (pinged !== undefined) {
          await pinged
          while (!transport.heard) await new Promise(setImmediate) // until the pong is here
        }
        if (elapsed < 150) expect(dead.sink.events, `after ${elapsed} s`).to.deep.equal([])
      }
      await dead.sink.until(() => dead.sink.events.includes('closed'))
      expect(pings).to.equal(4)
      expect(alive.sink.events).to.deep.equal([])
    })

    it('comes with the module, and with 1001 (RFC 6455 §7.4.1); the paths are gone then', async () => {
      await using t = await start()
      const { ws, sink } = await t.connect()
      const closed = once(ws, 'close')
      await t.loader.unload('websocket')
      const [code] = (await closed) as [number]
      expect(code).to.equal(1001)
      await sink.until(() => sink.events.includes('closed'))
      expect(await t.web.raw(handshake())).to.match(/^HTTP\/1\.1 404 /)
      expect(t.web.http().links('a.example')).to.deep.equal([])
    })
  })

  it('announces its endpoint', async () => {
    await using t = await start({ paths: ['/chat'] })
    expect(t.web.http().links('a.example')).to.deep.equal([
      { rel: 'urn:xmpp:alt-connections:websocket', href: `wss://a.example:${t.web.port(1)}/chat` },
      { rel: 'urn:xmpp:alt-connections:websocket', href: `ws://a.example:${t.web.port(0)}/chat` },
    ])
  })

  it('carries a stream of the whole server: <open/>, features without TLS, <close/> (RFC 7395 §3.4, §3.6, §3.9)', async () => {
    await using server = await startServer()
    const url = `wss://localhost:${server.ports.https}/xmpp-websocket`
    const ws = new WebSocket(url, ['xmpp'], { ca: await readFile(server.ca), family: 4 })
    const got: string[] = []
    ws.on('message', (data) => got.push(textOf(data)))
    await once(ws, 'open')
    ws.send('<open xmlns="urn:ietf:params:xml:ns:xmpp-framing" to="localhost" version="1.0"/>')
    while (got.length < 2) await once(ws, 'message')
    expect(got[0]).to.match(/^<open xmlns=['"]urn:ietf:params:xml:ns:xmpp-framing['"]/)
    expect(got[1]).to.include('SCRAM-SHA-256-PLUS').and.not.include('xmpp-tls')
    ws.send('<close xmlns="urn:ietf:params:xml:ns:xmpp-framing"/>')
    const [code] = (await once(ws, 'close')) as [number]
    expect(code).to.equal(1000)
    expect(got.at(-1)).to.match(/^<close xmlns=['"]urn:ietf:params:xml:ns:xmpp-framing['"]\/>$/)
  })
})
