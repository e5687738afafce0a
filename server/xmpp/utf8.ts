/** Where UTF-8 may be cut, and where it stops being UTF-8 (RFC 3629). */
import { isUtf8 } from 'node:buffer'

/** How many bytes before `end` begin a character that is not complete. */
export function incompleteTail(data: Uint8Array, end: number): number {
  for (let back = 1; back <= 3 && back <= end; back++) {
    const byte = data[end - back] ?? 0
    if (byte < 0x80) return 0
    if (byte >= 0xc0) return (byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2) > back ? back : 0
  }
  return 0
}

/** Length of the longest part from the start to `end` that is valid UTF-8 made of whole characters. */
export function validPrefix(data: Uint8Array, end: number): number {
  let valid = 0 // whole characters, all valid
  let low = 0 // perhaps with the beginning of another one
  let high = end + 1
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2)
    const whole = middle - incompleteTail(data, middle)
    if (whole > valid && !isUtf8(data.subarray(valid, whole))) high = middle
    else {
      low = middle
      valid = Math.max(valid, whole)
    }
  }
  return valid
}
