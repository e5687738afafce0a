/** Bodies of HTTP requests, bounded by what the route allows. */
import type { IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'
import type { FastifyReply } from 'fastify'
import type { Route } from './http-routes.ts'

/** A refusal that the client gets with its status and text. */
class BodyError extends Error {
  readonly statusCode: number
  constructor(statusCode: number, message: string, cause?: unknown) {
    super(message, { cause })
    this.statusCode = statusCode
  }
}

/**
 * The body as the route wants it: a Buffer, or a Readable that fails beyond the limit. Throws an error with statusCode 413 when it
 * is (or says that it is) too large, 400 when it does not arrive whole. After a refusal the connection is closed, so that nobody
 * has to read the rest.
 */
export async function readBody(
  raw: IncomingMessage,
  reply: FastifyReply,
  { maxBody, body }: Pick<Route, 'maxBody' | 'body'>,
): Promise<Buffer | Readable> {
  const length = raw.headers['content-length']
  const announced = length === undefined ? undefined : Number(length)
  if (
    announced !== undefined
      ? announced > maxBody
      : maxBody === 0 && raw.headers['transfer-encoding'] !== undefined
  ) {
    reply.header('connection', 'close')
    throw tooLarge(maxBody)
  }
  const chunks = limited(raw, maxBody, () => void reply.header('connection', 'close'))
  if (body === 'stream') return Readable.from(chunks, { objectMode: false })
  const all: Uint8Array[] = []
  for await (const chunk of chunks) all.push(chunk)
  return Buffer.concat(all)
}

const tooLarge = (maxBody: number): BodyError =>
  new BodyError(413, maxBody === 0 ? 'No body is expected here' : `The body is larger than ${maxBody} bytes`)

async function* limited(
  raw: IncomingMessage,
  maxBody: number,
  refused: () => void,
): AsyncGenerator<Uint8Array> {
  let size = 0
  try {
    for await (const chunk of raw) {
      if (!(chunk instanceof Uint8Array)) continue // requests have no encoding set, so there is nothing else
      size += chunk.length
      if (size > maxBody) break
      yield chunk
    }
  } catch (cause) {
    throw new BodyError(400, 'The body did not arrive', cause)
  }
  if (size <= maxBody) return
  refused()
  throw tooLarge(maxBody)
}
