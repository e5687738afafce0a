/** XEP-0114 1.6 over real sockets: ports, TLS, the start and the end of the server, components that read slowly. */
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect as connectTcp } from 'node:net'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import { expect } from 'chai'
import { findModules } from '../../server/catalog.ts'
import { parseConfigText } from '../../server/config.ts'
import { Client } from '../helpers/client.ts'
import { COMPONENT_SECRET, ComponentClient } from '../helpers/component-client.ts'
import { hashFor, header } from '../helpers/component.ts'
import { startServer, type TestServer, type TestServerOptions } from '../helpers/server.ts'
import { recordingLog } from '../helpers/sink.ts'

const DOMAIN = 'c1.localhost'

async function romeoAt(server: TestServer, resource = 'orchard'): Promise<Client> {
  const romeo = await Client.connect(server)
  await romeo.authenticate('romeo', 'a good password')
  await romeo.bind(resource)
  return romeo
}
async function serverWithRomeo(options: TestServerOptions = {}): Promise<TestServer> {
  const server = await startServer({ components: true, ...options })
  await server.addUser('romeo', 'a good password')
  return server
}

describe('component: sockets', () => {
  it('§3: messages go both ways, over TCP', async () => {
    await using server = await serverWithRomeo()
    const gateway = await ComponentClient.connect(server, 'tcp')
    await gateway.serve(DOMAIN)
    const romeo = await romeoAt(server)
    romeo.send(`<message to='bot@${DOMAIN}' id='m1'><body>hi</body></message>`)
    await gateway.expect(`<message from='${romeo.jid}' to='bot@${DOMAIN}' id='m1'><body>hi</body></message>`)
    gateway.send(`<message from='bot@${DOMAIN}' to='${romeo.jid}' id='m2'/>`)
    await romeo.expect(`<message from='bot@${DOMAIN}' to='${romeo.jid}' id='m2'/>`)
    gateway.drop()
    romeo.drop()
  })

  it('RFC 6120 §4.4: a component that closes its stream gets the closing tag, and may come again at once', async () => {
    await using server = await serverWithRomeo()
    for (let i = 0; i < 3; i++) {
      const gateway = await ComponentClient.connect(server, 'tcp')
      await gateway.serve(DOMAIN)
      gateway.closeStream()
      await gateway.until(() => gateway.inbox.some((item) => item.kind === 'end'), 'the closing tag')
      gateway.drop()
    }
  })

  it('TLS from the first byte, with the certificate of the host; plain text there leads nowhere', async () => {
    const component = {
      listen: [{ port: 0, tls: true }],
      components: { [DOMAIN]: { secret: COMPONENT_SECRET } },
    }
    await using server = await serverWithRomeo({ components: false, modules: { component } })
    const port = server.ports.component ?? 0
    const socket: TLSSocket = connectTls({
      host: '127.0.0.1',
      port,
      ca: readFileSync(server.ca),
      servername: 'localhost',
    })
    await once(socket, 'secureConnect')
    expect(socket.authorized).to.equal(true)
    socket.setEncoding('utf8')
    const next = async (text: string): Promise<string> => {
      socket.write(text)
      const [data] = (await once(socket, 'data')) as [string]
      return data
    }
    const hash = hashFor(await next(header(DOMAIN)), COMPONENT_SECRET)
    expect(await next(`<handshake>${hash}</handshake>`)).to.equal('<handshake/>')
    socket.destroy()
    const plain = await ComponentClient.connect(server, 'tcp')
    plain.sendHeader(DOMAIN)
    await plain.until(() => plain.inbox.some((item) => item.kind === 'closed'), 'the end')
    expect(plain.inbox.map((item) => item.kind)).to.deep.equal(['closed'])
  })

  it('RFC 6120 §4.9.3.20: when the server stops, the component hears of the end of sessions, then of its own', async () => {
    await using server = await serverWithRomeo()
    const gateway = await ComponentClient.connect(server, 'tcp')
    await gateway.serve(DOMAIN)
    const romeo = await romeoAt(server)
    romeo.send(`<presence to='${DOMAIN}'/>`)
    await gateway.expect(`<presence from='${romeo.jid}' to='${DOMAIN}' etc=''/>`)
    const stopped = server.server.stop()
    await gateway.expect(`<presence from='${romeo.jid}' to='${DOMAIN}' type='unavailable' etc=''/>`)
    await gateway.expectStreamError(['system-shutdown'])
    await stopped
    expect([...server.server.ports.modules.values()].flat()).to.deep.equal([])
    romeo.drop()
  })

  it('another port at reload: the old one is closed, streams stay', async () => {
    await using server = await serverWithRomeo({ log: recordingLog() })
    const gateway = await ComponentClient.connect(server, 'tcp')
    await gateway.serve(DOMAIN)
    const old = server.ports.component
    const raw = {
      hosts: [server.domain],
      tls: { folder: `${server.folder}/certs` },
      storage: { driver: 'memory' },
      modules: {
        component: {
          listen: [{ port: 0 }, { port: 0 }],
          components: { [DOMAIN]: { secret: COMPONENT_SECRET } },
        },
      },
    }
    await server.server.reload(parseConfigText(JSON.stringify(raw), await findModules(), 'test'))
    const ports = server.server.ports.modules.get('component') ?? []
    expect(ports).to.have.length(2)
    expect(ports).to.not.include(old)
    const romeo = await romeoAt(server)
    romeo.send(`<message to='bot@${DOMAIN}' id='m1'/>`)
    await gateway.expect(`<message from='${romeo.jid}' to='bot@${DOMAIN}' id='m1'/>`)
    const refused = await ComponentClient.connect(server, 'tcp').catch((error: unknown) => error)
    expect(String(refused)).to.contain('ECONNREFUSED')
    for (const one of [gateway, romeo]) one.drop()
  })

  it('a component that does not read: others are served, and what it does not take comes back, each once', async function () {
    this.timeout(30_000)
    const component = {
      listen: [{ port: 0 }],
      queue: '64 KiB',
      components: { [DOMAIN]: { secret: COMPONENT_SECRET }, 'c2.localhost': { secret: COMPONENT_SECRET } },
    }
    const limits = { rate: '1 GiB', burst: '1 GiB', ratePerAddress: '1 GiB', burstPerAddress: '1 GiB' }
    await using server = await serverWithRomeo({
      components: false,
      modules: { component, mam: false, inbox: false },
      config: { limits },
    })
    const slow = connectTcp({ host: '127.0.0.1', port: server.ports.component ?? 0 }).setEncoding('utf8')
    const heard = async (text: string): Promise<string> => {
      slow.write(text)
      const [data] = (await once(slow, 'data')) as [string]
      return data
    }
    const hash = hashFor(await heard(header(DOMAIN)), COMPONENT_SECRET)
    expect(await heard(`<handshake>${hash}</handshake>`)).to.equal('<handshake/>')
    slow.pause()
    const other = await ComponentClient.connect(server, 'tcp')
    await other.serve('c2.localhost')
    const romeo = await romeoAt(server)
    romeo.timeoutMs = 20_000
    const returned = new Set<string>()
    const take = (): boolean => {
      for (const item of romeo.inbox.splice(0)) {
        if (item.kind !== 'element') continue
        const id = item.el.attrs['id'] ?? ''
        expect(item.el.toString()).to.contain('remote-server-timeout')
        expect(returned.has(id), `${id} twice`).to.equal(false)
        returned.add(id)
      }
      return returned.has(`m${count - 1}`)
    }
    const body = 'x'.repeat(10_000)
    const count = 3000 // more than the kernel keeps for a connection
    for (let i = 0; i < count; i++)
      romeo.send(`<message to='${DOMAIN}' id='m${i}'><body>${body}</body></message>`)
    await romeo.until(take, 'the last message')
    romeo.send(`<message to='c2.localhost' id='other'/>`)
    await other.expect(`<message from='${romeo.jid}' to='c2.localhost' id='other'/>`)
    const arrived: string[] = []
    slow.on('data', (data: string) => {
      for (const [, id = ''] of data.matchAll(/ id='(m\d+)'/g)) arrived.push(id)
    })
    slow.resume()
    await once(slow, 'close')
    // what was on its way when the stream ended may have got there and come back
    expect(arrived.length).to.be.greaterThan(100)
    expect(arrived).to.deep.equal(Array.from({ length: arrived.length }, (_, i) => `m${i}`))
    expect(new Set([...arrived, ...returned]).size).to.equal(count)
    for (const one of [other, romeo]) one.drop()
  })
})
