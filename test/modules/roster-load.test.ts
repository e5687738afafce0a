/** Deleted accounts, bursts, memory, unloading: what becomes of rosters under RFC 6121 §2 and §3 when much or the last happens. */
import { expect } from 'chai'
import presence from '../../modules/presence/index.ts'
import roster from '../../modules/roster/index.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { testHost } from '../helpers/host.ts'
import {
  befriend,
  condition,
  fromRemote,
  getRoster,
  imAccounts,
  online,
  pushes,
  seen,
  setItem,
  startIm,
  wholeRoster,
} from '../helpers/im.ts'

describe('roster: accounts and load', () => {
  it('XEP-0077 §3.2: contacts of a deleted account see all subscriptions end; nothing of it stays', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/a')
    const romeo = await online(host, 'romeo@example.org/b')
    const nurse = await online(host, 'nurse@example.org/c')
    await befriend(juliet, romeo)
    await nurse.send(`<presence to='juliet@example.org' type='subscribe'/>`)
    nurse.take()
    await host.host.deleteAccount('juliet')
    await host.settle()
    expect(seen(romeo.take())).to.deep.equal([
      'unavailable juliet@example.org/a',
      'unsubscribe juliet@example.org',
      `push <item jid='juliet@example.org' subscription='to'/>`,
      'unsubscribed juliet@example.org',
      `push <item jid='juliet@example.org' subscription='none'/>`,
    ])
    expect(seen(nurse.take())).to.deep.equal([
      'unsubscribed juliet@example.org',
      `push <item jid='juliet@example.org' subscription='none'/>`,
    ])
    // also of what reached it while it went
    await host.clock.advance(120_000)
    expect(await host.store.purgeOwner('example.org', 'juliet')).to.equal(0)
  })

  it('XEP-0077 §3.2: what still reaches an account while it is being deleted is not kept', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/a')
    await juliet.send(`<presence to='romeo@example.net' type='subscribe'/>`)
    await host.host.hooks.chain('account:deleted').run({ account: juliet.jid.bare })
    await host.store.purgeOwner('example.org', 'juliet')
    for (const type of ['subscribe', 'subscribed', 'unsubscribed'])
      await fromRemote(host, `<presence from='romeo@example.net' to='juliet@example.org' type='${type}'/>`)
    await setItem(juliet, `<item jid='x@example.net'/>`)
    await juliet.drop()
    expect(await host.store.purgeOwner('example.org', 'juliet')).to.equal(0)
    // who has the name next starts anew
    const next = await host.client('juliet@example.org/b')
    await setItem(next, `<item jid='y@example.net'/>`)
    expect((await wholeRoster(next)).elements.map((e) => e.attr('jid'))).to.deep.equal(['y@example.net'])
  })

  it('1,500 requests of one client: a message of another one is not held up until they are done', async () => {
    const names = Array.from({ length: 1500 }, (_, i) => `u${i}`)
    await using host = await testHost({ modules: [roster, presence], accounts: [...imAccounts, ...names] })
    const juliet = await online(host, 'juliet@example.org/a')
    const romeo = await online(host, 'romeo@example.org/b')
    const nurse = await online(host, 'nurse@example.org/c')
    juliet.transport.feed(
      names.map((name) => `<presence to='${name}@example.org' type='subscribe'/>`).join(''),
    )
    await nurse.send(`<message to='romeo@example.org' type='chat' id='m'><body>x</body></message>`)
    const done = (): number => pushes(juliet.take()).length
    let pushed = done()
    expect(romeo.take().map((e) => e.attr('id'))).to.deep.equal(['m'])
    while (pushed < 1500) {
      await host.settle()
      pushed += done()
    }
    const all = await wholeRoster(juliet)
    expect(all.elements.filter((e) => e.attr('ask') === 'subscribe')).to.have.length(1500)
    const last = await host.client('u1499@example.org/x')
    expect(seen(await last.send('<presence/>'))).to.include('subscribe juliet@example.org')
  })

  it('rosters of accounts that are offline leave memory', async () => {
    const names = Array.from({ length: 2100 }, (_, i) => `u${i}`)
    await using host = await testHost({ modules: [roster, presence], accounts: [...imAccounts, ...names] })
    const juliet = await online(host, 'juliet@example.org/a')
    await (await online(host, 'juliet@example.org/b')).close()
    for (const name of names)
      await host.router.route(
        parseXml(
          `<presence xmlns='jabber:client' from='r@example.net' to='${name}@example.org' type='subscribe'/>`,
        ),
      )
    const text = await host.telemetry.registry.metrics()
    const cached = Number(/^hermod_roster_cached\{[^}]*\} (\d+)$/m.exec(text)?.[1])
    expect(cached).to.be.within(1, 2001)
    // one that left comes back from the store
    const first = await host.client('u0@example.org/x')
    expect(seen(await first.send('<presence/>'))).to.include('subscribe r@example.net')
    expect(juliet.closed).to.equal(false)
    expect(host.service('roster').of('juliet')).to.not.be.instanceOf(Promise)
  })

  it('RFC 6121 §2.2: unloaded, the namespace is not served any more', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/a')
    await host.unload('presence')
    await host.unload('roster')
    expect(condition((await getRoster(juliet))[0])).to.equal('service-unavailable')
    expect(host.host.service('roster')).to.equal(undefined)
  })
})
