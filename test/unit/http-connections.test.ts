/** server/http*.ts over real sockets: peers behind proxies, TLS, upgrades, URLs, start and end. */
import { once } from 'node:events'
import { Agent, request } from 'node:http'
import type { Duplex } from 'node:stream'
import { connect as tlsConnect } from 'node:tls'
import { expect } from 'chai'
import type { HttpPeer } from '../../server/module.ts'
import { upgradeRequest, WebServer } from '../helpers/web.ts'

const text = (body: string) => () => body

describe('http connections', () => {
  describe('peers', () => {
    const whoami = (web: WebServer) =>
      web
        .http()
        .route({ method: 'GET', path: '/who', handle: (req) => `${req.ip} ${req.protocol} ${req.host}` })

    it('are who the connection says unless a trusted proxy says otherwise', async () => {
      const forwarded = {
        'x-forwarded-for': '192.0.2.1',
        'x-forwarded-proto': 'https',
        'x-forwarded-host': 'b.example',
      }
      await using plain = await WebServer.start()
      whoami(plain)
      expect((await plain.ask('/who', { headers: forwarded })).body).to.equal('127.0.0.1 http a.example')
      await using trusting = await WebServer.start({ trustedProxies: ['127.0.0.0/8'] })
      whoami(trusting)
      expect((await trusting.ask('/who', { headers: forwarded })).body).to.equal('192.0.2.1 https b.example')
      const foreign = { 'x-forwarded-host': 'evil.example' }
      expect((await trusting.ask('/who', { headers: foreign })).status).to.equal(421)
    })

    it('of upgrades have the same address, and TLS when it ends here or at a trusted proxy', async () => {
      await using web = await WebServer.start({ trustedProxies: ['127.0.0.1', '10.0.0.0/8'] })
      const peers: HttpPeer[] = []
      web.http().upgrade('/ws', (_req, socket, _head, peer) => {
        peers.push(peer)
        socket.end('HTTP/1.1 101 OK\r\n\r\n')
      })
      const ask = (headers: string) => web.raw(upgradeRequest('/ws', headers))
      await ask('')
      await ask('X-Forwarded-For: 203.0.113.9, 192.0.2.1, 10.1.1.1\r\nX-Forwarded-Proto: https\r\n')
      await ask(
        'X-Forwarded-For: spoofed, 192.0.2.2\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: http\r\n',
      )
      await ask('X-Forwarded-For: nonsense\r\n')
      expect(peers.map((p) => [p.remoteAddress, p.tls?.protocol])).to.deep.equal([
        ['127.0.0.1', undefined],
        ['192.0.2.1', 'forwarded'],
        ['192.0.2.2', undefined],
        ['127.0.0.1', undefined],
      ])
      expect(peers[1]?.tls?.channelBinding('tls-exporter')).to.equal(undefined)
      const socket = tlsConnect({
        port: web.port(1),
        host: '127.0.0.1',
        rejectUnauthorized: false,
        servername: 'b.example',
      })
      await once(socket, 'secureConnect')
      socket.write(upgradeRequest('/ws'))
      socket.resume()
      await once(socket, 'end')
      expect(peers[4]?.tls?.protocol).to.equal('TLSv1.3')
    })

    it('behind the PROXY protocol have the address of its header, with and without TLS', async () => {
      const address = '127.0.0.1'
      await using web = await WebServer.start({
        listeners: [
          { address, port: 0, tls: false, proxyProtocol: true },
          { address, port: 0, tls: true, proxyProtocol: true },
        ],
      })
      whoami(web)
      const header = 'PROXY TCP4 192.0.2.7 198.51.100.1 1234 443\r\n'
      const ask = 'GET /who HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n'
      expect(await web.raw(header + ask)).to.match(/192\.0\.2\.7 http a\.example$/)
      for (const cut of [1, 10, header.length, header.length + 5]) {
        const all = header + ask
        const socket = web.dial()
        socket.setNoDelay(true)
        await new Promise((resolve) => socket.write(all.slice(0, cut), resolve))
        await new Promise(setImmediate)
        socket.write(all.slice(cut))
        let answer = ''
        for await (const chunk of socket) answer += String(chunk)
        expect(answer, `cut at ${cut}`).to.match(/192\.0\.2\.7 http a\.example$/)
      }
      expect(await web.raw(ask)).to.equal('')
      const raw = web.dial(1)
      raw.write(header)
      const socket = tlsConnect({ socket: raw, rejectUnauthorized: false, servername: 'a.example' })
      socket.write(ask)
      let answer = ''
      for await (const chunk of socket) answer += String(chunk)
      expect(answer).to.match(/192\.0\.2\.7 https a\.example$/)
    })
  })

  describe('TLS', () => {
    it('serves each host its certificate, over HTTP/1.1', async () => {
      await using web = await WebServer.start()
      web.http().route({ method: 'GET', path: '/x', handle: (req) => `${req.protocol} ${req.host}` })
      for (const host of ['a.example', 'b.example']) {
        const answer = await web.ask('/x', { tls: true, headers: { host } })
        expect(answer.body).to.equal(`https ${host}`)
        const socket = tlsConnect({
          port: web.port(1),
          host: '127.0.0.1',
          rejectUnauthorized: false,
          servername: host,
          ALPNProtocols: ['h2', 'http/1.1'],
        })
        await once(socket, 'secureConnect')
        expect(socket.getPeerCertificate().subject.CN).to.equal(host)
        expect(socket.alpnProtocol).to.equal('http/1.1')
        socket.destroy()
      }
    })

    it('closes connections that do not come to a handshake', async () => {
      await using web = await WebServer.start({ headersTimeoutMs: 150 })
      const plain = await web.raw('GET / HTTP/1.1\r\nHost: a.example\r\n\r\n', 1)
      expect(plain).to.not.include('HTTP/')
      expect(await web.raw('', 1), 'silent').to.equal('')
      const half = web.dial(1)
      half.end('\x16\x03')
      half.resume()
      await once(half, 'close')
    })
  })

  describe('upgrades', () => {
    it('go to their path and host; others are refused', async () => {
      await using web = await WebServer.start()
      web.http('a.example').upgrade('/ws', (_req, socket, head) => {
        socket.end(`HTTP/1.1 101 OK\r\n\r\n${head.toString()}`)
      })
      expect(await web.raw(`${upgradeRequest('/ws?x=1')}early`)).to.equal('HTTP/1.1 101 OK\r\n\r\nearly')
      expect(await web.raw(upgradeRequest('/other'))).to.match(/^HTTP\/1\.1 404 Not Found\r\n/)
      expect(await web.raw(upgradeRequest('/ws', '', 'b.example'))).to.match(/^HTTP\/1\.1 404 /)
      expect(await web.raw(upgradeRequest('/ws', '', 'evil.example'))).to.match(/^HTTP\/1\.1 421 /)
    })

    it('to anything but WebSocket are not made (RFC 9110 §7.8)', async () => {
      await using web = await WebServer.start()
      web.http().route({ method: 'GET', path: '/x', handle: text('plain answer') })
      const answer = await web.raw(
        'GET /x HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n',
      )
      expect(answer).to.match(/^HTTP\/1\.1 200 .*plain answer$/s)
    })

    it('survive a reset before anybody listens to the socket', async () => {
      await using web = await WebServer.start()
      const given = new Promise<Duplex>((resolve) => {
        web.http().upgrade('/ws', (_req, socket) => resolve(socket))
      })
      const client = web.dial()
      client.write(upgradeRequest('/ws'))
      const socket = await given
      client.resetAndDestroy()
      socket.resume()
      await new Promise((resolve) => socket.on('close', resolve))
    })
  })

  describe('urls', () => {
    it('are those of the listeners, TLS first, once for each port', async () => {
      await using web = await WebServer.start({
        hosts: ['a.example', 'bücher.example', '[2001:db8::1]'],
        listeners: [
          { address: '127.0.0.1', port: 0, tls: false },
          { address: '127.0.0.1', port: 0, tls: true },
        ],
      })
      const [plain, secure] = [web.port(0), web.port(1)]
      const http = web.http()
      expect(http.urls('a.example')).to.deep.equal([
        `https://a.example:${secure}`,
        `http://a.example:${plain}`,
      ])
      expect(http.urls('bücher.example')[0]).to.equal(`https://xn--bcher-kva.example:${secure}`)
      expect(http.urls('[2001:db8::1]')[0]).to.equal(`https://[2001:db8::1]:${secure}`)
      http.link({ rel: 'ws', path: '/ws', scheme: 'ws' })
      web.http('a.example').link({ rel: 'bosh', path: '/bosh', scheme: 'http' })
      expect(http.links('a.example')).to.deep.equal([
        { rel: 'bosh', href: `https://a.example:${secure}/bosh` },
        { rel: 'ws', href: `wss://a.example:${secure}/ws` },
        { rel: 'bosh', href: `http://a.example:${plain}/bosh` },
        { rel: 'ws', href: `ws://a.example:${plain}/ws` },
      ])
      expect(http.links('bücher.example').map((l) => l.rel)).to.deep.equal(['ws', 'ws'])
    })

    it('are the public ones where they are configured, and requests may ask for their names', async () => {
      await using web = await WebServer.start({
        publicUrls: { 'a.example': ['http://chat.example:81/', 'https://chat.example/xmpp/'] },
      })
      const http = web.http()
      expect(http.urls('a.example')).to.deep.equal(['https://chat.example/xmpp', 'http://chat.example:81'])
      expect(http.urls('b.example')[0]).to.match(/^https:\/\/b\.example:\d+$/)
      web.http('a.example').route({ method: 'GET', path: '/x', handle: text('a') })
      expect((await web.ask('/x', { headers: { host: 'chat.example' } })).body).to.equal('a')
    })
  })

  describe('start and end', () => {
    const message = (promise: Promise<unknown>) =>
      promise.then(
        () => 'no error',
        (error: Error) => error.message,
      )

    it('says in one sentence what is wrong', async () => {
      await using web = await WebServer.start()
      const port = web.port()
      const listeners = [
        { address: '127.0.0.1', port: 0, tls: false },
        { address: '127.0.0.1', port, tls: false },
      ]
      expect(await message(WebServer.start({ listeners }))).to.equal(
        `cannot listen on 127.0.0.1:${port}: another program uses this port`,
      )
      expect(await message(WebServer.start({ trustedProxies: ['10.0.0.0/33'] }))).to.equal(
        '"10.0.0.0/33" is neither an IP address nor a network such as 10.0.0.0/8',
      )
      expect(await message(WebServer.start({ publicUrls: { 'a.example': ['chat.example'] } }))).to.equal(
        'the public URL "chat.example" is not a URL such as https://example.org',
      )
      expect(await message(WebServer.start({ publicUrls: { 'c.example': [] } }))).to.equal(
        'there are public URLs for c.example, which is no host of this server',
      )
    })

    it('lets requests that are being answered come to their end, and closes idle connections', async () => {
      await using web = await WebServer.start()
      const { promise: asked, resolve: wasAsked } = Promise.withResolvers<void>()
      const { promise: go, resolve: goOn } = Promise.withResolvers<void>()
      web.http().route({
        method: 'GET',
        path: '/slow',
        async handle() {
          wasAsked()
          await go
          return 'done'
        },
      })
      const agent = new Agent({ keepAlive: true })
      const idle = request({
        port: web.port(),
        host: '127.0.0.1',
        path: '/',
        headers: { host: 'a.example' },
        agent,
      })
      idle.end()
      const [res] = await once(idle, 'response')
      res.resume()
      const idleClosed = once(idle.socket ?? res.socket, 'close')
      const slow = web.ask('/slow')
      await asked
      const closed = web.server.close()
      await idleClosed
      goOn()
      expect((await slow).body).to.equal('done')
      await closed
      expect(await message(web.ask('/'))).to.match(/ECONNREFUSED/)
      agent.destroy()
    })
  })
})
