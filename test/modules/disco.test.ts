/** XEP-0030, XEP-0128: what server and accounts say of themselves, and to whom. */
import { expect } from 'chai'
import disco from '../../modules/disco.ts'
import ping from '../../modules/ping.ts'
import presence from '../../modules/presence/index.ts'
import roster from '../../modules/roster/index.ts'
import type { AnyModule } from '../../server/loader.ts'
import { el } from '../../server/xmpp/element.ts'
import { parseJid } from '../../server/xmpp/jid.ts'
import { testHost } from '../helpers/host.ts'
import { ask, discoInfo, features, outcome, share } from '../helpers/iq.ts'

const INFO = 'http://jabber.org/protocol/disco#info'
const ITEMS = 'http://jabber.org/protocol/disco#items'
const accounts = ['romeo', 'juliet']

/** A module that fills every part of the registry. */
const talkative: AnyModule = {
  name: 'talkative',
  summary: 'test',
  specs: [],
  setup(ctx) {
    ctx.disco.identity('host', 'pubsub', 'service', 'News')
    ctx.disco.form('host', () =>
      el('x', 'jabber:x:data', { type: 'result' }, el('field', 'jabber:x:data', { var: 'FORM_TYPE' })),
    )
    ctx.disco.form('host', () => undefined)
    ctx.disco.items('host', 'music', async function* () {
      yield { jid: parseJid('catalog.example.org'), node: 'music/A', name: 'Ayres <&>' }
    })
    ctx.disco.items('host', 'endless', function* () {
      for (let i = 0; ; i++) yield { jid: parseJid(`item${i}.example.org`) }
    })
    ctx.disco.node(
      'host',
      (node) => node.startsWith('music'),
      (node) =>
        node === 'music'
          ? {
              identities: [{ category: 'hierarchy', type: 'branch', lang: 'en' }],
              features: [INFO],
              forms: [],
            }
          : undefined,
    )
    ctx.disco.node(
      'account',
      (node) => node === 'mine',
      () => ({ identities: [{ category: 'hierarchy', type: 'leaf' }], features: [], forms: [] }),
    )
  },
}

describe('module disco: the server (XEP-0030 §3, §4)', () => {
  it('has the identity server/im and its own features (§3.1)', async () => {
    await using h = await testHost({
      modules: [disco, ping],
      accounts,
      config: { disco: { name: 'Verona' } },
    })
    const romeo = await h.client('romeo@example.org/a')
    const query = await discoInfo(romeo, 'example.org')
    expect(query.getChildren('identity').map((i) => i.toString(INFO))).to.deep.equal([
      "<identity category='server' type='im' name='Verona'/>",
    ])
    expect(await features(romeo, 'example.org')).to.include.members([INFO, ITEMS, 'urn:xmpp:ping'])
    for (const feature of query.getChildren('feature')) expect(feature.children).to.deep.equal([])
  })

  it('names each feature once, in a stable order', async () => {
    await using h = await testHost({ modules: [disco, ping], accounts })
    const romeo = await h.client('romeo@example.org/a')
    const names = await features(romeo, 'example.org')
    expect(names).to.deep.equal([...new Set(names)].toSorted())
  })

  it('shows identities and forms of other modules (§3.1, XEP-0128 §2), and leaves out a form that has nothing to say', async () => {
    await using h = await testHost({ modules: [disco, talkative], accounts })
    const romeo = await h.client('romeo@example.org/a')
    const query = await discoInfo(romeo, 'example.org')
    expect(
      query.getChildren('identity').map((i) => `${i.attr('category')}/${i.attr('type')}`),
    ).to.have.members(['server/im', 'pubsub/service'])
    expect(query.getChildren('x', 'jabber:x:data')).to.have.length(1)
  })

  it('answers for a node and mirrors its name (§3.2); for a node that does not exist: item-not-found (§7)', async () => {
    await using h = await testHost({ modules: [disco, talkative], accounts })
    const romeo = await h.client('romeo@example.org/a')
    const music = await discoInfo(romeo, 'example.org', 'music')
    expect(music.attr('node')).to.equal('music')
    expect(music.getChild('identity')?.attr('xml:lang')).to.equal('en')
    for (const node of ['music/Z', 'nothing'])
      expect(
        outcome(await ask(romeo, 'get', 'example.org', `<query xmlns='${INFO}' node='${node}'/>`)),
      ).to.equal('cancel item-not-found')
  })

  it('lists the items of the configuration (§4.1), none: an empty result', async () => {
    const items = [{ jid: 'rooms.example.org', name: 'Rooms' }, { jid: 'upload.example.org' }]
    await using h = await testHost({ modules: [disco], accounts, config: { disco: { items } } })
    const romeo = await h.client('romeo@example.org/a')
    const answer = await ask(romeo, 'get', 'example.org', `<query xmlns='${ITEMS}'/>`)
    expect(answer.getChild('query', ITEMS)?.toString()).to.equal(
      `<query xmlns='${ITEMS}'><item jid='rooms.example.org' name='Rooms'/><item jid='upload.example.org'/></query>`,
    )
    await h.unload('disco')
    await h.load(disco)
    const empty = await ask(romeo, 'get', 'example.org', `<query xmlns='${ITEMS}'/>`)
    expect(outcome(empty)).to.equal('result')
    expect(empty.getChild('query', ITEMS)?.children).to.deep.equal([])
  })

  it('lists the items of a node and mirrors its name (§4.2); of an unknown one: item-not-found', async () => {
    await using h = await testHost({ modules: [disco, talkative], accounts })
    const romeo = await h.client('romeo@example.org/a')
    const music = await ask(romeo, 'get', 'example.org', `<query xmlns='${ITEMS}' node='music'/>`)
    const query = music.getChild('query', ITEMS)
    expect(query?.attr('node')).to.equal('music')
    expect(query?.firstElement()?.attrs).to.deep.equal({
      jid: 'catalog.example.org',
      node: 'music/A',
      name: 'Ayres <&>',
    })
    expect(outcome(await ask(romeo, 'get', 'example.org', `<query xmlns='${ITEMS}' node='x'/>`))).to.equal(
      'cancel item-not-found',
    )
  })

  it('does not return extremely large lists (§6.2)', async () => {
    await using h = await testHost({ modules: [disco, talkative], accounts })
    const romeo = await h.client('romeo@example.org/a')
    const answer = await ask(romeo, 'get', 'example.org', `<query xmlns='${ITEMS}' node='endless'/>`)
    expect(answer.getChild('query', ITEMS)?.elements).to.have.length(1000)
  })

  it('answers get only', async () => {
    await using h = await testHost({ modules: [disco], accounts })
    const romeo = await h.client('romeo@example.org/a')
    expect(outcome(await ask(romeo, 'set', 'example.org', `<query xmlns='${INFO}'/>`))).to.equal(
      'cancel service-unavailable',
    )
  })

  it('refuses an item in the configuration that is no address', async () => {
    const config = { disco: { items: [{ jid: 'not an address@' }] } }
    const failure = await testHost({ modules: [disco], config }).then(
      () => 'started',
      (error: Error) => error.message,
    )
    expect(failure).to.equal('module disco: items.0.jid: is not an XMPP address')
  })

  it('is gone after unload', async () => {
    await using h = await testHost({ modules: [disco], accounts })
    const romeo = await h.client('romeo@example.org/a')
    await h.unload('disco')
    expect(outcome(await ask(romeo, 'get', 'example.org', `<query xmlns='${INFO}'/>`))).to.equal(
      'cancel service-unavailable',
    )
  })
})

describe('module disco: accounts (XEP-0030 §8)', () => {
  it('XEP-0175 §5: says account/anonymous of somebody without an account', async () => {
    await using h = await testHost({ modules: [disco, roster], accounts })
    const romeo = await h.client('romeo@example.org/orchard')
    romeo.session.setFlag('anonymous', true)
    const query = await discoInfo(romeo, 'romeo@example.org')
    expect(query.getChildren('identity').map((e) => e.attrs)).to.deep.equal([
      { category: 'account', type: 'anonymous' },
    ])
  })

  it('says account/registered to the owner (§3.1)', async () => {
    await using h = await testHost({ modules: [disco, ping], accounts })
    const romeo = await h.client('romeo@example.org/a')
    const query = await discoInfo(romeo, 'romeo@example.org')
    expect(query.getChild('identity')?.attrs).to.deep.equal({ category: 'account', type: 'registered' })
    expect(await features(romeo, 'romeo@example.org')).to.include.members([INFO, ITEMS, 'urn:xmpp:ping'])
  })

  it('lists the available resources of the account, not those that are only connected (§4.1)', async () => {
    await using h = await testHost({ modules: [disco, roster, presence], accounts })
    const romeo = await h.client('romeo@example.org/orchard')
    await h.client('romeo@example.org/silent')
    await romeo.send('<presence/>')
    const answer = await ask(romeo, 'get', 'romeo@example.org', `<query xmlns='${ITEMS}'/>`)
    expect(answer.getChild('query', ITEMS)?.elements.map((i) => i.attr('jid'))).to.deep.equal([
      'romeo@example.org/orchard',
    ])
  })

  it('answers a contact that may see the presence of the account (§8 rule 1.2)', async () => {
    await using h = await testHost({ modules: [disco, roster, presence, talkative], accounts })
    const romeo = await h.client('romeo@example.org/a')
    const juliet = await h.client('juliet@example.org/b')
    await share(juliet, romeo)
    await juliet.send('<presence/>')
    const query = await discoInfo(romeo, 'juliet@example.org')
    expect(query.getChild('identity')?.attr('category')).to.equal('account')
    expect(
      (await discoInfo(romeo, 'juliet@example.org', 'mine')).getChild('identity')?.attr('type'),
    ).to.equal('leaf')
    const items = await ask(romeo, 'get', 'juliet@example.org', `<query xmlns='${ITEMS}'/>`)
    expect(items.getChild('query', ITEMS)?.elements.map((i) => i.attr('jid'))).to.deep.equal([
      'juliet@example.org/b',
    ])
    // the other way round nothing was granted
    expect(outcome(await ask(juliet, 'get', 'romeo@example.org', `<query xmlns='${INFO}'/>`))).to.equal(
      'cancel service-unavailable',
    )
  })

  for (const ns of [INFO, ITEMS])
    for (const node of ['', " node='mine'", " node='nothing'"])
      it(`tells a stranger nothing, not even who exists: ${ns}${node} (§8, RFC 6121 §8.5.1)`, async () => {
        await using h = await testHost({ modules: [disco, roster, presence, talkative], accounts })
        const romeo = await h.client('romeo@example.org/a')
        const known = await ask(romeo, 'get', 'juliet@example.org', `<query xmlns='${ns}'${node}/>`)
        const unknown = await ask(romeo, 'get', 'nobody@example.org', `<query xmlns='${ns}'${node}/>`)
        expect(outcome(known)).to.equal('cancel service-unavailable')
        const anonymous = (answer: string): string =>
          answer.replace(/juliet|nobody/g, 'X').replace(/ask\d+/, 'id')
        expect(anonymous(known.toString())).to.equal(anonymous(unknown.toString()))
      })

  it('works without a roster: only the owner is answered', async () => {
    await using h = await testHost({ modules: [disco], accounts })
    const romeo = await h.client('romeo@example.org/a')
    expect(outcome(await ask(romeo, 'get', 'juliet@example.org', `<query xmlns='${INFO}'/>`))).to.equal(
      'cancel service-unavailable',
    )
  })
})
