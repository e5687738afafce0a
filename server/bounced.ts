/** Messages that go back to their senders: who is told of them, and what their senders may see. */
import type { Host } from './host.ts'
import type { StanzaEvent } from './module.ts'
import type { Element } from './xmpp/element.ts'
import { NS } from './xmpp/ns.ts'

/** Runs 'message:bounced' on the host of the sender, and where `all` are told on that of the receiver. Nobody waits for it. */
export function tellBounced(hosts: ReadonlyMap<string, Host>, e: StanzaEvent, told: 'sender' | 'all'): void {
  // RFC 6120 §8.3.1: errors are not answered
  if (e.stanza.name !== 'message' || e.stanza.attr('type') === 'error') return
  const here = hosts.get(e.from.domain)
  const there = hosts.get(e.to.domain)
  // What the receiver's host has refused is no news to it.
  if (here !== there || told === 'all') tell(here, e)
  if (here !== there && told === 'all') tell(there, e)
}

function tell(host: Host | undefined, e: StanzaEvent): void {
  if (host === undefined) return
  const { messageBounced } = host.chains
  void messageBounced.runAfter(messageBounced.message, e)
}

/** The stanza without the id that its receiver's archive gave it: its sender must not see that (XEP-0313 1.1.3 §3.5). */
export function withoutArchiveId({ stanza, to }: StanzaEvent): Element {
  if (stanza.name !== 'message') return stanza
  const owner = to.bare.toString()
  return stanza.without((child) => child.is('stanza-id', NS.SID) && child.attr('by') === owner)
}
