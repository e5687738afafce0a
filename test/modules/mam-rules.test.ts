/** What goes into archives: XEP-0313 §6.1.1, hints (XEP-0334 §4), and what other specifications want archived. */
import { expect } from 'chai'
import type { StanzaEvent } from '../../server/module.ts'
import { examine } from '../../modules/mam/rules.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { archived, archiveHost, chat, origin, query } from '../helpers/archive.ts'
import { condition, fromRemote } from '../helpers/im.ts'
import { bodies, copies, modules, online, THREE } from '../helpers/resent.ts'

const HINT = "xmlns='urn:xmpp:hints'"
const BODY = '<body>Hi</body>'

const kept = (type: string, content: string): boolean =>
  examine(
    parseXml(`<message xmlns='jabber:client' ${type === '' ? '' : `type='${type}'`}>${content}</message>`),
  )?.kept === true

describe('module mam: rules', () => {
  const cases: readonly (readonly [rule: string, type: string, content: string, keeps: boolean])[] = [
    ['XEP-0313 §6.1.1: chat with a body', 'chat', BODY, true],
    ['XEP-0313 §6.1.1: normal with a body', 'normal', BODY, true],
    ['RFC 6121 §5.2.2: no type is normal', '', BODY, true],
    ['RFC 6121 §5.2.2: an unknown type is normal', 'mail', BODY, true],
    ['an empty body is a body', 'chat', '<body/>', true],
    [
      'a body of another namespace is none',
      'chat',
      "<body xmlns='http://www.w3.org/1999/xhtml'>x</body>",
      false,
    ],
    ['a subject alone', 'normal', '<subject>Tea</subject>', true],
    ['XEP-0313 §6.1.1: headline', 'headline', BODY, false],
    ['groupchat', 'groupchat', BODY, false],
    ['groupchat with a hint', 'groupchat', `${BODY}<store ${HINT}/>`, false],
    ['errors', 'error', `${BODY}<error type='cancel'/>`, false],
    ['XEP-0334 §4.4: <store/> in an error', 'error', `${BODY}<store ${HINT}/>`, false],
    ['XEP-0334 §4.2: <no-store/>', 'chat', `${BODY}<no-store ${HINT}/>`, false],
    ['XEP-0334 §4.1: <no-permanent-store/>', 'chat', `${BODY}<no-permanent-store ${HINT}/>`, false],
    ['XEP-0334 §4.4: <store/>', 'chat', `<x xmlns='urn:x'/><store ${HINT}/>`, true],
    ['XEP-0334 §4.4: <store/> in a headline', 'headline', `${BODY}<store ${HINT}/>`, true],
    ['<no-store/> goes before <store/>', 'chat', `${BODY}<store ${HINT}/><no-store ${HINT}/>`, false],
    ['<no-copy/> says nothing of storing', 'chat', `${BODY}<no-copy ${HINT}/>`, true],
    ['hints of another namespace are none', 'chat', `${BODY}<no-store xmlns='urn:x'/>`, true],
    ['hints below another element are none', 'chat', `${BODY}<x xmlns='urn:x'><no-store ${HINT}/></x>`, true],
    ['chat states', 'chat', "<composing xmlns='http://jabber.org/protocol/chatstates'/>", false],
    ['XEP-0184: a receipt', 'chat', "<received xmlns='urn:xmpp:receipts' id='1'/>", true],
    ['XEP-0184: a request alone', 'chat', "<request xmlns='urn:xmpp:receipts'/>", false],
    ['XEP-0333: a marker', 'chat', "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>", true],
    ['XEP-0333: markable alone', 'chat', "<markable xmlns='urn:xmpp:chat-markers:0'/>", false],
    [
      'XEP-0353 §5: an invitation to a call',
      'chat',
      "<propose xmlns='urn:xmpp:jingle-message:0' id='1'/>",
      true,
    ],
    ['XEP-0353 §5: the end of a call', 'chat', "<finish xmlns='urn:xmpp:jingle-message:0' id='1'/>", true],
    ['XEP-0424 §5: a retraction', 'chat', "<retract xmlns='urn:xmpp:message-retract:1' id='1'/>", true],
    ['OMEMO', 'chat', "<encrypted xmlns='urn:xmpp:omemo:2'/>", true],
    ['OMEMO as most clients have it', 'chat', "<encrypted xmlns='eu.siacs.conversations.axolotl'/>", true],
    ['OpenPGP', 'chat', "<openpgp xmlns='urn:xmpp:openpgp:0'/>", true],
    ['old OpenPGP', 'normal', "<x xmlns='jabber:x:encrypted'>…</x>", true],
    ['reactions', 'chat', "<reactions xmlns='urn:xmpp:reactions:0' id='1'/>", true],
    ['an invitation to a room', 'normal', "<x xmlns='jabber:x:conference' jid='r@c'/>", true],
    [
      'an invitation by a room',
      'normal',
      "<x xmlns='http://jabber.org/protocol/muc#user'><invite from='a@b'/></x>",
      true,
    ],
    [
      'what a room says of its configuration',
      'normal',
      "<x xmlns='http://jabber.org/protocol/muc#user'><status code='104'/></x>",
      false,
    ],
    ['results of other archives', '', "<result xmlns='urn:xmpp:mam:2' id='1'/>", false],
    ['events of pubsub', 'headline', "<event xmlns='http://jabber.org/protocol/pubsub#event'/>", false],
    ['nothing at all', 'chat', '', false],
  ]
  for (const [rule, type, content, keeps] of cases)
    it(`${rule}: ${keeps ? 'archived' : 'not archived'}`, () => {
      expect(kept(type, content)).to.equal(keeps)
    })
})

describe('module mam: whose messages are archived (XEP-0313 §3.3.1, §6.1)', () => {
  it('sent and received ones, of each account its own, whoever of them is online', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    await juliet.send(chat('romeo@example.org', 'one'))
    await juliet.send(chat('romeo@example.org/nowhere', 'two'))
    await fromRemote(
      h,
      `<message from='nurse@example.net/x' to='romeo@example.org' type='chat'><body>three</body></message>`,
    )
    await juliet.send(chat('nurse@example.net', 'four'))
    juliet.take()
    const romeo = await h.client('romeo@example.org/orchard')
    expect(await archived(juliet)).to.deep.equal(['one', 'two', 'four'])
    expect(await archived(romeo)).to.deep.equal(['one', 'two', 'three'])
  })

  it('chat states are delivered and not archived', async () => {
    await using h = await archiveHost()
    const [juliet, romeo] = [
      await h.client('juliet@example.org/balcony'),
      await h.client('romeo@example.org/orchard'),
    ]
    await juliet.send(
      "<message to='romeo@example.org/orchard' type='chat'><active xmlns='http://jabber.org/protocol/chatstates'/></message>",
    )
    const [message] = romeo.take()
    expect(message?.elements).to.have.length(1)
    expect(await archived(juliet)).to.deep.equal([])
  })

  it('§6.1: a message that the receiver has blocked is not in his archive, one that was refused not in the sender’s', async () => {
    await using h = await archiveHost()
    const [juliet, romeo] = [
      await h.client('juliet@example.org/balcony'),
      await h.client('romeo@example.org/orchard'),
    ]
    await romeo.send(
      "<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='juliet@example.org'/></block></iq>",
    )
    await juliet.send(chat('romeo@example.org', 'one'))
    await romeo.send(chat('juliet@example.org', 'two'))
    expect(await archived(romeo)).to.deep.equal([])
    expect(await archived(juliet)).to.deep.equal(['one'])
  })

  it('nothing for accounts that do not exist', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    await juliet.send(chat('nobody@example.org', 'one'))
    const owners: string[] = []
    for await (const owner of h.store.open('example.org', 'mam').archive('messages').owners())
      owners.push(owner)
    expect(owners).to.deep.equal(['juliet'])
  })

  it('§6.1.1: a message to several devices is archived once; so is one to oneself', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    const devices = [await h.client('romeo@example.org/a'), await h.client('romeo@example.org/b')]
    for (const device of devices) await device.send('<presence/>')
    await juliet.send(chat('romeo@example.org', 'one'))
    const [a, b] = devices
    expect(a!.take().at(-1)?.getChildText('body')).to.equal('one')
    expect(b!.take().at(-1)?.getChildText('body')).to.equal('one')
    await a!.send(chat('romeo@example.org', 'two'))
    await a!.send(chat('romeo@example.org/b', 'three'))
    await a!.send("<message type='chat'><body>four</body></message>")
    expect(await archived(a!)).to.deep.equal(['one', 'two', 'three', 'four'])
    expect((await query(a!)).results[3]?.message.attr('to')).to.equal('romeo@example.org')
  })
})

describe('module mam: what is not archived', () => {
  for (const [name, more] of [
    ['XEP-0334 §4.2: <no-store/>', `<no-store ${HINT}/>`],
    ['XEP-0334 §4.1: <no-permanent-store/>', `<no-permanent-store ${HINT}/>`],
  ] as const)
    it(`${name}: comes once however often it is sent, and is copied once`, async () => {
      await using h = await archiveHost({}, { modules })
      const [juliet, phone, romeo] = await online(h, ...THREE)
      for (const body of ['one', 'one', 'two'])
        await juliet!.send(chat('romeo@example.org', body, more + origin('o1')))
      expect(bodies(romeo!)).to.deep.equal(['one', 'two'])
      expect(copies(phone!)).to.deep.equal(['one', 'two'])
      expect(await archived(romeo!)).to.deep.equal([])
    })

  it('a headline to be stored that goes back to its sender, whose error says nothing of archives', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    const text = (to: string) =>
      `<message to='${to}' type='headline' id='h'><body>b</body><store ${HINT}/></message>`
    const [back] = await juliet.send(text('romeo@example.org/x'))
    expect(condition(back)).to.equal('service-unavailable')
    expect(back?.getChild('stanza-id', NS.SID)).to.equal(undefined)
    const romeo = await h.client('romeo@example.org/y')
    expect(await archived(romeo)).to.deep.equal([])
    for (const to of ['romeo@example.org/y', 'romeo@example.org']) await juliet.send(text(to))
    expect(await archived(romeo)).to.deep.equal(['b', 'b'])
  })
})

describe('module mam: private messages in rooms that do not mark them (XEP-0045 §7.5)', () => {
  const ROOM = 'room@conference.example.net'
  const said = (from: string, id = '1'): string =>
    chat('romeo@example.org/orchard', 'hi', origin(id)).replace('<message', `<message from='${from}'`)
  const join = (type = '') =>
    `<presence to='${ROOM}/romeo'${type}><x xmlns='http://jabber.org/protocol/muc'/></presence>`

  it('two occupants may use the same origin-id, each is known when it comes again', async () => {
    await using h = await archiveHost()
    const romeo = await h.client('romeo@example.org/orchard')
    await romeo.send(join())
    for (const nick of ['a', 'b', 'a', 'b']) await fromRemote(h, said(`${ROOM}/${nick}`))
    expect(await archived(romeo)).to.deep.equal(['hi', 'hi'])
  })

  it('a user is known from another resource, whatever rooms there are, and after they were left', async () => {
    await using h = await archiveHost()
    const romeo = await h.client('romeo@example.org/orchard')
    await romeo.send(join())
    for (const resource of ['a', 'b']) await fromRemote(h, said(`juliet@example.net/${resource}`))
    await romeo.send(join(" type='unavailable'"))
    for (const nick of ['a', 'b']) await fromRemote(h, said(`${ROOM}/${nick}`))
    expect(await archived(romeo)).to.deep.equal(['hi', 'hi'])
  })

  it('what is sent to an occupant goes out once, also when its client comes back with another resource', async () => {
    await using h = await archiveHost({}, { modules })
    const got: (string | undefined)[] = []
    const note = ({ stanza, to }: StanzaEvent): void =>
      void got.push(`${to.resource} ${stanza.getChildText('body')}`)
    h.router.domains.take('conference.example.net', note)
    const mark = "<x xmlns='http://jabber.org/protocol/muc#user'/>"
    for (const resource of ['a', 'a', 'b']) {
      const juliet = await h.client(`juliet@example.org/${resource}`)
      for (const nick of ['one', 'two']) await juliet.send(chat(`${ROOM}/${nick}`, 'hi', mark + origin('1')))
      await juliet.drop()
    }
    expect(got).to.deep.equal(['one hi', 'two hi'])
  })
})
