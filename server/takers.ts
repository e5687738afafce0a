/** Which sessions a message goes to: RFC 6121 §8.5.2.1.1, §8.5.3 and table 1. One place, for the router and for modules that copy. */
import type { Bound } from './module.ts'
import type { Element } from './xmpp/element.ts'
import type { JID } from './xmpp/jid.ts'
import { stanzaIdBy } from './xmpp/stanza.ts'

const NOBODY: readonly Bound[] = []

/** `exact`: the session of the full JID, if there is one. `sessions`: all of the account. */
export function takersOf(
  exact: Bound | undefined,
  sessions: readonly Bound[],
  to: JID,
  type: string | undefined,
): readonly Bound[] {
  if (exact !== undefined) return [exact] // §8.5.3.1
  if (to.resource !== '') return type === 'chat' ? mostAvailable(sessions) : NOBODY // §8.5.3.2.1
  if (type === 'groupchat' || type === 'error') return NOBODY
  if (type === 'headline') return sessions.filter((s) => (s.priority ?? -1) >= 0)
  return mostAvailable(sessions)
}

/** §8.5.2.1.1: the resources of the highest priority, when it is not negative. */
function mostAvailable(sessions: readonly Bound[]): readonly Bound[] {
  let highest = -1
  let found: Bound[] | undefined
  for (const session of sessions) {
    const priority = session.priority
    if (priority === undefined || priority < 0 || priority < highest) continue
    if (priority > highest || found === undefined) found = [session]
    else found.push(session)
    highest = priority
  }
  return found ?? NOBODY
}

/**
 * Whether a message that was given to the session `of`, which is over, is not for the session of the full JID `to` any more, `exact`. It was for that
 * resource when nobody had it (§8.5.3.2.1); who has it now may have got newer ones. As the account's archive has it (XEP-0359), it is left to that,
 * and to what is kept for devices that read none, until the session is available: by then it has said whether it reads the archive.
 */
export function isPast(exact: Bound | undefined, stanza: Element, to: JID, of: JID): boolean {
  if (exact === undefined || exact.priority !== undefined || of.equals(to)) return false
  return to.resource !== '' && stanzaIdBy(stanza, to.bare) !== undefined
}
