/** XEP-0054: vCards of accounts. */
import { expect } from 'chai'
import disco from '../../modules/disco.ts'
import vcard from '../../modules/vcard.ts'
import { openMemory } from '../../server/storage/memory.ts'
import { type TestClient, testHost } from '../helpers/host.ts'
import { ask, features, outcome } from '../helpers/iq.ts'

const NS = 'vcard-temp'
const EMPTY = `<vCard xmlns='${NS}'/>`
const CARD = `<vCard xmlns='${NS}'><FN>Peter Saint-Andre</FN><N><FAMILY>Saint-Andre</FAMILY><MIDDLE/></N></vCard>`
const accounts = ['stpeter', 'jer']
const modules = [vcard]
const get = async (client: TestClient, to?: string): Promise<string> => {
  const answer = await ask(client, 'get', to, EMPTY)
  return outcome(answer) === 'result' ? (answer.firstElement()?.toString() ?? '') : outcome(answer)
}
const set = async (client: TestClient, card: string, to?: string): Promise<string> =>
  outcome(await ask(client, 'set', to, card))

describe('module vcard (XEP-0054)', () => {
  it('is announced for the server and for accounts (§4)', async () => {
    await using h = await testHost({ modules: [...modules, disco], accounts })
    const stpeter = await h.client('stpeter@example.org/roundabout')
    expect(await features(stpeter, 'example.org')).to.include(NS)
    expect(await features(stpeter, 'stpeter@example.org')).to.include(NS)
  })

  it('gives back the own card, with and without an address (§3.1, §3.2)', async () => {
    await using h = await testHost({ modules, accounts })
    const stpeter = await h.client('stpeter@example.org/roundabout')
    expect(await set(stpeter, CARD)).to.equal('result')
    expect(await get(stpeter)).to.equal(CARD)
    expect(await get(stpeter, 'stpeter@example.org')).to.equal(CARD)
  })

  it('replaces the whole card (§3.2)', async () => {
    await using h = await testHost({ modules, accounts })
    const stpeter = await h.client('stpeter@example.org/roundabout')
    await set(stpeter, CARD)
    const other = `<vCard xmlns='${NS}'><DESC>Check out my blog</DESC></vCard>`
    await set(stpeter, other, 'stpeter@example.org')
    expect(await get(stpeter)).to.equal(other)
  })

  it('has no own card: item-not-found (§3.1)', async () => {
    await using h = await testHost({ modules, accounts })
    const stpeter = await h.client('stpeter@example.org/roundabout')
    expect(await get(stpeter)).to.equal('cancel item-not-found')
  })

  it('shows the card to anyone (§3.3, §5), answered by the server and not by the client', async () => {
    await using h = await testHost({ modules, accounts })
    const stpeter = await h.client('stpeter@example.org/roundabout')
    await set(stpeter, CARD)
    const jer = await h.client('jer@example.org/a')
    const answer = await ask(jer, 'get', 'stpeter@example.org', EMPTY)
    expect(answer.attr('from')).to.equal('stpeter@example.org')
    expect(answer.firstElement()?.toString()).to.equal(CARD)
    expect(stpeter.take()).to.deep.equal([])
    await stpeter.close()
    expect(await get(jer, 'stpeter@example.org')).to.equal(CARD)
  })

  it('answers for others without a card as for those who do not exist: service-unavailable (§3.3)', async () => {
    await using h = await testHost({ modules, accounts })
    const jer = await h.client('jer@example.org/a')
    const known = await ask(jer, 'get', 'stpeter@example.org', EMPTY)
    const unknown = await ask(jer, 'get', 'nobody@example.org', EMPTY)
    const anonymous = (text: string): string => text.replaceAll(/stpeter|nobody|ask\d+/g, 'X')
    expect(outcome(known)).to.equal('cancel service-unavailable')
    expect(anonymous(known.toString())).to.equal(anonymous(unknown.toString()))
  })

  it('may be changed by its owner only: forbidden (§3.2)', async () => {
    await using h = await testHost({ modules, accounts })
    const stpeter = await h.client('stpeter@example.org/roundabout')
    await set(stpeter, CARD)
    const jer = await h.client('jer@example.org/a')
    expect(await set(jer, EMPTY, 'stpeter@example.org')).to.equal('auth forbidden')
    expect(await get(stpeter)).to.equal(CARD)
  })

  it('the server has none', async () => {
    await using h = await testHost({ modules, accounts })
    const jer = await h.client('jer@example.org/a')
    expect(await get(jer, 'example.org')).to.equal('cancel service-unavailable')
    expect(await set(jer, CARD, 'example.org')).to.equal('cancel service-unavailable')
  })

  it('the name of the element has this capitalisation (§8)', async () => {
    await using h = await testHost({ modules, accounts })
    const jer = await h.client('jer@example.org/a')
    expect(await set(jer, `<VCARD xmlns='${NS}'/>`)).to.equal('cancel service-unavailable')
  })

  it('keeps a photo as large as a stanza may be', async () => {
    await using h = await testHost({ modules, accounts })
    const jer = await h.client('jer@example.org/a')
    const card = `<vCard xmlns='${NS}'><PHOTO><BINVAL>${'QUJD'.repeat(60_000)}</BINVAL></PHOTO></vCard>`
    expect(await set(jer, card)).to.equal('result')
    expect(await get(jer)).to.equal(card)
  })

  it('survives a restart, and goes with the account', async () => {
    const store = await openMemory()
    {
      await using h = await testHost({ modules, accounts, store })
      await set(await h.client('stpeter@example.org/a'), CARD)
    }
    await using h = await testHost({ modules, accounts, store })
    const jer = await h.client('jer@example.org/a')
    expect(await get(jer, 'stpeter@example.org')).to.equal(CARD)
    await h.host.deleteAccount('stpeter')
    expect(await get(jer, 'stpeter@example.org')).to.equal('cancel service-unavailable')
    expect(await store.open('example.org', 'vcard').docs('cards').get('stpeter', 'vcard')).to.equal(undefined)
    await h.host.deleteAccount('jer')
    await store.close()
  })

  it('is gone after unload', async () => {
    await using h = await testHost({ modules, accounts })
    const jer = await h.client('jer@example.org/a')
    await set(jer, CARD)
    await h.unload('vcard')
    expect(await get(jer)).to.equal('cancel service-unavailable')
    expect(await set(jer, EMPTY)).to.equal('cancel service-unavailable')
  })
})
