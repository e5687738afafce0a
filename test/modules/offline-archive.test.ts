/** XEP-0313 §6.1.1, XEP-0386 §3.2: what a device is still given that reads the archive of its account. */
import { expect } from 'chai'
import type { Element } from '../../server/xmpp/element.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { formatDateTime } from '../../server/xmpp/xml-time.ts'
import sm from '../../modules/stream-management/index.ts'
import { FULLTEXT } from '../../modules/mam/ns.ts'
import { type Asked, controlledStore, NS_MAM, query } from '../helpers/archive.ts'
import type { TestClient, TestHost } from '../helpers/host.ts'
import { ask } from '../helpers/iq.ts'
import { bodies, romeoAt, say, switched, withArchive } from '../helpers/offline.ts'

const PRESENCE = '<presence/>'
/** Juliet with no presence yet, and romeo who has written these. */
async function scene(h: TestHost, ...texts: string[]): Promise<[TestClient, TestClient]> {
  const romeo = await romeoAt(h)
  for (const text of texts) await romeo.send(say(text))
  return [romeo, await h.client('juliet@example.org/balcony')]
}
const asks = async (client: TestClient, what: Asked = {}): Promise<void> => {
  expect((await query(client, what)).outcome).to.equal('result')
  client.take()
}

describe('module offline: devices that read the archive (XEP-0313 §6.1.1)', () => {
  it('what comes after the device asked and before its presence is given to it', async () => {
    await using h = await withArchive()
    const [romeo, juliet] = await scene(h, '1')
    await asks(juliet)
    for (const text of ['2', '3']) await romeo.send(say(text))
    expect(bodies(await juliet.send(PRESENCE))).to.eql(['2', '3'])
    await juliet.send("<presence type='unavailable'/>")
    await romeo.send(say('4'))
    expect(bodies(await juliet.send(PRESENCE))).to.eql(['4'])
  })

  it('asked again meanwhile: only what came since', async () => {
    await using h = await withArchive()
    const [romeo, juliet] = await scene(h, '1')
    await asks(juliet)
    await romeo.send(say('2'))
    await asks(juliet)
    await romeo.send(say('3'))
    expect(bodies(await juliet.send(PRESENCE))).to.eql(['3'])
  })

  it('XEP-0386 §3.2: only what is there at the time of binding is cleared', async () => {
    await using h = await withArchive()
    const [romeo, juliet] = await scene(h, '1')
    const parts: Element[] = []
    const { session, jid } = juliet
    await h.host.hooks.chain('bind2:bound').run({ session, jid, parts })
    expect(parts.map((part) => part.name)).to.eql(['metadata'])
    await romeo.send(say('2'))
    expect(bodies(await juliet.send(PRESENCE))).to.eql(['2'])
  })

  for (const [what, form] of [
    ['with one contact', { with: 'nurse@example.org' }],
    ['up to a time', { end: '2020-01-01T00:00:00Z' }],
    ['by words', { [FULLTEXT]: 'nothing' }],
  ] as const)
    it(`a query ${what} is for less than what waits`, async () => {
      await using h = await withArchive()
      const [, juliet] = await scene(h, '1', '2')
      await asks(juliet, { form })
      expect(bodies(await juliet.send(PRESENCE))).to.eql(['1', '2'])
    })

  it('nor does one for single messages, or up to one, take away what waits', async () => {
    await using h = await withArchive()
    const [, juliet] = await scene(h, '1', '2')
    const { ids } = await query(await h.client('juliet@example.org/elsewhere'))
    await asks(juliet, { form: { ids: [ids[0]!] } })
    await asks(juliet, { form: { 'before-id': ids[1]! } })
    expect(bodies(await juliet.send(PRESENCE))).to.eql(['1', '2'])
  })

  it('a page, a count or the metadata: the device goes on from there', async () => {
    await using h = await withArchive()
    for (const [at, asked] of [{ rsm: '<max>1</max>' }, { rsm: '<max>0</max>' }, undefined].entries()) {
      const [, juliet] = await scene(h, '1', '2')
      if (asked !== undefined) await asks(juliet, asked)
      else await ask(juliet, 'get', undefined, `<metadata xmlns='${NS_MAM}'/>`)
      expect([at, bodies(await juliet.send(PRESENCE))]).to.eql([at, []])
      await juliet.close()
    }
  })

  it('what another device took first does not count', async () => {
    await using h = await withArchive()
    const [romeo, juliet] = await scene(h, '1')
    await asks(juliet)
    await romeo.send(say('2'))
    const other = await h.client('juliet@example.org/garden')
    expect(bodies(await other.send(PRESENCE))).to.eql(['1', '2'])
    await other.close()
    await romeo.send(say('3'))
    expect(bodies(await juliet.send(PRESENCE))).to.eql(['3'])
  })

  it('what counts is when a message began to be kept, not when the store had it', async () => {
    const disk = await switched()
    await using h = await withArchive({}, { store: disk.store })
    const [romeo, juliet] = await scene(h)
    const slow = Promise.withResolvers<void>()
    disk.reading = slow.promise // the first message waits for the count
    romeo.transport.feed(say('1'))
    await h.settle()
    juliet.transport.feed(`<iq type='set' id='q'><query xmlns='${NS_MAM}'/></iq>`)
    await h.settle()
    romeo.transport.feed(say('2'))
    await h.settle()
    disk.reading = undefined
    slow.resolve()
    await h.settle()
    expect(juliet.take().map((e) => e.name)).to.eql(['message', 'iq'])
    expect(bodies(await juliet.send(PRESENCE))).to.eql(['2'])
  })

  it('what is kept only now, and was in the archive before the device asked, does not come by itself', async () => {
    await using h = await withArchive()
    const [romeo, juliet] = await scene(h)
    const keep = async (text: string, since?: Date, delay = ''): Promise<void> => {
      const archived = `<stanza-id xmlns='${NS.SID}' by='juliet@example.org' id='${text}'/>${delay}`
      const xml = say(text, "type='chat' xmlns='jabber:client' from='romeo@example.org/orchard'", archived)
      const e = { stanza: parseXml(xml), from: romeo.jid, to: juliet.jid.bare }
      await h.service('offline').keep(e, since)
    }
    const delay = (at: number): string =>
      `<delay xmlns='${NS.DELAY}' from='example.org' stamp='${formatDateTime(at)}'/>`
    const before = h.clock.now()
    await h.clock.advance(10)
    await asks(juliet)
    const asked = h.clock.now()
    await keep('1')
    await keep('2', new Date(before))
    await keep('3', undefined, delay(before))
    // at the same time, or nobody knows: rather once too often
    await keep('4', new Date(asked))
    await keep('5', undefined, delay(asked))
    expect(bodies(await juliet.send(PRESENCE))).to.eql(['1', '4', '5'])
  })

  for (const [what, back] of [
    ['', 0],
    [', also when the clock was set back', 3_600_000],
  ] as const)
    it(`what another device lost that was sent to it after this one asked is given to this one${what}`, async () => {
      await using h = await withArchive()
      await h.load(sm)
      const [romeo, juliet] = await scene(h)
      const phone = await h.client('juliet@example.org/phone')
      await phone.send("<enable xmlns='urn:xmpp:sm:3'/>")
      await phone.send(PRESENCE)
      await romeo.send(say('1'))
      await h.clock.advance(10)
      await asks(juliet)
      await h.clock.advance(10 - back)
      await romeo.send(say('2'))
      await h.clock.advance(10)
      await phone.drop() // it has confirmed nothing
      expect(bodies(await juliet.send(PRESENCE))).to.eql(back === 0 ? ['2'] : ['1', '2'])
    })

  it('what a device has read it has read after a change of the configuration, too', async () => {
    await using h = await withArchive()
    const [romeo, juliet] = await scene(h, '1')
    await asks(juliet)
    await h.reload(new Map([['offline', { messages: 2 }]]))
    await romeo.send(say('2'))
    await romeo.send(say('3'))
    expect(bodies(await juliet.send(PRESENCE))).to.eql(['2'])
  })

  it('a query that the store fails is one all the same', async () => {
    const disk = await controlledStore()
    await using h = await withArchive({}, { store: disk.store, onLog: () => undefined })
    const [, juliet] = await scene(h, '1')
    disk.failing.add('juliet')
    expect((await query(juliet)).outcome).to.match(/internal-server-error|service-unavailable/)
    disk.failing.clear()
    expect(bodies(await juliet.send(PRESENCE))).to.eql([])
  })

  it('one that nobody understands is none', async () => {
    await using h = await withArchive()
    const [, juliet] = await scene(h, '1')
    expect((await query(juliet, { form: { odd: 'x' } })).outcome).to.equal('cancel feature-not-implemented')
    expect(bodies(await juliet.send(PRESENCE))).to.eql(['1'])
  })
})
