/** Headless Chromium with Converse.js, from a server's own page: what a user does there, and what hosts are asked for anything. */
import { mkdirSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type BrowserContext, chromium, type Page } from 'playwright-core'
import { findProgram } from '../helpers/peers.ts'

const OUTPUT = join(import.meta.dirname, '../output')
/** Path of Chromium, undefined when it is not installed. */
export const CHROMIUM = findProgram('/usr/bin/chromium', '/usr/bin/chromium-browser')
const FLAGS = ['no-sandbox', 'disable-gpu', 'disable-quic', 'no-first-run', 'disable-background-networking']
const MORE_FLAGS = ['disable-component-update', 'disable-sync', 'disable-default-apps', 'disable-extensions']

/** A browser of one user, with an empty profile. */
export class Browser implements AsyncDisposable {
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

  /** Texts of all messages of the chat, as they stand on the page. */
  async texts(): Promise<string[]> {
    const texts = await this.page.locator('converse-chat .chat-msg__text').allInnerTexts()
    return texts.map((text) => text.trim())
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
