/**
 * XEP-0030 Service Discovery 2.5.0: what the server and its accounts are, can do and hold, with the forms of XEP-0128 1.0.1. Other
 * modules fill the registry. Accounts answer only those who may see their presence (§8).
 */
import { c, defineModule, type DiscoInfo, type DiscoItem, type Iq, type Target } from '../server/module.ts'
import { type Element, el } from '../server/xmpp/element.ts'
import { StanzaError } from '../server/xmpp/errors.ts'
import { type JID, parseJid, tryJid } from '../server/xmpp/jid.ts'
import { NS } from '../server/xmpp/ns.ts'

/** Items of one answer, at most (§6.2: large sets are not for disco). */
const MAX_ITEMS = 1000

const config = c.object({
  items: c
    .array(
      c.object({
        jid: c.string().refine((jid) => tryJid(jid) !== undefined, { error: 'is not an XMPP address' }),
        name: c.string().optional(),
      }),
    )
    .default([])
    .describe('Further services to list, such as components or services of another machine.'),
  name: c.string().default('Hermod').describe('Name of the server in its identity.'),
})

export default defineModule({
  name: 'disco',
  summary: 'Says what the server and its accounts are and can do',
  specs: [
    {
      xep: 30,
      version: '2.5.0',
      status: 'complete',
      note: 'items of accounts are refused to strangers, as RFC 6121 §8.5.1 has it for accounts that do not exist',
    },
    { xep: 128, version: '1.0.1', status: 'complete' },
    { xep: 175, version: '1.2', status: 'partial', note: 'the identity of anonymous users' },
    { rfc: 6121, sections: '8.5.1' },
  ],
  optional: ['roster'],
  config,
  setup(ctx, options) {
    ctx.disco.identity('host', 'server', 'im', options.name)
    ctx.disco.identity('account', 'account', 'registered') // §3.1
    const listed = options.items.map(
      ({ jid, name }): DiscoItem => ({ jid: parseJid(jid), ...(name === undefined ? {} : { name }) }),
    )
    ctx.disco.items('host', '', () => listed)
    // §4.1: a bare JID lists the available resources
    ctx.disco.items('account', '', function* (_asker, to) {
      for (const session of ctx.sessions.of(to.local))
        if (session.presence !== undefined) yield { jid: session.jid }
    })

    for (const target of ['host', 'account'] as const) {
      ctx.iq(target, 'get', NS.DISCO_INFO, 'query', (iq) =>
        target === 'host' ? info(target, iq) : authorised(iq, () => info(target, iq)),
      )
      ctx.iq(target, 'get', NS.DISCO_ITEMS, 'query', (iq) =>
        target === 'host' ? items(target, iq) : authorised(iq, () => items(target, iq)),
      )
    }

    /**
     * §8: presence decides. Items too are refused with service-unavailable: an empty list for those who exist, next to the error
     * that RFC 6121 §8.5.1 demands for those who do not, would tell who exists.
     */
    async function authorised(iq: Iq, respond: () => Promise<Element>): Promise<Element> {
      if (!iq.from.bare.equals(iq.to.bare)) {
        const roster = await ctx.find('roster')?.of(iq.to.local)
        if (roster?.get(iq.from.bare)?.from !== true) throw new StanzaError('service-unavailable')
      }
      return respond()
    }

    async function info(target: Target, iq: Iq): Promise<Element> {
      const node = iq.payload.attr('node')
      const found =
        node === undefined || node === ''
          ? ownInfo(target, iq.to)
          : await ctx.disco.nodeInfo(target, node, iq.from, iq.to)
      if (found === undefined) throw new StanzaError('item-not-found') // §7
      return infoElement(found, node)
    }

    function ownInfo(target: Target, to: JID): DiscoInfo {
      const found = ctx.disco.info(target)
      if (target === 'host' || ctx.sessions.of(to.local).every((s) => s.flag('anonymous') !== true))
        return found
      // XEP-0175 §5
      const identities = found.identities.map((identity) =>
        identity.category === 'account' && identity.type === 'registered'
          ? { ...identity, type: 'anonymous' }
          : identity,
      )
      return { ...found, identities }
    }

    async function items(target: Target, iq: Iq): Promise<Element> {
      const node = iq.payload.attr('node')
      const lists = ctx.disco.itemLists(target, node ?? '')
      if (lists === undefined) throw new StanzaError('item-not-found')
      const found: Element[] = []
      for (const list of lists) {
        for await (const item of list(iq.from, iq.to)) {
          if (found.length >= MAX_ITEMS) break
          found.push(
            el('item', NS.DISCO_ITEMS, { jid: item.jid.toString(), node: item.node, name: item.name }),
          )
        }
      }
      return el('query', NS.DISCO_ITEMS, { node }, ...found) // §4.2: the node is mirrored
    }
  },
})

/** §3.1; §3.2: the node is mirrored. */
function infoElement(info: DiscoInfo, node: string | undefined): Element {
  return el(
    'query',
    NS.DISCO_INFO,
    { node },
    ...info.identities.map(({ lang, ...identity }) =>
      el('identity', NS.DISCO_INFO, { ...identity, 'xml:lang': lang }),
    ),
    ...info.features.map((feature) => el('feature', NS.DISCO_INFO, { var: feature })),
    ...info.forms,
  )
}
