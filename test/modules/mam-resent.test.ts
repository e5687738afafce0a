/** Messages that are sent again after the server was killed, or to somebody without an archive: once, and in order (XEP-0359 §2.2). */
import { expect } from 'chai'
import { defineModule, type Doc } from '../../server/module.ts'
import type { Store } from '../../server/storage/contract.ts'
import { openMemory } from '../../server/storage/memory.ts'
import mam from '../../modules/mam/index.ts'
import offline from '../../modules/offline/index.ts'
import { archived, archiveHost, chat, origin, query, stanzaId } from '../helpers/archive.ts'
import type { TestClient, TestHost } from '../helpers/host.ts'
import { condition } from '../helpers/im.ts'
import { switched } from '../helpers/offline.ts'

import { bodies, modules, online, quiet } from '../helpers/resent.ts'

const NEVER = "<iq type='set' id='p'><prefs xmlns='urn:xmpp:mam:2' default='never'/></iq>"

describe('module mam: the receiver keeps no archive', () => {
  it('neither does the sender: not delivered a second time, another message with the same id is', async () => {
    await using h = await archiveHost({ resendWindow: '1h' }, { modules })
    const [juliet, romeo] = await online(h, 'juliet@example.org/balcony', 'romeo@example.org/orchard')
    await juliet!.send(NEVER)
    await romeo!.send(NEVER)
    for (const body of ['one', 'one', 'two', 'one'])
      await juliet!.send(chat('romeo@example.org', body, origin('o1')))
    expect(bodies(romeo!)).to.deep.equal(['one', 'two'])
    await h.clock.advance(3_600_001)
    await juliet!.send(chat('romeo@example.org', 'one', origin('o1')))
    expect(bodies(romeo!)).to.deep.equal(['one'])
  })

  it('after the server was killed: delivered, because nobody can tell that it was', async () => {
    const store = await openMemory()
    {
      await using h = await archiveHost({}, { modules, store })
      const [juliet, romeo] = await online(h, 'juliet@example.org/balcony', 'romeo@example.org/orchard')
      await romeo!.send(NEVER)
      await juliet!.send(chat('romeo@example.org', 'one', origin('o1')))
    }
    await store.open('example.org', 'mam').docs<Doc>('processes').purge('') // nothing of an orderly end
    await using h = await archiveHost({}, { modules, store })
    const [juliet, romeo] = await online(h, 'juliet@example.org/balcony', 'romeo@example.org/orchard')
    for (let i = 0; i < 2; i++) await juliet!.send(chat('romeo@example.org', 'one', origin('o1')))
    expect(bodies(romeo!)).to.deep.equal(['one'])
    expect(await archived(juliet!)).to.deep.equal(['one'])
  })
})

describe('module mam: the server was killed when it had archived a message, and it is sent again', () => {
  const note = chat('romeo@example.org', 'note', origin('o1'))

  const past = (h: TestHost) => h.store.open('example.org', 'mam').docs<Doc>('processes')

  /** The server ends, and starts again. `orderly`: it was stopped. */
  async function restart(h: TestHost, orderly: boolean): Promise<void> {
    const before = await past(h).get('', 'past')
    await h.clock.advance(1000)
    await h.unload('mam')
    if (!orderly && before !== undefined) await past(h).put('', 'past', before)
    await h.load(mam)
  }

  async function killed(orderly = false, store?: Store): Promise<{ h: TestHost; juliet: TestClient }> {
    const h = await archiveHost({}, { modules, ...quiet, ...(store === undefined ? {} : { store }) })
    const [juliet] = await online(h, 'juliet@example.org/balcony')
    await juliet!.send(note)
    await restart(h, orderly)
    if (orderly) expect(await past(h).get('', 'past')).to.equal(undefined)
    await h.load(offline)
    return { h, juliet: juliet! }
  }

  it('devices without archive get it when they come, once', async () => {
    const { h, juliet } = await killed()
    await using _ = h
    for (let i = 0; i < 2; i++) expect(await juliet.send(note)).to.deep.equal([])
    const romeo = await h.client('romeo@example.org/orchard')
    const got = (await romeo.send('<presence/>')).filter((e) => e.name === 'message')
    expect(got.map((e) => e.getChildText('body'))).to.deep.equal(['note'])
    const { results } = await query(romeo)
    expect(results.map(({ id }) => id)).to.deep.equal([stanzaId(got[0], 'romeo@example.org')])
  })

  it('that somebody else was given a message with the same id and text does not count', async () => {
    const { h, juliet } = await killed()
    await using _ = h
    const came = async (jid: string) =>
      (await (await h.client(jid)).send('<presence/>')).flatMap((e) => e.getChildText('body') ?? [])
    await juliet.send(chat('nurse@example.org', 'note', origin('o1')))
    expect(await came('nurse@example.org/kitchen')).to.deep.equal(['note'])
    await juliet.send(note)
    expect(await came('romeo@example.org/orchard')).to.deep.equal(['note'])
  })

  it('devices without archive that are there get it, those that read the archive do not get it again', async () => {
    const { h, juliet } = await killed()
    await using _ = h
    const [simple, reader] = await online(h, 'romeo@example.org/simple', 'romeo@example.org/reader')
    await query(reader!)
    await juliet.send(note)
    expect(bodies(simple!)).to.deep.equal(['note'])
    expect(bodies(reader!)).to.deep.equal([])
  })

  it('who asked before it was archived, or for a part of the archive, gets it too', async () => {
    const h = await archiveHost({}, { modules, ...quiet })
    await using _ = h
    const [juliet] = await online(h, 'juliet@example.org/balcony')
    const early = await h.client('romeo@example.org/early')
    const part = await h.client('romeo@example.org/part')
    await query(early)
    await h.clock.advance(10)
    await juliet!.send(note)
    await restart(h, false)
    await query(part, { form: { with: 'nurse@example.org' } })
    for (const client of [early, part]) await client.send('<presence/>')
    for (const client of [early, part]) client.take()
    await juliet!.send(note)
    expect([bodies(early), bodies(part)]).to.deep.equal([['note'], ['note']])
  })

  it('what was kept for them too comes once, at whatever moment they become available', async () => {
    const { h, juliet } = await killed()
    await using _ = h
    let gate: Promise<void> | undefined
    const slowly = defineModule({
      name: 'slowly',
      summary: 'Contacts that are told slowly',
      specs: [],
      setup(ctx) {
        const place = {
          phase: 'copy',
          kinds: ['presence'],
          after: ['presence'],
          before: ['offline'],
        } as const
        ctx.hook('client:in', place, () => gate)
      },
    })
    await h.load(slowly)
    for (let ticks = 0; ticks < 60; ticks++) {
      const text = chat('romeo@example.org', `${ticks}`, origin(`o${ticks} `))
      await juliet.send(text)
      await restart(h, false)
      const { promise, resolve: open } = Promise.withResolvers<void>()
      gate = promise
      const romeo = await h.client('romeo@example.org/orchard')
      const available = romeo.send('<presence/>')
      await h.settle()
      const again = juliet.send(text)
      for (let i = 0; i < ticks; i++) await Promise.resolve()
      open()
      await Promise.all([available, again])
      await h.settle()
      const got = [...(await available), ...romeo.take()].filter((e) => e.name === 'message')
      expect(got.map((e) => e.getChildText('body'))).to.deep.equal([`${ticks}`])
      await romeo.close()
    }
  })

  it('when it cannot be kept for them its sender is told, and the next attempt counts', async () => {
    const disk = await switched()
    const { h, juliet } = await killed(false, disk.store)
    await using _ = h
    disk.failing.add('append')
    expect(condition((await juliet.send(note))[0])).to.equal('internal-server-error')
    disk.failing.clear()
    for (let i = 0; i < 2; i++) expect(await juliet.send(note)).to.deep.equal([])
    const romeo = await h.client('romeo@example.org/orchard')
    const got = (await romeo.send('<presence/>')).filter((e) => e.name === 'message')
    expect(got.map((e) => e.getChildText('body'))).to.deep.equal(['note'])
  })

  it('after an orderly end nothing is delivered again', async () => {
    const { h, juliet } = await killed(true)
    await using _ = h
    const [simple] = await online(h, 'romeo@example.org/simple')
    await juliet.send(note)
    expect(bodies(simple!)).to.deep.equal([])
  })

  it('nor is what was archived before the process that was killed', async () => {
    const { h, juliet } = await killed(true)
    await using _ = h
    await juliet.send(chat('romeo@example.org', 'other', origin('o2')))
    await restart(h, false)
    const [simple] = await online(h, 'romeo@example.org/simple')
    simple!.take()
    await juliet.send(note)
    expect(bodies(simple!)).to.deep.equal([])
  })

  it('a process that ended in order since does not make it forgotten, the window does', async () => {
    const { h, juliet } = await killed()
    await using _ = h
    const other = (id: string) => juliet.send(chat('juliet@example.org', id, origin(id)))
    await other('o2')
    await restart(h, true)
    const [simple] = await online(h, 'romeo@example.org/simple')
    await juliet.send(note)
    expect(bodies(simple!)).to.deep.equal(['note'])
    expect(await past(h).get('', 'past')).to.have.nested.property('cuts.length', 1)
    await h.clock.advance(7 * 86_400_000)
    await restart(h, true)
    await other('o3')
    expect(await past(h).get('', 'past')).to.have.nested.property('cuts.length', 0)
  })
})

describe('module mam: an id is used again when it has become old', () => {
  it('each time it is another message, and is known when it is sent again', async () => {
    await using h = await archiveHost({ resendWindow: '1h' }, { modules })
    const [juliet, romeo] = await online(h, 'juliet@example.org/balcony', 'romeo@example.org/orchard')
    for (let use = 0; use < 6; use++) {
      for (let i = 0; i < 2; i++) await juliet!.send(chat('romeo@example.org', 'hi', origin('1')))
      expect(bodies(romeo!), `use ${use}`).to.deep.equal(['hi'])
      await h.clock.advance(3_600_001)
    }
    expect(await archived(romeo!)).to.have.length(6)
    expect(await archived(juliet!)).to.have.length(6)
  })
})
