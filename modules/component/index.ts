/**
 * External components: XEP-0114 1.6. A component connects by TCP, proves that it knows the secret of its domain, and from then on
 * serves that domain: what is for it goes there, and it may send from any address at it.
 *
 * Left out: jabber:component:connect, where the server would connect to the component.
 */
import {
  c,
  defineModule,
  type ModuleListener,
  type PeerLimits,
  type PeerStreamRules,
} from '../../server/module.ts'
import { StreamError } from '../../server/xmpp/errors.ts'
import { tryJid } from '../../server/xmpp/jid.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { kind } from '../../server/xmpp/stanza.ts'
import { checkFree, Component, type ComponentSettings } from './component.ts'
import { knowsSecret, secretOf } from './handshake.ts'

const conflict = c.enum(['refuse', 'replace', 'share'])

const config = c.object({
  listen: c
    .array(
      c.strictObject({
        address: c.string().default('127.0.0.1').describe('Address to listen on.'),
        port: c.int().min(0).max(65_535).default(5347).describe('TCP port; 0 takes a free one.'),
        tls: c
          .boolean()
          .default(false)
          .describe('TLS from the first byte, for components on other machines.'),
      }),
    )
    .default([{ address: '127.0.0.1', port: 5347, tls: false }])
    .describe('Where components connect; nothing is opened while there are none.'),
  components: c
    .record(
      c.string().refine(isDomain, { error: 'is not a domain name in its prepared form' }),
      c.strictObject({
        secret: c
          .string()
          .min(1)
          .describe('What the component proves to know; `env:NAME` takes it from the environment.'),
        conflict: conflict.optional().describe('For this component, instead of the general setting.'),
      }),
    )
    .default({})
    .describe('Domains of components, such as `upload.example.org`, with their secrets.'),
  conflict: conflict
    .default('refuse')
    .describe(
      'When a component of that domain is connected already: refuse the new one, let it replace the old one, or share the load among them by sender.',
    ),
  maxStanza: c.bytes('1 MiB', { min: '10 KB', max: '16 MiB' }).describe('Largest stanza of a component.'),
  depth: c.int().min(10).max(1000).default(100).describe('Nesting of elements.'),
  queue: c
    .bytes('16 MiB', { min: '64 KiB', max: '1 GiB' })
    .describe('Output kept for a component that does not read; more ends its stream.'),
  rate: c.bytes('32 MiB', { min: '1 KiB' }).describe('Input of one component per second, averaged.'),
  burst: c.bytes('64 MiB', { min: '16 KiB' }).describe('Input above the rate in one go.'),
  handshakeTimeout: c.duration('15s', { min: '1s' }).describe('From connecting to a handshake.'),
  signOfLife: c
    .duration('10s', { min: '1s' })
    .describe(
      'How long a connected component may take to answer when another one claims its domain and is refused.',
    ),
  connectionsPerAddress: c.int().min(1).default(100).describe('Open connections of one address.'),
  newConnectionsPerMinute: c
    .int()
    .min(1)
    .default(120)
    .describe('New connections of one address in a minute.'),
})
type Config = ReturnType<typeof config.parse>

export default defineModule({
  name: 'component',
  summary: 'External components (gateways, bots, services) connect and serve domains of their own',
  specs: [
    {
      xep: 114,
      version: '1.6',
      status: 'partial',
      note: 'components connect to the server, not the other way round',
    },
    { rfc: 6120, sections: '4.7-4.9, 8.1, 8.3.3.17, 10.1' },
  ],
  scope: 'server',
  config,
  setup(ctx, options) {
    let now: Config = options
    const components = new Map<string, Component>()
    /** Streams that have named their component, and those that have proved it. */
    const claims = new WeakMap<object, Component>()
    let listeners: ModuleListener[] = []
    const refused = ctx.metrics.counter('refused', 'Components that were refused')
    const returned = ctx.metrics.counter('returned', 'Stanzas that could not be given to a component')
    ctx.metrics.gauge('connections', 'Components connected', () => {
      let count = 0
      for (const component of components.values()) count += component.connections
      return count
    })

    function refuse(error: StreamError, fields: object): never {
      refused.add()
      ctx.log.warn('component refused', { ...fields, condition: error.condition })
      throw error
    }

    const rules: PeerStreamRules = {
      contentNs: NS.COMPONENT,
      name: ctx.hosts[0] ?? '',
      limits: limitsOf(options),
      header(s, root) {
        const to = root.attr('to')
        const fields = { address: s.remoteAddress, component: to }
        if (to === undefined)
          return refuse(new StreamError('improper-addressing', 'the header names no component'), fields)
        const component = components.get(tryJid(to)?.toString() ?? '')
        // XEP-0114 §3: a name that is not served here
        if (component === undefined) return refuse(new StreamError('host-unknown'), fields)
        claims.set(s, component)
        s.sendHeader({ from: component.domain })
      },
      element(s, element) {
        const component = claims.get(s)
        if (component === undefined) throw new StreamError('internal-server-error')
        if (component.has(s)) {
          // RFC 6120 §4.9.3.24
          if (kind(element) === undefined) throw new StreamError('unsupported-stanza-type')
          return component.received(element)
        }
        const fields = { address: s.remoteAddress, component: component.domain }
        if (!element.is('handshake', NS.COMPONENT))
          return refuse(new StreamError('not-authorized', 'the handshake comes first'), fields)
        if (!knowsSecret(element.text().trim(), s.id, component.secret))
          return refuse(new StreamError('not-authorized'), fields)
        if (!component.mayJoin(s))
          return refuse(new StreamError('conflict', 'a component of this domain is connected'), fields)
        s.establish()
        s.send(element.withChildren([]))
        component.join(s)
        ctx.log.info('component connected', { ...fields, tls: s.tls !== undefined })
        return undefined
      },
      closed(s, reason, unsent) {
        const component = claims.get(s)
        if (component?.left(s, unsent) !== true) return
        ctx.log.info('component disconnected', {
          component: component.domain,
          address: s.remoteAddress,
          reason,
        })
      },
    }
    const streams = ctx.streams(rules)

    /** What is to be served. Throws OperatorError when one of the domains cannot be. */
    function settingsOf(next: Config): ReadonlyMap<string, ComponentSettings> {
      const wanted = new Map<string, ComponentSettings>()
      for (const [domain, own] of Object.entries(next.components)) {
        if (!components.has(domain)) checkFree(ctx, domain)
        const secret = secretOf(domain, own.secret)
        wanted.set(domain, { secret, conflict: own.conflict ?? next.conflict, signOfLifeMs: next.signOfLife })
      }
      return wanted
    }

    /** Takes new domains, gives up old ones, and changes the others. */
    function serve(next: Config, wanted: ReadonlyMap<string, ComponentSettings>): void {
      for (const [domain, component] of components) {
        if (wanted.has(domain)) continue
        components.delete(domain)
        component.end('host-gone') // RFC 6120 §4.9.3.5
      }
      for (const [domain, settings] of wanted) {
        const there = components.get(domain)
        if (there !== undefined) there.change(settings)
        else components.set(domain, new Component(ctx, domain, settings, () => returned.add()))
      }
      streams.setLimits(limitsOf(next))
    }

    async function listen(next: Config): Promise<void> {
      if (Object.keys(next.components).length === 0) return
      for (const { address, port, tls } of next.listen) {
        const opts = {
          address,
          port,
          tls: tls ? 'direct' : 'none',
          maxPerAddress: next.connectionsPerAddress,
        } as const
        listeners.push(await ctx.listen(opts, (transport) => void streams.accept(transport)))
        if (!tls && !isLoopback(address))
          ctx.log.warn('components of other machines are not encrypted here', { address, port })
      }
    }

    async function stopListening(): Promise<void> {
      await Promise.all(listeners.map((listener) => listener.close()))
      listeners = []
    }

    /** Listens elsewhere; where that cannot be, as before. */
    async function move(next: Config): Promise<void> {
      await stopListening()
      try {
        await listen(next)
      } catch (error) {
        await stopListening()
        await listen(now)
        throw error
      }
    }

    serve(options, settingsOf(options))
    return {
      ready: () => listen(options),
      async stop() {
        await streams.close()
        await Promise.all(Array.from(components.values(), (component) => component.settled()))
      },
      async reconfigure(next) {
        const where = (of: Config): string =>
          JSON.stringify([of.listen, Object.keys(of.components).length > 0])
        // all or nothing: what may fail comes first
        const wanted = settingsOf(next)
        if (where(next) !== where(now)) await move(next)
        serve(next, wanted)
        now = next
      },
    }
  },
})

function limitsOf(options: Config): PeerLimits {
  return {
    maxBytesBefore: 10_000, // RFC 6120 §13.12
    maxBytes: options.maxStanza,
    maxDepth: options.depth,
    bytesPerSecond: options.rate,
    burstBytes: options.burst,
    maxQueueBytes: options.queue,
    handshakeTimeoutMs: options.handshakeTimeout,
    maxPerAddress: options.connectionsPerAddress,
    maxNewPerMinute: options.newConnectionsPerMinute,
  }
}

function isDomain(name: string): boolean {
  const jid = tryJid(name)
  return jid !== undefined && jid.local === '' && jid.resource === '' && jid.domain === name
}

const isLoopback = (address: string): boolean =>
  address === '::1' || address === 'localhost' || address.startsWith('127.')
