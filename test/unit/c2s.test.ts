/** RFC 6120 §4.3: negotiation on client streams: what the core does with what features want, and with what no feature knows. */
import { expect } from 'chai'
import type { AnyModule } from '../../server/loader.ts'
import { el } from '../../server/xmpp/element.ts'
import { StanzaError, SaslError } from '../../server/xmpp/errors.ts'
import { FAKE, fakeLogin } from '../helpers/fake-login.ts'
import {
  type TestHost,
  type TestHostOptions,
  type TestStream,
  testHost,
  testLimits,
} from '../helpers/host.ts'
import { header, read } from '../helpers/raw-stream.ts'

const accounts = ['romeo', 'juliet']
const host = (more: Partial<TestHostOptions> = {}): Promise<TestHost> =>
  testHost({ modules: [fakeLogin()], accounts, ...more })
const names = (text: string): string[] => read(text).elements.map((e) => e.getName())
const error = (text: string): string => read(text).error

/** A stream that has seen its features. */
async function opened(h: TestHost): Promise<TestStream> {
  const stream = h.stream()
  await stream.send(header())
  return stream
}
/** A stream logged in as romeo, not bound. */
async function loggedIn(h: TestHost): Promise<TestStream> {
  const stream = await opened(h)
  await stream.send(`<x xmlns='${FAKE.login}'>romeo</x>`)
  await stream.send(header())
  return stream
}
async function bound(h: TestHost, resource = 'orchard'): Promise<TestStream> {
  const stream = await loggedIn(h)
  await stream.send(`<x xmlns='${FAKE.bind}'>${resource}</x>`)
  return stream
}
const offered = (text: string): string[] =>
  read(text)
    .elements.find((e) => e.getName() === 'features')
    ?.getChildElements()
    .map((e) => e.getNS() ?? '') ?? []

describe('c2s: features (RFC 6120 §4.3.2, §4.3.4)', () => {
  it('offers what the state of the stream needs and allows', async () => {
    await using h = await host()
    const stream = h.stream()
    expect(offered(await stream.send(header()))).to.have.members([
      FAKE.tls,
      FAKE.login,
      FAKE.oneRound,
      FAKE.slow,
      FAKE.dialogue,
    ])
    await stream.send(`<x xmlns='${FAKE.login}'>romeo</x>`)
    expect(offered(await stream.send(header()))).to.have.members([
      FAKE.tls,
      FAKE.bind,
      FAKE.slow,
      FAKE.dialogue,
    ])
  })

  it('leaves out what advertise declines', async () => {
    const shy: AnyModule = {
      name: 'shy',
      summary: 'test',
      specs: [],
      setup: (ctx) =>
        ctx.streamFeature({
          ns: 'urn:test:shy',
          streams: ['c2s'],
          needs: [],
          forbids: [],
          advertise: (s) =>
            s.host === 'example.org' && s.tls === undefined ? undefined : el('shy', 'urn:test:shy'),
          handle: () => ({ reply: el('yes', 'urn:test:shy') }),
        }),
    }
    await using h = await testHost({ modules: [shy] })
    const stream = h.stream()
    expect(offered(await stream.send(header()))).to.deep.equal([])
    // not offered, but known: that is for its handler to judge
    expect(names(await stream.send("<x xmlns='urn:test:shy'/>"))).to.deep.equal(['yes'])
  })

  it('refuses a feature that the state forbids: not-authorized (§4.9.3.12)', async () => {
    await using h = await host()
    expect(error(await (await opened(h)).send(`<x xmlns='${FAKE.bind}'>a</x>`))).to.equal('not-authorized')
    expect(error(await (await loggedIn(h)).send(`<x xmlns='${FAKE.login}'>juliet</x>`))).to.equal(
      'not-authorized',
    )
  })

  it('sends no features again after binding (§4.3.5)', async () => {
    await using h = await host()
    const stream = await loggedIn(h)
    expect(names(await stream.send(`<x xmlns='${FAKE.bind}'>orchard</x>`))).to.deep.equal(['bound'])
    expect(stream.session.jid?.toString()).to.equal('romeo@example.org/orchard')
  })
})

describe('c2s: what may not be sent yet (RFC 6120 §4.3.5, §4.9.3.12)', () => {
  for (const stanza of [
    "<message to='juliet@example.org'><body>early</body></message>",
    "<presence to='juliet@example.org'/>",
    "<iq type='get' id='1' to='juliet@example.org/balcony'><x xmlns='urn:x'/></iq>",
    "<iq type='get' id='1'><x xmlns='urn:x'/></iq>",
    "<iq type='get' id='1'/>",
  ])
    for (const state of ['opened', 'logged in'] as const)
      it(`${state}: ${stanza} ends the stream, not processed`, async () => {
        await using h = await host()
        const juliet = await h.client('juliet@example.org/balcony')
        const stream = state === 'opened' ? await opened(h) : await loggedIn(h)
        expect(error(await stream.send(stanza))).to.equal('not-authorized')
        expect(stream.closed).to.equal(true)
        expect(juliet.take()).to.deep.equal([])
      })
})

describe('c2s: first-level elements nobody knows (RFC 6120 §4.8.3, §4.8.4, §4.9.3.24)', () => {
  const cases: readonly (readonly [element: string, condition: string])[] = [
    ["<foo xmlns='urn:unknown' to='juliet@example.org'/>", 'unsupported-stanza-type'],
    ["<message xmlns='urn:unknown' to='juliet@example.org'><body/></message>", 'unsupported-stanza-type'],
    ['<pubsub/>', 'unsupported-stanza-type'],
    ["<message xmlns='jabber:server' to='juliet@example.org'/>", 'invalid-namespace'],
    ["<message xmlns='jabber:component:accept'/>", 'invalid-namespace'],
    ['<stream:features/>', 'unsupported-stanza-type'],
    ["<message xmlns=''/>", 'unsupported-stanza-type'],
    ['text', 'bad-format'],
  ]
  for (const [element, condition] of cases)
    for (const state of ['opened', 'bound'] as const)
      it(`${state}: ${element}: ${condition}`, async () => {
        await using h = await host()
        const stream = state === 'opened' ? await opened(h) : await bound(h)
        const text = await stream.send(element)
        expect(error(text)).to.equal(condition)
        expect(read(text).ended).to.equal(true)
      })

  it('a stream error of the client ends both streams (§4.9.1.1)', async () => {
    await using h = await host()
    const stream = await bound(h)
    const text = await stream.send(
      "<stream:error><not-well-formed xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>",
    )
    expect(text).to.equal('</stream:stream>')
    expect(stream.closed).to.equal(true)
  })
})

describe('c2s: order (RFC 6120 §4.3, §10.1)', () => {
  it('holds the input while a feature works: nothing overtakes', async () => {
    const slow = { release: () => undefined as void }
    await using h = await testHost({ modules: [fakeLogin(slow)], accounts })
    const stream = await opened(h)
    const text = await stream.send(`<x xmlns='${FAKE.slow}'/><go xmlns='${FAKE.dialogue}'/>`)
    expect(text).to.equal('')
    expect(stream.transport.paused).to.equal(true)
    slow.release()
    await h.settle()
    expect(names(await stream.send(''))).to.deep.equal(['done', 'next'])
    expect(stream.transport.paused).to.equal(false)
  })

  it('handles what came before </stream:stream>, also when it had to wait (§4.4)', async () => {
    const slow = { release: () => undefined as void }
    await using h = await testHost({ modules: [fakeLogin(slow)], accounts })
    const juliet = await h.client('juliet@example.org/balcony')
    const stream = await bound(h)
    const last = "<message to='juliet@example.org/balcony' id='last'><body>adieu</body></message>"
    await stream.send(`<x xmlns='${FAKE.slow}'/>${last}</stream:stream>`)
    expect(juliet.take()).to.deep.equal([])
    slow.release()
    await h.settle()
    expect(juliet.take().map((e) => e.attr('id'))).to.deep.equal(['last'])
    expect(await stream.send('')).to.match(/<done xmlns='urn:test:slow'\/><\/stream:stream>$/)
    expect(stream.closed).to.equal(true)
  })

  it('handles what came before a half-close as well', async () => {
    const slow = { release: () => undefined as void }
    await using h = await testHost({ modules: [fakeLogin(slow)], accounts })
    const juliet = await h.client('juliet@example.org/balcony')
    const stream = await bound(h)
    await stream.send(`<x xmlns='${FAKE.slow}'/><message to='juliet@example.org/balcony' id='last'/>`)
    stream.transport.sink?.ended()
    slow.release()
    await h.settle()
    expect(juliet.take().map((e) => e.attr('id'))).to.deep.equal(['last'])
    expect(stream.closed).to.equal(true)
  })

  it('an exchange that is exclusive bears nothing else until it ends (policy-violation)', async () => {
    await using h = await host()
    const stream = await opened(h)
    expect(
      names(await stream.send(`<go xmlns='${FAKE.dialogue}'/><go xmlns='${FAKE.dialogue}'/>`)),
    ).to.deep.equal(['next', 'next'])
    expect(error(await stream.send(`<x xmlns='${FAKE.login}'>romeo</x>`))).to.equal('policy-violation')
  })

  it('an exclusive exchange that has ended leaves the stream as it was', async () => {
    await using h = await host()
    const stream = await opened(h)
    await stream.send(`<go xmlns='${FAKE.dialogue}'/><end xmlns='${FAKE.dialogue}'/>`)
    expect(names(await stream.send(`<x xmlns='${FAKE.login}'>romeo</x>`))).to.deep.equal(['success'])
  })

  it('a stream error of a feature ends the stream with its condition, a bug with internal-server-error (§4.9.3.8)', async () => {
    const logged: string[] = []
    const onLog = (level: string, message: string): void => void logged.push(`${level}: ${message}`)
    await using h = await host({ onLog })
    expect(error(await (await opened(h)).send(`<fail xmlns='${FAKE.dialogue}'/>`))).to.equal(
      'policy-violation',
    )
    expect(logged.filter((l) => l.startsWith('error'))).to.deep.equal([])
    const text = await (await opened(h)).send(`<crash xmlns='${FAKE.dialogue}'/>`)
    expect(error(text)).to.equal('internal-server-error')
    expect(text).not.to.contain('a bug')
    expect(logged.filter((l) => l.startsWith('error'))).to.deep.equal(['error: stream failed'])
  })
})

describe('c2s: STARTTLS (RFC 6120 §5.4.3.3)', () => {
  it('answers, starts TLS, and forgets everything that came in clear behind it', async () => {
    await using h = await host()
    const stream = await opened(h)
    const text = await stream.send(`<x xmlns='${FAKE.tls}'/><x xmlns='${FAKE.login}'>romeo</x>${header()}`)
    expect(names(text)).to.deep.equal(['proceed'])
    expect(stream.session.is('secure')).to.equal(true)
    expect(stream.session.is('authenticated')).to.equal(false)
    const after = await stream.send(header())
    expect(read(after).header?.attrs['id']).to.be.a('string')
    expect(offered(after)).not.to.include(FAKE.tls)
    expect(offered(after)).to.include(FAKE.login)
  })

  it('forgets also what came while an earlier element was worked on', async () => {
    const slow = { release: () => undefined as void }
    await using h = await testHost({ modules: [fakeLogin(slow)], accounts })
    const stream = await opened(h)
    await stream.send(`<x xmlns='${FAKE.slow}'/><x xmlns='${FAKE.tls}'/><x xmlns='${FAKE.login}'>romeo</x>`)
    slow.release()
    await h.settle()
    expect(names(await stream.send(''))).to.deep.equal(['done', 'proceed'])
    expect(stream.session.is('authenticated')).to.equal(false)
    expect(offered(await stream.send(header()))).to.include(FAKE.login)
  })

  it('takes half an element of clear text for nothing', async () => {
    await using h = await host()
    const stream = await opened(h)
    await stream.send(`<x xmlns='${FAKE.tls}'/><x xmlns='${FAKE.login}'`)
    expect(offered(await stream.send(header()))).to.include(FAKE.login)
  })
})

/** Inline features: one that answers, one that refuses, one that crashes, one that binds. */
const inlines: AnyModule = {
  name: 'inlines',
  summary: 'test',
  specs: [],
  setup(ctx) {
    const inline = (ns: string, handle: () => object): void =>
      ctx.streamFeature({
        ns,
        streams: ['c2s'],
        needs: [],
        forbids: [],
        inline: 'sasl2',
        advertise: () => el('f', ns),
        handle,
      })
    inline('urn:i:echo', () => ({ reply: el('echo', 'urn:i:echo') }))
    inline('urn:i:refuse', () => {
      throw new StanzaError('not-allowed')
    })
    inline('urn:i:refuse-sasl', () => {
      throw new SaslError('aborted')
    })
    inline('urn:i:crash', () => {
      throw new TypeError('a bug')
    })
    inline('urn:i:bind', () => ({ resource: 'inline', reply: el('bound', 'urn:i:bind') }))
    inline('urn:i:nested', () => ({
      inline: {
        of: 'sasl2',
        requests: [el('x', 'urn:i:echo')],
        finish: (replies: readonly ReturnType<typeof el>[]) => el('nested', 'urn:i:nested', {}, ...replies),
      },
    }))
    // Others hear of the session, and write to it, before its client knows its address.
    ctx.hook('session:bound', { phase: 'observe' }, async ({ session }) => {
      await ctx.send(el('message', 'jabber:client', { to: session.jid.toString(), id: 'early' }))
    })
  },
}

describe('c2s: login and binding in one round (XEP-0388 §2.6, XEP-0386 §3.2)', () => {
  const go = (requests: string): string => `<go xmlns='${FAKE.oneRound}' user='romeo'>${requests}</go>`
  const log: string[] = []
  const onLog = (level: string, message: string): void => void log.push(`${level}: ${message}`)

  it('runs inline requests in the given order and gathers their replies', async () => {
    await using h = await host({ modules: [fakeLogin(), inlines] })
    const stream = await opened(h)
    const { elements } = read(await stream.send(go("<n xmlns='urn:i:nested'/><e xmlns='urn:i:echo'/>")))
    expect(elements.map((e) => e.getName())).to.deep.equal(['success', 'features'])
    const replies = elements[0]?.getChildElements() ?? []
    expect(replies.map((e) => e.getName())).to.deep.equal(['nested', 'echo'])
    expect(replies[0]?.getChildElements().map((e) => e.getName())).to.deep.equal(['echo'])
  })

  it('goes on when one of them is refused, fails or is unknown', async () => {
    log.length = 0
    await using h = await host({ modules: [fakeLogin(), inlines], onLog })
    const stream = await opened(h)
    const requests =
      "<a xmlns='urn:i:refuse'/><b xmlns='urn:i:refuse-sasl'/><c xmlns='urn:i:crash'/><d xmlns='urn:i:none'/><e xmlns='urn:i:echo'/>"
    const { elements } = read(await stream.send(go(requests)))
    expect(elements[0]?.getChildElements().map((e) => e.getName())).to.deep.equal(['echo'])
    expect(log.filter((l) => l.startsWith('error'))).to.deep.equal(['error: inline feature failed'])
  })

  it('sends the success with the bound address before anything else reaches the client', async () => {
    await using h = await host({ modules: [fakeLogin(), inlines] })
    const stream = await opened(h)
    const { elements } = read(await stream.send(go("<b xmlns='urn:i:bind'/>")))
    expect(elements.map((e) => e.getName())).to.deep.equal(['success', 'features', 'message'])
    expect(elements[0]?.attrs['jid']).to.equal('romeo@example.org/inline')
  })

  it('is not offered inline features as features of the stream', async () => {
    await using h = await host({ modules: [fakeLogin(), inlines] })
    const stream = h.stream()
    expect(offered(await stream.send(header()))).not.to.include('urn:i:echo')
    expect(error(await stream.send("<e xmlns='urn:i:echo'/>"))).to.equal('not-authorized')
  })

  it('gives back what waited for a client that was lost before it knew its address', async () => {
    const late = { release: () => undefined as void }
    const gate: AnyModule = {
      name: 'gate',
      summary: 'test',
      specs: [],
      setup: (ctx) =>
        ctx.hook('session:bound', { phase: 'observe' }, async ({ session }) => {
          if (session.jid.resource !== 'orchard') return
          const { promise, resolve } = Promise.withResolvers<void>()
          late.release = resolve
          await promise
        }),
    }
    await using h = await host({ modules: [fakeLogin(), gate] })
    const juliet = await h.client('juliet@example.org/balcony')
    const stream = await bound(h)
    await juliet.send("<message to='romeo@example.org/orchard' id='m'><body>hi</body></message>")
    await stream.drop()
    late.release()
    await h.settle()
    expect(juliet.take().map((e) => `${e.attr('type')} ${e.attr('id')}`)).to.deep.equal(['error m'])
  })
})

describe('c2s: limits (RFC 6120 §13.12)', () => {
  const limits = {
    before: { maxBytes: 1000, maxDepth: 20, maxAttrs: 20, maxName: 100 },
    after: { maxBytes: 10_000, maxDepth: 20, maxAttrs: 20, maxName: 100 },
  }
  const big = (bytes: number): string => `<go xmlns='${FAKE.dialogue}'>${'x'.repeat(bytes)}</go>`

  it('are wider after login, from the next stream on', async () => {
    await using h = await host({ limits })
    expect(error(await (await opened(h)).send(big(2000)))).to.equal('policy-violation')
    const stream = await loggedIn(h)
    expect(stream.session.limits.maxBytes).to.equal(10_000)
    expect(names(await stream.send(big(9000)))).to.deep.equal(['next'])
    expect(error(await stream.send(big(11_000)))).to.equal('policy-violation')
  })

  it('change for new streams while others are open', async () => {
    await using h = await host({ limits })
    h.c2s.setLimits({ ...testLimits, before: { ...limits.before, maxBytes: 5000 } })
    expect(names(await (await opened(h)).send(big(2000)))).to.deep.equal(['next'])
  })
})
