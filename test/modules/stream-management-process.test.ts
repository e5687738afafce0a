/** XEP-0198 §5 with the program itself: what clients find after SIGTERM and after kill -9, with the embedded store. */
import { expect } from 'chai'
import { after, before } from 'mocha'
import { Client } from '../helpers/client.ts'
import { type CommandFolder, commandFolder, type RunningCommand } from '../helpers/command.ts'
import { NS_SM } from '../helpers/stream-counts.ts'
import type { Element } from '../helpers/xml.ts'

const DOMAIN = 'example.org'
const PASSWORD = 'secret'
const SHUTDOWN = '<stream:error><system-shutdown/>...</stream:error>'

async function withAccounts(): Promise<CommandFolder> {
  const folder = await commandFolder()
  await folder.configure()
  for (const local of ['romeo', 'juliet'])
    await folder.run(['user', 'add', `${local}@${DOMAIN}`], { input: `${PASSWORD}\n` })
  return folder
}
async function authenticated(server: RunningCommand, local: string): Promise<Client> {
  const client = await Client.connect({ domain: DOMAIN, ports: server.ports }, 'tcp', local)
  client.timeoutMs = 15_000
  await client.authenticate(local, PASSWORD)
  return client
}
async function online(server: RunningCommand, local: string, resource: string): Promise<Client> {
  const client = await authenticated(server, local)
  await client.bind(resource)
  await client.goOnline()
  return client
}
async function managed(server: RunningCommand, local: string): Promise<Client> {
  const client = await online(server, local, 'one')
  client.send(`<enable xmlns='${NS_SM}' resume='true'/>`)
  await client.expect(`<enabled xmlns='${NS_SM}' id='*' resume='true' etc=''/>`)
  return client
}
const message = (to: string, id: string): string =>
  `<message to='${to}' type='chat' id='${id}'><body>${id}</body><origin-id xmlns='urn:xmpp:sid:0' id='${id}'/></message>`
/** The answer to a request to go on with the session that `before` had. */
async function resume(client: Client, before: Client): Promise<Element> {
  client.send(
    `<resume xmlns='${NS_SM}' previd='${before.counts?.id ?? ''}' h='${before.counts?.received ?? 0}'/>`,
  )
  return await client.expect(`<failed xmlns='${NS_SM}' h='?'><_/></failed>`)
}
/** Ids of the messages that came, after a round trip. */
async function messages(client: Client): Promise<string[]> {
  await client.ping()
  const found = client.inbox.flatMap((item) =>
    item.kind === 'element' && item.el.is('message') ? [item.el.attrs['id'] ?? ''] : [],
  )
  client.clear()
  return found
}
async function archive(client: Client): Promise<string[]> {
  client.clear()
  client.send("<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'/></iq>")
  await client.until(
    () => client.inbox.some((i) => i.kind === 'element' && i.el.attrs['id'] === 'q'),
    'the archive',
  )
  const found = client.inbox.flatMap((item) =>
    item.kind !== 'element'
      ? []
      : (item.el
          .getChild('result', 'urn:xmpp:mam:2')
          ?.getChild('forwarded', 'urn:xmpp:forward:0')
          ?.getChild('message', 'jabber:client')?.attrs['id'] ?? []),
  )
  client.clear()
  return found
}

describe('stream management: the program ends, XEP-0198 §5', function () {
  this.timeout(60_000)
  let folder: CommandFolder
  before(async () => {
    folder = await withAccounts()
  })
  after(() => folder[Symbol.asyncDispose]())

  it('SIGTERM, one client there and one away: both learn what was handled, and get what they had not confirmed, once', async () => {
    const server = await folder.start()
    const romeo = await managed(server, 'romeo')
    const juliet = await managed(server, 'juliet')
    juliet.send(message(romeo.jid, 'j1'))
    await romeo.expect("<message id='j1' etc=''>...</message>")
    romeo.send(message(juliet.jid, 'r1') + message(juliet.jid, 'r2'))
    await juliet.eventually("<message id='r2' etc=''>...</message>")
    for (const client of [romeo, juliet]) {
      await client.ping()
      client.send(`<a xmlns='${NS_SM}' h='${client.counts?.received}'/>`)
    }
    juliet.send(message(romeo.jid, 'j2') + message(romeo.jid, 'j3'))
    await romeo.eventually("<message id='j3' etc=''>...</message>")
    juliet.drop()
    romeo.send(message(juliet.jid, 'r3'))
    await romeo.ping()

    server.signal('SIGTERM')
    await romeo.eventually(SHUTDOWN)
    romeo.drop()
    expect((await server.done).code).to.equal(0)

    const again = await folder.start()
    for (const [before, handled, missed] of [
      // what each had sent: three messages, and pings
      [romeo, '5', ['j2', 'j3']],
      [juliet, '4', ['r3']],
    ] as const) {
      const late = await authenticated(again, before.name)
      expect((await resume(late, before)).attrs['h']).to.equal(handled)
      await late.bind('one')
      await late.goOnline()
      expect(await messages(late)).to.deep.equal(missed)
      const other = await online(again, before.name, 'other')
      expect(await messages(other)).to.deep.equal([])
      expect(await archive(other)).to.have.members(['j1', 'r1', 'r2', 'j2', 'j3', 'r3'])
      late.drop()
      other.drop()
    }
    await again[Symbol.asyncDispose]()
  })

  it('kill -9: nothing is known of the session; what was acknowledged is there, what is sent again is so once', async () => {
    const server = await folder.start()
    const romeo = await managed(server, 'romeo')
    const to = `juliet@${DOMAIN}`
    romeo.send(`${message(to, 'k1')}${message(to, 'k2')}<r xmlns='${NS_SM}'/>`)
    await romeo.expect(`<a xmlns='${NS_SM}' h='2'/>`)
    server.signal('SIGKILL')
    await server.done
    await romeo.expectClosed()

    const again = await folder.start()
    const late = await authenticated(again, 'romeo')
    expect((await resume(late, romeo)).attrs['h']).to.equal(undefined)
    await late.bind('orchard')
    await late.goOnline()
    // not knowing what has arrived the client sends all of it again
    late.send(['k1', 'k2', 'k3'].map((id) => message(to, id)).join(''))
    await late.ping()
    const juliet = await online(again, 'juliet', 'balcony')
    expect(await messages(juliet)).to.deep.equal(['k1', 'k2', 'k3'])
    for (const client of [late, juliet])
      expect((await archive(client)).filter((id) => id.startsWith('k'))).to.deep.equal(['k1', 'k2', 'k3'])
    for (const client of [late, juliet]) client.drop()
    await again[Symbol.asyncDispose]()
  })
})
