/** accounts: which hashes an account has keys for, keys from elsewhere, and what is said of both. */
import { expect } from 'chai'
import accounts from '../../modules/accounts/index.ts'
import { type AccountDoc, fieldsOf, HASHES, keysFrom } from '../../modules/accounts/keys.ts'
import { type HostDoc, indexed, Profiles } from '../../modules/accounts/profiles.ts'
import type { AuthService, ScramHash, ScramKeys } from '../../server/module.ts'
import type { Store } from '../../server/storage/contract.ts'
import { openMemory } from '../../server/storage/memory.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { type TestHost, testHost } from '../helpers/host.ts'

const ALL: readonly ScramHash[] = ['SHA-1', 'SHA-256', 'SHA-512']
const PASSWORD = 'r0m30myr0m30'

const hostWith = (store: Store, hashes: readonly ScramHash[], iterations = 4096): Promise<TestHost> =>
  testHost({ modules: [accounts], config: { accounts: { iterations, hashes } }, store })

/** Accounts made while new passwords got keys of these hashes. */
async function withAccounts(
  ...groups: readonly (readonly [local: string, ...ScramHash[]])[]
): Promise<Store> {
  const store = await openMemory()
  for (const [local, ...hashes] of groups) {
    await using host = await hostWith(store, hashes)
    await host.service('auth').create(local, PASSWORD)
  }
  return store
}
const has = async (auth: AuthService, local: string): Promise<string> =>
  [...((await auth.scramStore?.hashesOf(local)) ?? [])].join(' ')
const refusal = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'done',
    (error: unknown) => (error instanceof StanzaError ? error.condition : String(error)),
  )
/** Keys as another server has made them. */
async function keysOf(hash: ScramHash, iterations = 4096): Promise<ScramKeys> {
  await using host = await hostWith(await openMemory(), [hash], iterations)
  await host.service('auth').create('somebody', PASSWORD)
  return (await host.service('auth').scramKeys('somebody', hash))!
}

describe('accounts: hashes', () => {
  it('new passwords get keys for those of the configuration', async () => {
    await using host = await hostWith(await openMemory(), ['SHA-512', 'SHA-1'])
    const auth = host.service('auth')
    await auth.create('juliet', PASSWORD)
    expect(await auth.scramKeys('juliet', 'SHA-256')).to.equal(undefined)
    expect((await auth.scramKeys('juliet', 'SHA-512'))!.storedKey).to.have.length(64)
    expect(auth.scramHashes).to.deep.equal(['SHA-1', 'SHA-512'])
    expect((await auth.info('juliet'))!['hashes']).to.equal('SHA-1, SHA-512')
  })

  it('scramHashes: what all accounts have, also after a restart, and with accounts that come and go', async () => {
    const store = await withAccounts(['juliet', 'SHA-1'], ['romeo', ...ALL], ['tybalt', 'SHA-1', 'SHA-512'])
    await using host = await hostWith(store, ALL)
    const auth = host.service('auth')
    expect(auth.scramHashes).to.deep.equal(['SHA-1'])
    await host.host.deleteAccount('juliet')
    await host.settle()
    expect(auth.scramHashes).to.deep.equal(['SHA-1', 'SHA-512'])
    await auth.setPassword('tybalt', PASSWORD)
    await host.settle()
    expect(auth.scramHashes).to.deep.equal(ALL)
    await auth.scramStore!.create('juliet', new Map([['SHA-256', await keysOf('SHA-256')]]))
    expect(auth.scramHashes).to.deep.equal(['SHA-256'])
  })

  it('no hash in common: none is offered to everybody', async () => {
    await using host = await hostWith(await withAccounts(['juliet', 'SHA-1'], ['romeo', 'SHA-512']), [
      'SHA-256',
    ])
    expect(host.service('auth').scramHashes).to.deep.equal([])
    expect(await has(host.service('auth'), 'juliet')).to.equal('SHA-1')
  })

  it('verify: with whatever hash the account has, and then it has all (the password is known, for once)', async () => {
    for (const hash of ALL) {
      await using host = await hostWith(await withAccounts(['juliet', hash]), ALL)
      const auth = host.service('auth')
      const before = await auth.scramKeys('juliet', hash)
      expect(await auth.verify('juliet', 'wrong'), hash).to.equal(false)
      expect(await has(auth, 'juliet')).to.equal(hash)
      expect(await auth.verify('juliet', PASSWORD), hash).to.equal(true)
      expect(await auth.scramKeys('juliet', hash)).to.deep.equal(before)
      expect((await auth.info('juliet'))!['hashes']).to.equal(ALL.join(', '))
      expect(await auth.verify('juliet', PASSWORD)).to.equal(true)
      await host.settle()
      expect(auth.scramHashes).to.deep.equal(ALL)
    }
  })

  it('hashesOf: what the account has; without a promise where all have the same', async () => {
    await using same = await hostWith(await withAccounts(['juliet', ...ALL]), ALL)
    for (const local of ['juliet', 'nobody'])
      expect(same.service('auth').scramStore!.hashesOf(local)).to.deep.equal(ALL)
    await using host = await hostWith(await withAccounts(['juliet', 'SHA-1'], ['romeo', ...ALL]), ALL)
    expect(await has(host.service('auth'), 'juliet')).to.equal('SHA-1')
    expect(await has(host.service('auth'), 'romeo')).to.equal(ALL.join(' '))
  })

  it('RFC 5802 §9: names without account claim what accounts have: hashes with their own iteration counts', async () => {
    const store = await withAccounts(['romeo', ...ALL])
    const real = new Map([['SHA-1', await keysOf('SHA-1', 5000)] as const])
    await using host = await hostWith(store, ALL, 6000)
    const auth = host.service('auth')
    await auth.scramStore!.create('juliet', real)
    const upgrade = await auth.scramStore!.upgrade('juliet', 'SHA-256')
    expect(await upgrade!.finish(Buffer.alloc(32, 1))).to.equal('stored')
    await auth.create('tybalt', PASSWORD)
    await host.settle()
    const claims = async (local: string): Promise<string> => {
      const hashes = (await auth.scramStore!.hashesOf(local)) as ScramHash[]
      const keys = hashes.map(
        async (hash) => (await auth.scramKeys(local, hash)) ?? auth.decoyKeys(local, hash),
      )
      return (await Promise.all(keys)).map(({ iterations }, i) => `${hashes[i]}:${iterations}`).join(' ')
    }
    const accountsClaim = await Promise.all(['romeo', 'juliet', 'tybalt'].map(claims))
    expect(accountsClaim).to.deep.equal([
      'SHA-1:4096 SHA-256:4096 SHA-512:4096',
      'SHA-1:5000 SHA-256:6000',
      'SHA-1:6000 SHA-256:6000 SHA-512:6000',
    ])
    const names = Array.from({ length: 60 }, (_, i) => `nobody${i}`)
    const before = await Promise.all(names.map(claims))
    expect(new Set(before)).to.deep.equal(new Set(accountsClaim))
    // who claims what others have goes on doing so when a kind disappears
    await auth.remove('romeo')
    await host.settle()
    const after = await Promise.all(names.map(claims))
    expect(new Set(after)).to.deep.equal(new Set(accountsClaim.slice(1)))
    for (const [i, claim] of before.entries())
      if (claim !== accountsClaim[0]) expect(after[i]).to.equal(claim)
  })

  it('another process adds accounts with keys of other hashes: seen within a minute', async () => {
    const store = await withAccounts(['romeo', ...ALL])
    await using host = await hostWith(store, ALL)
    await using other = await hostWith(store, ALL)
    await other.service('auth').scramStore!.create('juliet', new Map([['SHA-1', await keysOf('SHA-1')]]))
    expect(host.service('auth').scramHashes).to.deep.equal(ALL)
    await host.clock.advance(60_000)
    expect(host.service('auth').scramHashes).to.deep.equal(['SHA-1'])
    expect(await has(host.service('auth'), 'juliet')).to.equal('SHA-1')
    await other.service('auth').verify('juliet', PASSWORD)
    await host.clock.advance(60_000)
    expect(host.service('auth').scramHashes).to.deep.equal(ALL)
  })

  it('an account that is stored while somebody looks elsewhere is not overlooked', async () => {
    const storage = (await openMemory()).open('example.org', 'accounts')
    const docs = storage.docs<AccountDoc>('accounts', { index: ['hashes', 'profile'] })
    const gate = Promise.withResolvers<void>()
    let looks = 0
    const slow: typeof docs = {
      ...docs,
      async *find(field, value) {
        yield* docs.find(field, value)
        // behind the first look at accounts that have SHA-1 only
        if (value === 'SHA-1' && ++looks === 1) await gate.promise
      },
    }
    const own = new Map(ALL.map((hash) => [hash, 4096] as const))
    const profiles = new Profiles(slow, storage.docs<HostDoc>('host'), own)
    const opened = profiles.open()
    while (looks === 0) await Promise.resolve()
    const [sha1] = HASHES
    const doc = indexed(fieldsOf(keysFrom(sha1!, Buffer.alloc(20), Buffer.alloc(16), 4096), sha1!))
    await profiles.writing(doc, () => docs.put('juliet', 'account', doc))
    gate.resolve()
    await opened
    expect(profiles.common).to.deep.equal(['SHA-1'])
  })

  it('more kinds of accounts than are remembered: what all have stays right', async () => {
    await using host = await hostWith(await openMemory(), ALL)
    const auth = host.service('auth')
    const keys = await keysOf('SHA-1')
    for (let i = 0; i < 20; i++)
      await auth.scramStore!.create(`user${i}`, new Map([['SHA-1', { ...keys, iterations: 4096 + i }]]))
    expect(auth.scramHashes).to.deep.equal(['SHA-1'])
    for (let i = 4; i < 20; i++) await auth.remove(`user${i}`)
    await host.clock.advance(60_000)
    expect(auth.scramHashes).to.deep.equal(['SHA-1'])
    for (let i = 0; i < 4; i++) await auth.remove(`user${i}`)
    await host.settle()
    expect(auth.scramHashes).to.deep.equal(ALL)
  })
})

describe('accounts: keys from elsewhere', () => {
  it('make an account that can log in, and no second one of that name', async () => {
    await using host = await hostWith(await openMemory(), ALL)
    const auth = host.service('auth')
    const keys = new Map([
      ['SHA-1', await keysOf('SHA-1')] as const,
      ['SHA-512', await keysOf('SHA-512', 5000)] as const,
    ])
    await auth.scramStore!.create('Juliet', keys)
    expect(await auth.scramKeys('juliet', 'SHA-512')).to.deep.equal(keys.get('SHA-512'))
    expect(await auth.exists('juliet')).to.equal(true)
    expect(await refusal(auth.scramStore!.create('juliet', keys))).to.equal('conflict')
    expect(await refusal(auth.create('juliet', PASSWORD))).to.equal('conflict')
    expect(await auth.verify('juliet', PASSWORD)).to.equal(true)
  })

  it('of the wrong size, too few or too many iterations (RFC 7677 §4), or none at all: refused', async () => {
    await using host = await hostWith(await openMemory(), ALL)
    const store = host.service('auth').scramStore!
    const keys = await keysOf('SHA-1')
    for (const wrong of [
      { ...keys, iterations: 4095 },
      { ...keys, iterations: 10_000_001 },
      { ...keys, iterations: 4096.5 },
      { ...keys, iterations: Number.NaN },
      { ...keys, salt: new Uint8Array() },
      { ...keys, salt: new Uint8Array(1025) },
      { ...keys, storedKey: keys.storedKey.subarray(1) },
      { ...keys, serverKey: new Uint8Array(32) },
    ])
      expect(await refusal(store.create('juliet', new Map([['SHA-1', wrong]])))).to.equal('not-acceptable')
    expect(await refusal(store.create('juliet', new Map()))).to.equal('not-acceptable')
    expect(await refusal(store.create('a@b', new Map([['SHA-1', keys]])))).to.equal('not-acceptable')
    expect(await host.service('auth').exists('juliet')).to.equal(false)
  })

  it('upgrade: for an account that lacks a wanted hash, of the right length only', async () => {
    await using host = await hostWith(await withAccounts(['juliet', 'SHA-1']), ['SHA-1', 'SHA-256'])
    const store = host.service('auth').scramStore!
    for (const [local, hash] of [
      ['juliet', 'SHA-1'],
      ['juliet', 'SHA-512'],
      ['nobody', 'SHA-256'],
    ] as const)
      expect(await store.upgrade(local, hash), `${local} ${hash}`).to.equal(undefined)
    const upgrade = await store.upgrade('juliet', 'SHA-256')
    expect(upgrade!.bytes).to.equal(32)
    expect(await refusal(upgrade!.finish(Buffer.alloc(31)))).to.contain('RangeError')
    expect(await has(host.service('auth'), 'juliet')).to.equal('SHA-1')
    expect(await upgrade!.finish(Buffer.alloc(32))).to.equal('stored')
    expect(await upgrade!.finish(Buffer.alloc(32, 1))).to.equal('present')
  })
})
