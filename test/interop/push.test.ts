/** slixmpp as an app server (XEP-0357) of our server: its pubsub and form code reads what is published. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { Client } from '../helpers/client.ts'
import { COMPONENT_SECRET } from '../helpers/component-client.ts'
import { NS_PUSH, SECRET } from '../helpers/push.ts'
import { startServer, type TestServer } from '../helpers/server.ts'
import { findPythons } from './pythons.ts'

const PASSWORD = 'a good password'

/** A running app server; its lines. */
class AppServer implements AsyncDisposable {
  readonly #child: ChildProcess
  readonly #closed: Promise<unknown>
  readonly #lines: AsyncIterator<string>

  constructor(python: string, jid: string, port: number) {
    const script = join(import.meta.dirname, 'slixmpp/app-server.py')
    const args = [script, '--jid', jid, '--secret', COMPONENT_SECRET, '--port', String(port)]
    const env = { ...process.env, PYTHONWARNINGS: 'ignore' }
    const child = spawn(python, args, { env, stdio: ['ignore', 'pipe', 'inherit'] })
    this.#child = child
    this.#closed = once(child, 'close')
    this.#lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  }

  async event(): Promise<Record<string, string | null>> {
    for (;;) {
      const { value, done } = await this.#lines.next()
      if (done === true) throw new Error('the app server has ended')
      if (value.startsWith('{')) return JSON.parse(value) as Record<string, string | null>
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#closed
  }
}

const pythons = await findPythons(true)

describe('slixmpp as an app server (XEP-0357)', function () {
  this.timeout(60_000)
  let server: TestServer
  before(async () => {
    server = await startServer({ components: true, modules: { push: { interval: '0s' } } })
  })
  after(async () => server?.[Symbol.asyncDispose]())
  it('is installed', () => expect(pythons.size, 'python3-slixmpp').to.be.greaterThan(0))

  for (const [index, [version, python]] of [...pythons].entries())
    it(`${version}: is a push service, reads what is published, and refuses what it does not know`, async () => {
      const domain = `c${index + 1}.localhost`
      await using app = new AppServer(python, domain, server.ports.component ?? 0)
      expect(await app.event()).to.deep.equal({ event: 'ready' })
      const local = `romeo${index}`
      for (const name of [local, `juliet${index}`]) await server.addUser(name, PASSWORD)
      const romeo = await Client.connect(server, 'tcp', local)
      await romeo.authenticate(local, PASSWORD)
      await romeo.bind('phone')
      const disco = `<query xmlns='http://jabber.org/protocol/disco#info'/>`
      romeo.send(`<iq to='${domain}' type='get' id='d'>${disco}</iq>`)
      const info = await romeo.eventually(`<iq type='result' from='${domain}' id='d' etc=''>...</iq>`)
      expect(info.toString()).to.contain('type="push"') // XEP-0357 §4.2
      for (const node of ['known', 'gone']) {
        romeo.send(
          `<iq type='set' id='${node}'><enable xmlns='${NS_PUSH}' jid='${domain}' node='${node}'>${SECRET}</enable></iq>`,
        )
        await romeo.eventually(`<iq type='result' id='${node}' etc=''/>`)
      }
      romeo.closeStream()
      await romeo.expectEnd()
      romeo.drop()

      const juliet = await Client.connect(server, 'tcp', 'juliet')
      await juliet.authenticate(`juliet${index}`, PASSWORD)
      await juliet.bind('balcony')
      const say = (): void =>
        juliet.send(`<message to='${local}@localhost' type='chat'><body>x</body></message>`)
      const published = (node: string, count: string) => ({
        event: 'published',
        node,
        who: 'localhost',
        payload: `{${NS_PUSH}}notification`,
        count,
        secret: 'eruio234vzxc2kla-91',
      })
      say()
      expect([await app.event(), await app.event()]).to.have.deep.members([
        published('known', '1'),
        published('gone', '1'),
      ])
      await juliet.ping()
      say()
      expect(await app.event()).to.deep.equal(published('known', '2'))
      say()
      expect(await app.event()).to.deep.equal(published('known', '3'))
      juliet.drop()
    })
})
