/** A connection without a network: takes and forgets everything it is given. */
import type { TlsInfo, Transport, TransportSink } from '../../server/module.ts'

/** One end of it; `feed` is what the client sends. */
export class NullTransport implements Transport {
  readonly kind = 'tcp' as const
  readonly framing = 'stream' as const
  readonly remoteAddress = '192.0.2.1'
  readonly tls: TlsInfo | undefined = undefined
  readonly buffered = 0
  #sink: TransportSink | undefined

  start(sink: TransportSink): void {
    this.#sink = sink
  }
  feed(text: string): void {
    this.#sink?.data(Buffer.from(text))
  }
  write(): boolean {
    return true
  }
  pause(): void {
    // nothing comes by itself
  }
  resume(): void {
    // nothing comes by itself
  }
  startTls(): void {
    throw new Error('no TLS here')
  }
  end(): void {
    this.destroy()
  }
  destroy(): void {
    const sink = this.#sink
    this.#sink = undefined
    if (sink !== undefined) queueMicrotask(() => sink.closed(undefined))
  }
}
