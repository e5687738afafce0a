/** XEP-0357: who asks for notifications and who may, what is published, what becomes of failures. When devices are told: push-triggers. */
import { expect } from 'chai'
import push from '../../modules/push/index.ts'
import { ask, discoInfo, outcome } from '../helpers/iq.ts'
import { APP, disable, enable, JULIET, kept, NS_PUSH, pushStage, ROMEO, SECRET } from '../helpers/push.ts'

describe('push (XEP-0357)', () => {
  describe('§4.1: announced', () => {
    it('to its owner, as a feature of the account', async () => {
      await using stage = await pushStage()
      const phone = await stage.device('phone')
      const info = await discoInfo(phone, ROMEO)
      expect(info.getChildren('feature').map((f) => f.attr('var'))).to.include(NS_PUSH)
    })
  })

  describe('§5, §6: enabling and disabling', () => {
    it('what was enabled is published to, what was disabled is not', async () => {
      await using stage = await pushStage()
      const phone = await stage.device('phone')
      expect(await enable(phone, 'n1')).to.equal('result')
      await phone.close()
      await stage.say('one')
      expect(await stage.app.counts()).to.deep.equal(['n1 1'])
      const again = await stage.device('tablet')
      expect(await disable(again, 'n1')).to.equal('result')
      await again.close()
      await stage.host.clock.advance(60_000)
      await stage.say('two')
      expect(await stage.app.counts()).to.deep.equal([])
    })

    it('of several nodes one address can have, <disable/> with a node removes that, without a node all', async () => {
      await using stage = await pushStage()
      const phone = await stage.device('phone')
      for (const node of ['a', 'b', 'c']) await enable(phone, node)
      await enable(phone, 'other', '', 'app@example.org/other')
      expect(await disable(phone, 'b')).to.equal('result')
      await phone.close()
      await stage.say('one')
      expect((await stage.app.counts()).toSorted((a, b) => a.localeCompare(b))).to.deep.equal(['a 1', 'c 1'])
      const tablet = await stage.device('tablet')
      expect(await disable(tablet)).to.equal('result')
      await tablet.close()
      await stage.host.clock.advance(60_000)
      await stage.say('two')
      expect(await stage.app.counts()).to.deep.equal([])
    })

    it('what was never enabled can be disabled', async () => {
      await using stage = await pushStage()
      expect(await disable(await stage.device('phone'), 'n')).to.equal('result')
    })

    it('enabled again with the same address and node, the last publish options count', async () => {
      await using stage = await pushStage()
      const phone = await stage.device('phone')
      await enable(phone, 'n', SECRET)
      await enable(phone, 'n', SECRET.replace('eruio234vzxc2kla-91', 'newer'))
      await phone.close()
      await stage.say('one')
      const told = await stage.app.told()
      expect(told.map(({ options }) => options['secret'])).to.deep.equal(['newer'])
    })

    it('a node is optional', async () => {
      await using stage = await pushStage()
      const phone = await stage.device('phone')
      const answer = await ask(phone, 'set', ROMEO, `<enable xmlns='${NS_PUSH}' jid='${APP}'/>`)
      expect(outcome(answer)).to.equal('result')
      await phone.close()
      await stage.say('one')
      expect((await stage.app.told()).map(({ node }) => node)).to.deep.equal([''])
    })

    const form = (type: string, formType: string): string =>
      `<x xmlns='jabber:x:data' type='${type}'><field var='FORM_TYPE'><value>${formType}</value></field></x>`
    const OPTIONS = 'http://jabber.org/protocol/pubsub#publish-options'
    for (const [what, payload, expected] of [
      ['without an address', `<enable xmlns='${NS_PUSH}' node='n'/>`, 'modify bad-request'],
      ['with an empty address', `<enable xmlns='${NS_PUSH}' node='n' jid=''/>`, 'modify bad-request'],
      [
        'with what is no address',
        `<enable xmlns='${NS_PUSH}' node='n' jid='a@b@c'/>`,
        'modify jid-malformed',
      ],
      ['disable without an address', `<disable xmlns='${NS_PUSH}'/>`, 'modify bad-request'],
      ['disable with what is no address', `<disable xmlns='${NS_PUSH}' jid='@'/>`, 'modify jid-malformed'],
      [
        'with another form',
        `<enable xmlns='${NS_PUSH}' jid='${APP}'>${form('submit', 'urn:x')}</enable>`,
        'modify bad-request',
      ],
      [
        'with a form to fill in',
        `<enable xmlns='${NS_PUSH}' jid='${APP}'>${form('form', OPTIONS)}</enable>`,
        'modify bad-request',
      ],
      [
        'with a field without a name',
        `<enable xmlns='${NS_PUSH}' jid='${APP}'>${form('submit', OPTIONS).replace('</x>', '<field><value/></field></x>')}</enable>`,
        'modify bad-request',
      ],
      [
        'with very long options',
        `<enable xmlns='${NS_PUSH}' jid='${APP}'>${SECRET.replace('eruio', 'x'.repeat(5000))}</enable>`,
        'modify policy-violation',
      ],
      [
        'with a very long node',
        `<enable xmlns='${NS_PUSH}' jid='${APP}' node='${'n'.repeat(1025)}'/>`,
        'modify policy-violation',
      ],
      [
        'at the server itself',
        `<enable xmlns='${NS_PUSH}' jid='example.org' node='n'/>`,
        'cancel not-allowed',
      ],
      [
        'at the server itself, by one of its resources',
        `<enable xmlns='${NS_PUSH}' jid='example.org/x' node='n'/>`,
        'cancel not-allowed',
      ],
      [
        'at an account of ours',
        `<enable xmlns='${NS_PUSH}' jid='juliet@example.org' node='n'/>`,
        'cancel not-allowed',
      ],
    ] as const)
      it(`${what}: ${expected}`, async () => {
        await using stage = await pushStage()
        const phone = await stage.device('phone')
        expect(outcome(await ask(phone, 'set', ROMEO, payload))).to.equal(expected)
        await phone.close()
        await stage.say('one')
        expect(await stage.app.counts()).to.deep.equal([])
      })

    it('only app servers that the administrator allows', async () => {
      await using stage = await pushStage({ services: ['push.example.net'] })
      const phone = await stage.device('phone')
      expect(await enable(phone, 'n')).to.equal('cancel not-allowed')
      expect(await enable(phone, 'n', '', 'push.example.net')).to.equal('result')
      expect(await enable(phone, 'n', '', 'x@push.example.net/y')).to.equal('result')
      expect(await enable(phone, 'n', '', 'a.push.example.net')).to.equal('cancel not-allowed')
    })

    it('nobody else may', async () => {
      await using stage = await pushStage()
      const payload = `<enable xmlns='${NS_PUSH}' jid='${APP}' node='n'/>`
      expect(outcome(await ask(stage.juliet, 'set', ROMEO, payload))).to.equal('auth forbidden')
      await stage.say('one')
      expect(await stage.app.counts()).to.deep.equal([])
    })

    it('an account has a bounded number; the oldest makes room', async () => {
      await using stage = await pushStage({ registrations: 3 })
      const phone = await stage.device('phone')
      for (const node of ['a', 'b', 'c', 'd']) {
        await enable(phone, node)
        await stage.host.clock.advance(1000)
      }
      await enable(phone, 'b')
      await phone.close()
      await stage.say('one')
      const nodes = (await stage.app.told()).map(({ node }) => node ?? '')
      expect(nodes.toSorted((a, b) => a.localeCompare(b))).to.deep.equal(['b', 'c', 'd'])
      expect(await kept(stage.host)).to.have.length(3)
    })

    it('registrations end with the account', async () => {
      await using stage = await pushStage()
      await stage.away('phone')
      await stage.host.host.deleteAccount('romeo')
      await stage.say('one')
      await stage.host.clock.advance(60_000)
      expect(await stage.app.counts()).to.deep.equal([])
      expect(await kept(stage.host)).to.deep.equal([])
    })
  })

  describe('§7: what is published', () => {
    it('a notification with a summary form, from the server, with the publish options that were given', async () => {
      await using stage = await pushStage()
      const phone = await stage.device('phone')
      await enable(phone, 'yxs32uqsflafdk3iuqo', SECRET)
      await phone.close()
      await stage.say('Wherefore art thou?')
      const [told] = await stage.app.told()
      expect(told?.from).to.equal('example.org')
      expect(told?.iq.getChild('pubsub', 'http://jabber.org/protocol/pubsub')?.toString()).to.equal(
        "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='yxs32uqsflafdk3iuqo'><item>" +
          "<notification xmlns='urn:xmpp:push:0'><x xmlns='jabber:x:data' type='submit'>" +
          "<field var='FORM_TYPE' type='hidden'><value>urn:xmpp:push:summary</value></field>" +
          "<field var='message-count'><value>1</value></field>" +
          "<field var='pending-subscription-count'><value>0</value></field>" +
          '</x></notification></item></publish><publish-options>' +
          "<x xmlns='jabber:x:data' type='submit'>" +
          "<field var='FORM_TYPE' type='hidden'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>" +
          "<field var='secret'><value>eruio234vzxc2kla-91</value></field></x></publish-options></pubsub>",
      )
    })

    it('§9: neither sender nor text unless the administrator says so', async () => {
      await using stage = await pushStage()
      await stage.away('phone')
      await stage.say('something private')
      const [told] = await stage.app.told()
      expect(told?.iq.toString()).to.not.contain('private').and.not.contain('juliet')
    })

    it('sender and text of the last message where he does', async () => {
      await using stage = await pushStage({ sender: true, body: true })
      await stage.away('phone')
      await stage.say('Wherefore?')
      const [told] = await stage.app.told()
      expect(told?.summary['last-message-sender']).to.equal(JULIET)
      expect(told?.summary['last-message-body']).to.equal('Wherefore?')
    })

    it('or a text of his in its place', async () => {
      await using stage = await pushStage({ body: 'New message' })
      await stage.away('phone')
      await stage.send("<encrypted xmlns='urn:xmpp:omemo:2'><header/><payload/></encrypted>")
      const [told] = await stage.app.told()
      expect(told?.summary['last-message-body']).to.equal('New message')
      expect(told?.summary['last-message-sender']).to.equal(undefined)
    })

    it('the number of subscription requests that wait', async () => {
      await using stage = await pushStage()
      await stage.away('phone')
      await stage.juliet.send(`<presence to='${ROMEO}' type='subscribe'/>`)
      await stage.say('answer me')
      const [told] = await stage.app.told()
      expect(told?.summary['pending-subscription-count']).to.equal('1')
    })

    it('jobs and log lines have no secret and no text', async () => {
      const lines: string[] = []
      const onLog = (level: string, message: string, more?: object): void =>
        void lines.push(
          `${level} ${message} ${JSON.stringify(more)} ${String((more as { err?: Error })?.err)}`,
        )
      await using stage = await pushStage({ body: true }, { onLog })
      const phone = await stage.device('phone')
      await enable(phone, 'secret-node', SECRET)
      await phone.close()
      stage.app.answer = { type: 'cancel', condition: 'item-not-found' }
      await stage.say('something private')
      await stage.app.told()
      expect(lines.some((line) => line.includes('push registration removed'))).to.equal(true)
      expect(lines.join('\n'))
        .to.not.contain('eruio')
        .and.not.contain('private')
        .and.not.contain('secret-node')
    })
  })

  it('unloaded, it neither answers nor publishes; loaded again, it goes on', async () => {
    await using stage = await pushStage()
    await stage.away('phone')
    stage.app.answer = 'nothing'
    await stage.say('one')
    expect(await stage.app.counts()).to.deep.equal(['phone 1'])
    await stage.host.unload('push')
    const desk = await stage.device('desk')
    expect(await enable(desk, 'n')).to.equal('cancel service-unavailable')
    expect((await discoInfo(desk, ROMEO)).toString()).to.not.contain(NS_PUSH)
    await desk.close()
    await stage.host.clock.advance(3_600_000)
    expect(await stage.app.counts()).to.deep.equal([])
    stage.app.answer = 'result'
    await stage.host.load(push)
    await stage.host.clock.advance(1000)
    expect(await stage.app.counts()).to.deep.equal(['phone 1'])
  })
})
