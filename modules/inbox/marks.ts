/**
 * Markers that are not in the archive, because their sender does not want them there (XEP-0334) or the user wants nothing of that conversation there
 * any more (XEP-0441): the one thing that inboxes must write when it comes, since it can be found nowhere else. They are kept until the next run.
 */
import type { Ctx, Docs } from '../../server/module.ts'

/** A conversation that was displayed up to a message. */
export type Mark = {
  readonly jid: string
  /** `by` id: the one that its sender gave it; `by` entry: that of the store. */
  readonly id: string
  readonly by: 'id' | 'entry'
}
type MarksDoc = { readonly marks: readonly Mark[] }

const KEY = 'marks'
/** Marks of one account that are kept, the newest. */
const MAX_MARKS = 128
/** Of one conversation. */
const MAX_OF_ONE = 8
/** So many of one account, and they are worked off. */
const MANY = 64

/** The marks of a host. */
export class Marks {
  readonly #docs: Docs<MarksDoc>

  constructor(ctx: Ctx) {
    this.#docs = ctx.storage.docs<MarksDoc>('marks')
  }

  /** Keeps a mark; whether there are many now. */
  async add(local: string, mark: Mark): Promise<boolean> {
    const doc = await this.#docs.update(local, KEY, (old) => {
      const others = (old?.marks ?? []).filter((m) => keyOf(m) !== keyOf(mark))
      const same = others.filter((m) => m.jid === mark.jid)
      const dropped = same.length < MAX_OF_ONE ? undefined : same[0]
      return { marks: [...others.filter((m) => m !== dropped), mark].slice(-MAX_MARKS) }
    })
    return (doc?.marks.length ?? 0) >= MANY
  }

  /** All of an account, oldest first. */
  async of(local: string): Promise<readonly Mark[]> {
    return (await this.#docs.get(local, KEY))?.marks ?? []
  }

  /** Forgets those. */
  async done(local: string, marks: readonly Mark[]): Promise<void> {
    const over = new Set(marks.map(keyOf))
    await this.#docs.update(local, KEY, (old) => {
      const left = (old?.marks ?? []).filter((mark) => !over.has(keyOf(mark)))
      return left.length === 0 ? undefined : { marks: left }
    })
  }
}

const keyOf = ({ jid, id, by }: Mark): string => `${by} ${id}\0${jid}`
