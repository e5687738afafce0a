/**
 * XEP-0115 Entity Capabilities 1.6.0 of the server: a hash of its disco information among the stream features (§6.3), so that
 * clients need not ask each time. Capabilities of clients pass through in their presence untouched.
 */
import { createHash } from 'node:crypto'
import { c, defineModule, type DiscoInfo } from '../server/module.ts'
import { type Element, el } from '../server/xmpp/element.ts'
import { NS } from '../server/xmpp/ns.ts'

const NS_CAPS = 'http://jabber.org/protocol/caps'

const config = c.object({
  node: c.string().min(1).default('urn:hermod:server').describe('URI that names the software (§4).'),
})

export default defineModule({
  name: 'caps',
  summary: 'Announces a hash of what the server can do',
  specs: [
    {
      xep: 115,
      version: '1.6.0',
      status: 'complete',
      note: 'without caps optimization (§8.4), which is optional',
    },
  ],
  requires: ['disco'],
  config,
  setup(ctx, { node }) {
    let hash: string | undefined
    const ver = (): string => (hash ??= verification(ctx.disco.info('host')))
    ctx.disco.onChange(() => {
      hash = undefined
    })
    ctx.disco.feature('host', NS_CAPS) // §7
    ctx.disco.node(
      'host',
      (asked) => asked === `${node}#${ver()}`,
      () => ctx.disco.info('host'),
    )
    ctx.streamFeature({
      ns: NS_CAPS,
      streams: ['c2s', 's2s'],
      needs: ['authenticated'],
      forbids: ['bound'],
      advertise: () => el('c', NS_CAPS, { hash: 'sha-1', node, ver: ver() }),
      handle: () => undefined,
    })
  },
})

/** §5.1: the string that is hashed, and its hash. Sorting is by octets, which for UTF-8 is the order of code points. */
export function verification(info: DiscoInfo): string {
  const identities = info.identities.map((i) => `${i.category}/${i.type}/${i.lang ?? ''}/${i.name ?? ''}<`)
  const features = info.features.map((f) => `${f}<`)
  const forms = info.forms.map(formText)
  const text = [identities, features, forms].map((parts) => parts.toSorted(byOctets).join('')).join('')
  return createHash('sha1').update(text, 'utf8').digest('base64')
}

/** §5.1 step 7. A form begins with its FORM_TYPE, so that forms sort by it. */
function formText(form: Element): string {
  const fields = form.getChildren('field', NS.DATA)
  const values = (field: Element): string[] =>
    field
      .getChildren('value', NS.DATA)
      .map((v) => `${v.text()}<`)
      .toSorted(byOctets)
  const type = fields.filter((f) => f.attr('var') === 'FORM_TYPE').flatMap(values)
  const others = fields
    .filter((f) => f.attr('var') !== 'FORM_TYPE')
    .map((f) => `${f.attr('var') ?? ''}<${values(f).join('')}`)
  return [...type, ...others.toSorted(byOctets)].join('')
}

const byOctets = (a: string, b: string): number => Buffer.compare(Buffer.from(a), Buffer.from(b))
