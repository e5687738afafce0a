/**
 * SASL authentication of clients as in RFC 6120 §6, and the service that every other way to log in shares.
 *
 * Mechanisms: SCRAM with and without channel binding, PLAIN on encrypted streams, EXTERNAL with client certificates, ANONYMOUS where it
 * is allowed. Not here: security layers (TLS has them), acting for other accounts, authentication of servers.
 */
import { c, defineModule, type Session, type StreamStep } from '../../server/module.ts'
import { type Element, el } from '../../server/xmpp/element.ts'
import { SaslError } from '../../server/xmpp/errors.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { anonymous, restrictAnonymous } from './anonymous.ts'
import { external } from './external.ts'
import type { Mechanism, MechanismEnv, SaslReply } from './mechanism.ts'
import { plain } from './plain.ts'
import { scram } from './scram.ts'
import { Sasl } from './service.ts'
import { ClaimedHashes } from './claimed.ts'

const NS_CB = 'urn:xmpp:sasl-cb:0'
const BASE_NAMES = ['EXTERNAL', 'SCRAM-SHA-512', 'SCRAM-SHA-256', 'SCRAM-SHA-1', 'PLAIN'] as const

export default defineModule({
  name: 'sasl',
  summary: 'Logs clients in: SCRAM with channel binding, PLAIN, EXTERNAL, ANONYMOUS',
  specs: [
    { rfc: 6120, sections: '5.3.1, 6, 13.7.1.4, 13.8.3' },
    { rfc: 4422, sections: '3, 5, appendix A' },
    { rfc: 4505, sections: '2, 3' },
    { rfc: 4616, sections: '2' },
    { rfc: 4648, sections: '3, 4' },
    { rfc: 5280, sections: '4.1, 4.2.1.6' },
    { rfc: 5802, sections: '3, 5, 6, 7, 9' },
    { rfc: 5929, sections: '4' },
    { rfc: 7622, sections: '3.3' },
    { rfc: 7677, sections: '3' },
    { rfc: 8265, sections: '3' },
    { rfc: 9266, sections: '2' },
    { xep: 175, version: '1.2', status: 'complete' },
    {
      xep: 178,
      version: '1.2',
      status: 'partial',
      note: 'clients; certificates without an XMPP address are not mapped',
    },
    { xep: 440, version: '1.0.0', status: 'complete' },
    { xep: 474, version: '0.5.0', status: 'complete' },
    { xep: 515, version: '0.1.0', status: 'complete' },
  ],
  optional: ['accounts', 'auth-http', 'auth-ldap', 'auth-limits', 'starttls'],
  config: c.object({
    mechanisms: c
      .array(c.enum(BASE_NAMES))
      .default([...BASE_NAMES])
      .describe('Mechanisms offered where they can be used; the SCRAM ones bring their -PLUS forms along'),
    requireTls: c
      .boolean()
      .default(true)
      .describe('Offer no login at all on streams without encryption; PLAIN is offered on none anyway'),
    retries: c
      .number()
      .int()
      .min(2)
      .max(5)
      .default(3)
      .describe('Further attempts a stream has after wrong credentials, before it is closed'),
    downgradeProtection: c
      .boolean()
      .default(true)
      .describe(
        'Tell SCRAM clients what was offered, so that they notice when somebody changed it on the way',
      ),
    plainInClear: c
      .boolean()
      .default(false)
      .describe(
        'With requireTls off, offer PLAIN in clear too: for tests on one machine, never on a network',
      ),
    anonymous: c.boolean().default(false).describe('Let anybody in under a temporary address'),
    anonymousRemote: c.boolean().default(false).describe('Let anonymous users reach other servers'),
  }),
  setup(ctx, config) {
    const env: MechanismEnv = {
      host: ctx.host,
      auth: () => {
        const auth = ctx.find('auth')
        if (auth === undefined) throw new Error('no module provides accounts')
        return auth
      },
      hashes: (s) => claimed.of(s),
    }
    const claimed = new ClaimedHashes(ctx, env)
    // RFC 6120 §5.3.1: where TLS is mandatory nothing else is offered before it
    const requireTls = config.requireTls || ctx.find('starttls')?.required === true
    const sasl = new Sasl(ctx, env, { requireTls, retries: config.retries })
    const enabled = new Set<string>(config.mechanisms)
    const all: readonly Mechanism[] = [
      external(env),
      ...scram(env, config.downgradeProtection),
      plain(env, config.plainInClear),
    ]
    for (const mechanism of all) {
      if (enabled.has(mechanism.name.replace('-PLUS', ''))) sasl.register(mechanism)
    }
    if (config.anonymous) {
      sasl.register(anonymous)
      restrictAnonymous(ctx, env, config.anonymousRemote)
    }
    ctx.provide('sasl', sasl)

    ctx.streamFeature({
      ns: NS.SASL,
      streams: ['c2s'],
      needs: [],
      forbids: ['authenticated'],
      advertise: (s) => mechanisms(sasl.offers(s, 'sasl')),
      handle: (s, element) => handle(sasl, s, element),
    })
    ctx.streamFeature({
      ns: NS_CB,
      streams: ['c2s'],
      needs: [],
      forbids: ['authenticated'],
      advertise: (s) => channelBindings(sasl, s),
      // XEP-0440 §2: an announcement, nothing to send
      handle: () => ({ close: { condition: 'unsupported-stanza-type' } }),
    })
    return {
      ready() {
        env.auth() // better at the start than at the first login
      },
    }
  },
})

/** RFC 6120 §6.4.1; nothing when there is no mechanism. */
function mechanisms(names: readonly string[]): Element | undefined {
  if (names.length === 0) return undefined
  return el('mechanisms', NS.SASL, {}, ...names.map((name) => el('mechanism', NS.SASL, {}, name)))
}

/** XEP-0440 §2: next to the mechanisms that need it, not without them. */
function channelBindings(sasl: Sasl, s: Session): Element | undefined {
  const offered = [...sasl.offers(s, 'sasl'), ...sasl.offers(s, 'sasl2')]
  if (!offered.some((name) => name.endsWith('-PLUS'))) return undefined
  const types = sasl.bindings(s).map((type) => el('channel-binding', NS_CB, { type }))
  return el('sasl-channel-binding', NS_CB, {}, ...types)
}

/** An element of the SASL namespace (RFC 6120 §6.4). */
async function handle(sasl: Sasl, s: Session, element: Element): Promise<StreamStep> {
  switch (element.name) {
    case 'auth': {
      const text = element.text()
      const mechanism = element.attr('mechanism')
      if (element.elements.length > 0) return refuse(await sasl.reject(s, malformed(), false))
      // §6.4.2: "=" is an initial response without data, nothing is no initial response
      const initial = text === '' ? undefined : text === '=' ? '' : text
      return step(sasl, s, await sasl.begin(s, { profile: 'sasl', mechanism, initial, element }))
    }
    case 'response':
      if (element.elements.length > 0) return refuse(await sasl.reject(s, malformed(), false))
      return step(sasl, s, await sasl.respond(s, 'sasl', element.text()))
    case 'abort':
      // §6.4.4, also when there is nothing to abort
      return refuse(await sasl.reject(s, new SaslError('aborted'), false))
    case 'challenge':
      return refuse(await sasl.reject(s, malformed(), false)) // §6.5.8
    default:
      return { close: { condition: 'unsupported-stanza-type' } }
  }
}

const malformed = (): SaslError => new SaslError('malformed-request')

async function step(sasl: Sasl, s: Session, reply: SaslReply): Promise<StreamStep> {
  switch (reply.kind) {
    case 'challenge':
      return { reply: el('challenge', NS.SASL, {}, reply.data === '' ? undefined : reply.data) }
    case 'failure':
      return refuse(reply)
    case 'success': {
      const changed = await sasl.accept(s)
      if (changed !== undefined) return refuse(changed)
      // §6.4.6: additional data of zero length is "="
      const data = reply.data === '' ? '=' : reply.data
      const { jid: identity, generation } = reply
      return { reply: el('success', NS.SASL, {}, data), next: 'restart', identity, generation }
    }
  }
}

function refuse(reply: SaslReply & { readonly kind: 'failure' }): StreamStep {
  const failure = reply.error.toElement(NS.SASL)
  return reply.close === undefined ? { reply: failure } : { reply: failure, close: reply.close }
}
