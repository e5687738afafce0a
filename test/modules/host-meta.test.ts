/** modules/host-meta over HTTP. */
import { expect } from 'chai'
import hostMeta from '../../modules/host-meta.ts'
import websocket from '../../modules/websocket/index.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { WebServer } from '../helpers/web.ts'

const XRD = 'http://docs.oasis-open.org/ns/xri/xrd-1.0'
const REL = 'urn:xmpp:alt-connections:websocket'
const PATH = '/.well-known/host-meta'

async function start(config: object = {}, settings: Parameters<typeof WebServer.start>[0] = {}) {
  const web = await WebServer.start(settings)
  const server = await web.load('', [websocket])
  const a = await web.load('a.example', [hostMeta], { 'host-meta': config })
  await web.load('b.example', [hostMeta], { 'host-meta': config })
  return { web, server, a, [Symbol.asyncDispose]: () => web[Symbol.asyncDispose]() }
}

function linksOf(body: string): { rel: string | undefined; href: string | undefined }[] {
  const root = parseXml(body)
  expect(root.is('XRD', XRD)).to.equal(true)
  return root.getChildren('Link').map((link) => ({ rel: link.attr('rel'), href: link.attr('href') }))
}

describe('host-meta (XEP-0156)', () => {
  it('§2.2 rule 2: gives the links of each host as XRD and as JRD', async () => {
    await using t = await start()
    for (const host of ['a.example', 'b.example'])
      for (const tls of [true, false]) {
        const expected = [{ rel: REL, href: `wss://${host}:${t.web.port(1)}/xmpp-websocket` }]
        const xml = await t.web.ask(PATH, { tls, headers: { host } })
        expect(xml.status).to.equal(200)
        expect(xml.headers['content-type']).to.equal('application/xrd+xml')
        expect(xml.body).to.match(/^<\?xml version='1\.0' encoding='utf-8'\?>\n/)
        expect(linksOf(xml.body.replace(/^.*\n/, '').trim())).to.deep.equal(expected)
        const json = await t.web.ask(`${PATH}.json`, { tls, headers: { host } })
        expect(json.headers['content-type']).to.match(/^application\/json/)
        expect(JSON.parse(json.body)).to.deep.equal({ links: expected })
      }
  })

  it('§2.2 rule 1: tells no endpoint without TLS, unless it is configured to', async () => {
    await using t = await start({}, { publicUrls: { 'a.example': ['http://a.example'] } })
    expect(JSON.parse((await t.web.ask(`${PATH}.json`)).body)).to.deep.equal({ links: [] })
    await using open = await start({ plaintext: true })
    const { links } = JSON.parse((await open.web.ask(`${PATH}.json`)).body) as { links: { href: string }[] }
    expect(links.map(({ href }) => href)).to.deep.equal([
      `wss://a.example:${open.web.port(1)}/xmpp-websocket`,
      `ws://a.example:${open.web.port(0)}/xmpp-websocket`,
    ])
  })

  it('tells the public URL when there is one', async () => {
    await using t = await start({}, { publicUrls: { 'a.example': ['https://web.example/'] } })
    const { body } = await t.web.ask(PATH, { headers: { host: 'web.example' } })
    expect(linksOf(body.replace(/^.*\n/, '').trim())).to.deep.equal([
      { rel: REL, href: 'wss://web.example/xmpp-websocket' },
    ])
  })

  it('§3: may be read by web clients from everywhere, and kept for a while', async () => {
    await using t = await start({ maxAge: '1h' })
    for (const path of [PATH, `${PATH}.json`]) {
      const { headers } = await t.web.ask(path, { headers: { origin: 'https://elsewhere.example' } })
      expect(headers).to.include({
        'access-control-allow-origin': '*',
        'cache-control': 'public, max-age=3600',
      })
      expect((await t.web.ask(path, { method: 'HEAD' })).headers['access-control-allow-origin']).to.equal('*')
    }
    expect((await t.web.ask('/other')).headers).to.not.have.property('access-control-allow-origin')
  })

  it('RFC 6415 §3: gives JRD at the first path too when only that is accepted', async () => {
    await using t = await start()
    for (const [accept, type] of [
      [undefined, 'application/xrd+xml'],
      ['*/*', 'application/xrd+xml'],
      ['application/xrd+xml, application/json;q=0.5', 'application/xrd+xml'],
      ['application/json', 'application/json'],
      ['text/html, Application/JSON; q=0.9', 'application/json'],
    ] as const) {
      const { headers } = await t.web.ask(PATH, { headers: accept === undefined ? {} : { accept } })
      expect(headers['content-type']?.split(';')[0], accept).to.equal(type)
      expect(headers.vary).to.equal('accept')
    }
  })

  it('follows what is announced, and is gone with its module', async () => {
    await using t = await start()
    await t.server.loader.unload('websocket')
    expect(JSON.parse((await t.web.ask(`${PATH}.json`)).body)).to.deep.equal({ links: [] })
    await t.a.loader.unload('host-meta')
    expect((await t.web.ask(PATH)).status).to.equal(404)
    expect((await t.web.ask(PATH, { headers: { host: 'b.example' } })).status).to.equal(200)
    expect(
      (await t.web.ask(PATH, { method: 'PUT', headers: { host: 'b.example', 'content-length': '0' } }))
        .status,
    ).to.equal(405)
    expect((await t.web.ask(PATH, { headers: { host: 'evil.example' } })).status).to.equal(421)
  })
})
