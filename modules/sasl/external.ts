/**
 * EXTERNAL (RFC 4422 appendix A) with client certificates (XEP-0178 §2): the account is an XMPP address in a certificate that TLS has
 * verified. Certificates without such an address are not mapped to accounts. Server streams are not handled here.
 */
import type { Session } from '../../server/module.ts'
import { SaslError } from '../../server/xmpp/errors.ts'
import { tryJid } from '../../server/xmpp/jid.ts'
import { xmppAddresses } from './certificate.ts'
import { decodeUtf8 } from './encoding.ts'
import type { Attempt, Mechanism, MechanismEnv, Turn } from './mechanism.ts'

/** The mechanism; offered when the client's certificate names an account of this host (RFC 6120 §6.3.4). */
export function external(env: MechanismEnv): Mechanism {
  return {
    name: 'EXTERNAL',
    rank: 100, // RFC 6120 §6.3.4: listed first
    needsTls: true,
    usable: (s) => accounts(s, env.host).length > 0,
    start: (attempt) => (message) => check(env, attempt, decodeUtf8(message)),
  }
}

/** Localparts of this host that the certificate names, each once. */
function accounts(s: Session, host: string): readonly string[] {
  const certificate = s.tls?.clientCertificate()
  if (certificate === undefined) return []
  const locals = new Set<string>()
  for (const text of xmppAddresses(certificate)) {
    const jid = tryJid(text)
    if (jid?.domain === host && jid.local !== '' && jid.isBare) locals.add(jid.local)
  }
  return [...locals]
}

async function check(env: MechanismEnv, attempt: Attempt, authzid: string): Promise<Turn> {
  const named = accounts(attempt.session, env.host)
  const wanted = authzid === '' ? undefined : tryJid(authzid)
  const local = authzid === '' ? named[0] : wanted?.local
  // XEP-0178 §2 (10b), (11b): with more than one address the client says which; it must be one of them
  if (local === undefined || !named.includes(local) || (authzid === '' && named.length > 1))
    throw new SaslError('invalid-authzid')
  attempt.account(local)
  attempt.authorize(authzid, local)
  // (11a): of a registered account
  const auth = env.auth()
  if (auth.generations === undefined) {
    if (!(await auth.exists(local))) throw attempt.wrong()
    return { local }
  }
  const generation = await auth.generations.of(local)
  if (generation === undefined) throw attempt.wrong()
  return { local, generation }
}
