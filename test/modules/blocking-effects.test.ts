/** XEP-0191: presence at blocking and unblocking (§3.3, §3.4), matching (§6), memory; XEP-0377 reports. */
import { expect } from 'chai'
import { BlockList, BlockLists, NOBODY } from '../../modules/blocking/lists.ts'
import type { AbuseReport } from '../../modules/blocking/report.ts'
import blocking from '../../modules/blocking/index.ts'
import disco from '../../modules/disco.ts'
import offline from '../../modules/offline/index.ts'
import presence from '../../modules/presence/index.ts'
import roster from '../../modules/roster/index.ts'
import sm from '../../modules/stream-management/index.ts'
import { type Ctx, defineModule } from '../../server/module.ts'
import type { Store } from '../../server/storage/contract.ts'
import { openMemory } from '../../server/storage/memory.ts'
import type { Element } from '../../server/xmpp/element.ts'
import { parseJid } from '../../server/xmpp/jid.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { type TestClient, type TestHost, testHost } from '../helpers/host.ts'
import {
  befriend,
  condition,
  fromRemote,
  imAccounts,
  items,
  online,
  seen,
  setItem,
  wholeRoster,
} from '../helpers/im.ts'
import { bodies, say } from '../helpers/offline.ts'

const start = (): Promise<TestHost> =>
  testHost({ modules: [roster, presence, blocking], accounts: imAccounts })
const command = (client: TestClient, name: string, jid: string): Promise<Element[]> =>
  client.send(`<iq type='set' id='c'><${name} xmlns='${NS.BLOCKING}'><item jid='${jid}'/></${name}></iq>`)

describe('blocking: presence', () => {
  for (const jid of ['romeo@example.org', 'romeo@example.org/orchard', 'example.org']) {
    it(`XEP-0191 §3.3, §3.4: a subscriber sees the account go, and come back (${jid})`, async () => {
      await using host = await start()
      const juliet = await online(host, 'juliet@example.org/a')
      const chamber = await online(host, 'juliet@example.org/b')
      const romeo = await online(host, 'romeo@example.org/orchard')
      await befriend(juliet, romeo)
      juliet.take()
      chamber.take()
      const received = await command(juliet, 'block', jid)
      expect(received.map((e) => `${e.name} ${e.attr('type')}`)).to.deep.equal(['iq result'])
      expect(seen(romeo.take())).to.have.members([
        'unavailable juliet@example.org/a',
        'unavailable juliet@example.org/b',
      ])
      // §4: the subscription stays, and no push tells otherwise
      expect((await wholeRoster(juliet)).elements.map((e) => e.attr('subscription'))).to.deep.equal(['both'])
      expect(chamber.take()).to.have.length(0)
      await command(juliet, 'unblock', jid)
      expect(seen(romeo.take())).to.have.members([
        'available juliet@example.org/a',
        'available juliet@example.org/b',
      ])
    })
  }

  it('XEP-0191 §3.3: while blocked a subscriber hears nothing: no broadcast, no probe answer, no end', async () => {
    await using host = await start()
    const juliet = await online(host, 'juliet@example.org/a')
    const romeo = await online(host, 'romeo@example.org/orchard')
    await befriend(juliet, romeo)
    await command(juliet, 'block', 'romeo@example.org')
    romeo.take()
    await juliet.send('<presence><show>away</show></presence>')
    expect(await romeo.send(`<presence to='juliet@example.org' type='probe'/>`)).to.have.length(0)
    const again = await host.client('romeo@example.org/b')
    expect(seen(await again.send('<presence/>'))).to.not.include('available juliet@example.org/a')
    romeo.take()
    await juliet.send(`<presence type='unavailable'/>`)
    await juliet.send('<presence/>')
    await juliet.drop()
    expect([...romeo.take(), ...again.take()]).to.have.length(0)
  })

  it('XEP-0191 §3.3: the account hears nothing either, also not at its next login', async () => {
    await using host = await start()
    const juliet = await online(host, 'juliet@example.org/a')
    const romeo = await online(host, 'romeo@example.org/orchard')
    await befriend(juliet, romeo)
    await romeo.send(`<presence to='nurse@example.org' type='subscribe'/>`)
    await command(juliet, 'block', 'romeo@example.org')
    await romeo.send('<presence><show>away</show></presence>')
    expect(juliet.take()).to.have.length(0)
    const chamber = await host.client('juliet@example.org/b')
    expect(seen(await chamber.send('<presence/>'))).to.not.include('available romeo@example.org/orchard')
    // §3.4: and what it has missed is asked for
    juliet.take()
    const received = await command(juliet, 'unblock', 'romeo@example.org')
    expect(seen([...received, ...juliet.take()])).to.include('available romeo@example.org/orchard')
  })

  it('XEP-0191 §3.3: whoever got directed presence is told too, whoever got none is not', async () => {
    await using host = await start()
    const juliet = await online(host, 'juliet@example.org/a')
    const romeo = await online(host, 'romeo@example.org/orchard')
    const nurse = await online(host, 'nurse@example.org/x')
    await juliet.send(`<presence to='romeo@example.org/orchard'/>`)
    romeo.take()
    await command(juliet, 'block', 'example.org')
    expect(seen(romeo.take())).to.deep.equal(['unavailable juliet@example.org/a'])
    await juliet.drop()
    expect([...romeo.take(), ...nurse.take()]).to.have.length(0)
  })

  it('XEP-0191 §3.3: a subscriber that also got directed presence is told once', async () => {
    await using host = await start()
    const juliet = await online(host, 'juliet@example.org/a')
    const romeo = await online(host, 'romeo@example.org/orchard')
    await befriend(juliet, romeo)
    await juliet.send(`<presence to='romeo@example.org/orchard'/>`)
    romeo.take()
    await command(juliet, 'block', 'romeo@example.org')
    expect(seen(romeo.take())).to.deep.equal(['unavailable juliet@example.org/a'])
  })

  it('XEP-0191 §3.3: removing a blocked contact tells him nothing', async () => {
    await using host = await start()
    const juliet = await online(host, 'juliet@example.org/a')
    const romeo = await online(host, 'romeo@example.org/orchard')
    await befriend(juliet, romeo)
    await command(juliet, 'block', 'romeo@example.org')
    romeo.take()
    const received = await setItem(juliet, `<item jid='romeo@example.org' subscription='remove'/>`)
    expect(items(received)).to.have.length(1)
    expect(romeo.take()).to.have.length(0)
  })

  it('XEP-0191 §3.3: requests that came before the block are not delivered any more', async () => {
    await using host = await start()
    const romeo = await online(host, 'romeo@example.org/orchard')
    await romeo.send(`<presence to='juliet@example.org' type='subscribe'/>`)
    const juliet = await host.client('juliet@example.org/a')
    await command(juliet, 'block', 'romeo@example.org')
    expect(seen(await juliet.send('<presence/>'))).to.not.include('subscribe romeo@example.org')
    await command(juliet, 'unblock', 'romeo@example.org')
    const other = await host.client('juliet@example.org/b')
    expect(seen(await other.send('<presence/>'))).to.include('subscribe romeo@example.org')
  })
})

describe('blocking: messages that were accepted before (XEP-0191 §3.3)', () => {
  const modules = [disco, roster, presence, offline, sm, blocking]

  it('what is kept of an address that is blocked meanwhile is not delivered, the rest is', async () => {
    await using host = await testHost({ modules, accounts: imAccounts })
    const romeo = await host.client('romeo@example.org/orchard')
    const nurse = await host.client('nurse@example.org/hall')
    await romeo.send(say('1'))
    await nurse.send(say('2'))
    const juliet = await host.client('juliet@example.org/a')
    await command(juliet, 'block', 'romeo@example.org')
    expect(bodies(await juliet.send('<presence/>'))).to.deep.equal(['2'])
    expect([romeo.take(), nurse.take()]).to.deep.equal([[], []])
    await command(juliet, 'unblock', 'romeo@example.org')
    await romeo.send(say('3'))
    expect(bodies(juliet.take())).to.deep.equal(['3'])
  })

  it('what a session leaves of such an address goes to no other', async () => {
    await using host = await testHost({ modules, accounts: imAccounts })
    const romeo = await host.client('romeo@example.org/orchard')
    const nurse = await host.client('nurse@example.org/hall')
    const phone = await host.client('juliet@example.org/phone')
    await phone.send("<enable xmlns='urn:xmpp:sm:3' resume='true' max='60'/>")
    await phone.send('<presence/>')
    await phone.drop()
    await host.clock.advance(1000)
    await romeo.send(say('1'))
    await nurse.send(say('2'))
    await host.clock.advance(1000)
    const juliet = await online(host, 'juliet@example.org/a')
    await command(juliet, 'block', 'romeo@example.org')
    await host.clock.advance(60_000)
    expect(bodies(juliet.take())).to.deep.equal(['2'])
  })

  it('an error that answers the account is delivered', async () => {
    await using host = await testHost({ modules, accounts: imAccounts })
    const juliet = await online(host, 'juliet@example.org/a')
    await command(juliet, 'block', 'romeo@example.org')
    const sent = "<message to='romeo@example.org' id='m' type='chat'><body>m</body></message>"
    expect((await juliet.send(sent)).map(condition)).to.deep.equal(['not-acceptable'])
  })
})

describe('blocking: matching', () => {
  const rows: readonly (readonly [entry: string, hit: readonly string[], miss: readonly string[]])[] = [
    ['a@b.example/c', ['a@b.example/c'], ['a@b.example', 'a@b.example/d', 'b.example', 'b.example/c']],
    ['a@b.example', ['a@b.example', 'a@b.example/c'], ['x@b.example', 'b.example']],
    ['b.example/c', ['b.example/c'], ['b.example', 'b.example/d', 'a@b.example/c', 'a@b.example']],
    [
      'b.example',
      ['b.example', 'b.example/c', 'a@b.example', 'a@b.example/c'],
      ['x.b.example', 'a@x.b.example'],
    ],
  ]
  for (const [entry, hit, miss] of rows) {
    it(`XEP-0191 §6: ${entry}`, () => {
      const list = new BlockList(new Set([entry]))
      for (const jid of hit) expect(list.matches(parseJid(jid)), jid).to.equal(true)
      for (const jid of miss) expect(list.matches(parseJid(jid)), jid).to.equal(false)
    })
  }
})

describe('blocking: memory', () => {
  it('the list of an account that is online is answered at once, for everybody without blocks by one shared object', async () => {
    await using host = await start()
    const juliet = await host.client('juliet@example.org/a')
    const service = host.service('blocking')
    expect(service.blocks('juliet', parseJid('x@y.example'))).to.equal(false)
    await command(juliet, 'block', 'y.example')
    expect(service.blocks('juliet', parseJid('x@y.example'))).to.equal(true)
    await juliet.close()
    expect(await service.blocks('juliet', parseJid('x@y.example'))).to.equal(true)
    expect(await service.blocks('nurse', parseJid('x@y.example'))).to.equal(false)
    expect(NOBODY.matches(parseJid('x@y.example'))).to.equal(false)
  })

  it('lists of accounts that are offline leave memory', async () => {
    await using host = await start()
    const docs = host.store.open('example.org', 'other').docs<{ readonly jids: readonly string[] }>('blocked')
    let reads = 0
    const counted = new Proxy(docs, {
      get(target, key) {
        if (key === 'get') reads++
        const value: unknown = Reflect.get(target, key)
        return typeof value === 'function' ? value.bind(target) : value
      },
    })
    const lists = new BlockLists({ storage: { docs: () => counted }, sessions: host.host } as unknown as Ctx)
    for (let i = 0; i < 25_000; i++) await lists.of(`u${i}`)
    expect(reads).to.equal(25_000)
    await lists.of('u24999')
    expect(reads).to.equal(25_000)
    await lists.of('u0')
    expect(reads).to.equal(25_001)
  })

  it('a list that is read while it changes does not come back old', async () => {
    await using host = await start()
    const reading = Promise.withResolvers<{ readonly jids: readonly string[] } | undefined>()
    const docs = {
      get: () => reading.promise,
      update: async (_owner: string, _key: string, edit: (old: undefined) => unknown) => edit(undefined),
    }
    const lists = new BlockLists({ storage: { docs: () => docs }, sessions: host.host } as unknown as Ctx)
    const early = lists.of('juliet')
    await lists.change(
      'juliet',
      () => new Set(['y.example']),
      () => undefined,
    )
    reading.resolve(undefined)
    await early
    expect([...(await lists.of('juliet')).jids]).to.deep.equal(['y.example'])
  })

  it('presence for an account that is offline costs no reading', async () => {
    const store = await openMemory()
    let reads = 0
    const { open } = store
    const counted = (docs: object): object =>
      new Proxy(docs, {
        get(target, key) {
          if (key === 'get') reads++
          const value: unknown = Reflect.get(target, key)
          return typeof value === 'function' ? value.bind(target) : value
        },
      })
    const counting: Store = {
      ...store,
      open: (name, module) => {
        const storage = open(name, module)
        if (module !== 'blocking') return storage
        return { ...storage, docs: (collection) => counted(storage.docs(collection)) as never }
      },
    }
    await using host = await testHost({
      modules: [roster, presence, blocking],
      accounts: imAccounts,
      store: counting,
    })
    for (const type of ['', ` type='unavailable'`])
      await fromRemote(host, `<presence from='x@example.net' to='juliet@example.org'${type}/>`)
    expect(reads).to.equal(0)
    await fromRemote(host, `<presence from='x@example.net' to='juliet@example.org' type='subscribe'/>`)
    expect(reads).to.equal(1)
  })

  it('what a removed account blocked while its sessions were still there is nothing to the next one of its name', async () => {
    await using host = await testHost({ modules: [disco, roster, presence, blocking], accounts: imAccounts })
    const gate = Promise.withResolvers<void>()
    const slow = defineModule({
      name: 'slow',
      summary: 'forgets an account in its time',
      specs: [],
      setup: (ctx) => ctx.hook('account:deleted', { phase: 'observe' }, () => gate.promise),
    })
    await host.load(slow)
    await command(await online(host, 'juliet@example.org/a'), 'block', 'romeo@example.org')
    const romeo = await host.client('romeo@example.org/orchard')
    const over = host.host.deleteAccount('juliet')
    await host.settle()
    await romeo.send(say('1'))
    gate.resolve()
    await over
    await host.service('auth').create('juliet', 'another')
    const next = await online(host, 'juliet@example.org/b')
    await romeo.send(say('2'))
    expect(bodies(next.take())).to.deep.equal(['2'])
    await command(next, 'block', 'romeo@example.org')
    await romeo.send(say('3'))
    await host.clock.advance(60_000)
    await romeo.send(say('4'))
    expect(bodies(next.take())).to.deep.equal([])
  })

  it('a deleted account leaves nothing behind, and its successor of the same name has blocked nobody', async () => {
    await using host = await start()
    const juliet = await host.client('juliet@example.org/a')
    await command(juliet, 'block', 'romeo@example.org')
    await host.host.deleteAccount('juliet')
    await host.settle()
    expect(await host.store.purgeOwner('example.org', 'juliet')).to.equal(0)
    await host.service('auth').create('juliet', 'x')
    await host.client('juliet@example.org/a')
    expect(host.service('blocking').blocks('juliet', parseJid('romeo@example.org'))).to.equal(false)
  })
})

describe('blocking: reports', () => {
  async function report(xml: string): Promise<readonly [readonly AbuseReport[], string[], object[]]> {
    const reports: AbuseReport[] = []
    const logged: object[] = []
    const desk = defineModule({
      name: 'desk',
      summary: 'test',
      specs: [],
      setup: (ctx) => ctx.hook('abuse:report', { phase: 'observe' }, (e) => void reports.push(e)),
    })
    await using host = await testHost({
      modules: [roster, presence, blocking, desk],
      accounts: imAccounts,
      onLog: (level, message, fields) =>
        void (message === 'abuse reported' && logged.push({ level, ...fields })),
    })
    const juliet = await host.client('juliet@example.org/a')
    const received = await juliet.send(
      `<iq type='set' id='c'><block xmlns='${NS.BLOCKING}'><item jid='spam@example.net'>${xml}</item></block></iq>`,
    )
    expect(host.service('blocking').blocks('juliet', parseJid('spam@example.net'))).to.equal(true)
    return [reports, received.map((e) => e.attr('type') ?? ''), logged]
  }

  it('XEP-0377 §6: a report reaches the modules that care, with what it says', async () => {
    const [reports, answers] = await report(
      `<report xmlns='urn:xmpp:reporting:1' reason='urn:xmpp:reporting:spam'><stanza-id xmlns='urn:xmpp:sid:0' by='spam@example.net' id='28482'/><text xml:lang='en'>  Never came trouble.
      </text><report-origin/></report>`,
    )
    expect(answers).to.deep.equal(['result'])
    expect(
      reports.map((r) => ({ ...r, account: r.account.toString(), jid: r.jid.toString() })),
    ).to.deep.equal([
      {
        account: 'juliet@example.org',
        jid: 'spam@example.net',
        reason: 'urn:xmpp:reporting:spam',
        text: 'Never came trouble.',
        stanzaIds: [{ by: 'spam@example.net', id: '28482' }],
        toOrigin: true,
        toThirdParties: false,
      },
    ])
  })

  it('the log has who and why, not what the user wrote', async () => {
    const [, , logged] = await report(
      `<report xmlns='urn:xmpp:reporting:1' reason='urn:xmpp:reporting:abuse'><text>secret</text></report>`,
    )
    expect(logged).to.have.length(1)
    expect(JSON.stringify(logged)).to.include('urn:xmpp:reporting:abuse').and.not.include('secret')
  })

  it('XEP-0377 §4, §6: a report without a reason is no report; the block holds as without it', async () => {
    const [reports, answers] = await report(`<report xmlns='urn:xmpp:reporting:1'/>`)
    expect([reports, answers]).to.deep.equal([[], ['result']])
  })
})
