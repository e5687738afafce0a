/**
 * Converse.js in headless Chromium, from the server's own page at http://localhost: two users in two browsers log in, see each other, and
 * chat both ways, while nothing is asked of any other host. Screenshots go to test/output. Canaries: a wrong password, a text nobody sends.
 */
import { mkdirSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { after, afterEach, before, it } from 'mocha'
import { type BrowserContext, chromium, type Page } from 'playwright-core'
import { Client } from '../helpers/client.ts'
import { findProgram } from '../helpers/peers.ts'
import { describeWith, type Running, targets } from './targets.ts'

const OUTPUT = join(import.meta.dirname, '../output')
const CHROMIUM = findProgram('/usr/bin/chromium', '/usr/bin/chromium-browser')
const PASSWORD = 'a good password'
const FLAGS = ['no-sandbox', 'disable-gpu', 'disable-quic', 'no-first-run', 'disable-background-networking']
const MORE_FLAGS = ['disable-component-update', 'disable-sync', 'disable-default-apps', 'disable-extensions']

/** A browser of one user, with an empty profile. */
class Browser implements AsyncDisposable {
  readonly page: Page
  /** Hosts that were asked for anything, by HTTP or WebSocket. */
  readonly hosts = new Set<string>()
  readonly #context: BrowserContext
  readonly #profile: string

  private constructor(context: BrowserContext, profile: string, page: Page) {
    this.#context = context
    this.#profile = profile
    this.page = page
    const note = (url: string) => {
      if (!/^(data|blob|about):/.test(url)) this.hosts.add(new URL(url).hostname)
    }
    context.on('request', (request) => note(request.url()))
    page.on('websocket', (socket) => note(socket.url()))
  }

  static async start(url: string): Promise<Browser> {
    const profile = await mkdtemp(join(tmpdir(), 'hermod-chromium-'))
    const context = await chromium.launchPersistentContext(profile, {
      executablePath: CHROMIUM ?? '/usr/bin/chromium',
      headless: true,
      args: [...FLAGS, ...MORE_FLAGS].map((flag) => `--${flag}`),
      viewport: { width: 1000, height: 700 },
    })
    context.setDefaultTimeout(20_000)
    const [page] = context.pages()
    const browser = new Browser(context, profile, page ?? (await context.newPage()))
    await browser.page.goto(url)
    return browser
  }

  async login(user: string, password: string): Promise<void> {
    await this.page.fill('input[name=jid]', user)
    await this.page.fill('input[name=password]', password)
    await this.page.press('input[name=password]', 'Enter')
  }

  /** Opens the chat with an address and waits for its input line. */
  async chatWith(jid: string): Promise<void> {
    await this.page.evaluate((address) => {
      Reflect.set(Reflect.get(globalThis, 'location'), 'hash', `#converse/chat?jid=${address}`)
    }, jid)
    await this.page.waitForSelector('converse-chat textarea.chat-textarea')
  }

  async say(text: string): Promise<void> {
    await this.page.fill('converse-chat textarea.chat-textarea', text)
    await this.page.press('converse-chat textarea.chat-textarea', 'Enter')
  }

  /** Waits until the chat shows a message of exactly this text. */
  async shows(text: string, timeout = 20_000): Promise<void> {
    await this.page.locator('converse-chat .chat-msg__text', { hasText: text }).first().waitFor({ timeout })
  }

  async screenshot(name: string): Promise<void> {
    mkdirSync(OUTPUT, { recursive: true })
    await this.page.screenshot({ path: join(OUTPUT, `converse-${name}.png`) })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#context.close()
    await rm(this.#profile, { recursive: true, force: true, maxRetries: 5 })
  }
}

/** Makes two accounts each other's contacts. */
async function befriend(target: Running, one: string, other: string): Promise<void> {
  const login = async (local: string) => {
    const client = await Client.connect(target, 'tls', local)
    await client.authenticate(local, PASSWORD)
    await client.bind()
    await client.roster()
    await client.goOnline()
    return client
  }
  const [a, b] = [await login(one), await login(other)]
  for (const [from, to, name] of [
    [a, b, other],
    [b, a, one],
  ] as const) {
    const address = `${name}@${target.domain}`
    from.send(`<presence type='subscribe' to='${address}'/>`)
    await to.eventually(`<presence type='subscribe' etc=''>...</presence>`)
    to.send(`<presence type='subscribed' to='${from.jid.split('/')[0]}'/>`)
    await from.eventually(`<presence type='subscribed' etc=''>...</presence>`)
  }
  for (const client of [a, b]) {
    await client.ping()
    client.drop()
  }
}

const [, open] = targets[0] ?? []
describeWith(
  CHROMIUM === undefined ? 'chromium' : undefined,
  'Converse.js in Chromium against hermod',
  () => {
    let target: Running | undefined
    let shot: Browser | undefined
    before(async function () {
      this.timeout(60_000)
      target = await open?.()
      for (const user of ['romeo', 'juliet']) await target?.addUser(user, PASSWORD)
      if (target !== undefined) await befriend(target, 'romeo', 'juliet')
    })
    afterEach(async function () {
      if (this.currentTest?.state === 'failed') await shot?.screenshot('failed').catch(() => undefined)
    })
    after(async function () {
      this.timeout(20_000)
      await target?.[Symbol.asyncDispose]()
    })
    const url = () => `http://localhost:${target?.ports.http}/`

    it('two users log in and chat both ways, and no other host is asked for anything', async function () {
      this.timeout(120_000)
      await using romeo = await Browser.start(url())
      shot = romeo
      await using juliet = await Browser.start(url())
      await romeo.login('romeo', PASSWORD)
      await juliet.login('juliet', PASSWORD)
      await romeo.chatWith('juliet@localhost')
      await juliet.chatWith('romeo@localhost')
      await romeo.say('But soft, what light')
      await juliet.shows('But soft, what light')
      await juliet.say('Grüße & <Küsse> 🌹')
      await romeo.shows('Grüße & <Küsse> 🌹')
      await romeo.screenshot('romeo')
      await juliet.screenshot('juliet')
      // Canary: what nobody sends is not shown.
      let shown = true
      await juliet.shows('It is the nightingale', 1500).catch(() => (shown = false))
      expect(shown).to.equal(false)
      for (const browser of [romeo, juliet]) expect([...browser.hosts]).to.deep.equal(['localhost'])
      shot = undefined
    })

    it('a wrong password is refused', async function () {
      this.timeout(60_000)
      await using romeo = await Browser.start(url())
      shot = romeo
      await romeo.login('romeo', 'a wrong password')
      await romeo.page
        .getByText(/authentication failed|not.authorized|password (?:is )?incorrect/i)
        .first()
        .waitFor()
      expect(await romeo.page.locator('converse-chat').count()).to.equal(0)
      expect([...romeo.hosts]).to.deep.equal(['localhost'])
      shot = undefined
    })
  },
)
