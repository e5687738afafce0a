/** XEP-0049: XML that clients keep on the server. */
import { expect } from 'chai'
import disco from '../../modules/disco.ts'
import privateXml from '../../modules/private.ts'
import { openMemory } from '../../server/storage/memory.ts'
import { type TestClient, testHost } from '../helpers/host.ts'
import { ask, features, outcome } from '../helpers/iq.ts'

const NS = 'jabber:iq:private'
const accounts = ['hamlet', 'macbeth']
const modules = [privateXml]
const PREFS = "<exodus xmlns='exodus:prefs'><defaultnick>Hamlet</defaultnick></exodus>"
const query = (content: string): string => `<query xmlns='${NS}'>${content}</query>`
const get = async (client: TestClient, content: string, to?: string): Promise<string> => {
  const answer = await ask(client, 'get', to, query(content))
  const result = answer.getChild('query', NS)
  return outcome(answer) === 'result'
    ? (result?.children.map((c) => c.toString()).join('') ?? '')
    : outcome(answer)
}
const set = async (client: TestClient, content: string, to?: string): Promise<string> =>
  outcome(await ask(client, 'set', to, query(content)))

describe('module private: storing (XEP-0049 §2)', () => {
  it('is announced for accounts', async () => {
    await using h = await testHost({ modules: [...modules, disco], accounts })
    const hamlet = await h.client('hamlet@example.org/denmark')
    expect(await features(hamlet, 'hamlet@example.org')).to.include(NS)
  })

  it('gives back what was stored, to any client of the account (§2.3 examples 1 and 2)', async () => {
    await using h = await testHost({ modules, accounts })
    const hamlet = await h.client('hamlet@example.org/denmark')
    expect(await set(hamlet, PREFS)).to.equal('result')
    const other = await h.client('hamlet@example.org/england')
    expect(await get(other, "<exodus xmlns='exodus:prefs'/>")).to.equal(PREFS)
    expect(await get(other, "<exodus xmlns='exodus:prefs'/>", 'hamlet@example.org')).to.equal(PREFS)
  })

  it('gives back an empty element when nothing was stored', async () => {
    await using h = await testHost({ modules, accounts })
    const hamlet = await h.client('hamlet@example.org/denmark')
    expect(await get(hamlet, "<exodus xmlns='exodus:prefs'><x/></exodus>")).to.equal(
      "<exodus xmlns='exodus:prefs'/>",
    )
  })

  it('keeps attributes, text, escapes and foreign namespaces as they are', async () => {
    await using h = await testHost({ modules, accounts })
    const hamlet = await h.client('hamlet@example.org/denmark')
    const stored = "<s xmlns='urn:s' a='&lt;&apos;'>&amp; ]]&gt; ψ\n<t xmlns='urn:t' xml:lang='da'/></s>"
    await set(hamlet, stored)
    const text = await get(hamlet, "<s xmlns='urn:s'/>")
    const { parseXml } = await import('../../server/xmpp/parser.ts')
    expect(parseXml(text).equals(parseXml(stored))).to.equal(true)
  })

  it('keeps elements apart by name and namespace, and several of one set (§2.3)', async () => {
    await using h = await testHost({ modules, accounts })
    const hamlet = await h.client('hamlet@example.org/denmark')
    await set(hamlet, "<a xmlns='urn:x'>1</a><b xmlns='urn:x'>2</b><a xmlns='urn:y'>3</a>")
    expect(await get(hamlet, "<a xmlns='urn:x'/>")).to.equal("<a xmlns='urn:x'>1</a>")
    expect(await get(hamlet, "<b xmlns='urn:x'/>")).to.equal("<b xmlns='urn:x'>2</b>")
    expect(await get(hamlet, "<a xmlns='urn:y'/>")).to.equal("<a xmlns='urn:y'>3</a>")
    await set(hamlet, "<a xmlns='urn:x'>new</a>")
    expect(await get(hamlet, "<a xmlns='urn:x'/>")).to.equal("<a xmlns='urn:x'>new</a>")
    expect(await get(hamlet, "<b xmlns='urn:x'/>")).to.equal("<b xmlns='urn:x'>2</b>")
  })

  it('forgets an element when an empty one is set', async () => {
    await using h = await testHost({ modules, accounts })
    const hamlet = await h.client('hamlet@example.org/denmark')
    await set(hamlet, PREFS)
    expect(await set(hamlet, "<exodus xmlns='exodus:prefs'/>")).to.equal('result')
    expect(
      await h.store.open('example.org', 'private').docs('elements').get('hamlet', 'exodus:prefs exodus'),
    ).to.equal(undefined)
    // attributes are content
    await set(hamlet, "<exodus xmlns='exodus:prefs' on='1'/>")
    expect(await get(hamlet, "<exodus xmlns='exodus:prefs'/>")).to.equal(
      "<exodus xmlns='exodus:prefs' on='1'/>",
    )
  })

  it('survives a restart', async () => {
    const store = await openMemory()
    {
      await using h = await testHost({ modules, accounts, store })
      await set(await h.client('hamlet@example.org/denmark'), PREFS)
    }
    await using h = await testHost({ modules, accounts, store })
    expect(
      await get(await h.client('hamlet@example.org/denmark'), "<exodus xmlns='exodus:prefs'/>"),
    ).to.equal(PREFS)
    await store.close()
  })

  it('goes with the account', async () => {
    await using h = await testHost({ modules, accounts })
    await set(await h.client('hamlet@example.org/denmark'), PREFS)
    await set(await h.client('macbeth@example.org/glamis'), PREFS)
    await h.host.deleteAccount('hamlet')
    const owners: string[] = []
    for await (const owner of h.store.open('example.org', 'private').docs('elements').owners())
      owners.push(owner)
    expect(owners).to.deep.equal(['macbeth'])
  })
})

describe('module private: refusals (XEP-0049 §2.3, §3)', () => {
  it('others may neither read nor write: forbidden', async () => {
    await using h = await testHost({ modules, accounts })
    const hamlet = await h.client('hamlet@example.org/denmark')
    await set(hamlet, PREFS)
    const macbeth = await h.client('macbeth@example.org/glamis')
    expect(await set(macbeth, "<exodus xmlns='exodus:prefs'>mine</exodus>", 'hamlet@example.org')).to.equal(
      'auth forbidden',
    )
    expect(await get(macbeth, "<exodus xmlns='exodus:prefs'/>", 'hamlet@example.org')).to.equal(
      'auth forbidden',
    )
    expect(await get(hamlet, "<exodus xmlns='exodus:prefs'/>")).to.equal(PREFS)
    expect(await get(macbeth, "<exodus xmlns='exodus:prefs'/>")).to.equal("<exodus xmlns='exodus:prefs'/>")
  })

  it('the server itself keeps nothing', async () => {
    await using h = await testHost({ modules, accounts })
    const hamlet = await h.client('hamlet@example.org/denmark')
    expect(await get(hamlet, "<exodus xmlns='exodus:prefs'/>", 'example.org')).to.equal(
      'cancel service-unavailable',
    )
  })

  it('a get without a child: bad-request; a set without one: not-acceptable', async () => {
    await using h = await testHost({ modules, accounts })
    const hamlet = await h.client('hamlet@example.org/denmark')
    expect(await get(hamlet, '')).to.equal('modify bad-request')
    expect(await set(hamlet, '')).to.equal('modify not-acceptable')
  })

  it('an element without a namespace of its own: not-acceptable, and nothing of the set is stored', async () => {
    await using h = await testHost({ modules, accounts })
    const hamlet = await h.client('hamlet@example.org/denmark')
    for (const bad of ['<x>1</x>', "<x xmlns=''>1</x>"]) {
      expect(await set(hamlet, PREFS + bad)).to.equal('modify not-acceptable')
      expect(await get(hamlet, bad)).to.equal('modify not-acceptable')
    }
    expect(await get(hamlet, "<exodus xmlns='exodus:prefs'/>")).to.equal("<exodus xmlns='exodus:prefs'/>")
  })

  it('a get for more than one element: not-acceptable', async () => {
    await using h = await testHost({ modules, accounts })
    const hamlet = await h.client('hamlet@example.org/denmark')
    expect(await get(hamlet, "<a xmlns='urn:a'/><b xmlns='urn:b'/>")).to.equal('modify not-acceptable')
  })

  it('a namespace longer than any key: not-acceptable, for get and set', async () => {
    await using h = await testHost({ modules, accounts })
    const hamlet = await h.client('hamlet@example.org/denmark')
    const long = `<a xmlns='urn:${'ψ'.repeat(1500)}'>1</a>`
    expect(await set(hamlet, long)).to.equal('modify not-acceptable')
    expect(await get(hamlet, long)).to.equal('modify not-acceptable')
    const fits = `<a xmlns='urn:${'x'.repeat(2900)}'>1</a>`
    expect(await set(hamlet, fits)).to.equal('result')
    expect(await get(hamlet, fits)).to.equal(fits)
  })

  it('more elements than the configuration allows: resource-constraint, but known ones may change', async () => {
    await using h = await testHost({ modules, accounts, config: { private: { maxElements: 2 } } })
    const hamlet = await h.client('hamlet@example.org/denmark')
    await set(hamlet, "<a xmlns='urn:a'>1</a><b xmlns='urn:b'>1</b>")
    expect(await set(hamlet, "<c xmlns='urn:c'>1</c>")).to.equal('wait resource-constraint')
    expect(await set(hamlet, "<b xmlns='urn:b'>2</b>")).to.equal('result')
    expect(await set(hamlet, "<b xmlns='urn:b'/>")).to.equal('result')
    expect(await set(hamlet, "<c xmlns='urn:c'>1</c>")).to.equal('result')
  })

  it('is gone after unload, what was stored stays', async () => {
    await using h = await testHost({ modules, accounts })
    const hamlet = await h.client('hamlet@example.org/denmark')
    await set(hamlet, PREFS)
    await h.unload('private')
    expect(await get(hamlet, "<exodus xmlns='exodus:prefs'/>")).to.equal('cancel service-unavailable')
    await h.load(privateXml)
    expect(await get(hamlet, "<exodus xmlns='exodus:prefs'/>")).to.equal(PREFS)
  })
})
