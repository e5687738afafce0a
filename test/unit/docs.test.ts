/** Generated documents: tables of modules and options, JSON Schema, DOAP. */
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { expect } from 'chai'
import { findModules } from '../../server/catalog.ts'
import { writeDocs } from '../../server/docs.ts'
import type { AnyModule } from '../../server/loader.ts'
import { c } from '../../server/schema.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { parseDocument } from '../helpers/xml.ts'
import { tempFolder } from '../helpers/temp.ts'

const module: AnyModule = {
  name: 'ping',
  summary: 'Answers pings',
  specs: [
    { xep: 199, version: '2.0.1', status: 'complete' },
    { xep: 9999, version: '0.1', status: 'partial', note: 'without <this> & that' },
    { rfc: 6120, sections: '4.6' },
  ],
  config: c.object({
    timeout: c.duration('30s').describe('How long | in words.'),
    kinds: c
      .array(c.enum(['a', 'b']))
      .default(['a'])
      .describe('Which.'),
    inner: c.object({ deep: c.boolean().default(false).describe('Deep down.') }).prefault({}),
  }),
  setup: () => undefined,
}
const plain: AnyModule = {
  name: 'other',
  summary: 'Does else',
  specs: [{ xep: 199, version: '2.0.1', status: 'partial', note: 'only this' }], // the other one does all of it
  setup: () => undefined,
}
const modules = new Map([module, plain].map((m) => [m.name, m]))

async function project() {
  const folder = await tempFolder()
  for (const name of ['modules', 'config', 'server']) await mkdir(join(folder.path, name))
  const url = pathToFileURL(`${folder.path}/`)
  return {
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
    docs: (check: boolean, of = modules) => writeDocs(of, check, url),
    read: (name: string) => readFile(join(folder.path, name), 'utf8'),
    write: (name: string, text: string) => writeFile(join(folder.path, name), text),
  }
}
const DOAP = 'http://usefulinc.com/ns/doap#'
const RDF = 'http://www.w3.org/1999/02/22-rdf-syntax-ns#'
const XMPP = 'https://linkmauve.fr/ns/xmpp-doap#'
const ALL = ['modules/README.md', 'config/README.md', 'config/schema.json', 'server/doap.xml']

describe('docs', () => {
  it('--check names what differs and writes nothing; writing makes it fresh', async () => {
    await using p = await project()
    expect(await p.docs(true)).to.deep.equal(ALL)
    expect(await p.docs(true)).to.deep.equal(ALL)
    expect(await p.docs(false)).to.deep.equal([])
    expect(await p.docs(true)).to.deep.equal([])
    await p.write('server/doap.xml', 'old')
    expect(await p.docs(true)).to.deep.equal(['server/doap.xml'])
    const changed = new Map([['ping', { ...module, summary: 'Answers all pings' }]])
    expect(await p.docs(true, changed)).to.deep.equal(ALL)
  })

  it('keeps what stands around the generated part', async () => {
    await using p = await project()
    await p.write(
      'modules/README.md',
      '# Modules\n\nHow to write one.\n\n<!-- generated: modules -->\nold\n<!-- end: modules -->\n\nThe end.\n',
    )
    await p.docs(false)
    const text = await p.read('modules/README.md')
    expect(text).to.match(/^# Modules\n\nHow to write one\.\n\n<!-- generated: modules -->\n\n\| module/)
    expect(text).to.match(/<!-- end: modules -->\n\nThe end\.\n$/)
    expect(text).not.to.contain('old')
  })

  it('does not overwrite a document that has lost its marks', async () => {
    await using p = await project()
    await p.write('config/README.md', '# My own notes\n')
    const failure = await p.docs(false).then(
      () => 'written',
      (error: Error) => error.message,
    )
    expect(failure).to.equal('config/README.md has no section options')
    expect(await p.read('config/README.md')).to.equal('# My own notes\n')
  })

  it('has a row for each module: summary, specifications, whether it is on by default', async () => {
    await using p = await project()
    await p.docs(false)
    const text = await p.read('modules/README.md')
    expect(text).to.contain(
      '| [ping](./ping) | Answers pings | XEP-0199 2.0.1, XEP-9999 0.1 (partial), RFC 6120 4.6 | yes |',
    )
    expect(text).to.contain('| [other](./other) | Does else | XEP-0199 2.0.1 (partial) | no |')
  })

  it('has a row for each option: name, type, default as a user writes it, meaning', async () => {
    await using p = await project()
    await p.docs(false)
    const text = await p.read('config/README.md')
    expect(text).to.contain('### modules.ping')
    expect(text).to.contain('| `timeout` | string | `"30s"` | How long \\| in words. |')
    expect(text).to.contain('| `kinds` | list of `a`, `b` | `["a"]` | Which. |')
    expect(text).to.contain('| `inner.deep` | boolean | `false` | Deep down. |')
    expect(text).to.contain('| `limits.idle` | string | `"5min"` |')
    expect(text).to.contain('| `listen.client[].port` |')
    expect(text).not.to.contain('### modules.other')
  })

  it('is a JSON Schema for editors, with the options of each module', async () => {
    await using p = await project()
    await p.docs(false)
    const schema = JSON.parse(await p.read('config/schema.json')) as {
      properties: {
        modules: { properties: Record<string, { description: string; anyOf: object[] }> }
        hosts: object
      }
    }
    expect(schema.properties).to.include.keys('hosts', 'listen', 'tls', 'storage', 'limits', 'log', 'modules')
    expect(schema.properties.modules.properties['ping']?.description).to.equal('Answers pings')
    expect(JSON.stringify(schema.properties.modules.properties['ping'])).to.contain('"timeout"')
    expect(schema.properties.modules.properties['other']?.anyOf).to.deep.equal([
      { type: 'boolean' },
      { type: 'object' },
    ])
  })

  it('is a DOAP file: well-formed, with version, status and note of each specification (XEP-0453 §3)', async () => {
    await using p = await project()
    await p.docs(false)
    const text = await p.read('server/doap.xml')
    expect(parseDocument(text).getNS()).to.equal('http://www.w3.org/1999/02/22-rdf-syntax-ns#')
    const described = parseXml(text).getChild('Project', DOAP)
    const implemented = described?.getChildren('implements') ?? []
    expect(implemented.flatMap((i) => i.attr(`{${RDF}}resource`) ?? [])).to.deep.equal([
      'https://www.rfc-editor.org/info/rfc6120',
    ])
    const xeps = implemented.flatMap((i) => i.getChildren('SupportedXep', XMPP))
    const said = xeps.map((x) => [
      x.getChild('xep')?.attr(`{${RDF}}resource`),
      ...['version', 'status', 'note'].map((name) => x.getChildText(name)),
    ])
    expect(said).to.deep.equal([
      ['https://xmpp.org/extensions/xep-0199.html', '2.0.1', 'complete', undefined],
      ['https://xmpp.org/extensions/xep-9999.html', '0.1', 'partial', 'without <this> & that'],
    ])
  })

  it('works for the modules of this project', async () => {
    await using p = await project()
    await p.docs(false, new Map(await findModules()))
    expect(await p.read('server/doap.xml')).to.contain('xep-0030.html')
    expect(await p.docs(true, new Map(await findModules()))).to.deep.equal([])
  })
})
