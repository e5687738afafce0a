/** SCRAM: test vectors of RFC 5802, RFC 7677, XEP-0474 and XEP-0515, and everything a client can get wrong. */
import { createHash, createHmac, pbkdf2Sync } from 'node:crypto'
import { expect } from 'chai'
import type { AuthService, ScramHash, ScramKeys, TlsInfo } from '../../server/module.ts'
import { SaslError } from '../../server/xmpp/errors.ts'
import accounts from '../../modules/accounts/index.ts'
import sasl from '../../modules/sasl/index.ts'
import type { Attempt } from '../../modules/sasl/mechanism.ts'
import { scram } from '../../modules/sasl/scram.ts'
import { type TestHost, testHost } from '../helpers/host.ts'
import { bindingData, bindingTls, LoginStream } from '../helpers/login.ts'

const NODE_NAMES: Record<ScramHash, string> = { 'SHA-1': 'sha1', 'SHA-256': 'sha256', 'SHA-512': 'sha512' }

/** RFC 5802 §3, written down a second time. */
function keysFor(hash: ScramHash, password: string, salt: Buffer, iterations: number): ScramKeys {
  const name = NODE_NAMES[hash]
  const length = createHash(name).digest().length
  const salted = pbkdf2Sync(password, salt, iterations, length, name)
  const clientKey = createHmac(name, salted).update('Client Key').digest()
  const serverKey = createHmac(name, salted).update('Server Key').digest()
  return { salt, iterations, storedKey: createHash(name).update(clientKey).digest(), serverKey }
}

/** A dialogue with one mechanism, without streams: each message of the client against what the server must answer. */
async function dialogue(opts: {
  readonly hash: ScramHash
  readonly plus?: boolean
  readonly protect?: boolean
  readonly salt: string
  readonly serverNonce: string
  readonly tls?: TlsInfo
  readonly offered?: readonly string[]
  readonly messages: readonly [clientFirst: string, serverFirst: string, clientFinal: string]
}): Promise<string> {
  const keys = keysFor(opts.hash, 'pencil', Buffer.from(opts.salt, 'base64'), 4096)
  const auth: Partial<AuthService> = {
    scramHashes: ['SHA-1', 'SHA-256', 'SHA-512'],
    scramKeys: async (local) => (local === 'user' ? keys : undefined),
    decoyKeys: () => keys,
  }
  const env = { host: 'example.org', auth: () => auth as AuthService, hashes: () => [opts.hash] }
  const name = `SCRAM-${opts.hash}${opts.plus === true ? '-PLUS' : ''}`
  const mechanism = scram(env, opts.protect === true, () => opts.serverNonce).find((m) => m.name === name)
  const attempt: Partial<Attempt> = {
    session: { tls: opts.tls } as Attempt['session'],
    offered: opts.offered ?? [],
    bindings: opts.tls === undefined ? [] : ['tls-exporter', 'tls-server-end-point'],
    account: (authcid) => authcid,
    authorize: () => undefined,
    wrong: () => new SaslError('not-authorized'),
  }
  const first = await mechanism!.start(attempt as Attempt)(Buffer.from(opts.messages[0]))
  if (!('challenge' in first)) throw new Error('success without a proof')
  expect(Buffer.from(first.challenge).toString()).to.equal(opts.messages[1])
  const last = await first.next(Buffer.from(opts.messages[2]))
  if (!('local' in last)) throw new Error('no end')
  expect(last.local).to.equal('user')
  return Buffer.from(last.data ?? []).toString()
}

describe('scram: test vectors', () => {
  it('RFC 5802 §5: SCRAM-SHA-1', async () => {
    const end = await dialogue({
      hash: 'SHA-1',
      salt: 'QSXCR+Q6sek8bf92',
      serverNonce: '3rfcNHYJY1ZVvWVs7j',
      messages: [
        'n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL',
        'r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096',
        'c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=',
      ],
    })
    expect(end).to.equal('v=rmF9pqV8S7suAoZWja4dJRkFsKQ=')
  })

  it('RFC 7677 §3: SCRAM-SHA-256', async () => {
    const end = await dialogue({
      hash: 'SHA-256',
      salt: 'W22ZaJ0SNY7soEsUEjb6gQ==',
      serverNonce: '%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0',
      messages: [
        'n,,n=user,r=rOprNGfwEbeRWgbNEkqO',
        'r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096',
        'c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=',
      ],
    })
    expect(end).to.equal('v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=')
  })

  it('SCRAM-SHA-512: an exchange computed apart from the server', async () => {
    const keys = keysFor('SHA-512', 'pencil', Buffer.from('QSXCR+Q6sek8bf92', 'base64'), 4096)
    const salted = pbkdf2Sync('pencil', Buffer.from('QSXCR+Q6sek8bf92', 'base64'), 4096, 64, 'sha512')
    const clientKey = createHmac('sha512', salted).update('Client Key').digest()
    const authMessage = 'n=user,r=abc,r=abcdef,s=QSXCR+Q6sek8bf92,i=4096,c=biws,r=abcdef'
    const signature = createHmac('sha512', keys.storedKey).update(authMessage).digest()
    // oxlint-disable-next-line no-bitwise -- RFC 5802 §3
    const proof = Buffer.from(clientKey.map((byte, i) => byte ^ (signature[i] ?? 0)))
    const end = await dialogue({
      hash: 'SHA-512',
      salt: 'QSXCR+Q6sek8bf92',
      serverNonce: 'def',
      messages: [
        'n,,n=user,r=abc',
        'r=abcdef,s=QSXCR+Q6sek8bf92,i=4096',
        `c=biws,r=abcdef,p=${proof.toString('base64')}`,
      ],
    })
    expect(end).to.equal(`v=${createHmac('sha512', keys.serverKey).update(authMessage).digest('base64')}`)
  })

  const example = {
    hash: 'SHA-1',
    plus: true,
    protect: true,
    salt: 'QSXCR+Q6sek8bf92',
    serverNonce: 'a09117a6-ac50-4f2f-93f1-93799c2bddf6',
    offered: ['SCRAM-SHA-1', 'SCRAM-SHA-1-PLUS'],
  } as const
  const NONCE = '12C4CD5C-E38E-4A98-8F6D-15C38F51CCC6a09117a6-ac50-4f2f-93f1-93799c2bddf6'
  const BOUND = 'cD10bHMtZXhwb3J0ZXIsLFRISVMgSVMgRkFLRSBDQiBEQVRB'
  const channelBinding = () => Buffer.from('THIS IS FAKE CB DATA')
  const FIRST = 'p=tls-exporter,,n=user,r=12C4CD5C-E38E-4A98-8F6D-15C38F51CCC6'

  it('XEP-0474 §6.3: hash of the offers, and an unknown attribute of the client', async () => {
    const end = await dialogue({
      ...example,
      tls: bindingTls({ channelBinding, protocol: 'unknown' }),
      messages: [
        FIRST,
        `r=${NONCE},s=QSXCR+Q6sek8bf92,i=4096,h=G6k/rBLDqgOhRRaCuuatSDFkJ08=`,
        `c=${BOUND},r=${NONCE},x=19C6532F-1CF4-4A27-A18D-DC9CEA41BBB3,p=M/SIDjT+dfcxUh89jZEypRvFxB4=`,
      ],
    })
    expect(end).to.equal('v=MQrMPvv7yv4x4Cq4W4Ih25EqS2c=')
  })

  it('XEP-0515 §4.3: TLS version', async () => {
    const end = await dialogue({
      ...example,
      tls: bindingTls({ channelBinding }),
      messages: [
        FIRST,
        `r=${NONCE},s=QSXCR+Q6sek8bf92,i=4096,h=G6k/rBLDqgOhRRaCuuatSDFkJ08=,t=0304`,
        `c=${BOUND},r=${NONCE},p=KHUfN8dSy1K95crT4D5y1ItLJfs=`,
      ],
    })
    expect(end).to.equal('v=3w34ZIMVRkx2f2Ozb3/ecRPVdv4=')
  })
})

async function start(config: object = {}): Promise<TestHost> {
  const options = { accounts: { iterations: 4096 }, sasl: config }
  const host = await testHost({ modules: [accounts, sasl], config: options })
  await host.service('auth').create('juliet', 'r0m30myr0m30')
  return host
}
const tls = bindingTls()
const ALL = ['SCRAM-SHA-1', 'SCRAM-SHA-256', 'SCRAM-SHA-512'] as const

describe('scram: logins', () => {
  for (const mechanism of ALL) {
    it(`${mechanism} without and with both channel bindings`, async () => {
      await using host = await start()
      const without = await LoginStream.open(host, { tls })
      expect(await without.scram(mechanism, 'juliet', 'r0m30myr0m30')).to.equal('success')
      for (const type of ['tls-exporter', 'tls-server-end-point']) {
        const login = await LoginStream.open(host, { tls })
        const opts = { gs2: `p=${type},,`, binding: bindingData(type) }
        expect(await login.scram(`${mechanism}-PLUS`, 'juliet', 'r0m30myr0m30', opts), type).to.equal(
          'success',
        )
      }
    })
  }

  it('RFC 8265 §3.3: the name is prepared, the message counts as it was sent (RFC 5802 §5.1)', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    expect(await login.scram('SCRAM-SHA-256', 'Ｊuliet', 'r0m30myr0m30')).to.equal('success')
    expect(login.stream.session.jid?.toString()).to.equal('juliet@example.org')
  })

  it("RFC 5802 §5.1 a: one's own bare address", async () => {
    await using host = await start()
    for (const [authzid, result] of [
      ['juliet@example.org', 'success'],
      ['Juliet@EXAMPLE.org', 'success'],
      ['romeo@example.org', 'failure:invalid-authzid'],
      ['juliet@example.org/balcony', 'failure:invalid-authzid'],
      ['juliet', 'failure:invalid-authzid'],
      ['juliet=40example.org', 'failure:malformed-request'],
    ] as const) {
      const login = await LoginStream.open(host, { tls })
      const opts = { gs2: `n,a=${authzid},` }
      expect(await login.scram('SCRAM-SHA-256', 'juliet', 'r0m30myr0m30', opts), authzid).to.equal(result)
    }
  })

  it('names with "=" and "," are sent as =3D and =2C (RFC 5802 §5.1 n)', async () => {
    await using host = await start()
    await host.service('auth').create('a=b,c', 'r0m30myr0m30')
    const login = await LoginStream.open(host, { tls })
    expect(await login.scram('SCRAM-SHA-1', 'a=b,c', 'r0m30myr0m30')).to.equal('success')
  })

  it('XEP-0474 §6.1: the hash covers the offers of this stream; without it when switched off', async () => {
    await using host = await start({ mechanisms: ['SCRAM-SHA-256', 'PLAIN'] })
    const login = await LoginStream.open(host, { tls })
    const list = 'PLAIN\x1eSCRAM-SHA-256\x1eSCRAM-SHA-256-PLUS\x1ftls-exporter\x1etls-server-end-point'
    const hash = createHash('sha256').update(list).digest('base64')
    expect(await login.auth('SCRAM-SHA-256', 'n,,n=juliet,r=abc')).to.match(/,i=4096,h=[^,]+,t=0304$/)
    expect(await login.auth('SCRAM-SHA-256', 'n,,n=juliet,r=abc')).to.include(`,h=${hash},t=0304`)
    await using off = await start({ downgradeProtection: false })
    const old = await LoginStream.open(off, { tls: bindingTls({ protocol: 'TLSv1.2' }) })
    expect(await old.auth('SCRAM-SHA-256', 'n,,n=juliet,r=abc')).to.match(/,i=4096$/)
  })

  it('RFC 5802 §5.1 r: the server adds its own part to the nonce, a new one each time', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    const nonces = new Set<string>()
    for (let i = 0; i < 3; i++) {
      const nonce = /^challenge r=abc([^,]{24}),/.exec(
        await login.auth('SCRAM-SHA-1', 'n,,n=juliet,r=abc'),
      )?.[1]
      nonces.add(nonce ?? '')
    }
    expect(nonces.size).to.equal(3)
    expect(nonces.has('')).to.equal(false)
  })
})

describe('scram: first message (RFC 5802 §7)', () => {
  const bad: readonly (readonly [string, string])[] = [
    ['empty', ' '],
    ['no GS2 header', 'n=juliet,r=abc'],
    ['unknown flag', 'x,,n=juliet,r=abc'],
    ['flag without its comma', 'n,n=juliet,r=abc'],
    ['p without a name', 'p=,,n=juliet,r=abc'],
    ['p with an impossible name', 'p=tls exporter,,n=juliet,r=abc'],
    ['authzid without a=', 'n,juliet@example.org,n=juliet,r=abc'],
    ['empty authzid', 'n,a=,n=juliet,r=abc'],
    ['no name', 'n,,r=abc'],
    ['empty name', 'n,,n=,r=abc'],
    ['"=" in the name', 'n,,n=jul=iet,r=abc'],
    ['lower case escape', 'n,,n=jul=2ciet,r=abc'],
    ['NUL in the name', 'n,,n=jul\0iet,r=abc'],
    ['no nonce', 'n,,n=juliet'],
    ['empty nonce', 'n,,n=juliet,r='],
    ['space in the nonce', 'n,,n=juliet,r=a bc'],
    ['nonce beyond ASCII', 'n,,n=juliet,r=äbc'],
    ['nonce before name', 'n,,r=abc,n=juliet'],
    ['reserved extension m=', 'n,,m=ext,n=juliet,r=abc'],
    ['reserved extension m= at the end', 'n,,n=juliet,r=abc,m=ext'],
    ['second name', 'n,,n=juliet,r=abc,n=romeo'],
    ['attribute without value', 'n,,n=juliet,r=abc,x='],
    ['no attribute', 'n,,n=juliet,r=abc,'],
  ]
  for (const [what, message] of bad) {
    it(`malformed: ${what}`, async () => {
      await using host = await start()
      const login = await LoginStream.open(host, { tls })
      expect(await login.auth('SCRAM-SHA-256', message)).to.equal('failure:malformed-request')
    })
  }

  it('unknown attributes are ignored', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    expect(await login.auth('SCRAM-SHA-256', 'n,,n=juliet,r=abc,x=1,Y=2=3')).to.match(/^challenge r=abc/)
  })
})

describe('scram: channel binding (RFC 5802 §6)', () => {
  const cases: readonly (readonly [string, string, string, string])[] = [
    ['y although -PLUS was offered', 'SCRAM-SHA-256', 'y,,', 'not-authorized'],
    ['y with -PLUS', 'SCRAM-SHA-256-PLUS', 'y,,', 'not-authorized'],
    ['n with -PLUS', 'SCRAM-SHA-256-PLUS', 'n,,', 'malformed-request'],
    ['p without -PLUS', 'SCRAM-SHA-256', 'p=tls-exporter,,', 'malformed-request'],
    ['p with a type that was not offered', 'SCRAM-SHA-256-PLUS', 'p=tls-unique,,', 'malformed-request'],
  ]
  for (const [what, mechanism, gs2, condition] of cases) {
    it(what, async () => {
      await using host = await start()
      const login = await LoginStream.open(host, { tls })
      expect(await login.auth(mechanism, `${gs2}n=juliet,r=abc`)).to.equal(`failure:${condition}`)
    })
  }

  it('y is right where no -PLUS was offered', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls: bindingTls({ channelBinding: () => undefined }) })
    expect(await login.scram('SCRAM-SHA-256', 'juliet', 'r0m30myr0m30', { gs2: 'y,,' })).to.equal('success')
  })

  it('binding to another connection', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    const opts = { gs2: 'p=tls-exporter,,', binding: Buffer.from('data of the attacker') }
    expect(await login.scram('SCRAM-SHA-256-PLUS', 'juliet', 'r0m30myr0m30', opts)).to.equal(
      'failure:not-authorized',
    )
  })

  it('a client that only knows tls-unique gets through with a fallback, before it is sent away', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    for (const name of ['SCRAM-SHA-512', 'SCRAM-SHA-256', 'SCRAM-SHA-1']) {
      expect(await login.auth(`${name}-PLUS`, 'p=tls-unique,,n=juliet,r=abc')).to.equal(
        'failure:malformed-request',
      )
      expect(await login.auth(name, 'y,,n=juliet,r=abc')).to.equal('failure:not-authorized')
    }
    expect(await login.auth('PLAIN', '\0juliet\0r0m30myr0m30')).to.equal('success')
  })
})

describe('scram: final message (RFC 5802 §5.1, §7)', () => {
  const cases = {
    'c= that is not the header sent': [{ c: 'eSws' }, 'not-authorized'], // y,,
    'c= of something else': [{ c: 'biwt' }, 'not-authorized'],
    'c= that is no base64': [{ c: '!' }, 'malformed-request'],
    'another nonce': [{ r: 'abc' }, 'not-authorized'],
    'a proof of another length': [{ proof: 'AAAA' }, 'not-authorized'],
    'a proof that is no base64': [{ proof: 'A' }, 'malformed-request'],
    'an empty proof': [{ proof: '' }, 'malformed-request'],
    'mandatory extension': [{ tail: ',m=ext' }, 'malformed-request'],
    'known attribute out of place': [{ tail: ',s=AAAA' }, 'malformed-request'],
    'two proofs': [{ tail: ',p=AAAA' }, 'malformed-request'],
    'unknown extension': [{ tail: ',x=1' }, ''],
  } as const
  for (const [what, [overrides, condition]] of Object.entries(cases)) {
    it(what, async () => {
      await using host = await start()
      const login = await LoginStream.open(host, { tls })
      const end = await login.scram('SCRAM-SHA-256', 'juliet', 'r0m30myr0m30', overrides)
      expect(end).to.equal(condition === '' ? 'success' : `failure:${condition}`)
    })
  }

  it('an exchange ends with its failure: the right answer afterwards is too late', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    await login.auth('SCRAM-SHA-256', 'n,,n=juliet,r=abc')
    expect(await login.respond('nonsense')).to.equal('failure:malformed-request')
    expect(await login.respond('nonsense')).to.equal('failure:malformed-request')
    expect(login.stream.session.is('authenticated')).to.equal(false)
  })

  it('an answer to one exchange is none to the next (replay)', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    let old = ''
    const tamper = (serverFirst: string) => {
      old = /^r=([^,]*)/.exec(serverFirst)?.[1] ?? ''
      return {}
    }
    expect(await login.scram('SCRAM-SHA-256', 'juliet', 'wrong', { nonce: 'abc', tamper })).to.equal(
      'failure:not-authorized',
    )
    expect(await login.scram('SCRAM-SHA-256', 'juliet', 'r0m30myr0m30', { nonce: 'abc', r: old })).to.equal(
      'failure:not-authorized',
    )
  })
})
