/** Searches that take longer than an answer may (XEP-0431, XEP-0313 §4.1.1): they are done in steps, go on where they were, and are one at a time. */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { expect } from 'chai'
import type { Query, Store } from '../../server/storage/contract.ts'
import { openMemory } from '../../server/storage/memory.ts'
import { withTimeLimit } from '../../server/store-limits.ts'
import { archiveHost, chat, query, queryXml } from '../helpers/archive.ts'
import type { TestClient, TestHost } from '../helpers/host.ts'
import { fromRemote } from '../helpers/im.ts'
import { outcome } from '../helpers/iq.ts'
import { wrapped } from '../helpers/wrapped-store.ts'
import { quiet } from '../helpers/resent.ts'

const FULLTEXT = '{urn:xmpp:fulltext:0}fulltext'
const WAIT = 'wait resource-constraint'

/** A store whose archives are read like this. */
async function reading(
  page: <T>(read: (q: Query) => Promise<T>, q: Query) => Promise<T>,
): Promise<{ readonly store: Store }> {
  const store = wrapped(await openMemory(), (archive) => ({
    page: (owner, q) => page((asked) => archive.page(owner, asked), q),
  }))
  return { store }
}

describe('module mam: long searches', () => {
  const now = performance.now.bind(performance)
  let passed = 0
  beforeEach(() => {
    passed = 0
    performance.now = () => now() + passed
  })
  afterEach(() => {
    performance.now = now
  })

  /** A host whose store looks at ten entries in a second; `steps` tells how many times it has. */
  async function slow(): Promise<{ h: TestHost; juliet: TestClient; steps: () => number }> {
    let steps = 0
    const { store } = await reading((read, q) => {
      if (q.effort === undefined || (q.text === undefined && q.with === undefined)) return read(q)
      steps++
      passed += 1000
      return read({ ...q, effort: Math.min(q.effort, 10) })
    })
    const h = await archiveHost({}, { store })
    return { h, juliet: await h.client('juliet@example.org/balcony'), steps: () => steps }
  }
  const say = async (juliet: TestClient, from: number, to: number, needles: readonly number[]) => {
    for (let i = from; i < to; i++)
      await juliet.send(
        chat('romeo@example.org/orchard', needles.includes(i) ? `needle${i} needle` : `hay${i}`),
      )
  }
  /** Asks again until there is an answer. */
  async function patiently(juliet: TestClient, asked: Parameters<typeof query>[1]) {
    for (let waits = 0; ; waits++) {
      const answer = await query(juliet, asked)
      if (answer.outcome !== WAIT) return { ...answer, waits }
      expect(waits).to.be.lessThan(20)
      expect(answer.results).to.deep.equal([])
    }
  }

  it('nothing is found in time: asked again it goes on where it was, forwards', async () => {
    const { h, juliet, steps } = await slow()
    await using _ = h
    await say(juliet, 0, 200, [150, 155])
    const form = { [FULLTEXT]: 'needle' }
    const first = await patiently(juliet, { form, rsm: '<max>1</max>' })
    expect([first.bodies, first.complete, first.waits]).to.deep.equal([['needle150 needle'], false, 3])
    const next = await patiently(juliet, { form, rsm: `<max>10</max><after>${first.last}</after>` })
    expect([next.bodies, next.complete]).to.deep.equal([['needle155 needle'], true])
    const all = steps()
    const absent = await patiently(juliet, { form: { [FULLTEXT]: 'nowhere' } })
    expect([absent.bodies, absent.complete, absent.count]).to.deep.equal([[], true, '0'])
    expect(steps() - all).to.be.at.most(22)
  })

  it('the same backwards from the end, with all that has come meanwhile', async () => {
    const { h, juliet, steps } = await slow()
    await using _ = h
    await say(juliet, 0, 200, [3, 5])
    const asked = { form: { [FULLTEXT]: 'needle' }, rsm: '<max>3</max><before/>' }
    for (let i = 0; i < 2; i++) expect((await query(juliet, asked)).outcome).to.equal(WAIT)
    await say(juliet, 200, 210, [204])
    const answer = await patiently(juliet, asked)
    expect([answer.bodies, answer.complete]).to.deep.equal([['needle204 needle'], false])
    const all = steps()
    const older: (string | undefined)[] = []
    for (let page = answer; !page.complete; ) {
      page = await patiently(juliet, { ...asked, rsm: `<max>3</max><before>${page.first}</before>` })
      older.unshift(...page.bodies)
    }
    expect(older).to.deep.equal(['needle3 needle', 'needle5 needle'])
    expect(steps() - all).to.be.at.most(24)
  })

  it('what it was at is removed meanwhile: it begins again', async () => {
    for (const [rsm, keepLast] of [
      ['<max>3</max>', 30],
      ['<max>3</max><before/>', 0],
    ] as const) {
      const { h, juliet } = await slow()
      await using _ = h
      await say(juliet, 0, 100, [80])
      const asked = { form: { [FULLTEXT]: 'needle' }, rsm }
      if (keepLast === 0) asked.form[FULLTEXT] = 'nowhere'
      expect((await query(juliet, asked)).outcome).to.equal(WAIT)
      await h.service('archive').source('juliet').archive.remove('juliet', { keepLast })
      const answer = await patiently(juliet, asked)
      expect(answer.bodies).to.deep.equal(keepLast === 0 ? [] : ['needle80 needle'])
    }
  })

  it('several at a time each go on where they were, and one that is over takes no other with it', async () => {
    const { h, juliet, steps } = await slow()
    await using _ = h
    await say(juliet, 0, 200, [])
    const absent = ['one', 'two', 'three'].map((word) => ({ form: { [FULLTEXT]: word } }))
    let left = absent
    for (let round = 0; left.length > 0; round++) {
      expect(round).to.be.lessThan(10)
      const waits: typeof absent = []
      for (const asked of left) if ((await query(juliet, asked)).outcome === WAIT) waits.push(asked)
      expect((await query(juliet, { form: { [FULLTEXT]: 'hay3' } })).bodies).to.deep.equal(['hay3'])
      left = waits
    }
    expect(steps()).to.be.lessThan(120)
  })

  it('the entry that a step came to is removed before the next step: the search goes on', async () => {
    for (const [rsm, body] of [
      ['<max>3</max>', 'needle45 needle'],
      ['<max>3</max><before/>', 'needle45 needle'],
    ] as const) {
      let steps = 0
      let remove = async (): Promise<unknown> => undefined
      const { store } = await reading(async (read, q) => {
        if (q.text === undefined) return await read(q)
        if (++steps === 3) await remove()
        return await read({ ...q, effort: 10 })
      })
      await using h = await archiveHost({}, { store })
      const juliet = await h.client('juliet@example.org/balcony')
      await say(juliet, 0, 90, [45])
      const { archive } = h.service('archive').source('juliet')
      remove = async () => {
        const { entries } = await archive.page('juliet', { from: 'first', limit: 90 })
        // what two steps came to, from either end
        const ids = [19, 70].flatMap((place) => entries[place]?.id ?? [])
        expect(await archive.remove('juliet', { ids })).to.equal(2)
      }
      const answer = await query(juliet, { form: { [FULLTEXT]: 'needle' }, rsm })
      expect([answer.outcome, answer.bodies]).to.deep.equal(['result', [body]])
      expect(steps).to.be.greaterThan(3)
    }
  })

  it('a page that has found something in its time is what it is, and the client goes on behind it', async () => {
    const { h, juliet } = await slow()
    await using _ = h
    await say(juliet, 0, 200, [2, 150])
    const form = { [FULLTEXT]: 'needle' }
    const first = await query(juliet, { form })
    expect([first.bodies, first.complete, first.count]).to.deep.equal([['needle2 needle'], false, undefined])
    const next = await patiently(juliet, { form, rsm: `<after>${first.last}</after>` })
    expect([next.bodies, next.complete]).to.deep.equal([['needle150 needle'], false])
    const end = await patiently(juliet, { form, rsm: `<after>${next.last}</after>` })
    expect([end.bodies, end.complete]).to.deep.equal([[], true])
  })

  it('a full address that nobody has written from is the same', async () => {
    const { h, juliet, steps } = await slow()
    await using _ = h
    await say(juliet, 0, 200, [])
    const answer = await patiently(juliet, { form: { with: 'romeo@example.org/tomb' } })
    expect([answer.bodies, answer.complete]).to.deep.equal([[], true])
    expect(steps()).to.be.at.most(24)
  })

  it('the number of matches is not told when it is too much to look at', async () => {
    const { h, juliet, steps } = await slow()
    await using _ = h
    await say(juliet, 0, 30, [2, 25])
    const form = { [FULLTEXT]: 'needle' }
    expect((await query(juliet, { form, rsm: '<max>0</max>' })).count).to.equal(undefined)
    expect(steps()).to.equal(1)
  })

  it('large messages are not read whole for their addresses, and few of them at once to be counted or found', async () => {
    const limits: number[] = []
    const { store } = await reading((read, q) => {
      limits.push(q.limit)
      return read(q)
    })
    await using h = await archiveHost({}, { store })
    const juliet = await h.client('juliet@example.org/balcony')
    const { archive, ids } = h.service('archive').source('juliet')
    const at = new Date(h.clock.now())
    const names: string[] = []
    for (let i = 0; i < 1100; i++) {
      const xml = `<message xmlns='jabber:client' from='romeo@example.net/${i % 500}'><body>so far`
      const { id } = await archive.append('juliet', { at, with: 'romeo@example.net', doc: { xml } })
      names.push(ids.encode('juliet', id))
    }
    const [near = '', far = ''] = [names[9], names[199]]
    const count = async (form: Record<string, string>) =>
      (await query(juliet, { form, rsm: '<max>0</max>' })).count
    expect(await count({ with: 'romeo@example.net/none', 'after-id': far })).to.equal('0')
    expect(await count({ with: 'romeo@example.net/50', 'after-id': far })).to.equal('2')
    expect(await count({ 'after-id': far })).to.equal('900')
    expect(await count({ 'after-id': near })).to.equal(undefined)
    const some = { form: { ids: names.slice(0, 1000) }, rsm: '<max>0</max>' }
    expect((await query(juliet, some)).count).to.equal('1000')
    expect(Math.max(...limits)).to.be.at.most(100)
  })

  it('what few messages of a long archive may match is not counted for ever', async () => {
    let asked = 0
    const { store } = await reading(async (read, q) => {
      if (q.effort === undefined) return await read(q)
      asked++
      passed += 1000
      return await read({ ...q, effort: 2 })
    })
    await using h = await archiveHost({}, { store })
    const juliet = await h.client('juliet@example.org/balcony')
    await say(juliet, 0, 50, [])
    const [first = ''] = (await query(juliet, { rsm: '<max>1</max>' })).ids
    asked = 0
    const form = { 'after-id': first, with: 'nurse@example.org' }
    expect((await query(juliet, { form, rsm: '<max>0</max>' })).count).to.equal(undefined)
    expect(asked).to.be.lessThan(10)
  })

  it('one that the store was given up for keeps its place until the store is done with it', async () => {
    let [running, most] = [0, 0]
    const waiting: (() => void)[] = []
    const { store } = await reading(async (read, q) => {
      if (q.text === undefined) return await read(q)
      most = Math.max(most, ++running)
      await new Promise<void>((resolve) => waiting.push(resolve))
      running--
      return await read(q)
    })
    await using h = await archiveHost({}, { store: withTimeLimit(store, 20), ...quiet })
    const romeo = await h.client('romeo@example.org/orchard')
    await fromRemote(
      h,
      chat('romeo@example.org', 'one').replace('<message', "<message from='a@example.net/b'"),
    )
    const answers = async (id: string) => {
      const got = await romeo.send(queryXml({ form: { [FULLTEXT]: 'one' } }, id))
      return got.filter((e) => e.attr('id') === id)
    }
    const late = async (id: string) => {
      for (const until = now() + 10_000; now() < until; await h.settle()) {
        const [answer] = romeo.take().filter((e) => e.attr('id') === id)
        if (answer !== undefined) return outcome(answer)
      }
      return 'none'
    }
    expect(await answers('s1')).to.deep.equal([])
    expect(await late('s1')).to.match(/internal-server-error/)
    expect(await answers('s2')).to.deep.equal([])
    expect([most, waiting.length]).to.deep.equal([1, 1])
    waiting.shift()?.()
    await h.settle()
    expect([most, waiting.length]).to.deep.equal([1, 1])
    waiting.shift()?.()
    expect(await late('s2')).to.match(/^result/)
    expect(most).to.equal(1)
  })
})

describe('module mam: what has to be looked at one by one', () => {
  const now = performance.now.bind(performance)
  afterEach(() => {
    performance.now = now
  })

  for (const [what, rsm] of [
    ['search', ''],
    ['count', '<max>0</max>'],
  ] as const)
    it(`leaves others their turns, whatever the store leaves them: ${what} for a full address`, async () => {
      await using h = await archiveHost()
      const juliet = await h.client('juliet@example.org/balcony')
      for (let i = 0; i < 150; i++) await juliet.send(chat('romeo@example.org/orchard', `hay${i}`))
      juliet.take()
      let looks = 0
      performance.now = () => now() + looks++
      juliet.transport.feed(queryXml({ form: { with: 'romeo@example.org/nowhere' }, rsm }, 'q'))
      let turns = 0
      for (let answers = 0; answers === 0; answers = juliet.take().length) {
        await nextTurn()
        expect(++turns).to.be.lessThan(1000)
      }
      expect(turns).to.be.greaterThan(15)
    })

  it('is read in small steps: many ids, and what the store cannot count', async () => {
    let most = 0
    const { store } = await reading((read, q) => {
      most = Math.max(most, q.limit)
      return read(q)
    })
    await using h = await archiveHost({}, { store })
    const juliet = await h.client('juliet@example.org/balcony')
    for (let i = 0; i < 250; i++) await juliet.send(chat('romeo@example.org/orchard', `hay${i}`))
    const ids: string[] = []
    for await (const { id } of h.service('archive').messages('juliet')) ids.push(id)
    most = 0
    const one = '<max>1</max>'
    expect((await query(juliet, { form: { ids }, rsm: one })).ids).to.deep.equal([ids[0]])
    const [after = ''] = ids
    for (const form of [{ with: 'romeo@example.org/orchard' }, { [FULLTEXT]: 'hay7' }, { 'after-id': after }])
      expect(Number((await query(juliet, { form, rsm: '<max>0</max>' })).count)).to.be.greaterThan(0)
    expect((await query(juliet, { form: { 'after-id': after }, rsm: '<max>0</max>' })).count).to.equal('249')
    await h.service('archive').source('juliet').archive.remove('juliet', { keepLast: 249 })
    expect((await query(juliet, { form: { ids } })).outcome).to.equal('cancel item-not-found')
    expect(most).to.equal(100)
  })
})
