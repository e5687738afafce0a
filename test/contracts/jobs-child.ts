/**
 * A process of its own on a queue in Redis: url, prefix, name of the queue. Says which jobs it takes; ends 'quick' ones and no others. It
 * closes its queues when its input ends, and has nothing else to live for then.
 */
import { openBullmqJobs } from '../../server/jobs/bullmq.ts'
import { settings } from './jobs-settings.ts'

const [url = '', prefix = '', name = ''] = process.argv.slice(2)
const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }
const jobs = openBullmqJobs({ url, prefix, deadMs: 500 }, silent)
const queue = jobs.open(
  name,
  { ...settings, timeoutMs: 60_000 },
  async (data) => {
    console.log(JSON.stringify(data))
    if (data !== 'quick') await new Promise(() => undefined)
  },
  () => undefined,
)
queue.add('quick')
process.stdin.on('end', () => void jobs.close(100)).resume()
