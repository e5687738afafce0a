/**
 * SCRAM (RFC 5802; SHA-256: RFC 7677; SHA-512: the same with that hash) with channel binding (RFC 9266 tls-exporter, RFC 5929 §4
 * tls-server-end-point), downgrade protection (XEP-0474) and the TLS version (XEP-0515).
 * Unknown accounts get keys made up for them, so that both take the same way and the same time.
 */
import { createHash, createHmac, hash as digest, randomBytes, timingSafeEqual } from 'node:crypto'
import type { ScramHash, ScramKeys, TlsInfo } from '../../server/module.ts'
import { SaslError } from '../../server/xmpp/errors.ts'
import { decodeUtf8, encodeBase64 } from './encoding.ts'
import type { Attempt, ChannelBinding, Mechanism, MechanismEnv, Turn } from './mechanism.ts'
import { type ClientFirst, parseClientFinal, parseClientFirst } from './scram-messages.ts'

const HASHES: readonly { readonly hash: ScramHash; readonly node: string; readonly rank: number }[] = [
  { hash: 'SHA-1', node: 'sha1', rank: 20 },
  { hash: 'SHA-256', node: 'sha256', rank: 30 },
  { hash: 'SHA-512', node: 'sha512', rank: 40 },
]
/** With channel binding each is stronger than all without. */
const PLUS_RANK = 30

/** The mechanisms of one hash that the accounts have keys for: without and with channel binding. */
interface Variant {
  readonly env: MechanismEnv
  readonly hash: ScramHash
  /** As node:crypto calls it. */
  readonly node: string
  readonly plus: boolean
  /** Send the attributes of XEP-0474 and XEP-0515. */
  readonly protect: boolean
  readonly makeNonce: () => string
}

/** The server's part of a nonce (RFC 5802 §5.1 r): printable, without a comma. */
const randomNonce = (): string => randomBytes(18).toString('base64')

/** All SCRAM mechanisms. `protect`: with XEP-0474 and XEP-0515. `makeNonce` is given for test vectors only. */
export function scram(env: MechanismEnv, protect: boolean, makeNonce = randomNonce): readonly Mechanism[] {
  return HASHES.flatMap(({ hash, node, rank }) =>
    [false, true].map((plus) =>
      mechanism({ env, hash, node, plus, protect, makeNonce }, rank + (plus ? PLUS_RANK : 0)),
    ),
  )
}

function mechanism(variant: Variant, rank: number): Mechanism {
  const { env, hash, plus } = variant
  return {
    name: `SCRAM-${hash}${plus ? '-PLUS' : ''}`,
    rank,
    needsTls: plus,
    password: true,
    usable: (s, bindings) => env.hashes(s).includes(hash) && (!plus || bindings.length > 0),
    start: (attempt) => (message) => first(variant, attempt, decodeUtf8(message)),
  }
}

const BINDINGS: readonly ChannelBinding[] = ['tls-exporter', 'tls-server-end-point']

/** The channel bindings of a connection, the stronger first. */
export function bindingsOf(tls: TlsInfo): readonly ChannelBinding[] {
  return BINDINGS.filter((type) => tls.channelBinding(type) !== undefined)
}

/** `generation`: of the account when they were read; it may be another one when the client answers. */
type MaybeKeys = (ScramKeys & { readonly generation?: string }) | undefined

/** RFC 5802 §5.1: client-first-message in, server-first-message out. */
async function first(variant: Variant, attempt: Attempt, message: string): Promise<Turn> {
  const asked = parseClientFirst(message)
  const bindingData = negotiateBinding(variant, attempt, asked.binding)
  const local = attempt.account(asked.username)
  attempt.authorize(asked.authzid, local)
  const auth = variant.env.auth()
  const known: MaybeKeys = await (auth.generations ?? auth).scramKeys(local, variant.hash)
  const decoy = auth.decoyKeys(local, variant.hash) // always made, so that its time tells nothing
  const keys = known ?? decoy
  const nonce = asked.nonce + variant.makeNonce()
  const answer = `r=${nonce},s=${encodeBase64(keys.salt)},i=${keys.iterations}${protection(variant, attempt)}`
  return {
    challenge: Buffer.from(answer),
    next: (reply) => {
      const final = { asked, bindingData, nonce, serverFirst: answer, keys, generation: known?.generation }
      return last(variant, attempt, local, final, decodeUtf8(reply))
    },
  }
}

/** RFC 5802 §6: what the client wants, against what it was offered. The binding data to expect, if any. */
function negotiateBinding(
  variant: Variant,
  attempt: Attempt,
  binding: ClientFirst['binding'],
): Uint8Array | undefined {
  switch (binding.flag) {
    case 'n':
      if (variant.plus) throw new SaslError('malformed-request', 'a -PLUS mechanism needs channel binding')
      return undefined
    case 'y':
      // "the server MUST fail authentication": the client did not see the -PLUS mechanisms that were offered
      if (variant.plus || attempt.offered.some((name) => name.startsWith('SCRAM-') && name.endsWith('-PLUS')))
        throw new SaslError('not-authorized', 'the server does support channel binding')
      return undefined
    case 'p': {
      const type = attempt.bindings.find((known) => known === binding.name)
      if (!variant.plus) throw new SaslError('malformed-request', 'channel binding needs a -PLUS mechanism')
      if (type === undefined) throw new SaslError('malformed-request', 'channel binding type not offered')
      return attempt.session.tls?.channelBinding(type)
    }
  }
}

const TLS_VERSIONS: ReadonlyMap<string, string> = new Map([
  ['TLSv1.2', '0303'],
  ['TLSv1.3', '0304'],
])

/** Optional attributes that a client can compare with what it saw. */
function protection(variant: Variant, attempt: Attempt): string {
  if (!variant.protect) return ''
  // XEP-0474 §6.1; names are ASCII, so that the order of code units is that of octets
  let list = attempt.offered.toSorted().join('\x1e')
  if (attempt.bindings.length > 0) list += `\x1f${attempt.bindings.toSorted().join('\x1e')}`
  // XEP-0515 §4.1
  const version = TLS_VERSIONS.get(attempt.session.tls?.protocol ?? '')
  return `,h=${digest(variant.node, list, 'base64')}${version === undefined ? '' : `,t=${version}`}`
}

/** What the first round has fixed. */
interface Agreed {
  readonly asked: ClientFirst
  readonly bindingData: Uint8Array | undefined
  readonly nonce: string
  readonly serverFirst: string
  readonly keys: ScramKeys
  readonly generation: string | undefined
}

/** RFC 5802 §3: client-final-message in, server-final-message out. */
function last(variant: Variant, attempt: Attempt, local: string, agreed: Agreed, message: string): Turn {
  const { asked, keys } = agreed
  const final = parseClientFinal(message)
  // §5.1 c: compared in the form it must have, so that there is one spelling only
  const binding = Buffer.concat([Buffer.from(asked.gs2Header), agreed.bindingData ?? new Uint8Array()])
  if (final.binding !== binding.toString('base64'))
    throw new SaslError('not-authorized', 'channel bindings do not match')
  // §5.1 r
  if (final.nonce !== agreed.nonce) throw new SaslError('not-authorized', 'wrong nonce')

  const authMessage = `${asked.bare},${agreed.serverFirst},${final.withoutProof}`
  const signature = createHmac(variant.node, keys.storedKey).update(authMessage).digest()
  if (final.proof.length !== signature.length) throw attempt.wrong()
  // ClientKey = ClientProof XOR ClientSignature
  const clientKey = signature
  // oxlint-disable-next-line no-bitwise -- exclusive or is what SCRAM is made of
  for (const [i, byte] of final.proof.entries()) clientKey[i] = (clientKey[i] ?? 0) ^ byte
  const storedKey = createHash(variant.node).update(clientKey).digest()
  if (storedKey.length !== keys.storedKey.length || !timingSafeEqual(storedKey, keys.storedKey))
    throw attempt.wrong()
  const verifier = createHmac(variant.node, keys.serverKey).update(authMessage).digest('base64')
  return { local, data: Buffer.from(`v=${verifier}`), generation: agreed.generation }
}
