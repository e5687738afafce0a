/** XEP-0280 §2, §7, §8: whoever writes to whom, each device that wants copies sees each message once, in the order of all others. */
import { expect } from 'chai'
import fc from 'fast-check'
import carbons from '../../modules/carbons/index.ts'
import type { Element } from '../../server/xmpp/element.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { type TestClient, testHost } from '../helpers/host.ts'

const DEVICES = ['romeo/a', 'romeo/b', 'romeo/c', 'juliet/a', 'juliet/b'] as const
const TARGETS = [
  'romeo',
  'juliet',
  'romeo/a',
  'romeo/b',
  'romeo/c',
  'juliet/a',
  'juliet/b',
  'juliet/gone',
] as const
const CARBONS = 'urn:xmpp:carbons:2'

const address = (name: string): string => name.replace(/^\w+/, (local) => `${local}@example.org`)
/** The id of a message, or of the one that a copy has in it. */
const idOf = (e: Element): string => {
  const copy = e.getChild('received', CARBONS) ?? e.getChild('sent', CARBONS)
  const inner = copy?.getChild('forwarded', 'urn:xmpp:forward:0')?.getChild('message', 'jabber:client')
  return (inner ?? e).attr('id') ?? ''
}

describe('carbons: any conversation (random)', () => {
  it('each device that wants copies sees each message once, in one order; the others what is theirs', async () => {
    const device = fc.record({ enabled: fc.boolean(), priority: fc.integer({ min: 0, max: 2 }) })
    const step = fc.tuple(fc.constantFrom(...DEVICES), fc.constantFrom(...TARGETS), fc.boolean())
    await fc.assert(
      fc.asyncProperty(
        fc.array(device, { minLength: DEVICES.length, maxLength: DEVICES.length }),
        fc.array(step, { maxLength: 25 }),
        async (devices, steps) => {
          await using host = await testHost({ modules: [carbons], accounts: ['romeo', 'juliet'] })
          const clients = new Map<string, TestClient>()
          for (const [i, name] of DEVICES.entries()) {
            const client = await host.client(address(name))
            client.session.setPresence(
              parseXml(
                `<presence xmlns='jabber:client'><priority>${devices[i]?.priority}</priority></presence>`,
              ),
            )
            if (devices[i]?.enabled === true) client.session.setFlag('carbons', true)
            clients.set(name, client)
          }
          const seen = new Map<string, string[]>(DEVICES.map((name) => [name, []]))
          const wanted = new Map<string, string[]>(DEVICES.map((name) => [name, []]))
          for (const [i, [from, to, hidden]] of steps.entries()) {
            const [peer = ''] = to.split('/')
            const exact = DEVICES.some((name) => name === to)
            const there = DEVICES.filter((name) => name.startsWith(`${peer}/`))
            const priority = (name: string) => devices[DEVICES.findIndex((d) => d === name)]?.priority ?? 0
            const highest = Math.max(...there.map(priority))
            const takers = exact ? [to] : there.filter((name) => priority(name) === highest)
            const mine = DEVICES.filter((name) => name.split('/')[0] === from.split('/')[0])
            for (const name of DEVICES) {
              const enabled = devices[DEVICES.indexOf(name)]?.enabled === true && !hidden
              const party = there.includes(name) || mine.includes(name)
              if (takers.includes(name) || (enabled && party && name !== from))
                wanted.get(name)?.push(String(i))
            }
            const inner = hidden ? `<private xmlns='${CARBONS}'/>` : ''
            const text = `<message to='${address(to)}' type='chat' id='${i}'><body>b</body>${inner}</message>`
            seen.get(from)?.push(...((await clients.get(from)?.send(text)) ?? []).map(idOf))
          }
          for (const [name, client] of clients) seen.get(name)?.push(...client.take().map(idOf))
          for (const name of DEVICES) expect(seen.get(name), name).to.deep.equal(wanted.get(name))
        },
      ),
      { numRuns: 60 },
    )
  })
})
