/** Stream features of tests, small enough to see what the core does: TLS, logins, binding, in one round too. */
import type { AnyModule } from '../../server/loader.ts'
import type { Ctx, StreamFeature } from '../../server/module.ts'
import { el } from '../../server/xmpp/element.ts'
import { StreamError } from '../../server/xmpp/errors.ts'
import { makeJid } from '../../server/xmpp/jid.ts'

const feature = (
  ns: string,
  more: Partial<StreamFeature> & Pick<StreamFeature, 'handle'>,
): StreamFeature => ({
  ns,
  streams: ['c2s'],
  needs: [],
  forbids: [],
  advertise: () => el('f', ns),
  ...more,
})

/** Namespaces of the features of `fakeLogin`. */
export const FAKE = {
  tls: 'urn:test:tls',
  login: 'urn:test:login',
  bind: 'urn:test:bind',
  oneRound: 'urn:test:one-round',
  slow: 'urn:test:slow',
  dialogue: 'urn:test:dialogue',
} as const

/**
 * tls: starts TLS. login: logs in the localpart in its text, then a restart. bind: binds the resource in its text. one-round: logs in
 * (attribute user) with its child elements as inline requests. slow: answers when `release` is called. dialogue: exclusive until <end/>.
 */
export function fakeLogin(slow: { release: () => void } = { release: () => undefined }): AnyModule {
  const user = (ctx: Ctx, local: string) => makeJid(local, ctx.host)
  return {
    name: 'fake-login',
    summary: 'test',
    specs: [],
    setup(ctx) {
      ctx.streamFeature(
        feature(FAKE.tls, {
          forbids: ['secure'],
          handle: () => ({ reply: el('proceed', FAKE.tls), next: 'tls' }),
        }),
      )
      ctx.streamFeature(
        feature(FAKE.login, {
          forbids: ['authenticated'],
          handle: (_s, request) => ({
            reply: el('success', FAKE.login),
            identity: user(ctx, request.text()),
            next: 'restart',
          }),
        }),
      )
      ctx.streamFeature(
        feature(FAKE.bind, {
          needs: ['authenticated'],
          forbids: ['bound'],
          handle: (_s, request) => ({
            resource: request.text(),
            reply: el('bound', FAKE.bind),
          }),
        }),
      )
      ctx.streamFeature(
        feature(FAKE.oneRound, {
          forbids: ['authenticated'],
          handle: (_s, request) => ({
            identity: user(ctx, request.attr('user') ?? ''),
            inline: {
              of: 'sasl2',
              requests: request.elements,
              finish: (replies, s) => el('success', FAKE.oneRound, { jid: s.jid?.toString() }, ...replies),
            },
            next: 'features',
          }),
        }),
      )
      ctx.streamFeature(
        feature(FAKE.slow, {
          handle: async () => {
            const { promise, resolve } = Promise.withResolvers<void>()
            slow.release = resolve
            await promise
            return { reply: el('done', FAKE.slow) }
          },
        }),
      )
      ctx.streamFeature(
        feature(FAKE.dialogue, {
          handle: (_s, request) => {
            if (request.name === 'fail') throw new StreamError('policy-violation')
            if (request.name === 'crash') throw new TypeError('a bug')
            return { reply: el('next', FAKE.dialogue), exclusive: request.name !== 'end' }
          },
        }),
      )
    },
  }
}
