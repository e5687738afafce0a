/** Things that happen at the same time: bindings, roster changes, removals and logins of one account. */
import { expect } from 'chai'
import { Client } from '../helpers/client.ts'
import { startServer, type TestServer } from '../helpers/server.ts'
import { inParallel, names } from './stage.ts'

const modules = {
  starttls: { required: false },
  sasl: { requireTls: false, plainInClear: true },
  accounts: { iterations: 4096 },
  'auth-limits': { perAddress: 100_000, perAccount: 100_000 },
}
const limits = { connectionsPerAddress: 100_000, newConnectionsPerMinute: 100_000 }

const start = async (...users: string[]): Promise<TestServer> => {
  const server = await startServer({ modules, config: { limits } })
  for (const user of users) await server.addUser(user, 'secret')
  return server
}

async function login(
  server: TestServer,
  local: string,
  resource?: string,
  password = 'secret',
): Promise<Client> {
  const client = await Client.connect(server, 'tcp', `${local}/${resource ?? ''}`)
  client.timeoutMs = 15_000
  await client.authenticate(local, password, 'PLAIN')
  if (resource !== undefined) await client.bind(resource)
  return client
}

const closed = (client: Client): boolean => client.inbox.some(({ kind }) => kind === 'closed')
const errors = (client: Client): string[] =>
  client.inbox.flatMap((item) =>
    item.kind === 'element' && item.el.getName() === 'error'
      ? [item.el.getChildElements()[0]?.getName() ?? '']
      : [],
  )

describe('at the same time', function () {
  this.timeout(30_000)

  it('20 connections bind the same resource: one is left, the others get conflict (RFC 6120 §7.7.2.2)', async () => {
    await using server = await start('romeo', 'juliet')
    const clients = await inParallel(names('', 20), 20, () => login(server, 'romeo'))
    for (const client of clients) {
      client.sendStanza(
        `<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>r</resource></bind></iq><presence/>`,
      )
    }
    const open = (): Client[] => clients.filter((client) => !closed(client))
    const juliet = await login(server, 'juliet', 'r')
    // each ping is a round trip; conflicts come without delay
    for (let i = 0; i < 1000 && open().length > 1; i++) await juliet.ping()
    expect(open()).to.have.length(1)
    for (const client of clients) if (closed(client)) expect(errors(client)).to.deep.equal(['conflict'])
    const host = server.server.hosts.get('localhost')
    expect(host?.of('romeo')).to.have.length(1)
    const [last] = open()
    juliet.sendStanza(`<message to='romeo@localhost/r' id='hi'><body>hi</body></message>`)
    await last?.eventually(`<message id='hi' etc=''>...</message>`)
    for (const client of [...clients, juliet]) client.drop()
  })

  it('two devices change the roster: both end with the same, each change is pushed to both in one order (RFC 6121 §2.1.6)', async () => {
    await using server = await start('romeo')
    const [one, two] = [await login(server, 'romeo', 'one'), await login(server, 'romeo', 'two')]
    for (const client of [one, two]) await client.roster()
    const set = (client: Client, id: string, jid: string, name: string): void =>
      client.sendStanza(
        `<iq type='set' id='${id}'><query xmlns='jabber:iq:roster'><item jid='${jid}' name='${name}'/></query></iq>`,
      )
    for (let i = 0; i < 100; i++) {
      set(one, `s${i}`, `c${i % 10}@x.example`, `one ${i}`)
      set(two, `s${i}`, `c${i % 10}@x.example`, `two ${i}`)
    }
    const pushes = (client: Client): string[] =>
      client.inbox.flatMap((item) => {
        const query =
          item.kind === 'element' && item.el.attrs['type'] === 'set'
            ? item.el.getChild('query', 'jabber:iq:roster')
            : undefined
        const entry = query?.getChild('item')
        return entry === undefined
          ? []
          : [`${query?.attrs['ver']} ${entry.attrs['jid']} ${entry.attrs['name']}`]
      })
    const results = (client: Client): number =>
      client.inbox.filter((item) => item.kind === 'element' && item.el.attrs['type'] === 'result').length
    for (const client of [one, two])
      await client.until(
        () => pushes(client).length === 200 && results(client) === 100,
        'all pushes and results',
      )
    expect(pushes(one)).to.deep.equal(pushes(two))
    const last = new Map(pushes(one).map((push) => [push.split(' ')[1], push.split(' ').slice(2).join(' ')]))
    for (const client of [one, two]) {
      client.clear()
      const items = (await client.roster()).getChildren('item')
      expect(
        new Map(items.map((item) => [String(item.attrs['jid']), String(item.attrs['name'])])),
      ).to.deep.equal(last)
    }
    for (const client of [one, two]) client.drop()
  })

  it('an account is removed while it is used and written to: its streams end, nothing of it stays, the others go on', async () => {
    await using server = await start('romeo', 'juliet', 'nurse')
    const host = server.server.hosts.get('localhost')
    const romeos = await inParallel(names('r', 5), 5, (name) => login(server, 'romeo', name))
    const waiting = await login(server, 'romeo') // authenticated, binds after the removal
    const juliet = await login(server, 'juliet', 'r')
    const nurse = await login(server, 'nurse', 'r')
    for (const client of romeos) client.sendStanza('<presence/>')
    let on = true
    const writing = (async () => {
      for (let i = 0; on; i++) {
        juliet.sendStanza(`<message to='romeo@localhost' type='chat' id='m${i}'><body>x</body></message>`)
        romeos[i % 5]?.sendStanza(
          `<iq type='set' id='s${i}'><query xmlns='jabber:iq:roster'><item jid='c${i}@x.example'/></query></iq>`,
        )
        romeos[i % 5]?.sendStanza(`<presence type='subscribe' to='juliet@localhost'/>`)
        await juliet.ping()
        juliet.clear()
      }
    })()
    await romeos[0]?.ping()
    await host?.deleteAccount('romeo')
    await Promise.all(romeos.map((client) => client.until(() => closed(client), 'the end')))
    waiting.sendStanza(`<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>`)
    await waiting.until(() => closed(waiting), 'the end of a stream of an account that is gone')
    on = false
    await writing
    expect(host?.of('romeo')).to.have.length(0)
    juliet.clear()
    juliet.sendStanza(`<message to='romeo@localhost' type='chat' id='late'><body>x</body></message>`)
    await juliet.ping()
    const again = await login(server, 'romeo', 'r').catch(() => undefined)
    expect(again, 'a login').to.equal(undefined)
    await server.addUser('romeo', 'other')
    const heir = await login(server, 'romeo', 'r', 'other')
    expect((await heir.roster()).getChildren('item')).to.have.length(0)
    await nurse.ping()
    for (const client of [...romeos, waiting, juliet, nurse, heir]) client.drop()
  })

  it('passwords change while clients log in: each login is right by one of them, and afterwards only the last one is', async () => {
    await using server = await start('romeo')
    const auth = server.server.hosts.get('localhost')?.service('auth')
    const passwords = ['secret', 'secret1', 'secret2', 'secret3']
    const outcomes: string[] = []
    const tries = inParallel(names('t', 40), 8, async (name) => {
      const i = Number(name.slice(1))
      const mechanism = i % 2 === 0 ? 'SCRAM-SHA-256' : 'PLAIN'
      const client = await Client.connect(server, 'tcp', name)
      client.timeoutMs = 15_000
      try {
        await client.authenticate('romeo', passwords[i % 4] ?? '', mechanism)
        outcomes.push('success')
      } catch (error) {
        // RFC 6120 §6.5.3: it was right when the exchange began
        if (!/not-authorized|credentials-expired/.test(String(error))) throw error
        outcomes.push('failure')
      } finally {
        client.drop()
      }
    })
    for (const password of passwords.slice(1)) await auth?.setPassword('romeo', password)
    await tries
    expect(outcomes).to.have.length(40)
    for (const password of passwords) {
      const client = await Client.connect(server, 'tcp', 'after')
      const right = await client.authenticate('romeo', password, 'SCRAM-SHA-1').then(
        () => true,
        () => false,
      )
      expect(right, password).to.equal(password === 'secret3')
      client.drop()
    }
  })
})
