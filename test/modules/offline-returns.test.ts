/** DESIGN §0.1: messages that were handed over and come back, because their device never read them, before the store has removed them. */
import { expect } from 'chai'
import disco from '../../modules/disco.ts'
import mam from '../../modules/mam/index.ts'
import offline from '../../modules/offline/index.ts'
import presence from '../../modules/presence/index.ts'
import roster from '../../modules/roster/index.ts'
import sm from '../../modules/stream-management/index.ts'
import stanzaId from '../../modules/stanza-id.ts'
import type { TestClient, TestHost } from '../helpers/host.ts'
import { origin } from '../helpers/archive.ts'
import { arrive, bodies, messages, romeoAt, say, start, switched } from '../helpers/offline.ts'

/** Not to be resumed: what it has not confirmed goes on its way when its stream is lost. */
const COUNT = "<enable xmlns='urn:xmpp:sm:3'/>"
const withoutArchive = [disco, roster, presence, sm, offline]
const withArchive = [...withoutArchive, stanzaId, mam]

/** What juliet gets on a device that confirms nothing. */
async function counting(h: TestHost, resource: string): Promise<[TestClient, unknown[]]> {
  const client = await h.client(`juliet@example.org/${resource}`)
  await client.send(COUNT)
  return [client, bodies(await client.send('<presence/>'))]
}
const identified = (text: string): string => say(text, "type='chat'", origin(`o${text}`))

describe('module offline: what comes back before it is removed', () => {
  for (const [archive, modules] of [
    ['without archive', withoutArchive],
    ['with archive', withArchive],
  ] as const) {
    it(`the session ends while the store removes, ${archive}`, async () => {
      const disk = await switched()
      await using h = await start({}, { store: disk.store, modules })
      const romeo = await romeoAt(h)
      await romeo.send(identified('1') + say('2') + identified('3'))
      const slow = Promise.withResolvers<void>()
      disk.removing = slow.promise
      const [phone, got] = await counting(h, 'phone')
      expect(got).to.eql(['1', '2', '3'])
      await phone.drop()
      disk.removing = undefined
      slow.resolve()
      await h.settle()
      expect(bodies(await arrive(h))).to.eql(['1', '2', '3'])
      expect(await arrive(h, 'garden')).to.eql([])
    })

    it(`the store would not remove; sessions end, again and again, ${archive}`, async () => {
      const disk = await switched()
      await using h = await start({}, { store: disk.store, modules, onLog: () => undefined })
      const romeo = await romeoAt(h)
      await romeo.send(identified('1') + say('2') + identified('3'))
      disk.failing.add('remove')
      for (const resource of ['a', 'b', 'c']) {
        const [phone, got] = await counting(h, resource)
        expect(got).to.eql(['1', '2', '3'])
        await phone.drop()
      }
      disk.failing.clear()
      expect(bodies(await arrive(h))).to.eql(['1', '2', '3'])
      expect(await arrive(h, 'garden')).to.eql([])
      const stored = disk.store.open('example.org', 'offline').archive('messages')
      expect((await stored.page('juliet', { from: 'first', limit: 10 })).entries).to.eql([])
    })
  }

  it('together, behind what waits already', async () => {
    const disk = await switched()
    await using h = await start({}, { store: disk.store, modules: withoutArchive, onLog: () => undefined })
    const romeo = await romeoAt(h)
    await romeo.send(identified('1') + say('2') + identified('3'))
    disk.failing.add('remove')
    const [phone] = await counting(h, 'phone')
    await phone.send("<presence type='unavailable'/>")
    await romeo.send(identified('4'))
    await phone.drop()
    expect(bodies(await arrive(h))).to.eql(['4', '1', '2', '3'])
  })

  it('killed before the removal: nothing is lost, and what stands there twice comes once', async () => {
    const disk = await switched()
    const store = { ...disk.store, close: () => Promise.resolve() }
    {
      await using h = await start({}, { store, modules: withoutArchive, onLog: () => undefined })
      const romeo = await romeoAt(h)
      await romeo.send(identified('1') + identified('2'))
      disk.failing.add('remove')
      const [phone] = await counting(h, 'phone')
      await phone.drop()
    }
    disk.failing.clear()
    await using h = await start({}, { store, modules: withoutArchive })
    expect(bodies(await arrive(h))).to.eql(['1', '2'])
    expect(await arrive(h, 'garden')).to.eql([])
  })

  it('sent again by its sender while it is back: it waits once', async () => {
    const disk = await switched()
    await using h = await start({}, { store: disk.store, modules: withoutArchive, onLog: () => undefined })
    const romeo = await romeoAt(h)
    await romeo.send(identified('1'))
    disk.failing.add('remove')
    const [phone] = await counting(h, 'phone')
    await phone.drop()
    disk.failing.clear()
    await romeo.send(identified('1'))
    expect(bodies(await arrive(h))).to.eql(['1'])
    expect(messages(await arrive(h, 'garden'))).to.eql([])
  })
})
