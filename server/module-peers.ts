/** Module API: domains that somebody else serves (components, other servers), listeners and streams of a module's own. Part of `module.ts`, which exports all of this. */
import type { StanzaEvent } from './module.ts'
import type { TlsInfo, Transport } from './module-streams.ts'
import type { Element } from './xmpp/element.ts'
import type { StreamCondition } from './xmpp/errors.ts'

/**
 * Serves a domain: gets each stanza for it, in the order sent (RFC 6120 §10.1), all in namespace jabber:client. Throws StanzaError, or
 * rejects with one: the sender gets it. A promise is waited for by the sender's next request, not by its next message.
 */
export type DomainTaker = (e: StanzaEvent) => void | Promise<void>

/** The domains that are no virtual hosts. */
export interface Domains {
  /** From now on stanzas to this domain go to `taker`. Throws when it is a virtual host, or taken already. */
  take(domain: string, taker: DomainTaker): TakenDomain
  /** Takes what is for domains that nobody else serves. Throws when somebody does already. */
  takeOthers(taker: DomainTaker): Disposable
  /** Who serves the domain: a virtual host, somebody by `take`, nobody but perhaps `takeOthers`. */
  servedBy(domain: string): 'host' | 'taker' | undefined
  /**
   * A stanza from there: through 'remote:in', then to its addressee like any other. The caller has made sure that the sender may use
   * this `from`. Settles when it is delivered, stored or answered. Throws StanzaError when it is no proper stanza to anybody, JidError
   * when an address is missing or none.
   */
  receive(stanza: Element): void | Promise<void>
}
/** A domain that a module serves; disposing gives it up. */
export interface TakenDomain extends Disposable {
  /** Whether it stands among the items (XEP-0030) of the virtual host that it is below; not so at first. */
  setListed(listed: boolean): void
}

/** Where a module listens. */
export interface ListenOptions {
  readonly address: string
  /** 0 takes a free one. */
  readonly port: number
  /** direct: TLS from the first byte, with the certificates of the virtual hosts. */
  readonly tls: 'direct' | 'none'
  /** Connections of one address that may be within their TLS handshake at the same time. */
  readonly maxPerAddress?: number
}
/** A port that a module listens on; closed at unload. Streams stay when it is closed. */
export interface ModuleListener {
  readonly port: number
  close(): Promise<void>
}

/** Limits on streams of a module's own. */
export interface PeerLimits {
  /** Largest first-level element in bytes, before and after `PeerStream.establish`. */
  readonly maxBytesBefore: number
  readonly maxBytes: number
  /** Nesting of elements. */
  readonly maxDepth: number
  /** Input per second, averaged, and above that in one go; 0: no limit. */
  readonly bytesPerSecond: number
  readonly burstBytes: number
  /** Output that is kept while the peer does not read; more ends the stream with resource-constraint. */
  readonly maxQueueBytes: number
  /** From the connection to `establish`. */
  readonly handshakeTimeoutMs: number
  /** Open connections of one address, and new ones within a minute. */
  readonly maxPerAddress: number
  readonly maxNewPerMinute: number
}

/** How a module runs its streams. What `header` and `element` throw ends the stream (StreamError; anything else is our fault). */
export interface PeerStreamRules {
  /** Namespace of stanzas on the wire (RFC 6120 §4.8.2); the module sees and sends jabber:client. */
  readonly contentNs: string
  /** Whom errors are from when no header was sent. */
  readonly name: string
  readonly limits: PeerLimits
  /** The stream header; answered by `sendHeader`. */
  header(s: PeerStream, root: Element): void
  /**
   * A first-level element. Before `establish` a promise holds the next one. Afterwards the next one begins at once, until many are
   * waited for; then the peer is not read.
   */
  element(s: PeerStream, el: Element): void | Promise<void>
  /**
   * The stream is over; the reason as in 'session:closed'. `unsent`: stanzas that were accepted by `send` and have not left this
   * machine, oldest first.
   */
  closed(s: PeerStream, reason: string, unsent: Iterable<Element>): void
}
/** The streams that a module runs. All end with system-shutdown at unload, when what they have sent is handled. */
export interface PeerStreams {
  readonly size: number
  /** Runs a stream on a new connection. */
  accept(transport: Transport): PeerStream
  /** For new streams, and for open ones where they are looked at again and again. */
  setLimits(limits: PeerLimits): void
  /** Ends all as unload does, for a module that has to work on what they leave. */
  close(): Promise<void>
}
/** One stream, without features: components (XEP-0114). */
export interface PeerStream {
  /** In our header (RFC 6120 §4.7.3): unique, unguessable. */
  readonly id: string
  readonly remoteAddress: string
  readonly tls: TlsInfo | undefined
  /** Default namespace of the peer's header. */
  readonly peerContentNs: string
  readonly open: boolean
  /** When something was last received, in milliseconds since 1970. */
  readonly lastReceivedAt: number
  /** Answers the header; the id is added. */
  sendHeader(attrs: { readonly from?: string; readonly to?: string }): void
  /** The peer is who it says it is: no time limit any more, and the larger limits. */
  establish(): void
  /** Puts an element into the queue; false when the stream has ended. */
  send(el: Element): boolean
  /** Ends the stream, with a stream error when there is a condition. */
  close(condition?: StreamCondition, text?: string): void
}
