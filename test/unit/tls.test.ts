/** server/tls.ts, server/tls-socket.ts and certs/make-dev.ts. */
import { createHash, randomBytes, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { chmod, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect as tlsConnect, type ConnectionOptions, type TLSSocket } from 'node:tls'
import { expect } from 'chai'
import {
  type CertificatePair,
  createCertificate,
  ensureDevelopmentCertificate,
  isDevelopment,
} from '../../certs/make-dev.ts'
import type { TlsInfo } from '../../server/module.ts'
import { type Listener, listenTcp } from '../../server/net.ts'
import { Tls, type TlsSettings } from '../../server/tls.ts'
import { endPointBinding, hasExtendedMasterSecret } from '../../server/tls-socket.ts'
import { SIGNED } from '../helpers/certificates.ts'
import { Accepted, recordingLog, type Sink } from '../helpers/sink.ts'

const DAY_MS = 86_400_000
const soon = (days: number) => new Date(Date.now() + days * DAY_MS)
const SSL_OP_NO_EXTENDED_MASTER_SECRET = 1

describe('tls', () => {
  let folder: string
  const log = recordingLog()
  const open: { destroy?(): void; close?(): Promise<void> }[] = []

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'hermod-tls-'))
    log.lines.length = 0
  })
  afterEach(async () => {
    for (const item of open.splice(0)) {
      item.destroy?.()
      await item.close?.()
    }
    await rm(folder, { recursive: true })
  })

  const load = (opts: Partial<TlsSettings> & { hosts: readonly string[] }) =>
    Tls.load({ folder, development: false, log, ...opts })

  const make = (name: string, opts: Partial<Parameters<typeof createCertificate>[0]> = {}) =>
    createCertificate({ name, alsoNames: [name], notBefore: soon(-1), notAfter: soon(90), ...opts })

  async function put(host: string, pair: CertificatePair): Promise<void> {
    await writeFile(join(folder, `${host}.crt`), pair.cert)
    await writeFile(join(folder, `${host}.key`), pair.key)
  }

  async function listenWith(tls: Tls) {
    const accepted = new Accepted()
    const listener: Listener = await listenTcp(
      { address: '127.0.0.1', port: 0, tls: 'direct' },
      tls,
      accepted.accept,
      log,
    )
    open.push(listener)
    let count = 0
    return async (
      opts: ConnectionOptions = {},
    ): Promise<{ client: TLSSocket; sink: Sink; info: TlsInfo }> => {
      const client = tlsConnect({
        port: listener.port,
        host: '127.0.0.1',
        rejectUnauthorized: false,
        ...opts,
      })
      open.push(client)
      await once(client, 'secureConnect')
      const sink = await accepted.sink(count++)
      if (sink.transport.tls === undefined) throw new Error('no TLS')
      return { client, sink, info: sink.transport.tls }
    }
  }

  const message = (promise: Promise<unknown>): Promise<string> =>
    promise.then(
      () => 'no error',
      (error: unknown) =>
        (error instanceof Error ? error.message : String(error)).replaceAll(folder, 'FOLDER'),
    )

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

    it('warns of certificates that are over or name another host', async () => {
      await put('a.example', await make('other.example', { notAfter: soon(-0.5) }))
      await load({ hosts: ['a.example'] })
      expect(log.lines.map((line) => line.slice(0, 40))).to.deep.equal([
        'warn certificate has expired {"host":"a.',
        'warn certificate does not name its host ',
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

  describe('session resumption', () => {
    /** Connects, takes the ticket that comes with the first answer, and closes. */
    async function ticket(
      dial: Awaited<ReturnType<typeof listenWith>>,
      opts: ConnectionOptions,
    ): Promise<Buffer> {
      let session: Buffer | undefined
      const { client, sink } = await dial(opts)
      const got =
        client.getProtocol() === 'TLSv1.3' ? once(client, 'session') : Promise.resolve([client.getSession()])
      sink.transport.write('x')
      const [first] = (await got) as [Buffer]
      session = first
      client.destroy()
      return session
    }

    for (const version of ['TLSv1.3', 'TLSv1.2'] as const) {
      const opts: ConnectionOptions = { minVersion: version, maxVersion: version, servername: 'b.example' }

      it(`works over listeners and over a reload with ${version}, with channel bindings`, async () => {
        await put('a.example', await make('a.example'))
        await put('b.example', await make('b.example'))
        const ca = await make('ca', { ca: true })
        await writeFile(join(folder, 'ca.pem'), ca.cert)
        const tls = await load({ hosts: ['a.example', 'b.example'], clientCa: join(folder, 'ca.pem') })
        const [first, second] = [await listenWith(tls), await listenWith(tls)]
        const session = await ticket(first, opts)
        for (const reload of [false, true]) {
          if (reload) await tls.reload()
          const { client, info } = await second({ ...opts, session })
          expect(client.isSessionReused(), `reload: ${reload}`).to.equal(true)
          const exporter = client.exportKeyingMaterial(32, 'EXPORTER-Channel-Binding', Buffer.alloc(0))
          expect(info.channelBinding('tls-exporter')).to.deep.equal(exporter)
          const served = new X509Certificate(await readFile(join(folder, 'b.example.crt')))
          // With TLS 1.2 a resumed session does not tell the name, and so not the certificate.
          const binding = version === 'TLSv1.3' ? endPointBinding(served) : undefined
          expect(info.channelBinding('tls-server-end-point')).to.deep.equal(binding)
          expect(info.clientCertificate()).to.equal(undefined)
        }
      })

      it(`ends with a new certificate, which the client would not know (RFC 5929 §4) with ${version}`, async () => {
        await put('a.example', await make('a.example'))
        await put('b.example', await make('b.example'))
        const tls = await load({ hosts: ['a.example', 'b.example'] })
        const dial = await listenWith(tls)
        const session = await ticket(dial, opts)
        await put('b.example', await make('b.example'))
        await tls.reload()
        const { client, info } = await dial({ ...opts, session })
        expect(client.isSessionReused()).to.equal(false)
        const served = client.getPeerX509Certificate()
        expect(served && endPointBinding(served)).to.deep.equal(info.channelBinding('tls-server-end-point'))
      })
    }

    it('with TLS 1.2 has tls-server-end-point when there is one certificate, or STARTTLS has named the host', async () => {
      const opts: ConnectionOptions = { maxVersion: 'TLSv1.2', servername: 'b.example' }
      await put('a.example', await make('a.example'))
      await put('b.example', await make('b.example'))
      const served = new X509Certificate(await readFile(join(folder, 'b.example.crt')))
      const single = await listenWith(await load({ hosts: ['b.example'] }))
      const { client, info } = await single({ ...opts, session: await ticket(single, opts) })
      expect(client.isSessionReused()).to.equal(true)
      expect(info.channelBinding('tls-server-end-point')).to.deep.equal(endPointBinding(served))

      const tls = await load({ hosts: ['a.example', 'b.example'] })
      const accepted = new Accepted()
      const listener = await listenTcp(
        { address: '127.0.0.1', port: 0, tls: 'starttls' },
        tls,
        accepted.accept,
        log,
      )
      open.push(listener)
      let session: Buffer | undefined
      for (const index of [0, 1]) {
        const socket = connect(listener.port, '127.0.0.1')
        open.push(socket)
        const sink = await accepted.sink(index)
        sink.transport.startTls('b.example')
        const secured = tlsConnect({
          socket,
          rejectUnauthorized: false,
          ...opts,
          ...(session && { session }),
        })
        await Promise.all([once(secured, 'secureConnect'), sink.until(() => sink.events.includes('secured'))])
        expect(secured.isSessionReused()).to.equal(index === 1)
        session = secured.getSession()
        expect(sink.transport.tls?.channelBinding('tls-server-end-point')).to.deep.equal(
          endPointBinding(served),
        )
      }
    })

    it('changes the ticket key each day', async () => {
      await put('b.example', await make('b.example'))
      let now = Date.now()
      const tls = await load({ hosts: ['b.example'], now: () => now })
      const dial = await listenWith(tls)
      const session = await ticket(dial, { servername: 'b.example' })
      now += DAY_MS - 1
      expect((await dial({ servername: 'b.example', session })).client.isSessionReused()).to.equal(true)
      now += 1
      expect((await dial({ servername: 'b.example', session })).client.isSessionReused()).to.equal(false)
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

  describe('channel binding', () => {
    it('tls-exporter (RFC 9266 §2): the same on both sides with TLS 1.3 and 1.2, unique to the connection', async () => {
      await put('a.example', await make('a.example'))
      const dial = await listenWith(await load({ hosts: ['a.example'] }))
      const seen = new Set<string>()
      for (const maxVersion of ['TLSv1.3', 'TLSv1.2', 'TLSv1.3'] as const) {
        const { client, info } = await dial({ maxVersion })
        const theirs = client.exportKeyingMaterial(32, 'EXPORTER-Channel-Binding', Buffer.alloc(0))
        expect(info.channelBinding('tls-exporter')).to.deep.equal(theirs)
        seen.add(theirs.toString('hex'))
      }
      expect(seen.size).to.equal(3)
    })

    it('tls-exporter is not defined with TLS 1.2 without the extended master secret (RFC 9266 §4.2)', async () => {
      await put('a.example', await make('a.example'))
      const dial = await listenWith(await load({ hosts: ['a.example'] }))
      const { info } = await dial({ maxVersion: 'TLSv1.2', secureOptions: SSL_OP_NO_EXTENDED_MASTER_SECRET })
      expect(info.channelBinding('tls-exporter')).to.equal(undefined)
      expect(info.channelBinding('tls-server-end-point')).to.have.length(32)
    })

    for (const { by, hash, der } of SIGNED)
      it(`tls-server-end-point (RFC 5929 §4.1): ${hash ?? 'none'} for ${by}`, () => {
        const raw = Buffer.from(der, 'base64')
        const expected = hash === undefined ? undefined : createHash(hash).update(raw).digest()
        expect(endPointBinding(new X509Certificate(raw))).to.deep.equal(expected)
      })

    it('survives sessions that are no DER', () => {
      for (let i = 0; i < 200; i++) hasExtendedMasterSecret(randomBytes(i))
      expect(hasExtendedMasterSecret(Buffer.from('3003ad0101', 'hex'))).to.equal(false)
    })

    it('is gone with the connection', async () => {
      await put('a.example', await make('a.example'))
      const dial = await listenWith(await load({ hosts: ['a.example'] }))
      const { info, sink } = await dial()
      sink.transport.destroy()
      await sink.until(() => sink.events.includes('closed'))
      expect([info.protocol, info.cipher]).to.deep.equal(['', ''])
      expect(info.channelBinding('tls-exporter')).to.equal(undefined)
      expect(info.channelBinding('tls-server-end-point')).to.equal(undefined)
      expect(info.clientCertificate()).to.equal(undefined)
    })
  })

  describe('client certificates (RFC 6120 §5.4.3.1)', () => {
    it('are told when their chain is verified, and only then', async () => {
      const ca = await make('Test CA', { ca: true, alsoNames: [] })
      const other = await make('Other CA', { ca: true, alsoNames: [] })
      const alice = await make('alice', { issuer: ca, alsoNames: [], xmppAddresses: ['alice@a.example'] })
      const late = await make('late', { issuer: ca, notAfter: soon(-0.5) })
      const mallory = await make('mallory', { issuer: other })
      const self = await make('self')
      await put('a.example', await make('a.example'))
      await writeFile(join(folder, 'ca.pem'), ca.cert)
      const dial = await listenWith(await load({ hosts: ['a.example'], clientCa: join(folder, 'ca.pem') }))
      for (const maxVersion of ['TLSv1.3', 'TLSv1.2'] as const) {
        const good = await dial({ ...alice, maxVersion })
        const raw = new X509Certificate(alice.cert).raw
        expect(good.info.clientCertificate()).to.deep.equal(raw)
        expect(new X509Certificate(raw).subjectAltName).to.equal('othername:XmppAddr:alice@a.example')
        for (const pair of [late, mallory, self]) {
          const { info } = await dial({ ...pair, maxVersion })
          expect(info.clientCertificate(), maxVersion).to.equal(undefined)
        }
        expect((await dial({ maxVersion })).info.clientCertificate()).to.equal(undefined)
      }
    })

    it('are not asked for without authorities, and never over HTTPS', async () => {
      await put('a.example', await make('a.example'))
      const ca = await make('Test CA', { ca: true })
      await writeFile(join(folder, 'ca.pem'), ca.cert)
      expect((await load({ hosts: ['a.example'] })).optionsFor('c2s').requestCert).to.equal(false)
      const tls = await load({ hosts: ['a.example'], clientCa: join(folder, 'ca.pem') })
      expect(tls.optionsFor('c2s').requestCert).to.equal(true)
      expect(tls.optionsFor('c2s-direct').requestCert).to.equal(true)
      expect(tls.optionsFor('https').requestCert).to.equal(false)
    })
  })

  describe('development certificates', () => {
    it('are made when missing: names (RFC 6120 §13.7.1.2), file mode, validity', async () => {
      const tls = await load({ hosts: ['a.example', 'bücher.example', '192.0.2.1'], development: true })
      const files = (await readdir(folder)).sort()
      expect(files).to.deep.equal([
        '192.0.2.1.crt',
        '192.0.2.1.key',
        'a.example.crt',
        'a.example.key',
        'bücher.example.crt',
        'bücher.example.key',
      ])
      expect((await stat(join(folder, 'a.example.key'))).mode % 0o1000).to.equal(0o600)
      const cert = new X509Certificate(await readFile(join(folder, 'a.example.crt')))
      expect(isDevelopment(cert)).to.equal(true)
      expect(cert.ca, 'RFC 6120 §13.7.1.1 rule 2').to.equal(false)
      expect(cert.subjectAltName?.split(', ')).to.include.members([
        'DNS:a.example',
        'DNS:*.a.example',
        'DNS:xn--bcher-kva.example',
        'DNS:localhost',
        'IP Address:127.0.0.1',
        'IP Address:0:0:0:0:0:0:0:1',
        'IP Address:192.0.2.1',
        'othername:SRVName:_xmpp-client.a.example',
        'othername:SRVName:_xmpp-server.a.example',
        'othername:XmppAddr:bücher.example',
      ])
      expect(cert.verify(cert.publicKey)).to.equal(true)
      expect(tls.notAfter('a.example').getTime() - Date.now()).to.be.within(364 * DAY_MS, 365 * DAY_MS)
      // A client that trusts exactly this certificate accepts it.
      const dial = await listenWith(tls)
      const ca = await readFile(join(folder, 'a.example.crt'))
      const { client } = await dial({ rejectUnauthorized: true, ca, servername: 'a.example' })
      expect(client.authorized).to.equal(true)
    })

    it('are kept, and renewed in their last 30 days with the same key', async () => {
      const host = 'a.example'
      const ensure = (now: Date) => ensureDevelopmentCertificate({ host, folder, now })
      const read = async () => [
        await readFile(join(folder, `${host}.crt`)),
        await readFile(join(folder, `${host}.key`)),
      ]
      expect(await ensure(soon(0))).to.equal('created')
      const [cert, key] = await read()
      expect(await ensure(soon(334))).to.equal('kept')
      expect(await read()).to.deep.equal([cert, key])
      expect(await ensure(soon(336))).to.equal('renewed')
      const [newCert, newKey] = await read()
      expect(newKey).to.deep.equal(key)
      expect(newCert).to.not.deep.equal(cert)
      expect((await readdir(folder)).sort(), 'no temporary files stay').to.deep.equal([
        `${host}.crt`,
        `${host}.key`,
      ])
    })

    it('never replace a certificate of somebody else, not even one that is over or unreadable', async () => {
      const foreign = 'not a certificate'
      await writeFile(join(folder, 'a.example.crt'), foreign)
      expect(await ensureDevelopmentCertificate({ host: 'a.example', folder })).to.equal('kept')
      expect(await readFile(join(folder, 'a.example.crt'), 'utf8')).to.equal(foreign)
      const sha1 = SIGNED.find(({ by }) => by.startsWith('sha384'))?.der ?? ''
      const pem = `-----BEGIN CERTIFICATE-----\n${sha1}\n-----END CERTIFICATE-----\n`
      await writeFile(join(folder, 'a.example.crt'), pem)
      expect(await ensureDevelopmentCertificate({ host: 'a.example', folder, now: soon(365_000) })).to.equal(
        'kept',
      )
      expect(await readFile(join(folder, 'a.example.crt'), 'utf8')).to.equal(pem)
    })

    it('use a key that is there already, of any kind that signs', async () => {
      const { generateKeyPairSync } = await import('node:crypto')
      for (const key of [
        generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey,
        generateKeyPairSync('ed25519').privateKey,
      ]) {
        const pem = key.export({ type: 'pkcs8', format: 'pem' })
        await rm(join(folder, 'a.example.crt'), { force: true })
        await writeFile(join(folder, 'a.example.key'), pem)
        await load({ hosts: ['a.example'], development: true })
        expect(await readFile(join(folder, 'a.example.key'), 'utf8')).to.equal(pem)
        const cert = new X509Certificate(await readFile(join(folder, 'a.example.crt')))
        expect(cert.verify(cert.publicKey)).to.equal(true)
      }
      const { privateKey } = generateKeyPairSync('x25519')
      await writeFile(join(folder, 'b.example.key'), privateKey.export({ type: 'pkcs8', format: 'pem' }))
      expect(await message(load({ hosts: ['b.example'], development: true }))).to.equal(
        'a key of type x25519 cannot sign a certificate',
      )
    })

    it('are not made for hosts with named files or in the layout of certbot', async () => {
      const pair = await make('a.example')
      await mkdir(join(folder, 'a.example'))
      await writeFile(join(folder, 'a.example', 'fullchain.pem'), pair.cert)
      await writeFile(join(folder, 'a.example', 'privkey.pem'), pair.key)
      await load({ hosts: ['a.example'], development: true })
      expect(await readdir(folder)).to.deep.equal(['a.example'])
      await rename(join(folder, 'a.example'), join(folder, 'moved'))
      const named = {
        cert: join(folder, 'moved', 'fullchain.pem'),
        key: join(folder, 'moved', 'privkey.pem'),
      }
      await load({ hosts: ['a.example'], development: true, perHost: new Map([['a.example', named]]) })
      expect(await readdir(folder)).to.deep.equal(['moved'])
    })

    it('leave nothing behind when the folder cannot be written', async function () {
      if (process.getuid?.() === 0) this.skip() // root may write everywhere
      await chmod(folder, 0o500)
      expect(await message(load({ hosts: ['a.example'], development: true }))).to.match(/EACCES/)
      await chmod(folder, 0o700)
      expect(await readdir(folder)).to.deep.equal([])
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
