/** WebSockets in tests: clients by library and by hand. */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { type RawData, type ClientOptions, WebSocket } from 'ws'
import websocket from '../../modules/websocket/index.ts'
import type { Sink } from './sink.ts'
import { WebServer } from './web.ts'

/** The key of the example in RFC 6455 §1.3. */
const KEY = 'dGhlIHNhbXBsZSBub25jZQ=='

/** A handshake that is right unless `change` says otherwise (undefined: without that header). */
export function handshake(
  change: Readonly<Record<string, string | undefined>> = {},
  path = '/xmpp-websocket',
): string {
  const headers = {
    Host: 'a.example',
    Connection: 'Upgrade',
    Upgrade: 'websocket',
    'Sec-WebSocket-Key': KEY,
    'Sec-WebSocket-Version': '13',
    'Sec-WebSocket-Protocol': 'xmpp',
    ...change,
  }
  const lines = Object.entries(headers).flatMap(([name, value]) =>
    value === undefined ? [] : `${name}: ${value}`,
  )
  return `GET ${path} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`
}

/** RFC 6455 §5.2, from a client (masked) unless told otherwise. */
export function frame(
  opcode: number,
  payload: string | Buffer,
  opts: { fin?: boolean; mask?: boolean; rsv?: number } = {},
): Buffer {
  const body = Buffer.from(payload)
  const mask = opts.mask === false ? undefined : randomBytes(4)
  const length = body.length < 126 ? [body.length] : [126, Math.floor(body.length / 256), body.length % 256]
  const first = (opts.fin === false ? 0 : 128) + (opts.rsv ?? 0) + opcode
  const head = Buffer.from([first, (length[0] ?? 0) + (mask === undefined ? 0 : 128), ...length.slice(1)])
  if (mask === undefined) return Buffer.concat([head, body])
  // oxlint-disable-next-line no-bitwise -- RFC 6455 §5.3
  return Buffer.concat([head, mask, body.map((byte, i) => byte ^ (mask[i % 4] ?? 0))])
}
/** A text message as the client library gives it. */
export const textOf = (data: RawData): string => (data instanceof Buffer ? data.toString() : 'not a Buffer')

/** Opcodes (RFC 6455 §5.2). */
export const OPCODE = { TEXT: 1, BINARY: 2, CLOSE: 8, PING: 9, PONG: 10 } as const

/** An HTTP server with the module, connections without TLS allowed. */
export async function startWebSocket(
  config: object = {},
  settings: Parameters<typeof WebServer.start>[0] = {},
) {
  const web = await WebServer.start(settings)
  const loaded = await web.load('', [websocket], { websocket: { plaintext: 'always', ...config } })
  const open: WebSocket[] = []
  return {
    web,
    ...loaded,
    /** A client and its connection here. */
    async connect(opts: ClientOptions = {}, path = '/xmpp-websocket', tls = false) {
      const index = loaded.accepted.sinks.length
      const url = `${tls ? 'wss' : 'ws'}://127.0.0.1:${web.port(tls ? 1 : 0)}${path}`
      const headers = { host: 'a.example', ...opts.headers }
      const options: ClientOptions & { servername: string } = {
        rejectUnauthorized: false,
        servername: 'a.example',
        ...opts,
        headers,
      }
      const ws = new WebSocket(url, ['xmpp'], options)
      open.push(ws)
      await once(ws, 'open')
      return { ws, sink: await loaded.accepted.sink(index) }
    },
    /** The same by hand: after the handshake the test writes frames. */
    async raw(): Promise<{ socket: Socket; sink: Sink; received: () => Buffer }> {
      const index = loaded.accepted.sinks.length
      const socket = web.dial()
      const chunks: Buffer[] = []
      socket.on('data', (chunk: Buffer) => chunks.push(chunk))
      socket.write(handshake())
      const sink = await loaded.accepted.sink(index)
      const received = () => {
        const all = Buffer.concat(chunks)
        return all.subarray(all.indexOf('\r\n\r\n') + 4)
      }
      return { socket, sink, received }
    },
    async [Symbol.asyncDispose]() {
      for (const ws of open) ws.terminate()
      await web[Symbol.asyncDispose]()
    },
  }
}

/** The status code in a close frame that the server sent; undefined when there is none (yet). */
export function closeCode(received: Buffer): number | undefined {
  const at = received.lastIndexOf(128 + OPCODE.CLOSE)
  return at < 0 || received.length < at + 4 ? undefined : received.readUInt16BE(at + 2)
}
