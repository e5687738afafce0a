/** Module API: what the core lends to modules (disco registry, timers, metrics, log, HTTP). Part of `module.ts`, which exports all of this. */
import type { IncomingMessage } from 'node:http'
import type { Duplex, Readable } from 'node:stream'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { AddOptions } from './jobs/contract.ts'
import type { Target } from './module.ts'
import type { TlsInfo } from './module-streams.ts'
import type { Element } from './xmpp/element.ts'
import type { JID } from './xmpp/jid.ts'

/** What this host (or account) says of itself. Also the registry that the disco module answers from. */
export interface Disco {
  feature(on: Target, ns: string): void
  identity(on: Target, category: string, type: string, name?: string): void
  /** XEP-0128 extension form, built for each answer; undefined leaves it out. */
  form(on: Target, build: () => Element | undefined): void
  items(
    on: Target,
    node: string,
    list: (asker: JID, to: JID) => AsyncIterable<DiscoItem> | Iterable<DiscoItem>,
  ): void
  /** A node with an answer of its own; return undefined when the node does not exist (now). */
  node(
    on: Target,
    match: (node: string) => boolean,
    info: (node: string, asker: JID, to: JID) => DiscoInfo | undefined | Promise<DiscoInfo | undefined>,
  ): void
  /** What stands in the registry now, sorted; without nodes. */
  info(on: Target): DiscoInfo
  /** The info of a node, undefined when no module knows it. */
  nodeInfo(on: Target, node: string, asker: JID, to: JID): Promise<DiscoInfo | undefined>
  /** The item lists of a node ('' for none), undefined when no module knows it. */
  itemLists(
    on: Target,
    node: string,
  ): readonly ((asker: JID, to: JID) => AsyncIterable<DiscoItem> | Iterable<DiscoItem>)[] | undefined
  /** Called when features or identities of a target changed (caps recomputes). */
  onChange(fn: () => void): void
}
/** One item of a disco#items answer (XEP-0030 §4). */
export interface DiscoItem {
  readonly jid: JID
  readonly node?: string
  readonly name?: string
}
/** A disco#info answer (XEP-0030 §3). */
export interface DiscoInfo {
  readonly identities: readonly {
    readonly category: string
    readonly type: string
    readonly name?: string
    readonly lang?: string
  }[]
  readonly features: readonly string[]
  readonly forms: readonly Element[]
}
/** A callback never overlaps itself; its errors are logged. Cancelled at unload. */
export interface Timers {
  after(ms: number, fn: () => void | Promise<void>): Disposable
  every(ms: number, fn: () => void | Promise<void>): Disposable
  /** Once a day per store, guarded by a lease. */
  daily(name: string, fn: () => Promise<void>): Disposable
}
export type { AddOptions, JobRun } from './jobs/contract.ts'
/** How jobs of one queue are done; what is left out has its default. The same in all processes. */
export interface JobOptions {
  /** Runs of one job at most; default 5. */
  readonly attempts?: number
  /** Milliseconds before the second run, doubled for each further one up to `maxMs`, less up to a half by chance; default 1 s and 5 min. */
  readonly backoff?: { readonly firstMs: number; readonly maxMs: number }
  /** Jobs of this queue that one process works on at the same time; default 4. */
  readonly concurrency?: number
  /** A run that takes longer is aborted and counts as failed; default 30 s. */
  readonly timeoutMs?: number
  /** Jobs that may wait, more are refused and counted; default 10 000. */
  readonly maxWaiting?: number
}
/** Work for later, tried again when it fails. */
export interface JobQueue<T> {
  /** Never throws and never waits. With a key: one waits at most, see AddOptions. */
  add(data: T, opts?: AddOptions): void
}
/** Exported as hermod_<module>_<name> with label host. */
export interface Metrics {
  counter(name: string, help: string): { add(n?: number): void }
  gauge(name: string, help: string, read: () => number): void
  histogram(name: string, help: string, unit: 'seconds' | 'bytes' | 'items'): { observe(v: number): void }
}
/** Structured log; the module and host are added by the core. Never a secret, never a stanza's body. */
export type Log = Readonly<
  Record<'debug' | 'info' | 'warn' | 'error', (message: string, fields?: object) => void>
>

/** The shared HTTP(S) server, as one module sees it. Routes of a host-scoped module answer for its host only (Host header). */
export interface Http {
  route(r: {
    readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE' | 'OPTIONS'
    /** fastify's path syntax. */
    readonly path: string
    /** Largest request body in bytes; 0 (default) refuses bodies. */
    readonly maxBody?: number
    /** What `req.body` is: a Buffer (default), or a Readable that fails with a larger body. */
    readonly body?: 'buffer' | 'stream'
    handle(req: FastifyRequest, reply: FastifyReply): HttpBody | Promise<HttpBody>
  }): void
  /** WebSocket and other upgrades on a path. `secure`: TLS data of the connection, if any. */
  upgrade(
    path: string,
    handle: (req: IncomingMessage, socket: Duplex, head: Buffer, peer: HttpPeer) => void,
  ): void
  /** A folder of static files below a path prefix. `index`: the file served at the prefix itself. */
  files(
    prefix: string,
    folder: string,
    opts?: {
      readonly index?: string
      readonly headers?: Readonly<Record<string, string>>
      /** Send text, fonts and programs compressed (kept in memory, so for few files that do not change). */
      readonly compress?: boolean
    },
  ): void
  /** Base URLs clients can reach, for documents such as host-meta: ['https://example.org:5281', 'http://…'], public ones first. */
  urls(host: string): readonly string[]
  /** Announces a way to connect, as a link relation (RFC 8288) and a path here. `ws`: a WebSocket endpoint. */
  link(l: { readonly rel: string; readonly path: string; readonly scheme: 'http' | 'ws' }): void
  /** All that was announced, for each of `urls(host)`, those with TLS first: `wss://example.org:5281/ws`. */
  links(host: string): readonly { readonly rel: string; readonly href: string }[]
}
/** Who is at the other end of an HTTP connection. */
export interface HttpPeer {
  readonly remoteAddress: string
  readonly tls: TlsInfo | undefined
}
/** What a route answers with: text, bytes, a stream, an object sent as JSON, or nothing. */
export type HttpBody = string | Uint8Array | Readable | object | undefined
