/** slixmpp resumes its session after the connection was cut: Debian's 1.8.3 and, where pip can install it, the newest (see slixmpp/resume.py). */
import { join } from 'node:path'
import { describe } from 'mocha'
import { startDriven } from './driven.ts'
import { findPythons } from './pythons.ts'
import { type Library, resumptionTests } from './resumption.ts'
import { describeWith } from './targets.ts'

const SCRIPT = join(import.meta.dirname, 'slixmpp/resume.py')

const pythons = await findPythons(true)

describeWith(pythons.size === 0 ? 'python3-slixmpp' : undefined, 'slixmpp resumes (XEP-0198 §5)', () => {
  for (const [version, python] of pythons) {
    const library: Library = {
      start: ({ jid, password, ca }) =>
        startDriven(python, [SCRIPT, '--jid', jid, '--password', password, '--ca', ca]),
      tellsFailure: true,
      // 1.8 empties its queue when it sends <resume/>
      ...(version.startsWith('1.8.') ? { forgets: 'what it has sent, when it resumes' } : {}),
    }
    describe(version, () => resumptionTests(library))
  }
})
