/** server/http*.ts over real sockets. */
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { Agent, request } from 'node:http'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { Readable } from 'node:stream'
import { connect as tlsConnect } from 'node:tls'
import { expect } from 'chai'
import type { HttpPeer } from '../../server/module.ts'
import { WebServer } from '../helpers/web.ts'

const text = (body: string) => () => body

describe('http', () => {
  describe('routes', () => {
    it('answer for their host only, those of the server for all hosts', async () => {
      await using web = await WebServer.start({ hosts: ['a.example', 'b.example', 'bücher.example'] })
      web.http('a.example').route({ method: 'GET', path: '/x', handle: text('a') })
      web.http('bücher.example').route({ method: 'GET', path: '/x', handle: text('ü') })
      web.http('').route({ method: 'GET', path: '/x', handle: text('all') })
      const cases = [
        ['a.example', 'a'],
        ['A.Example.', 'a'],
        ['a.example:5280', 'a'],
        ['b.example', 'all'],
        ['xn--bcher-kva.example', 'ü'],
        ['localhost:1', 'a'],
        ['127.0.0.1:5280', 'a'],
        ['[::1]:5280', 'a'],
      ] as const
      for (const [host, body] of cases)
        expect(await web.ask('/x', { headers: { host } }), host).to.include({ status: 200, body })
      for (const host of ['evil.example', 'x.a.example', 'a.example.evil', 'a.example@evil', ':80', '[::1'])
        expect((await web.ask('/x', { headers: { host } })).status, host).to.equal(421) // RFC 9110 §15.5.20
    })

    it('have parameters, queries and every method; others get 404, or 405 with Allow', async () => {
      await using web = await WebServer.start()
      const http = web.http('a.example')
      http.route({
        method: 'GET',
        path: '/u/:id/f/*',
        handle: (req) => ({ params: req.params, query: req.query }),
      })
      for (const method of ['PUT', 'POST', 'DELETE', 'OPTIONS', 'HEAD'] as const)
        http.route({
          method,
          path: '/m',
          handle: (_, reply) => reply.code(201).header('x-method', method).send('ok'),
        })
      const found = await web.ask('/u/a%20b/f/c/d%2Fe?q=1&r=%C3%BC')
      expect(JSON.parse(found.body)).to.deep.equal({
        params: { id: 'a b', '*': 'c/d/e' },
        query: { q: '1', r: 'ü' },
      })
      for (const method of ['PUT', 'POST', 'DELETE', 'OPTIONS', 'HEAD'])
        expect((await web.ask('/m', { method })).headers['x-method']).to.equal(method)
      const not = await web.ask('/m')
      expect(not).to.include({ status: 405, body: 'Method not allowed\n' })
      expect(not.headers.allow).to.equal('HEAD, POST, PUT, DELETE, OPTIONS')
      expect((await web.ask('/m', { headers: { host: 'b.example' } })).status).to.equal(404)
      for (const path of ['/', '/u/1/f', '/M', '/m/', '//m', '/%zz', '/m%00'])
        expect((await web.ask(path)).status, path).to.be.oneOf([400, 404])
      expect((await web.ask('/m', { method: 'PATCH' })).status).to.be.oneOf([404, 405])
    })

    it('are gone when their module is unloaded, and can be set up again', async () => {
      await using web = await WebServer.start()
      for (let round = 0; round < 3; round++) {
        const { http, dispose } = web.server.httpFor('m', 'a.example')
        http.route({ method: 'GET', path: '/x', handle: text('x') })
        http.route({ method: 'PUT', path: '/x', handle: text('x') })
        http.files('/f', web.folder, { index: 'index.html' })
        http.upgrade('/ws', (_req, socket) => void socket.end('HTTP/1.1 101 OK\r\n\r\n'))
        http.link({ rel: 'r', path: '/x', scheme: 'http' })
        expect((await web.ask('/x')).status).to.equal(200)
        expect((await web.raw(upgradeRequest('/ws'))).slice(0, 12)).to.equal('HTTP/1.1 101')
        dispose()
        expect((await web.ask('/x')).status).to.equal(404)
        expect((await web.ask('/x', { method: 'PUT', headers: { 'content-length': '0' } })).status).to.equal(
          404,
        )
        expect((await web.ask('/f/a.example.crt')).status).to.equal(404)
        expect((await web.raw(upgradeRequest('/ws'))).slice(0, 12)).to.equal('HTTP/1.1 404')
        expect(http.links('a.example')).to.deep.equal([])
      }
    })

    it('have one owner', async () => {
      await using web = await WebServer.start()
      web.http('a.example', 'first').route({ method: 'GET', path: '/x', handle: text('x') })
      const second = web.http('a.example', 'second')
      const again = () => second.route({ method: 'GET', path: '/x', handle: text('y') })
      expect(again).to.throw('module second: GET /x on a.example belongs to module first already')
      web.http('', 'first').upgrade('/ws', () => undefined)
      const upgradeAgain = () => web.http('', 'second').upgrade('/ws', () => undefined)
      expect(upgradeAgain).to.throw('module second: upgrade /ws belongs to module first already')
      web.http('b.example', 'second').route({ method: 'GET', path: '/x', handle: text('y') })
      expect((await web.ask('/x', { headers: { host: 'b.example' } })).body).to.equal('y')
    })

    it('may answer with text, bytes, JSON, a stream, nothing, or by the reply', async () => {
      await using web = await WebServer.start()
      const http = web.http()
      http.route({ method: 'GET', path: '/text', handle: text('grüß') })
      http.route({ method: 'GET', path: '/bytes', handle: () => new Uint8Array([0x68, 0x69]) })
      http.route({ method: 'GET', path: '/json', handle: () => Promise.resolve({ a: 1 }) })
      http.route({ method: 'GET', path: '/stream', handle: () => Readable.from(['a', 'b']) })
      http.route({ method: 'GET', path: '/nothing', handle: () => undefined })
      http.route({
        method: 'GET',
        path: '/reply',
        handle: (_, reply) => void reply.code(203).type('application/xml').send('<a/>'),
      })
      const answers = await Promise.all(
        ['text', 'bytes', 'json', 'stream', 'nothing', 'reply'].map((p) => web.ask(`/${p}`)),
      )
      expect(answers.map((a) => [a.status, a.headers['content-type'], a.body])).to.deep.equal([
        [200, 'text/plain; charset=utf-8', 'grüß'],
        [200, 'application/octet-stream', 'hi'],
        [200, 'application/json; charset=utf-8', '{"a":1}'],
        [200, undefined, 'ab'],
        [204, undefined, ''],
        [203, 'application/xml', '<a/>'],
      ])
    })

    it('that fail answer 500 without a word about why, and the log has it', async () => {
      await using web = await WebServer.start()
      const fail = () => {
        throw new Error('secret detail')
      }
      web.http('', 'faulty').route({ method: 'GET', path: '/sync', handle: fail })
      web.http('', 'faulty').route({ method: 'GET', path: '/async', handle: async () => fail() })
      for (const path of ['/sync', '/async']) {
        const answer = await web.ask(path)
        expect(answer).to.include({ status: 500, body: 'Internal server error\n' })
      }
      const lines = web.log.lines.filter((line) => line.startsWith('error request failed'))
      expect(lines).to.have.length(2)
      expect(lines[0]).to.include('"module":"faulty"')
    })
  })

  describe('bodies', () => {
    const echo = (web: WebServer, maxBody: number, body: 'buffer' | 'stream' = 'buffer') => {
      let calls = 0
      web.http().route({
        method: 'PUT',
        path: '/b',
        maxBody,
        body,
        async handle(req) {
          calls++
          if (req.body instanceof Buffer) return `buffer ${req.body.toString()}`
          let all = ''
          for await (const chunk of req.body as Readable) all += String(chunk)
          return `stream ${all}`
        },
      })
      return () => calls
    }

    for (const body of ['buffer', 'stream'] as const)
      it(`arrive as ${body} up to their limit, whatever their type says`, async () => {
        await using web = await WebServer.start()
        echo(web, 5, body)
        for (const type of [undefined, 'application/json', 'multipart/form-data; boundary=x', 'x/y']) {
          const headers = type === undefined ? {} : { 'content-type': type }
          expect((await web.ask('/b', { method: 'PUT', body: '{bad}', headers })).body).to.equal(
            `${body} {bad}`,
          )
        }
        const malformed = { 'content-type': 'nonsense' }
        expect((await web.ask('/b', { method: 'PUT', body: 'x', headers: malformed })).status).to.equal(415)
        expect((await web.ask('/b', { method: 'PUT' })).body).to.equal(`${body} `)
        const chunked = { 'transfer-encoding': 'chunked' }
        expect((await web.ask('/b', { method: 'PUT', body: '12345', headers: chunked })).body).to.equal(
          `${body} 12345`,
        )
      })

    it('beyond the limit get 413 and the end of the connection, announced or not', async () => {
      await using web = await WebServer.start()
      const calls = echo(web, 5)
      const announced = await web.raw('PUT /b HTTP/1.1\r\nHost: a.example\r\nContent-Length: 6\r\n\r\n')
      expect(announced).to.match(/^HTTP\/1\.1 413 .*\r\nThe body is larger than 5 bytes\n$/s)
      const chunked = await web.raw(
        'PUT /b HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n',
      )
      expect(chunked).to.match(/^HTTP\/1\.1 413 /)
      expect(calls()).to.equal(0)
      expect(web.log.lines.filter((line) => line.startsWith('error'))).to.deep.equal([])
    })

    it('are refused where none is expected', async () => {
      await using web = await WebServer.start()
      const calls = echo(web, 0)
      for (const header of ['Content-Length: 1', 'Transfer-Encoding: chunked']) {
        const answer = await web.raw(`PUT /b HTTP/1.1\r\nHost: a.example\r\n${header}\r\n\r\n`)
        expect(answer, header).to.match(/^HTTP\/1\.1 413 .*No body is expected here\n$/s)
      }
      expect(calls()).to.equal(0)
      expect((await web.ask('/b', { method: 'PUT' })).status).to.equal(200)
    })

    it('fail the stream of a handler beyond the limit', async () => {
      await using web = await WebServer.start()
      echo(web, 5, 'stream')
      const answer = await web.raw(
        'PUT /b HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n',
      )
      expect(answer).to.match(/^HTTP\/1\.1 413 /)
    })

    it('that never arrive whole are no error of ours', async () => {
      await using web = await WebServer.start()
      const calls = echo(web, 100)
      const socket = web.dial()
      socket.write('PUT /b HTTP/1.1\r\nHost: a.example\r\nContent-Length: 50\r\n\r\nabc')
      await once(socket, 'connect')
      await web.ask('/other') // by now the first request is being read
      socket.resetAndDestroy()
      await web.ask('/other')
      expect(calls()).to.equal(0)
      expect(web.log.lines.filter((line) => line.startsWith('error'))).to.deep.equal([])
    })
  })

  describe('headers', () => {
    it('forbid what no answer needs, and do not say what program this is', async () => {
      await using web = await WebServer.start()
      web.http().route({ method: 'GET', path: '/x', handle: text('x') })
      web.http().route({
        method: 'GET',
        path: '/own',
        handle: (_, reply) => reply.header('content-security-policy', "default-src 'self'").send('x'),
      })
      for (const path of ['/x', '/missing']) {
        const { headers } = await web.ask(path)
        expect(headers).to.include({
          'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
          'x-content-type-options': 'nosniff',
          'x-frame-options': 'DENY',
          'referrer-policy': 'no-referrer',
        })
        expect(headers).to.not.have.any.keys('server', 'x-powered-by')
      }
      expect((await web.ask('/own')).headers['content-security-policy']).to.equal("default-src 'self'")
    })

    it('are limited in size and in time', async () => {
      await using web = await WebServer.start({ maxHeaderBytes: 2000, headersTimeoutMs: 150 })
      expect(await web.raw(`GET / HTTP/1.1\r\nHost: a.example\r\nX: ${'y'.repeat(2000)}\r\n\r\n`)).to.match(
        /^HTTP\/1\.1 431 /,
      )
      expect(await web.raw('GET / HTTP/1.1\r\nHost: a.exa')).to.match(/^HTTP\/1\.1 408 /)
    })

    it('that are no HTTP get 400', async () => {
      await using web = await WebServer.start()
      expect(await web.raw('hello\r\n\r\n')).to.match(
        /^HTTP\/1\.1 400 Bad Request\r\nConnection: close\r\n\r\n$/,
      )
      expect(await web.raw('GET / HTTP/1.1\r\n\r\n'), 'no Host').to.match(/^HTTP\/1\.1 400 /)
      // RFC 9112 §6.3: both lengths at once smuggle requests
      const both =
        'POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n'
      expect(await web.raw(both)).to.match(/^HTTP\/1\.1 400 /)
    })
  })

  describe('files', () => {
    async function start() {
      const web = await WebServer.start()
      const folder = join(web.folder, 'static')
      await mkdir(join(folder, 'sub'), { recursive: true })
      await writeFile(join(folder, 'index.html'), '<p>index</p>')
      await writeFile(join(folder, 'a b%41.txt'), 'odd name')
      await writeFile(join(folder, 'sub', 'x.js'), 'let x = 1')
      await writeFile(join(folder, '.secret'), 'hidden')
      await writeFile(join(web.folder, 'outside.txt'), 'outside')
      web.http('a.example').files('/s', folder, { index: 'index.html', headers: { 'x-extra': '1' } })
      return web
    }

    it('come with type, validators and a cache rule', async () => {
      await using web = await start()
      const index = await web.ask('/s/')
      expect(index).to.include({ status: 200, body: '<p>index</p>' })
      expect(index.headers).to.include({
        'content-type': 'text/html; charset=utf-8',
        'cache-control': 'public, max-age=0',
        'x-extra': '1',
      })
      const script = await web.ask('/s/sub/x.js')
      expect(script.headers['content-type']).to.match(/^(text|application)\/javascript/)
      const { etag = '' } = script.headers
      const again = await web.ask('/s/sub/x.js', { headers: { 'if-none-match': etag } })
      expect(again).to.include({ status: 304, body: '' })
      const head = await web.ask('/s/sub/x.js', { method: 'HEAD' })
      expect(head.headers['content-length']).to.equal('9')
      const part = await web.ask('/s/sub/x.js', { headers: { range: 'bytes=4-4' } })
      expect(part).to.include({ status: 206, body: 'x' })
      expect((await web.ask('/s/a%20b%2541.txt')).body).to.equal('odd name')
      expect((await web.ask('/s/', { headers: { host: 'b.example' } })).status).to.equal(404)
    })

    it('may have a cache rule of their module', async () => {
      await using web = await start()
      const headers = { 'cache-control': 'public, max-age=31536000, immutable' }
      web.http('b.example').files('/v1/', join(web.folder, 'static'), { headers })
      const answer = await web.ask('/v1/sub/x.js', { headers: { host: 'b.example' } })
      expect(answer.headers['cache-control']).to.equal('public, max-age=31536000, immutable')
      expect((await web.ask('/v1/', { headers: { host: 'b.example' } })).status, 'no index').to.equal(404)
    })

    for (const path of [
      '/s/../outside.txt',
      '/s/%2e%2e/outside.txt',
      '/s/..%2foutside.txt',
      '/s/%252e%252e/outside.txt',
      '/s/sub/../../outside.txt',
      '/s/sub/%2e%2e/%2e%2e/outside.txt',
      '/s//etc/passwd',
      '/s/%2fetc%2fpasswd',
      '/s/..\\outside.txt',
      '/s/sub%00/x.js',
      '/s/.secret',
      '/s/%2esecret',
      '/s/sub',
      '/s/sub/',
      '/s',
      '/s/nothing',
    ])
      it(`do not answer ${path}`, async () => {
        await using web = await start()
        const socket = await web.raw(`GET ${path} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n`)
        expect(socket).to.match(/^HTTP\/1\.1 (400|403|404) /)
        expect(socket).to.not.match(/outside\n?$|hidden|root:/)
      })
  })

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

function upgradeRequest(path: string, headers = '', host = 'a.example'): string {
  return `GET ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n${headers}\r\n`
}
