/**
 * Random walks of two accounts through everything that changes subscriptions: after each step both rosters fit together
 * (RFC 6121 §A), every device has the roster of the server (§2.6), and sees exactly the presence it may see (§4).
 */
import { expect } from 'chai'
import fc from 'fast-check'
import type { Element } from '../../server/xmpp/element.ts'
import { NS } from '../../server/xmpp/ns.ts'
import type { TestClient, TestHost } from '../helpers/host.ts'
import { startIm } from '../helpers/im.ts'

const NAMES = ['juliet', 'romeo'] as const
type Name = (typeof NAMES)[number]
const other = (name: Name): Name => (name === 'juliet' ? 'romeo' : 'juliet')

/** A device that believes what it is told. It keeps the roster and its version between connections. */
class Device {
  readonly jid: string
  client: TestClient | undefined
  available = false
  ver = ''
  readonly roster = new Map<string, string>()
  /** Full JIDs of others that are available. */
  readonly present = new Set<string>()

  constructor(jid: string) {
    this.jid = jid
  }

  async connect(host: TestHost): Promise<void> {
    if (this.client !== undefined) return
    this.client = await host.client(this.jid)
    this.take(
      await this.client.send(`<iq type='get' id='get'><query xmlns='${NS.ROSTER}' ver='${this.ver}'/></iq>`),
    )
  }

  async disconnect(how: 'close' | 'drop'): Promise<void> {
    const { client } = this
    if (client === undefined) return
    this.take(client.take())
    this.client = undefined
    this.available = false
    this.present.clear()
    await client[how]()
  }

  take(received: readonly Element[]): void {
    for (const e of received) {
      const query = e.getChild('query', NS.ROSTER)
      if (e.name === 'presence') this.#presence(e)
      else if (query !== undefined && e.attr('type') !== 'error') this.#items(e, query)
    }
  }

  #presence(e: Element): void {
    const from = e.attr('from') ?? ''
    if (e.attr('type') === undefined) this.present.add(from)
    else if (e.attr('type') === 'unavailable') this.present.delete(from)
  }

  #items(e: Element, query: Element): void {
    if (e.attr('type') === 'result') this.roster.clear()
    this.ver = query.attr('ver') ?? ''
    for (const item of query.elements) {
      const jid = item.attr('jid') ?? ''
      if (item.attr('subscription') === 'remove') this.roster.delete(jid)
      else this.roster.set(jid, item.toString())
    }
  }
}

class World {
  readonly host: TestHost
  /** Two devices for juliet, one for romeo. */
  readonly devices = [
    new Device('juliet@example.org/a'),
    new Device('juliet@example.org/b'),
    new Device('romeo@example.org/x'),
  ]

  constructor(host: TestHost) {
    this.host = host
  }

  of(name: Name): Device[] {
    return this.devices.filter((d) => d.jid.startsWith(name))
  }

  async send(device: Device, xml: string): Promise<void> {
    if (device.client === undefined) return
    device.take(await device.client.send(xml))
    for (const each of this.devices) each.take(each.client?.take() ?? [])
  }

  async run(step: Step): Promise<void> {
    const device = this.devices[step.device]!
    const peer = `${other(device.jid.startsWith('juliet') ? 'juliet' : 'romeo')}@example.org`
    switch (step.what) {
      case 'connect':
        await device.connect(this.host)
        break
      case 'close':
      case 'drop':
        await device.disconnect(step.what)
        break
      case 'available':
      case 'unavailable': {
        const available = step.what === 'available'
        device.available = available && device.client !== undefined
        await this.send(device, available ? '<presence/>' : `<presence type='unavailable'/>`)
        break
      }
      case 'set':
        await this.send(
          device,
          `<iq type='set' id='s'><query xmlns='${NS.ROSTER}'><item jid='${peer}' name='${step.name}'/></query></iq>`,
        )
        break
      case 'remove':
        await this.send(
          device,
          `<iq type='set' id='s'><query xmlns='${NS.ROSTER}'><item jid='${peer}' subscription='remove'/></query></iq>`,
        )
        break
      default:
        await this.send(device, `<presence to='${peer}' type='${step.what}'/>`)
    }
    for (const each of this.devices) each.take(each.client?.take() ?? [])
  }

  async check(): Promise<void> {
    const rosters = this.host.service('roster')
    for (const name of NAMES) {
      const peer = other(name)
      const mine = [...(await rosters.of(name)).contacts()][0]
      const theirs = [...(await rosters.of(peer)).contacts()][0]
      // §A: one subscription, seen from both sides
      expect(mine?.to === true, `${name} to, ${peer} from`).to.equal(theirs?.from === true)
      expect(mine?.pendingOut === true, `${name} out, ${peer} in`).to.equal(theirs?.pendingIn === true)
      expect(mine?.to === true && mine.pendingOut, 'subscribed and asking').to.equal(false)
      expect(mine?.from === true && mine.pendingIn, 'subscribed and asked').to.equal(false)
      for (const device of this.of(name)) {
        if (device.client === undefined) continue
        // §2.6.3
        const item = device.roster.get(`${peer}@example.org`)
        expect(device.roster.size, `${device.jid}: items`).to.equal(mine?.listed === true ? 1 : 0)
        if (mine?.listed === true) {
          const subscription = mine.to ? (mine.from ? 'both' : 'to') : mine.from ? 'from' : 'none'
          expect(item, device.jid).to.include(`subscription='${subscription}'`)
          expect(item?.includes('ask='), device.jid).to.equal(mine.pendingOut)
          expect(item?.includes('approved='), device.jid).to.equal(mine.approved)
        }
        // §4: of the contact, if subscribed, and of the own account
        if (!device.available) continue
        const visible = this.devices.filter(
          (d) => d.available && (d.jid.startsWith(name) || mine?.to === true),
        )
        expect([...device.present].sort(), `${device.jid}: present`).to.deep.equal(
          visible.map((d) => d.jid).sort(),
        )
      }
    }
  }
}

type Step =
  | { readonly device: 0 | 1 | 2; readonly what: Exclude<What, 'set'> }
  | { readonly device: 0 | 1 | 2; readonly what: 'set'; readonly name: string }
const WHATS = [
  'subscribe',
  'subscribed',
  'unsubscribe',
  'unsubscribed',
  'subscribe',
  'subscribed',
  'available',
  'unavailable',
  'connect',
  'close',
  'drop',
  'set',
  'remove',
] as const
type What = (typeof WHATS)[number]
const step: fc.Arbitrary<Step> = fc
  .tuple(fc.constantFrom(0, 1, 2), fc.constantFrom(...WHATS), fc.constantFrom('x', 'y'))
  .map(([device, what, name]) => (what === 'set' ? { device, what, name } : { device, what }))

describe('roster: random walks', () => {
  it('RFC 6121 §2.6, §4, §A: rosters, devices and presence agree after every step', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async (steps) => {
        await using host = await startIm()
        const world = new World(host)
        for (const device of world.devices)
          await world.run({ device: world.devices.indexOf(device) as 0, what: 'connect' })
        for (const one of steps) {
          await world.run(one)
          await world.check()
        }
      }),
      { numRuns: 150 },
    )
  }).timeout(60_000)
})
