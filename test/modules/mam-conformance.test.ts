/** XEP-0313, XEP-0441, XEP-0431, XEP-0059: rules of the texts that the other tests of archives pass over, section by section. */
import { expect } from 'chai'
import { NS } from '../../server/xmpp/ns.ts'
import { archived, archiveHost, chat, NS_MAM, query } from '../helpers/archive.ts'
import type { TestClient, TestHost } from '../helpers/host.ts'
import { ask, outcome } from '../helpers/iq.ts'

const J = 'juliet@example.org'
const R = 'romeo@example.org'
const HOUR = 3_600_000

/** juliet with messages m0, m1, … to romeo and the nurse by turns, a second between them. */
async function talkative(h: TestHost, count: number): Promise<TestClient> {
  const juliet = await h.client(`${J}/balcony`)
  for (let i = 0; i < count; i++) {
    await juliet.send(chat(i % 2 === 0 ? R : 'nurse@example.org', `m${i}`))
    await h.clock.advance(1000)
  }
  juliet.take()
  return juliet
}
const form = (fields: string, type = 'submit'): string =>
  `<query xmlns='${NS_MAM}'><x xmlns='${NS.DATA}' type='${type}'><field var='FORM_TYPE' type='hidden'><value>${NS_MAM}</value></field>${fields}</x></query>`

describe('XEP-0313 §3: what is in an archive', () => {
  it('§3: a message without an address is one to the account itself, once, with all attributes of the stanza', async () => {
    await using h = await archiveHost()
    const juliet = await h.client(`${J}/balcony`)
    await juliet.send("<message type='chat' id='n1' xml:lang='it'><body>note</body></message>")
    const { results } = await query(juliet)
    expect(results).to.have.length(1)
    const message = results[0]?.message
    expect(['to', 'from', 'type', 'id', 'xml:lang'].map((name) => message?.attr(name))).to.deep.equal([
      J,
      `${J}/balcony`,
      'chat',
      'n1',
      'it',
    ])
    expect((await query(juliet, { form: { with: J } })).bodies).to.deep.equal(['note'])
  })

  it('§3: the whole stanza in both archives, the address as it was sent', async () => {
    await using h = await archiveHost()
    const [juliet, romeo] = [await h.client(`${J}/balcony`), await h.client(`${R}/orchard`)]
    const payload = "<x xmlns='urn:x'><y a='&lt;&apos;'>&amp;</y></x>"
    await juliet.send(chat(`${R}/orchard`, 'one', payload))
    for (const client of [juliet, romeo]) {
      const [result] = (await query(client)).results
      expect(result?.message.attr('to')).to.equal(`${R}/orchard`)
      expect(result?.message.getChild('x', 'urn:x')?.getChildText('y')).to.equal('&')
      expect(result?.message.getChild('x', 'urn:x')?.getChild('y')?.attr('a')).to.equal("<'")
    }
  })

  it('§3.1: messages of one millisecond have the order in which they came, in pages of one too', async () => {
    await using h = await archiveHost()
    const juliet = await h.client(`${J}/balcony`)
    const bodies = Array.from({ length: 12 }, (_, i) => `m${i}`)
    await juliet.send(bodies.map((body) => chat(R, body)).join(''))
    const { results } = await query(juliet)
    expect(new Set(results.map(({ stamp }) => stamp)).size).to.equal(1)
    expect(results.map(({ body }) => body)).to.deep.equal(bodies)
    const paged: (string | undefined)[] = []
    let after = ''
    for (let i = 0; i < bodies.length; i++) {
      const page = await query(juliet, { rsm: `<max>1</max>${after}` })
      paged.push(...page.bodies)
      after = `<after>${page.last}</after>`
    }
    expect(paged).to.deep.equal(bodies)
  })

  it('§3.5: whoever has no right to read the archive is not told the id: not in what is sent, not in errors', async () => {
    await using h = await archiveHost()
    const [juliet, romeo] = [await h.client(`${J}/balcony`), await h.client(`${R}/orchard`)]
    await romeo.send('<presence/>')
    await juliet.send(chat(R, 'one'))
    const [received] = romeo.take().filter((e) => e.name === 'message')
    expect(received?.getChildren('stanza-id', NS.SID).map((e) => e.attr('by'))).to.deep.equal([R])
    const back = await juliet.send(chat('romeo@example.net', 'two'))
    expect(back.map((e) => e.attr('type'))).to.deep.equal(['error'])
    expect(back[0]?.toString()).not.to.include('stanza-id')
  })
})

describe('XEP-0313 §4: queries', () => {
  it('§4: <fin/> has <set/> whatever was found; an error has no <fin/>', async () => {
    await using h = await archiveHost()
    const juliet = await talkative(h, 2)
    for (const what of [{}, { form: { with: 'x@example.net' } }, { rsm: '<max>0</max>' }, { rsm: '' }])
      expect((await query(juliet, what)).fin?.getChild('set', NS.RSM)?.name).to.equal('set')
    const failed = await query(juliet, { rsm: '<after>unknown</after>' })
    expect([failed.outcome, failed.fin]).to.deep.equal(['cancel item-not-found', undefined])
  })

  it('§4: of two queries in one write the first is answered before the second has results', async () => {
    await using h = await archiveHost()
    const juliet = await talkative(h, 3)
    const ask = (id: string) => `<iq type='set' id='${id}'><query xmlns='${NS_MAM}' queryid='${id}'/></iq>`
    const received = await juliet.send(ask('one') + ask('two'))
    const order = received.map((e) => e.getChild('result', NS_MAM)?.attr('queryid') ?? e.attr('id'))
    expect(order).to.deep.equal(['one', 'one', 'one', 'one', 'two', 'two', 'two', 'two'])
  })

  it("§4.2: an empty 'queryid' comes back as well; results are from the archive", async () => {
    await using h = await archiveHost()
    const juliet = await talkative(h, 1)
    const [result] = (await query(juliet, { queryId: '' })).results
    expect([result?.queryId, result?.outer.attr('from')]).to.deep.equal(['', J])
  })

  it('§4.1: a form that is not submitted, several values where one is meant', async () => {
    await using h = await archiveHost()
    const juliet = await talkative(h, 1)
    for (const type of ['form', 'cancel', 'result'])
      expect(outcome(await ask(juliet, 'set', undefined, form('', type)))).to.equal('modify bad-request')
    const two = `<field var='with'><value>${R}</value><value>${J}</value></field>`
    expect(outcome(await ask(juliet, 'set', undefined, form(two)))).to.equal('modify bad-request')
  })

  it('§4.1: empty fields are as if they were not there', async () => {
    await using h = await archiveHost()
    const juliet = await talkative(h, 3)
    for (const name of ['with', 'start', 'end', 'before-id', 'after-id', 'ids'])
      expect((await query(juliet, { form: { [name]: '' } })).bodies, name).to.deep.equal(['m0', 'm1', 'm2'])
  })

  it('§4.1.2: nothing lies between a start and an earlier end, which is no error', async () => {
    await using h = await archiveHost()
    const juliet = await talkative(h, 4)
    const [one, two] = (await query(juliet)).results
    const answer = await query(juliet, { form: { start: two?.stamp ?? '', end: one?.stamp ?? '' } })
    expect([answer.outcome, answer.bodies, answer.complete]).to.deep.equal(['result', [], true])
    const future = new Date(h.clock.now() + HOUR).toISOString()
    expect((await query(juliet, { form: { start: future } })).bodies).to.deep.equal([])
    expect((await query(juliet, { form: { end: future } })).bodies).to.have.length(4)
  })

  it('§4.1.3: nothing lies between a message and an earlier one, which is no error', async () => {
    await using h = await archiveHost()
    const juliet = await talkative(h, 4)
    const { ids } = await query(juliet)
    for (const [after, before] of [
      [2, 1],
      [1, 1],
      [1, 2],
    ]) {
      const limits = { 'after-id': ids[after ?? 0] ?? '', 'before-id': ids[before ?? 0] ?? '' }
      const answer = await query(juliet, { form: limits })
      expect([answer.outcome, answer.bodies, answer.complete]).to.deep.equal(['result', [], true])
    }
  })

  it('§4.1.3: ids go together with other filters: all must match; what exists but does not match is no error', async () => {
    await using h = await archiveHost()
    const juliet = await talkative(h, 4)
    const { ids } = await query(juliet)
    const some = [ids[3] ?? '', ids[0] ?? '', ids[2] ?? '']
    expect((await query(juliet, { form: { ids: some } })).bodies).to.deep.equal(['m0', 'm2', 'm3'])
    expect((await query(juliet, { form: { ids: some, with: R } })).bodies).to.deep.equal(['m0', 'm2'])
    expect((await query(juliet, { form: { ids: some, 'after-id': ids[0] ?? '' } })).bodies).to.deep.equal([
      'm2',
      'm3',
    ])
    const other = await query(juliet, { form: { ids: [ids[1] ?? ''], with: R } })
    expect([other.outcome, other.bodies]).to.deep.equal(['result', []])
    const page = await query(juliet, { form: { ids: some }, rsm: `<max>1</max><after>${ids[0]}</after>` })
    expect([page.bodies, page.complete]).to.deep.equal([['m2'], false])
  })

  it('§4.1.3: the number of ids has an end', async () => {
    await using h = await archiveHost()
    const juliet = await talkative(h, 1)
    const values = (n: number) =>
      form(`<field var='ids'>${Array.from({ length: n }, (_, i) => `<value>x${i}</value>`).join('')}</field>`)
    expect(outcome(await ask(juliet, 'set', undefined, values(1000)))).to.equal('cancel item-not-found')
    expect(outcome(await ask(juliet, 'set', undefined, values(1001)))).to.equal('wait resource-constraint')
  })

  it('§4.3.2: a page begins at any message of the archive, also one that the filter leaves out, and on any device', async () => {
    await using h = await archiveHost()
    const juliet = await talkative(h, 6)
    const garden = await h.client(`${J}/garden`)
    const { ids } = await query(juliet)
    const withRomeo = { form: { with: R } }
    // m1 and m3 went to the nurse
    const after = await query(garden, { ...withRomeo, rsm: `<max>9</max><after>${ids[1]}</after>` })
    expect([after.bodies, after.complete]).to.deep.equal([['m2', 'm4'], true])
    const before = await query(garden, { ...withRomeo, rsm: `<max>9</max><before>${ids[3]}</before>` })
    expect([before.bodies, before.complete]).to.deep.equal([['m0', 'm2'], true])
  })

  it('§4.3.2: <before/> and <after/> together are refused; an empty <set/> and an empty <after/> ask for the first page', async () => {
    await using h = await archiveHost({ pageSize: 2 })
    const juliet = await talkative(h, 3)
    const { ids } = await query(juliet)
    const both = await query(juliet, { rsm: `<after>${ids[0]}</after><before>${ids[1]}</before>` })
    expect(both.outcome).to.equal('modify bad-request')
    for (const rsm of ['', '<after/>', '<max>2</max>']) {
      const page = await query(juliet, { rsm })
      expect([page.bodies, page.fin?.attr('complete') === 'true']).to.deep.equal([['m0', 'm1'], false])
    }
  })

  it('§4.3.4: flipping changes nothing of the page backwards, and nothing of an empty one', async () => {
    await using h = await archiveHost()
    const juliet = await talkative(h, 6)
    const { ids } = await query(juliet)
    const rsm = `<max>3</max><before>${ids[5]}</before>`
    const [plain, flipped] = [await query(juliet, { rsm }), await query(juliet, { rsm, flip: true })]
    expect(plain.bodies).to.deep.equal(['m2', 'm3', 'm4'])
    expect(flipped.bodies).to.deep.equal(['m4', 'm3', 'm2'])
    expect([flipped.first, flipped.last, flipped.complete]).to.deep.equal([plain.first, plain.last, false])
    const none = await query(juliet, { form: { with: 'x@example.net' }, flip: true })
    expect([none.bodies, none.complete]).to.deep.equal([[], true])
  })
})

describe('XEP-0313 §5: metadata', () => {
  const metadata = async (client: TestClient) =>
    (await ask(client, 'get', undefined, `<metadata xmlns='${NS_MAM}'/>`)).getChild('metadata', NS_MAM)

  it('names the same ids and times as the results; goes on when old messages are removed; is empty when all are', async () => {
    await using h = await archiveHost({ days: 1 })
    const juliet = await talkative(h, 2)
    await h.clock.advance(20 * HOUR)
    await juliet.send(chat(R, 'late'))
    const ends = async () =>
      (await metadata(juliet))?.elements.map(
        (e) => `${e.name} ${e.attr('id')} ${Date.parse(e.attr('timestamp') ?? '')}`,
      )
    const line = (name: string, result: { readonly id: string; readonly stamp: string } | undefined) =>
      `${name} ${result?.id} ${Date.parse(result?.stamp ?? '')}`
    const { results } = await query(juliet)
    expect(await ends()).to.deep.equal([line('start', results[0]), line('end', results[2])])
    await h.clock.advance(20 * HOUR)
    expect(await archived(juliet)).to.deep.equal(['late'])
    expect(await ends()).to.deep.equal([line('start', results[2]), line('end', results[2])])
    await h.clock.advance(50 * HOUR)
    expect((await metadata(juliet))?.toString()).to.equal(`<metadata xmlns='${NS_MAM}'/>`)
  })
})

describe('XEP-0441 §2: preferences', () => {
  const set = (client: TestClient, lists: string, policy = 'always') =>
    ask(client, 'set', undefined, `<prefs xmlns='${NS_MAM}' default='${policy}'>${lists}</prefs>`)
  const jid = (...jids: readonly string[]) => jids.map((text) => `<jid>${text}</jid>`).join('')

  it('§2.1: they are those of one account: the other side archives as it likes', async () => {
    await using h = await archiveHost()
    const [juliet, romeo] = [await h.client(`${J}/balcony`), await h.client(`${R}/orchard`)]
    await set(juliet, `<never>${jid(R)}</never>`)
    await juliet.send(chat(R, 'one'))
    await romeo.send(chat(J, 'two'))
    expect(await archived(juliet)).to.deep.equal([])
    expect(await archived(romeo)).to.deep.equal(['one', 'two'])
  })

  it('§2.3.1: a domain in a list is that domain alone, with its resources; not its users', async () => {
    await using h = await archiveHost()
    const juliet = await h.client(`${J}/balcony`)
    await set(juliet, `<never>${jid('example.net', 'example.com/x')}</never>`)
    const targets = ['example.net', 'example.net/x', 'a@example.net', 'example.com', 'example.com/x']
    for (const to of targets) await juliet.send(chat(to, to))
    expect(await archived(juliet)).to.deep.equal(['a@example.net', 'example.com'])
  })

  it('§2.3.1: with default="roster" the bare address is looked up', async () => {
    await using h = await archiveHost()
    const [juliet, romeo] = [await h.client(`${J}/balcony`), await h.client(`${R}/orchard`)]
    await ask(juliet, 'set', undefined, `<query xmlns='jabber:iq:roster'><item jid='${R}'/></query>`)
    await set(juliet, '', 'roster')
    await juliet.send(chat(`${R}/orchard`, 'one'))
    await juliet.send(chat('nurse@example.org/x', 'two'))
    await romeo.send(chat(`${J}/balcony`, 'three'))
    expect(await archived(juliet)).to.deep.equal(['one', 'three'])
  })

  it('§2.1: elements of the request that nobody knows, and their order, do not matter', async () => {
    await using h = await archiveHost()
    const juliet = await h.client(`${J}/balcony`)
    const answer = await set(
      juliet,
      `<x xmlns='urn:x'/><never>${jid(R)}</never><always>${jid('a@example.net')}</always>`,
    )
    expect(answer.getChild('prefs', NS_MAM)?.toString()).to.equal(
      `<prefs xmlns='${NS_MAM}' default='always'><always><jid>a@example.net</jid></always><never><jid>${R}</jid></never></prefs>`,
    )
  })
})

describe('XEP-0431 §2.2: words', () => {
  it('white space alone asks for nothing; what other engines take for operators finds what it says, or nothing, and is no error', async () => {
    await using h = await archiveHost()
    const juliet = await h.client(`${J}/balcony`)
    await juliet.send(`<message to='${R}' type='chat'><body>red roses and white lilies</body></message>`)
    await juliet.send(`<message to='${R}' type='chat'><body>red wine</body></message>`)
    const found = async (words: string) =>
      (await query(juliet, { form: { '{urn:xmpp:fulltext:0}fulltext': words } })).results.length
    expect(await found(' \n\t ')).to.equal(2)
    expect(await found('red')).to.equal(2)
    expect(await found('&quot;red roses&quot;')).to.equal(1)
    for (const strange of ['red -roses', 'red*', '(red', 'red AND', '$where', '.*', '+red', '%', '\\'])
      expect((await query(juliet, { form: { '{urn:xmpp:fulltext:0}fulltext': strange } })).outcome).to.equal(
        'result',
      )
  })

  it('one word, no value twice; together with ids and times', async () => {
    await using h = await archiveHost()
    const juliet = await talkative(h, 4)
    const { ids, results } = await query(juliet)
    const text = { '{urn:xmpp:fulltext:0}fulltext': 'm2' }
    expect(
      (await query(juliet, { form: { ...text, ids: [ids[2] ?? '', ids[3] ?? ''] } })).bodies,
    ).to.deep.equal(['m2'])
    expect((await query(juliet, { form: { ...text, start: results[3]?.stamp ?? '' } })).bodies).to.deep.equal(
      [],
    )
  })
})
