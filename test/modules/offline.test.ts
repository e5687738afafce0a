/** XEP-0160 §3: which messages are kept for accounts that are not online, and how many. */
import { expect } from 'chai'
import { defineModule } from '../../server/module.ts'
import { condition } from '../helpers/im.ts'
import { features } from '../helpers/iq.ts'
import { arrive, bodies, HINTS, messages, romeoAt, say, start, switched } from '../helpers/offline.ts'

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

  for (const kept of [true, false])
    it(`what a session of a removed account leaves unread is not there for the next owner of the name${kept ? '' : '; without the module it goes back'}`, async () => {
      await using h = await start()
      const romeo = await romeoAt(h)
      const juliet = await h.client('juliet@example.org/balcony')
      await juliet.send('<presence/>')
      juliet.transport.blocked = true
      for (const text of ['1', '2', '3']) await romeo.send(say(text))
      if (!kept) await h.unload('offline')
      await h.host.deleteAccount('juliet')
      await h.settle()
      // the first one has been written; as for any name without an account
      const back = kept ? [] : ['2 service-unavailable', '3 service-unavailable']
      expect(romeo.take().map((e) => `${e.attr('id')} ${condition(e)}`)).to.eql(back)
      if (kept) await romeo.send(say('4')) // nor is this
      await h.service('auth').create('juliet', 'another')
      expect(bodies(await arrive(h))).to.eql([])
    })

  for (const again of [false, true])
    it(`nor what was on its way to its session${again ? ', when the name has its next owner already' : ''}`, async () => {
      const gate = Promise.withResolvers<void>()
      const slow = defineModule({
        name: 'slow',
        summary: 'a store that takes its time',
        specs: [],
        setup: (ctx) =>
          ctx.hook('account:in', { phase: 'store', kinds: ['message'] }, async () => {
            await gate.promise
            return undefined
          }),
      })
      await using h = await start()
      await h.load(slow)
      const juliet = await h.client('juliet@example.org/balcony')
      await juliet.send('<presence/>')
      const romeo = await romeoAt(h)
      await romeo.send(say('1'))
      await h.host.deleteAccount('juliet')
      const next = again ? await h.client('juliet@example.org/chamber') : undefined
      await next?.send('<presence/>')
      gate.resolve()
      await h.settle()
      expect([...messages(next?.take() ?? []), ...(await arrive(h))]).to.eql([])
    })

  it('without the module the sender is told', async () => {
    await using h = await start()
    await h.unload('offline')
    expect((await (await romeoAt(h)).send(say('1'))).map((e) => condition(e))).to.eql(['service-unavailable'])
  })
})
