/** Retention (XEP-0313 §3.2), search (XEP-0431), metadata at binding (XEP-0386 §3.2), and what other modules may ask of archives. */
import { expect } from 'chai'
import { defineModule, type Session } from '../../server/module.ts'
import type { Element } from '../../server/xmpp/element.ts'
import { parseJid } from '../../server/xmpp/jid.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { openMemory } from '../../server/storage/memory.ts'
import { type Archive, type Doc, type Store, StoreUnavailable } from '../../server/storage/contract.ts'
import { archived, archiveHost, chat, NS_MAM, query, queryXml } from '../helpers/archive.ts'
import type { TestClient, TestHost } from '../helpers/host.ts'
import { ask, features, outcome } from '../helpers/iq.ts'
import { wrapped } from '../helpers/wrapped-store.ts'

const HOUR = 3_600_000
const DAY = 24 * HOUR
const FULLTEXT = '{urn:xmpp:fulltext:0}fulltext'
const numbers = (from: number, to: number): string[] =>
  Array.from({ length: to - from }, (_, i) => `m${from + i}`)

describe('module mam: retention (XEP-0313 §3.2)', () => {
  /** Messages m0, m1, … of juliet, one for each of the last days; the last one is an hour old. */
  async function days(h: TestHost, count: number): Promise<void> {
    for (let i = 0; i < count; i++) {
      const at = new Date(h.clock.now() - (count - 1 - i) * DAY - HOUR)
      const stanza = parseXml(`<message xmlns='jabber:client'><body>m${i}</body></message>`)
      for (const local of ['juliet', 'romeo'])
        await h.service('archive').add(local, { at, peer: parseJid('nurse@example.org'), stanza })
    }
  }

  it('without a limit nothing is removed', async () => {
    await using h = await archiveHost()
    await days(h, 100)
    await h.clock.advance(2 * HOUR)
    expect(await archived(await h.client('juliet@example.org/balcony'))).to.deep.equal(numbers(0, 100))
  })

  it('by age: what is older goes within a day, from every archive', async () => {
    await using h = await archiveHost({ days: 3 })
    await days(h, 100)
    await h.clock.advance(HOUR)
    for (const local of ['juliet', 'romeo'])
      expect(await archived(await h.client(`${local}@example.org/x`))).to.deep.equal(numbers(97, 100))
    // the next time is tomorrow
    await h.clock.advance(25 * HOUR)
    expect(await archived(await h.client('juliet@example.org/y'))).to.deep.equal(numbers(98, 100))
  })

  it('an archive that the store fails for does not keep others from being looked after', async () => {
    const store = wrapped(await openMemory(), (archive) => ({
      page: async (owner, q) => {
        if (owner === 'juliet' && q.start !== undefined) throw new StoreUnavailable('no answer')
        return await archive.page(owner, q)
      },
    }))
    const logged: string[] = []
    await using h = await archiveHost(
      { days: 3 },
      { store, onLog: (_, message) => void logged.push(message) },
    )
    await days(h, 100)
    await h.clock.advance(HOUR)
    expect(await archived(await h.client('juliet@example.org/x'))).to.deep.equal(numbers(0, 100))
    expect(await archived(await h.client('romeo@example.org/x'))).to.deep.equal(numbers(97, 100))
    expect(logged.filter((one) => one.includes('not removed'))).to.have.length(1)
  })

  it('by age: only the oldest go, however the times of the messages are', async () => {
    await using h = await archiveHost({ days: 1 })
    const juliet = await h.client('juliet@example.org/balcony')
    const now = h.clock.now()
    const hours = [0, 2, 0.2, 2.1, 5000, 0.1, 3]
    for (const [i, hour] of hours.entries())
      await h.service('archive').add('juliet', {
        at: new Date(now + hour * HOUR),
        peer: parseJid('nurse@example.org'),
        stanza: parseXml(`<message xmlns='jabber:client'><body>m${i}</body></message>`),
      })
    // each time the one an hour after the day
    await h.clock.advance(DAY + 1.05 * HOUR)
    expect(await archived(juliet)).to.deep.equal(numbers(1, 7))
    await h.clock.advance(DAY)
    // what a wrong clock wrote does not stay for ever
    expect(await archived(juliet)).to.deep.equal(['m4'])
    await h.service('archive').add('juliet', {
      at: new Date(h.clock.now()),
      peer: parseJid('nurse@example.org'),
      stanza: parseXml("<message xmlns='jabber:client'><body>m7</body></message>"),
    })
    await h.clock.advance(DAY)
    expect(await archived(juliet)).to.deep.equal(['m7'])
  })

  it('by age: what was written before the clock was set back stays', async () => {
    await using h = await archiveHost({ days: 3 })
    const add = async (body: string, at: number) =>
      await h.service('archive').add('juliet', {
        at: new Date(at),
        peer: parseJid('nurse@example.org'),
        stanza: parseXml(`<message xmlns='jabber:client'><body>${body}</body></message>`),
      })
    await add('m0', h.clock.now() + 3 * HOUR)
    await add('m1', h.clock.now())
    await h.clock.advance(2 * HOUR)
    expect(await archived(await h.client('juliet@example.org/x'))).to.deep.equal(['m0', 'm1'])
  })

  it('by number: the newest stay, after a day or after many messages', async () => {
    await using h = await archiveHost({ messages: 20 })
    const juliet = await h.client('juliet@example.org/balcony')
    for (let i = 0; i < 50; i++) await juliet.send(chat('romeo@example.org', `m${i}`))
    await h.clock.advance(HOUR)
    expect(await archived(juliet)).to.deep.equal(numbers(30, 50))
    for (let i = 50; i < 260; i++) await juliet.send(chat('romeo@example.org', `m${i}`))
    expect((await archived(juliet)).length).to.be.lessThan(121)
    expect((await archived(juliet)).at(-1)).to.equal('m259')
  })

  it('single accounts have limits of their own', async () => {
    await using h = await archiveHost({ messages: 5, accounts: { juliet: { messages: 2 }, romeo: {} } })
    const juliet = await h.client('juliet@example.org/balcony')
    for (let i = 0; i < 9; i++) await juliet.send(chat('romeo@example.org', `m${i}`))
    for (let i = 0; i < 9; i++) await juliet.send(chat('nurse@example.org', `n${i}`))
    await h.clock.advance(HOUR)
    expect(await archived(juliet)).to.deep.equal(['n7', 'n8'])
    expect(await archived(await h.client('romeo@example.org/orchard'))).to.deep.equal(numbers(0, 9))
    expect(await archived(await h.client('nurse@example.org/kitchen'))).to.have.length(5)
  })
})

describe('module mam: search (XEP-0431)', () => {
  async function found(
    h: TestHost,
    client: TestClient,
    words: string,
  ): Promise<readonly (string | undefined)[]> {
    await h.settle()
    return (await query(client, { form: { [FULLTEXT]: words } })).bodies
  }

  it('§3.1: every word must occur, in any order and case; no words find all', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    const texts = [
      'A rose by any other name',
      'What is in a NAME?',
      'Rosen &amp; Namen',
      '今日は良い天気です',
    ]
    for (const text of texts)
      await juliet.send(`<message to='romeo@example.org' type='chat'><body>${text}</body></message>`)
    expect(await found(h, juliet, 'name rose')).to.deep.equal([texts[0]])
    expect(await found(h, juliet, 'name')).to.deep.equal([texts[0], texts[1]])
    expect(await found(h, juliet, 'namen')).to.deep.equal(['Rosen & Namen'])
    expect(await found(h, juliet, '天気')).to.deep.equal([texts[3]])
    expect(await found(h, juliet, 'tulip')).to.deep.equal([])
    expect(await found(h, juliet, '')).to.have.length(4)
    expect(await found(h, juliet, ' ')).to.have.length(4)
  })

  it('searches bodies and subjects of the message, nothing else, and no fallback texts (XEP-0428 §2.2)', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    const send = (content: string) => juliet.send(`<message to='romeo@example.org'>${content}</message>`)
    await send("<subject>Tea</subject><body>at five</body><body xml:lang='de'>um f&#252;nf</body>")
    await send("<x xmlns='urn:x'><body>hidden</body></x><body>seen</body>")
    await send("<body>secret</body><fallback xmlns='urn:xmpp:fallback:0' for='urn:x'/>")
    await send(
      "<body>&gt; quoted\nanswered</body><fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body start='0' end='8'/></fallback>",
    )
    await send('<body><![CDATA[a < b]]> marked</body>')
    expect(await found(h, juliet, 'tea five')).to.deep.equal(['at five'])
    expect(await found(h, juliet, 'fünf')).to.deep.equal(['at five'])
    expect(await found(h, juliet, 'hidden')).to.deep.equal([])
    expect(await found(h, juliet, 'seen')).to.deep.equal(['seen'])
    expect(await found(h, juliet, 'secret')).to.deep.equal([])
    expect(await found(h, juliet, 'answered')).to.have.length(1)
    expect(await found(h, juliet, 'marked b')).to.deep.equal(['a < b marked'])
    expect(await found(h, juliet, 'message')).to.deep.equal([])
  })

  it('one at a time for each archive, a few may wait; other queries do not wait for them', async () => {
    const inner = await openMemory()
    const gate = Promise.withResolvers<void>()
    let [running, most] = [0, 0]
    const wait = <T extends Doc>(archive: Archive<T>): Archive<T> => ({
      append: (owner, entry) => archive.append(owner, entry),
      replace: (owner, id, doc) => archive.replace(owner, id, doc),
      remove: (owner, q) => archive.remove(owner, q),
      owners: () => archive.owners(),
      async page(owner, q) {
        if (q.text === undefined) return archive.page(owner, q)
        most = Math.max(most, ++running)
        await gate.promise
        running--
        return archive.page(owner, q)
      },
    })
    const store: Store = {
      driver: inner.driver,
      open: (host, module) => {
        const opened = inner.open(host, module)
        return { ...opened, archive: (name, opts) => wait(opened.archive(name, opts)) }
      },
      purgeOwner: (host, owner) => inner.purgeOwner(host, owner),
      healthy: () => inner.healthy(),
      close: () => inner.close(),
    }
    await using h = await archiveHost({}, { store })
    const clients = await Promise.all(
      Array.from({ length: 7 }, (_, i) => h.client(`juliet@example.org/${i}`)),
    )
    const search = queryXml({ form: { [FULLTEXT]: 'rose' } }, 's')
    for (const client of clients.slice(0, 6)) client.transport.feed(search)
    await h.settle()
    expect(most).to.equal(1)
    const [last] = clients.slice(-1)
    expect((await query(last!)).outcome).to.equal('result')
    expect((await last!.send(search)).map(outcome)).to.deep.equal(['wait resource-constraint'])
    gate.resolve()
    await h.settle()
    const outcomes = clients.map((client) => client.take().map(outcome).join())
    expect(most).to.equal(1)
    expect(outcomes.filter((o) => o === 'result')).to.have.length(5)
    expect(outcomes.filter((o) => o === 'wait resource-constraint')).to.have.length(1)
  })

  it('goes together with other filters and with pages', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    for (let i = 0; i < 6; i++)
      await juliet.send(chat(i % 2 === 0 ? 'romeo@example.org' : 'nurse@example.org', `rose ${i}`))
    const form = { [FULLTEXT]: 'rose', with: 'romeo@example.org' }
    const page = await query(juliet, { form, rsm: '<max>2</max><before/>' })
    expect([page.bodies, page.complete]).to.deep.equal([['rose 2', 'rose 4'], false])
    expect(
      (await query(juliet, { form, rsm: `<max>2</max><before>${page.first}</before>` })).bodies,
    ).to.deep.equal(['rose 0'])
    expect((await query(juliet, { form, rsm: '<max>0</max>' })).count).to.equal('3')
    expect(await features(juliet, 'juliet@example.org')).to.include('urn:xmpp:fulltext:0')
  })
})

describe('module mam: for other modules', () => {
  it('XEP-0386 §3.2: the state of the archive at binding, and a flag that the session reads it', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    await juliet.send(chat('romeo@example.org', 'one'))
    const chain = h.host.hooks.chain('bind2:bound')
    const bind = async (session: Session, jid: string): Promise<string[]> => {
      const parts: Element[] = []
      await chain.run({ session, jid: parseJid(jid), parts })
      return parts.map((part) => part.toString())
    }
    const romeo = await h.client('romeo@example.org/orchard')
    const { id, stamp } = (await query(await h.client('romeo@example.org/x'))).results[0]!
    expect(romeo.session.flag('mam')).to.equal(undefined)
    expect(await bind(romeo.session, 'romeo@example.org/orchard')).to.deep.equal([
      `<metadata xmlns='${NS_MAM}'><start id='${id}' timestamp='${stamp}'/><end id='${id}' timestamp='${stamp}'/></metadata>`,
    ])
    expect(romeo.session.flag('mam')).to.equal(true)
    expect(await bind(romeo.session, 'nurse@example.org/x')).to.deep.equal([`<metadata xmlns='${NS_MAM}'/>`])
  })

  it('a session that queries is marked, one that does not is not', async () => {
    await using h = await archiveHost()
    const [a, b, c] = [
      await h.client('juliet@example.org/a'),
      await h.client('juliet@example.org/b'),
      await h.client('juliet@example.org/c'),
    ]
    await query(a)
    await ask(b, 'get', undefined, `<metadata xmlns='${NS_MAM}'/>`)
    expect([a, b, c].map((client) => client.session.flag('mam'))).to.deep.equal([true, true, undefined])
  })

  it('all messages of an account can be read, from any one on, and added again elsewhere', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    for (let i = 0; i < 450; i++) await juliet.send(chat('romeo@example.org', `m${i}`))
    const archive = h.service('archive')
    const read = async (after?: string) => {
      const all = []
      for await (const m of archive.messages('juliet', after)) all.push(m)
      return all
    }
    const all = await read()
    expect(all.map(({ stanza }) => stanza.getChildText('body'))).to.deep.equal(numbers(0, 450))
    expect((await read(all[399]!.id)).map(({ id }) => id)).to.deep.equal(all.slice(400).map(({ id }) => id))
    expect(await read('nothing').catch((error: unknown) => String(error))).to.contain('item-not-found')
    for (const [i, { at, stanza }] of all.slice(0, 3).entries())
      for (let twice = 0; twice < 2; twice++)
        await archive.add('nurse', { at, peer: parseJid('romeo@example.org'), stanza, key: `import ${i}` })
    const nurse = await h.client('nurse@example.org/kitchen')
    const { results } = await query(nurse)
    expect(results.map(({ body, stamp }) => [body, stamp])).to.deep.equal(
      all.slice(0, 3).map(({ at, stanza }) => [stanza.getChildText('body'), at.toISOString()]),
    )
  })

  it('a reading of all messages goes on when the oldest are removed meanwhile, each once', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    for (let i = 0; i < 450; i++) await juliet.send(chat('romeo@example.org', `m${i}`))
    const archive = h.service('archive')
    const { archive: store } = archive.source('juliet')
    const read: (string | undefined)[] = []
    let first = ''
    for await (const { id, stanza } of archive.messages('juliet')) {
      first ||= id
      read.push(stanza.getChildText('body'))
      if (read.length === 200) await store.remove('juliet', { keepLast: 240 })
      if (read.length === 210) await store.remove('juliet', { keepLast: 230 })
    }
    expect(read).to.deep.equal([...numbers(0, 200), ...numbers(210, 450)])
    const gone = archive.messages('juliet', first)[Symbol.asyncIterator]().next()
    expect(await gone.catch((error: unknown) => String(error))).to.contain('item-not-found')
  })

  it('answers queries of archives that another module keeps', async () => {
    const rooms = defineModule({
      name: 'rooms',
      summary: 'a room with an archive',
      specs: [],
      setup(ctx) {
        const service = ctx.use('archive')
        const archive = ctx.storage.archive<{ readonly xml: string }>('rooms')
        const jid = parseJid('nurse@example.org')
        const source = {
          archive,
          owner: 'room',
          ids: service.ids(new Uint8Array(48)),
          jid,
          show: (stanza: Element) => stanza.withAttrs({ to: undefined }),
        }
        ctx.iq('account', 'set', NS_MAM, 'query', (iq) => service.query(iq, source), { advertise: false })
        ctx.iq('account', 'get', NS_MAM, 'metadata', () => service.metadata(source), { advertise: false })
        ctx.iq('account', 'get', NS_MAM, 'query', () => service.form, { advertise: false })
        return archive
          .append('room', {
            at: new Date(ctx.now()),
            with: 'x',
            doc: {
              xml: parseXml("<message xmlns='jabber:client' to='x'><body>said</body></message>").toString(),
            },
          })
          .then(() => undefined)
      },
      requires: ['mam'],
    })
    await using h = await archiveHost()
    await h.load(rooms)
    const juliet = await h.client('juliet@example.org/balcony')
    const { results, complete } = await query(juliet, { to: 'nurse@example.org', queryId: 'r' })
    expect(results[0]?.outer.attr('from')).to.equal('nurse@example.org')
    expect(results[0]?.queryId).to.equal('r')
    expect(results[0]?.message.toString()).to.equal(
      "<message xmlns='jabber:client'><body>said</body></message>",
    )
    expect(complete).to.equal(true)
    expect(outcome(await ask(juliet, 'get', 'nurse@example.org', `<query xmlns='${NS_MAM}'/>`))).to.equal(
      'result',
    )
    const metadata = await ask(juliet, 'get', 'nurse@example.org', `<metadata xmlns='${NS_MAM}'/>`)
    expect(metadata.firstElement()?.getChild('start')?.attr('id')).to.equal(results[0]?.id)
    expect(await archived(juliet)).to.deep.equal([])
    await h.unload('rooms')
  })
})
