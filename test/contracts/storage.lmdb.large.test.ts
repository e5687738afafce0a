/** Large entries in the embedded driver: what is done with many of them gives way to others. */
import { expect } from 'chai'
import { openLmdb } from '../../server/storage/lmdb.ts'
import { tempFolder } from '../helpers/temp.ts'

describe('lmdb driver: large entries', () => {
  it('a search among large entries is done in as many steps as their size asks for', async () => {
    await using dir = await tempFolder()
    const store = await openLmdb({ path: dir.path })
    let looked = 0
    let most = 0
    const text = (doc: { readonly text: string }): string => {
      most = Math.max(most, ++looked)
      return doc.text
    }
    const archive = store.open('h', 'm').archive('a', { text })
    const large = 'large '.repeat(50_000)
    const ids: string[] = []
    for (let i = 0; i < 20; i++) {
      const entry = { at: new Date(), with: `w${i % 2}`, doc: { text: large } }
      ids.push((await archive.append('o', entry)).id)
    }
    let searching = true
    const turn = () => {
      looked = 0
      if (searching) setImmediate(turn)
    }
    turn()
    for (const filter of [{}, { with: 'w1' }, { ids }])
      for (const from of ['first', 'last'] as const) {
        const q = { ...filter, text: 'arge', from, limit: 10 }
        expect(await archive.page('o', q)).to.deep.equal({ entries: [], complete: true })
        const { reached } = await archive.page('o', { ...q, effort: 50 })
        expect(reached).to.be.oneOf(ids)
        const some = await archive.page('o', { ...filter, from, limit: 20, effort: 5000 })
        expect(some.entries.length).to.be.within(1, 5)
        expect(some.reached).to.equal(some.entries.at(from === 'first' ? -1 : 0)?.id)
        const found = await archive.page('o', { ...q, text: 'large', limit: 20 })
        expect(found.entries.map(({ id }) => id)).to.deep.equal(
          ids.filter((_, i) => !('with' in filter) || i % 2 === 1),
        )
      }
    searching = false
    expect(most).to.be.at.most(2)
    await store.close()
  })
})
