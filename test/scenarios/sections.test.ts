/** sections.ts tells the truth: what it says of dialogues and tests is there. */
import { expect } from 'chai'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { loadDialogues } from './format.ts'
import { citedBy, RULES } from './sections.ts'

const cited = citedBy([...loadDialogues(import.meta.dirname).values()].flat())

describe('sections of specifications', () => {
  for (const [name, { dialogues, tests }] of Object.entries(RULES)) {
    it(`${name}: each section with a rule for servers has a dialogue`, () => {
      expect(dialogues.split(' ').filter((section) => cited.get(name)?.has(section) !== true)).to.deep.equal(
        [],
      )
    })
    it(`${name}: the tests named for the others are there`, () => {
      const files = Object.values(tests ?? {}).map((proof) => proof.split(' ')[0] ?? '')
      expect(files.filter((file) => !existsSync(join(import.meta.dirname, '..', file)))).to.deep.equal([])
    })
  }

  it('are read from the line of a dialogue', () => {
    const [dialogue] = [...loadDialogues(import.meta.dirname).values()].flat()
    const specs = ['XEP-0198 §4, §9.2.1; RFC 6121 §8.5.3.2.1 rule 2; RFC 6121 §A.1']
    const found = citedBy(dialogue === undefined ? [] : [{ ...dialogue, specs }])
    expect([...found].map(([spec, sections]) => [spec, ...sections])).to.deep.equal([
      ['XEP-0198', '4', '9.2.1'],
      ['RFC 6121', '8.5.3.2.1', 'A.1'],
    ])
  })
})
