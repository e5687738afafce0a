/**
 * ANONYMOUS (RFC 4505, XEP-0175): a temporary account for each stream, with its data removed at the end and, unless the configuration
 * says otherwise, no way to other servers.
 */
import { randomUUID } from 'node:crypto'
import type { Ctx } from '../../server/module.ts'
import { SaslError, StanzaError } from '../../server/xmpp/errors.ts'
import { decodeUtf8 } from './encoding.ts'
import type { Mechanism, MechanismEnv } from './mechanism.ts'

/** The flag of sessions that logged in without an account (true); disco answers account/anonymous for them (XEP-0175 §5). */
const FLAG = 'anonymous'

/** The mechanism. */
export const anonymous: Mechanism = {
  name: 'ANONYMOUS',
  rank: 0,
  needsTls: false,
  assigns: true,
  usable: () => true,
  start: () => (message) => {
    const trace = decodeUtf8(message)
    // RFC 4505 §2: at most 255 characters; §3: no control characters. The trace is not used for anything (XEP-0175 §3).
    if (trace.length > 1020 || Array.from(trace).length > 255 || /\p{Cc}/u.test(trace))
      throw new SaslError('malformed-request')
    // XEP-0175 §3: a temporary, unique bare JID; a UUID is recommended
    return { local: randomUUID() }
  },
}

/** Marks anonymous users and holds them to XEP-0175 §3. */
export function restrictAnonymous(ctx: Ctx, env: MechanismEnv, remote: boolean): void {
  ctx.hook('auth:result', { phase: 'observe' }, ({ session, mechanism, error }) => {
    if (mechanism === anonymous.name && error === undefined) session.setFlag(FLAG, true)
  })
  // §3 (2): no communication with remote servers
  if (!remote) {
    ctx.hook('client:in', { phase: 'guard' }, ({ session, to }) => {
      if (session?.flag(FLAG) !== true || isLocal(ctx, to.domain)) return undefined
      return { bounce: new StanzaError('not-allowed', { text: 'anonymous users stay on this server' }) }
    })
  }
  // §3 (3) and (4): relationships and stored data end with the session
  ctx.hook('session:closed', { phase: 'observe' }, async ({ session, resumable }) => {
    if (resumable || session.flag(FLAG) !== true) return
    const { local } = session.jid
    if (ctx.sessions.of(local).some((other) => other !== session)) return
    // whatever went wrong before: an account with credentials is never removed here
    if (!(await env.auth().exists(local))) await ctx.deleteAccount(local)
  })
}

function isLocal(ctx: Ctx, domain: string): boolean {
  return ctx.hosts.some((host) => domain === host || domain.endsWith(`.${host}`))
}
