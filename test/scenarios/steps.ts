/** What a client can do in a dialogue: the words of README.md in this folder, each with the function that does it. */
import type { Client } from '../helpers/client.ts'
import { decode } from '../helpers/client.ts'
import { describe } from '../helpers/connection.ts'
import type { ScramOverrides } from '../helpers/scram.ts'
import { NS_SM } from '../helpers/stream-counts.ts'
import { matchElement, NS_SASL, NS_STREAM, parsePattern } from '../helpers/xml.ts'
import { findsInArchive } from './archive-step.ts'
import { accountOf, bind, type Stage } from './stage.ts'

type Action = (stage: Stage, client: Client, args: readonly string[], payload: string) => Promise<void> | void

/** Steps of the form `NAME words`, after the name. */
export const STEPS: readonly (readonly [RegExp, Action])[] = [
  [/^opens a stream(?: to (\S+))?$/, (_, c, [to]) => c.openStream(to)],
  [/^starts TLS$/, (_, c) => c.startTls()],
  [/^starts the TLS handshake$/, (_, c) => c.secure()],
  [
    /^authenticates without restarting$/,
    async (stage, c) => {
      const { local, password } = await stage.account(accountOf(c.name))
      await c.authenticate(local, password, undefined, undefined, false)
    },
  ],
  [
    /^authenticates(?: by (\S+))?(?: with (.+))?$/,
    async (stage, c, [mechanism, how]) => {
      const { local, password } = await stage.account(accountOf(c.name))
      await c.authenticate(local, password, mechanism, overrides(how))
    },
  ],
  [/^binds$/, (_, c) => bind(c)],
  [/^logs in$/, (stage, c) => stage.login(c)],
  [
    /^comes online(?: with priority (-?\d+))?$/,
    async (stage, c, [priority]) => {
      if (c.jid === '') await stage.login(c)
      await c.goOnline(priority === undefined ? undefined : Number(priority))
    },
  ],
  [
    /^begins (SCRAM-[\w-]+)(?: with (.+))?$/,
    async (stage, c, [mechanism, how]) => {
      const { local, password } = await stage.account(accountOf(c.name))
      c.beginScram(mechanism ?? '', local, password, overrides(how))
    },
  ],
  [
    /^answers the challenge(?: with (.+))?$/,
    async (_, c, [how]) => {
      const challenge = await c.expect(`<challenge xmlns='${NS_SASL}'>*</challenge>`)
      c.scram?.override(overrides(how))
      c.finishScram(decode(challenge.getText()))
    },
  ],
  [
    /^sees the server's signature$/,
    async (_, c) => {
      const success = await c.expect(`<success xmlns='${NS_SASL}'>*</success>`)
      c.verifyScram(decode(success.getText()))
    },
  ],
  [/^sends$/, (_, c, __, payload) => c.send(payload)],
  [
    /^sends exactly$/,
    (_, c, __, payload) => c.send(payload.startsWith('"') ? String(JSON.parse(payload)) : payload),
  ],
  [/^sends bytes$/, (_, c, __, payload) => c.send(bytes(payload))],
  [/^restarts its parser$/, (_, c) => c.resetReader()],
  [
    /^receives$/,
    async (stage, c, _, payload) => {
      for (const pattern of parsePattern(payload)) await c.expect(pattern, stage.captures)
    },
  ],
  [
    /^receives in any order$/,
    (stage, c, _, payload) => c.expectUnordered(parsePattern(payload), stage.captures),
  ],
  [/^receives one of$/, (stage, c, _, payload) => c.expectOneOf(parsePattern(payload), stage.captures)],
  [
    /^eventually receives$/,
    async (stage, c, _, payload) => {
      for (const pattern of parsePattern(payload)) await c.eventually(pattern, stage.captures)
    },
  ],
  [
    /^receives a header$/,
    async (stage, c, _, payload) => {
      const header = await c.expectHeader()
      const [pattern] = parsePattern(payload)
      const difference = pattern && matchElement(pattern, header, stage.captures)
      if (difference !== undefined) c.fail(difference)
    },
  ],
  [
    /^receives the features$/,
    async (stage, c, _, payload) => {
      const [pattern] = parsePattern(payload)
      if (pattern !== undefined) c.features = await c.expect(pattern, stage.captures)
    },
  ],
  [
    /^receives nothing, or$/,
    async (stage, c, _, payload) => {
      await c.settleAfter(stage.others(c))
      stage.bounced = c.inbox.length > 0
      if (stage.bounced) for (const pattern of parsePattern(payload)) await c.expect(pattern, stage.captures)
      await c.expectNothing()
    },
  ],
  [
    /^receives nothing but presence$/,
    async (stage, c) => {
      await c.settleAfter(stage.others(c))
      c.clear((item) => item.kind === 'element' && item.el.is('presence'))
      await c.expectNothing()
    },
  ],
  [
    /^receives no subscription$/,
    async (stage, c) => {
      await c.settleAfter(stage.others(c))
      const kinds = ['subscribe', 'subscribed', 'unsubscribe', 'unsubscribed']
      const found = c.inbox.find(
        (item) =>
          item.kind === 'element' && item.el.is('presence') && kinds.includes(item.el.attrs['type'] ?? ''),
      )
      if (found !== undefined) c.fail(`${describe(found)} came, but no subscription must`)
    },
  ],
  [/^receives nothing$/, (stage, c) => c.expectNothing(stage.others(c))],
  [
    /^receives a stream error (\S+)$/,
    (_, c, [condition]) => c.expectStreamError((condition ?? '').replace(/[()]/g, '').split('|')),
  ],
  [/^sees the stream closed$/, (_, c) => c.expectEnd()],
  [/^is disconnected$/, (_, c) => c.expectClosed()],
  [/^pings$/, (_, c) => c.ping()],
  [/^ends its side$/, (_, c) => c.endOutput()],
  [
    /^loses the connection, or gets nothing of it after the handshake$/,
    async (_, c) => {
      await c.expect(`<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>`)
      try {
        await c.secure()
      } catch {
        return // the plain text was taken for a broken handshake: refused, which is what the test is about
      }
      await c.openStream()
      if (c.features?.getChild('mechanisms', NS_SASL) === undefined)
        c.fail('what was sent in plain text before the handshake was acted upon')
    },
  ],
  [
    /^fails to authenticate until the stream ends \((\S+)\)$/,
    async (stage, c, [conditions]) => {
      const { local } = await stage.account(accountOf(c.name))
      // RFC 6120 §6.4.5: at least 2 and no more than 5 retries
      for (let tries = 1; ; tries++) {
        c.sendAuth('PLAIN', `\0${local}\0wrong ${tries}`)
        const item = await c.next('a failure')
        if (item.kind === 'element' && item.el.is('failure')) {
          if (tries > 6) c.fail('more than 5 retries were allowed')
          continue
        }
        if (tries < 3) c.fail('fewer than 2 retries were allowed')
        c.inbox.unshift(item)
        return c.expectStreamError((conditions ?? '').split('|'))
      }
    },
  ],
  [
    /^fails if -PLUS is offered, else succeeds$/,
    async (_, c) => {
      const mechanisms = c.features?.getChild('mechanisms', NS_SASL)?.getChildren('mechanism') ?? []
      const plus = mechanisms.some((el) => el.getText().endsWith('-PLUS'))
      const item = await c.next('a challenge or a failure')
      if (item.kind === 'element' && item.el.is('challenge')) c.finishScram(decode(item.el.getText()))
      else c.inbox.unshift(item)
      await c.expect(
        `<${plus ? 'failure' : 'success'} xmlns='${NS_SASL}'>...</${plus ? 'failure' : 'success'}>`,
      )
    },
  ],
  [
    /^fails by an answer or at once$/,
    async (stage, c, _, payload) => {
      const item = await c.next('a challenge or a failure')
      if (item.kind === 'element' && item.el.is('challenge')) c.finishScram(decode(item.el.getText()))
      else c.inbox.unshift(item)
      await c.expectOneOf(parsePattern(payload), stage.captures)
    },
  ],
  [
    /^comes to see (<.+>) before (<.+>)$/,
    async (stage, c, [first, second]) => {
      const [earlier, later] = parsePattern(`${first}${second}`)
      if (earlier === undefined || later === undefined) return
      for (let seen = false; ; ) {
        const el = await c.nextElement(`${first} before ${second}`)
        if (matchElement(earlier, el, stage.captures) === undefined) seen = true
        else if (matchElement(later, el, stage.captures) === undefined) {
          return seen ? undefined : c.fail('they came in the other order')
        }
      }
    },
  ],
  [
    /^has got no (message|presence)$/,
    (_, c, [kind]) => {
      const found = c.inbox.find((item) => item.kind === 'element' && item.el.is(kind ?? ''))
      if (found !== undefined) c.fail(`${describe(found)} came, but no ${kind} must`)
    },
  ],
  [
    /^ends with an optional result of (\S+) and a stream error (\S+)$/,
    async (_, c, [id, conditions]) => {
      const item = await c.next('a result or a stream error')
      if (!(item.kind === 'element' && item.el.is('iq') && item.el.attrs['id'] === id)) c.inbox.unshift(item)
      await c.expectStreamError((conditions ?? '').replace(/[()]/g, '').split('|'))
    },
  ],
  [
    /^is disconnected or gets an error$/,
    async (_, c) => {
      const item = await c.next('an error or the end')
      const bad =
        item.kind === 'header' ||
        (item.kind === 'element' && !item.el.is('error', NS_STREAM) && !item.el.is('open'))
      if (bad) c.fail(`${describe(item)} came instead of an error or the end`)
    },
  ],
  [/^asks for the roster$/, (_, c) => c.roster().then(() => undefined)],
  [
    /^has the roster$/,
    async (stage, c, _, payload) => {
      const wanted = parsePattern(`<query xmlns='jabber:iq:roster' ver='?'>${payload}</query>`)
      const difference = wanted[0] && matchElement(wanted[0], await c.roster(), stage.captures)
      if (difference !== undefined) c.fail(`the roster differs: ${difference}`)
    },
  ],
  [
    /^has an empty roster$/,
    async (_, c) => {
      const items = (await c.roster()).getChildElements()
      if (items.length > 0) c.fail(`the roster is not empty: ${items.join('')}`)
    },
  ],
  [/^and (\S+) reach ([a-z+]+)$/, (stage, c, [other, state]) => stage.reach(c, other ?? '', state ?? '')],
  [/^closes the stream$/, (_, c) => c.closeStream()],
  [
    /^logs out$/,
    async (_, c) => {
      c.closeStream()
      await c.until(() => c.inbox.some((item) => item.kind === 'end'), 'the closing tag')
      c.drop()
      c.jid = ''
    },
  ],
  [
    /^drops the connection$/,
    (_, c) => {
      c.drop()
      c.jid = ''
    },
  ],
  [
    /^resumes the session of (\S+)$/,
    async (stage, c, [name], payload) => {
      const from = stage.client(name ?? '') ?? c.fail(`${name} has no session`)
      const [answer] = parsePattern(payload)
      if (answer !== undefined) await stage.resume(c, from, answer)
    },
  ],
  [
    /^acknowledges what it has got$/,
    (_, c) => c.send(`<a xmlns='${NS_SM}' h='${c.counts?.received ?? c.fail('no stream management')}'/>`),
  ],
  [
    /^is asked for acknowledgement$/,
    async (_, c) => {
      const counts = c.counts ?? c.fail('no stream management')
      await c.until(() => counts.asked > 0, '<r/>')
      counts.asked = 0
    },
  ],
  [
    /^enables carbons$/,
    async (_, c) => {
      c.sendStanza("<iq type='set' id='carbons'><enable xmlns='urn:xmpp:carbons:2'/></iq>")
      await c.eventually("<iq type='result' id='carbons' etc=''/>")
    },
  ],
  [
    /^finds in its archive(?: where (.+))?$/,
    (_, c, [where], payload) => findsInArchive(c, where ?? '', payload),
  ],
  [/^forgets what came$/, (_, c) => c.clear()],
  [/^is (not )?offered$/, (stage, c, [not], payload) => offered(stage, c, not === undefined, payload)],
]

function overrides(words: string | undefined): ScramOverrides {
  return Object.fromEntries(
    (words ?? '').split(' ').map((word) => /^(\w+)=(.*)$/.exec(word)?.slice(1) ?? ['', '']),
  )
}

/** Hexadecimal digits and "quoted text". */
function bytes(payload: string): Buffer {
  const parts = payload.matchAll(/"([^"]*)"|([0-9a-f]{2})/g)
  return Buffer.concat(
    [...parts].map(([, text, hex]) => Buffer.from(text ?? hex ?? '', text === undefined ? 'hex' : 'utf8')),
  )
}

function offered(stage: Stage, client: Client, wanted: boolean, payload: string): void {
  for (const pattern of parsePattern(payload)) {
    const children = client.features?.getChildElements() ?? []
    const there = children.some((child) => matchElement(pattern, child, stage.captures) === undefined)
    if (there !== wanted) client.fail(`${pattern.toString()} ${there ? 'is' : 'is not'} offered`)
  }
}
