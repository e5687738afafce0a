/** RFC 6120 §13.11: what a message is answered with does not tell whether an account is away or does not exist (RFC 6121 §8.5.1, table 1). */
import { expect } from 'chai'
import disco from '../../modules/disco.ts'
import mam from '../../modules/mam/index.ts'
import offline from '../../modules/offline/index.ts'
import presence from '../../modules/presence/index.ts'
import roster from '../../modules/roster/index.ts'
import stanzaId from '../../modules/stanza-id.ts'
import { condition } from '../helpers/im.ts'
import { HINTS, romeoAt, start } from '../helpers/offline.ts'

const contents = {
  body: '<body>Hi</body>',
  'no-store': `<body>Hi</body><no-store xmlns='${HINTS}'/>`,
  'no-permanent-store': `<body>Hi</body><no-permanent-store xmlns='${HINTS}'/>`,
  'no-store, with an id': `<body>Hi</body><no-store xmlns='${HINTS}'/><origin-id xmlns='urn:xmpp:sid:0' id='$id'/>`,
  'chat state': "<active xmlns='http://jabber.org/protocol/chatstates'/>",
  'to be stored': `<active xmlns='http://jabber.org/protocol/chatstates'/><store xmlns='${HINTS}'/>`,
  receipt: "<received xmlns='urn:xmpp:receipts' id='x'/>",
  nothing: '',
}
const core = [disco, roster, presence]

describe('messages to accounts that are away, and to none (RFC 6120 §13.11)', () => {
  for (const [name, modules, config] of [
    ['neither kept nor archived', core, {}],
    ['kept', [...core, offline], {}],
    ['archived', [...core, stanzaId, mam], {}],
    ['kept and archived', [...core, stanzaId, mam, offline], {}],
    ['kept and not archived', [...core, stanzaId, mam, offline], { mam: { default: 'never' } }],
  ] as const)
    it(`where they are ${name}, all is answered alike`, async () => {
      await using h = await start({}, { modules, config })
      const romeo = await romeoAt(h)
      const outcomes = new Set<string>()
      for (const type of ['', 'normal', 'chat', 'odd', 'groupchat', 'headline', 'error'])
        for (const resource of ['', '/gone'])
          for (const [what, content] of Object.entries(contents)) {
            const answer = async (local: string): Promise<string> => {
              const attrs = `to='${local}@example.org${resource}' id='i'${type === '' ? '' : ` type='${type}'`}`
              const told = await romeo.send(
                `<message ${attrs}>${content.replace('$id', `${type}${resource}`)}</message>`,
              )
              return [type, resource, what, ...told.map((e) => condition(e))].join(' ')
            }
            const [away, none] = [await answer('juliet'), await answer('nobody')]
            expect(none).to.equal(away)
            outcomes.add(none.endsWith('service-unavailable') ? 'told' : 'silent')
          }
      expect([...outcomes].toSorted()).to.eql(['silent', 'told'])
      expect(h.host.account('nobody')).to.equal(undefined)
    })

  it('nothing is stored for a name without an account', async () => {
    await using h = await start({}, { modules: [...core, stanzaId, mam, offline] })
    const romeo = await romeoAt(h)
    await romeo.send("<message to='nobody@example.org' type='chat'><body>Hi</body></message>")
    for (const module of ['offline', 'mam']) {
      const archive = h.store.open('example.org', module).archive('messages')
      expect((await archive.page('nobody', { from: 'first', limit: 1 })).entries).to.eql([])
    }
  })
})
