/** XEP-0280: which messages are copied, and which must not be. */
import { expect } from 'chai'
import blocking from '../../modules/blocking/index.ts'
import carbons from '../../modules/carbons/index.ts'
import { defineModule } from '../../server/module.ts'
import type { Element } from '../../server/xmpp/element.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { type TestClient, testHost } from '../helpers/host.ts'
import { fromRemote } from '../helpers/im.ts'
import { ask, outcome } from '../helpers/iq.ts'
import {
  accounts,
  both,
  copied,
  device,
  FORWARD,
  MUC_USER,
  NS,
  PRIVATE,
  say,
  scene,
  seen,
  start,
} from '../helpers/carbons.ts'

describe('carbons: which messages (XEP-0280 §6.1, §9)', () => {
  const X = `<x xmlns='${MUC_USER}'/>`
  const invite = `<x xmlns='${MUC_USER}'><invite to='juliet@example.org'/></x>`
  const none = ''
  const cases: readonly (readonly [string, string, string])[] = [
    ['chat without a body', say('juliet@example.org', ''), both('chat')],
    ['normal with a body', say('juliet@example.org', '<body>Hi</body>', "type='normal'"), both('Hi')],
    ['no type, with a body', say('juliet@example.org', '<body>Hi</body>', ''), both('Hi')],
    ['unknown type, with a body', say('juliet@example.org', '<body>Hi</body>', "type='x'"), both('Hi')],
    ['normal without a body', say('juliet@example.org', '<subject>Hi</subject>', ''), none],
    ['headline', say('juliet@example.org/balcony', '<body>Hi</body>', "type='headline'"), none],
    [
      'receipt',
      say('juliet@example.org', "<received xmlns='urn:xmpp:receipts' id='1'/>", ''),
      both('message'),
    ],
    [
      'chat state',
      say('juliet@example.org', "<composing xmlns='http://jabber.org/protocol/chatstates'/>", ''),
      both('message'),
    ],
    [
      'marker',
      say('juliet@example.org', "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>", ''),
      both('message'),
    ],
    [
      'direct invitation',
      say('juliet@example.org', "<x xmlns='jabber:x:conference' jid='r@m.example'/>", ''),
      both('message'),
    ],
    ['mediated invitation', say('juliet@example.org/balcony', invite, ''), both('message')],
    ['groupchat', say('juliet@example.org/balcony', '<body>Hi</body>', "type='groupchat'"), none],
    ['<private/>', say('juliet@example.org/balcony', `<body>Hi</body>${PRIVATE}`), none],
    [
      '<no-copy/>',
      say('juliet@example.org/balcony', "<body>Hi</body><no-copy xmlns='urn:xmpp:hints'/>"),
      none,
    ],
    [
      'private message within a room',
      say('juliet@example.org/balcony', `<body>Hi</body>${X}`),
      'laptop:sent Hi',
    ],
    [
      'what looks like a copy is a message like any other (§11: clients look who it is from)',
      say('juliet@example.org', `<received xmlns='${NS}'><forwarded xmlns='${FORWARD}'/></received>`),
      'laptop:sent chat chamber:received chat',
    ],
    [
      'an error that answers nothing',
      say('juliet@example.org/balcony', '<body>Hi</body>', "type='error' id='e'"),
      none,
    ],
  ]
  for (const [title, message, expected] of cases)
    it(`${title}: ${expected === '' ? 'not copied' : expected}`, async () => {
      await using h = await start()
      expect(await copied(await scene(h), message)).to.equal(expected)
    })

  it('§9: <private/> stays in the message that is delivered', async () => {
    await using h = await start()
    const s = await scene(h)
    await s.phone.send(say('juliet@example.org/balcony', `<body>Hi</body>${PRIVATE}`))
    expect(s.balcony.take()[0]!.getChild('private', NS)).to.not.equal(undefined)
  })

  it('§6.1: private messages within a room are shared by those who have joined with the same nick', async () => {
    await using h = await start()
    const s = await scene(h)
    const join = (nick: string) =>
      `<presence to='room@elsewhere.example/${nick}'><x xmlns='http://jabber.org/protocol/muc'/></presence>`
    const pm = say('room@elsewhere.example/nurse')
    await s.phone.send(join('romeo'))
    await s.phone.send(pm)
    expect(seen(s.laptop.take())).to.eql([])
    await s.laptop.send(join('romeo'))
    await s.phone.send(pm)
    expect(seen(s.laptop.take()).filter((what) => what.startsWith('sent'))).to.eql(['sent Hi'])
    await s.laptop.send("<presence to='room@elsewhere.example/montague'/>") // another nick
    await s.phone.send(pm)
    expect(seen(s.laptop.take()).filter((what) => what.startsWith('sent'))).to.eql([])
    // the room sends to each device that has joined, whether it marks such messages or not
    await fromRemote(
      h,
      "<message from='room@elsewhere.example/n' to='romeo@example.org/phone' type='chat'><body>Psst</body></message>",
    )
    expect(seen(s.laptop.take())).to.eql([])
    await s.phone.send("<presence to='room@elsewhere.example/romeo' type='unavailable'/>")
    await s.phone.send(pm)
    expect(seen(s.laptop.take())).to.include('sent Hi')
  })
})

describe('carbons: errors and refusals (XEP-0280 §6.1, §10.3, §11)', () => {
  const error = (to: string, id: string) =>
    `<message type='error' id='${id}' to='${to}'><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>`

  it('an error is copied when what it answers was, on both sides', async () => {
    await using h = await start()
    const s = await scene(h)
    await s.phone.send(say('juliet@example.org/balcony', '<body>Hi</body>', "type='chat' id='m1'"))
    for (const client of [s.laptop, s.balcony, s.chamber]) client.take()
    await s.balcony.send(error('romeo@example.org/phone', 'm1'))
    expect([seen(s.phone.take()), seen(s.laptop.take()), seen(s.chamber.take()), s.old.take()]).to.eql([
      ['error'],
      ['received error'],
      ['sent error'],
      [],
    ])
    await s.phone.send(say('juliet@example.org/balcony', `<body>Hi</body>${PRIVATE}`, "type='chat' id='m2'"))
    await s.balcony.send(error('romeo@example.org/phone', 'm2'))
    expect([seen(s.phone.take()), s.laptop.take(), s.chamber.take()]).to.eql([['error'], [], []])
  })

  it('an error made by this server is copied too', async () => {
    await using h = await start()
    const s = await scene(h)
    await s.phone.send(say('nobody@elsewhere.example', '<body>Hi</body>', "type='chat' id='m1'"))
    expect([seen(s.phone.take()), seen(s.laptop.take())]).to.eql([[], ['sent Hi', 'received error']])
  })

  it('an error for a device that is gone reaches the others as a copy', async () => {
    await using h = await start()
    const s = await scene(h)
    await s.phone.send(say('juliet@example.org/balcony', '<body>Hi</body>', "type='chat' id='m1'"))
    await s.phone.close()
    s.laptop.take()
    await s.balcony.send(error('romeo@example.org/phone', 'm1'))
    expect([seen(s.laptop.take()), s.old.take()]).to.eql([['received error'], []])
  })

  it('§10.3: an error in answer to a copy goes nowhere', async () => {
    await using h = await start()
    const s = await scene(h)
    await s.phone.send(say('juliet@example.org', '<body>Hi</body>', "type='chat' id='m1'"))
    for (const client of [s.laptop, s.balcony, s.chamber]) client.take()
    await s.laptop.send(error('romeo@example.org', 'm1'))
    expect([s.phone.take(), s.laptop.take(), s.old.take(), s.balcony.take(), s.chamber.take()]).to.eql([
      [],
      [],
      [],
      [],
      [],
    ])
  })

  it('§10.3: nor one to a copy of what the account sent to itself', async () => {
    await using h = await start()
    const s = await scene(h)
    await s.phone.send(say('romeo@example.org/old', '<body>Note</body>', "type='chat' id='m1'"))
    expect([seen(s.laptop.take()), seen(s.old.take())]).to.eql([['sent Note'], ['Note']])
    await s.laptop.send(error('romeo@example.org', 'm1'))
    expect([s.phone.take(), s.laptop.take(), s.old.take()]).to.eql([[], [], []])
  })

  it('copies of errors are not copied again, though nothing has an id', async () => {
    await using h = await start()
    const s = await scene(h)
    await s.phone.send(say('romeo@example.org/old') + say('nobody@elsewhere.example'))
    expect(seen(s.laptop.take())).to.eql(['sent Hi', 'sent Hi', 'received error'])
    expect(s.phone.take()).to.eql([])
  })

  it('§10.3: a copy whose session is gone is for nobody else, is not stored, and no error follows', async () => {
    const stored: string[] = []
    const offline = defineModule({
      name: 'offline',
      summary: 'stores',
      specs: [],
      setup(ctx) {
        ctx.hook('account:offline', { phase: 'store' }, ({ stanza }) => {
          stored.push(stanza.toString())
          return { stop: 'stored' }
        })
      },
    })
    await using h = await testHost({ modules: [carbons, offline], accounts })
    const s = await scene(h)
    const three = async (client: TestClient) => {
      for (let n = 0; n < 3; n++) await client.send(say('juliet@example.org'))
    }
    s.laptop.transport.blocked = true
    await three(s.phone)
    await s.laptop.drop()
    expect([seen(s.phone.take()), seen(s.old.take())]).to.eql([[], []])
    await s.old.close()
    const tablet = await device(h, 'romeo@example.org/tablet', { priority: -1 })
    tablet.transport.blocked = true
    await three(s.phone)
    await s.phone.close()
    await tablet.drop()
    expect(stored).to.eql([])
  })

  it('what is remembered of an account goes with its last session', async () => {
    await using h = await start()
    const s = await scene(h)
    await s.phone.send(say('juliet@example.org/balcony', '<body>Hi</body>', "type='chat' id='m1'"))
    await s.old.close()
    await s.laptop.close()
    await s.phone.close()
    const laptop = await device(h, 'romeo@example.org/laptop')
    await s.balcony.send(error('romeo@example.org/phone', 'm1'))
    expect(laptop.take()).to.eql([])
  })

  it('what a guard refuses is not copied', async () => {
    const guard = defineModule({
      name: 'guard',
      summary: 'refuses',
      specs: [],
      setup(ctx) {
        const refuse = (text: string) => (e: { readonly stanza: Element }) =>
          e.stanza.getChildText('body') === text ? { bounce: new StanzaError('forbidden') } : undefined
        ctx.hook('client:in', { phase: 'guard' }, refuse('out'))
        ctx.hook('account:in', { phase: 'guard' }, refuse('in'))
      },
    })
    await using h = await testHost({ modules: [carbons, guard, blocking], accounts })
    const s = await scene(h)
    expect(await copied(s, say('juliet@example.org', '<body>out</body>', "type='chat' id='1'"))).to.equal('')
    await s.phone.send(say('juliet@example.org', '<body>in</body>', "type='chat' id='2'"))
    expect([seen(s.laptop.take()), s.balcony.take(), s.chamber.take()]).to.eql([
      ['sent in', 'received error'],
      [],
      [],
    ])
    await ask(
      s.balcony,
      'set',
      undefined,
      "<block xmlns='urn:xmpp:blocking'><item jid='romeo@example.org'/></block>",
    )
    await s.phone.send(say('juliet@example.org'))
    expect([s.balcony.take(), s.chamber.take()]).to.eql([[], []])
  })

  it('memory is bounded: of many messages the oldest are forgotten', async () => {
    await using h = await start()
    const s = await scene(h)
    const ids = Array.from({ length: 65 }, (_, n) => `m${n}`)
    await s.phone.send(
      ids
        .map((id) => say('juliet@example.org/balcony', '<body>Hi</body>', `type='chat' id='${id}'`))
        .join(''),
    )
    s.laptop.take()
    await s.balcony.send(error('romeo@example.org/phone', 'm0'))
    expect(s.laptop.take()).to.eql([])
    await s.balcony.send(error('romeo@example.org/phone', 'm1'))
    expect(seen(s.laptop.take())).to.eql(['received error'])
  })

  it('nothing is copied after unloading, and requests are refused', async () => {
    await using h = await start()
    const s = await scene(h)
    await h.unload('carbons')
    expect(await copied(s, say('juliet@example.org'))).to.equal('')
    expect(outcome(await ask(s.phone, 'set', undefined, `<enable xmlns='${NS}'/>`))).to.equal(
      'cancel service-unavailable',
    )
  })
})
