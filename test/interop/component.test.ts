/**
 * slixmpp as an external component (XEP-0114 1.6) of our server, and of Prosody to show that the test itself is right: a component that
 * echoes, with a contact to subscribe to. A canary with a wrong secret must fail.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { Client } from '../helpers/client.ts'
import { COMPONENT_SECRET } from '../helpers/component-client.ts'
import { prosodyProgram, startProsody } from '../helpers/peers.ts'
import { startServer } from '../helpers/server.ts'
import type { Target } from '../scenarios/stage.ts'
import { findPythons } from './pythons.ts'

const SCRIPT = join(import.meta.dirname, 'slixmpp/component.py')

type Running = Target & AsyncDisposable
const targets: readonly (readonly [string, () => Promise<Running>])[] = [
  ['hermod', async () => Object.assign(await startServer({ components: true }), { name: 'hermod' as const })],
  ...(prosodyProgram === undefined ? [] : [['prosody', () => startProsody()] as const]),
]

/** A running component and the events that it prints. */
class Component implements AsyncDisposable {
  readonly #child: ChildProcess
  readonly #events: Record<string, string>[] = []
  readonly #closed: Promise<unknown>
  #wake = (): void => undefined
  #errors = ''

  constructor(python: string, jid: string, port: number, secret: string) {
    const args = [SCRIPT, '--jid', jid, '--secret', secret, '--port', String(port)]
    const env = { ...process.env, PYTHONWARNINGS: 'ignore' }
    this.#child = spawn(python, args, { env, stdio: ['ignore', 'pipe', 'pipe'] })
    this.#closed = once(this.#child, 'close')
    this.#child.stderr?.on(
      'data',
      (data: Buffer) => (this.#errors = (this.#errors + data.toString()).slice(-2000)),
    )
    if (this.#child.stdout !== null)
      createInterface(this.#child.stdout).on('line', (line) => {
        if (line.startsWith('{')) this.#events.push(JSON.parse(line) as Record<string, string>)
        this.#wake()
      })
  }

  /** Waits for an event, for 20 s at most; what comes before it is skipped. */
  async event(...names: readonly string[]): Promise<Record<string, string>> {
    const limit = AbortSignal.timeout(20_000)
    for (;;) {
      const at = this.#events.findIndex((e) => names.includes(e['event'] ?? ''))
      const [found] = at < 0 ? [] : this.#events.splice(0, at + 1).slice(-1)
      if (found !== undefined) return found
      if (limit.aborted || this.#child.exitCode !== null)
        throw new Error(`no ${names.join(' or ')}; the component says ${this.#errors}`)
      await new Promise<void>((resolve) => {
        this.#wake = resolve
        limit.addEventListener('abort', () => resolve())
        void this.#closed.then(() => resolve())
      })
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#closed
  }
}

const pythons = await findPythons(true)
let accounts = 0

for (const [server, open] of targets) {
  describe(`slixmpp as a component of ${server}`, () => {
    let target: Running | undefined
    before(async function () {
      this.timeout(60_000)
      target = await open()
    })
    after(async function () {
      this.timeout(20_000)
      await target?.[Symbol.asyncDispose]()
    })
    const running = () => target ?? expect.fail('the server did not start')
    const component = (python: string, domain: string, secret = COMPONENT_SECRET) =>
      new Component(python, domain, running().ports.component ?? 0, secret)
    it('is installed', () => expect(pythons.size, 'python3-slixmpp').to.be.greaterThan(0))

    for (const [index, [version, python]] of [...pythons].entries()) {
      it(`${version}: messages, requests, subscriptions and presence go both ways`, async function () {
        this.timeout(60_000)
        const domain = `c${index + 1}.${running().domain}`
        await using echo = component(python, domain)
        await echo.event('ready')
        const local = `romeo${(accounts += 1)}`
        await running().addUser(local, 'a good password')
        const romeo = await Client.connect(running())
        await romeo.authenticate(local, 'a good password')
        await romeo.bind('orchard')
        await romeo.roster()
        await romeo.goOnline()
        for (const text of ['one', 'två & <three>', 'x'.repeat(5000)]) {
          const body = text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
          romeo.send(`<message to='bot@${domain}' type='chat' id='m'><body>${body}</body></message>`)
          const answer = await romeo.eventually(`<message from='bot@${domain}' etc=''>...</message>`)
          expect(answer.getChildText('body')).to.equal(`echo: ${text}`)
        }
        romeo.send(
          `<iq to='${domain}' type='get' id='d'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>`,
        )
        const info = await romeo.eventually(`<iq type='result' from='${domain}' id='d' etc=''>...</iq>`)
        expect(info.toString()).to.contain('category="gateway"')

        romeo.send(`<presence to='bot@${domain}' type='subscribe'/>`)
        await romeo.eventually(`<presence from='bot@${domain}' type='subscribed' etc=''>...</presence>`)
        await romeo.eventually(
          `<presence from='bot@${domain}/echo' etc=''><status>at your service</status>...</presence>`,
        )
        await romeo.eventually(`<presence from='bot@${domain}' type='subscribe' etc=''>...</presence>`)
        romeo.send(`<presence to='bot@${domain}' type='subscribed'/>`)
        expect((await echo.event('available'))['who']).to.equal(romeo.jid)
        romeo.drop()
        expect((await echo.event('unavailable'))['who']).to.equal(romeo.jid)

        const again = await Client.connect(running())
        await again.authenticate(local, 'a good password')
        await again.bind('garden')
        again.sendStanza('<presence/>')
        // the probe is answered
        await again.eventually(`<presence from='bot@${domain}/echo' etc=''>...</presence>`)
        const items = (await again.roster()).toString()
        expect(items).to.match(/subscription="both"/)
        again.drop()
      })

      it(`${version}: a wrong secret fails`, async function () {
        this.timeout(60_000)
        await using echo = component(python, `c8.${running().domain}`, 'wrong')
        const end = await echo.event('ready', 'refused', 'stream error')
        expect(end['event']).to.not.equal('ready')
      })
    }
  })
}
