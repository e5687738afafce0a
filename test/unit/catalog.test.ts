/** How modules are found: files and folders, and names that must agree. */
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { expect } from 'chai'
import { findModules } from '../../server/catalog.ts'
import { tempFolder } from '../helpers/temp.ts'

async function found(files: Readonly<Record<string, string>>): Promise<string[] | string> {
  await using folder = await tempFolder()
  await writeFile(join(folder.path, 'package.json'), '{"type":"module"}')
  for (const [name, text] of Object.entries({ 'modules/README.md': '', ...files })) {
    const path = join(folder.path, name)
    await mkdir(dirname(path), { recursive: true })
    await writeFile(path, text)
  }
  return await findModules(join(folder.path, 'modules')).then(
    (modules) => [...modules.keys()],
    (error: Error) => error.message,
  )
}
const module = (name: string): string =>
  `export default { name: '${name}', summary: '', specs: [], setup() {} }\n`

describe('catalog', () => {
  it('finds each file and each folder with an index.ts, in the order of their names', async () => {
    const files = {
      'modules/zebra.ts': module('zebra'),
      'modules/ant/index.ts': `import './part.ts'\n${module('ant')}`,
      'modules/ant/part.ts': 'export const part = 1\n',
      'modules/notes.txt': 'no module',
      'modules/beginnings/part.ts': 'export const part = 1\n',
    }
    expect(await found(files)).to.deep.equal(['ant', 'zebra'])
  })

  it('finds nothing in an empty folder', async () => {
    expect(await found({})).to.deep.equal([])
  })

  for (const [what, text] of [
    ['another name than its file', module('other')],
    ['no default export', 'export const x = 1\n'],
    ['a default export that is no module', 'export default { name: "thing" }\n'],
    ['a default export that is null', 'export default null\n'],
  ] as const)
    it(`refuses a module with ${what}, and names its file`, async () => {
      expect(await found({ 'modules/thing.ts': text })).to.equal(
        'modules/thing.ts does not define module thing',
      )
    })

  it('refuses a folder whose index.ts has another name', async () => {
    expect(await found({ 'modules/thing/index.ts': module('index') })).to.equal(
      'modules/thing/index.ts does not define module thing',
    )
  })

  it('fails on a folder that does not exist', async () => {
    const failure = await findModules('/nonexistent/modules').then(
      () => 'found',
      (error: Error) => error.message,
    )
    expect(failure).to.match(/ENOENT/)
  })

  it('finds the modules of this project', async () => {
    const modules = await findModules()
    expect([...modules.keys()]).to.include.members(['accounts', 'disco', 'ping', 'roster'])
    for (const [name, def] of modules) expect(def.name).to.equal(name)
  })
})
