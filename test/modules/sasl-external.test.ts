/** EXTERNAL with client certificates (XEP-0178 §2), ANONYMOUS (XEP-0175, RFC 4505). Certificates are made by node-forge. */
import { expect } from 'chai'
import forge from 'node-forge'
import accounts from '../../modules/accounts/index.ts'
import { xmppAddresses } from '../../modules/sasl/certificate.ts'
import sasl from '../../modules/sasl/index.ts'
import { type TestHost, testHost } from '../helpers/host.ts'
import { authElement, bindingTls, LoginStream, outcome } from '../helpers/login.ts'

const { asn1, oids, pki } = { asn1: forge.asn1, oids: forge.pki.oids, pki: forge.pki }
const keys = forge.pki.rsa.generateKeyPair(1024)
const XMPP_ADDR = '1.3.6.1.5.5.7.8.5'

/** otherName (RFC 5280 §4.2.1.6) with a value of an ASN.1 string type. */
function otherName(oid: string, text: string, type = asn1.Type.UTF8): forge.asn1.Asn1 {
  const { Class, create } = asn1
  const value = create(Class.UNIVERSAL, type, false, forge.util.encodeUtf8(text))
  return create(Class.CONTEXT_SPECIFIC, 0, true, [
    create(Class.UNIVERSAL, asn1.Type.OID, false, asn1.oidToDer(oid).getBytes()),
    create(Class.CONTEXT_SPECIFIC, 0, true, [value]),
  ])
}

/** A certificate in DER with these names as subjectAltName. */
function certificate(names: readonly forge.asn1.Asn1[]): Uint8Array {
  const cert = pki.createCertificate()
  cert.publicKey = keys.publicKey
  cert.setSubject([{ name: 'commonName', value: 'juliet' }])
  cert.setIssuer([{ name: 'commonName', value: 'Verona CA' }])
  const value = asn1.create(asn1.Class.UNIVERSAL, asn1.Type.SEQUENCE, true, [...names])
  cert.setExtensions([
    { name: 'basicConstraints', cA: false },
    ...(names.length === 0 ? [] : [{ id: oids['subjectAltName'], value }]),
  ])
  cert.sign(keys.privateKey, forge.md.sha256.create())
  return Buffer.from(asn1.toDer(pki.certificateToAsn1(cert)).getBytes(), 'latin1')
}
const forAddresses = (...addresses: readonly string[]): Uint8Array =>
  certificate(addresses.map((address) => otherName(XMPP_ADDR, address)))

describe('certificate: xmppAddr (RFC 6120 §13.7.1.4)', () => {
  it('reads all addresses, and nothing else', () => {
    const dns = asn1.create(asn1.Class.CONTEXT_SPECIFIC, 2, false, 'example.org')
    const names = [dns, otherName(XMPP_ADDR, 'jülïet@example.org'), otherName(XMPP_ADDR, 'romeo@example.org')]
    const more = [otherName('1.3.6.1.4.1.311.20.2.3', 'upn@example.org')]
    const strange = [otherName(XMPP_ADDR, 'old@example.org', asn1.Type.PRINTABLESTRING)]
    expect(xmppAddresses(certificate([...names, ...more, ...strange]))).to.deep.equal([
      'jülïet@example.org',
      'romeo@example.org',
    ])
  })
  it('no names', () => expect(xmppAddresses(certificate([]))).to.deep.equal([]))
  it('malformed in every way a cut or a changed byte can make it, it never throws and never hangs', () => {
    const der = forAddresses('juliet@example.org')
    for (let i = 0; i < der.length; i++) {
      expect(() => xmppAddresses(der.subarray(0, i))).to.not.throw()
      const changed = Uint8Array.from(der)
      changed[i] = 0xff
      expect(() => xmppAddresses(changed)).to.not.throw()
    }
  })
})

async function start(config: object = {}): Promise<TestHost> {
  const options = { accounts: { iterations: 4096 }, sasl: config }
  const host = await testHost({ modules: [accounts, sasl], config: options })
  await host.service('auth').create('juliet', 'r0m30myr0m30')
  await host.service('auth').create('romeo', 'r0m30myr0m30')
  return host
}
const withCertificate = (...addresses: readonly string[]) => ({
  tls: bindingTls({ certificate: forAddresses(...addresses) }),
})

describe('sasl: EXTERNAL (XEP-0178 §2)', () => {
  it('RFC 6120 §6.3.4: offered first, to those whose certificate names an account here', async () => {
    await using host = await start()
    const offer = async (...addresses: string[]) =>
      (await LoginStream.open(host, withCertificate(...addresses))).mechanisms()[0]
    expect(await offer('juliet@example.org')).to.equal('EXTERNAL')
    expect(await offer('juliet@example.com')).to.not.equal('EXTERNAL')
    expect(await offer('example.org')).to.not.equal('EXTERNAL')
    expect(await offer()).to.not.equal('EXTERNAL')
    expect((await LoginStream.open(host, { tls: bindingTls() })).mechanisms()).to.not.include('EXTERNAL')
  })

  it('(11a) one address, no authorization identity', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, withCertificate('Juliet@example.org', 'juliet@example.com'))
    expect(outcome(await login.send(authElement('EXTERNAL', '=')))).to.equal('success')
    expect(login.stream.session.jid?.toString()).to.equal('juliet@example.org')
  })

  it('asks for the identity when there was no initial response', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, withCertificate('juliet@example.org'))
    expect(await login.auth('EXTERNAL')).to.equal('challenge')
    expect(await login.respond('')).to.equal('success')
  })

  it('(11b) several addresses: the client says which', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, withCertificate('juliet@example.org', 'romeo@example.org'))
    expect(outcome(await login.send(authElement('EXTERNAL', '=')))).to.equal('failure:invalid-authzid')
    expect(await login.auth('EXTERNAL', 'romeo@example.org')).to.equal('success')
    expect(login.stream.session.jid?.toString()).to.equal('romeo@example.org')
  })

  it('an identity that the certificate does not name', async () => {
    await using host = await start()
    for (const authzid of ['romeo@example.org', 'juliet@example.org/balcony', 'juliet', 'example.org']) {
      const login = await LoginStream.open(host, withCertificate('juliet@example.org'))
      expect(await login.auth('EXTERNAL', authzid), authzid).to.equal('failure:invalid-authzid')
    }
  })

  it('an address without an account is not authorized', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, withCertificate('nobody@example.org'))
    expect(outcome(await login.send(authElement('EXTERNAL', '=')))).to.equal('failure:not-authorized')
  })

  it('a certificate for nobody here cannot be used, offered or not', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, withCertificate('juliet@example.com'))
    expect(outcome(await login.send(authElement('EXTERNAL', '=')))).to.equal('failure:invalid-mechanism')
  })
})

describe('sasl: ANONYMOUS (XEP-0175)', () => {
  const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}@example\.org$/

  it('§3: off by default', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls: bindingTls() })
    expect(login.mechanisms()).to.not.include('ANONYMOUS')
    expect(await login.auth('ANONYMOUS', 'trace')).to.equal('failure:invalid-mechanism')
  })

  it('§3: a temporary address, another one each time, whatever the trace and the header say', async () => {
    await using host = await start({ anonymous: true })
    const seen = new Set<string>()
    for (const trace of ['=', Buffer.from('juliet@example.org').toString('base64')]) {
      const login = await LoginStream.open(host, { tls: bindingTls(), from: 'juliet@example.org' })
      expect(login.mechanisms().at(-1)).to.equal('ANONYMOUS')
      expect(outcome(await login.send(authElement('ANONYMOUS', trace)))).to.equal('success')
      seen.add(login.stream.session.jid?.toString() ?? '')
    }
    expect([...seen].every((jid) => UUID.test(jid))).to.equal(true)
    expect(seen.size).to.equal(2)
  })

  it('RFC 4505 §2: a trace of more than 255 characters, or with control characters, is malformed', async () => {
    await using host = await start({ anonymous: true })
    const login = await LoginStream.open(host, { tls: bindingTls() })
    expect(await login.auth('ANONYMOUS', 'ä'.repeat(256))).to.equal('failure:malformed-request')
    expect(await login.auth('ANONYMOUS', 'a\u0007')).to.equal('failure:malformed-request')
    expect(await login.auth('ANONYMOUS', '😀'.repeat(255))).to.equal('success')
  })

  const ghost = async (config: object) => {
    const host = await start({ anonymous: true, ...config })
    const client = await host.client('someone@example.org/x', { tls: bindingTls() })
    client.session.setFlag('anonymous', true)
    return { host, client }
  }

  const NOT_ALLOWED = ['not-allowed', 'urn:ietf:params:xml:ns:xmpp-stanzas'] as const

  it('§3 (2): no stanzas to other servers', async () => {
    const { host, client } = await ghost({})
    await using _ = host
    const [bounce] = await client.send(`<message to='juliet@example.com' id='m1'><body>hi</body></message>`)
    expect(bounce?.getChild('error')?.getChild(...NOT_ALLOWED)).to.not.equal(undefined)
    const own = await client.send(`<message to='someone@example.org/x' id='m2'><body>hi</body></message>`)
    expect(own.map((stanza) => stanza.attr('id'))).to.deep.equal(['m2'])
  })

  it('§3 (2): unless allowed', async () => {
    const { host, client } = await ghost({ anonymousRemote: true })
    await using _ = host
    const answers = await client.send(`<message to='juliet@example.com' id='m1'><body>hi</body></message>`)
    expect(answers[0]?.getChild('error')?.getChild(...NOT_ALLOWED)).to.equal(undefined)
  })

  it('§3 (3), (4): what was stored for an anonymous user goes with the session, accounts stay', async () => {
    const { host, client } = await ghost({})
    await using _ = host
    const docs = host.store.open('example.org', 'test').docs<{ x: number }>('things')
    await docs.put('someone', 'a', { x: 1 })
    await docs.put('juliet', 'a', { x: 1 })
    const juliet = await host.client('juliet@example.org/x')
    juliet.session.setFlag('anonymous', true) // even if some bug did this
    await juliet.close()
    await client.close()
    await host.settle()
    expect(await docs.get('someone', 'a')).to.equal(undefined)
    expect(await docs.get('juliet', 'a')).to.deep.equal({ x: 1 })
    expect(await host.service('auth').exists('juliet')).to.equal(true)
  })

  it('§3 (4): nothing stays of their names, however many come and go', async () => {
    const { host, client } = await ghost({})
    await using _ = host
    await client.close()
    await host.settle()
    const former: string[] = []
    const docs = host.store.open('example.org', 'accounts').docs('former')
    for await (const [local] of docs.list('')) former.push(local)
    expect(former).to.deep.equal([])
  })

  it('the flag is set at login, and only for anonymous users', async () => {
    await using host = await start({ anonymous: true })
    const login = await LoginStream.open(host, { tls: bindingTls() })
    await login.auth('ANONYMOUS', 'trace')
    expect(login.stream.session.flag('anonymous')).to.equal(true)
    const juliet = await LoginStream.open(host, { tls: bindingTls() })
    await juliet.auth('PLAIN', '\0juliet\0r0m30myr0m30')
    expect(juliet.stream.session.flag('anonymous')).to.equal(undefined)
  })
})
