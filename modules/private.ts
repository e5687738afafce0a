/**
 * XEP-0049 Private XML Storage 1.2: XML that a client keeps on the server for its account, one document for each element name and
 * namespace.
 */
import { c, defineModule, type Doc, type Iq } from '../server/module.ts'
import { type Element, el } from '../server/xmpp/element.ts'
import { StanzaError } from '../server/xmpp/errors.ts'
import { parseXml } from '../server/xmpp/parser.ts'

const NS = 'jabber:iq:private'

/** Bytes of name and namespace together; a store takes no longer keys. */
const MAX_KEY_BYTES = 3000

interface Stored extends Doc {
  readonly xml: string
}

const config = c.object({
  maxElements: c
    .int()
    .min(1)
    .default(100)
    .describe('Elements an account may keep; each is bounded by the size of a stanza.'),
})

export default defineModule({
  name: 'private',
  summary: 'Keeps XML for clients',
  specs: [{ xep: 49, version: '1.2', status: 'complete' }],
  config,
  setup(ctx, { maxElements }) {
    const docs = ctx.storage.docs<Stored>('elements')
    // §2.3: others get forbidden, by the target
    ctx.iq('self', 'get', NS, 'query', async (iq) => {
      const asked = content(iq, 'bad-request') // §3: "Bad Format", which RFC 6120 calls bad-request
      // §2.3: not more than one namespace in one request
      if (asked.length > 1) throw new StanzaError('not-acceptable', { text: 'ask for one element at a time' })
      const [element] = asked
      const stored = element === undefined ? undefined : await docs.get(iq.to.local, keyOf(element))
      return el('query', NS, {}, stored === undefined ? element?.withChildren([]) : parseXml(stored.xml))
    })
    ctx.iq('self', 'set', NS, 'query', async (iq) => {
      const elements = content(iq, 'not-acceptable') // §2.3
      await bound(iq.to.local, elements)
      for (const element of elements) {
        const key = keyOf(element)
        // an empty element is how clients delete
        if (element.children.length === 0 && element.flat.length === 0) await docs.delete(iq.to.local, key)
        else await docs.put(iq.to.local, key, { xml: element.toString() })
      }
      return undefined
    })

    /** Refuses new elements beyond the bound before anything is stored. */
    async function bound(owner: string, elements: readonly Element[]): Promise<void> {
      const keys = new Set(elements.map(keyOf))
      for await (const [key] of docs.list(owner)) keys.add(key)
      if (keys.size > maxElements)
        throw new StanzaError('resource-constraint', { text: `at most ${maxElements} elements` })
    }
  },
})

/** The elements of a query; each needs a namespace of its own (§2.3). */
function content(iq: Iq, whenEmpty: 'bad-request' | 'not-acceptable'): readonly Element[] {
  const { elements } = iq.payload
  if (elements.length === 0) throw new StanzaError(whenEmpty)
  if (elements.some((e) => e.ns === NS || e.ns === ''))
    throw new StanzaError('not-acceptable', { text: 'each element needs a namespace of its own' })
  if (elements.some((e) => Buffer.byteLength(keyOf(e)) > MAX_KEY_BYTES))
    throw new StanzaError('not-acceptable', { text: 'the namespace is too long' })
  return elements
}

const keyOf = (element: Element): string => `${element.ns} ${element.name}`
