/** Presence probes through a real host: RFC 6121 §4.3. Directed presence has a file of its own. */
import { expect } from 'chai'
import presence from '../../modules/presence/index.ts'
import roster from '../../modules/roster/index.ts'
import { type TestClient, type TestHost } from '../helpers/host.ts'
import { befriend, fromRemote, online, presences, seen, startIm } from '../helpers/im.ts'

/** What romeo@example.org/orchard is answered; he sends the probe in his own name, from his resource. */
const probe = async (romeo: TestClient, to: string): Promise<string[]> =>
  seen(presences(await romeo.send(`<presence to='${to}' type='probe' id='probe1'/>`)))

async function friends(host: TestHost): Promise<readonly [TestClient, TestClient]> {
  const juliet = await online(host, 'juliet@example.org/balcony')
  const romeo = await online(host, 'romeo@example.org/orchard')
  await befriend(juliet, romeo)
  return [juliet, romeo]
}

describe('presence: probes', () => {
  it('RFC 6121 §4.3.2 rule 4, §4.3.2.1: the full last presence of each available resource, with its own id', async () => {
    await using host = await startIm()
    const [juliet, romeo] = await friends(host)
    const chamber = await online(host, 'juliet@example.org/chamber')
    await juliet.send(`<presence id='pres2'><show>away</show></presence>`)
    await chamber.send(`<presence id='pres1'><status>busy</status></presence>`)
    romeo.take()
    const answers = await romeo.send(`<presence to='juliet@example.org' type='probe' id='probe1'/>`)
    expect(answers.map((e) => [e.attr('from'), e.attr('id'), e.elements[0]?.name])).to.have.deep.members([
      ['juliet@example.org/balcony', 'pres2', 'show'],
      ['juliet@example.org/chamber', 'pres1', 'status'],
    ])
  })

  it("RFC 6121 §4.3.2 rule 3: nobody there: unavailable from the bare JID, with the probe's id, the last words and their time", async () => {
    await using host = await startIm()
    const [juliet, romeo] = await friends(host)
    await juliet.send(`<presence type='unavailable' id='x'><status>gone home</status></presence>`)
    romeo.take()
    const stamp = new Date(host.clock.now()).toISOString()
    await host.clock.advance(60_000)
    const [answer, ...more] = await romeo.send(`<presence to='juliet@example.org' type='probe' id='probe1'/>`)
    expect(more).to.have.length(0)
    expect(answer!.attrs).to.deep.equal({
      type: 'unavailable',
      from: 'juliet@example.org',
      to: 'romeo@example.org/orchard',
      id: 'probe1',
    })
    expect(answer!.getChildText('status')).to.equal('gone home')
    expect(answer!.getChild('delay', 'urn:xmpp:delay')!.attr('stamp')).to.equal(stamp)
  })

  it('RFC 6121 §4.3.2 rule 3: an account that was never there is just unavailable', async () => {
    await using host = await startIm()
    const juliet = await host.client('juliet@example.org/connected')
    const romeo = await online(host, 'romeo@example.org/orchard')
    await juliet.send(`<presence to='romeo@example.org' type='subscribed'/>`)
    await romeo.send(`<presence to='juliet@example.org' type='subscribe'/>`)
    const [answer] = await romeo.send(`<presence to='juliet@example.org' type='probe' id='p'/>`)
    expect([answer!.attr('type'), answer!.attr('from'), answer!.children.length]).to.deep.equal([
      'unavailable',
      'juliet@example.org',
      0,
    ])
  })

  it('RFC 6121 §4.3.2 rule 1: without a subscription: "unsubscribed", from bare JID to bare JID, with the id of the probe', async () => {
    await using host = await startIm()
    await online(host, 'juliet@example.org/balcony')
    const romeo = await online(host, 'romeo@example.org/orchard')
    await romeo.send(`<presence to='juliet@example.org' type='subscribe'/>`)
    const xml = (to: string): string => `<presence from='r@example.net/x' to='${to}' type='probe' id='p1'/>`
    const sent: string[] = []
    host.host.hooks.chain('account:in').add({
      module: 'test',
      place: { phase: 'observe' },
      handle: (e) => void sent.push(e.stanza.toString()),
    })
    // it goes to another domain, which cannot be reached: the error to the bare JID shows what was sent
    await fromRemote(host, xml('juliet@example.org'))
    await fromRemote(host, xml('juliet@example.org/balcony'))
    await fromRemote(host, xml('juliet@example.org/nowhere'))
    expect(sent).to.have.length(3)
    for (const error of sent) {
      expect(error).to.match(/from='r@example.net'/)
      expect(error).to.match(/to='juliet@example.org'/)
      expect(error).to.match(/id='p1'/)
    }
  })

  it('RFC 6121 §4.3.2 rule 1: a request that waits for an answer is not undone, a pre-approval neither', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/balcony')
    const romeo = await online(host, 'romeo@example.org/orchard')
    await romeo.send(`<presence to='juliet@example.org' type='subscribe'/>`)
    expect(await probe(romeo, 'juliet@example.org')).to.deep.equal([])
    await juliet.send(`<presence to='nurse@example.org' type='subscribed'/>`)
    const nurse = await online(host, 'nurse@example.org/x')
    await probe(nurse, 'juliet@example.org')
    juliet.take()
    await nurse.send(`<presence to='juliet@example.org' type='subscribe'/>`)
    expect(juliet.take().map((e) => e.attr('type'))).to.not.include('subscribe')
  })

  it('RFC 6121 §4.3.2: a probe of a resource tells of this resource only, and only that it is there', async () => {
    await using host = await startIm()
    const [juliet, romeo] = await friends(host)
    await online(host, 'juliet@example.org/chamber')
    await juliet.send('<presence><show>away</show></presence>')
    romeo.take()
    const [answer, ...more] = await romeo.send(`<presence to='juliet@example.org/balcony' type='probe'/>`)
    expect([seen([answer!]), more, answer!.children.length]).to.deep.equal([
      ['available juliet@example.org/balcony'],
      [],
      0,
    ])
    expect(await probe(romeo, 'juliet@example.org/none')).to.deep.equal([
      'unavailable juliet@example.org/none',
    ])
  })

  it('RFC 6121 §4.3.1: at login contacts elsewhere are probed, from bare JID to bare JID; those here are looked up', async () => {
    await using host = await startIm()
    const [juliet] = await friends(host)
    for (const xml of [
      `<presence to='r@example.net' type='subscribe'/>`,
      `<presence to='never@example.net' type='subscribe'/>`,
    ])
      await juliet.send(xml)
    await fromRemote(host, `<presence from='r@example.net' to='juliet@example.org' type='subscribed'/>`)
    const sent: string[] = []
    const { router } = host
    const route = router.route.bind(router)
    router.route = (stanza, session) => {
      sent.push(`${stanza.attr('type') ?? 'available'} ${stanza.attr('from')} ${stanza.attr('to')}`)
      return route(stanza, session)
    }
    const chamber = await host.client('juliet@example.org/chamber')
    const received = await chamber.send('<presence/>')
    expect(sent.filter((line) => line.startsWith('probe'))).to.deep.equal([
      'probe juliet@example.org r@example.net',
    ])
    expect(seen(received)).to.include('available romeo@example.org/orchard')
  })

  it('RFC 6121 §4.3.2 rule 1: a subscription that the other account here knows nothing of ends at login', async () => {
    await using host = await startIm()
    const [juliet, romeo] = await friends(host)
    await juliet.send(`<presence type='unavailable'/>`)
    await juliet.close()
    romeo.take()
    // what a crash between the two accounts leaves behind
    await host.unload('presence')
    await host.unload('roster')
    await host.store.open('example.org', 'roster').docs('contacts').delete('romeo', 'juliet@example.org')
    await host.load(roster)
    await host.load(presence)
    await romeo.send('<presence/>')
    const again = await online(host, 'juliet@example.org/balcony')
    await again.send(`<presence type='unavailable'/>`)
    await again.send('<presence/>')
    const [contact] = [...(await host.service('roster').of('juliet')).contacts()]
    expect([contact!.jid.toString(), contact!.to, contact!.from]).to.deep.equal([
      'romeo@example.org',
      false,
      true,
    ])
  })
})

describe('presence: lookups of accounts here', () => {
  it('a contact that has still to decide about a request is left to decide', async () => {
    await using host = await startIm()
    const docs = host.store.open('example.org', 'roster').docs('contacts')
    await docs.put('juliet', 'romeo@example.org', { v: 1, to: true, listed: true })
    const request = `<presence xmlns='jabber:client' from='juliet@example.org' to='romeo@example.org' type='subscribe'/>`
    await docs.put('romeo', 'juliet@example.org', { v: 0, request })
    await online(host, 'romeo@example.org/orchard')
    const juliet = await online(host, 'juliet@example.org/balcony')
    const [contact] = [...(await host.service('roster').of('juliet')).contacts()]
    expect(contact!.to).to.equal(true)
    expect(juliet.take()).to.have.length(0)
  })

  it('RFC 6121 §4.3.1: nothing is read for contacts that are offline', async () => {
    await using host = await startIm()
    const docs = host.store.open('example.org', 'roster').docs('contacts')
    for (const peer of ['romeo', 'nurse'])
      await docs.put('juliet', `${peer}@example.org`, { v: 1, to: true, from: true, listed: true })
    await online(host, 'juliet@example.org/balcony')
    expect(await host.telemetry.registry.metrics()).to.match(/^hermod_roster_cached\{[^}]*\} 1$/m)
  })
})
