/** The database is killed under a running server with clients that are logged in: they stay, are told, and go on when it is back. */
import { expect } from 'chai'
import { randomBytes } from 'node:crypto'
import type { Log } from '../../server/module.ts'
import { openMongodb } from '../../server/storage/mongodb.ts'
import { Client } from '../helpers/client.ts'
import { mongoOfSuite } from '../helpers/mongodb.ts'
import { startServer } from '../helpers/server.ts'

describe('the database is killed', function () {
  this.timeout(60_000)
  const mongo = mongoOfSuite()

  it('sessions live; what needs it is refused within 10 s; after its return all works in the same sessions, nothing acknowledged is lost', async () => {
    const store = await openMongodb({
      url: mongo().url,
      database: `hermod-test-${randomBytes(6).toString('hex')}`,
      timeoutMs: 1500,
    })
    await using _closing = { [Symbol.asyncDispose]: () => store.close() }
    const errors: string[] = []
    const drop = (): void => undefined
    const log: Log = { debug: drop, info: drop, warn: drop, error: (message) => void errors.push(message) }
    await using server = await startServer({
      store,
      log,
      modules: {
        starttls: { required: false },
        sasl: { requireTls: false, plainInClear: true },
        accounts: { iterations: 4096 },
      },
    })
    const login = async (local: string, resource: string): Promise<Client> => {
      const client = await Client.connect(server, 'tcp', `${local}/${resource}`)
      client.timeoutMs = 20_000
      await client.authenticate(local, 'secret', 'PLAIN')
      await client.bind(resource)
      return client
    }
    for (const user of ['romeo', 'juliet', 'nurse']) await server.addUser(user, 'secret')
    const romeo = await login('romeo', 'r')
    const juliet = await login('juliet', 'r')
    await romeo.goOnline()
    await juliet.goOnline()
    const set = (id: string): void =>
      romeo.sendStanza(
        `<iq type='set' id='${id}'><query xmlns='jabber:iq:roster'><item jid='${id}@x.example'/></query></iq>`,
      )
    set('before')
    await romeo.eventually(`<iq id='before' type='result' etc=''/>`)

    await mongo().kill()
    const began = performance.now()
    set('during')
    await romeo.eventually(`<iq id='during' type='error' etc=''>...</iq>`)
    romeo.sendStanza(`<message id='away' to='nurse@localhost' type='chat'><body>x</body></message>`)
    await romeo.eventually(`<message id='away' type='error' etc=''>...</message>`)
    expect(performance.now() - began, 'milliseconds until both were refused').to.be.below(12_000)
    // what needs no store goes on
    await juliet.ping()
    juliet.sendStanza(`<message id='headline' to='${romeo.jid}' type='headline'><body>x</body></message>`)
    await romeo.eventually(`<message id='headline' etc=''>...</message>`)
    const late = await Client.connect(server, 'tcp', 'late')
    late.timeoutMs = 20_000
    await late.openStream()
    late.sendAuth('PLAIN', '\0nurse\0secret')
    await late.expect(
      `<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><temporary-auth-failure/>...</failure>`,
    )

    await mongo().restart()
    // the driver finds it by itself
    let back = false
    for (let i = 0; i < 60 && !back; i++) {
      set(`after${i}`)
      const answer = await romeo.eventually(`<iq id='after${i}' type='(result|error)' etc=''>...</iq>`)
      back = answer.attrs['type'] === 'result'
    }
    expect(back, 'the server works again').to.equal(true)
    await late.authenticate('nurse', 'secret', 'PLAIN')
    await late.bind('r')
    const items = (await romeo.roster()).getChildren('item').map((item) => item.attrs['jid'])
    expect(items).to.include('before@x.example')
    romeo.sendStanza(`<message id='chat' to='juliet@localhost' type='chat'><body>x</body></message>`)
    await juliet.eventually(`<message id='chat' etc=''>...</message>`)
    for (const client of [romeo, juliet, late]) client.drop()
    expect(errors, 'the operator is told').not.to.have.length(0)
  })
})
