/** XEP-0092: name and version of the server. */
import { type as osType } from 'node:os'
import { expect } from 'chai'
import disco from '../../modules/disco.ts'
import version from '../../modules/version.ts'
import manifest from '../../package.json' with { type: 'json' }
import { testHost } from '../helpers/host.ts'
import { ask, features, outcome } from '../helpers/iq.ts'

const NS = 'jabber:iq:version'
const QUERY = `<query xmlns='${NS}'/>`
const accounts = ['romeo', 'juliet']

describe('module version (XEP-0092)', () => {
  it('is announced for the server only (§4)', async () => {
    await using h = await testHost({ modules: [version, disco], accounts })
    const romeo = await h.client('romeo@example.org/a')
    expect(await features(romeo, 'example.org')).to.include(NS)
    expect(await features(romeo, 'romeo@example.org')).not.to.include(NS)
  })

  it('tells name and version of the package (§2), and no operating system unless told to (§5)', async () => {
    await using h = await testHost({ modules: [version], accounts })
    const romeo = await h.client('romeo@example.org/a')
    const query = (await ask(romeo, 'get', 'example.org', QUERY)).getChild('query', NS)
    expect(query?.elements.map((e) => [e.name, e.text()])).to.deep.equal([
      ['name', 'Hermod'],
      ['version', manifest.version],
    ])
  })

  it('tells the operating system when the option says so (§5)', async () => {
    await using h = await testHost({ modules: [version], accounts, config: { version: { os: true } } })
    const romeo = await h.client('romeo@example.org/a')
    const query = (await ask(romeo, 'get', 'example.org', QUERY)).getChild('query', NS)
    expect(query?.getChildText('os')).to.match(new RegExp(`^${osType()} \\S+$`))
  })

  it('answers for the server only: accounts have no version, their clients answer themselves', async () => {
    await using h = await testHost({ modules: [version], accounts })
    const romeo = await h.client('romeo@example.org/a')
    const juliet = await h.client('juliet@example.org/b')
    for (const to of ['romeo@example.org', 'juliet@example.org'])
      expect(outcome(await ask(romeo, 'get', to, QUERY))).to.equal('cancel service-unavailable')
    await romeo.send(`<iq type='get' id='v' to='juliet@example.org/b'>${QUERY}</iq>`)
    expect(juliet.take().map((e) => e.firstElement()?.ns)).to.deep.equal([NS])
  })

  it('knows no set, and is gone after unload', async () => {
    await using h = await testHost({ modules: [version], accounts })
    const romeo = await h.client('romeo@example.org/a')
    expect(outcome(await ask(romeo, 'set', 'example.org', QUERY))).to.equal('cancel service-unavailable')
    await h.unload('version')
    expect(outcome(await ask(romeo, 'get', 'example.org', QUERY))).to.equal('cancel service-unavailable')
  })
})
