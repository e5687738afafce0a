/** server/http*.ts over real sockets: routes, bodies, headers. Connections: http-connections.test.ts. */
import { once } from 'node:events'
import { Readable } from 'node:stream'
import { expect } from 'chai'
import { upgradeRequest, WebServer } from '../helpers/web.ts'

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
})
