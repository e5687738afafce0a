/**
 * XEP-0198 as seen from a client of a dialogue: counts what it sends and gets, and keeps the server's requests apart, which come when the
 * server likes. Nothing is answered by itself.
 */
import { type Element, NS_CLIENT, parsePattern } from './xml.ts'

/** XEP-0198 §12.1. */
export const NS_SM = 'urn:xmpp:sm:3'

/** The counts of one session; a client that resumes it goes on with them. */
export class StreamCounts {
  /** SM-ID, '' when the session cannot be resumed. */
  id = ''
  /** Stanzas sent since <enable/>: what the server's 'h' becomes. */
  sent = 0
  /** Stanzas received since <enabled/>: what the client's 'h' is. */
  received = 0
  /** Requests of the server that nobody has looked at. */
  asked = 0
  #on = false

  /** What came; false: a request, which the dialogue does not see. */
  arrived(el: Element): boolean {
    const enabled = el.is('enabled', NS_SM) ? el : findEnabled(el)
    if (enabled !== undefined) {
      this.#on = true
      this.id = enabled.attrs['id'] ?? ''
    } else if (el.is('resumed', NS_SM) || hasResumed(el)) this.#on = true
    else if (el.is('r', NS_SM)) {
      this.asked++
      return false
    } else if (this.#on && isStanza(el)) this.received++
    return true
  }

  /** Another stream goes on with the session: what is counted comes after <resumed/>. */
  pause(): void {
    this.#on = false
  }
}

/** Counts what is in a text that a client sends; gives new counts where it enables stream management, or goes on. */
export function countSent(text: string, counts: StreamCounts | undefined): StreamCounts | undefined {
  if (counts === undefined && !text.includes(NS_SM)) return undefined
  let now = counts
  for (const el of elementsOf(text)) {
    if (el.is('enable', NS_SM) || el.is('resume', NS_SM)) now ??= new StreamCounts()
    else if (now !== undefined && isStanza(el)) now.sent++
    else if (now === undefined && el.getChild('bind', NS_BIND2)?.getChild('enable', NS_SM) !== undefined)
      now = new StreamCounts()
  }
  return now
}

const NS_BIND2 = 'urn:xmpp:bind:0'

/** Of a text that is no XML, or not all of it, nothing counts. */
function elementsOf(text: string): readonly Element[] {
  try {
    return parsePattern(text)
  } catch {
    return []
  }
}

const isStanza = (el: Element): boolean =>
  el.getNS() === NS_CLIENT && ['message', 'presence', 'iq'].includes(el.getName())

/** Within <success/> (XEP-0198 §9.1). */
const findEnabled = (el: Element): Element | undefined =>
  el.is('success') ? el.getChild('bound', NS_BIND2)?.getChild('enabled', NS_SM) : undefined

/** The same for a session that goes on (§9.2). */
const hasResumed = (el: Element): boolean => el.is('success') && el.getChild('resumed', NS_SM) !== undefined
