/** XEP-0114 1.6: external components. */
import { createHash } from 'node:crypto'
import { expect } from 'chai'
import component from '../../modules/component/index.ts'
import disco from '../../modules/disco.ts'
import { type TestConnection, type TestHost, type TestHostOptions, testHost } from '../helpers/host.ts'

const PORT = 5347
const DOMAIN = 'echo.example.org'
const SECRET = 'a secret of a component'
const header = (to: string | undefined = DOMAIN, ns = 'jabber:component:accept') =>
  `<stream:stream xmlns='${ns}' xmlns:stream='http://etherx.jabber.org/streams'${to === undefined ? '' : ` to='${to}'`}>`

/** What a component sends after our header. */
export function handshake(ourHeader: string, secret = SECRET): string {
  const id = /\sid='([^']+)'/.exec(ourHeader)?.[1] ?? expect.fail(`no id in ${ourHeader}`)
  return `<handshake>${createHash('sha1').update(`${id}${secret}`).digest('hex')}</handshake>`
}

async function start(
  options: Record<string, unknown> = {},
  more: Partial<TestHostOptions> = {},
): Promise<TestHost> {
  return testHost({
    modules: [component, disco],
    accounts: ['romeo', 'juliet'],
    config: { component: { components: { [DOMAIN]: { secret: SECRET } }, ...options } },
    ...more,
  })
}

/** A connected component. */
async function connected(h: TestHost, secret = SECRET, to = DOMAIN): Promise<TestConnection> {
  const stream = h.connect(PORT)
  const answer = await stream.send(handshake(await stream.send(header(to)), secret))
  expect(answer).to.equal('<handshake/>')
  return stream
}

describe('component: handshake', () => {
  it('XEP-0114 §3: answers the header with the name of the component and an id, the handshake with an empty one', async () => {
    await using h = await start()
    const stream = h.connect(PORT)
    const ours = await stream.send(header())
    expect(ours).to.match(/^<\?xml version='1.0'\?><stream:stream /)
    expect(ours).to.contain(`from='${DOMAIN}'`)
    expect(ours).to.contain("xmlns='jabber:component:accept'")
    expect(await stream.send(handshake(ours))).to.equal('<handshake/>')
    const romeo = await h.client('romeo@example.org/orchard')
    expect(await romeo.send(`<message to='bot@${DOMAIN}' id='m1'><body>hi</body></message>`)).to.deep.equal(
      [],
    )
    expect(await stream.send('')).to.equal(
      `<message to='bot@${DOMAIN}' id='m1' from='romeo@example.org/orchard'><body>hi</body></message>`,
    )
    await stream.send(
      `<message from='bot@${DOMAIN}/x' to='romeo@example.org/orchard' id='m2'><body>ho</body></message>`,
    )
    expect(romeo.take().map(String)).to.deep.equal([
      `<message xmlns='jabber:client' from='bot@${DOMAIN}/x' to='romeo@example.org/orchard' id='m2'><body>ho</body></message>`,
    ])
  })
})
