/**
 * XEP-0359 Unique and Stable Stanza IDs 0.7.0: takes out ids that claim to be assigned by an account of ours, and delays (XEP-0203 2.0)
 * that claim to be ours, so that what clients find there is true. The ids themselves are those of the archive, added by the module `mam`.
 */
import { defineModule, type StanzaEvent } from '../server/module.ts'
import type { Element } from '../server/xmpp/element.ts'
import { type JID, tryJid } from '../server/xmpp/jid.ts'
import { NS } from '../server/xmpp/ns.ts'

export default defineModule({
  name: 'stanza-id',
  summary: 'Removes forged message ids and forged marks of delay',
  specs: [
    { xep: 359, version: '0.7.0', status: 'complete', note: 'the ids are those of the archive (mam)' },
    { xep: 203, version: '2.0', status: 'partial', note: 'only the rule on forged delays' },
  ],
  setup(ctx) {
    // §5: whoever relies on an id asks the entity that assigns it, which is the account (§3 rule 7)
    ctx.disco.feature('account', NS.SID)
    ctx.disco.feature('host', NS.SID)
    const clean = (e: StanzaEvent, account: JID, delays: boolean): void => {
      if (!suspicious(e.stanza)) return
      e.stanza = e.stanza.without(
        (child) => assignedBy(child, account.bare) || (delays && delayedBy(child, ctx.host)),
      )
    }
    const kinds = ['message', 'presence'] as const
    ctx.hook('client:in', { phase: 'rewrite', kinds }, (e) => clean(e, e.from, true))
    // What our own services delayed says so rightly; of a client of ours nothing is left that says so.
    ctx.hook('account:in', { phase: 'rewrite', kinds }, (e) =>
      clean(e, e.to, e.session === undefined && !ctx.hosts.includes(e.from.domain)),
    )
  },
})

/** Nearly no stanza has any of these. */
function suspicious(stanza: Element): boolean {
  for (const child of stanza.children) {
    if (typeof child === 'string') continue
    if (child.ns === NS.DELAY || (child.ns === NS.SID && child.name === 'stanza-id')) return true
  }
  return false
}

/** §3 rule 2: an id with our own address in it is deleted, whether we add one or not; rule 7: addresses are normalised. */
function assignedBy(child: Element, account: JID): boolean {
  if (!child.is('stanza-id', NS.SID)) return false
  return tryJid(child.attr('by') ?? '')?.equals(account) === true
}

/** XEP-0203 §5: a delay that only this server could have added. */
function delayedBy(child: Element, host: string): boolean {
  if (!child.is('delay', NS.DELAY)) return false
  const by = tryJid(child.attr('from') ?? '')
  return by !== undefined && by.local === '' && by.resource === '' && by.domain === host
}
