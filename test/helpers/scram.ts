/** The client's side of SCRAM (RFC 5802, RFC 7677) for tests, computed with node:crypto alone; every part can be overridden to cheat. */
import { createHash, createHmac, pbkdf2Sync, randomBytes } from 'node:crypto'

/** What a dishonest or exotic client sends instead of the right thing. */
export interface ScramOverrides {
  readonly gs2?: string // 'n,,' by default; 'y,,' and 'p=tls-exporter,,' for channel binding
  readonly user?: string
  readonly nonce?: string
  readonly ext?: string // put before the username: 'm=foo,' (RFC 5802 §5.1)
  readonly c?: string // the c= value of the final message, already base64
  readonly r?: string // the nonce of the final message
  readonly proof?: string // the p= value
  readonly tail?: string // put between nonce and proof: ',x=extension'
}

/** One exchange. Messages are given and taken without base64. */
export class Scram {
  readonly #hash: string
  readonly #keyBytes: number
  #overrides: ScramOverrides
  readonly #password: string
  readonly #gs2: string
  readonly #firstBare: string
  readonly #binding: Buffer
  #signature: Buffer | undefined

  /** `mechanism`: SCRAM-SHA-1, -256, -512, with or without -PLUS; `binding`: channel binding data for -PLUS. */
  constructor(
    mechanism: string,
    user: string,
    password: string,
    overrides: ScramOverrides = {},
    binding = Buffer.alloc(0),
  ) {
    this.#hash = mechanism.includes('SHA-1') ? 'sha1' : mechanism.includes('SHA-512') ? 'sha512' : 'sha256'
    this.#keyBytes = createHash(this.#hash).digest().length
    this.#overrides = overrides
    this.#password = password
    this.#binding = binding
    this.#gs2 = overrides.gs2 ?? 'n,,'
    // RFC 5802 §5.1: '=' and ',' in names are written =3D and =2C
    const name = (overrides.user ?? user).replaceAll('=', '=3D').replaceAll(',', '=2C')
    this.#firstBare = `${overrides.ext ?? ''}n=${name},r=${overrides.nonce ?? randomBytes(18).toString('base64')}`
  }

  first(): string {
    return this.#gs2 + this.#firstBare
  }

  /** Changes what the final message will say. */
  override(more: ScramOverrides): void {
    this.#overrides = { ...this.#overrides, ...more }
  }

  final(serverFirst: string): string {
    const parts = new Map(serverFirst.split(',').map((part) => [part.slice(0, 1), part.slice(2)]))
    const salt = Buffer.from(parts.get('s') ?? '', 'base64')
    const rounds = Number(parts.get('i'))
    const salted = pbkdf2Sync(this.#password.normalize('NFKC'), salt, rounds, this.#keyBytes, this.#hash)
    const clientKey = this.#mac(salted, 'Client Key')
    const storedKey = createHash(this.#hash).update(clientKey).digest()
    const c = this.#overrides.c ?? Buffer.concat([Buffer.from(this.#gs2), this.#binding]).toString('base64')
    const withoutProof = `c=${c},r=${this.#overrides.r ?? parts.get('r')}${this.#overrides.tail ?? ''}`
    const message = `${this.#firstBare},${serverFirst},${withoutProof}`
    const mask = this.#mac(storedKey, message)
    // oxlint-disable-next-line no-bitwise -- RFC 5802 §3: ClientProof is an exclusive or
    const proof = Buffer.from(clientKey.map((byte, i) => byte ^ (mask[i] ?? 0)))
    this.#signature = this.#mac(this.#mac(salted, 'Server Key'), message)
    return `${withoutProof},p=${this.#overrides.proof ?? proof.toString('base64')}`
  }

  /** Whether the server's final message proves that it knows the password too (RFC 5802 §5.1, v=). */
  verify(serverFinal: string): boolean {
    const value = /^v=([^,]*)/.exec(serverFinal)?.[1]
    return this.#signature !== undefined && value === this.#signature.toString('base64')
  }

  #mac(key: Buffer, text: string): Buffer {
    return createHmac(this.#hash, key).update(text).digest()
  }
}
