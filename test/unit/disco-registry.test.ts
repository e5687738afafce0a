/** The registry behind ctx.disco: what modules register, what is undone, who is told. */
import { expect } from 'chai'
import { DiscoRegistry } from '../../server/disco-registry.ts'
import { el } from '../../server/xmpp/element.ts'
import { parseJid } from '../../server/xmpp/jid.ts'

const asker = parseJid('romeo@example.org/a')
const to = parseJid('example.org')

function registry() {
  const disco = new DiscoRegistry()
  const view = () => {
    const undo: Disposable[] = []
    const own = disco.view((d) => undo.push(d))
    return { ...own, unload: () => undo.toReversed().forEach((d) => d[Symbol.dispose]()) }
  }
  return { a: view(), b: view() }
}

describe('disco registry', () => {
  it('keeps targets apart', () => {
    const { a } = registry()
    a.feature('host', 'urn:h')
    a.feature('account', 'urn:a')
    a.identity('host', 'server', 'im')
    expect(a.info('host')).to.deep.equal({
      identities: [{ category: 'server', type: 'im' }],
      features: ['urn:h'],
      forms: [],
    })
    expect(a.info('account').features).to.deep.equal(['urn:a'])
  })

  it('sorts features and names each once, whoever registered it; it goes with the last who did', () => {
    const { a, b } = registry()
    a.feature('host', 'urn:b')
    a.feature('host', 'urn:a')
    b.feature('host', 'urn:b')
    expect(a.info('host').features).to.deep.equal(['urn:a', 'urn:b'])
    a.unload()
    expect(b.info('host').features).to.deep.equal(['urn:b'])
    b.unload()
    expect(b.info('host').features).to.deep.equal([])
  })

  it('builds forms for each answer and leaves out those that are undefined', () => {
    const { a } = registry()
    let count = 0
    a.form('host', () => el('x', 'jabber:x:data', { n: String(++count) }))
    a.form('host', () => undefined)
    expect(a.info('host').forms.map((f) => f.attr('n'))).to.deep.equal(['1'])
    expect(a.info('host').forms.map((f) => f.attr('n'))).to.deep.equal(['2'])
  })

  it('asks the modules that know a node in their order, until one has an answer', async () => {
    const { a, b } = registry()
    const info = (name: string) => ({ identities: [], features: [name], forms: [] })
    a.node(
      'host',
      (node) => node.startsWith('x'),
      (node) => (node === 'x1' ? info('a') : undefined),
    )
    b.node(
      'host',
      (node) => node.startsWith('x'),
      async () => info('b'),
    )
    expect((await a.nodeInfo('host', 'x1', asker, to))?.features).to.deep.equal(['a'])
    expect((await a.nodeInfo('host', 'x2', asker, to))?.features).to.deep.equal(['b'])
    expect(await a.nodeInfo('host', 'y', asker, to)).to.equal(undefined)
    expect(await a.nodeInfo('account', 'x1', asker, to)).to.equal(undefined)
    b.unload()
    expect(await a.nodeInfo('host', 'x2', asker, to)).to.equal(undefined)
  })

  it('has an empty list of items for no node, and none for a node nobody knows', () => {
    const { a } = registry()
    expect(a.itemLists('host', '')).to.deep.equal([])
    expect(a.itemLists('host', 'x')).to.equal(undefined)
    a.items('host', 'x', () => [])
    expect(a.itemLists('host', 'x')).to.have.length(1)
    a.unload()
    expect(a.itemLists('host', 'x')).to.equal(undefined)
  })

  it('tells watchers of what changes the information, also of undoing, and no more after they are gone', () => {
    const { a, b } = registry()
    let told = 0
    b.onChange(() => told++)
    a.feature('host', 'urn:a')
    a.identity('host', 'server', 'im')
    a.form('host', () => undefined)
    expect(told).to.equal(3)
    a.items('host', '', () => [])
    a.node(
      'host',
      () => true,
      () => undefined,
    )
    expect(told).to.equal(3)
    a.unload()
    expect(told).to.equal(6)
    b.unload()
    a.feature('host', 'urn:c')
    expect(told).to.equal(6)
  })
})
