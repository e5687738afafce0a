/** XEP-0198 §4: counting and the queue of what is not confirmed; options. */
import { expect } from 'chai'
import fc from 'fast-check'
import { Queue } from '../../modules/stream-management/queue.ts'
import { el } from '../../server/xmpp/element.ts'
import { ENABLE, Fresh, condition, message, resume, stage } from '../helpers/managed.ts'

describe('stream management: counting modulo 2^32 (XEP-0198 §4)', () => {
  const stanza = el('message', 'jabber:client')
  it('2^32-1 is followed by zero', () => {
    const queue = new Queue(2 ** 32 - 2)
    for (let i = 0; i < 4; i++) queue.push(stanza, i)
    expect(queue.sent).to.equal(2)
    expect(['ok', 'ok', 'ok', 'ok', 'ok']).to.deep.equal(
      [2 ** 32 - 2, 2 ** 32 - 1, 0, 1, 2].map((h) => queue.check(h)),
    )
    expect(queue.check(3)).to.equal('beyond')
    expect(queue.check(2 ** 32 - 3)).to.equal('stale')
    queue.confirm(1)
    expect([queue.confirmed, queue.length, queue.sent]).to.deep.equal([1, 1, 2])
    expect([...queue.all()].map((e) => e.at)).to.deep.equal([3])
    expect(queue.check(2 ** 32 - 1)).to.equal('stale')
  })

  it('at the beginning nothing is stale', () => {
    const queue = new Queue()
    queue.push(stanza, 0)
    queue.confirm(1)
    expect([queue.check(0), queue.check(2), queue.check(2 ** 31), queue.check(2 ** 32 - 1)]).to.deep.equal([
      'stale',
      'beyond',
      'beyond',
      'beyond',
    ])
  })

  it('keeps order and bytes, whatever is confirmed when', () => {
    const queue = new Queue()
    let confirmed = 0
    for (let i = 0; i < 500; i++) {
      queue.push(el('message', 'jabber:client', { id: String(i) }), i)
      if (i % 7 === 3) queue.confirm((confirmed += 5))
      if (i % 50 === 0) queue.flatten()
      expect([...queue.all()].map((e) => e.stanza.attr('id'))).to.deep.equal(
        Array.from({ length: i + 1 - confirmed }, (_, k) => String(confirmed + k)),
      )
    }
    queue.confirm(500)
    expect([queue.length, queue.bytes]).to.deep.equal([0, 0])
  })

  it('§6: what was never written cannot have been handled', () => {
    const queue = new Queue()
    queue.push(stanza, 0)
    queue.wait(stanza, 1)
    expect([queue.length, queue.sent, queue.check(1), queue.check(2)]).to.deep.equal([2, 1, 'ok', 'beyond'])
    queue.written()
    expect([queue.sent, queue.check(2)]).to.deep.equal([2, 'ok'])
  })

  it('of presence that waits the last of each sender stays, in its place', () => {
    const queue = new Queue()
    const presence = (from: string, id: string, type?: string) =>
      el('presence', 'jabber:client', { from, id, type })
    queue.push(presence('a', 'sent'), 0)
    const waiting = [
      presence('a', '1'),
      presence('b', '2'),
      el('message', 'jabber:client', { from: 'a', id: '3' }),
      presence('a', '4', 'unavailable'),
      presence('b', '5', 'subscribe'),
      presence('b', '6', 'error'),
      presence('a', '7'),
    ]
    for (const [i, one] of waiting.entries()) {
      queue.wait(one, i)
      if (i % 2 === 0) queue.flatten()
    }
    const ids = () => Array.from(queue.all(), (e) => e.stanza.attr('id'))
    expect(ids()).to.deep.equal(['sent', '2', '3', '5', '6', '7'])
    expect([queue.length, queue.sent]).to.deep.equal([6, 1])
    queue.written()
    queue.wait(presence('a', '8'), 8)
    expect(ids()).to.deep.equal(['sent', '2', '3', '5', '6', '7', '8'])
    queue.flatten()
    queue.written()
    queue.confirm(7)
    expect([queue.length, queue.bytes]).to.deep.equal([0, 0])
  })

  it('keeps what a list would keep, whatever happens in which order (random)', () => {
    const kinds = ['message', 'presence a', 'presence b', 'unavailable a', 'subscribe a'] as const
    const step = fc.oneof(
      { weight: 6, arbitrary: fc.tuple(fc.constant('push' as const), fc.constantFrom(...kinds)) },
      { weight: 8, arbitrary: fc.tuple(fc.constant('wait' as const), fc.constantFrom(...kinds)) },
      {
        weight: 3,
        arbitrary: fc.tuple(fc.constant('confirm' as const), fc.double({ min: 0, max: 1, noNaN: true })),
      },
      { weight: 2, arbitrary: fc.tuple(fc.constant('written' as const), fc.constant(0)) },
      { weight: 2, arbitrary: fc.tuple(fc.constant('flatten' as const), fc.constant(0)) },
    )
    fc.assert(
      fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
        const queue = new Queue(2 ** 32 - 20)
        let model: { id: string; key: string | undefined; sent: boolean }[] = []
        let confirmed = 2 ** 32 - 20
        let count = 0
        for (const [what, arg] of steps) {
          if (what === 'push' || what === 'wait') {
            const id = String(count++)
            const [kind = '', from = 'm'] = String(arg).split(' ')
            const type = kind === 'message' || kind === 'presence' ? undefined : kind
            const name = kind === 'message' ? 'message' : 'presence'
            queue[what](el(name, 'jabber:client', { id, from, type, pad: 'x'.repeat(count % 9) }), count)
            const key = what === 'wait' && name === 'presence' && kind !== 'subscribe' ? from : undefined
            if (what === 'wait' && key !== undefined)
              model = model.filter((one) => one.sent || one.key !== key)
            model.push({ id, key, sent: what === 'push' && model.every((one) => one.sent) })
          } else if (what === 'confirm') {
            const n = Math.floor(Number(arg) * (model.filter(({ sent }) => sent).length + 0.999))
            confirmed = (confirmed + n) % 2 ** 32
            expect(queue.check(confirmed)).to.equal('ok')
            queue.confirm(confirmed)
            model = model.slice(n)
          } else if (what === 'written') {
            queue.written()
            for (const one of model) one.sent = true
          } else queue.flatten()
          const sent = model.filter((one) => one.sent).length
          expect([queue.length, queue.confirmed, queue.sent]).to.deep.equal([
            model.length,
            confirmed,
            (confirmed + sent) % 2 ** 32,
          ])
          expect(queue.check((confirmed + sent + 1) % 2 ** 32)).to.equal('beyond')
        }
        const left = [...queue.all()]
        expect(left.map((e) => e.stanza.attr('id'))).to.deep.equal(model.map(({ id }) => id))
        queue.flatten()
        expect(queue.bytes).to.equal(
          left.reduce((sum, { stanza: s }) => sum + Buffer.byteLength(s.toString()), 0),
        )
      }),
      { numRuns: 300 },
    )
  })
})

describe('stream management: options', () => {
  it('new ones hold for sessions that exist', async () => {
    await using s = await stage({ maxStanzas: 100 })
    await s.host.reload(
      new Map([['stream-management', { maxStanzas: 50, ackTimeout: '10s', askAfter: '2s' }]]),
    )
    for (let i = 0; i < 51; i++) await s.juliet.send(message(String(i)))
    expect(condition(s.romeo.error)).to.equal('resource-constraint')
  })

  it('§5: but clients that were told so can come back when new sessions cannot be resumed any more', async () => {
    await using s = await stage()
    await s.host.reload(new Map([['stream-management', { hibernation: '0s' }]]))
    await s.romeo.drop()
    await s.juliet.send(message('1'))
    const fresh = await Fresh.open(s.host)
    expect(fresh.ids(await fresh.send(resume(s.id, 0)))).to.deep.equal(['resumed', '1', 'r'])
    const other = await s.host.client('romeo@example.org/other')
    expect((await other.send(ENABLE))[0]?.attr('resume')).to.equal(undefined)
  })
})
