/** Structured log (pino) and metrics registry (prom-client). Readable lines on a terminal, JSON otherwise. */
import { type Logger, pino } from 'pino'
import { Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { Log, Metrics } from './module.ts'

/** Log levels of the configuration. */
export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent'

const BUCKETS = {
  seconds: [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10],
  bytes: [256, 1024, 4096, 16384, 65536, 262144, 1048576],
  items: [1, 5, 10, 50, 100, 500, 1000, 5000],
}

/** The logger of the process. `pretty`: readable lines instead of JSON; default: when standard output is a terminal. */
export function makeLogger(level: LogLevel, pretty: boolean = process.stdout.isTTY === true): Logger {
  const base = { level, base: null, redact: ['password', '*.password'] }
  if (!pretty) return pino({ ...base, timestamp: pino.stdTimeFunctions.isoTime })
  return pino({
    ...base,
    transport: {
      target: 'pino-pretty',
      options: { translateTime: 'HH:MM:ss', ignore: 'pid,hostname', sync: true },
    },
  })
}

/** pino as the interface modules know. */
export function makeLog(logger: Logger): Log {
  return {
    debug: (message, fields) => logger.debug(fields ?? {}, message),
    info: (message, fields) => logger.info(fields ?? {}, message),
    warn: (message, fields) => logger.warn(fields ?? {}, message),
    error: (message, fields) => logger.error(fields ?? {}, message),
  }
}

/** The metrics of the process. The same metric of several hosts is one metric with label host. */
export class Telemetry {
  readonly registry = new Registry()

  /** Metrics of one module of one host; `own` gets the undoing of gauges. */
  metrics(module: string, host: string, own: (undo: Disposable) => void): Metrics {
    const full = (name: string) => `hermod_${module.replaceAll('-', '_')}_${name}`
    return {
      counter: (name, help) => {
        const counter = this.#single(
          full(name),
          () => new Counter({ name: full(name), help, labelNames: ['host'], registers: [this.registry] }),
        )
        const child = counter.labels(host)
        return { add: (n = 1) => child.inc(n) }
      },
      gauge: (name, help, read) => {
        const readers = this.#readers(full(name), help)
        readers.set(host, read)
        own({
          [Symbol.dispose]: () => {
            if (readers.get(host) === read) readers.delete(host)
          },
        })
      },
      histogram: (name, help, unit) => {
        const named = `${full(name)}_${unit}`
        const histogram = this.#single(
          named,
          () =>
            new Histogram({
              name: named,
              help,
              labelNames: ['host'],
              buckets: BUCKETS[unit],
              registers: [this.registry],
            }),
        )
        const child = histogram.labels(host)
        return { observe: (v) => child.observe(v) }
      },
    }
  }

  readonly #gauges = new Map<string, Map<string, () => number>>()

  #readers(name: string, help: string): Map<string, () => number> {
    const known = this.#gauges.get(name)
    if (known !== undefined) return known
    const readers = new Map<string, () => number>()
    this.#gauges.set(name, readers)
    const gauge: Gauge<'host'> = new Gauge({
      name,
      help,
      labelNames: ['host'],
      registers: [this.registry],
      collect: () => {
        gauge.reset()
        for (const [host, read] of readers) gauge.labels(host).set(read())
      },
    })
    return readers
  }

  readonly #made = new Map<string, Counter<'host'> | Histogram<'host'>>()

  #single<T extends Counter<'host'> | Histogram<'host'>>(name: string, make: () => T): T {
    const known = this.#made.get(name)
    if (known !== undefined) return known as T // one name, one kind: the name of a histogram ends in its unit
    const made = make()
    this.#made.set(name, made)
    return made
  }
}
