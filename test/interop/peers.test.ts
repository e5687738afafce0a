/** Runs the dialogues of test/scenarios against Prosody and ejabberd: what they share is the standard, not a habit of ours. */
import { describe, it } from 'mocha'
import { ejabberdProgram, prosodyProgram, startEjabberd, startProsody, type Peer } from '../helpers/peers.ts'
import type { Target } from '../scenarios/stage.ts'
import { scenarioSuite } from '../scenarios/suite.ts'

const only = process.env['ONLY']

for (const [name, program, start] of [
  ['prosody', prosodyProgram, startProsody],
  ['ejabberd', ejabberdProgram, startEjabberd],
] as const) {
  if (program !== undefined) scenarioSuite(name, () => start() as Promise<Peer & Target>, only)
  else if (process.env['CI'] !== undefined) {
    describe(`scenarios: ${name}`, () => {
      it('is installed', () => {
        throw new Error(`${name} is not installed; in CI it must be`)
      })
    })
  } else describe.skip(`scenarios: ${name} (not installed)`, () => it('runs the dialogues'))
}
