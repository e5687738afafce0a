/** Lanes of senders, where a chain stands between two domains: order is kept for each sender (RFC 6120 §10.1), others do not wait. */
import type { Chain, Compiled } from './hooks.ts'
import { Lane, type Turn } from './lane.ts'
import type { StanzaEvent } from './module.ts'

/** One lane for each sender with stanzas that wait for a handler of a chain; nothing at all where nobody has hooked it. */
export class Lanes {
  readonly #lanes = new Map<string, Lane>()

  pass(chain: Chain<StanzaEvent>, e: StanzaEvent, turn: Turn<StanzaEvent>): void | Promise<void> {
    const part: Compiled<StanzaEvent> = chain[e.stanza.name as 'message' | 'presence' | 'iq']
    const idle = part.before.length === 0 && part.store.length === 0 && part.after.length === 0
    if (idle && this.#lanes.size === 0) return turn(e, undefined)
    const key = e.from.bare.toString()
    const lane = this.#lanes.get(key) ?? new Lane()
    const done = lane.pass(chain, part, e, turn)
    if (!lane.busy) this.#lanes.delete(key)
    else if (!this.#lanes.has(key)) this.#lanes.set(key, lane)
    if (done === undefined) return undefined
    return done.finally(() => {
      if (!lane.busy && this.#lanes.get(key) === lane) this.#lanes.delete(key)
    })
  }
}
