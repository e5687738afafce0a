/** Mocha's spec reporter that also writes its counts as JSON to the file HERMOD_CI_RESULTS, for .ci/run to add up. */
const { writeFileSync } = require('node:fs')
const { reporters, Runner } = require('mocha')

module.exports = class extends reporters.Spec {
  constructor(runner, options) {
    super(runner, options)
    let mongodb = 0
    runner.on(Runner.constants.EVENT_TEST_PASS, (test) => {
      if (/mongo/i.test(test.fullTitle())) mongodb += 1
    })
    runner.once(Runner.constants.EVENT_RUN_END, () => {
      const { passes, failures, pending } = runner.stats
      writeFileSync(process.env.HERMOD_CI_RESULTS, JSON.stringify({ passes, failures, pending, mongodb }))
    })
  }
}
