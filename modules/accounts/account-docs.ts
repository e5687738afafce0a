/** The stored accounts, and what is remembered of them for a while: never what was read before something that this process has written. */
import type { Docs } from '../../server/module.ts'
import { ExistsCache } from './exists-cache.ts'
import { type AccountDoc, generationOf } from './keys.ts'

const KEY = 'account'

/** Reads and writes of one account that are under way together. */
interface Look {
  users: number
  /** The account was written meanwhile: what they find may not be remembered. */
  old: boolean
}

/** Documents of accounts by localpart. */
export class AccountDocs {
  readonly #docs: Docs<AccountDoc>
  readonly #cache: ExistsCache
  readonly #looks = new Map<string, Look>()

  /** `now`: milliseconds. */
  constructor(docs: Docs<AccountDoc>, now: () => number) {
    this.#docs = docs
    this.#cache = new ExistsCache(now)
  }

  /** Read from the store. */
  async get(local: string): Promise<AccountDoc | undefined> {
    return (await this.#read(local)).doc
  }

  async #read(local: string): Promise<{ readonly doc: AccountDoc | undefined; readonly old: boolean }> {
    const look = this.#begin(local)
    try {
      const doc = await this.#docs.get(local, KEY)
      if (!look.old) this.#remember(local, doc)
      return { doc, old: look.old }
    } finally {
      this.#end(local, look)
    }
  }

  /** See AuthService. */
  exists(local: string): boolean | Promise<boolean> {
    return this.#cache.get(local) ?? this.get(local).then((doc) => doc !== undefined)
  }

  /** See Generations. */
  generation(local: string): string | undefined | Promise<string | undefined> {
    const known = this.#cache.get(local)
    if (known === undefined) return this.readGeneration(local)
    return known ? this.#cache.generation(local) : undefined
  }

  /** Read from the store; again when the account was written meanwhile, since who asks may have been let in by then. */
  async readGeneration(local: string): Promise<string | undefined> {
    let read
    do read = await this.#read(local)
    while (read.old)
    return read.doc && generationOf(read.doc)
  }

  /** Docs.update. */
  async update(
    local: string,
    fn: (old: AccountDoc | undefined) => AccountDoc | undefined,
  ): Promise<AccountDoc | undefined> {
    const look = this.#begin(local)
    try {
      const stored = await this.#docs.update(local, KEY, fn)
      const alone = !look.old // of two writes that overlap nobody knows here which came last
      this.#written(local, look)
      if (alone) this.#remember(local, stored)
      return stored
    } catch (error) {
      this.#written(local, look) // a failed write may have been one
      throw error
    } finally {
      this.#end(local, look)
    }
  }

  /** Each localpart once. */
  owners(): AsyncIterable<string> {
    return this.#docs.owners()
  }

  #remember(local: string, doc: AccountDoc | undefined): void {
    this.#cache.set(local, doc !== undefined, doc && generationOf(doc))
  }

  #begin(local: string): Look {
    let look = this.#looks.get(local)
    if (look === undefined) this.#looks.set(local, (look = { users: 0, old: false }))
    look.users++
    return look
  }

  #written(local: string, mine: Look): void {
    this.#cache.forget(local)
    for (const look of [mine, this.#looks.get(local)]) if (look !== undefined) look.old = true
    this.#looks.delete(local)
  }

  #end(local: string, look: Look): void {
    look.users--
    if (look.users === 0 && this.#looks.get(local) === look) this.#looks.delete(local)
  }
}
