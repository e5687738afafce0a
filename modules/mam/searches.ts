/**
 * Searches that may have to look at a whole archive (XEP-0431, full addresses): one at a time for each archive, so that one account cannot keep the server
 * busy; and how far those came that found nothing in their time.
 */
import { StoreUnavailable } from '../../server/module.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'

/** Searches of one archive that wait for the one that runs. */
const MAX_WAITING = 4
/** Archives in which searches are remembered, and searches of one archive: those of several devices, which ask in turn. */
const MAX_REMEMBERED = { archives: 1000, searches: 8 }

/** How far a search came that has found nothing yet. Ids are those of the store. */
export interface Reached {
  /** The last entry that it looked at. */
  readonly reached: string
  /** Of a search backwards from the end: the newest entry when it began. */
  readonly top: string | undefined
}

/** Searches under way, and those that are to be gone on with. */
export class Searches {
  readonly #running = new Map<string, { last: Promise<unknown>; count: number }>()
  /** By archive and by all that the search asks for, the oldest first. */
  readonly #reached = new Map<string, Map<string, Reached>>()

  /** Runs `search` when those of the same archive are over. Throws StanzaError('resource-constraint') when too many wait. */
  async run<T>(archive: string, search: () => Promise<T>): Promise<T> {
    const queue = this.#running.get(archive) ?? { last: Promise.resolve(), count: 0 }
    if (queue.count > MAX_WAITING)
      throw new StanzaError('resource-constraint', { text: 'too many searches at once' })
    this.#running.set(archive, queue)
    queue.count++
    const mine = queue.last.then(search)
    // A search that was given up is over when the store does not work on it any more.
    const over = mine.catch((error: unknown) => (error instanceof StoreUnavailable ? error.over : undefined))
    queue.last = over
    void over.then(() => {
      if (--queue.count === 0) this.#running.delete(archive)
    })
    return await mine
  }

  /** Where the same search of that archive was when its time was over; `key`: all that it asks for. */
  reached(archive: string, key: string): Reached | undefined {
    return this.#reached.get(archive)?.get(key)
  }

  /** A search has found nothing up to there. */
  came(archive: string, key: string, reached: Reached): void {
    const all = this.#reached.get(archive) ?? new Map<string, Reached>()
    putLast(all, key, reached, MAX_REMEMBERED.searches)
    putLast(this.#reached, archive, all, MAX_REMEMBERED.archives)
  }

  /** The search of that archive has an answer. */
  done(archive: string, key: string): void {
    const all = this.#reached.get(archive)
    all?.delete(key)
    if (all?.size === 0) this.#reached.delete(archive)
  }
}

/** Of too many the first goes. */
function putLast<V>(map: Map<string, V>, key: string, value: V, most: number): void {
  map.delete(key)
  map.set(key, value)
  const [first] = map.keys()
  if (map.size > most && first !== undefined) map.delete(first)
}
