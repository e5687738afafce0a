/** Messages that the store did not take, as far as it said, and that are sent again: once, and in order (XEP-0359 §2.2). */
import { expect } from 'chai'
import offline from '../../modules/offline/index.ts'
import { archived, archiveHost, chat, controlledStore, origin, query, stanzaId } from '../helpers/archive.ts'
import { condition } from '../helpers/im.ts'
import { switched } from '../helpers/offline.ts'
import { bodies, copies, modules, online, quiet, THREE } from '../helpers/resent.ts'

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

  it('what fails while somebody reads page after page is not read', async () => {
    const { store, unsure } = await controlledStore()
    await using h = await archiveHost({}, { store, modules, ...quiet })
    const [juliet] = await online(h, 'juliet@example.org/balcony')
    const send = (n: number) => juliet!.send(chat('romeo@example.org', `m${n}`, origin(`o${n}`)))
    for (let n = 0; n < 201; n++) await send(n)
    const read: (string | undefined)[] = []
    for await (const { stanza } of h.service('archive').messages('romeo')) {
      read.push(stanza.getChildText('body'))
      if (read.length !== 100) continue
      unsure.add('romeo')
      expect(condition((await send(201)).at(-1))).to.equal('internal-server-error')
      unsure.clear()
    }
    expect([read.length, read.at(-1)]).to.deep.equal([201, 'm200'])
    await send(201)
    expect(
      (await query(await h.client('romeo@example.org/phone'), { rsm: '<max>1</max><before/>' })).bodies,
    ).to.deep.equal(['m201'])
  })

  it('an account that is removed while its archive is put right leaves nothing there', async () => {
    const { store, silent, reading } = await controlledStore()
    await using h = await archiveHost({}, { store, modules, ...quiet })
    const [juliet] = await online(h, 'juliet@example.org/balcony')
    silent.add('romeo')
    await juliet!.send(chat('romeo@example.org', 'for the first one', origin('o1')))
    silent.clear()
    const gate = Promise.withResolvers<void>()
    reading.set('romeo', gate.promise)
    const settled = h.service('archive').settled('romeo')
    await h.settle()
    await h.host.deleteAccount('romeo')
    gate.resolve()
    await settled
    expect(await store.purgeOwner('example.org', 'romeo')).to.equal(0)
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
