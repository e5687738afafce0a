/** What one client can do that is a lot of work for the server. Run by fairness.test.ts and by test/bench/fairness.ts. */
import { inParallel, names, PASSWORD, type Stage } from './stage.ts'
import type { Wire } from './wire.ts'

/** One kind of work: `prepare` is not measured. `run` resolves when the server has done it all. */
export interface Load {
  readonly name: string
  /** With the memory store: there nothing waits, so that all the work is of the event loop; and it is done sooner. */
  readonly memoryStore?: true
  prepare(stage: Stage): Promise<() => Promise<void>>
}

const CONTACTS = 10_000
const NS_BLOCKING = 'urn:xmpp:blocking'

/** Writes parts as fast as the server takes them; `count` answers that have `mark` in them must come. */
async function exchange(wire: Wire, parts: Iterable<string>, mark: string, count: number): Promise<void> {
  let seen = 0
  let rest = ''
  wire.onText = (text) => {
    const pieces = (rest + text).split(mark)
    seen += pieces.length - 1
    rest = (pieces.at(-1) ?? '').slice(-mark.length)
  }
  for (const part of parts) await wire.sendAll(part)
  await wire.when(
    () => seen >= count || wire.closed,
    () => `${seen} of ${count} answers came`,
  )
  wire.onText = undefined
  if (seen < count) throw new Error(`the connection ended after ${seen} of ${count} answers: ${rest}`)
}

/** The same text many times, in pieces of about 64 KB. */
function* repeated(count: number, text: (i: number) => string): Iterable<string> {
  let piece = ''
  for (let i = 0; i < count; i++) {
    piece += text(i)
    if (piece.length < 65_536) continue
    yield piece
    piece = ''
  }
  yield piece
}

const at = (list: readonly string[], domain: string): string[] => list.map((name) => `${name}@${domain}`)

/** All loads; the accounts `a` and `b` are taken (pair.ts). */
export const LOADS: readonly Load[] = [
  {
    name: '50,000 directed presences',
    async prepare(stage) {
      await stage.do('accounts', ['directed'], PASSWORD)
      const wire = await stage.login('directed')
      return async () => {
        const { domain } = stage.place
        for (const piece of repeated(50_000, (i) => `<presence to='n${i}@${domain}/x'/>`))
          await wire.sendAll(piece)
        await wire.ping()
      }
    },
  },
  {
    name: 'disconnect of a session with 50,000 directed presences',
    async prepare(stage) {
      await stage.do('accounts', ['leaving', 'watcher'], PASSWORD)
      const wire = await stage.login('leaving')
      const { domain } = stage.place
      for (const piece of repeated(49_999, (i) => `<presence to='n${i}@${domain}/x'/>`))
        await wire.sendAll(piece)
      const watcher = await stage.login('watcher')
      await watcher.sendAll('<presence/>')
      await wire.sendAll(`<presence to='watcher@${domain}/r'/>`)
      await watcher.until('leaving@')
      return async () => {
        wire.drop()
        await watcher.until(/<presence[^>]*unavailable[^>]*>/)
      }
    },
  },
  {
    name: '1,500 subscription requests sent',
    memoryStore: true,
    async prepare(stage) {
      const list = names('asked', 1500)
      await stage.do('accounts', ['asker', ...list], PASSWORD)
      const wire = await stage.login('asker')
      return async () => {
        const text = (i: number): string =>
          `<presence type='subscribe' to='${list[i]}@${stage.place.domain}'/>`
        for (const piece of repeated(list.length, text)) await wire.sendAll(piece)
        await wire.ping()
      }
    },
  },
  {
    name: '1,500 subscription requests waiting at login',
    async prepare(stage) {
      const list = names('waiting', 1500)
      await stage.do('accounts', ['popular'], PASSWORD)
      await stage.do('roster', 'popular', at(list, stage.place.domain), { request: true })
      const wire = await stage.login('popular')
      return () => exchange(wire, ['<presence/>'], 'subscribe', list.length)
    },
  },
  {
    name: 'a roster of 10,000 fetched 20 times',
    async prepare(stage) {
      await stage.do('accounts', ['reader'], PASSWORD)
      await stage.do('roster', 'reader', at(names('contact', CONTACTS), stage.place.domain), {
        to: true,
        from: true,
      })
      const wire = await stage.login('reader')
      const get = `<iq type='get' id='get'><query xmlns='jabber:iq:roster'/></iq>`
      return async () => {
        for (let i = 0; i < 20; i++) await exchange(wire, [get], '</iq>', 1)
      }
    },
  },
  {
    name: 'a roster of 10,000 asked for 20 times at once',
    async prepare(stage) {
      await stage.do('accounts', ['greedy'], PASSWORD)
      await stage.do('roster', 'greedy', at(names('contact', CONTACTS), stage.place.domain), {
        to: true,
        from: true,
      })
      const wire = await stage.login('greedy')
      const get = `<iq type='get' id='get'><query xmlns='jabber:iq:roster'/></iq>`
      return () => exchange(wire, [get.repeat(20)], '</iq>', 20)
    },
  },
  {
    name: 'presence to 10,000 contacts online here, 20 times',
    async prepare(stage) {
      const list = names('fan', CONTACTS)
      await stage.do('accounts', ['star', ...list], PASSWORD)
      await stage.do('roster', 'star', at(list, stage.place.domain), { from: true })
      await inParallel(
        list.map((_, i) => i).filter((i) => i % 500 === 0),
        1,
        (i) => stage.do('crowd', list.slice(i, i + 500)),
      )
      const wire = await stage.login('star')
      const bare = `star@${stage.place.domain}`
      return async () => {
        for (let i = 0; i < 20; i++)
          await exchange(wire, [`<presence><status>${i}</status></presence>`], `<status>${i}</`, 1)
        // what comes behind a presence waits until it was told to all
        await exchange(wire, [`<message to='${bare}/r' id='last'/>`], 'last', 1)
      }
    },
  },
  {
    name: '5,000 addresses blocked in one request and unblocked again, 3 times',
    async prepare(stage) {
      await stage.do('accounts', ['angry'], PASSWORD)
      await stage.do('roster', 'angry', at(names('foe', CONTACTS), stage.place.domain), {
        to: true,
        from: true,
      })
      const wire = await stage.login('angry')
      const items = names('foe', 5000).map((name) => `<item jid='${name}@${stage.place.domain}'/>`)
      await exchange(
        wire,
        ['<presence/>', `<iq type='get' id='l'><blocklist xmlns='${NS_BLOCKING}'/></iq>`],
        'blocklist',
        1,
      )
      return async () => {
        const block = `<iq type='set' id='b'><block xmlns='${NS_BLOCKING}'>${items.join('')}</block></iq>`
        const unblock = `<iq type='set' id='u'><unblock xmlns='${NS_BLOCKING}'/></iq>`
        for (let i = 0; i < 3; i++) {
          await exchange(wire, [block], `</block>`, 1)
          await exchange(wire, [unblock], `<unblock`, 1)
        }
        await wire.ping()
      }
    },
  },
  {
    name: '1,000 addresses blocked one by one',
    memoryStore: true,
    async prepare(stage) {
      await stage.do('accounts', ['steady'], PASSWORD)
      const wire = await stage.login('steady')
      return async () => {
        const block = (i: number): string =>
          `<iq type='set' id='b'><block xmlns='${NS_BLOCKING}'><item jid='foe${i}@x.example'/></block></iq>`
        await exchange(wire, repeated(1000, block), 'result', 1000)
      }
    },
  },
  {
    name: '3 MB of 2,000 tiny stanzas per 64 KB',
    async prepare(stage) {
      await stage.do('accounts', ['chatty'], PASSWORD)
      const wire = await stage.login('chatty')
      return async () => {
        for (const piece of repeated(100_000, () => `<presence to='a@b/c'></presence>`))
          await wire.sendAll(piece)
        await wire.ping()
      }
    },
  },
  {
    name: '20,000 pings at once',
    async prepare(stage) {
      await stage.do('accounts', ['pinger'], PASSWORD)
      const wire = await stage.login('pinger')
      const ping = `<iq type='get' id='x' to='${stage.place.domain}'><ping xmlns='urn:xmpp:ping'/></iq>`
      return () =>
        exchange(
          wire,
          repeated(20_000, () => ping),
          'result',
          20_000,
        )
    },
  },
  {
    name: '15 stanzas of 250 KB, deep and wide, to somebody who reads',
    async prepare(stage) {
      await stage.do('accounts', ['heavy', 'patient'], PASSWORD)
      const patient = await stage.login('patient')
      await patient.sendAll('<presence/>')
      const wire = await stage.login('heavy')
      const deep = `${'<a>'.repeat(95)}${'</a>'.repeat(95)}`
      const wide = `<a${Array.from({ length: 60 }, (_, i) => ` a${i}='&amp;'`).join('')}/>`
      const contents = [
        deep.repeat(370),
        wide.repeat(350),
        '<b/>'.repeat(62_000),
        '&lt;'.repeat(62_000),
        `<c x='${'&#9;'.repeat(60_000)}'/>`,
      ]
      return async () => {
        const messages = [...contents, ...contents, ...contents].map(
          (content) => `<message to='patient@${stage.place.domain}/r' type='chat'>${content}</message>`,
        )
        await exchange(patient, [], '', 0)
        const read = exchange(patient, [], '</message>', messages.length)
        for (const message of messages) await wire.sendAll(message)
        await read
      }
    },
  },
  {
    name: '500 wrong passwords at once',
    async prepare(stage) {
      await stage.do('accounts', ['victim'], PASSWORD)
      const wires = await inParallel(names('w', 500), 20, async () => {
        const wire = await stage.connect()
        await wire.openStream()
        return wire
      })
      return async () => {
        await Promise.all(wires.map((wire) => wire.plain('victim', 'wrong')))
        for (const wire of wires) wire.drop()
      }
    },
  },
  {
    name: 'a private document of 200 KB asked for 200 times at once',
    async prepare(stage) {
      await stage.do('accounts', ['hoarder'], PASSWORD)
      const wire = await stage.login('hoarder')
      const payload = `<x xmlns='urn:example:x'>${'<a b="c"/>'.repeat(5_000)}</x>`
      const set = `<iq type='set' id='s'><query xmlns='jabber:iq:private'>${payload}</query></iq>`
      await exchange(wire, [set], 'result', 1)
      const get = `<iq type='get' id='g'><query xmlns='jabber:iq:private'><x xmlns='urn:example:x'/></query></iq>`
      return () => exchange(wire, [get.repeat(200)], '</iq>', 200)
    },
  },
  {
    name: 'removal of an account with a roster of 10,000',
    async prepare(stage) {
      const list = names('left', CONTACTS)
      await stage.do('accounts', ['goer', ...list], PASSWORD)
      await stage.do('roster', 'goer', at(list, stage.place.domain), { to: true, from: true })
      const wire = await stage.login('goer')
      await wire.sendAll('<presence/>')
      await wire.ping()
      return () => stage.do('deleteAccount', 'goer')
    },
  },
  {
    name: '300 TLS handshakes at once',
    async prepare(stage) {
      return async () => {
        const wires = await Promise.all(names('t', 300).map(() => stage.connect({ via: 'tls' })))
        for (const wire of wires) wire.drop()
      }
    },
  },
  {
    name: 'an archive of 50,000: 10 searches for words that are not there, 10 for a peer that is not there',
    async prepare(stage) {
      await stage.do('accounts', ['searcher'], PASSWORD)
      await stage.do('archive', 'searcher', `peer@${stage.place.domain}`, 50_000)
      const wire = await stage.login('searcher')
      const field = (name: string, value: string): string =>
        `<field var='${name}'><value>${value}</value></field>`
      const query = (id: string, ...fields: string[]): string =>
        `<iq type='set' id='${id}'><query xmlns='urn:xmpp:mam:2'><x xmlns='jabber:x:data' type='submit'>` +
        `${field('FORM_TYPE', 'urn:xmpp:mam:2')}${fields.join('')}</x></query></iq>`
      const words = query('w', field('{urn:xmpp:fulltext:0}fulltext', 'unicorn'))
      const peer = query('p', field('with', 'unicorn@x.example'))
      return () => exchange(wire, [(words + peer).repeat(10)], '</iq>', 20)
    },
  },
  {
    name: '40 pages of 250 from an archive, asked for at once',
    async prepare(stage) {
      await stage.do('accounts', ['pager'], PASSWORD)
      await stage.do('archive', 'pager', `peer@${stage.place.domain}`, 20_000)
      const wire = await stage.login('pager')
      const page = `<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><max>250</max></set></query></iq>`
      return () => exchange(wire, [page.repeat(40)], '<fin', 40)
    },
  },
  {
    name: 'a presence of 200 KB to 2,000 contacts online here',
    async prepare(stage) {
      const list = names('reader', 2000)
      await stage.do('accounts', ['loud', ...list], PASSWORD)
      await stage.do('roster', 'loud', at(list, stage.place.domain), { from: true })
      await stage.do('crowd', list)
      const wire = await stage.login('loud')
      const status = `<status>${'x'.repeat(200_000)}</status>`
      const last = `<message to='loud@${stage.place.domain}/r' id='last'/>`
      return () => exchange(wire, [`<presence>${status}</presence>`, last], 'last', 1)
    },
  },
  {
    name: '3,000 sessions with 20 contacts each are lost at once',
    async prepare(stage) {
      const list = names('lost', 3000)
      await stage.do('accounts', [...list, 'witness'], PASSWORD)
      const { domain } = stage.place
      await inParallel(list, 50, (name) => {
        const n = Number(name.slice(4))
        const contacts = Array.from({ length: 20 }, (_, i) => `lost${(n + i + 1) % 3000}@${domain}`)
        return stage.do('roster', name, n === 2999 ? [...contacts, `witness@${domain}`] : contacts, {
          from: true,
        })
      })
      const witness = await stage.login('witness')
      await witness.sendAll('<presence/>')
      await witness.ping()
      for (let i = 0; i < 3000; i += 500) await stage.do('crowd', list.slice(i, i + 500))
      await witness.until('lost2999')
      return async () => {
        await stage.do('disperse')
        await witness.until(/lost2999[^>]*unavailable|unavailable[^>]*lost2999/)
      }
    },
  },
  {
    name: '20,000 messages to one of the two',
    async prepare(stage) {
      const list = names('flooder', 5)
      await stage.do('accounts', list, PASSWORD)
      const wires = await inParallel(list, 5, (name) => stage.login(name))
      return async () => {
        const message = (i: number): string =>
          `<message type='chat' to='a@${stage.place.domain}' id='f${i}'><body>flood</body></message>`
        await Promise.all(
          wires.map(async (wire) => {
            for (const piece of repeated(4000, message)) await wire.sendAll(piece)
            await wire.ping()
          }),
        )
      }
    },
  },
]
