/** certs/make-dev.ts, as the server uses it. */
import { X509Certificate } from 'node:crypto'
import { chmod, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import { ensureDevelopmentCertificate, isDevelopment } from '../../certs/make-dev.ts'
import { SIGNED } from '../helpers/certificates.ts'
import { soon, testCertificates } from '../helpers/test-certificates.ts'

const DAY_MS = 86_400_000

describe('development certificates', () => {
  const { load, make, listenWith, message, folder: current } = testCertificates()
  let folder: string
  beforeEach(() => {
    folder = current()
  })

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
