/** Queries of clients as they come (XEP-0313 §4): the form of filters, the page asked for, and the form that says what can be asked. */
import { type Element, el } from '../../server/xmpp/element.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { type Field, parseSubmit } from '../../server/xmpp/forms.ts'
import type { JID } from '../../server/xmpp/jid.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { type PageRequest, parsePageRequest } from '../../server/xmpp/rsm.ts'
import { parseDateTime } from '../../server/xmpp/xml-time.ts'
import { FULLTEXT, NS_MAM } from './ns.ts'

const VALIDATE = 'http://jabber.org/protocol/xdata-validate'
/** Characters of a query id, which comes back with each result. */
const MAX_QUERY_ID = 1024
/** Entries that may be asked for by their ids. */
const MAX_IDS = 1000

const time = (value: string): string | undefined =>
  // §4.1.2: the DateTime profile of XEP-0082
  parseDateTime(value) === undefined ? 'is not a date and time' : undefined

const FIELDS = [
  { var: 'with', type: 'jid-single' },
  { var: 'start', type: 'text-single', check: time },
  { var: 'end', type: 'text-single', check: time },
  { var: 'before-id', type: 'text-single' },
  { var: 'after-id', type: 'text-single' },
  { var: 'ids', type: 'list-multi' },
  // §4.1.4: understood, though an account's archive has nothing of rooms
  { var: 'include-groupchat', type: 'boolean' },
  { var: FULLTEXT, type: 'text-single' },
] as const satisfies readonly Field[]

/** The filter: all of it must match. */
export interface Filter {
  readonly with: JID | undefined
  /** Milliseconds since 1970, both inclusive. */
  readonly start: number | undefined
  readonly end: number | undefined
  /** Ids of clients. */
  readonly beforeId: string | undefined
  readonly afterId: string | undefined
  readonly ids: readonly string[] | undefined
  readonly text: string | undefined
}

/** A query. */
export interface ArchiveQuery {
  readonly filter: Filter
  readonly page: PageRequest | undefined
  /** §4.3.4: newest first, within the page. */
  readonly flip: boolean
  readonly queryId: string | undefined
}

const NO_FILTER: Filter = {
  with: undefined,
  start: undefined,
  end: undefined,
  beforeId: undefined,
  afterId: undefined,
  ids: undefined,
  text: undefined,
}

/** Reads a <query/> of type set. Throws StanzaError. */
export function parseQuery(query: Element): ArchiveQuery {
  // §6.1.3: nodes are those of pubsub services
  if (query.attr('node') !== undefined) throw new StanzaError('feature-not-implemented')
  const queryId = query.attr('queryid')
  if (queryId !== undefined && queryId.length > MAX_QUERY_ID)
    throw new StanzaError('bad-request', { text: `a query id has at most ${MAX_QUERY_ID} characters` })
  const page = parsePageRequest(query.getChild('set', NS.RSM))
  // XEP-0059 §2.6: positions in an archive can only be counted from one end
  if (page?.index !== undefined)
    throw new StanzaError('feature-not-implemented', { text: 'no pages by index' })
  const form = query.getChild('x', NS.DATA)
  return {
    filter: form === undefined ? NO_FILTER : parseFilter(form),
    page,
    flip: query.getChild('flip-page') !== undefined,
    queryId,
  }
}

/** Whether a <query/> of type set is for all from some point to the end of the archive, in whatever pages. */
export function isWhole(query: Element): boolean {
  try {
    const { with: peer, end, beforeId, ids, text } = parseQuery(query).filter
    return [peer, end, beforeId, ids, text].every((bound) => bound === undefined)
  } catch (error) {
    if (error instanceof StanzaError) return false // nobody knows what it is for
    throw error
  }
}

function parseFilter(form: Element): Filter {
  const values = parseSubmit(form, FIELDS, NS_MAM)
  const [unknown] = values.unknown
  // §4.1.5: a field that we do not know is an error, or the client would get more than it wanted
  if (unknown !== undefined)
    throw new StanzaError('feature-not-implemented', { text: `no such field: ${unknown}` })
  const ids = values.get('ids')
  if (ids !== undefined && ids.length > MAX_IDS)
    throw new StanzaError('resource-constraint', { text: `at most ${MAX_IDS} ids` })
  return {
    with: values.get('with'),
    start: timeOf(values.get('start')),
    end: timeOf(values.get('end')),
    beforeId: textOf(values.get('before-id')),
    afterId: textOf(values.get('after-id')),
    ids: ids === undefined || ids.length === 0 ? undefined : [...new Set(ids)],
    text: textOf(values.get(FULLTEXT)?.trim()), // XEP-0431 §2.2: "if non-empty"
  }
}

const textOf = (value: string | undefined): string | undefined => (value === '' ? undefined : value)
const timeOf = (value: string | undefined): number | undefined => parseDateTime(value ?? '')

/** §4.1.5: what can be asked. The list of ids is open (XEP-0122): nobody wants to be told all of them. */
export const QUERY_FORM: Element = el(
  'query',
  NS_MAM,
  {},
  el(
    'x',
    NS.DATA,
    { type: 'form' },
    el('field', NS.DATA, { type: 'hidden', var: 'FORM_TYPE' }, el('value', NS.DATA, {}, NS_MAM)),
    ...FIELDS.map((field) =>
      el(
        'field',
        NS.DATA,
        { type: field.type, var: field.var },
        field.type === 'list-multi'
          ? el('validate', VALIDATE, { datatype: 'xs:string' }, el('open', VALIDATE))
          : undefined,
      ),
    ),
  ),
)
