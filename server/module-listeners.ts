/** Listeners that modules open (Ctx.listen). */
import type { Clock } from './clock.ts'
import { Doors } from './connection-limits.ts'
import type { ListenOptions, Log, ModuleListener, Transport } from './module.ts'
import { type Listener, listenTcp } from './net.ts'
import type { Tls } from './tls.ts'

/** All of them. */
export class ModuleListeners {
  /** Ports in use, by module. */
  readonly ports = new Map<string, readonly number[]>()
  readonly #open = new Set<Listener>()
  readonly #tls: Tls
  readonly #clock: Clock
  readonly #log: Log

  constructor(tls: Tls, clock: Clock, log: Log) {
    this.#tls = tls
    this.#clock = clock
    this.#log = log
  }

  /** Rejects with an Error of one clear sentence when it cannot listen. */
  async listen(
    module: string,
    { address, port, tls, maxPerAddress = 100 }: ListenOptions,
    accept: (transport: Transport) => void,
  ): Promise<ModuleListener> {
    const limits = { maxPerAddress, maxNewPerMinute: Infinity }
    const doors = new Doors(limits, () => this.#clock.now())
    const opts = { address, port, tls, purpose: 'direct', doors } as const
    const listener = await listenTcp(opts, this.#tls, accept, this.#log)
    this.#open.add(listener)
    this.ports.set(module, [...(this.ports.get(module) ?? []), listener.port])
    return {
      port: listener.port,
      close: async () => {
        if (!this.#open.delete(listener)) return
        await listener.close()
        const left = (this.ports.get(module) ?? []).filter((other) => other !== listener.port)
        this.ports.set(module, left)
      },
    }
  }

  /** Accepts nothing more. */
  async close(): Promise<void> {
    await Promise.all(Array.from(this.#open, (listener) => listener.close()))
    this.#open.clear()
    this.ports.clear()
  }
}
