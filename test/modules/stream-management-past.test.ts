/**
 * XEP-0198 §4: what was given to another device, because the resource that was meant was not there, and goes on its way when that resource has
 * come and has got newer messages already.
 */
import { expect } from 'chai'
import offline from '../../modules/offline/index.ts'
import sm from '../../modules/stream-management/index.ts'
import { el } from '../../server/xmpp/element.ts'
import { archived, archiveHost, chat, origin, query } from '../helpers/archive.ts'
import { ENABLE, JULIET, message, ROMEO, SID, stage } from '../helpers/managed.ts'
import { bodies, modules, online } from '../helpers/resent.ts'

const PHONE = 'romeo@example.org/phone'
/** Longer than a session waits for its client. */
const EXPIRED = 601_000

describe('stream management: what was meant for a resource that has come since, XEP-0198 §4', () => {
  for (const [what, inArchive, type, ready, expected] of [
    ['archived: kept until the session is available', true, 'chat', false, ['2', 'kept 1']],
    ['archived, of type normal: the same', true, 'normal', false, ['2', 'kept 1']],
    ['archived: a session that is available gets it', true, 'chat', true, ['2', '1']],
    ['in no archive: it gets it now or never', false, 'chat', false, ['2', '1']],
  ] as const)
    it(what, async () => {
      await using s = await stage()
      await s.romeo.drop()
      const id = inArchive ? [el('stanza-id', SID, { by: 'romeo@example.org', id: '7' })] : []
      s.romeo.session.send(el('message', 'jabber:client', { from: JULIET, to: PHONE, id: '1', type }, ...id))
      await s.host.clock.advance(1000)
      const phone = await s.host.client(PHONE)
      if (ready) phone.session.setPresence(el('presence', 'jabber:client'))
      await s.juliet.send(message('2', PHONE))
      await s.host.clock.advance(EXPIRED)
      const got = [
        ...phone.take().map((e) => e.attr('id')),
        ...s.world.kept.map((e) => `kept ${e.attr('id')}`),
      ]
      expect(got).to.deep.equal(expected)
    })

  for (const reads of [true, false])
    it(`a device that ${reads ? 'reads the archive finds it there' : 'reads no archive gets it when it is available'}`, async () => {
      await using h = await archiveHost({}, { modules: [...modules, offline, sm] })
      const [juliet, orchard] = await online(h, JULIET, ROMEO)
      await orchard!.send(ENABLE)
      await orchard!.drop()
      await juliet!.send(chat(PHONE, 'one', origin('o1')))
      const phone = await h.client(PHONE)
      await juliet!.send(chat(PHONE, 'two', origin('o2')))
      await h.clock.advance(EXPIRED)
      expect(bodies(phone)).to.deep.equal(['two'])
      if (reads) expect((await query(phone)).results.map(({ body }) => body)).to.deep.equal(['one', 'two'])
      const messages = (await phone.send('<presence/>')).filter(({ name }) => name === 'message')
      expect(messages.map((e) => e.getChildText('body'))).to.deep.equal(reads ? [] : ['one'])
      expect(messages.map((e) => e.getChild('delay', 'urn:xmpp:delay') !== undefined)).to.deep.equal(
        reads ? [] : [true],
      )
      await phone.close()
      const next = await h.client('romeo@example.org/laptop')
      const after = await next.send('<presence/>')
      expect(after.filter(({ name }) => name === 'message')).to.deep.equal([])
      expect(await archived(next)).to.deep.equal(['one', 'two'])
    })
})
