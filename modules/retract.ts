/**
 * XEP-0424 Message Retraction 0.4.2: puts a tombstone in the place of a message that its author takes back, in the archives of both
 * sides, whoever of them is online. The retraction itself stays in the archives (module mam), so that devices that were away learn of it.
 * Retractions in rooms are those of the rooms.
 */
import { c, type Ctx, defineModule, type Hooks } from '../server/module.ts'
import { type Element, el } from '../server/xmpp/element.ts'
import { type JID, makeJid, tryJid } from '../server/xmpp/jid.ts'
import { formatDateTime } from '../server/xmpp/xml-time.ts'

const NS = 'urn:xmpp:message-retract:1'
const MUC_USER = 'http://jabber.org/protocol/muc#user'
/** XEP-0308 §3: a correction names what it corrects; it is retracted with it. */
const CORRECT = 'urn:xmpp:message-correct:0'
/** Retractions that wait for their turn. */
const MAX_WAITING = 1000

type Retraction = Hooks['archive:retraction']

export default defineModule({
  name: 'retract',
  summary: 'Replaces retracted messages in archives by tombstones',
  specs: [
    { xep: 424, version: '0.4.2', status: 'complete' },
    { xep: 45, version: '1.35.5', status: 'partial', note: 'occupants of rooms are told apart' },
    { xep: 308, version: '1.2.1', status: 'partial', note: 'corrections go with what they correct' },
  ],
  optional: ['mam'],
  config: c.object({
    searchBack: c
      .int()
      .min(1)
      .default(10_000)
      .describe(
        'How many messages of a conversation are searched for the one that is retracted, from the newest on',
      ),
  }),
  setup(ctx, { searchBack }) {
    // Without archives there is nothing to do, and nothing to announce.
    if (ctx.find('archive') === undefined) return
    // §2, §4
    for (const target of ['account', 'host'] as const)
      for (const feature of [NS, `${NS}#tombstone`]) ctx.disco.feature(target, feature)

    const waiting: Retraction[] = []
    let working = false
    async function work(): Promise<void> {
      working = true
      for (let next = waiting.shift(); next !== undefined && !ctx.signal.aborted; next = waiting.shift()) {
        try {
          await bury(ctx, next, searchBack)
        } catch (error) {
          ctx.log.error('a retracted message stays in the archive', { err: error })
        }
      }
      working = false
    }
    // One after another, and nobody waits for it: the sender's message is stored, which is what counts.
    ctx.hook('archive:retraction', { phase: 'observe' }, (e) => {
      if (waiting.length >= MAX_WAITING) {
        ctx.log.warn('too many retractions at once, one was left out')
        return
      }
      waiting.push(e)
      if (!working) void work()
    })
  },
})

async function bury(ctx: Ctx, e: Retraction, searchBack: number): Promise<void> {
  const target = e.stanza.getChild('retract', NS)?.attr('id')
  // §4: the tombstone names the retraction
  const by = e.stanza.attr('id')
  if (target === undefined || target === '' || by === undefined || by === '') return
  const archive = ctx.find('archive')
  if (archive === undefined) return
  const stamp = formatDateTime(ctx.now())
  let over = false
  const account = makeJid(e.local, ctx.host)
  await ctx.inSlices(
    some(archive.newest(e.local, e.peer), searchBack, () => over),
    async ({ id, stanza }) => {
      const isOriginal = stanza.attr('id') === target
      // A correction is what the author takes back just as well.
      const isCorrection = stanza.getChild('replace', CORRECT)?.attr('id') === target
      if (!(isOriginal || isCorrection) || !isAuthor(stanza, e, account)) return
      if (stanza.getChild('retract', NS) !== undefined) return
      over = isOriginal
      if (stanza.getChild('retracted', NS) === undefined)
        await archive.replace(e.local, id, tombstone(stanza, by, stamp))
    },
  )
}

async function* some<T>(items: AsyncIterable<T>, most: number, over: () => boolean): AsyncIterable<T> {
  let left = most
  for await (const item of items) {
    if (left-- === 0 || over()) return
    yield item
  }
}

/**
 * §5: only who has written a message takes it back. Among the occupants of a room the full address tells who that is, also when only one of the two
 * says that it is from one: nobody may rely on that (XEP-0045 §7.5). Devices of the account itself are one author wherever they write.
 */
function isAuthor(stanza: Element, e: Retraction, account: JID): boolean {
  const author = tryJid(stanza.attr('from') ?? '')
  if (author === undefined || !author.bare.equals(e.from.bare)) return false
  if (author.bare.equals(account)) return true
  const occupant = e.occupant || stanza.getChild('x', MUC_USER) !== undefined
  return !occupant || author.equals(e.from)
}

/** §4: nothing stays but the attributes. */
function tombstone(stanza: Element, by: string, stamp: string): Element {
  return stanza.withChildren([el('retracted', NS, { id: by, stamp })])
}
