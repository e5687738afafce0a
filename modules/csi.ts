/**
 * XEP-0352 Client State Indication 1.0.0: while nobody looks at a client, presence and notifications wait for it and chat states are
 * dropped; anything else is sent at once, and what waits goes before it. Also within Bind 2 (XEP-0386). Does not decide about pushes.
 */
import { type Bound, c, type Ctx, defineModule, type Services, type Session } from '../server/module.ts'
import { type Element, el } from '../server/xmpp/element.ts'
import { StreamError } from '../server/xmpp/errors.ts'
import { tryJid } from '../server/xmpp/jid.ts'
import { NS } from '../server/xmpp/ns.ts'
import { parseXml } from '../server/xmpp/parser.ts'

const CSI = 'urn:xmpp:csi:0'
const CHAT_STATES = 'http://jabber.org/protocol/chatstates'
const PUBSUB_EVENT = 'http://jabber.org/protocol/pubsub#event'
const FLAG = 'csi'
/** What may stand beside a chat state without saying anything itself (XEP-0085 §5.6 for <thread/>). */
const BESIDE: ReadonlySet<string> = new Set([NS.SID, NS.DELAY, 'urn:xmpp:hints', 'urn:xmpp:occupant-id:0'])
/** Beside it too, when all that it says is who writes in a room (XEP-0045 §7.5). */
const MUC_USER = 'http://jabber.org/protocol/muc#user'

/** What is to be done with a stanza for a client that nobody looks at. A key: it waits, in place of what has the same key. */
type Fate = 'send' | 'drop' | { readonly key: string | undefined }

export default defineModule({
  name: 'csi',
  summary: 'Saves the traffic of clients that nobody looks at',
  specs: [
    { xep: 352, version: '1.0.0', status: 'complete' },
    { xep: 85, version: '2.1', status: 'partial', note: 'which messages are only chat states' },
    { xep: 45, version: '1.35.5', status: 'partial', note: 'invitations are no chat states' },
    { rfc: 6120, sections: '4.9.3.24, 10.1' },
    { rfc: 6121, sections: '8.5.3.2.2' },
    { xep: 386, version: '1.1.0', status: 'partial', note: 'the state within it' },
    { xep: 191, version: '1.3', status: 'partial', note: 'who is blocked while something of theirs waits' },
  ],
  optional: ['bind2', 'carbons'],
  // §3.2: a way for administrators to configure the optimisations
  config: c.object({
    presence: c.boolean().default(true).describe('Hold back presence, only the last of each sender'),
    chatStates: c.boolean().default(true).describe('Drop messages that only say that somebody is typing'),
    notifications: c.boolean().default(true).describe('Hold back notifications such as new avatars'),
    memory: c
      .bytes('64 KiB', { max: '16 MiB' })
      .describe('What may wait for one client; when it is more, all of it is sent'),
  }),
  setup(ctx, config) {
    const waiting = ctx.perSession((): Waiting | undefined => undefined)

    const flush = (session: Session): void => {
      const held = waiting.get(session)
      if (held === undefined) return
      waiting.set(session, undefined)
      for (const stanza of held.take()) if (!isBlocked(session, stanza)) session.send(stanza)
    }
    /** XEP-0191 §3.3: meanwhile. The list of an account that is online is in memory, unless the store could not give it. */
    const isBlocked = (session: Session, stanza: Element): boolean => {
      const blocking = ctx.find('blocking')
      const from = blocking === undefined ? undefined : tryJid(stanza.attr('from') ?? '')
      if (from === undefined || session.jid === undefined) return false
      const blocked = blocking?.blocks(session.jid.local, from)
      if (blocked instanceof Promise) blocked.catch(() => undefined) // nothing waits for it
      return blocked === true
    }
    const activate = (session: Session): void => {
      flush(session) // §5.1: before anything that the client sends after it is looked at
      session.setFlag(FLAG, undefined)
    }
    indications(ctx, activate)

    ctx.hook('client:out', { phase: 'store' }, ({ session, stanza }) => {
      if (session === undefined || session.flag(FLAG) === undefined) return undefined
      const fate = fateOf(stanza, session, ctx.find('carbons'), config)
      if (fate === 'send')
        flush(session) // RFC 6120 §10.1: what came first goes first
      else if (fate === 'drop') return { stop: 'a chat state for an inactive client' }
      else {
        const held = waiting.get(session) ?? new Waiting()
        waiting.set(session, held)
        held.add(stanza, fate.key)
        if (held.bytes > config.memory) flush(session)
        return { stop: 'waits until the client is active' }
      }
      return undefined
    })
    // RFC 6121 §4.5.2: who is not available is told no changes, so what waits of contacts would stay as it is
    ctx.hook('client:in', { phase: 'observe', kinds: ['presence'] }, ({ session, stanza }) => {
      if (session !== undefined && stanza.attr('type') === 'unavailable' && stanza.attr('to') === undefined)
        waiting.get(session)?.forgetOthers(session.jid.bare.toString())
    })
    // §5.2: a resumed stream begins in the active state
    ctx.hook('session:resumed', { phase: 'observe' }, ({ session }) => activate(session))
    // Messages go the way of all that did not reach the client; presence says nothing to a session that is over (RFC 6121 §8.5.3.2.2).
    ctx.hook('session:closed', { phase: 'observe' }, ({ session }) => {
      const held = waiting.get(session)
      waiting.set(session, undefined)
      session.setFlag(FLAG, undefined)
      for (const stanza of held?.take() ?? []) if (stanza.name === 'message') ctx.deliver(session, stanza)
    })

    return {
      stop() {
        for (const session of ctx.sessions.all()) flush(session)
      },
    }
  },
})

/** §4: the feature and the two elements; the same within Bind 2 (XEP-0386 §3.2). */
function indications(ctx: Ctx, activate: (session: Session) => void): void {
  const indicate = (session: Session, element: Element): void => {
    if (element.name === 'active') activate(session)
    else if (element.name === 'inactive') session.setFlag(FLAG, 'inactive')
    else throw new StreamError('unsupported-stanza-type') // RFC 6120 §4.9.3.24
  }
  const common = { ns: CSI, streams: ['c2s'], needs: ['authenticated'], forbids: [] } as const
  ctx.streamFeature({ ...common, advertise: () => el('csi', CSI), handle: indicate }) // §4.1
  ctx.streamFeature({
    ...common,
    inline: 'bind2',
    advertise: () => el('feature', NS.BIND2, { var: CSI }),
    handle: indicate,
  })
}

/** §3.2: what an inactive client can do without for now. */
function fateOf(
  stanza: Element,
  session: Bound,
  carbons: Services['carbons'] | undefined,
  config: { readonly presence: boolean; readonly chatStates: boolean; readonly notifications: boolean },
): Fate {
  const type = stanza.attr('type')
  if (stanza.name === 'presence') {
    // subscriptions want an answer, errors an explanation
    const state = type === undefined || type === 'unavailable'
    return state && config.presence ? { key: stanza.attr('from') ?? session.jid.bare.toString() } : 'send'
  }
  if (stanza.name !== 'message' || type === 'error') return 'send'
  if (config.chatStates) {
    const copied = carbons?.copyIn(stanza, session.jid)?.message
    const message = copied === undefined || copied.attr('type') === 'error' ? stanza : copied
    if (isOnlyChatState(message)) return 'drop'
  }
  const notification = type === 'headline' && stanza.getChild('event', PUBSUB_EVENT) !== undefined
  return notification && config.notifications ? { key: undefined } : 'send'
}

function isOnlyChatState(message: Element): boolean {
  let state = false
  for (const child of message.elements) {
    if (child.ns === CHAT_STATES) state = true
    else if (!BESIDE.has(child.ns) && !child.is('thread', message.ns) && !isMark(child)) return false
  }
  return state
}

/** Not an invitation or the answer to one (XEP-0045 §7.8.2), nor news of the room (§10.2.1). */
function isMark(child: Element): boolean {
  return child.is('x', MUC_USER) && child.elements.every(({ name }) => name === 'item')
}

/** Stanzas that wait, in order. As bytes, because an element may be part of a larger input that it would keep. */
class Waiting {
  bytes = 0
  readonly #stanzas = new Map<string | number, Buffer>()
  #count = 0

  add(stanza: Element, key: string | undefined): void {
    const place = key ?? this.#count++
    this.bytes -= this.#stanzas.get(place)?.length ?? 0
    this.#stanzas.delete(place) // it goes to the end, so that the order of what is left stays true
    const text = Buffer.from(stanza.toString())
    this.bytes += text.length
    this.#stanzas.set(place, text)
  }
  /** Presence of others than the account and its devices. */
  forgetOthers(account: string): void {
    for (const [place, text] of this.#stanzas) {
      if (typeof place !== 'string' || place === account || place.startsWith(`${account}/`)) continue
      this.bytes -= text.length
      this.#stanzas.delete(place)
    }
  }
  *take(): Iterable<Element> {
    for (const text of this.#stanzas.values()) yield parseXml(text.toString())
  }
}
