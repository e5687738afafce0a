/** Hook chains: order, verdicts, crashes, time-outs. */
import { expect } from 'chai'
import { Chain, type Link } from '../../server/hooks.ts'
import type { Log, Phase, Place, Verdict } from '../../server/module.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { VirtualClock } from '../helpers/clock.ts'

interface Event {
  readonly seen: string[]
}

function setUp() {
  const errors: string[] = []
  const ignore = (): void => undefined
  const log: Log = {
    debug: ignore,
    info: ignore,
    warn: ignore,
    error: (message) => void errors.push(message),
  }
  const clock = new VirtualClock()
  const chain = new Chain<Event>('test', log, clock)
  const add = (
    module: string,
    place: Place,
    act: () => Verdict | void | Promise<Verdict | void> = () => undefined,
  ) =>
    chain.add({
      module,
      place,
      handle: (e) => {
        e.seen.push(module)
        return act()
      },
    })
  return { chain, add, errors, clock }
}

const names = (links: readonly Link<Event>[]): string[] => links.map((l) => l.module)

describe('hooks: order', () => {
  it('goes by phase first, then by before and after, then by registration', () => {
    const { chain, add } = setUp()
    add('observer', { phase: 'observe' })
    add('second', { phase: 'rewrite' })
    add('first', { phase: 'rewrite', before: ['second'] })
    add('third', { phase: 'rewrite', after: ['second'] })
    add('guard', { phase: 'guard' })
    add('last', { phase: 'rewrite' })
    expect(names(chain.list())).to.deep.equal(['guard', 'first', 'second', 'third', 'last', 'observer'])
  })

  it('ignores names of modules that have no link', () => {
    const { chain, add } = setUp()
    add('a', { phase: 'copy', after: ['absent'], before: ['absent'] })
    expect(names(chain.list())).to.deep.equal(['a'])
  })

  it('refuses a cycle', () => {
    const { add } = setUp()
    add('a', { phase: 'copy', after: ['b'] })
    expect(() => add('b', { phase: 'copy', after: ['a'] })).to.throw(/cycle among a, b/)
  })

  it('leaves out links for other kinds of stanza', () => {
    const { chain, add } = setUp()
    add('iq-only', { phase: 'guard', kinds: ['iq'] })
    add('all', { phase: 'guard' })
    expect(names(chain.message.before)).to.deep.equal(['all'])
    expect(names(chain.iq.before)).to.deep.equal(['iq-only', 'all'])
  })

  it('forgets a link that is disposed', () => {
    const { chain, add } = setUp()
    const link = add('a', { phase: 'guard' })
    link[Symbol.dispose]()
    expect(chain.list()).to.deep.equal([])
  })
})

describe('hooks: running', () => {
  it('makes no promise where no handler does', () => {
    const { chain, add } = setUp()
    for (const phase of ['guard', 'rewrite', 'store', 'copy', 'observe'] as Phase[]) add(phase, { phase })
    const seen: string[] = []
    expect(chain.run({ seen })).to.equal(undefined)
    expect(seen).to.deep.equal(['guard', 'rewrite', 'store', 'copy', 'observe'])
  })

  it('waits for a handler before it runs the next one', async () => {
    const { chain, add } = setUp()
    const gate = Promise.withResolvers<void>()
    add('slow', { phase: 'guard' }, () => gate.promise)
    add('next', { phase: 'rewrite' })
    const seen: string[] = []
    const done = chain.run({ seen })
    expect(seen).to.deep.equal(['slow'])
    gate.resolve()
    await done
    expect(seen).to.deep.equal(['slow', 'next'])
  })

  it('ends at the first verdict', () => {
    const { chain, add } = setUp()
    add('stopper', { phase: 'guard' }, () => ({ stop: 'enough' }))
    add('never', { phase: 'copy' })
    const seen: string[] = []
    expect(chain.run({ seen })).to.deep.equal({ stop: 'enough' })
    expect(seen).to.deep.equal(['stopper'])
  })

  it('starts all store handlers together and takes the first verdict in their order', async () => {
    const { chain, add } = setUp()
    const gates = [Promise.withResolvers<Verdict>(), Promise.withResolvers<Verdict>()]
    add('one', { phase: 'store' }, () => gates[0]!.promise)
    add('two', { phase: 'store' }, () => gates[1]!.promise)
    const seen: string[] = []
    const done = chain.run({ seen })
    expect(seen).to.deep.equal(['one', 'two'])
    gates[1]!.resolve({ stop: 'two' })
    gates[0]!.resolve({ stop: 'one' })
    expect(await done).to.deep.equal({ stop: 'one' })
  })

  it('bounces what a guard throws: a refusal as it is, anything else as internal-server-error', () => {
    const { chain, add, errors } = setUp()
    const refusal = add('refusal', { phase: 'guard' }, () => {
      throw new StanzaError('not-acceptable')
    })
    const verdict = chain.run({ seen: [] }) as { bounce: StanzaError }
    expect(verdict.bounce.condition).to.equal('not-acceptable')
    expect(errors).to.deep.equal([])
    refusal[Symbol.dispose]()
    add('bug', { phase: 'store' }, () => {
      throw new Error('bug')
    })
    expect((chain.run({ seen: [] }) as { bounce: StanzaError }).bounce.condition).to.equal(
      'internal-server-error',
    )
    expect(errors).to.have.length(1)
  })

  it('only logs what copy and observe throw', async () => {
    const { chain, add, errors } = setUp()
    add('copy', { phase: 'copy' }, () => {
      throw new Error('bug')
    })
    add('later', { phase: 'observe' }, () => Promise.reject(new Error('bug')))
    const seen: string[] = []
    expect(await chain.run({ seen })).to.equal(undefined)
    expect(seen).to.deep.equal(['copy', 'later'])
    expect(errors).to.have.length(2)
  })

  it('treats a handler that never answers as crashed after ten seconds', async () => {
    const { chain, add, clock, errors } = setUp()
    add('hangs', { phase: 'store' }, () => new Promise(() => undefined))
    const done = chain.run({ seen: [] })
    await clock.advance(9_999)
    expect(errors).to.have.length(0)
    await clock.advance(1)
    expect(((await done) as { bounce: StanzaError }).bounce.condition).to.equal('internal-server-error')
  })
})
