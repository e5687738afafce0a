/**
 * Pages of an archive (XEP-0313 §4.3, XEP-0059): which entries a query gets. A page is bounded in number and in size; what it costs does
 * not depend on how large the archive is, except where a filter passes next to nothing (a full address, words). Such a search is done in steps, and
 * ends after some time with what it has found; when that is nothing, the client is asked to try again, and the search goes on from where it was.
 *
 * The number of all that match is only told when it is asked for (XEP-0059 §2.7), or known anyhow: to count is the one thing that costs more
 * with every message.
 */
import { createHash } from 'node:crypto'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { type Entry, type Page, UnknownEntry } from '../../server/module.ts'
import type { Element } from '../../server/xmpp/element.ts'
import { el } from '../../server/xmpp/element.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { type JID, tryJid } from '../../server/xmpp/jid.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { formatDateTime } from '../../server/xmpp/xml-time.ts'
import { NS_MAM } from './ns.ts'
import type { ArchiveQuery, Filter } from './query.ts'
import type { Reached, Searches } from './searches.ts'
import type { Source, Stored } from './service.ts'

/** XML of a page, in UTF-16 units: beyond this it ends, whatever was asked for. At least one message is always in it. */
const MAX_PAGE_SIZE = 512 * 1024
/** Entries read at once; and where the store is not asked to look at less when they are large. */
const STEP = 100
const FEW = 20
/** How long a query may look for the next match, milliseconds; less than a client waits, whose other stanzas are behind it. */
const PATIENCE_MS = 5000
/** Entries that the store looks at in one call: a fraction of a second. */
const EFFORT = 5000
/** Entries looked at to count what the store cannot count. */
const MOST_COUNTED = 1000
/** How long entries are looked at before others have their turn, milliseconds: a store need not leave any when it is asked. */
const SLICE_MS = 4

/** An entry of a page. */
export interface Result {
  /** The id for clients. */
  readonly id: string
  readonly at: Date
  /** The stanza as the asker may see it: a document of its own. */
  readonly xml: string
}

/** A page, oldest first. */
export interface ResultPage {
  readonly results: readonly Result[]
  /** Nothing that matches lies beyond it in the direction of paging. */
  readonly complete: boolean
  /** All that match the filter, exactly; undefined: not counted. */
  readonly count: number | undefined
}

/** Bounds on pages, in entries. */
export interface PageLimits {
  /** When the client does not say. */
  readonly pageSize: number
  readonly maxPage: number
}

type Bounds = { readonly after?: string; readonly before?: string }
/** What the store filters by. */
type Conditions = {
  readonly with?: string
  readonly start?: Date
  readonly end?: Date
  readonly text?: string
  readonly ids?: readonly string[]
}

/** Reads the page that a query asks for. Throws StanzaError('item-not-found') when an id in it is not in the archive. */
export async function readPage(
  source: Source,
  query: ArchiveQuery,
  limits: PageLimits,
  searches: Searches,
): Promise<ResultPage> {
  const { filter, page } = query
  const wanted = await conditions(source, filter)
  const backwards = page?.before !== undefined
  const inside = boundsOf(
    await later(source, filter.afterId, page?.after),
    await earlier(source, filter.beforeId, page?.before === '' ? undefined : page?.before),
  )
  const limit = Math.min(page?.max ?? limits.pageSize, limits.maxPage)
  const full = fullAddress(filter.with)
  try {
    if (limit === 0) return await countOnly(source, wanted, filter, inside)
    const look: Look = { source, wanted, full, backwards, limit }
    const found = isSearch(query) ? await search(look, inside, searches) : await collect(look, [inside])
    if (found.reached !== undefined) throw tooMuch()
    const all = found.complete && page?.after === undefined && (page?.before ?? '') === ''
    return { ...found, count: all ? found.results.length : undefined }
  } catch (error) {
    if (error instanceof UnknownEntry) throw new StanzaError('item-not-found')
    throw error
  }
}

/** Whether a query may look at all of an archive and find nothing. */
export const isSearch = ({ filter }: ArchiveQuery): boolean =>
  filter.text !== undefined || filter.with?.isFull === true

/** XEP-0059 §2.2: a page without items has no <last/> from which a client could go on. */
const tooMuch = (): StanzaError =>
  new StanzaError('resource-constraint', { type: 'wait', text: 'the archive is searched, ask again' })

/** What to look for. */
interface Look {
  readonly source: Source
  readonly wanted: Conditions
  readonly full: JID | undefined
  readonly backwards: boolean
  readonly limit: number
}
type Found = Pick<ResultPage, 'results' | 'complete'> & {
  /** Nothing was found up to this entry of the store, and the time is over. */
  readonly reached?: string
}

/** Goes on where the same search was when its time was over. */
async function search(look: Look, inside: Bounds, searches: Searches): Promise<Found> {
  const { source, backwards } = look
  const { archive, owner } = source
  const name = source.jid.toString()
  const what = JSON.stringify([look.wanted, look.full?.toString(), backwards, inside])
  const key = createHash('sha256').update(what).digest('base64')
  const attempt = async (before: Reached | undefined): Promise<Found> => {
    const newest = async () => (await archive.page(owner, { from: 'last', limit: 1 })).entries[0]?.id
    const top = before === undefined ? (backwards ? await newest() : undefined) : before.top
    const found = await collect(look, passes(inside, backwards, before))
    if (found.reached === undefined) searches.done(name, key)
    else searches.came(name, key, { reached: found.reached, top })
    return found
  }
  const before = searches.reached(name, key)
  try {
    return await attempt(before)
  } catch (error) {
    if (before === undefined || !(error instanceof UnknownEntry)) throw error
    return await attempt(undefined) // an entry that it was at is gone
  }
}

/** What is left to look at, in the direction of the search, when it was at some entry before. */
function passes(inside: Bounds, backwards: boolean, before: Reached | undefined): readonly Bounds[] {
  if (before === undefined) return [inside]
  const rest = { ...inside, [backwards ? 'before' : 'after']: before.reached }
  // What has come since is behind what was the newest then.
  return backwards && inside.before === undefined && before.top !== undefined
    ? [{ ...inside, after: before.top }, rest]
    : [rest]
}

/** Work that leaves others their turns. */
class Slices {
  #until = performance.now() + SLICE_MS

  /** A promise when the time of this turn is over. */
  next(): Promise<void> | undefined {
    return performance.now() < this.#until ? undefined : this.#wait()
  }

  async #wait(): Promise<void> {
    await nextTurn()
    this.#until = performance.now() + SLICE_MS
  }
}

/** Reads what is within the bounds, one after another. */
async function collect(look: Look, parts: readonly Bounds[]): Promise<Found> {
  const until = performance.now() + PATIENCE_MS
  const page: Gathering = { results: [], size: 0, until, slices: new Slices() }
  for (const part of parts) {
    const ended = await gather(look, part, page)
    if (ended === true) continue
    // What was found is a page; its last item is where the client goes on.
    return page.results.length === 0 && ended !== false
      ? { results: [], complete: false, reached: ended }
      : { results: inOrder(page.results, look.backwards), complete: false }
  }
  return { results: inOrder(page.results, look.backwards), complete: true }
}

/** A page as it grows. */
interface Gathering {
  readonly results: Result[]
  size: number
  /** As performance.now() has it. */
  readonly until: number
  readonly slices: Slices
}

/** True: all within the bounds was looked at. False: the page is full. Else the time is over, and this is the last entry that was looked at. */
async function gather(look: Look, inside: Bounds, page: Gathering): Promise<boolean | string> {
  const { source, wanted, full, backwards, limit } = look
  const { results, until, slices } = page
  let bounds = inside
  for (;;) {
    let read: Page<Stored>
    try {
      read = await source.archive.page(source.owner, {
        ...wanted,
        ...bounds,
        from: backwards ? 'last' : 'first',
        limit: full === undefined ? Math.max(1, Math.min(STEP, limit - results.length)) : STEP,
        effort: EFFORT,
      })
    } catch (error) {
      if (!(error instanceof UnknownEntry) || bounds === inside) throw error
      // The entry that the last step came to was just removed. What was found is a page; else it begins again.
      if (results.length > 0) return false
      bounds = inside
      continue
    }
    const entries = backwards ? read.entries.toReversed() : read.entries
    for (const entry of entries) {
      const turn = slices.next()
      if (turn !== undefined) await turn
      if (full !== undefined && !isWith(entry.doc, full)) continue
      // The first of a page is in it however large it is, or paging would never get past it.
      if (
        results.length === limit ||
        (results.length > 0 && page.size + entry.doc.xml.length > MAX_PAGE_SIZE)
      )
        return false
      page.size += entry.doc.xml.length
      results.push(resultOf(source, entry))
    }
    const last = read.reached ?? entries.at(-1)?.id
    if (read.complete || last === undefined) return true
    if (full === undefined && results.length === limit) return false
    if (performance.now() > until) return last
    bounds = backwards ? { ...bounds, before: last } : { ...bounds, after: last }
  }
}

const inOrder = (results: Result[], backwards: boolean): readonly Result[] =>
  backwards ? results.toReversed() : results

/** An entry as clients get it. */
export function resultOf(source: Source, { id, at, doc: { xml } }: Entry<Stored>): Result {
  const shown = source.show === undefined ? xml : source.show(parseXml(xml)).toString()
  return { id: source.ids.encode(source.owner, id), at, xml: shown }
}

/** XEP-0059 §2.7: the number of matches alone, of the whole set whatever the page. */
async function countOnly(
  source: Source,
  wanted: Conditions,
  filter: Filter,
  inside: Bounds,
): Promise<ResultPage> {
  const full = fullAddress(filter.with)
  const { text, afterId, beforeId } = filter
  if (full === undefined && text === undefined && afterId === undefined && beforeId === undefined) {
    const { count } = await source.archive.page(source.owner, {
      ...wanted,
      ...inside,
      from: 'first',
      limit: 1,
      count: true,
    })
    return { results: [], complete: count === 0, count }
  }
  // The store does not count between two entries, or by full address, and to count words it looks at all; a small number can be seen.
  const between = boundsOf(
    afterId === undefined ? undefined : known(source, afterId),
    beforeId === undefined ? undefined : known(source, beforeId),
  )
  const count = await countFew(source, wanted, full, between)
  return { results: [], complete: count === 0, count }
}

/** How many match, undefined when that is too much to look at. */
async function countFew(
  source: Source,
  wanted: Conditions,
  full: JID | undefined,
  between: Bounds,
): Promise<number | undefined> {
  const until = performance.now() + PATIENCE_MS
  const slices = new Slices()
  let count = 0
  let bounds = between
  try {
    for (let left = MOST_COUNTED; left > 0; ) {
      const query = { ...wanted, ...bounds, from: 'first', limit: STEP, effort: EFFORT } as const
      const page = await source.archive.page(source.owner, query)
      for (const { doc } of page.entries) {
        const turn = slices.next()
        if (turn !== undefined) await turn
        if (full === undefined || isWith(doc, full)) count++
      }
      if (page.complete) return count
      const last = page.reached ?? page.entries.at(-1)?.id
      // A step may end early as entries are large; but words may be in none of all the others.
      if (last === undefined || (wanted.text !== undefined && page.reached !== undefined)) return undefined
      if (performance.now() > until) return undefined
      left -= page.entries.length
      bounds = { ...bounds, after: last }
    }
  } catch (error) {
    // The entry that the last step came to was just removed: nobody knows how many there are now.
    if (!(error instanceof UnknownEntry) || bounds === between) throw error
  }
  return undefined
}

const boundsOf = (after: string | undefined, before: string | undefined): Bounds => ({
  ...(after === undefined ? {} : { after }),
  ...(before === undefined ? {} : { before }),
})

/** §4.1: the conditions that the store knows. An id that is not in the archive is an error (§4.1.3). */
async function conditions(source: Source, filter: Filter): Promise<Conditions> {
  const ids = filter.ids === undefined ? undefined : await existing(source, filter.ids)
  return {
    // §4.1.1: a bare address also stands for those with a resource
    ...(filter.with === undefined ? {} : { with: filter.with.bare.toString() }),
    ...(filter.start === undefined ? {} : { start: new Date(filter.start) }),
    ...(filter.end === undefined ? {} : { end: new Date(filter.end) }),
    ...(filter.text === undefined ? {} : { text: filter.text }),
    ...(ids === undefined ? {} : { ids }),
  }
}

async function existing(source: Source, texts: readonly string[]): Promise<readonly string[]> {
  const ids = texts.map((text) => known(source, text))
  const slices = new Slices()
  // Not all at once: what is read is whole messages.
  for (let i = 0; i < ids.length; i += FEW) {
    const step = ids.slice(i, i + FEW)
    const found = await source.archive.page(source.owner, { ids: step, from: 'first', limit: step.length })
    if (found.entries.length < step.length) throw new StanzaError('item-not-found')
    const turn = slices.next()
    if (turn !== undefined) await turn
  }
  return ids
}

function known(source: Source, text: string): string {
  const id = source.ids.decode(source.owner, text)
  if (id === undefined)
    throw new StanzaError('item-not-found', { text: `no such message: ${text.slice(0, 100)}` })
  return id
}

/** The later of two ids; ids of the store are in the order of the archive. */
const later = (source: Source, a: string | undefined, b: string | undefined) =>
  outermost(source, a, b, (x, y) => x > y)
const earlier = (source: Source, a: string | undefined, b: string | undefined) =>
  outermost(source, a, b, (x, y) => x < y)

async function outermost(
  source: Source,
  a: string | undefined,
  b: string | undefined,
  better: (a: string, b: string) => boolean,
): Promise<string | undefined> {
  // §4.1.3 and XEP-0059 §2.2 may name the same entry.
  if (a === undefined || b === undefined || a === b) {
    const one = a ?? b
    return one === undefined ? undefined : known(source, one)
  }
  // The store looks only at the one that it is told.
  const [x, y] = await existing(source, [a, b])
  return x !== undefined && y !== undefined && better(y, x) ? y : x
}

const fullAddress = (jid: JID | undefined): JID | undefined => (jid?.isFull === true ? jid : undefined)

/** §4.1.1: to or from exactly that address. Only the start tag is read, which has no ">" within: what is in the message may be much. */
function isWith({ xml }: Stored, full: JID): boolean {
  const end = xml.indexOf('>')
  const stanza = parseXml(xml[end - 1] === '/' ? xml : `${xml.slice(0, end)}/>`)
  return ['from', 'to'].some((name) => tryJid(stanza.attr(name) ?? '')?.equals(full) === true)
}

/** §5: first and last entry, nothing for an empty archive. */
export async function metadataOf(source: Source): Promise<Element> {
  const [first, last] = await Promise.all(
    (['first', 'last'] as const).map(
      async (from) => (await source.archive.page(source.owner, { from, limit: 1 })).entries[0],
    ),
  )
  const end = (name: string, entry: Entry<Stored> | undefined) =>
    entry === undefined
      ? undefined
      : el(name, NS_MAM, {
          id: source.ids.encode(source.owner, entry.id),
          timestamp: formatDateTime(entry.at.getTime()),
        })
  return el('metadata', NS_MAM, {}, end('start', first), end('end', last))
}
