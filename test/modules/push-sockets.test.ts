/** XEP-0357 over real sockets: a client, an app server that is an external component (XEP-0114), jobs in this process and in Redis. */
import { expect } from 'chai'
import { openMemory } from '../../server/storage/memory.ts'
import { Client } from '../helpers/client.ts'
import { ComponentClient } from '../helpers/component-client.ts'
import { NS_PUSH, SECRET } from '../helpers/push.ts'
import { type RedisServer, startRedis } from '../helpers/redis.ts'
import { startServer, type TestServer, type TestServerOptions } from '../helpers/server.ts'

const APP = 'c1.localhost'
const PASSWORD = 'a good password'

async function started(options: TestServerOptions = {}): Promise<TestServer> {
  const server = await startServer({ components: true, ...options })
  for (const local of ['romeo', 'juliet'])
    if ((await server.server.hosts.get('localhost')?.service('auth')?.exists(local)) !== true)
      await server.addUser(local, PASSWORD)
  return server
}
async function login(server: TestServer, local: string): Promise<Client> {
  const client = await Client.connect(server, 'tcp', local)
  await client.authenticate(local, PASSWORD)
  await client.bind('phone')
  return client
}
async function appServer(server: TestServer): Promise<ComponentClient> {
  const app = await ComponentClient.connect(server, 'tcp')
  await app.serve(APP)
  return app
}
/** Romeo's phone enables and goes. */
async function enabled(server: TestServer): Promise<void> {
  const romeo = await login(server, 'romeo')
  romeo.send(
    `<iq type='set' id='e'><enable xmlns='${NS_PUSH}' jid='${APP}' node='n1'>${SECRET}</enable></iq>`,
  )
  await romeo.expect("<iq type='result' id='e' to='romeo@localhost/phone'/>")
  romeo.closeStream()
  await romeo.expectEnd()
  romeo.drop()
}
/** The next request to publish; its id. */
async function published(app: ComponentClient, count: number): Promise<string> {
  const iq = await app.nextElement('a notification')
  expect([iq.attrs['from'], iq.attrs['to'], iq.attrs['type']]).to.deep.equal(['localhost', APP, 'set'])
  const publish = iq.getChild('pubsub')?.getChild('publish')
  expect(publish?.attrs['node']).to.equal('n1')
  const form = publish?.getChild('item')?.getChild('notification', NS_PUSH)?.getChild('x')
  const field = form?.getChildren('field').find((one) => one.attrs['var'] === 'message-count')
  expect(field?.getChildText('value')).to.equal(String(count))
  expect(iq.getChild('pubsub')?.getChild('publish-options')?.toString()).to.contain('eruio234vzxc2kla-91')
  return String(iq.attrs['id'])
}
const result = (id: string): string => `<iq type='result' id='${id}' from='${APP}' to='localhost'/>`
const refusal = (id: string): string =>
  `<iq type='error' id='${id}' from='${APP}' to='localhost'><error type='cancel'>` +
  "<item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"

describe('push: sockets (XEP-0357)', function () {
  this.timeout(30_000)

  it('a component is told of a message, and what it refuses is told no more', async () => {
    await using server = await started({ modules: { push: { interval: '0s' } } })
    const app = await appServer(server)
    await enabled(server)
    const juliet = await login(server, 'juliet')
    const say = (): void => juliet.send("<message to='romeo@localhost' type='chat'><body>x</body></message>")
    say()
    app.send(result(await published(app, 1)))
    say()
    app.send(refusal(await published(app, 2)))
    await juliet.ping()
    app.send(`<message from='${APP}' to='${juliet.jid}' id='barrier'/>`)
    await juliet.eventually(`<message from='${APP}' to='${juliet.jid}' id='barrier'/>`)
    say()
    await app.reach(juliet)
    expect(app.inbox.length).to.equal(0)
    for (const client of [juliet, app]) client.drop()
  })

  it('a component that is not there when the message comes is told when it is', async () => {
    await using server = await started()
    await enabled(server)
    const juliet = await login(server, 'juliet')
    juliet.send("<message to='romeo@localhost' type='chat'><body>x</body></message>")
    await juliet.ping()
    const app = await appServer(server)
    app.send(result(await published(app, 1)))
    for (const client of [juliet, app]) client.drop()
  })

  describe('with jobs in redis', () => {
    let redis: RedisServer
    before('start redis', async function () {
      const server = await startRedis()
      if ('skipped' in server) {
        console.log(`      not run: ${server.skipped}`)
        this.skip()
      }
      redis = server
    })
    after('stop redis', () => redis?.[Symbol.asyncDispose]())

    it('a component is told; what is due when the server ends is told by the next', async () => {
      const store = await openMemory()
      // the store is given, so that the one of the configuration is not opened
      const options: TestServerOptions = {
        store,
        modules: { push: { interval: '1s' } },
        config: { storage: { driver: 'mongodb', url: 'mongodb://127.0.0.1:1/' }, redis: { url: redis.url } },
      }
      {
        await using server = await started(options)
        const app = await appServer(server)
        await enabled(server)
        const juliet = await login(server, 'juliet')
        juliet.send("<message to='romeo@localhost' type='chat'><body>one</body></message>")
        app.send(result(await published(app, 1)))
        app.drop()
        juliet.send("<message to='romeo@localhost' type='chat'><body>two</body></message>")
        await juliet.ping()
        juliet.drop()
      }
      {
        await using server = await started(options)
        const app = await appServer(server)
        app.send(result(await published(app, 2)))
        app.drop()
      }
      await store.close()
    })
  })
})
