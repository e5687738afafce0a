/** Types for the part of @xmpp/client (https://github.com/xmppjs/xmpp.js) that the tests use; the package ships none. */
declare module '@xmpp/client' {
  import type { Element } from 'ltx'

  export interface Client {
    options: { service: string; domain: string }
    readonly status: string
    readonly jid: { toString(): string } | null
    start(): Promise<unknown>
    stop(): Promise<unknown>
    send(element: Element): Promise<void>
    on(event: string, listener: (value: unknown) => void): void
    readonly reconnect: { reconnect(): Promise<void>; stop(): void }
    readonly streamManagement: {
      on(event: 'ack' | 'fail', listener: (stanza: Element) => void): void
      on(event: 'resumed', listener: () => void): void
      requestAckDebounce: number
    }
  }
  export function client(options: {
    readonly service: string
    readonly domain: string
    readonly username: string
    readonly password: string
    readonly resource?: string
  }): Client
  export function xml(
    name: string,
    attrs?: Readonly<Record<string, string>>,
    ...children: readonly (Element | string)[]
  ): Element
}
