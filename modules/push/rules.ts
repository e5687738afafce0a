/**
 * Which messages are worth waking a device for: those that a person would want to be told of. Not what the account has sent itself, nor
 * what is said in rooms, nor what only concerns the moment (typing, markers, receipts), nor answers of the archive, nor errors.
 */
import { createHash } from 'node:crypto'
import type { Services } from '../../server/module.ts'
import type { Element } from '../../server/xmpp/element.ts'
import { type JID, tryJid } from '../../server/xmpp/jid.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { stanzaIdBy } from '../../server/xmpp/stanza.ts'

const MUC_USER = 'http://jabber.org/protocol/muc#user'

/** Encrypted content; what is inside cannot be seen from here. OMEMO without a payload only carries keys. */
const ENCRYPTED: ReadonlyMap<string, (child: Element) => boolean> = new Map([
  ['eu.siacs.conversations.axolotl', hasPayload],
  ['urn:xmpp:omemo:1', hasPayload],
  ['urn:xmpp:omemo:2', hasPayload],
  ['urn:xmpp:openpgp:0', () => true],
  ['jabber:x:encrypted', () => true],
])
/** Somebody wants to talk now: namespace to name. */
const CALLS: ReadonlyMap<string, string> = new Map([
  ['urn:xmpp:jingle-message:0', 'propose'], // XEP-0353 §3.1
  ['urn:xmpp:call-invites:0', 'invite'],
])
/** Texts of messages are cut there, UTF-16 units. */
const MAX_TEXT = 1024

/** A message that matters. */
export interface Notice {
  /** It is a call, which cannot wait. */
  readonly call: boolean
  /** The same for each copy of the message; undefined: nobody can tell. */
  readonly key: string | undefined
  /** Its id in the archive of the account (XEP-0359). */
  readonly archived: string | undefined
  /** It says that it has waited somewhere (XEP-0203), maybe for a session that is over. */
  readonly waited: boolean
  /** Who it is from. */
  readonly sender: string
  /** Only where somebody is told of it. */
  readonly body: string | undefined
}

/**
 * What a message is to an account; undefined: nothing that a device must be woken for. `account`: bare; `carbons`: when there are any;
 * `withBody`: its text is wanted.
 */
export function noticeOf(
  stanza: Element,
  account: JID,
  carbons: Services['carbons'] | undefined,
  withBody: boolean,
): Notice | undefined {
  let message = stanza
  if (stanza.attr('from') === account.toString() || stanza.attr('from') === undefined) {
    // a copy of what another device has got; anything else from the account itself is its own
    const copy = carbons?.copyIn(stanza, account)
    if (copy?.direction !== 'received') return undefined
    ;({ message } = copy)
  }
  const type = message.attr('type')
  if (type === 'error' || type === 'groupchat' || type === 'headline') return undefined
  const sender = message.attr('from') ?? ''
  if (sender === '' || tryJid(sender)?.bare.equals(account) === true) return undefined
  let call = false
  let matters = false
  let body: string | undefined
  for (const child of message.elements) {
    const { ns, name } = child
    if (ns === message.ns) {
      if (name === 'body') body ??= child.text()
    } else if (CALLS.get(ns) === name) call = true
    else if (ns === 'jabber:x:conference') matters = true
    else if (ns === MUC_USER) matters ||= child.getChild('invite') !== undefined
    else matters ||= ENCRYPTED.get(ns)?.(child) === true
  }
  if (!call && !matters && (body === undefined || body === '')) return undefined
  const archived = stanzaIdBy(message, account)
  return {
    call,
    key: archived ?? keyOf(message),
    archived,
    waited: stanza.getChild('delay', NS.DELAY) !== undefined,
    sender,
    body: withBody ? body?.slice(0, MAX_TEXT) : undefined,
  }
}

function hasPayload(child: Element): boolean {
  return child.name === 'encrypted' && child.getChild('payload') !== undefined
}

/** What its sender calls it. */
function keyOf(message: Element): string | undefined {
  const id = message.attr('id')
  if (id === undefined || id === '') return undefined
  return createHash('sha256')
    .update(`${message.attr('from')}\0${id}`)
    .digest('base64url')
}
