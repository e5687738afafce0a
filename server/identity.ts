/**
 * Between login and binding: whether the account is still the one that the stream has authenticated for. Its password may have been changed
 * meanwhile; it may be gone, and its name be somebody else's.
 */
import type { Host } from './host.ts'
import type { Session } from './module.ts'
import { StreamError } from './xmpp/errors.ts'

/** The flag that holds what the login has proven; see StreamStep. */
export const GENERATION = 'generation'

/** Throws, or rejects with, StreamError('not-authorized') when the account is not what it was. A promise only where the store is asked. */
export function checkAccount(session: Session, host: Host): void | Promise<void> {
  const there = isThere(session, host)
  if (there instanceof Promise) return there.then(orGone)
  return orGone(there)
}

function isThere(session: Session, host: Host): boolean | Promise<boolean> {
  const auth = host.service('auth')
  // an anonymous user has no account (XEP-0175)
  if (auth === undefined || session.flag('anonymous') === true) return true
  const local = session.jid?.local ?? ''
  const proven = session.flag(GENERATION)
  if (auth.generations === undefined || proven === undefined) return auth.exists(local)
  const now = auth.generations.of(local)
  return now instanceof Promise ? now.then((generation) => generation === proven) : now === proven
}

function orGone(there: boolean): void {
  // RFC 6120 §4.9.3.12 names not-authorized for streams that may no longer be used
  if (!there) throw new StreamError('not-authorized', 'account removed or password changed')
}
