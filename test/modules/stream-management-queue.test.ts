/** XEP-0198 §4: counting and the queue of what is not confirmed. */
import { expect } from 'chai'
import { Queue } from '../../modules/stream-management/queue.ts'
import { el } from '../../server/xmpp/element.ts'

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
})
