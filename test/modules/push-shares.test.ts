/** XEP-0357: app servers that do not answer, or answer late, hold nobody else up; with calls (XEP-0353) and messages. */
import { expect } from 'chai'
import push from '../../modules/push/index.ts'
import { Shares } from '../../modules/push/shares.ts'
import { defineModule } from '../../server/module.ts'
import type { Element } from '../../server/xmpp/element.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { reply } from '../../server/xmpp/stanza.ts'
import { type TestClient, type TestHost, testHost } from '../helpers/host.ts'
import { ask, outcome } from '../helpers/iq.ts'
import { around, NS_PUSH } from '../helpers/push.ts'

type Kind = 'call' | 'message'
const KINDS: readonly Kind[] = ['call', 'message']
const content = (kind: Kind, id: string): string =>
  kind === 'message'
    ? '<body>Hi</body>'
    : `<propose xmlns='urn:xmpp:jingle-message:0' id='${id}'><description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/></propose><store xmlns='urn:xmpp:hints'/>`

/** App servers at several domains: what each was told, and when it answers. */
class Apps {
  readonly told: { readonly to: string; readonly node: string; readonly at: number }[] = []
  /** Milliseconds until the answer, undefined: never; by address. */
  readonly delays = new Map<string, number>()
  readonly module = defineModule({
    name: 'app-servers',
    summary: 'app servers',
    specs: [],
    setup: (ctx) => {
      for (const domain of ['push.example.net', 'hole.example.net'])
        ctx.domains.take(domain, ({ stanza, to }) => {
          this.told.push({ to: to.toString(), node: nodeOf(stanza), at: ctx.now() })
          const delay = this.delays.get(to.toString())
          if (delay === 0) return ctx.domains.receive(reply(stanza))
          if (delay !== undefined) ctx.timers.after(delay, () => ctx.domains.receive(reply(stanza)))
          return undefined
        })
      // nobody can be reached there, which takes a while to find out
      ctx.domains.take('far.example.net', ({ stanza, to }) => {
        this.told.push({ to: to.toString(), node: nodeOf(stanza), at: ctx.now() })
        const { promise, reject } = Promise.withResolvers<void>()
        ctx.timers.after(10_000, () => reject(new StanzaError('remote-server-timeout')))
        return promise
      })
    },
  })
  /** Nodes of one address. */
  nodes(address: string): string[] {
    return this.told.filter(({ to }) => to === address).map(({ node }) => node)
  }
}
const nodeOf = (iq: Element): string => iq.firstElement()?.getChild('publish')?.attr('node') ?? ''

interface Town extends AsyncDisposable {
  readonly host: TestHost
  readonly apps: Apps
  readonly juliet: TestClient
  /** The phone of an account registers at an app server, and goes. */
  register(who: string, jid: string, node: string): Promise<void>
  send(kind: Kind, to: string): Promise<void>
  seconds(n: number): Promise<void>
}

async function town(accounts: readonly string[], config: object = {}): Promise<Town> {
  const apps = new Apps()
  apps.delays.set('push.example.net', 0)
  const host = await testHost({
    modules: [...Object.values(around), push, apps.module],
    accounts: ['juliet', ...accounts],
    config: { push: config },
    onLog: () => undefined,
  })
  const juliet = await host.client('juliet@example.org/balcony')
  let ids = 0
  return {
    host,
    apps,
    juliet,
    async register(who, jid, node) {
      const client = await host.client(`${who}@example.org/phone`)
      await client.send('<presence/>')
      const enable = `<enable xmlns='${NS_PUSH}' jid='${jid}' node='${node}'/>`
      expect(outcome(await ask(client, 'set', `${who}@example.org`, enable))).to.equal('result')
      await client.close()
    },
    async send(kind, to) {
      const id = `m${++ids}`
      await juliet.send(
        `<message to='${to}@example.org' type='chat' id='${id}'>${content(kind, id)}</message>`,
      )
    },
    async seconds(n) {
      for (let i = 0; i < n; i++) await host.clock.advance(1000)
    },
    [Symbol.asyncDispose]: () => host[Symbol.asyncDispose](),
  }
}

describe('push: shares (XEP-0357)', () => {
  for (const kind of KINDS) {
    it(`${kind}: an account with many registrations that never answer does not keep others waiting`, async () => {
      await using t = await town(['romeo', 'tybalt'])
      for (let i = 0; i < 20; i++) await t.register('tybalt', 'hole.example.net', `n${i}`)
      await t.register('romeo', 'push.example.net', 'phone')
      for (let i = 0; i < 10; i++) await t.send(kind, 'tybalt')
      const start = t.host.clock.now()
      await t.send(kind, 'romeo')
      await t.seconds(1)
      expect(t.apps.told.filter(({ node }) => node === 'phone').map(({ at }) => at - start)).to.eql([0])
    })

    it(`${kind}: the same with an app server of its own for each registration`, async () => {
      await using t = await town(['romeo', 'tybalt'])
      for (let i = 0; i < 20; i++) await t.register('tybalt', `hole.example.net/${i}`, 'n')
      await t.register('romeo', 'push.example.net', 'phone')
      for (let i = 0; i < 10; i++) await t.send(kind, 'tybalt')
      await t.send(kind, 'romeo')
      await t.seconds(1)
      expect(t.apps.nodes('push.example.net')).to.eql(['phone'])
      expect(t.apps.told).to.have.length(16 + 1) // a quarter of the default
    })

    it(`${kind}: the same with several such accounts, where the app server is known to answer`, async () => {
      const many = Array.from({ length: 8 }, (_, i) => `tybalt${i}`)
      await using t = await town(['romeo', ...many])
      await t.register('romeo', 'push.example.net', 'phone')
      await t.send(kind, 'romeo')
      await t.seconds(20)
      for (const who of many)
        for (let i = 0; i < 10; i++) await t.register(who, `hole.example.net/${who}${i}`, 'n')
      for (const who of many) await t.send(kind, who)
      await t.send(kind, 'romeo')
      await t.seconds(1)
      expect(t.apps.nodes('push.example.net')).to.eql(['phone', 'phone'])
      expect(t.apps.told).to.have.length(32 + 2) // half of the default
    })

    it(`${kind}: an app server that does not answer says nothing of another at the same domain`, async () => {
      await using t = await town(['romeo', 'tybalt'])
      t.apps.delays.set('push.example.net/b', 0)
      await t.register('tybalt', 'push.example.net/a', 'dead')
      await t.register('romeo', 'push.example.net/b', 'phone')
      await t.send(kind, 'tybalt')
      await t.seconds(31)
      await t.send(kind, 'romeo')
      await t.seconds(1)
      expect(t.apps.nodes('push.example.net/b')).to.eql(['phone'])
    })

    it(`${kind}: of more than its share each is told once, in order, when the app server answers late`, async () => {
      const many = Array.from({ length: 12 }, (_, i) => `mercutio${i}`)
      await using t = await town(many, { concurrency: 8 })
      t.apps.delays.set('push.example.net', 1000)
      for (const who of many) await t.register(who, 'push.example.net', who)
      for (const who of many) await t.send(kind, who)
      await t.seconds(1)
      expect(t.apps.told).to.have.length(4) // two under way, two answered
      await t.seconds(6)
      expect(t.apps.nodes('push.example.net')).to.eql(many)
      await t.seconds(600)
      expect(t.apps.told).to.have.length(12)
    })
  }

  it('one answer that does not come says nothing of an app server that answers others', async () => {
    await using t = await town(['romeo', 'tybalt'])
    t.apps.delays.delete('push.example.net')
    await t.register('tybalt', 'push.example.net', 'lost')
    await t.register('romeo', 'push.example.net', 'phone')
    await t.send('message', 'tybalt')
    await t.seconds(15)
    t.apps.delays.set('push.example.net', 0)
    await t.send('message', 'romeo')
    await t.seconds(16)
    await t.send('message', 'romeo')
    await t.seconds(1)
    expect(t.apps.nodes('push.example.net')).to.eql(['lost', 'phone', 'phone'])
  })

  it('a domain that cannot be reached, which takes long to find out, is left alone like one that gives no answer', async () => {
    await using t = await town(['romeo', 'tybalt'])
    for (const who of ['romeo', 'tybalt']) await t.register(who, 'far.example.net', who)
    await t.send('message', 'tybalt')
    await t.seconds(11)
    await t.send('message', 'romeo')
    await t.seconds(25)
    expect(t.apps.nodes('far.example.net')).to.eql(['tybalt'])
    // Who is tried next is left to chance, and each has twelve attempts.
    await t.seconds(3600)
    expect(t.apps.nodes('far.example.net')).to.include('romeo')
  })

  it('a call: a dead app server costs ten seconds, and each account one request at a time', async () => {
    await using t = await town(['romeo', 'tybalt'])
    await t.register('tybalt', 'hole.example.net', 'a')
    await t.register('romeo', 'hole.example.net', 'b')
    await t.send('call', 'tybalt')
    await t.seconds(10)
    const first = t.apps.told.length
    for (let i = 0; i < 5; i++) await t.send('call', 'tybalt')
    await t.send('call', 'romeo')
    await t.seconds(5)
    expect(t.apps.told.slice(first).map(({ node }) => node)).to.have.members(['a', 'b'])
    await t.seconds(120)
    // one each ten seconds, until nobody rings any more
    expect(t.apps.nodes('hole.example.net').filter((node) => node === 'a').length).to.be.within(3, 8)
    const over = t.apps.told.length
    await t.seconds(120)
    expect(t.apps.told).to.have.length(over)
  })

  it('a call is told as soon as the app server is there again', async () => {
    await using t = await town(['romeo'])
    t.apps.delays.delete('push.example.net')
    await t.register('romeo', 'push.example.net', 'phone')
    await t.send('message', 'romeo')
    await t.seconds(31)
    t.apps.delays.set('push.example.net', 0)
    await t.send('call', 'romeo')
    await t.seconds(1)
    expect(t.apps.told).to.have.length(2)
    // and so is what waited
    await t.seconds(60)
    expect(t.apps.told).to.have.length(3)
  })

  it('messages for an app server that does not answer: one tries for all', async () => {
    const many = Array.from({ length: 12 }, (_, i) => `mercutio${i}`)
    await using t = await town(many)
    for (const who of many) await t.register(who, 'hole.example.net', who)
    for (const who of many) await t.send('message', who)
    await t.seconds(60)
    expect(t.apps.told).to.have.length(12)
    await t.seconds(240)
    // each takes 30 s, and is followed by 30 s of peace
    expect(t.apps.told.length).to.be.within(14, 17)
    t.apps.delays.set('hole.example.net', 0)
    const before = t.apps.told.length
    await t.seconds(3600)
    expect(t.apps.told.slice(before).map(({ node }) => node)).to.have.members(many)
  }).timeout(60_000)

  describe('claims', () => {
    function claimed(total: number, maxWaiting = 10) {
      let now = 0
      const shares = new Shares(total, maxWaiting, () => now)
      const again: string[] = []
      const take = (id: string, account: string, service: string, until = Infinity) =>
        shares.take({ id, account, service, standing: 'answers', until, again: () => again.push(id) })
      return { shares, again, take, pass: (ms: number) => (now += ms) }
    }

    it('one that was told of room and did not need it keeps nobody waiting', () => {
      const { shares, again, take } = claimed(4)
      const room = take('first', 'a', 'x')
      for (const id of ['second', 'third']) expect(take(id, 'a', 'x')).to.equal(undefined)
      room?.[Symbol.dispose]()
      expect(again).to.eql(['second'])
      shares.sweep()
      expect(again).to.eql(['second', 'third'])
      expect([shares.waiting, shares.under('x')]).to.eql([0, 0])
    })

    it('are not put down twice, not told of when they are worth nothing any more, and not without bound', () => {
      const { shares, again, take, pass } = claimed(4, 2)
      const room = take('first', 'a', 'x')
      take('second', 'a', 'x', 1000)
      take('second', 'a', 'x', 1000)
      take('third', 'a', 'x')
      expect(shares.waiting).to.equal(2)
      expect(() => take('fourth', 'a', 'x')).to.throw('too many wait')
      pass(1001)
      room?.[Symbol.dispose]()
      expect(again).to.eql(['third'])
      expect(shares.waiting).to.equal(0)
    })
  })
})
