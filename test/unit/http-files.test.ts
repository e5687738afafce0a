/** Static files of server/http.ts over real sockets. */
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { expect } from 'chai'
import { WebServer } from '../helpers/web.ts'

describe('http files', () => {
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

    describe('that are compressed', () => {
      async function startCompressed() {
        const web = await WebServer.start()
        const folder = join(web.folder, 'static')
        await mkdir(join(folder, 'v1.2-x'), { recursive: true })
        await writeFile(join(folder, 'v1.2-x', 'big.min.js'), 'let x = 1;\n'.repeat(1000))
        await writeFile(join(folder, 'small.js'), 'let x = 1')
        await writeFile(join(folder, 'big.bin'), 'x'.repeat(10_000))
        await writeFile(join(folder, '.hidden.js'), 'x'.repeat(10_000))
        web.http('').files('/z', folder, { compress: true, headers: { 'cache-control': 'max-age=5' } })
        return { web, folder, [Symbol.asyncDispose]: () => web[Symbol.asyncDispose]() }
      }
      const gzip = { host: 'a.example', 'accept-encoding': 'br, gzip;q=0.5' }

      it('come so to clients that take it, with their type and a tag of their own', async () => {
        await using t = await startCompressed()
        const packed = await t.web.bytes('/z/v1.2-x/big.min.js', gzip)
        expect(packed.headers).to.include({
          'content-encoding': 'gzip',
          'content-type': 'text/javascript; charset=utf-8',
          'cache-control': 'max-age=5',
          vary: 'accept-encoding',
        })
        expect(packed.body.length).to.be.lessThan(1000)
        expect(gunzipSync(packed.body).toString()).to.equal('let x = 1;\n'.repeat(1000))
        const { etag = '' } = packed.headers
        const again = await t.web.ask('/z/v1.2-x/big.min.js', {
          headers: { ...gzip, 'if-none-match': `"x", ${etag}` },
        })
        expect(again).to.include({ status: 304, body: '' })
        const head = await t.web.ask('/z/v1.2-x/big.min.js', { method: 'HEAD', headers: gzip })
        expect(head.headers['content-length']).to.equal(String(packed.body.length))
        const plain = await t.web.ask('/z/v1.2-x/big.min.js')
        expect(plain.headers).to.include({ vary: 'accept-encoding' })
        expect(plain.headers).to.not.have.property('content-encoding')
        expect(plain.headers.etag).to.not.equal(etag)
        expect(plain.body).to.equal('let x = 1;\n'.repeat(1000))
      })

      it('are packed anew when they change', async () => {
        await using t = await startCompressed()
        const before = await t.web.bytes('/z/v1.2-x/big.min.js', gzip)
        await writeFile(join(t.folder, 'v1.2-x', 'big.min.js'), 'let y = 2;\n'.repeat(2000))
        const after = await t.web.bytes('/z/v1.2-x/big.min.js', gzip)
        expect(after.headers.etag).to.not.equal(before.headers.etag)
        expect(gunzipSync(after.body).toString()).to.equal('let y = 2;\n'.repeat(2000))
      })

      it('are the large ones of some kinds, and not parts', async () => {
        await using t = await startCompressed()
        for (const path of ['/z/small.js', '/z/big.bin'])
          expect((await t.web.bytes(path, gzip)).headers, path).to.not.have.property('content-encoding')
        const part = await t.web.ask('/z/v1.2-x/big.min.js', { headers: { ...gzip, range: 'bytes=0-2' } })
        expect(part).to.include({ status: 206, body: 'let' })
        for (const encoding of ['identity', 'gzip;q=0', 'gzip;q=0.000', 'x-gzip-not', ''])
          expect(
            (await t.web.bytes('/z/v1.2-x/big.min.js', { ...gzip, 'accept-encoding': encoding })).headers,
            encoding,
          ).to.not.have.property('content-encoding')
        for (const path of [
          '/z/.hidden.js',
          '/z/v1.2-x/..%2f..%2fa.example.crt',
          '/z/missing.js',
          '/z/v1.2-x',
        ])
          expect((await t.web.ask(path, { headers: gzip })).status, path).to.be.oneOf([403, 404])
      })
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
})
