/** XEP-0054 vcard-temp 1.3.0: a business card for each account, written by its owner, read by anyone. */
import { defineModule, type Doc } from '../server/module.ts'
import { StanzaError } from '../server/xmpp/errors.ts'
import { parseXml } from '../server/xmpp/parser.ts'

const NS = 'vcard-temp'
const KEY = 'vcard'

interface Stored extends Doc {
  readonly xml: string
}

export default defineModule({
  name: 'vcard',
  summary: 'Keeps a vCard for each account',
  specs: [{ xep: 54, version: '1.3.0', status: 'complete' }],
  setup(ctx) {
    const docs = ctx.storage.docs<Stored>('cards')
    ctx.disco.feature('host', NS) // §4
    ctx.iq('account', 'get', NS, 'vCard', async (iq) => {
      const stored = await docs.get(iq.to.local, KEY)
      if (stored !== undefined) return parseXml(stored.xml)
      // §3.1 for one's own; §3.3: for others the same as for accounts that do not exist
      throw new StanzaError(iq.from.bare.equals(iq.to.bare) ? 'item-not-found' : 'service-unavailable')
    })
    // §3.2: of others: forbidden, by the target. A set replaces the whole card.
    ctx.iq(
      'self',
      'set',
      NS,
      'vCard',
      async (iq) => {
        await docs.put(iq.to.local, KEY, { xml: iq.payload.toString() })
      },
      { advertise: false },
    )
  },
})
