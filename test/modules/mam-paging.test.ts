/** Pages of archives: XEP-0313 §4.1, §4.3 and XEP-0059, alone and in all combinations against a model. */
import { expect } from 'chai'
import fc from 'fast-check'
import { type Asked, archiveHost, chat, query, queryXml } from '../helpers/archive.ts'
import type { TestClient, TestHost } from '../helpers/host.ts'
import { fromRemote } from '../helpers/im.ts'

/** Juliet with messages m0, m1, … to romeo, a second apart. */
async function withMessages(
  count: number,
  options: object = {},
): Promise<{ h: TestHost; juliet: TestClient }> {
  const h = await archiveHost(options)
  const juliet = await h.client('juliet@example.org/balcony')
  for (let i = 0; i < count; i++) {
    await juliet.send(chat('romeo@example.org', `m${i}`))
    await h.clock.advance(1000)
  }
  return { h, juliet }
}

const numbers = (from: number, to: number): string[] =>
  Array.from({ length: to - from }, (_, i) => `m${from + i}`)

describe('module mam: pages (XEP-0313 §4.3, XEP-0059)', () => {
  it('forwards: every message once, in order, the last page complete', async () => {
    const { h, juliet } = await withMessages(10)
    await using _ = h
    const seen: (string | undefined)[] = []
    let rsm = '<max>4</max>'
    for (;;) {
      const page = await query(juliet, { rsm })
      seen.push(...page.bodies)
      expect(page.last).to.equal(page.ids.at(-1))
      if (page.complete) break
      rsm = `<max>4</max><after>${page.last}</after>`
    }
    expect(seen).to.deep.equal(numbers(0, 10))
  })

  it('a page that ends with the last message is complete', async () => {
    const { h, juliet } = await withMessages(4)
    await using _ = h
    expect((await query(juliet, { rsm: '<max>4</max>' })).complete).to.equal(true)
    expect((await query(juliet, { rsm: '<max>3</max>' })).complete).to.equal(false)
    expect((await query(juliet, { rsm: '<max>4</max><before/>' })).complete).to.equal(true)
    expect((await query(juliet, { rsm: '<max>3</max><before/>' })).complete).to.equal(false)
  })

  it('backwards from the end (§4.3.3), each page oldest first', async () => {
    const { h, juliet } = await withMessages(10)
    await using _ = h
    const pages: (string | undefined)[][] = []
    let rsm = '<max>4</max><before/>'
    for (;;) {
      const page = await query(juliet, { rsm })
      pages.push([...page.bodies])
      expect([page.first, page.last]).to.deep.equal([page.ids[0], page.ids.at(-1)])
      if (page.complete) break
      rsm = `<max>4</max><before>${page.first}</before>`
    }
    expect(pages).to.deep.equal([numbers(6, 10), numbers(2, 6), numbers(0, 2)])
  })

  it('§4.3.4: a flipped page has the same messages, newest first; first and last stay', async () => {
    const { h, juliet } = await withMessages(10)
    await using _ = h
    for (const rsm of ['<max>4</max>', '<max>4</max><before/>']) {
      const [page, flipped] = [await query(juliet, { rsm }), await query(juliet, { rsm, flip: true })]
      expect(flipped.bodies).to.deep.equal(page.bodies.toReversed())
      expect([flipped.first, flipped.last, flipped.complete]).to.deep.equal([page.first, page.last, false])
    }
  })

  it('§4.1.3: before-id and after-id, alone, together and with RSM; neither end is included', async () => {
    const { h, juliet } = await withMessages(10)
    await using _ = h
    const { ids } = await query(juliet)
    const bodies = async (what: Asked) => (await query(juliet, what)).bodies
    const id = (n: number) => ids[n] ?? ''
    expect(await bodies({ form: { 'after-id': id(6) } })).to.deep.equal(numbers(7, 10))
    expect(await bodies({ form: { 'before-id': id(3) } })).to.deep.equal(numbers(0, 3))
    const form = { 'after-id': id(2), 'before-id': id(8) }
    expect(await bodies({ form })).to.deep.equal(numbers(3, 8))
    expect(await bodies({ form, rsm: `<max>2</max>` })).to.deep.equal(numbers(3, 5))
    expect(await bodies({ form, rsm: `<max>2</max><before/>` })).to.deep.equal(numbers(6, 8))
    expect(await bodies({ form, rsm: `<max>2</max><after>${id(4)}</after>` })).to.deep.equal(numbers(5, 7))
    expect(await bodies({ form, rsm: `<max>9</max><after>${id(0)}</after>` })).to.deep.equal(numbers(3, 8))
    expect(await bodies({ form, rsm: `<max>2</max><before>${id(9)}</before>` })).to.deep.equal(numbers(6, 8))
    expect(await bodies({ form: { 'after-id': id(8), 'before-id': id(2) } })).to.deep.equal([])
    // one entry named by both
    const twice = (name: string, n: number): Asked => ({
      form: { [`${name}-id`]: id(n) },
      rsm: `<max>2</max><${name}>${id(n)}</${name}>`,
    })
    expect(await bodies(twice('after', 3))).to.deep.equal(numbers(4, 6))
    expect(await bodies(twice('before', 3))).to.deep.equal(numbers(1, 3))
  })

  it('§4.1.3: single messages by their ids, oldest first, each once', async () => {
    const { h, juliet } = await withMessages(10)
    await using _ = h
    const { ids } = await query(juliet)
    const wanted = [7, 1, 7, 4].map((n) => ids[n] ?? '')
    const page = await query(juliet, { form: { ids: wanted } })
    expect([page.bodies, page.complete]).to.deep.equal([['m1', 'm4', 'm7'], true])
    expect((await query(juliet, { form: { ids: wanted, with: 'nurse@example.org' } })).bodies).to.deep.equal(
      [],
    )
    expect((await query(juliet, { form: { ids: wanted }, rsm: '<max>1</max>' })).complete).to.equal(false)
  })

  it('§4.1.3, §4.3.2: an id that is not in the archive is item-not-found, wherever it stands', async () => {
    const { h, juliet } = await withMessages(3)
    await using _ = h
    const [known = ''] = (await query(juliet)).ids
    const romeo = await h.client('romeo@example.org/orchard')
    const [strange = ''] = (await query(romeo)).ids
    for (const bad of ['x', '0', '0000000001', 'A'.repeat(22), 'Ä', strange, `${known}=`]) {
      for (const what of [
        { form: { 'before-id': bad } },
        { form: { 'after-id': bad } },
        { form: { ids: [known, bad] } },
        { rsm: `<after>${bad}</after>` },
        { rsm: `<before>${bad}</before>` },
        { form: { 'after-id': known }, rsm: `<after>${bad}</after>` },
        { form: { 'after-id': bad }, rsm: `<after>${known}</after>` },
        { form: { 'after-id': bad }, rsm: '<max>0</max>' },
        { rsm: `<max>0</max><after>${bad}</after>` },
      ] satisfies Asked[])
        expect((await query(juliet, what)).outcome, `${bad} ${JSON.stringify(what)}`).to.equal(
          'cancel item-not-found',
        )
    }
  })

  it('a removed message is not found any more, as the start of a page and by its id', async () => {
    const { h, juliet } = await withMessages(3)
    await using _ = h
    const { ids } = await query(juliet)
    const archive = h.store.open('example.org', 'mam').archive('messages')
    const stored = (await archive.page('juliet', { from: 'first', limit: 1 })).entries[0]!
    await archive.remove('juliet', { ids: [stored.id] })
    expect((await query(juliet, { rsm: `<after>${ids[0]}</after>` })).outcome).to.equal(
      'cancel item-not-found',
    )
    expect((await query(juliet, { form: { ids: [ids[0]!] } })).outcome).to.equal('cancel item-not-found')
    expect((await query(juliet, { rsm: `<after>${ids[1]}</after>` })).bodies).to.deep.equal(['m2'])
  })

  it('XEP-0059 §2.7: max 0 counts what matches, exactly', async () => {
    const { h, juliet } = await withMessages(10)
    await using _ = h
    await juliet.send(chat('nurse@example.org/x', 'other'))
    const { ids, results } = await query(juliet)
    const count = async (form?: Asked['form'], more = '') => {
      const page = await query(juliet, {
        rsm: `<max>0</max>${more}`,
        ...(form === undefined ? {} : { form }),
      })
      expect([page.results.length, page.first, page.last]).to.deep.equal([0, undefined, undefined])
      expect(page.complete).to.equal(page.count === '0')
      return page.count
    }
    expect(await count()).to.equal('11')
    expect(await count({ with: 'romeo@example.org' })).to.equal('10')
    expect(await count({ with: 'nurse@example.org/x' })).to.equal('1')
    expect(await count({ with: 'nurse@example.org/y' })).to.equal('0')
    expect(await count({ start: results[8]!.stamp })).to.equal('3')
    expect(await count({ 'after-id': ids[7]! })).to.equal('3')
    expect(await count({ 'after-id': ids[1]!, 'before-id': ids[3]! })).to.equal('1')
    // of the whole set, whatever the page
    expect(await count({}, `<after>${ids[5]}</after>`)).to.equal('11')
  })

  it('the count is told where it is known, and is never a guess', async () => {
    const { h, juliet } = await withMessages(10)
    await using _ = h
    expect((await query(juliet)).count).to.equal('10')
    expect((await query(juliet, { rsm: '<max>10</max><before/>' })).count).to.equal('10')
    expect((await query(juliet, { rsm: '<max>9</max>' })).count).to.equal(undefined)
    const { ids } = await query(juliet)
    expect((await query(juliet, { rsm: `<after>${ids[4]}</after>` })).count).to.equal(undefined)
  })

  it('§4.3.1: pages are bounded in number, as configured, whatever is asked for', async () => {
    const { h, juliet } = await withMessages(10, { pageSize: 3, maxPage: 5 })
    await using _ = h
    expect((await query(juliet)).bodies).to.deep.equal(numbers(0, 3))
    expect((await query(juliet, { rsm: '' })).bodies).to.deep.equal(numbers(0, 3))
    const large = await query(juliet, { rsm: '<max>1000000</max>' })
    expect([large.bodies, large.complete]).to.deep.equal([numbers(0, 5), false])
  })

  it('§4.3.1: pages are bounded in size; large messages come too, both ways', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    for (let i = 0; i < 9; i++) await juliet.send(chat('romeo@example.org', 'x'.repeat(60_000 + i)))
    const sizes = async (rsm: string) => {
      const page = await query(juliet, { rsm })
      return { sizes: page.bodies.map((body) => (body?.length ?? 0) - 60_000), page }
    }
    const first = await sizes('<max>50</max>')
    expect(first.sizes).to.deep.equal([0, 1, 2, 3])
    expect(first.page.complete).to.equal(false)
    expect((await sizes(`<max>50</max><after>${first.page.last}</after>`)).sizes).to.deep.equal([4, 5, 6, 7])
    const last = await sizes('<max>50</max><before/>')
    expect(last.sizes).to.deep.equal([5, 6, 7, 8])
    expect((await sizes(`<max>50</max><before>${last.page.first}</before>`)).sizes).to.deep.equal([
      1, 2, 3, 4,
    ])
  })

  it('a client that does not read has one page waiting, however much it asks for, and gets all in order later', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    for (let i = 0; i < 8; i++) await juliet.send(chat('romeo@example.org', 'x'.repeat(50_000)))
    juliet.transport.blocked = true
    const ids = Array.from({ length: 30 }, (_, i) => `q${i}`)
    juliet.transport.feed(ids.map((id) => queryXml({}, id)).join(''))
    await h.settle()
    expect(juliet.transport.buffered).to.be.lessThan(600_000)
    const received: string[] = []
    while (received.filter((name) => name !== 'message').length < 30) {
      juliet.transport.unblock()
      await h.settle()
      received.push(...juliet.take().map((e) => (e.name === 'message' ? e.name : (e.attr('id') ?? ''))))
    }
    const page = Array.from({ length: 5 }, () => 'message') // of 100 KB: half a megabyte
    expect(received).to.deep.equal(ids.flatMap((id) => [...page, id]))
  })
})

describe('module mam: filters (XEP-0313 §4.1.1, §4.1.2)', () => {
  it('with: a bare address stands for all its resources, a full one for itself; own address: notes only', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    const from = (jid: string, body: string) =>
      fromRemote(
        h,
        `<message from='${jid}' to='juliet@example.org' type='chat'><body>${body}</body></message>`,
      )
    await from('romeo@example.net/a', 'in a')
    await from('romeo@example.net/b', 'in b')
    await from('romeo@example.net', 'in bare')
    await juliet.send(chat('romeo@example.net/a', 'out a'))
    await juliet.send(chat('romeo@example.net', 'out bare'))
    await juliet.send(chat('nurse@example.net', 'other'))
    await juliet.send(chat('juliet@example.org', 'note'))
    await juliet.send(chat('example.net', 'server'))
    const bodies = async (jid: string) => (await query(juliet, { form: { with: jid } })).bodies
    expect(await bodies('romeo@example.net')).to.deep.equal(['in a', 'in b', 'in bare', 'out a', 'out bare'])
    expect(await bodies('ROMEO@EXAMPLE.NET')).to.deep.equal(['in a', 'in b', 'in bare', 'out a', 'out bare'])
    expect(await bodies('romeo@example.net/a')).to.deep.equal(['in a', 'out a'])
    expect(await bodies('romeo@example.net/A')).to.deep.equal([])
    expect(await bodies('example.net')).to.deep.equal(['server'])
    expect(await bodies('juliet@example.org')).to.deep.equal(['note'])
    expect(await bodies('juliet@example.org/balcony')).to.deep.equal(['note'])
  })

  it('start and end are inclusive to the millisecond, in any time zone', async () => {
    const { h, juliet } = await withMessages(5)
    await using _ = h
    const { results } = await query(juliet)
    const at = (n: number, ms = 0) => new Date(Date.parse(results[n]?.stamp ?? '') + ms).toISOString()
    const bodies = async (form: Asked['form']) => (await query(juliet, { form: form! })).bodies
    expect(await bodies({ start: at(1), end: at(3) })).to.deep.equal(numbers(1, 4))
    expect(await bodies({ start: at(1, 1), end: at(3, -1) })).to.deep.equal(numbers(2, 3))
    const moved = `${new Date(Date.parse(results[3]?.stamp ?? '') + 7_200_000).toISOString().slice(0, -1)}+02:00`
    expect(await bodies({ start: moved })).to.deep.equal(numbers(3, 5))
    expect(await bodies({ start: at(3), end: at(1) })).to.deep.equal([])
  })

  it('a full address with few matches among many messages: pages are complete and in order', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    for (let i = 0; i < 250; i++)
      await juliet.send(chat(`romeo@example.net/${i % 50 === 0 ? 'x' : 'y'}`, `m${i}`))
    const form = { with: 'romeo@example.net/x' }
    const first = await query(juliet, { form, rsm: '<max>3</max>' })
    expect([first.bodies, first.complete]).to.deep.equal([['m0', 'm50', 'm100'], false])
    const second = await query(juliet, { form, rsm: `<max>3</max><after>${first.last}</after>` })
    expect([second.bodies, second.complete]).to.deep.equal([['m150', 'm200'], true])
    const last = await query(juliet, { form, rsm: '<max>2</max><before/>' })
    expect([last.bodies, last.complete]).to.deep.equal([['m150', 'm200'], false])
    expect((await query(juliet, { form, rsm: '<max>5</max>' })).complete).to.equal(true)
  })

  it('any filter, paged any way, gives what a model gives (random)', async () => {
    await using h = await archiveHost()
    const juliet = await h.client('juliet@example.org/balcony')
    const peers = ['romeo@example.net/a', 'romeo@example.net/b', 'romeo@example.net', 'nurse@example.net']
    const words = ['rose', 'name', 'sweet']
    const model: { peer: string; body: string; id: string; at: number }[] = []
    for (let i = 0; i < 40; i++) {
      const peer = peers[(i * 7) % 4]!
      const body = `m${i} ${words[(i * 5) % 3]}`
      await juliet.send(chat(peer, body))
      model.push({ peer, body, id: '', at: h.clock.now() })
      if (i % 3 === 0) await h.clock.advance(1000)
    }
    ;(await query(juliet)).ids.forEach((id, i) => {
      model[i]!.id = id
    })
    const place = fc.nat(39)
    const maybe = <T>(arb: fc.Arbitrary<T>) => fc.option(arb, { nil: undefined })
    const asked = fc.record({
      peer: maybe(fc.constantFrom(...peers)),
      start: maybe(place),
      end: maybe(place),
      after: maybe(place),
      before: maybe(place),
      ids: maybe(fc.array(place, { minLength: 1, maxLength: 5 })),
      word: maybe(fc.constantFrom(...words)),
      max: fc.integer({ min: 1, max: 9 }),
      backwards: fc.boolean(),
      flip: fc.boolean(),
    })
    await fc.assert(
      fc.asyncProperty(asked, async (a) => {
        const at = (n: number) => new Date(model[n]!.at).toISOString()
        const form = {
          ...(a.peer === undefined ? {} : { with: a.peer }),
          ...(a.start === undefined ? {} : { start: at(a.start) }),
          ...(a.end === undefined ? {} : { end: at(a.end) }),
          ...(a.after === undefined ? {} : { 'after-id': model[a.after]!.id }),
          ...(a.before === undefined ? {} : { 'before-id': model[a.before]!.id }),
          ...(a.ids === undefined ? {} : { ids: a.ids.map((n) => model[n]!.id) }),
          ...(a.word === undefined ? {} : { '{urn:xmpp:fulltext:0}fulltext': a.word }),
        }
        const expected = model.filter(
          ({ peer, body, at: time }, n) =>
            (a.peer === undefined ||
              (a.peer.includes('/') ? peer === a.peer : peer.split('/')[0] === a.peer)) &&
            (a.start === undefined || time >= model[a.start]!.at) &&
            (a.end === undefined || time <= model[a.end]!.at) &&
            (a.after === undefined || n > a.after) &&
            (a.before === undefined || n < a.before) &&
            (a.ids === undefined || a.ids.includes(n)) &&
            (a.word === undefined || body.includes(a.word)),
        )
        const got: string[] = []
        for (let edge = ''; ; ) {
          const where = a.backwards ? `<before>${edge}</before>` : edge === '' ? '' : `<after>${edge}</after>`
          const page = await query(juliet, { form, rsm: `<max>${a.max}</max>${where}`, flip: a.flip })
          expect(page.outcome).to.equal('result')
          expect(page.results.length).to.be.at.most(a.max)
          const ids = a.flip ? page.ids.toReversed() : page.ids
          expect([page.first, page.last]).to.deep.equal([ids[0], ids.at(-1)])
          if (a.backwards) got.unshift(...ids)
          else got.push(...ids)
          if (page.complete) break
          expect(page.results.length).to.be.greaterThan(0)
          edge = (a.backwards ? page.first : page.last) ?? ''
        }
        expect(got).to.deep.equal(expected.map(({ id }) => id))
        const { count } = await query(juliet, { form, rsm: '<max>0</max>' })
        expect(count).to.equal(String(expected.length))
      }),
      { numRuns: 150 },
    )
  })
})
