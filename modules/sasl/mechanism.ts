/**
 * Types of authentication: what a SASL mechanism is (RFC 4422 §3) and the service that runs one, for every protocol that carries
 * SASL (RFC 6120 §6, XEP-0388). Other modules add mechanisms through `Services['sasl'].register`.
 */
import type { AuthService, ScramHash, Session, StreamStep, TlsInfo } from '../../server/module.ts'
import type { Element } from '../../server/xmpp/element.ts'
import type { SaslError } from '../../server/xmpp/errors.ts'
import type { JID } from '../../server/xmpp/jid.ts'

declare module '../../server/module.ts' {
  interface Services {
    sasl: SaslService
  }
}

/** Which protocol carries the exchange: RFC 6120 §6 or XEP-0388. */
export type Profile = 'sasl' | 'sasl2'
/** Names of channel bindings: RFC 9266, RFC 5929 §4. */
export type ChannelBinding = Parameters<TlsInfo['channelBinding']>[0]

/** What a mechanism makes of one message of the client. */
export type Turn =
  /** Send this, and give the answer to `next`. */
  | { readonly challenge: Uint8Array; readonly next: Step }
  /** The client is this account (a prepared localpart); `data` goes with the success. */
  | {
      readonly local: string
      readonly data?: Uint8Array
      /** Which generation of the account was proven, read with what it was proven by; undefined: that of now. See Generations. */
      readonly generation?: string | undefined
    }
/** One state of an exchange. Throws SaslError to refuse; any other exception becomes temporary-auth-failure. */
export type Step = (message: Uint8Array) => Turn | Promise<Turn>

/** One way to log in. All are client-first (RFC 4422 §5): without an initial response the client is asked for one. */
export interface Mechanism {
  /** Registered name, at most 20 characters (RFC 4422 §3.1). */
  readonly name: string
  /** Place in the list of offers: the strongest has the highest (RFC 6120 §6.3.3). */
  readonly rank: number
  /** Protocols it exists in; default: all. */
  readonly profiles?: readonly Profile[]
  /** False: usable but not in the list of offers, because it is announced elsewhere (XEP-0484). */
  readonly listed?: boolean
  /** Never without an encrypted stream, whatever the configuration says. */
  readonly needsTls: boolean
  /** The server chooses the account, so what the client claims to be does not count (XEP-0175). */
  readonly assigns?: boolean
  /** Who gets through it knows the account's password. */
  readonly password?: boolean
  /** Asks for no tasks after it (XEP-0484: tokens must work without a human). */
  readonly exempt?: boolean
  /** Whether this stream can use it now; `bindings` are the channel bindings of its connection. */
  usable(s: Session, bindings: readonly ChannelBinding[]): boolean
  /** A new exchange. */
  start(attempt: Attempt): Step
}

/** What a mechanism may know and do during one exchange. */
export interface Attempt {
  readonly session: Session
  readonly mechanism: string
  readonly profile: Profile
  /** <auth/> or <authenticate/>. */
  readonly request: Element
  /** Mechanisms offered to this stream in this protocol (XEP-0474). */
  readonly offered: readonly string[]
  /** Channel bindings of this connection (XEP-0440). */
  readonly bindings: readonly ChannelBinding[]
  /**
   * Says who is trying: the prepared localpart. Throws SaslError: not-authorized when no account can have that name,
   * temporary-auth-failure when there were too many failures.
   */
  account(authcid: string): string
  /** RFC 6120 §6.3.8: '' or the account's own bare JID, else throws SaslError('invalid-authzid'). */
  authorize(authzid: string, local: string): void
  /** The refusal of wrong credentials, the same for unknown accounts; counted as a guess. */
  wrong(): SaslError
}

/** What to send, without the element around it. */
export type SaslReply =
  | { readonly kind: 'challenge'; readonly data: string }
  | {
      readonly kind: 'success'
      /** Base64; undefined: the mechanism has none. */
      readonly data: string | undefined
      readonly jid: JID
      readonly mechanism: Mechanism
      /** What was proven, for StreamStep; undefined where accounts have no generations, or where there is no account. */
      readonly generation: string | undefined
    }
  | { readonly kind: 'failure'; readonly error: SaslError; readonly close: StreamStep['close'] }

/** How an exchange begins. */
export interface SaslRequest {
  readonly profile: Profile
  /** As the client wrote it. */
  readonly mechanism: string | undefined
  /** Base64 of the initial response, '' for an empty one, undefined for none. */
  readonly initial: string | undefined
  readonly element: Element
}

/** Runs mechanisms. An exchange lives from `begin` to a failure, or to `accept` or `reject` after a success. */
export interface SaslService {
  /** Adds a mechanism; disposing removes it. Throws when the name is taken. */
  register(mechanism: Mechanism): Disposable
  /** Mechanisms offered to this stream now, strongest first. */
  offers(s: Session, profile: Profile): readonly string[]
  /** The hashes that the account the client claims to be has keys for, those all have when it claims none; fixed by the header. */
  hashes(s: Session): readonly ScramHash[]
  /** Channel bindings this connection has. */
  bindings(s: Session): readonly ChannelBinding[]
  /** Whether an exchange of that protocol waits for the client. */
  pending(s: Session, profile: Profile): boolean
  /** A new exchange; one that was going on is forgotten (RFC 6120 §6.4.2). */
  begin(s: Session, request: SaslRequest): Promise<SaslReply>
  /** The client's next message, base64. */
  respond(s: Session, profile: Profile, data: string): Promise<SaslReply>
  /**
   * After a success: whether the account is still as it was proven. If not (another password, removed, another owner), ends the exchange as a
   * failure with credentials-expired (RFC 6120 §6.5.3). Undefined: it is. To be asked before anything is done in its name.
   */
  check(s: Session): Promise<(SaslReply & { readonly kind: 'failure' }) | undefined>
  /** The login is complete, unless `check` fails: tells 'auth:result' and forgets the exchange. Undefined: accepted. */
  accept(s: Session): Promise<(SaslReply & { readonly kind: 'failure' }) | undefined>
  /** Ends the exchange, in any state: tells 'auth:result' and counts. `judged`: a credential was wrong. */
  reject(s: Session, error: SaslError, judged: boolean): Promise<SaslReply & { readonly kind: 'failure' }>
}

/** What the mechanisms need of the rest. */
export interface MechanismEnv {
  readonly host: string
  /** The accounts; looked up when used, since the provider may be reloaded. */
  auth(): AuthService
  /** See SaslService. */
  hashes(s: Session): readonly ScramHash[]
}
