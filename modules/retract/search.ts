/** What is retracted in a conversation (XEP-0424 §4, §5): found from its newest entry back. */
import { type Element, el } from '../../server/xmpp/element.ts'
import { type JID, tryJid } from '../../server/xmpp/jid.ts'
import { formatDateTime } from '../../server/xmpp/xml-time.ts'

/** Retraction, XEP-0424. */
export const NS_RETRACT = 'urn:xmpp:message-retract:1'
const MUC_USER = 'http://jabber.org/protocol/muc#user'
/** XEP-0308 §3: a correction names what it corrects; it is retracted with it. */
const CORRECT = 'urn:xmpp:message-correct:0'
/** So many times `searchBack`, and a search for several messages ends. */
const MOST_ROUNDS = 4

/** A retraction that waits, as it is stored. `at`: when it came, milliseconds since 1970. */
export type Waiting = {
  readonly from: string
  /** The bare address of the other side of the conversation. */
  readonly peer: string
  readonly target: string
  /** The id of the retraction. */
  readonly by: string
  readonly occupant: boolean
  readonly at: number
}

/** One way through a conversation, from its newest entry back, for all that is retracted in it. */
export class Search {
  looked = 0
  /** Those whose message was not found. */
  missing: number
  readonly #account: JID
  readonly #searchBack: number
  /** Entries that may still be looked at. */
  #left: number
  /** By id of the retraction: what is in the archive behind it may have the same id as what is meant, and is not. */
  readonly #coming = new Map<string, Waiting[]>()
  /** Those whose retraction was passed, the newest first, by id of the message. */
  readonly #wanted = new Map<string, Waiting[]>()

  constructor(tasks: readonly Waiting[], account: JID, searchBack: number) {
    this.missing = tasks.length
    this.#account = account
    this.#searchBack = searchBack
    this.#left = searchBack
    for (const doc of tasks) put(this.#coming, doc.by, doc)
  }

  get over(): boolean {
    return this.missing === 0 || this.#left <= 0 || this.looked >= this.#searchBack * MOST_ROUNDS
  }

  /** The retraction that takes this message back, undefined when it stays as it is. */
  look(stanza: Element): Waiting | undefined {
    this.looked++
    this.#left--
    const id = stanza.attr('id') ?? ''
    const retracts = stanza.getChild('retract', NS_RETRACT)?.attr('id')
    if (retracts !== undefined) {
      this.#pass(id, retracts, stanza)
      return undefined
    }
    // A correction is what the author takes back just as well.
    const corrects = stanza.getChild('replace', CORRECT)?.attr('id')
    const takes = (target: string): readonly Waiting[] =>
      (this.#wanted.get(target) ?? []).filter((doc) => isAuthor(stanza, doc, this.#account))
    const originals = id === '' ? [] : takes(id)
    for (const doc of originals) this.#found(doc)
    const by = originals.at(-1) ?? (corrects === undefined ? undefined : takes(corrects).at(-1))
    return stanza.getChild('retracted', NS_RETRACT) === undefined ? by : undefined
  }

  #pass(by: string, target: string, stanza: Element): void {
    const coming = this.#coming.get(by)
    if (coming === undefined) return
    // Another device, or the same with another resource, may have sent again what the archive had already.
    const passed = coming.filter((doc) => doc.target === target && isAuthor(stanza, doc, this.#account))
    if (passed.length === 0) return
    this.#coming.set(
      by,
      coming.filter((doc) => !passed.includes(doc)),
    )
    for (const doc of passed) put(this.#wanted, target, doc)
    this.#left = this.#searchBack - 1
  }

  #found(doc: Waiting): void {
    const others = this.#wanted.get(doc.target)?.filter((other) => other !== doc) ?? []
    this.#wanted.set(doc.target, others)
    this.missing--
  }
}

const put = (map: Map<string, Waiting[]>, key: string, doc: Waiting): void => {
  const list = map.get(key)
  if (list === undefined) map.set(key, [doc])
  else list.push(doc)
}

/**
 * §5: only who has written a message takes it back. Among the occupants of a room the full address tells who that is, also when only one of the two
 * says that it is from one: nobody may rely on that (XEP-0045 §7.5). Devices of the account itself are one author wherever they write.
 */
function isAuthor(stanza: Element, doc: Waiting, account: JID): boolean {
  const author = tryJid(stanza.attr('from') ?? '')
  const from = tryJid(doc.from)
  if (author === undefined || from === undefined || !author.bare.equals(from.bare)) return false
  if (author.bare.equals(account)) return true
  const occupant = doc.occupant || stanza.getChild('x', MUC_USER) !== undefined
  return !occupant || author.equals(from)
}

/** §4: nothing stays but the attributes. */
export function tombstone(stanza: Element, { by, at }: Waiting): Element {
  return stanza.withChildren([el('retracted', NS_RETRACT, { id: by, stamp: formatDateTime(at) })])
}
