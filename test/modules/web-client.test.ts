/** modules/web-client over HTTP, and in a real browser where there is one. */
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { type BrowserContext, chromium, type Page } from 'playwright-core'
import webClient from '../../modules/web-client.ts'
import websocket from '../../modules/websocket/index.ts'
import { startServer } from '../helpers/server.ts'
import { WebServer } from '../helpers/web.ts'

const CHROMIUM = process.env['HERMOD_TEST_CHROMIUM'] ?? '/usr/bin/chromium'

async function start(config: object = {}, settings: Parameters<typeof WebServer.start>[0] = {}) {
  const web = await WebServer.start(settings)
  const server = await web.load('', [websocket])
  const a = await web.load('a.example', [webClient], { 'web-client': config })
  await web.load('b.example', [webClient], { 'web-client': config })
  const settingsOf = async (host: string, path = '/client.json') => {
    const { body } = await web.ask(path, { headers: { host } })
    return JSON.parse(body) as { websocketPath?: string; settings: Record<string, unknown> }
  }
  return { web, server, a, settingsOf, [Symbol.asyncDispose]: () => web[Symbol.asyncDispose]() }
}

/** Everything that the page names with src or href. */
const named = (html: string): string[] => [...html.matchAll(/(?:src|href)="([^"]*)"/g)].map((m) => m[1] ?? '')

describe('web-client', () => {
  it('serves a page whose every part is here, and which may load nothing from elsewhere', async () => {
    await using t = await start({ title: 'Chat <&">' })
    const page = await t.web.ask('/')
    expect(page.status).to.equal(200)
    expect(page.headers).to.include({
      'content-type': 'text/html; charset=utf-8',
      'cache-control': 'no-cache',
    })
    expect(page.body).to.include('<title>Chat &#60;&#38;&#34;&#62;</title>')
    expect(page.body).to.not.include('{{')
    const parts = named(page.body)
    expect(parts).to.have.length(6)
    for (const part of parts) {
      const answer = await t.web.ask(`/${part}`)
      expect(answer.status, part).to.equal(200)
      expect(answer.headers['cache-control'], part).to.equal(
        part.startsWith('converse/') ? 'public, max-age=31536000, immutable' : 'no-cache',
      )
    }
    const policy = String(page.headers['content-security-policy'])
    expect(policy).to.match(/^default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; /)
    const sources = policy.split('; ').flatMap((directive) => directive.split(' ').slice(1))
    const own = [`https://a.example:${t.web.port(1)}`, `http://a.example:${t.web.port(0)}`]
    const allowed = ["'self'", "'none'", "'unsafe-inline'", "'wasm-unsafe-eval'", 'data:', 'blob:']
    expect(sources).to.not.include("'unsafe-eval'")
    for (const source of sources)
      expect([...allowed, ...own, 'ws://a.example', 'wss://a.example']).to.include(source)
    expect(policy.split('; ').find((d) => d.startsWith('script-src'))).to.not.include('unsafe-inline')
  })

  it('puts nothing into the policy that the client made up', async () => {
    await using t = await start()
    const answer = await t.web.raw(
      'GET / HTTP/1.1\r\nHost: a.example:1;script-src *\r\nConnection: close\r\n\r\n',
    )
    expect(answer).to.not.include('script-src *')
  })

  it('has settings for each host', async () => {
    await using t = await start({ settings: { theme: 'nordic', loglevel: 'debug' } })
    for (const host of ['a.example', 'b.example']) {
      const { websocketPath, settings } = await t.settingsOf(host)
      expect(websocketPath).to.equal('/xmpp-websocket')
      expect(settings).to.include({
        locked_domain: host,
        authentication: 'login',
        view_mode: 'fullscreen',
        discover_connection_methods: false,
        allow_registration: false,
        theme: 'nordic',
        loglevel: 'debug',
      })
    }
    await using open = await start({ lockDomain: false, registration: true })
    const { settings } = await open.settingsOf('a.example')
    expect(settings).to.include({
      default_domain: 'a.example',
      allow_registration: true,
      registration_domain: 'a.example',
    })
    expect(settings).to.not.have.property('locked_domain')
  })

  it('can be somewhere else', async () => {
    await using t = await start(
      { path: '/web/chat/' },
      { publicUrls: { 'a.example': ['https://a.example/x'] } },
    )
    expect((await t.web.ask('/')).status).to.equal(404)
    const moved = await t.web.ask('/web/chat')
    expect([moved.status, moved.headers.location]).to.deep.equal([301, '/web/chat/'])
    const page = await t.web.ask('/web/chat/')
    for (const part of named(page.body))
      expect((await t.web.ask(`/web/chat/${part}`)).status, part).to.equal(200)
    expect((await t.settingsOf('a.example', '/web/chat/client.json')).websocketPath).to.equal(
      '/x/xmpp-websocket',
    )
    const wrong = t.web.load('b.example', [webClient], { 'web-client': { path: 'chat' } })
    expect(String(await wrong.catch((e: unknown) => e))).to.include('path: must begin and end with a slash')
  })

  it('shows no files but its own, and is gone with its module', async () => {
    await using t = await start()
    for (const path of [
      '/client/',
      '/client/../package.json',
      '/converse/',
      '/client/%2e%2e/lib/stream.ts',
      '/package.json',
    ])
      expect((await t.web.ask(path)).status, path).to.be.oneOf([400, 403, 404])
    await t.server.loader.unload('websocket')
    expect(await t.settingsOf('a.example')).to.not.have.property('websocketPath')
    await t.a.loader.unload('web-client')
    expect((await t.web.ask('/')).status).to.equal(404)
    expect((await t.web.ask('/', { headers: { host: 'b.example' } })).status).to.equal(200)
    expect((await t.web.ask('/', { headers: { host: 'evil.example' } })).status).to.equal(421)
  })

  describe('in Chromium', () => {
    let context: BrowserContext
    let profile: string

    before(async function () {
      this.timeout(60_000)
      if (!existsSync(CHROMIUM)) {
        console.error(`      not run: there is no ${CHROMIUM} (HERMOD_TEST_CHROMIUM names another)`)
        this.skip()
      }
      profile = await mkdtemp(join(tmpdir(), 'hermod-chromium-'))
      context = await chromium.launchPersistentContext(profile, {
        executablePath: CHROMIUM,
        headless: true,
        ignoreHTTPSErrors: true,
        args: [
          '--no-sandbox',
          '--disable-gpu',
          '--disable-quic',
          '--no-first-run',
          '--disable-background-networking',
          '--disable-component-update',
          '--disable-sync',
        ],
      })
    })
    after(async () => {
      await context?.close()
      if (profile !== undefined) await rm(profile, { recursive: true, force: true, maxRetries: 5 })
    })

    /** Opens the page and notes what it asks for and what it complains about. */
    async function open(url: string): Promise<{ page: Page; requests: URL[]; refused: string[] }> {
      const page = await context.newPage()
      const requests: URL[] = []
      const refused: string[] = []
      page.on('request', (request) => requests.push(new URL(request.url())))
      page.on('websocket', (socket) => requests.push(new URL(socket.url())))
      page.on('pageerror', (error) => refused.push(error.message))
      page.on('console', (message) => {
        if (/Content Security Policy|Refused to|ERR_/.test(message.text())) refused.push(message.text())
      })
      await page.goto(url)
      return { page, requests, refused }
    }

    for (const scheme of ['http', 'https'] as const)
      it(`logs in over ${scheme === 'http' ? 'ws' : 'wss'}, and no request leaves the origin`, async function () {
        this.timeout(60_000)
        await using server = await startServer()
        await server.addUser('juliet', 'o romeo romeo')
        const port = scheme === 'http' ? server.ports.http : server.ports.https
        const { page, requests, refused } = await open(`${scheme}://localhost:${port}/`)
        await page.fill('input[name=jid]', 'juliet')
        await page.fill('input[name=password]', 'wrong password')
        await page.click('[type=submit]')
        await page.waitForSelector('.conn-feedback, .alert-danger')
        await page.fill('input[name=jid]', 'juliet')
        await page.fill('input[name=password]', 'o romeo romeo')
        await page.click('[type=submit]')
        await page.waitForSelector('converse-user-profile')
        const session = server.server.hosts.get('localhost')?.of('juliet')[0]
        expect(session?.transport).to.equal('websocket')
        // What comes later: the list of emoji, OMEMO, sounds, all from here.
        await page.waitForLoadState('networkidle')
        const origins = new Set(
          requests.filter((url) => !['data:', 'blob:'].includes(url.protocol)).map((url) => url.host),
        )
        expect([...origins]).to.deep.equal([`localhost:${port}`])
        expect(requests.map((url) => url.pathname)).to.include.members([
          '/',
          '/client.json',
          '/xmpp-websocket',
        ])
        expect(refused).to.deep.equal([])
        await page.close()
      })
  })
})
