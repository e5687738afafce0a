/**
 * Random sequences of commands, run on a driver and on the memory driver: every answer must be the same. Ids,
 * tokens and counters are compared by what they mean, not by their value. HERMOD_TEST_RUNS sets the number of
 * sequences (1,000), HERMOD_TEST_SEED repeats one run; both are in the message of a failure.
 */
import { expect } from 'chai'
import fc from 'fast-check'
import { UnknownEntry } from '../../../server/storage/contract.ts'
import type { Archive, Counter, Docs, Json, Lease, Query, Store } from '../../../server/storage/contract.ts'
import { openMemory } from '../../../server/storage/memory.ts'
import { collect } from './kit.ts'
import type { Test } from './kit.ts'

type Item = { readonly f?: string; readonly g?: string | number; readonly v: Json }
type Msg = { readonly text: string; readonly v: Json }
type Modes = 'grow' | 'delete' | 'keep' | 'throw'
type Filter = {
  readonly with?: string
  readonly start?: number
  readonly end?: number
  readonly text?: string
  readonly after?: number
  readonly before?: number
  readonly ids?: readonly number[]
}
type Added = {
  readonly owner: string
  readonly at: number
  readonly with: string
  readonly doc: Msg
  readonly dedupe?: string
}
type Command =
  | { readonly do: 'put'; readonly owner: string; readonly key: string; readonly doc: Item }
  | { readonly do: 'update'; readonly owner: string; readonly key: string; readonly mode: Modes }
  | { readonly do: 'get' | 'delete'; readonly owner: string; readonly key: string }
  | { readonly do: 'list'; readonly owner: string; readonly after?: string }
  | { readonly do: 'find'; readonly field: 'f' | 'g'; readonly value: string }
  | { readonly do: 'purge' | 'purgeOwner' | 'counter'; readonly owner: string }
  | { readonly do: 'owners' }
  | { readonly do: 'append'; readonly entries: readonly Added[] }
  | {
      readonly do: 'page'
      readonly owner: string
      readonly filter: Filter
      readonly last: boolean
      readonly limit: number
    }
  | { readonly do: 'replace'; readonly owner: string; readonly entry: number; readonly doc: Msg }
  | {
      readonly do: 'remove'
      readonly owner: string
      readonly ids?: readonly number[]
      readonly until?: number
      readonly before?: number
      readonly keepLast?: number
    }
  | { readonly do: 'acquire'; readonly key: string; readonly holder: string; readonly ttl: number }
  | { readonly do: 'renew' | 'release'; readonly grant: number; readonly ttl: number }
  | { readonly do: 'wait'; readonly ms: number }

const some = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined })
/** A record without the fields that came out undefined: the contract has no undefined. */
function record<T>(fields: { [K in keyof T]: fc.Arbitrary<T[K] | undefined> }): fc.Arbitrary<T> {
  return fc
    .record<Record<string, unknown>>(fields)
    .map((all) => Object.fromEntries(Object.entries(all).filter(([, v]) => v !== undefined)) as T)
}
const owner = fc.constantFrom('', 'a', 'ab', 'ü'.repeat(500))
const key = fc.constantFrom(
  '',
  'a',
  'a\0',
  'b',
  '😀',
  '\uffff',
  'k'.repeat(511),
  `${'k'.repeat(3000)}0`,
  `${'k'.repeat(3000)}1`,
)
const peer = fc.constantFrom('', 'a@b', 'a@bc', 'x'.repeat(2000))
const word = fc.constantFrom('apple', 'Banana', 'cherry', 'straße', '天気')
const text = fc.array(word, { maxLength: 3 }).map((words) => words.join(' '))
const json = fc.oneof(
  { weight: 3, arbitrary: fc.string({ unit: 'binary', maxLength: 20 }) },
  fc
    .jsonValue({ maxDepth: 2, stringUnit: 'binary', noUnicodeString: false })
    .map((value) => storable(value as Json)),
)
const value = fc.constantFrom('x', 'y', '', 'z'.repeat(2500))
const item = record<Item>({ f: some(value), g: some(fc.oneof(value, fc.integer())), v: json })
const msg = fc.record({ text, v: json })
const time = fc.integer({ min: 0, max: 12 })
// Entries are named by their place among all that were appended.
const entry = fc.nat({ max: 40 })
const owned = { owner, key }

const command: fc.Arbitrary<Command> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant('put' as const), ...owned, doc: item }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('update' as const),
      ...owned,
      mode: fc.constantFrom<Modes>('grow', 'delete', 'keep', 'throw'),
    }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constantFrom('get' as const, 'delete' as const), ...owned }) },
  {
    weight: 3,
    arbitrary: record<Command & { do: 'list' }>({
      do: fc.constant('list' as const),
      owner,
      after: some(key),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('find' as const),
      field: fc.constantFrom('f' as const, 'g' as const),
      value,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constantFrom('purge' as const, 'counter' as const, 'counter' as const),
      owner,
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('purgeOwner' as const), owner }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('owners' as const) }) },
  {
    weight: 10,
    arbitrary: fc.record({
      do: fc.constant('append' as const),
      entries: fc.array(
        record<Added>({ owner, at: time, with: peer, doc: msg, dedupe: some(fc.constantFrom('d', 'e', '')) }),
        { minLength: 1, maxLength: 6 },
      ),
    }),
  },
  {
    weight: 10,
    arbitrary: fc.record({
      do: fc.constant('page' as const),
      owner,
      filter: record<Filter>({
        with: some(peer),
        start: some(time),
        end: some(time),
        text: some(text),
        after: fc.option(entry, { nil: undefined, freq: 3 }),
        before: fc.option(entry, { nil: undefined, freq: 3 }),
        ids: fc.option(fc.array(entry, { maxLength: 10 }), { nil: undefined, freq: 3 }),
      }),
      last: fc.boolean(),
      limit: fc.integer({ min: 1, max: 8 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('replace' as const), owner, entry, doc: msg }) },
  {
    weight: 2,
    arbitrary: record<Command & { do: 'remove' }>({
      do: fc.constant('remove' as const),
      owner,
      ids: some(fc.array(entry, { maxLength: 5 })),
      until: some(time),
      before: fc.option(entry, { nil: undefined, freq: 3 }),
      keepLast: some(fc.nat({ max: 10 })),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('acquire' as const),
      key,
      holder: fc.constantFrom('p', 'q'),
      ttl: fc.integer({ min: 1, max: 50 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constantFrom('renew' as const, 'release' as const),
      grant: fc.nat({ max: 5 }),
      ttl: fc.integer({ min: 1, max: 50 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('wait' as const), ms: fc.integer({ min: 1, max: 60 }) }),
  },
)

/** One driver under test with the names it gave to what the commands made. */
class Player {
  readonly #store: Store
  readonly #host: string
  readonly #docs: Docs<Item>
  readonly #archive: Archive<Msg>
  readonly #counter: Counter
  readonly #lease: Lease
  readonly #ids: { readonly owner: string; readonly id: string }[] = []
  readonly #grants: { readonly key: string; readonly token: number }[] = []
  readonly #counted = new Map<string, number>()

  constructor(store: Store, host: string) {
    const storage = store.open(host, 'm')
    this.#store = store
    this.#host = host
    this.#docs = storage.docs<Item>('d', { index: ['f', 'g'] })
    this.#archive = storage.archive<Msg>('a')
    this.#counter = storage.counter('c')
    this.#lease = storage.lease('l')
  }

  /** The answer to a command, without anything that may differ between drivers. */
  async run(c: Command): Promise<unknown> {
    switch (c.do) {
      case 'put':
        return await this.#docs.put(c.owner, c.key, c.doc)
      case 'get':
        return await this.#docs.get(c.owner, c.key)
      case 'delete':
        return await this.#docs.delete(c.owner, c.key)
      case 'update':
        return await this.#update(c.owner, c.key, c.mode)
      case 'list':
        // Keys that are alike in the first 512 bytes have an order of the driver.
        return (await collect(this.#docs.list(c.owner, alike(c.after) ? undefined : c.after))).sort(byKey)
      case 'find':
        return (await collect(this.#docs.find(c.field, c.value))).map((found) => JSON.stringify(found)).sort()
      case 'owners':
        return [(await collect(this.#docs.owners())).sort(), (await collect(this.#archive.owners())).sort()]
      case 'purge':
        return await this.#docs.purge(c.owner)
      case 'purgeOwner':
        return await this.#store.purgeOwner(this.#host, c.owner)
      case 'counter':
        return await this.#count(c.owner)
      case 'append': {
        const done = c.entries.map(({ owner: o, at, ...rest }) =>
          this.#archive.append(o, { at: new Date(at), ...rest }),
        )
        return (await Promise.all(done)).map(({ id, duplicate }, i) => {
          if (!duplicate) this.#ids.push({ owner: c.entries[i]!.owner, id })
          return [this.#name(c.entries[i]!.owner, id), duplicate]
        })
      }
      case 'page':
        return await this.#page(c.owner, c.filter, c.last ? 'last' : 'first', c.limit)
      case 'replace':
        return await this.#archive.replace(c.owner, this.#id(c.owner, c.entry), c.doc)
      case 'remove':
        return await this.#archive.remove(c.owner, {
          ...(c.ids === undefined ? {} : { ids: c.ids.map((i) => this.#id(c.owner, i)) }),
          ...(c.until === undefined ? {} : { until: new Date(c.until) }),
          ...(this.#ids[c.before ?? -1]?.owner === c.owner
            ? { before: this.#id(c.owner, c.before ?? -1) }
            : {}),
          ...(c.keepLast === undefined ? {} : { keepLast: c.keepLast }),
        })
      case 'acquire': {
        const granted = await this.#lease.acquire(c.key, c.holder, c.ttl)
        if (granted !== undefined) {
          for (const old of this.#grants)
            if (old.key === c.key) expect(granted.token).to.be.greaterThan(old.token)
          this.#grants.push({ key: c.key, token: granted.token })
        }
        return [granted !== undefined, (await this.#lease.get(c.key))?.holder]
      }
      case 'renew':
      case 'release': {
        const grant = this.#grants[c.grant]
        if (grant === undefined) return undefined
        if (c.do === 'renew') return await this.#lease.renew(grant.key, grant.token, c.ttl)
        await this.#lease.release(grant.key, grant.token)
        return (await this.#lease.get(grant.key))?.holder
      }
      case 'wait':
        return undefined
    }
  }

  async #update(o: string, k: string, mode: Modes): Promise<unknown> {
    try {
      return await this.#docs.update(o, k, (old) => {
        if (mode === 'throw') throw new Error('refused')
        if (mode === 'delete') return undefined
        return mode === 'keep' ? old : { ...old, v: [old?.v ?? 0].flat(1).concat('more').slice(-3) }
      })
    } catch (error) {
      return (error as Error).message
    }
  }

  async #count(o: string): Promise<unknown> {
    const before = await this.#counter.get(o)
    const next = await this.#counter.next(o)
    expect(next).to.be.greaterThan(Math.max(before, this.#counted.get(o) ?? 0))
    this.#counted.set(o, next)
    return [before === 0, (await this.#counter.get(o)) === next]
  }

  async #page(o: string, f: Filter, from: Query['from'], limit: number): Promise<unknown> {
    const { start, end, after, before, ids, ...rest } = f
    try {
      const page = await this.#archive.page(o, {
        ...rest,
        ...(start === undefined ? {} : { start: new Date(start) }),
        ...(end === undefined ? {} : { end: new Date(end) }),
        ...(after === undefined ? {} : { after: this.#id(o, after) }),
        ...(before === undefined ? {} : { before: this.#id(o, before) }),
        ...(ids === undefined ? {} : { ids: ids.map((i) => this.#id(o, i)) }),
        from,
        limit,
        count: true,
      })
      return {
        ...page,
        entries: page.entries.map(({ id, ...entry }) => ({ id: this.#name(o, id), ...entry })),
      }
    } catch (error) {
      if (error instanceof UnknownEntry) return 'unknown entry'
      throw error
    }
  }

  // Ids are unique per owner only, so an id of another owner could be one of this owner's: never ask for
  // those.
  #id(o: string, place: number): string {
    const one = this.#ids[place]
    return one?.owner === o ? one.id : 'never'
  }

  #name(o: string, id: string): number {
    return this.#ids.findIndex((one) => one.id === id && one.owner === o)
  }
}

function alike(key_: string | undefined): boolean {
  return key_ !== undefined && key_.length > 512
}

function byKey(a: readonly [string, unknown], b: readonly [string, unknown]): number {
  return Buffer.compare(Buffer.from(a[0]), Buffer.from(b[0]))
}

function storable(v: Json): Json {
  // No -0, and no NUL in a name.
  return JSON.parse(JSON.stringify(v), (_, one: unknown) =>
    typeof one === 'object' && one !== null && !Array.isArray(one)
      ? Object.fromEntries(
          Object.entries(one).map(([name, inner]) => [name.replaceAll('\0', '0'), inner as Json]),
        )
      : one,
  ) as Json
}

/** Registers the group. */
export function randomGroup(test: Test): void {
  test('random sequences of commands give what the memory driver gives', async ({ fresh }) => {
    let now = 1_000_000
    const { store } = await fresh({ now: () => now })
    const memory = await openMemory({ now: () => now })
    let hosts = 0
    const property = fc.asyncProperty(
      fc.array(command, { minLength: 1, maxLength: 40, size: 'max' }),
      async (commands) => {
        hosts += 1
        const [tried, model] = [new Player(store, `h${hosts}`), new Player(memory, `h${hosts}`)]
        for (const c of commands) {
          if (c.do === 'wait') now += c.ms
          expect(await tried.run(c), c.do).to.deep.equal(await model.run(c))
        }
      },
    )
    const seed = Number(process.env['HERMOD_TEST_SEED'] ?? Date.now() % 2 ** 31)
    const numRuns = Number(process.env['HERMOD_TEST_RUNS'] ?? 1000)
    const result = await fc.check(property, {
      seed,
      numRuns,
      interruptAfterTimeLimit: 60_000,
      endOnFailure: false,
    })
    if (result.failed)
      throw new Error(`HERMOD_TEST_SEED=${seed}: ${fc.defaultReportMessage(result)}`, {
        cause: result.errorInstance,
      })
    expect(result.numRuns).to.be.greaterThan(0)
    console.log(`        ${result.numRuns} sequences, seed ${seed}`)
  }, 240_000)
}
