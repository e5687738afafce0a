/** Loading modules: order, options, undoing, reloading. */
import { expect } from 'chai'
import { type AnyModule, ConfigError, orderModules, parseConfig } from '../../server/loader.ts'
import { c, defineModule, type ModuleDef } from '../../server/module.ts'
import { el } from '../../server/xmpp/element.ts'
import { testHost } from '../helpers/host.ts'

const plain = (name: string, more: Partial<ModuleDef<never>> = {}): AnyModule => ({
  name,
  summary: name,
  specs: [],
  setup: () => undefined,
  ...more,
})
const order = (...defs: AnyModule[]): string[] => orderModules(defs).map((d) => d.name)

describe('loader: order', () => {
  it('puts providers before their users, and optional ones too when they are there', () => {
    expect(
      order(plain('a', { requires: ['c'] }), plain('b', { optional: ['a', 'absent'] }), plain('c')),
    ).to.deep.equal(['c', 'a', 'b'])
  })
  it('refuses a missing and a circular requirement', () => {
    expect(() => order(plain('a', { requires: ['b'] }))).to.throw(
      ConfigError,
      'module a requires module b, which is not enabled',
    )
    expect(() => order(plain('a', { requires: ['b'] }), plain('b', { optional: ['a'] }))).to.throw(
      ConfigError,
      'a -> b -> a',
    )
  })
})

describe('loader: options', () => {
  const config = c.object({ timeout: c.duration('30s', { min: '1s' }), size: c.bytes('64 KiB') })
  const def = defineModule({
    name: 'm',
    summary: 'm',
    specs: [],
    config,
    setup: () => undefined,
  }) as unknown as AnyModule

  it('applies defaults, converts units and freezes', () => {
    const parsed = parseConfig(def, { size: '2 MB' })
    expect(parsed).to.deep.equal({ timeout: 30_000, size: 2_000_000 })
    expect(Object.isFrozen(parsed)).to.equal(true)
  })
  it('says which option of which module is wrong', () => {
    expect(() => parseConfig(def, { timeout: '10ms' })).to.throw(
      ConfigError,
      'module m: timeout: must be at least 1s',
    )
    expect(() => parseConfig(def, { timeout: '5 years' })).to.throw(
      ConfigError,
      /module m: timeout: expected a quantity/,
    )
    expect(() => parseConfig(plain('x'), { a: 1 })).to.throw(ConfigError, 'module x has no options')
  })
})

describe('loader: undoing', () => {
  it('removes everything a module registered', async () => {
    const seen: string[] = []
    let aborted = false
    const full: AnyModule = plain('full', {
      setup(ctx) {
        ctx.iq('host', 'get', 'urn:full', 'query', () => el('query', 'urn:full'))
        ctx.hook('client:in', { phase: 'observe' }, () => void seen.push('hook'))
        ctx.streamFeature({
          ns: 'urn:f',
          streams: ['c2s'],
          needs: [],
          forbids: [],
          advertise: () => el('f', 'urn:f'),
          handle: () => undefined,
        })
        ctx.disco.identity('host', 'test', 'full')
        ctx.timers.every(1000, () => void seen.push('timer'))
        ctx.timers.after(100_000, () => void seen.push('late'))
        ctx.metrics.gauge('size', 'test', () => 7)
        ctx.signal.addEventListener('abort', () => {
          aborted = true
        })
        return { stop: () => void seen.push('stop') }
      },
    })
    await using h = await testHost({ modules: [], accounts: ['romeo'] })
    await h.load(full)
    const romeo = await h.client('romeo@example.org/a')
    const ask = async (): Promise<string> =>
      (await romeo.send(`<iq type='get' id='1' to='example.org'><query xmlns='urn:full'/></iq>`))
        .map((e) => e.attr('type'))
        .join()
    expect(await ask()).to.equal('result')
    await h.clock.advance(1000)
    expect(seen).to.deep.equal(['hook', 'timer'])
    expect(await h.telemetry.registry.metrics()).to.contain('hermod_full_size{host="example.org"} 7')
    await h.unload('full')
    expect(await ask()).to.equal('error')
    await h.clock.advance(200_000)
    expect(seen).to.deep.equal(['hook', 'timer', 'stop'])
    expect(aborted).to.equal(true)
    expect(h.host.features).to.deep.equal([])
    expect(await h.telemetry.registry.metrics()).not.to.contain('example.org')
    await h.load(full) // nothing is left that a second load would collide with
    expect(await ask()).to.equal('result')
  })

  it('unloads users before their provider, and undoes a setup that failed', async () => {
    const log: string[] = []
    const stops = (name: string): Pick<AnyModule, 'setup'> => ({
      setup: () => ({ stop: () => void log.push(name) }),
    })
    await using h = await testHost({
      modules: [
        plain('user', { requires: ['provider'], ...stops('user') }),
        plain('provider', stops('provider')),
      ] as never,
    })
    await h.unload('provider')
    expect(log).to.deep.equal(['user', 'provider'])
    const broken = plain('broken', {
      setup(ctx) {
        ctx.iq('host', 'get', 'urn:b', 'query', () => undefined)
        throw new Error('no')
      },
    })
    let failure: unknown
    await h.load(broken).catch((error: unknown) => {
      failure = error
    })
    expect(failure).to.have.property('message', 'no')
    await h.load(plain('other', { setup: (ctx) => ctx.iq('host', 'get', 'urn:b', 'query', () => undefined) }))
  })

  it('does once a day what is to be done once a day, and again in an hour when that fails', async () => {
    const logged: string[] = []
    await using h = await testHost({
      modules: [],
      onLog: (level, text) => void (level === 'error' && logged.push(text)),
    })
    const hour = 60 * 60_000
    const times: number[] = []
    let fails = false
    const started = h.clock.now()
    await h.load(
      plain('daily', {
        setup: (ctx) => {
          ctx.timers.daily('work', () => {
            times.push((h.clock.now() - started) / hour)
            return fails ? Promise.reject(new Error('as the test wants')) : Promise.resolve()
          })
        },
      }),
    )
    await h.clock.advance(49.5 * hour)
    expect(times).to.deep.equal([1, 25, 49])
    fails = true
    await h.clock.advance(26 * hour)
    expect(times.slice(3)).to.deep.equal([73, 74, 75])
    expect(logged).to.deep.equal(['timer failed', 'timer failed', 'timer failed'])
  })

  it('refuses two handlers for one iq, and a service nobody provides', async () => {
    const one = plain('one', { setup: (ctx) => ctx.iq('host', 'get', 'urn:x', 'query', () => undefined) })
    let failure = ''
    await testHost({ modules: [one, { ...one, name: 'two' }] as never }).catch((error: Error) => {
      failure = error.message
    })
    expect(failure).to.contain('is handled by module one already')
    await testHost({ modules: [plain('user', { setup: (ctx) => void ctx.use('auth') })] as never }).catch(
      (error: Error) => {
        failure = error.message
      },
    )
    expect(failure).to.contain('no module it requires provides service auth')
  })
})

describe('context', () => {
  it('keeps fields of modules on a session apart', async () => {
    let read: (() => readonly number[]) | undefined
    const fields = plain('fields', {
      setup(ctx) {
        const a = ctx.perSession(() => 1)
        const b = ctx.perSession(() => 2)
        ctx.hook('session:bound', { phase: 'observe' }, ({ session }) => {
          a.set(session, 10)
          read = () => [a.get(session), b.get(session)]
        })
      },
    })
    await using h = await testHost({ modules: [fields] as never, accounts: ['romeo'] })
    await h.client('romeo@example.org/a')
    expect(read?.()).to.deep.equal([10, 2])
  })

  it('lets other work pass between slices of a long list', async () => {
    let slices: ((items: Iterable<number>, fn: (n: number) => void) => Promise<void>) | undefined
    await using h = await testHost({
      modules: [plain('slices', { setup: (ctx) => void (slices = ctx.inSlices) })] as never,
    })
    expect(h.host.name).to.equal('example.org')
    let others = 0
    let running = true
    const tick = (): void => {
      others++
      if (running) setImmediate(tick)
    }
    setImmediate(tick)
    let done = 0
    await slices!(
      Array.from({ length: 40 }, (_, i) => i),
      () => {
        const until = performance.now() + 1
        while (performance.now() < until) done += 0
        done++
      },
    )
    running = false
    expect(done).to.equal(40)
    expect(others).to.be.greaterThan(4)
  })

  it('settles a request with the answer of the one who was asked, and of nobody else (RFC 6120 §8.2.3)', async () => {
    const outcomes: string[] = []
    let ask: (() => Promise<void>) | undefined
    const asker = plain('asker', {
      setup(ctx) {
        ctx.hook('session:bound', { phase: 'observe' }, ({ session }) => {
          if (session.jid.local !== 'romeo') return
          ask = async () => {
            try {
              const answer = await ctx.request(session.jid, el('query', 'urn:q'), {
                type: 'get',
                timeoutMs: 5000,
              })
              outcomes.push(`result ${answer?.name}`)
            } catch (error) {
              outcomes.push((error as Error).name)
            }
          }
        })
      },
    })
    await using h = await testHost({ modules: [asker] as never, accounts: ['romeo', 'mallory'] })
    const mallory = await h.client('mallory@example.org/x')
    const romeo = await h.client('romeo@example.org/a')
    const next = async (): Promise<string> => {
      void ask?.()
      await h.settle()
      return romeo.take()[0]!.attr('id')!
    }
    const id = await next()
    await mallory.send(`<iq type='result' id='${id}' to='example.org'><forged xmlns='urn:q'/></iq>`)
    expect(outcomes).to.deep.equal([])
    await romeo.send(`<iq type='result' id='${id}' to='example.org'><true xmlns='urn:q'/></iq>`)
    expect(outcomes).to.deep.equal(['result true'])
    await romeo.send(
      `<iq type='error' id='${await next()}' to='example.org'><error type='cancel'><not-allowed xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>`,
    )
    await next()
    await h.clock.advance(5000)
    expect(outcomes).to.deep.equal(['result true', 'StanzaError', 'RequestTimeout'])
  })
})
