/** Directed presence through a real host, RFC 6121 §4.6, and requests to resources, §8.5.3.1. */
import { expect } from 'chai'
import presence from '../../modules/presence/index.ts'
import roster from '../../modules/roster/index.ts'
import { defineModule } from '../../server/module.ts'
import type { Element } from '../../server/xmpp/element.ts'
import { type TestClient, type TestHost, testHost } from '../helpers/host.ts'
import {
  befriend,
  condition,
  fromRemote,
  imAccounts,
  online,
  presences,
  seen,
  startIm,
} from '../helpers/im.ts'

/** What romeo@example.org/orchard is answered; he sends the probe in his own name, from his resource. */
const probe = async (romeo: TestClient, to: string): Promise<string[]> =>
  seen(presences(await romeo.send(`<presence to='${to}' type='probe' id='probe1'/>`)))

async function friends(host: TestHost): Promise<readonly [TestClient, TestClient]> {
  const juliet = await online(host, 'juliet@example.org/balcony')
  const romeo = await online(host, 'romeo@example.org/orchard')
  await befriend(juliet, romeo)
  return [juliet, romeo]
}

describe('presence: directed', () => {
  it('RFC 6121 §4.6.3 rule 2: delivered as it is; no later broadcasts; unavailable at the end', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/balcony')
    const romeo = await online(host, 'romeo@example.org/orchard')
    await juliet.send(`<presence to='romeo@example.org/orchard' id='d'><status>psst</status></presence>`)
    const [directed] = romeo.take()
    expect([directed!.attr('id'), directed!.getChildText('status')]).to.deep.equal(['d', 'psst'])
    await juliet.send('<presence><show>away</show></presence>')
    expect(romeo.take()).to.have.length(0)
    await juliet.send(`<presence type='unavailable'><status>gone home</status></presence>`)
    const [gone, ...more] = romeo.take()
    expect([gone!.attr('type'), gone!.attr('to'), gone!.getChildText('status'), more.length]).to.deep.equal([
      'unavailable',
      'romeo@example.org/orchard',
      'gone home',
      0,
    ])
    await juliet.send('<presence/>')
    await juliet.drop()
    expect(romeo.take()).to.have.length(0)
  })

  it('RFC 6121 §4.6.3 rule 3: also from a resource that is not available, and when its connection is lost', async () => {
    await using host = await startIm()
    const juliet = await host.client('juliet@example.org/balcony')
    const romeo = await online(host, 'romeo@example.org/orchard')
    await juliet.send(`<presence to='romeo@example.org'/>`)
    expect(seen(romeo.take())).to.deep.equal(['available juliet@example.org/balcony'])
    await juliet.drop()
    expect(seen(romeo.take())).to.deep.equal(['unavailable juliet@example.org/balcony'])
  })

  it('RFC 6121 §4.6.1: who was sent directed unavailable presence, or has sent unavailable himself, hears no more', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/balcony')
    const romeo = await online(host, 'romeo@example.org/orchard')
    const nurse = await online(host, 'nurse@example.org/x')
    await juliet.send(`<presence to='romeo@example.org/orchard'/><presence to='nurse@example.org/x'/>`)
    await juliet.send(`<presence to='romeo@example.org/orchard' type='unavailable'/>`)
    const [before] = await nurse.send(`<presence to='juliet@example.org/balcony' type='unavailable'/>`)
    expect(before!.attr('type')).to.equal(undefined)
    romeo.take()
    await juliet.drop()
    expect([...romeo.take(), ...nurse.take()]).to.have.length(0)
  })

  it('RFC 6121 §4.6.3 rule 1: a subscriber hears of the end once', async () => {
    await using host = await startIm()
    const [juliet, romeo] = await friends(host)
    await juliet.send(`<presence to='romeo@example.org/orchard'/>`)
    romeo.take()
    await juliet.drop()
    expect(seen(romeo.take())).to.deep.equal(['unavailable juliet@example.org/balcony'])
  })

  it('RFC 6121 §4.6.3: own resources that got directed presence hear of the end once', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/balcony')
    const chamber = await online(host, 'juliet@example.org/chamber')
    await juliet.send(`<presence to='juliet@example.org'/><presence to='juliet@example.org/chamber'/>`)
    expect(seen(chamber.take())).to.deep.equal(Array(2).fill('available juliet@example.org/balcony'))
    await juliet.drop()
    expect(seen(chamber.take())).to.deep.equal(['unavailable juliet@example.org/balcony'])
  })

  it('RFC 6121 §4.6.6: the addressee may probe that resource, and learns that it is there, no more', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/balcony')
    const chamber = await online(host, 'juliet@example.org/chamber')
    const romeo = await online(host, 'romeo@example.org/orchard')
    await juliet.send('<presence><show>dnd</show></presence>')
    await juliet.send(`<presence to='romeo@example.org/orchard'><status>hi</status></presence>`)
    romeo.take()
    const [answer, ...more] = await romeo.send(`<presence to='juliet@example.org/balcony' type='probe'/>`)
    expect([seen([answer!]), answer!.children.length, more.length]).to.deep.equal([
      ['available juliet@example.org/balcony'],
      0,
      0,
    ])
    expect(await probe(romeo, 'juliet@example.org')).to.deep.equal(['available juliet@example.org/balcony'])
    // "unsubscribed" is the answer to him who has no subscription, and does not reach his client (§3.2.3)
    expect(await probe(romeo, 'juliet@example.org/chamber')).to.deep.equal([])
    await juliet.send(`<presence type='unavailable'/>`)
    romeo.take()
    expect(await probe(romeo, 'juliet@example.org/balcony')).to.deep.equal([])
    await juliet.send(`<presence to='romeo@example.org'/>`)
    romeo.take()
    expect(await probe(romeo, 'juliet@example.org/balcony')).to.deep.equal([
      'available juliet@example.org/balcony',
    ])
    expect(chamber.closed).to.equal(false)
  })

  it('RFC 6120 §10.1: directed and broadcast presence keep their order while something before them is being stored', async () => {
    const stored = Promise.withResolvers<undefined>()
    const slow = defineModule({
      name: 'slow',
      summary: 'test',
      specs: [],
      setup: (ctx) =>
        ctx.hook('client:in', { phase: 'store', kinds: ['message'] }, (e) =>
          e.from.local === 'juliet' ? stored.promise : undefined,
        ),
    })
    await using host = await testHost({ modules: [roster, presence, slow], accounts: imAccounts })
    const juliet = await online(host, 'juliet@example.org/balcony')
    const romeo = await online(host, 'romeo@example.org/orchard')
    const to = `to='romeo@example.org/orchard'`
    await juliet.send(
      `<message ${to}/><presence ${to} id='1'/><presence type='unavailable'/><presence ${to} id='2'/>`,
    )
    expect(romeo.take()).to.have.length(0)
    stored.resolve(undefined)
    await host.settle()
    const got = romeo.take().map((e) => `${e.name} ${e.attr('type') ?? e.attr('id') ?? ''}`)
    expect(got).to.deep.equal(['message ', 'presence 1', 'presence unavailable', 'presence 2'])
    await juliet.drop()
    expect(seen(romeo.take())).to.deep.equal(['unavailable juliet@example.org/balcony'])
  })

  it('RFC 6120 §7.7.2.2: a replaced session that ends late does not end what its successor has begun', async () => {
    const stored = Promise.withResolvers<undefined>()
    const slow = defineModule({
      name: 'slow',
      summary: 'test',
      specs: [],
      setup: (ctx) => ctx.hook('client:in', { phase: 'store', kinds: ['message'] }, () => stored.promise),
    })
    await using host = await testHost({ modules: [roster, presence, slow], accounts: imAccounts })
    const [juliet, romeo] = await friends(host)
    const nurse = await online(host, 'nurse@example.org/x')
    await juliet.send(`<presence to='nurse@example.org/x'/><presence to='nurse@example.org'/>`)
    await juliet.send(`<message to='romeo@example.org'/>`)
    const second = await host.client('juliet@example.org/balcony')
    await second.send(`<presence id='new'/><presence to='nurse@example.org/x' id='new'/>`)
    stored.resolve(undefined)
    await host.settle()
    expect(juliet.closed).to.equal(true)
    expect(presences(romeo.take()).at(-1)?.attr('id')).to.equal('new')
    const ends = nurse.take().filter((e) => e.attr('type') === 'unavailable')
    expect(ends.map((e) => e.attr('to'))).to.deep.equal(['nurse@example.org'])
  })

  it('RFC 6120 §7.7.2.2: nor is the successor declared gone to the own devices, and to itself', async () => {
    const stored = Promise.withResolvers<undefined>()
    const slow = defineModule({
      name: 'slow',
      summary: 'test',
      specs: [],
      setup: (ctx) => ctx.hook('session:closed', { phase: 'store' }, () => stored.promise),
    })
    await using host = await testHost({ modules: [roster, presence, slow], accounts: imAccounts })
    const chamber = await online(host, 'juliet@example.org/chamber')
    const juliet = await online(host, 'juliet@example.org/balcony')
    const second = await host.client('juliet@example.org/balcony')
    await second.send(`<presence id='new'/>`)
    expect(juliet.closed).to.equal(true)
    chamber.take()
    stored.resolve(undefined)
    await host.settle()
    expect(seen([...chamber.take(), ...second.take()])).to.deep.equal([])
    await second.drop()
    expect(seen(chamber.take())).to.deep.equal(['unavailable juliet@example.org/balcony'])
  })

  it('a session has only so many addressees at a time', async () => {
    const host = await testHost({
      modules: [roster, presence],
      accounts: imAccounts,
      config: { presence: { maxDirected: 2 } },
    })
    await using _ = host
    const juliet = await online(host, 'juliet@example.org/balcony')
    const to = (n: number, type = ''): Promise<unknown> =>
      juliet
        .send(`<presence to='romeo@example.org/${n}'${type}/>`)
        .then((received) => received.map(condition))
    expect([await to(1), await to(2), await to(1)]).to.deep.equal([[], [], []])
    expect(await to(3)).to.deep.equal(['resource-constraint'])
    await to(1, ` type='unavailable'`)
    expect(await to(3)).to.deep.equal([])
  })
})

describe('presence: requests to resources', () => {
  const ping = `<ping xmlns='urn:xmpp:ping'/>`
  const ask = async (from: TestClient, to: string): Promise<Element | undefined> =>
    (await from.send(`<iq type='get' id='q' to='${to}'>${ping}</iq>`))[0]

  it('RFC 6121 §8.5.3.1: refused for who may not know that the resource is there, with the error of one that is not', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/balcony')
    const romeo = await online(host, 'romeo@example.org/orchard')
    const there = await ask(romeo, 'juliet@example.org/balcony')
    const absent = await ask(romeo, 'juliet@example.org/none')
    expect(condition(there)).to.equal('service-unavailable')
    expect(there!.toString().replaceAll('balcony', 'none')).to.equal(absent!.toString())
    expect(juliet.take()).to.have.length(0)
  })

  it('RFC 6121 §8.5.3.1: delivered for subscribers, for addressees of directed presence, and between own resources', async () => {
    await using host = await startIm()
    const [juliet, romeo] = await friends(host)
    const chamber = await online(host, 'juliet@example.org/chamber')
    const nurse = await online(host, 'nurse@example.org/x')
    juliet.take()
    await juliet.send(`<presence to='nurse@example.org'/>`)
    for (const client of [romeo, chamber, nurse]) {
      await ask(client, 'juliet@example.org/balcony')
      expect(juliet.take().map((e) => e.attr('from'))).to.deep.equal([client.jid.toString()])
    }
    // a room asks with the address of another occupant
    await juliet.send(`<presence to='room@chat.example.net/juliet'/>`)
    juliet.take()
    await fromRemote(
      host,
      `<iq from='room@chat.example.net/romeo' to='juliet@example.org/balcony' type='get' id='r'>${ping}</iq>`,
    )
    expect(juliet.take()).to.have.length(1)
  })

  it('RFC 6121 §8.5.3.1: answers are delivered to whoever asked', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/balcony')
    await fromRemote(host, `<iq from='x@example.net' to='juliet@example.org/balcony' type='result' id='r'/>`)
    expect(juliet.take()).to.have.length(1)
  })

  it('with protectResources off every request is delivered', async () => {
    const config = { presence: { protectResources: false } }
    await using host = await testHost({ modules: [roster, presence], accounts: imAccounts, config })
    const juliet = await online(host, 'juliet@example.org/balcony')
    const romeo = await online(host, 'romeo@example.org/orchard')
    await ask(romeo, 'juliet@example.org/balcony')
    expect(juliet.take()).to.have.length(1)
  })
})
