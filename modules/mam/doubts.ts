/**
 * Appends that failed, although the store may have done what it was asked: the sender of the message was told that it failed, and no device has
 * been shown it. Before anybody reads the archive they are taken out of it, so that what comes again is a new message for everybody.
 */
import type { Archive } from '../../server/module.ts'
import type { Stored } from './service.ts'

/** What was to be appended. `dedupe`: of entries with the same key only the first is stored. */
export interface NewEntry {
  readonly at: Date
  /** The bare address of the other side. */
  readonly with: string
  readonly doc: Stored
  readonly dedupe?: string
}

/** What did not succeed. */
interface Doubt {
  /** The first attempt. */
  readonly entry: NewEntry
  /** All of them, while they are few: each has its time, and perhaps other delays within. */
  readonly attempts: NewEntry[]
  /** The store has not answered one of them, and may do even later what it was asked. */
  unanswered: boolean
}

/** Entries that are remembered, and their XML, UTF-16 units; of the oldest beyond that only the times are. */
const MAX_ENTRIES = 10_000
const MAX_SIZE = 16 * 1024 * 1024
/** Owners whose times are remembered one by one; of more it is one span for all. */
const MAX_LOST = 10_000
/** Entries of one moment that are looked at together. */
const SAME = 100
/** Attempts that are looked for one by one. */
const MAX_ATTEMPTS = 8

/** When appends failed that are not remembered any more, milliseconds since 1970; both ends are included. */
export interface Span {
  readonly from: number
  readonly until: number
}

/** The doubts of all archives of a host. */
export class Doubts {
  readonly #archive: Archive<Stored>
  readonly #removed: (local: string) => unknown
  readonly #byOwner = new Map<string, Map<string, Doubt>>()
  readonly #settling = new Map<string, Promise<void>>()
  /** Of what was forgotten. */
  readonly #lost = new Map<string, Span>()
  #lostOfAll: Span | undefined
  readonly #windowMs: number
  readonly #gone: ReadonlySet<string>
  #count = 0
  #size = 0

  /**
   * `removed` is called, and waited for, when entries have gone. `windowMs`: for how long messages may be sent again, milliseconds. `gone`: accounts that
   * were just removed; all that was written for them is removed after that.
   */
  constructor(
    archive: Archive<Stored>,
    windowMs: number,
    gone: ReadonlySet<string>,
    removed: (local: string) => unknown,
  ) {
    this.#archive = archive
    this.#windowMs = windowMs
    this.#gone = gone
    this.#removed = removed
  }

  /** Whether there are any. */
  get some(): boolean {
    return this.#count > 0
  }

  /** An append failed; `unanswered`: not that the store has said so. */
  add(local: string, entry: NewEntry, unanswered: boolean): void {
    if (this.#gone.has(local)) return
    let own = this.#byOwner.get(local)
    if (own === undefined) this.#byOwner.set(local, (own = new Map<string, Doubt>()))
    const name = nameOf(entry)
    const known = own.get(name)
    if (known === undefined) {
      own.set(name, { entry, attempts: [entry], unanswered })
      this.#count++
    } else {
      known.unanswered ||= unanswered
      if (known.attempts.length === MAX_ATTEMPTS) return void (known.unanswered = true)
      known.attempts.push(entry)
    }
    this.#size += entry.doc.xml.length
    while (this.#count > MAX_ENTRIES || this.#size > MAX_SIZE) this.#forgetOldest()
  }

  /** Whether an entry like this may be there, and not be what has been shown. */
  concern(local: string, entry: NewEntry): boolean {
    if (this.#count > 0 && this.has(local, entry)) return true
    if (this.#lost.size === 0 && this.#lostOfAll === undefined) return false
    const span = this.#lostOfAll ?? this.#lost.get(local)
    return span !== undefined && entry.at.getTime() - span.until <= this.#windowMs
  }

  has(local: string, entry: NewEntry): boolean {
    return this.#byOwner.get(local)?.has(nameOf(entry)) === true
  }

  /** It is stored now, and will be shown. */
  forget(local: string, entry: NewEntry): void {
    const own = this.#byOwner.get(local)
    const name = nameOf(entry)
    const known = own?.get(name)
    if (own === undefined || known === undefined) return
    own.delete(name)
    if (own.size === 0) this.#byOwner.delete(local)
    this.#count--
    for (const { doc } of known.attempts) this.#size -= doc.xml.length
  }

  /** The account is removed: what was for it must not be looked for in the archive of the next one of that name, or be put there to find out. */
  drop(local: string): void {
    for (const { entry } of this.#byOwner.get(local)?.values() ?? []) this.forget(local, entry)
  }

  #forgetOldest(): void {
    for (const [local, own] of this.#byOwner)
      for (const { entry, attempts } of own.values()) {
        // What has no key cannot be known again.
        if (entry.dedupe !== undefined) for (const { at } of attempts) this.#lose(local, at.getTime())
        this.forget(local, entry)
        return
      }
  }

  #lose(local: string, at: number): void {
    if (this.#lostOfAll !== undefined) this.#lostOfAll = spanOf(this.#lostOfAll, { from: at, until: at })
    else this.#lost.set(local, spanOf(this.#lost.get(local), { from: at, until: at }))
    if (this.#lost.size <= MAX_LOST) return
    this.#lostOfAll = this.lost
    this.#lost.clear()
  }

  /** When the appends of any owner failed that were forgotten. */
  get lost(): Span | undefined {
    return [...this.#lost.values()].reduce<Span | undefined>(spanOf, this.#lostOfAll)
  }

  /**
   * Whether what was stored at that time may be something that failed and was forgotten. Hardly anything else was stored then: it takes a store that
   * fails for long.
   */
  isLost(local: string, at: Date): boolean {
    const span = this.#lostOfAll ?? this.#lost.get(local)
    return span !== undefined && at.getTime() >= span.from && at.getTime() <= span.until
  }

  /** Takes one entry out of an archive. Rejects when the store fails. */
  async takeOut(local: string, id: string): Promise<void> {
    if ((await this.#archive.remove(local, { ids: [id] })) > 0) await this.#removed(local)
  }

  /** Takes what should not be there out of an archive. Undefined: there is nothing in doubt. Rejects when the store fails again. */
  settle(local: string): Promise<void> | undefined {
    if (!this.#byOwner.has(local)) return this.#settling.get(local)
    const before = this.#settling.get(local)
    const turn = (async () => {
      await before?.catch(() => undefined) // whoever asked was told
      await this.#settle(local)
    })()
    const settling = turn.finally(() => {
      if (this.#settling.get(local) === settling) this.#settling.delete(local)
    })
    this.#settling.set(local, settling)
    return settling
  }

  /** The same for all archives. */
  async settleAll(): Promise<void> {
    const failed: unknown[] = []
    for (const local of this.#byOwner.keys())
      await this.settle(local)?.catch((error: unknown) => void failed.push(error))
    if (failed.length > 0) throw new AggregateError(failed)
  }

  async #settle(local: string): Promise<void> {
    let removed = 0
    for (const [name, doubt] of this.#byOwner.get(local) ?? []) {
      const stands = (): boolean => this.#byOwner.get(local)?.get(name) === doubt
      for (let seen = 0; doubt.attempts.length > seen; ) {
        seen = doubt.attempts.length // there may be another one meanwhile
        const id = await this.#stored(local, doubt, stands)
        // A later attempt may have succeeded, and been shown.
        if (!stands()) break
        if (id !== undefined) removed += await this.#archive.remove(local, { ids: [id] })
      }
      if (stands()) this.forget(local, doubt.entry)
    }
    if (removed > 0) await this.#removed(local)
  }

  /** The id of what is there. */
  async #stored(local: string, doubt: Doubt, stands: () => boolean): Promise<string | undefined> {
    const { entry, attempts, unanswered } = doubt
    for (const attempt of attempts) {
      const id = await this.#find(local, attempt)
      if (id !== undefined) return id
    }
    return unanswered && entry.dedupe !== undefined && stands() ? await this.#again(local, entry) : undefined
  }

  /** Appends once more, behind the attempt that failed: then it is there, and its id is known. Undefined: an older one has that key. */
  async #again(local: string, entry: NewEntry): Promise<string | undefined> {
    const { id, duplicate } = await this.#archive.append(local, entry)
    if (!duplicate) return id
    const [stored] = (await this.#archive.page(local, { ids: [id], from: 'first', limit: 1 })).entries
    return stored !== undefined && stored.at < entry.at ? undefined : id
  }

  /** Known by its time and text. */
  async #find(local: string, { at, with: peer, doc }: NewEntry): Promise<string | undefined> {
    for (let after: string | undefined; ; ) {
      const query = { with: peer, start: at, end: at, from: 'first', limit: SAME } as const
      const page = await this.#archive.page(local, after === undefined ? query : { ...query, after })
      const found = page.entries.find(({ doc: { xml } }) => xml === doc.xml)
      after = page.entries.at(-1)?.id
      if (found !== undefined || page.complete || after === undefined) return found?.id
    }
  }
}

const spanOf = (a: Span | undefined, b: Span): Span =>
  a === undefined ? b : { from: Math.min(a.from, b.from), until: Math.max(a.until, b.until) }

const nameOf = ({ at, with: peer, doc, dedupe }: NewEntry): string =>
  dedupe === undefined ? `at ${at.getTime()} ${peer} ${doc.xml}` : `key ${dedupe}`
