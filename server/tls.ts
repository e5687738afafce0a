/**
 * Certificates: which one a connection gets (by SNI, RFC 6066 §3; with STARTTLS by the stream header, RFC 6120 §5.4.3.1),
 * how TLS is set up (RFC 7590, RFC 9325), and how certificates are replaced while the server runs.
 *
 * Does not fetch certificates, does not staple OCSP responses.
 */
import { constants, createHash, createPrivateKey, randomBytes, X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { isIP } from 'node:net'
import { join } from 'node:path'
import type { SecureContext, TLSSocketOptions } from 'node:tls'
import { createSecureContext } from 'node:tls'
import { domainToASCII } from 'node:url'
import type { Log } from './module.ts'
import { OperatorError } from './operator-error.ts'

/** A certificate (PEM, with the chain behind it) and its key (PEM) as files. */
export interface CertificateSource {
  readonly cert: string
  readonly key: string
}

/** What `Tls.load` needs to know. */
export interface TlsSettings {
  /** Virtual hosts; the first one's certificate is for clients that name no host. */
  readonly hosts: readonly string[]
  /** Where HOST.crt and HOST.key are, or HOST/fullchain.pem and HOST/privkey.pem. */
  readonly folder: string
  readonly perHost?: ReadonlyMap<string, CertificateSource>
  /** Make a self-signed certificate for hosts that have none. */
  readonly development: boolean
  /** PEM file of the authorities whose client certificates count (SASL EXTERNAL). Absent: none are asked for. */
  readonly clientCa?: string
  readonly minVersion?: 'TLSv1.2' | 'TLSv1.3'
  readonly log: Log
  /** For tests. */
  readonly now?: () => number
}

/** What a connection is for; decides ALPN and whether a client certificate is asked for. */
export type TlsPurpose = 'c2s' | 'c2s-direct' | 'direct' | 'https'
/** Options for `new TLSSocket(socket, …)` on the server's side. */
export type TlsOptions = TLSSocketOptions & { readonly isServer: true }

interface Loaded {
  readonly host: string
  readonly cert: string
  readonly key: string
  readonly leaf: X509Certificate
}

const DAY_MS = 86_400_000
const WARN_DAYS = 14
// RFC 9325 §4.2: forward secrecy and authenticated encryption only. The client chooses among them: phones without
// AES in hardware prefer ChaCha20.
const CIPHERS = [
  'TLS_AES_128_GCM_SHA256',
  'TLS_CHACHA20_POLY1305_SHA256',
  'TLS_AES_256_GCM_SHA384',
  'ECDHE-ECDSA-AES128-GCM-SHA256',
  'ECDHE-RSA-AES128-GCM-SHA256',
  'ECDHE-ECDSA-CHACHA20-POLY1305',
  'ECDHE-RSA-CHACHA20-POLY1305',
  'ECDHE-ECDSA-AES256-GCM-SHA384',
  'ECDHE-RSA-AES256-GCM-SHA384',
].join(':')
const ALPN: Readonly<Record<TlsPurpose, readonly string[] | undefined>> = {
  c2s: undefined,
  'c2s-direct': ['xmpp-client'], // XEP-0368 §3 rule 8
  direct: undefined,
  https: ['http/1.1'],
}

/** The certificates of all hosts, and the TLS settings made of them. */
export class Tls {
  #settings: TlsSettings
  readonly #now: () => number
  #loaded: readonly Loaded[] = []
  #clientCa: string | undefined
  #ticketKeys = randomBytes(48)
  #ticketKeysAt = 0
  #byName = new Map<string, SecureContext>()
  #byHost = new Map<string, Loaded>()
  #leaves = new Map<SecureContext, X509Certificate>()
  #first: SecureContext | undefined
  readonly #options: Readonly<Record<TlsPurpose, Map<SecureContext, TlsOptions>>> = {
    c2s: new Map(),
    'c2s-direct': new Map(),
    direct: new Map(),
    https: new Map(),
  }

  private constructor(settings: TlsSettings) {
    this.#settings = settings
    this.#now = settings.now ?? Date.now
  }

  /** Reads all certificates. Throws an Error with one clear sentence when one is missing or broken. */
  static async load(settings: TlsSettings): Promise<Tls> {
    const tls = new Tls(settings)
    await tls.reload()
    return tls
  }

  /** The host whose certificate is for clients that name none. */
  get defaultHost(): string {
    return this.#settings.hosts[0] ?? ''
  }

  /**
   * Reads all certificates again. All or nothing: when one is broken, this throws (one clear sentence) and the old ones
   * stay in use. Connections keep what they have. `settings`: from now on, other places and rules than so far.
   */
  async reload(settings: TlsSettings = this.#settings): Promise<void> {
    const old = this.#settings
    this.#settings = settings
    try {
      await this.#reload()
    } catch (error) {
      this.#settings = old
      throw error
    }
  }

  async #reload(): Promise<void> {
    const { clientCa } = this.#settings
    const ca =
      clientCa === undefined ? undefined : await readText(clientCa, 'authorities for client certificates')
    if (ca !== undefined) checkAuthorities(ca, clientCa ?? '')
    const loaded = await this.#readAll()
    for (const next of loaded) {
      const old = this.#byHost.get(next.host)
      if (old !== undefined && this.#isOver(next.leaf) && !this.#isOver(old.leaf))
        throw new OperatorError(
          `the new certificate for ${next.host} has expired on ${next.leaf.validTo}; the old one stays`,
        )
    }
    // Made before anything is replaced: OpenSSL has the last word on what is a usable certificate.
    this.#build(loaded, ca, this.#ticketKeysAt === 0 ? this.#now() : this.#ticketKeysAt)
  }

  /**
   * The certificate for a name: of that host, else one that names it, else one whose wildcard covers it (RFC 6125 §6.4.3),
   * else that of the first host.
   */
  contextFor(host: string): SecureContext {
    this.#rotate()
    const context = this.#find(host) ?? this.#first
    if (context === undefined) throw new Error('no certificate is loaded')
    return context
  }

  /**
   * Options for a server-side `TLSSocket`. `host` is the certificate for a client that sends no SNI, or one that is not
   * known here. Shared, so not to be changed.
   */
  optionsFor(purpose: TlsPurpose, host: string = this.defaultHost): TlsOptions {
    const secureContext = this.contextFor(host)
    const cached = this.#options[purpose].get(secureContext)
    if (cached !== undefined) return cached
    const alpn = ALPN[purpose]
    const options: TlsOptions = {
      isServer: true,
      secureContext,
      // RFC 6120 §5.4.3.1 rule 4: after STARTTLS the stream header has said which certificate
      ...(purpose === 'c2s' ? {} : { SNICallback: (name, done) => done(null, this.#find(name)) }),
      // RFC 6120 §5.4.3.1 rule 3. Not over HTTPS, where browsers would ask their users.
      requestCert: this.#clientCa !== undefined && purpose !== 'https' && purpose !== 'direct',
      rejectUnauthorized: false,
      ...(alpn === undefined ? {} : { ALPNProtocols: [...alpn] }),
    }
    this.#options[purpose].set(secureContext, options)
    return options
  }

  /**
   * The certificate that `optionsFor(…, host)` serves to a client that asks for `name` ('' for none, undefined: not known;
   * then the answer is undefined too unless there is but one).
   */
  certificateFor(name: string | undefined, host: string): X509Certificate | undefined {
    if (name === undefined && this.#loaded.length > 1) return undefined
    const context = this.#find(name ?? '') ?? this.contextFor(host)
    return this.#leaves.get(context)
  }

  /** Whether a certificate was loaded for this virtual host. */
  has(host: string): boolean {
    return this.#byHost.has(host)
  }

  /** The day the host's certificate ends. Throws when no such host is known. */
  notAfter(host: string): Date {
    const loaded = this.#byHost.get(host)
    if (loaded === undefined) throw new Error(`no certificate is loaded for ${host}`)
    return loaded.leaf.validToDate
  }

  #find(name: string): SecureContext | undefined {
    const plain = asciiName(name)
    const exact = this.#byName.get(plain)
    if (exact !== undefined) return exact
    const dot = plain.indexOf('.')
    return dot < 0 ? undefined : this.#byName.get(`*${plain.slice(dot)}`)
  }

  #isOver(leaf: X509Certificate): boolean {
    return leaf.validToDate.getTime() < this.#now()
  }

  /** Tickets are as good as their key is secret, so a key serves for one day. Costs a comparison for each connection. */
  #rotate(): void {
    const now = this.#now()
    if (now - this.#ticketKeysAt < DAY_MS) return
    this.#ticketKeys = randomBytes(48)
    this.#build(this.#loaded, this.#clientCa, now)
  }

  #build(loaded: readonly Loaded[], clientCa: string | undefined, ticketKeysAt: number): void {
    // A resumed session has the certificate of its first handshake, and channel binding (RFC 5929 §4) needs ours to be
    // the same: so tickets are good for exactly this set of certificates.
    const generation = createHash('sha256')
    for (const { leaf } of loaded) generation.update(leaf.raw)
    const sessionIdContext = generation
      .update(clientCa ?? '')
      .digest('base64url')
      .slice(0, 32)
    const contexts = new Map<Loaded, SecureContext>()
    const byName = new Map<string, SecureContext>()
    const byHost = new Map<string, Loaded>()
    for (const item of loaded) {
      const context = createSecureContext({
        cert: item.cert,
        key: item.key,
        ca: clientCa ?? [], // not the public authorities: they do not vouch for accounts here, and cost memory
        minVersion: this.#settings.minVersion ?? 'TLSv1.2', // RFC 9325 §3.1.1
        ciphers: CIPHERS,
        // RFC 9266 §4.2: no tls-exporter where renegotiation is possible
        secureOptions: constants.SSL_OP_NO_RENEGOTIATION,
        sessionIdContext,
        sessionTimeout: DAY_MS / 1000,
        ticketKeys: this.#ticketKeys,
      })
      contexts.set(item, context)
      byHost.set(item.host, item)
      byName.set(asciiName(item.host), context)
    }
    for (const [item, context] of contexts)
      for (const name of dnsNames(item.leaf)) if (!byName.has(name)) byName.set(name, context)
    for (const host of this.#settings.hosts) {
      if (byHost.has(host)) continue
      const covering = loaded.find((item) => covers(item.leaf, host))
      const context = covering === undefined ? undefined : contexts.get(covering)
      if (covering === undefined || context === undefined) continue
      byHost.set(host, covering)
      byName.set(asciiName(host), context)
    }
    this.#loaded = loaded
    this.#clientCa = clientCa
    this.#ticketKeysAt = ticketKeysAt
    this.#byName = byName
    this.#byHost = byHost
    this.#leaves = new Map([...contexts].map(([item, context]) => [context, item.leaf]))
    this.#first = byName.get(asciiName(this.#settings.hosts[0] ?? ''))
    for (const cache of Object.values(this.#options)) cache.clear()
  }

  async #readAll(): Promise<readonly Loaded[]> {
    const { hosts, development, folder, log } = this.#settings
    if (hosts.length === 0) throw new Error('TLS needs at least one host')
    const loaded: Loaded[] = []
    const missing: string[] = []
    for (const host of hosts) {
      if (development) await this.#makeDevelopment(host)
      const found = await this.#readHost(host)
      if (found === undefined) missing.push(host)
      else loaded.push(found)
    }
    for (const host of missing) {
      if (loaded.some((item) => covers(item.leaf, host))) continue
      const files = `${join(folder, `${host}.crt`)} and ${host}.key`
      throw new OperatorError(
        `there is no certificate for ${host}: put it into ${files}, or name its files in the configuration`,
      )
    }
    for (const { host, leaf } of loaded) {
      if (this.#isOver(leaf)) log.warn('certificate has expired', { host, notAfter: leaf.validTo })
      else if (leaf.validToDate.getTime() - this.#now() < WARN_DAYS * DAY_MS)
        log.warn('certificate expires soon', { host, notAfter: leaf.validTo })
      if (!covers(leaf, host))
        log.warn('certificate does not name its host', { host, names: leaf.subjectAltName })
    }
    return loaded
  }

  async #makeDevelopment(host: string): Promise<void> {
    const { folder, hosts, log, perHost } = this.#settings
    if (perHost?.has(host) === true || (await exists(join(folder, host, 'fullchain.pem')))) return
    const { ensureDevelopmentCertificate } = await import('../certs/make-dev.ts')
    const alsoHosts = hosts.filter((other) => other !== host)
    const now = new Date(this.#now())
    const done = await ensureDevelopmentCertificate({ host: checked(host), alsoHosts, folder, now })
    if (done !== 'kept') log.warn(`self-signed certificate ${done}: for development only`, { host, folder })
  }

  async #readHost(host: string): Promise<Loaded | undefined> {
    const { folder, perHost } = this.#settings
    const named = perHost?.get(host)
    if (named !== undefined) return await readPair(host, named)
    const name = checked(host)
    const candidates = [
      { cert: join(folder, `${name}.crt`), key: join(folder, `${name}.key`) },
      { cert: join(folder, name, 'fullchain.pem'), key: join(folder, name, 'privkey.pem') },
    ]
    for (const files of candidates) if (await exists(files.cert)) return await readPair(host, files)
    return undefined
  }
}

function checked(host: string): string {
  if (/[/\\\0]|^\.{0,2}$/.test(host)) throw new OperatorError(`"${host}" cannot be the name of a host`)
  return host
}

const asciiName = (name: string): string => {
  const plain = name.endsWith('.') ? name.slice(0, -1) : name
  return /^[\0-\x7f]*$/.test(plain) ? plain.toLowerCase() : domainToASCII(plain)
}

async function readPair(host: string, files: CertificateSource): Promise<Loaded> {
  const cert = await readText(files.cert, `certificate for ${host}`)
  const key = await readText(files.key, `key of the certificate for ${host}`)
  let leaf: X509Certificate
  try {
    leaf = new X509Certificate(cert)
  } catch (cause) {
    throw new OperatorError(`the certificate for ${host} in ${files.cert} is not a certificate in PEM form`, {
      cause,
    })
  }
  let fits: boolean
  try {
    fits = leaf.checkPrivateKey(createPrivateKey(key))
  } catch (cause) {
    throw new OperatorError(
      `the key for ${host} in ${files.key} is not a private key in PEM form without a password`,
      { cause },
    )
  }
  if (!fits)
    throw new OperatorError(`the key in ${files.key} does not belong to the certificate in ${files.cert}`)
  return { host, cert, key, leaf }
}

async function readText(path: string, what: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown error'
    const reason =
      code === 'ENOENT' ? 'there is no such file' : code === 'EACCES' ? 'permission denied' : code
    throw new OperatorError(`cannot read the ${what} from ${path}: ${reason}`, { cause })
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await readFile(path)
    return true
  } catch (error) {
    return !(error instanceof Error && 'code' in error && error.code === 'ENOENT')
  }
}

function checkAuthorities(pem: string, path: string): void {
  try {
    void new X509Certificate(pem)
  } catch (cause) {
    throw new OperatorError(
      `the authorities for client certificates in ${path} are not certificates in PEM form`,
      {
        cause,
      },
    )
  }
}

/** DNS-IDs of a certificate in lower case, wildcards as they are. */
function dnsNames(leaf: X509Certificate): string[] {
  return (leaf.subjectAltName ?? '')
    .split(', ')
    .filter((name) => name.startsWith('DNS:') && !name.includes('"'))
    .map((name) => name.slice(4).toLowerCase())
}

function covers(leaf: X509Certificate, host: string): boolean {
  if (isIP(host) !== 0) return leaf.checkIP(host) !== undefined
  return leaf.checkHost(asciiName(host), { subject: 'never' }) !== undefined
}
