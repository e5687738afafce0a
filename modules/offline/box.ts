/**
 * The messages that wait for one account: how much there is of them, storing in order, taking them out. What is in memory is only for the
 * time that something goes on, and for counting.
 */
import { type Archive, UnknownEntry } from '../../server/module.ts'

/** A message as it is stored. */
export type Kept = { readonly xml: string; readonly since?: number }
/** A message that waits. */
export interface Waiting {
  readonly id: string
  /** When it was stored, milliseconds since 1970. */
  readonly at: number
  readonly xml: string
  /** It was in the archive of the account long before, at the latest then, milliseconds since 1970; undefined: just before it was stored here. */
  readonly since: number | undefined
}
/** A message to store. */
export interface Message {
  /** Milliseconds since 1970. */
  readonly at: number
  /** The sender's bare address. */
  readonly with: string
  readonly xml: string
  /** See Waiting. */
  readonly since: number | undefined
  /** Of those with the same key only the first is kept, until it is handed over. */
  readonly dedupe: string | undefined
  /** Called with its id when it is stored, as a new entry or not, before anybody is given what waits. */
  stored?(id: string, fresh: boolean): void
}
/**
 * Hands over. `over` says that an entry needs not wait any longer, with the key of its message: to be called before it is delivered, since it may
 * come back at once.
 */
export type Hand = (
  all: readonly Waiting[],
  over: (entry: Waiting, key: string | undefined) => void,
) => Promise<void>
/** Bounds of one account. */
export interface Bounds {
  readonly messages: number
  readonly bytes: number
}

/** Entries read or removed in one step. */
const STEP = 200

/** One account's. */
export class Box {
  readonly #archive: Archive<Kept>
  readonly #local: string
  readonly #bounds: () => Bounds
  /** Messages and their bytes, stored or being stored; undefined: not counted yet. */
  #usage: { messages: number; bytes: number } | undefined
  #counting: Promise<void> | undefined
  /** Messages that wait for the counting. */
  #queued = 0
  readonly #appending = new Set<Promise<unknown>>()
  /** Handed over, and still in the store: ids with the keys of their messages. */
  readonly #over = new Map<string, string | undefined>()
  /** Keys of those, with the newest id of each. */
  readonly #overKeys = new Map<string, string>()
  #last: Promise<void> | undefined

  constructor(archive: Archive<Kept>, local: string, bounds: () => Bounds) {
    this.#archive = archive
    this.#local = local
    this.#bounds = bounds
  }

  /** Whether nothing would be lost with this object. */
  get idle(): boolean {
    const busy = this.#queued + this.#appending.size + this.#over.size
    return busy === 0 && this.#last === undefined
  }

  /** Stores a message behind those of earlier calls; false when there is no room. */
  add(message: Message): Promise<boolean> {
    if (this.#usage !== undefined && this.#queued === 0) return this.#append(message)
    this.#queued++
    // Whoever waits is called in the order of the calls, and before anybody who comes later.
    return (this.#counting ??= this.#count()).then(
      () => {
        this.#queued--
        return this.#append(message)
      },
      (error: unknown) => {
        this.#queued--
        this.#counting = undefined
        throw error
      },
    )
  }

  async #append(message: Message): Promise<boolean> {
    const usage = (this.#usage ??= { messages: 0, bytes: 0 })
    const bytes = Buffer.byteLength(message.xml)
    const bounds = this.#bounds()
    if (usage.messages >= bounds.messages || usage.bytes + bytes > bounds.bytes) return false
    usage.messages++
    usage.bytes += bytes
    const dedupe = this.#keyOf(message)
    const { xml, since } = message
    const stored = this.#archive.append(this.#local, {
      at: new Date(message.at),
      with: message.with,
      doc: since === undefined ? { xml } : { xml, since },
      ...(dedupe === undefined ? {} : { dedupe }),
    })
    this.#appending.add(stored)
    try {
      const { id, duplicate } = await stored
      if (duplicate) this.#release(message.xml)
      message.stored?.(id, !duplicate)
      return true
    } catch (error) {
      this.#release(message.xml)
      throw error
    } finally {
      this.#appending.delete(stored)
    }
  }

  /**
   * The key to store it with. One that was handed over may come back before it is removed: then it waits behind what came meanwhile, and must
   * not be taken for the entry that goes.
   */
  #keyOf({ dedupe }: Message): string | undefined {
    const over = dedupe === undefined ? undefined : this.#overKeys.get(dedupe)
    return over === undefined ? dedupe : `${dedupe} ${over}`
  }

  #release(xml: string): void {
    if (this.#usage === undefined) return
    this.#usage.messages--
    this.#usage.bytes -= Buffer.byteLength(xml)
  }

  async #count(): Promise<void> {
    this.#measure(await this.#read())
  }

  #measure(all: readonly Waiting[]): void {
    const bytes = all.reduce((sum, { xml }) => sum + Buffer.byteLength(xml), 0)
    this.#usage ??= { messages: all.length, bytes }
  }

  /** What is being handed over now; never rejects. */
  get handing(): Promise<void> | undefined {
    return this.#last?.catch(() => undefined)
  }

  /** Resolves when all that is being stored is stored, or has failed. */
  async settled(): Promise<void> {
    while (this.#appending.size > 0 || this.#queued > 0)
      await Promise.allSettled([...this.#appending, this.#counting])
  }

  /**
   * Gives all that waits to `hand`, oldest first, and removes what it says is over. One after another, so that nothing is handed over twice.
   */
  take(hand: Hand): Promise<void> {
    const before = this.#last
    const turn = (async () => {
      await before?.catch(() => undefined) // whoever called has been told
      await this.#takeNow(hand)
    })()
    const last = turn.finally(() => {
      if (this.#last === last) this.#last = undefined
    })
    this.#last = last
    return last
  }

  async #takeNow(hand: Hand): Promise<void> {
    await this.settled()
    const all = await this.#read()
    this.#measure(all)
    const there = all.filter(({ id }) => !this.#over.has(id))
    if (there.length > 0) await hand(there, (entry, key) => this.#handed(entry, key))
    const ids = all.map(({ id }) => id).filter((id) => this.#over.has(id))
    for (let i = 0; i < ids.length; i += STEP) {
      const step = ids.slice(i, i + STEP)
      await this.#archive.remove(this.#local, { ids: step })
      for (const id of step) this.#removed(id)
    }
  }

  #handed({ id, xml }: Waiting, key: string | undefined): void {
    this.#over.set(id, key)
    if (key !== undefined) this.#overKeys.set(key, id)
    this.#release(xml) // it may come back, and finds its room again
  }

  #removed(id: string): void {
    const key = this.#over.get(id)
    this.#over.delete(id)
    if (key !== undefined && this.#overKeys.get(key) === id) this.#overKeys.delete(key)
  }

  async #read(): Promise<Waiting[]> {
    const all: Waiting[] = []
    for (let after: string | undefined; ; ) {
      const query = { from: 'first', limit: STEP, ...(after === undefined ? {} : { after }) } as const
      const page = await this.#archive.page(this.#local, query).catch((error: unknown) => {
        if (error instanceof UnknownEntry) return undefined // the account was removed meanwhile
        throw error
      })
      for (const { id, at, doc } of page?.entries ?? [])
        all.push({ id, at: at.getTime(), xml: doc.xml, since: doc.since })
      after = all.at(-1)?.id
      if (page === undefined || page.complete || after === undefined) return all
    }
  }
}
