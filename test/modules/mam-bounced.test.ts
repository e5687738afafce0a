/** Messages that came back to their senders, or went where no archive knows them, and that are sent again (XEP-0359 §2.2). */
import { expect } from 'chai'
import { defineModule, type Doc } from '../../server/module.ts'
import type { Store } from '../../server/storage/contract.ts'
import mam from '../../modules/mam/index.ts'
import { Unkept } from '../../modules/mam/resent.ts'
import offline from '../../modules/offline/index.ts'
import { parseJid } from '../../server/xmpp/jid.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { archiveHost, chat, origin } from '../helpers/archive.ts'
import type { TestHost } from '../helpers/host.ts'
import { condition, fromRemote } from '../helpers/im.ts'
import { switched } from '../helpers/offline.ts'
import { bodies, copies, modules, online, quiet, THREE } from '../helpers/resent.ts'

const NEVER = "<iq type='set' id='p'><prefs xmlns='urn:xmpp:mam:2' default='never'/></iq>"

const withoutId = (to: string, body = 'one', of = 'o1'): string =>
  `<message to='${to}' type='chat'><body>${body}</body>${origin(of)}</message>`
const fromAfar = (message: string): string => message.replace('<message', "<message from='a@example.net/b'")

/** What another domain gets. */
function served(h: TestHost, domain = 'example.net'): (string | undefined)[] {
  const got: (string | undefined)[] = []
  h.router.domains.take(domain, ({ stanza }) => void got.push(stanza.getChildText('body')))
  return got
}

/** What is for the host itself. */
function service(): { taken: (string | undefined)[]; def: ReturnType<typeof defineModule> } {
  const taken: (string | undefined)[] = []
  const def = defineModule({
    name: 'service',
    summary: 'takes what is for the host itself',
    specs: [],
    setup: (ctx) => ctx.serve(({ stanza }) => void taken.push(stanza.getChildText('body'))),
  })
  return { taken, def }
}

/** An orderly end, and a start. */
async function restart(h: TestHost): Promise<void> {
  await h.clock.advance(1000)
  await h.unload('mam')
  await h.load(mam)
}

describe('module mam: the message came back to its sender', () => {
  for (const [name, message] of [
    ['without an id of the stanza', withoutId('romeo@example.org')],
    ['with one', chat('romeo@example.org', 'one', origin('o1'))],
    ['too long to be repeated', withoutId('romeo@example.org', 'x'.repeat(2000))],
  ] as const)
    for (const [sender, send] of [
      ['here', (text: string) => text],
      ['elsewhere', fromAfar],
    ] as const)
      it(`a receiver without archive was away, ${name}, sender ${sender}: delivered when it is sent again, once`, async () => {
        await using h = await archiveHost({}, { modules, ...quiet })
        const [juliet, romeo] = await online(h, 'juliet@example.org/balcony', 'romeo@example.org/orchard')
        const errors = served(h)
        await romeo!.send(NEVER)
        await romeo!.close()
        const attempt = async () =>
          sender === 'here' ? await juliet!.send(message) : await fromRemote(h, send(message))
        await attempt()
        if (sender === 'elsewhere') expect(errors).to.have.length(1)
        const [again] = await online(h, 'romeo@example.org/orchard')
        for (let i = 0; i < 2; i++) await attempt()
        expect(bodies(again!)).to.have.length(1)
      })

  it('the other server was not there: it gets the message when it is sent again, once', async () => {
    await using h = await archiveHost({}, { modules, ...quiet })
    const [juliet] = await online(h, 'juliet@example.org/balcony')
    const [error] = await juliet!.send(withoutId('romeo@example.net'))
    expect(condition(error)).to.equal('remote-server-not-found')
    const got = served(h)
    for (let i = 0; i < 2; i++) await juliet!.send(withoutId('romeo@example.net'))
    expect(got).to.deep.equal(['one'])
  })

  it('the other server sent it back: it gets the message when it is sent again', async () => {
    await using h = await archiveHost({}, { modules, ...quiet })
    const [juliet] = await online(h, 'juliet@example.org/balcony')
    const got = served(h)
    const send = async (error: string): Promise<void> => {
      await juliet!.send(withoutId('romeo@example.net'))
      await fromRemote(
        h,
        `<message from='romeo@example.net' to='juliet@example.org/balcony' type='error'>${error}<error type='cancel'/></message>`,
      )
    }
    await send(origin('o1'))
    await send('')
    await send(origin('o1'))
    expect(got).to.deep.equal(['one', 'one'])
  })

  it('a failure of its sender’s side is no reason to deliver again what was delivered', async () => {
    const { taken, def } = service()
    const refuses = defineModule({
      name: 'refuses',
      summary: 'fails',
      specs: [],
      setup: (ctx) => ctx.hook('client:in', { phase: 'guard', kinds: ['message'] }, () => refused),
    })
    let refused: Promise<never> | undefined
    await using h = await archiveHost({}, { modules, ...quiet })
    await h.load(def)
    await h.load(refuses)
    const [juliet] = await online(h, 'juliet@example.org/balcony')
    const send = () => juliet!.send(chat('example.org', 'one', origin('o1')))
    await send()
    refused = Promise.reject(new Error('disk full'))
    expect(condition((await send())[0])).to.equal('internal-server-error')
    refused = undefined
    await send()
    expect(taken).to.deep.equal(['one'])
  })
})

describe('module mam: the store for those who are away fails', () => {
  for (const [name, length] of [
    ['short', 10],
    ['too long to be repeated in an error', 2000],
  ] as const)
    for (const sender of ['here', 'elsewhere'])
      it(`${name}, sender ${sender}: what is sent again at once is kept, once`, async () => {
        const disk = await switched()
        await using h = await archiveHost({}, { modules: [...modules, offline], store: disk.store, ...quiet })
        const [juliet] = await online(h, 'juliet@example.org/balcony')
        served(h)
        const text = chat('romeo@example.org', 'x'.repeat(length), origin('o1'))
        const send = async () =>
          sender === 'here' ? await juliet!.send(text) : await fromRemote(h, fromAfar(text))
        disk.failing.add('append')
        await send()
        disk.failing.clear()
        for (let i = 0; i < 2; i++) await send()
        const romeo = await h.client('romeo@example.org/orchard')
        const got = (await romeo.send('<presence/>')).filter((e) => e.name === 'message')
        expect(got).to.have.length(1)
      })

  it('sent again before that is known: it waits for the first attempt, and is kept', async () => {
    const disk = await switched()
    await using h = await archiveHost({}, { modules: [...modules, offline], store: disk.store, ...quiet })
    const [juliet, phone] = await online(h, 'juliet@example.org/balcony', 'juliet@example.org/phone')
    const { promise, resolve: open } = Promise.withResolvers<void>()
    disk.reading = promise // it counts what is there
    disk.failing.add('append')
    const text = chat('romeo@example.org', 'one', origin('o1'))
    await juliet!.send(text)
    await phone!.send(text)
    open()
    await h.settle()
    expect(condition(juliet!.take()[0])).to.equal('internal-server-error')
    expect(condition(phone!.take().at(-1))).to.equal('internal-server-error')
    disk.failing.clear()
    await phone!.send(text)
    const romeo = await h.client('romeo@example.org/orchard')
    const got = (await romeo.send('<presence/>')).filter((e) => e.name === 'message')
    expect(got.map((e) => e.getChildText('body'))).to.deep.equal(['one'])
  })
})

describe('module mam: what came back is sent again, and again before that is over', () => {
  it('each attempt ends as the first one, also when that fails', async () => {
    const disk = await switched()
    await using h = await archiveHost({}, { modules, store: disk.store, ...quiet })
    await h.load(offline)
    const [juliet, phone] = await online(h, 'juliet@example.org/balcony', 'juliet@example.org/phone')
    const text = chat('romeo@example.org', 'one', origin('o1'))
    disk.failing.add('append')
    expect(condition((await juliet!.send(text))[0])).to.equal('internal-server-error')
    await h.unload('offline')
    await h.load(offline)
    phone!.take()
    const { promise, resolve: open } = Promise.withResolvers<void>()
    disk.reading = promise // it counts what is there
    await juliet!.send(text)
    await phone!.send(text)
    open()
    await h.settle()
    for (const client of [juliet!, phone!]) {
      const errors = client
        .take()
        .filter((e) => e.attr('type') === 'error' && e.getChild('error') !== undefined)
      expect(errors.map((e) => condition(e))).to.deep.equal(['internal-server-error'])
    }
    disk.failing.clear()
    await phone!.send(text)
    const romeo = await h.client('romeo@example.org/orchard')
    const got = (await romeo.send('<presence/>')).filter((e) => e.name === 'message')
    expect(got.map((e) => e.getChildText('body'))).to.deep.equal(['one'])
  })

  it('two with one id are two', async () => {
    const disk = await switched()
    await using h = await archiveHost({}, { modules, store: disk.store, ...quiet })
    await h.load(offline)
    const [juliet] = await online(h, 'juliet@example.org/balcony')
    const texts = ['one', 'two'].map((body) => chat('romeo@example.org', body, origin('o1')))
    disk.failing.add('append')
    for (const text of texts) await juliet!.send(text)
    disk.failing.clear()
    await h.unload('offline')
    await h.load(offline)
    const { promise, resolve: open } = Promise.withResolvers<void>()
    disk.reading = promise
    for (const text of texts) await juliet!.send(text)
    open()
    await h.settle()
    const romeo = await h.client('romeo@example.org/orchard')
    const got = (await romeo.send('<presence/>')).filter((e) => e.name === 'message')
    expect(got.map((e) => e.getChildText('body'))).to.deep.equal(['one', 'two'])
  })

  it('nobody waits for what is forgotten, because too many are on their way', async () => {
    const unkept = new Unkept([])
    const sent = (n: number) => {
      const from = parseJid(`u${n}@example.net`)
      const to = parseJid('romeo@example.org')
      return { stanza: parseXml(`<message xmlns='jabber:client'><body>${n}</body></message>`), from, to }
    }
    unkept.add(sent(0), 'o')
    const over = unkept.take(sent(0), 'o')
    for (let n = 1; n <= 10_000; n++) unkept.add(sent(n), 'o')
    await over
    expect(over).to.be.a('promise')
    expect(unkept.take(sent(0), 'o')).to.equal(false)
  })
})

describe('module mam: the sender keeps no archive', () => {
  it('its other devices get no second copy', async () => {
    await using h = await archiveHost({}, { modules })
    const [juliet, phone, romeo] = await online(h, ...THREE)
    await juliet!.send(NEVER)
    phone!.take()
    for (let i = 0; i < 2; i++) await juliet!.send(chat('romeo@example.org', 'one', origin('o1')))
    expect(bodies(romeo!)).to.deep.equal(['one'])
    expect(copies(phone!)).to.deep.equal(['one'])
  })

  it('a service does not get it a second time', async () => {
    const { taken, def } = service()
    await using h = await archiveHost({}, { modules })
    await h.load(def)
    const [juliet] = await online(h, 'juliet@example.org/balcony')
    await juliet!.send(NEVER)
    for (let i = 0; i < 2; i++) await juliet!.send(chat('example.org', 'one', origin('o1')))
    expect(taken).to.deep.equal(['one'])
  })
})

describe('module mam: no archive of the receiver knows it, and the server was stopped and started', () => {
  it('a service does not get it a second time', async () => {
    const { taken, def } = service()
    await using h = await archiveHost({}, { modules })
    await h.load(def)
    const [juliet] = await online(h, 'juliet@example.org/balcony')
    for (let i = 0; i < 3; i++) {
      await juliet!.send(chat('example.org', 'one', origin('o1')))
      await restart(h)
    }
    expect(taken).to.deep.equal(['one'])
  })

  it('an account without archive does not get it a second time', async () => {
    await using h = await archiveHost({}, { modules })
    const [juliet, romeo] = await online(h, 'juliet@example.org/balcony', 'romeo@example.org/orchard')
    await romeo!.send(NEVER)
    for (let i = 0; i < 3; i++) {
      await juliet!.send(chat('romeo@example.org', 'one', origin('o1')))
      await restart(h)
    }
    expect(bodies(romeo!)).to.deep.equal(['one'])
  })

  it('what came back before is delivered when it is sent again', async () => {
    await using h = await archiveHost({}, { modules })
    const [juliet] = await online(h, 'juliet@example.org/balcony')
    await juliet!.send(chat('romeo@example.net', 'one', origin('o1')))
    await restart(h)
    const got = served(h)
    for (let i = 0; i < 2; i++) await juliet!.send(chat('romeo@example.net', 'one', origin('o1')))
    expect(got).to.deep.equal(['one'])
  })

  it('what others sent back before is delivered when it is sent again', async () => {
    await using h = await archiveHost({}, { modules })
    const [juliet] = await online(h, 'juliet@example.org/balcony')
    const got = served(h)
    await juliet!.send(chat('romeo@example.net', 'one', origin('o1')))
    await fromRemote(
      h,
      "<message from='romeo@example.net' to='juliet@example.org/balcony' type='error' id='one'><error type='cancel'/></message>",
    )
    await restart(h)
    for (let i = 0; i < 2; i++) await juliet!.send(chat('romeo@example.net', 'one', origin('o1')))
    expect(got).to.deep.equal(['one', 'one'])
  })

  it('what could not be kept for those who are away before is kept when it is sent again', async () => {
    const disk = await switched()
    await using h = await archiveHost({}, { modules, store: disk.store, ...quiet })
    await h.load(offline)
    const [juliet] = await online(h, 'juliet@example.org/balcony')
    const send = () => juliet!.send(chat('romeo@example.org', 'one', origin('o1')))
    disk.failing.add('append')
    expect(condition((await send())[0])).to.equal('internal-server-error')
    disk.failing.clear()
    await restart(h)
    for (let i = 0; i < 2; i++) expect(await send()).to.deep.equal([])
    const romeo = await h.client('romeo@example.org/orchard')
    const got = (await romeo.send('<presence/>')).filter((e) => e.name === 'message')
    expect(got.map((e) => e.getChildText('body'))).to.deep.equal(['one'])
  })

  it('the same when the process between was killed', async () => {
    const disk = await switched()
    await using h = await archiveHost({}, { modules, store: disk.store, ...quiet })
    await h.load(offline)
    const [juliet] = await online(h, 'juliet@example.org/balcony')
    const send = () => juliet!.send(chat('romeo@example.org', 'one', origin('o1')))
    disk.failing.add('append')
    expect(condition((await send())[0])).to.equal('internal-server-error')
    disk.failing.clear()
    await restart(h)
    const docs = h.store.open('example.org', 'mam').docs<Doc>('processes')
    const left = await docs.get('', 'resent')
    await h.unload('mam')
    await docs.purge('')
    if (left !== undefined) await docs.put('', 'resent', left)
    await h.load(mam)
    for (let i = 0; i < 2; i++) expect(await send()).to.deep.equal([])
    const romeo = await h.client('romeo@example.org/orchard')
    const got = (await romeo.send('<presence/>')).filter((e) => e.name === 'message')
    expect(got.map((e) => e.getChildText('body'))).to.deep.equal(['one'])
    // and it is not remembered for longer than that
    await h.unload('mam')
    expect(await docs.get('', 'resent')).not.to.have.nested.property('unkept.length', 1)
    await h.load(mam)
  })

  it('the same when the store fails at the end', async () => {
    const disk = await switched()
    let full = false
    const store: Store = {
      ...disk.store,
      open(host, module) {
        const opened = disk.store.open(host, module)
        return {
          ...opened,
          docs(name, index) {
            const docs = opened.docs(name, index)
            if (module !== 'mam' || name !== 'processes') return docs
            const put: typeof docs.put = async (owner, key, doc) => {
              if (full && key === 'resent') throw new Error('disk full')
              return docs.put(owner, key, doc)
            }
            const { get, delete: remove } = docs
            return { ...docs, get: get.bind(docs), delete: remove.bind(docs), put }
          },
        }
      },
    }
    await using h = await archiveHost({}, { modules, store, ...quiet })
    await h.load(offline)
    const [juliet] = await online(h, 'juliet@example.org/balcony')
    const send = () => juliet!.send(chat('romeo@example.org', 'one', origin('o1')))
    disk.failing.add('append')
    expect(condition((await send())[0])).to.equal('internal-server-error')
    disk.failing.clear()
    full = true
    await h.clock.advance(1000)
    await h.unload('mam').catch(() => undefined)
    full = false
    await h.load(mam)
    for (let i = 0; i < 2; i++) expect(await send()).to.deep.equal([])
    const romeo = await h.client('romeo@example.org/orchard')
    const got = (await romeo.send('<presence/>')).filter((e) => e.name === 'message')
    expect(got.map((e) => e.getChildText('body'))).to.deep.equal(['one'])
  })

  it('the window holds across the restart', async () => {
    const { taken, def } = service()
    await using h = await archiveHost({ resendWindow: '1h' }, { modules })
    await h.load(def)
    const [juliet] = await online(h, 'juliet@example.org/balcony')
    await juliet!.send(NEVER)
    await juliet!.send(chat('example.org', 'one', origin('o1')))
    await h.clock.advance(3_600_001)
    await restart(h)
    await juliet!.send(chat('example.org', 'one', origin('o1')))
    expect(taken).to.deep.equal(['one', 'one'])
  })
})
