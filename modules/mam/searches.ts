/** Searches that may have to look at a whole archive (XEP-0431, full addresses): one at a time for each archive, so that one account cannot keep the server busy. */
import { StanzaError } from '../../server/xmpp/errors.ts'

/** Searches of one archive that wait for the one that runs. */
const MAX_WAITING = 4

/** Searches under way. */
export class Searches {
  readonly #running = new Map<string, { last: Promise<unknown>; count: number }>()

  /** Runs `search` when those of the same archive are over. Throws StanzaError('resource-constraint') when too many wait. */
  async run<T>(archive: string, search: () => Promise<T>): Promise<T> {
    const queue = this.#running.get(archive) ?? { last: Promise.resolve(), count: 0 }
    if (queue.count > MAX_WAITING)
      throw new StanzaError('resource-constraint', { text: 'too many searches at once' })
    this.#running.set(archive, queue)
    queue.count++
    const mine = queue.last.then(search)
    queue.last = mine.catch(() => undefined)
    try {
      return await mine
    } finally {
      if (--queue.count === 0) this.#running.delete(archive)
    }
  }
}
