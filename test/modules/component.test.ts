/** XEP-0114 1.6 §3: how components connect, and why they are refused. What they send and get: component-stanzas.test.ts. */
import { expect } from 'chai'
import component from '../../modules/component/index.ts'
import { el } from '../../server/xmpp/element.ts'
import { NS } from '../../server/xmpp/ns.ts'
import {
  connected,
  DOMAIN,
  errorOf,
  handshake,
  hashFor,
  header,
  PORT,
  SECRET,
  start,
} from '../helpers/component.ts'
import { testHost } from '../helpers/host.ts'

const STREAM = /^<\?xml version='1.0'\?><stream:stream /

describe('component: handshake', () => {
  it('XEP-0114 §3: answers the header with the name of the component and an id, the handshake with an empty one', async () => {
    await using h = await start()
    const stream = h.connect(PORT)
    const ours = await stream.send(header())
    expect(ours).to.match(STREAM)
    expect(ours).to.contain(`from='${DOMAIN}'`)
    expect(ours).to.contain("xmlns='jabber:component:accept'")
    expect(await stream.send(handshake(ours))).to.equal('<handshake/>')
    expect(await h.connect(PORT).send(header()), 'ids differ (RFC 6120 §4.7.3)').not.to.equal(ours)
  })

  for (const [what, sent, condition] of [
    ['a component that is not configured', header('other.example.org'), 'host-unknown'],
    ['a virtual host', header('example.org'), 'host-unknown'],
    ['a localpart', header(`a@${DOMAIN}`), 'host-unknown'],
    ['no address', header('@'), 'host-unknown'],
    ['no name (RFC 6120 §4.9.3.7)', header(''), 'improper-addressing'],
    ['the namespace of clients', header(DOMAIN, 'jabber:client'), 'invalid-namespace'],
    ['the namespace of the other direction', header(DOMAIN, 'jabber:component:connect'), 'invalid-namespace'],
    ['another root', `<stream xmlns='jabber:component:accept' to='${DOMAIN}'>`, 'invalid-namespace'],
    ['text that is no XML', 'GET / HTTP/1.1\r\n\r\n', 'not-well-formed'],
  ] as const)
    it(`XEP-0114 §3: a header with ${what} gets a header, the error and the end`, async () => {
      await using h = await start({}, { onLog: () => undefined })
      const stream = h.connect(PORT)
      const answer = await stream.send(sent)
      expect(answer).to.match(STREAM)
      expect(answer).to.contain(`<${condition} xmlns=`)
      expect(answer).to.match(/<\/stream:error><\/stream:stream>$/)
      expect(stream.closed).to.equal(true)
    })

  it('XEP-0114 §3: a wrong secret is not-authorized, and the connection closes', async () => {
    const lines: string[] = []
    const onLog = (level: string, message: string, fields?: object) =>
      void lines.push(`${level} ${message} ${JSON.stringify(fields)}`)
    await using h = await start({}, { onLog })
    for (const spoil of [
      (ours: string) => handshake(ours, 'another secret'),
      () => '<handshake/>',
      (ours: string) => `<handshake>${hashFor(ours).toUpperCase()}</handshake>`,
      (ours: string) => `<handshake>${hashFor(ours)}0</handshake>`,
      () => `<handshake>${SECRET}</handshake>`,
      (ours: string) => handshake(ours.replace(/ id='./, " id='!")),
    ]) {
      const stream = h.connect(PORT)
      expect(await stream.send(spoil(await stream.send(header())))).to.contain('<not-authorized xmlns=')
      expect(stream.closed).to.equal(true)
    }
    expect(lines.filter((line) => line.startsWith('warn component refused'))).to.have.length(6)
    expect(lines.join('\n')).not.to.contain(SECRET)
  })

  it('the secret of one component is not that of another', async () => {
    const components = { [DOMAIN]: { secret: SECRET }, 'b.example.org': { secret: 'other' } }
    await using h = await start({ components }, { onLog: () => undefined })
    const stream = h.connect(PORT)
    expect(await stream.send(handshake(await stream.send(header('b.example.org'))))).to.contain(
      'not-authorized',
    )
    await connected(h, { to: 'b.example.org', secret: 'other' })
  })

  it('a secret may come from the environment; when it is not there, the error does not tell more', async () => {
    process.env['HERMOD_TEST_SECRET'] = 'from outside'
    const config = { component: { components: { [DOMAIN]: { secret: 'env:HERMOD_TEST_SECRET' } } } }
    try {
      await using h = await testHost({ modules: [component], config })
      await connected(h, { secret: 'from outside' })
    } finally {
      delete process.env['HERMOD_TEST_SECRET']
    }
    const error = await testHost({ modules: [component], config }).catch((e: unknown) => e)
    expect(String(error)).to.contain('HERMOD_TEST_SECRET is not set')
  })

  for (const sent of [
    `<message from='a@${DOMAIN}' to='romeo@example.org/orchard'/>`,
    `<handshake xmlns='urn:other'/>`,
    '<auth/>',
  ])
    it(`RFC 6120 §4.9.3.12: ${sent} before the handshake is not-authorized, and goes nowhere`, async () => {
      await using h = await start({}, { onLog: () => undefined })
      const romeo = await h.client('romeo@example.org/orchard')
      const stream = h.connect(PORT)
      const ours = await stream.send(header())
      // the right handshake behind it does not help
      expect(await stream.send(sent + handshake(ours))).to.contain('<not-authorized xmlns=')
      expect(stream.closed).to.equal(true)
      expect(romeo.take()).to.deep.equal([])
    })

  it('a stanza in the same packet as the handshake is handled after it', async () => {
    await using h = await start()
    const romeo = await h.client('romeo@example.org/orchard')
    const stream = h.connect(PORT)
    const ours = await stream.send(header())
    await stream.send(`${handshake(ours)}<message from='${DOMAIN}' to='romeo@example.org/orchard' id='m'/>`)
    expect(romeo.take().map((e) => e.attr('id'))).to.deep.equal(['m'])
  })

  it('RFC 6120 §4.9.3.4: without a handshake in time the connection ends; with one it stays', async () => {
    await using h = await start({ handshakeTimeout: '5s' })
    const [silent, slow] = [h.connect(PORT), h.connect(PORT)]
    await slow.send(header())
    const fine = await connected(h)
    await h.clock.advance(5_000)
    for (const stream of [silent, slow]) {
      expect(stream.transport.written.join('')).to.contain('<connection-timeout xmlns=')
      expect(stream.closed).to.equal(true)
    }
    await h.clock.advance(3_600_000)
    expect(fine.closed).to.equal(false)
  })

  it('RFC 6120 §4.9.3.14: too many connections of one address are refused, others are not', async () => {
    await using h = await start({ connectionsPerAddress: 2 })
    const first = h.connect(PORT)
    h.connect(PORT)
    const third = h.connect(PORT)
    await h.settle()
    expect(third.transport.written.join('')).to.contain('<policy-violation xmlns=')
    expect(third.closed).to.equal(true)
    await connected(h, { remoteAddress: '192.0.2.9' }).then((other) => other.drop())
    await first.drop()
    await connected(h)
  })

  it('RFC 6120 §13.12: what comes before the handshake is small', async () => {
    await using h = await start()
    const stream = h.connect(PORT)
    await stream.send(header())
    expect(await stream.send(`<handshake>${'a'.repeat(20_000)}</handshake>`)).to.contain(
      '<policy-violation xmlns=',
    )
  })
})

describe('component: one domain, several components', () => {
  it('refuse: the second one gets conflict, once it has proved itself (XEP-0114 §3)', async () => {
    await using h = await start({}, { onLog: () => undefined })
    const first = await connected(h)
    const second = h.connect(PORT)
    const ours = await second.send(header())
    expect(await second.send(handshake(ours))).to.contain('<conflict xmlns=')
    expect(second.closed).to.equal(true)
    expect(first.closed).to.equal(false)
    const stranger = h.connect(PORT)
    const wrong = handshake(await stranger.send(header()), 'wrong')
    expect(await stranger.send(wrong), 'who knows no secret learns nothing').to.contain('not-authorized')
  })

  it('refuse: the first one is asked for a sign of life, and makes room when it gives none', async () => {
    await using h = await start({}, { onLog: () => undefined })
    const first = await connected(h)
    const attempt = async (): Promise<string> => {
      const stream = h.connect(PORT)
      return stream.send(handshake(await stream.send(header())))
    }
    for (let i = 0; i < 3; i++) expect(await attempt()).to.contain('conflict')
    const [ping, ...more] = await first.talk('')
    expect(more, 'asked once').to.deep.equal([])
    expect(ping?.getChild('ping', 'urn:xmpp:ping')).not.to.equal(undefined)
    expect(ping?.attr('from')).to.equal('example.org')
    await h.clock.advance(5_000)
    // any stanza counts, also the error of a component that does not know pings
    await first.talk(`<iq type='error' from='${DOMAIN}' to='example.org' id='${ping?.attr('id')}'/>`)
    await h.clock.advance(10_000)
    expect(first.closed).to.equal(false)
    expect(await attempt()).to.contain('conflict')
    await h.clock.advance(10_000)
    expect(first.error).to.equal('connection-timeout')
    expect(await attempt()).to.equal('<handshake/>')
  })

  for (const [when, back] of [
    ['within the millisecond', 0],
    ['after the clock has gone back', 60_000],
  ] as const)
    it(`refuse: the first one gives its sign of life ${when}, and stays`, async () => {
      await using h = await start({}, { onLog: () => undefined })
      const first = await connected(h)
      await h.clock.advance(1000)
      const second = h.connect(PORT)
      expect(await second.send(handshake(await second.send(header())))).to.contain('conflict')
      const [ping] = await first.talk('')
      h.clock.putBack(back)
      await first.talk(`<iq type='result' from='${DOMAIN}' to='example.org' id='${ping?.attr('id')}'/>`)
      await h.clock.advance(60_000)
      expect(first.error).to.equal(undefined)
      expect(first.closed).to.equal(false)
    })

  it('replace: the first one gets conflict, and what it was not sent goes to the second', async () => {
    await using h = await start({ conflict: 'replace' })
    const romeo = await h.client('romeo@example.org/orchard')
    const first = await connected(h)
    first.transport.blocked = true
    await romeo.send(`<message to='a@${DOMAIN}' id='m1'/>`)
    await romeo.send(`<message to='a@${DOMAIN}' id='m2'/><message to='a@${DOMAIN}' id='m3'/>`)
    const second = h.connect(PORT)
    // the handshake is answered first, then comes what waited, and what was written and never read
    const answer = await second.send(handshake(await second.send(header())))
    expect(answer).to.match(/^<handshake\/>/)
    expect(Array.from(answer.matchAll(/id='(m\d)'/g), ([, id]) => id)).to.deep.equal(['m1', 'm2', 'm3'])
    expect(first.closed).to.equal(true)
    expect(first.transport.written.join('')).to.contain('<conflict xmlns=')
    expect(romeo.take()).to.deep.equal([])
  })

  it('share: senders are spread over all, each stays with one, and those of one that leaves go to the others', async () => {
    await using h = await start({ components: { [DOMAIN]: { secret: SECRET, conflict: 'share' } } })
    const all = [await connected(h), await connected(h), await connected(h)]
    await connected(h, { remoteAddress: '192.0.2.3' }).then((fourth) => fourth.drop())
    const senders = Array.from({ length: 60 }, (_, i) => `guest${i}@example.org`)
    const send = async (): Promise<Map<string, number>> => {
      for (const from of senders) await h.router.route(message(from))
      const at = new Map<string, number>()
      for (const [i, one] of all.entries())
        for (const stanza of one.closed ? [] : await one.talk('')) at.set(stanza.attr('from') ?? '', i)
      return at
    }
    const before = await send()
    expect(before.size).to.equal(60)
    for (const i of [0, 1, 2])
      expect([...before.values()].filter((at) => at === i).length, `share of ${i}`).to.be.greaterThan(5)
    expect(await send()).to.deep.equal(before)
    await all[1]?.drop()
    const afterwards = await send()
    expect(afterwards.size).to.equal(60)
    for (const [from, at] of before) if (at !== 1) expect(afterwards.get(from)).to.equal(at)
  })

  const message = (from: string) => el('message', NS.CLIENT, { from, to: DOMAIN, id: 'm' })
})

describe('component: configuration', () => {
  it('a domain that is a virtual host is refused at start', async () => {
    const error = await start({ components: { 'example.org': { secret: 'x' } } }).catch((e: unknown) => e)
    expect(String(error)).to.equal('OperatorError: component example.org: this domain is a virtual host')
  })

  it('nothing listens while there are no components', async () => {
    await using h = await testHost({ modules: [component] })
    expect([...h.listening]).to.deep.equal([])
  })

  it('listens on loopback only unless told otherwise', async () => {
    await using h = await start()
    expect([...h.listening.values()].map(({ address, tls }) => `${address} ${tls}`)).to.deep.equal([
      '127.0.0.1 none',
    ])
  })

  it('unload: components get system-shutdown, their domain is nobody’s, nothing listens', async () => {
    await using h = await start()
    const one = await connected(h)
    const waiting = h.connect(PORT)
    await h.unload('component')
    await h.settle()
    expect(one.error).to.equal('system-shutdown')
    expect(one.closed).to.equal(true)
    expect(waiting.closed).to.equal(true)
    expect([...h.listening]).to.deep.equal([])
    const romeo = await h.client('romeo@example.org/orchard')
    const [answer] = await romeo.send(`<message to='a@${DOMAIN}' id='m'/>`)
    expect(errorOf(answer)).to.equal('cancel remote-server-not-found')
    await h.load(component, { components: { [DOMAIN]: { secret: SECRET } } })
    await connected(h)
  })

  it('reload: new components are served, those that are gone get host-gone, a new secret counts at once', async () => {
    const of = (components: object) => new Map([['component', { components }]])
    await using h = await start(
      {
        components: {
          [DOMAIN]: { secret: SECRET },
          'b.example.org': { secret: 'b' },
          'c.example.org': { secret: 'c' },
        },
      },
      { onLog: () => undefined },
    )
    const [a, b, c] = [
      await connected(h),
      await connected(h, { to: 'b.example.org', secret: 'b' }),
      await connected(h, { to: 'c.example.org', secret: 'c' }),
    ]
    await h.reload(
      of({
        [DOMAIN]: { secret: SECRET },
        'c.example.org': { secret: 'new' },
        'd.example.org': { secret: 'd' },
      }),
    )
    expect([a.error, b.error, c.error]).to.deep.equal([undefined, 'host-gone', 'reset'])
    await connected(h, { to: 'c.example.org', secret: 'new' })
    await connected(h, { to: 'd.example.org', secret: 'd' })
    expect(await h.connect(PORT).send(header('b.example.org'))).to.contain('host-unknown')
    // all or nothing
    const wrong = of({
      'e.example.org': { secret: 'e' },
      'f.example.org': { secret: 'env:HERMOD_TEST_NOT_THERE' },
    })
    const error = await h.reload(wrong).catch((e: unknown) => e)
    expect(String(error)).to.contain('HERMOD_TEST_NOT_THERE is not set')
    expect(await h.connect(PORT).send(header('e.example.org'))).to.contain('host-unknown')
    expect(a.closed).to.equal(false)
    await h.reload(of({}))
    expect([...h.listening]).to.deep.equal([])
    expect(a.error).to.equal('host-gone')
  })

  it('reload: where it cannot listen everything stays as it was, and it can be asked again', async () => {
    let inUse = false
    const listening: typeof component = {
      ...component,
      setup(ctx, options) {
        const listen: typeof ctx.listen = (where, accept) =>
          inUse && where.port === 6000
            ? Promise.reject(new Error('the port is in use'))
            : ctx.listen(where, accept)
        return component.setup(Object.create(ctx, { listen: { value: listen } }) as typeof ctx, options)
      },
    }
    const components = { [DOMAIN]: { secret: SECRET } }
    await using h = await testHost({ modules: [listening], config: { component: { components } } })
    const first = await connected(h)
    const moved = new Map([
      [
        'component',
        { components: { 'b.example.org': { secret: 'b' } }, listen: [{ port: 6001 }, { port: 6000 }] },
      ],
    ])
    inUse = true
    const error = await h.reload(moved).catch((e: unknown) => e)
    expect(String(error)).to.contain('the port is in use')
    expect([...h.listening.keys()]).to.deep.equal([PORT])
    expect(first.closed).to.equal(false)
    expect(await h.connect(PORT).send(header('b.example.org'))).to.contain('host-unknown')
    inUse = false
    await h.reload(moved)
    expect([...h.listening.keys()]).to.deep.equal([6001, 6000])
    expect(first.error).to.equal('host-gone')
  })
})
