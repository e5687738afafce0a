/**
 * XEP-0430 §4 as a property: whatever is sent, received, marked, corrected, taken back and removed, whenever somebody asks and the module is restarted,
 * the inbox is what a naive reading of all that ever was in the archive says.
 */
import { expect } from 'chai'
import * as fc from 'fast-check'
import inboxModule from '../../modules/inbox/index.ts'
import { type Ctx, defineModule, type Entry } from '../../server/module.ts'
import type { Element } from '../../server/xmpp/element.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { chat } from '../helpers/archive.ts'
import type { TestClient, TestHost } from '../helpers/host.ts'
import { displayed, inbox, inboxHost, retraction } from '../helpers/inbox.ts'

const J = 'juliet@example.org'
const PEERS = ['romeo', 'nurse', 'tybalt'] as const
const MARKERS = 'urn:xmpp:chat-markers:0'
const CORRECT = 'urn:xmpp:message-correct:0'
const RETRACT = 'urn:xmpp:message-retract:1'
const NO_STORE = "<no-store xmlns='urn:xmpp:hints'/>"

type Stored = Entry<{ readonly xml: string }>

/** What happens: `who` is a peer, `which` chooses among its messages so far. */
interface Step {
  readonly what:
    | 'receive'
    | 'send'
    | 'receive correction'
    | 'send correction'
    | 'mark'
    | 'mark without archive'
    | 'mark unknown'
    | 'peer marks'
    | 'peer retracts'
    | 'retract'
    | 'react'
    | 'remove oldest'
    | 'remove some'
    | 'ask'
    | 'write'
    | 'restart'
  readonly who: number
  readonly which: number
}

const step: fc.Arbitrary<Step> = fc.record({
  what: fc.oneof(
    { weight: 8, arbitrary: fc.constantFrom('receive' as const) },
    { weight: 3, arbitrary: fc.constantFrom('mark' as const, 'ask' as const) },
    {
      weight: 8,
      arbitrary: fc.constantFrom(
        'send' as const,
        'receive correction' as const,
        'send correction' as const,
        'mark without archive' as const,
        'mark unknown' as const,
        'peer marks' as const,
        'peer retracts' as const,
        'retract' as const,
        'react' as const,
        'remove oldest' as const,
        'remove some' as const,
        'write' as const,
        'restart' as const,
      ),
    },
  ),
  who: fc.nat({ max: PEERS.length - 1 }),
  which: fc.nat({ max: 1000 }),
})

/** Tells that entries were removed, as module mam does. */
let told: Ctx | undefined
const remover = defineModule({
  name: 'remover',
  summary: 'removes entries of archives',
  specs: [],
  setup: (ctx) => void (told = ctx),
})

/** All that ever was in juliet's archive, and what she said that is not there. */
class History {
  readonly #host: TestHost
  readonly entries = new Map<string, { readonly peer: string; readonly stanza: Element }>()
  readonly existing = new Map<string, Element>()
  readonly marks: { readonly peer: string; readonly id: string; readonly after: string }[] = []

  constructor(host: TestHost) {
    this.#host = host
  }
  get archive() {
    return this.#host.store.open('example.org', 'mam').archive<Stored['doc']>('messages')
  }
  async look(): Promise<void> {
    const { entries } = await this.archive.page('juliet', { from: 'first', limit: 1000 })
    this.existing.clear()
    for (const { id, with: peer, doc } of entries) {
      const stanza = parseXml(doc.xml)
      this.existing.set(id, stanza)
      if (!this.entries.has(id)) this.entries.set(id, { peer, stanza })
    }
  }
  /** Ids of messages between her and a peer that are there; nobody can tell where one was that is gone. */
  idsOf(peer: string, own: boolean): readonly string[] {
    return [...this.entries].flatMap(([id, { peer: p, stanza }]) =>
      this.existing.has(id) && p.startsWith(peer) && isOwn(stanza) === own && isMessage(stanza)
        ? [stanza.attr('id') ?? '']
        : [],
    )
  }

  /** The inbox by the letter: 'romeo 2 hello', newest first. */
  expected(): readonly string[] {
    const all = [...this.entries].map(([id, e]) => ({ id, ...e })).sort((a, b) => (a.id < b.id ? -1 : 1))
    const rows: { readonly at: string; readonly line: string }[] = []
    for (const peer of new Set(all.map((e) => e.peer))) {
      const mine = all.filter((e) => e.peer === peer)
      const target = (id: string | undefined, before: string) =>
        mine.findLast(
          (e) => id !== undefined && !isOwn(e.stanza) && e.stanza.attr('id') === id && e.id < before,
        )?.id ?? ''
      let read = ''
      for (const { id, stanza } of mine) {
        if (!isOwn(stanza)) continue
        const marked = target(stanza.getChild('displayed', MARKERS)?.attr('id'), id)
        const wrote = isMessage(stanza) || stanza.getChild('replace', CORRECT) !== undefined ? id : ''
        read = [read, marked, wrote].sort().at(-1) ?? ''
      }
      for (const mark of this.marks)
        if (mark.peer === peer) read = [read, target(mark.id, `${mark.after}~`)].sort().at(-1) ?? ''
      const stands = ({ id, stanza }: { readonly id: string; readonly stanza: Element }): boolean =>
        this.existing.has(id) &&
        !mine.some(
          (e) =>
            e.id > id &&
            isOwn(e.stanza) === isOwn(stanza) &&
            e.stanza.getChild('retract', RETRACT)?.attr('id') === stanza.attr('id'),
        )
      const messages = mine.filter((e) => isMessage(e.stanza) && stands(e))
      const last = messages.at(-1)
      if (last === undefined) continue
      const correction = mine.findLast(
        (e) =>
          e.id > last.id &&
          stands(e) &&
          isOwn(e.stanza) === isOwn(last.stanza) &&
          e.stanza.getChild('replace', CORRECT)?.attr('id') === last.stanza.attr('id'),
      )
      const unread = messages.filter((e) => !isOwn(e.stanza) && e.id > read).length
      rows.push({
        at: last.id,
        line: `${peer.split('@')[0]} ${unread} ${(correction ?? last).stanza.getChildText('body')}`,
      })
    }
    return rows.sort((a, b) => (a.at < b.at ? 1 : -1)).map(({ line }) => line)
  }
}

const isOwn = (stanza: Element): boolean => stanza.attr('from')?.startsWith(J) === true
const isMessage = (stanza: Element): boolean =>
  stanza.getChild('body') !== undefined &&
  stanza.getChild('reactions', 'urn:xmpp:reactions:0') === undefined &&
  stanza.getChild('replace', CORRECT) === undefined &&
  stanza.getChild('retract', RETRACT) === undefined

async function play(steps: readonly Step[]): Promise<void> {
  await using h = await inboxHost()
  await h.load(remover)
  const juliet = await h.client(`${J}/balcony`)
  const peers = await Promise.all(PEERS.map((name) => h.client(`${name}@example.org/x`)))
  const history = new History(h)
  let count = 0
  const check = async (): Promise<void> => {
    await history.look()
    const answer = await inbox(juliet)
    const expected = history.expected()
    expect(answer.lines).to.deep.equal(expected)
    const without = await inbox(juliet, "messages='false'")
    expect(without.lines.map((line) => line.slice(0, -2))).to.deep.equal(
      expected.map((line) => line.split(' ').slice(0, 2).join(' ')),
    )
    const numbers = expected.map((line) => Number(line.split(' ')[1]))
    const unread = numbers.filter((n) => n > 0)
    expect(answer.totals).to.deep.equal([numbers.length, unread.length, unread.reduce((a, b) => a + b, 0)])
    expect(await h.service('inbox').unread('juliet')).to.deep.equal({
      conversations: unread.length,
      messages: unread.reduce((a, b) => a + b, 0),
    })
  }
  for (const one of steps) await act(one)
  await check()

  async function act({ what, who, which }: Step): Promise<void> {
    const peer = PEERS[who] ?? 'romeo'
    const to = `${peer}@example.org`
    const client: TestClient = peers[who] ?? juliet
    const pick = (own: boolean): string => {
      const ids = history.idsOf(peer, own)
      return ids[which % ids.length] ?? 'unknown'
    }
    const id = `m${++count}`
    const replace = (own: boolean) => `<replace xmlns='${CORRECT}' id='${pick(own)}'/>`
    switch (what) {
      case 'receive':
        await client.send(chat(J, id))
        break
      case 'send':
        await juliet.send(chat(to, id))
        break
      case 'receive correction':
        await client.send(chat(J, id, replace(false)))
        break
      case 'send correction':
        await juliet.send(chat(to, id, replace(true)))
        break
      case 'mark':
        await juliet.send(displayed(to, pick(false)))
        break
      case 'mark without archive': {
        await history.look()
        const mark = pick(false)
        history.marks.push({ peer: to, id: mark, after: [...history.entries.keys()].sort().at(-1) ?? '' })
        await juliet.send(displayed(to, mark, NO_STORE))
        break
      }
      case 'mark unknown':
        await juliet.send(displayed(to, pick(true)))
        break
      case 'peer marks':
        await client.send(displayed(J, pick(true)))
        break
      case 'peer retracts':
        await client.send(retraction(J, pick(false), id))
        break
      case 'retract':
        await juliet.send(retraction(to, pick(true), id))
        break
      case 'react':
        await client.send(
          `<message to='${J}' type='chat'><reactions xmlns='urn:xmpp:reactions:0' id='${pick(true)}'><reaction>x</reaction></reactions><body>x</body></message>`,
        )
        break
      case 'remove oldest':
        await history.archive.remove('juliet', { keepLast: which % 20 })
        break
      case 'remove some': {
        // What is removed out of the middle before anybody has seen it tells nothing any more.
        await check()
        const ids = [...history.existing.keys()].filter((_, i) => i % 7 === which % 7)
        await history.archive.remove('juliet', { ids })
        await told?.run('archive:removed', { local: 'juliet' })
        break
      }
      case 'ask':
        await check()
        break
      case 'write':
        await h.clock.advance(11_000)
        break
      case 'restart':
        await h.unload('inbox')
        await h.load(inboxModule)
        break
    }
    await history.look()
  }
}

describe('module inbox: any sequence of events (XEP-0430 §4)', () => {
  it('the inbox is what all that ever was in the archive says', async function () {
    this.timeout(60_000)
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 60 }), (steps) => play(steps)),
      { numRuns: Number(process.env['RUNS'] ?? 40) },
    )
  })
})
