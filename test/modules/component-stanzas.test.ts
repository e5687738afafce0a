/** XEP-0114 1.6 §3 and RFC 6120 §8, §10: what components send and get. How they connect: component.test.ts. */
import { expect } from 'chai'
import type { ModuleDef } from '../../server/module.ts'
import type { Element } from '../../server/xmpp/element.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { connected, DOMAIN, errorOf, SECRET, start } from '../helpers/component.ts'

const ROMEO = 'romeo@example.org/orchard'
const ids = (stanzas: readonly { attr(name: string): string | undefined }[]) =>
  stanzas.map((e) => e.attr('id'))

describe('component: stanzas for it', () => {
  it('get from there in order, all kinds, in its namespace', async () => {
    await using h = await start()
    const one = await connected(h)
    const romeo = await h.client(ROMEO)
    await romeo.send(
      `<message to='bot@${DOMAIN}/r' id='1'><body>hi</body></message><presence to='${DOMAIN}' id='2'/>` +
        `<iq type='get' to='bot@${DOMAIN}' id='3'><query xmlns='urn:x'/></iq><message to='${DOMAIN}' id='4' type='chat'/>`,
    )
    expect(await one.send('')).to.equal(
      `<message to='bot@${DOMAIN}/r' id='1' from='${ROMEO}'><body>hi</body></message>` +
        `<presence to='${DOMAIN}' id='2' from='${ROMEO}'/>` +
        `<iq type='get' to='bot@${DOMAIN}' id='3' from='${ROMEO}'><query xmlns='urn:x'/></iq>` +
        `<message to='${DOMAIN}' id='4' type='chat' from='${ROMEO}'/>`,
    )
  })

  it('keep what is in other namespaces, jabber:client below an extension among it (RFC 6120 §4.8.3)', async () => {
    await using h = await start()
    const one = await connected(h)
    const romeo = await h.client(ROMEO)
    const inner = `<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client'><body>x</body></message></forwarded>`
    await romeo.send(`<message to='${DOMAIN}'><body xmlns='jabber:client'>hi</body>${inner}</message>`)
    const [stanza] = await one.talk('')
    expect(stanza?.getChildText('body', NS.COMPONENT)).to.equal('hi')
    expect(stanza?.getChild('forwarded', 'urn:xmpp:forward:0')?.firstElement()?.ns).to.equal(NS.CLIENT)
    await one.talk(
      `<message from='${DOMAIN}' to='${ROMEO}'><body xmlns='${NS.COMPONENT}'>ho</body>${inner}</message>`,
    )
    const [back] = romeo.take()
    expect(back?.getChildText('body', NS.CLIENT)).to.equal('ho')
    expect(back?.getChild('forwarded', 'urn:xmpp:forward:0')?.getChild('message', NS.CLIENT)).not.to.equal(
      undefined,
    )
  })

  it('come back with remote-server-timeout while it is not connected (RFC 6120 §8.3.3.17)', async () => {
    await using h = await start()
    const romeo = await h.client(ROMEO)
    const send = async () =>
      (
        await romeo.send(
          `<message to='a@${DOMAIN}' id='1'><body>x</body></message><iq type='get' to='${DOMAIN}' id='2'><q xmlns='urn:x'/></iq>` +
            `<message type='error' to='a@${DOMAIN}' id='3'/><iq type='result' to='${DOMAIN}' id='4'/>`,
        )
      ).map((e) => `${e.attr('id')} ${e.attr('from')} ${errorOf(e)}`)
    const bounced = [`1 a@${DOMAIN} wait remote-server-timeout`, `2 ${DOMAIN} wait remote-server-timeout`]
    expect(await send()).to.deep.equal(bounced)
    const one = await connected(h)
    expect(await send()).to.deep.equal([])
    await one.drop()
    expect(await send()).to.deep.equal(bounced)
    const again = await connected(h)
    expect(await send()).to.deep.equal([])
    expect(ids(await again.talk(''))).to.deep.equal(['1', '2', '3', '4'])
  })

  it('come back to their senders when it dies before they could be sent', async () => {
    await using h = await start()
    const one = await connected(h)
    const [romeo, juliet] = [await h.client(ROMEO), await h.client('juliet@example.org/balcony')]
    one.transport.blocked = true
    for (let i = 0; i < 5; i++) {
      await romeo.send(`<message to='a@${DOMAIN}' id='r${i}'/>`)
      await juliet.send(`<message to='a@${DOMAIN}' id='j${i}'/>`)
    }
    expect(romeo.take()).to.deep.equal([])
    await one.drop()
    for (const [client, name] of [
      [romeo, 'r'],
      [juliet, 'j'],
    ] as const) {
      const back = client.take()
      expect(ids(back)).to.deep.equal([0, 1, 2, 3, 4].map((i) => `${name}${i}`))
      expect(back.every((e) => errorOf(e) === 'wait remote-server-timeout')).to.equal(true)
    }
  })

  it('come back when the module is unloaded before they could be sent, however many there are', async () => {
    await using h = await start()
    const one = await connected(h)
    const romeo = await h.client(ROMEO)
    one.transport.blocked = true
    const back: Element[] = []
    const body = `<body>${'x'.repeat(100)}</body>`
    for (let i = 0; i < 5000; i += 50)
      back.push(
        ...(await romeo.send(
          Array.from(
            { length: 50 },
            (_, k) => `<message to='${DOMAIN}' id='${i + k}'>${body}</message>`,
          ).join(''),
        )),
      )
    expect(back).to.have.length(0)
    await h.unload('component')
    await h.settle()
    expect(ids(romeo.take())).to.deep.equal(Array.from({ length: 5000 }, (_, i) => String(i)))
  })

  it('that had left when it died do not come back', async () => {
    await using h = await start()
    const one = await connected(h)
    const romeo = await h.client(ROMEO)
    await romeo.send(`<message to='a@${DOMAIN}' id='1'/>`)
    await one.drop()
    expect(romeo.take()).to.deep.equal([])
  })

  it('wait for a component that reads slowly, and are all there in order', async () => {
    await using h = await start()
    const one = await connected(h)
    const romeo = await h.client(ROMEO)
    one.transport.blocked = true
    const text = 'x'.repeat(1000)
    for (let i = 0; i < 10; i++)
      await romeo.send(
        Array.from(
          { length: 50 },
          (_, k) => `<message to='${DOMAIN}' id='${i * 50 + k}'><body>${text}</body></message>`,
        ).join(''),
      )
    expect(one.transport.written.join('').length).to.be.lessThan(80_000)
    one.transport.unblock()
    const got: Element[] = []
    for (let more = await one.talk(''); more.length > 0; more = await one.talk('')) got.push(...more)
    expect(ids(got)).to.deep.equal(Array.from({ length: 500 }, (_, i) => String(i)))
    expect(romeo.take()).to.deep.equal([])
  })

  it('RFC 6120 §4.9.3.17: too many for one that does not read end its stream, and each comes back', async () => {
    await using h = await start({ queue: '64 KiB' })
    const one = await connected(h)
    const romeo = await h.client(ROMEO)
    one.transport.blocked = true
    const text = 'x'.repeat(1000)
    const back: Element[] = []
    for (let i = 0; i < 4; i++) {
      const some = await romeo.send(
        Array.from(
          { length: 50 },
          (_, k) => `<message to='${DOMAIN}' id='${i * 50 + k}'><body>${text}</body></message>`,
        ).join(''),
      )
      back.push(...some)
    }
    expect(one.closed).to.equal(true)
    expect(one.transport.written.join('')).to.contain('<resource-constraint xmlns=')
    back.push(...romeo.take())
    expect(back.every((e) => errorOf(e) === 'wait remote-server-timeout')).to.equal(true)
    // each one once; those that came when the stream was over do not wait for the others
    const numbers = ids(back).map(Number)
    expect(numbers.toSorted((a, b) => a - b)).to.deep.equal(Array.from({ length: 200 }, (_, i) => i))
  })
})

describe('component: stanzas from it', () => {
  for (const [what, stanza, condition] of [
    ['another domain', `<message from='juliet@example.net' to='${ROMEO}'/>`, 'invalid-from'],
    ['an account of the host', `<message from='juliet@example.org' to='${ROMEO}'/>`, 'invalid-from'],
    [
      'the host',
      `<iq type='get' from='example.org' to='${ROMEO}' id='1'><q xmlns='urn:x'/></iq>`,
      'invalid-from',
    ],
    ['a subdomain', `<message from='a.${DOMAIN}' to='${ROMEO}'/>`, 'invalid-from'],
    ['a domain that ends alike', `<message from='x${DOMAIN}' to='${ROMEO}'/>`, 'invalid-from'],
    ['its name in the localpart', `<message from='${DOMAIN}@example.org' to='${ROMEO}'/>`, 'invalid-from'],
    ['its name in the resource', `<message from='example.org/a@${DOMAIN}' to='${ROMEO}'/>`, 'invalid-from'],
    ['nobody', `<message to='${ROMEO}'/>`, 'improper-addressing'],
    ['an address that is none', `<message from='@@' to='${ROMEO}'/>`, 'improper-addressing'],
    ['itself to nobody', `<message from='${DOMAIN}'/>`, 'improper-addressing'],
    ['itself to an address that is none', `<message from='${DOMAIN}' to='@@'/>`, 'improper-addressing'],
    [
      'itself in jabber:server',
      `<message xmlns='jabber:server' from='${DOMAIN}' to='${ROMEO}'/>`,
      'invalid-namespace',
    ],
    ['itself, but no stanza', `<post from='${DOMAIN}' to='${ROMEO}'/>`, 'unsupported-stanza-type'],
    ['a second handshake', '<handshake>x</handshake>', 'unsupported-stanza-type'],
    ['what is not XML', '<message', 'not-well-formed'],
  ] as const)
    it(`from ${what}: ${condition} ends the stream, and nothing arrives (§3, RFC 6120 §4.9.3)`, async () => {
      await using h = await start()
      const one = await connected(h)
      const romeo = await h.client(ROMEO)
      const more = `<message from='${DOMAIN}' to='${ROMEO}'/>`
      await one.talk(stanza === '<message' ? '<message <' : stanza + more)
      expect(one.error).to.equal(condition)
      expect(one.closed).to.equal(true)
      expect(romeo.take()).to.deep.equal([])
      await connected(h)
    })

  it('§3: from any address at its domain; COMPAT: in jabber:client too', async () => {
    await using h = await start()
    const one = await connected(h)
    const romeo = await h.client(ROMEO)
    await one.talk(
      `<message from='${DOMAIN}' to='${ROMEO}' id='1'/><message from='any@${DOMAIN}' to='${ROMEO}' id='2'/>` +
        `<message from='Any@ECHO.example.org/r' to='${ROMEO}' id='3'/><message xmlns='jabber:client' from='${DOMAIN}' to='${ROMEO}' id='4'/>`,
    )
    expect(romeo.take().map((e) => `${e.attr('id')} ${e.ns}`)).to.deep.equal(
      [1, 2, 3, 4].map((i) => `${i} jabber:client`),
    )
    expect(one.error).to.equal(undefined)
  })

  it('in pieces arrive once they are whole; half a stanza of one that dies does not', async () => {
    await using h = await start()
    const one = await connected(h)
    const romeo = await h.client(ROMEO)
    const text = `<message from='${DOMAIN}' to='${ROMEO}' id='1'><body>häppchen</body></message>`
    for (const byte of text) await one.talk(byte)
    expect(romeo.take()).to.have.length(1)
    await one.talk(text.slice(0, -5))
    await one.drop()
    expect(romeo.take()).to.deep.equal([])
    const again = await connected(h)
    expect(await again.talk('')).to.deep.equal([])
  })

  it('RFC 6120 §4.9.3.14: a huge or deep one ends the stream', async () => {
    await using h = await start({ maxStanza: '20 KB', depth: 10 })
    const romeo = await h.client(ROMEO)
    const large = await connected(h)
    await large.talk(`<message from='${DOMAIN}' to='${ROMEO}'><body>${'x'.repeat(15_000)}</body></message>`)
    expect(romeo.take()).to.have.length(1)
    await large.talk(`<message from='${DOMAIN}' to='${ROMEO}'><body>${'x'.repeat(25_000)}`)
    expect(large.error).to.equal('policy-violation')
    const deep = await connected(h)
    await deep.talk(`<message from='${DOMAIN}' to='${ROMEO}'>${'<a>'.repeat(20)}`)
    expect(deep.error).to.equal('policy-violation')
    expect(romeo.take()).to.deep.equal([])
  })

  it('get answers: errors of accounts, results of the host, bad requests', async () => {
    await using h = await start()
    const one = await connected(h)
    const answers = await one.talk(
      `<message from='a@${DOMAIN}' to='nobody@example.org' id='1'/>` +
        `<iq type='get' from='a@${DOMAIN}' to='example.org' id='2'><query xmlns='${NS.DISCO_INFO}'/></iq>` +
        `<iq type='get' from='a@${DOMAIN}' to='${ROMEO}' id='3'><query xmlns='urn:x'/></iq>` +
        `<iq type='get' from='a@${DOMAIN}' to='example.org' id='4'/>` +
        `<message from='a@${DOMAIN}' to='a@nowhere.example.net' id='5'/>` +
        `<iq type='result' from='a@${DOMAIN}' to='example.org' id='6'/>`,
    )
    const told = answers.map(
      (e) => `${e.attr('id')} ${e.attr('to')} ${e.attr('type') === 'error' ? errorOf(e) : 'ok'}`,
    )
    expect(told.toSorted()).to.deep.equal([
      `1 a@${DOMAIN} cancel service-unavailable`,
      `2 a@${DOMAIN} ok`,
      `3 a@${DOMAIN} cancel service-unavailable`,
      `4 a@${DOMAIN} modify bad-request`,
      `5 a@${DOMAIN} cancel remote-server-not-found`,
    ])
    expect(answers.every((e) => e.ns === NS.COMPONENT)).to.equal(true)
  })

  it('are in the language of the stream unless they say otherwise (RFC 6120 §8.1.5)', async () => {
    await using h = await start()
    const { send } = h.connect(5347)
    const { handshake, header } = await import('../helpers/component.ts')
    await send(handshake(await send(header(DOMAIN, NS.COMPONENT, " xml:lang='de'"))))
    const romeo = await h.client(ROMEO)
    await send(
      `<message from='${DOMAIN}' to='${ROMEO}'/><message from='${DOMAIN}' to='${ROMEO}' xml:lang='fr'/>`,
    )
    expect(romeo.take().map((e) => e.attr('xml:lang'))).to.deep.equal(['de', 'fr'])
  })

  it('reach other components', async () => {
    await using h = await start({
      components: { [DOMAIN]: { secret: SECRET }, 'b.example.net': { secret: 'b' } },
    })
    const [a, b] = [await connected(h), await connected(h, { to: 'b.example.net', secret: 'b' })]
    await a.talk(`<message from='a@${DOMAIN}' to='b@b.example.net' id='1'/>`)
    expect(
      ids(await b.talk(`<message type='error' from='b@b.example.net' to='a@${DOMAIN}' id='1'/>`)),
    ).to.deep.equal(['1'])
    expect(ids(await a.talk(''))).to.deep.equal(['1'])
    await b.drop()
    expect(
      (await a.talk(`<message from='a@${DOMAIN}' to='b@b.example.net' id='2'/>`)).map(errorOf),
    ).to.deep.equal(['wait remote-server-timeout'])
  })

  it('are in order per account while the store is slow, and bounded: then the component is not read', async () => {
    const gates: (() => void)[] = []
    const slow: ModuleDef<never> = {
      name: 'slow',
      summary: 'test',
      specs: [],
      setup: (ctx) =>
        ctx.hook('account:in', { phase: 'store' }, () => new Promise<void>((open) => void gates.push(open))),
    }
    await using h = await start({}, { modules: [slow] })
    const one = await connected(h)
    const romeo = await h.client(ROMEO)
    const many = Array.from({ length: 400 }, (_, i) => `<message from='${DOMAIN}' to='${ROMEO}' id='${i}'/>`)
    await one.talk(many.join(''))
    expect(gates.length).to.equal(256)
    expect(one.transport.paused).to.equal(true)
    while (gates.length > 0) {
      for (const open of gates.splice(0).toReversed()) open()
      await h.settle()
    }
    expect(ids(romeo.take())).to.deep.equal(many.map((_, i) => String(i)))
    expect(one.transport.paused).to.equal(false)
  })
})
