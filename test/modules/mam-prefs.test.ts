/** XEP-0441: preferences, what they do, and what is refused. */
import { expect } from 'chai'
import mam from '../../modules/mam/index.ts'
import stanzaId from '../../modules/stanza-id.ts'
import { openMemory } from '../../server/storage/memory.ts'
import { archived, archiveHost, chat, NS_MAM, query } from '../helpers/archive.ts'
import { type TestClient, testHost } from '../helpers/host.ts'
import { fromRemote, setItem } from '../helpers/im.ts'
import { ask, outcome } from '../helpers/iq.ts'

const lists = (always: readonly string[], never: readonly string[]): string => {
  const list = (name: string, jids: readonly string[]) =>
    `<${name}>${jids.map((jid) => `<jid>${jid}</jid>`).join('')}</${name}>`
  return list('always', always) + list('never', never)
}
const prefs = (policy: string, inner = ''): string =>
  `<prefs xmlns='${NS_MAM}' default='${policy}'>${inner}</prefs>`

/** Sets preferences; the outcome, or the preferences that hold then as XML. */
async function set(client: TestClient, payload: string): Promise<string> {
  const answer = await ask(client, 'set', undefined, payload)
  // an error repeats what was asked
  return answer.attr('type') === 'error'
    ? outcome(answer)
    : (answer.getChild('prefs', NS_MAM)?.toString(NS_MAM) ?? '')
}
async function get(client: TestClient): Promise<string> {
  const answer = await ask(client, 'get', undefined, `<prefs xmlns='${NS_MAM}'/>`)
  return answer.getChild('prefs', NS_MAM)?.toString(NS_MAM) ?? outcome(answer)
}

describe('module mam: preferences (XEP-0441)', () => {
  it('§2.1: the default of the configuration, with both lists, also when they are empty', async () => {
    for (const policy of ['always', 'roster', 'never']) {
      await using h = await archiveHost({ default: policy })
      const juliet = await h.client('juliet@example.org/balcony')
      expect(await get(juliet)).to.equal(`<prefs default='${policy}'><always/><never/></prefs>`)
    }
  })

  it('§2.1: what was set is returned and stays, over a restart too; addresses are prepared, each stands once', async () => {
    const store = await openMemory()
    const result =
      "<prefs default='roster'><always><jid>romeo@example.org</jid></always><never><jid>paris@example.net/x</jid></never></prefs>"
    {
      await using h = await archiveHost({}, { store })
      const juliet = await h.client('juliet@example.org/balcony')
      const wanted = lists(['ROMEO@example.org', ' romeo@example.org '], ['paris@example.net/x'])
      expect(await set(juliet, prefs('roster', wanted))).to.equal(result)
      expect(await get(juliet)).to.equal(result)
    }
    await using h = await archiveHost({}, { store })
    expect(await get(await h.client('juliet@example.org/balcony'))).to.equal(result)
    expect(await get(await h.client('romeo@example.org/orchard'))).to.contain("default='always'")
  })

  it('§2.1.2, §2.1.3: a list that is missing is empty; an address in both is never archived', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    await set(juliet, prefs('always', lists(['a@example.net'], ['b@example.net'])))
    expect(await set(juliet, prefs('never'))).to.equal("<prefs default='never'><always/><never/></prefs>")
    expect(await set(juliet, prefs('never', lists(['a@example.net'], ['a@example.net'])))).to.equal(
      "<prefs default='never'><always/><never><jid>a@example.net</jid></never></prefs>",
    )
  })

  it('§2.1: refusals leave what was there', async () => {
    await using h = await archiveHost({ maxPreferences: 2 })
    const juliet = await h.client('juliet@example.org/balcony')
    const before = await set(juliet, prefs('never', lists(['a@example.net'], [])))
    expect(await set(juliet, `<prefs xmlns='${NS_MAM}'/>`)).to.equal('modify bad-request')
    expect(await set(juliet, prefs('sometimes'))).to.equal('modify bad-request')
    expect(await set(juliet, prefs('always', lists(['@'], [])))).to.equal('modify jid-malformed')
    expect(await set(juliet, prefs('always', lists([''], [])))).to.equal('modify jid-malformed')
    expect(await set(juliet, prefs('always', lists(['a@b', 'c@d'], ['e@f'])))).to.equal(
      'wait resource-constraint',
    )
    expect(await get(juliet)).to.equal(before)
  })

  it('§2.1: the operator may not allow changes', async () => {
    await using h = await archiveHost({ preferences: false, default: 'roster' })
    const juliet = await h.client('juliet@example.org/balcony')
    expect(await set(juliet, prefs('never'))).to.equal('cancel not-allowed')
    expect(await get(juliet)).to.contain("default='roster'")
  })

  it('§2.1.1: without rosters there is no such default', async () => {
    await using h = await testHost({ modules: [stanzaId, mam], accounts: ['juliet'] })
    const juliet = await h.client('juliet@example.org/balcony')
    expect(await set(juliet, prefs('roster'))).to.equal('modify not-acceptable')
    expect(await set(juliet, prefs('never'))).to.contain('never')
  })

  it('§2.1.1: roster: only messages with contacts, either way, and notes to oneself', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    await set(juliet, prefs('roster'))
    await setItem(juliet, "<item jid='romeo@example.org'/>")
    await juliet.send(chat('romeo@example.org/orchard', 'out contact'))
    await juliet.send(chat('nurse@example.org', 'out stranger'))
    await juliet.send(chat('juliet@example.org', 'note'))
    for (const who of ['romeo@example.org/x', 'paris@example.net/x'])
      await fromRemote(
        h,
        `<message from='${who}' to='juliet@example.org' type='chat'><body>in ${who}</body></message>`,
      )
    expect(await archived(juliet)).to.deep.equal(['out contact', 'note', 'in romeo@example.org/x'])
    await setItem(juliet, "<item jid='romeo@example.org' subscription='remove'/>")
    await juliet.send(chat('romeo@example.org', 'gone'))
    expect(await archived(juliet)).to.have.length(3)
  })

  it('§2.1.1: never: nothing is archived, messages are delivered without an id', async () => {
    await using h = await archiveHost({ default: 'never' })
    const juliet = await h.client('juliet@example.org/balcony')
    const romeo = await h.client('romeo@example.org/orchard')
    await set(romeo, prefs('always'))
    await romeo.send(chat('juliet@example.org/balcony', 'one'))
    const [message] = juliet.take()
    expect(message?.getChildText('body')).to.equal('one')
    expect(message?.toString()).not.to.contain('stanza-id')
    expect(await archived(juliet)).to.deep.equal([])
    expect(await archived(romeo)).to.deep.equal(['one'])
  })

  it('§2.3: lists go before the default; full addresses before bare ones; from and to count alike', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    const incoming = (from: string) =>
      fromRemote(
        h,
        `<message from='${from}' to='juliet@example.org' type='chat'><body>in ${from}</body></message>`,
      )
    await set(juliet, prefs('never', lists(['a@example.net', 'b@example.net/x'], ['a@example.net/y'])))
    for (const jid of [
      'a@example.net',
      'a@example.net/x',
      'a@example.net/y',
      'b@example.net',
      'b@example.net/x',
      'c@d',
    ]) {
      await incoming(jid)
      await juliet.send(chat(jid, `out ${jid}`))
    }
    expect(await archived(juliet)).to.deep.equal([
      'in a@example.net',
      'out a@example.net',
      'in a@example.net/x',
      'out a@example.net/x',
      'in b@example.net/x',
      'out b@example.net/x',
    ])
  })

  it('a change holds from the next message on, what was archived stays', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    juliet.transport.feed(
      [
        chat('romeo@example.org', 'one'),
        `<iq type='set' id='p'>${prefs('never')}</iq>`,
        chat('romeo@example.org', 'two'),
        `<iq type='set' id='p'>${prefs('always')}</iq>`,
        chat('romeo@example.org', 'three'),
      ].join(''),
    )
    await h.settle()
    juliet.take()
    expect((await query(juliet)).bodies).to.deep.equal(['one', 'three'])
  })

  it('a change that another process made is seen within a minute', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    await juliet.send(chat('romeo@example.org', 'one'))
    const docs = h.store.open('example.org', 'mam').docs('prefs')
    await docs.put('juliet', 'prefs', { default: 'never', always: [], never: [] })
    await h.clock.advance(60_000)
    await juliet.send(chat('romeo@example.org', 'two'))
    expect(await archived(juliet)).to.deep.equal(['one'])
  })
})
