/**
 * RFC 6121 Appendix A, each cell of its eight tables, through a real host: an account here, a contact at another domain. That
 * domain cannot be reached, so a routed stanza shows as an error to the bare JID that it was sent from.
 */
import { expect } from 'chai'
import roster from '../../modules/roster/index.ts'
import presence from '../../modules/presence/index.ts'
import {
  type SubscriptionState,
  type SubscriptionType,
  inbound,
  outbound,
} from '../../modules/roster/subscriptions.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { parseJid } from '../../server/xmpp/jid.ts'
import type { Element } from '../../server/xmpp/element.ts'
import { type TestClient, type TestHost, testHost } from '../helpers/host.ts'

const JULIET = 'juliet@example.org'
const ROMEO = 'romeo@example.net'

/** §A.1 */
const STATES = [
  'None',
  'None + Pending Out',
  'None + Pending In',
  'None + Pending Out+In',
  'To',
  'To + Pending In',
  'From',
  'From + Pending Out',
  'Both',
] as const
type StateName = (typeof STATES)[number]

type Step = readonly ['in' | 'out', SubscriptionType]
/** How to get there. */
const PATHS: Readonly<Record<StateName, readonly Step[]>> = {
  None: [],
  'None + Pending Out': [['out', 'subscribe']],
  'None + Pending In': [['in', 'subscribe']],
  'None + Pending Out+In': [
    ['out', 'subscribe'],
    ['in', 'subscribe'],
  ],
  To: [
    ['out', 'subscribe'],
    ['in', 'subscribed'],
  ],
  'To + Pending In': [
    ['out', 'subscribe'],
    ['in', 'subscribed'],
    ['in', 'subscribe'],
  ],
  From: [
    ['in', 'subscribe'],
    ['out', 'subscribed'],
  ],
  'From + Pending Out': [
    ['in', 'subscribe'],
    ['out', 'subscribed'],
    ['out', 'subscribe'],
  ],
  Both: [
    ['in', 'subscribe'],
    ['out', 'subscribed'],
    ['out', 'subscribe'],
    ['in', 'subscribed'],
  ],
}

/** What the roster shows in each state: subscription, ask; undefined: no item need be there. */
const ITEMS: Readonly<Record<StateName, readonly [string, string | undefined] | undefined>> = {
  None: undefined,
  'None + Pending Out': ['none', 'subscribe'],
  'None + Pending In': undefined,
  'None + Pending Out+In': ['none', 'subscribe'],
  To: ['to', undefined],
  'To + Pending In': ['to', undefined],
  From: ['from', undefined],
  'From + Pending Out': ['from', 'subscribe'],
  Both: ['both', undefined],
}

type Row = readonly [
  pass: boolean,
  next: StateName | 'same',
  note?: 'approved' | 'subscribed' | 'unsubscribed',
]
interface Table {
  readonly name: string
  readonly direction: 'in' | 'out'
  readonly type: SubscriptionType
  /** In the order of STATES: routed or delivered, the new state, pre-approval or answer. */
  readonly rows: readonly Row[]
}
const same = 'same' as const

const TABLES: readonly Table[] = [
  {
    name: '§A.2.1 table 2, outbound subscribe',
    direction: 'out',
    type: 'subscribe',
    rows: [
      [true, 'None + Pending Out'],
      [true, same],
      [true, 'None + Pending Out+In'],
      [true, same],
      [true, same],
      [true, same],
      [true, 'From + Pending Out'],
      [true, same],
      [true, same],
    ],
  },
  {
    name: '§A.2.2 table 3, outbound unsubscribe',
    direction: 'out',
    type: 'unsubscribe',
    rows: [
      [true, same],
      [true, 'None'],
      [true, same],
      [true, 'None + Pending In'],
      [true, 'None'],
      [true, 'None + Pending In'],
      [true, same],
      [true, 'From'],
      [true, 'From'],
    ],
  },
  {
    name: '§A.2.3 table 4, outbound subscribed',
    direction: 'out',
    type: 'subscribed',
    rows: [
      [false, same, 'approved'],
      [false, same, 'approved'],
      [true, 'From'],
      [true, 'From + Pending Out'],
      [false, same, 'approved'],
      [true, 'Both'],
      [false, same],
      [false, same],
      [false, same],
    ],
  },
  {
    name: '§A.2.4 table 5, outbound unsubscribed',
    direction: 'out',
    type: 'unsubscribed',
    rows: [
      [false, same],
      [false, same],
      [true, 'None'],
      [true, 'None + Pending Out'],
      [false, same],
      [true, 'To'],
      [true, 'None'],
      [true, 'None + Pending Out'],
      [true, 'To'],
    ],
  },
  {
    name: '§A.3.1 table 6, inbound subscribe',
    direction: 'in',
    type: 'subscribe',
    rows: [
      [true, 'None + Pending In'],
      [true, 'None + Pending Out+In'],
      [false, same],
      [false, same],
      [true, 'To + Pending In'],
      [false, same],
      [false, same, 'subscribed'],
      [false, same, 'subscribed'],
      [false, same, 'subscribed'],
    ],
  },
  {
    name: '§A.3.2 table 7, inbound unsubscribe',
    direction: 'in',
    type: 'unsubscribe',
    rows: [
      [false, same],
      [false, same],
      [true, 'None', 'unsubscribed'],
      [true, 'None + Pending Out', 'unsubscribed'],
      [false, same],
      [true, 'To', 'unsubscribed'],
      [true, 'None', 'unsubscribed'],
      [true, 'None + Pending Out', 'unsubscribed'],
      [true, 'To', 'unsubscribed'],
    ],
  },
  {
    name: '§A.3.3 table 8, inbound subscribed',
    direction: 'in',
    type: 'subscribed',
    rows: [
      [false, same],
      [true, 'To'],
      [false, same],
      [true, 'To + Pending In'],
      [false, same],
      [false, same],
      [false, same],
      [true, 'Both'],
      [false, same],
    ],
  },
  {
    name: '§A.3.4 table 9, inbound unsubscribed',
    direction: 'in',
    type: 'unsubscribed',
    rows: [
      [false, same],
      [true, 'None'],
      [false, same],
      [true, 'None + Pending In'],
      [true, 'None'],
      [true, 'None + Pending In'],
      [false, same],
      [true, 'From'],
      [true, 'From'],
    ],
  },
]

class Scene implements AsyncDisposable {
  readonly host: TestHost
  readonly juliet: TestClient

  constructor(host: TestHost, juliet: TestClient) {
    this.host = host
    this.juliet = juliet
  }

  static async open(): Promise<Scene> {
    const host = await testHost({ modules: [roster, presence], accounts: ['juliet'] })
    const juliet = await host.client(`${JULIET}/balcony`)
    await juliet.send(`<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq><presence/>`)
    return new Scene(host, juliet)
  }

  async step([direction, type]: Step): Promise<Element[]> {
    if (direction === 'out') return this.juliet.send(`<presence to='${ROMEO}' type='${type}' id='e1'/>`)
    const xml = `<presence xmlns='jabber:client' from='${ROMEO}' to='${JULIET}' type='${type}' id='e1'/>`
    await this.host.router.route(parseXml(xml))
    await this.host.settle()
    return this.juliet.take()
  }

  async at(state: StateName): Promise<this> {
    for (const step of PATHS[state]) await this.step(step)
    return this
  }

  async state(): Promise<SubscriptionState | undefined> {
    return (await this.host.service('roster').of('juliet')).get(parseJid(ROMEO))
  }

  async item(): Promise<Element | undefined> {
    const [result] = await this.juliet.send(`<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>`)
    return result?.getChild('query', 'jabber:iq:roster')?.getChild('item')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.host[Symbol.asyncDispose]()
  }
}

function nameOf(s: SubscriptionState | undefined): StateName {
  const main = s?.to === true ? (s.from ? 'Both' : 'To') : s?.from === true ? 'From' : 'None'
  const out = s?.pendingOut === true
  const pending = s?.pendingIn === true ? ` + Pending ${out ? 'Out+' : ''}In` : out ? ' + Pending Out' : ''
  const name = main + pending
  const known = STATES.find((state) => state === name)
  if (known === undefined) throw new Error(`${name} is no state of §A.1`)
  return known
}

/** Errors that tell of stanzas sent to the contact from the bare JID: subscription stanzas, not presence. */
const routed = (received: readonly Element[]): readonly Element[] =>
  received.filter((e) => e.name === 'presence' && e.attr('type') === 'error' && e.attr('to') === JULIET)

describe('RFC 6121 Appendix A', () => {
  for (const table of TABLES) {
    describe(table.name, () => {
      for (const [i, before] of STATES.entries()) {
        const [pass, next, note] = table.rows[i]!
        const after = next === same ? before : next
        it(`"${before}": ${pass ? '' : 'not '}${table.direction === 'out' ? 'routed' : 'delivered'}, "${after}"`, async () => {
          await using scene = await (await Scene.open()).at(before)
          const received = await scene.step([table.direction, table.type])
          const state = await scene.state()
          expect(nameOf(state)).to.equal(after)
          expect(state?.approved === true).to.equal(note === 'approved')
          const item = await scene.item()
          const shown = item === undefined ? undefined : [item.attr('subscription'), item.attr('ask')]
          if (shown !== undefined || ITEMS[after] !== undefined)
            expect(shown).to.deep.equal(ITEMS[after] ?? ['none', undefined])
          const delivered = received.filter((e) => e.attr('from') === ROMEO && e.attr('type') === table.type)
          if (table.direction === 'out') {
            expect(routed(received)).to.have.length(pass ? 1 : 0)
            expect(delivered).to.have.length(0)
          } else {
            expect(delivered).to.have.length(pass ? 1 : 0)
            // the answer on behalf of the account bears the id of what it answers
            expect(routed(received).map((e) => e.attr('id'))).to.deep.equal(note === undefined ? [] : ['e1'])
          }
        })
      }
    })
  }

  it('§A: the pure functions answer with what the tables name', () => {
    const none = { to: false, from: false, pendingOut: false, pendingIn: false, approved: false }
    expect(inbound('subscribe', { ...none, from: true }).reply).to.equal('subscribed')
    expect(inbound('unsubscribe', { ...none, from: true }).reply).to.equal('unsubscribed')
    expect(outbound('subscribe', { ...none, to: true }).state.pendingOut).to.equal(false)
  })

  it('§3.4.2, table 6 note 1: a pre-approved request is granted at once, in every state that has none', async () => {
    for (const before of ['None', 'None + Pending Out', 'To'] as const) {
      await using scene = await (await Scene.open()).at(before)
      await scene.step(['out', 'subscribed'])
      const received = await scene.step(['in', 'subscribe'])
      expect(received.filter((e) => e.attr('type') === 'subscribe')).to.have.length(0)
      expect(routed(received)).to.have.length(1)
      const state = await scene.state()
      expect([state?.from, state?.pendingIn, state?.approved]).to.deep.equal([true, false, false])
    }
  })

  it('§3.2.2 rule 2: "unsubscribed" ends a pre-approval and is not routed', async () => {
    for (const before of ['None', 'None + Pending Out', 'To'] as const) {
      await using scene = await (await Scene.open()).at(before)
      await scene.step(['out', 'subscribed'])
      const received = await scene.step(['out', 'unsubscribed'])
      expect(routed(received)).to.have.length(0)
      expect(nameOf(await scene.state())).to.equal(before)
      expect((await scene.state())?.approved).to.equal(false)
      const push = received.find((e) => e.name === 'iq')?.getChild('query', 'jabber:iq:roster')
      expect(push?.getChild('item')?.attr('approved')).to.equal(undefined)
    }
  })
})
