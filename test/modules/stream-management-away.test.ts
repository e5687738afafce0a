/** XEP-0198 §4, §7: sessions without a stream, and what becomes of what their clients did not confirm. */
import { expect } from 'chai'
import carbons from '../../modules/carbons/index.ts'
import ping from '../../modules/ping.ts'
import presence from '../../modules/presence/index.ts'
import roster from '../../modules/roster/index.ts'
import sm from '../../modules/stream-management/index.ts'
import { openMemory } from '../../server/storage/memory.ts'
import { el } from '../../server/xmpp/element.ts'
import { testHost } from '../helpers/host.ts'
import {
  NS,
  SID,
  ENABLE,
  JULIET,
  ROMEO,
  a,
  message,
  resume,
  condition,
  first,
  world,
  stage,
  Fresh,
} from '../helpers/managed.ts'

describe('stream management: sessions without a stream, XEP-0198 §4, §7', () => {
  it('§7: after an orderly end nothing is kept', async () => {
    await using s = await stage()
    await s.romeo.close()
    expect(s.world.closed).to.deep.equal(['orchard closed'])
  })

  it('§7: a connection that ends without </stream:stream> leaves the session', async () => {
    await using s = await stage()
    s.romeo.transport.sink?.ended()
    await s.host.settle()
    expect(s.world.closed).to.deep.equal([])
  })

  it('a resource that is bound anew ends it; messages go to the new session, once', async () => {
    await using s = await stage()
    await s.juliet.send(message('0'))
    await s.romeo.send(a(1))
    await s.romeo.drop()
    await s.juliet.send(message('1'))
    const again = await s.host.client(ROMEO)
    expect(s.world.closed).to.deep.equal(['orchard conflict'])
    expect([
      ...again.take().map((e) => e.attr('id')),
      ...s.world.kept.map((e) => e.attr('id')),
    ]).to.deep.equal(['1'])
    expect(s.host.host.of('romeo')).to.have.length(1)
    const fresh = await Fresh.open(s.host)
    expect(first(await fresh.send(resume(s.id, 0)))).to.equal('failed 0 item-not-found')
  })

  it('expires after the time the client asked for, and what is not confirmed goes on its way, in order, with its time', async () => {
    await using s = await stage({}, `<enable xmlns='${NS}' resume='true' max='20'/>`)
    await s.romeo.drop()
    const at = s.host.clock.now()
    await s.juliet.send(message('1') + message('2'))
    await s.host.clock.advance(19_000)
    expect(s.world.closed).to.deep.equal([])
    await s.host.clock.advance(2000)
    expect(s.world.closed).to.deep.equal(['orchard lost'])
    expect(s.world.kept.map((e) => e.attr('id'))).to.deep.equal(['1', '2'])
    const stamp = s.world.kept[0]?.getChild('delay', 'urn:xmpp:delay')?.attr('stamp')
    expect(Date.parse(stamp ?? '')).to.equal(at)
    const fresh = await Fresh.open(s.host)
    expect(first(await fresh.send(resume(s.id, 0)))).to.equal('failed 0 item-not-found')
  })

  it('another device gets what it has not got yet, and nothing twice', async () => {
    await using s = await stage()
    const other = await s.host.client('romeo@example.org/phone')
    const presence = el('presence', 'jabber:client', {}, el('priority', 'jabber:client', {}, '0'))
    for (const session of s.host.host.of('romeo')) session.setPresence(presence)
    await s.host.clock.advance(10)
    await s.romeo.drop()
    await s.juliet.send(message('both', 'romeo@example.org') + message('only'))
    expect(other.take().map((e) => e.attr('id'))).to.deep.equal(['both'])
    await s.host.clock.advance(601_000)
    expect(other.take().map((e) => e.attr('id'))).to.deep.equal(['only'])
    expect(s.world.kept).to.deep.equal([])
  })

  it('a device with carbons has its copy, a copy does not go on', async () => {
    await using s = await stage({}, ENABLE, {}, [carbons])
    const other = await s.host.client('romeo@example.org/phone')
    for (const session of [s.romeo.session, other.session]) session.setFlag('carbons', true)
    other.session.setPresence(el('presence', 'jabber:client'))
    await s.romeo.drop()
    await s.juliet.send(message('0', 'romeo@example.org/phone') + message('1'))
    expect(other.take()).to.have.length(2)
    const hidden = `<message to='${ROMEO}' id='2' type='chat'><body>2</body><private xmlns='urn:xmpp:carbons:2'/></message>`
    await s.juliet.send(hidden)
    await s.host.clock.advance(601_000)
    expect(other.take().map((e) => e.attr('id'))).to.deep.equal(['2'])
    expect(s.world.kept).to.deep.equal([])
  })

  for (const [what, attrs, inner, goesOn] of [
    ['a receipt', '', "<received xmlns='urn:xmpp:receipts' id='x'/>", false],
    ['an invitation', '', "<x xmlns='jabber:x:conference' jid='r@muc.example'/>", false],
    [
      'an invitation by a room',
      '',
      "<x xmlns='http://jabber.org/protocol/muc#user'><invite from='a@b'/></x>",
      false,
    ],
    ['something else without body', '', "<x xmlns='urn:x'/>", true],
    [
      'a private message within a room',
      " type='chat'",
      "<body>b</body><x xmlns='http://jabber.org/protocol/muc#user'/>",
      true,
    ],
    ['what must not be copied', " type='chat'", "<body>b</body><no-copy xmlns='urn:xmpp:hints'/>", true],
  ] as const)
    it(`XEP-0280 §6.1: ${what}: a device with carbons ${goesOn ? 'gets it now' : 'has it already'}`, async () => {
      await using s = await stage({}, ENABLE, {}, [carbons])
      const other = await s.host.client('romeo@example.org/phone')
      other.session.setFlag('carbons', true)
      other.session.setPresence(el('presence', 'jabber:client'))
      await s.romeo.drop()
      await s.juliet.send(`<message to='${ROMEO}' id='1'${attrs}>${inner}</message>`)
      expect(other.take().length, 'copies').to.equal(goesOn ? 0 : 1)
      await s.host.clock.advance(601_000)
      const got = [...other.take(), ...s.world.kept].map((e) => e.attr('id'))
      expect(got).to.deep.equal(goesOn ? ['1'] : [])
    })

  it('a device that reads the archive gets what is archived from there', async () => {
    await using s = await stage()
    await s.romeo.drop()
    const archived = el('stanza-id', SID, { by: 'romeo@example.org', id: '7' })
    const one = el(
      'message',
      'jabber:client',
      { from: 'juliet@example.org/balcony', to: ROMEO, id: '1' },
      archived,
    )
    s.romeo.session.send(one)
    await s.host.clock.advance(1000)
    const later = await s.host.client('romeo@example.org/phone')
    later.session.setFlag('mam', true)
    later.session.setPresence(el('presence', 'jabber:client'))
    await s.juliet.send(message('2'))
    await s.host.clock.advance(601_000)
    expect(later.take().map((e) => e.attr('id'))).to.deep.equal(['2'])
    expect(s.world.kept).to.deep.equal([])
  })

  it('an account leaves only so many behind', async () => {
    await using s = await stage({ maxHibernating: 2 })
    await s.romeo.drop()
    for (const resource of ['b', 'c', 'd']) {
      const client = await s.host.client(`romeo@example.org/${resource}`)
      await client.send(ENABLE)
      await s.host.clock.advance(1000)
      await client.drop()
    }
    expect(s.world.closed).to.deep.equal(['orchard lost', 'b lost'])
    expect(s.host.host.of('romeo').map((session) => session.jid.resource)).to.deep.equal(['c', 'd'])
  })

  it('too much for a session without a stream ends it', async () => {
    await using s = await stage({ maxStanzas: 50 })
    await s.romeo.drop()
    for (let i = 0; i < 52; i++) await s.juliet.send(message(String(i)))
    expect(s.world.closed).to.deep.equal(['orchard resource-constraint'])
    expect(s.world.kept.map((e) => e.attr('id'))).to.deep.equal(
      Array.from({ length: 52 }, (_, i) => String(i)),
    )
  })

  it('presence of contacts does not fill a session without a stream: the last of each is what its client sees', async () => {
    await using s = await stage({ maxStanzas: 50 })
    const presence = (i: number) => `<presence to='${ROMEO}' id='p${i}'/>`
    await s.juliet.send(presence(0))
    await s.romeo.drop()
    for (let i = 1; i < 100; i++) await s.juliet.send(presence(i))
    await s.juliet.send(message('m') + presence(100) + presence(101))
    expect(s.world.closed).to.deep.equal([])
    const fresh = await Fresh.open(s.host)
    // what was sent before may have arrived, so that it is counted, and comes again
    expect(fresh.ids(await fresh.send(resume(s.id, 0)))).to.deep.equal(['resumed', 'p0', 'm', 'p101', 'r'])
    await fresh.send(a(3))
    expect(fresh.stream.closed).to.equal(false)
  })

  it('§6: a client that says it has what it was never sent', async () => {
    await using s = await stage()
    await s.juliet.send(message('1'))
    await s.romeo.drop()
    await s.juliet.send(message('2'))
    const liar = await Fresh.open(s.host)
    const { elements } = await liar.send(resume(s.id, 2))
    expect(elements[0]?.getChild('handled-count-too-high', NS)?.attrs).to.include({
      h: '2',
      'send-count': '1',
    })
    const fresh = await Fresh.open(s.host)
    expect(fresh.ids(await fresh.send(resume(s.id, 1)))).to.deep.equal(['resumed', '2', 'r'])
  })

  it('a client that does not answer is waited for', async () => {
    await using s = await stage({ ackTimeout: '10s' })
    await s.juliet.send(message('1'))
    await s.host.clock.advance(15_000)
    expect(condition(s.romeo.error)).to.equal('connection-timeout')
    expect(s.world.closed).to.deep.equal([])
    const fresh = await Fresh.open(s.host)
    expect(fresh.ids(await fresh.send(resume(s.id, 0)))).to.deep.equal(['resumed', '1', 'r'])
  })

  it('a client that does not read is waited for, and gets everything', async () => {
    const around = world()
    await using host = await testHost({
      modules: [sm, around.module],
      accounts: ['romeo', 'juliet'],
      limits: { maxQueueBytes: 64 * 1024 },
    })
    const romeo = await host.client(ROMEO)
    const juliet = await host.client(JULIET)
    const id = (await romeo.send(ENABLE))[0]?.attr('id') ?? ''
    romeo.transport.blocked = true
    const pad = 'x'.repeat(3000)
    for (let i = 0; i < 40; i++)
      await juliet.send(`<message to='${ROMEO}' id='${i}' type='chat'><body>${pad}</body></message>`)
    expect(romeo.session.connected).to.equal(false)
    expect(around.closed).to.deep.equal([])
    const fresh = await Fresh.open(host)
    const got = await fresh.send(resume(id, 0))
    expect(fresh.ids(got)).to.deep.equal(['resumed', ...Array.from({ length: 40 }, (_, i) => String(i)), 'r'])
  })

  it('presence stays while it is away, and is gone when it expires', async () => {
    const around = world()
    await using host = await testHost({
      modules: [roster, presence, sm, around.module],
      accounts: ['romeo', 'juliet'],
    })
    const romeo = await host.client(ROMEO)
    const other = await host.client('romeo@example.org/phone')
    await romeo.send(ENABLE)
    await other.send('<presence/>')
    await romeo.send('<presence/>')
    other.take()
    await romeo.drop()
    expect(other.take()).to.deep.equal([])
    await host.clock.advance(300_000)
    expect(other.take()).to.deep.equal([])
    await host.clock.advance(301_000)
    expect(other.take().map((e) => `${e.attr('from')} ${e.attr('type')}`)).to.deep.equal([
      `${ROMEO} unavailable`,
    ])
  })

  it('a client that a ping finds dead is waited for too', async () => {
    const around = world()
    await using host = await testHost({ modules: [sm, ping, around.module], accounts: ['romeo'] })
    const romeo = await host.client(ROMEO)
    await romeo.send(ENABLE)
    await host.clock.advance(400_000)
    expect(romeo.session.connected).to.equal(false)
    expect(around.closed).to.deep.equal([])
  })

  it('removal of the account ends it', async () => {
    await using s = await stage()
    await s.romeo.drop()
    await s.host.host.deleteAccount('romeo')
    await s.host.settle()
    expect(s.world.closed).to.deep.equal(['orchard not-authorized'])
    expect(s.host.host.of('romeo')).to.deep.equal([])
  })

  it('unload ends what waits', async () => {
    await using s = await stage()
    await s.romeo.drop()
    await s.juliet.send(message('1'))
    await s.host.unload('stream-management')
    await s.host.settle()
    expect(s.world.closed).to.deep.equal(['orchard lost'])
    expect(s.world.kept.map((e) => e.attr('id'))).to.deep.equal(['1'])
  })

  it('§5: what a session had handled is told for a week after its end, of the last eight', async () => {
    await using s = await stage({ askAfter: '1min' })
    const ids: string[] = []
    for (let i = 0; i < 10; i++) {
      const client = await s.host.client(`romeo@example.org/r${i}`)
      ids.push((await client.send(ENABLE))[0]?.attr('id') ?? '')
      await s.host.client(`romeo@example.org/r${i}`) // takes its place
      await s.host.clock.advance(1000)
    }
    const answers = async () => {
      const fresh = await Fresh.open(s.host)
      const found: string[] = []
      for (const id of ids) found.push(first(await fresh.send(resume(id, 0))))
      return found.map((text) => text.replace(' item-not-found', ''))
    }
    expect(await answers()).to.deep.equal([...Array(2).fill('failed'), ...Array(8).fill('failed 0')])
    const day = 24 * 60 * 60_000
    const docs = s.host.store
      .open('example.org', 'stream-management')
      .docs<{ h: number; at: number }>('ended')
    const now = s.host.clock.now()
    await docs.put('romeo', ids[8] ?? '', { h: 0, at: now - 5 * day })
    await docs.put('romeo', ids[9] ?? '', { h: 0, at: now - 7 * day })
    expect((await answers()).slice(8)).to.deep.equal(['failed 0', 'failed 0'])
    await s.host.clock.advance(day + 1)
    expect((await answers()).slice(8)).to.deep.equal(['failed 0', 'failed'])
  })

  it('when the server stops, clients are asked first: what they have does not come again', async () => {
    await using s = await stage()
    await s.juliet.send(message('1') + message('2'))
    const stopped = s.host.c2s.stop('system-shutdown', 60_000)
    await s.host.settle()
    expect(s.romeo.closed).to.equal(false)
    expect(s.romeo.take().map((e) => e.attr('id') ?? e.name)).to.deep.equal(['1', '2', 'r'])
    await s.romeo.send(a(1))
    expect(s.romeo.closed).to.equal(false)
    await s.romeo.send(a(2))
    await stopped
    expect(condition(s.romeo.error)).to.equal('system-shutdown')
    expect(s.world.kept).to.deep.equal([])
  })

  it('one that does not answer is not waited for long', async () => {
    await using s = await stage()
    await s.juliet.send(message('1'))
    await s.host.c2s.stop('system-shutdown', 20)
    expect(s.world.kept.map((e) => e.attr('id'))).to.deep.equal(['1'])
  })

  it('§5: a request that is being answered when the server stops counts, once it is answered', async () => {
    const store = await openMemory({})
    const around = world()
    const options = { modules: [sm, around.module], accounts: ['romeo', 'juliet'], store }
    let id = ''
    {
      await using host = await testHost(options)
      const romeo = await host.client(ROMEO)
      id = (await romeo.send(ENABLE))[0]?.attr('id') ?? ''
      around.held = true
      await romeo.send("<iq type='get' id='q' to='example.org'><query xmlns='urn:x:slow'/></iq>")
      const stopped = host.c2s.stop('system-shutdown')
      await host.settle()
      expect(around.closed).to.deep.equal([])
      for (const gate of around.gates) gate.resolve()
      await stopped
    }
    await using host = await testHost(options)
    const fresh = await Fresh.open(host)
    expect(first(await fresh.send(resume(id, 0)))).to.equal('failed 1 item-not-found')
  })

  it('§5: after a clean restart the client learns what was handled, and nothing is lost', async () => {
    const store = await openMemory({})
    const ids: string[] = []
    const before = world()
    {
      await using host = await testHost({
        modules: [sm, before.module],
        accounts: ['romeo', 'juliet'],
        store,
      })
      for (const [resource, drop] of [
        ['orchard', false],
        ['phone', true],
      ] as const) {
        const romeo = await host.client(`romeo@example.org/${resource}`)
        ids.push((await romeo.send(ENABLE))[0]?.attr('id') ?? '')
        await romeo.send(message(`from ${resource}`, JULIET))
        if (drop) await romeo.drop()
      }
      const juliet = await host.client(JULIET)
      before.kept.length = 0
      await juliet.send(message('1') + message('2', 'romeo@example.org/phone'))
    }
    expect(before.kept.map((e) => e.attr('id'))).to.have.members(['1', '2'])
    await using host = await testHost({ modules: [sm], accounts: ['romeo', 'juliet'], store })
    for (const id of ids) {
      const fresh = await Fresh.open(host)
      expect(first(await fresh.send(resume(id, 0)))).to.equal('failed 1 item-not-found')
    }
    const other = await Fresh.open(host, {}, 'juliet@example.org')
    expect(first(await other.send(resume(ids[0] ?? '', 0)))).to.equal('failed item-not-found')
  })
})
