/** XEP-0012: when accounts were last here, with the real roster and presence modules. */
import { expect } from 'chai'
import disco from '../../modules/disco.ts'
import last from '../../modules/last.ts'
import presence from '../../modules/presence/index.ts'
import roster from '../../modules/roster/index.ts'
import { openMemory } from '../../server/storage/memory.ts'
import type { Element } from '../../server/xmpp/element.ts'
import { type TestClient, type TestHost, testHost } from '../helpers/host.ts'
import { ask, features, outcome, share } from '../helpers/iq.ts'

const NS = 'jabber:iq:last'
const QUERY = `<query xmlns='${NS}'/>`
const accounts = ['romeo', 'juliet', 'tybalt']
const modules = [roster, presence, last]
const QUERY_OF = async (client: TestClient, to: string): Promise<Element | undefined> =>
  (await ask(client, 'get', to, QUERY)).getChild('query', NS)

/** Juliet, who lets Romeo see her presence. */
async function verona(): Promise<{ h: TestHost; romeo: TestClient; juliet: TestClient }> {
  const h = await testHost({ modules, accounts })
  const romeo = await h.client('romeo@example.org/orchard')
  const juliet = await h.client('juliet@example.org/balcony')
  await share(juliet, romeo)
  return { h, romeo, juliet }
}

describe('module last: accounts (XEP-0012 §3)', () => {
  it('is announced (§6)', async () => {
    await using h = await testHost({ modules: [...modules, disco], accounts })
    const romeo = await h.client('romeo@example.org/a')
    expect(await features(romeo, 'example.org')).to.include(NS)
    expect(await features(romeo, 'romeo@example.org')).to.include(NS)
  })

  it('says how long ago the user logged out, with the status of the last unavailable presence', async () => {
    const { h, romeo, juliet } = await verona()
    await using _ = h
    await juliet.send('<presence><status>here</status></presence>')
    await juliet.send("<presence type='unavailable'><status>Heading Home</status></presence>")
    await juliet.close()
    await h.clock.advance(903_999)
    const query = await QUERY_OF(romeo, 'juliet@example.org')
    expect(query?.toString()).to.equal(`<query xmlns='${NS}' seconds='903'>Heading Home</query>`)
  })

  it('has no status when the connection was lost, or when the client became available again after it', async () => {
    const { h, romeo, juliet } = await verona()
    await using _ = h
    await juliet.send("<presence type='unavailable'><status>Heading Home</status></presence>")
    await juliet.send('<presence/>')
    await juliet.drop()
    expect((await QUERY_OF(romeo, 'juliet@example.org'))?.toString()).to.equal(
      `<query xmlns='${NS}' seconds='0'/>`,
    )
  })

  it('does not take the status of directed presence for that of the account', async () => {
    const { h, romeo, juliet } = await verona()
    await using _ = h
    await juliet.send(
      "<presence to='tybalt@example.org' type='unavailable'><status>secret</status></presence>",
    )
    await juliet.close()
    expect((await QUERY_OF(romeo, 'juliet@example.org'))?.text()).to.equal('')
  })

  it('says zero and nothing else while a resource is connected, available or not', async () => {
    const { h, romeo, juliet } = await verona()
    await using _ = h
    await h.clock.advance(5000)
    for (const show of ['', '<presence/>', "<presence type='unavailable'><status>x</status></presence>"]) {
      if (show !== '') await juliet.send(show)
      expect((await QUERY_OF(romeo, 'juliet@example.org'))?.toString()).to.equal(
        `<query xmlns='${NS}' seconds='0'/>`,
      )
    }
  })

  it('counts from the last of several resources', async () => {
    const { h, romeo, juliet } = await verona()
    await using _ = h
    const other = await h.client('juliet@example.org/chamber')
    await juliet.close()
    await h.clock.advance(100_000)
    await other.close()
    await h.clock.advance(7000)
    expect((await QUERY_OF(romeo, 'juliet@example.org'))?.attr('seconds')).to.equal('7')
  })

  it('answers the account itself', async () => {
    const { h, juliet } = await verona()
    await using _ = h
    expect((await QUERY_OF(juliet, 'juliet@example.org'))?.attr('seconds')).to.equal('0')
  })

  it('refuses those who may not see the presence: forbidden', async () => {
    const { h, romeo, juliet } = await verona()
    await using _ = h
    const tybalt = await h.client('tybalt@example.org/a')
    expect(outcome(await ask(tybalt, 'get', 'juliet@example.org', QUERY))).to.equal('auth forbidden')
    // a subscription has a direction
    expect(outcome(await ask(juliet, 'get', 'romeo@example.org', QUERY))).to.equal('auth forbidden')
    await juliet.send("<presence to='romeo@example.org' type='unsubscribed'/>")
    expect(outcome(await ask(romeo, 'get', 'juliet@example.org', QUERY))).to.equal('auth forbidden')
  })

  it('says that it knows nothing of a contact that was never here', async () => {
    await using h = await testHost({ modules, accounts })
    const romeo = await h.client('romeo@example.org/a')
    // a contact that approved before its first login: the subscription stands, no session ever ended
    const rosters = h.service('roster')
    const tybalt = await h.client('tybalt@example.org/x')
    await share(tybalt, romeo)
    await tybalt.close()
    await h.store.open('example.org', 'last').docs('logout').purge('tybalt')
    expect((await rosters.of('tybalt')).get(romeo.jid)?.from).to.equal(true)
    expect(outcome(await ask(romeo, 'get', 'tybalt@example.org', QUERY))).to.equal('cancel item-not-found')
  })

  it('does not exist for accounts that do not exist (RFC 6121 §8.5.1)', async () => {
    const { h, romeo } = await verona()
    await using _ = h
    expect(outcome(await ask(romeo, 'get', 'nobody@example.org', QUERY))).to.equal(
      'cancel service-unavailable',
    )
  })

  it('remembers across a restart', async () => {
    const store = await openMemory()
    {
      await using h = await testHost({ modules, accounts, store })
      const romeo = await h.client('romeo@example.org/a')
      const juliet = await h.client('juliet@example.org/b')
      await share(juliet, romeo)
      await juliet.send("<presence type='unavailable'><status>good night</status></presence>")
      await juliet.close()
    }
    await using h = await testHost({ modules, accounts, store })
    await h.clock.advance(60_000)
    const romeo = await h.client('romeo@example.org/a')
    const query = await QUERY_OF(romeo, 'juliet@example.org')
    expect(query?.attrs).to.include({ seconds: '60' })
    expect(query?.text()).to.equal('good night')
    await h.host.deleteAccount('romeo')
    await store.close()
  })

  it('records the end of sessions that the server closes when it stops', async () => {
    const store = await openMemory()
    {
      await using h = await testHost({ modules, accounts, store })
      await h.client('juliet@example.org/b')
    }
    const docs = store.open('example.org', 'last').docs('logout')
    expect(await docs.get('juliet', 'last')).to.include({ status: '' })
    await store.close()
  })

  it('keeps nothing of a deleted account, whose open sessions end after it', async () => {
    const { h, juliet } = await verona()
    await using _ = h
    await juliet.close()
    const back = await h.client('juliet@example.org/balcony')
    await h.host.deleteAccount('juliet')
    await h.settle()
    expect(back.closed).to.equal(true)
    expect(await h.store.open('example.org', 'last').docs('logout').get('juliet', 'last')).to.equal(undefined)
  })
})

describe('module last: full addresses and the server (XEP-0012 §4, §5)', () => {
  it('lets a client answer a contact that may see its presence', async () => {
    const { h, romeo, juliet } = await verona()
    await using _ = h
    await juliet.send('<presence/>')
    romeo.take()
    await romeo.send(`<iq type='get' id='l2' to='juliet@example.org/balcony'>${QUERY}</iq>`)
    expect(juliet.take().map((e) => e.attr('id'))).to.include('l2')
    await juliet.send(
      `<iq type='result' id='l2' to='romeo@example.org/orchard'><query xmlns='${NS}' seconds='123'/></iq>`,
    )
    expect(romeo.take().map((e) => e.firstElement()?.attr('seconds'))).to.include('123')
  })

  it('refuses all others with forbidden, whether the resource is there or not (§4, §8)', async () => {
    const { h, juliet } = await verona()
    await using _ = h
    await juliet.send('<presence/>')
    const tybalt = await h.client('tybalt@example.org/a')
    juliet.take()
    for (const to of ['juliet@example.org/balcony', 'juliet@example.org/nowhere'])
      expect(outcome(await ask(tybalt, 'get', to, QUERY))).to.equal('auth forbidden')
    expect(juliet.take()).to.deep.equal([])
  })

  it('leaves other requests to a client alone', async () => {
    const h = await testHost({ modules: [last, roster], accounts })
    await using _ = h
    const juliet = await h.client('juliet@example.org/balcony')
    const tybalt = await h.client('tybalt@example.org/a')
    await tybalt.send("<iq type='get' id='x' to='juliet@example.org/balcony'><query xmlns='urn:other'/></iq>")
    expect(juliet.take().map((e) => e.attr('id'))).to.deep.equal(['x'])
  })

  it('tells how long the server has run, to everybody (§5)', async () => {
    await using h = await testHost({ modules, accounts })
    await h.clock.advance(123_456_000)
    const tybalt = await h.client('tybalt@example.org/a')
    expect((await QUERY_OF(tybalt, 'example.org'))?.toString()).to.equal(
      `<query xmlns='${NS}' seconds='123456'/>`,
    )
  })

  it('answers nobody but the owner without a roster', async () => {
    await using h = await testHost({ modules: [last], accounts })
    const romeo = await h.client('romeo@example.org/a')
    expect(outcome(await ask(romeo, 'get', 'juliet@example.org', QUERY))).to.equal('auth forbidden')
    expect(outcome(await ask(romeo, 'get', 'romeo@example.org', QUERY))).to.equal('result')
  })

  it('knows no set, and is gone after unload', async () => {
    const { h, romeo, juliet } = await verona()
    await using _ = h
    expect(outcome(await ask(romeo, 'set', 'example.org', QUERY))).to.equal('cancel service-unavailable')
    await h.unload('last')
    expect(outcome(await ask(romeo, 'get', 'example.org', QUERY))).to.equal('cancel service-unavailable')
    expect(outcome(await ask(romeo, 'get', 'juliet@example.org', QUERY))).to.equal(
      'cancel service-unavailable',
    )
    await juliet.close()
    expect(await h.store.open('example.org', 'last').docs('logout').get('juliet', 'last')).to.equal(undefined)
  })
})
