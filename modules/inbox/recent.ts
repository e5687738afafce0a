/** What was received in each conversation while an archive is followed, so that most markers need no search in the archive. */

/** Messages of one conversation that are kept, and of all together; also conversations. */
const MAX_OF_ONE = 64
const MAX_OF_ALL = 50_000

/** A message from the other side. */
export interface Received {
  /** In the archive. */
  readonly entry: string
  readonly ids: readonly string[]
  /** An instant message. */
  readonly message: boolean
}

interface Row {
  /** All that was received behind this entry is in the list. */
  since: string
  readonly list: Received[]
}

/** The newest messages of some conversations. */
export class Recent {
  readonly #rows = new Map<string, Row>()
  #size = 0

  /** An entry of that conversation follows; `last`: the one before, '' for none. */
  begin(jid: string, last: string): void {
    if (this.#rows.has(jid)) return
    if (this.#rows.size >= MAX_OF_ALL) this.#clear()
    this.#rows.set(jid, { since: last, list: [] })
  }

  add(jid: string, received: Received): void {
    const row = this.#rows.get(jid)
    if (row === undefined) return
    row.list.push(received)
    this.#size++
    const dropped = row.list.length > MAX_OF_ONE ? row.list.shift() : undefined
    if (dropped !== undefined) {
      row.since = dropped.entry
      this.#size--
    }
    if (this.#size > MAX_OF_ALL) this.#clear()
  }

  /** Any will do: those that are still wanted are found in the archive. */
  #clear(): void {
    this.#rows.clear()
    this.#size = 0
  }

  /** The newest with that id, and the instant messages behind it. */
  find(jid: string, id: string): { readonly entry: string; readonly unread: readonly string[] } | undefined {
    const list = this.#rows.get(jid)?.list ?? []
    const at = list.findLastIndex(({ ids }) => ids.includes(id))
    const found = list[at]
    if (found === undefined) return undefined
    const unread = list.slice(at + 1).flatMap(({ entry, message }) => (message ? [entry] : []))
    return { entry: found.entry, unread }
  }

  /** What was received in that conversation behind that entry is all here. */
  hasAllAfter(jid: string, entry: string): boolean {
    const since = this.#rows.get(jid)?.since
    return since !== undefined && since <= entry
  }
}
