/** A TCP relay for tests that can cut, freeze or refuse connections in the middle of an operation. Loopback only. */
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import type { Socket } from 'node:net'

/** Whether bytes go through. */
export type Check = (bytes: Buffer) => boolean | Promise<boolean>

/** A running relay. */
export interface TcpProxy {
  /** Where to connect to. */
  readonly port: number
  /** Port that new connections go to. */
  target: number
  /**
   * Called with what a client sent, before it is passed on: false, and the bytes do not go through, both sides are cut; a
   * promise, and the connection waits for it.
   */
  onRequest: Check | undefined
  /** The same for what the server answered: cut here, the operation was done and nobody knows. */
  onAnswer: Check | undefined
  /** While true nothing passes in either direction; connections stay open, new ones are accepted. */
  freeze(on: boolean): void
  /** Resolves when no client is connected. */
  idle(): Promise<void>
  /** Cuts all connections. */
  cut(): void
  /** While true new connections are cut at once. */
  refuse(on: boolean): void
  [Symbol.asyncDispose](): Promise<void>
}

/** Starts a relay on a free port to this port. */
export async function startTcpProxy(port: number): Promise<TcpProxy> {
  const sockets = new Set<Socket>()
  const clients = new Set<Socket>()
  let frozen = false
  let refusing = false

  function track(socket: Socket): Socket {
    sockets.add(socket)
    socket.setNoDelay(true)
    // Cut connections are what this is for; who uses them sees the error.
    socket.on('error', () => socket.destroy())
    socket.on('close', () => sockets.delete(socket))
    if (frozen) socket.pause()
    return socket
  }

  const server = createServer((incoming) => {
    const client = track(incoming)
    if (refusing) {
      client.destroy()
      return
    }
    clients.add(client)
    client.on('close', () => clients.delete(client))
    const upstream = track(connect(proxy.target, '127.0.0.1'))
    const relay = (from: Socket, to: Socket, check: () => Check | undefined): void => {
      const pass = (bytes: Buffer, passes: boolean): void => {
        if (!passes) {
          client.destroy()
          upstream.destroy()
        } else if (to.writable) to.write(bytes)
      }
      from.on('data', (bytes: Buffer) => {
        const passes = check()?.(bytes) ?? true
        if (typeof passes === 'boolean') {
          pass(bytes, passes)
          return
        }
        from.pause()
        void passes.then((later) => {
          pass(bytes, later)
          if (!frozen) from.resume()
        })
      })
      from.on('close', () => to.destroy())
    }
    relay(client, upstream, () => proxy.onRequest)
    relay(upstream, client, () => proxy.onAnswer)
  })

  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')

  const proxy: TcpProxy = {
    port: address.port,
    target: port,
    onRequest: undefined,
    onAnswer: undefined,
    freeze(on) {
      frozen = on
      for (const socket of sockets) {
        if (on) socket.pause()
        else socket.resume()
      }
    },
    async idle() {
      // Not events.once(), which rejects when the connection ends with an error.
      for (const client of clients) await new Promise((resolve) => client.once('close', resolve))
    },
    cut() {
      for (const socket of sockets) socket.destroy()
    },
    refuse(on) {
      refusing = on
    },
    async [Symbol.asyncDispose]() {
      proxy.cut()
      server.close()
      await once(server, 'close')
    },
  }
  return proxy
}
