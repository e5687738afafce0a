/** What a component proves itself with: XEP-0114 1.6 §3, example 3. */
import { createHash, timingSafeEqual } from 'node:crypto'
import { OperatorError } from '../../server/module.ts'

/** The hash that a component of this secret sends on a stream of this id: lower-case hexadecimal SHA-1. */
export function handshakeOf(streamId: string, secret: string): string {
  return createHash('sha1')
    .update(streamId + secret, 'utf8')
    .digest('hex')
}

/** Whether `sent` is that hash; takes the same time for all of its length. */
export function knowsSecret(sent: string, streamId: string, secret: string): boolean {
  const expected = Buffer.from(handshakeOf(streamId, secret))
  const given = Buffer.from(sent)
  return given.length === expected.length && timingSafeEqual(given, expected)
}

/** A secret as configured: the text itself, or `env:NAME`. Throws OperatorError with one sentence that does not tell the secret. */
export function secretOf(domain: string, configured: string): string {
  if (!configured.startsWith('env:')) return configured
  const name = configured.slice('env:'.length)
  const value = process.env[name]
  if (value === undefined || value === '')
    throw new OperatorError(`component ${domain}: the environment variable ${name} is not set`)
  return value
}
