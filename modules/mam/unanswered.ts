/**
 * Appends that the store has not answered yet. It may have done them already, so that a reader finds the entry; when one fails all the same it will be
 * taken out, and come again under another id. So what a reader finds of them is shown only when they have succeeded.
 */
import { type Archive, type Entry, type Page, type Query, StoreUnavailable } from '../../server/module.ts'
import type { Doubts, NewEntry } from './doubts.ts'
import type { Stored } from './service.ts'

/** How often a page is read anew because something in it has failed. */
const MAX_READS = 3

/** An append under way: one in a list, since there is one for each message. */
export interface Attempt {
  readonly local: string
  readonly entry: NewEntry
  before: Attempt | undefined
  after: Attempt | undefined
  /** Somebody has read what it stored. */
  asked: PromiseWithResolvers<boolean> | undefined
}

/** Those of all archives of a host. */
export class Unanswered {
  #last: Attempt | undefined

  begin(local: string, entry: NewEntry): Attempt {
    const before = this.#last
    const attempt = { local, entry, before, after: undefined, asked: undefined }
    if (before !== undefined) before.after = attempt
    this.#last = attempt
    return attempt
  }

  /** There is an answer. `good`: the entry is there, and stays. What failed is in doubt by now. */
  end(attempt: Attempt, good: boolean): void {
    const { before, after } = attempt
    if (before !== undefined) before.after = after
    if (after === undefined) this.#last = before
    else after.before = before
    attempt.asked?.resolve(good)
  }

  /** Whether all of the entries have succeeded; undefined: they have. */
  #good(local: string, entries: readonly Entry<Stored>[]): Promise<boolean> | undefined {
    const waiting: Promise<boolean>[] = []
    for (let attempt = this.#last; attempt !== undefined; attempt = attempt.before) {
      if (attempt.local !== local) continue
      const at = attempt.entry.at.getTime()
      const { xml } = attempt.entry.doc
      if (!entries.some((one) => one.at.getTime() === at && one.doc.xml === xml)) continue
      attempt.asked ??= Promise.withResolvers<boolean>()
      waiting.push(attempt.asked.promise)
    }
    if (waiting.length === 0) return undefined
    return Promise.all(waiting).then((all) => all.every((good) => good))
  }

  /** The archive as readers are to see it. Pages reject also with StoreUnavailable, when appends fail again and again. */
  readers(archive: Archive<Stored>, doubts: Doubts): Archive<Stored> {
    const page = async (local: string, query: Query): Promise<Page<Stored>> => {
      for (let i = 0; i < MAX_READS; i++) {
        const found = await archive.page(local, query)
        const good = this.#good(local, found.entries)
        const isGood = good === undefined || (await good)
        // What has failed since a reader of many pages began, too, and what is put there for a moment to find out.
        const settling = doubts.settle(local)
        if (isGood && settling === undefined) return found
        await settling
      }
      throw new StoreUnavailable('what was appended meanwhile failed')
    }
    return {
      page,
      append: (local, entry) => archive.append(local, entry),
      replace: (local, id, doc) => archive.replace(local, id, doc),
      remove: (local, what) => archive.remove(local, what),
      owners: () => archive.owners(),
    }
  }
}
