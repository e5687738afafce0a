/**
 * Dates and times on the wire (XEP-0082 1.1.1, XML Schema 1.1 part 2), strict and without regular expressions. Years 0000 to 9999 only
 * (XEP-0082 §5), a leap second is refused (§2.1: seconds are 00 to 59; XML Schema has none), fractions below a millisecond are cut off
 * (§3.2 allows to ignore them). The older form without hyphens (§4) is not read.
 */

const MINUTE_MS = 60_000
const DAY_MS = 86_400_000
const MAX_OFFSET_MINUTES = 14 * 60

const digitAt = (text: string, index: number) => {
  const code = text.charCodeAt(index)
  return code >= 0x30 && code <= 0x39 ? code - 0x30 : Number.NaN
}

/** The number written with `count` digits at `index`, NaN when there are none. */
function number(text: string, index: number, count: number): number {
  let value = 0
  for (let i = index; i < index + count; i++) value = value * 10 + digitAt(text, i)
  return value
}

const between = (value: number, low: number, high: number) => value >= low && value <= high

/** Midnight UTC of CCYY-MM-DD at the start of `text`, undefined when it is no date. */
function parseDay(text: string): number | undefined {
  const year = number(text, 0, 4)
  const month = number(text, 5, 2)
  const day = number(text, 8, 2)
  if (text[4] !== '-' || text[7] !== '-' || !(year >= 0)) return undefined
  if (!between(month, 1, 12) || !between(day, 1, 31)) return undefined
  const date = new Date(0)
  // Not Date.UTC, which takes the years 0 to 99 for 1900 to 1999
  date.setUTCFullYear(year, month - 1, day)
  // The thirty-first of a short month would become the first of the next
  return date.getUTCDate() === day ? date.getTime() : undefined
}

interface Clock {
  readonly ms: number
  /** Index behind the time. */
  readonly end: number
}

/** hh:mm:ss[.sss] at `index`. */
function parseClock(text: string, index: number): Clock | undefined {
  const hour = number(text, index, 2)
  const minute = number(text, index + 3, 2)
  const second = number(text, index + 6, 2)
  if (text[index + 2] !== ':' || text[index + 5] !== ':') return undefined
  if (!between(hour, 0, 24) || !between(minute, 0, 59) || !between(second, 0, 59)) return undefined
  let end = index + 8
  let fraction = 0
  if (text[end] === '.') {
    let scale = 100
    end += 1
    const first = end
    for (let digit = digitAt(text, end); digit >= 0; digit = digitAt(text, end)) {
      fraction += digit * scale
      scale = scale === 1 ? 0 : scale / 10
      end += 1
    }
    if (end === first) return undefined
  }
  const ms = ((hour * 60 + minute) * 60 + second) * 1000 + fraction
  // XML Schema §3.3.7: 24:00:00 is the end of the day, and nothing after it
  return ms > DAY_MS ? undefined : { ms, end }
}

/** Z or (+|-)hh:mm from `index` to the end of the text, in minutes. */
function parseOffset(text: string, index: number): number | undefined {
  if (text[index] === 'Z') return text.length === index + 1 ? 0 : undefined
  const sign = text[index] === '+' ? 1 : text[index] === '-' ? -1 : 0
  if (sign === 0 || text.length !== index + 6 || text[index + 3] !== ':') return undefined
  const hours = number(text, index + 1, 2)
  const minutes = number(text, index + 4, 2)
  const total = hours * 60 + minutes
  return between(hours, 0, 14) && between(minutes, 0, 59) && total <= MAX_OFFSET_MINUTES
    ? sign * total
    : undefined
}

/** The moment of a DateTime (XEP-0082 §3.2), in milliseconds since 1970; undefined when the text is none. The time zone is required. */
export function parseDateTime(text: string): number | undefined {
  const day = parseDay(text)
  if (day === undefined || text[10] !== 'T') return undefined
  const clock = parseClock(text, 11)
  if (clock === undefined) return undefined
  const offset = parseOffset(text, clock.end)
  return offset === undefined ? undefined : day + clock.ms - offset * MINUTE_MS
}

/** A Date (XEP-0082 §3.1, XML Schema date, which may have a time zone) as milliseconds since 1970 of its first moment, UTC without zone. */
export function parseDate(text: string): number | undefined {
  const day = parseDay(text)
  if (day === undefined || text.length === 10) return day
  const offset = parseOffset(text, 10)
  return offset === undefined ? undefined : day - offset * MINUTE_MS
}

/** A time of day: milliseconds since midnight there, and the distance of its zone from UTC in minutes when it is given. */
export interface TimeOfDay {
  readonly ms: number
  readonly offsetMinutes: number | undefined
}

/** A Time (XEP-0082 §3.3); undefined when the text is none. */
export function parseTime(text: string): TimeOfDay | undefined {
  const clock = parseClock(text, 0)
  if (clock === undefined) return undefined
  const ms = clock.ms % DAY_MS
  if (clock.end === text.length) return { ms, offsetMinutes: undefined }
  const offsetMinutes = parseOffset(text, clock.end)
  return offsetMinutes === undefined ? undefined : { ms, offsetMinutes }
}

/** A DateTime in UTC with milliseconds (XEP-0082 §3.2, §6). Throws RangeError outside of the years 0000 to 9999. */
export function formatDateTime(ms: number): string {
  const text = new Date(ms).toISOString()
  if (text.length !== 24) throw new RangeError('year needs more than four digits')
  return text
}

/** A Date in UTC (XEP-0082 §3.1). Throws RangeError outside of the years 0000 to 9999. */
export function formatDate(ms: number): string {
  return formatDateTime(ms).slice(0, 10)
}

/** A Time in UTC with milliseconds (XEP-0082 §3.3) of a moment since 1970. */
export function formatTime(ms: number): string {
  return formatDateTime(ms).slice(11)
}

/** An offset as (+|-)hh:mm, for entity time (XEP-0202), Z for none. */
export function formatOffset(minutes: number): string {
  if (minutes === 0) return 'Z'
  const size = Math.abs(minutes)
  const two = (value: number) => String(value).padStart(2, '0')
  return `${minutes < 0 ? '-' : '+'}${two(Math.floor(size / 60))}:${two(size % 60)}`
}
