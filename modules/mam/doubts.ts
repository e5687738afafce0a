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

/** Entries that are remembered, and their XML, UTF-16 units; beyond that the oldest are forgotten. */
const MAX_ENTRIES = 2000
const MAX_SIZE = 16 * 1024 * 1024
/** Entries of one moment that are looked at together. */
const SAME = 100
/** Attempts that are looked for one by one. */
const MAX_ATTEMPTS = 8

/** The doubts of all archives of a host. */
export class Doubts {
  readonly #archive: Archive<Stored>
  readonly #removed: (local: string) => unknown
  readonly #byOwner = new Map<string, Map<string, Doubt>>()
  readonly #settling = new Map<string, Promise<void>>()
  #count = 0
  #size = 0

  /** `removed` is called, and waited for, when entries have gone. */
  constructor(archive: Archive<Stored>, removed: (local: string) => unknown) {
    this.#archive = archive
    this.#removed = removed
  }

  /** Whether there are any. */
  get some(): boolean {
    return this.#count > 0
  }

  /** An append failed; `unanswered`: not that the store has said so. */
  add(local: string, entry: NewEntry, unanswered: boolean): void {
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

  #forgetOldest(): void {
    for (const [local, own] of this.#byOwner)
      for (const { entry } of own.values()) {
        this.forget(local, entry)
        return
      }
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
        const id = await this.#stored(local, doubt)
        // A later attempt may have succeeded, and been shown.
        if (!stands()) break
        if (id !== undefined) removed += await this.#archive.remove(local, { ids: [id] })
      }
      if (stands()) this.forget(local, doubt.entry)
    }
    if (removed > 0) await this.#removed(local)
  }

  /** The id of what is there. */
  async #stored(local: string, { entry, attempts, unanswered }: Doubt): Promise<string | undefined> {
    for (const attempt of attempts) {
      const id = await this.#find(local, attempt)
      if (id !== undefined) return id
    }
    return unanswered && entry.dedupe !== undefined ? await this.#again(local, entry) : undefined
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

const nameOf = ({ at, with: peer, doc, dedupe }: NewEntry): string =>
  dedupe === undefined ? `at ${at.getTime()} ${peer} ${doc.xml}` : `key ${dedupe}`
