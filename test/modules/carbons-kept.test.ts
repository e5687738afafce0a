/** XEP-0280 §7 and XEP-0160 §2: messages that no session takes, for devices that get copies: each of them once, and none is lost. */
import { expect } from 'chai'
import carbons from '../../modules/carbons/index.ts'
import disco from '../../modules/disco.ts'
import mam from '../../modules/mam/index.ts'
import offline from '../../modules/offline/index.ts'
import presence from '../../modules/presence/index.ts'
import roster from '../../modules/roster/index.ts'
import sm from '../../modules/stream-management/index.ts'
import stanzaId from '../../modules/stanza-id.ts'
import { query } from '../helpers/archive.ts'
import { NS, seen } from '../helpers/carbons.ts'
import type { TestClient, TestHost } from '../helpers/host.ts'
import { ask } from '../helpers/iq.ts'
import { Fresh, resume } from '../helpers/managed.ts'
import { arrive, bodies, HINTS, messages, romeoAt, say, start } from '../helpers/offline.ts'

const modules = [disco, roster, presence, offline, carbons, sm]
const AWAY = '<presence><priority>-1</priority></presence>'

async function copying(h: TestHost, resource = 'balcony', first = ''): Promise<TestClient> {
  const client = await h.client(`juliet@example.org/${resource}`)
  if (first !== '') await client.send(first)
  await ask(client, 'set', undefined, `<enable xmlns='${NS}'/>`)
  client.take()
  return client
}
const got = (client: TestClient): string[] => seen(messages(client.take()))
const becomes = async (client: TestClient, xml: string): Promise<string[]> =>
  seen(messages(await client.send(xml)))

describe('module carbons: messages that are kept', () => {
  it('a device that is not available yet gets them once, when it is', async () => {
    await using h = await start({}, { modules })
    const [romeo, juliet] = [await romeoAt(h), await copying(h)]
    await romeo.send(say('1') + say('2'))
    expect(got(juliet)).to.eql([])
    expect(await becomes(juliet, '<presence/>')).to.eql(['1', '2'])
    expect(await arrive(h, 'garden')).to.eql([])
  })

  it('what another device of the account said to the account, too', async () => {
    await using h = await start({}, { modules })
    const [juliet, other] = [await copying(h), await copying(h, 'garden')]
    await other.send(say('1'))
    expect(await becomes(juliet, '<presence/>')).to.eql(['1'])
    expect([got(juliet), await becomes(other, '<presence/>')]).to.eql([[], []])
  })

  it('one that ends before has taken nothing from the next', async () => {
    await using h = await start({}, { modules })
    const [romeo, juliet] = [await romeoAt(h), await copying(h)]
    const away = await copying(h, 'chamber', AWAY)
    await romeo.send(say('1'))
    await juliet.close()
    await away.drop()
    expect(bodies(await arrive(h, 'garden'))).to.eql(['1'])
  })

  it('one of negative priority gets its copy at once, and nothing again when it raises that', async () => {
    await using h = await start({}, { modules })
    const [romeo, juliet] = [await romeoAt(h), await copying(h, 'balcony', AWAY)]
    await romeo.send(say('1') + say('2'))
    expect(got(juliet)).to.eql(['received 1', 'received 2'])
    expect(await becomes(juliet, '<presence/>')).to.eql([])
    expect(await arrive(h, 'garden')).to.eql([])
  })

  it('XEP-0198: a copy that it has not confirmed may be lost; then the message comes', async () => {
    await using h = await start({}, { modules })
    const juliet = await copying(h, 'balcony', "<enable xmlns='urn:xmpp:sm:3'/>" + AWAY)
    const romeo = await romeoAt(h)
    await romeo.send(say('1'))
    expect(got(juliet)).to.eql(['received 1'])
    const confirmed = juliet.session.output?.sentCount
    await juliet.send(`<a xmlns='urn:xmpp:sm:3' h='${confirmed}'/>`)
    await romeo.send(say('2'))
    expect(await becomes(juliet, '<presence/>')).to.eql(['received 2', '2'])
  })

  it('XEP-0198 §5: a copy that came while it had no stream, and that it has confirmed, is none that may be lost', async () => {
    await using h = await start({}, { modules })
    const juliet = await h.client('juliet@example.org/balcony')
    const [enabled] = await juliet.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
    await juliet.send(AWAY)
    await ask(juliet, 'set', undefined, `<enable xmlns='${NS}'/>`)
    const { output } = juliet.session
    const before = output?.sentCount ?? 0
    await juliet.drop()
    await (await romeoAt(h)).send(say('1'))
    const back = await Fresh.open(h, {}, 'juliet@example.org')
    const { elements } = await back.send(resume(enabled?.attr('id') ?? '', before))
    expect(elements.map((e) => e.getName())).to.include('message')
    await back.send(`<a xmlns='urn:xmpp:sm:3' h='${output?.sentCount}'/>`)
    const raised = await back.send('<presence/>')
    expect(raised.elements.map((e) => e.getName())).to.eql(['presence'])
  })

  it('XEP-0198 §4: what was kept and is lost with the device that it was given to has no copy', async () => {
    await using h = await start({}, { modules })
    const [romeo, juliet] = [await romeoAt(h), await copying(h)]
    await romeo.send(say('1'))
    const phone = await h.client('juliet@example.org/phone')
    await phone.send("<enable xmlns='urn:xmpp:sm:3'/>")
    expect(await becomes(phone, '<presence/>')).to.eql(['1'])
    await phone.drop()
    expect(await becomes(juliet, '<presence/>')).to.eql(['1'])
  })

  it('XEP-0313: a device that reads the archive gets all in the order of that, and nothing again', async () => {
    await using h = await start({}, { modules: [...modules, stanzaId, mam] })
    const romeo = await romeoAt(h)
    const juliet = await copying(h, 'balcony', "<enable xmlns='urn:xmpp:sm:3'/>")
    await query(juliet)
    juliet.take()
    await romeo.send(say('1') + say('2').replace('example.org', 'example.org/balcony') + say('3'))
    expect(got(juliet)).to.eql(['received 1', '2', 'received 3'])
    expect(await becomes(juliet, '<presence/>')).to.eql([])
  })

  it('what is not kept is copied at once', async () => {
    await using h = await start({}, { modules })
    const [romeo, juliet] = [await romeoAt(h), await copying(h)]
    await romeo.send(say('1', undefined, `<no-store xmlns='${HINTS}'/>`))
    expect(got(juliet)).to.eql(['received 1'])
  })

  it('what finds no room, and is only in the archive, is copied then', async () => {
    await using h = await start({ messages: 1 }, { modules: [...modules, stanzaId, mam] })
    const [romeo, juliet] = [await romeoAt(h), await copying(h)]
    expect(await romeo.send(say('1') + say('2'))).to.eql([])
    expect(got(juliet)).to.eql(['received 2'])
    expect(await becomes(juliet, '<presence/>')).to.eql(['1'])
  })
})
