/** A store that is slow, or fails for long, and messages that are sent again then: once, and in order (XEP-0359 §2.2). */
import { expect } from 'chai'
import type { Element } from '../../server/xmpp/element.ts'
import type { AnyModule } from '../../server/loader.ts'
import { defineModule } from '../../server/module.ts'
import offline from '../../modules/offline/index.ts'
import { archived, archiveHost, chat, controlledStore, origin, query, stanzaId } from '../helpers/archive.ts'
import { condition } from '../helpers/im.ts'
import { bodies, copies, modules, online, quiet, THREE } from '../helpers/resent.ts'

/** Cannot keep anything for those who are away. */
const bad = defineModule({
  name: 'offline',
  summary: 'An offline store that fails',
  specs: [],
  setup(ctx) {
    ctx.hook('account:offline', { phase: 'store' }, () => Promise.reject(new Error('disk full')))
    ctx.provide('offline', {
      keeps: () => true,
      keep: () => Promise.reject(new Error('disk full')),
      handed: () => false,
      reads: () => false,
      pending: () => false,
    })
  },
})

/** Writes retractions of an account down when the gate opens. */
const slowly = (isFor: (local: string) => boolean, gate: Promise<void>): AnyModule =>
  defineModule({
    name: 'slow',
    summary: 'Writes retractions down, slowly',
    specs: [],
    setup: (ctx) =>
      ctx.hook('archive:retraction', { phase: 'observe' }, ({ local }) => (isFor(local) ? gate : undefined)),
  })

describe('module mam: the store takes too long, or fails for long', () => {
  it('slow while the archive is put right: what was bounced is delivered when it is sent again, once', async () => {
    const { store, unsure, gates, reading } = await controlledStore()
    await using h = await archiveHost({}, { modules, store, ...quiet })
    const [juliet, romeo] = await online(h, 'juliet@example.org/balcony', 'romeo@example.org/orchard')
    const text = chat('romeo@example.org', 'one', origin('o1'))
    unsure.add('romeo')
    expect(condition((await juliet!.send(text))[0])).to.equal('internal-server-error')
    unsure.clear()
    // Each call within the limit of the store, together longer than a handler has.
    const appends = Promise.withResolvers<void>()
    const reads = Promise.withResolvers<void>()
    gates.set('romeo', appends.promise)
    reading.set('romeo', reads.promise)
    await juliet!.send(text)
    await h.clock.advance(5000)
    gates.clear()
    appends.resolve()
    await h.settle()
    await h.clock.advance(5001)
    expect(condition(juliet!.take()[0])).to.equal('internal-server-error')
    reading.clear()
    reads.resolve()
    await h.settle()
    expect(bodies(romeo!)).to.deep.equal([])
    for (let i = 0; i < 2; i++) expect(await juliet!.send(text)).to.deep.equal([])
    expect(bodies(romeo!)).to.deep.equal(['one'])
    expect(await archived(romeo!)).to.deep.equal(['one'])
  })

  for (const [name, id] of [
    ['with an id of its sender', origin('o1')],
    ['without', ''],
  ] as const)
    it(`an append that succeeds when its sender was told that it failed counts as failed: ${name}`, async () => {
      const { store, gates } = await controlledStore()
      await using h = await archiveHost({}, { modules, store, ...quiet })
      const [juliet, romeo] = await online(h, 'juliet@example.org/balcony', 'romeo@example.org/orchard')
      const { promise, resolve: open } = Promise.withResolvers<void>()
      gates.set('romeo', promise)
      await juliet!.send(chat('romeo@example.org', 'one', id))
      await h.clock.advance(10_001)
      expect(condition(juliet!.take()[0])).to.equal('internal-server-error')
      gates.clear()
      open()
      await h.settle()
      expect(await archived(romeo!)).to.deep.equal([])
      await juliet!.send(chat('romeo@example.org', 'two', origin('o2')))
      await juliet!.send(chat('romeo@example.org', 'one', id))
      expect(bodies(romeo!).filter((body) => body !== undefined)).to.deep.equal(['two', 'one'])
      expect(await archived(romeo!)).to.deep.equal(['two', 'one'])
    })

  it('what is there, and fails when it is answered, is not shown in between', async () => {
    const { store, gates } = await controlledStore()
    await using h = await archiveHost({}, { modules, store, ...quiet })
    const [juliet, romeo] = await online(h, 'juliet@example.org/balcony', 'romeo@example.org/orchard')
    const text = chat('romeo@example.org', 'one', origin('o1'))
    await juliet!.send(chat('romeo@example.org', 'zero', origin('o0')))
    const { promise, resolve: open } = Promise.withResolvers<void>()
    gates.set('romeo', promise)
    await juliet!.send(text)
    await h.clock.advance(10_001)
    expect(condition(juliet!.take()[0])).to.equal('internal-server-error')
    gates.clear()
    romeo!.take()
    const early = await romeo!.send("<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'/></iq>")
    expect(early).to.deep.equal([])
    open()
    await h.settle()
    expect(
      romeo!.take().map((e) => e.getChild('result', 'urn:xmpp:mam:2')?.attr('id') ?? e.name),
    ).to.have.length(2)
    await juliet!.send(text)
    const live = romeo!.take()
    expect(live.map((e) => e.getChildText('body'))).to.deep.equal(['one'])
    const { results } = await query(romeo!)
    expect(results.map(({ body }) => body)).to.deep.equal(['zero', 'one'])
    expect(results[1]?.id).to.equal(stanzaId(live[0], 'romeo@example.org'))
  })

  for (const [name, text] of [
    ['with an id', chat('romeo@example.org', 'one')],
    ['without', "<message to='romeo@example.org' type='chat'><body>one</body></message>"],
  ] as const)
    it(`of two equal messages of one moment the one that was delivered stays: ${name}`, async () => {
      const { store, failing } = await controlledStore()
      await using h = await archiveHost({}, { store, modules, ...quiet })
      const [juliet, romeo] = await online(h, 'juliet@example.org/balcony', 'romeo@example.org/orchard')
      await juliet!.send(text)
      failing.add('romeo')
      await juliet!.send(text)
      failing.clear()
      const live = romeo!.take()
      expect(live.map((e) => e.getChildText('body'))).to.deep.equal(['one'])
      const { results } = await query(romeo!)
      expect(results.map(({ id }) => id)).to.deep.equal([stanzaId(live[0], 'romeo@example.org')])
      await juliet!.send(text)
      expect(await archived(romeo!)).to.deep.equal(['one', 'one'])
    })

  describe('so many fail that they are not all remembered', () => {
    const COUNT = 90
    const text = (i: number): string =>
      chat('romeo@example.org', `m${i}`, `<subject>${'x'.repeat(200_000)}</subject>${origin(`o${i}`)}`)

    async function overflow(store: Awaited<ReturnType<typeof controlledStore>>) {
      const h = await archiveHost({}, { modules: [...modules, offline], store: store.store, ...quiet })
      const [juliet, romeo] = await online(h, 'juliet@example.org/balcony', 'romeo@example.org/orchard')
      expect(await archived(romeo!)).to.deep.equal([]) // it reads the archive
      await juliet!.send(chat('romeo@example.org', 'before', origin('before')))
      await h.clock.advance(1)
      store.unsure.add('romeo')
      for (let i = 0; i < COUNT; i++)
        expect(condition((await juliet!.send(text(i)))[0])).to.equal('internal-server-error')
      store.unsure.clear()
      await h.clock.advance(1)
      await juliet!.send(chat('romeo@example.org', 'after', origin('after')))
      expect(bodies(romeo!)).to.deep.equal(['before', 'after'])
      return { h, juliet: juliet!, romeo: romeo! }
    }

    it('each is delivered when it is sent again, once, and stands where the devices saw it', async function () {
      this.timeout(20_000)
      const { h, juliet, romeo } = await overflow(await controlledStore())
      await using _ = h
      for (const again of [text(0), text(COUNT - 1), text(0)]) await juliet.send(again)
      for (const body of ['before', 'after']) await juliet.send(chat('romeo@example.org', body, origin(body)))
      expect(bodies(romeo)).to.deep.equal(['m0', `m${COUNT - 1}`])
      const { bodies: last } = await query(romeo, { rsm: '<max>2</max><before/>' })
      expect(last).to.deep.equal(['m0', `m${COUNT - 1}`])
      const { bodies: first } = await query(romeo, { rsm: '<max>2</max>' })
      expect(first).to.deep.equal(['before', 'm1'])
    })

    it('the next process does not take them for delivered', async function () {
      this.timeout(20_000)
      const store = await controlledStore()
      {
        await using h = (await overflow(store)).h
        await h.clock.advance(1000)
      }
      await using h = await archiveHost({}, { modules: [...modules, offline], store: store.store, ...quiet })
      await h.clock.advance(2000)
      const [juliet, romeo] = await online(h, 'juliet@example.org/balcony', 'romeo@example.org/orchard')
      for (let i = 0; i < 2; i++) await juliet!.send(text(0))
      expect(bodies(romeo!)).to.deep.equal(['m0'])
    })
  })

  it('one that can neither be kept nor written down goes back to its sender, and nothing else happens', async () => {
    const gate = Promise.withResolvers<void>()
    let slow = false
    const waits = slowly((local) => slow && local === 'romeo', gate.promise)
    await using h = await archiveHost({}, { modules: [...modules, waits, bad], ...quiet })
    const [juliet] = await online(h, 'juliet@example.org/balcony')
    const retract = "<retract xmlns='urn:xmpp:message-retract:1' id='x'/>"
    const retraction = `<message to='romeo@example.org' id='r' type='chat'>${retract}${origin('r')}</message>`
    const unhandled: unknown[] = []
    const got: Element[] = []
    const note = (error: unknown): void => void unhandled.push(error)
    process.on('unhandledRejection', note)
    try {
      for (slow of [false, true]) got.push(...(await juliet!.send(retraction)))
      await new Promise(setImmediate)
      gate.resolve()
      await h.settle()
    } finally {
      process.off('unhandledRejection', note)
    }
    expect(unhandled).to.deep.equal([])
    expect([...got, ...juliet!.take()].map((e) => e.attr('type'))).to.deep.equal(['error', 'error'])
  })

  it('a retraction that nobody has written down in time is delivered when it is sent again, once', async () => {
    const gate = Promise.withResolvers<void>()
    const slow = slowly((local) => local === 'romeo', gate.promise)
    await using h = await archiveHost({}, { modules: [...modules, slow], ...quiet })
    const [juliet, romeo] = await online(h, 'juliet@example.org/balcony', 'romeo@example.org/orchard')
    const retract = "<retract xmlns='urn:xmpp:message-retract:1' id='x'/><store xmlns='urn:xmpp:hints'/>"
    const retraction = `<message to='romeo@example.org' id='r' type='chat'>${retract}${origin('r')}</message>`
    expect(await juliet!.send(retraction)).to.deep.equal([])
    await h.clock.advance(10_000)
    expect(juliet!.take().map((e) => e.attr('type'))).to.deep.equal(['error'])
    gate.resolve()
    await h.settle()
    for (let i = 0; i < 2; i++) expect(await juliet!.send(retraction)).to.deep.equal([])
    expect(romeo!.take().map((e) => e.attr('id'))).to.deep.equal(['r'])
  })

  it('one that nobody has written down in time for its sender is copied to his other devices when it is sent again, once', async () => {
    const gate = Promise.withResolvers<void>()
    const slow = slowly((local) => local === 'juliet', gate.promise)
    await using h = await archiveHost({}, { modules: [...modules, slow], ...quiet })
    const [juliet, phone, romeo] = await online(h, ...THREE)
    const retract = "<retract xmlns='urn:xmpp:message-retract:1' id='x'/><body>taken back</body>"
    const retraction = `<message to='romeo@example.org' id='r' type='chat'>${retract}${origin('r')}</message>`
    await juliet!.send(retraction)
    await h.clock.advance(10_000)
    expect(juliet!.take().map((e) => e.attr('type'))).to.deep.equal(['error'])
    gate.resolve()
    await h.settle()
    for (let i = 0; i < 2; i++) expect(await juliet!.send(retraction)).to.deep.equal([])
    expect([copies(phone!), bodies(romeo!)]).to.deep.equal([['taken back'], ['taken back']])
  })
})
