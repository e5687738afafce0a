/** XEP-0357: which messages devices are told of, how often, and calls (XEP-0353). */
import { expect } from 'chai'
import { disable, enable, JULIET, managed, pushStage, ROMEO } from '../helpers/push.ts'

const NO_ANSWER = { onLog: () => undefined }
const proposal = (id: string): string =>
  `<propose xmlns='urn:xmpp:jingle-message:0' id='${id}'><description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/></propose><store xmlns='urn:xmpp:hints'/>`

describe('push: rules (XEP-0357)', () => {
  describe('what matters', () => {
    const encrypted = (ns: string, payload: string): string =>
      `<encrypted xmlns='${ns}'><header sid='1'/>${payload}</encrypted><store xmlns='urn:xmpp:hints'/>`
    const chat = `to='${ROMEO}' type='chat'`
    for (const [what, content, attrs] of [
      ['a text', '<body>x</body>', chat],
      ['a text without a type', '<body>x</body>', `to='${ROMEO}'`],
      ['OMEMO with a payload', encrypted('eu.siacs.conversations.axolotl', '<payload>x</payload>'), chat],
      ['OMEMO 2 with a payload', encrypted('urn:xmpp:omemo:2', '<payload>x</payload>'), chat],
      ['OpenPGP', "<openpgp xmlns='urn:xmpp:openpgp:0'>x</openpgp>", chat],
      ['an invitation to a room', "<x xmlns='jabber:x:conference' jid='r@c.example'/>", `to='${ROMEO}'`],
      [
        'an invitation by a room',
        "<x xmlns='http://jabber.org/protocol/muc#user'><invite from='a@b'/></x>",
        `to='${ROMEO}'`,
      ],
    ] as const)
      it(`${what}: told`, async () => {
        await using stage = await pushStage()
        await stage.away('phone')
        await stage.send(content, attrs)
        expect(await stage.app.counts()).to.deep.equal(['phone 1'])
      })

    for (const [what, content, attrs] of [
      ['typing', "<composing xmlns='http://jabber.org/protocol/chatstates'/>", chat],
      ['a marker', "<displayed xmlns='urn:xmpp:chat-markers:0' id='x'/>", chat],
      ['a receipt', "<received xmlns='urn:xmpp:receipts' id='x'/>", chat],
      ['an empty body', '<body/>', chat],
      ['OMEMO that only carries keys', encrypted('eu.siacs.conversations.axolotl', ''), chat],
      ['an error', '<body>x</body>', `to='${ROMEO}' type='error'`],
      ['a headline', '<body>x</body>', `to='${ROMEO}' type='headline'`],
      ['what is said in a room', '<body>x</body>', `to='${ROMEO}/phone' type='groupchat'`],
      ['a call that was taken', "<accept xmlns='urn:xmpp:jingle-message:0' id='x'/>", chat],
      ['a call that is over', "<retract xmlns='urn:xmpp:jingle-message:0' id='x'/>", chat],
    ] as const)
      it(`${what}: not told, neither kept nor for a session without stream`, async () => {
        await using stage = await pushStage()
        await stage.away('tablet')
        const { client } = await managed(stage, 'phone')
        await client.drop()
        await stage.send(content, attrs)
        await stage.host.clock.advance(60_000)
        expect(await stage.app.counts()).to.deep.equal([])
      })

    it('what the account sends itself, to others or to itself: not told', async () => {
      await using stage = await pushStage()
      await stage.away('phone')
      const desk = await stage.device('desk')
      for (const to of [JULIET, ROMEO, `${ROMEO}/phone`])
        await desk.send(`<message to='${to}' type='chat' id='x'><body>mine</body></message>`)
      await stage.host.clock.advance(60_000)
      expect(await stage.app.counts()).to.deep.equal([])
    })

    it('results of the archive for a session without stream: not told', async () => {
      await using stage = await pushStage()
      await stage.say('long ago')
      const { client } = await managed(stage, 'phone')
      client.transport.feed("<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'/></iq>")
      await client.drop()
      await stage.host.clock.advance(60_000)
      expect(await stage.app.counts()).to.deep.equal([])
    })

    it('a message of a sender that is blocked is no message', async () => {
      const blocking = (await import('../../modules/blocking/index.ts')).default
      await using stage = await pushStage()
      await stage.host.load(blocking)
      const phone = await stage.device('phone')
      await enable(phone, 'phone')
      await phone.send(
        "<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='juliet@example.org'/></block></iq>",
      )
      await phone.close()
      await stage.say('one')
      await stage.host.clock.advance(60_000)
      expect(await stage.app.counts()).to.deep.equal([])
    })
  })

  describe('rates', () => {
    it('messages of one interval are told together, the first at once', async () => {
      await using stage = await pushStage({ interval: '30s' })
      await stage.away('phone')
      for (let i = 0; i < 5; i++) await stage.say(`${i}`)
      expect(await stage.app.counts()).to.deep.equal(['phone 1'])
      await stage.host.clock.advance(29_000)
      expect(await stage.app.counts()).to.deep.equal([])
      await stage.host.clock.advance(1000)
      expect(await stage.app.counts()).to.deep.equal(['phone 5'])
      await stage.host.clock.advance(120_000)
      expect(await stage.app.counts()).to.deep.equal([])
    })

    it('the clock goes back by an hour: told all the same, and once in an interval again', async () => {
      await using stage = await pushStage()
      await stage.away('phone')
      await stage.say('one')
      expect(await stage.app.counts()).to.deep.equal(['phone 1'])
      stage.host.clock.putBack(3_600_000)
      await stage.say('two')
      expect(await stage.app.counts()).to.deep.equal(['phone 2'])
      await stage.say('three')
      expect(await stage.app.counts()).to.deep.equal([])
      expect(await stage.app.during(stage.host, 10_000)).to.deep.equal(['phone 3'])
    })

    it('one device does not use up the interval of another', async () => {
      await using stage = await pushStage({ interval: '30s' })
      await stage.away('phone')
      await stage.say('one')
      expect(await stage.app.counts()).to.deep.equal(['phone 1'])
      await stage.away('tablet')
      await stage.say('two')
      expect(await stage.app.counts()).to.deep.equal(['tablet 1'])
      await stage.host.clock.advance(30_000)
      expect(await stage.app.counts()).to.deep.equal(['phone 2'])
    })

    it('what was told meanwhile to a device that came back is not told again', async () => {
      await using stage = await pushStage()
      await stage.away('phone')
      await stage.say('one')
      await stage.app.counts()
      await stage.say('two')
      await stage.device('phone')
      await stage.host.clock.advance(60_000)
      expect(await stage.app.counts()).to.deep.equal([])
    })

    it('what is disabled while a request to the app server is prepared is not published (§6)', async () => {
      await using stage = await pushStage()
      await stage.away('phone')
      const desk = await stage.host.client(`${ROMEO}/desk`)
      const roster = stage.host.host.service('roster')
      if (roster === undefined) throw new Error('no roster')
      const of = roster.of.bind(roster)
      const gate = Promise.withResolvers<void>()
      roster.of = async (local) => {
        await gate.promise
        return of(local)
      }
      await stage.say('one')
      expect(await disable(desk)).to.equal('result')
      gate.resolve()
      expect(await stage.app.during(stage.host, 60_000)).to.deep.equal([])
    })

    it('what was disabled while it was due is not published', async () => {
      await using stage = await pushStage()
      await stage.away('phone')
      await stage.say('one')
      await stage.app.counts()
      await stage.say('two')
      await disable(await stage.device('desk'), 'phone')
      await stage.host.clock.advance(60_000)
      expect(await stage.app.counts()).to.deep.equal([])
    })
  })

  describe('calls (XEP-0353)', () => {
    it('are told at once and urgently, within the interval too, and are no messages', async () => {
      await using stage = await pushStage({ interval: '30s' })
      await stage.away('phone')
      await stage.say('one')
      await stage.say('two')
      expect(await stage.app.counts()).to.deep.equal(['phone 1'])
      await stage.send(proposal('c1'))
      const [call, ...more] = await stage.app.told()
      expect([call?.priority, call?.summary['message-count'], more]).to.deep.equal(['high', '2', []])
      await stage.host.clock.advance(30_000)
      const [message] = await stage.app.told()
      expect([message?.priority, message?.summary['message-count']]).to.deep.equal([undefined, '2'])
    })

    it('have a limit of their own', async () => {
      await using stage = await pushStage({ callsPerMinute: 3 })
      await stage.away('phone')
      for (let i = 0; i < 10; i++) await stage.send(proposal(`c${i}`))
      const urgent = async (): Promise<number> =>
        (await stage.app.told()).filter(({ priority }) => priority === 'high').length
      expect(await urgent()).to.equal(3)
      await stage.host.clock.advance(60_000)
      await stage.send(proposal('later'))
      expect(await urgent()).to.equal(1)
    })

    it('a stranger who calls all the time does not keep a device from being told of another call', async () => {
      await using stage = await pushStage()
      await stage.away('phone')
      for (let i = 0; i < 30; i++) await stage.send(proposal(`c${i}`))
      expect(await stage.app.counts()).to.deep.equal([...Array<string>(10).fill('phone 0'), 'phone 1'])
      expect(await stage.app.during(stage.host, 15_000)).to.deep.equal(['phone 20'])
      const friend = await stage.host.client('app@example.org/friend')
      await friend.send(`<message to='${ROMEO}' type='chat' id='f'>${proposal('real')}</message>`)
      expect(await stage.app.during(stage.host, 10_000)).to.deep.equal(['phone 21'])
    })

    it('are tried again soon, and not when nobody rings any more', async () => {
      await using stage = await pushStage({}, NO_ANSWER)
      await stage.away('phone')
      stage.app.answer = { type: 'wait', condition: 'resource-constraint' }
      await stage.send(proposal('c1'))
      const tries = await stage.app.during(stage.host, 120_000)
      expect(tries.length).to.be.within(2, 4)
    })

    it('a dead app server does not hold up the calls of another', async () => {
      await using stage = await pushStage({ concurrency: 1 }, NO_ANSWER)
      const phone = await stage.device('phone')
      await enable(phone, 'dead', '', 'app@example.org/dead')
      await stage.host.client('app@example.org/dead') // never answers
      await enable(phone, 'phone')
      await phone.close()
      await stage.say('one')
      await stage.send(proposal('c1'))
      const told = await stage.app.during(stage.host, 90_000)
      expect(told).to.include('phone 1')
    })
  })
})
