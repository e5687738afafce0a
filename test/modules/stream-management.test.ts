/** XEP-0198 Stream Management: enabling, acknowledgement in both directions, counts, limits. Resumption has a file of its own. */
import { expect } from 'chai'
import sm from '../../modules/stream-management/index.ts'
import { defineModule, type StanzaEvent } from '../../server/module.ts'
import type { Element } from '../../server/xmpp/element.ts'
import { type TestClient, type TestHost, testHost } from '../helpers/host.ts'
import { LoginStream } from '../helpers/login.ts'

const NS = 'urn:xmpp:sm:3'
const ENABLE = `<enable xmlns='${NS}'/>`
const R = `<r xmlns='${NS}'/>`
const a = (h: number | string): string => `<a xmlns='${NS}' h='${h}'/>`
const message = (id: string, to = 'romeo@example.org/orchard'): string =>
  `<message to='${to}' id='${id}' type='chat'><body>${id}</body></message>`
const show = (e: Element): string => `${e.name}${e.attr('h') === undefined ? '' : `=${e.attr('h')}`}`
const condition = (e: Element | undefined): string => e?.elements.map((x) => x.name).join() ?? ''

/** What the router gives up on: no offline store here. */
interface Store {
  readonly kept: Element[]
  readonly gates: PromiseWithResolvers<void>[]
  held: boolean
}
function keeping(): Store & { readonly module: ReturnType<typeof defineModule> } {
  const store: Store = { kept: [], gates: [], held: false }
  const module = defineModule({
    name: 'keeping',
    summary: 'keeps messages for those who are away, and may be slow',
    specs: [],
    setup(ctx) {
      ctx.hook('account:offline', { phase: 'store' }, (e: StanzaEvent) => {
        store.kept.push(e.stanza)
        return { stop: 'kept' }
      })
      ctx.hook('client:in', { phase: 'store', kinds: ['message'] }, () => {
        if (!store.held) return undefined
        const gate = Promise.withResolvers<void>()
        store.gates.push(gate)
        return gate.promise
      })
    },
  })
  return Object.assign(store, { module })
}

async function pair(host: TestHost, enable = ENABLE): Promise<{ romeo: TestClient; juliet: TestClient }> {
  const romeo = await host.client('romeo@example.org/orchard')
  const juliet = await host.client('juliet@example.org/balcony')
  await romeo.send(enable)
  return { romeo, juliet }
}
const start = (config: object = {}, more: Parameters<typeof testHost>[0]['modules'] = []) =>
  testHost({
    modules: [sm, ...more],
    accounts: ['romeo', 'juliet'],
    config: { 'stream-management': config },
  })

describe('stream management: XEP-0198 §2, §3', () => {
  it('§2: is offered after authentication, until it is on', async () => {
    await using host = await start()
    const login = await LoginStream.open(host)
    expect(login.offers).to.not.include('sm')
    const client = await host.client('romeo@example.org/orchard')
    host.c2s.sendFeatures(client.session)
    await host.settle()
    expect(client.take().map((e) => condition(e))).to.deep.equal(['sm'])
    await client.send(ENABLE)
    host.c2s.sendFeatures(client.session)
    await host.settle()
    expect(client.take().map((e) => condition(e))).to.deep.equal([''])
  })

  it('§3: <enabled/> without resume has no id', async () => {
    await using host = await start()
    const romeo = await host.client('romeo@example.org/orchard')
    const [enabled] = await romeo.send(ENABLE)
    expect(enabled?.toString()).to.equal(`<enabled xmlns='${NS}'/>`)
  })

  for (const yes of ['true', '1']) {
    it(`§3: resume='${yes}' gives an id and the time`, async () => {
      await using host = await start()
      const romeo = await host.client('romeo@example.org/orchard')
      const [enabled] = await romeo.send(`<enable xmlns='${NS}' resume='${yes}'/>`)
      expect(enabled?.attr('resume')).to.equal('true')
      expect(enabled?.attr('id')).to.match(/^[\w-]{24}$/)
      expect(enabled?.attr('max')).to.equal('600')
    })
  }

  for (const [max, told] of [
    ['60', '60'],
    ['100000', '600'],
    ['0', '600'],
    ['soon', '600'],
  ])
    it(`§3: max='${max}' becomes ${told}`, async () => {
      await using host = await start()
      const romeo = await host.client('romeo@example.org/orchard')
      const [enabled] = await romeo.send(`<enable xmlns='${NS}' resume='true' max='${max}'/>`)
      expect(enabled?.attr('max')).to.equal(told)
    })

  it('§3: hibernation of 0s: acknowledgement only', async () => {
    await using host = await start({ hibernation: '0s' })
    const romeo = await host.client('romeo@example.org/orchard')
    const [enabled] = await romeo.send(`<enable xmlns='${NS}' resume='true'/>`)
    expect(enabled?.toString()).to.equal(`<enabled xmlns='${NS}'/>`)
  })

  it('§3: before authentication and before binding <failed/>, and the stream goes on', async () => {
    await using host = await start()
    const login = await LoginStream.open(host)
    for (let i = 0; i < 2; i++) {
      const failed = await login.ask(ENABLE)
      expect(failed.getName()).to.equal('failed')
      expect(failed.getChildElements()[0]?.getName()).to.equal('unexpected-request')
    }
    expect(login.stream.closed).to.equal(false)
  })

  it('§3: a second <enable/> gets <failed/> (example 6), then a stream error, and nothing is lost', async () => {
    await using host = await start()
    const { romeo, juliet } = await pair(host)
    await juliet.send(message('1'))
    const [failed] = (await romeo.send(ENABLE)).slice(-1)
    expect(failed?.name).to.equal('failed')
    expect(condition(failed)).to.equal('unexpected-request')
    expect(condition(romeo.error)).to.equal('policy-violation')
    expect(romeo.closed).to.equal(true)
  })

  it('§6: <r/> and <a/> without stream management', async () => {
    await using host = await start()
    const romeo = await host.client('romeo@example.org/orchard')
    expect((await romeo.send(R)).map(condition)).to.deep.equal(['unexpected-request'])
    expect((await romeo.send(a(0))).map(condition)).to.deep.equal(['unexpected-request'])
  })

  it('an unknown element of the namespace ends the stream', async () => {
    await using host = await start()
    const { romeo } = await pair(host)
    await romeo.send(`<sleep xmlns='${NS}'/>`)
    expect(condition(romeo.error)).to.equal('unsupported-stanza-type')
  })

  it('after unload it is not offered any more, and its sessions are told to start again', async () => {
    await using host = await start()
    const { romeo, juliet } = await pair(host)
    await host.unload('stream-management')
    expect(condition(romeo.error)).to.equal('reset')
    expect(juliet.closed).to.equal(false)
  })
})

describe('stream management: XEP-0198 §4, what the server has handled', () => {
  it('counts stanzas from <enable/> on, and nothing else', async () => {
    await using host = await start()
    const romeo = await host.client('romeo@example.org/orchard')
    await romeo.send(message('before', 'juliet@example.org'))
    await romeo.send(ENABLE + R)
    expect((await romeo.send(R)).map(show)).to.deep.equal(['a=0'])
    const iq = `<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>`
    const got = await romeo.send(`${message('1', 'juliet@example.org')}${iq}<presence/>${R}${R}`)
    expect(got.filter((e) => e.ns === NS).map(show)).to.deep.equal(['a=3', 'a=3'])
  })

  it('in one go with <enable/>, messages before it still on their way', async () => {
    const store = keeping()
    await using host = await start({}, [store.module])
    const romeo = await host.client('romeo@example.org/orchard')
    store.held = true
    const to = 'juliet@example.org'
    const got = await romeo.send(`${message('1', to)}${ENABLE}${message('2', to)}${R}`)
    expect(got.map(show)).to.deep.equal(['enabled'])
    store.held = false
    store.gates[0]?.resolve()
    await host.settle()
    expect(romeo.take().map(show)).to.deep.equal([])
    store.gates[1]?.resolve()
    await host.settle()
    expect(romeo.take().map(show)).to.deep.equal(['a=1'])
  })

  it('an answer waits for what was sent before <r/>, not for what comes later', async () => {
    const store = keeping()
    await using host = await start({}, [store.module])
    const { romeo } = await pair(host)
    const to = 'juliet@example.org'
    store.held = true
    expect(await romeo.send(`${message('1', to)}${R}${R}${message('2', to)}${R}`)).to.deep.equal([])
    store.gates[0]?.resolve()
    await host.settle()
    expect(romeo.take().map(show)).to.deep.equal(['a=1'])
    store.gates[1]?.resolve()
    await host.settle()
    expect(romeo.take().map(show)).to.deep.equal(['a=2'])
  })

  it('a gap is not jumped over', async () => {
    const store = keeping()
    await using host = await start({}, [store.module])
    const { romeo } = await pair(host)
    store.held = true
    await romeo.send(message('1', 'juliet@example.org') + message('2', 'juliet@example.org'))
    store.gates[1]?.resolve()
    await host.settle()
    await romeo.send(R)
    expect(romeo.take()).to.deep.equal([])
    store.gates[0]?.resolve()
    await host.settle()
    expect(romeo.take().map(show)).to.deep.equal(['a=2'])
  })
})

describe('stream management: XEP-0198 §4, §6, what the client has handled', () => {
  it('h higher than sent: undefined-condition with both counts', async () => {
    await using host = await start()
    const { romeo, juliet } = await pair(host)
    for (let i = 0; i < 8; i++) await juliet.send(message(String(i)))
    await romeo.send(a(10))
    expect(condition(romeo.error)).to.equal('undefined-condition,text,handled-count-too-high')
    const high = romeo.error?.getChild('handled-count-too-high', NS)
    expect([high?.attr('h'), high?.attr('send-count')]).to.deep.equal(['10', '8'])
    expect(romeo.closed).to.equal(true)
  })

  it('one more than sent is too many, as many is right', async () => {
    await using host = await start()
    const { romeo, juliet } = await pair(host)
    await juliet.send(message('1'))
    await romeo.send(a(1))
    expect(romeo.error).to.equal(undefined)
    await romeo.send(a(2))
    expect(condition(romeo.error)).to.contain('handled-count-too-high')
  })

  it('h lower than before is old news', async () => {
    await using host = await start()
    const { romeo, juliet } = await pair(host)
    for (let i = 0; i < 4; i++) await juliet.send(message(String(i)))
    await romeo.send(a(3) + a(1) + a(4))
    expect(romeo.error).to.equal(undefined)
  })

  for (const h of ['', '-1', '1.5', 'x', '4294967296'])
    it(`h='${h}' is no number of 32 bits`, async () => {
      await using host = await start()
      const { romeo } = await pair(host)
      await romeo.send(a(h))
      expect(condition(romeo.error)).to.contain('bad-format')
    })

  it('asks at once after many stanzas, behind them', async () => {
    await using host = await start({ askEvery: 3 })
    const { romeo, juliet } = await pair(host)
    const names = (): string[] => romeo.take().map((e) => e.attr('id') ?? e.name)
    await juliet.send(message('1') + message('2'))
    expect(names()).to.deep.equal(['1', '2'])
    await juliet.send(message('3'))
    expect(names()).to.deep.equal(['3', 'r'])
    await juliet.send(message('4') + message('5'))
    expect(names()).to.deep.equal(['4', '5'])
    await juliet.send(message('6'))
    expect(names()).to.deep.equal(['6', 'r'])
  })

  it('asks for few after some time, once', async () => {
    await using host = await start({ askAfter: '2s' })
    const { romeo, juliet } = await pair(host)
    await juliet.send(message('1'))
    expect(romeo.take().map(show)).to.deep.equal(['message'])
    await host.clock.advance(2000)
    expect(romeo.take().map(show)).to.deep.equal(['r'])
    await host.clock.advance(6000)
    expect(romeo.take().map(show)).to.deep.equal([])
    await romeo.send(a(1))
    await host.clock.advance(6000)
    expect(romeo.take().map(show)).to.deep.equal([])
  })

  it('asks again while something is not confirmed', async () => {
    await using host = await start()
    const { romeo, juliet } = await pair(host)
    await juliet.send(message('1') + message('2'))
    await host.clock.advance(1000)
    await romeo.send(a(1))
    await host.clock.advance(1000)
    expect(romeo.take().map(show)).to.deep.equal(['r'])
  })

  it('a client that does not confirm in time is gone', async () => {
    const store = keeping()
    await using host = await start({ ackTimeout: '30s' }, [store.module])
    const { romeo, juliet } = await pair(host)
    await juliet.send(message('1'))
    await host.clock.advance(30_000)
    expect(romeo.closed).to.equal(false)
    await host.clock.advance(3000)
    expect(condition(romeo.error)).to.equal('connection-timeout')
    expect(store.kept.map((e) => e.attr('id'))).to.deep.equal(['1'])
    expect(host.host.of('romeo')).to.deep.equal([])
  })

  it('too many that are not confirmed end the session, and all of them go on their way in order', async () => {
    const store = keeping()
    await using host = await start({ maxStanzas: 50 }, [store.module])
    const { romeo, juliet } = await pair(host, `<enable xmlns='${NS}' resume='true'/>`)
    for (let i = 0; i < 52; i++) await juliet.send(message(String(i)))
    expect(condition(romeo.error)).to.contain('resource-constraint')
    expect(host.host.of('romeo')).to.deep.equal([])
    expect(store.kept.map((e) => e.attr('id'))).to.deep.equal(Array.from({ length: 52 }, (_, i) => String(i)))
  })

  it('so do too many bytes', async () => {
    const store = keeping()
    await using host = await start({ maxBytes: '64 KiB' }, [store.module])
    const { romeo, juliet } = await pair(host)
    const big = (id: string): string =>
      `<message to='romeo@example.org/orchard' id='${id}' type='chat'><body>${'x'.repeat(4000)}</body></message>`
    for (let i = 0; i < 40; i++) await juliet.send(big(String(i)))
    expect(condition(romeo.error)).to.contain('resource-constraint')
    expect(store.kept).to.have.length(40)
  })

  it('§4: what is not confirmed when the client closes goes on its way with the time, what is confirmed does not', async () => {
    const store = keeping()
    await using host = await start({}, [store.module])
    const { romeo, juliet } = await pair(host)
    await juliet.send(message('1') + message('2'))
    const at = host.clock.now()
    await host.clock.advance(500)
    await romeo.send(a(1))
    await romeo.close()
    expect(store.kept.map((e) => e.attr('id'))).to.deep.equal(['2'])
    const delay = store.kept[0]?.getChild('delay', 'urn:xmpp:delay')
    expect(Date.parse(delay?.attr('stamp') ?? '')).to.equal(at)
    expect(delay?.attr('from')).to.equal('example.org')
  })

  it('§4: without a store the sender gets an error, an iq request too', async () => {
    await using host = await start()
    const { romeo, juliet } = await pair(host)
    const iq = `<iq type='get' id='2' to='romeo@example.org/orchard'><x xmlns='urn:x'/></iq>`
    await juliet.send(message('1') + iq)
    await romeo.drop()
    const errors = juliet.take()
    expect(errors.map((e) => `${e.name} ${e.attr('id')} ${e.attr('type')}`)).to.deep.equal([
      'message 1 error',
      'iq 2 error',
    ])
  })

  it('what waits in the queue of a client that does not read is not counted twice', async () => {
    const store = keeping()
    await using host = await start({}, [store.module])
    const { romeo, juliet } = await pair(host)
    romeo.transport.blocked = true
    for (let i = 0; i < 5; i++) await juliet.send(message(String(i)))
    await romeo.drop()
    expect(store.kept.map((e) => e.attr('id'))).to.deep.equal(['0', '1', '2', '3', '4'])
  })

  it('<enabled/> does not overtake what the client has still to read', async () => {
    await using host = await start()
    const romeo = await host.client('romeo@example.org/orchard')
    const juliet = await host.client('juliet@example.org/balcony')
    romeo.transport.blocked = true
    for (let i = 0; i < 3; i++) await juliet.send(message(String(i)))
    await romeo.send(ENABLE)
    romeo.transport.unblock()
    await host.settle()
    expect(
      romeo
        .take()
        .map((e) => e.attr('id') ?? e.name)
        .at(-1),
    ).to.equal('enabled')
    await romeo.send(a(0))
    expect(romeo.error).to.equal(undefined)
  })
})
