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
})
