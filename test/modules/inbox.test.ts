/** XEP-0430: what is announced, the request and its answer, pages, refusals, unload. */
import { expect } from 'chai'
import inboxModule from '../../modules/inbox/index.ts'
import { chat, controlledStore, NS_MAM, origin, query } from '../helpers/archive.ts'
import type { TestClient, TestHost } from '../helpers/host.ts'
import { displayed, inbox, inboxHost, NS_INBOX, readAnswer } from '../helpers/inbox.ts'
import { ask, features, outcome } from '../helpers/iq.ts'
import { bodies, online, quiet } from '../helpers/resent.ts'

const R = 'romeo@example.org'
const J = 'juliet@example.org'

/** juliet with conversations c0, c1, … with peers elsewhere, the last one the newest; all sent by her, so nothing is unread. */
async function talkative(h: TestHost, count: number): Promise<TestClient> {
  const juliet = await h.client(`${J}/balcony`)
  for (let i = 0; i < count; i++) await juliet.send(chat(`c${i}@example.net`, `m${i}`))
  juliet.take()
  return juliet
}
const names = (from: number, to: number): string[] =>
  Array.from({ length: Math.abs(to - from) }, (_, i) => `c${from > to ? from - i : from + i}`)

describe('module inbox: what is announced', () => {
  it('§2.1: the account has the feature', async () => {
    await using h = await inboxHost()
    const juliet = await h.client(`${J}/balcony`)
    expect(await features(juliet, J)).to.include(NS_INBOX)
    expect(await features(juliet, 'example.org')).not.to.include(NS_INBOX)
  })

  it('is gone after unload, and back with all it knew after load', async () => {
    await using h = await inboxHost()
    const [juliet, romeo] = [await h.client(`${J}/balcony`), await h.client(`${R}/orchard`)]
    await romeo.send(chat(J, 'one'))
    expect((await inbox(juliet)).lines).to.deep.equal(['romeo 1 one'])
    await h.unload('inbox')
    expect((await inbox(juliet)).outcome).to.equal('cancel service-unavailable')
    expect(await features(juliet, J)).not.to.include(NS_INBOX)
    await romeo.send(chat(J, 'two'))
    await h.load(inboxModule)
    expect((await inbox(juliet)).lines).to.deep.equal(['romeo 2 two'])
  })
})

describe('module inbox: the answer (XEP-0430 §3.1)', () => {
  it('nobody has talked: no conversations, all numbers are zero', async () => {
    await using h = await inboxHost()
    const answer = await inbox(await h.client(`${J}/balcony`))
    expect([answer.lines, answer.totals, answer.count]).to.deep.equal([[], [0, 0, 0], '0'])
  })

  it('a message for each conversation in front of the answer: entry, and last message as XEP-0313 has it', async () => {
    await using h = await inboxHost()
    const [juliet, romeo] = [await h.client(`${J}/balcony`), await h.client(`${R}/orchard`)]
    await romeo.send(chat(J, 'one', "<x xmlns='urn:x'><y/></x>"))
    const answer = await inbox(juliet, '', undefined, 'iq_stanza_id')
    const archive = await query(juliet)
    expect(answer.entries).to.have.length(1)
    const [entry] = answer.entries
    expect([entry?.jid, entry?.unread, entry?.id]).to.deep.equal([R, 1, archive.ids[0]])
    expect([entry?.outer.attr('from'), entry?.outer.attr('to')]).to.deep.equal([J, `${J}/balcony`])
    expect(entry?.outer.elements.map((e) => e.name)).to.deep.equal(['entry', 'result'])
    // example 2: the id of the request is the id of the query
    expect(entry?.result?.attr('queryid')).to.equal('iq_stanza_id')
    expect(entry?.result?.attr('id')).to.equal(archive.ids[0])
    const inArchive = archive.results[0]?.outer.getChild('result', NS_MAM)
    expect(entry?.result?.withAttrs({ queryid: undefined }).toString()).to.equal(inArchive?.toString())
    expect(answer.totals).to.deep.equal([1, 1, 1])
  })

  it("§2.2: conversations are in the order of their last message, the newest first; the account's own bare address may be asked", async () => {
    await using h = await inboxHost()
    const juliet = await talkative(h, 3)
    const jids = async () => (await inbox(juliet)).entries.map(({ jid }) => jid.split('@')[0])
    expect(await jids()).to.deep.equal(['c2', 'c1', 'c0'])
    await juliet.send(chat('c0@example.net/x', 'again'))
    expect(await jids()).to.deep.equal(['c0', 'c2', 'c1'])
    const received = await juliet.send(`<iq type='get' id='own' to='${J}'><inbox xmlns='${NS_INBOX}'/></iq>`)
    expect(readAnswer(received, 'own').lines).to.deep.equal(['c0 0 again', 'c2 0 m2', 'c1 0 m1'])
  })

  it('all resources of a contact are one conversation; notes to oneself are one, and read', async () => {
    await using h = await inboxHost()
    const [juliet, one, two] = [
      await h.client(`${J}/balcony`),
      await h.client(`${R}/orchard`),
      await h.client(`${R}/garden`),
    ]
    await one.send(chat(J, 'one'))
    await two.send(chat(`${J}/balcony`, 'two'))
    await juliet.send(chat(J, 'note'))
    expect((await inbox(juliet)).lines).to.deep.equal(['juliet 0 note', 'romeo 2 two'])
  })

  it('unread-only: only those with unread messages; messages=false: without the messages; the totals are the same', async () => {
    await using h = await inboxHost()
    const [juliet, romeo, nurse] = [
      await h.client(`${J}/balcony`),
      await h.client(`${R}/orchard`),
      await h.client('nurse@example.org/kitchen'),
    ]
    await romeo.send(chat(J, 'one'))
    await nurse.send(chat(J, 'two'))
    await nurse.send(chat(J, 'three'))
    await juliet.send(chat(R, 'four'))
    for (const [attrs, lines, count] of [
      ['', ['romeo 0 four', 'nurse 2 three'], '2'],
      ["unread-only='false' messages='true'", ['romeo 0 four', 'nurse 2 three'], '2'],
      ["unread-only='0' messages='1'", ['romeo 0 four', 'nurse 2 three'], '2'],
      ["unread-only='true'", ['nurse 2 three'], '1'],
      ["messages='false'", ['romeo 0 -', 'nurse 2 -'], '2'],
      ["unread-only='1' messages='0'", ['nurse 2 -'], '1'],
    ] as const) {
      const answer = await inbox(juliet, attrs)
      expect([answer.lines, answer.totals, answer.count], attrs).to.deep.equal([lines, [2, 1, 2], count])
      expect(answer.entries.every(({ id }) => id.length > 0)).to.equal(true)
    }
  })

  it('the id is that of the last entry of the archive of whatever kind, so that a client pages on after it', async () => {
    await using h = await inboxHost()
    const [juliet, romeo] = [await h.client(`${J}/balcony`), await h.client(`${R}/orchard`)]
    await romeo.send(chat(J, 'one'))
    await juliet.send(displayed(R, 'one'))
    const [entry] = (await inbox(juliet)).entries
    const { ids } = await query(juliet)
    expect([entry?.id, entry?.result?.attr('id')]).to.deep.equal([ids[1], ids[0]])
    await romeo.send(chat(J, 'two'))
    expect((await query(juliet, { form: { with: R, 'after-id': entry?.id ?? '' } })).bodies).to.deep.equal([
      'two',
    ])
  })

  it('what was sent before the request is in the answer, in one write of the client', async () => {
    await using h = await inboxHost()
    const juliet = await h.client(`${J}/balcony`)
    const received = await juliet.send(
      `${chat(R, 'one')}<iq type='get' id='i1'><inbox xmlns='${NS_INBOX}'/></iq>${chat(R, 'two')}<iq type='get' id='i2'><inbox xmlns='${NS_INBOX}'/></iq>`,
    )
    const at = received.findIndex((e) => e.attr('id') === 'i1')
    expect(readAnswer(received.slice(0, at + 1), 'i1').lines).to.deep.equal(['romeo 0 one'])
    expect(readAnswer(received.slice(at + 1), 'i2').lines).to.deep.equal(['romeo 0 two'])
  })

  it('requests of several devices at once get the same answer', async () => {
    await using h = await inboxHost()
    const romeo = await h.client(`${R}/orchard`)
    const devices = await Promise.all(['a', 'b', 'c', 'd'].map((r) => h.client(`${J}/${r}`)))
    for (let i = 0; i < 30; i++) await romeo.send(chat(J, `m${i}`))
    const answers = await Promise.all(devices.map((device) => inbox(device)))
    for (const { lines, totals } of answers)
      expect([lines, totals]).to.deep.equal([['romeo 30 m29'], [1, 1, 30]])
  })
})

describe('module inbox: what is in doubt', () => {
  it('a message whose sender was told that it failed is not shown, nor counted', async () => {
    const { store, unsure } = await controlledStore()
    await using h = await inboxHost({}, { store, ...quiet })
    const [juliet, romeo] = await online(h, 'juliet@example.org/balcony', 'romeo@example.org/orchard')
    await juliet!.send(chat('romeo@example.org', 'before'))
    unsure.add('romeo')
    const note = chat('romeo@example.org', 'one', origin('o1'))
    expect((await juliet!.send(note)).map((e) => e.attr('type'))).to.deep.equal(['error'])
    unsure.clear()
    expect(await h.service('inbox').unread('romeo')).to.deep.equal({ conversations: 1, messages: 1 })
    expect((await inbox(romeo!)).lines).to.deep.equal(['juliet 1 before'])
    romeo!.take()
    await juliet!.send(note)
    expect(bodies(romeo!)).to.deep.equal(['one'])
    expect((await inbox(romeo!)).lines).to.deep.equal(['juliet 2 one'])
  })
})

describe('module inbox: pages (XEP-0059)', () => {
  const page = async (client: TestClient, rsm: string, attrs = "messages='false'") => {
    const answer = await inbox(client, attrs, rsm)
    return { ...answer, jids: answer.entries.map(({ jid }) => jid.split('@')[0]) }
  }

  it('§2.2: forwards, from the newest to the oldest, each once; the index of the first, the number of all', async () => {
    await using h = await inboxHost()
    const juliet = await talkative(h, 10)
    const one = await page(juliet, '<max>4</max>')
    expect([one.jids, one.index, one.count]).to.deep.equal([names(9, 5), '0', '10'])
    const two = await page(juliet, `<max>4</max><after>${one.last}</after>`)
    expect([two.jids, two.index, two.count]).to.deep.equal([names(5, 1), '4', '10'])
    const three = await page(juliet, `<max>4</max><after>${two.last}</after>`)
    expect([three.jids, three.index]).to.deep.equal([['c1', 'c0'], '8'])
    const end = await page(juliet, `<max>4</max><after>${three.last}</after>`)
    expect([end.jids, end.first, end.last, end.count]).to.deep.equal([[], undefined, undefined, '10'])
  })

  it('§2.3, §2.5: backwards, and the last page', async () => {
    await using h = await inboxHost()
    const juliet = await talkative(h, 10)
    const last = await page(juliet, '<max>3</max><before/>')
    expect([last.jids, last.index]).to.deep.equal([['c2', 'c1', 'c0'], '7'])
    const before = await page(juliet, `<max>3</max><before>${last.first}</before>`)
    expect([before.jids, before.index]).to.deep.equal([['c5', 'c4', 'c3'], '4'])
  })

  it('§2.4: an unknown name is item-not-found; an id of another account is unknown', async () => {
    await using h = await inboxHost()
    const juliet = await talkative(h, 2)
    const romeo = await h.client(`${R}/orchard`)
    await romeo.send(chat('x@example.net', 'x'))
    const foreign = (await inbox(romeo)).first
    for (const name of ['nonsense', 'c1@example.net', foreign])
      for (const element of ['after', 'before'])
        expect((await page(juliet, `<${element}>${name}</${element}>`)).outcome).to.equal(
          'cancel item-not-found',
        )
  })

  it('§2.6: by index; beyond the end an empty page', async () => {
    await using h = await inboxHost()
    const juliet = await talkative(h, 5)
    const middle = await page(juliet, '<max>2</max><index>2</index>')
    expect([middle.jids, middle.index]).to.deep.equal([['c2', 'c1'], '2'])
    expect((await page(juliet, '<max>2</max><index>5</index>')).jids).to.deep.equal([])
  })

  it('§2.7: the count alone', async () => {
    await using h = await inboxHost()
    const juliet = await talkative(h, 5)
    const answer = await page(juliet, '<max>0</max>')
    expect([answer.jids, answer.count, answer.first, answer.totals]).to.deep.equal([
      [],
      '5',
      undefined,
      [5, 0, 0],
    ])
  })

  it('a page goes on in its place when conversations have moved to the front meanwhile', async () => {
    await using h = await inboxHost()
    const juliet = await talkative(h, 6)
    const one = await page(juliet, '<max>3</max>')
    // c3 is the one that names the end of the page
    for (const name of ['c3', 'c0']) await juliet.send(chat(`${name}@example.net`, 'more'))
    expect((await page(juliet, `<max>3</max><after>${one.last}</after>`)).jids).to.deep.equal(['c2', 'c1'])
    expect((await page(juliet, `<max>9</max><before>${one.last}</before>`)).jids).to.deep.equal([
      'c0',
      'c3',
      'c5',
      'c4',
    ])
  })

  it('the server ends a page by number (§3.1), and by size, on the side that is farther away', async () => {
    await using h = await inboxHost({ maxPage: 3 })
    const juliet = await talkative(h, 5)
    expect((await inbox(juliet)).entries.length).to.equal(3)
    expect((await page(juliet, '<max>100</max>')).jids).to.deep.equal(['c4', 'c3', 'c2'])
    const long = 'x'.repeat(200_000)
    for (let i = 0; i < 5; i++)
      await juliet.send(chat(`c${i}@example.net`, `m${i}`, `<x xmlns='urn:x'>${long}</x>`))
    const one = await page(juliet, '<max>3</max>', '')
    expect([one.jids, one.index, one.count]).to.deep.equal([['c4', 'c3'], '0', '5'])
    const two = await page(juliet, `<max>3</max><after>${one.last}</after>`, '')
    expect([two.jids, two.index]).to.deep.equal([['c2', 'c1'], '2'])
    const last = await page(juliet, '<max>3</max><before/>', '')
    expect([last.jids, last.index]).to.deep.equal([['c1', 'c0'], '3'])
  })

  it('pages of unread conversations alone', async () => {
    await using h = await inboxHost()
    const [juliet, romeo, nurse] = [
      await h.client(`${J}/balcony`),
      await h.client(`${R}/orchard`),
      await h.client('nurse@example.org/kitchen'),
    ]
    await romeo.send(chat(J, 'one'))
    await juliet.send(chat('x@example.net', 'two'))
    await nurse.send(chat(J, 'three'))
    const one = await page(juliet, '<max>1</max>', "unread-only='true'")
    expect([one.jids, one.count, one.totals]).to.deep.equal([['nurse'], '2', [3, 2, 2]])
    const two = await page(juliet, `<max>1</max><after>${one.last}</after>`, "unread-only='true'")
    expect([two.jids, two.index]).to.deep.equal([['romeo'], '1'])
  })
})

describe('module inbox: refusals', () => {
  it('the inbox of another account is forbidden; the server has none; set is no request', async () => {
    await using h = await inboxHost()
    const juliet = await h.client(`${J}/balcony`)
    const request = `<inbox xmlns='${NS_INBOX}'/>`
    expect(outcome(await ask(juliet, 'get', R, request))).to.equal('auth forbidden')
    expect(outcome(await ask(juliet, 'get', 'nobody@example.org', request))).not.to.equal('result')
    expect(outcome(await ask(juliet, 'get', 'example.org', request))).to.equal('cancel service-unavailable')
    expect(outcome(await ask(juliet, 'set', undefined, request))).to.equal('cancel service-unavailable')
  })

  it('what is not true or false, pages that are none, long ids', async () => {
    await using h = await inboxHost()
    const juliet = await h.client(`${J}/balcony`)
    for (const attrs of ["unread-only='yes'", "messages=''"])
      expect((await inbox(juliet, attrs)).outcome).to.equal('modify bad-request')
    for (const rsm of ['<max>many</max>', '<after>a</after><before/>', '<index>-1</index>'])
      expect((await inbox(juliet, '', rsm)).outcome).to.equal('modify bad-request')
    expect((await inbox(juliet, '', undefined, 'x'.repeat(1025))).outcome).to.equal('modify bad-request')
    expect((await inbox(juliet, '', undefined, 'x'.repeat(1024))).outcome).to.equal('result')
  })

  it('a result is for the session that asked: no copies, nothing is archived, nobody else is told', async () => {
    await using h = await inboxHost()
    const [balcony, garden, romeo] = [
      await h.client(`${J}/balcony`),
      await h.client(`${J}/garden`),
      await h.client(`${R}/orchard`),
    ]
    await ask(garden, 'set', undefined, "<enable xmlns='urn:xmpp:carbons:2'/>")
    await garden.send('<presence/>')
    await romeo.send(chat(J, 'one'))
    garden.take()
    expect((await inbox(balcony)).entries).to.have.length(1)
    expect(garden.take().filter((e) => e.name === 'message')).to.deep.equal([])
    expect((await query(balcony)).bodies).to.deep.equal(['one'])
    // gone before it was written to
    balcony.transport.feed(`<iq type='get' id='gone'><inbox xmlns='${NS_INBOX}'/></iq>`)
    await balcony.drop()
    expect(garden.take().filter((e) => e.getChild('entry', NS_INBOX))).to.deep.equal([])
  })
})
