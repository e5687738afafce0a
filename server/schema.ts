/**
 * Schemas of configuration: zod, with durations and sizes added. What a user writes is `30s` or `64 KiB`, what the
 * code gets is milliseconds or bytes.
 */
import * as z from 'zod'

/** A schema that yields C; every option has a default unless it is required. */
export type Schema<C> = z.ZodType<C>

const durationUnits: ReadonlyMap<string, number> = new Map([
  ['ms', 1],
  ['s', 1000],
  ['min', 60_000],
  ['h', 3_600_000],
  ['d', 86_400_000],
])
const sizeUnits: ReadonlyMap<string, number> = new Map([
  ['B', 1],
  ['KB', 1000],
  ['MB', 1000 ** 2],
  ['GB', 1000 ** 3],
  ['KiB', 1024],
  ['MiB', 1024 ** 2],
  ['GiB', 1024 ** 3],
])

/** Bounds of a quantity, written the way a user writes it. */
interface Bounds {
  readonly min?: string
  readonly max?: string
}

function parseQuantity(text: string, units: ReadonlyMap<string, number>): number | undefined {
  const match = /^(\d{1,15}(?:\.\d{1,6})?) ?([A-Za-z]{1,3})$/.exec(text)
  const unit = units.get(match?.[2] ?? '')
  return unit === undefined ? undefined : Math.round(Number(match?.[1]) * unit)
}

function quantity(units: ReadonlyMap<string, number>, example: string, fallback: string, bounds: Bounds) {
  const min = bounds.min === undefined ? 0 : (parseQuantity(bounds.min, units) ?? 0)
  const max = bounds.max === undefined ? Number.MAX_SAFE_INTEGER : parseQuantity(bounds.max, units)
  const names = [...units.keys()].join(', ')
  return z
    .string()
    .default(fallback)
    .transform((text, ctx) => {
      const value = parseQuantity(text, units)
      if (value === undefined)
        ctx.addIssue({
          code: 'custom',
          message: `expected a quantity such as ${example} (units: ${names}), got "${text}"`,
        })
      else if (value < min) ctx.addIssue({ code: 'custom', message: `must be at least ${bounds.min}` })
      else if (value > (max ?? 0)) ctx.addIssue({ code: 'custom', message: `must be at most ${bounds.max}` })
      return value ?? 0
    })
}

/** zod, with `c.duration('30s')` (milliseconds) and `c.bytes('64 KiB')` (bytes) added. */
export const c = {
  ...z,
  /** A time span written like `500ms`, `30s`, `5min`, `1h`, `7d`; yields milliseconds. */
  duration: (fallback: string, bounds: Bounds = {}) => quantity(durationUnits, '30s', fallback, bounds),
  /** A size written like `512 B`, `64 KiB`, `10 MB`; yields bytes. */
  bytes: (fallback: string, bounds: Bounds = {}) => quantity(sizeUnits, '64 KiB', fallback, bounds),
}
