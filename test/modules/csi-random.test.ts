/** XEP-0352 §3.2, RFC 6120 §10.1: whatever comes in which order, what reaches the client is in order, and only what may be missing is. */
import { expect } from 'chai'
import fc from 'fast-check'
import csi from '../../modules/csi.ts'
import streamManagement from '../../modules/stream-management/index.ts'
import type { Element } from '../../server/xmpp/element.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { testHost } from '../helpers/host.ts'
import { fromRemote } from '../helpers/im.ts'
import { Fresh, resume } from '../helpers/managed.ts'

const PHONE = 'juliet@example.org/phone'
const EVENT = "<event xmlns='http://jabber.org/protocol/pubsub#event'/>"
const TYPING = "<composing xmlns='http://jabber.org/protocol/chatstates'/>"
const KINDS = ['presence a', 'presence b', 'gone a', 'message', 'typing', 'event'] as const
type Kind = (typeof KINDS)[number]

function stanza(kind: Kind, id: string): string {
  const [what, who = 'x'] = kind.split(' ')
  const attrs = `from='${who}@elsewhere.example/x' to='${PHONE}' id='${id}'`
  switch (what) {
    case 'presence':
      return `<presence ${attrs}/>`
    case 'gone':
      return `<presence ${attrs} type='unavailable'/>`
    case 'message':
      return `<message ${attrs} type='chat'><body>${id}</body></message>`
    case 'typing':
      return `<message ${attrs} type='chat'>${TYPING}</message>`
    default:
      return `<message ${attrs} type='headline'>${EVENT}</message>`
  }
}

describe('csi: any order (random)', () => {
  it('with a stream that is lost and comes back, too', async () => {
    const step = fc.oneof(
      { weight: 12, arbitrary: fc.constantFrom(...KINDS) },
      { weight: 2, arbitrary: fc.constantFrom('inactive' as const, 'active' as const) },
      { weight: 1, arbitrary: fc.constant('lose' as const) },
    )
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
        await using host = await testHost({ modules: [csi, streamManagement], accounts: ['juliet'] })
        const client = await host.client(PHONE)
        const [enabled] = await client.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
        const previd = enabled?.attr('id') ?? ''
        const got: string[] = []
        const take = (elements: readonly Element[]) => {
          for (const e of elements) if (e.ns === NS.CLIENT) got.push(e.attr('id') ?? '')
        }
        const sent: { readonly id: string; readonly kind: Kind }[] = []
        let lost = false
        for (const one of steps) {
          if (one === 'lose') {
            if (!lost) await client.drop()
            take(client.take())
            lost = true
          } else if (one === 'active' || one === 'inactive') {
            if (!lost) take(await client.send(`<${one} xmlns='urn:xmpp:csi:0'/>`))
          } else {
            const id = String(sent.length)
            sent.push({ id, kind: one })
            await fromRemote(host, stanza(one, id))
          }
        }
        if (!lost) take(await client.send("<active xmlns='urn:xmpp:csi:0'/>"))
        else {
          const fresh = await Fresh.open(host, {}, 'juliet@example.org')
          const { elements } = await fresh.send(resume(previd, got.length))
          for (const e of elements) if (e.getNS() === NS.CLIENT) got.push(String(e.attrs['id']))
        }
        // in the order in which it was sent, nothing twice
        const numbers = got.map(Number)
        expect(numbers).to.deep.equal(numbers.toSorted((x, y) => x - y))
        expect(new Set(got).size).to.equal(got.length)
        // what may be missing: chat states, and presence that was followed by other presence of the same sender
        for (const [i, { id, kind }] of sent.entries()) {
          const [what, who] = kind.split(' ')
          if (got.includes(id) || what === 'typing') continue
          const newer = sent.slice(i + 1).some((later) => who !== undefined && later.kind.endsWith(` ${who}`))
          expect(newer, `${kind} ${id} of ${sent.map((s) => s.kind).join(', ')}`).to.equal(true)
        }
      }),
      { numRuns: 60 },
    )
  })
})
