/** Subscriptions through a real host: RFC 6121 §3. The tables of Appendix A: roster-states. */
import { expect } from 'chai'
import presence from '../../modules/presence/index.ts'
import roster from '../../modules/roster/index.ts'
import { openMemory } from '../../server/storage/memory.ts'
import { type TestClient } from '../helpers/host.ts'
import {
  befriend,
  condition,
  fromRemote,
  getRoster,
  items,
  online,
  presences,
  seen,
  setItem,
  startIm,
  wholeRoster,
} from '../helpers/im.ts'

describe('roster: subscriptions', () => {
  it('RFC 6121 §3.1: the whole handshake; each side sees stanza, push and presence in the order of the text', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/a')
    const romeo = await online(host, 'romeo@example.org/b')
    const asked = await romeo.send(
      `<presence id='xk3' to='juliet@example.org/whatever' type='subscribe'><status>Hi</status></presence>`,
    )
    // §3.1.2
    expect(seen(asked)).to.deep.equal([
      `push <item jid='juliet@example.org' subscription='none' ask='subscribe'/>`,
    ])
    const [request] = juliet.take()
    // §3: the bare JIDs; content and id as they were
    expect(request!.attrs).to.deep.equal({
      id: 'xk3',
      to: 'juliet@example.org',
      type: 'subscribe',
      from: 'romeo@example.org',
    })
    expect(request!.getChildText('status')).to.equal('Hi')
    // §3.1.5
    const granted = await juliet.send(`<presence to='romeo@example.org' type='subscribed'/>`)
    expect(seen(granted)).to.deep.equal([`push <item jid='romeo@example.org' subscription='from'/>`])
    // §3.1.6
    expect(seen(romeo.take())).to.deep.equal([
      'subscribed juliet@example.org',
      `push <item jid='juliet@example.org' subscription='to'/>`,
      'available juliet@example.org/a',
    ])
    await juliet.send(`<presence to='romeo@example.org' type='subscribe'/>`)
    romeo.take()
    juliet.take()
    await romeo.send(`<presence to='juliet@example.org' type='subscribed'/>`)
    expect(seen(juliet.take())).to.deep.equal([
      'subscribed romeo@example.org',
      `push <item jid='romeo@example.org' subscription='both'/>`,
      'available romeo@example.org/b',
    ])
  })

  it('RFC 6121 §3.2: cancelling: unavailable, unsubscribed, push', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/a')
    const romeo = await online(host, 'romeo@example.org/b')
    await befriend(juliet, romeo)
    const own = await juliet.send(`<presence to='romeo@example.org' type='unsubscribed'/>`)
    expect(seen(own)).to.deep.equal([`push <item jid='romeo@example.org' subscription='to'/>`])
    expect(seen(romeo.take())).to.deep.equal([
      'unavailable juliet@example.org/a',
      'unsubscribed juliet@example.org',
      `push <item jid='juliet@example.org' subscription='from'/>`,
    ])
  })

  it('RFC 6121 §3.2.2 rule 3: denying the request of somebody in the roster is pushed; resources stay hidden', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/a')
    const romeo = await online(host, 'romeo@example.org/b')
    await setItem(juliet, `<item jid='romeo@example.org'/>`)
    await romeo.send(`<presence to='juliet@example.org' type='subscribe'/>`)
    juliet.take()
    const own = await juliet.send(`<presence to='romeo@example.org' type='unsubscribed'/>`)
    expect(seen(own)).to.deep.equal([`push <item jid='romeo@example.org' subscription='none'/>`])
    expect(seen(romeo.take())).to.deep.equal([
      'unsubscribed juliet@example.org',
      `push <item jid='juliet@example.org' subscription='none'/>`,
    ])
  })

  it('RFC 6121 §3.3: unsubscribing: the stanza before the push, then unavailable from the contact', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/a')
    const romeo = await online(host, 'romeo@example.org/b')
    await befriend(juliet, romeo)
    const own = await romeo.send(`<presence to='juliet@example.org' type='unsubscribe'/>`)
    expect(seen(own)).to.have.members([
      `push <item jid='juliet@example.org' subscription='from'/>`,
      'unavailable juliet@example.org/a',
    ])
    expect(seen(juliet.take())).to.deep.equal([
      'unsubscribe romeo@example.org',
      `push <item jid='romeo@example.org' subscription='to'/>`,
    ])
  })

  it('RFC 6121 §3.1.3 rule 3, §2.2: requests go to available resources, their outcome to interested ones', async () => {
    await using host = await startIm()
    const available = await host.client('juliet@example.org/available')
    await available.send('<presence/>')
    const interested = await host.client('juliet@example.org/interested')
    await getRoster(interested)
    const connected = await host.client('juliet@example.org/connected')
    const types = (client: TestClient): (string | undefined)[] =>
      presences(client.take()).map((e) => e.attr('type'))
    available.take()
    await fromRemote(host, `<presence from='romeo@example.net' to='juliet@example.org' type='subscribe'/>`)
    expect([types(available), types(interested), types(connected)]).to.deep.equal([['subscribe'], [], []])
    await connected.send(`<presence to='romeo@example.net' type='subscribe'/>`)
    for (const client of [available, interested, connected]) client.take()
    await fromRemote(host, `<presence from='romeo@example.net' to='juliet@example.org' type='subscribed'/>`)
    expect([types(available), types(interested), types(connected)]).to.deep.equal([[], ['subscribed'], []])
  })

  it('RFC 6121 §3.1.3 rule 4: a request to an offline account is kept whole and delivered at each login until answered', async () => {
    const store = await openMemory()
    {
      await using host = await startIm({}, store)
      for (const id of ['first', 'second'])
        await fromRemote(
          host,
          `<presence from='romeo@example.net' to='juliet@example.org' type='subscribe' id='${id}'><nick xmlns='http://jabber.org/protocol/nick'>R</nick></presence>`,
        )
    }
    await using host = await startIm({}, store)
    for (const resource of ['a', 'b']) {
      const juliet = await host.client(`juliet@example.org/${resource}`)
      // §3.1.3, security warning: nothing in the roster yet
      expect((await wholeRoster(juliet)).elements).to.have.length(0)
      const requests = (await juliet.send('<presence/>')).filter((e) => e.attr('type') === 'subscribe')
      expect(
        requests.map((e) => [e.attr('id'), e.getChildText('nick', 'http://jabber.org/protocol/nick')]),
      ).to.deep.equal([['first', 'R']])
      await juliet.send(`<presence type='unavailable'/>`)
      if (resource === 'b') await juliet.send(`<presence to='romeo@example.net' type='unsubscribed'/>`)
    }
    const juliet = await host.client('juliet@example.org/c')
    expect((await juliet.send('<presence/>')).filter((e) => e.attr('type') === 'subscribe')).to.have.length(0)
    expect((await wholeRoster(juliet)).elements).to.have.length(0)
  })

  it('RFC 6121 §3.1.3, security warning: requests are limited in number and size', async () => {
    await using host = await startIm({ maxRequests: 3, maxRequest: '256 B' })
    for (let i = 0; i < 5; i++) {
      const text = 'x'.repeat(i === 0 ? 300 : 3)
      await fromRemote(
        host,
        `<presence from='r${i}@example.net' to='juliet@example.org' type='subscribe'><status>${text}</status></presence>`,
      )
    }
    const juliet = await host.client('juliet@example.org/a')
    const requests = (await juliet.send('<presence/>')).filter((e) => e.attr('type') === 'subscribe')
    expect(requests.map((e) => [e.attr('from'), e.getChildText('status')])).to.deep.equal([
      ['r0@example.net', undefined],
      ['r1@example.net', 'xxx'],
      ['r2@example.net', 'xxx'],
    ])
  })

  it('RFC 6121 §3.1.2: an unanswered request is sent again when the account comes back, not for each resource', async () => {
    await using host = await startIm()
    const juliet = await host.client('juliet@example.org/a')
    await juliet.send(`<presence to='romeo@example.org' type='subscribe'/>`)
    await juliet.close()
    // what a crash between the two accounts leaves behind
    await host.store.open('example.org', 'roster').docs('contacts').delete('romeo', 'juliet@example.org')
    await host.unload('presence')
    await host.unload('roster')
    await host.load(roster)
    await host.load(presence)
    const romeo = await online(host, 'romeo@example.org/a')
    expect(romeo.take()).to.have.length(0)
    const a = await host.client('juliet@example.org/a')
    await a.send('<presence/>')
    expect(seen(romeo.take())).to.deep.equal(['subscribe juliet@example.org'])
    const arrived: string[] = []
    host.host.hooks.chain('account:in').add({
      module: 'test',
      place: { phase: 'guard' },
      handle: (e) => void arrived.push(`${e.stanza.attr('type')} ${e.to.toString()}`),
    })
    await (await host.client('juliet@example.org/b')).send('<presence/>')
    expect(arrived).to.not.include('subscribe romeo@example.org')
  })

  it('RFC 6121 §3.1.2: the user is told when a request cannot be routed', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/a')
    const received = presences(
      await juliet.send(`<presence to='romeo@nowhere.example' type='subscribe' id='s'/>`),
    )
    expect(received.map((e) => [e.attr('id'), e.attr('to'), condition(e)])).to.deep.equal([
      ['s', 'juliet@example.org', 'remote-server-not-found'],
    ])
  })

  it('RFC 6121 §3.4.2: a pre-approval is shown, kept to oneself, and used by the first request', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/a')
    const romeo = await online(host, 'romeo@example.org/b')
    const approved = await juliet.send(`<presence to='romeo@example.org' type='subscribed'/>`)
    expect(items(approved)).to.deep.equal([
      `<item jid='romeo@example.org' subscription='none' approved='true'/>`,
    ])
    expect(romeo.take()).to.have.length(0)
    await romeo.send(`<presence to='juliet@example.org' type='subscribe' id='q1'/>`)
    const [, ...rest] = juliet.take()
    expect(rest).to.have.length(0)
    expect((await wholeRoster(juliet)).elements.map((e) => e.attr('subscription'))).to.deep.equal(['from'])
  })

  it('RFC 6121 §3.1.3 rule 2: the answer on behalf of a subscribed-to account has the id of the request', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/a')
    const romeo = await online(host, 'romeo@example.org/b')
    await juliet.send(`<presence to='romeo@example.org' type='subscribed'/>`)
    juliet.take()
    const received = await romeo.send(`<presence to='juliet@example.org' type='subscribe' id='q1'/>`)
    const answer = received.find((e) => e.attr('type') === 'subscribed')
    expect([answer?.attr('id'), answer?.attr('from'), answer?.attr('to')]).to.deep.equal([
      'q1',
      'juliet@example.org',
      'romeo@example.org',
    ])
    expect(seen(received)).to.include('available juliet@example.org/a')
  })

  it('RFC 6121 §4.2.2: nobody subscribes to himself', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/a')
    const received = await juliet.send(`<presence to='juliet@example.org' type='subscribe'/>`)
    expect(received.map(condition)).to.deep.equal(['not-allowed'])
    expect(await juliet.send(`<presence to='juliet@example.org/x' type='unsubscribed'/>`)).to.have.length(0)
  })

  it('RFC 6121 §3.1.1: a subscription stanza without an addressee is a bad request', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/a')
    for (const type of ['subscribe', 'subscribed', 'unsubscribe', 'unsubscribed'])
      expect((await juliet.send(`<presence type='${type}'/>`)).map(condition)).to.deep.equal(['bad-request'])
  })

  it('RFC 6121 §3.1.3, §8.5.3.2.2: to an absent resource a request counts for the account, anything else is ignored', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/a')
    await juliet.send(`<presence to='romeo@example.net' type='subscribe'/>`)
    juliet.take()
    await fromRemote(
      host,
      `<presence from='romeo@example.net/x' to='juliet@example.org/gone' type='subscribed'/>`,
    )
    expect(juliet.take()).to.have.length(0)
    await fromRemote(
      host,
      `<presence from='romeo@example.net/x' to='juliet@example.org/gone' type='subscribe'/>`,
    )
    expect(juliet.take().map((e) => [e.attr('from'), e.attr('to')])).to.deep.equal([
      ['romeo@example.net', 'juliet@example.org'],
    ])
    await fromRemote(
      host,
      `<presence from='romeo@example.net/x' to='juliet@example.org/a' type='subscribed'/>`,
    )
    expect((await wholeRoster(juliet)).elements.map((e) => e.attr('subscription'))).to.deep.equal(['to'])
  })

  it('RFC 6121 §8.5.1: nothing is kept for an account that does not exist', async () => {
    await using host = await startIm()
    await fromRemote(host, `<presence from='romeo@example.net' to='nobody@example.org' type='subscribe'/>`)
    expect(await host.store.purgeOwner('example.org', 'nobody')).to.equal(0)
  })
})
