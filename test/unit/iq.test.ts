/** RFC 6120 §8.2.3: what makes an iq well formed, who handles it, and which answers count. */
import { expect } from 'chai'
import type { AnyModule } from '../../server/loader.ts'
import { checkIq, IqTable, RequestTracker } from '../../server/iq.ts'
import type { IqHandler, Target } from '../../server/module.ts'
import { el } from '../../server/xmpp/element.ts'
import { RequestTimeout, StanzaError } from '../../server/xmpp/errors.ts'
import { parseJid } from '../../server/xmpp/jid.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { VirtualClock } from '../helpers/clock.ts'
import { testHost } from '../helpers/host.ts'
import { outcome } from '../helpers/iq.ts'

const refusal = (fn: () => unknown): string => {
  try {
    fn()
    return 'accepted'
  } catch (error) {
    return error instanceof StanzaError ? error.condition : String(error)
  }
}

/** Attributes and content of an iq, what becomes of it. */
const TABLE: readonly (readonly [rule: string, attrs: string, content: string, result: string])[] = [
  ['1: an id', "type='get'", '<a xmlns="urn:a"/>', 'bad-request'],
  ['1: an id, which may be empty', "type='get' id=''", '<a xmlns="urn:a"/>', 'accepted'],
  ['2: a type', "id='1'", '<a xmlns="urn:a"/>', 'bad-request'],
  ['2: a known type', "id='1' type='subscribe'", '<a xmlns="urn:a"/>', 'bad-request'],
  ['2: a type in lower case', "id='1' type='GET'", '<a xmlns="urn:a"/>', 'bad-request'],
  ['5: a get has one child', "id='1' type='get'", '<a xmlns="urn:a"/>', 'accepted'],
  ['5: a get has a child', "id='1' type='get'", '', 'bad-request'],
  ['5: text is no child', "id='1' type='get'", 'text', 'bad-request'],
  ['5: a get has one child only', "id='1' type='get'", '<a xmlns="urn:a"/><b xmlns="urn:b"/>', 'bad-request'],
  ['5: a set has one child', "id='1' type='set'", '<a xmlns="urn:a"/>', 'accepted'],
  ['5: a set has a child', "id='1' type='set'", '', 'bad-request'],
  ['5: a set has one child only', "id='1' type='set'", '<a xmlns="urn:a"/><a xmlns="urn:a"/>', 'bad-request'],
  ['6: a result may be empty', "id='1' type='result'", '', 'accepted'],
  ['6: a result may have a child', "id='1' type='result'", '<a xmlns="urn:a"/>', 'accepted'],
  [
    '6: a result has one child at most',
    "id='1' type='result'",
    '<a xmlns="urn:a"/><b xmlns="urn:b"/>',
    'bad-request',
  ],
  [
    '7: an error has an error child and may repeat the request',
    "id='1' type='error'",
    '<a xmlns="urn:a"/><error/>',
    'accepted',
  ],
]

describe('iq: rules of RFC 6120 §8.2.3', () => {
  for (const [rule, attrs, content, result] of TABLE)
    it(`${rule}: ${result}`, () => {
      const iq = parseXml(`<iq xmlns='jabber:client' ${attrs}>${content}</iq>`)
      expect(refusal(() => checkIq(iq))).to.equal(result)
    })

  for (const [rule, attrs, content, result] of TABLE.filter(([, , , r]) => r === 'bad-request'))
    it(`${rule}: the client gets the error, whoever it wrote to`, async () => {
      await using h = await testHost({ modules: [], accounts: ['romeo', 'juliet'] })
      const romeo = await h.client('romeo@example.org/a')
      const juliet = await h.client('juliet@example.org/b')
      const answers = await romeo.send(`<iq to='juliet@example.org/b' ${attrs}>${content}</iq>`)
      // §8.3.1 rule 8 forbids to answer a result
      if (attrs.includes("'result'")) expect(answers).to.deep.equal([])
      else expect(answers.map(outcome)).to.deep.equal([`modify ${result}`])
      expect(juliet.take()).to.deep.equal([])
    })
})

describe('iq: handlers (RFC 6120 §10.3.3, §10.5)', () => {
  const from = parseJid('romeo@example.org/a')
  const own = parseJid('romeo@example.org')
  const other = parseJid('juliet@example.org')
  const host = parseJid('example.org')
  const payload = el('query', 'urn:x')
  const table = (...targets: readonly Target[]): { table: IqTable; handlers: Map<Target, IqHandler> } => {
    const iqs = new IqTable()
    const handlers = new Map<Target, IqHandler>()
    for (const target of targets) {
      const handle: IqHandler = () => undefined
      handlers.set(target, handle)
      iqs.add('m', target, 'get', 'urn:x', 'query', handle)
    }
    return { table: iqs, handlers }
  }

  it('goes by target, type, namespace and name', () => {
    const { table: iqs, handlers } = table('host', 'account')
    expect(iqs.find(host, from, 'get', payload)).to.equal(handlers.get('host'))
    expect(iqs.find(other, from, 'get', payload)).to.equal(handlers.get('account'))
    expect(refusal(() => iqs.find(host, from, 'set', payload))).to.equal('service-unavailable')
    expect(refusal(() => iqs.find(host, from, 'get', el('query', 'urn:y')))).to.equal('service-unavailable')
    expect(refusal(() => iqs.find(host, from, 'get', el('ask', 'urn:x')))).to.equal('service-unavailable')
  })

  it('self is for the account alone: forbidden to others', () => {
    const { table: iqs, handlers } = table('self')
    expect(iqs.find(own, from, 'get', payload)).to.equal(handlers.get('self'))
    expect(refusal(() => iqs.find(other, from, 'get', payload))).to.equal('forbidden')
    expect(refusal(() => iqs.find(own, host, 'get', payload))).to.equal('forbidden')
  })

  it('self goes before account for the owner, others get account', () => {
    const { table: iqs, handlers } = table('self', 'account')
    expect(iqs.find(own, from, 'get', payload)).to.equal(handlers.get('self'))
    expect(iqs.find(other, from, 'get', payload)).to.equal(handlers.get('account'))
  })

  it('refuses a second handler and names both modules; after undoing the place is free', () => {
    const iqs = new IqTable()
    const undo = iqs.add('one', 'host', 'get', 'urn:x', 'query', () => undefined)
    expect(() => iqs.add('two', 'host', 'get', 'urn:x', 'query', () => undefined)).to.throw(
      'module two: iq get {urn:x}query on host is handled by module one already',
    )
    undo[Symbol.dispose]()
    iqs.add('two', 'host', 'get', 'urn:x', 'query', () => undefined)
  })

  it('names of the wire cannot reach another handler: namespace and name are kept apart', () => {
    const { table: iqs } = table('host')
    expect(refusal(() => iqs.find(host, from, 'get', el('x', 'query urn:')))).to.equal('service-unavailable')
    expect(refusal(() => iqs.find(host, from, 'get', el('__proto__', '')))).to.equal('service-unavailable')
  })

  it('each request is answered exactly once: a result, the error that was thrown, or internal-server-error', async () => {
    const many: AnyModule = {
      name: 'many',
      summary: 'test',
      specs: [],
      setup(ctx) {
        const on = (name: string, handle: IqHandler): void => ctx.iq('host', 'get', 'urn:x', name, handle)
        on('plain', () => undefined)
        on('payload', () => el('answer', 'urn:x'))
        on('later', async () => el('answer', 'urn:x'))
        on('refused', () => {
          throw new StanzaError('not-allowed', { text: 'no' })
        })
        on('refused-later', async () => {
          throw new StanzaError('conflict')
        })
        on('crash', () => {
          throw new TypeError('secret')
        })
        on('crash-later', async () => {
          throw new TypeError('secret')
        })
      },
    }
    const logged: string[] = []
    const onLog = (level: string, message: string): void => void logged.push(`${level} ${message}`)
    await using h = await testHost({ modules: [many], accounts: ['romeo'], onLog })
    const romeo = await h.client('romeo@example.org/a')
    const results: string[] = []
    for (const name of ['plain', 'payload', 'later', 'refused', 'refused-later', 'crash', 'crash-later']) {
      const answers = await romeo.send(
        `<iq type='get' id='${name}' to='example.org'><${name} xmlns='urn:x'/></iq>`,
      )
      expect(answers.map((a) => a.attr('id'))).to.deep.equal([name])
      expect(answers[0]?.toString()).not.to.contain('secret')
      results.push(outcome(answers[0]!))
    }
    expect(results).to.deep.equal([
      'result',
      'result',
      'result',
      'cancel not-allowed',
      'cancel conflict',
      'cancel internal-server-error',
      'cancel internal-server-error',
    ])
    expect(logged).to.deep.equal(['error iq handler failed', 'error iq handler failed'])
  })
})

describe('iq: our own requests (RFC 6120 §8.2.3)', () => {
  const us = parseJid('example.org')
  const them = parseJid('romeo@example.org/a')
  const sendTo = (tracker: RequestTracker, clock: VirtualClock) => {
    void clock
    let sent = el('none', '')
    const answer = tracker.send(us, them, el('q', 'urn:q'), { type: 'get', timeoutMs: 1000 }, (stanza) => {
      sent = stanza
    })
    answer.catch(() => undefined)
    return { answer, id: sent.attr('id') ?? '', sent }
  }
  const reply = (id: string, type = 'result', content = ''): ReturnType<typeof el> =>
    parseXml(`<iq xmlns='jabber:client' type='${type}' id='${id}'>${content}</iq>`)

  it('have ids nobody can guess', () => {
    const clock = new VirtualClock()
    const tracker = new RequestTracker(clock)
    const ids = new Set(Array.from({ length: 100 }, () => sendTo(tracker, clock).id))
    expect(ids.size).to.equal(100)
    for (const id of ids) expect(id).to.match(/^[\w-]{16}$/)
  })

  it('settle with the payload of the result, once', async () => {
    const clock = new VirtualClock()
    const tracker = new RequestTracker(clock)
    const { answer, id } = sendTo(tracker, clock)
    expect(tracker.settle(them, us, reply(id, 'result', "<a xmlns='urn:a'/>"))).to.equal(true)
    expect(tracker.settle(them, us, reply(id))).to.equal(false)
    expect((await answer)?.name).to.equal('a')
    expect(tracker.size).to.equal(0)
  })

  it('reject with the error of an error answer', async () => {
    const clock = new VirtualClock()
    const tracker = new RequestTracker(clock)
    const { answer, id } = sendTo(tracker, clock)
    const error =
      "<error type='auth'><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>no</text></error>"
    tracker.settle(them, us, reply(id, 'error', error))
    const failure = await answer.catch((e: unknown) => e)
    expect(failure).to.be.instanceOf(StanzaError)
    expect(failure).to.include({ condition: 'forbidden', type: 'auth', text: 'no' })
  })

  it('count only answers from whom was asked, to whom asked, with that id', () => {
    const clock = new VirtualClock()
    const tracker = new RequestTracker(clock)
    const { id } = sendTo(tracker, clock)
    expect(tracker.settle(parseJid('romeo@example.org/b'), us, reply(id))).to.equal(false)
    expect(tracker.settle(parseJid('romeo@example.org'), us, reply(id))).to.equal(false)
    expect(tracker.settle(them, parseJid('example.net'), reply(id))).to.equal(false)
    expect(tracker.settle(them, us, reply(`${id}x`))).to.equal(false)
    expect(tracker.size).to.equal(1)
    expect(tracker.settle(them, us, reply(id))).to.equal(true)
  })

  it('time out', async () => {
    const clock = new VirtualClock()
    const tracker = new RequestTracker(clock)
    const { answer, id } = sendTo(tracker, clock)
    await clock.advance(1000)
    expect(await answer.catch((e: unknown) => e)).to.be.instanceOf(RequestTimeout)
    expect(tracker.size).to.equal(0)
    expect(tracker.settle(them, us, reply(id))).to.equal(false)
  })

  it('reject and are forgotten when they cannot be sent', async () => {
    const clock = new VirtualClock()
    const tracker = new RequestTracker(clock)
    const answer = tracker.send(us, them, el('q', 'urn:q'), { type: 'get', timeoutMs: 1000 }, async () => {
      throw new Error('no way there')
    })
    expect(await answer.catch((e: Error) => e.message)).to.equal('no way there')
    expect(tracker.size).to.equal(0)
    const now = tracker.send(us, them, el('q', 'urn:q'), { type: 'get', timeoutMs: 1000 }, () => {
      throw new Error('no way at all')
    })
    expect(await now.catch((e: Error) => e.message)).to.equal('no way at all')
    expect(tracker.size).to.equal(0)
  })
})
