/** A whole server: what listens, what is shared by its hosts, how it starts, reloads and stops. */
import { createServer, type AddressInfo } from 'node:net'
import { expect } from 'chai'
import { findModules } from '../../server/catalog.ts'
import { type Config, parseConfigText } from '../../server/config.ts'
import { openMemory } from '../../server/storage/memory.ts'
import { Client } from '../helpers/client.ts'
import type { Via } from '../helpers/connection.ts'
import { startServer, type TestServer } from '../helpers/server.ts'
import { recordingLog } from '../helpers/sink.ts'

async function login(server: TestServer, local: string, via: Via = 'tcp'): Promise<Client> {
  const client = await Client.connect(server, via, local)
  await client.authenticate(local, 'secret')
  await client.bind('test')
  return client
}

/** The configuration that a running server would read, with other modules. */
async function configOf(server: TestServer, modules: object, limits: object = {}): Promise<Config> {
  const raw = {
    hosts: [server.domain],
    tls: { folder: `${server.folder}/certs` },
    storage: { driver: 'memory' },
    modules,
    limits,
  }
  return parseConfigText(JSON.stringify(raw), await findModules(), 'test')
}

describe('server', function () {
  this.timeout(30_000) // keys of certificates and passwords are made

  for (const via of ['tcp', 'tls', 'websocket'] as const)
    it(`clients log in over ${via}`, async () => {
      await using server = await startServer()
      await server.addUser('romeo', 'secret')
      const romeo = await login(server, 'romeo', via)
      expect(romeo.jid).to.equal('romeo@localhost/test')
      await romeo.ping()
    })

  it('sessions of all transports are one account’s', async () => {
    await using server = await startServer()
    await server.addUser('romeo', 'secret')
    await server.addUser('juliet', 'secret')
    const romeo = await login(server, 'romeo', 'websocket')
    const juliet = await login(server, 'juliet', 'tls')
    await juliet.goOnline()
    romeo.sendStanza("<message to='juliet@localhost' type='chat' id='m1'><body>hi</body></message>")
    const got = await juliet.eventually("<message id='m1' etc=''>...</message>")
    expect(got.attrs['from']).to.equal('romeo@localhost/test')
  })

  it('hosts have accounts of their own, and stanzas pass between them', async () => {
    await using server = await startServer({ domain: 'one.example', otherDomains: ['two.example'] })
    await server.addUser('romeo', 'secret')
    await server.server.hosts.get('two.example')?.service('auth')?.create('romeo', 'other')
    const here = await login(server, 'romeo')
    const there = await Client.connect({ domain: 'two.example', ports: server.ports }, 'tls', 'there')
    await there.openStream()
    await there.authenticate('romeo', 'other')
    await there.bind('test')
    await there.goOnline()
    here.sendStanza("<message to='romeo@two.example' type='chat' id='m1'><body>hi</body></message>")
    expect((await there.eventually("<message id='m1' etc=''>...</message>")).attrs['from']).to.equal(
      'romeo@one.example/test',
    )
  })

  it('counts streams and sessions in its metrics', async () => {
    await using server = await startServer()
    await server.addUser('romeo', 'secret')
    await login(server, 'romeo')
    const metrics = await server.server.telemetry.registry.metrics()
    expect(metrics).to.match(/^hermod_core_streams\{host=""\} 1$/m)
    expect(metrics).to.match(/^hermod_core_sessions\{host="localhost"\} 1$/m)
  })

  it('stops once, however often it is told, and ends its streams (RFC 6120 §4.9.3.20)', async () => {
    await using server = await startServer()
    await server.addUser('romeo', 'secret')
    const romeo = await login(server, 'romeo')
    const stopped = server.server.stop()
    expect(server.server.stop()).to.equal(stopped)
    await romeo.expectStreamError(['system-shutdown'])
    await stopped
    const refused = await Client.connect(server).then(
      () => 'connected',
      () => 'refused',
    )
    expect(refused).to.equal('refused')
  })

  it('gives up what it has started when a part cannot start: the same store works afterwards', async () => {
    const store = await openMemory()
    const blocker = createServer()
    await new Promise<void>((resolve) => blocker.listen(0, '127.0.0.1', resolve))
    const { port } = blocker.address() as AddressInfo
    const listen = { clientTls: [{ port }] }
    const failure = await startServer({ store, config: { listen } }).then(
      () => 'started',
      (error: Error) => error.message,
    )
    expect(failure).to.equal(`cannot listen on 127.0.0.1:${port}: another program uses this port`)
    await new Promise((resolve) => blocker.close(resolve))
    {
      await using server = await startServer({ store, config: { listen } })
      expect(server.ports.c2sTls).to.equal(port)
      await server.addUser('romeo', 'secret')
      await login(server, 'romeo')
    }
    await store.close()
  })

  it('reload turns modules on and off and changes options, and keeps streams', async () => {
    const log = recordingLog()
    await using server = await startServer({ log, modules: { ping: false } })
    await server.addUser('romeo', 'secret')
    const romeo = await login(server, 'romeo')
    const ask = async (id: string, ns: string, name: string): Promise<string> => {
      romeo.sendStanza(`<iq type='get' id='${id}' to='localhost'><${name} xmlns='${ns}'/></iq>`)
      return (await romeo.eventually(`<iq id='${id}' etc=''>...</iq>`)).attrs['type'] ?? ''
    }
    expect(await ask('a', 'urn:xmpp:ping', 'ping')).to.equal('error')
    expect(await ask('b', 'jabber:iq:version', 'query')).to.equal('result')
    await server.server.reload(await configOf(server, { version: false }))
    expect(await ask('c', 'urn:xmpp:ping', 'ping')).to.equal('result')
    expect(await ask('d', 'jabber:iq:version', 'query')).to.equal('error')
    romeo.sendStanza(
      "<iq type='get' id='e' to='localhost'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>",
    )
    const info = (await romeo.eventually("<iq id='e' etc=''>...</iq>")).toString()
    expect(info).to.contain('urn:xmpp:ping')
    expect(info).not.to.contain('jabber:iq:version')
  })

  it('reload gives new streams new limits', async () => {
    await using server = await startServer({ log: recordingLog() })
    await server.server.reload(await configOf(server, {}, { stanzaBytesBeforeLogin: '10 KB' }))
    const client = await Client.connect(server)
    await client.openStream()
    client.send(`<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>${'x'.repeat(12_000)}</auth>`)
    await client.expectStreamError(['policy-violation'])
  })

  it('says that hosts, listeners and storage wait for the next start', async () => {
    const log = recordingLog()
    await using server = await startServer({ log })
    await server.server.reload(await configOf(server, {}))
    expect(log.lines.filter((l) => l.startsWith('warn')).join('\n')).to.contain(
      'changes of hosts, listeners, storage and redis take effect at the next start',
    )
  })
})
