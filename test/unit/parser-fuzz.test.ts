/** server/xmpp/parser.ts against sax: see test/fuzz/parser.ts, which does this for as long as it is told. */
import { readdirSync, readFileSync } from 'node:fs'
import { expect } from 'chai'
import fc from 'fast-check'
import { StreamError } from '../../server/xmpp/errors.ts'
import { agreement, cuts, fault } from '../fuzz/parser.ts'
import { LIMITS, Log } from '../helpers/parsing.ts'

const CORPUS = new URL('../fuzz/corpus/parser/', import.meta.url)

describe('parser: agrees with sax about what is XML', () => {
  it('generated and broken documents, however they are cut', () => {
    fc.assert(agreement, { numRuns: 1000, seed: 20260101 })
  })

  for (const file of readdirSync(CORPUS)) {
    it(`corpus: ${file}`, () => {
      const document = readFileSync(new URL(file, CORPUS), 'utf8')
      expect(fault(document)).to.equal(undefined)
      for (const places of fc.sample(cuts, { numRuns: 20, seed: 7 }))
        expect(fault(document, places)).to.equal(undefined)
    })
  }

  it('any bytes at all end in events or in a stream error, the same however they are cut', () => {
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 60 }),
      fc.array(fc.constantFrom(...Buffer.from('<>/=\'"&;]![CDATA?x:- \n\xff\xc3\xa9', 'latin1')), {
        maxLength: 60,
      }),
    )
    const run = (data: Buffer, step: number) => {
      const log = new Log(LIMITS)
      try {
        log.write(data, step)
        log.parser.end()
      } catch (error) {
        if (!(error instanceof StreamError)) throw error
        log.events.push('refused')
      }
      return log.events
    }
    fc.assert(
      fc.property(bytes, fc.integer({ min: 1, max: 9 }), (data, step) => {
        for (const before of ['', "<r xmlns:x='u'>", '<r><a>', "<r><a b='"]) {
          const whole = Buffer.concat([Buffer.from(before), Uint8Array.from(data)])
          expect(run(whole, step)).to.deep.equal(run(whole, Number.POSITIVE_INFINITY))
        }
      }),
      { numRuns: 2000, seed: 1 },
    )
  })
})
