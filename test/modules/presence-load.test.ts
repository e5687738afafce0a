/** Presence to very many: the order of one session's presence (RFC 6121 §4) and the patience of the others, when lists are long. */
import { expect } from 'chai'
import { type Job, enqueue } from '../../modules/presence/broadcast.ts'
import { openMemory } from '../../server/storage/memory.ts'
import type { Store } from '../../server/storage/contract.ts'
import { el } from '../../server/xmpp/element.ts'
import { NS } from '../../server/xmpp/ns.ts'
import type { TestHost } from '../helpers/host.ts'
import { online, presences, startIm, wholeRoster } from '../helpers/im.ts'
import { settle } from '../helpers/settle.ts'

const CONTACTS = 10_000

/** A store where juliet has many mutual contacts at another domain. */
async function crowded(): Promise<Store> {
  const store = await openMemory()
  const contacts = store.open('example.org', 'roster').docs('contacts')
  for (let i = 0; i < CONTACTS; i++)
    await contacts.put('juliet', `c${i}@example.net`, { v: i + 1, to: true, from: true, listed: true })
  return store
}

/** What is routed to example.net, as 'type[/show] to'; nothing is bounced. */
function watch(host: TestHost): string[] {
  const sent: string[] = []
  const { router } = host
  const route = router.route.bind(router)
  router.route = (stanza, session) => {
    const to = stanza.attr('to') ?? ''
    if (!to.includes('example.net')) return route(stanza, session)
    const show = stanza.getChildText('show')
    sent.push(`${stanza.attr('type') ?? 'available'}${show === undefined ? '' : `/${show}`} ${to}`)
    return undefined
  }
  return sent
}

/** Lets the event loop turn until it is so. */
async function until(done: () => boolean): Promise<void> {
  while (!done()) await settle(1)
}

/** How much had been sent when a message between two others, sent now, arrived. */
async function sentBefore(host: TestHost, sent: readonly string[], act: () => void): Promise<number> {
  const nurse = await online(host, 'nurse@example.org/x')
  const romeo = await online(host, 'romeo@example.org/y')
  act()
  nurse.transport.feed(`<message to='romeo@example.org' type='chat' id='m'><body>x</body></message>`)
  await until(() => romeo.take().some((e) => e.attr('id') === 'm'))
  return sent.length
}

/** What each contact was told, in order. */
function byContact(sent: readonly string[]): Map<string, string[]> {
  const told = new Map<string, string[]>()
  for (const line of sent) {
    const [what = '', to = ''] = line.split(' ')
    if (what !== 'probe') told.set(to, [...(told.get(to) ?? []), what])
  }
  return told
}

describe('presence: many contacts', () => {
  it('a broadcast to 10,000 does not hold up the message of another session', async () => {
    await using host = await startIm({}, await crowded())
    const sent = watch(host)
    const juliet = await host.client('juliet@example.org/balcony')
    await wholeRoster(juliet)
    const toldThen = await sentBefore(host, sent, () => juliet.transport.feed('<presence/>'))
    await until(() => sent.length === 2 * CONTACTS)
    expect(toldThen).to.be.below(2 * CONTACTS) // it came while contacts were still being told
    expect(new Set(sent).size).to.equal(2 * CONTACTS) // one presence and one probe each
  })

  it('RFC 6121 §4.5.2: the end of a session does not overtake the broadcast that is still going out', async () => {
    await using host = await startIm({}, await crowded())
    const sent = watch(host)
    const juliet = await host.client('juliet@example.org/balcony')
    juliet.transport.feed('<presence/>')
    await until(() => sent.length > 0)
    expect(sent.length).to.be.below(2 * CONTACTS)
    await juliet.drop()
    await until(() => sent.filter((line) => line.startsWith('unavailable')).length === CONTACTS)
    const told = byContact(sent)
    expect(told.size).to.equal(CONTACTS)
    for (const [, words] of told) expect(words).to.deep.equal(['available', 'unavailable'])
  })

  it('RFC 6121 §4.4.2: many changes while one goes out: contacts get the last, each of them, and not all between', async () => {
    await using host = await startIm({}, await crowded())
    const sent = watch(host)
    const juliet = await host.client('juliet@example.org/balcony')
    const shows = ['away', 'dnd', 'xa', 'chat', 'away', 'dnd', 'xa', 'chat']
    juliet.transport.feed(['', ...shows].map((s) => `<presence><show>${s}</show></presence>`).join(''))
    await until(() => sent.filter((line) => line.startsWith('available/chat')).length >= CONTACTS)
    await host.settle()
    const told = byContact(sent)
    expect(told.size).to.equal(CONTACTS)
    for (const [, words] of told) {
      expect(words.at(-1)).to.equal('available/chat')
      expect(words.length).to.be.at.most(3)
    }
    expect(presences(juliet.take()).at(-1)?.getChildText('show')).to.equal('chat')
  })

  it('RFC 6120 §10.1: what the client sends after a presence does not arrive before it', async () => {
    await using host = await startIm({}, await crowded())
    const sent = watch(host)
    const contacts = host.store.open('example.org', 'roster').docs('contacts')
    await contacts.put('juliet', 'romeo@example.org', { v: CONTACTS + 1, from: true, listed: true })
    const romeo = await online(host, 'romeo@example.org/y')
    const juliet = await host.client('juliet@example.org/balcony')
    juliet.transport.feed(`<presence/><message to='romeo@example.org/y' id='m'><body>x</body></message>`)
    await until(() => sent.length === 2 * CONTACTS)
    await host.settle()
    expect(romeo.take().map((e) => e.name)).to.deep.equal(['presence', 'message'])
  })

  it('50,000 addressees of directed presence are told of the end, others being served meanwhile', async () => {
    const count = 50_000
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/balcony')
    for (let i = 0; i < count; i += 1000) {
      let xml = ''
      for (let k = i; k < i + 1000; k++) xml += `<presence to='room${k % 100}@example.net/n${k}'/>`
      juliet.transport.feed(xml)
      await host.settle()
      juliet.transport.written.length = 0 // the errors: that domain cannot be reached
    }
    const sent = watch(host)
    const toldThen = await sentBefore(host, sent, () =>
      juliet.transport.feed(`<presence type='unavailable'/>`),
    )
    await until(() => sent.length === count)
    expect(toldThen).to.be.below(count / 2)
    expect(new Set(sent).size).to.equal(count)
  }).timeout(30_000)

  it('RFC 6121 §2.1.4: a roster of 10,000 is answered in one piece', async () => {
    await using host = await startIm({}, await crowded())
    const juliet = await host.client('juliet@example.org/balcony')
    expect((await wholeRoster(juliet)).elements).to.have.length(CONTACTS)
  })
})

describe('presence: broadcasts that wait', () => {
  const available = (id: string, initial = false): Job => ({
    kind: 'available',
    session: {} as Job['session'],
    stanza: el('presence', NS.CLIENT, { id }),
    initial,
  })
  const unavailable = (id: string, toContacts: boolean, directed: readonly string[] = []): Job => ({
    kind: 'unavailable',
    session: {} as Job['session'],
    stanza: el('presence', NS.CLIENT, { id }),
    toContacts,
    directed,
  })
  const queue = (...jobs: Job[]): (readonly [string, unknown])[] => {
    const waiting: Job[] = []
    for (const job of jobs) enqueue(waiting, job)
    return waiting.map((job) => [
      job.stanza.attr('id') ?? '',
      job.kind === 'available' ? job.initial : [job.toContacts, ...job.directed],
    ])
  }

  it('RFC 6121 §4.4.2: the newest of several available presences is told, and is initial when one of them was', () => {
    expect(queue(available('1', true), available('2'), available('3'))).to.deep.equal([['3', true]])
  })

  it('RFC 6121 §4.5.2: an unavailable one is never skipped before an available one', () => {
    const jobs = [available('1'), unavailable('2', true, ['x']), available('3', true), available('4')]
    expect(queue(...jobs)).to.deep.equal([
      ['2', [true, 'x']],
      ['4', true],
    ])
  })

  it('RFC 6121 §4.6.3: two unavailable ones become one that reaches all addressees of both', () => {
    const jobs = [unavailable('1', false, ['x']), available('2', true), unavailable('3', true, ['y'])]
    expect(queue(...jobs)).to.deep.equal([['3', [true, 'x', 'y']]])
  })
})
