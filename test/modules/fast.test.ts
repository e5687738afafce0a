/** XEP-0484 FAST with the mechanisms HT-SHA-256-*. */
import { expect } from 'chai'
import type { TlsInfo } from '../../server/module.ts'
import { openMemory } from '../../server/storage/memory.ts'
import {
  AGENT,
  agentOf,
  b64,
  byPassword,
  byToken,
  macOf,
  NS,
  obtain,
  OTHER,
  outcome,
  PASSWORD,
  requestToken,
  start,
  tls,
} from '../helpers/fast.ts'
import { fakeTls } from '../helpers/host.ts'
import { LoginStream } from '../helpers/login.ts'

const NS_SM = 'urn:xmpp:sm:3'
const DAY = 86_400_000
const offered = (login: LoginStream): string[] =>
  login.features
    ?.getChild('authentication')
    ?.getChild('inline')
    ?.getChild('fast', NS)
    ?.getChildren('mechanism')
    .map((m) => m.getText()) ?? []

describe('fast: XEP-0484', () => {
  it('§3.1: announces what this connection can do, inside SASL2 only', async () => {
    await using host = await start()
    const all = await LoginStream.open(host, { tls })
    expect(offered(all)).to.deep.equal(['HT-SHA-256-EXPR', 'HT-SHA-256-ENDP', 'HT-SHA-256-NONE'])
    expect(all.mechanisms('authentication').join()).to.not.contain('HT-')
    expect(all.mechanisms().join()).to.not.contain('HT-')
    expect(offered(await LoginStream.open(host, { tls: fakeTls }))).to.deep.equal(['HT-SHA-256-NONE'])
    expect(offered(await LoginStream.open(host))).to.deep.equal([])
  })

  it('withoutBinding: false offers nothing to clients that cannot bind', async () => {
    await using host = await start({ withoutBinding: false })
    expect(offered(await LoginStream.open(host, { tls: fakeTls }))).to.deep.equal([])
    const { token } = await byPassword(host, requestToken('HT-SHA-256-NONE'))
    expect(token).to.equal(undefined)
  })

  for (const mechanism of ['HT-SHA-256-EXPR', 'HT-SHA-256-ENDP', 'HT-SHA-256-NONE'])
    it(`§3.3, §3.4: ${mechanism}: a token for a password, then a login with it, with the server's proof`, async () => {
      await using host = await start({ lifetime: '7d' })
      const first = await byPassword(host, requestToken(mechanism))
      expect(first.token).to.match(/^[\w-]{43}$/)
      expect(first.expiry).to.equal(host.clock.now() + 7 * DAY)
      const { success, token } = await byToken(host, first.token ?? '', { mechanism })
      expect(success?.getChildText('authorization-identifier')).to.equal('juliet@example.org')
      expect(success?.getChildText('additional-data')).to.equal(
        b64(macOf(first.token ?? '', 'Responder', mechanism)),
      )
      expect(token).to.equal(undefined)
    })

  it('§3.2: no token without an installation id, for an unknown mechanism, or unasked', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    const initial = b64(`\0juliet\0${PASSWORD}`)
    const answers = await login.send(
      `<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>${initial}</initial-response>${requestToken('HT-SHA-256-EXPR')}</authenticate>`,
    )
    expect(outcome(login, answers).success?.getChild('token', NS)).to.equal(undefined)
    expect((await byPassword(host, requestToken('HT-SHA-512-EXPR'))).token).to.equal(undefined)
    expect((await byPassword(host, `<request-token xmlns='${NS}'/>`)).token).to.equal(undefined)
    expect((await byPassword(host, `<fast xmlns='${NS}'/>`)).token).to.equal(undefined)
  })

  it('§3.3: tokens are not stored', async () => {
    await using host = await start()
    const token = await obtain(host)
    const docs = host.store.open('example.org', 'fast').docs('tokens')
    const stored = JSON.stringify(await docs.get('juliet', AGENT))
    expect(stored).to.contain('salt').and.not.contain(token)
  })

  it('survive a restart', async () => {
    const store = await openMemory({})
    let token: string
    {
      await using host = await start({}, store)
      token = await obtain(host)
    }
    await using host = await start({}, store)
    expect((await byToken(host, token)).success).to.not.equal(undefined)
  })

  it('§3.4: a token is bound to its mechanism, its installation and its account', async () => {
    await using host = await start()
    const token = await obtain(host, 'HT-SHA-256-ENDP')
    const no = 'not-authorized'
    expect((await byToken(host, token, { mechanism: 'HT-SHA-256-NONE' })).failure).to.equal(no)
    expect((await byToken(host, token, { mechanism: 'HT-SHA-256-EXPR' })).failure).to.equal(no)
    const mechanism = 'HT-SHA-256-ENDP'
    expect((await byToken(host, token, { mechanism, agent: OTHER })).failure).to.equal(no)
    expect((await byToken(host, token, { mechanism, user: 'romeo' })).failure).to.equal(no)
    expect((await byToken(host, token, { mechanism, user: 'nobody' })).failure).to.equal(no)
    expect((await byToken(host, 'x', { mechanism })).failure).to.equal(no)
    expect((await byToken(host, token, { mechanism })).failure).to.equal('')
  })

  it('§3.4: a token that is bound to another connection is refused', async () => {
    await using host = await start()
    const token = await obtain(host)
    const elsewhere: TlsInfo = { ...tls, channelBinding: () => Buffer.from('another connection') }
    expect((await byToken(host, token, { tls: elsewhere })).failure).to.equal('not-authorized')
  })

  it('§3.4, §4.1: what is missing or malformed', async () => {
    await using host = await start()
    const token = await obtain(host)
    expect((await byToken(host, token, { fast: '' })).failure).to.equal('malformed-request')
    expect((await byToken(host, token, { agent: undefined })).failure).to.equal('malformed-request')
    for (const count of ['0', '-1', 'x', ''])
      expect(
        (await byToken(host, token, { fast: `<fast xmlns='${NS}' count='${count}'/>` })).failure,
      ).to.equal('malformed-request')
    const login = await LoginStream.open(host, { tls })
    for (const text of ['juliet', '\0abc', 'juliet\0short'])
      expect(
        outcome(
          login,
          await login.send(
            `<authenticate xmlns='urn:xmpp:sasl:2' mechanism='HT-SHA-256-EXPR'><initial-response>${b64(text)}</initial-response>${agentOf(AGENT)}<fast xmlns='${NS}'/></authenticate>`,
          ),
        ).failure,
      ).to.equal('malformed-request')
  })

  it('§6: not without TLS, not with SASL of RFC 6120', async () => {
    await using host = await start()
    const token = await obtain(host, 'HT-SHA-256-NONE')
    const login = await LoginStream.open(host, { tls })
    const initial = Buffer.concat([Buffer.from('juliet\0'), macOf(token, 'Initiator', 'HT-SHA-256-NONE')])
    expect(await login.auth('HT-SHA-256-NONE', initial.toString('latin1'))).to.equal(
      'failure:invalid-mechanism',
    )
    const clear = await LoginStream.open(host)
    const [answer] = await clear.send(
      `<authenticate xmlns='urn:xmpp:sasl:2' mechanism='HT-SHA-256-NONE'><initial-response>${b64(initial)}</initial-response>${agentOf(AGENT)}<fast xmlns='${NS}'/></authenticate>`,
    )
    expect(answer?.getName()).to.equal('failure')
  })

  it('§3.4: a count that was used is not taken again', async () => {
    await using host = await start()
    const token = await obtain(host)
    const count = (n: number) => byToken(host, token, { fast: `<fast xmlns='${NS}' count='${n}'/>` })
    expect((await count(5)).failure).to.equal('')
    expect((await count(5)).failure).to.equal('not-authorized')
    expect((await count(4)).failure).to.equal('not-authorized')
    expect((await count(6)).failure).to.equal('')
    const both = await Promise.all([count(7), count(7)])
    expect(both.map((o) => o.failure).toSorted()).to.deep.equal(['', 'not-authorized'])
  })

  it('§4.2: an expired token is refused with credentials-expired', async () => {
    await using host = await start({ lifetime: '2h', rotateAfter: '1h' })
    const token = await obtain(host)
    await host.clock.advance(7_199_000)
    expect((await byToken(host, token)).failure).to.equal('')
    await host.clock.advance(1000)
    expect((await byToken(host, token)).failure).to.equal('credentials-expired')
  })

  it('§3.5: rotation: the old token lives until the new one is used', async () => {
    await using host = await start({ rotateAfter: '10min' })
    const old = await obtain(host)
    await host.clock.advance(600_000)
    const first = await byToken(host, old)
    expect(first.token).to.match(/^[\w-]{43}$/)
    const second = await byToken(host, old) // the answer was lost on the way
    expect(second.token).to.match(/^[\w-]{43}$/)
    expect((await byToken(host, first.token ?? '')).failure).to.equal('not-authorized') // was never used
    expect((await byToken(host, second.token ?? '')).failure).to.equal('')
    expect((await byToken(host, old)).failure).to.equal('not-authorized')
    expect((await byToken(host, second.token ?? '')).token).to.equal(undefined)
  })

  it('§3.5: one token when the client asks for one itself', async () => {
    await using host = await start({ rotateAfter: '10min' })
    const old = await obtain(host)
    await host.clock.advance(600_000)
    const { success } = await byToken(host, old, { inner: requestToken('HT-SHA-256-NONE') })
    expect(success?.getChildren('token', NS)).to.have.length(1)
    const token = String(success?.getChild('token', NS)?.attrs['token'])
    expect((await byToken(host, token, { mechanism: 'HT-SHA-256-NONE' })).failure).to.equal('')
  })

  for (const yes of ['true', '1'])
    it(`§3.6: invalidate='${yes}' ends the token, and none is given unasked`, async () => {
      await using host = await start({ rotateAfter: '10min' })
      const token = await obtain(host)
      await host.clock.advance(600_000)
      const last = await byToken(host, token, { fast: `<fast xmlns='${NS}' invalidate='${yes}'/>` })
      expect([last.failure, last.token]).to.deep.equal(['', undefined])
      expect((await byToken(host, token)).failure).to.equal('not-authorized')
    })

  it('§3.6: with <request-token/> there is a new one', async () => {
    await using host = await start()
    const token = await obtain(host)
    const changes = {
      fast: `<fast xmlns='${NS}' invalidate='true'/>`,
      inner: requestToken('HT-SHA-256-EXPR'),
    }
    const next = await byToken(host, token, changes)
    expect((await byToken(host, token)).failure).to.equal('not-authorized')
    expect((await byToken(host, next.token ?? '')).failure).to.equal('')
  })

  it('a new password and the end of the account end all tokens', async () => {
    await using host = await start()
    const tokens = [await obtain(host), await obtain(host, 'HT-SHA-256-EXPR', OTHER)]
    await host.service('auth').setPassword('juliet', 'another password')
    expect((await byToken(host, tokens[0] ?? '')).failure).to.equal('not-authorized')
    expect((await byToken(host, tokens[1] ?? '', { agent: OTHER })).failure).to.equal('not-authorized')
    await host.service('auth').setPassword('juliet', PASSWORD)
    const token = await obtain(host)
    await host.host.deleteAccount('juliet')
    await host.service('auth').create('juliet', PASSWORD)
    expect((await byToken(host, token)).failure).to.equal('not-authorized')
  })

  it('an account has tokens for so many installations', async () => {
    await using host = await start({ maxClients: 2 })
    const agents = [AGENT, OTHER, '22222222-4d72-4749-b3d3-740edbf87770']
    const tokens: string[] = []
    for (const agent of agents) {
      tokens.push(await obtain(host, 'HT-SHA-256-EXPR', agent))
      await host.clock.advance(1000)
    }
    const results: string[] = []
    for (const [i, agent] of agents.entries())
      results.push((await byToken(host, tokens[i] ?? '', { agent })).failure)
    expect(results).to.deep.equal(['not-authorized', '', ''])
  })

  it('a header that names somebody else', async () => {
    await using host = await start()
    const token = await obtain(host)
    const other = await byToken(host, token, { from: 'romeo@example.org' })
    expect(other.success).to.equal(undefined)
  })

  it('after unload neither offered nor taken', async () => {
    await using host = await start()
    const token = await obtain(host)
    await host.unload('fast')
    const after = await byToken(host, token)
    expect(offered(after.login)).to.deep.equal([])
    expect(after.failure).to.equal('invalid-mechanism')
  })

  it('with XEP-0198 and XEP-0386: after TLS one round trip brings the phone back to its session, token and all', async () => {
    await using host = await start()
    const enable = `<bind xmlns='urn:xmpp:bind:0'><enable xmlns='${NS_SM}' resume='true' max='600'/></bind>`
    const first = await byPassword(host, requestToken('HT-SHA-256-EXPR') + enable)
    const bound = first.success?.getChild('bound', 'urn:xmpp:bind:0')
    const id = String(bound?.getChild('enabled', NS_SM)?.attrs['id'])
    const jid = first.success?.getChildText('authorization-identifier') ?? ''
    await first.login.stream.drop()
    const romeo = await host.client('romeo@example.org/orchard')
    await romeo.send(`<message to='${jid}' type='chat' id='m'><body>Hi</body></message>`)
    await host.clock.advance(300_000)
    // header and request leave together: nothing is waited for
    const phone = host.stream({ tls })
    const initial = b64(
      Buffer.concat([Buffer.from('juliet\0'), macOf(first.token ?? '', 'Initiator', 'HT-SHA-256-EXPR')]),
    )
    const text = await phone.send(
      `<?xml version='1.0'?><stream:stream to='example.org' from='juliet@example.org' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'><authenticate xmlns='urn:xmpp:sasl:2' mechanism='HT-SHA-256-EXPR'><initial-response>${initial}</initial-response>${agentOf(AGENT)}<fast xmlns='${NS}' count='1'/><resume xmlns='${NS_SM}' previd='${id}' h='0'/>${enable}</authenticate>`,
    )
    expect(text.match(/<(?:stream:features|success|resumed|message|r)\b/g)).to.deep.equal([
      '<stream:features',
      '<success',
      '<resumed',
      '<message',
      '<r',
    ])
    expect(text).to.contain(jid)
  })

  it('a session that is resumed gets a new token too', async () => {
    await using host = await start({ rotateAfter: '1min' })
    const enable = `<bind xmlns='urn:xmpp:bind:0'><enable xmlns='${NS_SM}' resume='true'/></bind>`
    const first = await byPassword(host, requestToken('HT-SHA-256-EXPR') + enable)
    const id = String(
      first.success?.getChild('bound', 'urn:xmpp:bind:0')?.getChild('enabled', NS_SM)?.attrs['id'],
    )
    await host.clock.advance(120_000)
    const again = await byToken(host, first.token ?? '', {
      fast: '',
      inner: `<resume xmlns='${NS_SM}' previd='${id}' h='0'/><fast xmlns='${NS}'/>${enable}`,
    })
    expect(again.success?.getChild('resumed', NS_SM)).to.not.equal(undefined)
    expect(again.success?.getChild('bound', 'urn:xmpp:bind:0')).to.equal(undefined)
    expect(again.token).to.match(/^[\w-]{43}$/)
  })
})
