/** SASL of RFC 6120 §6 as a whole: real streams over a pipe, real accounts. The mechanisms themselves: sasl-scram, sasl-external. */
import { expect } from 'chai'
import fc from 'fast-check'
import { el } from '../../server/xmpp/element.ts'
import accounts from '../../modules/accounts/index.ts'
import authLimits from '../../modules/auth-limits.ts'
import sasl from '../../modules/sasl/index.ts'
import { type TestHost, testHost } from '../helpers/host.ts'
import { authElement, bindingData, bindingTls, LoginStream, outcome } from '../helpers/login.ts'
import { NS_SASL } from '../helpers/xml.ts'

const modules = [accounts, authLimits, sasl] as const
const tls = bindingTls()
const CLEAR = { sasl: { requireTls: false } }
const SHA_BASE = ['SCRAM-SHA-512', 'SCRAM-SHA-256', 'SCRAM-SHA-1']

/** A host with juliet. Few iterations, because these tests are not about them. */
async function start(config: Record<string, object> = {}): Promise<TestHost> {
  const host = await testHost({ modules, config: { accounts: { iterations: 4096 }, ...config } })
  await host.service('auth').create('juliet', 'r0m30myr0m30')
  return host
}
const plainly = (user: string, password: string, authzid = ''): string => `${authzid}\0${user}\0${password}`
const b64 = (text: string): string => Buffer.from(text).toString('base64')

describe('sasl: offers', () => {
  it('RFC 6120 §6.4.1: lists what the stream can use, strongest first', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    const plus = SHA_BASE.map((name) => `${name}-PLUS`)
    expect(login.mechanisms()).to.deep.equal([...plus, ...SHA_BASE, 'PLAIN'])
  })

  it('RFC 6120 §6.3.4: nothing is offered before TLS', async () => {
    await using host = await start()
    expect((await LoginStream.open(host)).offers).to.deep.equal([])
  })

  it('RFC 6120 §13.8.3: PLAIN and channel binding are not offered without TLS, where the rest is allowed', async () => {
    await using host = await start(CLEAR)
    const login = await LoginStream.open(host)
    expect(login.mechanisms()).to.deep.equal(SHA_BASE)
    expect(login.offers).to.deep.equal(['mechanisms'])
  })

  it('RFC 5802 §6: without channel bindings of the connection there is no -PLUS', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls: bindingTls({ channelBinding: () => undefined }) })
    expect(login.mechanisms()).to.deep.equal([...SHA_BASE, 'PLAIN'])
    expect(login.offers).to.deep.equal(['mechanisms'])
  })

  it('XEP-0440 §2: announces the channel bindings of this connection', async () => {
    await using host = await start()
    const announced = async (types: readonly string[]): Promise<(string | undefined)[]> => {
      const channelBinding = (type: string) => (types.includes(type) ? bindingData(type) : undefined)
      const login = await LoginStream.open(host, { tls: bindingTls({ channelBinding }) })
      const offer = login.features?.getChild('sasl-channel-binding', 'urn:xmpp:sasl-cb:0')
      return offer?.getChildren('channel-binding').map((child) => child.attrs['type']) ?? []
    }
    expect(await announced(['tls-exporter', 'tls-server-end-point'])).to.have.members([
      'tls-exporter',
      'tls-server-end-point',
    ])
    expect(await announced(['tls-server-end-point'])).to.deep.equal(['tls-server-end-point'])
  })

  it('offers only the mechanisms of the configuration', async () => {
    await using host = await start({ sasl: { mechanisms: ['SCRAM-SHA-256'] } })
    const login = await LoginStream.open(host, { tls })
    expect(login.mechanisms()).to.deep.equal(['SCRAM-SHA-256-PLUS', 'SCRAM-SHA-256'])
    expect(await login.auth('PLAIN', plainly('juliet', 'r0m30myr0m30'))).to.equal('failure:invalid-mechanism')
  })

  it('a host without accounts does not start', async () => {
    let problem: unknown
    await testHost({ modules: [sasl] }).catch((error: unknown) => (problem = error))
    expect(String(problem)).to.include('accounts')
  })

  it('after unload nothing is offered', async () => {
    await using host = await start()
    await host.unload('sasl')
    expect((await LoginStream.open(host, { tls })).offers).to.deep.equal([])
  })
})

describe('sasl: exchange', () => {
  it('RFC 6120 §6.4.6: success, then a new stream that acts for the account', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    expect(await login.scram('SCRAM-SHA-256', 'juliet', 'r0m30myr0m30')).to.equal('success')
    expect(login.stream.session.jid?.toString()).to.equal('juliet@example.org')
    await login.header()
    expect(login.offers).to.not.include('mechanisms')
  })

  it('RFC 6120 §6.4.2: without initial response the client is asked for one', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    expect(await login.auth('PLAIN')).to.equal('challenge')
    expect(await login.respond(plainly('juliet', 'r0m30myr0m30'))).to.equal('success')
  })

  it('RFC 6120 §6.4.2: "=" is an empty initial response', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    expect(outcome(await login.send(authElement('PLAIN', '=')))).to.equal('failure:malformed-request')
  })

  it('RFC 6120 §6.4.2: a second <auth/> replaces the exchange', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    expect(await login.auth('SCRAM-SHA-1', 'n,,n=juliet,r=abc')).to.match(/^challenge r=abc/)
    expect(await login.scram('SCRAM-SHA-256', 'juliet', 'r0m30myr0m30')).to.equal('success')
  })

  it('RFC 6120 §6.4.4: <abort/> is answered with aborted, and a new exchange is possible', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    await login.auth('SCRAM-SHA-1', 'n,,n=juliet,r=abc')
    const abort = `<abort xmlns='${NS_SASL}'/>`
    expect(outcome(await login.send(abort))).to.equal('failure:aborted')
    expect(await login.respond('c=biws,r=abc,p=AAAA')).to.equal('failure:malformed-request')
    expect(outcome(await login.send(abort))).to.equal('failure:aborted')
    expect(await login.scram('SCRAM-SHA-1', 'juliet', 'r0m30myr0m30')).to.equal('success')
  })

  it('RFC 6120 §6.5.8: a response to nothing, a challenge, and child elements are malformed', async () => {
    await using host = await start()
    for (const xml of [
      `<response xmlns='${NS_SASL}'>AAAA</response>`,
      `<challenge xmlns='${NS_SASL}'>AAAA</challenge>`,
      `<auth xmlns='${NS_SASL}' mechanism='PLAIN'><x xmlns='urn:x'/></auth>`,
    ]) {
      const login = await LoginStream.open(host, { tls })
      expect(outcome(await login.send(xml)), xml).to.equal('failure:malformed-request')
    }
  })

  it('RFC 6120 §6.5.7: unknown or no mechanism', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    expect(await login.auth('CRAM-MD5')).to.equal('failure:invalid-mechanism')
    expect(await login.auth('scram-sha-1', 'n,,n=juliet,r=abc')).to.equal('failure:invalid-mechanism')
    expect(outcome(await login.send(`<auth xmlns='${NS_SASL}'/>`))).to.equal('failure:invalid-mechanism')
    expect(await login.auth('ANONYMOUS')).to.equal('failure:invalid-mechanism')
  })

  it('RFC 6120 §6.5.4: PLAIN without TLS is refused with encryption-required, unread', async () => {
    await using host = await start(CLEAR)
    const login = await LoginStream.open(host)
    expect(await login.auth('PLAIN', plainly('juliet', 'r0m30myr0m30'))).to.equal(
      'failure:encryption-required',
    )
    expect(login.stream.session.jid).to.equal(undefined)
    expect(await login.scram('SCRAM-SHA-1', 'juliet', 'r0m30myr0m30')).to.equal('success')
  })

  it('RFC 6120 §6.5.4: no mechanism at all without TLS by default', async () => {
    await using host = await start()
    const login = await LoginStream.open(host)
    expect(await login.auth('SCRAM-SHA-1', 'n,,n=juliet,r=abc')).to.equal('failure:encryption-required')
  })

  it('RFC 6120 §6.3.5, RFC 4648 §3: only canonical base64 is read', async () => {
    await using host = await start()
    const good = b64(plainly('juliet', 'r0m30myr0m30')) // AGp1bGlldAByMG0zMG15cjBtMzA=
    const bad = [
      good.replace('=', ''), // no padding
      `${good}=`, // too much padding
      ` ${good}`, // white space
      `${good.slice(0, 8)}\n${good.slice(8)}`, // line breaks
      `${good.slice(0, 4)}=${good.slice(5)}`, // padding inside
      good.replace('A=', 'B='), // padding bits not zero
      good.replace('zA', '_A'), // another alphabet
      '!!!!',
    ]
    for (const text of bad) {
      const login = await LoginStream.open(host, { tls })
      expect(outcome(await login.send(authElement('PLAIN', text))), text).to.equal(
        'failure:incorrect-encoding',
      )
      await login.auth('PLAIN')
      const response = `<response xmlns='${NS_SASL}'>${text}</response>`
      expect(outcome(await login.send(response)), text).to.equal('failure:incorrect-encoding')
    }
  })

  it('RFC 6120 §6.4.6: a header that names somebody else ends the stream, before TLS it does not count', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls, from: 'romeo@example.org' })
    const end = await login.scram('SCRAM-SHA-256', 'juliet', 'r0m30myr0m30')
    expect(end).to.equal('failure:invalid-authzid error:invalid-from')
    expect(login.stream.closed).to.equal(true)
    const same = await LoginStream.open(host, { tls, from: 'Juliet@example.org/balcony' })
    expect(await same.scram('SCRAM-SHA-256', 'juliet', 'r0m30myr0m30')).to.equal('success')
    await using clear = await start(CLEAR)
    const unprotected = await LoginStream.open(clear, { from: 'romeo@example.org' })
    expect(await unprotected.scram('SCRAM-SHA-256', 'juliet', 'r0m30myr0m30')).to.equal('success')
  })

  it('XEP-0440 §2, RFC 6120 §6.4: what is no part of an exchange ends the stream', async () => {
    await using host = await start()
    for (const xml of [
      `<sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'/>`,
      `<mechanisms xmlns='${NS_SASL}'/>`,
    ]) {
      const login = await LoginStream.open(host, { tls })
      expect(outcome(await login.send(xml))).to.equal('error:unsupported-stanza-type')
    }
  })
})

describe('sasl: refusals and retries', () => {
  it('RFC 6120 §6.4.5: three retries after a wrong password, then policy-violation', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    for (let i = 0; i < 3; i++)
      expect(await login.scram('SCRAM-SHA-256', 'juliet', 'wrong')).to.equal('failure:not-authorized')
    expect(await login.auth('PLAIN', plainly('juliet', 'wrong'))).to.equal(
      'failure:not-authorized error:policy-violation',
    )
    expect(login.stream.closed).to.equal(true)
  })

  it('RFC 6120 §6.4.5: the right password after wrong ones', async () => {
    await using host = await start({ sasl: { retries: 2 } })
    const login = await LoginStream.open(host, { tls })
    for (let i = 0; i < 2; i++)
      expect(await login.scram('SCRAM-SHA-1', 'juliet', 'wrong')).to.equal('failure:not-authorized')
    expect(await login.scram('SCRAM-SHA-1', 'juliet', 'r0m30myr0m30')).to.equal('success')
  })

  it('failures without a guess are bounded too, at more than there are mechanisms', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    for (let i = 0; i < 12; i++) expect(await login.auth('NONSENSE')).to.equal('failure:invalid-mechanism')
    expect(await login.auth('NONSENSE')).to.equal('failure:invalid-mechanism error:policy-violation')
  })

  it('RFC 6120 §6.5.10: unknown users and wrong passwords look alike', async () => {
    await using host = await start()
    const seen = async (user: string): Promise<string[]> => {
      const login = await LoginStream.open(host, { tls })
      const first = await login.auth('SCRAM-SHA-256', `n,,n=${user},r=abc`)
      const again = await (await LoginStream.open(host, { tls })).auth('SCRAM-SHA-256', `n,,n=${user},r=abc`)
      const shape = (text: string) => text.replace(/[A-Za-z0-9+/=]/g, 'x')
      const salt = (text: string) => /s=([^,]*)/.exec(text)?.[1]
      const end = await login.scram('SCRAM-SHA-256', user, 'wrong')
      const plain = await login.auth('PLAIN', plainly(user, 'wrong'))
      return [
        shape(first),
        `same salt: ${salt(first) === salt(again)}`,
        /i=\d+/.exec(first)?.[0] ?? '',
        end,
        plain,
      ]
    }
    const known = await seen('juliet')
    expect(known).to.include('same salt: true')
    expect(await seen('nobody')).to.deep.equal(known)
  })

  it('RFC 6120 §6.5.11: a store that does not answer is a temporary failure', async () => {
    const lines: string[] = []
    await using host = await testHost({
      modules,
      onLog: (level, message) => void lines.push(`${level} ${message}`),
    })
    const auth = host.service('auth')
    Object.assign(auth.generations!, { scramKeys: () => Promise.reject(new Error('store away')) })
    const login = await LoginStream.open(host, { tls })
    expect(await login.auth('SCRAM-SHA-256', 'n,,n=juliet,r=abc')).to.equal('failure:temporary-auth-failure')
    expect(lines).to.include('error authentication failed on our side')
  })

  it('whatever bytes come, the answer is a challenge or a failure, and nothing is logged as our fault', async () => {
    const unlimited = { perAccount: 1e6, perAddress: 1e6 }
    await using host = await start({ sasl: { anonymous: true }, 'auth-limits': unlimited })
    const login = await LoginStream.open(host, { tls })
    const { session } = login.stream
    const service = host.service('sasl')
    const element = el('auth', NS_SASL)
    const likely = fc.stringMatching(
      /^[nyp]?(=tls-exporter)?,?(a=)?,?(n=juliet)?,?(r=a)?[,=\0mcrp]{0,4}[\s\S]{0,20}$/,
    )
    const bytes = fc.oneof(
      likely.map((text) => Buffer.from(text)),
      fc.uint8Array({ maxLength: 64 }),
    )
    const names = service.offers(session, 'sasl').filter((name) => name !== 'ANONYMOUS')
    const property = fc.asyncProperty(
      fc.constantFrom(...names),
      bytes,
      bytes,
      async (mechanism, one, two) => {
        const initial = Buffer.from(one).toString('base64')
        const first = await service.begin(session, { profile: 'sasl', mechanism, initial, element })
        expect(first.kind).to.be.oneOf(['challenge', 'failure'])
        const second = await service.respond(session, 'sasl', Buffer.from(two).toString('base64'))
        expect(second.kind).to.equal('failure')
        for (const reply of [first, second])
          if (reply.kind === 'failure') expect(reply.error.condition).to.not.equal('temporary-auth-failure')
      },
    )
    await fc.assert(property, { numRuns: 500 })
  })

  it('tells auth:result once for each attempt, and who was tried', async () => {
    await using host = await start()
    const told: string[] = []
    host.host.hooks.chain('auth:result').add({
      module: 'test',
      place: { phase: 'observe' },
      handle: (e) => void told.push(`${e.mechanism} ${e.local} ${e.error?.condition ?? 'in'} ${e.judged}`),
    })
    const login = await LoginStream.open(host, { tls })
    await login.auth('CRAM-MD5')
    await login.scram('SCRAM-SHA-1', 'JULIET', 'wrong')
    await login.auth('PLAIN', plainly('juliet', 'r0m30myr0m30', 'romeo@example.org'))
    await login.scram('SCRAM-SHA-1', 'JULIET', 'r0m30myr0m30')
    expect(told).to.deep.equal([
      '  invalid-mechanism false',
      'SCRAM-SHA-1 juliet not-authorized true',
      'PLAIN juliet invalid-authzid false',
      'SCRAM-SHA-1 juliet in true',
    ])
  })
})

describe('sasl: PLAIN (RFC 4616)', () => {
  const outcomeOf = async (initial: string): Promise<string> => {
    await using host = await start()
    return await (await LoginStream.open(host, { tls })).auth('PLAIN', initial)
  }

  it("§2: name and password, with or without one's own address", async () => {
    expect(await outcomeOf('\0juliet\0r0m30myr0m30')).to.equal('success')
    expect(await outcomeOf('juliet@example.org\0juliet\0r0m30myr0m30')).to.equal('success')
  })

  it('§2, RFC 8265 §3.3: the name is prepared', async () => {
    expect(await outcomeOf('\0JULIET\0r0m30myr0m30')).to.equal('success')
    expect(await outcomeOf('\0ｊuliet\0r0m30myr0m30')).to.equal('success')
  })

  it('§2: exactly three fields, name and password not empty, UTF-8', async () => {
    for (const message of [
      'juliet\0r0m30myr0m30',
      '\0juliet\0r0m30myr0m30\0',
      '\0\0r0m30myr0m30',
      '\0juliet\0',
      'juliet',
    ]) {
      expect(await outcomeOf(message), JSON.stringify(message)).to.equal('failure:malformed-request')
    }
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    const latin1 = Buffer.from('\0juliet\0caf\xe9', 'latin1').toString('base64')
    expect(outcome(await login.send(authElement('PLAIN', latin1)))).to.equal('failure:malformed-request')
  })

  it('RFC 6120 §6.3.8: another authorization identity is never ignored', async () => {
    for (const authzid of [
      'romeo@example.org',
      'juliet@example.com',
      'juliet@example.org/balcony',
      'juliet',
      'example.org',
      'not an address@@',
    ]) {
      expect(await outcomeOf(`${authzid}\0juliet\0r0m30myr0m30`), authzid).to.equal('failure:invalid-authzid')
    }
  })

  it('names that no account can have are not authorized', async () => {
    for (const name of ['juliet@example.org', 'a b', '\u2163', 'x'.repeat(1100)])
      expect(await outcomeOf(`\0${name}\0r0m30myr0m30`), name).to.equal('failure:not-authorized')
  })
})
