/** Generated files are what the manifests and schemas say now. */
import { findModules } from '../../server/catalog.ts'
import { writeDocs } from '../../server/docs.ts'
import { expectNone } from './sources.ts'

describe('generated files', () => {
  it('are up to date (else: npm run specs)', async () => {
    expectNone(await writeDocs(await findModules(), true), 'not up to date')
  })
})
