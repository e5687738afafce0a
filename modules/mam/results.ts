/** The answer to a query (XEP-0313 §4.2): the results as messages (XEP-0297 1.0), then <fin/>. */
import { type Bound, type Ctx, type Iq } from '../../server/module.ts'
import { Element, el, type Node } from '../../server/xmpp/element.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { pageInfo } from '../../server/xmpp/rsm.ts'
import { formatDateTime } from '../../server/xmpp/xml-time.ts'
import { NS_FORWARD, NS_MAM } from './ns.ts'
import { isSearch, type PageLimits, readPage, type Result, type ResultPage } from './pages.ts'
import { parseQuery } from './query.ts'
import type { Searches } from './searches.ts'
import type { Source } from './service.ts'

/**
 * Sends the results of a query to who asked and returns <fin/>. Results go the way of all that is delivered to the session, so they are
 * in front of the answer; a session that does not read them is asked nothing new by the core, so at most one page waits. Throws StanzaError.
 */
export async function answerQuery(
  ctx: Ctx,
  iq: Iq,
  source: Source,
  limits: PageLimits,
  searches: Searches,
): Promise<Element> {
  const query = parseQuery(iq.payload)
  const read = (): Promise<ResultPage> => readPage(source, query, limits, searches)
  const page = await (isSearch(query) ? searches.run(source.jid.toString(), read) : read())
  const { results } = page
  const send = sender(ctx, iq.session, iq.from.toString(), source, query.queryId)
  // §4.3.4: flipping changes the order of transmission and nothing else
  await ctx.inSlices(query.flip ? results.toReversed() : results, send)
  // What was not sent must not look as if it had been.
  if (ctx.signal.aborted) throw new StanzaError('service-unavailable')
  const [first, last] = [results[0]?.id, results.at(-1)?.id]
  const set = pageInfo({
    ...(first === undefined || last === undefined ? {} : { first, last }),
    ...(page.count === undefined ? {} : { count: page.count }),
  })
  return el('fin', NS_MAM, { complete: page.complete ? 'true' : undefined }, set)
}

function sender(
  ctx: Ctx,
  session: Bound | undefined,
  to: string,
  source: Source,
  queryId: string | undefined,
): (result: Result) => void | Promise<void> {
  const from = source.jid.toString()
  return (result) => {
    const message = el('message', NS.CLIENT, { from, to, id: result.id }, resultElement(result, queryId))
    if (session === undefined) return ctx.send(message)
    ctx.deliver(session, message)
    return undefined
  }
}

/** <result/> (§4.2). */
export function resultElement({ id, at, xml }: Result, queryId: string | undefined): Element {
  return el('result', NS_MAM, { queryid: queryId, id }, new Forwarded(formatDateTime(at.getTime()), xml))
}

/**
 * <forwarded/> with a stanza from the archive. Its text is what the server once wrote, with the namespace of the stanza (XEP-0297 §3.2 rule 3), so
 * it is sent as it is, and only read when somebody on its way looks into it.
 */
class Forwarded extends Element {
  readonly #stamp: string
  readonly #xml: string
  #read: readonly Node[] | undefined

  constructor(stamp: string, xml: string) {
    super('forwarded', NS_FORWARD, [], [], '', `<delay xmlns='${NS.DELAY}' stamp='${stamp}'/>${xml}`)
    this.#stamp = stamp
    this.#xml = xml
  }

  override get children(): readonly Node[] {
    this.#read ??= [el('delay', NS.DELAY, { stamp: this.#stamp }), parseXml(this.#xml)]
    return this.#read
  }
}
