/** Opens the driver of job queues that a configuration names. The one that is not used is not loaded. */
import type { Clock } from '../clock.ts'
import type { Log } from '../module.ts'
import { OperatorError } from '../operator-error.ts'
import type { RedisSettings } from './bullmq.ts'
import type { Jobs } from './contract.ts'
import { openLocalJobs } from './local.ts'

/**
 * `redis` undefined: in this process. `url` may be `env:NAME`, to take it from the environment. Throws OperatorError when it is no address
 * of Redis; whether Redis answers is not waited for.
 */
export async function openJobs(redis: RedisSettings | undefined, clock: Clock, log: Log): Promise<Jobs> {
  if (redis === undefined) return openLocalJobs(clock, log)
  const { openBullmqJobs } = await import('./bullmq.ts')
  return openBullmqJobs({ ...redis, url: checked(redis.url) }, log, clock)
}

function checked(url: string): string {
  const name = url.startsWith('env:') ? url.slice('env:'.length) : undefined
  const value = name === undefined ? url : process.env[name]
  if (value === undefined || value === '')
    throw new OperatorError(`redis.url: the environment variable ${name} is not set`)
  // the text itself is a secret
  if (!/^rediss?:$/.test(URL.parse(value)?.protocol ?? ''))
    throw new OperatorError('redis.url is no address such as redis://host:6379/')
  return value
}

/** For commands without a running server: what is added is not done. */
export const noJobs: Jobs = {
  driver: 'none',
  open: () => ({ add: () => undefined, waiting: 0, close: () => Promise.resolve() }),
  close: () => Promise.resolve(),
}
