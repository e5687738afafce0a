/** Job queues as modules have them, and which driver is opened; what the drivers do: test/contracts/jobs.ts. */
import { expect } from 'chai'
import { openJobs } from '../../server/jobs/open.ts'
import { defineModule, type JobOptions, type JobQueue } from '../../server/module.ts'
import { VirtualClock } from '../helpers/clock.ts'
import { testHost } from '../helpers/host.ts'

const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }

function worker(opts: JobOptions = {}) {
  const state = {
    runs: [] as string[],
    attempts: [] as number[],
    aborted: 0,
    fail: 0,
    hang: false,
    queue: undefined as JobQueue<{ readonly name: string }> | undefined,
  }
  const module = defineModule({
    name: 'worker',
    summary: 'has a queue',
    specs: [],
    setup(ctx) {
      state.queue = ctx.jobs<{ readonly name: string }>('the-queue', opts, async ({ name }, run) => {
        state.runs.push(name)
        state.attempts.push(run.attempt)
        run.signal.addEventListener('abort', () => state.aborted++)
        if (state.hang) await new Promise(() => undefined)
        if (state.fail-- > 0) throw new Error('as it should')
      })
    },
  })
  return { state, module }
}

describe('jobs of modules', () => {
  it('run, and are tried again by the defaults: five times, after seconds', async () => {
    const { state, module } = worker()
    const lines: string[] = []
    await using host = await testHost({ modules: [module], onLog: (_, message) => void lines.push(message) })
    state.fail = Infinity
    state.queue?.add({ name: 'a' })
    await host.settle()
    expect(state.attempts).to.deep.equal([1])
    await host.clock.advance(1000)
    expect(state.attempts).to.deep.equal([1, 2])
    await host.clock.advance(2000 + 4000 + 8000)
    expect(state.attempts).to.deep.equal([1, 2, 3, 4, 5])
    await host.clock.advance(3_600_000)
    expect(state.attempts).to.have.length(5)
    expect(lines).to.deep.equal(['job failed'])
  })

  it('one that takes longer than its time is aborted', async () => {
    const { state, module } = worker({ timeoutMs: 500, attempts: 1 })
    await using host = await testHost({ modules: [module], onLog: () => undefined })
    state.hang = true
    state.queue?.add({ name: 'a' })
    await host.clock.advance(499)
    expect(state.aborted).to.equal(0)
    await host.clock.advance(1)
    expect(state.aborted).to.equal(1)
  })

  it('end with the module, whatever they are doing; the queue can be opened again', async () => {
    const { state, module } = worker({ concurrency: 1 })
    await using host = await testHost({ modules: [module] })
    const { queue } = state
    state.hang = true
    queue?.add({ name: 'runs' })
    queue?.add({ name: 'waits' })
    await host.settle()
    await host.unload('worker')
    expect([state.runs, state.aborted]).to.deep.equal([['runs'], 1])
    queue?.add({ name: 'late' })
    state.hang = false
    await host.load(module)
    state.queue?.add({ name: 'new' })
    await host.clock.advance(60_000)
    expect(state.runs).to.deep.equal(['runs', 'new'])
  })

  it('are counted by host, module and queue', async () => {
    const { state, module } = worker({ concurrency: 1, maxWaiting: 1 })
    await using host = await testHost({ modules: [module] })
    state.fail = 1
    state.queue?.add({ name: 'a' })
    state.queue?.add({ name: 'b' })
    const text = () => host.telemetry.registry.metrics()
    expect(await text()).to.contain('hermod_worker_jobs_the_queue_refused{host="example.org"} 1')
    await host.clock.advance(5000)
    const after = await text()
    for (const [name, count] of Object.entries({ added: 1, retried: 1, done: 1, waiting: 0 }))
      expect(after).to.contain(`hermod_worker_jobs_the_queue_${name}{host="example.org"} ${count}`)
  })

  it('a wrong address of redis is told without repeating it', async () => {
    const clock = new VirtualClock()
    const told = async (url: string): Promise<string> => {
      try {
        await openJobs({ url, prefix: 'x' }, clock, silent)
        return ''
      } catch (error) {
        return (error as Error).message
      }
    }
    expect(await told('http://user:secret@h/')).to.equal('redis.url is no address such as redis://host:6379/')
    expect(await told('secret')).to.equal('redis.url is no address such as redis://host:6379/')
    expect(await told('env:HERMOD_NO_SUCH_NAME')).to.equal(
      'redis.url: the environment variable HERMOD_NO_SUCH_NAME is not set',
    )
    expect((await openJobs(undefined, clock, silent)).driver).to.equal('local')
  })
})
