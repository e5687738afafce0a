/** Rosters through a real host: RFC 6121 §2.1 to §2.5. Versions, subscriptions and load have files of their own. */
import { expect } from 'chai'
import presence from '../../modules/presence/index.ts'
import roster from '../../modules/roster/index.ts'
import type { Store } from '../../server/storage/contract.ts'
import { openMemory } from '../../server/storage/memory.ts'
import type { Element } from '../../server/xmpp/element.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { type TestClient, testHost } from '../helpers/host.ts'
import {
  befriend,
  imAccounts,
  condition,
  fromRemote,
  getRoster,
  items,
  online,
  presences,
  pushes,
  seen,
  setItem,
  startIm,
  vers,
  wholeRoster,
} from '../helpers/im.ts'

describe('roster: get', () => {
  it('XEP-0030: the server announces the namespace', async () => {
    await using host = await startIm()
    const { features } = host.host.disco.view(() => undefined).info('host')
    expect(features).to.include(NS.ROSTER)
  })

  it('RFC 6121 §2.1.4: a roster without contacts is an empty query with a version', async () => {
    await using host = await startIm()
    const [result] = await getRoster(await host.client('juliet@example.org/a'))
    expect(result!.attr('type')).to.equal('result')
    const q = result!.getChild('query', NS.ROSTER)!
    expect(q.children).to.have.length(0)
    expect(q.attr('ver')).to.match(/./)
  })

  it('RFC 6121 §2.1.3: a get with an item is a bad request', async () => {
    await using host = await startIm()
    const juliet = await host.client('juliet@example.org/a')
    const [error] = await juliet.send(
      `<iq type='get' id='1'><query xmlns='${NS.ROSTER}'><item jid='a@b'/></query></iq>`,
    )
    expect(condition(error)).to.equal('bad-request')
  })

  it('RFC 6121 §2: nobody else may read or change a roster', async () => {
    await using host = await startIm()
    const romeo = await host.client('romeo@example.org/a')
    for (const type of ['get', 'set']) {
      const [error] = await romeo.send(
        `<iq type='${type}' id='1' to='juliet@example.org'><query xmlns='${NS.ROSTER}'/></iq>`,
      )
      expect(condition(error)).to.equal('forbidden')
    }
  })

  it('RFC 6121 §2: the roster survives a restart of the server', async () => {
    const store = await openMemory()
    {
      await using host = await startIm({}, store)
      await setItem(
        await host.client('juliet@example.org/a'),
        `<item jid='nurse@example.org' name='N'><group>S</group></item>`,
      )
    }
    await using host = await startIm({}, store)
    const q = await wholeRoster(await host.client('juliet@example.org/a'))
    expect(q.elements.map((e) => e.toString(NS.ROSTER))).to.deep.equal([
      `<item jid='nurse@example.org' name='N' subscription='none'><group>S</group></item>`,
    ])
  })
})

describe('roster: set', () => {
  it('RFC 6121 §2.3.2: stores the item, answers, pushes to all interested resources and to no other', async () => {
    await using host = await startIm()
    const a = await host.client('juliet@example.org/a')
    const b = await host.client('juliet@example.org/b')
    const c = await host.client('juliet@example.org/c')
    await getRoster(a)
    await getRoster(b)
    const received = await setItem(
      a,
      `<item jid='Nurse@Example.org' name='Nurse'><group>Servants</group></item>`,
    )
    const item = `<item jid='nurse@example.org' name='Nurse' subscription='none'><group>Servants</group></item>`
    expect(received.filter((e) => e.attr('type') === 'result' && e.attr('id') === 'set')).to.have.length(1)
    expect(items(received)).to.deep.equal([item])
    const others = b.take()
    expect(items(others)).to.deep.equal([item])
    // §2.1.6: from the account itself, that is without from
    expect(pushes(others)[0]!.attr('from')).to.equal(undefined)
    expect(pushes(others)[0]!.attr('to')).to.equal('juliet@example.org/b')
    expect(pushes(others)[0]!.attr('id')).to.not.equal(pushes(received)[0]!.attr('id'))
    expect(c.take()).to.have.length(0)
  })

  it('RFC 6121 §2.4.1: an item becomes exactly what was set; an empty name is none', async () => {
    await using host = await startIm()
    const juliet = await host.client('juliet@example.org/a')
    await setItem(
      juliet,
      `<item jid='romeo@example.net' name='Romeo'><group>Friends</group><group>Lovers</group></item>`,
    )
    await setItem(juliet, `<item jid='romeo@example.net' name=''><group>Lovers</group></item>`)
    const q = await wholeRoster(juliet)
    expect(q.elements.map((e) => e.toString(NS.ROSTER))).to.deep.equal([
      `<item jid='romeo@example.net' subscription='none'><group>Lovers</group></item>`,
    ])
  })

  it('RFC 6121 §2.4.2: a set that changes nothing is pushed as well, with a version of its own', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/a')
    const first = vers(await setItem(juliet, `<item jid='nurse@example.org'/>`))
    const second = vers(await setItem(juliet, `<item jid='nurse@example.org'/>`))
    expect(second).to.have.length(1)
    expect(second).to.not.deep.equal(first)
  })

  it('RFC 6121 §2.1.2, §2.1.5 rule 2: ask, approved and other values of subscription are ignored', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/a')
    const received = await setItem(
      juliet,
      `<item jid='nurse@example.org' subscription='both' ask='subscribe' approved='true'/>`,
    )
    expect(items(received)).to.deep.equal([`<item jid='nurse@example.org' subscription='none'/>`])
  })

  const wrong: readonly (readonly [rule: string, item: string, condition: string])[] = [
    ['§2.1.5 rule 1: no item', '', 'bad-request'],
    ['§2.3.3: two items', `<item jid='a@example.net'/><item jid='b@example.net'/>`, 'bad-request'],
    ['§2.1.2.3: no jid', `<item name='x'/>`, 'bad-request'],
    ['RFC 6120 §8.3.3.8: a jid that is no address', `<item jid='a@b@c'/>`, 'jid-malformed'],
    ['§3.1.1: a jid with a resource', `<item jid='a@example.net/x'/>`, 'bad-request'],
    ['§2.3.3: the account itself', `<item jid='juliet@example.org'/>`, 'not-allowed'],
    [
      '§2.3.3: a name that is too long',
      `<item jid='a@example.net' name='${'n'.repeat(11)}'/>`,
      'not-acceptable',
    ],
    [
      '§2.3.3: a group twice',
      `<item jid='a@example.net'><group>x</group><group>y</group><group>x</group></item>`,
      'bad-request',
    ],
    [
      '§2.3.3: a group twice, compared as resourceparts are',
      `<item jid='a@example.net'><group>\u00e9</group><group>e\u0301</group></item>`,
      'bad-request',
    ],
    ['§2.3.3: a group without a name', `<item jid='a@example.net'><group/></item>`, 'not-acceptable'],
    [
      '§2.3.3: the name of a group too long',
      `<item jid='a@example.net'><group>${'g'.repeat(11)}</group></item>`,
      'not-acceptable',
    ],
    [
      'too many groups',
      `<item jid='a@example.net'><group>1</group><group>2</group><group>3</group><group>4</group></item>`,
      'not-acceptable',
    ],
    [
      '§2.5.3: removal of what is not there',
      `<item jid='a@example.net' subscription='remove'/>`,
      'item-not-found',
    ],
  ]
  for (const [rule, item, expected] of wrong) {
    it(`RFC 6121 ${rule}: ${expected}, and nothing changes`, async () => {
      await using host = await startIm({ maxName: 10, maxGroup: 10, maxGroups: 3 })
      const juliet = await online(host, 'juliet@example.org/a')
      const received = await setItem(juliet, item)
      expect(received.map(condition)).to.deep.equal([expected])
      expect((await wholeRoster(juliet)).elements).to.have.length(0)
    })
  }

  it('a full roster takes no more items, by number and by size; changes and removals go on', async () => {
    await using host = await startIm({ maxContacts: 2, maxSize: '1 KiB' })
    const juliet = await online(host, 'juliet@example.org/a')
    await setItem(juliet, `<item jid='a@example.net'/>`)
    await setItem(juliet, `<item jid='b@example.net'/>`)
    expect(condition((await setItem(juliet, `<item jid='c@example.net'/>`))[0])).to.equal(
      'resource-constraint',
    )
    const subscribe = await juliet.send(`<presence to='c@example.net' type='subscribe'/>`)
    expect(subscribe.map(condition)).to.deep.equal(['resource-constraint'])
    expect(items(await setItem(juliet, `<item jid='b@example.net' name='B'/>`))).to.have.length(1)
    const groups = Array.from({ length: 3 }, (_, i) => `<group>${'g'.repeat(400)}${i}</group>`).join('')
    expect(condition((await setItem(juliet, `<item jid='a@example.net'>${groups}</item>`))[0])).to.equal(
      'resource-constraint',
    )
    await setItem(juliet, `<item jid='a@example.net' subscription='remove'/>`)
    expect(items(await setItem(juliet, `<item jid='c@example.net'/>`))).to.have.length(1)
  })

  it('sets of two devices at the same time both survive, and both devices end with the same roster', async () => {
    await using host = await startIm()
    const a = await online(host, 'juliet@example.org/a')
    const b = await online(host, 'juliet@example.org/b')
    const both = Array.from({ length: 20 }, (_, i) => [
      setItem(a, `<item jid='x${i}@example.net' name='a'/>`, `a${i}`),
      setItem(b, `<item jid='x${i}@example.net' name='b'/><!---->`.replace('<!---->', ''), `b${i}`),
    ]).flat()
    const received = (await Promise.all(both)).flat()
    expect(received.filter((e) => e.attr('type') === 'result')).to.have.length(40)
    const last = (client: TestClient, got: Element[]): Map<string, string> =>
      new Map(
        pushes(got)
          .filter((push) => push.attr('to') === client.jid.toString())
          .map((push) => push.getChild('query', NS.ROSTER)!.getChild('item')!)
          .map((item) => [item.attr('jid')!, item.toString()]),
      )
    const all = [...received, ...a.take(), ...b.take()]
    expect(last(a, all)).to.deep.equal(last(b, all))
    const stored = (await wholeRoster(a)).elements.map(
      (item) => [item.attr('jid')!, item.toString()] as const,
    )
    expect(new Map(stored)).to.deep.equal(last(a, all))
  })

  it('a failing store is an internal-server-error; nothing is pushed and memory is as before', async () => {
    const store = faulty(await openMemory())
    await using host = await testHost({
      modules: [roster, presence],
      accounts: imAccounts,
      store,
      onLog: () => undefined,
    })
    const juliet = await online(host, 'juliet@example.org/a')
    await setItem(juliet, `<item jid='nurse@example.org' name='old'/>`)
    store.broken = true
    expect(
      (await setItem(juliet, `<item jid='nurse@example.org' name='new'/>`)).map(condition),
    ).to.deep.equal(['internal-server-error'])
    const subscribed = await juliet.send(`<presence to='romeo@example.org' type='subscribe'/>`)
    expect(subscribed.map(condition)).to.deep.equal(['internal-server-error'])
    store.broken = false
    const q = await wholeRoster(juliet)
    expect(q.elements.map((e) => [e.attr('jid'), e.attr('name')])).to.deep.equal([
      ['nurse@example.org', 'old'],
    ])
    expect(items(await setItem(juliet, `<item jid='nurse@example.org' name='new'/>`))).to.have.length(1)
  })
})

describe('roster: removal', () => {
  it('RFC 6121 §2.5.2, §3.2.2: both subscriptions end, in order, and the other side hears of each', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/a')
    const romeo = await online(host, 'romeo@example.org/b')
    await befriend(juliet, romeo)
    const received = await setItem(juliet, `<item jid='romeo@example.org' subscription='remove'/>`)
    expect(items(received)).to.deep.equal([`<item jid='romeo@example.org' subscription='remove'/>`])
    expect(seen(romeo.take())).to.deep.equal([
      'unavailable juliet@example.org/a',
      'unsubscribe juliet@example.org',
      `push <item jid='juliet@example.org' subscription='to'/>`,
      'unsubscribed juliet@example.org',
      `push <item jid='juliet@example.org' subscription='none'/>`,
    ])
    expect((await wholeRoster(juliet)).elements).to.have.length(0)
    expect((await wholeRoster(romeo)).elements.map((e) => e.attr('subscription'))).to.deep.equal(['none'])
  })

  it('RFC 6121 §2.5.2 rule 1: an unanswered request is taken back too', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/a')
    const romeo = await online(host, 'romeo@example.org/b')
    await juliet.send(`<presence to='romeo@example.org' type='subscribe'/>`)
    romeo.take()
    await setItem(juliet, `<item jid='romeo@example.org' subscription='remove'/>`)
    expect(seen(romeo.take())).to.deep.equal(['unsubscribe juliet@example.org'])
    const again = await host.client('romeo@example.org/c')
    expect(presences(await again.send('<presence/>')).map((e) => e.attr('type'))).to.not.include('subscribe')
  })

  it('RFC 6121 §3.1.3: a request of somebody who is removed stays until it is answered', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/a')
    await setItem(juliet, `<item jid='romeo@example.net'/>`)
    await fromRemote(host, `<presence from='romeo@example.net' to='juliet@example.org' type='subscribe'/>`)
    await setItem(juliet, `<item jid='romeo@example.net' subscription='remove'/>`)
    const other = await host.client('juliet@example.org/b')
    const received = await other.send('<presence/>')
    expect(received.filter((e) => e.attr('type') === 'subscribe')).to.have.length(1)
    expect((await wholeRoster(other)).elements).to.have.length(0)
  })
})

/** A store whose writes fail while `broken`. */
function faulty(store: Store): Store & { broken: boolean } {
  const fail = async (): Promise<never> => {
    throw new Error('disk full')
  }
  const wrapped = Object.assign(
    intercept(store, (open) => ({
      ...open,
      open: (host: string, module: string) =>
        intercept(store.open(host, module), (storage) => ({
          ...storage,
          docs: (name: string) =>
            intercept(store.open(host, module).docs(name), (docs) =>
              wrapped.broken ? { ...docs, put: fail, update: fail } : docs,
            ),
        })),
    })),
    { broken: false },
  )
  return wrapped
}

type Methods = Record<string, (...args: never[]) => unknown>
/** The object with some methods replaced; `replace` is asked at each call. */
function intercept<T extends object>(object: T, replace: (own: Methods) => Methods): T {
  return new Proxy(object, {
    get(target, key) {
      const value: unknown = Reflect.get(target, key)
      if (typeof value !== 'function' || typeof key !== 'string') return value
      return (...args: never[]) => (replace({})[key] ?? value.bind(target))(...args)
    },
  })
}
