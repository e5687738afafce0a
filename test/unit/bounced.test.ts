/** Who is told of messages that go back to their senders, on a server with several hosts. */
import { expect } from 'chai'
import { tellBounced } from '../../server/bounced.ts'
import { Host } from '../../server/host.ts'
import { openMemory } from '../../server/storage/memory.ts'
import { el } from '../../server/xmpp/element.ts'
import { parseJid } from '../../server/xmpp/jid.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { VirtualClock } from '../helpers/clock.ts'

const nothing = () => undefined
const log = { debug: nothing, info: nothing, warn: nothing, error: nothing }

describe('bounced messages: which hosts are told', () => {
  const cases = [
    ['from one host to another', 'a.example', 'b.example', 'all', 'a.example b.example'],
    ['from one host to another, which refused it', 'a.example', 'b.example', 'sender', 'a.example'],
    ['within a host', 'a.example', 'a.example', 'all', 'a.example'],
    ['within a host, which refused it', 'a.example', 'a.example', 'sender', ''],
    ['from elsewhere', 'c.example', 'b.example', 'all', 'b.example'],
    ['to elsewhere', 'a.example', 'c.example', 'all', 'a.example'],
  ] as const
  for (const [name, sender, receiver, whom, expected] of cases)
    for (const type of ['chat', 'error'])
      it(`${name}: ${type === 'error' ? 'nobody, of an error' : expected || 'nobody'}`, async () => {
        const env = { clock: new VirtualClock(), log, store: await openMemory() }
        const told: string[] = []
        const hosts = new Map(['a.example', 'b.example'].map((domain) => [domain, new Host(domain, env)]))
        for (const [domain, { chains }] of hosts)
          chains.messageBounced.add({
            module: 'test',
            place: { phase: 'observe' },
            handle: () => void told.push(domain),
          })
        const [from, to] = [parseJid(`romeo@${sender}`), parseJid(`juliet@${receiver}`)]
        tellBounced(hosts, { stanza: el('message', NS.CLIENT, { type }), from, to, session: undefined }, whom)
        expect(told.join(' ')).to.equal(type === 'error' ? '' : expected)
      })
})
