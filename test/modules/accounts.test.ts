/** The service `auth` over the store: names, passwords, keys, decoys, and what is remembered. */
import { createHash, createHmac, pbkdf2Sync } from 'node:crypto'
import { expect } from 'chai'
import { defineModule, type ScramHash } from '../../server/module.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { openMemory } from '../../server/storage/memory.ts'
import accounts from '../../modules/accounts/index.ts'
import { ExistsCache } from '../../modules/accounts/exists-cache.ts'
import { Busy, KeyMaker, SHA_256 } from '../../modules/accounts/keys.ts'
import { type TestHost, type TestHostOptions, testHost } from '../helpers/host.ts'

const HASHES: readonly (readonly [ScramHash, string])[] = [
  ['SHA-1', 'sha1'],
  ['SHA-256', 'sha256'],
  ['SHA-512', 'sha512'],
]
const start = (iterations = 4096, more: Partial<TestHostOptions> = {}): Promise<TestHost> =>
  testHost({ modules: [accounts], config: { accounts: { iterations } }, ...more })

/** The condition a promise is refused with. */
const refusal = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'done',
    (error: unknown) => (error instanceof StanzaError ? error.condition : String(error)),
  )

async function collect(items: AsyncIterable<string>): Promise<string[]> {
  const found: string[] = []
  for await (const item of items) found.push(item)
  return found
}

describe('accounts: passwords', () => {
  it('RFC 5802 §3: keeps StoredKey and ServerKey for each hash, salted apart, not the password', async () => {
    const store = await openMemory()
    await using host = await start(4096, { store })
    const auth = host.service('auth')
    await auth.create('juliet', 'r0m30myr0m30')
    const salts = new Set<string>()
    for (const [hash, name] of HASHES) {
      const keys = await auth.scramKeys('juliet', hash)
      const length = createHash(name).digest().length
      const salted = pbkdf2Sync('r0m30myr0m30', keys!.salt, 4096, length, name)
      const clientKey = createHmac(name, salted).update('Client Key').digest()
      expect(keys!.iterations).to.equal(4096)
      expect(Buffer.from(keys!.storedKey)).to.deep.equal(createHash(name).update(clientKey).digest())
      expect(Buffer.from(keys!.serverKey)).to.deep.equal(
        createHmac(name, salted).update('Server Key').digest(),
      )
      expect(keys!.salt).to.have.length(16) // XEP-0438 §6.2
      salts.add(Buffer.from(keys!.salt).toString('hex'))
    }
    expect(salts.size).to.equal(3)
    const doc = await store.open('example.org', 'accounts').docs('accounts').get('juliet', 'account')
    for (const value of Object.values(doc ?? {}))
      if (value instanceof Uint8Array) expect(Buffer.from(value).includes('r0m30')).to.equal(false)
  })

  it('RFC 7622 §3.3, RFC 8265 §4.2: name and password are prepared', async () => {
    await using host = await start()
    const auth = host.service('auth')
    await auth.create('JULIET', 'pass\u00a0word\u0041\u030a')
    expect(await auth.exists('juliet')).to.equal(true)
    expect(await auth.verify('Juliet', 'pass word\u00c5')).to.equal(true)
    expect(await auth.verify('juliet', 'Pass word\u00c5')).to.equal(false)
  })

  it('refuses what is no name or no password', async () => {
    await using host = await start()
    const auth = host.service('auth')
    for (const name of ['', 'a b', 'a@b', 'a/b', '\u2163', 'x'.repeat(1024)])
      expect(await refusal(auth.create(name, 'r0m30myr0m30')), name).to.equal('not-acceptable')
    for (const password of ['', 'a\u0007b', 'x'.repeat(1025)])
      expect(await refusal(auth.create('juliet', password)), password).to.equal('not-acceptable')
    expect(await auth.exists('juliet')).to.equal(false)
    expect(await auth.verify('a@b', 'x')).to.equal(false)
    expect(await auth.verify('juliet', '')).to.equal(false)
  })

  it('verify: right, wrong, unknown', async () => {
    await using host = await start()
    const auth = host.service('auth')
    await auth.create('juliet', 'r0m30myr0m30')
    expect(await auth.verify('juliet', 'r0m30myr0m30')).to.equal(true)
    expect(await auth.verify('juliet', 'r0m30myr0m3O')).to.equal(false)
    expect(await auth.verify('nobody', 'r0m30myr0m30')).to.equal(false)
  })

  it('create: a conflict, also when two come at the same time', async () => {
    await using host = await start()
    const auth = host.service('auth')
    const both = await Promise.all([
      refusal(auth.create('juliet', 'r0m30myr0m30')),
      refusal(auth.create('Juliet', 'another one')),
    ])
    expect(both.toSorted()).to.deep.equal(['conflict', 'done'])
    const winner = both[0] === 'done' ? 'r0m30myr0m30' : 'another one'
    expect(await auth.verify('juliet', winner)).to.equal(true)
    expect(await refusal(auth.create('juliet', 'third'))).to.equal('conflict')
  })

  it('setPassword: new salts, the creation stays, others are told', async () => {
    const changed: string[] = []
    const listener = defineModule({
      name: 'listener',
      summary: 'test',
      specs: [],
      setup: (ctx) =>
        ctx.hook(
          'account:password',
          { phase: 'observe' },
          ({ account }) => void changed.push(account.toString()),
        ),
    })
    await using host = await start(4096, { modules: [accounts, listener] })
    const auth = host.service('auth')
    await auth.create('juliet', 'r0m30myr0m30')
    const before = await auth.scramKeys('juliet', 'SHA-256')
    await host.clock.advance(5000)
    await auth.setPassword('Juliet', 'n3w password')
    const after = await auth.scramKeys('juliet', 'SHA-256')
    expect(Buffer.from(after!.salt).equals(Buffer.from(before!.salt))).to.equal(false) // XEP-0438 §6.3
    expect(await auth.verify('juliet', 'n3w password')).to.equal(true)
    expect(await auth.verify('juliet', 'r0m30myr0m30')).to.equal(false)
    expect(await auth.info('juliet')).to.deep.equal({
      created: '2026-01-01T00:00:00.000Z',
      changed: '2026-01-01T00:00:05.000Z',
      iterations: 4096,
      hashes: 'SHA-1, SHA-256, SHA-512',
    })
    expect(changed).to.deep.equal(['juliet@example.org'])
    expect(await refusal(auth.setPassword('nobody', 'n3w password'))).to.equal('item-not-found')
    expect(await auth.exists('nobody')).to.equal(false)
  })

  it('list, info, remove', async () => {
    await using host = await start()
    const auth = host.service('auth')
    await auth.create('juliet', 'r0m30myr0m30')
    await auth.create('romeo', 'jul1et')
    expect((await collect(auth.list())).toSorted()).to.deep.equal(['juliet', 'romeo'])
    expect(await auth.info('nobody')).to.equal(undefined)
    expect(await auth.remove('Juliet')).to.equal(true)
    expect(await auth.remove('juliet')).to.equal(false)
    expect(await auth.remove('not a name@')).to.equal(false)
    expect(await collect(auth.list())).to.deep.equal(['romeo'])
    expect(await auth.verify('juliet', 'r0m30myr0m30')).to.equal(false)
  })

  it('deleting an account removes its credentials', async () => {
    await using host = await start()
    await host.service('auth').create('juliet', 'r0m30myr0m30')
    await host.host.deleteAccount('juliet')
    expect(await host.service('auth').exists('juliet')).to.equal(false)
  })

  it('one that is made while its last owner is still being removed stays', async () => {
    const { promise, resolve } = Promise.withResolvers<void>()
    let removals = 0
    const slow = defineModule({
      name: 'slow',
      summary: 'takes its time with the first removal',
      specs: [],
      setup: (ctx) =>
        ctx.hook('account:deleted', { phase: 'observe' }, () => (removals++ === 0 ? promise : undefined)),
    })
    await using host = await testHost({
      modules: [accounts, slow],
      config: { accounts: { iterations: 4096 } },
    })
    const auth = host.service('auth')
    await auth.create('juliet', 'r0m30myr0m30')
    const keys = await auth.scramKeys('juliet', 'SHA-1')
    const removal = host.host.deleteAccount('juliet')
    await host.settle()
    const made = auth.scramStore!.create('juliet', new Map([['SHA-1', keys!]]))
    await host.settle()
    resolve()
    await Promise.all([removal, made])
    expect(removals).to.equal(2)
    expect(await auth.info('juliet')).to.not.equal(undefined)
  })

  it('of two that want the name of a removed account at the same time one has it, and keeps it', async () => {
    const gates: (() => void)[] = []
    const slow = defineModule({
      name: 'slow',
      summary: 'takes its time with removals',
      specs: [],
      setup: (ctx) =>
        ctx.hook(
          'account:deleted',
          { phase: 'observe' },
          () => new Promise<void>((resolve) => gates.push(resolve)),
        ),
    })
    await using host = await testHost({
      modules: [accounts, slow],
      config: { accounts: { iterations: 4096 } },
    })
    const auth = host.service('auth')
    await auth.create('juliet', 'r0m30myr0m30')
    const keys = new Map([['SHA-1', (await auth.scramKeys('juliet', 'SHA-1'))!]] as const)
    await auth.remove('juliet')
    const made = [1, 2].map(() => refusal(auth.scramStore!.create('juliet', keys)))
    await host.settle()
    for (const open of gates) {
      open()
      await host.settle()
    }
    expect(await Promise.all(made)).to.have.members(['done', 'conflict'])
    expect(await auth.verify('juliet', 'r0m30myr0m30')).to.equal(true)
  })

  it('derivations beyond what can wait are refused', async () => {
    const maker = new KeyMaker()
    const salt = Buffer.alloc(16)
    const jobs = Array.from({ length: 300 }, () => maker.keys(SHA_256, 'x', salt, 1))
    const results = await Promise.allSettled(jobs)
    const refused = results.filter((result) => result.status === 'rejected')
    expect(refused).to.have.length(300 - 2 - 256)
    expect(refused.every((result) => result.reason instanceof Busy)).to.equal(true)
    expect((await maker.keys(SHA_256, 'x', salt, 1)).storedKey).to.have.length(32)
  })

  it('after unload there is no service', async () => {
    await using host = await start()
    await host.unload('accounts')
    expect(host.host.service('auth')).to.equal(undefined)
  })
})

describe('accounts: decoys (RFC 6120 §6.5.10)', () => {
  it('the same each time, for each name and hash others, of the size of real keys', async () => {
    await using host = await start()
    const auth = host.service('auth')
    const seen = new Set<string>()
    for (const [hash, name] of HASHES) {
      for (const local of ['nobody', 'noone']) {
        const keys = auth.decoyKeys(local, hash)
        expect(auth.decoyKeys(local, hash)).to.deep.equal(keys)
        const length = createHash(name).digest().length
        expect([keys.salt.length, keys.storedKey.length, keys.serverKey.length]).to.deep.equal([
          16,
          length,
          length,
        ])
        for (const part of [keys.salt, keys.storedKey, keys.serverKey])
          seen.add(Buffer.from(part).toString('hex'))
      }
    }
    expect(seen.size).to.equal(18)
  })

  it('the same after a restart, others on another host', async () => {
    const store = await openMemory()
    const salts: string[] = []
    for (const domain of ['example.org', 'example.org', 'example.com']) {
      await using host = await start(4096, { store, domain })
      salts.push(Buffer.from(host.service('auth').decoyKeys('nobody', 'SHA-256').salt).toString('hex'))
    }
    expect(salts[0]).to.equal(salts[1])
    expect(salts[0]).to.not.equal(salts[2])
  })

  it('claim the iteration counts that accounts have, also old ones', async () => {
    const store = await openMemory()
    const counts = async (iterations: number): Promise<Map<number, number>> => {
      await using host = await start(iterations, { store })
      await host.service('auth').create(`user-${iterations}`, 'r0m30myr0m30')
      const found = new Map<number, number>()
      for (let i = 0; i < 200; i++) {
        const [one, two] = (['SHA-1', 'SHA-512'] as const).map(
          (hash) => host.service('auth').decoyKeys(`user${i}`, hash).iterations,
        )
        expect(one).to.equal(two)
        found.set(one ?? 0, (found.get(one ?? 0) ?? 0) + 1)
      }
      return found
    }
    expect([...(await counts(4096)).keys()]).to.deep.equal([4096])
    const mixed = await counts(5000)
    expect([...mixed.keys()]).to.have.members([4096, 5000])
    expect(Math.min(...mixed.values())).to.be.greaterThan(60)
  })
})

describe('accounts: exists', () => {
  it('answers without a promise once it knows, for a while', async () => {
    await using host = await start()
    const auth = host.service('auth')
    await auth.create('juliet', 'r0m30myr0m30')
    expect(auth.exists('juliet')).to.equal(true)
    expect(auth.exists('nobody')).to.be.instanceOf(Promise)
    await host.settle()
    expect(auth.exists('nobody')).to.equal(false)
    await host.clock.advance(10_000)
    expect(auth.exists('juliet')).to.be.instanceOf(Promise)
    expect(await auth.exists('juliet')).to.equal(true)
  })

  it('sees what another process adds within two seconds, at login at once, and what it removes within ten', async () => {
    const store = await openMemory()
    await using host = await start(4096, { store })
    await using other = await start(4096, { store })
    const [here, there] = [host.service('auth'), other.service('auth')]
    expect(await here.exists('juliet')).to.equal(false)
    await there.create('juliet', 'r0m30myr0m30')
    expect(await here.exists('juliet')).to.equal(false)
    await host.clock.advance(2000)
    expect(await here.exists('juliet')).to.equal(true)

    expect(await here.exists('romeo')).to.equal(false)
    await there.create('romeo', 'jul1et')
    expect(await here.verify('romeo', 'jul1et')).to.equal(true)
    expect(await here.exists('romeo')).to.equal(true)

    await there.remove('romeo')
    await host.clock.advance(10_000)
    expect(await here.exists('romeo')).to.equal(false)
  })

  it('is bounded, and unknown names do not push known ones out', () => {
    const cache = new ExistsCache(() => 0)
    cache.set('juliet', true)
    for (let i = 0; i < 30_000; i++) cache.set(`nobody${i}`, false)
    expect(cache.size).to.equal(20_001)
    expect(cache.get('juliet')).to.equal(true)
    for (let i = 0; i < 30_000; i++) cache.set(`user${i}`, true)
    expect(cache.size).to.equal(40_000)
    expect(cache.get('juliet')).to.equal(undefined)
  })
})
