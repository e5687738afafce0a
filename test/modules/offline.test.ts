/** XEP-0160: messages for accounts that are not online: what is kept, when it is delivered, and that nothing is lost or comes twice. */
import { expect } from 'chai'
import disco from '../../modules/disco.ts'
import mam from '../../modules/mam/index.ts'
import offline from '../../modules/offline/index.ts'
import presence from '../../modules/presence/index.ts'
import roster from '../../modules/roster/index.ts'
import stanzaId from '../../modules/stanza-id.ts'
import type { Archive, Doc, Store } from '../../server/storage/contract.ts'
import { openMemory } from '../../server/storage/memory.ts'
import type { Element } from '../../server/xmpp/element.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { formatDateTime } from '../../server/xmpp/xml-time.ts'
import { query } from '../helpers/archive.ts'
import { type TestClient, type TestHost, testHost, type TestHostOptions } from '../helpers/host.ts'
import { condition } from '../helpers/im.ts'
import { features } from '../helpers/iq.ts'

const HINTS = 'urn:xmpp:hints'
const accounts = ['juliet', 'romeo']

function start(config: object = {}, more: Partial<TestHostOptions> = {}): Promise<TestHost> {
  return testHost({
    modules: [disco, roster, presence, offline],
    accounts,
    config: { offline: config },
    ...more,
  })
}
const withArchive = (config: object = {}, more: Partial<TestHostOptions> = {}): Promise<TestHost> =>
  start(config, { modules: [disco, roster, presence, stanzaId, mam, offline], ...more })

const say = (text: string, attrs = "type='chat'", more = ''): string =>
  `<message to='juliet@example.org' id='${text}' ${attrs}><body>${text}</body>${more}</message>`
const messages = (received: readonly Element[]): Element[] => received.filter((e) => e.name === 'message')
const bodies = (received: readonly Element[]) => messages(received).map((e) => e.getChildText('body'))
const romeoAt = (h: TestHost): Promise<TestClient> => h.client('romeo@example.org/orchard')
/** What juliet gets on a device that becomes available. */
async function arrive(h: TestHost, resource = 'balcony', inner = ''): Promise<Element[]> {
  const client = await h.client(`juliet@example.org/${resource}`)
  return messages(await client.send(`<presence>${inner}</presence>`))
}

/** A store in memory with switches. */
async function switched(): Promise<{
  readonly store: Store
  /** Reads, and removals, of the module wait for these. */
  reading: Promise<void> | undefined
  removing: Promise<void> | undefined
  /** Calls that fail. */
  readonly failing: Set<'append' | 'page' | 'remove'>
}> {
  const inner = await openMemory()
  const check = (name: 'append' | 'page' | 'remove'): void => {
    if (state.failing.has(name)) throw new Error('disk full')
  }
  const wrap = <T extends Doc>(archive: Archive<T>): Archive<T> => ({
    append: async (owner, entry) => {
      check('append')
      return archive.append(owner, entry)
    },
    page: async (owner, q) => {
      await state.reading
      check('page')
      return archive.page(owner, q)
    },
    replace: (owner, id, doc) => archive.replace(owner, id, doc),
    remove: async (owner, q) => {
      await state.removing
      check('remove')
      return archive.remove(owner, q)
    },
    owners: () => archive.owners(),
  })
  const state = {
    store: {
      driver: inner.driver,
      open: (host: string, module: string) => {
        const opened = inner.open(host, module)
        if (module !== 'offline') return opened
        return { ...opened, archive: (name, opts) => wrap(opened.archive(name, opts)) }
      },
      purgeOwner: (host: string, owner: string) => inner.purgeOwner(host, owner),
      healthy: () => inner.healthy(),
      close: () => inner.close(),
    } satisfies Store as Store,
    reading: undefined as Promise<void> | undefined,
    removing: undefined as Promise<void> | undefined,
    failing: new Set<'append' | 'page' | 'remove'>(),
  }
  return state
}

describe('module offline: what is kept (XEP-0160 §3)', () => {
  it('§4: announced by the server', async () => {
    await using h = await start()
    expect(await features(await romeoAt(h), 'example.org')).to.include('msgoffline')
  })

  const state = "<active xmlns='http://jabber.org/protocol/chatstates'/>"
  const bare = "to='juliet@example.org'"
  const cases: readonly (readonly [string, string, boolean])[] = [
    ['chat with a body', `<message ${bare} type='chat' id='1'><body>Hi</body></message>`, true],
    ['no type', `<message ${bare} id='1'><body>Hi</body></message>`, true],
    [
      'normal without a body',
      `<message ${bare} id='1'><x xmlns='jabber:x:conference' jid='r@c'/></message>`,
      true,
    ],
    ['a type nobody knows', `<message ${bare} type='odd' id='1'><body>Hi</body></message>`, true],
    [
      'a chat state with a body',
      `<message ${bare} type='chat' id='1'><body>Hi</body>${state}</message>`,
      true,
    ],
    ['a chat state alone', `<message ${bare} type='chat' id='1'>${state}<thread>t</thread></message>`, false],
    [
      'a chat state to be stored (XEP-0334 §4.4)',
      `<message ${bare} type='chat' id='1'>${state}<store xmlns='${HINTS}'/></message>`,
      true,
    ],
    ['no-store (XEP-0334 §4.2)', say('1', undefined, `<no-store xmlns='${HINTS}'/>`), false],
    [
      'no-permanent-store (XEP-0334 §4.1)',
      say('1', undefined, `<no-permanent-store xmlns='${HINTS}'/>`),
      true,
    ],
    [
      'chat to a resource that is gone',
      "<message to='juliet@example.org/x' type='chat' id='1'><body>Hi</body></message>",
      true,
    ],
    [
      'normal to a resource that is gone (RFC 6121 §8.5.3.2.1)',
      "<message to='juliet@example.org/x' id='1'><body>Hi</body></message>",
      false,
    ],
    ['groupchat', `<message ${bare} type='groupchat' id='1'><body>Hi</body></message>`, false],
    ['nothing at all', `<message ${bare} id='1'/>`, false],
  ]
  for (const [what, xml, kept] of cases) {
    it(`${what}: ${kept ? 'kept' : 'not kept, the sender is told'}`, async () => {
      await using h = await start()
      const errors = (await (await romeoAt(h)).send(xml)).map((e) => condition(e))
      expect(errors).to.eql(kept ? [] : ['service-unavailable'])
      expect(await arrive(h)).to.have.length(kept ? 1 : 0)
    })
  }
  for (const type of ['headline', 'error']) {
    it(`${type}: neither kept nor answered`, async () => {
      await using h = await start()
      expect(await (await romeoAt(h)).send(say('1', `type='${type}'`))).to.eql([])
      expect(await arrive(h)).to.eql([])
    })
  }

  it('§2 step 3: one too many in number is refused, and there is room again after delivery, also in a new process', async () => {
    const { store } = await switched()
    {
      await using h = await start({ messages: 2 }, { store: { ...store, close: () => Promise.resolve() } })
      const romeo = await romeoAt(h)
      romeo.transport.feed(say('1') + say('2') + say('3'))
      await h.settle()
      expect(romeo.take().map((e) => [e.attr('id'), condition(e)])).to.eql([['3', 'service-unavailable']])
    }
    await using h = await start({ messages: 2 }, { store })
    const romeo = await romeoAt(h)
    expect((await romeo.send(say('4'))).map((e) => condition(e))).to.eql(['service-unavailable'])
    expect(bodies(await arrive(h))).to.eql(['1', '2'])
    h.host.of('juliet')[0]!.close('reset')
    await h.settle()
    expect(await romeo.send(say('5'))).to.eql([])
  })

  it('§2 step 3: one too many in bytes is refused', async () => {
    await using h = await start({ bytes: '1 KiB' })
    const romeo = await romeoAt(h)
    expect(await romeo.send(say('a'.repeat(300)))).to.eql([])
    expect((await romeo.send(say('b'.repeat(300)))).map((e) => condition(e))).to.eql(['service-unavailable'])
    expect(await romeo.send(say('c'))).to.eql([])
    expect(await arrive(h)).to.have.length(2)
  })

  it('a failure of the store is told to the sender, and what he sends again is kept', async () => {
    const disk = await switched()
    const lines: string[] = []
    await using h = await start(
      {},
      { store: disk.store, onLog: (level, text) => lines.push(`${level} ${text}`) },
    )
    const romeo = await romeoAt(h)
    for (const broken of ['append', 'page'] as const) {
      disk.failing.add(broken)
      expect((await romeo.send(say('1'))).map((e) => condition(e))).to.eql(
        // it has been counted: a read that fails does not matter any more
        broken === 'append' ? ['internal-server-error'] : [],
      )
      disk.failing.clear()
    }
    expect(lines.some((line) => line.startsWith('error'))).to.equal(true)
    expect(bodies(await arrive(h))).to.eql(['1'])
  })

  it('a count that fails is told to the sender, and made again for the next', async () => {
    const disk = await switched()
    await using h = await start({}, { store: disk.store, onLog: () => undefined })
    const romeo = await romeoAt(h)
    disk.failing.add('page')
    expect((await romeo.send(say('1'))).map((e) => condition(e))).to.eql(['internal-server-error'])
    disk.failing.clear()
    expect(await romeo.send(say('2'))).to.eql([])
    expect(bodies(await arrive(h))).to.eql(['2'])
  })

  it('removed with the account', async () => {
    await using h = await start()
    const romeo = await romeoAt(h)
    romeo.transport.feed(say('1') + say('2'))
    await h.settle()
    await h.host.deleteAccount('juliet')
    expect(await arrive(h)).to.eql([])
  })

  it('without the module the sender is told', async () => {
    await using h = await start()
    await h.unload('offline')
    expect((await (await romeoAt(h)).send(say('1'))).map((e) => condition(e))).to.eql(['service-unavailable'])
  })
})

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

describe('module offline: with an archive (XEP-0313 §6.3, XEP-0386 §3.2)', () => {
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
