/** Retractions that wait, and the work on them: one conversation after another, accounts in turn. What waits is in the store. */
import { randomUUID } from 'node:crypto'
import { type Ctx, type Docs, type Hooks, type Services, StoreUnavailable } from '../../server/module.ts'
import { makeJid, parseJid } from '../../server/xmpp/jid.ts'
import { NS_RETRACT, Search, tombstone, type Waiting } from './search.ts'

/** Longer ids name nothing, UTF-16 units. */
const MAX_ID = 1024
/** Retractions in one archive that wait, of one author and of all. */
const MAX_OF_AUTHOR = 1000
const MAX_OF_ACCOUNT = 5000
/** Looking at more entries than this in vain is much work; and what comes after it. */
const MANY_SEARCHED = 1000
/** What a conversation costs however short it is, in entries. */
const LEAST_WORK = 10
const REST_MS = 60_000
/** What has failed for so long, although the store can be reached, will not succeed. */
const GIVE_UP_MS = 7 * 86_400_000
/** Documents deleted at once. */
const AT_ONCE = 50

/** One that waits; `key` is undefined when it could not be written. */
type Task = { readonly key: string | undefined; readonly doc: Waiting }
/** What waits in one archive. */
interface Load {
  total: number
  readonly authors: Map<string, number>
  warned: boolean
}

/** What is to be buried in the archives of a host. */
export class Burials {
  readonly #ctx: Ctx
  readonly #archive: Services['archive']
  readonly #searchBack: number
  readonly #docs: Docs<Waiting>
  /** What could not be written, by account: it is done all the same. */
  readonly #unwritten = new Map<string, Task[]>()
  /** Accounts in turn. */
  readonly #queue = new Set<string>()
  /** Conversations in which a long search was in vain, or one has failed, a short while ago. */
  readonly #resting = new Set<string>()
  readonly #loads = new Map<string, Load>()
  readonly #leftOut: { add(n?: number): void }
  #working = false

  constructor(ctx: Ctx, archive: Services['archive'], searchBack: number) {
    this.#ctx = ctx
    this.#archive = archive
    this.#searchBack = searchBack
    this.#docs = ctx.storage.docs<Waiting>('waiting')
    this.#leftOut = ctx.metrics.counter('left_out', 'Retractions that too many others were in front of')
  }

  /** Takes a retraction; it will be carried out, also by the next process, when this resolves. */
  async add({ local, from, peer, stanza, occupant }: Hooks['archive:retraction']): Promise<void> {
    const target = stanza.getChild('retract', NS_RETRACT)?.attr('id') ?? ''
    // §4: the tombstone names the retraction
    const by = stanza.attr('id') ?? ''
    if (target === '' || by === '' || target.length > MAX_ID || by.length > MAX_ID) return
    const at = this.#ctx.now()
    const doc = { from: from.toString(), peer: peer.bare.toString(), target, by, occupant, at }
    if (!this.#count(local, doc)) return
    const key = `${at.toString(36).padStart(9, '0')} ${randomUUID()}`
    try {
      await this.#docs.put(local, key, doc)
    } catch (error) {
      this.#ctx.log.error('a retraction is lost if this process ends now', { err: error })
      const unwritten = this.#unwritten.get(local)
      if (unwritten === undefined) this.#unwritten.set(local, [{ key: undefined, doc }])
      else unwritten.push({ key: undefined, doc })
    }
    if (!this.#resting.has(conversationOf(local, doc))) this.#enqueue(local)
  }

  /** Goes on with what this process, or another one, has left. Never rejects. */
  async resume(): Promise<void> {
    try {
      await this.#ctx.inSlices(this.#docs.owners(), (local) => this.#enqueue(local))
    } catch (error) {
      if (this.#ctx.signal.aborted) return
      this.#ctx.log.error('retractions that wait were not found', { err: error })
      this.#ctx.timers.after(REST_MS, () => this.resume())
    }
  }

  /** Counts one more; false: there is no room for it. */
  #count(local: string, doc: Waiting): boolean {
    const load = this.#loadOf(local)
    const own = load.authors.get(authorOf(doc)) ?? 0
    if (own < MAX_OF_AUTHOR && load.total < MAX_OF_ACCOUNT) {
      weigh(load, doc)
      return true
    }
    this.#leftOut.add()
    if (!load.warned) this.#ctx.log.warn('too many retractions of one account at once, some are left out')
    load.warned = true
    return false
  }

  #loadOf(local: string): Load {
    let load = this.#loads.get(local)
    if (load === undefined) this.#loads.set(local, (load = { total: 0, authors: new Map(), warned: false }))
    return load
  }

  #enqueue(local: string): void {
    this.#queue.add(local)
    if (!this.#working) void this.#work()
  }

  async #work(): Promise<void> {
    this.#working = true
    // Who comes again meanwhile comes last.
    for (const local of this.#queue) {
      if (this.#ctx.signal.aborted) break
      this.#queue.delete(local)
      try {
        await this.#turn(local)
      } catch (error) {
        if (this.#ctx.signal.aborted) break
        this.#ctx.log.error('retractions that wait cannot be read or removed for now', { err: error })
        this.#ctx.timers.after(REST_MS, () => this.#enqueue(local))
      }
    }
    this.#working = false
  }

  /** All that waits for some conversations of an account, until that was much work. */
  async #turn(local: string): Promise<void> {
    const tasks: Task[] = []
    await this.#ctx.inSlices(this.#docs.list(local), ([key, doc]) => void tasks.push({ key, doc }))
    tasks.push(...(this.#unwritten.get(local) ?? []))
    const ready = tasks.filter(({ doc }) => !this.#resting.has(conversationOf(local, doc)))
    const conversations = Map.groupBy(ready, ({ doc }) => doc.peer)
    const done = new Set<Task>()
    let work = 0
    for (const [peer, mine] of conversations) {
      if (work >= MANY_SEARCHED) break
      conversations.delete(peer)
      const { over, looked } = await this.#tried(local, peer, mine)
      if (this.#ctx.signal.aborted) return
      for (const task of over) done.add(task)
      work += Math.max(looked, LEAST_WORK)
    }
    await this.#forget(local, done)
    this.#loads.delete(local)
    for (const task of tasks) if (!done.has(task)) weigh(this.#loadOf(local), task.doc)
    if (conversations.size > 0) this.#enqueue(local)
  }

  async #forget(local: string, done: ReadonlySet<Task>): Promise<void> {
    const left = (this.#unwritten.get(local) ?? []).filter((task) => !done.has(task))
    if (left.length === 0) this.#unwritten.delete(local)
    else this.#unwritten.set(local, left)
    const tasks = [...done]
    for (let i = 0; i < tasks.length; i += AT_ONCE)
      await Promise.all(
        tasks
          .slice(i, i + AT_ONCE)
          .flatMap(({ key }) => (key === undefined ? [] : this.#docs.delete(local, key))),
      )
  }

  /**
   * Those that are over, and how many entries were looked at. When it has failed it is tried again after a rest, and others have their turn at
   * once.
   */
  async #tried(
    local: string,
    peer: string,
    tasks: readonly Task[],
  ): Promise<{ readonly over: readonly Task[]; readonly looked: number }> {
    try {
      return { over: tasks, looked: await this.#bury(local, peer, tasks) }
    } catch (error) {
      if (this.#ctx.signal.aborted) return { over: [], looked: 0 }
      this.#ctx.log.error('retracted messages stay in the archive for now', { err: error })
      this.#rest(`${local}\0${peer}`, local)
      const old = error instanceof StoreUnavailable ? 0 : this.#ctx.now() - GIVE_UP_MS
      return { over: tasks.filter(({ doc }) => doc.at < old), looked: Infinity }
    }
  }

  /** Looks for what is retracted in one conversation, from the newest entry back, and puts tombstones there; the entries looked at. */
  async #bury(local: string, peer: string, tasks: readonly Task[]): Promise<number> {
    const account = makeJid(local, this.#ctx.host)
    const search = new Search(
      tasks.map(({ doc }) => doc),
      account,
      this.#searchBack,
    )
    const entries = this.#archive.newest(local, parseJid(peer))
    await this.#ctx.inSlices(until(entries, search), async ({ id, stanza }) => {
      const by = search.look(stanza)
      if (by !== undefined) await this.#archive.replace(local, id, tombstone(stanza, by))
    })
    if (search.looked > MANY_SEARCHED && search.missing > 0) this.#rest(`${local}\0${peer}`, local)
    return search.looked
  }

  #rest(conversation: string, local: string): void {
    this.#resting.add(conversation)
    this.#ctx.timers.after(REST_MS, () => {
      this.#resting.delete(conversation)
      this.#enqueue(local)
    })
  }
}

async function* until<T>(items: AsyncIterable<T>, search: Search): AsyncIterable<T> {
  for await (const item of items) {
    yield item
    if (search.over) return
  }
}

const weigh = (load: Load, doc: Waiting): void => {
  const author = authorOf(doc)
  load.total++
  load.authors.set(author, (load.authors.get(author) ?? 0) + 1)
}

const conversationOf = (local: string, { peer }: Waiting): string => `${local}\0${peer}`
/** Among the occupants of a room the full address tells who that is. */
const authorOf = ({ from, occupant }: Waiting): string => (occupant ? from : (from.split('/', 1)[0] ?? from))
