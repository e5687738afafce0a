/** Messages that are sent again after the store gave no clear answer, or the server was killed: once, and in order (XEP-0359 §2.2). */
import { expect } from 'chai'
import type { Doc } from '../../server/module.ts'
import type { Store } from '../../server/storage/contract.ts'
import { openMemory } from '../../server/storage/memory.ts'
import carbons from '../../modules/carbons/index.ts'
import disco from '../../modules/disco.ts'
import mam from '../../modules/mam/index.ts'
import offline from '../../modules/offline/index.ts'
import presence from '../../modules/presence/index.ts'
import roster from '../../modules/roster/index.ts'
import stanzaIdModule from '../../modules/stanza-id.ts'
import { archived, archiveHost, chat, controlledStore, origin, query, stanzaId } from '../helpers/archive.ts'
import type { TestClient, TestHost } from '../helpers/host.ts'
import { condition } from '../helpers/im.ts'
import { switched } from '../helpers/offline.ts'

const NEVER = "<iq type='set' id='p'><prefs xmlns='urn:xmpp:mam:2' default='never'/></iq>"
const modules = [disco, roster, presence, stanzaIdModule, mam, carbons]
const THREE = ['juliet@example.org/balcony', 'juliet@example.org/phone', 'romeo@example.org/orchard']
const quiet = { onLog: () => undefined }

async function online(h: TestHost, ...jids: readonly string[]): Promise<TestClient[]> {
  const clients: TestClient[] = []
  for (const jid of jids) {
    const client = await h.client(jid)
    await client.send('<presence/>')
    await client.send("<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>")
    clients.push(client)
  }
  for (const client of clients) client.take()
  return clients
}

const bodies = (client: TestClient) => client.take().map((e) => e.getChildText('body'))
/** Bodies of what was copied. */
const copies = (client: TestClient) =>
  client
    .take()
    .filter((e) => e.attr('type') !== 'error')
    .map((e) => e.elements[0]?.elements[0]?.elements[0]?.getChildText('body'))

describe('module mam: the store has what it said it had not', () => {
  it('the receiver’s archive: what is sent again is delivered, and stands where the devices saw it', async () => {
    const { store, unsure } = await controlledStore()
    await using h = await archiveHost({}, { store, modules, ...quiet })
    const [juliet, phone, romeo] = await online(h, ...THREE)
    unsure.add('romeo')
    const [error] = await juliet!.send(chat('romeo@example.org', 'one', origin('o1')))
    expect(condition(error)).to.equal('internal-server-error')
    unsure.clear()
    await juliet!.send(chat('romeo@example.org', 'two', origin('o2')))
    expect(bodies(romeo!)).to.deep.equal(['two'])
    for (let i = 0; i < 3; i++)
      expect(await juliet!.send(chat('romeo@example.org', 'one', origin('o1')))).to.deep.equal([])
    const live = romeo!.take()
    const { results } = await query(romeo!)
    expect(live.map((e) => e.getChildText('body'))).to.deep.equal(['one'])
    expect(results.map(({ body }) => body)).to.deep.equal(['two', 'one'])
    expect(stanzaId(live[0], 'romeo@example.org')).to.equal(results[1]?.id)
    // the sender’s other device saw both when they were written, once
    expect(copies(phone!)).to.deep.equal(['one', 'two'])
    expect(await archived(juliet!)).to.deep.equal(['one', 'two'])
  })

  it('the receiver’s archive: what is sent behind it stands behind it', async () => {
    const { store, unsure } = await controlledStore()
    await using h = await archiveHost({}, { store, modules, ...quiet })
    const [juliet, romeo] = await online(h, 'juliet@example.org/balcony', 'romeo@example.org/orchard')
    unsure.add('romeo')
    await juliet!.send(chat('romeo@example.org', 'one', origin('o1')))
    unsure.clear()
    await juliet!.send(
      ['one', 'two', 'three'].map((body, i) => chat('romeo@example.org', body, origin(`o${i + 1}`))).join(''),
    )
    expect(bodies(romeo!)).to.deep.equal(['one', 'two', 'three'])
    expect(await archived(romeo!)).to.deep.equal(['one', 'two', 'three'])
  })

  it('whenever others send meanwhile, the archive has the order that devices see', async () => {
    const { store, unsure } = await controlledStore()
    await using h = await archiveHost({}, { store, modules, ...quiet })
    const [juliet, nurse, romeo] = await online(
      h,
      'juliet@example.org/balcony',
      'nurse@example.org/house',
      'romeo@example.org/orchard',
    )
    for (let ticks = 0; ticks < 60; ticks++) {
      const text = (n: number): string => chat('romeo@example.org', `${ticks} ${n}`, origin(`o${ticks}-${n}`))
      unsure.add('romeo')
      await juliet!.send(text(1))
      unsure.clear()
      const all = juliet!.send(text(1) + text(2) + text(3))
      for (let i = 0; i < ticks; i++) await Promise.resolve()
      await Promise.all([nurse!.send(text(4)), all])
    }
    await h.settle()
    const live = bodies(romeo!)
    expect(live).to.have.length(240)
    expect(await archived(romeo!)).to.deep.equal(live)
  })

  it('what comes while its receiver becomes available is delivered once, however often it is sent', async () => {
    await using h = await archiveHost({}, { modules: [...modules, offline], ...quiet })
    const romeo = await h.client('romeo@example.org/orchard')
    const note = chat('romeo@example.org', 'note', origin('o1'))
    const first = await romeo.send(`${note}<presence/>`)
    const second = await romeo.send(note)
    const notes = [...first, ...second].filter((e) => e.name === 'message')
    expect(notes.map((e) => e.getChildText('body'))).to.deep.equal(['note'])
    const { results } = await query(romeo)
    expect(results.map(({ id }) => id)).to.deep.equal([stanzaId(notes[0], 'romeo@example.org')])
  })

  it('the sender’s archive: what is sent again is copied to the other devices, and stands where they saw it', async () => {
    const { store, unsure } = await controlledStore()
    await using h = await archiveHost({}, { store, modules, ...quiet })
    const [juliet, phone, romeo] = await online(h, ...THREE)
    unsure.add('juliet')
    expect(condition((await juliet!.send(chat('romeo@example.org', 'one', origin('o1'))))[0])).to.equal(
      'internal-server-error',
    )
    unsure.clear()
    await juliet!.send(chat('romeo@example.org', 'two', origin('o2')))
    for (let i = 0; i < 3; i++) await juliet!.send(chat('romeo@example.org', 'one', origin('o1')))
    expect(bodies(romeo!)).to.deep.equal(['two', 'one'])
    expect(await archived(juliet!)).to.deep.equal(['two', 'one'])
    expect(await archived(romeo!)).to.deep.equal(['two', 'one'])
    expect(copies(phone!)).to.deep.equal(['two', 'one'])
  })

  it('whoever asks for its archive in vain is not sent what is there either', async () => {
    const { store, unsure, failing } = await controlledStore()
    await using h = await archiveHost({}, { store, modules: [...modules, offline], ...quiet })
    const [juliet] = await online(h, 'juliet@example.org/balcony')
    await juliet!.send(chat('romeo@example.org', 'one', origin('o1')))
    unsure.add('romeo')
    await juliet!.send(chat('romeo@example.org', 'two', origin('o2')))
    unsure.clear()
    failing.add('romeo')
    const romeo = await h.client('romeo@example.org/orchard')
    const [error] = await romeo.send("<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'/></iq>")
    expect(error?.attr('type')).to.equal('error')
    failing.clear()
    expect((await romeo.send('<presence/>')).map((e) => e.name)).to.deep.equal(['presence'])
    expect((await query(romeo)).bodies).to.deep.equal(['one'])
  })

  it('sent again while the first attempt has no answer: delivered, when that fails', async () => {
    const { store, gates, unsure } = await controlledStore()
    await using h = await archiveHost({}, { store, modules, ...quiet })
    const [juliet, phone, romeo] = await online(h, ...THREE)
    const { promise: gate, resolve: open } = Promise.withResolvers<void>()
    unsure.add('romeo')
    gates.set('romeo', gate)
    const first = juliet!.send(chat('romeo@example.org', 'one', origin('o1')))
    await h.settle()
    gates.clear()
    unsure.clear()
    const again = phone!.send(
      chat('romeo@example.org', 'one', origin('o1')) + chat('romeo@example.org', 'two', origin('o2')),
    )
    await h.settle()
    open()
    await Promise.all([first, again])
    await h.settle()
    expect(bodies(romeo!)).to.deep.equal(['one', 'two'])
    expect(await archived(romeo!)).to.deep.equal(['one', 'two'])
  })

  it('what has no answer yet is not read', async () => {
    const { store, gates, unsure } = await controlledStore()
    await using h = await archiveHost({}, { store, modules, ...quiet })
    const [juliet, romeo] = await online(h, 'juliet@example.org/balcony', 'romeo@example.org/orchard')
    const { promise: gate, resolve: open } = Promise.withResolvers<void>()
    unsure.add('romeo')
    gates.set('romeo', gate)
    const sent = juliet!.send(chat('romeo@example.org', 'one', origin('o1')))
    await h.settle()
    gates.clear()
    const asked = romeo!.send("<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'/></iq>")
    await h.settle()
    open()
    await sent
    await h.settle()
    expect([...(await asked), ...romeo!.take()].map((e) => e.name)).to.deep.equal(['iq'])
  })

  it('an attempt that succeeds while the archive is put right stays', async () => {
    const { store, silent } = await controlledStore()
    await using h = await archiveHost({}, { store, modules, ...quiet })
    const [juliet, romeo] = await online(h, 'juliet@example.org/balcony', 'romeo@example.org/orchard')
    for (let ticks = 0; ticks < 60; ticks++) {
      const text = chat('romeo@example.org', `${ticks}`, origin(`o${ticks}`))
      silent.add('romeo')
      await juliet!.send(text)
      silent.clear()
      const again = juliet!.send(text)
      for (let i = 0; i < ticks; i++) await Promise.resolve()
      await Promise.all([again, h.service('archive').messages('romeo')[Symbol.asyncIterator]().next()])
    }
    await h.settle()
    const live = bodies(romeo!)
    expect(live).to.have.length(60)
    expect(await archived(romeo!)).to.deep.equal(live)
  })

  it('what was not stored is not put there to find out, and the next process takes it as new', async () => {
    const { store, failing, stuck } = await controlledStore()
    {
      await using h = await archiveHost({}, { store, modules, ...quiet })
      const [juliet, romeo] = await online(h, 'juliet@example.org/balcony', 'romeo@example.org/orchard')
      failing.add('romeo')
      stuck.add('romeo')
      await juliet!.send(chat('romeo@example.org', 'one', origin('o1')))
      failing.clear()
      expect(await archived(romeo!)).to.deep.equal([])
    }
    await using h = await archiveHost({}, { store, modules, ...quiet })
    const [juliet, romeo] = await online(h, 'juliet@example.org/balcony', 'romeo@example.org/orchard')
    await juliet!.send(chat('romeo@example.org', 'one', origin('o1')))
    expect(bodies(romeo!)).to.deep.equal(['one'])
  })

  it('what failed is taken out when the server ends, so that the next process takes it as new', async () => {
    const { store, unsure } = await controlledStore()
    {
      await using h = await archiveHost({}, { store, modules, ...quiet })
      const [juliet] = await online(h, 'juliet@example.org/balcony')
      unsure.add('romeo')
      await juliet!.send(chat('romeo@example.org', 'one', origin('o1')))
      unsure.clear()
    }
    await using h = await archiveHost({}, { store, modules, ...quiet })
    const [juliet, romeo] = await online(h, 'juliet@example.org/balcony', 'romeo@example.org/orchard')
    expect(await archived(romeo!)).to.deep.equal([])
    await juliet!.send(chat('romeo@example.org', 'one', origin('o1')))
    expect(bodies(romeo!)).to.deep.equal(['one'])
  })

  it('still unsure the second time: bounced again, and once in the end', async () => {
    const { store, unsure } = await controlledStore()
    await using h = await archiveHost({}, { store, modules, ...quiet })
    const [juliet, romeo] = await online(h, 'juliet@example.org/balcony', 'romeo@example.org/orchard')
    unsure.add('romeo')
    for (let i = 0; i < 2; i++)
      expect(condition((await juliet!.send(chat('romeo@example.org', 'one', origin('o1'))))[0])).to.equal(
        'internal-server-error',
      )
    unsure.clear()
    for (let i = 0; i < 2; i++) await juliet!.send(chat('romeo@example.org', 'one', origin('o1')))
    expect(bodies(romeo!)).to.deep.equal(['one'])
    expect(await archived(romeo!)).to.deep.equal(['one'])
  })

  it('what was shown before the store failed is not shown again', async () => {
    const { store, failing, unsure } = await controlledStore()
    await using h = await archiveHost({}, { store, modules, ...quiet })
    const [juliet, romeo] = await online(h, 'juliet@example.org/balcony', 'romeo@example.org/orchard')
    const send = () => juliet!.send(chat('romeo@example.org', 'one', origin('o1')))
    await send()
    for (const broken of [failing, unsure]) {
      await h.clock.advance(1000)
      broken.add('romeo').add('juliet')
      expect(condition((await send())[0])).to.equal('internal-server-error')
      broken.clear()
      await send()
    }
    expect(bodies(romeo!)).to.deep.equal(['one'])
    expect(await archived(romeo!)).to.deep.equal(['one'])
    expect(await archived(juliet!)).to.deep.equal(['one'])
  })

  for (const [name, id] of [
    ['with an id of its sender', origin('o1')],
    ['without', ''],
  ] as const)
    it(`a device that reads the archive does not see it before it is sent again: ${name}`, async () => {
      const { store, unsure } = await controlledStore()
      await using h = await archiveHost({}, { store, modules, ...quiet })
      const [juliet, romeo] = await online(h, 'juliet@example.org/balcony', 'romeo@example.org/orchard')
      unsure.add('romeo').add('juliet')
      await juliet!.send(chat('romeo@example.org', 'one', id))
      unsure.clear()
      expect(await archived(romeo!)).to.deep.equal([])
      expect(await archived(juliet!)).to.deep.equal([])
      await juliet!.send(chat('romeo@example.org', 'one', id))
      expect(bodies(romeo!)).to.deep.equal(['one'])
      expect(await archived(romeo!)).to.deep.equal(['one'])
      expect(await archived(juliet!)).to.deep.equal(['one'])
    })

  it('the store for those who are away fails: what is sent again is kept there, and stands once in the archive', async () => {
    const disk = await switched()
    await using h = await archiveHost({}, { store: disk.store, modules: [...modules, offline], ...quiet })
    const [juliet] = await online(h, 'juliet@example.org/balcony')
    const send = (body: string) => juliet!.send(chat('romeo@example.org', body, origin(body)))
    disk.failing.add('append')
    expect(condition((await send('one'))[0])).to.equal('internal-server-error')
    disk.failing.clear()
    for (const body of ['two', 'one', 'one', 'two']) expect(await send(body)).to.deep.equal([])
    const romeo = await h.client('romeo@example.org/orchard')
    expect((await romeo.send('<presence/>')).flatMap((e) => e.getChildText('body') ?? [])).to.deep.equal([
      'two',
      'one',
    ])
    expect(await archived(romeo)).to.deep.equal(['one', 'two'])
  })

  it('an error that a client sends is no reason to deliver again', async () => {
    await using h = await archiveHost({}, { modules })
    const [juliet, romeo] = await online(h, 'juliet@example.org/balcony', 'romeo@example.org/orchard')
    await juliet!.send(chat('romeo@example.org', 'one', origin('o1')))
    expect(bodies(romeo!)).to.deep.equal(['one'])
    await romeo!.send(
      "<message type='error' id='one' to='juliet@example.org/balcony'><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>",
    )
    await juliet!.send(chat('romeo@example.org', 'one', origin('o1')))
    expect(bodies(romeo!)).to.deep.equal([])
  })
})

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

  it('devices without archive that are there get it, those that read the archive do not get it again', async () => {
    const { h, juliet } = await killed()
    await using _ = h
    const [simple, reader] = await online(h, 'romeo@example.org/simple', 'romeo@example.org/reader')
    await query(reader!)
    await juliet.send(note)
    expect(bodies(simple!)).to.deep.equal(['note'])
    expect(bodies(reader!)).to.deep.equal([])
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
