/** Lanes: order is kept while handlers wait, stores overlap, nothing is promised when nothing waits. */
import { expect } from 'chai'
import fc from 'fast-check'
import { Chain } from '../../server/hooks.ts'
import { Lane } from '../../server/lane.ts'
import type { Log, Phase, Verdict } from '../../server/module.ts'
import { VirtualClock } from '../helpers/clock.ts'
import { settle } from '../helpers/settle.ts'

const ignore = (): void => undefined
const log: Log = { debug: ignore, info: ignore, warn: ignore, error: ignore }

interface Event {
  readonly n: number
}

function setUp() {
  const chain = new Chain<Event>('test', log, new VirtualClock())
  const events: string[] = []
  const gates = new Map<string, PromiseWithResolvers<Verdict | void>>()
  const wait = (phase: Phase, which: (n: number) => boolean): void =>
    void chain.add({
      module: phase,
      place: { phase },
      handle: (e) => {
        events.push(`${phase} ${e.n}`)
        if (!which(e.n)) return undefined
        const gate = Promise.withResolvers<Verdict | void>()
        gates.set(`${phase} ${e.n}`, gate)
        return gate.promise
      },
    })
  const lane = new Lane()
  const pass = (n: number): void | Promise<void> =>
    lane.pass(
      chain,
      chain.any,
      { n },
      (e, verdict) => void events.push(`turn ${e.n}${verdict === undefined ? '' : ' stopped'}`),
    )
  return { events, gates, wait, lane, pass }
}

describe('lane', () => {
  it('does everything in the same call when no handler waits', () => {
    const { events, wait, lane, pass } = setUp()
    wait('guard', () => false)
    wait('store', () => false)
    expect(pass(1)).to.equal(undefined)
    expect(lane.busy).to.equal(false)
    expect(events).to.deep.equal(['guard 1', 'store 1', 'turn 1'])
  })

  it('starts the store of the next stanza while the first one waits, and keeps the order of turns', async () => {
    const { events, gates, wait, lane, pass } = setUp()
    wait('store', () => true)
    const [one, two] = [pass(1), pass(2)]
    await settle()
    expect(events).to.deep.equal(['store 1', 'store 2'])
    gates.get('store 2')!.resolve()
    await settle()
    expect(events).to.deep.equal(['store 1', 'store 2'])
    gates.get('store 1')!.resolve()
    await one
    await two
    expect(events.slice(2)).to.deep.equal(['turn 1', 'turn 2'])
    expect(lane.busy).to.equal(false)
  })

  it('does not start a store before the guard of the stanza ahead has passed', async () => {
    const { events, gates, wait, pass } = setUp()
    wait('guard', (n) => n === 1)
    wait('store', () => false)
    void pass(1)
    const two = pass(2)
    await settle()
    expect(events).to.deep.equal(['guard 1'])
    gates.get('guard 1')!.resolve()
    await two
    expect(events).to.deep.equal(
      ['guard 1', 'store 1', 'guard 2', 'store 2', 'turn 1', 'turn 2'].toSorted(
        (a, b) => events.indexOf(a) - events.indexOf(b),
      ),
    )
    expect(events.indexOf('store 1')).to.be.lessThan(events.indexOf('guard 2'))
    expect(events.indexOf('turn 1')).to.be.lessThan(events.indexOf('turn 2'))
  })

  it('goes on behind a stanza that was stopped or whose handler failed', async () => {
    const { events, gates, wait, pass } = setUp()
    wait('store', () => true)
    const all = [pass(1), pass(2), pass(3)]
    await settle()
    gates.get('store 3')!.resolve()
    gates.get('store 2')!.reject(new Error('store down'))
    gates.get('store 1')!.resolve({ stop: 'duplicate' })
    for (const done of all) await done
    expect(events.slice(3)).to.deep.equal(['turn 1 stopped', 'turn 2 stopped', 'turn 3'])
  })

  it('held, gives nobody a turn: neither who is in it nor who comes', async () => {
    const { events, gates, wait, lane, pass } = setUp()
    wait('store', (n) => n === 1)
    const one = pass(1)
    const held = lane.hold()
    const two = pass(2)
    gates.get('store 1')!.resolve()
    await settle()
    expect(events).to.deep.equal(['store 1', 'store 2'])
    expect(lane.busy).to.equal(true)
    held[Symbol.dispose]()
    await one
    await two
    expect(events.slice(2)).to.deep.equal(['turn 1', 'turn 2'])
    expect(lane.busy).to.equal(false)
  })

  it('held from within the copy hooks of a stanza, gives that no turn either', async () => {
    const { events, gates, wait, lane, pass } = setUp()
    let held: Disposable | undefined
    wait('store', () => true)
    wait('copy', (n) => {
      if (n === 1) held = lane.hold()
      return false
    })
    const [one, two] = [pass(1), pass(2)]
    await settle()
    gates.get('store 2')!.resolve()
    gates.get('store 1')!.resolve()
    await settle()
    expect(events.slice(2)).to.deep.equal(['copy 1'])
    held?.[Symbol.dispose]()
    await Promise.all([one, two])
    expect(events.slice(3)).to.deep.equal(['turn 1', 'copy 2', 'turn 2'])
    expect(lane.busy).to.equal(false)
  })

  it('the same when nothing else waits', async () => {
    const { events, wait, lane, pass } = setUp()
    let held: Disposable | undefined
    wait('copy', (n) => {
      if (n === 1) held = lane.hold()
      return false
    })
    const [one, two] = [pass(1), pass(2)]
    await settle()
    expect(events.filter((e) => e.startsWith('turn'))).to.deep.equal([])
    held?.[Symbol.dispose]()
    await Promise.all([one, two])
    expect(events.filter((e) => e.startsWith('turn'))).to.deep.equal(['turn 1', 'turn 2'])
    expect(lane.busy).to.equal(false)
  })

  it('keeps the order for any mixture of handlers that wait and do not', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ guard: fc.boolean(), store: fc.boolean(), copy: fc.boolean() }), {
          minLength: 1,
          maxLength: 12,
        }),
        fc.infiniteStream(fc.nat()),
        async (plan, picks) => {
          const { events, gates, wait, lane, pass } = setUp()
          wait('guard', (n) => plan[n]!.guard)
          wait('store', (n) => plan[n]!.store)
          wait('copy', (n) => plan[n]!.copy)
          const all = plan.map((_, n) => pass(n))
          for (;;) {
            await settle(3)
            const open = [...gates.keys()]
            if (open.length === 0) break
            const key = open[picks.next().value! % open.length]!
            gates.get(key)!.resolve()
            gates.delete(key)
          }
          for (const done of all) await done
          for (const stage of ['guard', 'store', 'copy', 'turn']) {
            const order = events.filter((e) => e.startsWith(stage)).map((e) => Number(e.split(' ')[1]))
            expect(order).to.deep.equal(plan.map((_, n) => n))
          }
          expect(lane.busy).to.equal(false)
        },
      ),
      { numRuns: 100 },
    )
  })
})
