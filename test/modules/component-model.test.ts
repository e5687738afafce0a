/**
 * XEP-0114 1.6, RFC 6120 §10.1: whatever happens to components, each message gets to one of them or comes back, never both, never twice; and
 * what gets there from one sender is in the order sent, over all connections.
 */
import { expect } from 'chai'
import fc from 'fast-check'
import { connected, DOMAIN, errorOf, SECRET, start, type TestComponent } from '../helpers/component.ts'
import type { TestClient } from '../helpers/host.ts'

type Step =
  | { readonly kind: 'send'; readonly who: number; readonly count: number; readonly size: number }
  | { readonly kind: 'connect' | 'drop' | 'close' | 'block' | 'unblock'; readonly which: number }

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant('send' as const),
      who: fc.nat(1),
      count: fc.integer({ min: 1, max: 30 }),
      size: fc.constantFrom(0, 100, 3000),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constantFrom(
        'connect' as const,
        'drop' as const,
        'close' as const,
        'block' as const,
        'unblock' as const,
      ),
      which: fc.nat(2),
    }),
  },
)

/** What has got to components and back to senders, as ids. */
async function play(conflict: 'replace' | 'share', steps: readonly Step[]) {
  await using h = await start(
    { components: { [DOMAIN]: { secret: SECRET, conflict } }, queue: '64 KiB' },
    { onLog: () => undefined },
  )
  const clients: TestClient[] = [
    await h.client('romeo@example.org/a'),
    await h.client('juliet@example.org/b'),
  ]
  const components: TestComponent[] = []
  const [sent, arrived, returned]: [string[], string[], string[]] = [[], [], []]
  let next = 0
  /** What a component that reads has read; what was written to one that does not is lost with it. */
  const collect = async (): Promise<void> => {
    for (const one of components)
      if (!one.transport.blocked)
        for (const text of one.transport.written.splice(0))
          for (const [, id = ''] of text.matchAll(/<message [^>]*id='([^']+)'/g)) arrived.push(id)
    for (const client of clients)
      for (const stanza of client.take()) {
        expect(errorOf(stanza)).to.equal('wait remote-server-timeout')
        returned.push(stanza.attr('id') ?? '')
      }
  }
  for (const s of steps) {
    const open = components.filter((one) => !one.closed)
    const one = s.kind === 'send' ? undefined : open[s.which % Math.max(1, open.length)]
    if (s.kind === 'send') {
      const ids = Array.from({ length: s.count }, () => `${s.who}-${next++}`)
      sent.push(...ids)
      const body = `<body>${'x'.repeat(s.size)}</body>`
      clients[s.who]?.transport.feed(
        ids.map((id) => `<message to='${DOMAIN}' id='${id}'>${body}</message>`).join(''),
      )
      await h.settle()
    } else if (s.kind === 'connect') {
      if (open.length < 3)
        components.push(await connected(h, {}, (text) => void arrived.push(...idsIn(text))))
    } else if (s.kind === 'drop') await one?.drop()
    else if (s.kind === 'close') {
      if (one !== undefined && !one.transport.blocked)
        await one.talk('</stream:stream>').then((got) => got.forEach((e) => arrived.push(e.attr('id') ?? '')))
    } else if (s.kind === 'block') {
      await collect()
      if (one !== undefined) one.transport.blocked = true
    } else if (one !== undefined) {
      one.transport.unblock()
      for (let i = 0; i < 10; i++) await h.settle()
    }
    await collect()
  }
  for (const one of components) if (!one.closed && one.transport.blocked) one.transport.unblock()
  for (let i = 0; i < 30; i++) {
    await h.settle()
    await collect()
  }
  return { sent, arrived, returned }
}

const idsIn = (text: string): string[] =>
  Array.from(text.matchAll(/<message [^>]*id='([^']+)'/g), ([, id = '']) => id)

describe('component: any order of events', () => {
  for (const conflict of ['replace', 'share'] as const)
    it(`${conflict}: each message arrives or comes back, once, in order`, async function () {
      this.timeout(60_000)
      await fc.assert(
        fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
          const { sent, arrived, returned } = await play(conflict, steps)
          expect([...arrived, ...returned].toSorted()).to.deep.equal(sent.toSorted())
          for (const who of ['0-', '1-']) {
            const numbers = arrived.filter((id) => id.startsWith(who)).map((id) => Number(id.slice(2)))
            if (conflict === 'replace') expect(numbers).to.deep.equal(numbers.toSorted((a, b) => a - b))
          }
        }),
        { numRuns: 60 },
      )
    })
})
