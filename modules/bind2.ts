/**
 * XEP-0386 Bind 2 1.1.0: binding within SASL2, with session features enabled in the same breath. Features plug in as
 * `StreamFeature.inline: 'bind2'` and advertise `<feature var='…' xmlns='urn:xmpp:bind:0'/>`; what comes without being asked for, such as
 * the state of the archive (XEP-0313) and the end of offline messages (XEP-0160), hangs on the chain 'bind2:bound'.
 */
import { createHmac, randomBytes } from 'node:crypto'
import { c, type Ctx, defineModule, type Session, type StreamStep } from '../server/module.ts'
import { type Element, el } from '../server/xmpp/element.ts'
import { StanzaError } from '../server/xmpp/errors.ts'
import type { JID } from '../server/xmpp/jid.ts'
import { NS } from '../server/xmpp/ns.ts'

declare module '../server/module.ts' {
  interface Hooks {
    /**
     * A session was bound by Bind 2, before the client knows. `parts` may be added to: children of <bound/>. The client will read its
     * archive, so offline messages are dropped, not delivered (XEP-0386 §3.2).
     */
    'bind2:bound': { readonly session: Session; readonly jid: JID; readonly parts: Element[] }
  }
}

/** Longest tag used, in UTF-16 units. */
const MAX_TAG = 128

type SecretDoc = { readonly secret: Uint8Array }

export default defineModule({
  name: 'bind2',
  summary: 'Binds a resource within the login',
  specs: [{ xep: 386, version: '1.1.0', status: 'complete' }],
  requires: ['bind', 'sasl2'],
  config: c.object({
    stable: c
      .boolean()
      .default(true)
      .describe('Give a client the same resource each time, as far as it says which installation it is'),
  }),
  async setup(ctx, config) {
    const binding = ctx.use('bind')
    const sasl2 = ctx.use('sasl2')
    const secret = await hostSecret(ctx)

    const resource = (s: Session, request: Element): string => {
      const agent = sasl2.userAgent(s)?.id
      const tag = request.getChildText('tag') ?? ''
      const id =
        agent === undefined || !config.stable || s.jid === undefined
          ? binding.generate()
          : // §3.2.1: stable for the same tag and user agent, and telling neither of them
            createHmac('sha256', secret)
              .update(`${s.jid.local}\0${agent}\0${tag}`)
              .digest('base64url')
              .slice(0, 16)
      return usableTag(s, tag) ? `${tag}/${id}` : id
    }

    ctx.streamFeature({
      ns: NS.BIND2,
      streams: ['c2s'],
      needs: ['authenticated'],
      forbids: ['bound'],
      inline: 'sasl2',
      advertise(s) {
        const features = ctx.inlineFeatures('bind2', s)
        // §3.1
        const inline = features.length === 0 ? undefined : el('inline', NS.BIND2, {}, ...features)
        return el('bind', NS.BIND2, {}, inline)
      },
      handle(s, request): StreamStep | undefined {
        // §3.2: a resumed session is bound already, the request is ignored; so is anything that is no request
        if (s.is('bound') || request.name !== 'bind' || s.jid === undefined) return undefined
        try {
          const wanted = resource(s, request)
          // a client does not stand in its own way, whatever the policy on conflicts
          const held = ctx.sessions.get(s.jid.bare.withResource(wanted))
          if (held !== undefined) endEarlier(s, [held])
          const jid = binding.choose(s, wanted)
          const requests = request.elements.filter((child) => child.ns !== NS.BIND2)
          const finish = async (replies: readonly Element[]): Promise<Element> => {
            const answer = await bound(ctx, s, jid, replies)
            const all = ctx.sessions.of(jid.local) // in the order of binding
            // Its client may have come back while the store was asked: a session that is over ends none, nor a later one.
            const before = all.findIndex((other) => other === s)
            endEarlier(s, all.slice(0, Math.max(before, 0)))
            return answer
          }
          return { resource: jid.resource, inline: { of: 'bind2', requests, finish } }
        } catch (error) {
          if (!(error instanceof StanzaError)) throw error
          // the XEP has no words for it; the login is good, so the client may still bind the old way
          return { reply: el('failed', NS.BIND2, {}, el(error.condition, NS.STANZAS)) }
        }
      },
    })

    /** §3.2: of these sessions the earlier ones of the same client end, whatever has failed besides. */
    function endEarlier(session: Session, among: readonly Session[]): void {
      const agent = sasl2.userAgent(session)?.id
      if (agent === undefined) return
      const earlier = among.filter((other) => other !== session && sasl2.userAgent(other)?.id === agent)
      for (const other of earlier) other.close('conflict', 'replaced by a new session')
    }
  },
})

/** §3.2.1: the tag becomes part of the address as it is, if it can. */
function usableTag(s: Session, tag: string): boolean {
  if (tag === '' || tag.length > MAX_TAG || s.jid === undefined) return false
  try {
    return s.jid.withResource(tag).resource === tag
  } catch {
    return false
  }
}

async function bound(ctx: Ctx, session: Session, jid: JID, replies: readonly Element[]): Promise<Element> {
  const parts = [...replies]
  await ctx.run('bind2:bound', { session, jid, parts })
  return el('bound', NS.BIND2, {}, ...parts)
}

/** Made once per host, so that stable resources survive a restart and differ from host to host. */
async function hostSecret(ctx: Ctx): Promise<Uint8Array> {
  const fresh = randomBytes(32)
  const doc = await ctx.storage
    .docs<SecretDoc>('host')
    .update('', 'resources', (old) => old ?? { secret: fresh })
  return doc?.secret ?? fresh
}
