/** XEP-0198 §9: stream management within SASL2 and Bind 2. */
import { expect } from 'chai'
import accounts from '../../modules/accounts/index.ts'
import bind from '../../modules/bind.ts'
import bind2 from '../../modules/bind2.ts'
import sasl from '../../modules/sasl/index.ts'
import sasl2 from '../../modules/sasl2.ts'
import sm from '../../modules/stream-management/index.ts'
import { defineModule } from '../../server/module.ts'
import type { Store } from '../../server/storage/contract.ts'
import { el } from '../../server/xmpp/element.ts'
import { type TestHost, testHost } from '../helpers/host.ts'
import { bindingTls, LoginStream } from '../helpers/login.ts'
import { NS, ENABLE, JULIET, a, message, resume, condition, world } from '../helpers/managed.ts'
import { openFaulty } from '../robustness/faulty-store.ts'

describe('stream management within SASL2 and Bind 2: XEP-0198 §9', () => {
  const tls = bindingTls()
  async function login(store?: Store): Promise<TestHost> {
    const host = await testHost({
      modules: [accounts, sasl, bind, sasl2, bind2, sm],
      config: { accounts: { iterations: 4096 } },
      ...(store === undefined ? {} : { store }),
    })
    for (const name of ['romeo', 'juliet']) await host.service('auth').create(name, 'r0m30myr0m30')
    return host
  }
  const authenticate = (inner: string, user = 'romeo'): string =>
    `<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>${Buffer.from(
      `\0${user}\0r0m30myr0m30`,
    ).toString('base64')}</initial-response>${inner}</authenticate>`
  const bindRequest = (inner = ENABLE): string => `<bind xmlns='urn:xmpp:bind:0'>${inner}</bind>`
  async function enter(host: TestHost, inner: string, user?: string) {
    const stream = await LoginStream.open(host, { tls })
    const answers = await stream.send(authenticate(inner, user))
    const [success] = answers
    return { stream, success, answers, jid: success?.getChildText('authorization-identifier') ?? '' }
  }

  it('§9.1, §9.2: is announced in both', async () => {
    await using host = await login()
    const stream = await LoginStream.open(host, { tls })
    const inline = stream.features?.getChild('authentication')?.getChild('inline')
    expect(inline?.getChild('sm', NS)).to.not.equal(undefined)
    const vars = inline
      ?.getChild('bind')
      ?.getChild('inline')
      ?.getChildren('feature')
      .map((f) => f.attrs['var'])
    expect(vars).to.deep.equal([NS])
  })

  it('§9.1: <enable/> in <bind/>; counting begins there, with what is sent before the client knows', async () => {
    await using host = await login()
    const early = defineModule({
      name: 'early',
      summary: 'sends at once',
      specs: [],
      setup: (ctx) =>
        ctx.hook('session:bound', { phase: 'observe' }, ({ session }) =>
          ctx.deliver(session, el('message', 'jabber:client', { id: 'early', to: session.jid.toString() })),
        ),
    })
    await host.load(early)
    const { stream, success, answers } = await enter(host, bindRequest())
    const enabled = success?.getChild('bound', 'urn:xmpp:bind:0')?.getChild('enabled', NS)
    expect(enabled?.attrs['resume']).to.equal('true')
    expect(answers.map((e) => e.getName())).to.deep.equal(['success', 'features', 'message'])
    expect(answers[1]?.getChild('sm', NS)).to.equal(undefined)
    await stream.stream.send(a(1))
    expect(stream.stream.closed).to.equal(false)
    await stream.stream.send(a(2))
    expect(stream.stream.closed).to.equal(true)
  })

  it('§9.1: a client that goes before it is told leaves no session, and nothing in it', async () => {
    await using host = await login()
    const gate = Promise.withResolvers<undefined>()
    const around = world()
    const slow = defineModule({
      name: 'slow',
      summary: 'an archive that takes its time',
      specs: [],
      setup(ctx) {
        ctx.hook('bind2:bound', { phase: 'store' }, () => gate.promise)
        ctx.hook('session:bound', { phase: 'observe' }, ({ session }) =>
          ctx.deliver(session, el('message', 'jabber:client', { id: 'early', to: session.jid.toString() })),
        )
      },
    })
    await host.load(around.module)
    await host.load(slow)
    const stream = await LoginStream.open(host, { tls })
    stream.stream.transport.feed(authenticate(bindRequest()))
    while (host.host.of('romeo').length === 0) await host.settle()
    await host.settle()
    await stream.stream.drop()
    gate.resolve(undefined)
    await host.settle()
    expect(host.host.of('romeo')).to.deep.equal([])
    expect(around.kept.map((e) => e.attr('id'))).to.deep.equal(['early'])
  })

  it('§9.1: a client that comes back to its resource while the store is asked: its own session is managed, once', async () => {
    await using host = await login()
    const bound: (() => void)[] = []
    const over = Promise.withResolvers<undefined>()
    const slow = defineModule({
      name: 'slow',
      summary: 'a list that takes its time',
      specs: [],
      setup(ctx) {
        ctx.hook('session:bound', { phase: 'observe' }, async () => {
          await new Promise<void>((resolve) => bound.push(resolve))
        })
        ctx.hook('session:closed', { phase: 'store' }, () => over.promise)
      },
    })
    await host.load(slow)
    const agent = `<user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'/>`
    const streams: LoginStream[] = []
    for (const i of [0, 1]) {
      const stream = await LoginStream.open(host, { tls })
      streams.push(stream)
      stream.stream.transport.feed(authenticate(agent + bindRequest()))
      while (bound.length <= i) await host.settle()
      if (i === 0) await stream.stream.drop()
    }
    for (const go of bound) {
      go()
      await host.settle()
    }
    over.resolve(undefined)
    const [success] = await (streams[1] as LoginStream).send(' ')
    const enabled = success?.getChild('bound', 'urn:xmpp:bind:0')?.getChild('enabled', NS)
    expect(enabled?.attrs['resume']).to.equal('true')
  })

  it('§9.2: one round trip; <bind/> is ignored, no features follow', async () => {
    await using host = await login()
    const first = await enter(host, bindRequest())
    const id = String(
      first.success?.getChild('bound', 'urn:xmpp:bind:0')?.getChild('enabled', NS)?.attrs['id'],
    )
    await first.stream.stream.drop()
    const juliet = await host.client(JULIET)
    await juliet.send(message('1', first.jid) + message('2', first.jid))
    const again = await enter(host, bindRequest() + resume(id, 0))
    expect(again.answers.map((e) => (e.attrs['id'] as string | undefined) ?? e.getName())).to.deep.equal([
      'success',
      '1',
      '2',
      'r',
    ])
    expect(again.jid).to.equal(first.jid)
    expect(again.success?.getChild('resumed', NS)?.attrs['h']).to.equal('0')
    expect(again.success?.getChild('bound', 'urn:xmpp:bind:0')).to.equal(undefined)
    expect(host.host.of('romeo').map((session) => session.jid.toString())).to.deep.equal([first.jid])
    const [pong] = await again.stream.send(`<iq type='get' id='x' to='example.org'><a xmlns='urn:x'/></iq>`)
    expect(pong?.attrs['to']).to.equal(first.jid)
  })

  it('§9.2.1: <failed/> in the success, and <bind/> is done', async () => {
    await using host = await login()
    const { success, answers } = await enter(host, resume('unknown', 0) + bindRequest())
    expect(condition(success?.getChild('failed', NS))).to.equal('item-not-found')
    expect(success?.getChild('bound', 'urn:xmpp:bind:0')?.getChild('enabled', NS)).to.not.equal(undefined)
    expect(answers.map((e) => e.getName())).to.deep.equal(['success', 'features'])
  })

  it('§6, §9.2.1: <failed/> also when the store does not answer', async () => {
    const store = await openFaulty()
    await using host = await login(store)
    Object.assign(store, { fault: 'reject', only: /^stream-management\./ })
    const { success } = await enter(host, resume('unknown', 0) + bindRequest())
    expect(store.met).to.equal(1)
    store.fault = 'none'
    expect(condition(success?.getChild('failed', NS))).to.equal('item-not-found')
    expect(success?.getChild('bound', 'urn:xmpp:bind:0')?.getChild('enabled', NS)).to.not.equal(undefined)
  })

  it('§9.2: a new stream that is lost before its client knows: the session sleeps, and ends in its time', async () => {
    await using host = await login()
    const gate = Promise.withResolvers<void>()
    const begun = Promise.withResolvers<void>()
    const slow = defineModule({
      name: 'slow',
      summary: 'takes its time, as new tokens do (XEP-0484)',
      specs: [],
      setup: (ctx) =>
        ctx.streamFeature({
          ns: 'urn:x:slow',
          streams: ['c2s'],
          needs: ['authenticated'],
          forbids: [],
          inline: 'sasl2',
          first: true,
          advertise: () => undefined,
          handle: async () => {
            begun.resolve()
            await gate.promise
            return undefined
          },
        }),
    })
    await host.load(slow)
    const first = await enter(host, bindRequest())
    const id = String(
      first.success?.getChild('bound', 'urn:xmpp:bind:0')?.getChild('enabled', NS)?.attrs['id'],
    )
    await first.stream.stream.drop()
    const again = await LoginStream.open(host, { tls })
    again.stream.transport.feed(authenticate(`${resume(id, 0)}<slow xmlns='urn:x:slow'/>`))
    await begun.promise
    expect(host.host.of('romeo').map(({ connected }) => connected)).to.deep.equal([true])
    await again.stream.drop()
    gate.resolve()
    await host.settle()
    await host.clock.advance(599_000)
    expect(host.host.of('romeo').map(({ connected }) => connected)).to.deep.equal([false])
    await host.clock.advance(2000)
    expect(host.host.of('romeo')).to.deep.equal([])
  })

  it('§9.2: the session of another account', async () => {
    await using host = await login()
    const first = await enter(host, bindRequest())
    const id = String(
      first.success?.getChild('bound', 'urn:xmpp:bind:0')?.getChild('enabled', NS)?.attrs['id'],
    )
    const { success } = await enter(host, resume(id, 0) + bindRequest(), 'juliet')
    expect(condition(success?.getChild('failed', NS))).to.equal('item-not-found')
    expect(first.stream.stream.closed).to.equal(false)
  })

  it('§6: h too high is a stream error here too', async () => {
    await using host = await login()
    const first = await enter(host, bindRequest())
    const id = String(
      first.success?.getChild('bound', 'urn:xmpp:bind:0')?.getChild('enabled', NS)?.attrs['id'],
    )
    const { stream, answers } = await enter(host, resume(id, 5))
    expect(answers.map((e) => `${e.getName()} ${condition(e)}`)).to.deep.equal(['error undefined-condition'])
    expect(stream.stream.closed).to.equal(true)
    expect(first.stream.stream.closed).to.equal(false)
  })
})
