/**
 * One XML stream over one transport (RFC 6120 §4; RFC 7395 for framed transports): headers, framing, batching of output,
 * back-pressure, stream errors, the closing handshake. Who is at the other end and what may be sent is decided by the
 * owner (c2s.ts).
 */
import type { Clock } from './clock.ts'
import type { Log, Transport, TransportSink } from './module.ts'
import { type RateLimit, TokenBucket } from './token-bucket.ts'
import { later, parsed } from './turns.ts'
import { type Element, el } from './xmpp/element.ts'
import { notWellFormed, StreamError } from './xmpp/errors.ts'
import { NS } from './xmpp/ns.ts'
import { Parser, type ParserLimits, parseXml } from './xmpp/parser.ts'

/** What a stream tells the session above it. Exceptions of `header` and `element` end the stream. */
export interface StreamOwner {
  /** A stream header, or <open/>. */
  header(root: Element): void
  /** A complete first-level element. */
  element(el: Element): void
  /** TLS is up after `startTls`. */
  secured(): void
  /** The transport takes data again. */
  drained(): void
  /** What was gathered in a turn is written. */
  flushed?(): void
  /** The peer sends no more: `done` is to be called when everything it sent is handled. */
  inputEnded(done: () => void): void
  /** Attributes of our header when the stream fails before one was sent. */
  errorHeader(): HeaderAttrs
  /** The stream is over; exactly once. The reason is a stream condition, 'closed' (by the peer) or 'lost'. */
  closed(reason: string): void
}

/** What all streams of a listener share. */
export interface StreamEnv {
  readonly clock: Clock
  readonly log: Log
  /** How long the peer may take to answer </stream:stream>. */
  readonly closeTimeoutMs: number
}

/** Attributes of our header. */
export interface HeaderAttrs {
  readonly from?: string | undefined
  readonly to?: string | undefined
  readonly id?: string | undefined
  readonly version?: string | undefined
  readonly 'xml:lang'?: string | undefined
}

type State = 'open' | 'closing' | 'closed'

/** Output of one event-loop turn is written at its end, once per stream. */
const dirty: XmlStream[] = []
/** RFC 7395 §3.3.2 and what stands in their place on byte streams. */
const HEADER_NAMES: ReadonlySet<string> = new Set(['open', 'close', 'stream'])
/** Output that is not held back until the end of the turn. */
const FLUSH_CHARS = 64 * 1024

function flushAll(): void {
  for (let i = 0; i < dirty.length; i++) (dirty[i] as XmlStream).flush()
  dirty.length = 0
}

/** One stream, through all its restarts. */
export class XmlStream implements TransportSink {
  readonly transport: Transport
  readonly contentNs: string
  #owner: StreamOwner
  readonly #env: StreamEnv
  #parser: Parser | undefined
  #limits: ParserLimits
  #bucket: TokenBucket | undefined
  /** What all streams of this address may send together. */
  sharedBucket: TokenBucket | undefined
  #state: State = 'open'
  #headerSent = false
  /** Framed transports: the next frame must be <open/>. */
  #awaitsOpen = true
  #out = ''
  #queued = false
  #blocked = false
  #paused = false
  #throttled = false
  #resting = false
  #discarding = false
  #told = false
  #reason: string | undefined
  /** When something was last received, in milliseconds since 1970. */
  lastReceivedAt: number

  constructor(
    transport: Transport,
    contentNs: string,
    owner: StreamOwner,
    limits: ParserLimits,
    env: StreamEnv,
  ) {
    this.transport = transport
    this.contentNs = contentNs
    this.#owner = owner
    this.#limits = limits
    this.#env = env
    this.lastReceivedAt = env.clock.now()
    transport.start(this)
  }

  /** False once the stream has ended or is ending: nothing more can be sent. */
  get open(): boolean {
    return this.#state === 'open'
  }
  /** The transport is above its high-water mark: hold what can wait until `drained`. */
  get blocked(): boolean {
    return this.#blocked
  }

  /** Default namespace of the peer's header, '' when none (RFC 6120 §4.8.2). Byte streams only. */
  get peerContentNs(): string {
    return this.#parser?.contentNs ?? ''
  }

  // ---- input ----

  /** From the transport. */
  data(chunk: Uint8Array | string): void {
    if (this.#discarding || this.#state === 'closed') return
    this.lastReceivedAt = this.#env.clock.now()
    this.#spend(chunk.length, this.lastReceivedAt)
    this.#guarded(() => {
      if (this.transport.framing === 'frames')
        this.#frame(typeof chunk === 'string' ? chunk : decodeFrame(chunk))
      else this.#parse(chunk)
    })
    if (parsed(chunk.length)) this.#rest()
  }

  /** Much was parsed in this turn of the event loop: more of it in a later one. */
  #rest(): void {
    if (this.#resting) return
    this.#resting = true
    this.transport.pause()
    later(() => {
      this.#resting = false
      if (!this.#paused) this.resume()
    })
  }

  #parse(chunk: Uint8Array | string): void {
    this.#parser ??= new Parser(
      {
        open: (root) => this.#owner.header(root),
        element: (element) => this.#owner.element(element),
        close: () => this.#peerClosed(),
      },
      this.#limits,
    )
    this.#parser.write(typeof chunk === 'string' ? Buffer.from(chunk) : chunk)
  }

  /** RFC 7395 §3.3: each frame is one complete element. */
  #frame(text: string): void {
    if (!text.startsWith('<')) throw notWellFormed('a frame begins with "<"')
    const element = parseXml(text, this.#limits)
    if (element.ns !== NS.FRAMING) {
      if (!this.#awaitsOpen) return this.#owner.element(element)
      // §3.3.2, §3.4: a header of another namespace; anything else has no stream to belong to
      throw new StreamError(HEADER_NAMES.has(element.name) ? 'invalid-namespace' : 'not-authorized')
    }
    if (element.name === 'close') this.#peerClosed()
    else if (element.name !== 'open') throw new StreamError('unsupported-stanza-type')
    else if (!this.#awaitsOpen) throw new StreamError('bad-format', 'no new stream here')
    else {
      this.#awaitsOpen = false
      this.#owner.header(element)
    }
  }

  /** Runs input handling; its exceptions end the stream. */
  #guarded(handle: () => void): void {
    try {
      handle()
    } catch (error) {
      this.fail(error)
    }
  }

  /** Ends the stream because of an exception: a StreamError as it is, anything else is our fault. */
  fail(error: unknown): void {
    if (error instanceof StreamError) return this.close(error)
    this.#env.log.error('stream failed', { err: error })
    this.close(new StreamError('internal-server-error'))
  }

  /** New limits from the next first-level element on (after authentication). */
  setLimits(limits: ParserLimits, rate: RateLimit | undefined): void {
    this.#limits = limits
    if (this.#parser !== undefined) this.#parser.limits = limits
    this.transport.setMaxFrame?.(limits.maxBytes)
    this.#bucket = rate === undefined ? undefined : new TokenBucket(rate, this.#env.clock.now())
  }

  /** Expects a new header (RFC 6120 §4.3.3). What follows in the same chunk belongs to the new stream. */
  restart(): void {
    this.#headerSent = false
    this.#awaitsOpen = true
    this.#parser?.reset()
  }

  /** RFC 6120 §5.4.3.3: everything received before TLS is forgotten, also what came behind <starttls/>. */
  startTls(host: string): void {
    this.#parser?.stop()
    this.#parser = undefined
    this.#discarding = true
    this.#headerSent = false
    this.flush()
    this.transport.startTls(host)
  }

  secured(): void {
    this.#discarding = false
    this.#guarded(() => this.#owner.secured())
  }

  /** Stops reading until `resume` (the session has more than it can handle now). */
  pause(): void {
    this.#paused = true
    this.transport.pause()
  }
  /** Reads again, unless the rate limit says otherwise. */
  resume(): void {
    this.#paused = false
    if (!this.#throttled && !this.#resting && this.#state !== 'closed') this.transport.resume()
  }

  /** Above its rate the socket is not read for as long as it takes to be within it again. */
  #spend(bytes: number, now: number): void {
    const waitMs = Math.max(this.#bucket?.spend(bytes, now) ?? 0, this.sharedBucket?.spend(bytes, now) ?? 0)
    if (waitMs === 0 || this.#throttled) return
    this.#throttled = true
    this.transport.pause()
    this.#env.clock.after(waitMs, () => {
      this.#throttled = false
      if (!this.#paused) this.resume()
    })
  }

  // ---- output ----

  /** Sends our header (RFC 6120 §4.7; RFC 7395 §3.3.2). */
  sendHeader(attrs: HeaderAttrs): void {
    this.#headerSent = true
    if (this.transport.framing === 'frames') {
      this.#put(el('open', NS.FRAMING, { ...attrs }).toString())
      return
    }
    const header = el('stream', NS.STREAM, { ...attrs }).toString(this.contentNs, true)
    // an empty element, opened for good
    this.#put(`<?xml version='1.0'?>${header.slice(0, -2)} xmlns='${this.contentNs}'>`)
  }

  /** Puts an element behind what was sent before; false when the transport has had enough for now. */
  send(element: Element): boolean {
    if (this.#state !== 'open') return false
    this.#put(
      this.transport.framing === 'frames' ? element.toString() : element.toString(this.contentNs, false),
    )
    return !this.#blocked
  }

  /** Puts the text of an element that `send` would have written; for what was held back. */
  sendText(text: string): boolean {
    if (this.#state !== 'open') return false
    this.#put(text)
    return !this.#blocked
  }

  #put(text: string): void {
    if (this.transport.framing === 'frames') {
      if (!this.transport.write(text)) this.#blocked = true
      return
    }
    this.#out += text
    if (this.#out.length >= FLUSH_CHARS) this.flush()
    else if (!this.#queued) {
      this.#queued = true
      if (dirty.push(this) === 1) setImmediate(flushAll)
    }
  }

  /** Writes what was gathered. */
  flush(): void {
    this.#queued = false
    if (this.#out === '' || this.#state === 'closed') return
    const out = this.#out
    this.#out = ''
    if (!this.transport.write(out)) this.#blocked = true
    this.#owner.flushed?.()
  }

  drain(): void {
    if (this.#state === 'closed') return
    this.#blocked = false
    this.#owner.drained()
  }

  // ---- the end ----

  /** RFC 6120 §4.4: the peer has closed its stream; we close ours when what came before is handled. */
  #peerClosed(reason: 'closed' | 'lost' = 'closed'): void {
    this.#stopReading()
    this.#reason ??= reason // what becomes of the connection meanwhile does not change how the peer has ended its stream
    this.#owner.inputEnded(() => {
      if (this.#state === 'open') this.#sendEnd()
      this.#finish()
    })
  }

  /**
   * Ends the stream; nothing more is read. With an error: RFC 6120 §4.9.1.1, the header is sent first if it was not.
   * The connection stays for what was sent before, for as long as a peer may take to close its side (§4.4).
   */
  close(error?: StreamError): void {
    if (this.#state !== 'open') return
    this.#reason = error?.condition ?? 'closed'
    if (error !== undefined) {
      if (!this.#headerSent) this.sendHeader(this.#owner.errorHeader())
      this.send(error.toElement())
    }
    this.#sendEnd()
    this.#finish()
  }

  #sendEnd(): void {
    if (this.transport.framing === 'frames') this.#put(el('close', NS.FRAMING).toString())
    else if (this.#headerSent) this.#put('</stream:stream>')
    this.#state = 'closing'
    this.flush()
  }

  /** Both sides are done: the transport sends what it has and closes; a peer that does not read is cut off. */
  #finish(): void {
    if (this.#told) return
    this.#stopReading()
    this.transport.end()
    this.#env.clock.after(this.#env.closeTimeoutMs, () => {
      if (this.#state !== 'closed') this.transport.destroy()
    })
    this.#tell('closed')
  }

  #stopReading(): void {
    this.#parser?.stop()
    this.#parser = undefined
    this.#discarding = true
  }

  #tell(reason: string): void {
    if (this.#told) return
    this.#told = true
    this.#owner.closed(this.#reason ?? reason)
  }

  /** From now on another session is told. */
  handTo(owner: StreamOwner): void {
    this.#owner = owner
  }

  /** Ends the stream without telling its session, which goes on elsewhere. Nothing more is read from it. */
  detach(error: StreamError): void {
    this.#told = true
    if (this.#state === 'open') this.close(error)
    if (this.#state !== 'closed') this.transport.end()
    this.#stopReading()
  }

  /** From the transport: the peer sends no more (half-close without a closing tag). */
  ended(): void {
    if (this.#state === 'open') this.#peerClosed('lost')
    else this.#finish()
  }

  closed(error: Error | undefined): void {
    if (this.#state === 'closed') return
    this.#state = 'closed'
    this.#stopReading()
    this.#out = ''
    if (error !== undefined) this.#env.log.debug('connection lost', { error: error.message })
    this.#tell('lost')
  }
}

/** RFC 7395 §3.2: frames are text; a transport that hands on bytes has UTF-8 in them. */
function decodeFrame(chunk: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(chunk)
  } catch {
    throw new StreamError('unsupported-encoding')
  }
}
