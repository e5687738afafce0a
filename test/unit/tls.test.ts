/** server/tls.ts: which certificate serves whom, and its replacement. Connections: tls-socket.test.ts. */
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { expect } from 'chai'
import { listenTcp } from '../../server/net.ts'
import { soon, testCertificates } from '../helpers/test-certificates.ts'

describe('tls', () => {
  const { load, make, put, listenWith, message, log, open, folder: current } = testCertificates()
  let folder: string
  beforeEach(() => {
    folder = current()
  })

  describe('loading', () => {
    it('says in one sentence what is wrong with a certificate', async () => {
      const a = await make('a.example')
      const b = await make('b.example')
      const cases: [() => Promise<unknown>, string][] = [
        [
          () => Promise.resolve(),
          'there is no certificate for a.example: put it into FOLDER/a.example.crt and a.example.key, or name its files in the configuration',
        ],
        [
          () => writeFile(join(folder, 'a.example.crt'), a.cert),
          'cannot read the key of the certificate for a.example from FOLDER/a.example.key: there is no such file',
        ],
        [
          () => writeFile(join(folder, 'a.example.key'), 'secret'),
          'the key for a.example in FOLDER/a.example.key is not a private key in PEM form without a password',
        ],
        [
          () => writeFile(join(folder, 'a.example.key'), b.key),
          'the key in FOLDER/a.example.key does not belong to the certificate in FOLDER/a.example.crt',
        ],
        [
          () => writeFile(join(folder, 'a.example.crt'), 'hello'),
          'the certificate for a.example in FOLDER/a.example.crt is not a certificate in PEM form',
        ],
      ]
      for (const [prepare, sentence] of cases) {
        await prepare()
        expect(await message(load({ hosts: ['a.example'] }))).to.equal(sentence)
      }
      expect(await message(load({ hosts: ['a.example'], clientCa: join(folder, 'ca.pem') }))).to.equal(
        'cannot read the authorities for client certificates from FOLDER/ca.pem: there is no such file',
      )
      await put('a.example', a)
      expect(await message(load({ hosts: ['a.example'], clientCa: join(folder, 'a.example.key') }))).to.equal(
        'the authorities for client certificates in FOLDER/a.example.key are not certificates in PEM form',
      )
      for (const host of ['../x', 'a/b', '..', ''])
        expect(await message(load({ hosts: [host] }))).to.equal(`"${host}" cannot be the name of a host`)
    })

    it('takes named files, files by host, and the layout of certbot', async () => {
      const [a, b, d] = [await make('a.example'), await make('b.example'), await make('c.example')]
      await mkdir(join(folder, 'b.example'))
      await writeFile(join(folder, 'b.example', 'fullchain.pem'), b.cert)
      await writeFile(join(folder, 'b.example', 'privkey.pem'), b.key)
      await put('elsewhere', d)
      await put('a.example', a)
      const named = { cert: join(folder, 'elsewhere.crt'), key: join(folder, 'elsewhere.key') }
      const tls = await load({
        hosts: ['a.example', 'b.example', 'c.example'],
        perHost: new Map([['c.example', named]]),
      })
      const dial = await listenWith(tls)
      for (const servername of ['a.example', 'b.example', 'c.example']) {
        const { client } = await dial({ servername })
        expect(client.getPeerCertificate().subject.CN).to.equal(servername)
        expect(tls.notAfter(servername).getTime()).to.be.closeTo(soon(90).getTime(), 60_000)
      }
      expect(() => tls.notAfter('d.example')).to.throw('no certificate is loaded for d.example')
    })

    it('warns of certificates that are over, or soon, or name another host', async () => {
      await put('a.example', await make('other.example', { notAfter: soon(-0.5) }))
      await put('b.example', await make('b.example', { notAfter: soon(13) }))
      await put('c.example', await make('c.example', { notAfter: soon(15) }))
      await load({ hosts: ['a.example', 'b.example', 'c.example'] })
      expect(log.lines.map((line) => line.slice(0, 40))).to.deep.equal([
        'warn certificate has expired {"host":"a.',
        'warn certificate does not name its host ',
        'warn certificate expires soon {"host":"b',
      ])
    })
  })

  describe('choice of the certificate', () => {
    it('goes by name, then wildcard, then the first host', async () => {
      await put(
        'a.example',
        await make('a.example', { alsoNames: ['a.example', '*.a.example', 'www.b.example'] }),
      )
      await put('b.example', await make('b.example', { alsoNames: ['b.example', 'x.a.example'] }))
      await put('bücher.example', await make('bücher.example'))
      const tls = await load({ hosts: ['a.example', 'b.example', 'bücher.example', 'chat.a.example'] })
      const names = (host: string) => {
        for (const known of ['a.example', 'b.example', 'bücher.example'])
          if (tls.contextFor(host) === tls.contextFor(known)) return known
        return undefined
      }
      expect(names('A.Example.')).to.equal('a.example')
      expect(names('b.example')).to.equal('b.example')
      expect(names('chat.a.example')).to.equal('a.example')
      expect(names('x.a.example')).to.equal('b.example')
      expect(names('www.b.example')).to.equal('a.example')
      expect(names('other.b.example')).to.equal('a.example')
      expect(names('x.chat.a.example'), 'a wildcard is one label').to.equal('a.example')
      expect(names('xn--bcher-kva.example')).to.equal('bücher.example')
      expect(names('BÜCHER.example')).to.equal('bücher.example')
      expect(tls.notAfter('chat.a.example')).to.deep.equal(tls.notAfter('a.example'))
      const dial = await listenWith(tls)
      expect((await dial({ servername: 'y.a.example' })).client.getPeerCertificate().subject.CN).to.equal(
        'a.example',
      )
      expect(
        (await dial({ servername: 'xn--bcher-kva.example' })).client.getPeerX509Certificate()?.subject,
      ).to.include('CN=bücher.example')
    })

    it('keeps a bounded number of option objects, whatever names clients send', async () => {
      await put('a.example', await make('a.example', { alsoNames: ['*.a.example'] }))
      const tls = await load({ hosts: ['a.example'] })
      const options = tls.optionsFor('c2s', 'a.example')
      for (let i = 0; i < 10; i++) expect(tls.optionsFor('c2s', `x${i}.a.example`)).to.equal(options)
      expect(tls.optionsFor('https')).to.not.equal(options)
    })
  })

  describe('reload', () => {
    it('is all or nothing: a broken new certificate is refused and the old ones stay', async () => {
      const [a, b] = [await make('a.example'), await make('b.example')]
      await put('a.example', a)
      await put('b.example', b)
      const tls = await load({ hosts: ['a.example', 'b.example'] })
      const dial = await listenWith(tls)
      const serial = async (servername: string) =>
        (await dial({ servername })).client.getPeerCertificate().serialNumber
      const old = [await serial('a.example'), await serial('b.example')]
      await put('a.example', await make('a.example'))
      await writeFile(join(folder, 'b.example.crt'), 'half a cert')
      expect(await message(tls.reload())).to.match(
        /^the certificate for b\.example in .* is not a certificate in PEM form$/,
      )
      expect([await serial('a.example'), await serial('b.example')]).to.deep.equal(old)
      await put('b.example', await make('b.example', { notAfter: soon(-0.5) }))
      expect(await message(tls.reload())).to.match(
        /^the new certificate for b\.example has expired on .*; the old one stays$/,
      )
      expect([await serial('a.example'), await serial('b.example')]).to.deep.equal(old)
      await put('b.example', await make('b.example', { notAfter: soon(200) }))
      await tls.reload()
      expect(await serial('a.example')).to.not.equal(old[0])
      expect(await serial('b.example')).to.not.equal(old[1])
      expect(tls.notAfter('b.example').getTime()).to.be.greaterThan(soon(199).getTime())
    })
  })

  describe('parameters (RFC 9325)', () => {
    let dial: Awaited<ReturnType<typeof listenWith>>
    beforeEach(async () => {
      await put('a.example', await make('a.example'))
      dial = await listenWith(await load({ hosts: ['a.example'] }))
    })

    it('prefers TLS 1.3 and accepts TLS 1.2, not older', async () => {
      expect((await dial()).info.protocol).to.equal('TLSv1.3')
      expect((await dial({ maxVersion: 'TLSv1.2' })).info.protocol).to.equal('TLSv1.2')
      const error = await dial({
        minVersion: 'TLSv1',
        maxVersion: 'TLSv1.1',
        ciphers: 'ALL@SECLEVEL=0',
      }).catch((e: unknown) => e)
      expect(error)
        .to.have.property('code')
        .that.matches(/PROTOCOL_VERSION/)
    })

    it('can be told to refuse TLS 1.2', async () => {
      const strict = await listenWith(await load({ hosts: ['a.example'], minVersion: 'TLSv1.3' }))
      const error = await strict({ maxVersion: 'TLSv1.2' }).catch((e: unknown) => e)
      expect(error)
        .to.have.property('code')
        .that.matches(/PROTOCOL_VERSION/)
    })

    it('refuses cipher suites without forward secrecy or authenticated encryption', async () => {
      for (const ciphers of ['AES128-SHA', 'AES128-GCM-SHA256', 'ECDHE-ECDSA-AES128-SHA256']) {
        const error = await dial({ maxVersion: 'TLSv1.2', ciphers }).catch((e: unknown) => e)
        expect(error, ciphers)
          .to.have.property('code')
          .that.matches(/HANDSHAKE_FAILURE/)
      }
    })

    it('refuses renegotiation, so that tls-exporter is defined (RFC 9266 §4.2)', async () => {
      const { client, sink } = await dial({ maxVersion: 'TLSv1.2' })
      client.on('error', () => undefined)
      const result = await new Promise((resolve) => {
        client.renegotiate({}, resolve)
        client.once('error', resolve)
        client.once('close', resolve)
      })
      expect(result).to.be.instanceOf(Error)
      client.destroy()
      await sink.until(() => sink.events.includes('closed'))
    })
  })

  it('does not load the certificate maker when it is not needed', async () => {
    await put('a.example', await make('a.example'))
    const script = `
      import { Tls } from ${JSON.stringify(join(import.meta.dirname, '../../server/tls.ts'))}
      const log = { debug() {}, info() {}, warn() {}, error() {} }
      await Tls.load({ hosts: ['a.example'], folder: ${JSON.stringify(folder)}, development: true, log })
      const { createRequire } = await import('node:module')
      const loaded = Object.keys(createRequire(import.meta.url).cache).some((file) => file.includes('node-forge'))
      process.stdout.write(loaded ? 'loaded' : 'not loaded')
    `
    const { execFile } = await import('node:child_process')
    const { promisify } = await import('node:util')
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script])
    expect(stdout).to.equal('not loaded')
  })

  it('plain connections do not disturb a listener with direct TLS', async () => {
    await put('a.example', await make('a.example'))
    const tls = await load({ hosts: ['a.example'] })
    const listener = await listenTcp(
      { address: '127.0.0.1', port: 0, tls: 'direct' },
      tls,
      () => undefined,
      log,
    )
    open.push(listener)
    const socket = connect(listener.port, '127.0.0.1')
    open.push(socket)
    socket.on('error', () => undefined)
    socket.write('GET / HTTP/1.1\r\n\r\n')
    socket.resume()
    await once(socket, 'close')
    expect(log.lines.join('\n')).to.match(
      /debug TLS handshake failed \{"address":"127\.0\.0\.1","code":"ERR_SSL_/,
    )
  })
})
