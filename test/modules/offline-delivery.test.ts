/** XEP-0160 §2: when kept messages are delivered, that none is lost and none comes twice; devices that read an archive. */
import { expect } from 'chai'
import disco from '../../modules/disco.ts'
import offline from '../../modules/offline/index.ts'
import presence from '../../modules/presence/index.ts'
import roster from '../../modules/roster/index.ts'
import type { Element } from '../../server/xmpp/element.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { formatDateTime } from '../../server/xmpp/xml-time.ts'
import sm from '../../modules/stream-management/index.ts'
import { query } from '../helpers/archive.ts'
import type { TestClient, TestHost } from '../helpers/host.ts'
import { condition, fromRemote } from '../helpers/im.ts'
import { Fresh, resume } from '../helpers/managed.ts'
import {
  arrive,
  bodies,
  HINTS,
  messages,
  romeoAt,
  say,
  start,
  switched,
  withArchive,
} from '../helpers/offline.ts'

describe('module offline: delivery (XEP-0160 §2)', () => {
  it('in order, with the time of sending (XEP-0203 §3), once, to the first device that is there', async () => {
    await using h = await start()
    const romeo = await romeoAt(h)
    const times: string[] = []
    for (const text of ['1', '2', '3']) {
      times.push(formatDateTime(h.clock.now()))
      await romeo.send(say(text))
      await h.clock.advance(60_000)
    }
    const juliet = await h.client('juliet@example.org/balcony')
    expect(juliet.take()).to.eql([])
    const received = messages(await juliet.send('<presence/>'))
    expect(bodies(received)).to.eql(['1', '2', '3'])
    expect(received.map((e) => e.attr('from'))).to.eql(Array(3).fill('romeo@example.org/orchard'))
    const delays = received.map((e) => e.getChild('delay', NS.DELAY))
    expect(delays.map((delay) => delay?.attr('stamp'))).to.eql(times)
    expect(delays.map((delay) => delay?.attr('from'))).to.eql(Array(3).fill('example.org'))
    expect(messages(await juliet.send('<presence><show>away</show></presence>'))).to.eql([])
    expect(await arrive(h, 'garden')).to.eql([])
    await romeo.send(say('live'))
    expect(bodies(juliet.take())).to.eql(['live'])
  })

  it('RFC 6121 §8.5.2.2.1: not to a negative priority; as soon as it is raised', async () => {
    await using h = await start()
    const romeo = await romeoAt(h)
    const juliet = await h.client('juliet@example.org/balcony')
    await juliet.send('<presence><priority>-1</priority></presence>')
    expect(await romeo.send(say('1'))).to.eql([])
    expect(messages(juliet.take())).to.eql([])
    expect(bodies(await juliet.send('<presence><priority>0</priority></presence>'))).to.eql(['1'])
    await juliet.send("<presence type='unavailable'/>")
    await romeo.send(say('2'))
    expect(bodies(await juliet.send('<presence/>'))).to.eql(['2'])
  })

  it('presence directed to somebody is no reason', async () => {
    await using h = await start()
    const romeo = await romeoAt(h)
    await romeo.send(say('1'))
    const juliet = await h.client('juliet@example.org/balcony')
    expect(messages(await juliet.send("<presence to='romeo@example.org'/>"))).to.eql([])
    expect(bodies(await juliet.send('<presence/>'))).to.eql(['1'])
  })

  it('what arrives while they are read comes behind them', async () => {
    const disk = await switched()
    await using h = await start({}, { store: disk.store })
    const romeo = await romeoAt(h)
    await romeo.send(say('1'))
    const juliet = await h.client('juliet@example.org/balcony')
    const slow = Promise.withResolvers<void>()
    disk.reading = slow.promise
    expect(messages(await juliet.send('<presence/>'))).to.eql([])
    await romeo.send(say('2'))
    expect(messages(juliet.take())).to.eql([])
    slow.resolve()
    await h.settle()
    expect(bodies(juliet.take())).to.eql(['1', '2'])
  })

  it('two devices that come at the same time: none gets what the other has', async () => {
    await using h = await start()
    const romeo = await romeoAt(h)
    for (const text of ['1', '2', '3']) await romeo.send(say(text))
    const [one, two] = [await h.client('juliet@example.org/a'), await h.client('juliet@example.org/b')]
    one.transport.feed('<presence/>')
    two.transport.feed('<presence/>')
    await h.settle()
    expect([...bodies(one.take()), ...bodies(two.take())]).to.eql(['1', '2', '3'])
  })

  it('a device that goes while they are read: they stay for the next', async () => {
    const disk = await switched()
    await using h = await start({}, { store: disk.store })
    const romeo = await romeoAt(h)
    for (const text of ['1', '2']) await romeo.send(say(text))
    const juliet = await h.client('juliet@example.org/balcony')
    const slow = Promise.withResolvers<void>()
    disk.reading = slow.promise
    await juliet.send('<presence/>')
    await juliet.drop()
    slow.resolve()
    disk.reading = undefined
    await h.settle()
    expect(bodies(await arrive(h, 'garden'))).to.eql(['1', '2'])
  })

  it('a device that never reads them and goes: the rest comes to the next, in order, though the room was full', async () => {
    await using h = await start({ messages: 3 })
    const romeo = await romeoAt(h)
    for (const text of ['1', '2', '3']) await romeo.send(say(text))
    const juliet = await h.client('juliet@example.org/balcony')
    juliet.transport.blocked = true
    for (const xml of [
      "<message to='nowhere.example' id='e'><body>fills the pipe</body></message>",
      '<presence/>',
    ]) {
      juliet.transport.feed(xml)
      await h.settle()
    }
    const read = juliet.transport.written.join('')
    await juliet.drop()
    expect(romeo.take()).to.eql([])
    const rest = await arrive(h, 'garden')
    // What the transport had taken cannot be known to be lost.
    const taken = ['1', '2', '3'].filter((text) => read.includes(`<body>${text}</body>`))
    expect([...taken, ...bodies(rest)]).to.eql(['1', '2', '3'])
    expect(rest).not.to.have.length(0)
    for (const e of rest) expect(e.getChildren('delay', NS.DELAY)).to.have.length(1)
  })

  it('XEP-0198 §4: what a device never confirmed comes to the next one, in order, with the first time', async () => {
    await using h = await start({ messages: 3 }, { modules: [disco, roster, presence, sm, offline] })
    const romeo = await romeoAt(h)
    const stamp = formatDateTime(h.clock.now())
    for (const text of ['1', '2', '3']) await romeo.send(say(text))
    await h.clock.advance(60_000)
    const juliet = await h.client('juliet@example.org/balcony')
    await juliet.send("<enable xmlns='urn:xmpp:sm:3' resume='true' max='60'/>")
    expect(bodies(await juliet.send('<presence/>'))).to.eql(['1', '2', '3'])
    await juliet.drop()
    await romeo.send(say('4'))
    await h.clock.advance(3_600_000)
    expect(h.host.of('juliet')).to.have.length(0)
    const received = await arrive(h, 'garden')
    // the fourth found no room, and its sender knows
    expect([bodies(received), romeo.take().map((e) => [e.attr('id'), condition(e)])]).to.eql([
      ['1', '2', '3'],
      [['4', 'service-unavailable']],
    ])
    const stamps = received.map((e) => e.getChildren('delay', NS.DELAY).map((delay) => delay.attr('stamp')))
    expect(stamps).to.eql([[stamp], [stamp], [stamp]])
  })

  it('XEP-0198 §5: a device that loses its stream while they are read gets them when it is back, before what is newer', async () => {
    const disk = await switched()
    await using h = await start({}, { store: disk.store, modules: [disco, roster, presence, sm, offline] })
    const romeo = await romeoAt(h)
    for (const text of ['1', '2']) await romeo.send(say(text))
    const juliet = await h.client('juliet@example.org/balcony')
    const [enabled] = await juliet.send("<enable xmlns='urn:xmpp:sm:3' resume='true' max='60'/>")
    const slow = Promise.withResolvers<void>()
    disk.reading = slow.promise
    await juliet.send('<presence/>')
    await juliet.drop()
    slow.resolve()
    disk.reading = undefined
    await h.settle()
    await romeo.send(say('3'))
    const back = await Fresh.open(h, {}, 'juliet@example.org')
    const got = await back.send(resume(enabled?.attr('id') ?? '', 0))
    expect(got.elements.flatMap((e) => e.getChildText('body') ?? [])).to.eql(['1', '2', '3'])
    expect(bodies(await arrive(h, 'garden'))).to.eql([])
  })

  const SMALL = {
    modules: [disco, roster, presence, sm, offline],
    config: { 'stream-management': { maxStanzas: 50 } },
  }
  const many = Array.from({ length: 100 }, (_, i) => String(i))
  const confirm = (juliet: TestClient): Promise<Element[]> =>
    juliet.send(`<a xmlns='urn:xmpp:sm:3' h='${juliet.session.output?.sentCount}'/>`)

  /** Romeo has written to her, and she is there now: what she has got. */
  async function manyWait(h: TestHost, enable = '') {
    const romeo = await romeoAt(h)
    for (const text of many) await romeo.send(say(text))
    const juliet = await h.client('juliet@example.org/balcony')
    const [enabled] = await juliet.send(`<enable xmlns='urn:xmpp:sm:3'${enable}/>`)
    const got = bodies(await juliet.send('<presence/>'))
    return { romeo, juliet, id: enabled?.attr('id') ?? '', got }
  }

  it('XEP-0198 §4: more than may be unconfirmed of one session comes as its client confirms, before what is newer', async () => {
    await using h = await start({}, SMALL)
    const { romeo, juliet, got } = await manyWait(h)
    expect(got.length).to.be.lessThan(50)
    await romeo.send(say('new'))
    for (let i = 0; i < 6; i++) got.push(...bodies(await confirm(juliet)))
    expect(got).to.eql([...many, 'new'])
    expect(await arrive(h, 'garden')).to.eql([])
  })

  it('one that confirms late keeps its session and is given the rest then, or the next one is', async () => {
    await using h = await start({}, SMALL)
    const { romeo, juliet, got } = await manyWait(h)
    await h.clock.advance(6_000)
    await romeo.send(say('new'))
    expect(bodies(juliet.take())).to.eql(['new'])
    const confirmed = got.length
    got.push(...bodies(await confirm(juliet)))
    expect(got.length).to.be.greaterThan(confirmed)
    expect(got).to.eql(many.slice(0, got.length))
    await juliet.drop()
    expect(bodies(await arrive(h, 'garden'))).to.have.members(many.slice(confirmed))
  })

  it('XEP-0198 §4: one that gets something new all the time, and never has confirmed all of it, is given the rest too', async () => {
    await using h = await start({}, SMALL)
    const { romeo, juliet, got } = await manyWait(h)
    await h.clock.advance(6_000)
    for (let i = 0; i < 10; i++) {
      const seen = juliet.session.output?.sentCount ?? 0
      await romeo.send(say('new'))
      got.push(...bodies(await juliet.send(`<a xmlns='urn:xmpp:sm:3' h='${seen}'/>`)))
    }
    expect(got.filter((text) => text !== 'new')).to.eql(many)
  })

  it('XEP-0198 §5: one that loses its stream before it confirms is given the rest when it is back', async () => {
    await using h = await start({}, SMALL)
    const { juliet, id, got: first } = await manyWait(h, " resume='true'")
    const sent = juliet.session.output?.sentCount ?? 0
    await juliet.drop()
    await h.clock.advance(6_000)
    const back = await Fresh.open(h, {}, 'juliet@example.org')
    const got = await back.send(resume(id, sent))
    const rest = got.elements.flatMap((e) => e.getChildText('body') ?? [])
    for (let i = 0; i < 6; i++) {
      const { elements } = await back.send(
        `<a xmlns='urn:xmpp:sm:3' h='${juliet.session.output!.sentCount}'/>`,
      )
      rest.push(...elements.flatMap((e) => e.getChildText('body') ?? []))
    }
    expect([...first, ...rest]).to.eql(many)
  })

  it('XEP-0359 §2.2: what is sent again, also after a restart, waits once; what only has the same id, too', async () => {
    const disk = await switched()
    const origin = `<origin-id xmlns='${NS.SID}' id='o1'/>`
    {
      await using h = await start({ messages: 2 }, { store: disk.store })
      const romeo = await romeoAt(h)
      for (const text of ['1', '1', '1'])
        expect(await romeo.send(say(text, "type='chat'", origin))).to.eql([])
    }
    await using h = await start({ messages: 2 }, { store: disk.store })
    const romeo = await romeoAt(h)
    for (const text of ['1', '2']) expect(await romeo.send(say(text, "type='chat'", origin))).to.eql([])
    expect(bodies(await arrive(h))).to.eql(['1', '2'])
  })

  it('XEP-0424 §5: what its author took back meanwhile is not delivered, the retraction is', async () => {
    await using h = await start()
    const romeo = await romeoAt(h)
    const retract = "<retract xmlns='urn:xmpp:message-retract:1' id='1'/>"
    const juliet = await h.client('juliet@example.org/elsewhere')
    await juliet.send(say('1')) // of another author
    for (const text of ['1', '2']) await romeo.send(say(text))
    await romeo.send(say('3', "type='chat'", retract))
    const received = await arrive(h)
    expect(received.map((e) => [e.attr('from')?.split('/')[0], e.attr('id')])).to.eql([
      ['juliet@example.org', '1'],
      ['romeo@example.org', '2'],
      ['romeo@example.org', '3'],
    ])
    expect(await arrive(h, 'garden')).to.eql([])
  })

  it('XEP-0424 §5, XEP-0045 §7.5: occupants of a room take back their own, whether or not the room marks what they say', async () => {
    await using h = await start()
    const x = "<x xmlns='http://jabber.org/protocol/muc#user'/>"
    const [nick, other] = ['room@rooms.example/nick', 'room@rooms.example/other']
    const send = (from: string, id: string, inner: string): Promise<void> =>
      fromRemote(
        h,
        `<message from='${from}' to='juliet@example.org' type='chat' id='${id}'><body>${id}</body>${inner}</message>`,
      )
    const retract = (id: string): string => `<retract xmlns='urn:xmpp:message-retract:1' id='${id}'/>`
    await send(nick, '1', x)
    await send(nick, '2', '')
    await send(nick, '3', x)
    await send(other, 'r1', retract('1'))
    await send(other, 'r2', retract('2') + x)
    await send(nick, 'r3', retract('3'))
    expect(bodies(await arrive(h))).to.eql(['1', '2', 'r1', 'r2', 'r3'])
  })

  it('a removal that fails is made up for, and nothing comes twice', async () => {
    const disk = await switched()
    await using h = await start({}, { store: disk.store, onLog: () => undefined })
    const romeo = await romeoAt(h)
    await romeo.send(say('1'))
    disk.failing.add('remove')
    expect(bodies(await arrive(h))).to.eql(['1'])
    disk.failing.clear()
    expect(await arrive(h, 'garden')).to.eql([])
    const archive = disk.store.open('example.org', 'offline').archive('messages')
    expect((await archive.page('juliet', { from: 'first', limit: 1 })).entries).to.eql([])
  })

  it('an entry that cannot be read does not keep the others from their receiver', async () => {
    const disk = await switched()
    const lines: string[] = []
    const onLog = (level: string, text: string): void => void lines.push(`${level} ${text}`)
    await using h = await start({}, { store: disk.store, onLog })
    const romeo = await romeoAt(h)
    await romeo.send(say('1'))
    const stored = disk.store.open('example.org', 'offline').archive('messages')
    await stored.append('juliet', { at: new Date(0), with: 'romeo@example.org', doc: { xml: '<message' } })
    await romeo.send(say('2'))
    expect(bodies(await arrive(h))).to.eql(['1', '2'])
    expect(await arrive(h, 'garden')).to.eql([])
    expect(lines.filter((line) => line.startsWith('error')).join()).to.include('cannot be read')
    expect((await stored.page('juliet', { from: 'first', limit: 9 })).entries).to.have.length(1)
  })

  it('a read that fails is tried again with the next presence', async () => {
    const disk = await switched()
    await using h = await start({}, { store: disk.store, onLog: () => undefined })
    await (await romeoAt(h)).send(say('1'))
    const juliet = await h.client('juliet@example.org/balcony')
    disk.failing.add('page')
    expect(messages(await juliet.send('<presence/>'))).to.eql([])
    disk.failing.clear()
    expect(bodies(await juliet.send('<presence/>'))).to.eql(['1'])
  })
})

describe('module offline: with an archive (XEP-0313 §6.1.1, XEP-0386 §3.2)', () => {
  const secret = `<no-permanent-store xmlns='${HINTS}'/>`

  it('a device that does not read it gets all, with the ids of the archive', async () => {
    await using h = await withArchive()
    await (await romeoAt(h)).send(say('1'))
    const [message] = await arrive(h)
    const id = message?.getChild('stanza-id', NS.SID)
    expect(id?.attr('by')).to.equal('juliet@example.org')
    const juliet = await h.client('juliet@example.org/garden')
    expect((await query(juliet)).results.map((result) => result.id)).to.eql([id?.attr('id')])
  })

  it('a device that reads it gets only what is not there, and the rest is cleared', async () => {
    await using h = await withArchive()
    const romeo = await romeoAt(h)
    await romeo.send(say('1'))
    await romeo.send(say('2', undefined, secret))
    await romeo.send(say('3'))
    const juliet = await h.client('juliet@example.org/balcony')
    await query(juliet)
    juliet.take()
    expect(bodies(await juliet.send('<presence/>'))).to.eql(['2'])
    expect(await arrive(h, 'garden')).to.eql([])
  })

  it('what is in the archive is no error when there is no more room', async () => {
    await using h = await withArchive({ messages: 1 })
    const romeo = await romeoAt(h)
    for (const text of ['1', '2']) expect(await romeo.send(say(text))).to.eql([])
    expect((await romeo.send(say('3', undefined, secret))).map((e) => condition(e))).to.eql([
      'service-unavailable',
    ])
    const juliet = await h.client('juliet@example.org/balcony')
    expect((await query(juliet)).results).to.have.length(2)
  })
})
