/** A process of its own that takes jobs from Redis and never ends one: url, prefix, name of the queue. Says when it has one. */
import { openBullmqJobs } from '../../server/jobs/bullmq.ts'
import { settings } from './jobs-settings.ts'

const [url = '', prefix = '', name = ''] = process.argv.slice(2)
const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }
openBullmqJobs({ url, prefix, deadMs: 500 }, silent).open(
  name,
  { ...settings, timeoutMs: 60_000 },
  async (data) => {
    console.log(JSON.stringify(data))
    await new Promise(() => undefined)
  },
  () => undefined,
)
