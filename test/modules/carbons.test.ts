/** XEP-0280: enabling, and copies of messages for the other devices. */
import { expect } from 'chai'
import accountsModule from '../../modules/accounts/index.ts'
import bind from '../../modules/bind.ts'
import bind2 from '../../modules/bind2.ts'
import carbons from '../../modules/carbons/index.ts'
import disco from '../../modules/disco.ts'
import mam from '../../modules/mam/index.ts'
import sasl from '../../modules/sasl/index.ts'
import sasl2 from '../../modules/sasl2.ts'
import stanzaId from '../../modules/stanza-id.ts'
import { testHost } from '../helpers/host.ts'
import { ask, features, outcome } from '../helpers/iq.ts'
import { bindingTls, LoginStream } from '../helpers/login.ts'
import { fromRemote } from '../helpers/im.ts'
import { accounts, NS, say, scene, seen, start, unwrap } from '../helpers/carbons.ts'

describe('carbons: enabling (XEP-0280 §3-§5, §10.1)', () => {
  it('§3, §6.2: announced by server and account, with its rules', async () => {
    await using h = await testHost({ modules: [carbons, disco], accounts })
    const romeo = await h.client('romeo@example.org/phone')
    for (const to of ['example.org', 'romeo@example.org'])
      expect(await features(romeo, to)).to.include.members([NS, 'urn:xmpp:carbons:rules:0'])
  })

  it('§10.1: enabled and disabled again and again, without an error', async () => {
    await using h = await start()
    const [phone, laptop] = [await h.client('romeo@example.org/p'), await h.client('romeo@example.org/l')]
    const request = async (name: string) =>
      outcome(await ask(laptop, 'set', undefined, `<${name} xmlns='${NS}'/>`))
    const copies = async () => {
      await phone.send(say('juliet@example.org'))
      return seen(laptop.take()).filter((what) => what === 'sent Hi').length
    }
    expect([await copies(), await request('disable'), await request('disable')]).to.eql([
      0,
      'result',
      'result',
    ])
    expect([await request('enable'), await request('enable'), await copies()]).to.eql(['result', 'result', 1])
    expect([await request('disable'), await copies()]).to.eql(['result', 0])
    expect([await request('enable'), await copies()]).to.eql(['result', 1])
  })

  it('§4.1, §5.1: not-allowed for another account and for a client of another server', async () => {
    await using h = await start()
    const { phone, laptop, balcony } = await scene(h)
    for (const name of ['enable', 'disable'])
      expect(outcome(await ask(balcony, 'set', 'romeo@example.org', `<${name} xmlns='${NS}'/>`))).to.equal(
        'cancel not-allowed',
      )
    await fromRemote(
      h,
      `<iq type='set' id='r' from='romeo@elsewhere.example/x' to='romeo@example.org'><disable xmlns='${NS}'/></iq>`,
    )
    await phone.send(say('juliet@example.org'))
    expect(seen(laptop.take())).to.eql(['sent Hi'])
  })

  it('XEP-0386 §3.2: enabled while binding', async () => {
    const modules = [accountsModule, sasl, bind, sasl2, bind2, carbons]
    await using h = await testHost({ modules, config: { accounts: { iterations: 4096 } } })
    await h.service('auth').create('juliet', 'secret')
    const login = await LoginStream.open(h, { tls: bindingTls() })
    const initial = Buffer.from('\0juliet\0secret').toString('base64')
    await login.send(
      `<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>${initial}</initial-response>` +
        `<bind xmlns='urn:xmpp:bind:0'><enable xmlns='${NS}'/></bind></authenticate>`,
    )
    const [session] = h.host.of('juliet')
    expect(session?.flag('carbons')).to.equal(true)
    expect(JSON.stringify(h.host.features.find((f) => f.ns === NS)?.advertise(session!)?.attrs)).to.contain(
      NS,
    )
  })
})

describe('carbons: copies (XEP-0280 §7, §8)', () => {
  it('§8: the others get what one sends, with the addresses and type of the specification; the sender none', async () => {
    await using h = await start()
    const s = await scene(h)
    expect(
      await s.phone.send(say('juliet@example.org/balcony', '<body>Hi</body>', "type='chat' id='m1'")),
    ).to.eql([])
    expect(s.old.take()).to.eql([])
    const [copy] = s.laptop.take()
    expect({ ...copy!.attrs }).to.eql({
      from: 'romeo@example.org',
      to: 'romeo@example.org/laptop',
      type: 'chat',
    })
    const [kind, inner] = unwrap(copy!)
    expect(kind).to.equal('sent')
    expect({ ...inner!.attrs }).to.eql({
      from: 'romeo@example.org/phone',
      to: 'juliet@example.org/balcony',
      type: 'chat',
      id: 'm1',
    })
  })

  it('§8: also when the sender has not enabled carbons', async () => {
    await using h = await start()
    const s = await scene(h)
    await s.old.send(say('juliet@example.org'))
    expect([seen(s.phone.take()), seen(s.laptop.take())]).to.eql([['sent Hi'], ['sent Hi']])
  })

  it('§7: who does not get the message itself gets a copy, nobody both', async () => {
    await using h = await start()
    const s = await scene(h)
    for (const to of ['juliet@example.org', 'juliet@example.org/balcony', 'juliet@example.org/gone']) {
      await s.phone.send(say(to))
      expect([seen(s.balcony.take()), seen(s.chamber.take())], to).to.eql([['Hi'], ['received Hi']])
    }
    await s.phone.send(say('juliet@example.org/chamber'))
    const [copy] = s.balcony.take()
    expect({ ...copy!.attrs }).to.eql({
      from: 'juliet@example.org',
      to: 'juliet@example.org/balcony',
      type: 'chat',
    })
    expect(seen(s.chamber.take())).to.eql(['Hi'])
  })

  it('§7: also from another server', async () => {
    await using h = await start()
    const s = await scene(h)
    await fromRemote(
      h,
      "<message from='a@elsewhere.example/x' to='juliet@example.org' type='chat'><body>Far</body></message>",
    )
    expect([seen(s.balcony.take()), seen(s.chamber.take())]).to.eql([['Far'], ['received Far']])
  })

  it('§7, §8: what an account sends to itself reaches each device once', async () => {
    await using h = await start()
    const s = await scene(h)
    for (const message of [say('romeo@example.org'), "<message type='chat'><body>Hi</body></message>"]) {
      const back = await s.phone.send(message)
      expect([seen(back), seen(s.laptop.take()), seen(s.old.take())]).to.eql([['Hi'], ['Hi'], ['Hi']])
    }
    expect(seen(await s.phone.send(say('romeo@example.org/old')))).to.eql([])
    expect([seen(s.laptop.take()), seen(s.old.take())]).to.eql([['sent Hi'], ['Hi']])
  })

  it('RFC 6120 §10.1: copies come in the order of the messages, between the live ones', async () => {
    await using h = await start()
    const s = await scene(h)
    const many = [1, 2, 3].map(
      (n) =>
        say('juliet@example.org/chamber', `<body>c${n}</body>`) +
        say('juliet@example.org', `<body>b${n}</body>`),
    )
    await s.phone.send(many.join(''))
    const order = ['c1', 'b1', 'c2', 'b2', 'c3', 'b3']
    expect(seen(s.balcony.take())).to.eql(order.map((b) => (b.startsWith('c') ? `received ${b}` : b)))
    expect(seen(s.laptop.take())).to.eql(order.map((b) => `sent ${b}`))
  })

  it('XEP-0359: sent copies name the id in the archive, and a message sent again is not copied again', async () => {
    await using h = await testHost({ modules: [stanzaId, mam, carbons], accounts })
    const s = await scene(h)
    const message = say('juliet@example.org', "<body>Hi</body><origin-id xmlns='urn:xmpp:sid:0' id='o1'/>")
    await s.phone.send(message)
    const [, inner] = unwrap(s.laptop.take()[0]!)
    const ids = inner!.getChildren('stanza-id', 'urn:xmpp:sid:0')
    expect(ids.map((id) => id.attr('by'))).to.eql(['romeo@example.org'])
    expect(ids[0]!.attr('id')).to.be.a('string').and.not.equal('')
    const [, got] = unwrap(s.chamber.take()[0]!)
    expect(got!.getChild('stanza-id', 'urn:xmpp:sid:0')!.attr('by')).to.equal('juliet@example.org')
    await s.phone.send(message)
    expect([s.laptop.take(), s.chamber.take()]).to.eql([[], []])
    await s.phone.send(say('romeo@example.org/old'))
    const [, own] = unwrap(s.laptop.take()[0]!)
    expect(own!.getChildren('stanza-id', 'urn:xmpp:sid:0')).to.have.length(1)
  })
})
