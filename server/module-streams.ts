/** Module API: streams, sessions, transports. Part of `module.ts`, which exports all of this. */
import type { Element } from './xmpp/element.ts'
import type { StreamCondition } from './xmpp/errors.ts'
import type { JID } from './xmpp/jid.ts'

/** What has been negotiated on a stream. */
export type StreamState = 'secure' | 'authenticated' | 'bound'
/** A feature of stream negotiation. The order follows from needs and forbids (RFC 6120 §4.3). */
export interface StreamFeature {
  readonly ns: string
  readonly streams: readonly ('c2s' | 's2s')[]
  readonly needs: readonly StreamState[]
  readonly forbids: readonly StreamState[]
  /** Inline: run before the other requests, whatever their order; also when one of these resumes a session, which ends the others. */
  readonly first?: boolean
  /** Offered inside that exchange only (and not as a top-level feature unless `alsoTopLevel`); handle() then runs inside it. */
  readonly inline?: 'sasl2' | 'bind2'
  readonly alsoTopLevel?: boolean
  /** The child of <features/> (or of <inline/>), or undefined when not offered now. */
  advertise(s: Session): Element | undefined
  /**
   * An element of `ns` sent by the client in a state that needs/forbids allow (before binding also an iq whose payload has
   * that namespace: then `el` is the iq). Not called while an earlier call on the same stream is pending: the core holds the input.
   */
  handle(s: Session, el: Element): StreamStep | void | Promise<StreamStep | void>
}
/** What the core does next; TLS, identity and resource are changed there and nowhere else. */
export interface StreamStep {
  /** Sent first (for `inline`: returned to the enclosing exchange instead). */
  readonly reply?: Element
  /** tls: start TLS, then expect a new header. restart: expect a new header. features: send the features again (SASL2). */
  readonly next?: 'tls' | 'restart' | 'features'
  /** The bare JID that this stream now acts for. */
  readonly identity?: JID
  /**
   * With `identity`: the generation of the account that was proven (AuthService). It is the flag 'generation' until the stream is bound, which
   * is refused under another one; undefined: it is enough that the account exists.
   */
  readonly generation?: string | undefined
  /** The resource to bind (prepared by the core); an older session of the same full JID is closed with conflict. */
  readonly resource?: string
  /**
   * Run these requests by the inline features of that exchange, in the given order, after identity and resource are set;
   * `finish` gets the replies and gives the element to send (or to return, when nested).
   */
  readonly inline?: {
    readonly of: 'sasl2' | 'bind2'
    readonly requests: readonly Element[]
    /** `s`: this stream's session, or the one that it goes on with. */
    finish(replies: readonly Element[], s: Session): Element | Promise<Element>
  }
  /**
   * This stream goes on with that session (XEP-0198 §5). The core detaches the session's old stream and discards its parser, waits until
   * everything received is handled, moves this stream over, then calls `reply` and, once the reply is sent, `after`: until then nothing
   * else is written. When that session has ended meanwhile it calls `refused` instead, and this stream goes on as it was.
   */
  readonly resume?: { readonly session: Bound; reply(): Element; refused(): Element; after(): void }
  /** Until a step of this feature without it, any first-level element of another feature ends the stream (policy-violation). */
  readonly exclusive?: boolean
  /** Close the stream after `reply` with this condition (too many failures); without one: an orderly end (RFC 6120 §5.4.2.2). */
  readonly close?: { readonly condition?: StreamCondition; readonly text?: string }
}
/** A stream as modules see it, from its first header on. */
export interface Session {
  /** The stream id of its first stream; unique, unguessable. */
  readonly id: string
  readonly kind: 'c2s' | 's2s'
  /** The virtual host that the client's header named. */
  readonly host: string
  /** Bare after authentication, full after binding. */
  readonly jid: JID | undefined
  readonly remoteAddress: string
  readonly transport: Transport['kind']
  /** TLS of the connection, undefined on plain ones. */
  readonly tls: TlsInfo | undefined
  /** xml:lang of the stream header, '' when none. */
  readonly lang: string
  /** `from` of the newest stream header when it is an address: a claim, not to be trusted (RFC 6120 §4.7.1). */
  readonly claimed: JID | undefined
  /** TLS could be started now: TCP without TLS, and there is a certificate for this host. */
  readonly canStartTls: boolean
  /** What the core enforces on input of this stream now; idleMs: silence after which the stream counts as idle, undefined: never. */
  readonly limits: { readonly maxBytes: number; readonly idleMs: number | undefined }
  is(state: StreamState): boolean
  /** Puts an element into the queue as it is; false when the queue is above its high-water mark or the stream has ended. */
  send(el: Element): boolean
  /** Visible to other modules: 'carbons', 'interested'. */
  setFlag(name: string, value: string | boolean | undefined): void
  flag(name: string): string | boolean | undefined
  /** Ends the stream with a stream error. */
  close(condition: StreamCondition, text?: string): void
}
/** A session with a full JID. */
export interface Bound extends Session {
  readonly jid: JID
  /** Last available presence as broadcast (no `to`), with its from; undefined: not available. */
  readonly presence: Element | undefined
  /** Priority of that presence; undefined: not available. */
  readonly priority: number | undefined
  /** Set by the presence module only. */
  setPresence(presence: Element | undefined): void
  /** False while a keeper holds the session without a stream. */
  readonly connected: boolean
  /**
   * Stanzas of the client since binding: how many have begun to be processed, and how many of those, counted from the first without
   * a gap, are delivered, stored or answered. `settled` resolves when all that have begun by now are handled; undefined: they are.
   */
  readonly input: {
    readonly received: number
    readonly handled: number
    readonly settled: Promise<void> | undefined
  }
  /** Resolves when all of them are handled; undefined: they are. */
  readonly pending: Promise<void> | undefined
  /** What a keeper counts; undefined: nobody does. */
  readonly output: OutputCount | undefined
  /** When anything was received from the client, if only a space; milliseconds since 1970. */
  readonly heardAt: number
  /**
   * Counts output and keeps the session when its stream is lost (XEP-0198); one for each session. Within Bind 2 it is told what
   * waits for the client to learn its address.
   */
  setKeeper(keeper: Keeper | undefined): void
  /** Puts an element into the queue past the keeper: for what it sends again, and for its own elements. */
  write(el: Element): boolean
  /** Ends a session that has no stream now. */
  end(reason: string): void
}
/**
 * Stanzas for a client since they are counted, and how many of them it has confirmed. While there is no stream presence may take the place of
 * older presence that waits, so that a position is of use only when it was read while the session was connected, until it is not.
 */
export interface OutputCount {
  readonly sentCount: number
  readonly confirmedCount: number
  /** Resolves when the client has confirmed enough to be sent many more at once, or is gone; undefined: it has, or there is no stream. */
  room(): Promise<void> | undefined
}
/** Holds what was sent to a client until the client has confirmed it. */
export interface Keeper extends OutputCount {
  /** A stanza for the client, in order, also while there is no stream. The element may be part of a larger input: keep its text. */
  sent(stanza: Element): void
  /** The stream is gone; reason as in 'session:closed'. True: the session stays until it is resumed or `end` is called. */
  keep(reason: string): boolean
  /** The server stops: asks the client. Resolves when it has confirmed everything; undefined: it has. */
  settle(): Promise<void> | undefined
  /** The session is over: what the client has not confirmed, oldest first. It goes on its way: other resources, offline store, sender. */
  rest(reason: string): Iterable<Element>
  /** The session was over already, and something came for it, which goes on its way. */
  missed(stanza: Element): void
}
/** The bound sessions of the host. */
export interface SessionTable {
  /** All sessions of an account, by its localpart; stable array, do not keep. */
  of(local: string): readonly Bound[]
  get(jid: JID): Bound | undefined
  all(): Iterable<Bound>
  /** The sessions that a message to this address goes to now (RFC 6121 §8.5.4): one for an exact full JID, else by priority. */
  takers(to: JID, type: string | undefined): readonly Bound[]
  readonly count: number
}
/** What is known of the TLS layer of a connection. */
export interface TlsInfo {
  /** 'TLSv1.2' or 'TLSv1.3'. */
  readonly protocol: string
  readonly cipher: string
  /** Channel binding data; undefined when this connection has none of that type. */
  channelBinding(type: 'tls-exporter' | 'tls-server-end-point'): Uint8Array | undefined
  /** The client's certificate when one was sent and its chain was verified, DER; undefined otherwise. */
  clientCertificate(): Uint8Array | undefined
}

/** One connection below a stream. Calls of the sink are never made from within a call of the transport. */
export interface Transport {
  readonly kind: 'tcp' | 'websocket'
  /** stream: a byte stream with one long document (RFC 6120). frames: one element a frame (RFC 7395). */
  readonly framing: 'stream' | 'frames'
  readonly remoteAddress: string
  readonly tls: TlsInfo | undefined
  /** Bytes written but not yet taken by the kernel. */
  readonly buffered: number
  start(sink: TransportSink): void
  /** stream: any text. frames: exactly one element. False above the transport's high-water mark; `drain` follows. */
  write(text: string): boolean
  pause(): void
  resume(): void
  /**
   * frames: how many bytes one message may have from now on; a larger one ends the connection. The stream calls it when its
   * limits change, so that nobody makes us keep more than the parser would take.
   */
  setMaxFrame?(bytes: number): void
  /** Upgrades to TLS as server; tcp only. `host` picks the default certificate. */
  startTls(host: string): void
  /** Sends what is buffered, then closes. */
  end(): void
  /** Closes at once. */
  destroy(): void
}
/** Events of a transport. */
export interface TransportSink {
  data(chunk: Uint8Array | string): void
  drain(): void
  /** TLS is up after startTls (`transport.tls` is set). */
  secured(): void
  /** The peer will send nothing more (half-close). */
  ended(): void
  /** Gone; called exactly once. */
  closed(error: Error | undefined): void
}
