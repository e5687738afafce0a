/**
 * Self-signed certificates for development and first starts: ECDSA P-256, valid for a year, renewed in the last month.
 *
 * Names as in RFC 6120 §13.7.1.2: DNS-ID, SRV-ID and XmppAddr for each host, and `localhost`. Runs alone as
 * `node certs/make-dev.ts HOST…`. Not for the public internet: no client trusts these certificates by itself.
 */
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPair,
  type KeyObject,
  randomBytes,
  sign,
  X509Certificate,
} from 'node:crypto'
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { isIP, isIPv6 } from 'node:net'
import { join } from 'node:path'
import { domainToASCII } from 'node:url'
import { promisify } from 'node:util'
import type { asn1 as Asn1 } from 'node-forge'

/** Organisation in the subject of every certificate made here: how the server knows that it may replace one. */
export const DEVELOPMENT = 'Hermod development certificate'

const DAY_MS = 86_400_000
const VALID_DAYS = 365
/** A development certificate is made anew when it is valid for less than this many days. */
export const RENEW_DAYS = 30

const OID = {
  commonName: '2.5.4.3',
  organization: '2.5.4.10',
  ecdsaWithSha256: '1.2.840.10045.4.3.2',
  rsaWithSha256: '1.2.840.113549.1.1.11',
  ed25519: '1.3.101.112',
  basicConstraints: '2.5.29.19',
  keyUsage: '2.5.29.15',
  extKeyUsage: '2.5.29.37',
  subjectAltName: '2.5.29.17',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
  srvName: '1.3.6.1.5.5.7.8.7',
  xmppAddr: '1.3.6.1.5.5.7.8.5',
} as const

/** A certificate with its private key, PEM. */
export interface CertificatePair {
  readonly cert: string
  readonly key: string
}

/** What goes into a certificate. */
export interface CertificateRequest {
  /** The common name. */
  readonly name: string
  /** Virtual hosts: DNS-ID (or address), SRV-ID and XmppAddr. */
  readonly hosts?: readonly string[]
  /** Names that get a DNS-ID (or an address) only. */
  readonly alsoNames?: readonly string[]
  /** Addresses of users or hosts as XmppAddr only (RFC 6120 §13.7.1.3, client certificates). */
  readonly xmppAddresses?: readonly string[]
  readonly notBefore: Date
  readonly notAfter: Date
  /** The key to certify, PEM; made (P-256) when absent. */
  readonly key?: string
  /** Signs with this certificate instead of with its own key. */
  readonly issuer?: CertificatePair
  /** The certificate may issue others. */
  readonly ca?: boolean
}

/** Makes a certificate. Throws when the key is not one that can sign. */
export async function createCertificate(request: CertificateRequest): Promise<CertificatePair> {
  // Loaded only here: a server whose certificates exist does not pay for it.
  const { asn1 } = (await import('node-forge')).default
  const { Class, Type } = asn1
  const seq = (...nodes: Asn1.Asn1[]) => asn1.create(Class.UNIVERSAL, Type.SEQUENCE, true, nodes)
  const set = (...nodes: Asn1.Asn1[]) => asn1.create(Class.UNIVERSAL, Type.SET, true, nodes)
  const oid = (text: string) => asn1.create(Class.UNIVERSAL, Type.OID, false, asn1.oidToDer(text).getBytes())
  const octets = (node: Asn1.Asn1) =>
    asn1.create(Class.UNIVERSAL, Type.OCTETSTRING, false, asn1.toDer(node).getBytes())
  const tagged = (tag: number, value: Asn1.Asn1[] | string) =>
    typeof value === 'string'
      ? asn1.create(Class.CONTEXT_SPECIFIC, tag, false, value)
      : asn1.create(Class.CONTEXT_SPECIFIC, tag, true, value)
  const utf8 = (text: string) =>
    asn1.create(Class.UNIVERSAL, Type.UTF8, false, Buffer.from(text).toString('latin1'))
  const truth = () => asn1.create(Class.UNIVERSAL, Type.BOOLEAN, false, '\xff')
  const bits = (bytes: string) => asn1.create(Class.UNIVERSAL, Type.BITSTRING, false, bytes)
  const time = (date: Date) =>
    date.getUTCFullYear() < 2050
      ? asn1.create(Class.UNIVERSAL, Type.UTCTIME, false, asn1.dateToUtcTime(date))
      : asn1.create(Class.UNIVERSAL, Type.GENERALIZEDTIME, false, asn1.dateToGeneralizedTime(date))
  const extension = (id: string, critical: boolean, value: Asn1.Asn1) =>
    critical ? seq(oid(id), truth(), octets(value)) : seq(oid(id), octets(value))
  const attribute = (id: string, value: string) => set(seq(oid(id), utf8(value)))

  const key = request.key === undefined ? await newKey() : createPrivateKey(request.key)
  const signer = request.issuer === undefined ? key : createPrivateKey(request.issuer.key)
  const algorithm = signatureAlgorithm(signer)
  const algorithmNode =
    algorithm === OID.rsaWithSha256
      ? seq(oid(algorithm), asn1.create(Class.UNIVERSAL, Type.NULL, false, ''))
      : seq(oid(algorithm))
  const subject = seq(
    attribute(OID.organization, DEVELOPMENT),
    attribute(OID.commonName, request.name.slice(0, 64)), // RFC 5280 appendix A: ub-common-name
  )
  const issuer = request.issuer === undefined ? subject : issuerName(asn1, request.issuer.cert)

  const dnsOrIp = (name: string) =>
    isIP(name) === 0 ? tagged(2, ascii(name)) : tagged(7, addressBytes(name))
  const otherName = (id: string, value: Asn1.Asn1) => tagged(0, [oid(id), tagged(0, [value])])
  const ia5 = (text: string) => asn1.create(Class.UNIVERSAL, Type.IA5STRING, false, text)
  const hosts = [...new Set(request.hosts)]
  const names = [...new Set([...hosts, ...(request.alsoNames ?? [])])]
  const altNames = [
    ...names.map(dnsOrIp),
    ...hosts
      .filter((host) => isIP(host) === 0)
      .flatMap((host) => [
        otherName(OID.srvName, ia5(`_xmpp-client.${ascii(host)}`)),
        otherName(OID.srvName, ia5(`_xmpp-server.${ascii(host)}`)),
      ]),
    // RFC 6120 §13.7.1.4: the XmppAddr is UTF-8, not the ASCII form of the domain
    ...[...hosts, ...(request.xmppAddresses ?? [])].map((addr) => otherName(OID.xmppAddr, utf8(addr))),
  ]
  const ca = request.ca === true
  const extensions = seq(
    // RFC 6120 §13.7.1.1: an end entity certificate must not say cA
    extension(OID.basicConstraints, true, ca ? seq(truth()) : seq()),
    // digitalSignature; for an issuer keyCertSign too
    extension(OID.keyUsage, true, bits(ca ? '\x02\x84' : '\x07\x80')),
    ...(ca ? [] : [extension(OID.extKeyUsage, false, seq(oid(OID.serverAuth), oid(OID.clientAuth)))]),
    ...(altNames.length === 0 ? [] : [extension(OID.subjectAltName, false, seq(...altNames))]),
  )
  const publicKey = createPublicKey(key).export({ type: 'spki', format: 'der' })
  const tbs = seq(
    tagged(0, [asn1.create(Class.UNIVERSAL, Type.INTEGER, false, '\x02')]), // version 3
    asn1.create(Class.UNIVERSAL, Type.INTEGER, false, serial()),
    algorithmNode,
    issuer,
    seq(time(request.notBefore), time(request.notAfter)),
    subject,
    asn1.fromDer(publicKey.toString('latin1')),
    tagged(3, [extensions]),
  )
  const signed = Buffer.from(asn1.toDer(tbs).getBytes(), 'latin1')
  const signature = sign(algorithm === OID.ed25519 ? undefined : 'sha256', signed, signer)
  const certificate = seq(tbs, algorithmNode, bits(`\0${signature.toString('latin1')}`))
  const der = asn1.toDer(certificate).getBytes()
  return {
    cert: toPem(der),
    key: String(key.export({ type: 'pkcs8', format: 'pem' })),
  }
}

async function newKey(): Promise<KeyObject> {
  // P-256: its signature costs a twentieth of RSA 2048, and every client knows it
  const { privateKey } = await promisify(generateKeyPair)('ec', { namedCurve: 'P-256' })
  return privateKey
}

function signatureAlgorithm(key: KeyObject): string {
  switch (key.asymmetricKeyType) {
    case 'ec':
      return OID.ecdsaWithSha256
    case 'rsa':
      return OID.rsaWithSha256
    case 'ed25519':
      return OID.ed25519
    default:
      throw new Error(`a key of type ${key.asymmetricKeyType} cannot sign a certificate`)
  }
}

function issuerName(asn1: typeof Asn1, cert: string): Asn1.Asn1 {
  const root = asn1.fromDer(new X509Certificate(cert).raw.toString('latin1')).value
  const tbs = Array.isArray(root) ? root[0]?.value : undefined
  const subject = Array.isArray(tbs) ? tbs[5] : undefined
  if (subject === undefined || typeof subject === 'string') throw new Error('the issuer has no subject')
  return subject
}

const ascii = (name: string) =>
  name.startsWith('*.') ? `*.${domainToASCII(name.slice(2))}` : domainToASCII(name)

/** 16 random bytes as a positive integer without a leading zero. */
function serial(): string {
  const bytes = randomBytes(16)
  bytes[0] = 64 + ((bytes[0] ?? 0) % 64)
  return bytes.toString('latin1')
}

function addressBytes(address: string): string {
  if (!isIPv6(address)) return Buffer.from(address.split('.').map(Number)).toString('latin1')
  const [head = '', tail] = address.split('::')
  const groups = (text: string) => text.split(':').filter((group) => group !== '')
  const left = groups(head)
  const right = tail === undefined ? [] : groups(tail)
  const middle = Array.from<string>({ length: 8 - left.length - right.length }).fill('0')
  const hex = [...left, ...middle, ...right].map((group) => group.padStart(4, '0')).join('')
  return Buffer.from(hex, 'hex').toString('latin1')
}

function toPem(der: string): string {
  const lines =
    Buffer.from(der, 'latin1')
      .toString('base64')
      .match(/.{1,64}/g) ?? []
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`
}

/** Whether this is a certificate that `ensureDevelopmentCertificate` has made. */
export function isDevelopment(cert: X509Certificate): boolean {
  return cert.subject === cert.issuer && cert.subject.split('\n').includes(`O=${DEVELOPMENT}`)
}

/** The two files of a host in a folder of certificates. */
export function certificateFiles(
  folder: string,
  host: string,
): { readonly cert: string; readonly key: string } {
  return { cert: join(folder, `${host}.crt`), key: join(folder, `${host}.key`) }
}

/**
 * Sees to it that `folder` has HOST.crt and HOST.key. A certificate that was not made here is never touched; one that was
 * is renewed (same key) when fewer than 30 days are left. Resolves to what was done. Throws when files cannot be written.
 */
export async function ensureDevelopmentCertificate(opts: {
  readonly host: string
  /** Further names for the same certificate. */
  readonly alsoHosts?: readonly string[]
  readonly folder: string
  readonly now?: Date
}): Promise<'kept' | 'created' | 'renewed'> {
  const now = opts.now ?? new Date()
  const files = certificateFiles(opts.folder, opts.host)
  const old = await readIfThere(files.cert)
  if (old !== undefined) {
    const cert = readCertificate(old)
    if (cert === undefined || !isDevelopment(cert)) return 'kept'
    if (cert.validToDate.getTime() - now.getTime() > RENEW_DAYS * DAY_MS) return 'kept'
  }
  // The key stays: so a renewal changes one file, in one step, and a key of somebody else is not overwritten.
  const key = await readIfThere(files.key)
  const made = await createCertificate({
    name: opts.host,
    hosts: [opts.host, ...(opts.alsoHosts ?? [])],
    alsoNames: [...(isIP(opts.host) === 0 ? [`*.${opts.host}`] : []), 'localhost', '127.0.0.1', '::1'],
    notBefore: new Date(now.getTime() - DAY_MS),
    notAfter: new Date(now.getTime() + VALID_DAYS * DAY_MS),
    ...(key === undefined ? {} : { key }),
  })
  await mkdir(opts.folder, { recursive: true })
  if (key === undefined) await writeWhole(files.key, made.key, 0o600)
  await writeWhole(files.cert, made.cert, 0o644)
  return old === undefined ? 'created' : 'renewed'
}

function readCertificate(pem: string): X509Certificate | undefined {
  try {
    return new X509Certificate(pem)
  } catch {
    return undefined // not ours to judge: the server says what is wrong with it when it loads it
  }
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw error
  }
}

/** A reader sees the old file or the new one, nothing between. */
async function writeWhole(path: string, text: string, mode: number): Promise<void> {
  const part = `${path}.${randomBytes(6).toString('hex')}.part`
  try {
    await writeFile(part, text, { mode, flag: 'wx', flush: true })
    await rename(part, path)
  } catch (error) {
    await rm(part, { force: true })
    throw error
  }
}

if (import.meta.main) {
  const hosts = process.argv.slice(2)
  if (hosts.length === 0) {
    console.error('usage: node certs/make-dev.ts HOST…')
    process.exitCode = 2
  }
  for (const host of hosts) {
    const alsoHosts = hosts.filter((other) => other !== host)
    const done = await ensureDevelopmentCertificate({ host, alsoHosts, folder: import.meta.dirname })
    console.log(`${certificateFiles(import.meta.dirname, host).cert}: ${done}`)
  }
}
