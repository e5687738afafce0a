/** @xmpp/client resumes its session after the connection was cut, within a login by token (XEP-0388, XEP-0386, XEP-0484, XEP-0198 §9.2). */
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { startServer } from '../helpers/server.ts'
import { startTcpProxy } from '../helpers/tcp-proxy.ts'
import { resumptionTests } from './resumption.ts'
import { startXmppClient } from './xmpp-client.ts'

describe('@xmpp/client resumes (XEP-0198 §5)', () => {
  resumptionTests({ start: startXmppClient, directTls: true, resends: true })

  it('XEP-0484: the first login is by password, the others by token; each resumes within <success/>', async function () {
    this.timeout(60_000)
    await using server = await startServer()
    await using proxy = await startTcpProxy(server.ports.c2sTls)
    await server.addUser('one', 'a good password')
    const { domain, ca } = server
    await using client = startXmppClient({ jid: `one@${domain}`, password: 'a good password', ca, domain })
    client.connect(proxy.port)
    const { jid } = await client.next('session_start')
    for (let i = 0; i < 3; i++) {
      proxy.cut()
      await client.next('disconnected')
      client.connect(proxy.port)
      expect((await client.next('session_resumed', 'session_start')).event).to.equal('session_resumed')
    }
    // Bind 2 asks for stream management too; from the second time on it is there in case that nothing can be resumed
    const logins = client.told.filter(({ event }) => event === 'authenticate')
    expect(logins.map(({ mechanism, asks }) => [mechanism, asks])).to.deep.equal([
      ['SCRAM-SHA-1', ['initial-response', 'user-agent', 'bind', 'request-token']],
      ...Array.from({ length: 3 }, () => [
        'HT-SHA-256-NONE',
        ['initial-response', 'user-agent', 'bind', 'resume', 'fast'],
      ]),
    ])
    const sessions = [...(server.server.hosts.get(domain)?.all() ?? [])].map((session) =>
      session.jid.toString(),
    )
    expect(sessions).to.deep.equal([jid])
  })

  it('a canary: a wrong password does not log in', async function () {
    this.timeout(60_000)
    await using server = await startServer()
    await server.addUser('one', 'a good password')
    const { domain, ca } = server
    await using client = startXmppClient({ jid: `one@${domain}`, password: 'a wrong password', ca, domain })
    client.connect(server.ports.c2sTls)
    expect((await client.next('error', 'session_start')).text).to.contain('not-authorized')
  })
})
