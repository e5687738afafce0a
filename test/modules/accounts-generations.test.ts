/** Generations: what tells one password of an account from the next, and one owner of a name from the next. */
import { pbkdf2Sync } from 'node:crypto'
import { expect } from 'chai'
import accounts from '../../modules/accounts/index.ts'
import { defineModule } from '../../server/module.ts'
import type { Store } from '../../server/storage/contract.ts'
import { openMemory } from '../../server/storage/memory.ts'
import { type TestHost, type TestHostOptions, testHost } from '../helpers/host.ts'
import { openFaulty } from '../robustness/faulty-store.ts'

const PASSWORD = 'r0m30myr0m30'

async function start(more: Partial<TestHostOptions> = {}): Promise<TestHost> {
  return testHost({ modules: [accounts], config: { accounts: { iterations: 4096 } }, ...more })
}
/** A host with juliet. */
async function withJuliet(store: Store, more: Partial<TestHostOptions> = {}): Promise<TestHost> {
  const host = await start({ store, ...more })
  await host.service('auth').create('juliet', PASSWORD)
  return host
}
const of = (host: TestHost, local = 'juliet') => host.service('auth').generations!.of(local)
const stored = (store: Store) => store.open('example.org', 'accounts').docs('accounts')
/** In the store now. */
const inStore = async (store: Store): Promise<unknown> =>
  (await stored(store).get('juliet', 'account'))?.['generation']

describe('accounts: generations', () => {
  it('another one for each password and each owner of a name, by the write that makes it', async () => {
    const store = await openMemory()
    await using host = await withJuliet(store)
    const auth = host.service('auth')
    const seen = [await of(host)]
    await auth.setPassword('juliet', 'another one')
    seen.push(await of(host))
    await auth.setPassword('juliet', 'another one')
    seen.push(await of(host))
    expect(await inStore(store)).to.equal(seen.at(-1))
    await auth.remove('juliet')
    expect(await of(host)).to.equal(undefined)
    await auth.create('juliet', PASSWORD)
    seen.push(await of(host))
    const keys = await auth.scramKeys('juliet', 'SHA-256')
    await auth.remove('juliet')
    await auth.scramStore!.create('juliet', new Map([['SHA-256', keys!]])) // the same keys, but somebody else
    seen.push(await of(host))
    expect(new Set(seen).size).to.equal(5)
    for (const generation of seen) expect(generation).to.match(/^[\w-]{16}$/)
  })

  it('stays when keys of one more hash are added, by the server or the client', async () => {
    const store = await openMemory()
    await using before = await withJuliet(store, {
      config: { accounts: { iterations: 4096, hashes: ['SHA-1'] } },
    })
    const generation = await of(before)
    await using host = await start({ store })
    const auth = host.service('auth')
    const upgrade = await auth.scramStore!.upgrade('juliet', 'SHA-512', generation)
    const { salt, iterations } = upgrade!
    const salted = pbkdf2Sync(PASSWORD, salt, iterations, 64, 'sha512')
    expect(await upgrade!.finish(salted)).to.equal('stored')
    expect(await auth.generations!.verify('juliet', PASSWORD)).to.equal(generation)
    expect((await auth.info('juliet'))?.['hashes']).to.equal('SHA-1, SHA-256, SHA-512')
    expect(await auth.generations!.read('juliet')).to.equal(generation)
  })

  it('keys are not added for the password of another one', async () => {
    const store = await openMemory()
    await using before = await withJuliet(store, {
      config: { accounts: { iterations: 4096, hashes: ['SHA-1'] } },
    })
    const generation = await of(before)
    await before.service('auth').setPassword('juliet', 'another one')
    await using host = await start({ store })
    const upgrades = host.service('auth').scramStore!
    expect(await upgrades.upgrade('juliet', 'SHA-512', generation)).to.equal(undefined)
    expect(await upgrades.upgrade('juliet', 'SHA-512', await of(host))).to.not.equal(undefined)
  })

  it('keys that were asked for under another one are not stored, even where all others are the same', async () => {
    const store = await openMemory()
    await using before = await withJuliet(store, {
      config: { accounts: { iterations: 4096, hashes: ['SHA-1'] } },
    })
    const keys = await before.service('auth').scramKeys('juliet', 'SHA-1')
    await using host = await start({ store })
    const auth = host.service('auth')
    const upgrade = await auth.scramStore!.upgrade('juliet', 'SHA-512', await of(host))
    await auth.remove('juliet')
    await auth.scramStore!.create('juliet', new Map([['SHA-1', keys!]]))
    expect(await upgrade!.finish(new Uint8Array(64))).to.equal('changed')
    expect((await auth.info('juliet'))?.['hashes']).to.equal('SHA-1')
  })

  it('comes with the keys and with the verdict on a password', async () => {
    await using host = await withJuliet(await openMemory())
    const { generations } = host.service('auth')
    const generation = await of(host)
    expect(await generations!.verify('juliet', PASSWORD)).to.equal(generation)
    expect(await generations!.verify('juliet', 'wrong')).to.equal(undefined)
    expect(await generations!.verify('nobody', PASSWORD)).to.equal(undefined)
    const keys = await host.service('auth').scramKeys('juliet', 'SHA-256')
    expect(await generations!.scramKeys('juliet', 'SHA-256')).to.deep.equal({ ...keys, generation })
    expect(await generations!.scramKeys('nobody', 'SHA-256')).to.equal(undefined)
  })

  it('of an account that was stored before there were any: empty, until its password is changed', async () => {
    const store = await openMemory()
    await using host = await withJuliet(store)
    const { generation, ...old } = (await stored(store).get('juliet', 'account')) ?? {}
    expect(generation).to.be.a('string')
    await stored(store).put('juliet', 'account', old)
    const auth = host.service('auth')
    expect(await auth.generations!.read('juliet')).to.equal('')
    expect(await auth.generations!.verify('juliet', PASSWORD)).to.equal('')
    expect(await of(host)).to.equal('')
    await auth.setPassword('juliet', 'another one')
    expect(await of(host)).to.match(/^[\w-]{16}$/)
  })

  it('is known without asking the store again, and at once when this process changes it', async () => {
    await using host = await withJuliet(await openMemory())
    const auth = host.service('auth')
    const first = of(host)
    expect(first).to.be.a('string')
    await auth.setPassword('juliet', 'another one')
    expect(of(host)).to.be.a('string').and.not.equal(first)
    await auth.remove('juliet')
    expect(of(host)).to.equal(undefined)
    await auth.create('romeo', PASSWORD)
    await host.clock.advance(10_000)
    expect(of(host, 'romeo')).to.be.instanceOf(Promise)
    await auth.verify('romeo', PASSWORD)
    expect(of(host, 'romeo')).to.be.a('string')
  })

  it('what another process writes: read at once, known at the next login, else within ten seconds', async () => {
    const store = await openMemory()
    await using host = await withJuliet(store)
    await using other = await start({ store })
    const old = await of(host)
    await other.service('auth').setPassword('juliet', 'another one')
    expect(await of(host)).to.equal(old)
    await host.clock.advance(10_000)
    expect(await of(host)).to.equal(await of(other))
    await other.service('auth').setPassword('juliet', 'a third one')
    expect(await host.service('auth').generations!.read('juliet')).to.equal(await of(other))
    expect(await of(host)).to.equal(await of(other))
    await other.service('auth').setPassword('juliet', 'a fourth one')
    await host.service('auth').scramKeys('juliet', 'SHA-1')
    expect(await of(host)).to.equal(await of(other))
  })

  it('an answer on its way is not older than what was written meanwhile', async () => {
    const store = await openFaulty()
    await using host = await withJuliet(store)
    await host.clock.advance(10_000)
    const old = await inStore(store)
    const gate = Promise.withResolvers<void>()
    Object.assign(store, { fault: { until: gate.promise, done: true }, only: /^accounts\.get$/ })
    const asked = of(host)
    store.fault = 'none'
    await host.service('auth').setPassword('juliet', 'another one')
    gate.resolve()
    expect(await asked)
      .to.equal(await inStore(store))
      .and.not.equal(old)
  })

  it('what a login has read is not remembered when it was written meanwhile', async () => {
    const store = await openFaulty()
    await using host = await withJuliet(store)
    const gate = Promise.withResolvers<void>()
    Object.assign(store, { fault: { until: gate.promise, done: true }, only: /^accounts\.get$/ })
    const keys = host.service('auth').generations!.scramKeys('juliet', 'SHA-256')
    store.fault = 'none'
    await host.service('auth').setPassword('juliet', 'another one')
    gate.resolve()
    expect((await keys)?.generation).to.not.equal(await inStore(store))
    expect(await of(host)).to.equal(await inStore(store))
  })

  it('of two writes that overlap none is remembered', async () => {
    const store = await openFaulty()
    await using host = await withJuliet(store)
    const gate = Promise.withResolvers<void>()
    Object.assign(store, { fault: { until: gate.promise, done: true }, only: /^accounts\.update$/ })
    const first = host.service('auth').setPassword('juliet', 'first')
    while (store.met === 0) await host.settle()
    store.fault = 'none'
    await host.service('auth').setPassword('juliet', 'second')
    gate.resolve()
    await first
    expect(await of(host)).to.equal(await inStore(store))
    expect(await host.service('auth').verify('juliet', 'second')).to.equal(true)
  })

  it('a write that failed, or may have: the store is asked', async () => {
    const store = await openFaulty()
    await using host = await withJuliet(store)
    const auth = host.service('auth')
    for (const fault of ['reject', 'unsure'] as const) {
      Object.assign(store, { fault, only: /^accounts\.update$/ })
      expect(await auth.setPassword('juliet', fault).catch(String)).to.contain('fault injected')
      store.fault = 'none'
      expect(await of(host)).to.equal(await inStore(store))
      expect(await auth.verify('juliet', fault)).to.equal(fault === 'unsure')
    }
  })

  it('a new password that was asked for under the last owner of the name is not that of the next', async () => {
    await using host = await withJuliet(await openMemory())
    const auth = host.service('auth')
    const keys = await auth.scramKeys('juliet', 'SHA-1')
    const changed = auth.setPassword('juliet', 'another one').catch((error: unknown) => error)
    await host.host.deleteAccount('juliet')
    await host.clock.advance(1)
    await auth.scramStore!.create('juliet', new Map([['SHA-1', keys!]]))
    expect(await changed).to.include({ condition: 'item-not-found' })
    expect(await auth.verify('juliet', 'another one')).to.equal(false)
    expect(await auth.verify('juliet', PASSWORD)).to.equal(true)
  })

  it('what could not be removed after a new password is told to the operator, and the password is new', async () => {
    const lines: string[] = []
    const keeper = defineModule({
      name: 'keeper',
      summary: 'test',
      specs: [],
      setup: (ctx) =>
        ctx.hook('account:password', { phase: 'store' }, () => Promise.reject(new Error('disk full'))),
    })
    await using host = await start({
      modules: [accounts, keeper],
      onLog: (level, message) => void lines.push(`${level} ${message}`),
    })
    await host.service('auth').create('juliet', PASSWORD)
    await host.service('auth').setPassword('juliet', 'another one')
    expect(await host.service('auth').verify('juliet', 'another one')).to.equal(true)
    expect(lines).to.deep.equal([
      'error hook account:password of module keeper failed',
      'warn void things of the old password could not be removed',
    ])
  })
})
