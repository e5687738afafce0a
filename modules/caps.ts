/**
 * XEP-0115 Entity Capabilities 1.6.0 of the server: a hash of its disco information among the stream features (§6.3), so that
 * clients need not ask each time. Capabilities of clients pass through in their presence untouched.
 */
import { createHash } from 'node:crypto'
import { c, defineModule, type DiscoInfo } from '../server/module.ts'
import { type Element, el } from '../server/xmpp/element.ts'
import { StreamError } from '../server/xmpp/errors.ts'
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
      forbids: [],
      advertise: () => el('c', NS_CAPS, { hash: 'sha-1', node, ver: ver() }),
      handle: () => {
        throw new StreamError('unsupported-stanza-type', 'capabilities are not negotiated')
      },
    })
  },
})

/** §5.1: the string that is hashed, and its hash. Identities, features and forms in any order. */
export function verification(info: DiscoInfo): string {
  const text = [
    ...identityLines(info).map((line) => line.join('/')),
    ...info.features.toSorted(byOctets),
    ...info.forms.flatMap(formLines).toSorted(byFirst).flat(),
  ]
  return createHash('sha1')
    .update(text.map((factor) => `${factor}<`).join(''), 'utf8')
    .digest('base64')
}

/** Steps 2 and 3: by category, then type, then language; sorted part by part, as '/' is not the lowest of characters. */
function identityLines(info: DiscoInfo): readonly string[][] {
  const lines = info.identities.map((i) => [i.category, i.type, i.lang ?? '', i.name ?? ''])
  return lines.toSorted((a, b) => {
    const at = a.findIndex((part, i) => part !== b[i])
    return byOctets(a[at] ?? '', b[at] ?? '')
  })
}

/** Step 7, as the factors between the '<' characters. §5.4 step 3.6: a form without a hidden FORM_TYPE does not count. */
function formLines(form: Element): readonly string[][] {
  const fields = form.getChildren('field', NS.DATA).map((field) => ({
    name: field.attr('var') ?? '',
    type: field.attr('type'),
    values: field.getChildren('value', NS.DATA).map((value) => value.text()),
  }))
  const formType = fields.find((f) => f.name === 'FORM_TYPE' && f.type === 'hidden')?.values[0]
  if (formType === undefined) return []
  const others = fields.filter((f) => f.name !== 'FORM_TYPE').toSorted((a, b) => byOctets(a.name, b.name))
  return [[formType, ...others.flatMap((f) => [f.name, ...f.values.toSorted(byOctets)])]]
}

const byFirst = (a: readonly string[], b: readonly string[]): number => byOctets(a[0] ?? '', b[0] ?? '')
/** The collation i;octet, which for UTF-8 is the order of code points. */
const byOctets = (a: string, b: string): number => Buffer.compare(Buffer.from(a), Buffer.from(b))
