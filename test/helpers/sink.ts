/** The other side of a transport in tests: records what happens, and waits for events instead of time. */
import type { Log, Transport, TransportSink } from '../../server/module.ts'

/** Records the events of one transport. */
export class Sink implements TransportSink {
  readonly transport: Transport
  /** In order: 'data', 'drain', 'secured', 'ended', 'closed'. */
  readonly events: string[] = []
  /** Each chunk as text. */
  readonly chunks: string[] = []
  error: Error | undefined
  #check: (() => void)[] = []
  #inCall = false
  /** True when an event came from within a call of the transport. */
  reentered = false

  constructor(transport: Transport) {
    this.transport = transport
    this.call(() => transport.start(this))
  }

  /** All that was received. */
  get text(): string {
    return this.chunks.join('')
  }

  /** Calls the transport, noting whether it calls back at once. */
  call<T>(fn: () => T): T {
    this.#inCall = true
    try {
      return fn()
    } finally {
      this.#inCall = false
    }
  }

  /** Resolves as soon as the test is true; it is asked again after each event. */
  async until(test: () => boolean): Promise<void> {
    while (!test()) await new Promise<void>((resolve) => this.#check.push(resolve))
  }

  data(chunk: Uint8Array | string): void {
    this.chunks.push(typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString())
    this.#happened('data')
  }
  drain(): void {
    this.#happened('drain')
  }
  secured(): void {
    this.#happened('secured')
  }
  ended(): void {
    this.#happened('ended')
  }
  closed(error: Error | undefined): void {
    this.error = error
    this.#happened('closed')
  }

  #happened(event: string): void {
    if (this.#inCall) this.reentered = true
    this.events.push(event)
    const check = this.#check
    this.#check = []
    for (const resolve of check) resolve()
  }
}

/** Collects transports as they are accepted. */
export class Accepted {
  readonly sinks: Sink[] = []
  #waiting: (() => void)[] = []

  readonly accept = (transport: Transport): void => {
    this.sinks.push(new Sink(transport))
    for (const resolve of this.#waiting.splice(0)) resolve()
  }

  /** The sink of connection number `index`, as soon as there is one. */
  async sink(index = 0): Promise<Sink> {
    for (;;) {
      const sink = this.sinks[index]
      if (sink !== undefined) return sink
      await new Promise<void>((resolve) => this.#waiting.push(resolve))
    }
  }
}

/** A log that keeps its lines. */
export function recordingLog(): Log & { readonly lines: string[] } {
  const lines: string[] = []
  const line = (level: string) => (message: string, fields?: object) => {
    lines.push(`${level} ${message}${fields === undefined ? '' : ` ${JSON.stringify(fields)}`}`)
  }
  return { lines, debug: line('debug'), info: line('info'), warn: line('warn'), error: line('error') }
}
