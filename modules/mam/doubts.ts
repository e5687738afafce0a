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

/** Entries that are remembered, and their XML, UTF-16 units; beyond that the oldest are forgotten. */
const MAX_ENTRIES = 2000
const MAX_SIZE = 16 * 1024 * 1024
/** Entries of one moment that are looked at. */
const MAX_SAME = 100

/** The doubts of all archives of a host. */
export class Doubts {
  readonly #archive: Archive<Stored>
  readonly #removed: (local: string) => unknown
  readonly #byOwner = new Map<string, Map<string, NewEntry>>()
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

  /** An append failed. Of attempts with the same key the first counts. */
  add(local: string, entry: NewEntry): void {
    let own = this.#byOwner.get(local)
    if (own === undefined) this.#byOwner.set(local, (own = new Map<string, NewEntry>()))
    const name = nameOf(entry)
    if (own.has(name)) return
    own.set(name, entry)
    this.#count++
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
    this.#size -= known.doc.xml.length
  }

  #forgetOldest(): void {
    for (const [local, own] of this.#byOwner)
      for (const entry of own.values()) {
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

  async #settle(local: string): Promise<void> {
    let removed = 0
    for (const entry of this.#byOwner.get(local)?.values() ?? []) {
      const id = entry.dedupe === undefined ? await this.#find(local, entry) : await this.#again(local, entry)
      if (id !== undefined) removed += await this.#archive.remove(local, { ids: [id] })
      this.forget(local, entry)
    }
    if (removed > 0) await this.#removed(local)
  }

  /** Appends once more, behind the attempt that failed: then it is there, and its id is known. Undefined: an older one has that key. */
  async #again(local: string, entry: NewEntry): Promise<string | undefined> {
    const { id, duplicate } = await this.#archive.append(local, entry)
    if (!duplicate) return id
    const [stored] = (await this.#archive.page(local, { ids: [id], from: 'first', limit: 1 })).entries
    return stored !== undefined && stored.at < entry.at ? undefined : id
  }

  /** An entry without a key is known by its time and text. */
  async #find(local: string, { at, with: peer, doc }: NewEntry): Promise<string | undefined> {
    const query = { with: peer, start: at, end: at, from: 'first', limit: MAX_SAME } as const
    return (await this.#archive.page(local, query)).entries.find(({ doc: { xml } }) => xml === doc.xml)?.id
  }
}

const nameOf = ({ at, with: peer, doc, dedupe }: NewEntry): string =>
  dedupe === undefined ? `at ${at.getTime()} ${peer} ${doc.xml}` : `key ${dedupe}`
