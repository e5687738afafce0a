/** Block lists in memory and in the store: one document for each account that has blocked somebody, so a command is one write. */
import type { Ctx, Doc, Docs } from '../../server/module.ts'
import type { JID } from '../../server/xmpp/jid.ts'

/** What an account has blocked. Never changes; a new list takes its place. */
export class BlockList {
  /** Canonical addresses, in the order they were blocked. */
  readonly jids: ReadonlySet<string>

  constructor(jids: ReadonlySet<string>) {
    this.jids = jids
  }

  /** XEP-0191 §6: the address itself, its account or service, its domain. */
  matches(jid: JID): boolean {
    const { jids } = this
    if (jids.size === 0) return false
    return (
      jids.has(jid.toString()) || // user@domain/resource, domain/resource
      (jid.isFull && jids.has(jid.bare.toString())) || // user@domain
      jids.has(jid.domain)
    )
  }
}

/** The list of everybody who has blocked nobody: compare with `===`. */
export const NOBODY = new BlockList(new Set())

interface ListDoc extends Doc {
  readonly jids: readonly string[]
}

const KEY = 'list'
/** Lists of accounts that are not online, in each of two generations. */
const MAX_RECENT = 10_000
/** For so long after an account was removed its list is read from the store each time; milliseconds. */
const GONE_MS = 60_000

/** The lists of one host. */
export class BlockLists {
  readonly #ctx: Ctx
  readonly #docs: Docs<ListDoc>
  /** Accounts with sessions. */
  readonly #online = new Map<string, BlockList>()
  #young = new Map<string, BlockList>()
  #old = new Map<string, BlockList>()
  readonly #loading = new Map<string, Promise<BlockList>>()
  /** The last change of each account that is being changed. */
  readonly #changing = new Map<string, Promise<unknown>>()
  /** Accounts that are being removed, or were a moment ago: what is still in the store is not for the next ones of those names. */
  readonly #gone = new Map<string, Disposable>()

  constructor(ctx: Ctx) {
    this.#ctx = ctx
    this.#docs = ctx.storage.docs<ListDoc>('blocked')
  }

  /** Plainly when it is in memory: for accounts that are online one lookup. */
  of(local: string): BlockList | Promise<BlockList> {
    return this.#online.get(local) ?? this.#recent(local) ?? this.#loading.get(local) ?? this.#load(local)
  }

  #recent(local: string): BlockList | undefined {
    const young = this.#young.get(local)
    if (young !== undefined) return young
    const old = this.#old.get(local)
    if (old !== undefined) this.#keep(local, old)
    return old
  }

  #load(local: string): Promise<BlockList> {
    const loading: Promise<BlockList> = this.#docs
      .get(local, KEY)
      .then((doc) => {
        const list = listOf(doc?.jids ?? [])
        // A change that was made meanwhile knows better.
        if (this.#loading.get(local) === loading) this.#keep(local, list)
        return list
      })
      .finally(() => {
        if (this.#loading.get(local) === loading) this.#loading.delete(local)
      })
    this.#loading.set(local, loading)
    return loading
  }

  #keep(local: string, list: BlockList): void {
    if (this.#gone.has(local)) return
    if (this.#ctx.sessions.of(local).length > 0) {
      this.#online.set(local, list)
      return
    }
    if (this.#young.size >= MAX_RECENT) {
      this.#old = this.#young
      this.#young = new Map()
    }
    this.#young.set(local, list)
  }

  /** The account has a session: its list stays in memory. */
  async sessionBound(local: string): Promise<void> {
    if (this.#online.has(local)) return
    const gone = this.#gone.get(local)
    if (gone !== undefined) {
      // The next one of that name is here, whom nobody has got before what the last one had was removed.
      gone[Symbol.dispose]()
      this.#gone.delete(local)
      this.#loading.delete(local)
    }
    this.#keep(local, await this.of(local))
  }

  /** The account has no session any more. */
  offline(local: string): void {
    const list = this.#online.get(local)
    if (list === undefined) return
    this.#online.delete(local)
    this.#keep(local, list)
  }

  /** The account is being removed, and its sessions, which may still ask for its list, will be. */
  removed(local: string): void {
    this.#forget(local)
    this.#gone.get(local)?.[Symbol.dispose]()
    this.#gone.set(
      local,
      this.#ctx.timers.after(GONE_MS, () => void this.#gone.delete(local)),
    )
  }

  #forget(local: string): void {
    this.#online.delete(local)
    this.#dropRecent(local)
    this.#loading.delete(local)
  }

  #dropRecent(local: string): void {
    this.#young.delete(local)
    this.#old.delete(local)
  }

  /**
   * Stores a changed list; changes of one account come one after another. `edit` is pure and throws StanzaError to refuse. `then`
   * runs when the change is stored and in force, before the next one.
   */
  change(
    local: string,
    edit: (jids: ReadonlySet<string>) => ReadonlySet<string>,
    then: (before: BlockList, after: BlockList) => void,
  ): Promise<void> {
    const mine = (this.#changing.get(local) ?? Promise.resolve()).then(async () => {
      let before = NOBODY
      const doc = await this.#docs.update(local, KEY, (stored) => {
        before = listOf(stored?.jids ?? [])
        const jids = [...edit(before.jids)]
        return jids.length === 0 ? undefined : { jids }
      })
      const after = listOf(doc?.jids ?? [])
      this.#forget(local)
      this.#keep(local, after)
      then(before, after)
    })
    const over = mine
      .catch(() => undefined)
      .finally(() => {
        if (this.#changing.get(local) === over) this.#changing.delete(local)
      })
    this.#changing.set(local, over)
    return mine
  }
}

function listOf(jids: readonly string[]): BlockList {
  return jids.length === 0 ? NOBODY : new BlockList(new Set(jids))
}
