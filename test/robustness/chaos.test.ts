/** What test/chaos does for as long as one likes, for a minute with each store. */
import { expect } from 'chai'
import {
  type Archived,
  type Arrival,
  type DeviceLog,
  examine,
  type Faults,
  Ledger,
  type Message,
} from '../chaos/ledger.ts'
import { type Disturbed, disturbedLmdb, disturbedMongo } from '../chaos/faults.ts'
import { chaos } from '../chaos/run.ts'
import { startMongo, startTimeoutMs } from '../helpers/mongodb.ts'

/** For each store; the last round may end later. */
const LIMIT_MS = 60_000

describe('messages in the midst of broken connections, restarts and failures of the store', function () {
  this.timeout(LIMIT_MS + 60_000)

  for (const driver of ['lmdb', 'mongodb'] as const)
    it(`${driver}: are not lost, not doubled, in order, and reach every device (XEP-0198 §4, XEP-0313 §3.5, XEP-0280 §6)`, async function () {
      this.timeout(startTimeoutMs + LIMIT_MS + 60_000)
      await using stack = new AsyncDisposableStack()
      const store = driver === 'lmdb' ? disturbedLmdb(true) : await database(stack)
      if (typeof store === 'string') {
        console.log(`      not run: ${store}`)
        return this.skip()
      }
      const seed = 1 + Math.floor(Math.random() * 1_000_000)
      const rounds = driver === 'lmdb' ? 8 : 4
      const { faults, notes, messages, happened } = await chaos({
        rounds,
        ms: 400,
        burst: 3,
        seed,
        store,
        faultEvery: 3,
        longest: 3000,
        limitMs: LIMIT_MS,
      })
      expect(notes, `seed ${seed}`).to.deep.equal([])
      for (const [what, count] of Object.entries(faults)) expect(count, `${what}, seed ${seed}`).to.equal(0)
      // It did happen.
      expect((happened['SIGKILL'] ?? 0) + (happened['SIGTERM'] ?? 0)).to.be.above(1)
      expect(happened['fresh'], 'sessions').to.be.above(13)
      expect(messages).to.be.above(50)
    })
})

/** Disturbed, or why there is none. */
async function database(stack: AsyncDisposableStack): Promise<Disturbed | string> {
  const mongo = await startMongo({ own: true })
  if ('skipped' in mongo) return mongo.skipped
  stack.use(mongo)
  return stack.use(await disturbedMongo(mongo))
}

describe('the comparison of what was sent with what is there', () => {
  const sent = new Map<number, Message>([1, 2, 3].map((n) => [n, { n, from: 'a', to: 'b', device: 'a/x' }]))
  const entries: readonly Archived[] = [1, 2, 3].map((n) => ({ n, id: `id${n}` }))
  const arrival = (n: number, live = true, id = `id${n}`): Arrival => ({ n, id, live, covered: live })
  const [one, two, three] = [arrival(1), arrival(2), arrival(3)]
  const [first, second, third] = entries as readonly [Archived, Archived, Archived]

  /** The counts that are not 0, when b has this archive and its device these sessions. */
  function faults(
    archive: readonly Archived[],
    ...sessions: readonly (readonly Arrival[])[]
  ): Partial<Faults> {
    const archives = new Map([
      ['a', entries],
      ['b', archive],
    ])
    const counts = examine(sent, archives, [{ name: 'b/x', account: 'b', sessions }], [])
    return Object.fromEntries(Object.entries(counts).filter(([, count]) => count > 0))
  }

  it('finds nothing where all is well, live or from the archive', () => {
    expect(faults(entries, [one, two, three])).to.deep.equal({})
    expect(faults(entries, [one, arrival(2, false)], [three])).to.deep.equal({})
    expect(faults(entries, [one, two, arrival(1, false)], [three])).to.deep.equal({})
  })

  it('counts each kind of fault', () => {
    expect(faults([first, third], [one, three])).to.deep.equal({ lost: 1 })
    expect(
      faults([...entries, { n: 3, id: 'other' }], [one, two, three, arrival(3, true, 'other')]),
    ).to.deep.equal({ duplicated: 1 })
    expect(faults(entries, [one, two, two, three])).to.deep.equal({ twice: 1 })
    expect(faults(entries, [one, two], [two, three])).to.deep.equal({ twice: 1 })
    expect(faults(entries, [one, two, three, arrival(3, true, '')])).to.deep.equal({ strange: 1 })
    expect(faults(entries, [one, three, two])).to.deep.equal({ reordered: 1 })
    expect(faults([second, first, third], [two, one, three])).to.deep.equal({ overtaken: 1 })
    expect(faults(entries, [one, two])).to.deep.equal({ missing: 1 })
    expect(faults(entries, [one, arrival(2, false), three])).to.deep.equal({ 'missing carbons': 1 })
  })

  it('finds the same when it looks again and again at what is new', () => {
    const notes: string[] = []
    const sessions: Arrival[][] = [[one]]
    const ledger = new Ledger(sent, notes)
    const log = { name: 'b/x', account: 'b', sessions }
    ledger.archived('b', [first, second, third])
    ledger.check([], [log])
    expect(notes).to.deep.equal([])
    sessions[0]?.push(three)
    ledger.check([log])
    ledger.check([log])
    expect(notes).to.deep.equal([
      'missing carbons: 2 did not come live to b/x',
      'missing: b/x does not have 2',
    ])
    sessions.push([two])
    ledger.archived('b', [{ n: 1, id: 'other' }])
    ledger.check([log])
    expect(ledger.faults).to.include({ 'missing carbons': 1, duplicated: 1, missing: 2 })
  })

  it('knows what nobody can know, and what is for those who are there', () => {
    const messages = new Map<number, Message>(
      [
        { open: true },
        { doubtful: true },
        { kind: 'transient' } as const,
        { shaken: true, again: true },
        { again: true },
        {},
      ].map((state, i) => [i + 1, { n: i + 1, from: 'a', to: 'b', device: 'a/x', ...state }]),
    )
    const notes: string[] = []
    const ledger = new Ledger(messages, notes)
    ledger.archived('b', [
      { n: 6, id: 'id6' },
      { n: 4, id: 'id4' },
      { n: 5, id: 'id5' },
    ])
    const sessions = [[arrival(3, true, ''), arrival(6), arrival(5)]]
    ledger.check([{ name: 'b/x', account: 'b', sessions }])
    expect(notes).to.deep.equal([])
    sessions[0]?.push(arrival(3, true, ''))
    for (const message of messages.values()) delete message.open
    ledger.archived('b', [{ n: 3, id: 'id3' }])
    ledger.check([], [{ name: 'b/x', account: 'b', sessions }])
    expect(ledger.faults).to.include({ lost: 1, twice: 1, leaked: 1 })
    expect(notes).to.have.length(3)
  })

  it('expects of a device without archive what came to its account, each once in a session', () => {
    const log = (...sessions: Arrival[][]) => ({ name: 'b/x', account: 'b', sessions, simple: true })
    const check = (device: DeviceLog): string[] => {
      const notes: string[] = []
      const ledger = new Ledger(sent, notes)
      ledger.archived('b', entries)
      ledger.check([device])
      return notes.map((note) => note.split(':')[0] ?? '')
    }
    expect(check(log([one, two], [two, three]))).to.deep.equal([])
    expect(check(log([one, two, two, three]))).to.deep.equal(['twice'])
    expect(check(log([one, three]))).to.deep.equal(['missing'])
    expect(check({ ...log([one, three]), excused: 2 })).to.deep.equal([])
  })
})
