/** XEP-0198 §4: what was for a session that is over goes on its way: all of it, in order, before what is newer. */
import { expect } from 'chai'
import sm from '../../modules/stream-management/index.ts'
import { parseJid } from '../../server/xmpp/jid.ts'
import { el } from '../../server/xmpp/element.ts'
import { testHost } from '../helpers/host.ts'
import { settle } from '../helpers/settle.ts'
import { ENABLE, first, Fresh, JULIET, message, resume, ROMEO, stage, world } from '../helpers/managed.ts'

const PHONE = 'romeo@example.org/phone'
/** More than what is handed on in one turn of the event loop. */
const MANY = 1500
const LARGE = { maxStanzas: 5000, maxBytes: '16 MiB' }

const presence = (priority: number) =>
  el('presence', 'jabber:client', {}, el('priority', 'jabber:client', {}, String(priority)))

/** Romeo has lost his stream, and has not confirmed any of many messages. */
async function longQueue() {
  const s = await stage(LARGE)
  for (let i = 0; i < MANY; i += 50)
    await s.juliet.send(Array.from({ length: 50 }, (_, k) => message(String(i + k))).join(''))
  await s.romeo.drop()
  return s
}
const all = Array.from({ length: MANY }, (_, i) => String(i))

describe('stream management: what was not delivered, XEP-0198 §4', () => {
  for (const [how, reason] of [
    ['lost', 'lost'],
    ['closed by its client', 'closed'],
  ] as const)
    it(`what waited to be read before <enable/> goes on its way when the connection is ${how}`, async () => {
      const around = world()
      await using host = await testHost({ modules: [sm, around.module], accounts: ['romeo', 'juliet'] })
      const romeo = await host.client(ROMEO)
      const juliet = await host.client(JULIET)
      romeo.transport.blocked = true
      for (let i = 0; i < 6; i++) await juliet.send(message(String(i)))
      const taken = (await romeo.send(ENABLE)).map((e) => e.attr('id'))
      await juliet.send(message('after'))
      if (reason === 'lost') await romeo.drop()
      else await romeo.close()
      await host.settle()
      const kept = around.kept.map((e) => e.attr('id'))
      expect([...taken, ...kept]).to.deep.equal(['0', '1', '2', '3', '4', '5', 'after'])
      expect(around.closed).to.deep.equal([`orchard ${reason}`])
    })

  it('what waits to be read behind <enabled/> waits for the client', async () => {
    const around = world()
    await using host = await testHost({ modules: [sm, around.module], accounts: ['romeo', 'juliet'] })
    const romeo = await host.client(ROMEO)
    const juliet = await host.client(JULIET)
    const id = (await romeo.send(ENABLE))[0]?.attr('id') ?? ''
    romeo.transport.blocked = true
    for (let i = 0; i < 6; i++) await juliet.send(message(String(i)))
    await romeo.drop()
    expect([around.closed, around.kept]).to.deep.equal([[], []])
    const fresh = await Fresh.open(host)
    expect(first(await fresh.send(resume(id, 0)))).to.equal('resumed 0')
  })

  it('a message that named nobody, to the own account, goes on its way like the others', async () => {
    await using s = await stage()
    const phone = await s.host.client(PHONE)
    s.romeo.session.setPresence(presence(1))
    await s.juliet.send(message('before'))
    await phone.send("<message id='note' type='chat'><body>note</body></message>")
    await s.juliet.send(message('1') + message('2'))
    await s.romeo.close()
    await s.host.settle()
    expect(s.world.kept.map((e) => e.attr('id'))).to.deep.equal(['before', 'note', '1', '2'])
    expect(s.world.kept[1]?.attr('to')).to.equal('romeo@example.org')
  })

  it('a long queue goes before what is newer', async () => {
    await using s = await longQueue()
    const phone = await s.host.client(PHONE)
    phone.session.setPresence(presence(0))
    s.romeo.session.end('lost')
    s.juliet.transport.feed(message('new', 'romeo@example.org'))
    await settle(500)
    const got = phone.take().map((e) => e.attr('id'))
    expect(got).to.deep.equal([...all, 'new'])
  })

  it('a long queue of a resource that is bound anew is not torn in two', async () => {
    await using s = await longQueue()
    const fresh = await Fresh.open(s.host)
    const bound = s.host.c2s.adopt(fresh.stream.session, parseJid(ROMEO))
    s.juliet.transport.feed(message('new'))
    await bound
    await settle(500)
    const kept = s.world.kept.map((e) => e.attr('id'))
    expect([...kept, ...fresh.ids(fresh.take())]).to.deep.equal([...all, 'new'])
    expect(kept.length).to.be.at.least(MANY)
  })

  it('nor is one of a resource that is bound anew when its session is over already', async () => {
    await using s = await longQueue()
    const fresh = await Fresh.open(s.host)
    s.romeo.session.end('lost')
    const bound = s.host.c2s.adopt(fresh.stream.session, parseJid(ROMEO))
    s.juliet.transport.feed(message('new'))
    await bound
    await settle(500)
    expect(s.world.kept.slice(0, MANY).map((e) => e.attr('id'))).to.deep.equal(all)
    expect(fresh.ids(fresh.take())).not.to.include('1499')
  })

  it('a client that goes while the session before it hands on is not there', async () => {
    await using s = await longQueue()
    const fresh = await Fresh.open(s.host)
    const bound = s.host.c2s.adopt(fresh.stream.session, parseJid(ROMEO)).catch(() => 'refused')
    await fresh.stream.drop()
    expect(await bound).to.equal('refused')
    expect(s.host.host.of('romeo')).to.deep.equal([])
  })

  it('of sessions that lose their streams in one moment it is never the last that ends for want of room', async () => {
    const around = world()
    await using host = await testHost({
      modules: [sm, around.module],
      accounts: ['romeo', 'juliet'],
      limits: { maxPerAddress: 4 },
      config: { 'stream-management': { maxHibernating: 1 } },
    })
    const ended: string[] = []
    for (let i = 0; i < 5; i++) {
      const older = await host.client(`romeo@example.org/a${i}`)
      await older.send(ENABLE)
      const newer = await host.client(`romeo@example.org/b${i}`)
      await newer.send(ENABLE)
      await newer.drop()
      await older.drop()
      if (i > 0) ended.push(`a${i - 1} lost`)
      ended.push(`b${i} lost`)
      expect(around.closed).to.deep.equal(ended)
    }
    // and each connection counts once (RFC 6120 §13.12)
    const open: boolean[] = []
    for (let i = 0; i < 6; i++)
      open.push(
        await host.client(`juliet@example.org/c${i}`).then(
          (client) => !client.closed,
          () => false,
        ),
      )
    expect(open).to.deep.equal([true, true, true, true, false, false])
  })

  it('a device that came after a message gets it, though the clock was set back in between', async () => {
    await using s = await stage()
    s.romeo.session.setPresence(presence(0))
    await s.romeo.drop()
    await s.host.clock.advance(60_000)
    await s.juliet.send(message('1', 'romeo@example.org'))
    await s.host.clock.advance(-30_000)
    const other = await s.host.client(PHONE)
    other.session.setPresence(presence(0))
    await s.juliet.send(message('2', ROMEO))
    await s.host.clock.advance(700_000)
    expect(other.take().map((e) => e.attr('id'))).to.deep.equal(['1', '2'])
    expect(s.world.kept).to.deep.equal([])
  })

  it('§4: an answer is withheld for a time, not for as long as the store hangs', async () => {
    await using s = await stage()
    s.world.held = true
    expect(await s.romeo.send(message('1', JULIET) + `<r xmlns='urn:xmpp:sm:3'/>`)).to.deep.equal([])
    await s.host.clock.advance(1000)
    const answers = () =>
      s.romeo
        .take()
        .filter(({ name }) => name === 'a')
        .map((e) => e.attr('h'))
    expect(answers()).to.deep.equal(['0'])
    await s.romeo.send(`<r xmlns='urn:xmpp:sm:3'/>`)
    s.world.held = false
    for (const gate of s.world.gates) gate.resolve()
    await s.host.settle()
    expect(answers()).to.deep.equal(['1'])
    await s.host.clock.advance(5000)
    expect(answers()).to.deep.equal([])
  })
})

describe('stream management: orderly ends, XEP-0198 §7', () => {
  for (const how of ['half closed', 'gone'] as const)
    it(`nothing is kept when the connection is ${how} right after </stream:stream>, and a request is still being answered`, async () => {
      await using s = await stage()
      s.world.held = true
      await s.romeo.send(
        `<iq type='get' id='iq' to='example.org'><query xmlns='urn:x:slow'/></iq></stream:stream>`,
      )
      if (how === 'gone') await s.romeo.drop()
      else s.romeo.transport.sink?.ended()
      s.world.gates[0]?.resolve()
      await s.host.settle()
      expect(s.world.closed).to.deep.equal(['orchard closed'])
    })
})
