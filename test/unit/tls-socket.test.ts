/** server/tls-socket.ts over real connections: resumption, channel binding, client certificates. */
import { createHash, randomBytes, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { connect as tlsConnect, type ConnectionOptions } from 'node:tls'
import { expect } from 'chai'
import { listenTcp } from '../../server/net.ts'
import { endPointBinding, hasExtendedMasterSecret } from '../../server/tls-socket.ts'
import { SIGNED } from '../helpers/certificates.ts'
import { Accepted } from '../helpers/sink.ts'
import { soon, testCertificates } from '../helpers/test-certificates.ts'

const DAY_MS = 86_400_000

const SSL_OP_NO_EXTENDED_MASTER_SECRET = 1

describe('tls-socket', () => {
  const { load, make, put, listenWith, log, open, folder: current } = testCertificates()
  let folder: string
  beforeEach(() => {
    folder = current()
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
})
