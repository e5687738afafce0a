/** RFC 6120 §10.4: domains that are no virtual hosts, and who serves them. */
import { expect } from 'chai'
import type { Ctx, ModuleDef, StanzaEvent } from '../../server/module.ts'
import { type Element, el } from '../../server/xmpp/element.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { JidError, parseJid } from '../../server/xmpp/jid.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { reply } from '../../server/xmpp/stanza.ts'
import { type TestHost, type TestHostOptions, testHost } from '../helpers/host.ts'

const REMOTE = 'remote.example.net'
const ROMEO = 'romeo@example.org/orchard'

/** A host with a module that gives its context to the test. */
async function withCtx(
  more: Partial<TestHostOptions> = {},
  setUp: (ctx: Ctx) => void = () => undefined,
): Promise<{ h: TestHost; ctx: Ctx }> {
  let ctx: Ctx | undefined
  const probe: ModuleDef<never> = {
    name: 'probe',
    summary: 'test',
    specs: [],
    setup(own) {
      ctx = own
      setUp(own)
    },
  }
  const h = await testHost({
    accounts: ['romeo', 'juliet'],
    ...more,
    modules: [probe, ...(more.modules ?? [])],
  })
  if (ctx === undefined) return expect.fail('not set up')
  return { h, ctx }
}

const message = (from: string, to: string, id: string) => el('message', NS.CLIENT, { from, to, id })
const condition = (e: Element | undefined): string | undefined => e?.getChild('error')?.firstElement()?.name
const idsOf = (list: readonly (Element | StanzaEvent)[]) =>
  list.map((e) => ('stanza' in e ? e.stanza : e).attr('id'))

describe('domains: takers', () => {
  it('§10.4.3: nobody serves it: remote-server-not-found; somebody does: the stanza is its own', async () => {
    const { h, ctx } = await withCtx()
    await using _h = h
    const romeo = await h.client(ROMEO)
    const send = () => romeo.send(`<message to='a@${REMOTE}' id='m'/>`)
    expect(condition((await send())[0])).to.equal('remote-server-not-found')
    const got: StanzaEvent[] = []
    const taken = ctx.domains.take(REMOTE, (e) => void got.push(e))
    expect(await send()).to.deep.equal([])
    expect(got.map((e) => `${e.from.toString()} ${e.to.toString()} ${e.stanza.attr('from')}`)).to.deep.equal([
      `${ROMEO} a@${REMOTE} ${ROMEO}`,
    ])
    taken[Symbol.dispose]()
    expect(condition((await send())[0])).to.equal('remote-server-not-found')
  })

  it('one taker for a domain, none for a virtual host, and one for all others', async () => {
    const { h, ctx } = await withCtx()
    await using _h = h
    const nothing = (): void => undefined
    ctx.domains.take(REMOTE, nothing)
    expect(() => ctx.domains.take(REMOTE.toUpperCase(), nothing)).to.throw('served already')
    expect(() => ctx.domains.take('example.org', nothing)).to.throw('is a virtual host')
    expect(() => ctx.domains.take('a@b', nothing)).to.throw(JidError)
    const others = ctx.domains.takeOthers(nothing)
    expect(() => ctx.domains.takeOthers(nothing)).to.throw('served already')
    others[Symbol.dispose]()
    ctx.domains.takeOthers(nothing)
    expect(['example.org', REMOTE, 'else.example'].map((d) => ctx.domains.servedBy(d))).to.deep.equal([
      'host',
      'taker',
      undefined,
    ])
  })

  it('the taker of all others gets what nobody else serves', async () => {
    const { h, ctx } = await withCtx()
    await using _h = h
    const [own, others]: [StanzaEvent[], StanzaEvent[]] = [[], []]
    ctx.domains.takeOthers((e) => void others.push(e))
    const taken = ctx.domains.take(REMOTE, (e) => void own.push(e))
    const romeo = await h.client(ROMEO)
    await romeo.send(
      `<message to='${REMOTE}' id='1'/><message to='else.example' id='2'/><message to='example.org' id='3'/>`,
    )
    expect([idsOf(own), idsOf(others)]).to.deep.equal([['1'], ['2']])
    taken[Symbol.dispose]()
    await romeo.send(`<message to='${REMOTE}' id='4'/>`)
    expect(idsOf(others)).to.deep.equal(['2', '4'])
  })

  it('what a taker throws goes back; anything but a refusal is our fault, and logged', async () => {
    const logged: string[] = []
    const { h, ctx } = await withCtx({
      onLog: (level, text) => void (level === 'error' && logged.push(text)),
    })
    await using _h = h
    const romeo = await h.client(ROMEO)
    let fail: () => void | Promise<void> = () => undefined
    ctx.domains.take(REMOTE, () => fail())
    const answer = async (how: () => void | Promise<void>) => {
      fail = how
      return condition((await romeo.send(`<message to='${REMOTE}' id='m'/>`))[0])
    }
    const refused = () => new StanzaError('gone')
    expect(
      await answer(() => {
        throw refused()
      }),
    ).to.equal('gone')
    expect(await answer(() => Promise.reject(refused()))).to.equal('gone')
    expect(logged).to.have.length(0)
    expect(
      await answer(() => {
        throw new Error('bug')
      }),
    ).to.equal('internal-server-error')
    expect(await answer(() => Promise.reject(new Error('bug')))).to.equal('internal-server-error')
    expect(logged).to.have.length(2)
  })

  it('are given back at unload', async () => {
    const { h, ctx } = await withCtx()
    await using _h = h
    ctx.domains.take(REMOTE, () => undefined)
    ctx.domains.takeOthers(() => undefined)
    await h.unload('probe')
    expect(h.router.domains.takerOf(REMOTE)).to.equal(undefined)
  })

  it('stanzas of accounts and of the host go out too, and answers to remote addresses come back', async () => {
    const got: StanzaEvent[] = []
    const { h, ctx } = await withCtx()
    await using _h = h
    ctx.domains.take(REMOTE, (e) => void got.push(e))
    await ctx.send(message('example.org', REMOTE, '1'))
    await ctx.send(message('romeo@example.org', REMOTE, '2'))
    await ctx.domains.receive(message(`a@${REMOTE}`, 'nobody@example.org', '3'))
    expect(
      got.map((e) => `${e.stanza.attr('id')} ${e.stanza.attr('type')} ${condition(e.stanza)}`),
    ).to.deep.equal(['1 undefined undefined', '2 undefined undefined', '3 error service-unavailable'])
  })

  it('an answer to somebody who cannot be reached is lost, not answered in turn', async () => {
    const { h, ctx } = await withCtx()
    await using _h = h
    ctx.domains.take(REMOTE, () => {
      throw new StanzaError('service-unavailable')
    })
    await ctx.domains.receive(message(`a@${REMOTE}`, 'nobody@example.org', '1'))
    await ctx.domains.receive(message('a@nowhere.example', 'nobody@example.org', '2'))
    await ctx.domains.receive(message('a@nowhere.example', `b@${REMOTE}`, '3'))
  })
})

describe('domains: requests', () => {
  it('RFC 6120 §8.2.3: a module of scope server asks in the name of a host, and gets the answer', async () => {
    const { h, ctx } = await withCtx()
    await using _h = h
    ctx.domains.take(REMOTE, (e) => ctx.domains.receive(reply(e.stanza, el('yes', 'urn:x'))))
    let ask: (() => Promise<Element | undefined>) | undefined
    const shared: ModuleDef<never> = {
      name: 'shared',
      summary: 'test',
      specs: [],
      scope: 'server',
      setup(own) {
        const opts = { type: 'get', timeoutMs: 1000, from: parseJid('example.org') } as const
        ask = () => own.request(parseJid(REMOTE), el('ask', 'urn:x'), opts)
      },
    }
    await h.loadShared(shared)
    expect((await ask?.())?.name).to.equal('yes')
  })
})

describe('domains: what comes from there', () => {
  it('goes through the lane of the account, from whoever it is', async () => {
    const seen: string[] = []
    const { h, ctx } = await withCtx({}, (own) =>
      own.hook(
        'account:in',
        { phase: 'observe' },
        (e) => void seen.push(`${e.from.toString()} ${e.session === undefined}`),
      ),
    )
    await using _h = h
    const romeo = await h.client(ROMEO)
    await ctx.domains.receive(message(`a@${REMOTE}`, ROMEO, '1'))
    await h.settle()
    expect(idsOf(romeo.take())).to.deep.equal(['1'])
    expect(seen).to.deep.equal([`a@${REMOTE} true`])
  })

  it('without proper addresses it is refused at once', async () => {
    const { h, ctx } = await withCtx()
    await using _h = h
    const receive = (attrs: Record<string, string>) => () =>
      ctx.domains.receive(el('message', NS.CLIENT, attrs))
    expect(receive({ to: ROMEO })).to.throw(JidError)
    expect(receive({ from: REMOTE })).to.throw(JidError)
    expect(receive({ from: '@', to: ROMEO })).to.throw(JidError)
  })

  it('RFC 6120 §8.2.3: an iq that is none is answered with bad-request, and goes nowhere', async () => {
    const { h, ctx } = await withCtx()
    await using _h = h
    const got: StanzaEvent[] = []
    ctx.domains.take(REMOTE, (e) => void got.push(e))
    const romeo = await h.client(ROMEO)
    for (const attrs of [{ type: 'get' }, { type: 'ask', id: '1' }, { type: 'get', id: '2' }])
      await ctx.domains.receive(el('iq', NS.CLIENT, { ...attrs, from: REMOTE, to: ROMEO }))
    expect(got.map((e) => condition(e.stanza))).to.deep.equal(['bad-request', 'bad-request', 'bad-request'])
    expect(romeo.take()).to.deep.equal([])
  })
})

describe('domains: chains', () => {
  /** Hooks that wait until the test lets them go on, by id. */
  function gated(chain: 'remote:in' | 'remote:out', phase: 'guard' | 'store') {
    const gates = new Map<string, () => void>()
    const setUp = (ctx: Ctx): void =>
      ctx.hook(
        chain,
        { phase },
        (e) => new Promise<void>((open) => void gates.set(e.stanza.attr('id') ?? '', open)),
      )
    return { gates, setUp }
  }

  it('RFC 6120 §10.1: remote:out keeps the order of a sender while its handlers wait; others do not wait', async () => {
    const { gates, setUp } = gated('remote:out', 'store')
    const { h, ctx } = await withCtx({}, setUp)
    await using _h = h
    const got: StanzaEvent[] = []
    ctx.domains.take(REMOTE, (e) => void got.push(e))
    const [romeo, juliet] = [await h.client(ROMEO), await h.client('juliet@example.org/balcony')]
    await romeo.send(
      `<message to='${REMOTE}' id='r1'/><message to='${REMOTE}' id='r2'/><message to='${REMOTE}' id='r3'/>`,
    )
    await juliet.send(`<message to='${REMOTE}' id='j1'/>`)
    expect([...gates.keys()]).to.deep.equal(['r1', 'r2', 'r3', 'j1'])
    gates.get('r3')?.()
    gates.get('r2')?.()
    gates.get('j1')?.()
    await h.settle()
    expect(idsOf(got)).to.deep.equal(['j1'])
    gates.get('r1')?.()
    await h.settle()
    expect(idsOf(got)).to.deep.equal(['j1', 'r1', 'r2', 'r3'])
  })

  it('remote:in keeps the order of a sender, and what it let wait is waited for', async () => {
    const { gates, setUp } = gated('remote:in', 'guard')
    const { h, ctx } = await withCtx({}, setUp)
    await using _h = h
    const romeo = await h.client(ROMEO)
    const done: string[] = []
    for (const [from, id] of [
      ['a', '1'],
      ['a', '2'],
      ['b', '3'],
    ] as const)
      void ctx.domains.receive(message(`${from}@${REMOTE}`, ROMEO, id))?.then(() => done.push(id))
    await h.settle()
    expect([...gates.keys()], 'begin stages come one after another').to.deep.equal(['1', '3'])
    gates.get('3')?.()
    await h.settle()
    expect(idsOf(romeo.take())).to.deep.equal(['3'])
    gates.get('1')?.()
    await h.settle()
    gates.get('2')?.()
    await h.settle()
    expect(idsOf(romeo.take())).to.deep.equal(['1', '2'])
    expect(done).to.deep.equal(['3', '1', '2'])
  })

  it('nobody hooks them: nothing waits', async () => {
    const { h, ctx } = await withCtx()
    await using _h = h
    ctx.domains.take(REMOTE, () => undefined)
    await h.client(ROMEO)
    expect(ctx.domains.receive(message(REMOTE, ROMEO, '1'))).to.equal(undefined)
    expect(h.router.route(message(ROMEO, REMOTE, '2'))).to.equal(undefined)
  })
})
