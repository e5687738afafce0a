/**
 * Result set management (XEP-0059 1.0): the request of a page, the <set/> of a result, and pages of lists in memory. Stored result sets
 * (archives, pubsub) do their own seeking with the request read here.
 */
import { type Element, el } from './element.ts'
import { StanzaError } from './errors.ts'
import { NS } from './ns.ts'

/** What page is asked for. At most one of `after`, `before` and `index` is there. */
export interface PageRequest {
  /** Largest number of items wanted; 0 asks for the count alone (§2.7). Undefined: as many as the responder likes. */
  readonly max: number | undefined
  /** The item before the page (§2.2). */
  readonly after: string | undefined
  /** The item after the page (§2.3); '' for the last page (§2.5). */
  readonly before: string | undefined
  /** Position of the first item of the page in the full set (§2.6). */
  readonly index: number | undefined
}

/** A page that is returned. */
export interface PageInfo {
  /** Identifiers of the first and last item; leave out both for an empty page (§2.2). */
  readonly first?: string
  readonly last?: string
  /** Position of the first item in the full set, may be approximate. */
  readonly index?: number
  /** Size of the full set, may be approximate. */
  readonly count?: number
}

const MAX_INT = 2_147_483_647

function bad(text: string): StanzaError {
  return new StanzaError('bad-request', { text })
}

/** A number that is not negative, of XML Schema type int (XEP-0059 §8). */
function parseCount(text: string | undefined, name: string): number | undefined {
  if (text === undefined) return undefined
  const digits = text.trim()
  if (!/^[0-9]{1,10}$/.test(digits) || Number(digits) > MAX_INT) throw bad(`<${name}/> is not a number`)
  return Number(digits)
}

function onlyText(set: Element, name: string): string | undefined {
  const [child, second] = set.getChildren(name)
  if (second !== undefined) throw bad(`more than one <${name}/>`)
  return child?.text()
}

/**
 * Reads a <set/> of a request; undefined without one. Throws StanzaError bad-request for what is no number, for repeated elements, and
 * for more than one of <after/>, <before/> and <index/>, a combination that XEP-0059 does not define (XEP-0313 §4.3.2 says so).
 */
export function parsePageRequest(set: Element | undefined): PageRequest | undefined {
  if (set === undefined) return undefined
  if (!set.is('set', NS.RSM)) throw bad('not a result set element')
  const request = {
    max: parseCount(onlyText(set, 'max'), 'max'),
    after: onlyText(set, 'after'),
    before: onlyText(set, 'before'),
    index: parseCount(onlyText(set, 'index'), 'index'),
  }
  // An empty <after/> names no item: before the first one (§2.2)
  const after = request.after === '' ? undefined : request.after
  const places = [after, request.before, request.index].filter((place) => place !== undefined)
  if (places.length > 1) throw bad('more than one of <after/>, <before/> and <index/>')
  return { ...request, after }
}

/** The <set/> of a request, for our own queries. */
export function pageRequest(request: Partial<PageRequest>): Element {
  const child = (name: string, value: string | number | undefined) =>
    value === undefined ? undefined : el(name, NS.RSM, {}, String(value))
  return el(
    'set',
    NS.RSM,
    {},
    child('max', request.max),
    child('after', request.after),
    child('before', request.before),
    child('index', request.index),
  )
}

/** The <set/> of a result (§2.2). */
export function pageInfo(info: PageInfo): Element {
  const { first, last, index, count } = info
  return el(
    'set',
    NS.RSM,
    {},
    first === undefined
      ? undefined
      : el('first', NS.RSM, { index: index === undefined ? undefined : String(index) }, first),
    last === undefined ? undefined : el('last', NS.RSM, {}, last),
    count === undefined ? undefined : el('count', NS.RSM, {}, String(count)),
  )
}

/** Reads the <set/> of a result that we asked for. Throws StanzaError bad-request for numbers that are none. */
export function parsePageInfo(set: Element): PageInfo {
  const first = set.getChild('first')
  const last = set.getChildText('last')
  const index = parseCount(first?.attr('index'), 'first')
  const count = parseCount(set.getChildText('count'), 'count')
  return {
    ...(first === undefined ? {} : { first: first.text() }),
    ...(last === undefined ? {} : { last }),
    ...(index === undefined ? {} : { index }),
    ...(count === undefined ? {} : { count }),
  }
}

/**
 * A page of a list in memory, with the <set/> to answer with. `idOf` gives the identifier of an item, unique in the list; `maxItems`
 * bounds the page whatever is asked. Throws StanzaError item-not-found when the item named is not in the list (§2.4).
 */
export function pageOf<T>(
  items: readonly T[],
  idOf: (item: T) => string,
  request: PageRequest | undefined,
  maxItems: number,
): { readonly items: readonly T[]; readonly set: Element } {
  const size = Math.min(request?.max ?? maxItems, maxItems)
  const [start, end] = bounds(items, idOf, request, size)
  const page = items.slice(start, end)
  const first = page[0]
  const last = page.at(-1)
  const set =
    first === undefined || last === undefined
      ? pageInfo({ count: items.length })
      : pageInfo({ first: idOf(first), last: idOf(last), index: start, count: items.length })
  return { items: page, set }
}

function bounds<T>(
  items: readonly T[],
  idOf: (item: T) => string,
  request: PageRequest | undefined,
  size: number,
): [start: number, end: number] {
  const place = (id: string) => {
    const found = items.findIndex((item) => idOf(item) === id)
    if (found < 0) throw new StanzaError('item-not-found', { text: 'no such item in the result set' })
    return found
  }
  if (request?.before !== undefined) {
    const end = request.before === '' ? items.length : place(request.before)
    return [Math.max(0, end - size), end]
  }
  const start = request?.after === undefined ? (request?.index ?? 0) : place(request.after) + 1
  return [start, start + size]
}
