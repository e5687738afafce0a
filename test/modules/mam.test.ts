/** XEP-0313: queries, results, metadata, refusals; what the module announces and takes back. */
import { expect } from 'chai'
import mam from '../../modules/mam/index.ts'
import { defineModule } from '../../server/module.ts'
import { openMemory } from '../../server/storage/memory.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { archived, archiveHost, chat, NS_MAM, query, stanzaId } from '../helpers/archive.ts'
import { ask, features, outcome } from '../helpers/iq.ts'

describe('module mam: what is announced', () => {
  it('§7: an account has the features, extended ones too; XEP-0431 §2.1: fulltext', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    expect(await features(juliet, 'juliet@example.org')).to.include.members([
      NS_MAM,
      `${NS_MAM}#extended`,
      `${NS_MAM}#groupchat-field`,
      'urn:xmpp:fulltext:0',
      'urn:xmpp:sid:0',
    ])
    expect(await features(juliet, 'juliet@example.org')).not.to.include(`${NS_MAM}#groupchat-available`)
  })

  it('§4.1.5: the form has all fields, none required, the list of ids open and without options', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    const answer = await ask(juliet, 'get', undefined, `<query xmlns='${NS_MAM}'/>`)
    const x = answer.getChild('query', NS_MAM)!.getChild('x', NS.DATA)!
    expect(x.attr('type')).to.equal('form')
    const fields = x.getChildren('field').map((f) => `${f.attr('type')} ${f.attr('var')}`)
    expect(fields).to.deep.equal([
      'hidden FORM_TYPE',
      'jid-single with',
      'text-single start',
      'text-single end',
      'text-single before-id',
      'text-single after-id',
      'list-multi ids',
      'boolean include-groupchat',
      'text-single {urn:xmpp:fulltext:0}fulltext',
    ])
    expect(x.toString()).not.to.match(/<required|<option/)
    const ids = x.getChildren('field').find((f) => f.attr('var') === 'ids')
    expect(ids?.firstElement()?.toString()).to.equal(
      "<validate xmlns='http://jabber.org/protocol/xdata-validate' datatype='xs:string'><open/></validate>",
    )
  })

  it('is gone after unload, and back with all messages after load', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    await juliet.send(chat('romeo@example.org', 'one'))
    await h.unload('mam')
    expect((await query(juliet)).outcome).to.equal('cancel service-unavailable')
    expect(await features(juliet, 'juliet@example.org')).not.to.include(NS_MAM)
    await juliet.send(chat('romeo@example.org', 'two'))
    await h.load(mam)
    expect(await archived(juliet)).to.deep.equal(['one'])
  })
})

describe('module mam: queries (XEP-0313 §4)', () => {
  it('§4.2: results are messages in front of the answer, with id, query id, delay and the whole stanza', async () => {
    await using h = await archiveHost()
    const [juliet, romeo] = [
      await h.client('juliet@example.org/balcony'),
      await h.client('romeo@example.org/orchard'),
    ]
    const sentAt = new Date(h.clock.now()).toISOString()
    await juliet.send(
      "<message to='romeo@example.org' type='chat' id='m1' xml:lang='it'><body>ciao &amp; più</body><x xmlns='urn:x' a='&lt;'>t<y/></x></message>",
    )
    await h.clock.advance(1000)
    await romeo.send(chat('juliet@example.org/balcony', 'two'))
    const answer = await query(juliet, { queryId: 'f27' })
    const [one, two] = answer.results
    expect(one?.outer.attr('from')).to.equal('juliet@example.org')
    expect(one?.outer.attr('to')).to.equal('juliet@example.org/balcony')
    expect(one?.queryId).to.equal('f27')
    expect(one?.stamp).to.equal(sentAt)
    expect(one?.message.toString(NS.CLIENT)).to.equal(
      "<message to='romeo@example.org' type='chat' id='m1' xml:lang='it' from='juliet@example.org/balcony'><body>ciao &amp; più</body><x xmlns='urn:x' a='&lt;'>t<y/></x></message>",
    )
    expect(Date.parse(two?.stamp ?? '') - Date.parse(sentAt)).to.equal(1000)
    expect(two?.message.attr('from')).to.equal('romeo@example.org/orchard')
    expect([answer.first, answer.last, answer.complete]).to.deep.equal([one?.id, two?.id, true])
    // without a query id there is none in the results
    expect((await query(juliet)).results[0]?.queryId).to.equal(undefined)
  })

  it('§4.2: on their way to the client results can be read like other stanzas', async () => {
    const seen: string[] = []
    const reader = defineModule({
      name: 'reader',
      summary: 'reads what goes to clients',
      specs: [],
      setup: (ctx) =>
        ctx.hook('client:out', { phase: 'observe', kinds: ['message'] }, ({ stanza }) => {
          const forwarded = stanza.getChild('result', NS_MAM)?.getChild('forwarded', 'urn:xmpp:forward:0')
          const message = forwarded?.getChild('message', NS.CLIENT)
          seen.push(`${message?.attr('id')} ${message?.getChildText('body')}`)
          expect(forwarded?.elements.map((e) => e.name)).to.deep.equal(['delay', 'message'])
          // and read again it is the same
          expect(parseXml(stanza.toString()).equals(stanza)).to.equal(true)
        }),
    })
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    await juliet.send(
      chat('romeo@example.org', 'one', "<x xmlns='urn:x'><y xmlns='urn:y' a='1'>&lt;</y></x>"),
    )
    await h.load(reader)
    await query(juliet)
    expect(seen).to.deep.equal(['one one'])
    await h.unload('reader')
  })

  it('§4.1: an empty archive, and a filter that nothing matches: no results, complete, no first and last', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    for (const form of [{}, { with: 'nobody@example.net' }]) {
      const answer = await query(juliet, { form })
      expect([answer.results.length, answer.complete, answer.first, answer.count]).to.deep.equal([
        0,
        true,
        undefined,
        '0',
      ])
      await juliet.send(chat('romeo@example.org', 'one'))
    }
  })

  it('§8.1: the archive of another account is forbidden, to queries of each kind', async () => {
    await using h = await archiveHost()
    const romeo = await h.client('romeo@example.org/orchard')
    const to = 'juliet@example.org'
    expect((await query(romeo, { to })).outcome).to.equal('auth forbidden')
    for (const [type, payload] of [
      ['get', 'query'],
      ['get', 'metadata'],
      ['get', 'prefs'],
      ['set', 'prefs'],
    ] as const)
      expect(outcome(await ask(romeo, type, to, `<${payload} xmlns='${NS_MAM}'/>`))).to.equal(
        'auth forbidden',
      )
  })

  it('a query may name the own account; the server itself has no archive', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    await juliet.send(chat('romeo@example.org', 'one'))
    expect((await query(juliet, { to: 'juliet@example.org' })).bodies).to.deep.equal(['one'])
    expect((await query(juliet, { to: 'example.org' })).outcome).to.equal('cancel service-unavailable')
  })

  it('refusals: unknown field, other form, bad values, nodes, pages by index, long query ids', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    const refused = async (what: Parameters<typeof query>[1]) => (await query(juliet, what)).outcome
    // §4.1.5
    expect(await refused({ form: { 'x-other': '1' } })).to.equal('cancel feature-not-implemented')
    const other = `<x xmlns='${NS.DATA}' type='submit'><field var='FORM_TYPE'><value>urn:x</value></field></x>`
    const strange = await ask(juliet, 'set', undefined, `<query xmlns='${NS_MAM}'>${other}</query>`)
    expect(outcome(strange)).to.equal('modify bad-request')
    expect(await refused({ form: { start: 'yesterday' } })).to.equal('modify not-acceptable')
    expect(await refused({ form: { end: '2010-07-07' } })).to.equal('modify not-acceptable')
    expect(await refused({ form: { with: '@' } })).to.equal('modify not-acceptable')
    expect(await refused({ rsm: '<max>many</max>' })).to.equal('modify bad-request')
    expect(await refused({ rsm: '<index>3</index>' })).to.equal('cancel feature-not-implemented')
    expect(await refused({ queryId: 'x'.repeat(1025) })).to.equal('modify bad-request')
    const node = await ask(juliet, 'set', undefined, `<query xmlns='${NS_MAM}' node='urn:x'/>`)
    expect(outcome(node)).to.equal('cancel feature-not-implemented')
  })

  it('§4.1.4: include-groupchat is understood', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    await juliet.send(chat('romeo@example.org', 'one'))
    for (const value of ['true', 'false', '0', '1'])
      expect((await query(juliet, { form: { 'include-groupchat': value } })).bodies).to.deep.equal(['one'])
  })
})

describe('module mam: metadata (XEP-0313 §5)', () => {
  const metadata = async (client: Parameters<typeof ask>[0]) =>
    (await ask(client, 'get', undefined, `<metadata xmlns='${NS_MAM}'/>`)).getChild('metadata', NS_MAM)!

  it('an empty archive: an empty element', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    expect((await metadata(juliet)).toString()).to.equal(`<metadata xmlns='${NS_MAM}'/>`)
  })

  it('first and last message with id and time', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    for (const body of ['one', 'two', 'three']) {
      await juliet.send(chat('romeo@example.org', body))
      await h.clock.advance(60_000)
    }
    const { results } = await query(juliet)
    const data = await metadata(juliet)
    const ends = (['start', 'end'] as const).map((name) => data.getChild(name))
    expect(ends.map((e) => e?.attr('id'))).to.deep.equal([results[0]?.id, results[2]?.id])
    expect(ends.map((e) => e?.attr('timestamp'))).to.deep.equal([results[0]?.stamp, results[2]?.stamp])
  })
})

describe('module mam: ids (XEP-0313 §3, §6.2; XEP-0359 §3, §6)', () => {
  it('tell nothing of their order or number, and differ between archives for the same message', async () => {
    await using h = await archiveHost()
    const [juliet, romeo] = [
      await h.client('juliet@example.org/balcony'),
      await h.client('romeo@example.org/orchard'),
    ]
    for (let i = 0; i < 40; i++) await juliet.send(chat('romeo@example.org', `m${i}`))
    const [hers, his] = [(await query(juliet)).ids, (await query(romeo)).ids]
    expect(new Set([...hers, ...his]).size).to.equal(80)
    expect(hers.every((id) => /^[\w-]{22}$/.test(id))).to.equal(true)
    expect(hers.toSorted()).not.to.deep.equal(hers)
    // neighbours have nothing in common: in random text of 22 characters two are equal at one place in 64
    const equal = hers.slice(1).map((id, i) => id.split('').filter((ch, k) => ch === hers[i]?.[k]).length)
    expect(Math.max(...equal)).to.be.lessThan(6)
  })

  it('§6.2: an id is not used again, stays the same after a restart, and is worth nothing in another archive', async () => {
    const store = await openMemory()
    let first: readonly string[] = []
    {
      await using h = await archiveHost({}, { store })
      const juliet = await h.client('juliet@example.org/balcony')
      await juliet.send(chat('romeo@example.org', 'one'))
      first = (await query(juliet)).ids
    }
    await using h = await archiveHost({}, { store })
    const [juliet, romeo] = [
      await h.client('juliet@example.org/balcony'),
      await h.client('romeo@example.org/orchard'),
    ]
    await juliet.send(chat('romeo@example.org', 'two'))
    const now = (await query(juliet)).ids
    expect(now[0]).to.equal(first[0])
    expect(now[1]).not.to.equal(first[0])
    expect((await query(romeo, { form: { ids: first } })).outcome).to.equal('cancel item-not-found')
  })

  it('§3.5: the id in the message that is delivered is the id in the archive', async () => {
    await using h = await archiveHost()
    const [juliet, romeo] = [
      await h.client('juliet@example.org/balcony'),
      await h.client('romeo@example.org/orchard'),
    ]
    await juliet.send(chat('romeo@example.org/orchard', 'one'))
    const [received] = romeo.take()
    expect(stanzaId(received, 'romeo@example.org')).to.equal((await query(romeo)).ids[0])
    // not the one in the sender's archive, which the receiver must not have
    expect(received?.getChildren('stanza-id', NS.SID)).to.have.length(1)
    expect(received?.toString()).not.to.contain((await query(juliet)).ids[0])
  })
})
