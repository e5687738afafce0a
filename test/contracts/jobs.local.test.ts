/** The driver within one process, in virtual time. */
import { expect } from 'chai'
import { openLocalJobs } from '../../server/jobs/local.ts'
import type { Log } from '../../server/module.ts'
import { VirtualClock } from '../helpers/clock.ts'
import { jobsContract, Watched } from './jobs.ts'

const silent: Log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }

function open(log = silent) {
  const clock = new VirtualClock()
  const jobs = openLocalJobs(clock, log)
  const now = () => clock.now()
  const pass = (ms: number) => clock.advance(ms)
  return { jobs, now, pass, [Symbol.asyncDispose]: () => jobs.close(0) }
}

jobsContract('local', async () => open())

describe('jobs: local, more', () => {
  it('a job that is given up is told with its reason, once', async () => {
    const lines: string[] = []
    await using driver = open({ ...silent, warn: (message: string) => void lines.push(message) })
    const watched = new Watched(driver, () => {
      throw new Error('as it should')
    })
    watched.queue.add({ secret: 'x' })
    await watched.until(() => watched.count('failed') === 1)
    expect(lines).to.deep.equal(['job failed'])
  })
})
