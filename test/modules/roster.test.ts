/** Rosters and subscriptions through a real host: RFC 6121 §2 and §3. The tables of Appendix A: roster-states. */
import { expect } from 'chai'
import presence from '../../modules/presence/index.ts'
import roster from '../../modules/roster/index.ts'
import type { Doc, Docs } from '../../server/storage/contract.ts'
import { openMemory } from '../../server/storage/memory.ts'
import type { Store } from '../../server/storage/contract.ts'
import type { Element } from '../../server/xmpp/element.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { type TestClient, type TestHost, testHost } from '../helpers/host.ts'

const accounts = ['juliet', 'romeo', 'nurse']

function start(config: object = {}, store?: Store): Promise<TestHost> {
  return testHost({
    modules: [roster, presence],
    accounts,
    config: { roster: config },
    ...(store === undefined ? {} : { store }),
  })
}

/** The roster as the client gets it now; also makes the client interested. */
async function get(client: TestClient, ver?: string): Promise<Element[]> {
  const attr = ver === undefined ? '' : ` ver='${ver}'`
  return client.send(`<iq type='get' id='get'><query xmlns='${NS.ROSTER}'${attr}/></iq>`)
}
async function query(client: TestClient): Promise<Element> {
  const received = await get(client)
  return received.find((e) => e.attr('id') === 'get')!.getChild('query', NS.ROSTER)!
}
/** Interested and available, nothing unread. */
async function online(host: TestHost, jid: string): Promise<TestClient> {
  const client = await host.client(jid)
  await get(client)
  await client.send('<presence/>')
  return client
}
function set(client: TestClient, item: string, id = 'set'): Promise<Element[]> {
  return client.send(`<iq type='set' id='${id}'><query xmlns='${NS.ROSTER}'>${item}</query></iq>`)
}
const pushes = (received: readonly Element[]): Element[] =>
  received.filter((e) => e.name === 'iq' && e.attr('type') === 'set')
/** The item of each push, without the namespace. */
const items = (received: readonly Element[]): string[] =>
  pushes(received).map((push) => push.getChild('query', NS.ROSTER)!.getChild('item')!.toString(NS.ROSTER))
const vers = (received: readonly Element[]): string[] =>
  pushes(received).map((push) => push.getChild('query', NS.ROSTER)!.attr('ver') ?? '')
const condition = (e: Element | undefined): string | undefined =>
  e?.getChild('error')?.elements.find((child) => child.ns === NS.STANZAS)?.name
const presences = (received: readonly Element[]): Element[] => received.filter((e) => e.name === 'presence')
/** 'type from', in the order received. */
const seen = (received: readonly Element[]): string[] =>
  received.map((e) =>
    e.name === 'presence' ? `${e.attr('type') ?? 'available'} ${e.attr('from')}` : `push ${items([e])[0]}`,
  )
/** A stanza from another domain. */
async function remote(host: TestHost, xml: string): Promise<void> {
  await host.router.route(parseXml(xml.replace('<presence', `<presence xmlns='jabber:client'`)))
  await host.settle()
}
async function befriend(a: TestClient, b: TestClient): Promise<void> {
  await a.send(`<presence to='${b.jid.bare}' type='subscribe'/>`)
  await b.send(`<presence to='${a.jid.bare}' type='subscribed'/>`)
  await b.send(`<presence to='${a.jid.bare}' type='subscribe'/>`)
  await a.send(`<presence to='${b.jid.bare}' type='subscribed'/>`)
  a.take()
  b.take()
}

describe('roster: get', () => {
  it('RFC 6121 §2.1.4: a roster without contacts is an empty query with a version', async () => {
    await using host = await start()
    const [result] = await get(await host.client('juliet@example.org/a'))
    expect(result!.attr('type')).to.equal('result')
    const q = result!.getChild('query', NS.ROSTER)!
    expect(q.children).to.have.length(0)
    expect(q.attr('ver')).to.match(/./)
  })

  it('RFC 6121 §2.1.3: a get with an item is a bad request', async () => {
    await using host = await start()
    const juliet = await host.client('juliet@example.org/a')
    const [error] = await juliet.send(
      `<iq type='get' id='1'><query xmlns='${NS.ROSTER}'><item jid='a@b'/></query></iq>`,
    )
    expect(condition(error)).to.equal('bad-request')
  })

  it('RFC 6121 §2: nobody else may read or change a roster', async () => {
    await using host = await start()
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
      await using host = await start({}, store)
      await set(
        await host.client('juliet@example.org/a'),
        `<item jid='nurse@example.org' name='N'><group>S</group></item>`,
      )
    }
    await using host = await start({}, store)
    const q = await query(await host.client('juliet@example.org/a'))
    expect(q.elements.map((e) => e.toString(NS.ROSTER))).to.deep.equal([
      `<item jid='nurse@example.org' name='N' subscription='none'><group>S</group></item>`,
    ])
  })
})

describe('roster: set', () => {
  it('RFC 6121 §2.3.2: stores the item, answers, pushes to all interested resources and to no other', async () => {
    await using host = await start()
    const a = await host.client('juliet@example.org/a')
    const b = await host.client('juliet@example.org/b')
    const c = await host.client('juliet@example.org/c')
    await get(a)
    await get(b)
    const received = await set(a, `<item jid='Nurse@Example.org' name='Nurse'><group>Servants</group></item>`)
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
    await using host = await start()
    const juliet = await host.client('juliet@example.org/a')
    await set(
      juliet,
      `<item jid='romeo@example.net' name='Romeo'><group>Friends</group><group>Lovers</group></item>`,
    )
    await set(juliet, `<item jid='romeo@example.net' name=''><group>Lovers</group></item>`)
    const q = await query(juliet)
    expect(q.elements.map((e) => e.toString(NS.ROSTER))).to.deep.equal([
      `<item jid='romeo@example.net' subscription='none'><group>Lovers</group></item>`,
    ])
  })

  it('RFC 6121 §2.4.2: a set that changes nothing is pushed as well, with a version of its own', async () => {
    await using host = await start()
    const juliet = await online(host, 'juliet@example.org/a')
    const first = vers(await set(juliet, `<item jid='nurse@example.org'/>`))
    const second = vers(await set(juliet, `<item jid='nurse@example.org'/>`))
    expect(second).to.have.length(1)
    expect(second).to.not.deep.equal(first)
  })

  it('RFC 6121 §2.1.2, §2.1.5 rule 2: ask, approved and other values of subscription are ignored', async () => {
    await using host = await start()
    const juliet = await online(host, 'juliet@example.org/a')
    const received = await set(
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
      await using host = await start({ maxName: 10, maxGroup: 10, maxGroups: 3 })
      const juliet = await online(host, 'juliet@example.org/a')
      const received = await set(juliet, item)
      expect(received.map(condition)).to.deep.equal([expected])
      expect((await query(juliet)).elements).to.have.length(0)
    })
  }

  it('a full roster takes no more items, by number and by size; changes and removals go on', async () => {
    await using host = await start({ maxContacts: 2, maxSize: '1 KiB' })
    const juliet = await online(host, 'juliet@example.org/a')
    await set(juliet, `<item jid='a@example.net'/>`)
    await set(juliet, `<item jid='b@example.net'/>`)
    expect(condition((await set(juliet, `<item jid='c@example.net'/>`))[0])).to.equal('resource-constraint')
    const subscribe = await juliet.send(`<presence to='c@example.net' type='subscribe'/>`)
    expect(subscribe.map(condition)).to.deep.equal(['resource-constraint'])
    expect(items(await set(juliet, `<item jid='b@example.net' name='B'/>`))).to.have.length(1)
    const groups = Array.from({ length: 3 }, (_, i) => `<group>${'g'.repeat(400)}${i}</group>`).join('')
    expect(condition((await set(juliet, `<item jid='a@example.net'>${groups}</item>`))[0])).to.equal(
      'resource-constraint',
    )
    await set(juliet, `<item jid='a@example.net' subscription='remove'/>`)
    expect(items(await set(juliet, `<item jid='c@example.net'/>`))).to.have.length(1)
  })

  it('sets of two devices at the same time both survive, and both devices end with the same roster', async () => {
    await using host = await start()
    const a = await online(host, 'juliet@example.org/a')
    const b = await online(host, 'juliet@example.org/b')
    const both = Array.from({ length: 20 }, (_, i) => [
      set(a, `<item jid='x${i}@example.net' name='a'/>`, `a${i}`),
      set(b, `<item jid='x${i}@example.net' name='b'/><!---->`.replace('<!---->', ''), `b${i}`),
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
    const stored = (await query(a)).elements.map((item) => [item.attr('jid')!, item.toString()] as const)
    expect(new Map(stored)).to.deep.equal(last(a, all))
  })

  it('a failing store is an internal-server-error; nothing is pushed and memory is as before', async () => {
    const store = faulty(await openMemory())
    await using host = await testHost({
      modules: [roster, presence],
      accounts,
      store,
      onLog: () => undefined,
    })
    const juliet = await online(host, 'juliet@example.org/a')
    await set(juliet, `<item jid='nurse@example.org' name='old'/>`)
    store.broken = true
    expect((await set(juliet, `<item jid='nurse@example.org' name='new'/>`)).map(condition)).to.deep.equal([
      'internal-server-error',
    ])
    const subscribed = await juliet.send(`<presence to='romeo@example.org' type='subscribe'/>`)
    expect(subscribed.map(condition)).to.deep.equal(['internal-server-error'])
    store.broken = false
    const q = await query(juliet)
    expect(q.elements.map((e) => [e.attr('jid'), e.attr('name')])).to.deep.equal([
      ['nurse@example.org', 'old'],
    ])
    expect(items(await set(juliet, `<item jid='nurse@example.org' name='new'/>`))).to.have.length(1)
  })
})

describe('roster: removal', () => {
  it('RFC 6121 §2.5.2, §3.2.2: both subscriptions end, in order, and the other side hears of each', async () => {
    await using host = await start()
    const juliet = await online(host, 'juliet@example.org/a')
    const romeo = await online(host, 'romeo@example.org/b')
    await befriend(juliet, romeo)
    const received = await set(juliet, `<item jid='romeo@example.org' subscription='remove'/>`)
    expect(items(received)).to.deep.equal([`<item jid='romeo@example.org' subscription='remove'/>`])
    expect(seen(romeo.take())).to.deep.equal([
      'unavailable juliet@example.org/a',
      'unsubscribe juliet@example.org',
      `push <item jid='juliet@example.org' subscription='to'/>`,
      'unsubscribed juliet@example.org',
      `push <item jid='juliet@example.org' subscription='none'/>`,
    ])
    expect((await query(juliet)).elements).to.have.length(0)
    expect((await query(romeo)).elements.map((e) => e.attr('subscription'))).to.deep.equal(['none'])
  })

  it('RFC 6121 §2.5.2 rule 1: an unanswered request is taken back too', async () => {
    await using host = await start()
    const juliet = await online(host, 'juliet@example.org/a')
    const romeo = await online(host, 'romeo@example.org/b')
    await juliet.send(`<presence to='romeo@example.org' type='subscribe'/>`)
    romeo.take()
    await set(juliet, `<item jid='romeo@example.org' subscription='remove'/>`)
    expect(seen(romeo.take())).to.deep.equal(['unsubscribe juliet@example.org'])
    const again = await host.client('romeo@example.org/c')
    expect(presences(await again.send('<presence/>')).map((e) => e.attr('type'))).to.not.include('subscribe')
  })

  it('RFC 6121 §3.1.3: a request of somebody who is removed stays until it is answered', async () => {
    await using host = await start()
    const juliet = await online(host, 'juliet@example.org/a')
    await set(juliet, `<item jid='romeo@example.net'/>`)
    await remote(host, `<presence from='romeo@example.net' to='juliet@example.org' type='subscribe'/>`)
    await set(juliet, `<item jid='romeo@example.net' subscription='remove'/>`)
    const other = await host.client('juliet@example.org/b')
    const received = await other.send('<presence/>')
    expect(received.filter((e) => e.attr('type') === 'subscribe')).to.have.length(1)
    expect((await query(other)).elements).to.have.length(0)
  })
})

describe('roster: versions', () => {
  it('RFC 6121 §2.6.3: the version in hand is current: an empty result, no push', async () => {
    await using host = await start()
    const juliet = await online(host, 'juliet@example.org/a')
    const [ver] = vers(await set(juliet, `<item jid='nurse@example.org'/>`))
    const received = await get(await host.client('juliet@example.org/b'), ver)
    expect(received.map((e) => [e.attr('type'), e.children.length])).to.deep.equal([['result', 0]])
  })

  it('RFC 6121 §2.6.3: what changed since comes as pushes behind the empty result, last state only, in order', async () => {
    await using host = await start()
    const juliet = await online(host, 'juliet@example.org/a')
    await set(juliet, `<item jid='gone@example.net'/>`)
    const [ver] = vers(await set(juliet, `<item jid='same@example.net'/>`))
    const later: Element[] = []
    for (const item of [
      `<item jid='b@example.net' name='first'/>`,
      `<item jid='a@example.net'/>`,
      `<item jid='gone@example.net' subscription='remove'/>`,
      `<item jid='b@example.net' name='second'/>`,
    ])
      later.push(...(await set(juliet, item)))
    const received = await get(await host.client('juliet@example.org/b'), ver)
    expect([received[0]!.attr('type'), received[0]!.children.length]).to.deep.equal(['result', 0])
    expect(items(received.slice(1))).to.deep.equal([
      `<item jid='a@example.net' subscription='none'/>`,
      `<item jid='gone@example.net' subscription='remove'/>`,
      `<item jid='b@example.net' name='second' subscription='none'/>`,
    ])
    // each under the version that brought it; the last is the present one
    expect(vers(received)).to.deep.equal(vers(later).slice(1))
    expect((await query(juliet)).attr('ver')).to.equal(vers(received).at(-1))
  })

  it('RFC 6121 §2.6.2, §2.6.3: no version, "" or an unknown one: the whole roster', async () => {
    await using host = await start()
    const juliet = await online(host, 'juliet@example.org/a')
    const [ver] = vers(await set(juliet, `<item jid='nurse@example.org'/>`))
    for (const asked of [
      undefined,
      '',
      'ver14',
      `${ver}9`,
      ver!.replace(/\d+$/, '-1'),
      ver!.replace(/\d+$/, '1e0'),
    ]) {
      const received = await get(await host.client('juliet@example.org/b'), asked)
      expect(received).to.have.length(1)
      const q = received[0]!.getChild('query', NS.ROSTER)!
      expect([q.attr('ver'), q.elements.length]).to.deep.equal([ver, 1])
    }
  })

  it('RFC 6121 §2.6.3: when more changed than is left the whole roster is sent', async () => {
    await using host = await start()
    const juliet = await online(host, 'juliet@example.org/a')
    const [ver] = vers(await set(juliet, `<item jid='x@example.net'/>`))
    for (let i = 0; i < 11; i++) await set(juliet, `<item jid='x${i}@example.net'/>`)
    const received = await get(await host.client('juliet@example.org/b'), ver)
    expect(received).to.have.length(1)
    expect(received[0]!.getChild('query', NS.ROSTER)!.elements).to.have.length(12)
  })

  it('RFC 6121 §2.6.3: removals are forgotten at last; who has not heard of one gets the whole roster', async () => {
    const store = await openMemory()
    await using host = await start({}, store)
    const juliet = await online(host, 'juliet@example.org/a')
    for (let i = 0; i < 200; i++) await set(juliet, `<item jid='keep${i}@example.net'/>`)
    const [old] = vers(await set(juliet, `<item jid='x@example.net'/>`))
    let middle = ''
    for (let i = 0; i < 150; i++) {
      await set(juliet, `<item jid='gone${i}@example.net'/>`)
      const ver = vers(await set(juliet, `<item jid='gone${i}@example.net' subscription='remove'/>`))[0]!
      if (i === 140) middle = ver
    }
    const whole = await get(await host.client('juliet@example.org/b'), old)
    expect(whole[0]!.getChild('query', NS.ROSTER)!.elements).to.have.length(201)
    const partly = await get(await host.client('juliet@example.org/b'), middle)
    expect(items(partly)).to.have.length(9)
    let docs = 0
    for await (const [,] of store.open('example.org', 'roster').docs('contacts').list('juliet')) docs++
    expect(docs).to.be.at.most(201 + 101)
  })

  it('RFC 6121 §2.6.3: a version of a deleted account means nothing to a new one of the same name', async () => {
    await using host = await start()
    const juliet = await online(host, 'juliet@example.org/a')
    const [ver] = vers(await set(juliet, `<item jid='nurse@example.org'/>`))
    await host.host.deleteAccount('juliet')
    await host.settle()
    await host.service('auth').create('juliet', 'x')
    const again = await host.client('juliet@example.org/a')
    const received = await set(again, `<item jid='romeo@example.net'/>`)
    expect(received[0]!.attr('type')).to.equal('result')
    const [answer] = await get(again, ver)
    expect(answer!.getChild('query', NS.ROSTER)!.elements.map((e) => e.attr('jid'))).to.deep.equal([
      'romeo@example.net',
    ])
  })

  it('RFC 6121 §2.6.3, §2.2: a change while the roster is on its way is not lost', async () => {
    const store = await openMemory()
    {
      await using before = await start({}, store)
      await set(await before.client('juliet@example.org/a'), `<item jid='nurse@example.org'/>`)
    }
    // The roster has to be read from the store: both are under way at the same time.
    await using host = await start({}, store)
    const a = await host.client('juliet@example.org/a')
    const b = await host.client('juliet@example.org/b')
    const asking = get(a)
    const changing = set(b, `<item jid='nurse@example.org' name='N'/>`)
    const received = [...(await asking), ...(await changing, a.take())]
    const shown = new Map<string, string | undefined>()
    for (const e of received)
      for (const item of e.getChild('query', NS.ROSTER)?.elements ?? [])
        shown.set(item.attr('jid')!, item.attr('name'))
    expect(Object.fromEntries(shown)).to.deep.equal({ 'nurse@example.org': 'N' })
  })

  it('RFC 6121 §2.6.1, §3.4: versions and pre-approval are announced as stream features', async () => {
    await using host = await start()
    const session = (await host.client('juliet@example.org/a')).session
    session.bound = false
    const features = host.host.offered(session).map((e) => e.toString())
    session.bound = true
    expect(features).to.include(`<ver xmlns='urn:xmpp:features:rosterver'/>`)
    expect(features).to.include(`<sub xmlns='urn:xmpp:features:pre-approval'/>`)
  })
})

describe('roster: subscriptions', () => {
  it('RFC 6121 §3.1: the whole handshake; each side sees stanza, push and presence in the order of the text', async () => {
    await using host = await start()
    const juliet = await online(host, 'juliet@example.org/a')
    const romeo = await online(host, 'romeo@example.org/b')
    const asked = await romeo.send(
      `<presence id='xk3' to='juliet@example.org/whatever' type='subscribe'><status>Hi</status></presence>`,
    )
    // §3.1.2
    expect(seen(asked)).to.deep.equal([
      `push <item jid='juliet@example.org' subscription='none' ask='subscribe'/>`,
    ])
    const [request] = juliet.take()
    // §3: the bare JIDs; content and id as they were
    expect(request!.attrs).to.deep.equal({
      id: 'xk3',
      to: 'juliet@example.org',
      type: 'subscribe',
      from: 'romeo@example.org',
    })
    expect(request!.getChildText('status')).to.equal('Hi')
    // §3.1.5
    const granted = await juliet.send(`<presence to='romeo@example.org' type='subscribed'/>`)
    expect(seen(granted)).to.deep.equal([`push <item jid='romeo@example.org' subscription='from'/>`])
    // §3.1.6
    expect(seen(romeo.take())).to.deep.equal([
      'subscribed juliet@example.org',
      `push <item jid='juliet@example.org' subscription='to'/>`,
      'available juliet@example.org/a',
    ])
    await juliet.send(`<presence to='romeo@example.org' type='subscribe'/>`)
    romeo.take()
    juliet.take()
    await romeo.send(`<presence to='juliet@example.org' type='subscribed'/>`)
    expect(seen(juliet.take())).to.deep.equal([
      'subscribed romeo@example.org',
      `push <item jid='romeo@example.org' subscription='both'/>`,
      'available romeo@example.org/b',
    ])
  })

  it('RFC 6121 §3.2: cancelling: unavailable, unsubscribed, push', async () => {
    await using host = await start()
    const juliet = await online(host, 'juliet@example.org/a')
    const romeo = await online(host, 'romeo@example.org/b')
    await befriend(juliet, romeo)
    const own = await juliet.send(`<presence to='romeo@example.org' type='unsubscribed'/>`)
    expect(seen(own)).to.deep.equal([`push <item jid='romeo@example.org' subscription='to'/>`])
    expect(seen(romeo.take())).to.deep.equal([
      'unavailable juliet@example.org/a',
      'unsubscribed juliet@example.org',
      `push <item jid='juliet@example.org' subscription='from'/>`,
    ])
  })

  it('RFC 6121 §3.3: unsubscribing: the stanza before the push, then unavailable from the contact', async () => {
    await using host = await start()
    const juliet = await online(host, 'juliet@example.org/a')
    const romeo = await online(host, 'romeo@example.org/b')
    await befriend(juliet, romeo)
    const own = await romeo.send(`<presence to='juliet@example.org' type='unsubscribe'/>`)
    expect(seen(own)).to.have.members([
      `push <item jid='juliet@example.org' subscription='from'/>`,
      'unavailable juliet@example.org/a',
    ])
    expect(seen(juliet.take())).to.deep.equal([
      'unsubscribe romeo@example.org',
      `push <item jid='romeo@example.org' subscription='to'/>`,
    ])
  })

  it('RFC 6121 §3.1.3 rule 3, §2.2: requests go to available resources, their outcome to interested ones', async () => {
    await using host = await start()
    const available = await host.client('juliet@example.org/available')
    await available.send('<presence/>')
    const interested = await host.client('juliet@example.org/interested')
    await get(interested)
    const connected = await host.client('juliet@example.org/connected')
    const types = (client: TestClient): (string | undefined)[] =>
      presences(client.take()).map((e) => e.attr('type'))
    available.take()
    await remote(host, `<presence from='romeo@example.net' to='juliet@example.org' type='subscribe'/>`)
    expect([types(available), types(interested), types(connected)]).to.deep.equal([['subscribe'], [], []])
    await connected.send(`<presence to='romeo@example.net' type='subscribe'/>`)
    for (const client of [available, interested, connected]) client.take()
    await remote(host, `<presence from='romeo@example.net' to='juliet@example.org' type='subscribed'/>`)
    expect([types(available), types(interested), types(connected)]).to.deep.equal([[], ['subscribed'], []])
  })

  it('RFC 6121 §3.1.3 rule 4: a request to an offline account is kept whole and delivered at each login until answered', async () => {
    const store = await openMemory()
    {
      await using host = await start({}, store)
      for (const id of ['first', 'second'])
        await remote(
          host,
          `<presence from='romeo@example.net' to='juliet@example.org' type='subscribe' id='${id}'><nick xmlns='http://jabber.org/protocol/nick'>R</nick></presence>`,
        )
    }
    await using host = await start({}, store)
    for (const resource of ['a', 'b']) {
      const juliet = await host.client(`juliet@example.org/${resource}`)
      // §3.1.3, security warning: nothing in the roster yet
      expect((await query(juliet)).elements).to.have.length(0)
      const requests = (await juliet.send('<presence/>')).filter((e) => e.attr('type') === 'subscribe')
      expect(
        requests.map((e) => [e.attr('id'), e.getChildText('nick', 'http://jabber.org/protocol/nick')]),
      ).to.deep.equal([['first', 'R']])
      await juliet.send(`<presence type='unavailable'/>`)
      if (resource === 'b') await juliet.send(`<presence to='romeo@example.net' type='unsubscribed'/>`)
    }
    const juliet = await host.client('juliet@example.org/c')
    expect((await juliet.send('<presence/>')).filter((e) => e.attr('type') === 'subscribe')).to.have.length(0)
    expect((await query(juliet)).elements).to.have.length(0)
  })

  it('RFC 6121 §3.1.3, security warning: requests are limited in number and size', async () => {
    await using host = await start({ maxRequests: 3, maxRequest: '256 B' })
    for (let i = 0; i < 5; i++) {
      const text = 'x'.repeat(i === 0 ? 300 : 3)
      await remote(
        host,
        `<presence from='r${i}@example.net' to='juliet@example.org' type='subscribe'><status>${text}</status></presence>`,
      )
    }
    const juliet = await host.client('juliet@example.org/a')
    const requests = (await juliet.send('<presence/>')).filter((e) => e.attr('type') === 'subscribe')
    expect(requests.map((e) => [e.attr('from'), e.getChildText('status')])).to.deep.equal([
      ['r0@example.net', undefined],
      ['r1@example.net', 'xxx'],
      ['r2@example.net', 'xxx'],
    ])
  })

  it('RFC 6121 §3.1.2: an unanswered request is sent again when the account comes back, not for each resource', async () => {
    await using host = await start()
    const juliet = await host.client('juliet@example.org/a')
    await juliet.send(`<presence to='romeo@example.org' type='subscribe'/>`)
    await juliet.close()
    // what a crash between the two accounts leaves behind
    await host.store.open('example.org', 'roster').docs('contacts').delete('romeo', 'juliet@example.org')
    await host.unload('presence')
    await host.unload('roster')
    await host.load(roster as never)
    await host.load(presence as never)
    const romeo = await online(host, 'romeo@example.org/a')
    expect(romeo.take()).to.have.length(0)
    const a = await host.client('juliet@example.org/a')
    await a.send('<presence/>')
    expect(seen(romeo.take())).to.deep.equal(['subscribe juliet@example.org'])
    await (await host.client('juliet@example.org/b')).send('<presence/>')
    expect(romeo.take()).to.have.length(0)
  })

  it('RFC 6121 §3.1.2: the user is told when a request cannot be routed', async () => {
    await using host = await start()
    const juliet = await online(host, 'juliet@example.org/a')
    const received = presences(
      await juliet.send(`<presence to='romeo@nowhere.example' type='subscribe' id='s'/>`),
    )
    expect(received.map((e) => [e.attr('id'), e.attr('to'), condition(e)])).to.deep.equal([
      ['s', 'juliet@example.org', 'remote-server-not-found'],
    ])
  })

  it('RFC 6121 §3.4.2: a pre-approval is shown, kept to oneself, and used by the first request', async () => {
    await using host = await start()
    const juliet = await online(host, 'juliet@example.org/a')
    const romeo = await online(host, 'romeo@example.org/b')
    const approved = await juliet.send(`<presence to='romeo@example.org' type='subscribed'/>`)
    expect(items(approved)).to.deep.equal([
      `<item jid='romeo@example.org' subscription='none' approved='true'/>`,
    ])
    expect(romeo.take()).to.have.length(0)
    await romeo.send(`<presence to='juliet@example.org' type='subscribe' id='q1'/>`)
    const [, ...rest] = juliet.take()
    expect(rest).to.have.length(0)
    expect((await query(juliet)).elements.map((e) => e.attr('subscription'))).to.deep.equal(['from'])
  })

  it('RFC 6121 §3.1.3 rule 2: the answer on behalf of a subscribed-to account has the id of the request', async () => {
    await using host = await start()
    const juliet = await online(host, 'juliet@example.org/a')
    const romeo = await online(host, 'romeo@example.org/b')
    await juliet.send(`<presence to='romeo@example.org' type='subscribed'/>`)
    juliet.take()
    const received = await romeo.send(`<presence to='juliet@example.org' type='subscribe' id='q1'/>`)
    const answer = received.find((e) => e.attr('type') === 'subscribed')
    expect([answer?.attr('id'), answer?.attr('from'), answer?.attr('to')]).to.deep.equal([
      'q1',
      'juliet@example.org',
      'romeo@example.org',
    ])
    expect(seen(received)).to.include('available juliet@example.org/a')
  })

  it('RFC 6121 §4.2.2: nobody subscribes to himself', async () => {
    await using host = await start()
    const juliet = await online(host, 'juliet@example.org/a')
    const received = await juliet.send(`<presence to='juliet@example.org' type='subscribe'/>`)
    expect(received.map(condition)).to.deep.equal(['not-allowed'])
    expect(await juliet.send(`<presence to='juliet@example.org/x' type='unsubscribed'/>`)).to.have.length(0)
  })

  it('RFC 6121 §3.1.1: a subscription stanza without an addressee is a bad request', async () => {
    await using host = await start()
    const juliet = await online(host, 'juliet@example.org/a')
    for (const type of ['subscribe', 'subscribed', 'unsubscribe', 'unsubscribed'])
      expect((await juliet.send(`<presence type='${type}'/>`)).map(condition)).to.deep.equal(['bad-request'])
  })

  it('RFC 6121 §3.1.3, §8.5.3.2.2: to an absent resource a request counts for the account, anything else is ignored', async () => {
    await using host = await start()
    const juliet = await online(host, 'juliet@example.org/a')
    await juliet.send(`<presence to='romeo@example.net' type='subscribe'/>`)
    juliet.take()
    await remote(
      host,
      `<presence from='romeo@example.net/x' to='juliet@example.org/gone' type='subscribed'/>`,
    )
    expect(juliet.take()).to.have.length(0)
    await remote(host, `<presence from='romeo@example.net/x' to='juliet@example.org/gone' type='subscribe'/>`)
    expect(juliet.take().map((e) => [e.attr('from'), e.attr('to')])).to.deep.equal([
      ['romeo@example.net', 'juliet@example.org'],
    ])
    await remote(host, `<presence from='romeo@example.net/x' to='juliet@example.org/a' type='subscribed'/>`)
    expect((await query(juliet)).elements.map((e) => e.attr('subscription'))).to.deep.equal(['to'])
  })

  it('RFC 6121 §8.5.1: nothing is kept for an account that does not exist', async () => {
    await using host = await start()
    await remote(host, `<presence from='romeo@example.net' to='nobody@example.org' type='subscribe'/>`)
    expect(await host.store.purgeOwner('example.org', 'nobody')).to.equal(0)
  })
})

describe('roster: accounts and load', () => {
  it('XEP-0077 §3.2: contacts of a deleted account see all subscriptions end; nothing of it stays', async () => {
    await using host = await start()
    const juliet = await online(host, 'juliet@example.org/a')
    const romeo = await online(host, 'romeo@example.org/b')
    const nurse = await online(host, 'nurse@example.org/c')
    await befriend(juliet, romeo)
    await nurse.send(`<presence to='juliet@example.org' type='subscribe'/>`)
    nurse.take()
    await host.host.deleteAccount('juliet')
    await host.settle()
    expect(seen(romeo.take())).to.deep.equal([
      'unavailable juliet@example.org/a',
      'unsubscribe juliet@example.org',
      `push <item jid='juliet@example.org' subscription='to'/>`,
      'unsubscribed juliet@example.org',
      `push <item jid='juliet@example.org' subscription='none'/>`,
    ])
    expect(seen(nurse.take())).to.deep.equal([
      'unsubscribed juliet@example.org',
      `push <item jid='juliet@example.org' subscription='none'/>`,
    ])
    // also of what reached it while it went
    await host.clock.advance(120_000)
    expect(await host.store.purgeOwner('example.org', 'juliet')).to.equal(0)
  })

  it('1,500 requests of one client: a message of another one is not held up until they are done', async () => {
    const names = Array.from({ length: 1500 }, (_, i) => `u${i}`)
    await using host = await testHost({ modules: [roster, presence], accounts: [...accounts, ...names] })
    const juliet = await online(host, 'juliet@example.org/a')
    const romeo = await online(host, 'romeo@example.org/b')
    const nurse = await online(host, 'nurse@example.org/c')
    juliet.transport.feed(
      names.map((name) => `<presence to='${name}@example.org' type='subscribe'/>`).join(''),
    )
    await nurse.send(`<message to='romeo@example.org' type='chat' id='m'><body>x</body></message>`)
    const done = (): number => pushes(juliet.take()).length
    let pushed = done()
    expect(romeo.take().map((e) => e.attr('id'))).to.deep.equal(['m'])
    while (pushed < 1500) {
      await host.settle()
      pushed += done()
    }
    const all = await query(juliet)
    expect(all.elements.filter((e) => e.attr('ask') === 'subscribe')).to.have.length(1500)
    const last = await host.client('u1499@example.org/x')
    expect(seen(await last.send('<presence/>'))).to.include('subscribe juliet@example.org')
  })

  it('rosters of accounts that are offline leave memory', async () => {
    const names = Array.from({ length: 2100 }, (_, i) => `u${i}`)
    await using host = await testHost({ modules: [roster, presence], accounts: [...accounts, ...names] })
    const juliet = await online(host, 'juliet@example.org/a')
    for (const name of names)
      await host.router.route(
        parseXml(
          `<presence xmlns='jabber:client' from='r@example.net' to='${name}@example.org' type='subscribe'/>`,
        ),
      )
    const text = await host.telemetry.registry.metrics()
    const cached = Number(/^hermod_roster_cached\{[^}]*\} (\d+)$/m.exec(text)?.[1])
    expect(cached).to.be.within(1, 2001)
    // one that left comes back from the store
    const first = await host.client('u0@example.org/x')
    expect(seen(await first.send('<presence/>'))).to.include('subscribe r@example.net')
    expect(juliet.closed).to.equal(false)
  })

  it('RFC 6121 §2.2: unloaded, the namespace is not served any more', async () => {
    await using host = await start()
    const juliet = await online(host, 'juliet@example.org/a')
    await host.unload('presence')
    await host.unload('roster')
    expect(condition((await get(juliet))[0])).to.equal('service-unavailable')
    expect(host.host.service('roster')).to.equal(undefined)
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
