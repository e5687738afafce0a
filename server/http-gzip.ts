/** Static files compressed once and kept in memory, for files that do not change and are large: those of the web client. */
import { readFile, stat } from 'node:fs/promises'
import { extname, join } from 'node:path'
import { promisify } from 'node:util'
import { gzip } from 'node:zlib'
import type { FastifyReply, FastifyRequest } from 'fastify'

const TYPES: ReadonlyMap<string, string> = new Map([
  ['.css', 'text/css; charset=utf-8'],
  ['.html', 'text/html; charset=utf-8'],
  ['.js', 'text/javascript; charset=utf-8'],
  ['.json', 'application/json; charset=utf-8'],
  ['.svg', 'image/svg+xml'],
  ['.ttf', 'font/ttf'],
  ['.wasm', 'application/wasm'],
])
const MIN_FILE_BYTES = 1024
const MAX_FILE_BYTES = 8 * 1024 * 1024
const MAX_CACHE_BYTES = 16 * 1024 * 1024
// No dot at the start of a segment, so neither hidden files nor ways out of the folder.
const PLAIN_PATH = /^[\w@+-][\w.@+-]*(?:\/[\w@+-][\w.@+-]*)*$/

interface Packed {
  readonly etag: string
  readonly body: Buffer
}

/** Compressed files, at most 16 MiB of them. */
export class GzipCache {
  // By path, time and size, so that a changed file is another one. Promises: a file is compressed once at a time.
  readonly #packed = new Map<string, Promise<Packed>>()
  #bytes = 0

  /**
   * Answers with the compressed file. False, and nothing done, when it should be sent as it is: the client wants it so, or the
   * file is small, large, of another kind, or not there.
   */
  async send(req: FastifyRequest, reply: FastifyReply, folder: string, file: string): Promise<boolean> {
    reply.header('vary', 'accept-encoding')
    const type = TYPES.get(extname(file))
    if (type === undefined || !PLAIN_PATH.test(file)) return false
    if (req.headers.range !== undefined || !acceptsGzip(req.headers['accept-encoding'])) return false
    const packed = await this.#get(join(folder, file))
    if (packed === undefined) return false
    const { etag, body } = packed
    reply.headers({ etag, 'content-type': type })
    if (req.headers['if-none-match']?.includes(etag) === true) await reply.code(304).send()
    else await reply.header('content-encoding', 'gzip').send(body)
    return true
  }

  async #get(path: string): Promise<Packed | undefined> {
    const { mtimeMs, size } = await stat(path).catch(() => ({ mtimeMs: 0, size: 0 })) // not there: sendFile says so
    if (size < MIN_FILE_BYTES || size > MAX_FILE_BYTES) return undefined
    const key = `${path} ${mtimeMs} ${size}`
    const known = this.#packed.get(key)
    if (known !== undefined) return await known
    const etag = `"${size.toString(16)}-${Math.floor(mtimeMs).toString(16)}-gzip"`
    const made = pack(path, etag)
    this.#packed.set(key, made)
    try {
      const { body } = await made
      this.#bytes += body.length
      if (this.#bytes > MAX_CACHE_BYTES) this.#clear()
    } catch (error) {
      this.#packed.delete(key)
      throw error
    }
    return await made
  }

  #clear(): void {
    this.#packed.clear()
    this.#bytes = 0
  }
}

async function pack(path: string, etag: string): Promise<Packed> {
  return { etag, body: await promisify(gzip)(await readFile(path), { level: 9 }) }
}

/** RFC 9110 §12.5.3, without the wildcard. */
function acceptsGzip(header: string | readonly string[] | undefined): boolean {
  const text = typeof header === 'string' ? header : (header ?? []).join(',')
  return text.split(',').some((entry) => {
    const [name = '', quality = 'q=1'] = entry.split(';')
    return name.trim().toLowerCase() === 'gzip' && Number(quality.trim().slice(2)) > 0
  })
}
