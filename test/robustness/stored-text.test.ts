/**
 * Messages that are longer when the server writes them than they came (RFC 6120 §11.1: CDATA, references), or that a component sent, which may
 * send more: what was accepted can be read again wherever it is stored.
 */
import { expect } from 'chai'
import component from '../../modules/component/index.ts'
import disco from '../../modules/disco.ts'
import offline from '../../modules/offline/index.ts'
import presence from '../../modules/presence/index.ts'
import roster from '../../modules/roster/index.ts'
import { query } from '../helpers/archive.ts'
import { connected, DOMAIN, SECRET } from '../helpers/component.ts'
import { inbox, inboxHost } from '../helpers/inbox.ts'
import { arrive, bodies, romeoAt, say, start } from '../helpers/offline.ts'
import { settle } from '../helpers/settle.ts'

/** Less than 256 KiB, and more than a million characters with "&amp;" for each of them. */
const LONG = `<![CDATA[${'&'.repeat(202_000)}]]>`
const chat = (to: string, id: string, inner: string, from = '') =>
  `<message ${from} to='${to}' id='${id}' type='chat'>${inner}</message>`

describe('stored text that is longer than what came', () => {
  it('waits for its receiver with the others', async () => {
    const modules = [component, disco, roster, presence, offline]
    const config = {
      component: { components: { [DOMAIN]: { secret: SECRET } } },
      offline: { bytes: '8 MiB' },
    }
    await using h = await start({}, { modules, config })
    const romeo = await romeoAt(h)
    await romeo.send(say('1'))
    await romeo.send(chat('juliet@example.org', '2', `<body>2</body><x xmlns='urn:x'>${LONG}</x>`))
    const gateway = await connected(h)
    const inner = `<body>3</body><x xmlns='urn:x'>${'a'.repeat(1_010_000)}</x>`
    await gateway.talk(chat('juliet@example.org', '3', inner, `from='x@${DOMAIN}'`))
    await romeo.send(say('4'))
    expect(bodies(await arrive(h))).to.deep.equal(['1', '2', '3', '4'])
  })

  async function archived() {
    const h = await inboxHost()
    const juliet = await h.client('juliet@example.org/balcony')
    await juliet.send(chat('romeo@example.org', '1', '<body>rose one</body>'))
    await juliet.send(chat('romeo@example.org', '2', `<body>${LONG}</body>`))
    await juliet.send(chat('romeo@example.org', '3', '<body>rose two</body>'))
    const romeo = await h.client('romeo@example.org/phone')
    return { h, juliet, romeo, [Symbol.asyncDispose]: () => h[Symbol.asyncDispose]() }
  }

  it('is searched over (XEP-0431)', async () => {
    await using s = await archived()
    const found = await query(s.romeo, { form: { '{urn:xmpp:fulltext:0}fulltext': 'rose' } })
    expect([found.outcome, found.bodies]).to.deep.equal(['result', ['rose one', 'rose two']])
  })

  it('is counted in the inbox (XEP-0430)', async () => {
    await using s = await archived()
    expect(JSON.stringify(await inbox(s.romeo))).to.include('rose two')
  })

  it('does not keep others from being retracted (XEP-0424)', async () => {
    await using s = await archived()
    const retract = "<retract xmlns='urn:xmpp:message-retract:1' id='1'/>"
    await s.juliet.send(chat('romeo@example.org', '4', retract))
    await settle()
    const { bodies: left } = await query(s.romeo, { rsm: '<max>1</max>' })
    expect(left).to.deep.equal([undefined])
  })
})
