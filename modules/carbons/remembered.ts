/** Messages that were copied, so that errors in answer to them are (XEP-0280 §6.1). */
import type { Element } from '../../server/xmpp/element.ts'
import type { JID } from '../../server/xmpp/jid.ts'

/** Messages of an account whose errors would be copied; older ones are forgotten. */
const MAX_REMEMBERED = 64
/** Longer ids are not remembered, UTF-16 units. */
const MAX_ID = 128

/** The newest eligible messages of accounts that are online. */
export class Remembered {
  readonly #byAccount = new Map<string, Set<string>>()

  /** `peer`: the other side. */
  add(local: string, stanza: Element, peer: JID): void {
    const key = keyOf(stanza, peer)
    if (key === undefined) return
    let keys = this.#byAccount.get(local)
    if (keys === undefined) this.#byAccount.set(local, (keys = new Set()))
    const [oldest] = keys
    if (oldest !== undefined && keys.size >= MAX_REMEMBERED) keys.delete(oldest)
    keys.add(key)
  }
  /** RFC 6120 §8.3.1: an error has the id of what it answers. */
  has(local: string, error: Element, peer: JID): boolean {
    const keys = this.#byAccount.get(local)
    const key = keys === undefined ? undefined : keyOf(error, peer)
    return key !== undefined && keys?.has(key) === true
  }
  forget(local: string): void {
    this.#byAccount.delete(local)
  }
}

function keyOf(stanza: Element, peer: JID): string | undefined {
  const id = stanza.attr('id') ?? ''
  return id.length > MAX_ID ? undefined : `${id}\0${peer.bare.toString()}`
}
