/** XEP-0191 through a real host: the commands, and what is stopped on each route. Presence, matching and reports: blocking-effects. */
import { expect } from 'chai'
import blocking from '../../modules/blocking/index.ts'
import presence from '../../modules/presence/index.ts'
import roster from '../../modules/roster/index.ts'
import { openMemory } from '../../server/storage/memory.ts'
import type { Store } from '../../server/storage/contract.ts'
import { type Element, el } from '../../server/xmpp/element.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { type TestClient, type TestHost, testHost } from '../helpers/host.ts'
import { condition, fromRemote, imAccounts, online, pushes } from '../helpers/im.ts'

function start(config: object = {}, store?: Store): Promise<TestHost> {
  return testHost({
    modules: [roster, presence, blocking],
    accounts: imAccounts,
    config: { blocking: config },
    ...(store === undefined ? {} : { store }),
  })
}

const command = (
  client: TestClient,
  name: 'block' | 'unblock',
  jids: readonly string[],
): Promise<Element[]> =>
  client.send(
    `<iq type='set' id='c'><${name} xmlns='${NS.BLOCKING}'>${jids.map((jid) => `<item jid='${jid}'/>`).join('')}</${name}></iq>`,
  )
const block = (client: TestClient, ...jids: string[]): Promise<Element[]> => command(client, 'block', jids)
const unblock = (client: TestClient, ...jids: string[]): Promise<Element[]> =>
  command(client, 'unblock', jids)
async function list(client: TestClient): Promise<(string | undefined)[]> {
  const received = await client.send(`<iq type='get' id='l'><blocklist xmlns='${NS.BLOCKING}'/></iq>`)
  const answer = received.find((e) => e.attr('id') === 'l')!.getChild('blocklist', NS.BLOCKING)!
  return answer.elements.map((item) => item.attr('jid'))
}
/** 'name jid jid …' of each push. */
const pushed = (received: readonly Element[]): string[] =>
  pushes(received).map((push) => {
    const payload = push.firstElement()!
    return [payload.name, ...payload.elements.map((item) => item.attr('jid'))].join(' ')
  })
const results = (received: readonly Element[]): Element[] =>
  received.filter((e) => e.attr('type') === 'result')

describe('blocking: commands', () => {
  it('XEP-0191 §3.1, XEP-0377 §3: the server announces both', async () => {
    await using host = await start()
    expect(host.host.disco.view(() => undefined).info('host').features).to.include.members([
      NS.BLOCKING,
      'urn:xmpp:reporting:1',
    ])
  })

  it('XEP-0191 §3.2: an empty list is an empty element', async () => {
    await using host = await start()
    const juliet = await host.client('juliet@example.org/a')
    const [answer] = await juliet.send(`<iq type='get' id='l'><blocklist xmlns='${NS.BLOCKING}'/></iq>`)
    expect(answer!.getChild('blocklist', NS.BLOCKING)!.children).to.have.length(0)
  })

  it('XEP-0191 §3.3, §3.4, §3.5: block, unblock, unblock all; kept over a restart', async () => {
    const store = await openMemory()
    {
      await using host = await start({}, store)
      const juliet = await host.client('juliet@example.org/a')
      for (const received of [
        await block(juliet, 'Romeo@Example.net', 'iago.example'),
        await block(juliet, 'x@example.net/y'),
        await block(juliet, 'romeo@example.net'),
      ])
        expect(results(received).map((e) => e.children.length)).to.deep.equal([0])
      expect(await list(juliet)).to.deep.equal(['romeo@example.net', 'iago.example', 'x@example.net/y'])
      await unblock(juliet, 'iago.example', 'never@example.net')
    }
    await using host = await start({}, store)
    const juliet = await host.client('juliet@example.org/a')
    expect(await list(juliet)).to.deep.equal(['romeo@example.net', 'x@example.net/y'])
    expect(results(await unblock(juliet))).to.have.length(1)
    expect(await list(juliet)).to.deep.equal([])
    expect(await host.store.purgeOwner('example.org', 'juliet')).to.equal(0)
  })

  it('XEP-0191 §3.3, §3.4, §3.5: pushes go to the resources that have asked for the list, and to no others', async () => {
    await using host = await start()
    const a = await host.client('juliet@example.org/a')
    const b = await host.client('juliet@example.org/b')
    const c = await host.client('juliet@example.org/c')
    await list(a)
    await list(b)
    expect(pushed(await block(a, 'x@example.net', 'y@example.net'))).to.deep.equal([
      'block x@example.net y@example.net',
    ])
    expect(pushed(await block(c, 'z@example.net'))).to.deep.equal([])
    await unblock(c, 'x@example.net')
    await unblock(c)
    expect(pushed(b.take())).to.deep.equal([
      'block x@example.net y@example.net',
      'block z@example.net',
      'unblock x@example.net',
      'unblock',
    ])
    expect(c.take()).to.have.length(0)
  })

  const wrong: readonly (readonly [rule: string, payload: string, condition: string])[] = [
    ['§3.3: block without an item', `<block xmlns='${NS.BLOCKING}'/>`, 'bad-request'],
    ['§10.1: an item without a jid', `<block xmlns='${NS.BLOCKING}'><item/></block>`, 'bad-request'],
    [
      '§10.1: unblock of an item without a jid',
      `<unblock xmlns='${NS.BLOCKING}'><item/></unblock>`,
      'bad-request',
    ],
    [
      'RFC 6120 §8.3.3.8: no address',
      `<block xmlns='${NS.BLOCKING}'><item jid='a@@b'/></block>`,
      'jid-malformed',
    ],
    [
      'more than the limit',
      `<block xmlns='${NS.BLOCKING}'><item jid='1.example'/><item jid='2.example'/><item jid='3.example'/></block>`,
      'resource-constraint',
    ],
  ]
  for (const [rule, payload, expected] of wrong) {
    it(`XEP-0191 ${rule}: ${expected}, and nobody is blocked`, async () => {
      await using host = await start({ maxItems: 2 })
      const juliet = await host.client('juliet@example.org/a')
      const received = await juliet.send(`<iq type='set' id='c'>${payload}</iq>`)
      expect(received.map(condition)).to.deep.equal([expected])
      expect(await list(juliet)).to.deep.equal([])
    })
  }

  it("the list is nobody else's business", async () => {
    await using host = await start()
    const romeo = await host.client('romeo@example.org/a')
    const [error] = await romeo.send(
      `<iq type='get' id='l' to='juliet@example.org'><blocklist xmlns='${NS.BLOCKING}'/></iq>`,
    )
    expect(condition(error)).to.equal('forbidden')
  })

  it('commands of two devices at the same time are all obeyed', async () => {
    await using host = await start()
    const a = await host.client('juliet@example.org/a')
    const b = await host.client('juliet@example.org/b')
    await Promise.all(
      Array.from({ length: 10 }, (_, i) => [block(a, `a${i}.example`), block(b, `b${i}.example`)]).flat(),
    )
    expect(await list(a)).to.have.length(20)
  })

  it('unloaded, nobody is blocked and the namespace is not served', async () => {
    await using host = await start()
    const juliet = await online(host, 'juliet@example.org/a')
    await block(juliet, 'romeo@example.net')
    await host.unload('blocking')
    await fromRemote(
      host,
      `<message from='romeo@example.net' to='juliet@example.org/a'><body>x</body></message>`,
    )
    expect(juliet.take()).to.have.length(1)
    expect((await block(juliet, 'x.example')).map(condition)).to.deep.equal(['service-unavailable'])
  })
})

describe('blocking: stanzas', () => {
  const ERROR = `<error type='cancel'><gone xmlns='${NS.STANZAS}'/></error>`

  /** What juliet gets, and what the sender (another local account) is told. */
  async function receive(xml: (to: string) => string): Promise<readonly [Element[], Element[]]> {
    await using host = await start()
    const juliet = await online(host, 'juliet@example.org/a')
    const romeo = await online(host, 'romeo@example.org/orchard')
    await juliet.send(`<presence to='romeo@example.org'/>`) // so that requests would be let through
    await block(juliet, 'romeo@example.org')
    romeo.take()
    const told = await romeo.send(xml('juliet@example.org') + xml('juliet@example.org/a'))
    return [juliet.take(), told]
  }

  it('XEP-0191 §3.3: messages are refused as if nobody were there', async () => {
    for (const type of ['chat', 'normal', '']) {
      const attr = type === '' ? '' : ` type='${type}'`
      const [got, told] = await receive((to) => `<message to='${to}'${attr}><body>x</body></message>`)
      expect(got).to.have.length(0)
      expect(told.map(condition)).to.deep.equal(['service-unavailable', 'service-unavailable'])
    }
  })

  it('messages that must not be answered with an error, and such an answer would hurt, are dropped', async () => {
    for (const type of ['groupchat', 'headline', 'error']) {
      const [got, told] = await receive(
        (to) => `<message to='${to}' type='${type}'>${type === 'error' ? ERROR : ''}</message>`,
      )
      expect([got, told]).to.deep.equal([[], []])
    }
  })

  it('XEP-0191 §3.3: requests are refused, to the account and to a resource; answers are dropped', async () => {
    for (const type of ['get', 'set']) {
      const [got, told] = await receive(
        (to) => `<iq to='${to}' type='${type}' id='q'><ping xmlns='urn:xmpp:ping'/></iq>`,
      )
      expect(got).to.have.length(0)
      expect(told.map(condition)).to.deep.equal(['service-unavailable', 'service-unavailable'])
    }
    for (const type of ['result', 'error']) {
      const [got, told] = await receive(
        (to) => `<iq to='${to}' type='${type}' id='q'>${type === 'error' ? ERROR : ''}</iq>`,
      )
      expect([got, told]).to.deep.equal([[], []])
    }
  })

  it('XEP-0191 §3.3: presence of every type is dropped without an answer', async () => {
    for (const type of [
      '',
      'unavailable',
      'subscribe',
      'subscribed',
      'unsubscribe',
      'unsubscribed',
      'probe',
      'error',
    ]) {
      const attr = type === '' ? '' : ` type='${type}'`
      const [got, told] = await receive(
        (to) => `<presence to='${to}'${attr}>${type === 'error' ? ERROR : ''}</presence>`,
      )
      expect(got).to.have.length(0)
      // the push of his own roster is all that he sees
      expect(told.filter((e) => e.name !== 'iq')).to.have.length(0)
    }
  })

  it('XEP-0191 §3.3: a request for subscription by a blocked JID leaves no trace', async () => {
    await using host = await start()
    const juliet = await online(host, 'juliet@example.org/a')
    await block(juliet, 'romeo@example.net')
    await fromRemote(host, `<presence from='romeo@example.net' to='juliet@example.org' type='subscribe'/>`)
    await unblock(juliet, 'romeo@example.net')
    const other = await host.client('juliet@example.org/b')
    expect((await other.send('<presence/>')).map((e) => e.attr('type'))).to.not.include('subscribe')
  })

  it('XEP-0191 §3.3: nothing is sent to a blocked JID; the client is told why', async () => {
    await using host = await start()
    const juliet = await online(host, 'juliet@example.org/a')
    const romeo = await online(host, 'romeo@example.org/orchard')
    await block(juliet, 'romeo@example.org')
    for (const xml of [
      `<message to='romeo@example.org/orchard' type='chat' id='1'><body>x</body></message>`,
      `<message to='romeo@example.org' id='1'/>`,
      `<iq to='romeo@example.org' type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>`,
      `<presence to='romeo@example.org' id='1'/>`,
      `<presence to='romeo@example.org' type='subscribe' id='1'/>`,
    ]) {
      const [error, ...more] = await juliet.send(xml)
      expect([condition(error), error!.attr('id'), more.length]).to.deep.equal(['not-acceptable', '1', 0])
      const e = error!.getChild('error')!
      expect(e.attr('type')).to.equal('cancel')
      expect(e.getChild('blocked', 'urn:xmpp:blocking:errors')).to.not.equal(undefined)
    }
    for (const xml of [
      `<message to='romeo@example.org/orchard' type='error'>${ERROR}</message>`,
      `<iq to='romeo@example.org/orchard' type='result' id='1'/>`,
    ])
      expect(await juliet.send(xml)).to.have.length(0)
    expect(romeo.take()).to.have.length(0)
  })

  it('XEP-0191 §3.4: after unblocking stanzas pass again, both ways', async () => {
    await using host = await start()
    const juliet = await online(host, 'juliet@example.org/a')
    const romeo = await online(host, 'romeo@example.org/orchard')
    await block(juliet, 'romeo@example.org')
    await unblock(juliet, 'romeo@example.org')
    romeo.take()
    await romeo.send(`<message to='juliet@example.org'><body>x</body></message>`)
    expect(juliet.take().map((e) => e.name)).to.include('message')
    await juliet.send(`<message to='romeo@example.org'><body>x</body></message>`)
    expect(romeo.take().map((e) => e.name)).to.deep.equal(['message'])
  })

  it('XEP-0191 §3.3: the block is in force while the account is offline, and after a restart', async () => {
    const store = await openMemory()
    {
      await using host = await start({}, store)
      await block(await host.client('juliet@example.org/a'), 'romeo@example.org')
    }
    await using host = await start({}, store)
    const romeo = await host.client('romeo@example.org/orchard')
    host.host.hooks.chain('account:offline').add({
      module: 'test',
      place: { phase: 'store' },
      handle: () => ({ stop: 'stored' }),
    })
    const told = await romeo.send(`<message to='juliet@example.org' type='chat'><body>x</body></message>`)
    expect(told.map(condition)).to.deep.equal(['service-unavailable'])
    expect(
      await romeo.send(`<message to='nurse@example.org' type='chat'><body>x</body></message>`),
    ).to.have.length(0)
  })

  it('XEP-0191 §5, note 1: own resources and the own server are never blocked', async () => {
    await using host = await start()
    const a = await online(host, 'juliet@example.org/a')
    const b = await online(host, 'juliet@example.org/b')
    a.take()
    await block(a, 'juliet@example.org', 'juliet@example.org/b', 'example.org')
    await b.send(`<message to='juliet@example.org/a'><body>x</body></message>`)
    expect(a.take().map((e) => e.name)).to.deep.equal(['message'])
    await host.router.route(el('message', NS.CLIENT, { from: 'example.org', to: 'juliet@example.org/a' }))
    await host.settle()
    expect(a.take()).to.have.length(1)
    expect(results(await unblock(a))).to.have.length(1)
  })

  it('a failing store blocks nobody by half: internal-server-error, and the list is as before', async () => {
    const store = await openMemory()
    let broken = false
    const failing: Store = {
      ...pick(store),
      open: (host, module) => {
        const storage = store.open(host, module)
        return {
          archive: storage.archive.bind(storage),
          counter: storage.counter.bind(storage),
          lease: storage.lease.bind(storage),
          docs: (name, opts) => {
            const docs = storage.docs(name, opts)
            return new Proxy(docs, {
              get(target, key) {
                if (broken && key === 'update') return () => Promise.reject(new Error('disk full'))
                const value: unknown = Reflect.get(target, key)
                return typeof value === 'function' ? value.bind(target) : value
              },
            })
          },
        }
      },
    }
    await using host = await testHost({
      modules: [roster, presence, blocking],
      accounts: imAccounts,
      store: failing,
      onLog: () => undefined,
    })
    const juliet = await host.client('juliet@example.org/a')
    await block(juliet, 'x.example')
    broken = true
    expect((await block(juliet, 'y.example')).map(condition)).to.deep.equal(['internal-server-error'])
    expect((await unblock(juliet)).map(condition)).to.deep.equal(['internal-server-error'])
    broken = false
    expect(await list(juliet)).to.deep.equal(['x.example'])
    expect(results(await block(juliet, 'z.example'))).to.have.length(1)
  })
})

/** The store's methods but `open`. */
const pick = (store: Store): Omit<Store, 'open'> => ({
  driver: store.driver,
  purgeOwner: (host, owner) => store.purgeOwner(host, owner),
  healthy: () => store.healthy(),
  close: () => store.close(),
})
