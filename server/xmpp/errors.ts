/**
 * The refusals of XMPP Core as exceptions: stanza errors (RFC 6120 §8.3), stream errors (§4.9) and SASL failures (§6.5).
 * Texts are for people who read logs and diagnostics; programs go by the condition.
 */
import { type Element, el } from './element.ts'
import { NS } from './ns.ts'

/** What the sender may do about a stanza error (RFC 6120 §8.3.2). */
export type ErrorType = 'auth' | 'cancel' | 'continue' | 'modify' | 'wait'

/** RFC 6120 §8.3.3: conditions of stanza errors, each with the type it has when nobody says otherwise. */
export const STANZA_CONDITIONS = {
  'bad-request': 'modify',
  conflict: 'cancel',
  'feature-not-implemented': 'cancel', // §8.3.3.3 allows "modify" too
  forbidden: 'auth',
  gone: 'cancel',
  'internal-server-error': 'cancel',
  'item-not-found': 'cancel',
  'jid-malformed': 'modify',
  'not-acceptable': 'modify',
  'not-allowed': 'cancel',
  'not-authorized': 'auth',
  'policy-violation': 'modify', // §8.3.3.12: "wait" when the policy is about rates
  'recipient-unavailable': 'wait',
  redirect: 'modify',
  'registration-required': 'auth',
  'remote-server-not-found': 'cancel',
  'remote-server-timeout': 'wait',
  'resource-constraint': 'wait',
  'service-unavailable': 'cancel',
  'subscription-required': 'auth',
  'undefined-condition': 'cancel', // §8.3.3.21: any type
  'unexpected-request': 'modify', // §8.3.3.22 allows "wait" too
} as const satisfies Record<string, ErrorType>

/** A condition of RFC 6120 §8.3.3. */
export type StanzaCondition = keyof typeof STANZA_CONDITIONS

/** RFC 6120 §4.9.3: conditions of stream errors. */
export const STREAM_CONDITIONS = [
  'bad-format',
  'bad-namespace-prefix',
  'conflict',
  'connection-timeout',
  'host-gone',
  'host-unknown',
  'improper-addressing',
  'internal-server-error',
  'invalid-from',
  'invalid-namespace',
  'invalid-xml',
  'not-authorized',
  'not-well-formed',
  'policy-violation',
  'remote-connection-failed',
  'reset',
  'resource-constraint',
  'restricted-xml',
  'see-other-host',
  'system-shutdown',
  'undefined-condition',
  'unsupported-encoding',
  'unsupported-feature',
  'unsupported-stanza-type',
  'unsupported-version',
] as const

/** A condition of RFC 6120 §4.9.3. */
export type StreamCondition = (typeof STREAM_CONDITIONS)[number]

/** RFC 6120 §6.5: conditions of SASL failures. */
export const SASL_CONDITIONS = [
  'aborted',
  'account-disabled',
  'credentials-expired',
  'encryption-required',
  'incorrect-encoding',
  'invalid-authzid',
  'invalid-mechanism',
  'malformed-request',
  'mechanism-too-weak',
  'not-authorized',
  'temporary-auth-failure',
] as const

/** A condition of RFC 6120 §6.5. */
export type SaslCondition = (typeof SASL_CONDITIONS)[number]

/** Parts of a stanza error beyond its condition. */
export interface StanzaErrorOptions {
  readonly text?: string
  /** Defaults to what RFC 6120 §8.3.3 recommends for the condition. */
  readonly type?: ErrorType
  /** Application-specific condition (§8.3.4). */
  readonly app?: Element
  /** JID of the entity that found the error (§8.3.1). */
  readonly by?: string
  /** False: the answer must not repeat what was sent, such as a password. Default: it may (§8.3.1). */
  readonly echo?: boolean
  /** New address for `gone` and `redirect` (§8.3.3.5, §8.3.3.14). */
  readonly uri?: string
}

/** Refuses one stanza; the stream goes on. */
export class StanzaError extends Error {
  override readonly name = 'StanzaError'
  readonly condition: StanzaCondition
  readonly type: ErrorType
  readonly text: string | undefined
  readonly app: Element | undefined
  readonly by: string | undefined
  readonly uri: string | undefined
  readonly echo: boolean

  constructor(condition: StanzaCondition, opts: StanzaErrorOptions = {}) {
    super(opts.text === undefined ? condition : `${condition}: ${opts.text}`)
    this.condition = condition
    this.type = opts.type ?? STANZA_CONDITIONS[condition]
    this.text = opts.text
    this.app = opts.app
    this.by = opts.by
    this.uri = opts.uri
    this.echo = opts.echo ?? true
  }

  /** The <error/> child for a stanza of namespace `ns` (§8.3.2). */
  toElement(ns: string): Element {
    return el(
      'error',
      ns,
      { type: this.type, by: this.by },
      el(this.condition, NS.STANZAS, {}, this.uri),
      diagnostic(this.text, NS.STANZAS),
      this.app,
    )
  }
}

/** Ends the stream it is thrown on (§4.9.1.1). */
export class StreamError extends Error {
  override readonly name = 'StreamError'
  readonly condition: StreamCondition
  readonly text: string | undefined
  readonly app: Element | undefined

  constructor(condition: StreamCondition, text?: string, app?: Element) {
    super(text === undefined ? condition : `${condition}: ${text}`)
    this.condition = condition
    this.text = text
    this.app = app
  }

  /** <stream:error/> (§4.9.2). `see-other-host` carries its address as `text` (§4.9.3.19). */
  toElement(): Element {
    const address = this.condition === 'see-other-host' ? this.text : undefined
    return el(
      'error',
      NS.STREAM,
      {},
      el(this.condition, NS.STREAMS, {}, address),
      address === undefined ? diagnostic(this.text, NS.STREAMS) : undefined,
      this.app,
    )
  }
}

/** XML that is none (§4.9.3.13). */
export function notWellFormed(text: string): StreamError {
  return new StreamError('not-well-formed', text)
}

/** XML beyond our limits (§4.9.3.14). */
export function policyViolation(text: string): StreamError {
  return new StreamError('policy-violation', text)
}

/** Refuses an authentication; the peer may try again (§6.4.5). */
export class SaslError extends Error {
  override readonly name = 'SaslError'
  readonly condition: SaslCondition
  readonly text: string | undefined

  constructor(condition: SaslCondition, text?: string) {
    super(text === undefined ? condition : `${condition}: ${text}`)
    this.condition = condition
    this.text = text
  }

  /** <failure/> (§6.5). For XEP-0388 give its namespace: the condition stays in that of RFC 6120 (XEP-0388 §2.6.2). */
  toElement(ns: string = NS.SASL): Element {
    return el('failure', ns, {}, el(this.condition, NS.SASL), diagnostic(this.text, ns))
  }
}

/** A request of ours that nobody answered in time. */
export class RequestTimeout extends Error {
  override readonly name = 'RequestTimeout'
}

function diagnostic(text: string | undefined, ns: string): Element | undefined {
  return text === undefined ? undefined : el('text', ns, { 'xml:lang': 'en' }, text)
}
