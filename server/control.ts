/**
 * The control socket: how the command line asks a running server to do something. A local socket next to the data that
 * only the server's user may open; one JSON line each way. Not a network interface.
 */
import { mkdir, rm } from 'node:fs/promises'
import { connect, createServer, type Socket } from 'node:net'
import { dirname } from 'node:path'
import type { Log } from './module.ts'
import { OperatorError } from './operator-error.ts'

/** What is asked. Unknown commands are refused. */
export interface ControlRequest {
  readonly command: string
  readonly args: readonly string[]
}
/** The answer: `lines` for the user, or an error for the user. */
export type ControlAnswer = { readonly lines: readonly string[] } | { readonly error: string }

/** An answer may list all accounts. */
const MAX_ANSWER_CHARS = 64 * 1024 * 1024
const MAX_REQUEST_CHARS = 64 * 1024
const ANSWER_TIMEOUT_MS = 60_000

/** Serves requests until disposed. A socket left by a dead process is replaced; one of a living process is an error. */
export async function serveControl(
  path: string,
  answer: (request: ControlRequest) => Promise<ControlAnswer>,
  log: Log,
): Promise<AsyncDisposable> {
  if (await isServed(path)) throw new OperatorError(`another server runs on ${dirname(path)}`)
  await mkdir(dirname(path), { recursive: true })
  await rm(path, { force: true })
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    socket.on('error', () => socket.destroy())
    void handle(socket, answer, log)
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) =>
      reject(new OperatorError(`cannot make the control socket ${path}: ${cause.message}`, { cause })),
    )
    // Ours alone from its first moment on: the name is bound within this call.
    const mask = process.umask(0o177)
    try {
      server.listen(path, resolve)
    } finally {
      process.umask(mask)
    }
  })
  return {
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

async function handle(
  socket: Socket,
  answer: (request: ControlRequest) => Promise<ControlAnswer>,
  log: Log,
): Promise<void> {
  try {
    const line = await readLine(socket, MAX_REQUEST_CHARS)
    const request = parseRequest(line)
    socket.end(`${JSON.stringify(await answer(request))}\n`)
  } catch (error) {
    log.warn('control request failed', { err: error })
    if (!socket.destroyed)
      socket.end(`${JSON.stringify({ error: 'the server could not do this; see its log' })}\n`)
  }
}

function parseRequest(line: string): ControlRequest {
  let request: unknown
  try {
    request = JSON.parse(line)
  } catch {
    throw new Error('not JSON') // the parser's own words would quote the line, and a password with it, in the log
  }
  if (!isRequest(request)) throw new Error('not a request')
  return request
}

function isRequest(value: unknown): value is ControlRequest {
  return (
    typeof value === 'object' &&
    value !== null &&
    'command' in value &&
    typeof value.command === 'string' &&
    'args' in value &&
    Array.isArray(value.args) &&
    value.args.every((arg) => typeof arg === 'string')
  )
}

/** The first line; rejects when the connection ends before it, or when it is too long. */
function readLine(socket: Socket, maxChars: number): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = ''
    socket.setEncoding('utf8')
    const read = (chunk: Buffer | string): void => {
      const part = chunk.toString()
      const end = part.indexOf('\n')
      text += end < 0 ? part : part.slice(0, end)
      if (end < 0 && text.length <= maxChars) return
      socket.off('data', read)
      socket.resume() // what follows is dropped
      if (end >= 0) resolve(text)
      else socket.destroy()
    }
    socket.on('data', read)
    socket.on('close', () => reject(new Error('connection closed')))
  })
}

/** Asks the server that runs on this data; undefined when none does. Throws when it does not answer. */
export async function askServer(path: string, request: ControlRequest): Promise<ControlAnswer | undefined> {
  const socket = await open(path)
  if (socket === undefined) return undefined
  try {
    socket.setTimeout(ANSWER_TIMEOUT_MS, () => socket.destroy())
    socket.write(`${JSON.stringify(request)}\n`)
    return parseAnswer(await readLine(socket, MAX_ANSWER_CHARS))
  } catch (cause) {
    throw new OperatorError('the running server gave no answer', { cause })
  } finally {
    socket.destroy()
  }
}

function parseAnswer(line: string): ControlAnswer {
  const answer: unknown = JSON.parse(line)
  if (typeof answer === 'object' && answer !== null && 'lines' in answer && Array.isArray(answer.lines))
    return { lines: answer.lines.map(String) }
  if (typeof answer === 'object' && answer !== null && 'error' in answer)
    return { error: String(answer.error) }
  throw new Error('not an answer')
}

async function isServed(path: string): Promise<boolean> {
  const socket = await open(path)
  socket?.destroy()
  return socket !== undefined
}

function open(path: string): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = connect(path)
    socket.once('connect', () => resolve(socket))
    socket.on('error', () => resolve(undefined)) // later errors end in 'close'
  })
}
