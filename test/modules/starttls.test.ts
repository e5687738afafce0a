/** STARTTLS, RFC 6120 §5, and what else is offered beside it. */
import { expect } from 'chai'
import accounts from '../../modules/accounts/index.ts'
import sasl from '../../modules/sasl/index.ts'
import starttls from '../../modules/starttls.ts'
import streamLimits from '../../modules/stream-limits.ts'
import { type TestHost, testHost } from '../helpers/host.ts'
import { bindingTls, LoginStream } from '../helpers/login.ts'

const NS_TLS = 'urn:ietf:params:xml:ns:xmpp-tls'
const STARTTLS = `<starttls xmlns='${NS_TLS}'/>`

const start = (config: Record<string, object> = {}): Promise<TestHost> =>
  testHost({ modules: [accounts, sasl, starttls, streamLimits], config })

describe('starttls: RFC 6120 §5', () => {
  it('§5.3.1, §5.4.1: required by default, and then the only offer', async () => {
    await using host = await start({ sasl: { requireTls: false } })
    const login = await LoginStream.open(host)
    expect(login.offers).to.deep.equal(['starttls'])
    expect(login.features?.getChild('starttls', NS_TLS)?.getChild('required', NS_TLS)).to.not.equal(undefined)
  })

  it('§5.3.1: not required: others are offered beside it', async () => {
    await using host = await start({ sasl: { requireTls: false }, starttls: { required: false } })
    const login = await LoginStream.open(host)
    expect(login.offers).to.have.members(['starttls', 'mechanisms', 'limits'])
    expect(login.features?.getChild('starttls', NS_TLS)?.children).to.deep.equal([])
  })

  it('§5.4.2.3, §5.4.3.3: proceed, then a new stream with other features', async () => {
    await using host = await start()
    const login = new LoginStream(host, { tlsAfterUpgrade: bindingTls() })
    await login.header()
    const proceed = await login.ask(STARTTLS)
    expect(proceed.is('proceed', NS_TLS)).to.equal(true)
    await login.header()
    expect(login.offers).to.include.members(['mechanisms', 'sasl-channel-binding', 'limits'])
    expect(login.offers).to.not.include('starttls')
  })

  it('§5.4.2.2: a malformed command: failure and the end of the stream, without a stream error', async () => {
    for (const xml of [
      `<starttls xmlns='${NS_TLS}'><required/></starttls>`,
      `<starttls xmlns='${NS_TLS}'>now</starttls>`,
      `<proceed xmlns='${NS_TLS}'/>`,
    ]) {
      await using host = await start()
      const login = await LoginStream.open(host)
      const out = await login.stream.send(xml)
      expect(out, xml).to.equal(`<failure xmlns='${NS_TLS}'/></stream:stream>`)
    }
  })

  it('§5.4.2.2 (2): after TLS, after login, or on a transport that cannot: failure', async () => {
    await using host = await start({ starttls: { required: false } })
    const failure = `<failure xmlns='${NS_TLS}'/></stream:stream>`
    const secure = await LoginStream.open(host, { tls: bindingTls() })
    expect(secure.offers).to.not.include('starttls')
    expect(await secure.stream.send(STARTTLS)).to.equal(failure)
    const client = await host.client('juliet@example.org/x')
    client.transport.feed(STARTTLS)
    await host.settle()
    expect(client.transport.written.join('')).to.equal(failure)
    const websocket = host.stream({ framing: 'frames' })
    const features = await websocket.send(
      `<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='example.org' version='1.0'/>`,
    )
    expect(features).to.not.include('starttls')
    expect(await websocket.send(STARTTLS)).to.match(/^<failure [^>]*\/><close /)
  })

  it('§5.4.3.3 (2): what came behind the command in clear is forgotten', async () => {
    await using host = await start()
    const login = await LoginStream.open(host)
    const out = await login.stream.send(
      `${STARTTLS}<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'/>`,
    )
    expect(out).to.equal(`<proceed xmlns='${NS_TLS}'/>`)
  })

  it('after unload not offered', async () => {
    await using host = await start({ sasl: { requireTls: false } })
    await host.unload('starttls')
    expect((await LoginStream.open(host)).offers).to.not.include('starttls')
  })
})
