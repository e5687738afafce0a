/** What the module mam (XEP-0313) tells others of stanzas on their way, and what they may ask of archives. */
import type { Archive, Entry, Iq, Session } from '../../server/module.ts'
import type { Element } from '../../server/xmpp/element.ts'
import type { JID } from '../../server/xmpp/jid.ts'
import type { IdCodec } from './ids.ts'

/** An entry as it is stored: the stanza as XML, a document of its own. */
export type Stored = { readonly xml: string }

/** A message in an archive. */
export interface ArchivedMessage {
  /** The id that clients see. */
  readonly id: string
  /** When it was sent or received. */
  readonly at: Date
  /** The bare address of the other side; of an account's messages to itself, its own. */
  readonly with: string
  readonly stanza: Element
}

/** Something whose messages can be queried: an account, or the room of another module. */
export interface Source {
  readonly archive: Archive<Stored>
  /** In that archive. */
  readonly owner: string
  readonly ids: IdCodec
  /** Whose archive it is: results come from there. */
  readonly jid: JID
  /** The stanza as the asker may see it (XEP-0313 §6.1.2); default: as stored. */
  show?(stanza: Element): Element
}

/** The archives of the accounts of this host, and the protocol for archives of others. */
export interface ArchiveService {
  /** All messages of an account, oldest first, from behind the entry `after`: for exports. Throws StanzaError('item-not-found'). */
  messages(local: string, after?: string): AsyncIterable<ArchivedMessage>
  /** Messages with one bare address, newest first. */
  newest(local: string, peer: JID): AsyncIterable<ArchivedMessage>
  /** Adds a message from elsewhere, such as an import; its id. `key`: adding it again has no effect. */
  add(
    local: string,
    m: { readonly at: Date; readonly peer: JID; readonly stanza: Element; readonly key?: string },
  ): Promise<string>
  /** Puts another stanza in the place of an entry; false when there is no such entry. */
  replace(local: string, id: string, stanza: Element): Promise<boolean>
  /** The archive of an account, for modules that follow it: to read, not to change. Who shows what is in it waits for `settled` first. */
  source(local: string): Source
  /**
   * When nothing is in the archive whose sender was told that it failed; undefined: there is nothing such now. Rejects when the store fails. Runs
   * 'archive:removed' for what it takes out.
   */
  settled(local: string): Promise<void> | undefined
  /** <result/> with an entry of an archive (§4.2). */
  result(source: Source, entry: Entry<Stored>, queryId: string | undefined): Element
  /** Makes ids for archives that another module keeps, from 48 secret bytes. */
  ids(secret: Uint8Array): IdCodec
  /** Answers <query/> of type set: sends the results to the asker, returns <fin/>. Throws StanzaError. */
  query(iq: Iq, source: Source): Promise<Element>
  /** <metadata/> of an archive (§5). */
  metadata(source: Source): Promise<Element>
  /** Answers <query/> of type get (§4.1.5). */
  readonly form: Element
}

declare module '../../server/module.ts' {
  interface Services {
    archive: ArchiveService
  }
  interface StanzaEvent {
    /** client:in, from the store phase on: the id of the message in the archive of its sender. Not in the stanza. */
    archivedAs?: string
    /**
     * The archive had this message already, the client sent it again. client:in: it was copied to other devices then. account:in: only true
     * when the message stops here.
     */
    duplicate?: boolean
  }
  interface Hooks {
    /**
     * A session asks for the archive of its account, which has not been read yet. `whole`: for all of it from some point to its end, so that
     * it goes on from there; not what is filtered, nor what ends before. Handlers return plainly.
     */
    'archive:read': { readonly session: Session; readonly whole: boolean }
    /** Entries of an archive were removed, by age or number. */
    'archive:removed': { readonly local: string }
    /**
     * A retraction (XEP-0424) is in the archive of an account, also when it was there already. `from` and `peer`: who retracts, and with whom. It counts
     * as handled when this is over, so what is to come of it must be certain then, but need not be done.
     */
    'archive:retraction': {
      readonly local: string
      readonly from: JID
      readonly peer: JID
      readonly stanza: Element
      /** Sent to or from an occupant of a room: full addresses count. */
      readonly occupant: boolean
    }
  }
}
