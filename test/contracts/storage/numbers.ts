/** Counters and leases. */
import { expect } from 'chai'
import { failure, range } from './kit.ts'
import type { Test } from './kit.ts'

/** Registers the group. */
export function numbersGroup(test: Test): void {
  test('a counter grows and never repeats, also under concurrent calls', async ({ storage }) => {
    const counter = storage.counter('c')
    expect(await counter.get('o')).to.equal(0)
    const first = await counter.next('o')
    expect(first).to.be.greaterThan(0)
    const many = await Promise.all(range(100).map(() => counter.next('o')))
    expect([...many].sort((a, b) => a - b)).to.deep.equal([...new Set(many)])
    expect(many[0]).to.be.greaterThan(first)
    expect(many.every(Number.isSafeInteger)).to.equal(true)
    expect(await counter.get('o')).to.equal(many.at(-1))
    expect(await counter.get('p')).to.equal(0)
  })

  test('a counter does not repeat after its owner was purged', async ({ store, host, storage }) => {
    const counter = storage.counter('c')
    let last = 0
    for (const round of range(3)) {
      for (const _ of range(5 + round)) {
        const value = await counter.next('o')
        expect(value).to.be.greaterThan(last)
        last = value
      }
      await store.purgeOwner(host, 'o')
      expect(await counter.get('o')).to.equal(0)
    }
  })

  test('a lease is granted to one holder until it expires', async ({ fresh }) => {
    let now = 1_000_000
    const { store } = await fresh({ now: () => now })
    const lease = store.open('h', 'm').lease('l')
    const a = await lease.acquire('k', 'a', 1000)
    expect(await lease.acquire('k', 'b', 1000)).to.equal(undefined)
    expect(await lease.get('k')).to.deep.equal({ holder: 'a', token: a!.token })
    now += 999
    expect(await lease.acquire('k', 'b', 1000)).to.equal(undefined)
    now += 1
    expect(await lease.get('k')).to.equal(undefined)
    expect(await lease.renew('k', a!.token, 1000)).to.equal(false)
    const b = await lease.acquire('k', 'b', 1000)
    expect(b!.token).to.be.greaterThan(a!.token)
    // Fencing: the late holder can do nothing.
    expect(await lease.renew('k', a!.token, 1000)).to.equal(false)
    await lease.release('k', a!.token)
    expect(await lease.get('k')).to.deep.equal({ holder: 'b', token: b!.token })
    expect(await lease.get('other')).to.equal(undefined)
    expect(await lease.acquire('other', 'a', 1)).to.not.equal(undefined)
  })

  test('a lease lasts as long as it is renewed', async ({ fresh }) => {
    let now = 1_000_000
    const { store } = await fresh({ now: () => now })
    const lease = store.open('h', 'm').lease('l')
    const { token } = (await lease.acquire('k', 'a', 1000))!
    for (const _ of range(5)) {
      now += 900
      expect(await lease.renew('k', token, 1000)).to.equal(true)
      expect(await lease.acquire('k', 'b', 1000)).to.equal(undefined)
    }
    expect(await lease.renew('k', token + 1, 1000)).to.equal(false)
    expect(await lease.renew('never', token, 1000)).to.equal(false)
    now += 1000
    expect(await lease.renew('k', token, 1000)).to.equal(false)
  })

  test('a lease that is released is free, and tokens go on growing', async ({ fresh }) => {
    let now = 1_000_000
    const { store } = await fresh({ now: () => now })
    const lease = store.open('h', 'm').lease('l')
    let last = 0
    for (const i of range(6)) {
      const { token } = (await lease.acquire('k', `holder ${i}`, 1000))!
      expect(token).to.be.greaterThan(last)
      last = token
      now += 10
      await lease.release('k', token)
      await lease.release('k', token)
      expect(await lease.renew('k', token, 1000)).to.equal(false)
      expect(await lease.get('k')).to.equal(undefined)
    }
  })

  test('the holder of a lease gets it again with a new token, and the old one is worth nothing', async ({
    storage,
  }) => {
    const lease = storage.lease('l')
    const first = (await lease.acquire('k', 'a', 60_000))!.token
    const second = (await lease.acquire('k', 'a', 60_000))!.token
    expect(second).to.be.greaterThan(first)
    expect(await lease.renew('k', first, 60_000)).to.equal(false)
    await lease.release('k', first)
    expect(await lease.renew('k', second, 60_000)).to.equal(true)
    expect(await lease.get('k')).to.deep.equal({ holder: 'a', token: second })
  })

  test('of many who want a lease one gets it', async ({ storage }) => {
    const lease = storage.lease('l')
    for (const key of ['', 'room:a@b', '\0', 'x'.repeat(3071), `${'x'.repeat(3070)}y`, '__proto__']) {
      const granted = await Promise.all(range(20).map((i) => lease.acquire(key, `holder ${i}`, 60_000)))
      expect(granted.filter((one) => one !== undefined)).to.have.length(1)
    }
  })

  test('a lease without a time to live is RangeError', async ({ storage }) => {
    const lease = storage.lease('l')
    for (const ttl of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(await failure(() => lease.acquire('k', 'a', ttl)), String(ttl)).to.be.instanceOf(RangeError)
      expect(await failure(() => lease.renew('k', 1, ttl)), String(ttl)).to.be.instanceOf(RangeError)
    }
  })
}
