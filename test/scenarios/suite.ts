/** Turns the dialogue files of this folder into mocha tests against one server. */
import { after, before, describe, it } from 'mocha'
import { loadDialogues, type TargetName } from './format.ts'
import { runDialogue } from './run.ts'
import type { Target } from './stage.ts'

/** Declares one test per dialogue; `open` starts the server once for all of them. `only`: a regular expression on "file: title". */
export function scenarioSuite(
  name: TargetName,
  open: () => Promise<Target & AsyncDisposable>,
  only?: string,
): void {
  describe(`scenarios: ${name}`, () => {
    let target: (Target & AsyncDisposable) | undefined
    before(async function () {
      this.timeout(60_000)
      target = await open()
    })
    after(async function () {
      this.timeout(20_000)
      await target?.[Symbol.asyncDispose]()
    })
    for (const [file, dialogues] of loadDialogues(import.meta.dirname)) {
      describe(file, () => {
        for (const dialogue of dialogues) {
          const title = `${dialogue.title} (${dialogue.specs.join('; ')})`
          if (only !== undefined && !new RegExp(only).test(`${file}: ${dialogue.title}`)) continue
          const skipped = dialogue.skip.get(name)
          if (skipped !== undefined) {
            it(`${title} [not run: ${skipped}]`)
            continue
          }
          it(title, async function () {
            this.timeout(30_000)
            if (target === undefined) throw new Error('the server did not start')
            const outcome = await runDialogue(dialogue, target)
            if (outcome.kind === 'differs' && this.test !== undefined)
              this.test.title += ` [differs: ${outcome.reason}]`
          })
        }
      })
    }
  })
}
