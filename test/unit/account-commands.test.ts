/** What the command line does with accounts, over the real accounts module. */
import { createHash, createHmac, pbkdf2Sync } from 'node:crypto'
import { expect } from 'chai'
import accounts from '../../modules/accounts/index.ts'
import vcard from '../../modules/vcard.ts'
import { runAccountCommand } from '../../server/account-commands.ts'
import type { ControlAnswer } from '../../server/control.ts'
import { type TestHost, testHost } from '../helpers/host.ts'
import { ask } from '../helpers/iq.ts'
import { openFaulty } from '../robustness/faulty-store.ts'

const run = (h: TestHost, command: string, ...args: string[]): Promise<ControlAnswer> =>
  runAccountCommand(new Map([[h.host.name, h.host]]), { command, args })
const said = async (h: TestHost, command: string, ...args: string[]): Promise<string> => {
  const answer = await run(h, command, ...args)
  return 'lines' in answer ? answer.lines.join('; ') : `error: ${answer.error}`
}
const verona = (): Promise<TestHost> => testHost({ modules: [accounts, vcard] })

describe('account commands', function () {
  this.timeout(30_000) // keys of passwords are slow to derive on purpose

  it('user.add makes an account that can log in', async () => {
    await using h = await verona()
    expect(await said(h, 'user.add', 'romeo@example.org', 'secret')).to.equal('added romeo@example.org')
    expect(await h.service('auth').verify('romeo', 'secret')).to.equal(true)
    expect(await said(h, 'user.add', 'romeo@example.org', 'other')).to.equal(
      'error: there is an account romeo@example.org already',
    )
    expect(await h.service('auth').verify('romeo', 'secret')).to.equal(true)
  })

  it('user.add prepares the name (RFC 7622 §3.3)', async () => {
    await using h = await verona()
    expect(await said(h, 'user.add', 'Roméo@EXAMPLE.org', 'secret')).to.equal('added roméo@example.org')
    expect(await said(h, 'user.list')).to.equal('roméo@example.org')
  })

  it('user.import makes an account from the keys of another server (RFC 5803 §2)', async () => {
    await using h = await verona()
    // RFC 5802 §5 and RFC 7677 §3: password "pencil"
    const keys = (hash: string, bytes: number, salt: string): string => {
      const name = hash.toLowerCase().replace('-', '')
      const salted = pbkdf2Sync('pencil', Buffer.from(salt, 'base64'), 4096, bytes, name)
      const mac = (text: string): Buffer => createHmac(name, salted).update(text).digest()
      const stored = createHash(name).update(mac('Client Key')).digest('base64')
      return `SCRAM-${hash}$4096:${salt}$${stored}:${mac('Server Key').toString('base64')}`
    }
    const sha1 = keys('SHA-1', 20, 'QSXCR+Q6sek8bf92')
    const sha256 = keys('SHA-256', 32, 'W22ZaJ0SNY7soEsUEjb6gQ==')
    expect(await said(h, 'user.import', 'romeo@example.org', sha1, ` ${sha256} `)).to.equal(
      'added romeo@example.org',
    )
    expect(await said(h, 'user.info', 'romeo@example.org')).to.contain('hashes: SHA-1, SHA-256')
    expect(await h.service('auth').verify('romeo', 'pencil')).to.equal(true)
    expect(await said(h, 'user.import', 'romeo@example.org', sha1)).to.equal(
      'error: there is an account romeo@example.org already',
    )
    const wrong = /^error: line 2 is not SCRAM-SHA-\.\.\.\$iterations:salt\$StoredKey:ServerKey$/
    for (const second of [
      'pencil',
      sha256.replace('SHA-256', 'SHA-224'),
      sha256.replace('==', ''),
      sha256.replace('4096', 'many'),
      sha256.replace(':W22', ':$22'),
    ])
      expect(await said(h, 'user.import', 'juliet@example.org', sha1, second)).to.match(wrong)
    expect(await said(h, 'user.import', 'juliet@example.org', sha1, sha1)).to.equal(
      'error: line 2 is for the same hash as another one',
    )
    for (const bad of [[], [sha1.replace('4096', '1024')], [sha256.replace('SHA-256', 'SHA-1')]])
      expect(await said(h, 'user.import', 'juliet@example.org', ...bad)).to.match(/^error: not-acceptable: /)
    expect(await said(h, 'user.list')).to.equal('romeo@example.org')
  })

  it('user.passwd changes the password of an account that exists', async () => {
    await using h = await verona()
    await said(h, 'user.add', 'romeo@example.org', 'old')
    expect(await said(h, 'user.passwd', 'romeo@example.org', 'new')).to.equal(
      'changed the password of romeo@example.org',
    )
    expect(await h.service('auth').verify('romeo', 'new')).to.equal(true)
    expect(await h.service('auth').verify('romeo', 'old')).to.equal(false)
    expect(await said(h, 'user.passwd', 'juliet@example.org', 'x')).to.equal(
      'error: there is no account juliet@example.org',
    )
  })

  it('user.add and user.passwd refuse a password that cannot be prepared (RFC 8265 §4.2)', async () => {
    await using h = await verona()
    await said(h, 'user.add', 'romeo@example.org', 'old')
    for (const [command, who] of [
      ['user.add', 'juliet@example.org'],
      ['user.passwd', 'romeo@example.org'],
    ] as const)
      for (const password of ['', 'tab\there'])
        expect(await said(h, command, who, password)).to.match(/^error: /)
    expect(await said(h, 'user.list')).to.equal('romeo@example.org')
    expect(await h.service('auth').verify('romeo', 'old')).to.equal(true)
  })

  it('user.list sorts, for one host or for all', async () => {
    await using h = await verona()
    expect(await said(h, 'user.list')).to.equal('')
    for (const local of ['tybalt', 'juliet', 'romeo']) await said(h, 'user.add', `${local}@example.org`, 'pw')
    const sorted = 'juliet@example.org; romeo@example.org; tybalt@example.org'
    expect(await said(h, 'user.list')).to.equal(sorted)
    expect(await said(h, 'user.list', 'example.org')).to.equal(sorted)
    expect(await said(h, 'user.list', 'example.net')).to.equal(
      'error: this server does not serve example.net (it serves example.org)',
    )
  })

  it('user.info tells when, where from, and no secret', async () => {
    await using h = await verona()
    await said(h, 'user.add', 'romeo@example.org', 'secret')
    await h.client('romeo@example.org/orchard', { remoteAddress: '192.0.2.7' })
    const lines = (await said(h, 'user.info', 'romeo@example.org')).split('; ')
    expect(lines[0]).to.equal('account: romeo@example.org')
    expect(lines.at(-1)).to.equal('resource: orchard (192.0.2.7)')
    expect(lines.join(' ')).to.contain('2026-01-01')
    expect(lines.join(' ')).not.to.contain('secret')
    expect(await said(h, 'user.info', 'juliet@example.org')).to.equal(
      'error: there is no account juliet@example.org',
    )
  })

  it('user.del removes everything the account has, and ends its streams (RFC 6120 §4.9.3.12)', async () => {
    await using h = await verona()
    await said(h, 'user.add', 'romeo@example.org', 'secret')
    const romeo = await h.client('romeo@example.org/orchard')
    await ask(romeo, 'set', undefined, "<vCard xmlns='vcard-temp'><FN>Romeo</FN></vCard>")
    expect(await said(h, 'user.del', 'romeo@example.org')).to.equal(
      'removed romeo@example.org and everything it had here',
    )
    await h.settle()
    expect(romeo.closed).to.equal(true)
    expect(romeo.error?.firstElement()?.name).to.equal('not-authorized')
    expect(await said(h, 'user.list')).to.equal('')
    expect(await h.store.open('example.org', 'vcard').docs('cards').get('romeo', 'vcard')).to.equal(undefined)
    expect(await said(h, 'user.del', 'romeo@example.org')).to.equal(
      'error: there is no account romeo@example.org',
    )
  })

  it('user.del once more removes what a store that failed has left of an account', async () => {
    const store = await openFaulty()
    await using h = await testHost({ modules: [accounts, vcard], store })
    await said(h, 'user.add', 'romeo@example.org', 'secret')
    const cards = h.store.open('example.org', 'vcard').docs<{ readonly xml: string }>('cards')
    await cards.put('romeo', 'vcard', { xml: '<vCard/>' })
    store.only = /^store\.purgeOwner$/
    store.fault = 'reject'
    const failure = await run(h, 'user.del', 'romeo@example.org').then(
      () => 'answered',
      () => 'rose',
    )
    expect(failure).to.equal('rose')
    store.fault = 'none'
    expect(await said(h, 'user.del', 'romeo@example.org')).to.equal(
      'error: there is no account romeo@example.org',
    )
    expect(await cards.get('romeo', 'vcard')).to.equal(undefined)
  })

  it('an account that was removed can be made again, without what the old one had', async () => {
    await using h = await verona()
    await said(h, 'user.add', 'romeo@example.org', 'old')
    await said(h, 'user.del', 'romeo@example.org')
    expect(await said(h, 'user.add', 'romeo@example.org', 'new')).to.equal('added romeo@example.org')
    expect(await h.service('auth').verify('romeo', 'old')).to.equal(false)
    expect(await h.service('auth').verify('romeo', 'new')).to.equal(true)
  })

  for (const [address, why] of [
    ['example.org', /^error: "example\.org" is not the address of an account \(user@host\)$/],
    ['romeo@example.org/orchard', /is not the address of an account/],
    ['@', /^error: "@" is not an address: /],
    ['', /^error: "" is not an address: /],
    ['ro meo@example.org', /is not an address: /],
    ['romeo@example.net', /^error: this server does not serve example\.net \(it serves example\.org\)$/],
  ] as const)
    it(`"${address}" is refused with a reason`, async () => {
      await using h = await verona()
      for (const command of ['user.add', 'user.passwd', 'user.del', 'user.info'])
        expect(await said(h, command, address, 'pw')).to.match(why)
    })

  it('an unknown command is refused', async () => {
    await using h = await verona()
    await said(h, 'user.add', 'romeo@example.org', 'pw')
    expect(await said(h, 'user.rename', 'romeo@example.org')).to.equal('error: unknown command user.rename')
  })

  it('says so when no module keeps accounts', async () => {
    await using h = await testHost({ modules: [] })
    expect(await said(h, 'user.list')).to.equal('error: no module of example.org keeps accounts')
  })

  it('lets what is nobody’s mistake rise', async () => {
    await using h = await verona()
    await h.store.close()
    const failure = await run(h, 'user.add', 'romeo@example.org', 'pw').then(
      () => 'answered',
      () => 'rose',
    )
    expect(failure).to.equal('rose')
  })
})
