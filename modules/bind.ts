/** Resource binding (RFC 6120 §7): gives a stream its full JID, from a name the client proposes or one made up here. */
import { randomBytes } from 'node:crypto'
import { c, type Ctx, defineModule, type Session, type StreamStep } from '../server/module.ts'
import { type Element, el } from '../server/xmpp/element.ts'
import { StanzaError } from '../server/xmpp/errors.ts'
import { type JID, JidError, tryJid } from '../server/xmpp/jid.ts'
import { NS } from '../server/xmpp/ns.ts'
import { errorReply, reply } from '../server/xmpp/stanza.ts'

declare module '../server/module.ts' {
  interface Services {
    bind: BindService
  }
}

/** The rules of binding, for other ways to bind. */
export interface BindService {
  /** A resource nobody can guess (RFC 6120 §7.5). */
  generate(): string
  /**
   * The full JID that an authenticated stream may bind for a resource it proposes; another one when the policy on conflicts renames.
   * Throws StanzaError: bad-request, conflict, resource-constraint.
   */
  choose(s: Session, resource: string): JID
}

export default defineModule({
  name: 'bind',
  summary: 'Binds resources',
  specs: [{ rfc: 6120, sections: '7, 8.2.3' }],
  config: c.object({
    conflict: c
      .enum(['replace', 'refuse', 'rename'])
      .default('replace')
      .describe(
        'A resource that is in use: close the older session, refuse the newer one, or give it another name',
      ),
    maxResources: c
      .number()
      .int()
      .min(1)
      .default(20)
      .describe('Sessions an account may have at the same time'),
    retries: c
      .number()
      .int()
      .min(5)
      .max(10)
      .default(5)
      .describe('Refused attempts a stream may make before the one that ends it'),
  }),
  setup(ctx, config) {
    const failures = ctx.perSession(() => 0)
    const service: BindService = {
      generate,
      choose: (s, resource) => choose(ctx, config, bareOf(s), resource),
    }
    ctx.provide('bind', service)

    const handle = (s: Session, iq: Element): StreamStep => {
      // RFC 6120 §7.1: before binding only the server and the own account can be addressed
      if (!isForUs(s, iq)) return { close: { condition: 'not-authorized' } }
      try {
        const jid = service.choose(s, requested(iq))
        const bound = el('bind', NS.BIND, {}, el('jid', NS.BIND, {}, jid.toString()))
        return { reply: reply(iq, bound), resource: jid.resource }
      } catch (error) {
        if (!(error instanceof StanzaError)) throw error
        return refuse(s, iq, error)
      }
    }
    const refuse = (s: Session, iq: Element, error: StanzaError): StreamStep => {
      const count = failures.get(s) + 1
      failures.set(s, count)
      const answer = errorReply(iq, error)
      // §7.7.3
      const over = count > config.retries
      return {
        ...(answer === undefined ? {} : { reply: answer }),
        ...(over ? { close: { condition: 'policy-violation', text: 'too many attempts to bind' } } : {}),
      }
    }
    ctx.streamFeature({
      ns: NS.BIND,
      streams: ['c2s'],
      needs: ['authenticated'], // §7.4
      forbids: ['bound'],
      advertise: () => el('bind', NS.BIND),
      handle,
    })
  },
})

/** §7.6: random. */
function generate(): string {
  return randomBytes(12).toString('base64url')
}

/** The bare JID of an authenticated stream. */
function bareOf(s: Session): JID {
  if (s.jid === undefined) throw new Error('binding before authentication')
  return s.jid.bare
}

function isForUs(s: Session, iq: Element): boolean {
  const to = iq.attr('to')
  if (to === undefined) return true
  const jid = tryJid(to)
  return jid !== undefined && (jid.toString() === s.host || jid.equals(bareOf(s)))
}

/** The resource that is asked for, '' when none in particular; throws StanzaError('bad-request'). */
function requested(iq: Element): string {
  // §7.6.1, §8.2.3: a set with one child, which is <bind/> with nothing but a resource, and with an id
  const [bind, more] = iq.elements
  if (
    iq.attr('type') !== 'set' ||
    bind?.name !== 'bind' ||
    more !== undefined ||
    (iq.attr('id') ?? '') === ''
  )
    throw new StanzaError('bad-request')
  const [resource, extra] = bind.elements
  if (resource === undefined) return ''
  if (!resource.is('resource', NS.BIND) || extra !== undefined || resource.elements.length > 0)
    throw new StanzaError('bad-request')
  return resource.text()
}

interface Policy {
  readonly conflict: 'replace' | 'refuse' | 'rename'
  readonly maxResources: number
}

function choose(ctx: Ctx, policy: Policy, bare: JID, resource: string): JID {
  // §7.7.2.1: a resource of zero length is processed into one that conforms
  let jid = resource === '' ? bare.withResource(generate()) : fullJid(bare, resource)
  const older = ctx.sessions.get(jid)
  if (older !== undefined) {
    switch (policy.conflict) {
      case 'replace': // §7.7.2.2 (3): the core closes the older one
        return jid
      case 'refuse': // (2)
        throw new StanzaError('conflict', { type: 'modify' })
      case 'rename': // (1)
        jid = bare.withResource(`${jid.resource.slice(0, 100)} ${generate()}`)
    }
  }
  // §7.6.2.1
  if (ctx.sessions.of(bare.local).length >= policy.maxResources) throw new StanzaError('resource-constraint')
  return jid
}

/** §7.7.2.1. */
function fullJid(bare: JID, resource: string): JID {
  try {
    return bare.withResource(resource)
  } catch (error) {
    if (error instanceof JidError) throw new StanzaError('bad-request', { text: error.message })
    throw error
  }
}
